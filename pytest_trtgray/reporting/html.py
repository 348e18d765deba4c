"""A run as one HTML file: readable offline, printable, with everything it needs inside."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from pytest_trtgray.engines.layer_listing import layers_from_rows
from pytest_trtgray.reporting.document import UNREADABLE, DocumentError, finite, read_document
from pytest_trtgray.reporting.headline import ORIGINS, Headline, headline, headlines, percent_text, us_text
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
        key: engine, runtime and device: the same in every run.
    """

    id: str
    name: str
    where: str
    headlines: tuple[Headline, ...]
    data: Mapping[str, Any]
    key: tuple[str, str, str]

    @property
    def is_bad(self) -> bool:
        """Whether a check failed."""
        return any(line.is_bad for line in self.headlines)

    @property
    def verdict(self) -> str:
        """What failed first."""
        worst = self.headlines[0]
        if worst.outcome == "slower" and worst.facts:
            return f"Slower: {worst.facts[0][1]}"
        errors = worst.errors
        what = errors[0]["what"].splitlines()[0] if errors else worst.text
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        return f"{worst.kind} {worst.outcome}: {what}{more}"

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """Of what got slower: by how much, since when, how sure; of wrong outputs, if it is known: where from, why."""
        worst = self.headlines[0]
        if worst.outcome == "slower":
            return worst.facts[1:]
        return self._origin.facts if self._origin else ()

    @property
    def remedy(self) -> str:
        """What to do about it."""
        errors = (self._origin or self.headlines[0]).errors
        return str(errors[0]["remedy"]) if errors else ""

    @property
    def _origin(self) -> Headline | None:
        """What explains the first failure."""
        worst = self.headlines[0]
        lines = (line for line in self.headlines if line.outcome in ORIGINS and line.test == worst.test)
        return next(lines, None) if worst.is_bad else None


@dataclass(frozen=True)
class Cell:
    """What one run found of one engine.

    Attributes:
        id: of the engine's section.
        title: of the run.
        outcome: of its gravest check.
        is_bad: whether that is a failure.
        us: one inference, microseconds; ``None`` if it was not measured.
        change: of it against the first run that measured it; ``None`` in that one.
        relative_l2: error of its outputs; ``None`` if they were not compared.
    """

    id: str
    title: str
    outcome: str
    is_bad: bool
    us: float | None
    change: float | None
    relative_l2: float | None


@dataclass(frozen=True)
class OverviewRow:
    """One engine in all runs; ``None`` in a run that has none of it."""

    name: str
    where: str
    cells: tuple[Cell | None, ...]

    @property
    def timed(self) -> list[Cell]:
        """The runs in which its layers were timed."""
        return [cell for cell in self.cells if cell is not None and cell.us is not None]


@dataclass(frozen=True)
class Overview:
    """Runs side by side: a column a run, a row an engine."""

    columns: tuple[str, ...]
    rows: tuple[OverviewRow, ...]


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
    names = [titles[number] if number < len(titles) else f"run {number + 1}" for number in range(len(runs))]
    by_run = [sections_of(run, f"r{number}", names[number] if len(runs) > 1 else "") for number, run in enumerate(runs)]
    sections = [section for found in by_run for section in found]
    sections.sort(key=lambda section: not section.is_bad)
    text: str = environment.get_template("report.html.j2").render(
        runs=runs,
        sections=sections,
        overview=_overview(by_run, names),
        title=_title(sections),
        data=script_json({section.id: section.data for section in sections}),
        first_rows=FIRST_ROWS,
        style=_asset("report.css"),
        scripts=[_asset("charts.min.js"), _asset("plots.js"), _asset("report.js")],
    )
    return text


def render_files(paths: Sequence[Path]) -> str:
    """:func:`render` for run documents in files.

    Raises:
        DocumentError: one cannot be read, or has members that are not what they should be.
    """
    runs = [read_document(path) for path in paths]
    unreadable = (*UNREADABLE, quiet_import("jinja2").TemplateError)
    try:
        return render(runs, [path.name for path in paths])
    except unreadable:
        for path, run in zip(paths, runs, strict=True):
            try:
                render([run])
            except unreadable as error:
                raise DocumentError(
                    path,
                    f"its checks cannot be read: {type(error).__name__} {error}",
                    "Give a file as trtgray has written it.",
                ) from error
        raise


def sections_of(run: Mapping[str, Any], prefix: str = "r0", title: str = "") -> list[EngineSection]:
    """The engines of a run, in the order of their tests."""
    engines: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for check in run["checks"]:
        engines.setdefault((check["engine"], check["runtime"], check["device"]), []).append(check)
    sections = []
    for number, ((engine, runtime, device), checks) in enumerate(engines.items()):
        sections.append(
            EngineSection(
                id=f"{prefix}e{number}",
                name=f"{engine or '(no engine)'}{f' in {title}' if title else ''}",
                where=" on ".join(part for part in (runtime, device) if part),
                headlines=tuple(headlines(checks)),
                data=_data(checks),
                key=(engine, runtime, device),
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


def _data(checks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Details by kind; the gravest check of a kind that an engine has several of."""
    found: dict[str, Any] = {}
    for check in sorted(checks, key=lambda check: headline(check).rank):
        if check.get("details"):
            kind = "timing" if check["kind"] == "against" else check["kind"]
            found.setdefault(kind, {"outcome": check["outcome"], "test": check["test"], **check["details"]})
    if "structure" in found:
        findings = [finding for check in checks if check["kind"] == "structure" for finding in check["findings"]]
        found["structure"]["changed"] = _changed_layers(found["structure"]["layers"], findings)
    return found


def _changed_layers(rows: Sequence[Mapping[str, Any]], findings: Iterable[Mapping[str, Any]]) -> list[int]:
    """Places of the layers that findings of a changed structure name; advice on optimisation is no change."""
    places = {
        str(finding["where"])
        for finding in findings
        if str(finding["rule"]).startswith("structure.") and "OPT-" not in finding["rule"]
    }
    return [
        index
        for index, layer in enumerate(layers_from_rows(rows))
        if not places.isdisjoint({layer.title, layer.name, *layer.onnx_nodes})
    ]


def _overview(by_run: Sequence[Sequence[EngineSection]], titles: Sequence[str]) -> Overview:
    """Runs side by side; an engine is the same where name, runtime and device are."""
    keys = dict.fromkeys(section.key for sections in by_run for section in sections)
    rows = []
    for key in keys:
        cells: list[Cell | None] = []
        first: float | None = None
        for title, sections in zip(titles, by_run, strict=True):
            section = next((section for section in sections if section.key == key), None)
            cells.append(_cell(section, title, first) if section else None)
            if first is None and cells[-1] is not None:
                first = cells[-1].us
        rows.append(OverviewRow(key[0] or "(no engine)", " on ".join(part for part in key[1:] if part), tuple(cells)))
    return Overview(tuple(titles), tuple(rows))


def _cell(section: EngineSection, title: str, first_us: float | None) -> Cell:
    engine = section.data.get("timing", {}).get("engine", {})
    us = engine.get("us")
    errors = [row["relative_l2"] for row in section.data.get("outputs", {}).get("outputs", ())]
    known = [error for error in errors if error is not None]
    return Cell(
        id=section.id,
        title=title,
        outcome=f"{section.headlines[0].kind} {section.headlines[0].outcome}" if section.is_bad else "passed",
        is_bad=section.is_bad,
        us=us,
        change=us / first_us - 1 if us and first_us else None,
        relative_l2=max(known) if known and len(known) == len(errors) else None,
    )


def _asset(name: str) -> str:
    return files("pytest_trtgray.reporting").joinpath("assets").joinpath(name).read_text("utf-8")
