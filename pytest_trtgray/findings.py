"""The one value that crosses all rooms: what was found, how sure, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

Severity = Literal["error", "warning", "advice"]
"""``error`` fails the test, ``warning`` is shown and does not, ``advice`` is worth knowing."""

Evidence = Mapping[str, "float | int | str | None"]


@dataclass(frozen=True)
class Finding:
    """One observation with its evidence and remedy.

    Attributes:
        severity: ``error``, ``warning`` or ``advice``.
        where: the layer (by its ONNX nodes), tensor, log line or file.
        what: one line, readable without the rest.
        evidence: numbers with their unit in the key (``before_us``, ``change_percent``).
        remedy: what to do next.
        rule: stable identifier, such as ``structure.node-added``.
    """

    severity: Severity
    where: str
    what: str
    rule: str
    evidence: Evidence = field(default_factory=dict)
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.severity not in get_args(Severity):
            raise ValueError(f"severity must be one of {get_args(Severity)}, not {self.severity!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, fit for JSON."""
        return {**asdict(self), "evidence": dict(self.evidence)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Finding:
        """The inverse of :meth:`to_dict`."""
        return cls(
            severity=data["severity"],
            where=data["where"],
            what=data["what"],
            rule=data["rule"],
            evidence=dict(data.get("evidence", {})),
            remedy=data.get("remedy", ""),
        )


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """The findings that fail a test."""
    return [finding for finding in findings if finding.severity == "error"]


def as_warning(finding: Finding) -> Finding:
    """The same where it is not to fail anything."""
    return replace(finding, severity="warning") if finding.severity == "error" else finding


def listing(findings: Iterable[Finding], limit: int = 12) -> str:
    """Findings as indented lines, each remedy once below the findings that share it."""
    shown = list(findings)
    lines: list[str] = []
    for finding in shown[:limit]:
        first, *rest = finding.what.splitlines() or [""]
        lines += [f"  {first}", *(f"    {line}" for line in rest)]
    if len(shown) > limit:
        lines.append(f"  ... and {len(shown) - limit} more")
    return "\n".join([*lines, *_remedies(shown[:limit])])


def counted(count: int, noun: str) -> str:
    """A number and its noun.

    >>> counted(1, "layer"), counted(2, "layer")
    ('1 layer', '2 layers')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def some(words: Sequence[str], limit: int = 3) -> str:
    """The first few, and how many more there are.

    >>> some(["a", "b", "c"]), some(["a", "b", "c", "d"])
    ('a, b, c', 'a, b, c and 1 more')
    """
    more = f" and {len(words) - limit} more" if len(words) > limit else ""
    return ", ".join(words[:limit]) + more


def failure_message(verdict: str, findings: Iterable[Finding], limit: int = 12) -> str:
    """A failure's text: the verdict and the first finding on line one, which every summary shows."""
    first, *others = list(findings)
    line, *rest = first.what.splitlines() or [""]
    more = f" (and {len(others)} more)" if others else ""
    lines = [f"{verdict}: {line}{more}", *(f"    {part}" for part in rest)]
    for finding in others[: limit - 1]:
        head, *tail = finding.what.splitlines() or [""]
        lines += [f"  {head}", *(f"    {part}" for part in tail)]
    if len(others) >= limit:
        lines.append(f"  ... and {len(others) - limit + 1} more")
    return "\n".join([*lines, *_remedies([first, *others[: limit - 1]])])


def _remedies(findings: Iterable[Finding]) -> list[str]:
    unique = dict.fromkeys(finding.remedy for finding in findings if finding.remedy)
    return [f"  -> {remedy}" for remedy in unique]
