"""One sentence a check: what happened, by how much, since when, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BAD = frozenset({"slower", "differs", "changed", "fail", "missing"})
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
    """

    kind: str
    test: str
    outcome: str
    text: str
    since: str
    findings: tuple[Mapping[str, Any], ...]

    @property
    def is_bad(self) -> bool:
        """Whether the check failed."""
        return self.outcome in BAD

    @property
    def rank(self) -> int:
        """0 for a failure, 1 for a doubt, 2 otherwise."""
        return 0 if self.is_bad else 1 if self.outcome in DOUBTFUL else 2


def headline(check: Mapping[str, Any]) -> Headline:
    """The headline of one check of a run."""
    order = {"error": 0, "warning": 1, "advice": 2}
    return Headline(
        kind=check["kind"],
        test=check["test"],
        outcome=check["outcome"],
        text=check["summary"],
        since=since(check.get("details") or {}),
        findings=tuple(sorted(check["findings"], key=lambda finding: order.get(finding["severity"], 3))),
    )


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
        text += f", the newest of {newest['time_utc'][:16].replace('T', ' ')} UTC"
    old, new = newest.get("commit", ""), (details.get("context") or {}).get("commit", "")
    if old and new:
        text += f", of the same commit {old}" if old == new else f"; commits {old}..{new}"
    return text


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
