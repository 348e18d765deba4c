"""How values are distributed: counts in exponentially spaced bins, which need no range beforehand and add up.

A bin is the sign, the exponent and the first three bits of the mantissa of an FP32 number, so that there are eight a
power of two and counting is a shift. Powers of two are edges of bins.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 4096
_HALF = BINS // 2
_SHIFT = 20
_FINITE = 255 << 3
"""Bins of a sign below this one are finite numbers; above lie infinity and NaN."""

Counts = NDArray[np.int64]


def count(values: NDArray[Any]) -> Counts:
    """Counts of all values, by bin; minus zero counts as zero."""
    with np.errstate(over="ignore"):
        words = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32)
    counts = np.bincount(words >> _SHIFT, minlength=BINS).astype(np.int64)
    counts[0] += counts[_HALF]
    counts[_HALF] = 0
    return counts


def not_finite(counts: Counts) -> int:
    """How many of the values were NaN or infinite."""
    return int(magnitudes(counts)[_FINITE:].sum())


def magnitudes(counts: Counts) -> Counts:
    """Counts of the absolute values, by bin of the positive numbers."""
    return counts[:_HALF] + counts[_HALF:]


@functools.lru_cache(maxsize=1)
def edges() -> NDArray[np.float64]:
    """Lower edges of the bins of positive numbers; infinity from where they are not finite."""
    with np.errstate(invalid="ignore"):
        return (np.arange(_HALF, dtype=np.uint32) << _SHIFT).view(np.float32).astype(np.float64)


@functools.lru_cache(maxsize=1)
def centres() -> NDArray[np.float64]:
    """Middles of the bins of finite positive numbers; the first bin holds zero and is zero."""
    lower = edges()[: _FINITE + 1]
    middle = (lower[:-1] + np.minimum(lower[1:], np.finfo(np.float32).max)) / 2
    middle[0] = 0.0
    return np.asarray(middle, np.float64)


def quantile(counts: Counts, share: float) -> float:
    """The magnitude below which a share of the finite values lies, to an eighth of a power of two."""
    finite = magnitudes(counts)[:_FINITE]
    total = int(finite.sum())
    if not total:
        return 0.0
    index = int(np.searchsorted(np.cumsum(finite), share * total))
    return float(centres()[min(index, _FINITE - 1)])


def distance(one: Counts, other: Counts) -> float:
    """The largest difference of the two cumulative distributions (Kolmogorov and Smirnov), at the edges of the bins.

    It does not depend on the scale of the values: 0 for equal distributions, 1 for those that do not overlap.
    """
    return float(distances([one, other])[0, 1])


def distances(several: Sequence[Counts]) -> NDArray[np.float64]:
    """The :func:`distance` of each to each."""
    cumulative = np.array([_cumulative(counts) for counts in several])
    return np.array([np.abs(cumulative - each).max(axis=1) for each in cumulative])


def _cumulative(counts: Counts) -> NDArray[np.float64]:
    ordered = np.concatenate([counts[_HALF:][::-1], counts[:_HALF]])
    return np.cumsum(ordered) / max(1, int(counts.sum()))
