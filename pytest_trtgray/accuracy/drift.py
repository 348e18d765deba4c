"""Whether two sets of inputs give a tensor the same distribution: calibration data and data under test."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.accuracy import histograms

Side = Literal["calibration", "test"]

GROUPS = 8
"""Samples of each side are dealt into so many groups, whose differences show what is normal."""
TAIL = 0.999
MIN_DISTANCE = 0.1
MIN_EXCESS = 2.0
MIN_TAIL_RATIO = 1.5


@dataclass(frozen=True)
class Drift:
    """Calibration data against data under test, in one tensor.

    Attributes:
        distance: largest difference of the two cumulative distributions (Kolmogorov and Smirnov); 0 to 1. It does not
            depend on the scale, and sees a shift or another spread, but not the tails.
        between: its mean over pairs of groups, one of each side.
        within: its mean over pairs of groups of one side: what the same kind of data differs by.
        tail_ratio: the 99.9th percentile of the magnitudes under test over that in calibration: the range, without
            the single largest value, which is chance.
        tails_overlap: whether some group of the calibration data has a tail as far out, or as near.
    """

    distance: float
    between: float
    within: float
    tail_ratio: float
    tails_overlap: bool

    @property
    def excess(self) -> float:
        """How many times further apart the two sides are than groups of one side."""
        return self.between / self.within if self.within else float("inf")

    @property
    def is_significant(self) -> bool:
        """Whether the two are far apart, and much further than parts of each.

        Elements of a tensor depend on each other, so a test that counts them as samples finds a difference between
        any two inputs; only whole samples can tell what is usual.
        """
        shifted = self.distance >= MIN_DISTANCE and self.excess >= MIN_EXCESS
        ratio = max(self.tail_ratio, 1 / self.tail_ratio) if self.tail_ratio > 0 else float("inf")
        return shifted or (ratio >= MIN_TAIL_RATIO and not self.tails_overlap and self.excess >= 1)


class Samples:
    """Histograms of the two sides, by group."""

    def __init__(self) -> None:
        self._groups: dict[Side, list[histograms.Counts]] = {"calibration": [], "test": []}
        self._dealt: dict[Side, int] = {"calibration": 0, "test": 0}

    def add(self, side: Side, values: NDArray[Any]) -> None:
        """Count in one tensor; the two halves of a batch go into different groups."""
        parts = np.array_split(values, 2) if values.ndim and len(values) > 1 else [values]
        groups = self._groups[side]
        for part in parts:
            counts = histograms.count(part)
            if len(groups) < GROUPS:
                groups.append(counts)
            else:
                groups[self._dealt[side] % GROUPS] += counts
            self._dealt[side] += 1

    def drift(self) -> Drift | None:
        """The difference of the two sides; ``None`` if a side is empty, or none has two groups."""
        calibration, test = self._groups["calibration"], self._groups["test"]
        pairs = [*combinations(calibration, 2), *combinations(test, 2)]
        if not calibration or not test or not pairs:
            return None
        tails = [histograms.quantile(counts, TAIL) for counts in calibration]
        one, other = _sum(calibration), _sum(test)
        before, after = histograms.quantile(one, TAIL), histograms.quantile(other, TAIL)
        return Drift(
            distance=histograms.distance(one, other),
            between=_mean_distance(product(calibration, test)),
            within=_mean_distance(pairs),
            tail_ratio=after / before if before else (1.0 if not after else float("inf")),
            tails_overlap=min(tails) <= after <= max(tails),
        )


def _sum(groups: Sequence[histograms.Counts]) -> histograms.Counts:
    return np.asarray(np.sum(groups, axis=0), np.int64)


def _mean_distance(pairs: Iterable[tuple[histograms.Counts, histograms.Counts]]) -> float:
    return float(np.mean([histograms.distance(one, other) for one, other in pairs]))
