"""The comparison of two runs as text, as Markdown and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from pytest_trtgray.findings import listing
from pytest_trtgray.interchange.comparison import CheckComparison, RunComparison
from pytest_trtgray.reporting.details import judgement_row
from pytest_trtgray.reporting.document import finite
from pytest_trtgray.reporting.headline import percent_text, us_text
from pytest_trtgray.reporting.markdown import escaped
from pytest_trtgray.timing.explanation import readable
from pytest_trtgray.timing.gate import Judgement

FORMAT = "trtgray-run-diff"
SCHEMA = 1
_MARKS = {"worse": "❌", "better": "✅", "same": "✅", "new": "✅"}
_DOUBT = "⚠️"


def comparison_lines(found: RunComparison, limit: int) -> Iterator[str]:
    """A line a check, then what changed, then the layers that changed most.

    Args:
        found: the comparison.
        limit: findings and layers that are shown of a check.
    """
    if not found.checks:
        yield "neither run has a check"
    width = max((len(check.kind) for check in found.checks), default=0)
    for check in found.checks:
        yield f"{check.engine or '(no engine)'}  {check.kind:<{width}}  {check.outcome:<12} {check.summary}"
        if check.findings:
            yield listing(check.findings, limit)
        for layer in _most_changed(check, limit):
            yield f"    {_sentence(layer)}"


def comparison_markdown(found: RunComparison, old: str, new: str, limit: int) -> str:
    """A table of checks, and below it what changed in those that are not the same."""
    rows = [
        f"| {_MARKS.get(check.outcome, _DOUBT)} {check.outcome} | {escaped(check.engine)} | {check.kind} "
        f"| {escaped(check.summary)} |"
        for check in found.checks
    ]
    parts = [f"## {escaped(old)} → {escaped(new)}", "", "| | engine | check | |", "|---|---|---|---|", *rows, ""]
    for check in found.checks:
        shown = [finding for finding in check.findings if finding.severity != "advice"][:limit]
        layers = _most_changed(check, limit)
        if shown or layers:
            parts += [f"**{escaped(check.engine)}, {check.kind}**", ""]
            parts += [f"- {escaped(finding.what)}" for finding in shown]
            parts += [f"- {escaped(_sentence(layer))}" for layer in layers]
            parts.append("")
    return "\n".join(parts)


def comparison_data(found: RunComparison, old: str, new: str) -> dict[str, Any]:
    """Builtins for JSON; numbers that are not known are ``None``."""
    data: dict[str, Any] = finite(
        {
            "format": FORMAT,
            "schema": SCHEMA,
            "old": old,
            "new": new,
            "worse": found.is_worse,
            "open": found.is_open,
            "checks": [_check_data(check) for check in found.checks],
        }
    )
    return data


def _check_data(check: CheckComparison) -> dict[str, Any]:
    return {
        "engine": check.engine,
        "kind": check.kind,
        "test": check.test,
        "outcome": check.outcome,
        "summary": check.summary,
        "findings": [finding.to_dict() for finding in check.findings],
        "layers": [judgement_row(layer) for layer in check.layers],
    }


def _most_changed(check: CheckComparison, limit: int) -> list[Judgement]:
    """Layers that did not pass and are no finding, those first that make the most difference."""
    told = {finding.where for finding in check.findings}
    changed = [
        layer
        for layer in check.layers
        if layer.outcome != "pass" and _difference(layer) > 0 and readable(layer.key) not in told
    ]
    return sorted(changed, key=_difference, reverse=True)[:limit]


def _difference(layer: Judgement) -> float:
    return abs((layer.after_us or 0.0) - (layer.before_us or 0.0))


def _sentence(layer: Judgement) -> str:
    if layer.before_us is None or layer.after_us is None:
        return f"{readable(layer.key)}: {layer.outcome}, {us_text(layer.after_us or layer.before_us)}"
    interval = f" [{percent_text(layer.low)}, {percent_text(layer.high)}]" if math.isfinite(layer.low) else ""
    change = percent_text(layer.change if math.isfinite(layer.change) else None)
    times = f"{us_text(layer.before_us)} -> {us_text(layer.after_us)}"
    return f"{readable(layer.key)}: {times}, {change}{interval} {layer.outcome}"
