"""Run documents are read back, or refused with a reason."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest

from pytest_trtgray.reporting.document import DocumentError, finite, make_document, read_document
from pytest_trtgray.reporting.results import CheckResult
from tests.documents import document


def test_what_is_written_is_read(tmp_path: Path) -> None:
    made = make_document([CheckResult("t::a", {"kind": "timing", "change": float("nan")}, {"rows": (1, 2)})])
    path = tmp_path / "run.json"
    path.write_text(json.dumps(made, allow_nan=False))

    (check,) = read_document(path)["checks"]
    assert check == {"test": "t::a", "kind": "timing", "change": None, "details": {"rows": [1, 2]}}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "is no JSON"),
        (b"\xff\xfe\x00", "is no JSON"),
        (b"[]", "is no trtgray-run document"),
        (b'{"format": "trtgray-run", "schema": 1}', "is no trtgray-run document"),
        (b'{"format": "trtgray-run", "schema": 99, "checks": []}', "has schema 99, this version reads 1"),
    ],
)
def test_refusals(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(DocumentError, match=reason):
        read_document(path)
    with pytest.raises(DocumentError, match="No such file"):
        read_document(tmp_path / "gone.json")


def test_finite() -> None:
    assert finite({1: [float("inf"), (2.0, "x", None)]}) == {"1": [None, [2.0, "x", None]]}


@pytest.mark.parametrize("slower", [None, 3])
def test_the_documents_that_reports_are_tested_with_follow_the_schema(slower: int | None) -> None:
    schema = json.loads((files("pytest_trtgray.reporting") / "run.schema.json").read_text("utf-8"))
    jsonschema.validate(document(slower=slower), schema)
