"""What is kept of measurements: sessions, runs, baselines. Summaries, never samples.

A *session* is one execution context (or process), a *run* one CI job of several sessions. Times are kept as
logarithms of microseconds, so that differences are relative changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pytest_trtgray.engines.model import Layer
from pytest_trtgray.structure.matching import layer_keys

Floats = NDArray[np.float64]

MAX_RUNS = 20
FLOOR_US = 1e-3
"""Layers of 0 us exist; a logarithm needs more. A thirtieth of the profiler's tick."""
BATCHES = 8
CLIP = 5.0
"""Robust standard deviations beyond which a time is an outlier and not part of the mean."""
_LARGEST = 50.0
COMMON_MIN_LAYERS = 10
COMMON_MIN_TICKS = 8
"""What all layers share within an iteration is read from layers that take at least so many ticks."""


class _HasContext(Protocol):
    @property
    def context(self) -> Mapping[str, str]: ...


InJob = TypeVar("InJob", bound=_HasContext)


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
        noise: median over the layers of the relative standard deviation between iterations; ``None`` is unknown.

    What another tool has measured may lack a time or an error, which is NaN then; see :attr:`Run.has_errors`.
    """

    layers: tuple[str, ...]
    log_us: tuple[float, ...]
    log_se: tuple[float, ...]
    engine_log_us: float
    engine_log_se: float
    iterations: int
    clock_mhz: float | None = None
    disturbed: str = ""
    noise: float | None = None

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
        location, error, noise = locate(without_common_mode(samples))
        if latency_us is None:
            whole, whole_error = float(location.sum()), float(np.sqrt(np.sum((location * error) ** 2)))
            whole_error /= max(whole, FLOOR_US)
        else:
            place, relative, _ = locate(_checked(latency_us, "latency_us", dimensions=1)[:, np.newaxis])
            whole, whole_error = float(place[0]), float(relative[0])
        why = disturbed if isinstance(disturbed, str) else "the machine was disturbed" if disturbed else ""
        return cls(
            layers=keys,
            log_us=tuple(np.log(np.maximum(location, FLOOR_US)).tolist()),
            log_se=tuple(error.tolist()),
            engine_log_us=math.log(max(whole, FLOOR_US)),
            engine_log_se=whole_error,
            iterations=int(samples.shape[0]),
            clock_mhz=clock_mhz,
            disturbed=why,
            noise=float(np.median(noise)) if noise.size else None,
        )


@dataclass(frozen=True)
class Run:
    """Sessions of one job; a run is what a baseline counts.

    Attributes:
        sessions: at least one, all over the same layers.
        context: recorded and shown, never judged, except that ``job`` tells which runs belong to one job.
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

    @property
    def has_errors(self) -> bool:
        """Whether the time and the error of every layer are known; without, nobody can judge the layers."""
        return bool(np.isfinite([self.location(), self.error()]).all())

    def without_layers(self) -> Run:
        """The engine's times alone."""
        return Run((replace(each, layers=(), log_us=(), log_se=()) for each in self.sessions), self.context)

    def to_dict(self) -> dict[str, Any]:
        """Builtins for a run document, without the context; ``None`` for what is not known."""
        return {
            "layers": list(self.layers),
            "sessions": [
                {
                    "log_us": [_rounded(value, 4) for value in session.log_us],
                    "log_se": [_rounded(value, 4) for value in session.log_se],
                    "engine_log_us": _rounded(session.engine_log_us, 6),
                    "engine_log_se": _rounded(session.engine_log_se, 6),
                    "iterations": session.iterations,
                    "clock_mhz": session.clock_mhz,
                    "disturbed": session.disturbed,
                    "noise": None if session.noise is None else _rounded(session.noise, 5),
                }
                for session in self.sessions
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], context: Mapping[str, str] | None = None) -> Run:
        """The inverse of :meth:`to_dict`.

        Raises:
            KeyError, TypeError, ValueError: not what :meth:`to_dict` writes.
        """
        layers = tuple(str(key) for key in data["layers"])
        return cls(
            (
                Session(
                    layers=layers,
                    log_us=_known_numbers(row["log_us"], len(layers)),
                    log_se=_known_numbers(row["log_se"], len(layers)),
                    engine_log_us=_known_numbers([row["engine_log_us"]], 1)[0],
                    engine_log_se=_known_numbers([row["engine_log_se"]], 1)[0],
                    iterations=int(row["iterations"]),
                    clock_mhz=None if row["clock_mhz"] is None else float(row["clock_mhz"]),
                    disturbed=str(row["disturbed"]),
                    noise=None if row["noise"] is None else float(row["noise"]),
                )
                for row in data["sessions"]
            ),
            context,
        )

    def in_order(self, layers: Sequence[str]) -> Run:
        """The same run with its layers in another order."""
        at = {key: column for column, key in enumerate(self.layers)}
        columns = [at[key] for key in layers]
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

    def between_sessions(self) -> Floats:
        """Standard deviation of each layer between the sessions, after what all layers share; 0 for one session."""
        rows = np.array([session.log_us for session in self.sessions])
        if len(rows) < 2:
            return np.zeros(rows.shape[1])
        rows = rows - np.median(rows - rows.mean(axis=0), axis=1, keepdims=True)
        return np.asarray(rows.std(axis=0, ddof=1))

    def engine(self) -> float:
        """Log microseconds of the engine."""
        return float(np.mean([session.engine_log_us for session in self.sessions]))

    def engine_error(self) -> float:
        """Standard error of :meth:`engine` within the run."""
        return float(np.sqrt(np.mean(np.square([s.engine_log_se for s in self.sessions])) / len(self.sessions)))

    def clock_mhz(self) -> float | None:
        """SM clock, the mean over sessions; ``None`` unless every session has read it."""
        clocks = [session.clock_mhz for session in self.sessions]
        known = [clock for clock in clocks if clock is not None and math.isfinite(clock) and clock > 0]
        return float(np.mean(known)) if len(known) == len(clocks) else None

    def noise(self) -> float | None:
        """Mean of the sessions' ``noise``."""
        known = [session.noise for session in self.sessions if session.noise is not None]
        return float(np.mean(known)) if known else None


@dataclass(frozen=True)
class RunSummary:
    """A run as a baseline keeps it: no samples, and of its sessions how far they were apart (``log_sd``)."""

    log_us: tuple[float, ...]
    log_se: tuple[float, ...]
    log_sd: tuple[float, ...]
    engine_log_us: float
    engine_log_se: float
    sessions: int
    iterations: int
    clock_mhz: float | None
    context: Mapping[str, str]
    noise: float | None = None


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

    def jobs(self) -> list[list[RunSummary]]:
        """The runs by job; see :func:`by_job`."""
        return by_job(self.runs)

    def to_dict(self) -> dict[str, Any]:
        """Builtins for JSON."""
        return {
            "layers": list(self.layers),
            "runs": [
                {
                    "log_us": [round(value, 4) for value in run.log_us],
                    "log_se": [round(value, 4) for value in run.log_se],
                    "log_sd": [round(value, 4) for value in run.log_sd],
                    "engine_log_us": round(run.engine_log_us, 6),
                    "engine_log_se": round(run.engine_log_se, 6),
                    "sessions": run.sessions,
                    "iterations": run.iterations,
                    "clock_mhz": run.clock_mhz,
                    "noise": None if run.noise is None else round(run.noise, 5),
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
            noise = run.get("noise")  # not in the first files
            summary = RunSummary(
                log_us=finite_numbers(run["log_us"], len(layers)),
                log_se=finite_numbers(run["log_se"], len(layers)),
                log_sd=finite_numbers(run.get("log_sd") or [0.0] * len(layers), len(layers)),
                engine_log_us=finite_numbers([run["engine_log_us"]], 1)[0],
                engine_log_se=finite_numbers([run["engine_log_se"]], 1)[0],
                sessions=int(run["sessions"]),
                iterations=int(run["iterations"]),
                clock_mhz=None if run["clock_mhz"] is None else float(run["clock_mhz"]),
                context={str(key): str(value) for key, value in dict(run["context"]).items()},
                noise=None if noise is None else float(noise),
            )
            kept.append(summary)
        return cls(layers=layers, kept=kept)


def by_job(runs: Iterable[InJob]) -> list[list[InJob]]:
    """Runs by job: those that say nothing of their job are each one of their own.

    What differs between jobs (clocks, placement, other tenants) does not average out within one, so three
    runs in a row are worth little more than one.
    """
    found: dict[str, list[InJob]] = {}
    for index, run in enumerate(runs):
        found.setdefault(run.context.get("job") or f"run {index}", []).append(run)
    return list(found.values())


def without_common_mode(samples: Floats) -> Floats:
    """Times of shape (iterations, layers) without what all layers share within an iteration.

    A clock that wanders moves all layers of an iteration together; per iteration that is the median over the
    layers of log(time / the layer's median). Few layers, or very short ones, cannot tell it.
    """
    middle = np.median(samples, axis=0)
    tick = _tick(samples)
    large = middle >= max(COMMON_MIN_TICKS * tick, FLOOR_US)
    if large.sum() < COMMON_MIN_LAYERS:
        return samples
    shared = np.median(np.log(np.maximum(samples[:, large], tick / 2 or FLOOR_US) / middle[large]), axis=1)
    return np.asarray(samples / np.exp(shared - np.median(shared))[:, np.newaxis])


def locate(samples: Floats) -> tuple[Floats, Floats, Floats]:
    """Clipped mean of each column, its relative standard error, and the relative standard deviation.

    A clipped mean and not a median: short layers take a few ticks of the profiler's clock, and the median of
    such data sticks to a multiple of the tick. The error comes from batch means, which stay honest where
    neighbouring iterations are alike.
    """
    middle = np.median(samples, axis=0)
    spread = 1.4826 * np.median(np.abs(samples - middle), axis=0)
    reach = CLIP * np.maximum(spread, _tick(samples) / 2)
    kept = np.abs(samples - middle) <= reach
    counts = kept.sum(axis=0)
    mean = np.where(kept, samples, 0.0).sum(axis=0) / counts
    scale = np.maximum(mean, FLOOR_US)
    deviation = np.sqrt(np.where(kept, (samples - mean) ** 2, 0.0).sum(axis=0) / counts)
    means = []
    for batch, inside in zip(np.array_split(samples, BATCHES), np.array_split(kept, BATCHES), strict=True):
        if len(batch):
            size = np.maximum(inside.sum(axis=0), 1)
            total = np.where(inside, batch, 0.0).sum(axis=0)
            means.append(np.where(inside.any(axis=0), total / size, mean))
    error = np.std(means, axis=0, ddof=1) / math.sqrt(len(means)) if len(means) > 1 else np.zeros_like(mean)
    return mean, error / scale, deviation / scale


def _tick(samples: Floats) -> float:
    """The step of the clock: the usual gap between different values."""
    gaps = np.diff(np.unique(samples.ravel()[:20_000]))
    gaps = gaps[gaps > 1e-9]
    return float(np.median(gaps)) if gaps.size else 0.0


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
    return RunSummary(
        log_us=tuple(float(value) for value in run.location()),
        log_se=tuple(float(value) for value in run.error()),
        log_sd=tuple(float(value) for value in run.between_sessions()),
        engine_log_us=run.engine(),
        engine_log_se=run.engine_error(),
        sessions=len(run.sessions),
        iterations=run.iterations,
        clock_mhz=run.clock_mhz(),
        context=run.context,
        noise=run.noise(),
    )


def _rounded(value: float, digits: int) -> float | None:
    return round(value, digits) if math.isfinite(value) else None


def _known_numbers(values: Sequence[Any], count: int) -> tuple[float, ...]:
    """So many logarithms or errors out of a file; NaN for ``None``. Beyond ``e ** 50`` microseconds is no time."""
    numbers = tuple(math.nan if value is None else float(value) for value in values)
    if len(numbers) != count or any(abs(value) > _LARGEST for value in numbers):
        raise ValueError(f"expected {count} numbers, found {len(numbers)}")
    return numbers


def finite_numbers(values: Sequence[Any], count: int) -> tuple[float, ...]:
    """So many numbers out of a file.

    Raises:
        TypeError, ValueError: no numbers, not so many, NaN or infinite.
    """
    numbers = tuple(float(value) for value in values)
    if len(numbers) != count or not all(math.isfinite(value) for value in numbers):
        raise ValueError(f"expected {count} finite numbers, found {len(numbers)}")
    return numbers
