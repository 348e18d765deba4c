"""One short section at the end of pytest's output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import pytest_trtgray
from pytest_trtgray.files import from_here
from pytest_trtgray.reporting.final import final_key
from pytest_trtgray.reporting.headline import percent_text, us_text
from pytest_trtgray.reporting.results import CheckResult, all_results
from pytest_trtgray.settings import Settings

_MARKUP: dict[str, dict[str, bool]] = {
    "pass": {"green": True},
    "recorded": {"cyan": True},
    "faster": {"yellow": True},
    "inconclusive": {"yellow": True},
    "suspect": {"yellow": True},
    "missing": {"red": True},
    "slower": {"red": True},
    "differs": {"red": True},
    "changed": {"red": True},
    "fail": {"red": True},
}
_ORDER = ("against", "timing", "first-calls", "outputs", "relations", "scales", "torch", "structure", "log", "shapes")
_TOLD = ("slower", "faster", "new", "gone")
"""Outcomes of layers, and of a run, that are worth lines of their own."""
_KIND_WIDTH = 10
_WIDE = 72
_MAX_ADVICE = 5


def header(settings: Settings) -> str:
    """The line in pytest's header."""
    from pytest_trtgray.engines.device import find_gpu, no_gpu_reason

    gpu = find_gpu(settings.device)
    where = f"{gpu.name} ({gpu.sm})" if gpu else no_gpu_reason(settings.device)
    engines = ", ".join(engine.name for engine in settings.engines)
    return f"trtgray: {pytest_trtgray.__version__}, {where}" + (f", engines: {engines}" if engines else "")


def write_summary(reporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the section, if there is anything to say."""
    found = all_results(config)
    state = config.stash.get(final_key, None)
    quiet = config.get_verbosity() < 0
    lines_at_end = _file_lines(state) if state is not None else []
    # errors were shown where their test failed, if failures are shown
    remarks = _remarks(found, errors=config.getoption("tbstyle", "auto") == "no")
    if not lines_at_end and not remarks and (quiet or not found):
        return
    reporter.section("trtgray", sep="=")
    if not quiet:
        _write_checks(reporter, found, verbose=config.get_verbosity() > 0)
    _write_remarks(reporter, remarks)
    for text, markup in lines_at_end:
        reporter.line(text, **markup)


def _write_checks(reporter: pytest.TerminalReporter, found: list[CheckResult], *, verbose: bool) -> None:
    engines: dict[tuple[str, str, str], list[CheckResult]] = {}
    for result in found:
        check = result.check
        key = (check["engine"], check["runtime"], check["device"])
        engines.setdefault(key, []).append(result)
    for (engine, runtime, device), checks in engines.items():
        where = " on ".join(part for part in (runtime, device) if part)
        reporter.write(engine or "(no engine)", bold=True)
        reporter.line(f"  {where}")
        checks.sort(
            key=lambda result: _ORDER.index(result.check["kind"]) if result.check["kind"] in _ORDER else len(_ORDER)
        )
        width = max(_KIND_WIDTH, *(len(result.check["kind"]) + 1 for result in checks))
        for result in checks:
            check = result.check
            reporter.write(f"  {check['kind']:<{width}}")
            reporter.write(f"{check['outcome']:<13}", **_MARKUP.get(check["outcome"], {}))
            reporter.line(f"{check['summary']}{_test_note(result, checks)}")
            for row in check.get("rows", ()):
                reporter.line(f"    {row}")
            _write_layers(reporter, check, verbose=verbose)


def _write_layers(reporter: pytest.TerminalReporter, check: Mapping[str, Any], *, verbose: bool) -> None:
    """The layers that changed most, where something did; with -v in any case, and those that take longest."""
    top = check.get("top_layers", {})
    changed = [row for row in top.get("by_change", ()) if verbose or row["outcome"] in _TOLD]
    if verbose or check["outcome"] in _TOLD:
        _write_rows(reporter, "by change", changed, _changed)
    if verbose:
        _write_rows(reporter, "by share", top.get("by_share", ()), _shared)


def _write_rows(
    reporter: pytest.TerminalReporter,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    numbers: Callable[[Mapping[str, Any]], tuple[str, ...]],
) -> None:
    """A line a layer: its numbers in columns, its ONNX nodes, and its module where the line has room for it."""
    cells = [numbers(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    width = reporter.config.get_terminal_writer().fullwidth
    for index, (row, texts) in enumerate(zip(rows, cells, strict=True)):
        lead = f"    {title if not index else '':<9} " if width >= _WIDE else "    "
        reporter.write(lead)
        text = "  ".join(text.rjust(size) for text, size in zip(texts, widths, strict=True))
        reporter.write(text, **_MARKUP.get(row.get("outcome", ""), {}) if row.get("outcome") in _TOLD else {})
        room = max(width - len(lead) - len(text) - 3, 12)
        name, module = row["key"], row["module"]
        where = f"  in {module}" if module and not name.strip("/").startswith(module) else ""
        name = f"{name}{where}" if len(name) + len(where) <= room else shortened(name, room)
        reporter.line(f"  {name}")


def _changed(row: Mapping[str, Any]) -> tuple[str, ...]:
    return percent_text(row["change"]), us_text(row["before_us"]), "->", us_text(row["us"]), row["outcome"]


def _shared(row: Mapping[str, Any]) -> tuple[str, ...]:
    return f"{row['share']:.1%}", us_text(row["us"])


def shortened(text: str, width: int) -> str:
    """The end of a text that is too long: the end of a node's path tells more than its beginning."""
    return text if len(text) <= width else f"...{text[len(text) - width + 3 :]}"


def _test_note(result: CheckResult, checks: list[CheckResult]) -> str:
    """The test's name, where an engine has several checks of a kind."""
    same = [other for other in checks if other.check["kind"] == result.check["kind"]]
    return f"   ({result.nodeid.rpartition('::')[2]})" if len(same) > 1 else ""


def _remarks(found: list[CheckResult], *, errors: bool = False) -> list[tuple[str, str, str]]:
    """Warnings and advice, each once; and errors, where nothing else shows them."""
    remarks: dict[tuple[str, str, str], None] = {}
    for result in found:
        for finding in result.check["findings"]:
            if errors or finding["severity"] != "error":
                remarks[finding["severity"], finding["what"].splitlines()[0], finding["remedy"]] = None
        for note in result.check["notes"]:
            remarks["note", note, ""] = None
    return list(remarks)


def _write_remarks(reporter: pytest.TerminalReporter, remarks: list[tuple[str, str, str]]) -> None:
    for severity, what, remedy in remarks[:_MAX_ADVICE]:
        markup = {"yellow": True} if severity == "warning" else {"red": True} if severity == "error" else {}
        reporter.write(f"{severity}: ", **markup)
        reporter.line(what)
        if remedy:
            reporter.line(f"  -> {remedy}")
    if len(remarks) > _MAX_ADVICE:
        reporter.line(f"... and {len(remarks) - _MAX_ADVICE} more remarks (all are in --trt-json)")


def _file_lines(state: Any) -> list[tuple[str, dict[str, bool]]]:
    lines: list[tuple[str, dict[str, bool]]] = [(f"note: {remark}", {}) for remark in state.remarks]
    if state.written:
        names = sorted({str(from_here(Path(path).parent)) for path in state.written})
        count = len(state.written)
        lines.append(
            (
                f"{count} baseline{'s' if count > 1 else ''} written in {', '.join(names)}; review and commit",
                {},
            )
        )
    for path in state.obsolete:
        lines.append((f"obsolete: {from_here(path)} has no test any more (--trt-prune-baselines deletes it)", {}))
    lines += [(f"deleted: {from_here(path)}", {}) for path in state.pruned]
    lines += [(problem, {"red": True}) for problem in state.problems]
    return lines
