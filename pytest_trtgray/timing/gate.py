"""The timing verdict: numpy and scipy only.

The unit of replication is the *run* (one CI job), not the iteration: iterations of one process agree with
each other far better than processes or days do. A baseline therefore keeps runs, each with a location and a
standard error per layer, and a new run is judged against the spread *between* runs:

* within a session, a layer's time is the logarithm of a clipped mean;
* the shift that all layers share (clocks, driver) is taken out, so that one slower layer and a slower
  machine are different verdicts;
* a layer's variance between runs is shared with the other layers' (empirical Bayes), because three to ten
  runs say little about one layer;
* the error over all layers is held by Holm's method;
* "slower" needs significance *and* a change beyond the tolerance; "pass" needs that a slowdown worth
  detecting is excluded; everything else is *inconclusive*.

With fewer than ``MIN_RUNS`` runs in the baseline nothing can be "slower": one run does not tell how much
runs differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from pytest_trtgray.engines.model import Layer
from pytest_trtgray.findings import Finding
from pytest_trtgray.structure.matching import KEY_SEPARATOR, layer_keys

Outcome = Literal["pass", "slower", "faster", "inconclusive", "new", "gone"]
Floats = NDArray[np.float64]

SCHEMA = 1
MIN_RUNS = 3
MAX_RUNS = 20
MUST_DETECT_LAYER = 0.10
"""A layer passes if a slowdown of this much is excluded (95 %)."""
MUST_DETECT_ENGINE = 0.05
MATTERS = 0.005
"""A layer whose possible slowdown costs the engine less than this share is not worth an *inconclusive*."""
PRIOR_DF = 4.0
PRIOR_LAYER_SD = 0.01
PRIOR_ENGINE_SD = 0.01
LONE_LAYER_SD = 0.06
"""Between processes a layer moves by up to 6 % (99th percentile, NVIDIA H200); one run knows no better."""
LONE_ENGINE_SD = 0.03
MIN_CHANGE_US = 0.05
"""Less than one or two ticks of the profiler's clock is no slowdown that anyone could want to hear of."""
FLOOR_US = 1e-3
"""Layers of 0 us exist; a logarithm needs more. A thirtieth of the profiler's tick."""
BATCHES = 8


@dataclass(frozen=True)
class Session:
    """One execution context's times, summarised.

    Attributes:
        layers: key of each layer.
        log_us: log of each layer's location, microseconds.
        log_se: standard error of ``log_us``.
        engine_log_us: the same of the whole engine, measured without a profiler (of the layers' sum where
            it was not measured).
        engine_log_se: its standard error.
        iterations: how many were summarised.
        clock_mhz: SM clock, if it was read.
        disturbed: why this session must not be trusted, empty if it may.
    """

    layers: tuple[str, ...]
    log_us: tuple[float, ...]
    log_se: tuple[float, ...]
    engine_log_us: float
    engine_log_se: float
    iterations: int
    clock_mhz: float | None = None
    disturbed: str = ""

    @classmethod
    def from_samples(
        cls,
        layer_us: ArrayLike,
        latency_us: ArrayLike | None = None,
        *,
        layers: Sequence[str | Layer],
        clock_mhz: float | None = None,
        disturbed: bool | str = False,
    ) -> Session:
        """Summarise samples.

        Args:
            layer_us: times of shape (iterations, layers), microseconds.
            latency_us: times of the whole engine, shape (iterations,), measured in another context.
            layers: a name or a layer a column.
            clock_mhz: SM clock during the session.
            disturbed: whether (or why) the machine was disturbed.

        Raises:
            ValueError: NaN, infinite or negative times, no iterations, or a column without a layer.
        """
        samples = _checked(layer_us, "layer_us", dimensions=2)
        if samples.shape[1] != len(layers):
            raise ValueError(f"layer_us has {samples.shape[1]} columns for {len(layers)} layers")
        keys = _keys(layers)
        located = [_locate(samples[:, column]) for column in range(samples.shape[1])]
        whole = samples.sum(axis=1) if latency_us is None else _checked(latency_us, "latency_us", dimensions=1)
        engine = _locate(whole)
        why = disturbed if isinstance(disturbed, str) else "the machine was disturbed" if disturbed else ""
        return cls(
            layers=keys,
            log_us=tuple(place for place, _ in located),
            log_se=tuple(error for _, error in located),
            engine_log_us=engine[0],
            engine_log_se=engine[1],
            iterations=int(samples.shape[0]),
            clock_mhz=clock_mhz,
            disturbed=why,
        )


@dataclass(frozen=True)
class Run:
    """Sessions of one job; a run is what a baseline counts.

    Attributes:
        sessions: at least one, all over the same layers.
        context: recorded and shown, never judged: driver, clocks, host, commit, time.
    """

    sessions: tuple[Session, ...]
    context: Mapping[str, str] = field(default_factory=dict)

    def __init__(self, sessions: Iterable[Session], context: Mapping[str, str] | None = None) -> None:
        kept = tuple(sessions)
        if not kept:
            raise ValueError("a run needs at least one session")
        if any(session.layers != kept[0].layers for session in kept):
            raise ValueError("the sessions of a run must have the same layers")
        object.__setattr__(self, "sessions", kept)
        object.__setattr__(self, "context", dict(context or {}))

    @property
    def layers(self) -> tuple[str, ...]:
        """Key of each layer."""
        return self.sessions[0].layers

    @property
    def disturbed(self) -> str:
        """Why the run must not be trusted."""
        return next((session.disturbed for session in self.sessions if session.disturbed), "")

    @property
    def iterations(self) -> int:
        """Iterations of all sessions."""
        return sum(session.iterations for session in self.sessions)

    def in_order(self, layers: Sequence[str]) -> Run:
        """The same run with its layers in another order."""
        columns = [self.layers.index(key) for key in layers]
        return Run(
            (
                replace(
                    session,
                    layers=tuple(layers),
                    log_us=tuple(session.log_us[column] for column in columns),
                    log_se=tuple(session.log_se[column] for column in columns),
                )
                for session in self.sessions
            ),
            self.context,
        )

    def location(self) -> Floats:
        """Log microseconds of each layer, the mean over sessions."""
        return np.asarray(np.mean([session.log_us for session in self.sessions], axis=0))

    def error(self) -> Floats:
        """Standard error of :meth:`location` within the run."""
        return np.asarray(np.sqrt(np.mean(np.square([s.log_se for s in self.sessions]), axis=0) / len(self.sessions)))

    def engine(self) -> float:
        """Log microseconds of the engine."""
        return float(np.mean([session.engine_log_us for session in self.sessions]))


@dataclass(frozen=True)
class RunSummary:
    """A run as a baseline keeps it: no samples."""

    log_us: tuple[float, ...]
    log_se: tuple[float, ...]
    engine_log_us: float
    engine_log_se: float
    sessions: int
    iterations: int
    clock_mhz: float | None
    context: Mapping[str, str]


@dataclass(frozen=True)
class Baseline:
    """Runs over the same layers, oldest first; at most :data:`MAX_RUNS`.

    Attributes:
        layers: key of each layer.
        runs: what is kept of each run.
    """

    layers: tuple[str, ...]
    runs: tuple[RunSummary, ...]

    def __init__(
        self, runs: Iterable[Run] = (), *, layers: Sequence[str] = (), kept: Iterable[RunSummary] = ()
    ) -> None:
        summaries = [*kept]
        keys = tuple(layers)
        for run in runs:
            keys = keys or run.layers
            if run.layers != keys:
                raise ValueError("the runs of a baseline must have the same layers; start a new baseline")
            summaries.append(_summary(run))
        if not summaries:
            raise ValueError("a baseline needs at least one run")
        object.__setattr__(self, "layers", keys)
        object.__setattr__(self, "runs", tuple(summaries[-MAX_RUNS:]))

    def with_run(self, run: Run) -> Baseline:
        """This baseline and one run more; a new one if the run has other layers (their order does not count)."""
        if set(run.layers) != set(self.layers):
            return Baseline([run])
        return Baseline([run.in_order(self.layers)], layers=self.layers, kept=self.runs)

    def to_dict(self) -> dict[str, Any]:
        """Builtins for JSON."""
        return {
            "layers": list(self.layers),
            "runs": [
                {
                    "log_us": [round(value, 5) for value in run.log_us],
                    "log_se": [round(value, 5) for value in run.log_se],
                    "engine_log_us": round(run.engine_log_us, 6),
                    "engine_log_se": round(run.engine_log_se, 6),
                    "sessions": run.sessions,
                    "iterations": run.iterations,
                    "clock_mhz": run.clock_mhz,
                    "context": dict(run.context),
                }
                for run in self.runs
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Baseline:
        """The inverse of :meth:`to_dict`.

        Raises:
            KeyError, TypeError, ValueError: not what :meth:`to_dict` writes.
        """
        layers = tuple(str(key) for key in data["layers"])
        kept = []
        for run in data["runs"]:
            summary = RunSummary(
                log_us=_numbers(run["log_us"], len(layers)),
                log_se=_numbers(run["log_se"], len(layers)),
                engine_log_us=_numbers([run["engine_log_us"]], 1)[0],
                engine_log_se=_numbers([run["engine_log_se"]], 1)[0],
                sessions=int(run["sessions"]),
                iterations=int(run["iterations"]),
                clock_mhz=None if run["clock_mhz"] is None else float(run["clock_mhz"]),
                context={str(key): str(value) for key, value in dict(run["context"]).items()},
            )
            kept.append(summary)
        return cls(layers=layers, kept=kept)


@dataclass(frozen=True)
class Judgement:
    """The verdict on one layer, or on the engine.

    Attributes:
        key: of the layer; ``engine``.
        outcome: see :data:`Outcome`.
        before_us: baseline, microseconds; ``None`` for a new layer.
        after_us: now.
        change: relative, after the shift that all layers share was taken out (0.1 is 10 % slower).
        low: lower end of the 95 % confidence interval of ``change``.
        high: upper end.
        p_value: of "not slower", corrected for the number of layers.
    """

    key: str
    outcome: Outcome
    before_us: float | None
    after_us: float | None
    change: float = 0.0
    low: float = 0.0
    high: float = 0.0
    p_value: float = 1.0


@dataclass(frozen=True)
class Verdict:
    """The verdict on a run.

    Attributes:
        outcome: ``slower`` if the engine or a layer is; ``inconclusive`` if something that matters is.
        engine: the whole engine.
        layers: in the order of the new run, then those that are gone.
        sessions: spent on the new run, second look included.
        baseline_runs: how many runs it was judged against.
        reason: for *inconclusive*, why.
        findings: what a report shows.
    """

    outcome: Outcome
    engine: Judgement
    layers: tuple[Judgement, ...]
    sessions: int
    baseline_runs: int
    reason: str
    findings: tuple[Finding, ...]


def judge(
    baseline: Baseline,
    run: Run,
    *,
    false_alarm_rate: float = 0.01,
    layer_tolerance: float = 0.03,
    engine_tolerance: float = 0.02,
    more: Callable[[], Iterable[Session]] | None = None,
) -> Verdict:
    """Judge a run against a baseline.

    Args:
        baseline: earlier runs on the same hardware with the same method.
        run: the new run.
        false_alarm_rate: chance that a run without any change fails, over all layers and the engine.
        layer_tolerance: a layer may be slower by this much (0.03 is 3 %).
        engine_tolerance: the engine may be slower by this much.
        more: returns further sessions; called once, before anything may fail or stay inconclusive.

    Raises:
        ValueError: a rate or tolerance is out of range.
    """
    if not 0 < false_alarm_rate < 1 or layer_tolerance < 0 or engine_tolerance < 0:
        raise ValueError("false_alarm_rate must lie in (0, 1), tolerances must not be negative")
    limits = _Limits(false_alarm_rate / 2, layer_tolerance, engine_tolerance)
    verdict = _judge_once(baseline, run, limits)
    if more is not None and verdict.outcome in ("slower", "inconclusive") and len(baseline.runs) >= MIN_RUNS:
        longer = Run((*run.sessions, *more()), run.context)
        verdict = _judge_once(baseline, longer, limits)
    return verdict


@dataclass(frozen=True)
class _Limits:
    alpha: float
    layer: float
    engine: float


def _judge_once(baseline: Baseline, run: Run, limits: _Limits) -> Verdict:
    old_at = {key: column for column, key in enumerate(baseline.layers)}
    shared = [key for key in run.layers if key in old_at]
    new_at = {key: column for column, key in enumerate(run.layers)}
    engine = _judge_engine(baseline, run, limits)
    judged = _judge_layers(
        baseline,
        run,
        [old_at[key] for key in shared],
        [new_at[key] for key in shared],
        limits,
    )
    by_key = dict(zip(shared, judged, strict=True))
    location = np.exp(run.location())
    layers = [
        by_key[key] if key in by_key else Judgement(key, "new", None, float(location[new_at[key]]))
        for key in run.layers
    ]
    last = baseline.runs[-1].log_us
    layers += [
        Judgement(key, "gone", float(np.exp(last[old_at[key]])), None) for key in baseline.layers if key not in new_at
    ]
    if run.disturbed:
        engine = _doubted(engine)
        layers = [_doubted(layer) for layer in layers]
    outcome, reason = _overall(baseline, run, engine, layers)
    return Verdict(
        outcome=outcome,
        engine=engine,
        layers=tuple(layers),
        sessions=len(run.sessions),
        baseline_runs=len(baseline.runs),
        reason=reason,
        findings=tuple(_findings(outcome, reason, engine, layers, len(baseline.runs))),
    )


def _judge_engine(baseline: Baseline, run: Run, limits: _Limits) -> Judgement:
    """The engine against the spread of the baseline's runs."""
    before = np.array([summary.engine_log_us for summary in baseline.runs])
    count = len(before)
    change = run.engine() - before.mean()
    own = float(before.var(ddof=1)) if count > 1 else 0.0
    if count >= MIN_RUNS:
        variance = (PRIOR_DF * PRIOR_ENGINE_SD**2 + (count - 1) * own) / (PRIOR_DF + count - 1)
    else:
        variance = max(LONE_ENGINE_SD**2, own)
    degrees = PRIOR_DF + count - 1
    spread = math.sqrt(variance * (1 + 1 / count))
    p_slower = float(stats.t.sf(change / spread, degrees))
    p_faster = float(stats.t.cdf(change / spread, degrees))
    half = float(stats.t.ppf(0.975, degrees)) * spread
    outcome = _outcome(
        change, p_slower, p_faster, change + half, limits.alpha, limits.engine, MUST_DETECT_ENGINE, count
    )
    return Judgement(
        "engine",
        outcome,
        float(np.exp(before.mean())),
        float(np.exp(run.engine())),
        math.expm1(change),
        math.expm1(change - half),
        math.expm1(change + half),
        p_slower,
    )


def _judge_layers(
    baseline: Baseline, run: Run, old: Sequence[int], new: Sequence[int], limits: _Limits
) -> list[Judgement]:
    if not old:
        return []
    before = np.array([np.asarray(summary.log_us)[list(old)] for summary in baseline.runs])
    count = len(before)
    base = before.mean(axis=0)
    shift = np.median(before - base, axis=1, keepdims=True)
    residual = before - base - shift
    now = run.location()[list(new)]
    common = float(np.median(now - base))
    change = now - base - common
    own = np.sum(residual**2, axis=0) / max(count - 1, 1)
    variance = _shared_variance(own, count)
    within = np.maximum(
        0.0,
        run.error()[list(new)] ** 2
        - np.mean(np.square([np.asarray(s.log_se)[list(old)] for s in baseline.runs]), axis=0),
    )
    spread = np.sqrt(variance * (1 + 1 / count) + within)
    degrees = PRIOR_DF + count - 1
    p_slower = _holm(stats.t.sf(change / spread, degrees))
    p_faster = _holm(stats.t.cdf(change / spread, degrees))
    half = float(stats.t.ppf(0.975, degrees)) * spread
    return [
        Judgement(
            baseline.layers[column],
            _outcome(
                change[i],
                p_slower[i],
                p_faster[i],
                change[i] + half[i],
                limits.alpha,
                limits.layer,
                MUST_DETECT_LAYER,
                count,
                float(np.exp(now[i]) - np.exp(base[i])),
            ),
            float(np.exp(base[i])),
            float(np.exp(now[i])),
            math.expm1(change[i]),
            math.expm1(change[i] - half[i]),
            math.expm1(change[i] + half[i]),
            float(p_slower[i]),
        )
        for i, column in enumerate(old)
    ]


def _shared_variance(own: Floats, count: int) -> Floats:
    """Each layer's variance between runs, drawn towards what is usual for the engine's layers."""
    if count < MIN_RUNS:
        return np.maximum(own, LONE_LAYER_SD**2)
    degrees = count - 1
    # the median of a chi-square with that many degrees, to turn a median into a mean
    usual = float(np.median(own)) * degrees / (2 * float(special.gammaincinv(degrees / 2, 0.5)))
    usual = max(usual, PRIOR_LAYER_SD**2)
    return (PRIOR_DF * usual + degrees * own) / (PRIOR_DF + degrees)


def _outcome(
    change: float,
    p_slower: float,
    p_faster: float,
    upper: float,
    alpha: float,
    tolerance: float,
    must_detect: float,
    runs: int,
    change_us: float = math.inf,
) -> Outcome:
    limit = math.log1p(tolerance)
    if abs(change_us) < MIN_CHANGE_US:
        return "pass"
    if runs >= MIN_RUNS and p_slower < alpha and change >= limit:
        return "slower"
    if runs >= MIN_RUNS and p_faster < alpha and change <= -limit:
        return "faster"
    if upper < math.log1p(must_detect) or (runs < MIN_RUNS and change < limit):
        return "pass"
    return "inconclusive"


def _doubted(judgement: Judgement) -> Judgement:
    """A disturbed machine can prove nothing."""
    if judgement.outcome not in ("slower", "faster"):
        return judgement
    return Judgement(**{**vars(judgement), "outcome": "inconclusive"})


def _overall(baseline: Baseline, run: Run, engine: Judgement, layers: Sequence[Judgement]) -> tuple[Outcome, str]:
    if engine.outcome == "slower" or any(layer.outcome == "slower" for layer in layers):
        return "slower", ""
    total = sum(layer.before_us or 0.0 for layer in layers) or 1.0
    doubtful = [
        layer
        for layer in layers
        if layer.outcome == "inconclusive" and layer.high * (layer.before_us or 0.0) / total > MATTERS
    ]
    if engine.outcome == "inconclusive" or doubtful:
        if run.disturbed:
            return "inconclusive", run.disturbed
        runs = len(baseline.runs)
        if runs < MIN_RUNS:
            return "inconclusive", (f"the baseline has {runs} run{'s' if runs > 1 else ''}, a verdict needs {MIN_RUNS}")
        what = [layer.key for layer in doubtful] if engine.outcome != "inconclusive" else ["the engine"]
        return "inconclusive", f"the spread between runs is too large for {_names(what)}"
    if engine.outcome == "faster" or any(layer.outcome == "faster" for layer in layers):
        return "faster", ""
    return "pass", ""


def _names(keys: Sequence[str]) -> str:
    shown = ", ".join(_readable(key) for key in keys[:3])
    return f"{shown} and {len(keys) - 3} more" if len(keys) > 3 else shown


def _readable(key: str) -> str:
    """A layer's key as a report shows it."""
    nodes = key.split(KEY_SEPARATOR)
    more = f" (+{len(nodes) - 3} nodes)" if len(nodes) > 3 else ""
    return " + ".join(nodes[:3]) + more


def _findings(
    outcome: Outcome, reason: str, engine: Judgement, layers: Sequence[Judgement], runs: int
) -> list[Finding]:
    findings = []
    if engine.outcome == "slower":
        findings.append(
            _slower(
                engine,
                "the whole engine",
                "timing.engine-slower",
                "Every layer may have moved together: compare driver, clocks, power limit and other load "
                "with the baseline's context. If it is intended: --update-baselines.",
            )
        )
    slow = sorted((layer for layer in layers if layer.outcome == "slower"), key=lambda layer: -layer.change)
    findings += [
        _slower(
            layer,
            _readable(layer.key),
            "timing.layer-slower",
            "Look at what changed in these ONNX nodes and at the layer's kernel and precision (the `structure` "
            "test). If it is intended: --update-baselines.",
        )
        for layer in slow
    ]
    if outcome == "inconclusive":
        findings.append(
            Finding(
                "warning",
                "engine",
                f"timing inconclusive: {reason}",
                "timing.inconclusive",
                {"change_percent": round(engine.change * 100, 2)},
                "Record more runs, best from different jobs: --update-baselines appends one.",
            )
        )
    elif runs < MIN_RUNS:
        findings.append(
            Finding(
                "advice",
                "engine",
                f"timing is provisional: {runs} of at least {MIN_RUNS} runs in the baseline, so nothing can fail",
                "timing.provisional",
                {"baseline_runs": runs},
                "Record more runs, best from different jobs: --update-baselines appends one.",
            )
        )
    if engine.outcome == "faster":
        findings.append(
            Finding(
                "advice",
                "engine",
                f"the engine is {-engine.change:.1%} faster than its baseline, which is stale",
                "timing.stale-baseline",
                {"before_us": engine.before_us, "after_us": engine.after_us},
                "Record it, or a later slowdown back to the old time goes unseen: --update-baselines.",
            )
        )
    return findings


def _slower(judgement: Judgement, name: str, rule: str, remedy: str) -> Finding:
    return Finding(
        "error",
        name,
        f"{name}: {judgement.before_us:.1f} -> {judgement.after_us:.1f} us, {judgement.change:+.1%} "
        f"[{judgement.low:+.1%}, {judgement.high:+.1%}]",
        rule,
        {
            "before_us": judgement.before_us,
            "after_us": judgement.after_us,
            "change_percent": round(judgement.change * 100, 2),
            "p_value": judgement.p_value,
        },
        remedy,
    )


def _holm(p: Floats) -> Floats:
    """Holm's step-down adjustment of p-values (Holm 1979)."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(stepped)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _locate(samples: Floats) -> tuple[float, float]:
    """Log of the clipped mean, and the standard error of that logarithm from batch means.

    A clipped mean and not a median: short layers take a few ticks of the profiler's clock, and the median
    of such data sticks to a multiple of the tick.
    """
    ticks = np.diff(np.unique(samples))
    tick = float(np.median(ticks)) if ticks.size else 0.0
    middle = float(np.median(samples))
    spread = 1.4826 * float(np.median(np.abs(samples - middle)))
    reach = 5 * max(spread, tick / 2)
    kept = samples[np.abs(samples - middle) <= reach] if reach else samples[samples == middle]
    mean = max(float(kept.mean()), FLOOR_US)
    batches = np.array_split(kept, min(BATCHES, len(kept)))
    means = [float(batch.mean()) for batch in batches]
    error = float(np.std(means, ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else 0.0
    return math.log(mean), error / mean


def _checked(values: ArrayLike, name: str, *, dimensions: int) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != dimensions or array.shape[0] == 0:
        form = "(iterations, layers)" if dimensions == 2 else "(iterations,)"
        raise ValueError(f"{name} must have shape {form} with at least one iteration, got {array.shape}")
    if not np.isfinite(array).all() or (array < 0).any():
        raise ValueError(f"{name} has NaN, infinite or negative times")
    return array


def _keys(layers: Sequence[str | Layer]) -> tuple[str, ...]:
    objects = [layer for layer in layers if isinstance(layer, Layer)]
    if len(objects) == len(layers):
        return tuple(layer_keys(objects))
    names = tuple(layer if isinstance(layer, str) else layer.name for layer in layers)
    if len(set(names)) < len(names):
        raise ValueError("layer names must be unique")
    return names


def _summary(run: Run) -> RunSummary:
    clocks = [session.clock_mhz for session in run.sessions if session.clock_mhz is not None]
    engine_se = np.sqrt(np.mean(np.square([s.engine_log_se for s in run.sessions])) / len(run.sessions))
    return RunSummary(
        log_us=tuple(float(value) for value in run.location()),
        log_se=tuple(float(value) for value in run.error()),
        engine_log_us=run.engine(),
        engine_log_se=float(engine_se),
        sessions=len(run.sessions),
        iterations=run.iterations,
        clock_mhz=float(np.mean(clocks)) if clocks else None,
        context=run.context,
    )


def _numbers(values: Sequence[Any], count: int) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != count or not all(math.isfinite(value) for value in numbers):
        raise ValueError(f"expected {count} finite numbers, found {len(numbers)}")
    return numbers
