"""Checks read back from pytest's reports, from this process or from xdist's workers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

PROPERTY = "trtgray"
DETAILS = "trtgray_details"
"""Attribute of a test's report: a JSON array, a row a check."""
NUMBERS = ("total_us", "change", "low", "high", "relative_l2")
details_key = pytest.StashKey[str]()


@dataclass(frozen=True)
class CheckResult:
    """One check of one test; ``details`` is empty unless a report was asked for."""

    nodeid: str
    check: dict[str, Any]
    details: dict[str, Any]


def readable_properties(checks: Iterable[Mapping[str, Any]]) -> list[tuple[str, object]]:
    """Each verdict and its numbers as properties of their own, for whoever reads JUnit files without us.

    Such as ``trtgray.timing`` = ``slower``, ``trtgray.timing.change`` = ``0.12``. A second check of a kind in one test
    is ``trtgray.timing-2``.
    """
    seen: Counter[str] = Counter()
    found: list[tuple[str, object]] = []
    for check in checks:
        kind = check["kind"]
        seen[kind] += 1
        name = f"{PROPERTY}.{kind}" + (f"-{seen[kind]}" if seen[kind] > 1 else "")
        found += [(name, check["outcome"]), (f"{name}.summary", check["summary"])]
        found += [(f"{name}.{number}", check[number]) for number in NUMBERS if check.get(number) is not None]
    return found


def results(reports: Iterable[Any]) -> Iterator[CheckResult]:
    """All checks in reports of the call phase, each once."""
    seen = set()
    for report in reports:
        if not isinstance(report, pytest.TestReport) or report.when != "call" or id(report) in seen:
            continue
        seen.add(id(report))
        for name, value in report.user_properties:
            if name == PROPERTY:
                checks = json.loads(str(value))
                details = json.loads(getattr(report, DETAILS, "[]")) or [{}] * len(checks)
                for check, rows in zip(checks, details, strict=True):
                    yield CheckResult(report.nodeid, check, rows)


def all_results(config: pytest.Config) -> list[CheckResult]:
    """All checks of this run, in the order of their tests."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return []
    reports = [report for group in reporter.stats.values() for report in group]
    return sorted(results(reports), key=lambda result: result.nodeid)


def details_of(check: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a check measured; empty where it measured nothing, or its details were left out."""
    return check.get("details") or {}
