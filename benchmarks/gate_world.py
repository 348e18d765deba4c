"""Simulated engines on simulated machines, for ``benchmarks/gate.py`` and ``tests/unit/timing/test_gate_power.py``.

A *run* is one CI job, with its own clock and its own luck; a *session* is one fresh process in it. Two worlds:

:class:`Drifting`
    A clock that moves, layers that follow it to different degrees, small differences between processes. Its figures are
    assumptions from the literature, made before anything was measured.
:class:`Measured`
    The noise of 22 processes of a BERT-base encoder on an NVIDIA H200 (TensorRT for RTX 1.5, FP16, batch 8, sequence
    128; 12 processes on one day and 10 on another). The comment at a figure says how it was estimated; "deviation" is
    that of a layer's clipped mean in a process from its median over the day's processes.

All times are microseconds; all effects on time are logarithms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import signal

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
WorldName = Literal["drifting", "measured"]
WORLDS: tuple[WorldName, ...] = ("drifting", "measured")

NOMINAL_MHZ = 1980.0
"""The SM clock of the H200's sessions."""
T5_SD = float(np.sqrt(5 / 3))
"""Standard deviation of Student's t with 5 degrees of freedom: divides it out."""


@dataclass(frozen=True)
class Conditions:
    """What differs between the rows of the benchmark.

    Attributes:
        layers: how many; ``None`` is the world's own number.
        iterations: of a session.
        drift_sd: range of the clock's standard deviation between runs; ``None`` is the world's own.
        clock_read: whether a session knows its clock.
        two_mode: share of layers with a second mode; ``None`` is the world's own.
        heavy_tails: effects that last a whole run are t(5) and not normal.
        one_job: all runs of the baseline share one run's effects.
        disturbed: the tested run sits on a machine with a neighbour.
    """

    layers: int | None = None
    iterations: int = 67
    drift_sd: tuple[float, float] | None = None
    clock_read: bool = True
    two_mode: float | None = None
    heavy_tails: bool = False
    one_job: bool = False
    disturbed: bool = False


class Samples(NamedTuple):
    """One session as it is measured."""

    layer_us: Floats
    """(iterations, layers)"""
    latency_us: Floats | None
    """(iterations,); ``None``: the engine's time is that of its layers."""
    clock_mhz: float | None


class Job(NamedTuple):
    """What all sessions of a run share."""

    clock: float
    """Log slowdown of the clock."""
    shift: float
    """Log slowdown of everything, which the clock does not explain."""
    layers: Floats
    """Log slowdown of each layer."""
    disturbed: bool


class Disturbance:
    """A neighbour on the machine; the figures are the reference simulation's."""

    CLOCK = 0.06
    """The whole run is slower by this much."""
    BURST, BURST_HALF_WIDTH = 0.2, 0.15
    """All layers take a fifth longer in up to 30 % of the iterations."""
    NOISE = 3.0
    OUTLIERS = 10.0


def autoregressive(rng: np.random.Generator, rho: float, shape: tuple[int, ...]) -> Floats:
    """AR(1) noise of unit variance along the last axis (from zero: the first few vary less)."""
    white = rng.standard_normal(shape) * np.sqrt(1 - rho**2)
    return np.asarray(signal.lfilter([1.0], [1.0, -rho], white, axis=-1))


def ticked(rng: np.random.Generator, times: Floats, tick: float) -> Floats:
    """Times as a clock of this tick gives them: both events fall on ticks, at any phase."""
    phase = rng.random(times.shape)
    return np.asarray(np.floor(times / tick + phase) - np.floor(phase)) * tick


def log_uniform(rng: np.random.Generator, low: float, high: float, size: int) -> Floats:
    """Uniform in the logarithm."""
    return np.asarray(np.exp(rng.uniform(np.log(low), np.log(high), size)), dtype=np.float64)


def burst(rng: np.random.Generator, iterations: int) -> Floats:
    """A neighbour that works during part of a session."""
    at = np.arange(iterations) / iterations
    return np.where(np.abs(at - rng.random()) < Disturbance.BURST_HALF_WIDTH, Disturbance.BURST, 0.0)


class Drifting:
    """Configuration A: 200 layers, a drifting clock, differences between processes below 1 %."""

    LAYERS = 200
    SHORT_SHARE, SHORT_US, LONG_US = 0.6, (2.0, 50.0), (50.0, 500.0)
    """Assumed: a detector with many small layers."""
    NOISE_SD = (0.01, 0.03)
    """Of iterations; the H200's median is 1.6 %, its 90th percentile 3.0 %."""
    GAMMA_SHAPE, GAMMA_WEIGHT, LAYER_AR_WEIGHT, LAYER_AR = 3.0, 0.85, 0.5, 0.5
    """Right-skewed noise plus a part that lasts a few iterations."""
    WANDER_SD, WANDER_AR = 0.004, 0.9
    """Common to all layers of an iteration."""
    RAMP = 0.01
    """At most this much warming up over a session."""
    OUTLIERS, OUTLIER_FACTOR = 0.003, (2.0, 8.0)
    TICKS_US = (0.5, 1.0)
    """CUDA documents events as "around 0.5 us"."""
    DRIFT_SD = (0.01, 0.03)
    SESSION_CLOCK_SD = 0.003
    CLOCK_READING_SD = 0.001
    """Error of the management library's reading."""
    CLOCK_BOUND_SHARE, CLOCK_BOUND, MEMORY_BOUND = 0.6, (0.8, 1.0), (0.1, 0.6)
    """How much of the clock's drift a layer follows."""
    SHIFT_SD = 0.003
    """Common to a run and unexplained."""
    RUN_SD, PROCESS_SD, EFFECT_SPREAD, EFFECT_LIMITS = 0.0025, 0.0045, 0.5, (0.0005, 0.012)
    """A layer's own effect of a run (normal) and of a process (t5): median, log spread over layers, limits."""
    SECOND_MODE, SECOND_MODE_CHANCE = 0.04, 0.3
    """A two-mode layer is slower by this much in this share of processes."""

    def __init__(self, conditions: Conditions, rng: np.random.Generator) -> None:
        self.conditions, self.rng = conditions, rng
        count = conditions.layers or self.LAYERS
        self.base_us: Floats = np.where(
            rng.random(count) < self.SHORT_SHARE,
            log_uniform(rng, *self.SHORT_US, count),
            log_uniform(rng, *self.LONG_US, count),
        )
        self.noise_sd = rng.uniform(*self.NOISE_SD, count)
        self.loading: Floats = np.where(
            rng.random(count) < self.CLOCK_BOUND_SHARE,
            rng.uniform(*self.CLOCK_BOUND, count),
            rng.uniform(*self.MEMORY_BOUND, count),
        )
        self.run_sd, self.process_sd = (
            np.clip(sd * np.exp(self.EFFECT_SPREAD * rng.standard_normal(count)), *self.EFFECT_LIMITS)
            for sd in (self.RUN_SD, self.PROCESS_SD)
        )
        self.two_mode: Bools = rng.random(count) < (conditions.two_mode or 0.0)
        self.drift_sd = float(rng.uniform(*(conditions.drift_sd or self.DRIFT_SD)))
        self.tick_us = float(rng.choice(self.TICKS_US))

    @property
    def engine_us(self) -> float:
        """The engine's time, all effects aside."""
        return float(self.base_us.sum())

    def job(self, *, disturbed: bool = False) -> Job:
        """The circumstances of a run."""
        rng, count = self.rng, len(self.base_us)
        own = rng.standard_t(5, count) / T5_SD if self.conditions.heavy_tails else rng.standard_normal(count)
        clock = self.drift_sd * rng.standard_normal() + Disturbance.CLOCK * disturbed
        return Job(clock, self.SHIFT_SD * rng.standard_normal(), self.run_sd * own, disturbed)

    def session(self, job: Job, slowdown: Floats | None = None) -> Samples:
        """A fresh process; ``slowdown`` is relative, one a layer."""
        rng, count, iterations = self.rng, len(self.base_us), self.conditions.iterations
        clock = job.clock + self.SESSION_CLOCK_SD * rng.standard_normal()
        process = self.process_sd * rng.standard_t(5, count) / T5_SD
        process += np.where(self.two_mode & (rng.random(count) < self.SECOND_MODE_CHANCE), self.SECOND_MODE, 0.0)
        common = self.WANDER_SD * autoregressive(rng, self.WANDER_AR, (iterations,))
        common += rng.uniform(0, self.RAMP) * np.arange(iterations) / iterations
        if job.disturbed:
            common += burst(rng, iterations)
        gamma = (rng.standard_gamma(self.GAMMA_SHAPE, (count, iterations)) - self.GAMMA_SHAPE) / self.GAMMA_SHAPE**0.5
        noise = self.GAMMA_WEIGHT * gamma * (Disturbance.NOISE if job.disturbed else 1.0)
        noise += self.LAYER_AR_WEIGHT * autoregressive(rng, self.LAYER_AR, (count, iterations))
        effect = self.loading * clock + job.shift + job.layers + process
        times = np.exp(effect[:, None] + self.loading[:, None] * common[None])
        times *= self.base_us[:, None] * np.maximum(1 + self.noise_sd[:, None] * noise, 0.5)
        if slowdown is not None:
            times *= 1 + slowdown[:, None]
        odd = rng.random(times.shape) < self.OUTLIERS * (Disturbance.OUTLIERS if job.disturbed else 1.0)
        times[odd] *= rng.uniform(*self.OUTLIER_FACTOR, int(odd.sum()))
        reading = NOMINAL_MHZ * float(np.exp(-clock + self.CLOCK_READING_SD * rng.standard_normal()))
        return Samples(ticked(rng, times, self.tick_us).T, None, reading if self.conditions.clock_read else None)


class Measured:
    """Configuration B: 125 layers of 1.5 to 39 us, processes that differ by percents, a clock that stands still.

    What was found in the recorded processes, beyond their marginal figures, and is kept here:

    * the shift that all layers share is *additive*, about the same number of microseconds for a layer of 4 us and for
      one of 39 us (log loading times duration is constant within 10 %), with two modes 0.12 us apart;
    * short layers (below 5.5 us: copies, reshapes, normalisations) vary between processes, GEMMs hardly do;
    * the copy at the front varies most, and drags the GEMM behind it along (1.4 % of the engine's time);
    * the latency without the profiler does not follow the layers' shift (correlation 0.3).
    """

    LAYERS = 125
    QUANTILES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
    QUANTILES_US = (1.56, 4.55, 4.70, 4.86, 5.01, 5.77, 5.81, 10.9, 13.8, 19.5, 26.7, 38.9, 39.4)
    """Of the layers' means over the first day's processes."""
    OVERHEAD = 1.041
    """Latency over the sum of the layers: 1707 us over 1635 us."""
    TICK_US = 0.032
    """Smallest and median gap between unique times."""
    NOISE_US, NOISE_SD = 0.105, 0.0095
    """Of iterations: 1.4826 MAD of layers below 6 us is 0.11 us whatever they take, of those above 30 us 1.0 %."""
    NOISE_SPREAD = 0.25
    """Log spread over layers about that line."""
    GAMMA_SHAPE = 10.0
    """Pooled skewness of standardised times 0.6 to 0.8: a gamma's is 2 / sqrt(shape). No autocorrelation (-0.15)."""
    WANDER_SD = 0.0008
    """Median over layers of an iteration's deviations: sd 0.13 %, of which noise alone explains the most."""
    OUTLIERS, OUTLIER_FACTOR = 0.0015, (1.3, 3.1)
    """Share above 1.3 medians 0.12 %; their 10th to last percentile."""
    MODES_US, MODE_SD_US = (-0.06, 0.065), 0.02
    """Common additive shift of a process, 11 and 11 of 22; spread within a mode."""
    LOG_SD_KNOTS_US = (1.5, 4.9, 5.9, 11.0, 16.0, 23.0, 39.0)
    PROCESS_SD_AT = (0.030, 0.0140, 0.0070, 0.0040, 0.0028, 0.0023, 0.0012)
    PROCESS_SPREAD = 0.5
    """Sd of a layer between processes, the common shift removed, by its duration; log spread about that line."""
    T_DEGREES = 6.0
    """Pooled kurtosis of standardised deviations 4.4 with 22 processes."""
    KIND_CORRELATION = 0.3
    """Mean correlation of layers of one kernel 0.1 to 0.4; layers are sorted into kinds by duration."""
    KIND_SIZE = 11
    RUN_RATIO = 0.3
    """Sd of a run's effect over a process's: the two days' means differ by 1.4 standard errors of processes (rms)."""
    TWO_MODE, SECOND_MODE, SECOND_MODE_CHANCE, TWO_MODE_BELOW_US = 0.04, (0.028, 0.062), (0.2, 0.5), 6.0
    """5 of 125 layers split in two, beyond the 99th percentile of what one normal mode would show."""
    COPY_US, COPY_SD, COPY_NOISE = 6.5, 0.068, 0.08
    """``ShapeHostToDeviceCopy``: -7 to +25 %, right-skewed; iterations 8 %."""
    DRAGGED_US, DRAGGED = 22.7, 0.8
    """The first GEMM follows it: correlation over processes 0.9, slope 0.8."""
    LATENCY_NOISE_SD = 0.011
    """Flat, hardly a tail: 1 to 99 % within 2.5 %."""
    LATENCY_MODES, LATENCY_SD, LATENCY_RUN_SD = (-0.0035, 0.0035), 0.0015, 0.0015
    """Latency of a process: sd 0.34 %, two modes; the two days differ by 0.3 %."""
    FOLLOWS_CLOCK = (0.8, 1.0)
    """Assumed: the recorded clock stood still (1980 MHz), used only where a row makes it move."""
    CLOCK_READING_SD = 0.001
    """Assumed, as above."""

    def __init__(self, conditions: Conditions, rng: np.random.Generator) -> None:
        self.conditions, self.rng = conditions, rng
        count = conditions.layers or self.LAYERS
        logs = np.interp(rng.random(count), self.QUANTILES, np.log(self.QUANTILES_US))
        self.base_us: Floats = np.exp(logs)
        fixed = count >= 3
        if fixed:
            self.base_us[:2] = self.COPY_US, self.DRAGGED_US
        spread = np.exp(self.NOISE_SPREAD * rng.standard_normal(count))
        self.noise_sd: Floats = np.hypot(self.NOISE_US / self.base_us, self.NOISE_SD) * spread
        knots = np.log(self.LOG_SD_KNOTS_US)
        self.process_sd: Floats = np.exp(
            np.interp(np.log(self.base_us), knots, np.log(self.PROCESS_SD_AT))
            + self.PROCESS_SPREAD * rng.standard_normal(count)
        )
        self.kinds = (np.argsort(np.argsort(self.base_us)) // self.KIND_SIZE).astype(np.int64)
        share = self.TWO_MODE if conditions.two_mode is None else conditions.two_mode
        may = self.base_us < self.TWO_MODE_BELOW_US if conditions.two_mode is None else np.ones(count, dtype=bool)
        self.two_mode: Bools = may & (rng.random(count) < share * count / max(int(may.sum()), 1))
        self.mode_gap = rng.uniform(*self.SECOND_MODE, count)
        self.mode_chance = rng.uniform(*self.SECOND_MODE_CHANCE, count)
        self.copies: Floats = np.zeros(count)
        if fixed:
            self.copies[:2] = 1.0, self.DRAGGED
            self.noise_sd[0], self.process_sd[0] = self.COPY_NOISE, 0.005
            self.two_mode[:2] = False
        self.loading = rng.uniform(*self.FOLLOWS_CLOCK, count)
        self.drift_sd = float(rng.uniform(*conditions.drift_sd)) if conditions.drift_sd else 0.0
        self.tick_us = self.TICK_US

    @property
    def engine_us(self) -> float:
        """The engine's time, all effects aside."""
        return float(self.base_us.sum()) * self.OVERHEAD

    def job(self, *, disturbed: bool = False) -> Job:
        """The circumstances of a run."""
        rng, count = self.rng, len(self.base_us)
        own = rng.standard_t(5, count) / T5_SD if self.conditions.heavy_tails else rng.standard_normal(count)
        clock = self.drift_sd * rng.standard_normal() + Disturbance.CLOCK * disturbed
        return Job(
            clock, self.LATENCY_RUN_SD * rng.standard_normal(), self.RUN_RATIO * self.process_sd * own, disturbed
        )

    def session(self, job: Job, slowdown: Floats | None = None) -> Samples:
        """A fresh process; ``slowdown`` is relative, one a layer, and lengthens the latency by as many microseconds."""
        rng, count, iterations = self.rng, len(self.base_us), self.conditions.iterations
        scale = np.sqrt((self.T_DEGREES - 2) / self.T_DEGREES)
        own = rng.standard_t(self.T_DEGREES, count) * scale
        kind = rng.standard_normal(int(self.kinds.max()) + 1)[self.kinds]
        process = self.process_sd * (np.sqrt(1 - self.KIND_CORRELATION) * own + np.sqrt(self.KIND_CORRELATION) * kind)
        process += np.where(self.two_mode & (rng.random(count) < self.mode_chance), self.mode_gap, 0.0)
        process += self.copies * self.COPY_SD * (rng.standard_gamma(1.2) - 1.2) / 1.2**0.5
        process += self.loading * job.clock + job.layers
        offset_us = rng.choice(self.MODES_US) + self.MODE_SD_US * rng.standard_normal()
        common = self.WANDER_SD * rng.standard_normal(iterations)
        noise_scale = 1.0
        if job.disturbed:
            common += burst(rng, iterations)
            noise_scale = Disturbance.NOISE
        gamma = (rng.standard_gamma(self.GAMMA_SHAPE, (count, iterations)) - self.GAMMA_SHAPE) / self.GAMMA_SHAPE**0.5
        noise = np.maximum(1 + self.noise_sd[:, None] * noise_scale * gamma, 0.5)
        slow = np.zeros(count) if slowdown is None else slowdown
        located = (self.base_us * np.exp(process) + offset_us) * (1 + slow)
        times = located[:, None] * np.exp(common)[None] * noise
        outliers = self.OUTLIERS * (Disturbance.OUTLIERS if job.disturbed else 1.0)
        odd = rng.random(times.shape) < outliers
        times[odd] *= rng.uniform(*self.OUTLIER_FACTOR, int(odd.sum()))
        reading = NOMINAL_MHZ
        if self.drift_sd or job.disturbed:
            reading *= float(np.exp(-job.clock + self.CLOCK_READING_SD * rng.standard_normal()))
        return Samples(
            ticked(rng, np.maximum(times, 0.0), self.tick_us).T,
            self._latency(job, slow, noise_scale),
            reading if self.conditions.clock_read else None,
        )

    def _latency(self, job: Job, slowdown: Floats, noise_scale: float) -> Floats:
        rng, iterations = self.rng, self.conditions.iterations
        effect = rng.choice(self.LATENCY_MODES) + self.LATENCY_SD * rng.standard_normal() + job.shift
        effect += float(np.mean(self.loading)) * job.clock
        # the layers' share of the latency grows; so does the rest if everything is slower
        whole = self.engine_us * (1 + float(self.base_us @ slowdown) / float(self.base_us.sum()))
        if np.count_nonzero(slowdown) < len(slowdown):
            whole = self.engine_us + float(self.base_us @ slowdown)
        # uniform: the recorded latencies have no tails
        times = whole * np.exp(effect) * (1 + self.LATENCY_NOISE_SD * noise_scale * rng.uniform(-1.6, 1.6, iterations))
        if job.disturbed:
            times *= np.exp(burst(rng, iterations))
            odd = rng.random(iterations) < self.OUTLIERS * Disturbance.OUTLIERS
            times[odd] *= rng.uniform(*self.OUTLIER_FACTOR, int(odd.sum()))
        return np.asarray(times)


World = Drifting | Measured


def world(name: WorldName, conditions: Conditions, seed: Sequence[int]) -> World:
    """An engine on a machine."""
    rng = np.random.Generator(np.random.PCG64(list(seed)))
    return Drifting(conditions, rng) if name == "drifting" else Measured(conditions, rng)


def clipped_means(layer_us: Floats, tick_us: float) -> Floats:
    """Mean of each column without what lies five deviations off; for tables, not for verdicts."""
    middle = np.median(layer_us, axis=0)
    reach = 5 * np.maximum(1.4826 * np.median(np.abs(layer_us - middle), axis=0), tick_us / 2)
    kept = np.abs(layer_us - middle) <= reach
    return np.asarray((layer_us * kept).sum(axis=0) / kept.sum(axis=0))


def robust_cv(layer_us: Floats) -> Floats:
    """1.4826 MAD over the median, of each column."""
    middle = np.median(layer_us, axis=0)
    return np.asarray(1.4826 * np.median(np.abs(layer_us - middle), axis=0) / np.maximum(middle, 1e-9))


class Noise(NamedTuple):
    """The figures by which a world and recordings are compared; a table's column."""

    tick_us: float
    layer_min_us: float
    layer_median_us: float
    layer_max_us: float
    iteration_cv_median: float
    iteration_cv_p90: float
    deviation_median: float
    deviation_p90: float
    deviation_p99: float
    deviation_max: float
    shift_sd_us: float
    latency_sd: float
    latency_range: float


def noise(sessions: Sequence[Samples]) -> Noise:
    """The figures of one day's processes, as STATS.md section 0 defines them."""
    gaps = np.diff(np.unique(np.concatenate([s.layer_us.ravel() for s in sessions]).round(6)))
    tick = float(np.median(gaps[gaps > 1e-4]))
    places = np.array([clipped_means(s.layer_us, tick) for s in sessions])
    cvs = np.array([robust_cv(s.layer_us) for s in sessions])
    logs = np.log(places)
    deviation = np.abs(logs - np.median(logs, axis=0))
    shift = np.median(places - np.median(places, axis=0), axis=1)
    latency = np.log([np.median(s.layer_us.sum(axis=1) if s.latency_us is None else s.latency_us) for s in sessions])
    mean = places.mean(axis=0)
    return Noise(
        tick,
        float(mean.min()),
        float(np.median(mean)),
        float(mean.max()),
        float(np.median(cvs)),
        float(np.quantile(cvs, 0.9)),
        float(np.quantile(deviation, 0.5)),
        float(np.quantile(deviation, 0.9)),
        float(np.quantile(deviation, 0.99)),
        float(deviation.max()),
        float(shift.std()),
        float(latency.std()),
        float(np.ptp(latency)),
    )
