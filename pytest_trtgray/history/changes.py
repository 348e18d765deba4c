"""Change points of one series: since when a value is another one.

E-divisive (Matteson and James 2014, arXiv:1306.4933) with the t-test, windows and merging of Hunter (Fleming et al.
2023, doi:10.1145/3578244.3583719), which became Apache Otava. Own code, and why:

- ``apache-otava`` 0.8 is well kept (Apache-2.0), but an application: it pins numpy to 2.2, scipy below 1.17, and brings
  clients of BigQuery and Slack with it: too much beside a TensorRT environment of any age.
- ``signal-processing-algorithms`` 2.1 (MongoDB, Apache-2.0) runs on Python 3.11 with numpy 1 only.
- ``ruptures`` 1.1 (BSD-2) is well kept and light, but has neither E-divisive nor a test of significance; what would be
  left of it is an ``argmax``, in a loop of Python.

Three things differ from Otava, each since the noise of GPU runs is known: p-values count how many places and series
were looked at; outliers are clipped; runs that resemble their neighbours (a day's temperature) count as fewer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MIN_SIDE = 4
"""Jobs before and after a change."""
WINDOW = 60
"""Jobs of a window: what came and went within a long series is lost in the whole of it."""
_FIRST_PASS = 10.0  # windows propose at ten times the level; Hunter, section 3.3
_CLIP = 4.0  # robust standard deviations
_FLOOR = 1e-3  # relative standard deviation that no timer on a GPU beats
_MERGE_SORT_FROM = 64


@dataclass(frozen=True)
class Change:
    """A change of a series.

    Attributes:
        index: of the first value after it.
        earliest: index of the first value that may already be after it (95 %).
        latest: index of the last value that may be the first after it.
        before: mean before, back to the change before that.
        after: mean after, until the next change.
        p_value: for the number of places and series that were looked at.
    """

    index: int
    earliest: int
    latest: int
    before: float
    after: float
    p_value: float


def find_changes(values: Sequence[float] | Floats, *, min_change: float, alpha: float = 0.01) -> list[Change]:
    """The change points of a series, in order.

    Args:
        values: (n,), independent of each other, such as log times, one a job.
        min_change: smaller differences of means are none.
        alpha: chance that a series without any has one; divide it by the number of series.
    """
    series = np.asarray(values, np.float64)
    series = series - np.median(series) if len(series) else series
    points = sorted(_candidates(series, alpha * _FIRST_PASS, min_change))
    while points:
        found = [_change(series, *bounds) for bounds in _bounds(points, len(series))]
        # one that goes changes its neighbours' means: the weakest first
        weakest = max(range(len(found)), key=lambda i: found[i].p_value)
        if found[weakest].p_value < alpha:
            weakest = min(range(len(found)), key=lambda i: abs(found[i].after - found[i].before))
            if abs(found[weakest].after - found[weakest].before) >= min_change:
                middle = float(np.median(np.asarray(values, np.float64)))
                return [_moved(change, middle) for change in found]
        del points[weakest]
    return []


def energy(values: Floats) -> Floats:
    """E-divisive's statistic of splitting a series at each place.

    The weighted energy distance between what is before and after, of absolute differences (Matteson and James, 5):
    ``mn / (m + n) (2 E|X - Y| - E|X - X'| - E|Y - Y'|)``, with unbiased means. In O(n log² n).

    Args:
        values: (n,).

    Returns:
        (n,): at t, of ``values[:t]`` against ``values[t:]``; minus infinity where a side has less than two values.
    """
    size = len(values)
    found = np.full(size, -np.inf)
    if size < 4:
        return found
    within_left = np.concatenate(([0.0], np.cumsum(_distances_to_earlier(values))))  # of pairs in values[:t]
    within_right = np.concatenate(([0.0], np.cumsum(_distances_to_earlier(values[::-1]))))[::-1]
    at = np.arange(2, size - 1)
    left, right = at.astype(np.float64), (size - at).astype(np.float64)
    across = within_left[size] - within_left[at] - within_right[at]
    found[at] = (2.0 / size) * (across - right / (left - 1) * within_left[at] - left / (right - 1) * within_right[at])
    return found


def _distances_to_earlier(values: Floats) -> Floats:
    """At t, the sum of |values[t] - values[i]| over i < t: halves, of which the earlier is sorted."""
    size = len(values)
    if size < _MERGE_SORT_FROM:
        return np.asarray(np.tril(np.abs(values[:, None] - values[None, :]), -1).sum(axis=1))
    middle = size // 2
    earlier, later = np.sort(values[:middle]), values[middle:]
    sums = np.concatenate(([0.0], np.cumsum(earlier)))
    below = np.searchsorted(earlier, later)
    across = later * (2 * below - middle) + sums[-1] - 2 * sums[below]
    return np.concatenate((_distances_to_earlier(values[:middle]), _distances_to_earlier(later) + across))


def _candidates(series: Floats, alpha: float, min_change: float) -> set[int]:
    size = len(series)
    windows = {(0, size), *((start, min(start + WINDOW, size)) for start in range(0, size, WINDOW // 2))}
    found: set[int] = set()
    for start, stop in windows:
        # most are quiet, and this is seen sooner than any statistic
        if _largest_difference(series[start:stop]) >= min_change / 2:
            found |= {start + point for point in _divide(series[start:stop], size, alpha)}
    return _spaced(series, found)


def _largest_difference(series: Floats) -> float:
    """Between the means before and after any place."""
    size = len(series)
    at = np.arange(MIN_SIDE, size - MIN_SIDE + 1)
    sums = np.cumsum(series)
    return float(np.abs(sums[at - 1] / at - (sums[-1] - sums[at - 1]) / (size - at)).max()) if len(at) else 0.0


def _divide(series: Floats, looked_at: int, alpha: float) -> list[int]:
    """Places where a series is split in two, and each part again, as long as the difference is significant."""
    if len(series) < 2 * MIN_SIDE:
        return []
    place = MIN_SIDE + int(np.argmax(energy(series)[MIN_SIDE : len(series) - MIN_SIDE + 1]))
    if _p_value(series[:place], series[place:], looked_at) >= alpha:
        return []
    return [
        *_divide(series[:place], looked_at, alpha),
        place,
        *(place + each for each in _divide(series[place:], looked_at, alpha)),
    ]


def _spaced(series: Floats, points: set[int]) -> set[int]:
    """Without those that are nearer to another than :data:`MIN_SIDE`: windows find one place a little differently."""
    groups: list[list[int]] = []
    for point in sorted(points):
        if groups and point - groups[-1][-1] < MIN_SIDE:
            groups[-1].append(point)
        else:
            groups.append([point])
    kept = set()
    for group in groups:
        start, stop = max(group[0] - WINDOW // 2, 0), min(group[-1] + WINDOW // 2, len(series))
        statistic = energy(series[start:stop])
        kept.add(max(group, key=lambda point: statistic[point - start]))
    return kept


def _bounds(points: Sequence[int], size: int) -> list[tuple[int, int, int]]:
    edges = [0, *points, size]
    return list(zip(edges, points, edges[2:], strict=False))


def _change(series: Floats, start: int, point: int, stop: int) -> Change:
    before, after = series[start:point], series[point:stop]
    earliest, latest = _plausible(series[start:stop], point - start)
    means = _clipped(before, after)
    return Change(
        index=point,
        earliest=start + earliest,
        latest=start + latest,
        before=float(means[0].mean()),
        after=float(means[1].mean()),
        p_value=_p_value(before, after, len(series)),
    )


def _moved(change: Change, by: float) -> Change:
    return Change(**{**vars(change), "before": change.before + by, "after": change.after + by})


def _clipped(before: Floats, after: Floats) -> tuple[Floats, Floats]:
    """Both sides with their outliers pulled in; the noise is taken to be the same on both."""
    middles = float(np.median(before)), float(np.median(after))
    rest = np.concatenate((before - middles[0], after - middles[1]))
    limit = max(_CLIP * 1.4826 * float(np.median(np.abs(rest))), _CLIP * _FLOOR)
    return (
        np.clip(before, middles[0] - limit, middles[0] + limit),
        np.clip(after, middles[1] - limit, middles[1] + limit),
    )


def _p_value(before: Floats, after: Floats, looked_at: int) -> float:
    """Of Student's t-test on clipped values, times the number of places; neighbours that are alike count less.

    A mean of n values with correlation r from one to the next has the variance of n (1 - r) / (1 + r) independent ones.
    """
    from scipy.special import stdtr

    left, right = _clipped(before, after)
    rest = np.concatenate((left - left.mean(), right - right.mean()))
    degrees = len(rest) - 2
    if degrees < 1:
        return 1.0
    variance = max(float(rest @ rest) / degrees, _FLOOR**2)
    correlation = _correlation(rest)
    inflation = (1 + correlation) / (1 - correlation)
    degrees = max(int(len(rest) / inflation) - 2, 1)
    error = math.sqrt(variance * inflation * (1 / len(left) + 1 / len(right)))
    t = abs(float(right.mean() - left.mean())) / error
    return min(1.0, 2.0 * float(stdtr(degrees, -t)) * looked_at)


def _correlation(rest: Floats) -> float:
    """From one value to the next, with its bias of one in n taken off; between 0 and 0.9."""
    power = float(rest @ rest)
    if power == 0.0:
        return 0.0
    return min(max(float(rest[:-1] @ rest[1:]) / power + 1 / len(rest), 0.0), 0.9)


def _plausible(series: Floats, point: int) -> tuple[int, int]:
    """The places at which a change fits nearly as well: a likelihood of at least a twentieth of the best."""
    left, right = _clipped(series[:point], series[point:])
    clipped = np.concatenate((left, right))
    size = len(clipped)
    at = np.arange(1, size)
    sums = np.cumsum(clipped)[:-1]
    squares = float(clipped @ clipped)
    rest = squares - sums**2 / at - (float(clipped.sum()) - sums) ** 2 / (size - at)
    rest = np.maximum(rest, size * _FLOOR**2)
    fits = at[size / 2 * np.log(rest / rest[point - 1]) <= math.log(20)]
    return int(min(fits.min(), point)), int(max(fits.max(), point))
