"""Times of requests by the shapes of their inputs, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pytest_trtgray.engines.model import Layer, format_shapes
from pytest_trtgray.timing.session import tabulate
from pytest_trtgray.timing.summary import Session

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Shape of each input (values, of an input whose values are sizes) by name."""
OTHER = "other"
"""Name of the bucket of all shapes for which there was no room; its times are counted and never judged."""
MIN_PLAIN = 10
"""Unprofiled times that a session needs to know the engine's own time."""


@dataclass(frozen=True)
class Sample:
    """One profiled inference: its layers and the whole of it, microseconds."""

    layers: dict[str, float]
    us: float


@dataclass(frozen=True)
class Block:
    """Samples of one bucket from one profiled context or several in a row: what becomes two sessions.

    Attributes:
        session: the engine's time is that of unprofiled inferences of the same period; ``None`` if there were too few.
        profiled: the engine's time is that of the profiled inferences themselves: for an A/B, where the profiler
            disturbs both sides alike.
        layers: behind each column.
    """

    session: Session | None
    profiled: Session
    layers: tuple[Layer, ...]


class Bucket:
    """Times of one shape. Not safe from several threads by itself.

    Attributes:
        timed: inferences.
        sampled: of these, in a profiled context.
        plain_us: the last unprofiled inferences.

    Args:
        name: shapes in trtexec's notation, or :data:`OTHER`.
        size: samples in a block, and unprofiled times that are kept.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.timed = 0
        self.sampled = 0
        self.plain_us: deque[float] = deque(maxlen=size)
        self._usual_us: float | None = None
        self._size = size
        self._samples: list[Sample] = []

    def time(self, us: float) -> None:
        """An unprofiled inference took ``us`` microseconds."""
        self.plain_us.append(us)
        self._usual_us = us if self._usual_us is None else 0.95 * self._usual_us + 0.05 * us

    @property
    def usual_us(self) -> float | None:
        """An unprofiled inference lately; ``None`` before the first one."""
        return self._usual_us

    def add(self, sample: Sample) -> list[Sample] | None:
        """Keep a sample; the whole block once it is full."""
        if self.name == OTHER:
            return None
        self._samples.append(sample)
        if len(self._samples) < self._size:
            return None
        full, self._samples = self._samples, []
        return full


def block_of(
    samples: Sequence[Sample],
    plain_us: Sequence[float],
    layers: Sequence[Layer],
    *,
    clock_mhz: float | None = None,
    disturbed: str = "",
) -> Block:
    """Summarise a bucket's samples.

    Args:
        samples: profiled inferences.
        plain_us: unprofiled ones of the same shape and period.
        layers: of the engine.
        clock_mhz: SM clock, if it was read.
        disturbed: why the times must not be trusted.
    """
    columns, table = tabulate(layers, [sample.layers for sample in samples])

    def session(latency_us: Iterable[float]) -> Session:
        return Session.from_samples(
            table, np.fromiter(latency_us, float), layers=columns, clock_mhz=clock_mhz, disturbed=disturbed
        )

    plain = session(plain_us) if len(plain_us) >= MIN_PLAIN else None
    return Block(plain, session(sample.us for sample in samples), columns)


class ShapeBuckets:
    """Buckets by shape: the first ``limit`` shapes have one each, all others share :data:`OTHER`.

    First come, first served, and not the least recently used one out: a client that walks through many shapes would
    throw out everything that was learnt, and names of buckets are labels of metrics, which may only be a few for ever.

    Args:
        limit: shapes with a bucket of their own.
        size: samples in a block.
        reserved: shapes that get one before any other.
    """

    def __init__(self, limit: int, size: int, reserved: Iterable[Shapes] = ()) -> None:
        if limit < 0 or size < 1:
            raise ValueError(f"limit must not be negative and size at least 1, got {limit} and {size}")
        self._limit = limit
        self._size = size
        self._found: dict[Shapes, Bucket] = {}
        self._other = Bucket(OTHER, size)
        for shapes in reserved:
            self.of(shapes)

    def of(self, shapes: Shapes) -> Bucket:
        """The bucket of a shape; made if there is room."""
        bucket = self._found.get(shapes)
        if bucket is None:
            if len(self._found) >= self._limit:
                return self._other
            bucket = self._found[shapes] = Bucket(format_shapes(dict(shapes)), self._size)
        return bucket

    def __iter__(self) -> Iterator[Bucket]:
        return iter([*self._found.values(), self._other])

    def __len__(self) -> int:
        return len(self._found)
