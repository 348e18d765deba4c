"""A run as one HTML file: readable offline, printable, with everything it needs inside."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from pytest_trtgray.reporting.document import finite
from pytest_trtgray.reporting.headline import Headline, headline, percent_text, us_text
from pytest_trtgray.vendor import quiet_import

FIRST_ROWS = 25
"""Rows of a table that are there without JavaScript."""


@dataclass(frozen=True)
class EngineSection:
    """What a report says of one engine of one run.

    Attributes:
        id: of the section, for links.
        name: of the engine.
        where: runtime and device.
        headlines: one a check, the gravest first.
        data: the rows behind its tables and charts.
    """

    id: str
    name: str
    where: str
    headlines: tuple[Headline, ...]
    data: Mapping[str, Any]

    @property
    def is_bad(self) -> bool:
        """Whether a check failed."""
        return any(line.is_bad for line in self.headlines)

    @property
    def verdict(self) -> str:
        """What failed first, and since when."""
        worst = self.headlines[0]
        errors = [finding["what"] for finding in worst.findings if finding["severity"] == "error"]
        what = errors[0].splitlines()[0] if errors else worst.text
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        return f"{worst.kind} {worst.outcome}: {what}{more}" + (f"\n{worst.since}" if worst.since else "")


def render(runs: Sequence[Mapping[str, Any]], titles: Sequence[str] = ()) -> str:
    """The report of one run, or of several side by side.

    Args:
        runs: what ``--trt-json`` writes.
        titles: of the runs, such as their file names.
    """
    jinja2 = quiet_import("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pytest_trtgray.reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["us"] = us_text
    environment.filters["percent"] = percent_text
    sections = [
        section
        for number, run in enumerate(runs)
        for section in sections_of(run, f"r{number}", titles[number] if len(runs) > 1 else "")
    ]
    sections.sort(key=lambda section: not section.is_bad)
    text: str = environment.get_template("report.html.j2").render(
        runs=runs,
        sections=sections,
        title=_title(sections),
        data=script_json({section.id: section.data for section in sections}),
        first_rows=FIRST_ROWS,
        style=_asset("report.css"),
        scripts=[_asset("charts.min.js"), _asset("report.js")],
    )
    return text


def sections_of(run: Mapping[str, Any], prefix: str = "r0", title: str = "") -> list[EngineSection]:
    """The engines of a run, in the order of their tests."""
    engines: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for check in run["checks"]:
        engines.setdefault((check["engine"], check["runtime"], check["device"]), []).append(check)
    sections = []
    for number, ((engine, runtime, device), checks) in enumerate(engines.items()):
        lines = sorted((headline(check) for check in checks), key=lambda line: line.rank)
        sections.append(
            EngineSection(
                id=f"{prefix}e{number}",
                name=f"{engine or '(no engine)'}{f' in {title}' if title else ''}",
                where=" on ".join(part for part in (runtime, device) if part),
                headlines=tuple(lines),
                data=_data(checks),
            )
        )
    return sections


def script_json(data: object) -> str:
    """JSON that may stand inside of a ``<script>`` element: no ``<``, and no NaN."""
    text = json.dumps(finite(data), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _title(sections: Sequence[EngineSection]) -> str:
    bad = sum(section.is_bad for section in sections)
    if not sections:
        return "No engine was tested"
    if len(sections) == 1:
        return f"{sections[0].name} {'failed' if bad else 'passed'}"
    return f"{bad} of {len(sections)} engines failed" if bad else f"All {len(sections)} engines passed"


def _data(checks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Details by kind; the gravest check of a kind that an engine has several of."""
    found: dict[str, Any] = {}
    for check in sorted(checks, key=lambda check: headline(check).rank):
        if check.get("details"):
            kind = "timing" if check["kind"] == "against" else check["kind"]
            found.setdefault(kind, {"outcome": check["outcome"], "test": check["test"], **check["details"]})
    changed = {finding["where"] for check in checks if check["kind"] == "structure" for finding in check["findings"]}
    if "structure" in found:
        found["structure"]["changed"] = sorted(changed)
    return found


def _asset(name: str) -> str:
    return files("pytest_trtgray.reporting").joinpath("assets").joinpath(name).read_text("utf-8")
