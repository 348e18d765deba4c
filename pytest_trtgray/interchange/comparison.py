"""Two run documents, check by check: what is worse, what is better, and what nobody can tell.

Nothing is decided here that the house has not decided: times by :func:`pytest_trtgray.timing.gate.judge`, with the old
run (and the baseline that it passed against) as the baseline; structure by
:func:`pytest_trtgray.structure.snapshot.compare_snapshots`; all else by the outcomes and findings that the checks had.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pytest_trtgray.accuracy.metrics import finite
from pytest_trtgray.errors import InterchangeError
from pytest_trtgray.findings import Finding, as_warning, counted, errors, some
from pytest_trtgray.reporting.details import MEASURED
from pytest_trtgray.reporting.document import UNREADABLE
from pytest_trtgray.reporting.headline import BAD
from pytest_trtgray.reporting.results import details_of
from pytest_trtgray.structure.snapshot import Snapshot, compare_snapshots
from pytest_trtgray.timing.alignment import align
from pytest_trtgray.timing.explanation import OTHER_RUN, findings_of
from pytest_trtgray.timing.gate import Baseline, Judgement, Run, judge
from pytest_trtgray.timing.samples import us_text

Outcome = Literal["worse", "better", "same", "inconclusive", "incomparable", "new", "gone"]
Check = Mapping[str, Any]

TIMED = ("timing", "against")
_PASSED = ("pass", "faster")
_RANK: Mapping[str, int] = {
    each: rank for rank, each in enumerate(("worse", "incomparable", "gone", "inconclusive", "better", "new", "same"))
}


@dataclass(frozen=True)
class Tolerances:
    """How much slower is not slower; the ini options of the same names have the same defaults."""

    layer: float = 0.03
    engine: float = 0.02
    false_alarm_rate: float = 0.01


@dataclass(frozen=True)
class CheckComparison:
    """One check of two runs.

    Attributes:
        engine: its name; both, where they differ.
        kind: of the check.
        test: of the new run, or of the old one where the check is gone.
        outcome: ``worse``, ``better``, ``same``; ``inconclusive`` where the data do not tell, ``incomparable`` where
            the two measure different things, ``new`` and ``gone`` where only one run has the check.
        summary: in one line.
        findings: what changed; errors are what is worse.
        layers: of times, every layer; without an interval where the spread is not known.
    """

    engine: str
    kind: str
    test: str
    outcome: Outcome
    summary: str
    findings: tuple[Finding, ...] = ()
    layers: tuple[Judgement, ...] = ()


@dataclass(frozen=True)
class RunComparison:
    """Two runs, check by check, the gravest first."""

    checks: tuple[CheckComparison, ...]

    @property
    def is_worse(self) -> bool:
        """Whether any check is."""
        return any(check.outcome == "worse" for check in self.checks)

    @property
    def is_open(self) -> bool:
        """Whether something may be worse that nobody can tell: inconclusive, incomparable or gone."""
        return any(check.outcome in ("inconclusive", "incomparable", "gone") for check in self.checks)

    @property
    def is_comparable(self) -> bool:
        """Whether any check could be compared."""
        return any(check.outcome not in ("incomparable", "new", "gone") for check in self.checks)


@dataclass(frozen=True)
class _Said:
    """What one way of looking at two checks says."""

    outcome: Outcome
    summary: str
    findings: tuple[Finding, ...] = ()
    layers: tuple[Judgement, ...] = ()


def compare_documents(
    old: Mapping[str, Any], new: Mapping[str, Any], tolerances: Tolerances | None = None
) -> RunComparison:
    """Compare two run documents.

    Checks belong together by engine, kind and test. Where each run has one engine only, they are compared whatever they
    are called.

    Args:
        old: a run, as ``--trt-json`` or ``trtgray import`` writes it.
        new: a later run.
        tolerances: of times.
    """
    limits = tolerances or Tolerances()
    pairs, gone, added = _pairs(old["checks"], new["checks"])
    found = [_compare(before, after, limits) for before, after in pairs]
    found += [_alone(check, "gone") for check in gone]
    found += [_alone(check, "new") for check in added]
    return RunComparison(tuple(sorted(found, key=lambda check: _RANK[check.outcome])))


def _pairs(old: Sequence[Check], new: Sequence[Check]) -> tuple[list[tuple[Check, Check]], list[Check], list[Check]]:
    """Checks that belong together, from the most to the least alike, and those that only one run has."""
    sides = [{check["engine"] for check in side} for side in (old, new)]
    lone = all(len(engines) == 1 for engines in sides)
    keys: tuple[Callable[[Check], object], ...] = (
        lambda check: (check["engine"], check["kind"], check["test"], _shapes(check)),
        lambda check: (check["engine"], check["kind"], check["test"]),
        lambda check: ("" if lone else check["engine"], check["kind"]),
    )
    pairs: list[tuple[Check, Check]] = []
    left, right = list(old), list(new)
    for key in keys:
        before, after = _grouped(left, key), _grouped(right, key)
        # as many on both sides, or it is a guess which is which
        same = [name for name in before if len(before[name]) == len(after.get(name, ()))]
        found = [pair for name in same for pair in zip(before[name], after[name], strict=True)]
        pairs += found
        taken = {id(check) for pair in found for check in pair}
        left, right = ([check for check in side if id(check) not in taken] for side in (left, right))
    return pairs, left, right


def _grouped(checks: Iterable[Check], key: Callable[[Check], object]) -> dict[object, list[Check]]:
    groups: defaultdict[object, list[Check]] = defaultdict(list)
    for check in checks:
        groups[key(check)].append(check)
    return dict(groups)


def _shapes(check: Check) -> str:
    return json.dumps(details_of(check).get("shapes"), sort_keys=True)


def _alone(check: Check, outcome: Outcome) -> CheckComparison:
    where = "old" if outcome == "gone" else "new"
    summary = f"only the {where} run has it: {check['outcome']}, {check['summary']}"
    # what is wrong now, and was never looked at before, is no news of a change
    return CheckComparison(check["engine"], check["kind"], check["test"], outcome, summary)


def _compare(old: Check, new: Check, limits: Tolerances) -> CheckComparison:
    try:
        return _compared(old, new, limits)
    except UNREADABLE as error:
        raise InterchangeError(
            f"check {new['test']} ({new['kind']})",
            f"its details cannot be read: {type(error).__name__} {error}",
            "Give documents as trtgray has written them.",
        ) from error


def _compared(old: Check, new: Check, limits: Tolerances) -> CheckComparison:
    kind = new["kind"]
    if kind in TIMED:
        said = _times(old, new, limits)
    elif kind == "structure":
        said = _structure(old, new)
    elif kind == "outputs":
        said = _outputs(old, new)
    elif kind == "values":
        said = _values(old, new)
    else:
        said = _Said("same", "")
    judged = _judged(old, new, known={(finding.rule, finding.where) for finding in said.findings})
    outcome = min((said.outcome, judged.outcome), key=_RANK.__getitem__)
    names = [str(check["engine"]) for check in (old, new)]
    return CheckComparison(
        names[1] if names[0] == names[1] else " -> ".join(names),
        kind,
        new["test"],
        outcome,
        "; ".join(part for part in (judged.summary, said.summary) if part),
        (*judged.findings, *said.findings),
        said.layers,
    )


def _judged(old: Check, new: Check, known: set[tuple[str, str]]) -> _Said:
    """The verdicts that the two checks had, and findings that are new.

    Args:
        old: check.
        new: check.
        known: rules and places of findings that a direct comparison has made already.
    """
    before, after = old["outcome"], new["outcome"]
    had = {(row["rule"], row["where"]) for row in old["findings"]}
    fresh = [
        Finding.from_dict(row)
        for row in new["findings"]
        if row["severity"] != "advice" and (row["rule"], row["where"]) not in had | known
    ]
    text = before if before == after else f"{before} -> {after}"
    if after in BAD and (before not in BAD or errors(fresh)):
        return _Said("worse", text, tuple(fresh))
    outcome: Outcome = "better" if before in BAD and after not in BAD else "same"
    return _Said(outcome, text, tuple(map(as_warning, fresh)))


# times --------------------------------------------------------------------------------------------------------------


def _times(old: Check, new: Check, limits: Tolerances) -> _Said:
    why = _incomparable(old, new)
    if why:
        return _Said("incomparable", why)
    runs = [_run_of(check) for check in (old, new)]
    if runs[0] is None or runs[1] is None:
        which = " and ".join(name for name, run in zip(("old", "new"), runs, strict=True) if run is None)
        return _unjudged(old, new, f"the {which} document holds no sessions: it is older, or was written by hand")
    if old[MEASURED] == new[MEASURED]:
        return _Said("same", f"{us_text(math.exp(runs[1].engine()))}, the same measurement")
    before, after = runs[0], runs[1]
    methods = _difference(old, new, "method")
    if methods:
        return _unjudged(old, new, f"times were taken in different ways: {methods}")
    if before.disturbed:
        return _unjudged(old, new, f"of the old run: {before.disturbed}")
    if not math.isfinite(before.engine()) or not math.isfinite(after.engine()):
        return _unjudged(old, new, "the time of the engine is not known")
    if not (before.has_errors and after.has_errors):
        return _engine_alone(before, after, limits)
    return _verdict(_baseline(old, before), after, limits)


def _incomparable(old: Check, new: Check) -> str:
    if old["device"] and new["device"] and old["device"] != new["device"]:
        return f"another device: {old['device']} -> {new['device']}"
    shapes = [details_of(check).get("shapes") or {} for check in (old, new)]
    if all(shapes) and shapes[0] != shapes[1]:
        return f"other shapes: {shapes[0]} -> {shapes[1]}"
    return ""


def _difference(old: Check, new: Check, member: str) -> str:
    before, after = (details_of(check).get(member) or {} for check in (old, new))
    names = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    return some([f"{name} {before.get(name, 'unknown')} / {after.get(name, 'unknown')}" for name in names])


def _run_of(check: Check) -> Run | None:
    measured = check.get(MEASURED)
    if not measured:
        return None
    return Run.from_dict(measured["run"], details_of(check).get("context") or {})


def _baseline(old: Check, run: Run) -> Baseline:
    """The old run, after the runs of the baseline that it passed against: those are runs of the same engine."""
    stored = old[MEASURED].get("baseline") if old["outcome"] in _PASSED else None
    if not stored:
        return Baseline([run])
    return Baseline.from_dict(stored).with_run(run)


def _verdict(baseline: Baseline, run: Run, limits: Tolerances) -> _Said:
    verdict = judge(
        baseline,
        run,
        false_alarm_rate=limits.false_alarm_rate,
        layer_tolerance=limits.layer,
        engine_tolerance=limits.engine,
    )
    engine = verdict.engine
    outcomes: Mapping[str, Outcome] = {"slower": "worse", "faster": "better", "pass": "same"}
    summary = (
        f"{_arrow(engine.before_us, engine.after_us)}, {engine.change:+.1%} [{engine.low:+.1%}, {engine.high:+.1%}]"
    )
    if verdict.outcome == "inconclusive":
        summary += f"; inconclusive: {verdict.reason}"
    findings = tuple(findings_of(verdict, len(baseline.runs), OTHER_RUN))
    layers = (*verdict.layers, *verdict.modules)
    return _Said(outcomes.get(verdict.outcome, "inconclusive"), summary, findings, layers)


def _engine_alone(before: Run, after: Run, limits: Tolerances) -> _Said:
    """The engine by the rule, the layers by their numbers."""
    said = _verdict(Baseline([before.without_layers()]), after.without_layers(), limits)
    layers = _changes(before.layers, np.exp(before.location()), after.layers, np.exp(after.location()))
    reason = "the documents hold no spread of the layers, so none of them is judged"
    outcome: Outcome = "inconclusive" if said.outcome == "same" and layers else said.outcome
    return _Said(outcome, f"{said.summary}; {reason}" if layers else said.summary, said.findings, layers)


def _unjudged(old: Check, new: Check, reason: str) -> _Said:
    """Numbers side by side, and why nobody can say more."""
    rows = [details_of(check).get("layers") or () for check in (old, new)]
    keys = [[str(row["key"]) for row in side] for side in rows]
    times = [[math.nan if row.get("us") is None else float(row["us"]) for row in side] for side in rows]
    before, after = old.get("total_us"), new.get("total_us")
    change = f", {after / before - 1:+.1%}" if before and after else ""
    summary = f"{_arrow(before, after)}{change}; inconclusive: {reason}"
    return _Said("inconclusive", summary, (), _changes(keys[0], np.array(times[0]), keys[1], np.array(times[1])))


def _changes(old: Sequence[str], old_us: np.ndarray, new: Sequence[str], new_us: np.ndarray) -> tuple[Judgement, ...]:
    """Layers side by side; an interval that nobody knows is NaN."""
    pairs = align(old, new)
    nan = math.nan
    found = []
    for key, olds, news in zip(pairs.keys, pairs.old, pairs.new, strict=True):
        before, after = float(old_us[list(olds)].sum()), float(new_us[list(news)].sum())
        change = after / before - 1 if before > 0 else nan
        fused = (len(olds), len(news))
        found.append(Judgement(key, "inconclusive", finite(before), finite(after), change, nan, nan, nan, 0.0, fused))
    found += [Judgement(key, "new", None, finite(float(new_us[column]))) for key, column in pairs.added]
    found += [Judgement(key, "gone", finite(float(old_us[column])), None) for key, column in pairs.removed]
    return tuple(found)


def _arrow(before: float | None, after: float | None) -> str:
    return " -> ".join("unknown" if value is None or value != value else us_text(value) for value in (before, after))


# structure and outputs ----------------------------------------------------------------------------------------------


def _structure(old: Check, new: Check) -> _Said:
    details = [details_of(check) for check in (old, new)]
    if not all(details):
        return _lacking(old, new, "layers")
    findings = compare_snapshots(Snapshot.from_dict(details[0]), Snapshot.from_dict(details[1]))
    changes = errors(findings)
    summary = counted(len(changes), "change") if changes else "the same engine"
    return _Said("worse" if changes else "same", summary, findings)


def _outputs(old: Check, new: Check) -> _Said:
    rows = [{row["name"]: row for row in details_of(check).get("outputs") or ()} for check in (old, new)]
    if not all(rows):
        return _lacking(old, new, "outputs")
    findings = [*_gone_outputs(*rows)]
    for name in [name for name in rows[0] if name in rows[1]]:
        before, after = rows[0][name], rows[1][name]
        if before["tolerance"] == after["tolerance"] and (after["wrong"] or 0) > (before["wrong"] or 0):
            what = f"output {name!r}: {before['wrong']} -> {after['wrong']} of {after['elements']} elements are wrong"
            evidence = {"wrong_before": before["wrong"], "wrong_after": after["wrong"]}
            findings.append(Finding("error", name, what, "diff.outputs-worse", evidence, "See the new run's findings."))
        elif _l2(before) != _l2(after):
            what = f"output {name!r}: relative L2 error {_l2(before)} -> {_l2(after)}"
            findings.append(Finding("advice", name, what, "diff.outputs-error", {}))
    worst = " -> ".join("unknown" if each is None else f"{each:.2g}" for each in (_worst(side) for side in rows))
    return _Said("worse" if errors(findings) else "same", f"relative L2 error {worst}", tuple(findings))


def _l2(row: Mapping[str, Any]) -> str:
    value = row.get("relative_l2")
    return "unknown" if value is None else f"{value:.2g}"


def _worst(rows: Mapping[str, Mapping[str, Any]]) -> float | None:
    known = [float(row["relative_l2"]) for row in rows.values() if row.get("relative_l2") is not None]
    return max(known, default=None)


def _gone_outputs(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Finding]:
    missing = [name for name in old if name not in new]
    return [
        Finding("error", name, f"output {name!r} is gone; there are {some(sorted(new))}", "diff.output-gone")
        for name in missing
    ]


def _values(old: Check, new: Check) -> _Said:
    """Outputs that nothing was held against: shapes, types, NaN, and whether they are the same bit by bit."""
    rows = [{row["name"]: row for row in details_of(check).get("values") or ()} for check in (old, new)]
    if not all(rows):
        return _lacking(old, new, "outputs")
    findings, other = [*_gone_outputs(*rows)], []
    for name in [name for name in rows[0] if name in rows[1]]:
        before, after = rows[0][name], rows[1][name]
        forms = [f"{row['dtype']} {row['shape']}" for row in (before, after)]
        if forms[0] != forms[1]:
            what = f"output {name!r} was {forms[0]}, is {forms[1]}"
            findings.append(Finding("error", name, what, "diff.output-form"))
        elif after["non_finite"] > before["non_finite"]:
            what = f"output {name!r}: {before['non_finite']} -> {after['non_finite']} elements are NaN or infinite"
            findings.append(Finding("error", name, what, "diff.outputs-worse"))
        elif before["sha256"] != after["sha256"]:
            other.append(name)
    if errors(findings):
        return _Said("worse", f"{counted(len(findings), 'output')} changed", tuple(findings))
    if other:
        reason = f"{some(other)} differ, and no run holds them against a reference"
        remedy = "Import both runners' results in one call: trtgray import trt.json onnxrt.json."
        return _Said("inconclusive", reason, (Finding("warning", other[0], reason, "diff.no-reference", {}, remedy),))
    return _Said("same", "the same bit by bit")


def _lacking(old: Check, new: Check, what: str) -> _Said:
    which = " and ".join(name for name, check in (("old", old), ("new", new)) if not details_of(check))
    return _Said("inconclusive", f"the {which or 'old or new'} document holds no {what}")
