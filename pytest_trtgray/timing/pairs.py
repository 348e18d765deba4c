"""A/B without a history: pairs of runs, measured in turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from pytest_trtgray.timing.alignment import align, summed
from pytest_trtgray.timing.explanation import OTHER_ENGINE, findings_of
from pytest_trtgray.timing.judging import Rule, judge_engine, judge_layers
from pytest_trtgray.timing.spread import ENGINE_CLOCK_SHARE, MIN_LAYERS, looks_suspicious, moderated
from pytest_trtgray.timing.summary import Run
from pytest_trtgray.timing.verdict import AGREEING, MATTERS, Judgement, Limits, Outcome, Verdict

ENGINE_SD, ENGINE_DF = 0.003, 4.0
"""Prior of how much the two engines of a pair differ by chance."""


def compare_pairs(a_runs: Sequence[Run], b_runs: Sequence[Run], limits: Limits) -> tuple[Verdict, bool]:
    """The verdict of :func:`pytest_trtgray.timing.gate.compare`, and whether more pairs should be measured."""
    alignment = align(a_runs[0].layers, b_runs[0].layers)
    old = [summed(run.location(), run.error(), alignment.old)[0] for run in a_runs]
    new = [summed(run.location(), run.error(), alignment.new)[0] for run in b_runs]
    difference = np.array(new) - np.array(old)
    pairs, count = difference.shape
    shift = np.median(difference, axis=1, keepdims=True) if count >= MIN_LAYERS else np.zeros((pairs, 1))
    difference = difference - shift
    level = np.mean(old, axis=0)
    variance, df = moderated(difference.var(axis=0, ddof=1), pairs - 1.0, level)
    engine = _engine(a_runs, b_runs, limits)
    change, sd, limit = difference.mean(axis=0), np.sqrt(variance / pairs), math.log1p(limits.layer)
    agree = (difference >= limit / 2).mean(axis=0) >= AGREEING - 1e-9
    layers = judge_layers(
        alignment.keys,
        np.exp(level),
        np.exp(np.mean(new, axis=0)),
        change,
        sd,
        df,
        agree,
        Rule(limits.alpha, limit, limit),
        alignment.fused,
    )
    after = np.exp(b_runs[-1].location())
    before = np.exp(a_runs[-1].location())
    layers += [Judgement(key, "new", None, float(after[column])) for key, column in alignment.added]
    layers += [Judgement(key, "gone", float(before[column]), None) for key, column in alignment.removed]
    outcome, reason = _overall(engine, layers)
    verdict = Verdict(
        outcome=outcome,
        engine=engine,
        layers=tuple(layers),
        sessions=sum(len(run.sessions) for run in (*a_runs, *b_runs)),
        baseline_runs=pairs,
        reason=reason,
        findings=(),
        machine=float(math.expm1(shift.mean())),
    )
    suspicious = outcome in ("slower", "inconclusive") or looks_suspicious(stats.t.sf(change / sd, df))
    return replace(verdict, findings=tuple(findings_of(verdict, pairs, OTHER_ENGINE))), suspicious


def _engine(a_runs: Sequence[Run], b_runs: Sequence[Run], limits: Limits) -> Judgement:
    changes = []
    for a, b in zip(a_runs, b_runs, strict=True):
        clocks = a.clock_mhz(), b.clock_mhz()
        turn = math.log(clocks[1] / clocks[0]) if clocks[0] and clocks[1] else 0.0
        changes.append(b.engine() - a.engine() + ENGINE_CLOCK_SHARE * turn)
    pairs = len(changes)
    change, df = float(np.mean(changes)), ENGINE_DF + pairs - 1
    variance = (ENGINE_DF * ENGINE_SD**2 + (pairs - 1) * float(np.var(changes, ddof=1))) / df
    limit = math.log1p(limits.engine)
    return judge_engine(
        float(np.exp(np.mean([run.engine() for run in a_runs]))),
        float(np.exp(np.mean([run.engine() for run in b_runs]))),
        change,
        math.sqrt(variance / pairs),
        df,
        Rule(limits.alpha, limit, limit),
    )


def _overall(engine: Judgement, layers: Sequence[Judgement]) -> tuple[Outcome, str]:
    if engine.outcome == "slower" or any(layer.outcome == "slower" for layer in layers):
        return "slower", ""
    if engine.outcome == "inconclusive" or any(
        layer.outcome == "inconclusive" and layer.at_risk > MATTERS for layer in layers
    ):
        return "inconclusive", "the spread between pairs is too large"
    if engine.outcome == "faster" or any(layer.outcome == "faster" for layer in layers):
        return "faster", ""
    return "pass", ""
