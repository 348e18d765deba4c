"""The verdict on cold starts and shape switches: numpy and scipy only.

A first call is a single time by the host's clock: it allocates, compiles, loads, and is interrupted by whatever else
the host does. Between jobs it varies by a third, now and then by any factor. So each cost (the fresh context, the
first call at each shape) is compared with the same cost in earlier *jobs*, on the logarithm, and only what is *far*
slower fails:

* its robust z score over the jobs is significant over all costs together (Holm), and it takes :data:`FAR_SLOWER` times
  and :data:`MIN_SLOWER_US` longer than usual, also after what made the steady inferences slower was taken out;
* it takes longer than in any recorded job;
* it does so again in each of several further contexts. A time slice that was lost, or a kernel cache that was cold,
  does not come back.

What meets only some of these is *inconclusive*, and the reason says which.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pytest_trtgray.findings import Finding, counted
from pytest_trtgray.timing.explanation import BASELINE, names
from pytest_trtgray.timing.first_calls import FirstCallRun, FirstCallsBaseline, fastest
from pytest_trtgray.timing.samples import us_text
from pytest_trtgray.timing.spread import MIN_RUNS, holm
from pytest_trtgray.timing.summary import Floats
from pytest_trtgray.timing.verdict import Judgement, Outcome

FAR_SLOWER = 3.0
"""Times the usual. A busy host alone makes a compilation take two or three times as long, for minutes."""
MIN_SLOWER_US = 1000.0
"""Longer than usual by less is no jitter that could be told from a scheduler's, nor one that anyone would hear of."""
MUST_DETECT = 10.0
"""A cost passes only if it is excluded (95 %) that it takes so many times the usual."""
LARGE = 50.0
"""Logarithm beyond which a change is no number any more."""
USUAL_SPREAD = 0.3
"""Of the logarithm between jobs: ONNX Runtime on a shared machine has 0.2 to 0.6."""
USUAL_DF = 8.0
"""How many jobs' worth :data:`USUAL_SPREAD` counts beside the jobs' own spread."""
CONTEXT = "a fresh context"
AGAIN = 2
"""Further contexts that a suspicion buys."""


@dataclass(frozen=True)
class FirstCallsVerdict:
    """The verdict on a fresh context and the first call at each shape.

    Attributes:
        outcome: ``slower`` if any cost is, else ``inconclusive`` if any is, else ``faster`` if any is, else ``pass``.
        context: the creation of the context; ``change`` and its interval are of the time as it was measured.
        calls: the first call at each shape, in their order.
        looks: contexts that were measured, those on suspicion included.
        baseline_jobs: how many jobs it was judged against.
        reason: for *inconclusive*, why.
        findings: what a report shows.
    """

    outcome: Outcome
    context: Judgement
    calls: tuple[Judgement, ...]
    looks: int
    baseline_jobs: int
    reason: str
    findings: tuple[Finding, ...]


class Doubt(NamedTuple):
    """Why nothing is known for sure, and what to do about it."""

    reason: str
    remedy: str


def judge_first_calls(
    baseline: FirstCallsBaseline,
    run: FirstCallRun,
    *,
    false_alarm_rate: float = 0.01,
    remedy: str = "",
    repeats_all: bool = True,
    more: Callable[[], Iterable[FirstCallRun]] | None = None,
) -> FirstCallsVerdict:
    """Judge first calls against those of earlier jobs.

    Args:
        baseline: earlier runs over the same shapes in the same order.
        run: the new one.
        false_alarm_rate: chance that significance alone finds something where nothing has changed; what fails has
            to meet the other conditions too.
        remedy: what to look at where something is slower; depends on the runtime.
        repeats_all: whether a further context repeats all that a first call does; not where it finds the kernels that
            the first one compiled. Then what does not come back stays *inconclusive*, else it passes.
        more: returns runs in further contexts; called once, where anything looks slower.

    Raises:
        ValueError: the run has another number of calls, or the rate is out of range.
    """
    if not 0 < false_alarm_rate < 1:
        raise ValueError("false_alarm_rate must lie in (0, 1)")
    if len(run.first_us) != len(baseline.names):
        raise ValueError(f"the baseline has {len(baseline.names)} calls, the run {len(run.first_us)}")
    past = _Past.of(baseline)
    looks = [run]
    doubt = _doubt_of(past, run)
    if doubt is None and more is not None and past.is_far_slower(past.change(run), false_alarm_rate).any():
        looks += more()
        doubt = _doubt_of(past, fastest(looks))
    if doubt is not None:
        costs = [_Cost("inconclusive", doubt)] * len(past.names)
    else:
        costs = _Looks(past, looks, false_alarm_rate, repeats_all=repeats_all).costs()
    judgements = _judgements(past, fastest(looks), costs)
    return FirstCallsVerdict(
        outcome=_worst(costs),
        context=judgements[0],
        calls=tuple(judgements[1:]),
        looks=len(looks),
        baseline_jobs=past.jobs,
        reason=_reason(costs),
        findings=tuple(_findings(judgements, costs, remedy)),
    )


def repeats_compiling(runtime: str, *, kept_kernels: bool) -> bool:
    """Whether a further context of this process compiles what the first one did; arguments as of :func:`remedy_for`."""
    return runtime != "tensorrt_rtx" or not kept_kernels


def remedy_for(runtime: str, *, kept_kernels: bool) -> str:
    """What to look at where a first call is slower.

    Args:
        runtime: ``tensorrt_rtx``, ``tensorrt`` or ``onnxruntime``.
        kept_kernels: whether kernels of earlier processes could be used.
    """
    if runtime == "tensorrt_rtx" and kept_kernels:
        return (
            "Kernels may be compiled again: is the kernel cache kept between jobs (trt_cache_dir, "
            "*.kernels beside the engine), and of the same driver and TensorRT? An engine file has no cache."
        )
    if runtime == "tensorrt_rtx":
        return (
            "Compiling the kernels takes longer: compare the number of layers (the `structure` test), the range of the "
            "profile, driver and TensorRT."
        )
    if runtime == "tensorrt":
        return (
            "Memory may be allocated or modules loaded again: compare the profile that serves the shape (is its range "
            "wider?), the engine's memory (the `structure` test), the driver and CUDA_MODULE_LOADING."
        )
    return "Memory may be allocated again, or the graph optimised for longer: compare threads, options and versions."


@dataclass(frozen=True)
class _Past:
    """What is known of each cost: the fresh context first, then the calls; logarithms of microseconds.

    Attributes:
        names: of the costs.
        level: the usual, the median over the jobs.
        least: the smallest of any run.
        most: the largest.
        spread: standard deviation of a further job's difference to ``level``.
        df: degrees of freedom of ``spread``.
        steady: the usual steady inference after each call.
        jobs: how many.
    """

    names: tuple[str, ...]
    level: Floats
    least: Floats
    most: Floats
    spread: Floats
    df: float
    steady: Floats
    jobs: int

    @classmethod
    def of(cls, baseline: FirstCallsBaseline) -> _Past:
        """Runs of one job count as one; the spread is drawn towards the usual one, as few jobs hardly tell it."""
        jobs = baseline.jobs()
        rows = np.array([np.mean([_log_costs(run) for run in job], axis=0) for job in jobs])
        steady = np.array([np.mean([np.log(run.steady_us) for run in job], axis=0) for job in jobs])
        level, count = np.median(rows, axis=0), len(jobs)
        # MAD of few values is too small: Croux and Rousseeuw 1992, n / (n - 0.8)
        own = 1.4826 * np.median(np.abs(rows - level), axis=0) * count / (count - 0.8)
        usual = max(float(np.median(own)), USUAL_SPREAD)
        df = USUAL_DF + count - 1
        variance = (USUAL_DF * usual**2 + (count - 1) * own**2) / df
        every = [_log_costs(run) for run in baseline.runs]
        return cls(
            names=(CONTEXT, *baseline.names),
            level=level,
            least=np.min(every, axis=0),
            most=np.max(every, axis=0),
            spread=np.sqrt(variance * (1 + math.pi / 2 / count)),  # a median varies by pi / 2 more than a mean
            df=df,
            steady=np.median(steady, axis=0),
            jobs=count,
        )

    def change(self, run: FirstCallRun) -> Floats:
        """By how much each cost differs from the usual, as a logarithm."""
        return np.asarray(_log_costs(run) - self.level)

    def machine(self, run: FirstCallRun) -> float:
        """By how much the steady inferences are slower, as a logarithm; 0 if they are not."""
        return max(float(np.median(np.log(run.steady_us) - self.steady)), 0.0)

    def is_far_slower(self, change: Floats, alpha: float) -> NDArray[np.bool_]:
        """Which costs are significantly and far beyond the usual."""
        significant = holm(stats.t.sf(change / self.spread, self.df)) < alpha
        longer_us = np.exp(self.level) * np.expm1(change)
        return np.asarray(significant & (change >= math.log(FAR_SLOWER)) & (longer_us >= MIN_SLOWER_US))

    def is_far_faster(self, change: Floats, alpha: float) -> NDArray[np.bool_]:
        """Which costs are as far below the usual, and below anything recorded."""
        significant = holm(stats.t.cdf(change / self.spread, self.df)) < alpha
        saved_us = -np.exp(self.level) * np.expm1(change)
        is_new = self.level + change < self.least
        return np.asarray(significant & is_new & (change <= -math.log(FAR_SLOWER)) & (saved_us >= MIN_SLOWER_US))

    def is_excluded(self, change: Floats) -> NDArray[np.bool_]:
        """Of which costs it is excluded (95 %) that they take :data:`MUST_DETECT` times the usual."""
        bound = change + stats.t.isf(0.05, self.df) * self.spread
        worst_us = np.exp(self.level) * np.expm1(np.minimum(bound, LARGE))
        return np.asarray((bound < math.log(MUST_DETECT)) | (worst_us < MIN_SLOWER_US))


class _Cost(NamedTuple):
    """The outcome of one cost, and what is to be said of it."""

    outcome: Outcome
    doubt: Doubt | None = None


def _log_costs(run: FirstCallRun) -> Floats:
    return np.log([run.creation_us, *run.first_us])


def _doubt_of(past: _Past, run: FirstCallRun) -> Doubt | None:
    """Why nothing can be said of any cost."""
    if run.disturbed:
        return Doubt(run.disturbed, "Run it on a quiet machine.")
    if past.jobs < MIN_RUNS:
        return Doubt(f"the baseline has {counted(past.jobs, 'job')}, a verdict needs {MIN_RUNS}", BASELINE.more)
    return None


class _Looks:
    """What the contexts of one run say of each cost.

    Args:
        past: of the baseline.
        looks: the run, then what a suspicion has bought.
        alpha: chance of a false alarm by significance alone.
        repeats_all: whether a further context repeats all that a first call does.
    """

    def __init__(self, past: _Past, looks: Sequence[FirstCallRun], alpha: float, *, repeats_all: bool) -> None:
        self._past = past
        self._repeats_all = repeats_all
        self._first, self._last = past.change(looks[0]), past.change(fastest(looks))
        self._machine = past.machine(fastest(looks))
        self._suspected = past.is_far_slower(self._first, alpha)
        self._comes_back = past.is_far_slower(self._last, alpha)
        self._is_own = past.is_far_slower(self._last - self._machine, alpha)
        self._is_new = past.level + self._last > past.most
        self._is_faster = past.is_far_faster(self._first, alpha)
        self._is_excluded = past.is_excluded(self._last)

    def costs(self) -> list[_Cost]:
        """The outcome of each."""
        return [self._cost(index) for index in range(len(self._past.names))]

    def _cost(self, index: int) -> _Cost:
        if self._is_own[index] and self._is_new[index]:
            return _Cost("slower")
        if self._suspected[index]:
            is_gone = self._repeats_all and not self._comes_back[index]
            return _Cost("pass" if is_gone else "inconclusive", self._excuse(index))
        if self._is_faster[index]:
            return _Cost("faster")
        return _Cost("pass") if self._is_excluded[index] else _Cost("inconclusive", self._blindness())

    def _excuse(self, index: int) -> Doubt:
        """Why something that took far longer need not be slower."""
        past = self._past
        usual, took, again, most = (
            us_text(math.exp(value))
            for value in (
                past.level[index],
                past.level[index] + self._first[index],
                past.level[index] + self._last[index],
                past.most[index],
            )
        )
        what = f"{past.names[index]} took {took}, usually {usual}"
        if not self._comes_back[index]:
            return Doubt(
                f"{what}, but {again} in another context",
                "A moment in which the host was busy, or something that a process loads only once."
                if self._repeats_all
                else "The kernel cache was cold (keep trt_cache_dir between jobs), or the host was busy.",
            )
        if not self._is_new[index]:
            return Doubt(
                f"{what}, but {most} in one recorded job",
                f"Find out what was different in that job. {BASELINE.intended}",
            )
        return Doubt(
            f"{what}, but the steady inferences took {math.exp(self._machine):.1f}x as long too",
            "A busy machine, or a slower engine: trt_profiler(engine).check() tells.",
        )

    def _blindness(self) -> Doubt:
        blind = [name for name, fine in zip(self._past.names, self._is_excluded, strict=True) if not fine]
        return Doubt(f"the spread between jobs is too large for {names(blind)}", BASELINE.more)


def _worst(costs: Sequence[_Cost]) -> Outcome:
    outcomes = {cost.outcome for cost in costs}
    ranked: tuple[Outcome, ...] = ("slower", "inconclusive", "faster")
    return next((outcome for outcome in ranked if outcome in outcomes), "pass")


def _reason(costs: Sequence[_Cost]) -> str:
    """Of an inconclusive verdict, why: the first reason."""
    if _worst(costs) != "inconclusive":
        return ""
    return next(doubt.reason for outcome, doubt in costs if outcome == "inconclusive" and doubt)


def _judgements(past: _Past, run: FirstCallRun, costs: Sequence[_Cost]) -> list[Judgement]:
    change = past.change(run)
    p = holm(stats.t.sf((change - past.machine(run)) / past.spread, past.df))
    half = stats.t.isf(0.025, past.df) * past.spread
    return [
        Judgement(
            name,
            costs[i].outcome,
            before_us=math.exp(past.level[i]),
            after_us=math.exp(past.level[i] + change[i]),
            change=math.expm1(change[i]),
            low=math.expm1(change[i] - half[i]),
            high=math.expm1(change[i] + half[i]),
            p_value=float(p[i]),
        )
        for i, name in enumerate(past.names)
    ]


def _findings(judgements: Sequence[Judgement], costs: Sequence[_Cost], remedy: str) -> Iterator[Finding]:
    """All findings, the gravest first."""
    for judged in sorted(judgements, key=lambda each: -each.change):
        if judged.outcome == "slower":
            yield _slower(judged, remedy)
    for outcome, doubt in dict.fromkeys(costs):
        if doubt is None:
            continue
        if outcome == "inconclusive":
            what = f"first calls inconclusive: {doubt.reason}"
            yield Finding("warning", "first calls", what, "timing.inconclusive", {}, doubt.remedy)
        else:
            yield Finding("advice", "first calls", doubt.reason, "timing.first-call-once", {}, doubt.remedy)
    faster = [judged for judged in judgements if judged.outcome == "faster"]
    if faster:
        best = min(faster, key=lambda each: each.change)
        yield Finding(
            "advice",
            best.key,
            f"{counted(len(faster), 'first call')} far faster than the baseline, which is stale: {_times(best)}",
            "timing.stale-baseline",
            _evidence(best),
            "Record it, or a later slowdown back to the old time goes unseen: --trt-rebaseline.",
        )


def _slower(judged: Judgement, remedy: str) -> Finding:
    is_context = judged.key == CONTEXT
    what = judged.key if is_context else f"the first call at {judged.key}"
    rule = "timing.context-slower" if is_context else "timing.first-call-slower"
    return Finding(
        "error", judged.key, f"{what}: {_times(judged)}", rule, _evidence(judged), f"{remedy} {BASELINE.intended}"
    )


def _times(judged: Judgement) -> str:
    return f"{us_text(judged.before_us or 0.0)} -> {us_text(judged.after_us or 0.0)}, {1 + judged.change:.3g}x"


def _evidence(judged: Judgement) -> dict[str, float | int | str | None]:
    return {
        "before_us": round(judged.before_us or 0.0, 1),
        "after_us": round(judged.after_us or 0.0, 1),
        "p_value": judged.p_value,
    }
