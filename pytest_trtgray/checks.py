"""Checks against baselines: compare, or record; report; fail inside the test."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pytest

from pytest_trtgray.baselines.identity import first_calls_key, identity_of, timing_key
from pytest_trtgray.baselines.store import damaged
from pytest_trtgray.errors import BaselineError
from pytest_trtgray.files import from_here
from pytest_trtgray.findings import Finding, as_warning, counted, errors, failure_message, listing
from pytest_trtgray.outcomes import skip_test
from pytest_trtgray.reporting.command import record_command
from pytest_trtgray.reporting.details import structure_details, timing_details, top_layers
from pytest_trtgray.structure.diff import describe, diff
from pytest_trtgray.structure.optimisation import advice_on_layers
from pytest_trtgray.structure.snapshot import Snapshot, compare_snapshots
from pytest_trtgray.timing.anomalies import find_overhead_anomalies
from pytest_trtgray.timing.first_calls import FirstCalls, FirstCallsBaseline
from pytest_trtgray.timing.gate import Baseline, Session, Verdict, judge
from pytest_trtgray.timing.jitter import AGAIN, FirstCallsVerdict, judge_first_calls, remedy_for, repeats_compiling
from pytest_trtgray.timing.samples import us_text
from pytest_trtgray.timing.session import Plan, first_calls, measure_sessions

if TYPE_CHECKING:
    from pytest_trtgray.engines.base import Engine, Feed, TimingOptions
    from pytest_trtgray.session import Details, TrtSession
    from pytest_trtgray.timing.contest import Contest
    from pytest_trtgray.timing.profile import Profile

Parsed = TypeVar("Parsed")
AGAINST = "against"
FIRST_CALLS = "first-calls"
STRUCTURE = "structure"
MAX_ADVICE = 3
"""Shown of what may be faster; ``profile.advice`` and ``trt_structure(engine).advice`` have all."""
MAX_CHANGES = 3
"""Structural changes that an A/B shows beside its times."""
MAX_ANOMALIES = 3
"""Shown of a run's anomalies; ``trt_profiler(...).anomalies`` has all."""


class BaselineCheck:
    """The checks of one test on one engine.

    Args:
        session: of this run of pytest.
        item: the test.
        engine: under test.
    """

    def __init__(self, session: TrtSession, item: pytest.Item, engine: Engine) -> None:
        self._session = session
        self._settings = session.settings
        self._item = item
        self._engine = engine

    def timing(self, profile: Profile, feed: Feed, plan: Plan, tolerance: float | None) -> Verdict | None:
        """Compare a profile with its baseline, or record it.

        Args:
            profile: what was measured.
            feed: the input it was measured with, for a second look.
            plan: how much a second look measures.
            tolerance: of a layer; ``None`` for the ini option.

        Returns:
            the verdict; ``None`` when the run is recorded.

        Raises:
            AssertionError: slower, or there is no baseline.
            BaselineError: the baseline cannot be used.
        """
        __tracebackhide__ = True
        identity = self._session.identity(self._engine, "timing")
        key = timing_key(profile.shapes, profile.method)
        stored = self._stored(identity, key)
        if self._is_to_be_recorded(stored):
            self._record_run(
                "timing",
                identity,
                key,
                first=lambda: Baseline([profile.run]).to_dict(),
                further=lambda kept: Baseline.from_dict(kept).with_run(profile.run).to_dict(),
                summary=_milliseconds(profile.total_us),
                disturbed=profile.run.disturbed,
                findings=self._advice(profile),
                details=lambda: {**timing_details(profile), "identity": dict(identity)},
                total_us=profile.total_us,
                top_layers=top_layers(profile),
            )
            return None
        if stored is None:
            self._missing("timing", identity)
        baseline = self._parsed(identity, Baseline.from_dict, stored)
        further: list[Session] = []

        def second_look() -> list[Session]:
            results = measure_sessions(self._engine, feed, plan, disturbed=profile.run.disturbed)
            further.extend(result.session for result in results)
            return further

        verdict = judge(
            baseline,
            profile.run,
            false_alarm_rate=self._settings.false_alarm_rate,
            layer_tolerance=self._settings.layer_tolerance if tolerance is None else tolerance,
            engine_tolerance=self._settings.engine_tolerance,
            more=second_look,
        )
        # what is odd inside of the sessions explains a doubt or a slowdown; beside a pass it is noise
        oddities = () if verdict.outcome == "pass" else _anomalies(profile, baseline)
        self._conclude_timing(profile, verdict, baseline, identity, further, (*oddities, *self._advice(profile)))
        return verdict

    def against(self, contest: Contest) -> None:
        """Report an A/B; fail where the engine under test is slower.

        Raises:
            AssertionError: something is slower; names it.
        """
        __tracebackhide__ = True
        verdict, engine = contest.verdict, contest.verdict.engine
        self._conclude(
            AGAINST,
            verdict,
            f"{_milliseconds(engine.before_us or math.nan)} -> {_milliseconds(engine.after_us or math.nan)}, "
            f"{engine.change:+.1%} [{engine.low:+.1%}, {engine.high:+.1%}] against {contest.old.engine.name}, "
            f"{counted(verdict.baseline_runs, 'pair')}",
            lambda: _slower_message(self._engine, verdict),
            _structural_changes(contest),
            accept="",
            details=lambda: {
                **timing_details(contest.new, verdict),
                "against": contest.old.engine.name,
                "identity": identity_of(self._engine, "timing"),
            },
            top_layers=top_layers(contest.new, verdict),
            total_us=contest.new.total_us,
            change=engine.change,
            low=engine.low,
            high=engine.high,
        )

    def first_calls(self, calls: FirstCalls, feeds: Sequence[Feed], options: TimingOptions) -> FirstCallsVerdict | None:
        """Compare first calls with their baseline, or record them.

        Args:
            calls: what was measured.
            feeds: the inputs it was measured with, for a second look.
            options: how.

        Returns:
            the verdict; ``None`` when the run is recorded.

        Raises:
            AssertionError: something is far slower, or there is no baseline.
            BaselineError: the baseline cannot be used.
        """
        __tracebackhide__ = True
        identity = self._session.identity(self._engine, "timing")
        key = first_calls_key(calls.names, calls.method)
        stored = self._stored(identity, key)
        if self._is_to_be_recorded(stored):
            self._record_run(
                FIRST_CALLS,
                identity,
                key,
                first=lambda: FirstCallsBaseline(calls.names, [calls.run]).to_dict(),
                further=lambda kept: _first_calls_baseline(calls, kept).with_run(calls.run).to_dict(),
                summary=_longest(calls),
                disturbed=calls.run.disturbed,
                **_first_us(calls),
            )
            return None
        if stored is None:
            self._missing(FIRST_CALLS, identity)
        runtime = self._engine.info.runtime
        verdict = judge_first_calls(
            self._parsed(identity, lambda kept: _first_calls_baseline(calls, kept), stored),
            calls.run,
            false_alarm_rate=self._settings.false_alarm_rate,
            remedy=remedy_for(runtime, kept_kernels=options.kept_kernels),
            repeats_all=repeats_compiling(runtime, kept_kernels=options.kept_kernels),
            more=lambda: [
                first_calls(self._engine, feeds, options, disturbed=calls.run.disturbed).run for _ in range(AGAIN)
            ],
        )
        self._conclude(
            FIRST_CALLS,
            verdict,
            f"{_longest(calls)} against {counted(verdict.baseline_jobs, 'job')}, {counted(verdict.looks, 'context')}",
            lambda: failure_message(f"first calls slower on {_where(self._engine)}", errors(verdict.findings)),
            **_first_us(calls),
        )
        return verdict

    def structure(self, snapshot: Snapshot) -> tuple[Finding, ...]:
        """Compare an engine's structure with its baseline, or record it.

        Returns:
            what is worth knowing although the engine is still the same.

        Raises:
            AssertionError: it is another engine, or there is no baseline.
            BaselineError: the baseline cannot be used.
        """
        __tracebackhide__ = True
        identity = self._session.identity(self._engine, STRUCTURE)
        stored = self._stored(identity, STRUCTURE)
        layers = f"{counted(len(snapshot.layers), 'layer')}, {snapshot.precision or 'precision unknown'}"
        advice = _at_most(advice_on_layers(snapshot.layers, self._engine.info)) if self._settings.advice else ()
        if self._is_to_be_recorded(stored):
            self._session.propose(self._item, self._engine, identity, STRUCTURE, lambda _: snapshot.to_dict())
            self._report(STRUCTURE, "recorded", layers, advice, details=lambda: structure_details(snapshot))
            return advice
        if stored is None:
            self._missing(STRUCTURE, identity)
        old = self._parsed(identity, Snapshot.from_dict, stored)
        findings = (*compare_snapshots(old, snapshot), *advice)
        changes = errors(findings)
        summary = f"{layers}; {counted(len(changes), 'change')}" if changes else f"{layers}, as the baseline"
        outcome = "changed" if changes else "pass"
        self._report(STRUCTURE, outcome, summary, findings, details=lambda: structure_details(snapshot))
        if changes:
            raise AssertionError(describe(findings))
        return findings

    def _report(
        self,
        kind: str,
        outcome: str,
        summary: str,
        findings: Sequence[Finding] = (),
        *,
        details: Details | None = None,
        **numbers: Any,
    ) -> None:
        self._session.report(self._item, kind, self._engine, outcome, summary, findings, details=details, **numbers)

    def _advice(self, profile: Profile) -> tuple[Finding, ...]:
        """Where the time goes; nothing of times that must not be trusted."""
        return _at_most(profile.advice) if self._settings.advice and not profile.run.disturbed else ()

    def _stored(self, identity: Mapping[str, str], key: str) -> Mapping[str, Any] | None:
        file = self._session.store.load(identity, self._item.nodeid)
        return file.entries.get(key) if file else None

    def _is_to_be_recorded(self, stored: Mapping[str, Any] | None) -> bool:
        return self._settings.update or (stored is None and self._settings.on_missing == "record")

    def _record_run(
        self,
        kind: str,
        identity: Mapping[str, str],
        key: str,
        *,
        first: Callable[[], Mapping[str, Any]],
        further: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        summary: str,
        disturbed: str,
        findings: Sequence[Finding] = (),
        **numbers: Any,
    ) -> None:
        """Append a run to a baseline of runs, or start one with it; not on a disturbed machine.

        Args:
            kind: of the check.
            identity: of the baseline.
            key: of the entry.
            first: the entry with this run alone.
            further: what is stored, with this run.
            summary: of the run.
            disturbed: why it must not be trusted.
            findings: what is worth knowing of the run.
            numbers: for the JSON report.
        """
        if disturbed:
            self._report(kind, "not recorded", disturbed, **numbers)
            return

        def change(stored: Mapping[str, Any] | None) -> Mapping[str, Any]:
            if stored is None or self._session.begin_anew(self._item, identity, key):
                return first()
            return self._parsed(identity, further, stored)

        self._session.propose(self._item, self._engine, identity, key, change)
        self._report(kind, "recorded", summary, findings, **numbers)

    def _conclude_timing(
        self,
        profile: Profile,
        verdict: Verdict,
        baseline: Baseline,
        identity: Mapping[str, str],
        further: Sequence[Session],
        anomalies: tuple[Finding, ...],
    ) -> None:
        __tracebackhide__ = True
        change = verdict.engine.change
        self._conclude(
            "timing",
            verdict,
            f"{_milliseconds(profile.total_us)}, {change:+.1%} against {counted(verdict.baseline_runs, 'job')}, "
            f"{counted(verdict.sessions, 'session')}",
            lambda: _slower_message(self._engine, verdict),
            anomalies,
            details=lambda: {**timing_details(profile, verdict, baseline, further), "identity": dict(identity)},
            top_layers=top_layers(profile, verdict),
            total_us=profile.total_us,
            change=change,
            low=verdict.engine.low,
            high=verdict.engine.high,
        )

    def _conclude(
        self,
        kind: str,
        verdict: Verdict | FirstCallsVerdict,
        summary: str,
        message: Callable[[], str],
        oddities: Sequence[Finding] = (),
        *,
        accept: str | None = None,
        **numbers: Any,
    ) -> None:
        """Report a verdict on times; fail or skip as it and the settings say.

        Args:
            kind: of the check.
            verdict: with its findings.
            summary: what was measured, and against what.
            message: of the failure, if it is slower.
            oddities: what else is to be shown.
            accept: how an intended change is accepted; by default, the command that starts the baseline anew.
            numbers: for the JSON report.
        """
        __tracebackhide__ = True
        if verdict.outcome == "inconclusive":
            summary += f"; {verdict.reason}"
        reporting = self._settings.timing == "report"
        findings = tuple(map(as_warning, verdict.findings)) if reporting else verdict.findings
        self._report(kind, verdict.outcome, summary, (*findings, *oddities), **numbers)
        if reporting:
            return
        what = kind.replace("-", " ")
        if verdict.outcome == "slower":
            if accept is None:
                accept = f"\n  If it is intended:  {record_command(self._item.config, self._item, anew=True)}"
            raise AssertionError(f"{message()}{accept}")
        if verdict.outcome == "inconclusive" and self._settings.inconclusive == "skip":
            skip_test(f"{what} inconclusive: {verdict.reason}")
        if verdict.outcome == "inconclusive" and self._settings.inconclusive == "fail":
            raise AssertionError(f"{what} inconclusive: {verdict.reason}\n{listing(verdict.findings)}")

    def _missing(self, kind: str, identity: Mapping[str, str]) -> NoReturn:
        """Skip or fail, with the command that records the baseline."""
        __tracebackhide__ = True
        store, test = self._session.store, self._item.nodeid
        others = store.others(test, identity)
        elsewhere = f"\n  There is one for other hardware or versions: {', '.join(others)}." if others else ""
        command = f"To record it:  {record_command(self._item.config, self._item)}"
        what = f"missing baseline: no {kind} baseline for {test} on this hardware"
        message = f"{what}\n  {from_here(store.path(identity, test))}\n  {command}{elsewhere}"
        if self._settings.on_missing == "skip":
            self._report(kind, "missing", "no baseline")
            skip_test(message)
        finding = Finding("error", test, what, "baseline.missing", remedy=command)
        self._report(kind, "missing", "no baseline", [finding])
        raise AssertionError(message)

    def _parsed(
        self, identity: Mapping[str, str], read: Callable[[Mapping[str, Any]], Parsed], stored: Mapping[str, Any]
    ) -> Parsed:
        """What is stored, read; a checksum that fits does not make sense of it."""
        try:
            return read(stored)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._damaged(identity, error) from error

    def _damaged(self, identity: Mapping[str, str], error: Exception) -> BaselineError:
        return damaged(self._session.store.path(identity, self._item.nodeid), error)


def _slower_message(engine: Engine, verdict: Verdict) -> str:
    slow = sum(layer.outcome == "slower" for layer in verdict.layers)
    total = sum(layer.outcome != "gone" for layer in verdict.layers)
    what = f"{slow} of {total} layers slower" if slow else f"engine slower by {verdict.engine.change:.1%}"
    return f"{what} on {_where(engine)}\n{listing(errors(verdict.findings))}"


def _where(engine: Engine) -> str:
    device = engine.info.device
    return f"{device.name} ({engine.info.runtime} {engine.info.version})" if device else engine.info.runtime


def _first_calls_baseline(calls: FirstCalls, stored: Mapping[str, Any]) -> FirstCallsBaseline:
    baseline = FirstCallsBaseline.from_dict(stored)
    if baseline.names != calls.names:
        raise ValueError(f"it is of other calls: {', '.join(baseline.names)}")
    return baseline


def _longest(calls: FirstCalls) -> str:
    index = max(range(len(calls)), key=lambda each: calls[each].first_us)
    shapes = counted(len(calls), "shape")
    return f"{shapes}, {calls.names[index]} took longest ({us_text(calls[index].first_us)})"


def _first_us(calls: FirstCalls) -> dict[str, Any]:
    """What the JSON report says of them."""
    return {
        "creation_us": calls.creation_us,
        "calls": [
            {"shapes": name, "first_us": call.first_us, "steady_us": call.steady_us}
            for name, call in zip(calls.names, calls, strict=True)
        ],
    }


def _anomalies(profile: Profile, baseline: Baseline | None = None) -> tuple[Finding, ...]:
    """What a report shows of a run's oddities; of a disturbed run nothing: its reason is known."""
    if profile.run.disturbed:
        return ()
    found = profile.anomalies
    if baseline is not None:
        found = (*find_overhead_anomalies(profile.run.context, [run.context for run in baseline.runs]), *found)
    return _summarised(found)


def _structural_changes(contest: Contest) -> tuple[Finding, ...]:
    """What the engine under test does otherwise: an explanation beside its times, no fault."""
    old, new = ([timed.layer for timed in profile.layers] for profile in (contest.old, contest.new))
    found = [replace(finding, severity="advice", remedy="") for finding in diff(old, new).findings]
    if len(found) > MAX_CHANGES:
        rest = f"{counted(len(found) - MAX_CHANGES + 1, 'more change')} of the structure: trtgray diff OLD NEW"
        found[MAX_CHANGES - 1 :] = [Finding("advice", "engine", rest, "structure.more")]
    return tuple(found)


def _at_most(advice: Sequence[Finding]) -> tuple[Finding, ...]:
    """At most :data:`MAX_ADVICE`, the last of which names the rest."""
    if len(advice) <= MAX_ADVICE:
        return tuple(advice)
    rest = advice[MAX_ADVICE - 1 :]
    rules = ", ".join(finding.rule.rpartition(".")[2] for finding in rest)
    more = Finding(
        "advice", "engine", f"{len(rest)} more that may be faster: {rules}", "advice.more", {"more": len(rest)}
    )
    return (*advice[: MAX_ADVICE - 1], more)


def _summarised(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """At most :data:`MAX_ANOMALIES`, the last of which counts the rest."""
    if len(findings) <= MAX_ANOMALIES:
        return tuple(findings)
    shown, rest = findings[: MAX_ANOMALIES - 1], findings[MAX_ANOMALIES - 1 :]
    kinds = Counter(finding.rule.rpartition(".")[2] for finding in rest)
    return (
        *shown,
        Finding(
            "advice",
            "engine",
            f"{len(rest)} more oddities of the iterations: {', '.join(f'{n} x {kind}' for kind, n in kinds.items())}",
            "timing.anomaly.more",
            dict(kinds),
            "trt_profiler(engine).anomalies lists them all.",
        ),
    )


def _milliseconds(us: float) -> str:
    return f"{us / 1e3:.3g} ms" if math.isfinite(us) else "? ms"
