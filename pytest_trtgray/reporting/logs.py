"""What the runtimes said during the tests: on each test's report, and from there into one file of JSON Lines.

:func:`recorded` is the one place to read it from, in this process or in the controller of pytest-xdist.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_trtgray.files import write_atomically
from pytest_trtgray.logs import redaction
from pytest_trtgray.logs.records import Record, at_least
from pytest_trtgray.logs.storage import from_line, json_lines, to_line

MAX_CHATTER = 20_000
"""Messages of a test that are no problems; of more, the latest. A verbose build of BERT-base says 12,000."""
MAX_PROBLEMS = 10_000
"""Errors and warnings of a test; of more, the first, which are the causes."""
_SHOWN_PROBLEMS, _SHOWN_CHARACTERS = 20, 400
_ATTRIBUTE = "trtgray_log"
_SECTION = "trtgray log"


@dataclass(frozen=True)
class SaidInTest:
    """What was said while a test was set up and run, without what is private.

    Attributes:
        nodeid: of the test.
        records: in order.
        dropped: how many more there were.
    """

    nodeid: str
    records: tuple[Record, ...]
    dropped: int


def attach(report: pytest.TestReport, records: Iterable[Record], *, whole: bool) -> None:
    """Put what was said on a test's report, where pytest-xdist carries it, and below a failure.

    Args:
        report: of the last phase that ran.
        records: said in the test.
        whole: whether somebody will read all of it; a failure shows problems only.
    """
    kept, dropped = _bounded(records if whole else at_least(records, "warning"))
    redacted = [redaction.current().record(record) for record in kept]
    problems = at_least(redacted, "warning")
    if report.failed and problems:
        report.sections.append((_SECTION, _excerpt(problems)))
    if whole and redacted:
        # builtins only: anything else kills a worker
        setattr(report, _ATTRIBUTE, {"lines": [to_line(record).decode() for record in redacted], "dropped": dropped})


def recorded(config: pytest.Config) -> Iterator[SaidInTest]:
    """What was said in each test of this run, in the order of their names."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reports: dict[int, Any] = {id(r): r for group in reporter.stats.values() for r in group} if reporter else {}
    with_log = (report for report in reports.values() if hasattr(report, _ATTRIBUTE))
    for report in sorted(with_log, key=lambda report: str(report.nodeid)):
        found = getattr(report, _ATTRIBUTE)
        yield SaidInTest(report.nodeid, tuple(map(from_line, found["lines"])), found["dropped"])


def log_path(json_path: Path) -> Path:
    """The file of JSON Lines beside a JSON report: ``trtgray.log.jsonl`` beside ``trtgray.json``."""
    return json_path.with_suffix(".log.jsonl")


def write_log(config: pytest.Config, path: Path) -> dict[str, Any]:
    """Write all records of the run, a line each, with the test's id.

    Returns:
        what the JSON report says of the file.

    Raises:
        OSError: it cannot be written.
    """
    found = list(recorded(config))
    lines = [line for said in found for line in json_lines(said.records, test=said.nodeid)]
    write_atomically(path, b"".join(lines))
    return {"file": path.name, "records": len(lines), "dropped": sum(said.dropped for said in found)}


def _bounded(records: Iterable[Record]) -> tuple[list[Record], int]:
    everything = list(enumerate(records))
    is_problem = {index for index, record in everything if record.severity in ("internal_error", "error", "warning")}
    problems = [(index, record) for index, record in everything if index in is_problem]
    chatter = [(index, record) for index, record in everything if index not in is_problem]
    kept = sorted([*problems[:MAX_PROBLEMS], *chatter[-MAX_CHATTER:]], key=lambda pair: pair[0])
    return [record for _, record in kept], len(everything) - len(kept)


def _excerpt(problems: list[Record]) -> str:
    lines = []
    for record in problems[:_SHOWN_PROBLEMS]:
        where = " ".join(part for part in (record.producer, record.phase) if part)
        text = record.message.strip()
        more = f" ... ({len(text)} characters)" if len(text) > _SHOWN_CHARACTERS else ""
        lines.append(f"{record.severity:<8} {where}: {text[:_SHOWN_CHARACTERS]}{more}")
    if len(problems) > _SHOWN_PROBLEMS:
        lines.append(f"... and {len(problems) - _SHOWN_PROBLEMS} more")
    return "\n".join(lines)
