"""What happened in every iteration of a session, and what all diagnoses of it share: numpy and scipy only."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from pytest_trtgray.engines.model import Layer, canonical_name
from pytest_trtgray.findings import Finding, Severity, counted

Floats = NDArray[np.float64]

FALSE_RATE = 0.01
"""Of a kind of finding over all layers and iterations of a run, were the noise Gaussian."""
MIN_ITERATIONS = 10
"""Sessions with fewer are not looked at: their median absolute deviation says nothing."""
MATTERS = 0.005
"""What costs the engine this part of its time is a warning, all else is advice."""
ENGINE = "engine"
MIN_POOLED = 40
MIN_COMMON_LAYERS = 5
RESOLVED_TICKS = 8


@dataclass(frozen=True, eq=False)
class Samples:
    """The iterations of one session.

    Attributes:
        layer_us: shape (iterations, layers), microseconds.
        latency_us: of the whole engine, shape (iterations,), measured in another context; empty if it was not.
        layers: of each column.

    Raises:
        ValueError: NaN, infinite or negative times, no iterations, or a column without a layer.
    """

    layer_us: Floats
    latency_us: Floats
    layers: tuple[Layer | str, ...]

    def __init__(self, layer_us: ArrayLike, latency_us: ArrayLike | None, layers: Iterable[Layer | str]) -> None:
        table = _checked(layer_us, "layer_us", "(iterations, layers)", dimensions=2)
        latency = np.empty(0) if latency_us is None else _checked(latency_us, "latency_us", "(iterations,)")
        kept = tuple(layers)
        if table.shape[0] == 0:
            raise ValueError("layer_us needs at least one iteration")
        if table.shape[1] != len(kept):
            raise ValueError(f"layer_us has {table.shape[1]} columns for {counted(len(kept), 'layer')}")
        object.__setattr__(self, "layer_us", table)
        object.__setattr__(self, "latency_us", latency)
        object.__setattr__(self, "layers", kept)


@dataclass(frozen=True)
class Family:
    """Sessions of one bucket, and what all functions need of them."""

    sessions: tuple[Samples, ...]
    names: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, sessions: Sequence[Samples]) -> Family:
        """Those sessions that are long enough; ``ValueError`` if any has other layers."""
        names = {display_names(session.layers) for session in sessions}
        if len(names) > 1:
            raise ValueError("the sessions of a shape bucket must have the same layers")
        # sorted out only now: a short session of other layers is a mistake too
        kept = tuple(session for session in sessions if len(session.layer_us) >= MIN_ITERATIONS)
        return cls(kept, next(iter(names), ()))

    @cached_property
    def tick(self) -> float:
        """The step of the profiler's clock, microseconds; 0 if times are not multiples of one.

        It is the smallest of the usual gaps between a layer's times. Where nothing varies but outliers, their
        distance is no tick, which the times of other layers tell.
        """
        gaps = []
        for session in self.sessions:
            ordered = np.sort(session.layer_us, axis=0)
            gap = np.diff(ordered, axis=0)
            gaps.append(gap[gap > 1e-6 * ordered[1:]])
        found = np.concatenate(gaps) if gaps else np.empty(0)
        if not found.size:
            return 0.0
        tick = float(np.quantile(found, 0.1))
        # longer times are left out: rounding of the tick itself adds up in them
        counts = np.concatenate([session.layer_us.ravel() for session in self.sessions]) / tick
        counts = counts[(counts > 0) & (counts <= 100)]
        whole = np.abs(counts - np.round(counts)) < 0.05
        return tick if not whole.size or whole.mean() >= 0.9 else 0.0

    @cached_property
    def medians(self) -> Floats:
        """Of each session and layer, microseconds."""
        return np.array([np.median(session.layer_us, axis=0) for session in self.sessions])

    @cached_property
    def median(self) -> Floats:
        """Of each layer, microseconds."""
        return np.asarray(np.median(self.medians, axis=0))

    @cached_property
    def total(self) -> float:
        """Sum of all layers, microseconds."""
        return float(self.median.sum())

    @cached_property
    def _tellers(self) -> NDArray[np.bool_]:
        """Layers long enough to tell what all layers do at once; none if there are too few."""
        long = (self.median > RESOLVED_TICKS * self.tick) & (self.medians > 0).all(axis=0)
        return long if long.sum() >= MIN_COMMON_LAYERS else np.zeros_like(long)

    @cached_property
    def common(self) -> tuple[Floats, ...]:
        """By session, what all layers do at once in each iteration: log of a factor, shape (iterations,)."""
        tell = self._tellers
        found = []
        for session, medians in zip(self.sessions, self.medians, strict=True):
            if not tell.any():
                found.append(np.zeros(len(session.layer_us)))
                continue
            ratio = session.layer_us[:, tell] / medians[tell]
            found.append(np.log(np.maximum(np.median(ratio, axis=1), 1e-3)))
        return tuple(found)

    @cached_property
    def own(self) -> tuple[Floats, ...]:
        """By session, times without what all layers do at once, microseconds."""
        return tuple(
            session.layer_us / np.exp(common)[:, None]
            for session, common in zip(self.sessions, self.common, strict=True)
        )

    @cached_property
    def pooled(self) -> Floats:
        """All iterations without what all layers do at once, also between sessions, microseconds."""
        tell = self._tellers
        shifts = (
            np.median(self.medians[:, tell] / self.median[tell], axis=1) if tell.any() else np.ones(len(self.sessions))
        )
        return np.concatenate([own / shift for own, shift in zip(self.own, shifts, strict=True)])

    @cached_property
    def session_of(self) -> NDArray[np.int64]:
        """The session of each row of ``pooled``."""
        return np.repeat(np.arange(len(self.sessions)), [len(session.layer_us) for session in self.sessions])


def long_latencies(family: Family) -> list[Floats]:
    """Latencies of the sessions that have enough of them."""
    return [each.latency_us for each in family.sessions if len(each.latency_us) >= MIN_ITERATIONS]


def robust_z(samples: ArrayLike, *, tick_us: float = 0.0) -> Floats:
    """Robust z-scores along the first axis: ``(x - median) / max(1.4826 MAD, tick / 2)``.

    MAD is the median absolute deviation; 1.4826 makes it the standard deviation of a Gaussian (Iglewicz and
    Hoaglin, *How to Detect and Handle Outliers*, ASQC 1993, whose 0.6745 (x - median) / MAD this is). The floor of
    half a tick is for layers so short that most iterations take the same number of ticks, where MAD is 0.
    Constant samples score 0; what differs from otherwise constant ones, without a tick, is infinitely far out.

    Args:
        samples: shape (iterations,) or (iterations, layers).
        tick_us: step of the profiler's clock, in the unit of the samples.
    """
    values = np.asarray(samples, dtype=np.float64)
    deviation = values - np.median(values, axis=0)
    scale = np.maximum(1.4826 * np.median(np.abs(deviation), axis=0), tick_us / 2)
    # a product that was rounded once more is no deviation
    deviation = np.where(np.abs(deviation) <= 1e-9 * np.abs(values), 0.0, deviation)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(deviation == 0, 0.0, deviation / scale)


def outlier_limit(count: int) -> float:
    """The |z| beyond which one of ``count`` Gaussian values lies with probability :data:`FALSE_RATE` (Šidák 1967)."""
    each = -math.expm1(math.log1p(-FALSE_RATE) / max(count, 1))
    return float(-special.ndtri(each / 2))


def place_of(family: Family, rows: Iterable[int], rule: str) -> list[str]:
    """``session:iteration`` of the first few, both counted from 0."""
    lengths = [
        len(each.latency_us if rule == "engine-outlier" else each.layer_us)
        for each in family.sessions
        if rule != "engine-outlier" or len(each.latency_us) >= MIN_ITERATIONS
    ]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    places = []
    for row in list(rows)[:5]:
        session = int(np.searchsorted(starts, row, side="right")) - 1
        places.append(f"{session}:{int(row - starts[session])}")
    return places


def display_names(layers: Sequence[Layer | str]) -> tuple[str, ...]:
    """What findings call each layer: its ONNX nodes, never a positional name; unique within the engine."""
    titles = []
    for number, layer in enumerate(layers, start=1):
        title = layer.title if isinstance(layer, Layer) else canonical_name(layer)
        if title.startswith("__my") or not title:
            kind = f"{layer.kind} layer" if isinstance(layer, Layer) and layer.kind else "layer"
            title = f"a {kind} without ONNX nodes (number {number} of {len(layers)})"
        titles.append(title)
    counts, seen = Counter(titles), Counter[str]()
    names = []
    for title in titles:
        seen[title] += 1
        names.append(f"{title} #{seen[title]}" if counts[title] > 1 else title)
    return tuple(names)


def anomaly(
    where: str, what: str, rule: str, cost: float, evidence: Mapping[str, float | int | str | None], remedy: str
) -> Finding:
    """One finding; ``cost`` is the part of the engine's time that it costs, and decides on the severity."""
    severity: Severity = "warning" if cost >= MATTERS else "advice"
    share = {"engine_percent": round(cost * 100, 3)}
    return Finding(severity, where, what, f"timing.anomaly.{rule}", {**evidence, **share}, remedy)


def _urgency(finding: Finding) -> tuple[bool, float, str, str]:
    cost = finding.evidence.get("engine_percent")
    return finding.severity != "warning", -float(cost or 0.0), finding.rule, finding.where


def by_urgency(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Warnings first, then the costliest."""
    return tuple(sorted(findings, key=_urgency))


def us_text(value: float) -> str:
    """A time with three digits.

    >>> us_text(4.576), us_text(1712.3)
    ('4.58 us', '1.71 ms')
    """
    return f"{value:.3g} us" if value < 1000 else f"{value / 1e3:.3g} ms"


def _checked(values: ArrayLike, name: str, form: str, *, dimensions: int = 1) -> Floats:
    array = np.array(values, dtype=np.float64)
    if array.ndim != dimensions:
        raise ValueError(f"{name} must have shape {form}, got {array.shape}")
    if not np.isfinite(array).all() or (array < 0).any():
        raise ValueError(f"{name} has NaN, infinite or negative times")
    array.setflags(write=False)
    return array
