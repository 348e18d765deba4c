"""The timing verdict: numpy and scipy only.

The unit of replication is the *run* (one CI job), not the iteration: iterations of one process agree with
each other far better than processes or days do. A new run is judged against the spread *between* the
baseline's runs, as :mod:`~pytest_trtgray.timing.spread` models it:

* what all layers share (clocks, driver) is taken out, so that one slower layer and a slower machine are
  different verdicts, and the engine is judged after what the clock explains;
* the error over all layers is held by Holm's method;
* *slower* needs significance, a change beyond the tolerance, and sessions that agree;
* *pass* needs that a slowdown worth detecting is excluded;
* everything else is *inconclusive*, and so is everything on a disturbed machine.

A first look that finds anything suspicious buys as many sessions again; a failure needs both looks, so the first
one costs no error. Layers are matched by their ONNX nodes; where a fusion changed, the sum of the old layers is
compared with the sum of the new ones.

How well this works is measured by ``benchmarks/gate.py``; ``docs/timing-verdict.md`` has the figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from pytest_trtgray.findings import counted
from pytest_trtgray.timing.alignment import Alignment, align, modules_of, summed
from pytest_trtgray.timing.explanation import findings_of, names
from pytest_trtgray.timing.judging import Rule, judge_engine, judge_layers
from pytest_trtgray.timing.pairs import compare_pairs
from pytest_trtgray.timing.spread import (
    MIN_RUNS,
    Deviation,
    RunTimes,
    Spread,
    deviation,
    fit,
    holm,
    looks_suspicious,
    moderated,
    residual_of,
    stacked,
)
from pytest_trtgray.timing.summary import MAX_RUNS, Baseline, Floats, Run, RunSummary, Session
from pytest_trtgray.timing.verdict import (
    AGREEING,
    MATTERS,
    Judgement,
    Limits,
    Outcome,
    Verdict,
)

__all__ = [
    "MAX_RUNS",
    "MIN_RUNS",
    "Baseline",
    "Judgement",
    "Run",
    "RunSummary",
    "Session",
    "Verdict",
    "compare",
    "judge",
]

SHARE_OF_MODULES = 0.1
"""Part of the layers' error budget that the modules get."""
MODULE_MAX_SHARE = 0.6
"""A module that is most of the engine is no module."""
LONE_TOLERANCE = 1.0
"""With fewer than ``MIN_RUNS`` jobs only what takes twice the time may fail, and only on a GPU whose clock is known.

A small network on a busy processor was seen to take 3.5 times as long from one minute to the next.
"""
SUSPICIOUS_ENGINE = 0.05
NOISY = 1.5
"""Times the baseline's noise between iterations: such a machine proves nothing."""
CLOCK_RANGE = (0.9, 1.1)


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
    limits = _limits(false_alarm_rate, layer_tolerance, engine_tolerance)
    bench = _Bench(baseline, run.layers, limits)
    verdict, suspicious = bench.look(run)
    if suspicious and more is not None:
        longer = Run((*run.sessions, *more()), run.context)
        verdict, _ = bench.look(_undisturbed(longer, len(run.sessions)))
        verdict = replace(verdict, sessions=len(longer.sessions))
    return verdict


def compare(
    a_runs: Sequence[Run],
    b_runs: Sequence[Run],
    *,
    false_alarm_rate: float = 0.01,
    layer_tolerance: float = 0.03,
    engine_tolerance: float = 0.02,
    more: Callable[[], tuple[Sequence[Run], Sequence[Run]]] | None = None,
) -> Verdict:
    """Judge B against A without a stored baseline: both measured in turn, on the same machine, at the same time.

    What the machine does to one it does to the other, so this needs no history and survives a disturbed machine.

    Args:
        a_runs: the old engine, one run (of any number of sessions) a pair.
        b_runs: the new engine; ``b_runs[i]`` was measured beside ``a_runs[i]``.
        false_alarm_rate: as in :func:`judge`.
        layer_tolerance: as in :func:`judge`.
        engine_tolerance: as in :func:`judge`.
        more: returns further pairs (of A, of B); called once, before anything may fail or stay inconclusive. A layer
            with two modes looks slower whenever all of A drew one and all of B the other; with four pairs and ten
            such layers that is not rare enough.

    Raises:
        ValueError: fewer than three pairs, or not the same number of both.
    """
    limits = _limits(false_alarm_rate, layer_tolerance, engine_tolerance)
    if len(a_runs) != len(b_runs) or len(a_runs) < MIN_RUNS:
        raise ValueError(f"an A/B needs at least {MIN_RUNS} pairs, got {len(a_runs)} and {len(b_runs)} runs")
    verdict, suspicious = compare_pairs(a_runs, b_runs, limits)
    if more is not None and suspicious:
        further_a, further_b = more()
        verdict, _ = compare_pairs([*a_runs, *further_a], [*b_runs, *further_b], limits)
    return verdict


class _Bench:
    """A baseline made ready for runs over certain layers."""

    def __init__(self, baseline: Baseline, layers: Sequence[str], limits: Limits) -> None:
        self._limits = limits
        self._baseline = baseline
        self._jobs = baseline.jobs()
        self._alignment = align(baseline.layers, layers)
        times = _times(self._jobs, self._alignment)
        self._spread = fit(times)
        self._before = np.exp(times.layers.mean(axis=0))
        self._noise = times.noise
        self._modules = _Modules(self._alignment, times, self._spread)

    def look(self, run: Run) -> tuple[Verdict, bool]:
        """A verdict, and whether it should be looked at again."""
        spread, limits = self._spread, self._limits
        now, errors = summed(run.location(), run.error(), self._alignment.new)
        clock = run.clock_mhz()
        log_clock = math.log(clock) if clock else None
        found = deviation(spread, now, errors, run.engine(), log_clock)
        doubt = self._doubt(run, clock)
        layers = judge_layers(
            self._alignment.keys,
            self._before,
            np.exp(now),
            found.change,
            found.sd,
            found.df,
            self._agreement(run, math.log1p(limits.layer) / 2),
            self._rule(limits.alpha * (1 - SHARE_OF_MODULES), limits.layer, doubt),
            self._alignment.fused,
        )
        engine = judge_engine(
            math.exp(spread.engine_level),
            math.exp(run.engine()),
            found.engine_change,
            found.engine_sd,
            found.engine_df,
            self._rule(limits.alpha, limits.engine, doubt),
        )
        modules = () if doubt else self._modules.slower(now, found.shift, limits, layers)
        extra = self._new_and_gone(run)
        outcome, reason = _overall(engine, layers, modules, doubt)
        if outcome == "inconclusive" and not doubt and not spread.is_measured:
            reason = f"the baseline has {counted(spread.runs, 'job')}, a verdict needs {MIN_RUNS}"
        verdict = Verdict(
            outcome=outcome,
            engine=engine,
            layers=self._in_order(run, layers, extra),
            sessions=len(run.sessions),
            baseline_runs=len(self._jobs),
            reason=reason,
            findings=(),
            modules=modules,
            machine=math.expm1(found.shift),
            machine_explained=None if found.explained is None else math.expm1(found.explained),
            resolution=_resolution(found, limits),
        )
        verdict = replace(verdict, findings=tuple(findings_of(verdict, len(self._baseline.runs))))
        suspicious = (
            outcome in ("slower", "inconclusive")
            or (spread.is_measured and looks_suspicious(stats.t.sf(found.change / found.sd, found.df)))
            or engine.p_value < SUSPICIOUS_ENGINE
        )
        return verdict, suspicious

    def _rule(self, alpha: float, tolerance: float, doubt: str) -> Rule:
        spread, limit = self._spread, math.log1p(tolerance)
        failing = limit
        if not spread.is_measured:
            failing = math.inf if spread.clock is None else math.log1p(max(tolerance, LONE_TOLERANCE))
        return Rule(alpha, limit, failing, is_measured=spread.is_measured, is_doubtful=bool(doubt))

    def _agreement(self, run: Run, limit: float) -> np.ndarray:
        """Layers whose change most sessions show."""
        votes = []
        for session in run.sessions:
            values, _ = summed(np.asarray(session.log_us), np.asarray(session.log_se), self._alignment.new)
            clock = session.clock_mhz
            speed = math.log(clock) - self._spread.clock if clock and self._spread.clock is not None else None
            votes.append(residual_of(self._spread, values, speed)[0] >= limit)
        return np.asarray(np.mean(votes, axis=0) >= AGREEING - 1e-9)

    def _doubt(self, run: Run, clock: float | None) -> str:
        """Why this run proves nothing; empty if it may."""
        if run.disturbed:
            return run.disturbed
        noise = run.noise()
        if noise and self._noise and noise > NOISY * max(self._noise, 1e-3):
            return f"iterations varied {noise / self._noise:.1f} times as much as in the baseline"
        if clock and self._spread.clock is not None:
            ratio = clock / math.exp(self._spread.clock)
            if not CLOCK_RANGE[0] <= ratio <= CLOCK_RANGE[1]:
                return f"the GPU ran at {ratio:.0%} of the baseline's clock"
        return ""

    def _new_and_gone(self, run: Run) -> list[Judgement]:
        location = np.exp(run.location())
        last = np.exp(np.asarray(self._baseline.runs[-1].log_us))
        new = [Judgement(key, "new", None, float(location[column])) for key, column in self._alignment.added]
        gone = [Judgement(key, "gone", float(last[column]), None) for key, column in self._alignment.removed]
        return [*new, *gone]

    def _in_order(self, run: Run, layers: Sequence[Judgement], extra: Sequence[Judgement]) -> tuple[Judgement, ...]:
        """In the order of the run, then those that are gone."""
        place = {key: number for number, key in enumerate(run.layers)}
        first = {
            unit.key: min((place[key] for key in keys), default=len(place))
            for unit, keys in zip(layers, self._alignment.new_keys, strict=True)
        }
        return tuple(
            sorted([*layers, *extra], key=lambda judged: first.get(judged.key, place.get(judged.key, len(place))))
        )


class _Modules:
    """Modules as sums of layers, judged against their own spread between runs."""

    def __init__(self, alignment: Alignment, times: RunTimes, spread: Spread) -> None:
        total = float(np.exp(times.layers.mean(axis=0)).sum()) or 1.0
        shares = np.exp(times.layers.mean(axis=0)) / total
        self._members = {
            name: columns
            for name, columns in modules_of(alignment.keys).items()
            if spread.is_measured and shares[columns].sum() < MODULE_MAX_SHARE
        }
        self._spread = spread
        if not self._members:
            return
        shift = np.median(times.layers - spread.level, axis=1, keepdims=True) if spread.common else 0.0
        rows = np.column_stack([_log_sum(times.layers - shift, columns) for columns in self._members.values()])
        self._level = rows.mean(axis=0)
        own = ((rows - self._level) ** 2).sum(axis=0) / (spread.runs - 1)
        self._variance, self._df = moderated(own, spread.runs - 1.0, self._level)

    def slower(self, now: Floats, shift: float, limits: Limits, layers: Sequence[Judgement]) -> tuple[Judgement, ...]:
        """Modules that are slower as a whole: several of their layers, none of which explains it alone."""
        if not self._members:
            return ()
        values = np.array([_log_sum((now - shift)[np.newaxis], columns)[0] for columns in self._members.values()])
        change = values - self._level
        sd = np.sqrt(self._variance * (1 + 1 / self._spread.runs))
        p = holm(stats.t.sf(change / sd, self._df))
        half = stats.t.isf(0.025, self._df) * sd
        found = []
        for i, (name, columns) in enumerate(self._members.items()):
            gains = np.array([(layers[c].before_us or 0.0) * max(layers[c].change, 0.0) for c in columns])
            alone = gains.max() > 0.7 * gains.sum() if gains.sum() else True
            if p[i] < limits.alpha * SHARE_OF_MODULES and change[i] >= math.log1p(limits.layer) and not alone:
                before = float(np.exp(self._level[i]))
                after = before * math.exp(change[i])
                ends = math.expm1(change[i] - half[i]), math.expm1(change[i] + half[i])
                judged = Judgement(name, "slower", before, after, math.expm1(change[i]), *ends, float(p[i]))
                found.append((set(columns.tolist()), judged))
        # the innermost one that says it all
        return tuple(judged for members, judged in found if not any(other < members for other, _ in found))


def _limits(false_alarm_rate: float, layer_tolerance: float, engine_tolerance: float) -> Limits:
    if not 0 < false_alarm_rate < 1 or layer_tolerance < 0 or engine_tolerance < 0:
        raise ValueError("false_alarm_rate must lie in (0, 1), tolerances must not be negative")
    return Limits(false_alarm_rate / 2, layer_tolerance, engine_tolerance)


def _undisturbed(run: Run, wanted: int) -> Run:
    """Without the sessions that were disturbed, if more are left than one look has."""
    clean = [session for session in run.sessions if not session.disturbed]
    return Run(clean, run.context) if len(clean) > wanted else run


def _times(jobs: Sequence[Sequence[RunSummary]], alignment: Alignment) -> RunTimes:
    """One row a job: runs of one job are averaged."""
    rows, errors, engine, clock = [], [], [], []
    for job in jobs:
        both = [summed(np.asarray(run.log_us), np.asarray(run.log_se), alignment.old) for run in job]
        rows.append(np.mean([values for values, _ in both], axis=0))
        errors.append(np.sqrt(np.mean(np.square([error for _, error in both]), axis=0) / len(job)))
        engine.append(float(np.mean([run.engine_log_us for run in job])))
        clocks = [run.clock_mhz for run in job]
        known = [math.log(value) for value in clocks if value]
        clock.append(float(np.mean(known)) if len(known) == len(clocks) else math.nan)
    within, within_df = _within(jobs, alignment)
    known = [run.noise for job in jobs for run in job if run.noise]
    noise = float(np.median(known)) if known else 0.0
    return RunTimes(stacked(rows), stacked(errors), np.array(engine), np.array(clock), within, within_df, noise)


def _within(jobs: Sequence[Sequence[RunSummary]], alignment: Alignment) -> tuple[Floats, float]:
    """What the differences between sessions explain of a run's mean, and the degrees of freedom."""
    runs = [run for job in jobs for run in job if run.sessions > 1]
    df = float(sum(run.sessions - 1 for run in runs))
    if not runs:
        return np.zeros(len(alignment.keys)), 0.0
    parts = [
        (run.sessions - 1)
        * summed(np.asarray(run.log_us), np.asarray(run.log_sd), alignment.old)[1] ** 2
        / run.sessions
        for run in runs
    ]
    return np.asarray(np.sum(parts, axis=0) / df), df


def _overall(
    engine: Judgement, layers: Sequence[Judgement], modules: Sequence[Judgement], doubt: str
) -> tuple[Outcome, str]:
    if doubt:
        return "inconclusive", doubt
    if engine.outcome == "slower" or modules or any(layer.outcome == "slower" for layer in layers):
        return "slower", ""
    if engine.outcome == "faster":
        return "faster", ""
    doubtful = [layer.key for layer in layers if layer.outcome == "inconclusive" and layer.at_risk > MATTERS]
    if engine.outcome == "inconclusive" or doubtful:
        what = ["the engine"] if engine.outcome == "inconclusive" else doubtful
        return "inconclusive", f"the spread between runs is too large for {names(what)}"
    return ("faster" if any(layer.outcome == "faster" for layer in layers) else "pass"), ""


def _resolution(found: Deviation, limits: Limits) -> float:
    """Slowdown that is found in nine runs of ten, of a usual layer: significance plus 1.3 standard deviations."""
    if not found.sd.size:
        return 0.0
    level = limits.alpha * (1 - SHARE_OF_MODULES) / len(found.sd)
    needed = np.maximum(math.log1p(limits.layer), stats.t.isf(level, found.df) * found.sd) + 1.3 * found.sd
    return float(math.expm1(min(float(np.median(needed)), 50.0)))


def _log_sum(rows: Floats, columns: np.ndarray) -> Floats:
    return np.asarray(np.log(np.exp(rows[:, columns]).sum(axis=1)))
