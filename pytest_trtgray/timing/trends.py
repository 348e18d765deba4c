"""Drift over the iterations of a session: of the whole engine, of single layers beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pytest_trtgray.findings import Finding
from pytest_trtgray.timing.samples import (
    ENGINE,
    FALSE_RATE,
    Family,
    Floats,
    Samples,
    anomaly,
    by_urgency,
    long_latencies,
    us_text,
)
from pytest_trtgray.timing.spread import holm

BLOCKS = 16
LAYER_DRIFT = 0.05
ENGINE_DRIFT = 0.02


@dataclass(frozen=True)
class Drift:
    """A trend over the iterations of a session.

    Attributes:
        name: of the layer, or ``engine``.
        us: median time, microseconds.
        share: of the sum of all layers.
        change: over the length of a session, relative (0.1: ends 10 % slower than it began).
        p_value: of "no trend", two-sided, corrected for the number of layers (Holm).
    """

    name: str
    us: float
    share: float
    change: float
    p_value: float


def slowest(sessions: Sequence[Samples], count: int = 10) -> tuple[Drift, ...]:
    """The slowest layers, each with its trend over the iterations of a session, the slowest first."""
    family = Family.of(sessions)
    if not family.sessions:
        return ()
    _, layers = _drifts(family)
    return tuple(sorted(layers, key=lambda each: -each.us)[:count])


def find_drift(sessions: Sequence[Samples]) -> tuple[Finding, ...]:
    """A trend of the whole engine (a thermal ramp, a warm-up that was too short), and of single layers beside it.

    Kendall's S over block means (at most :data:`BLOCKS` a session, which takes out most of the correlation from
    one iteration to the next; what is left of it widens the limits), summed over sessions with its variance, as in
    the seasonal Kendall test (Hirsch, Slack and Smith, *Water Resources Research* 18(1), 1982); ties make it
    conservative. The size is the median
    slope over all pairs of blocks of a session (Theil and Sen). What all layers do at once is taken out of the
    layers. Holm over all layers, :data:`FALSE_RATE`; and at least :data:`LAYER_DRIFT`, :data:`ENGINE_DRIFT`.
    """
    return by_urgency(drift_findings(Family.of(sessions)))


def drift_findings(family: Family) -> list[Finding]:
    """:func:`find_drift`, unsorted."""
    if not family.sessions:
        return []
    engine, layers = _drifts(family)
    found = []
    if engine.p_value < FALSE_RATE and abs(engine.change) >= ENGINE_DRIFT:
        remedy = (
            "A thermal ramp or a power limit: compare clocks and temperature, and let the GPU settle before it is "
            "measured."
            if engine.change > 0
            else "The warm-up was too short, or clocks were still rising."
        )
        found.append(_drift(engine, "the whole engine", "engine-drift", remedy))
    found += [
        _drift(
            each,
            each.name,
            "layer-drift",
            "This layer alone moves while the others stay: look for caches that fill, and for its data.",
        )
        for each in layers
        if each.p_value < FALSE_RATE and abs(each.change) >= LAYER_DRIFT
    ]
    return found


def _drift(drift: Drift, what: str, rule: str, remedy: str) -> Finding:
    way = "slower" if drift.change > 0 else "faster"
    return anomaly(
        drift.name,
        f"{what} gets {abs(drift.change):.1%} {way} over the iterations of a session ({us_text(drift.us)})",
        rule,
        abs(drift.change) * drift.share,
        {
            "change_percent": round(drift.change * 100, 2),
            "p_value": float(f"{drift.p_value:.2g}"),
            "median_us": round(drift.us, 3),
        },
        remedy,
    )


def _drifts(family: Family) -> tuple[Drift, tuple[Drift, ...]]:
    """Of the engine and of every layer; p-values are Holm's over both."""
    latencies = long_latencies(family)
    whole_us = float(np.median(np.concatenate(latencies))) if latencies else family.total
    wholes = [each[:, None] for each in latencies] or [each.layer_us.sum(axis=1)[:, None] for each in family.sessions]
    together = [np.exp(common)[:, None] for common in family.common]
    p_layers, changes = _trend(family.own, family.tick)
    candidates = [_trend(series, 0.0) for series in (wholes, together)]
    p_engine, change = min(((float(p[0]), float(size[0])) for p, size in candidates), key=lambda each: each[0])
    corrected = holm(np.concatenate([[min(1.0, 2 * p_engine)], p_layers]))
    total = family.total or math.inf
    layers = tuple(
        Drift(name, float(us), float(us) / total, float(size), float(p))
        for name, us, size, p in zip(family.names, family.median, changes, corrected[1:], strict=True)
    )
    return Drift(ENGINE, whole_us, 1.0, change, float(corrected[0])), layers


def _trend(series: Sequence[Floats], tick: float) -> tuple[Floats, Floats]:
    """p-values and relative changes over a session of each column; arrays of shape (iterations, columns)."""
    columns = series[0].shape[1]
    score, pairs = np.zeros(columns), 0.0
    lagged, squared, blocks_seen = np.zeros(columns), np.zeros(columns), []
    slopes: list[Floats] = []
    for samples in series:
        median = np.median(samples, axis=0)
        reach = 5 * np.maximum(1.4826 * np.median(np.abs(samples - median), axis=0), tick / 2)
        clipped = np.clip(samples, median - reach, median + reach)
        blocks = np.array([block.mean(axis=0) for block in np.array_split(clipped, min(BLOCKS, len(clipped)))])
        count = len(blocks)
        first, second = np.triu_indices(count, 1)
        rise = blocks[second] - blocks[first]
        rise[np.abs(rise) <= 1e-9 * np.maximum(np.abs(median), np.abs(blocks[first]))] = 0.0
        score += np.sign(rise).sum(axis=0)
        pairs += count * (count - 1) * (2 * count + 5) / 18
        relative = np.divide(rise, median, out=np.zeros_like(rise), where=median > 0)
        slopes.append(relative / ((second - first) / (count - 1))[:, None])
        slope = np.median(rise / (second - first)[:, None], axis=0)
        residual = blocks - slope * np.arange(count)[:, None]
        residual = residual - residual.mean(axis=0)
        lagged += (residual[1:] * residual[:-1]).sum(axis=0)
        squared += (residual**2).sum(axis=0)
        blocks_seen.append(count)
    variance = pairs * _inflation(lagged, squared, float(np.mean(blocks_seen)))
    z = np.maximum(np.abs(score) - 1, 0) / np.sqrt(variance)
    return np.asarray(2 * stats.norm.sf(z)), np.asarray(np.median(np.concatenate(slopes), axis=0))


def _inflation(lagged: Floats, squared: Floats, count: float) -> Floats:
    """What correlation between neighbouring blocks makes of the variance of S: (1 + r) / (1 - r), at least 1.

    r is lag-1 and of residuals around the trend, and so too small by (1 + 4 r) / n (Marriott and Pope,
    *Biometrika* 41, 1954).
    """
    r = np.divide(lagged, squared, out=np.zeros_like(lagged), where=squared > 0)
    r = np.clip((r * count + 1) / max(count - 4, 1.0), 0.0, 0.9)
    return np.asarray((1 + r) / (1 - r))
