"""How often a log's diagnosis is the right one: ``python benchmarks/diagnosis.py CORPUS``.

CORPUS is a folder (searched through) of ``X.log`` or ``X.log.gz``, each with ``X.json`` that holds
``expected_diagnosis.code`` and, optionally, ``api``: what the calls behind the log returned. Every log is diagnosed
twice, from its text alone and with the results of the calls.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_trtgray.logs.diagnosis import ApiResult, Diagnosis, diagnose
from pytest_trtgray.logs.log import read

GOAL = 0.95


@dataclass(frozen=True)
class Case:
    """A log and what it should come down to."""

    log: Path
    expected: str
    api: tuple[ApiResult, ...]


def cases(corpus: Path) -> Iterator[Case]:
    for log in sorted([*corpus.rglob("*.log"), *corpus.rglob("*.log.gz")]):
        sidecar = log.with_name(log.name.removesuffix(".gz").removesuffix(".log") + ".json")
        if not sidecar.exists():
            continue
        data = json.loads(sidecar.read_text("utf-8"))
        expected = data.get("expected_diagnosis", {}).get("code")
        if expected:
            yield Case(log, expected, tuple(api_results(data.get("api") or ())))


def api_results(rows: list[dict[str, object]]) -> Iterator[ApiResult]:
    for row in rows:
        yield ApiResult(str(row["call"]), str(row["result"]), tuple(row.get("errors") or ()))


def main(corpus: Path) -> int:
    found = list(cases(corpus))
    if not found:
        print(f"{corpus}: no log with an expected diagnosis")
        return 2
    right = {"text": 0, "text and API": 0}
    alarms = dict.fromkeys(right, 0)
    misses: list[tuple[str, str, str, str, Diagnosis]] = []
    started = time.perf_counter()
    for case in found:
        log = read(case.log)
        for way, api in (("text", ()), ("text and API", case.api)):
            diagnosis = diagnose(log.records, log.events, api)
            if diagnosis.code == case.expected:
                right[way] += 1
                continue
            if case.expected.startswith("OK") and diagnosis.severity == "error":
                alarms[way] += 1
            misses.append((case.log.name, way, case.expected, diagnosis.code, diagnosis))
    for name, way, expected, code, diagnosis in misses:
        said = diagnosis.evidence[0].text.splitlines()[0][:90] if diagnosis.evidence else ""
        print(f"{name:<44} {way:<12} {expected:<30} {code:<30} {said}")
    print(f"\n{len(found)} logs, {time.perf_counter() - started:.1f} s")
    print(f"{'from':<14}{'right':>8}{'':>8}{'error diagnosis on an OK log':>32}")
    for way, count in right.items():
        print(f"{way:<14}{count:>8}{count / len(found):>8.1%}{alarms[way]:>32}")
    return 0 if all(count >= GOAL * len(found) for count in right.values()) and not any(alarms.values()) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
