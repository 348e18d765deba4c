from __future__ import annotations

import gc
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.logs import buffer as module
from pytest_trtgray.logs.buffer import RecordBuffer
from pytest_trtgray.logs.records import LogSeverity, Record
from tests.unit.logs.test_records import RECORDS


def said(index: int, severity: LogSeverity = "verbose", message: str = "") -> Record:
    return Record(severity, "x", message or str(index), "build", details={"index": index})


def filled(count: int, **bounds: Any) -> RecordBuffer:
    buffer = RecordBuffer(**bounds)
    for index in range(count):
        buffer.append(said(index))
    return buffer


def messages(buffer: RecordBuffer) -> list[str]:
    return [record.message for record in buffer]


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


class TestOrder:
    @pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 100, 1_003])
    def test_all_come_back_in_order(self, count: int) -> None:
        buffer = filled(count, max_records=10)

        assert len(buffer) == count
        assert list(buffer) == [said(index) for index in range(count)]
        assert len(buffer._memory) <= 10

    @given(st.lists(RECORDS, max_size=30))
    def test_anything_survives_the_file(self, records: list[Record]) -> None:
        buffer = RecordBuffer(max_records=4)
        for record in records:
            buffer.append(record)

        assert list(buffer) == records

    def test_as_a_sequence(self) -> None:
        buffer, records = filled(25, max_records=10), [said(index) for index in range(25)]

        for index in (0, 3, 12, 24, -1, -25):
            assert buffer[index] == records[index]
        assert list(buffer[5:20:3]) == records[5:20:3]
        assert records[7] in buffer
        with pytest.raises(IndexError):
            buffer[25]

    def test_what_is_appended_while_somebody_reads_comes_later(self) -> None:
        buffer, seen = filled(25, max_records=10), []
        for record in buffer:
            seen.append(record.message)
            if len(seen) <= 20:
                buffer.append(said(100 + len(seen)))

        assert seen == [str(index) for index in range(25)]
        assert len(buffer) == 45

    def test_long_messages_count_by_their_length(self) -> None:
        buffer = RecordBuffer(max_records=1_000, max_characters=5_000)
        for index in range(20):
            buffer.append(said(index, message=f"{index:>1000}"))

        assert len(buffer) == 20
        assert sum(len(record.message) for record in buffer._memory) <= 5_000


class TestFile:
    def test_has_no_name_and_goes_with_the_buffer(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = open_descriptors()
        with monkeypatch.context() as patch:
            patch.setattr(tempfile, "tempdir", str(tmp_path))
            buffer = filled(100, max_records=10)

        assert open_descriptors() == before + 1
        assert list(tmp_path.iterdir()) == []
        del buffer
        gc.collect()
        assert open_descriptors() == before

    def test_many_records_take_one(self) -> None:
        before = open_descriptors()
        buffer = filled(1_000, max_records=10)

        assert open_descriptors() == before + 1
        assert len(buffer) == 1_000


class TestFullDisk:
    @pytest.fixture
    def full(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_FILE_BYTES", 0)

    def test_problems_stay_and_one_note_says_so(self, full: None) -> None:
        buffer = RecordBuffer(max_records=20)
        buffer.append(said(-1, "error", "the first cause"))
        for index in range(500):
            buffer.append(said(index))
        buffer.append(said(500, "warning", "the last word"))

        found = messages(buffer)
        assert found[0] == "the first cause"
        assert found[-2:] == ["499", "the last word"]
        assert len(buffer) <= 21
        (note,) = [record for record in buffer if record.producer == "trtgray"]
        assert note.severity == "info"
        assert note.message == (
            "older messages are dropped, except for errors and warnings: the temporary file has 0 MiB"
        )

    def test_of_too_many_problems_the_first_stay(self, full: None) -> None:
        buffer = RecordBuffer(max_records=40)
        for index in range(5_000):
            buffer.append(said(index, "error"))

        assert messages(buffer)[:5] == ["0", "1", "2", "3", "4"]
        assert messages(buffer)[-1] == "4999"
        assert len(buffer) <= 41

    def test_a_few_huge_problems(self, full: None) -> None:
        buffer = RecordBuffer(max_records=1_000, max_characters=100)
        for index in range(50):
            buffer.append(said(index, "error", f"{index:>90}"))

        assert sum(len(record.message) for record in buffer) <= 400

    def test_no_temporary_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(tempfile, "tempdir", "/proc/none")
            buffer = filled(100, max_records=10)

        assert messages(buffer)[-1] == "99"
        assert any("No such file or directory" in message for message in messages(buffer))

    def test_what_is_on_the_disk_already_is_still_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        buffer = filled(15, max_records=10)
        monkeypatch.setattr(module, "MAX_FILE_BYTES", 0)
        for index in range(15, 60):
            buffer.append(said(index))

        assert messages(buffer)[:5] == ["0", "1", "2", "3", "4"]
        assert messages(buffer)[-1] == "59"
        assert len(messages(buffer)) == len(buffer)


class TestFork:
    @pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
    def test_parent_and_child_go_on_apart(self) -> None:
        buffer = filled(25, max_records=10)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover
            for index in range(1_000, 1_040):
                buffer.append(said(index))
            os.write(writing, " ".join(messages(buffer)).encode())
            os._exit(0)
        for index in range(25, 60):
            buffer.append(said(index))
        os.waitpid(child, 0)
        os.close(writing)
        with os.fdopen(reading, "rb") as file:
            of_child = file.read().decode().split()

        assert messages(buffer) == [str(index) for index in range(60)]
        assert of_child == [str(index) for index in (*range(25), *range(1_000, 1_040))]


def test_two_threads_read_at_once() -> None:
    buffer = filled(2_000, max_records=50)
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append(messages(buffer))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [[str(index) for index in range(2_000)]] * 4
