"""Real logs with the diagnosis that each should have: as they are, and as other models, machines and callers say it."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest

from pytest_trtgray.logs.diagnosis import ApiResult, Diagnosis, diagnose
from pytest_trtgray.logs.log import read
from tests.log_mutations import PRODUCERS, from_another, renamed
from tests.recordings import DATA

GOAL = 0.95
SILENT = {
    "rtx15_p_ext_short": "the parser takes a cut-off file of weights without a word",
    "rtx17_b_subnormal": "tiny weights of an FP32 network are nothing that a build speaks of",
    "poly_check_lint": "the linter did not run: a module is missing, which is what the diagnosis says",
}
"""Logs that do not say what happened."""
FROM_API_ONLY = {"rtx17_rt_validity": "the text only says that there is no driver"}
LONG = 20_000  # characters; longer logs are not changed over and over again


@dataclass(frozen=True)
class Case:
    name: str
    expected: str
    api: tuple[ApiResult, ...]
    log: str

    def diagnosis(self, *, with_api: bool = False, change: Callable[[str], str] = str) -> Diagnosis:
        log = read(io.BytesIO(change(self.log).encode("utf-8", "surrogateescape")))
        return diagnose(log.records, log.events, self.api if with_api else ())


@cache
def cases() -> tuple[Case, ...]:
    lines = gzip.decompress((DATA / "diagnosed_logs.jsonl.gz").read_bytes()).decode().splitlines()
    return tuple(
        Case(row["name"], row["expected"], tuple(ApiResult(**result) for result in row["api"]), row["log"])
        for row in map(json.loads, lines)
    )


@pytest.mark.parametrize("with_api", [False, True])
def test_nearly_all_have_the_right_diagnosis(with_api: bool) -> None:
    found = {case.name: case.diagnosis(with_api=with_api).code for case in cases()}
    missed = {case.name for case in cases() if found[case.name] != case.expected}

    assert missed == SILENT.keys() | (set() if with_api else FROM_API_ONLY.keys())
    assert 1 - len(missed) / len(found) >= GOAL
    assert len({case.expected for case in cases()}) >= 90


@pytest.mark.parametrize("with_api", [False, True])
def test_a_log_that_is_well_gives_no_alarm(with_api: bool) -> None:
    well = [case for case in cases() if case.expected.startswith("OK")]

    assert len(well) > 15
    assert [case.name for case in well if case.diagnosis(with_api=with_api).severity == "error"] == []


@pytest.mark.parametrize("seed", range(3))
def test_other_names_numbers_and_places_change_nothing(seed: int) -> None:
    assert changed(lambda text: renamed(text, seed)) == []


@pytest.mark.parametrize("producer", PRODUCERS)
def test_another_producer_of_the_same_messages_changes_nothing(producer: str) -> None:
    assert changed(lambda text: from_another(text, producer)) == []


def test_the_changes_are_changes() -> None:
    text = next(case.log for case in cases() if case.name == "rtx17_p_matmul_mismatch")

    assert "/blk/MatMul" not in renamed(text, 0)
    assert "ModelImporter.cpp:151" not in renamed(text, 0)
    assert "[TRT] [E]" not in from_another(text, "deepstream")
    assert "ERROR: [TRT]: ITensor" in from_another(text, "deepstream")


def changed(change: Callable[[str], str]) -> list[tuple[str, str, str]]:
    """Logs whose diagnosis a change changes: name, before, after."""
    found = []
    for case in cases():
        if len(case.log) < LONG:
            before, after = case.diagnosis().code, case.diagnosis(change=change).code
            if before != after:
                found.append((case.name, before, after))
    return found
