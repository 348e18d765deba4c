"""One sentence a check: what happened, by how much, since when, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_trtgray.reporting.results import details_of

BAD = frozenset({"slower", "differs", "changed", "fail", "missing"})
NOTED_SHIFT = 0.05
"""A shift of the whole machine that a reader has to know of, or times and their change do not fit together."""
ORIGINS = frozenset({"localised", "spread"})
"""Outcomes of a search for what makes outputs wrong: it explains a failure, and is none."""
DOUBTFUL = frozenset({"inconclusive", "faster", "not recorded"})


@dataclass(frozen=True)
class Headline:
    """A check in words.

    Attributes:
        kind: of the check.
        test: that made it.
        outcome: in one word.
        text: the sentence.
        since: what it was compared with, and when that was recorded; empty where nothing was.
        findings: errors, then warnings, then advice, each with its remedy.
        facts: of what is slower: what, by how much, since when, how sure; of wrong outputs: where from, and why.
            Names and values.
    """

    kind: str
    test: str
    outcome: str
    text: str
    since: str
    findings: tuple[Mapping[str, Any], ...]
    facts: tuple[tuple[str, str], ...] = ()

    @property
    def is_bad(self) -> bool:
        """Whether the check failed."""
        return self.outcome in BAD

    @property
    def rank(self) -> int:
        """0 for a failure and what explains one, 1 for a doubt, 2 otherwise."""
        return 0 if self.is_bad or self.outcome in ORIGINS else 1 if self.outcome in DOUBTFUL else 2

    @property
    def errors(self) -> list[Mapping[str, Any]]:
        """The findings that fail the check."""
        return _errors(self.findings)


def headline(check: Mapping[str, Any]) -> Headline:
    """The headline of one check of a run."""
    order = {"error": 0, "warning": 1, "advice": 2}
    return Headline(
        kind=check["kind"],
        test=check["test"],
        outcome=check["outcome"],
        text=check["summary"],
        since=since(details_of(check)),
        findings=tuple(sorted(check["findings"], key=lambda finding: order.get(finding["severity"], 3))),
        facts=slower_facts(check) or origin_facts(check),
    )


def headlines(checks: Iterable[Mapping[str, Any]]) -> list[Headline]:
    """Of one engine: failures first, each before what explains it, then doubts, then the rest."""
    lines = [headline(check) for check in checks]
    failed = [line.test for line in lines if line.is_bad]

    def place(line: Headline) -> tuple[int, int, bool]:
        explains = line.outcome in ORIGINS
        of_failure = failed.index(line.test) if line.test in failed and line.rank == 0 else len(failed)
        return line.rank, of_failure, explains

    return sorted(lines, key=place)


def _errors(findings: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [finding for finding in findings if finding["severity"] == "error"]


def origin_facts(check: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Which node makes the outputs wrong, and why; nothing of a check that has not looked for it."""
    errors = _errors(check["findings"])
    if check["outcome"] not in ORIGINS or not errors:
        return ()
    cause = details_of(check).get("cause")
    return ("Where it comes from", errors[0]["what"].splitlines()[0]), *((("Why", f"it {cause}"),) if cause else ())


def slower_facts(check: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What got slower, by how much, since when, and how sure that is; nothing of a check that found no slowdown."""
    details = details_of(check)
    if check["outcome"] != "slower" or "engine" not in details:
        return ()
    engine = details["engine"]
    slower = [row for row in changed_layers(details) if row["outcome"] == "slower"]
    worst = slower[0] if slower else engine
    what = _called(worst) if slower else "the whole engine"
    if len(slower) > 1:
        what += f", and {len(slower) - 1} more layer{'s' if len(slower) > 2 else ''}"
    facts = [("What got slower", what), ("By how much", _by_how_much(worst))]
    if slower and engine.get("before_us") and engine.get("us"):
        facts.append(("One inference", _by_how_much(engine)))
    facts += [
        ("All layers alike", _shift(details.get("machine"))),
        ("Since when", _since_when(details)),
        ("How sure", _how_sure(worst, details)),
    ]
    return tuple((name, value) for name, value in facts if value)


def changed_layers(details: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The layers of a judged run by what each adds to the time, those first that a verdict was passed on."""
    rows = [row for row in details.get("layers", ()) if row.get("us") is not None and row.get("before_us") is not None]
    return sorted(rows, key=lambda row: (row.get("outcome") != "slower", -abs(row["us"] - row["before_us"])))


def largest_layers(details: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The layers that take longest."""
    return sorted(
        (row for row in details.get("layers", ()) if row.get("us") is not None), key=lambda row: -(row["us"] or 0.0)
    )


def _called(row: Mapping[str, Any]) -> str:
    kind = " ".join(part for part in (row.get("precision", ""), row.get("kind", "")) if part)
    return f"{row['key']} ({kind})" if kind else str(row["key"])


def _by_how_much(row: Mapping[str, Any]) -> str:
    return f"{us_text(row['before_us'])} -> {us_text(row['us'])}, {percent_text(row['change'])}"


def _shift(machine: float | None) -> str:
    """What the machine did to all layers, where that is much: the change of a layer is beside it."""
    if machine is None or abs(machine) < NOTED_SHIFT:
        return ""
    return f"{percent_text(machine)}: the machine itself, which is taken out of the change of a layer"


def _since_when(details: Mapping[str, Any]) -> str:
    """The span in which it happened: after the newest recorded run."""
    history: Sequence[Mapping[str, Any]] = details.get("history") or ()
    if details.get("against") or not history:
        return since(details)
    newest = history[-1].get("context", {})
    runs = "the only recorded run" if len(history) == 1 else f"the newest of {len(history)} recorded runs"
    text = f"after {_minute(newest)}, {runs}" if newest.get("time_utc") else f"after {runs}"
    old, new = newest.get("commit", ""), (details.get("context") or {}).get("commit", "")
    if old and new:
        text += f", which was of the same commit {old}" if old == new else f"; between commits {old} and {new}"
    return text


def _minute(context: Mapping[str, Any]) -> str:
    return f"{context['time_utc'][:16].replace('T', ' ')} UTC"


def _how_sure(row: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """The confidence interval, the p-value, and what it rests on."""
    parts = []
    if row.get("low") is not None and row.get("high") is not None:
        parts.append(f"between {percent_text(row['low'])} and {percent_text(row['high'])} with 95 % confidence")
    p_value = row.get("p_value")
    if p_value is not None:
        parts.append(f"chance of seeing this without any change: {_odds(p_value)}")
    jobs, sessions = len(details.get("history") or ()), details.get("sessions")
    measured = f"{sessions} session{'s' if sessions != 1 else ''} now" if sessions else ""
    recorded = f"{jobs} recorded run{'s' if jobs != 1 else ''}" if jobs else ""
    if measured or recorded:
        parts.append("from " + " and ".join(part for part in (recorded, measured) if part))
    if details.get("disturbed"):
        parts.append(f"but the machine was disturbed: {details['disturbed']}")
    return "; ".join(parts)


def since(details: Mapping[str, Any]) -> str:
    """When the times that a run was compared with were recorded, and from which commits the two are.

    A change that this run shows lies between the commit of the newest recorded run and its own.
    """
    if details.get("against"):
        return f"against {details['against']}, measured in turn with it in this run"
    history: Sequence[Mapping[str, Any]] = details.get("history") or ()
    if not history:
        return ""
    newest = history[-1].get("context", {})
    text = f"against {len(history)} recorded run{'s' if len(history) > 1 else ''}"
    if newest.get("time_utc"):
        text += f", the newest of {_minute(newest)}"
    old, new = newest.get("commit", ""), (details.get("context") or {}).get("commit", "")
    if old and new:
        text += f", of the same commit {old}" if old == new else f"; commits {old}..{new}"
    return text


def _odds(p_value: float) -> str:
    if p_value < 1e-6:
        return "less than 1 in a million"
    return f"1 in {float(f'{1 / p_value:.2g}'):,.0f}" if p_value < 0.1 else f"{p_value:.0%}"


def us_text(value: float | None) -> str:
    """Microseconds with the unit that suits them.

    >>> us_text(1234.5), us_text(0.25), us_text(None)
    ('1.23 ms', '0.25 us', '')
    """
    if value is None:
        return ""
    return f"{value / 1e3:.3g} ms" if value >= 1e3 else f"{value:.3g} us"


def percent_text(value: float | None) -> str:
    """A relative change, with its sign.

    >>> percent_text(0.1234), percent_text(None)
    ('+12.3%', '')
    """
    return "" if value is None else f"{value:+.1%}"
