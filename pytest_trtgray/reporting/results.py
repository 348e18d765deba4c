"""Checks read back from pytest's reports, from this process or from xdist's workers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

PROPERTY = "trtgray"


@dataclass(frozen=True)
class CheckResult:
    """One check of one test."""

    nodeid: str
    check: dict[str, Any]


def results(reports: Iterable[Any]) -> Iterator[CheckResult]:
    """All checks in reports of the call phase, each once."""
    seen = set()
    for report in reports:
        if not isinstance(report, pytest.TestReport) or report.when != "call" or id(report) in seen:
            continue
        seen.add(id(report))
        for name, value in report.user_properties:
            if name == PROPERTY:
                for check in json.loads(str(value)):
                    yield CheckResult(report.nodeid, check)


def all_results(config: pytest.Config) -> list[CheckResult]:
    """All checks of this run, in the order of their tests."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return []
    reports = [report for group in reporter.stats.values() for report in group]
    return sorted(results(reports), key=lambda result: result.nodeid)
