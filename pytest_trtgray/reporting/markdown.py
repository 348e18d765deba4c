"""A run as Markdown: the step summary of GitHub Actions, or the body of a comment."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_trtgray.reporting.headline import Headline, headlines, percent_text, us_text
from pytest_trtgray.reporting.results import details_of

TOP_LAYERS = 5
MAX_BYTES = 512 * 1024
"""GitHub takes a step's summary up to 1 MiB, and nothing of a longer one."""
_SIGNS = ("x", "!", "v")
_MARKS = {"x": "❌", "!": "⚠️", "v": "✅"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~])")


def render_markdown(document: Mapping[str, Any]) -> str:
    """A table a engine, what failed with its remedy, and the layers that changed most.

    Args:
        document: a run, as ``--trt-json`` writes it.
    """
    engines: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for check in document["checks"]:
        engines.setdefault((check["engine"], check["runtime"], check["device"]), []).append(check)
    parts = [part for key, checks in engines.items() for part in _engine(key, checks)]
    text = "\n".join(["## TensorRT engines", "", *parts])
    if len(text.encode()) > MAX_BYTES:
        text = text.encode()[:MAX_BYTES].decode(errors="ignore") + "\n\n… cut; --trt-report has everything\n"
    return text


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _engine(key: tuple[str, str, str], checks: Sequence[Mapping[str, Any]]) -> list[str]:
    name, runtime, device = key
    lines = headlines(checks)
    where = " on ".join(part for part in (runtime, device) if part)
    rows = [f"| {_MARKS[_SIGNS[line.rank]]} {line.outcome} | {line.kind} | {escaped(line.text)} |" for line in lines]
    return [
        f"### {escaped(name or '(no engine)')}" + (f" ({escaped(where)})" if where else ""),
        "",
        "| | check | |",
        "|---|---|---|",
        *rows,
        "",
        *(text for line in lines if line.rank == 0 for text in _failure(line)),
        *(text for check in checks for text in _layers(check)),
    ]


def _failure(line: Headline) -> list[str]:
    parts = [f"**{line.kind} {line.outcome}**" + (f" ({escaped(line.since)})" if line.since else ""), ""]
    for finding in line.errors:
        parts.append(f"- {escaped(finding['what'].splitlines()[0])}")
        if finding["remedy"]:
            parts.append(f"  <br>→ {escaped(finding['remedy'])}")
    return [*parts, ""]


def _layers(check: Mapping[str, Any]) -> list[str]:
    """The layers that changed most, of a check that is not a plain pass."""
    rows = [row for row in details_of(check).get("layers", ()) if row.get("before_us") and row.get("us")]
    if check["kind"] not in ("timing", "against") or check["outcome"] == "pass" or not rows:
        return []
    rows = sorted(rows, key=lambda row: -abs(row["us"] - row["before_us"]))[:TOP_LAYERS]
    return [
        "<details><summary>Layers that changed most</summary>",
        "",
        "| layer | before | now | change | 95 % interval | verdict |",
        "|---|---:|---:|---:|---|---|",
        *(
            f"| {escaped(row['key'])} | {us_text(row['before_us'])} | {us_text(row['us'])} | "
            f"{percent_text(row['change'])} | {percent_text(row['low'])} to {percent_text(row['high'])} | "
            f"{row['outcome']} |"
            for row in rows
        ),
        "",
        "</details>",
        "",
    ]
