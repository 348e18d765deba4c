"""Iterations that are odd as a whole, by an isolation forest; needs the extra ``anomalies``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from pytest_trtgray.findings import Finding
from pytest_trtgray.timing.samples import (
    ENGINE,
    MIN_POOLED,
    Family,
    Samples,
    anomaly,
    outlier_limit,
    place_of,
    robust_z,
)
from pytest_trtgray.vendor import quiet_import


def find_odd_iterations(sessions: Sequence[Samples], *, seed: int = 0, trees: int = 200) -> tuple[Finding, ...]:
    """Iterations whose layers, taken together, are unlike the others' (isolation forest; needs scikit-learn).

    Features are the layers' robust z-scores within their session, clipped to +-20, without what all layers do at
    once. An iteration counts if the forest's score (Liu, Ting and Zhou, ICDM 2008) lies beyond
    :func:`outlier_limit` of the scores' own robust spread: ``contamination`` would name a fixed part of any run.

    Args:
        sessions: of one engine at one set of shapes.
        seed: of the forest.
        trees: how many.

    Raises:
        EngineError: scikit-learn is not installed; says how to.
    """
    family = Family.of(sessions)
    forest = quiet_import("sklearn.ensemble")
    if len(family.session_of) < MIN_POOLED or not family.names:
        return ()
    features = np.clip(np.concatenate([robust_z(own, tick_us=family.tick) for own in family.own]), -20, 20)
    fitted = forest.IsolationForest(n_estimators=trees, random_state=seed, n_jobs=1).fit(features)
    scores = np.asarray(-fitted.score_samples(features), dtype=np.float64)
    rows = np.flatnonzero(robust_z(scores) > outlier_limit(len(scores)))
    if not len(rows):
        return ()
    leaders = Counter(int(column) for row in rows for column in np.argsort(-np.abs(features[row]))[:3])
    named = [family.names[column] for column, _ in leaders.most_common(3)]
    extra = np.concatenate([own - median for own, median in zip(family.own, family.medians, strict=True)])
    cost = float(np.abs(extra[rows].sum(axis=1)).sum()) / (family.total or math.inf) / len(scores)
    return (
        anomaly(
            ENGINE,
            f"{len(rows)} of {len(scores)} iterations are unlike the others, most of all in {', '.join(named)}",
            "odd-iterations",
            cost,
            {
                "iterations": len(rows),
                "of": len(scores),
                "first_iterations": " ".join(place_of(family, rows, "odd-iterations")),
            },
            "Layers that stand out in the same iterations have a cause in common: look at what runs beside them.",
        ),
    )
