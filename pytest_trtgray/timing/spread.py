"""How much a layer's time moves from run to run when nothing has changed.

Times are logarithms of microseconds. A baseline of ``K`` runs is modelled as ::

    x[run, layer] = level[layer] + shift[run] + machine[run] * loading[layer] + e[run, layer]

``shift`` is what all layers share, ``machine`` the part of it that the clock explains, ``loading`` how much more
or less than the others a layer follows the clock (memory-bound layers do not), and the variance of ``e`` is what
a new run is judged against. Three to ten runs say little about one layer's variance, so it is drawn towards what
is usual for layers of its length: empirical Bayes, Smyth 2004, *Linear models and empirical Bayes methods for
assessing differential expression in microarray experiments* (the package limma).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from pytest_trtgray.timing.summary import Floats

MIN_RUNS = 3
"""Below this many jobs the spread between runs is not measured but assumed."""
MIN_LAYERS = 5
"""Fewer layers do not tell what they share from what one of them does."""
TREND_MIN_LAYERS = 30
"""From so many layers on, the usual variance is a parabola over the logarithm of the time, not one number."""
MAX_PRIOR_DF = 10.0
"""Most degrees of freedom that the other layers' variances may lend: real noise has heavier tails than a normal
distribution. In the simulation of ``benchmarks/gate.py`` a cap of 50 doubles the false alarms and one of 6 loses a
tenth of the +5 % slowdowns."""
MAX_SESSION_DF = 4.0
"""Most degrees of freedom that the sessions lend: a layer may differ between runs in ways it does not within one."""
OWN_VARIANCE = 0.001
"""A layer whose variance is this improbable among the others keeps its own."""
CLOCK_SHARE, CLOCK_SHARE_SD = 0.8, 0.25
"""Prior of how much a layer's time follows the clock: 1 for compute-bound, 0 for memory-bound layers."""
CLOCK_SHIFT_SD = 0.005
LOADING_SD = 0.35
MIN_VARIANCE = 1e-8
LONE_LAYER_SD = 0.06
"""Between processes a layer moves by up to 6 % (99th percentile, NVIDIA H200); one job knows no better."""
LONE_ENGINE_SD = 0.02
"""The engine repeats within 0.7 % there, and on clouds within a few."""
LONE_DF = 20.0
PRIOR_ENGINE_SD = 0.005
PRIOR_ENGINE_DF = 4.0
ENGINE_CLOCK_SHARE = 0.7
UNKNOWN_CLOCK_SD = 0.02
"""What a clock that was not read may have done to the engine."""


@dataclass(frozen=True)
class RunTimes:
    """Runs as the model takes them: log microseconds.

    Attributes:
        layers: of shape (runs, layers).
        errors: standard errors within each run, the same shape.
        engine: of shape (runs,).
        clock: log of the SM clock, of shape (runs,); NaN where it was not read.
        within: variance of a run's mean that the differences between its sessions explain, of shape (layers,).
        within_df: degrees of freedom of ``within``; 0 if runs have one session.
        noise: relative standard deviation between the iterations of a session, of a usual layer.
    """

    layers: Floats
    errors: Floats
    engine: Floats
    clock: Floats
    within: Floats
    within_df: float
    noise: float = 0.0


@dataclass(frozen=True)
class Spread:
    """A fitted baseline. See :func:`fit`; variances are squares of relative changes."""

    runs: int
    level: Floats
    loading: Floats
    loading_weight: float
    variance: Floats
    df: Floats
    error2: Floats
    common: bool
    clock: float | None
    clock_share: float
    engine_level: float
    engine_share: float
    engine_weight: float
    engine_variance: float
    engine_df: float

    @property
    def is_measured(self) -> bool:
        """Whether the spread comes from runs, and not from what is usual elsewhere."""
        return self.runs >= MIN_RUNS


@dataclass(frozen=True)
class Deviation:
    """How far a run lies from a baseline.

    Attributes:
        change: of each layer, after what all layers share was taken out.
        sd: its standard deviation if nothing has changed.
        df: degrees of freedom of ``sd``.
        shift: what all layers share.
        explained: the part of ``shift`` that the clock explains; ``None`` without a clock.
        engine_change: of the engine, after what the clock explains.
        engine_sd: its standard deviation.
        engine_df: degrees of freedom of ``engine_sd``.
    """

    change: Floats
    sd: Floats
    df: Floats
    shift: float
    explained: float | None
    engine_change: float
    engine_sd: float
    engine_df: float


def fit(times: RunTimes) -> Spread:
    """Fit the model of this module to a baseline's runs (one row a job)."""
    runs, count = times.layers.shape
    common = count >= MIN_LAYERS
    shift = np.zeros(runs)
    level = times.layers.mean(axis=0)
    for _ in range(3 if common else 0):
        level = (times.layers - shift[:, np.newaxis]).mean(axis=0)
        shift = np.median(times.layers - level, axis=1)
    has_clock = bool(np.isfinite(times.clock).all())
    clock = float(times.clock.mean()) if has_clock else None
    speed = times.clock - times.clock.mean() if has_clock else np.zeros(runs)
    share = _ridge(-shift, speed, CLOCK_SHARE, CLOCK_SHIFT_SD / CLOCK_SHARE_SD) if has_clock else 0.0
    machine = (-share * speed if has_clock else shift) * common
    residual = times.layers - level - shift[:, np.newaxis]
    residual -= residual.mean(axis=0)
    if runs < MIN_RUNS or count == 0:
        own = (residual**2).sum(axis=0) / max(runs - 1, 1)
        # a machine that is busy with other work is not a GPU in a rack: never less than what is seen
        variance = np.maximum(np.maximum(own, 4 * times.within), max(LONE_LAYER_SD, times.noise) ** 2)
        df, loading, weight = np.full(count, LONE_DF), np.zeros(count), np.inf
    else:
        weight = float(machine @ machine + np.median(residual.var(axis=0, ddof=1)) / LOADING_SD**2) or np.inf
        loading = (machine @ residual) / weight
        residual = residual - np.outer(machine, loading)
        own_df = runs - 1 - float(machine @ machine) / weight
        own, own_df = with_sessions((residual**2).sum(axis=0) / own_df, own_df, times.within, times.within_df)
        variance, df = moderated(own, own_df, level)
    engine = times.engine - times.engine.mean()
    engine_weight = float((speed**2).sum()) + (CLOCK_SHIFT_SD / CLOCK_SHARE_SD) ** 2
    engine_share = _ridge(-engine, speed, ENGINE_CLOCK_SHARE, CLOCK_SHIFT_SD / CLOCK_SHARE_SD) if has_clock else 0.0
    squares = float(((engine + engine_share * speed) ** 2).sum())
    if runs < MIN_RUNS:
        engine_variance = max(LONE_ENGINE_SD**2, times.noise**2, squares / max(runs - 1, 1))
        engine_df = LONE_DF
    elif not has_clock:  # the drift of the clock is in every run, and nobody knows how much
        engine_variance, engine_df = max(squares / (runs - 1), MIN_VARIANCE), float(runs - 1)
    else:
        engine_df = PRIOR_ENGINE_DF + runs - 1
        engine_variance = (PRIOR_ENGINE_DF * PRIOR_ENGINE_SD**2 + squares) / engine_df
    return Spread(
        runs=runs,
        level=level,
        loading=loading,
        loading_weight=weight,
        variance=variance,
        df=df,
        error2=np.mean(times.errors**2, axis=0),
        common=common,
        clock=clock,
        clock_share=share,
        engine_level=float(times.engine.mean()),
        engine_share=engine_share,
        engine_weight=engine_weight,
        engine_variance=engine_variance,
        engine_df=engine_df,
    )


def deviation(spread: Spread, layers: Floats, errors: Floats, engine: float, clock: float | None) -> Deviation:
    """How far one run lies from a fitted baseline.

    Args:
        spread: of :func:`fit`.
        layers: log microseconds of the run's layers.
        errors: their standard errors within the run.
        engine: log microseconds of the engine.
        clock: log of the SM clock; ``None`` if it was not read.
    """
    speed = clock - spread.clock if clock is not None and spread.clock is not None else None
    change, shift, machine = residual_of(spread, layers, speed)
    variance = spread.variance * (1 + 1 / spread.runs + machine**2 / spread.loading_weight)
    variance = variance + np.maximum(0.0, errors**2 - spread.error2)
    turn = speed or 0.0
    engine_variance = spread.engine_variance * (1 + 1 / spread.runs + turn**2 / spread.engine_weight)
    if speed is None and spread.clock is not None:
        engine_variance += UNKNOWN_CLOCK_SD**2
    return Deviation(
        change=change,
        sd=np.sqrt(variance),
        df=spread.df,
        shift=shift,
        explained=None if speed is None else -spread.clock_share * speed,
        engine_change=engine - spread.engine_level + spread.engine_share * turn,
        engine_sd=float(np.sqrt(engine_variance)),
        engine_df=spread.engine_df,
    )


def residual_of(spread: Spread, layers: Floats, speed: float | None) -> tuple[Floats, float, float]:
    """Change of each layer of a run, what all share, and the machine's part of it."""
    shift = float(np.median(layers - spread.level)) if spread.common and layers.size else 0.0
    machine = shift if spread.clock is None else -spread.clock_share * (speed or 0.0)
    machine *= spread.common
    return layers - spread.level - shift - machine * spread.loading, shift, machine


def moderated(own: Floats, df: float, level: Floats) -> tuple[Floats, Floats]:
    """Variances drawn towards what is usual, and their degrees of freedom.

    Args:
        own: each layer's sample variance.
        df: degrees of freedom of every one of them.
        level: log microseconds, for the trend.
    """
    own = np.maximum(own, MIN_VARIANCE)
    if len(own) < MIN_LAYERS:
        prior, prior_df = np.full(len(own), 1e-4), 4.0
    else:
        prior, prior_df = usual_variance(own, df, level)
    wild = own > prior * stats.f.isf(OWN_VARIANCE, df, prior_df)
    drawn = (prior_df * prior + df * own) / (prior_df + df)
    return np.where(wild, own, drawn), np.where(wild, df, df + prior_df)


def with_sessions(between: Floats, df: float, within: Floats, within_df: float) -> tuple[Floats, float]:
    """Variances between runs, helped by those between the sessions of a run.

    A layer that differs from process to process differs from run to run. By how much more, is much the same for all
    layers of an engine, and then each layer's sessions tell of its runs: three runs of three sessions have two
    degrees of freedom between runs and six within.
    """
    usable = (within > MIN_VARIANCE) & (between > MIN_VARIANCE)
    if within_df < 2 or usable.sum() < MIN_LAYERS:
        return between, df
    expected = special.digamma(df / 2) - np.log(df / 2) - special.digamma(within_df / 2) + np.log(within_df / 2)
    ratio = max(float(np.exp(np.mean(np.log(between[usable] / within[usable])) - expected)), 1.0)
    lent = min(within_df, MAX_SESSION_DF)
    return (df * between + lent * ratio * within) / (df + lent), df + lent


def usual_variance(own: Floats, df: float, level: Floats) -> tuple[Floats, float]:
    """Prior variance of each layer, and the prior's degrees of freedom (Smyth 2004, section 6.2).

    log(own variance) is scattered around log(usual variance) like the logarithm of an F distribution, whose mean
    and variance are digamma and trigamma functions; what is left over of the scatter tells how alike the layers are.
    """
    z = np.log(own) - special.digamma(df / 2) + np.log(df / 2)
    centred = level - level.mean()
    terms = np.vander(centred, 3 if len(own) > TREND_MIN_LAYERS and np.ptp(centred) > 0 else 1)
    trend = terms @ np.linalg.lstsq(terms, z, rcond=None)[0]
    scatter = float(((z - trend) ** 2).sum()) / max(len(z) - terms.shape[1], 1) - float(special.polygamma(1, df / 2))
    wanted = max(scatter, float(special.polygamma(1, MAX_PRIOR_DF / 2)))
    half = optimize.brentq(lambda value: float(special.polygamma(1, value)) - wanted, 1e-3, 1e3)
    prior = np.exp(trend + special.digamma(half) - np.log(half))
    return np.asarray(prior), 2 * float(half)


def holm(p: NDArray[np.float64]) -> Floats:
    """Holm's step-down adjustment of p-values (Holm 1979, *A simple sequentially rejective test procedure*)."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(stepped)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def looks_suspicious(p: NDArray[np.float64], rate: float = 0.1) -> bool:
    """Whether the procedure of Benjamini and Hochberg (1995) rejects anything at a false discovery rate."""
    ordered = np.sort(p)
    return bool((ordered <= rate * np.arange(1, len(p) + 1) / max(len(p), 1)).any())


def _ridge(response: Floats, regressor: Floats, prior: float, ratio: float) -> float:
    """Slope of a line through the origin, drawn towards ``prior``; ``ratio`` of the noise to the prior's spread."""
    weight = ratio**2
    return float((weight * prior + regressor @ response) / (weight + regressor @ regressor))


def stacked(rows: Sequence[Floats]) -> Floats:
    """Rows as one array of two dimensions."""
    return np.asarray(np.vstack([np.atleast_1d(row) for row in rows]), dtype=np.float64)
