"""Layers that take one of two times, within a session or from one to the next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.findings import Finding
from pytest_trtgray.timing.samples import (
    ENGINE,
    MIN_POOLED,
    Family,
    Floats,
    Samples,
    anomaly,
    by_urgency,
    long_latencies,
    us_text,
)

MODES_APART = 0.10
"""Modes that are closer do not matter to a gate that is to find a layer 10 % slower."""
ENGINE_MODES_APART = 0.05
MODE_SHARE = 0.10
"""Fewer iterations than this are outliers, not a mode."""


@dataclass(frozen=True)
class Modes:
    """Two times that a layer takes.

    Attributes:
        name: of the layer, or ``engine``.
        low_us: mean of the faster mode, microseconds.
        high_us: mean of the slower one.
        high_share: part of the iterations in the slower one.
        distance: Ashman's D.
        between_sessions: whether each session stays in one mode.
    """

    name: str
    low_us: float
    high_us: float
    high_share: float
    distance: float
    between_sessions: bool


def modes(sessions: Sequence[Samples]) -> tuple[Modes, ...]:
    """Layers, and the engine, that take one of two times.

    The samples of all sessions are pooled (without what all layers do at once) and split where the sum of squares
    within both parts is smallest: the likelihood ratio of two clusters of one variance against one (Engelman and
    Hartigan, *JASA* 64, 1969). Parts of less than :data:`MODE_SHARE` are outliers and left out. Of the two parts,
    Ashman's D = sqrt(2) (high - low) / sqrt(var_low + var_high) must exceed :func:`modes_limit` (Ashman, Bird and
    Zepf, *Astronomical Journal* 108, 1994: above 2 for two Gaussians that are *known*; the best split of one
    Gaussian has 2.65, of a uniform density, the worst case with one mode, 3.46), and the middle half of the way
    between them must hold fewer than a quarter of the smaller part's samples. Both modes must be
    :data:`MODES_APART` (engine: :data:`ENGINE_MODES_APART`) and three ticks apart.
    """
    return _modes(Family.of(sessions))


def modes_limit(count: int) -> float:
    """Ashman's D that the best split of ``count`` uniform samples exceeds in less than one case in 1,000."""
    return 3.5 + 14 / math.sqrt(count)


def find_modes(sessions: Sequence[Samples]) -> tuple[Finding, ...]:
    """:func:`modes` as findings."""
    return by_urgency(mode_findings(Family.of(sessions)))


def _modes(family: Family) -> tuple[Modes, ...]:
    if len(family.session_of) < MIN_POOLED:
        return ()
    found = []
    pooled = family.pooled
    low, high = np.quantile(pooled, (MODE_SHARE / 2, 1 - MODE_SHARE / 2), axis=0)
    # two modes this far apart have these quantiles apart: most layers need no closer look
    for column in np.flatnonzero(high > (1 + MODES_APART / 2) * low):
        split = _two_modes(pooled[:, column], family.session_of, family.names[column], MODES_APART, family.tick)
        if split:
            found.append(split)
    latencies = long_latencies(family)
    if sum(map(len, latencies)) >= MIN_POOLED:
        of = np.repeat(np.arange(len(latencies)), [len(each) for each in latencies])
        whole = _two_modes(np.concatenate(latencies), of, ENGINE, ENGINE_MODES_APART, 0.0)
        if whole:
            found.append(whole)
    return tuple(found)


def mode_findings(family: Family) -> list[Finding]:
    """:func:`find_modes`, unsorted."""
    found = []
    for each in _modes(family):
        what = "the whole engine" if each.name == ENGINE else each.name
        where = (
            "some sessions are fast and some are slow"
            if each.between_sessions
            else "it changes within a session"
            if len(family.sessions) > 1
            else "it changes within the session"
        )
        smaller = min(each.high_share, 1 - each.high_share)
        whole = each.low_us if each.name == ENGINE else family.total
        found.append(
            anomaly(
                each.name,
                f"{what} takes {us_text(each.low_us)} or {us_text(each.high_us)} (the slower in "
                f"{each.high_share:.0%} of the iterations); {where}",
                "two-modes",
                smaller * (each.high_us - each.low_us) / (whole or math.inf),
                {
                    "low_us": round(each.low_us, 3),
                    "high_us": round(each.high_us, 3),
                    "high_share_percent": round(each.high_share * 100, 1),
                    "ashman_d": round(each.distance, 1),
                    "between_sessions": "yes" if each.between_sessions else "no",
                },
                "No change of code makes such a step: addresses, clocks or a neighbour do. A baseline needs runs that "
                "show both modes."
                if each.between_sessions
                else "Look for what alternates: caches, two streams that meet, clocks that switch.",
            )
        )
    return found


def _two_modes(values: Floats, session_of: NDArray[np.int64], name: str, apart: float, tick: float) -> Modes | None:
    kept, of = values, session_of
    for _ in range(4):
        cut = _best_cut(np.sort(kept))
        upper = kept > cut
        share = float(upper.mean())
        if min(share, 1 - share) >= MODE_SHARE:
            break
        # a few far ones draw the cut to themselves; without them a second mode may show
        keep = ~upper if share < 0.5 else upper
        kept, of = kept[keep], of[keep]
        if len(kept) < MIN_POOLED or share in (0.0, 1.0):
            return None
    else:
        return None
    low, high = kept[~upper], kept[upper]
    low_us, high_us = float(low.mean()), float(high.mean())
    step = high_us - low_us
    variance = float(low.var() + high.var()) + tick**2 / 6  # what a tick hides in each part: tick^2 / 12
    if step < apart * low_us or step <= 3 * tick or step <= 0:
        return None
    distance = math.sqrt(2) * step / math.sqrt(max(variance, (1e-6 * step) ** 2))
    between = ((kept > low_us + step / 4) & (kept < high_us - step / 4)).sum()
    if distance < modes_limit(len(kept)) or between >= min(len(low), len(high)) / 4:
        return None
    shares = [float(upper[of == each].mean()) for each in np.unique(of)]
    stay = len(shares) > 1 and all(each <= MODE_SHARE or each >= 1 - MODE_SHARE for each in shares)
    return Modes(name, low_us, high_us, share, distance, stay)


def _best_cut(ordered: Floats) -> float:
    """The last value of the lower part of the split with the smallest sum of squares within both."""
    centred = ordered - ordered.mean()
    count = len(ordered)
    sums, squares = np.cumsum(centred), np.cumsum(centred**2)
    size = np.arange(1, count)
    below = squares[:-1] - sums[:-1] ** 2 / size
    above = (squares[-1] - squares[:-1]) - (sums[-1] - sums[:-1]) ** 2 / (count - size)
    within = np.where(ordered[1:] > ordered[:-1], below + above, np.inf)
    return float(ordered[int(np.argmin(within))]) if np.isfinite(within).any() else float(ordered[-1])
