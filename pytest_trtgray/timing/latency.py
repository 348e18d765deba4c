"""How long single inferences took: a histogram with the same bounds in every run, and exact percentiles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_trtgray.timing.samples import Samples

EDGES_US = (*(step * 10.0**decade for decade in range(7) for step in (1, 1.6, 2.5, 4, 6.3)), 1e7)
"""Five a decade (the preferred numbers R5 of ISO 3), from 1 us to 10 s: histograms of two runs can be added."""
PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Latency:
    """Times of single inferences of a whole engine, over all sessions.

    Attributes:
        counts: how many took at most as long as each of :data:`EDGES_US` and longer than the one before; the last
            number is of those that took longer than all.
        sum_us: of all, microseconds.
        percentiles_us: by per cent, microseconds.
    """

    counts: tuple[int, ...]
    sum_us: float
    percentiles_us: dict[int, float]

    @classmethod
    def of(cls, sessions: Iterable[Samples]) -> Latency | None:
        """Of all sessions' latencies; ``None`` where none were measured."""
        parts = [session.latency_us for session in sessions]
        times = np.concatenate(parts) if parts else np.empty(0)
        if not times.size:
            return None
        places = np.searchsorted(EDGES_US, times, side="left")  # Prometheus' bounds are inclusive
        values = np.percentile(times, PERCENTILES)
        return cls(
            tuple(int(count) for count in np.bincount(places, minlength=len(EDGES_US) + 1)),
            float(times.sum()),
            {percent: float(value) for percent, value in zip(PERCENTILES, values, strict=True)},
        )

    def to_dict(self) -> dict[str, Any]:
        """Builtins for the run document."""
        return {
            "edges_us": list(EDGES_US),
            "counts": list(self.counts),
            "sum_us": self.sum_us,
            "percentiles_us": {str(percent): value for percent, value in self.percentiles_us.items()},
        }
