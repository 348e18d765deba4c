"""What is odd about the iterations of a run: numpy and scipy only. Diagnoses, never a verdict.

The gate (:mod:`pytest_trtgray.timing.gate`) judges a run against other runs. This module looks inside one: at
iterations that lie far out, layers that vary more than their like, drift while it was measured, and layers that
take one of two times. Nothing here fails a test: rules such as "three sigma" raise a false alarm in most clean runs.
Its findings say why a verdict is inconclusive, or what to look at first.

All functions take sessions of *one* shape bucket: one engine at one set of input shapes, the same layers in each.
All limits are relative, so that the unit of time does not matter. Two conditions must hold for a finding: it is
significant (the families are layers x iterations, or layers), and it is large enough to matter. On real GPUs the
first alone would be met all the time: iteration noise is no Gaussian.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pytest_trtgray.findings import Finding, counted
from pytest_trtgray.timing.forest import find_odd_iterations
from pytest_trtgray.timing.modes import Modes, find_modes, mode_findings, modes, modes_limit
from pytest_trtgray.timing.overheads import (
    find_overhead_anomalies,
    is_unusual,
)
from pytest_trtgray.timing.samples import (
    ENGINE,
    Family,
    Floats,
    Samples,
    anomaly,
    by_urgency,
    display_names,
    long_latencies,
    outlier_limit,
    place_of,
    robust_z,
    us_text,
)
from pytest_trtgray.timing.trends import Drift, drift_findings, find_drift, slowest

__all__ = [
    "Drift",
    "LayerSpread",
    "Modes",
    "Samples",
    "display_names",
    "find_anomalies",
    "find_drift",
    "find_modes",
    "find_odd_iterations",
    "find_outliers",
    "find_overhead_anomalies",
    "find_spread",
    "is_unusual",
    "modes",
    "modes_limit",
    "outlier_limit",
    "robust_z",
    "slowest",
    "spreads",
]

OUTLIER_FACTOR = 1.5
"""A layer's iteration is only far out if it takes this many times the median (or that much less)."""
ENGINE_OUTLIER_FACTOR = 1.1
OUTLIER_SHARE = 0.02
"""Rarer outliers of a layer are normal: on an NVIDIA H200 one layer iteration in 3,000 takes 1.5x its median."""
MIN_OUTLIERS = 3
SPIKE = 0.05
"""A single iteration of a layer that costs the engine this part of its time is worth a finding ..."""
MAX_SPIKES = 3
"""... and so are this many layers."""
MANY_LAYERS = 5
SCATTERED_SHARE = 0.1
"""Outliers in more layers than this (and than :data:`MANY_LAYERS`) are one finding."""
UNSTEADY = 0.10
"""Robust CV of the whole engine; torch.utils.benchmark warns of a measurement that spreads by a tenth."""
HYPER_FACTOR = 2.0
"""A hyper-variable layer varies this many times more than layers of its length do ..."""
HYPER_CV = 0.05
"""... and by at least so much."""
MIN_TREND_LAYERS = 10


@dataclass(frozen=True)
class LayerSpread:
    """How long a layer takes, and how much that varies within a session.

    Attributes:
        name: its ONNX nodes.
        us: median time, microseconds.
        share: of the sum of all layers (0 to 1).
        cv: robust coefficient of variation (1.4826 MAD / median), median over the sessions.
        usual_cv: that of the engine's layers of about this length; ``None`` if there are too few layers.
    """

    name: str
    us: float
    share: float
    cv: float
    usual_cv: float | None = None


def find_anomalies(sessions: Sequence[Samples]) -> tuple[Finding, ...]:
    """Everything that this module tells of a run, the costliest first; empty for sessions of few iterations.

    What is said of a layer with two modes is not said again of its spread and outliers.

    Args:
        sessions: of one engine at one set of shapes.

    Raises:
        ValueError: the sessions have different layers.
    """
    family = Family.of(sessions)
    if not family.sessions:
        return ()
    two_modes = mode_findings(family)
    named = {finding.where for finding in two_modes}
    others = [each for each in _outlier_findings(family) if each.where not in named]
    found = [*two_modes, *others, *_spread_findings(family, without=named), *drift_findings(family)]
    return by_urgency(found)


def find_outliers(sessions: Sequence[Samples]) -> tuple[Finding, ...]:
    """Iterations that lie far from their session's median, by layer, and those of the whole engine.

    An iteration of a layer counts if its robust z, whichever its sign, exceeds :func:`outlier_limit` of layers x
    iterations, and the time is :data:`OUTLIER_FACTOR` times the median or more, or that much less; what all layers
    do in one iteration is taken out first and told as one finding of the engine. A layer is named if this happens
    in :data:`OUTLIER_SHARE` of its iterations, or costs the engine :data:`SPIKE` of its time in a single one; layers
    that are hit at random are one finding.
    """
    return by_urgency(_outlier_findings(Family.of(sessions)))


def _outlier_findings(family: Family) -> list[Finding]:
    if not family.sessions:
        return []
    iterations = len(family.session_of)
    limit = outlier_limit(iterations * max(len(family.names), 1))
    # so that layers of 0 us have ratios too
    floor = max(family.tick / 2, 1e-9 * max(own.max(initial=0.0) for own in family.own)) or 1.0
    out, ratios, excess = [], [], []
    for own, median in zip(family.own, family.medians, strict=True):
        ratio = np.maximum(own, floor) / np.maximum(median, floor)
        far = np.abs(np.log(ratio)) >= math.log(OUTLIER_FACTOR)
        out.append(far & (np.abs(robust_z(own, tick_us=family.tick)) > limit))
        ratios.append(ratio)
        excess.append(own - median)
    is_out, ratio, extra = np.concatenate(out), np.concatenate(ratios), np.concatenate(excess)
    often: list[Finding] = []
    spikes: list[Finding] = []
    for column in np.flatnonzero(is_out.any(axis=0)):
        rows = np.flatnonzero(is_out[:, column])
        costs = np.abs(extra[rows, column]) / (family.total or math.inf)
        is_often = len(rows) >= max(MIN_OUTLIERS, OUTLIER_SHARE * iterations)
        if is_often or costs.max() >= SPIKE:
            name, median = family.names[column], float(family.median[column])
            usual = us_text(median)
            times = f"{np.median(ratio[rows, column]):.1f}x its median ({usual})"
            if median <= floor:  # a layer that takes no time otherwise has no ratio
                times = f"{us_text(median + float(np.median(extra[rows, column])))} instead of {usual}"
            what = f"of {name} took {times}"
            found = _outlier(family, name, what, rows, ratio[rows, column], costs, iterations, median, "outlier")
            (often if is_often else spikes).append(found)
    whole = _engine_outliers(family)
    scattered = _scattered(family, often, is_out)
    return [*([scattered] if scattered else often), *by_urgency(spikes)[:MAX_SPIKES], *([whole] if whole else [])]


def _scattered(family: Family, often: Sequence[Finding], is_out: NDArray[np.bool_]) -> Finding | None:
    """One finding where outliers hit layers at random: then no layer is to blame."""
    if len(often) <= max(MANY_LAYERS, SCATTERED_SHARE * len(family.names)):
        return None
    worst = by_urgency(often)[0]
    return anomaly(
        ENGINE,
        f"{len(often)} of {len(family.names)} layers have iterations that lie far out "
        f"({is_out.mean():.1%} of all, most of all in {worst.where})",
        "scattered-outliers",
        sum(float(each.evidence["engine_percent"] or 0.0) for each in often) / 100,
        {"layers": len(often), "of": len(family.names), "layer_iterations_percent": round(is_out.mean() * 100, 2)},
        "Outliers that hit layers at random come from beside the engine: look for other work on the GPU.",
    )


def _finite(ratio: float) -> float | None:
    """Of a layer that takes 0 us otherwise there is no ratio."""
    return round(ratio, 2) if 0 < ratio < 1e6 else None


def _engine_outliers(family: Family) -> Finding | None:
    """From latencies; from what all layers do at once where latencies show nothing."""
    latencies = long_latencies(family)
    together = [np.exp(common) for common in family.common]
    for series, rule in ((latencies, "engine-outlier"), (together, "all-layers-outlier")):
        count = sum(map(len, series))
        limit = outlier_limit(count)
        ratios = [each / (np.median(each) or 1.0) for each in series]
        is_out = [
            (np.abs(robust_z(each)) > limit) & ((each >= ENGINE_OUTLIER_FACTOR) | (each <= 1 / ENGINE_OUTLIER_FACTOR))
            for each in ratios
        ]
        rows = np.flatnonzero(np.concatenate(is_out)) if series else np.empty(0, int)
        if len(rows):
            ratio = np.concatenate(ratios)[rows]
            latency = rule == "engine-outlier"
            median = float(np.median(np.concatenate(series))) if latency else family.total
            who, whose = ("the whole engine", "its") if latency else ("all layers together", "their")
            what = f"of {who} took {np.median(ratio):.1f}x {whose} median ({us_text(median)})"
            return _outlier(family, ENGINE, what, rows, ratio, np.abs(ratio - 1), count, median, rule)
    return None


def _outlier(
    family: Family,
    name: str,
    what: str,
    rows: NDArray[np.int64],
    ratios: Floats,
    costs: Floats,
    count: int,
    median: float,
    rule: str,
) -> Finding:
    cost = float(costs.sum()) / count
    return anomaly(
        name,
        f"{len(rows)} of {count} iterations {what}",
        rule,
        cost,
        {
            "iterations": len(rows),
            "of": count,
            "times_median": _finite(float(np.median(ratios))),
            "times_median_max": _finite(float(ratios[np.argmax(np.maximum(ratios, 1 / np.maximum(ratios, 1e-9)))])),
            "median_us": round(median, 3),
            "first_iterations": " ".join(place_of(family, rows, rule)),
        },
        "A mean or a 99th percentile feels them, a median does not: look for other work on the GPU, and for copies or "
        "host work inside the inference.",
    )


def spreads(sessions: Sequence[Samples]) -> tuple[LayerSpread, ...]:
    """Time, share and coefficient of variation of every layer, in the layers' order.

    ``usual_cv`` is the running median of CV over layers ordered by time: short layers vary more, because of the
    clock's tick and because a fixed jitter is a larger part of them.
    """
    return _spreads(Family.of(sessions))


def _spreads(family: Family) -> tuple[LayerSpread, ...]:
    if not family.sessions:
        return ()
    cv = _robust_cvs(family)
    usual = _usual_cv(family.median, cv, family.tick)
    total = family.total or math.inf
    return tuple(
        LayerSpread(name, float(us), float(us) / total, float(each), None if usual is None else float(usual[column]))
        for column, (name, us, each) in enumerate(zip(family.names, family.median, cv, strict=True))
    )


def find_spread(sessions: Sequence[Samples]) -> tuple[Finding, ...]:
    """Layers that vary more than layers of their length, and an engine that varies as a whole.

    A layer's log CV must lie above the trend by more than the scatter of all layers around it explains
    (:data:`FALSE_RATE` over the layers, scatter by MAD), and be :data:`HYPER_FACTOR` times the usual and
    :data:`HYPER_CV` at least. The engine is named beyond :data:`UNSTEADY`.
    """
    return by_urgency(_spread_findings(Family.of(sessions)))


def _spread_findings(family: Family, without: Container[str] = ()) -> list[Finding]:
    found = []
    known = [each for each in _spreads(family) if each.usual_cv]
    if known:
        hyper = []
        residual = np.array([math.log(max(each.cv, 1e-6) / (each.usual_cv or 1.0)) for each in known])
        scatter = 1.4826 * float(np.median(np.abs(residual)))
        limit = max(scatter * outlier_limit(len(known)), math.log(HYPER_FACTOR))
        for each, above in zip(known, residual, strict=True):
            if above > limit and each.cv >= HYPER_CV and each.name not in without:
                hyper.append(each)
        if hyper:
            found.append(_hyper_variable(sorted(hyper, key=lambda each: (-each.cv * each.share, each.name))))
    latencies = long_latencies(family)
    if latencies:
        cv = float(np.median([_robust_cv(each) for each in latencies]))
        if cv >= UNSTEADY and ENGINE not in without:
            median = float(np.median(np.concatenate(latencies)))
            found.append(
                anomaly(
                    ENGINE,
                    f"the whole engine varies by {cv:.0%} from iteration to iteration ({us_text(median)})",
                    "unsteady",
                    cv,
                    {"cv_percent": round(cv * 100, 2), "median_us": round(median, 3)},
                    "Look for other work on the device, for clocks that move, and for an engine that waits for the "
                    "host.",
                )
            )
    return found


def _hyper_variable(layers: Sequence[LayerSpread]) -> Finding:
    """One finding for all of them, led by the one that costs most: they tend to have one cause."""
    first, *others = layers
    usual = first.usual_cv or 0.0
    more = f" (and {counted(len(others), 'more layer')} like it)" if others else ""
    return anomaly(
        first.name,
        f"{first.name} varies by {first.cv:.0%} from iteration to iteration, layers of its length "
        f"({us_text(first.us)}) by {usual:.1%}{more}",
        "hyper-variable",
        sum(each.cv * each.share for each in layers),
        {
            "cv_percent": round(first.cv * 100, 2),
            "usual_cv_percent": round(usual * 100, 2),
            "median_us": round(first.us, 3),
            "layers": len(layers),
            "others": "; ".join(f"{each.name}: {each.cv:.1%}" for each in others[:5]),
        },
        "A verdict on them needs more runs than on the others. Layers that copy from or wait for the host vary with "
        "the host.",
    )


def _robust_cv(values: Floats) -> float:
    middle = float(np.median(values))
    return 1.4826 * float(np.median(np.abs(values - middle))) / middle if middle > 0 else 0.0


def _robust_cvs(family: Family) -> Floats:
    cvs = []
    for own, median in zip(family.own, family.medians, strict=True):
        spread = 1.4826 * np.median(np.abs(own - median), axis=0)
        cvs.append(np.divide(spread, median, out=np.zeros_like(spread), where=median > 0))
    return np.asarray(np.median(cvs, axis=0))


def _usual_cv(times: Floats, cv: Floats, tick: float) -> Floats | None:
    """The running median over time of CV, not below what the tick alone makes of it (Sheppard: tick / sqrt 12)."""
    timed = np.flatnonzero(times > 0)
    if len(timed) < MIN_TREND_LAYERS:
        return None
    order = timed[np.argsort(times[timed], kind="stable")]
    # equal times and CVs: no dependence on the order of layers
    order = order[np.lexsort((cv[order], times[order]))]
    floored = np.maximum(cv[order], tick / math.sqrt(12) / times[order])
    window = max(MIN_TREND_LAYERS - 1, len(order) // 6) | 1
    usual = np.zeros_like(times)
    usual[order] = ndimage.median_filter(floored, size=window, mode="nearest")
    return usual
