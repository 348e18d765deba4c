from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_trtgray.errors import LogError
from pytest_trtgray.logs.reader import read_records
from pytest_trtgray.logs.records import Record
from pytest_trtgray.logs.storage import (
    SCHEMA,
    from_line,
    json_lines,
    packed,
    read_jsonl,
    to_line,
    unpacked,
    write_jsonl,
)
from tests.recordings import DATA

LOG = DATA / "logs" / "rtx17_p_latin1_names.log"


def test_a_line_has_what_a_record_says() -> None:
    record = Record("info", "tensorrt", "Größe \udce9", time_s=1.5, line=7)

    assert json.loads(to_line(record, test="t")) == {
        "test": "t",
        "severity": "info",
        "producer": "tensorrt",
        "message": "Größe \udce9",
        "time": 1.5,
        "line": 7,
    }
    assert from_line(to_line(record)) == record


def test_a_file_for_others_names_its_schema_and_what_is_stated(tmp_path: Path) -> None:
    records = [
        Record("verbose", "tensorrt", "After vertical fusions: 9 layers", "build"),
        Record(
            "error", "tensorrt", "2: [a.cpp::f::7] Error Code 2: Internal Error (x has no runners that implement it)"
        ),
        Record("info", "tensorrt", "hello"),
    ]
    write_jsonl(tmp_path / "log.jsonl", records)

    stages, error, hello = (json.loads(line) for line in (tmp_path / "log.jsonl").read_text("utf-8").splitlines())
    assert (stages["schema"], stages["phase"]) == (SCHEMA, "build")
    assert (stages["event"], stages["fields"]) == ("layer_count", {"stage": "After vertical fusions", "n": 9})
    assert error["event"] == "core_error"
    assert "more_events" not in stages
    assert "event" not in hello


def test_real_records_survive(tmp_path: Path) -> None:
    records = list(read_records(LOG))
    write_jsonl(tmp_path / "log.jsonl", records)
    (tmp_path / "log.gz").write_bytes(packed(records))

    assert list(read_jsonl(tmp_path / "log.jsonl")) == records
    assert list(unpacked(tmp_path / "log.gz")) == records
    assert any("\udce9" in record.message for record in records)


def test_lines_that_are_no_records_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"severity": "info"}\n[1]\nno json\n\xff\n' + next(json_lines([Record("info", "x", "y")])))

    assert [record.message for record in read_jsonl(path)] == ["y"]


def test_a_later_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"schema": "trtgray.log/2", "severity": "info", "producer": "x", "message": "y"}\n', "utf-8")

    with pytest.raises(LogError, match=r"schema 'trtgray\.log/2'.*\n.*Upgrade"):
        list(read_jsonl(path))


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="No such file"):
        list(read_jsonl(tmp_path / "no.jsonl"))
