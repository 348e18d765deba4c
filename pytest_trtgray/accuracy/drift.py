"""Whether two sets of inputs give a tensor the same distribution: calibration data and data under test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.accuracy import histograms

Side = Literal["calibration", "test"]

GROUPS = 8
"""So many samples of each side are compared one by one; their differences show what is normal."""
ENOUGH_FEEDS = 4
"""With so many feeds on both sides a sample is a whole feed, for what is fed together is often alike; else a row."""
TAIL = 0.999
MIN_DISTANCE = 0.1
MIN_EXCESS = 1.5
MIN_TAIL_RATIO = 1.5
ALPHA = 0.03
_LABELLINGS = 999

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Drift:
    """Calibration data against data under test, in one tensor.

    Attributes:
        distance: largest difference of the two cumulative distributions (Kolmogorov and Smirnov); 0 to 1. It does not
            depend on the scale, and sees a shift or another spread, but not the tails.
        excess: how many times further apart samples of different sides are than samples of one side.
        p_value: of the distance: how often samples that are dealt to the sides at random are as far apart.
        tail_ratio: the 99.9th percentile of the magnitudes under test over that in calibration: the range, without
            the single largest value, which is chance.
        tail_p_value: of the ratio, likewise.
    """

    distance: float
    excess: float
    p_value: float
    tail_ratio: float
    tail_p_value: float

    @property
    def is_significant(self) -> bool:
        """Whether the two sides are far apart, and further than samples that are dealt at random.

        Elements of a tensor depend on each other, so a test that counts each of them finds a difference between any
        two inputs; only whole samples can tell what is usual. With few of them, nothing is significant.
        """
        shifted = self.distance >= MIN_DISTANCE and self.excess >= MIN_EXCESS and self.p_value <= ALPHA
        ratio = max(self.tail_ratio, 1 / self.tail_ratio) if self.tail_ratio > 0 else math.inf
        return shifted or (ratio >= MIN_TAIL_RATIO and self.tail_p_value <= ALPHA)


class Samples:
    """Histograms of the two sides: of all values, and of some samples each.

    Args:
        feeds: how many each side will have.
    """

    def __init__(self, feeds: Mapping[Side, int]) -> None:
        self._feeds = feeds
        self._seen: dict[Side, int] = {"calibration": 0, "test": 0}
        self._all: dict[Side, histograms.Counts] = {}
        self._samples: dict[Side, list[NDArray[np.int32]]] = {"calibration": [], "test": []}

    def add(self, side: Side, values: NDArray[Any]) -> None:
        """Count in the tensor of one feed."""
        counts = histograms.count(values)
        self._all[side] = self._all[side] + counts if side in self._all else counts
        feeds, index = self._feeds[side], self._seen[side]
        self._seen[side] += 1
        if min(self._feeds.values()) >= ENOUGH_FEEDS or not values.ndim:
            if index in _evenly(feeds):
                self._samples[side].append(counts.astype(np.int32))
            return
        for row in _evenly(len(values), math.ceil(GROUPS / feeds)):
            self._samples[side].append(histograms.count(values[row]).astype(np.int32))

    def drift(self) -> Drift | None:
        """The difference of the two sides; ``None`` if a side is empty, or there are two samples only."""
        calibration, test = self._samples["calibration"], self._samples["test"]
        if not calibration or not test or len(calibration) + len(test) < 3:
            return None
        samples: list[histograms.Counts] = [each.astype(np.int64) for each in (*calibration, *test)]
        distances = histograms.distances(samples)
        tails = np.log([max(histograms.quantile(each, TAIL), np.finfo(np.float32).tiny) for each in samples])
        labels = _labellings(len(samples), len(test))
        between, within = _mean_distances(distances, labels)
        apart = between - within
        tail_gaps = np.abs(_mean_difference(tails, labels))
        before, after = (histograms.quantile(self._all[side], TAIL) for side in ("calibration", "test"))
        return Drift(
            distance=histograms.distance(self._all["calibration"], self._all["test"]),
            excess=float(between[0] / within[0]) if within[0] else math.inf if between[0] else 1.0,
            p_value=float(np.mean(apart >= apart[0] - 1e-12)),
            tail_ratio=after / before if before else (math.inf if after else 1.0),
            tail_p_value=float(np.mean(tail_gaps >= tail_gaps[0] - 1e-12)),
        )


def _evenly(count: int, wanted: int = GROUPS) -> list[int]:
    """At most ``wanted`` of ``range(count)``, evenly spaced."""
    return sorted({index * count // wanted for index in range(wanted)}) if count else []


def _labellings(total: int, test: int) -> NDArray[np.bool_]:
    """Ways to deal samples to the sides, true for the test side; the real one, with the last ones under test, first.

    All of them where they are few, else a fixed random choice.
    """
    real = np.arange(total) >= total - test
    if math.comb(total, test) <= _LABELLINGS:
        chosen = [np.isin(np.arange(total), each) for each in combinations(range(total), test)]
        others = [each for each in chosen if not np.array_equal(each, real)]
    else:
        rng = np.random.default_rng(0)
        others = [rng.permutation(real) for _ in range(_LABELLINGS)]
    return np.array([real, *others])


def _mean_distances(distances: Matrix, labels: NDArray[np.bool_]) -> tuple[Matrix, Matrix]:
    """For each labelling, the mean distance of samples of different sides, and of one side."""
    test = labels.astype(np.float64)
    calibration = 1 - test
    between = np.einsum("li,ij,lj->l", calibration, distances, test)
    total = distances.sum() / 2
    count, size = labels.shape[1], test[0].sum()
    pairs = size * (count - size)
    rest = count * (count - 1) / 2 - pairs
    return between / pairs, (total - between) / rest


def _mean_difference(values: Matrix, labels: NDArray[np.bool_]) -> Matrix:
    test = labels.astype(np.float64)
    size = test[0].sum()
    return np.asarray(test @ values / size - (1 - test) @ values / (len(values) - size))
