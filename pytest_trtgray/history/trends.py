"""How the times of an engine and its layers went, and since which commit they are others.

Only runs of one series are joined (:class:`~pytest_trtgray.history.store.Series`): another device, version, precision,
shape or method is another series. Runs of one CI job are one measurement. What all layers of a job have in common (its
clock) is taken out of the layers, as the timing gate does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.errors import NotApplicableError
from pytest_trtgray.findings import Finding
from pytest_trtgray.history.changes import Change, Floats, find_changes
from pytest_trtgray.history.store import History, Series, TimedRun

ALPHA = 0.01
"""Chance that a series of an engine with all its layers shows a change where there is none; half for either."""
REFERENCE_LAYERS = 15
"""So many other layers say what a job's layers have in common, where only one layer is asked for."""
Ids = NDArray[np.int64]
_NEIGHBOURS = 5
_CLOCK_SHARE, _CLOCK_WEIGHT = 0.7, (0.005 / 0.25) ** 2  # as the timing gate's: what a clock explains a priori
_CLOCK_STEP = 0.01
_PASSING = frozenset(("time_utc", "commit", "job"))


@dataclass(frozen=True)
class Job:
    """The runs of one CI job: one measurement.

    Attributes:
        runs: the oldest first.
    """

    runs: tuple[TimedRun, ...]

    @property
    def time_utc(self) -> datetime:
        """When the first run ended."""
        return self.runs[0].time_utc

    @property
    def log_us(self) -> float:
        """Mean of the logarithms of the engine's times."""
        return float(np.mean([math.log(run.us) for run in self.runs]))

    @property
    def clock_mhz(self) -> float | None:
        """Mean of the GPU's clock; ``None`` if a run does not know it."""
        clocks = [run.clock_mhz for run in self.runs]
        known = [clock for clock in clocks if clock]
        return float(np.mean(known)) if len(known) == len(clocks) else None

    @property
    def commits(self) -> tuple[str, ...]:
        """Each once, in the order of the runs."""
        return tuple(dict.fromkeys(run.commit for run in self.runs if run.commit))


@dataclass(frozen=True)
class Trend:
    """Times over jobs.

    Attributes:
        series: what they belong to.
        layer: its key; empty for the whole engine.
        jobs: the oldest first.
        us: as measured, one a job.
        residuals: natural logarithms without what the job's clock explains; change points are sought in these.
    """

    series: Series
    layer: str
    jobs: tuple[Job, ...]
    us: Floats
    residuals: Floats


@dataclass(frozen=True)
class Shift:
    """A change of a trend.

    Attributes:
        trend: that changed.
        index: of the first job after it.
        good: commit of the last job that is surely before it; empty if unknown.
        bad: commit of the first job that is surely after it.
        before_us: geometric mean before, as measured.
        after_us: geometric mean after.
        change: relative, without what the clock explains: 0.05 is 5 % slower.
        p_value: for all places and layers that were looked at.
        beside: what else changed there, in words.
    """

    trend: Trend
    index: int
    good: str
    bad: str
    before_us: float
    after_us: float
    change: float
    p_value: float
    beside: tuple[str, ...]

    @property
    def since(self) -> datetime:
        """When the first job after it ran."""
        return self.trend.jobs[self.index].time_utc

    @property
    def commits(self) -> str:
        """The range for ``git log``, or the times where the commits are unknown."""
        if self.good and self.bad:
            return f"{self.good}..{self.bad}" if self.good != self.bad else self.bad
        before = self.trend.jobs[self.index - 1].time_utc
        return f"{before:%Y-%m-%d %H:%M} .. {self.since:%Y-%m-%d %H:%M}"

    def to_finding(self) -> Finding:
        """A warning for slower, advice for faster."""
        slower = self.change > 0
        what = (
            f"{self.trend.layer or 'the engine'}: {self.before_us:.1f} -> {self.after_us:.1f} us, {self.change:+.1%} "
            f"since {self.since:%Y-%m-%d} ({self.commits})"
        )
        beside = f" Beside the commits: {'; '.join(self.beside)}." if self.beside else ""
        bisect = f"git bisect start {self.bad} {self.good}" if self.good and self.good != self.bad else ""
        return Finding(
            "warning" if slower else "advice",
            self.trend.layer or self.trend.series.engine,
            what + beside,
            "history.slower" if slower else "history.faster",
            {
                "engine": self.trend.series.engine,
                "device": self.trend.series.device,
                "runtime": self.trend.series.runtime,
                "good": self.good,
                "bad": self.bad,
                "since_utc": f"{self.since:%Y-%m-%dT%H:%M:%SZ}",
                "before_us": self.before_us,
                "after_us": self.after_us,
                "change": self.change,
                "p_value": self.p_value,
                "jobs_before": self.index,
                "jobs_after": len(self.trend.jobs) - self.index,
            },
            f"Look at git log {self.commits}; {bisect}" if bisect else "",
        )


def trends_of(
    history: History, series: Series, *, branch: str | None = None, last: int = 0, layer: str = ""
) -> list[Trend]:
    """The trend of an engine, and those of its layers.

    Args:
        history: to read from.
        series: of the engine.
        branch: only its runs; ``None`` for all.
        last: only so many runs, the newest; 0 for all.
        layer: part of a layer's key: only the engine and this layer.

    Raises:
        NotApplicableError: there is no run, or the name is that of no layer or of several.
        HistoryError: the database cannot be read.
    """
    jobs = jobs_of(history.timed_runs(series.id, branch=branch, last=last))
    if not jobs:
        raise NotApplicableError(series.engine, "has no undisturbed run" + (f" on branch {branch}" if branch else ""))
    keys = history.layers(series.id, jobs[-1].runs[-1].check_id)
    checks = [run.check_id for job in jobs for run in job.runs]
    if layer:
        wanted = _layer_named(keys, layer)
        others = [key for key in keys if key != wanted][:REFERENCE_LAYERS]
        keys = {key: keys[key] for key in (wanted, *others)}
        rows = history.times_of_checks(checks, layer_ids=list(keys.values()))
        shown = [wanted]
    else:
        rows = history.times_of_checks(checks)
        shown = list(keys)
    logs = _matrix(jobs, list(keys.values()), rows)
    residuals = _without_common(logs)
    at = {key: column for column, key in enumerate(keys)}
    return [_engine_trend(series, jobs), *(_layer_trend(series, key, jobs, logs, residuals, at[key]) for key in shown)]


def find_shifts(trends: Sequence[Trend], *, layer_change: float = 0.03, engine_change: float = 0.02) -> list[Shift]:
    """The change points of an engine and its layers.

    Args:
        trends: of :func:`trends_of`.
        layer_change: smaller relative changes of layers are none.
        engine_change: the same for engines.
    """
    layers = sum(bool(trend.layer) for trend in trends)
    found = []
    for trend in trends:
        alpha = ALPHA / 2 / (layers if trend.layer else 1)
        least = math.log1p(layer_change if trend.layer else engine_change)
        changes = find_changes(trend.residuals, min_change=least, alpha=alpha)
        edges = [0, *(change.index for change in changes), len(trend.jobs)]
        found += [_shift(trend, change, *around) for change, *around in zip(changes, edges, edges[2:], strict=False)]
    return found


def jobs_of(runs: Sequence[TimedRun]) -> tuple[Job, ...]:
    """Runs by job; a run of an unknown job is one by itself."""
    jobs: dict[str, list[TimedRun]] = {}
    for run in runs:
        jobs.setdefault(run.job or f"check {run.check_id}", []).append(run)
    return tuple(Job(tuple(each)) for each in jobs.values())


def _layer_named(keys: Sequence[str] | dict[str, int], part: str) -> str:
    found = [key for key in keys if part in key]
    if part in keys:
        return part
    if len(found) != 1:
        some = ", ".join(found[:5]) or "none"
        raise NotApplicableError(
            f"--layer {part}", f"{len(found)} layers of the newest run have that in their name: {some}"
        )
    return found[0]


def _matrix(jobs: Sequence[Job], layer_ids: Sequence[int], rows: Sequence[tuple[int, int, float]]) -> Floats:
    """Log times, (jobs, layers); not a number where a job lacks a layer."""
    sums, counts = np.zeros((2, len(jobs), len(layer_ids)))
    if rows and layer_ids:
        layer, check, us = (np.array(column) for column in zip(*rows, strict=True))
        at, of_jobs = _places([(run.check_id, row) for row, job in enumerate(jobs) for run in job.runs], check)
        column, of_layers = _places([(each, column) for column, each in enumerate(layer_ids)], layer)
        kept = of_jobs & of_layers & (us > 0)
        np.add.at(sums, (at[kept], column[kept]), np.log(us[kept]))
        np.add.at(counts, (at[kept], column[kept]), 1.0)
    return np.asarray(sums / np.where(counts, counts, np.nan))


def _places(known: Sequence[tuple[int, int]], ids: Ids) -> tuple[Ids, NDArray[np.bool_]]:
    """The place of each id, and whether it is known."""
    keys, places = np.array(sorted(known)).T
    at = np.minimum(np.searchsorted(keys, ids), len(keys) - 1)
    return places[at], keys[at] == ids


def _without_common(logs: Floats) -> Floats:
    """Without what a job's layers have in common; of one or two layers nobody knows."""
    if logs.shape[1] < 3:
        return logs
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a job without any of the layers
        usual = np.nanmedian(logs, axis=0)
        return np.asarray(logs - np.nanmedian(logs - usual, axis=1, keepdims=True))


def _engine_trend(series: Series, jobs: tuple[Job, ...]) -> Trend:
    logs = np.array([job.log_us for job in jobs])
    return Trend(series, "", jobs, np.exp(logs), logs + _explained_by_clock(logs, [job.clock_mhz for job in jobs]))


def _explained_by_clock(logs: Floats, clocks: Sequence[float | None]) -> Floats:
    """What to add to log times so that the clock no longer moves them: its share, from one job to the next, ridged."""
    if len(clocks) < 2 or not all(clocks):
        return np.zeros(len(logs))
    clock = np.log(np.array(clocks, np.float64))
    steps, clock_steps = np.diff(logs), np.diff(clock)
    share = (_CLOCK_SHARE * _CLOCK_WEIGHT - float(clock_steps @ steps)) / (
        _CLOCK_WEIGHT + float(clock_steps @ clock_steps)
    )
    return np.asarray(min(max(share, 0.0), 1.0) * (clock - np.median(clock)))


def _layer_trend(
    series: Series, key: str, jobs: tuple[Job, ...], logs: Floats, residuals: Floats, column: int
) -> Trend:
    there = np.flatnonzero(np.isfinite(residuals[:, column]))
    return Trend(series, key, tuple(jobs[row] for row in there), np.exp(logs[there, column]), residuals[there, column])


def _shift(trend: Trend, change: Change, start: int, stop: int) -> Shift:
    jobs = trend.jobs
    last_good, first_bad = jobs[change.earliest - 1], jobs[change.latest]
    # a job of several commits: from its first if it is good, to its last if it is bad
    good, bad = (last_good.commits or ("",))[0], (first_bad.commits or ("",))[-1]
    before, after = jobs[max(change.index - _NEIGHBOURS, 0) : change.index], jobs[change.index :][:_NEIGHBOURS]
    logs = np.log(trend.us)
    return Shift(
        trend=trend,
        index=change.index,
        good=good,
        bad=bad,
        before_us=math.exp(float(logs[start : change.index].mean())),
        after_us=math.exp(float(logs[change.index : stop].mean())),
        change=math.expm1(change.after - change.before),
        p_value=change.p_value,
        beside=tuple(_beside(before, after)),
    )


def _beside(before: Sequence[Job], after: Sequence[Job]) -> list[str]:
    """What differs between all jobs of both sides, besides the commit."""
    said = []
    both = {each for job in before for each in job.commits} & {each for job in after for each in job.commits}
    if both:
        said.append(f"commit {min(both)} is on both sides, so it may not be the code")
    old, new = _contexts(before), _contexts(after)
    for name in sorted(old.keys() & new.keys() - _PASSING):
        if not old[name] & new[name]:
            said.append(f"{name} {_listed(old[name])} -> {_listed(new[name])}")
    clocks = [[job.clock_mhz for job in side if job.clock_mhz] for side in (before, after)]
    if all(clocks) and abs(math.log(np.mean(clocks[1]) / np.mean(clocks[0]))) > _CLOCK_STEP:
        said.append(f"clock {np.mean(clocks[0]):.0f} -> {np.mean(clocks[1]):.0f} MHz")
    return said


def _contexts(jobs: Sequence[Job]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for job in jobs:
        for run in job.runs:
            for name, value in {**run.context, "host": run.host}.items():
                if value:
                    found.setdefault(name, set()).add(str(value))
    return found


def _listed(values: set[str]) -> str:
    return "/".join(sorted(values)[:3])
