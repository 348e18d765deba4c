"""From a change and its uncertainty to an outcome: the same rule for a baseline and for an A/B."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pytest_trtgray.timing.spread import holm
from pytest_trtgray.timing.summary import Floats
from pytest_trtgray.timing.verdict import MIN_CHANGE_US, MUST_DETECT_ENGINE, MUST_DETECT_LAYER, Judgement, Outcome

_LARGE = 50.0
"""Logarithm beyond which a change is no number any more."""


@dataclass(frozen=True)
class Rule:
    """What decides on an outcome.

    Attributes:
        alpha: chance of a false alarm.
        limit: tolerance, as a logarithm.
        failing: change from which on anything may be slower; ``limit``, or more where little is known.
        is_measured: whether the spread is known, so that a slowdown can be excluded.
        is_doubtful: whether the run proves nothing.
    """

    alpha: float
    limit: float
    failing: float
    is_measured: bool = True
    is_doubtful: bool = False


def judge_layers(
    keys: Sequence[str],
    before_us: Floats,
    after_us: Floats,
    change: Floats,
    sd: Floats,
    df: Floats,
    agree: NDArray[np.bool_],
    rule: Rule,
    fused: Sequence[tuple[int, int]],
) -> list[Judgement]:
    """Outcomes of layers; the error over all of them is held by Holm's method.

    Args:
        keys: of the layers.
        before_us: their times, microseconds.
        after_us: now.
        change: logarithm of the relative change.
        sd: its standard deviation if nothing has changed.
        df: degrees of freedom of ``sd``.
        agree: layers whose change most sessions show.
        rule: see :class:`Rule`.
        fused: from how many layers each unit came to how many.
    """
    p_slower, p_faster = holm(stats.t.sf(change / sd, df)), holm(stats.t.cdf(change / sd, df))
    change_us = before_us * np.expm1(change)
    bound = change + stats.t.isf(0.05, df) * sd
    half = stats.t.isf(0.025, df) * sd
    worst = np.expm1(np.minimum(bound, _LARGE))
    slower = (p_slower < rule.alpha) & (change >= rule.failing) & agree & (change_us >= MIN_CHANGE_US)
    faster = (p_faster < rule.alpha) & (change <= -rule.limit) & (change_us <= -MIN_CHANGE_US)
    # a layer of next to nothing may change by any factor
    excluded = (bound < math.log1p(MUST_DETECT_LAYER)) | (before_us * worst < MIN_CHANGE_US)
    if not rule.is_measured:
        excluded |= change < rule.limit  # one job cannot exclude anything; said once, not for every layer
    at_risk = np.maximum(worst, 0.0) * before_us / (float(before_us.sum()) or 1.0)
    return [
        Judgement(
            key,
            _outcome(rule, bool(slower[i]), bool(faster[i]), bool(excluded[i])),
            float(before_us[i]),
            float(after_us[i]),
            math.expm1(change[i]),
            math.expm1(max(change[i] - half[i], -_LARGE)),
            math.expm1(min(change[i] + half[i], _LARGE)),
            float(p_slower[i]),
            float(at_risk[i]),
            fused[i],
        )
        for i, key in enumerate(keys)
    ]


def judge_engine(before_us: float, after_us: float, change: float, sd: float, df: float, rule: Rule) -> Judgement:
    """The outcome of the whole engine; arguments as of :func:`judge_layers`."""
    p_slower, p_faster = float(stats.t.sf(change / sd, df)), float(stats.t.cdf(change / sd, df))
    half = float(stats.t.isf(0.025, df)) * sd
    bound = change + float(stats.t.isf(0.05, df)) * sd
    outcome = _outcome(
        rule,
        p_slower < rule.alpha and change >= rule.failing,
        p_faster < rule.alpha and change <= -rule.limit,
        bound < math.log1p(MUST_DETECT_ENGINE) or (not rule.is_measured and change < rule.limit),
    )
    return Judgement(
        "engine",
        outcome,
        before_us,
        after_us,
        math.expm1(change),
        math.expm1(change - half),
        math.expm1(change + half),
        p_slower,
        max(math.expm1(bound), 0.0),
    )


def _outcome(rule: Rule, is_slower: bool, is_faster: bool, is_excluded: bool) -> Outcome:
    if rule.is_doubtful:
        return "inconclusive"
    if is_slower:
        return "slower"
    if is_faster:
        return "faster"
    return "pass" if is_excluded else "inconclusive"
