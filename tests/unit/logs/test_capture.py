from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pytest_trtgray.logs.capture import native_stderr
from pytest_trtgray.logs.records import SINK, Record


def captured(text: bytes) -> list[Record]:
    with SINK.collect("test") as records, native_stderr():
        os.write(2, text)
    return list(records)


ORT = b"2026-11-21 07:42:54.175158290 [%s:onnxruntime:Default, graph.cc:5777 Clean] Removing 'w'.\n"


@pytest.mark.parametrize(
    ("letter", "severity"),
    [(b"V", "verbose"), (b"I", "info"), (b"W", "warning"), (b"E", "error"), (b"F", "internal_error")],
)
def test_onnxruntimes_lines_keep_their_severity(letter: bytes, severity: str) -> None:
    (record,) = captured(ORT % letter)

    assert (record.severity, record.producer, record.message) == (severity, "onnxruntime", "Removing 'w'.")
    assert record.phase == "test"


def test_colours_are_taken_out() -> None:
    (record,) = captured(b"\x1b[0;93m" + (ORT % b"W").rstrip() + b"\x1b[m\n")

    assert (record.severity, record.message) == ("warning", "Removing 'w'.")


def test_other_lines() -> None:
    records = captured(b"hello\n\n   \nworld")

    assert [(record.severity, record.producer, record.message) for record in records] == [
        ("info", "stderr", "hello"),
        ("info", "stderr", "world"),
    ]


def test_bytes_that_are_no_utf8() -> None:
    (record,) = captured(b"caf\xe9\n")

    assert record.message == "caf\ufffd"


def test_a_subprocess_is_heard() -> None:
    with SINK.collect("test") as records, native_stderr():
        subprocess.run([sys.executable, "-c", "import os; os.write(2, b'from a child')"], check=True)

    assert [record.message for record in records] == ["from a child"]


def test_much_text_does_not_block() -> None:
    """A pipe would be full after 64 KiB."""
    assert len(captured(b"line\n" * 100_000)) == 100_000


def test_stderr_is_back_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    captured(b"inside\n")
    os.write(2, b"outside\n")

    assert capfd.readouterr().err == "outside\n"


def test_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        os.write(2, b"said before\n")
        raise RuntimeError("inside")

    with SINK.collect("test") as records, pytest.raises(RuntimeError, match="inside"), native_stderr():
        fail()
    os.write(2, b"outside\n")

    assert [record.message for record in records] == ["said before"]
    assert capfd.readouterr().err == "outside\n"


def test_nested() -> None:
    with SINK.collect("test") as records, native_stderr():
        os.write(2, b"outer\n")
        with native_stderr():
            os.write(2, b"inner\n")

    assert sorted(record.message for record in records) == ["inner", "outer"]


def test_no_file_descriptor_is_lost() -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    captured(b"warm\n")
    before = count()
    for _ in range(20):
        captured(b"line\n")

    assert count() == before


def test_without_stderr() -> None:
    """As in a daemon; in a process of its own."""
    program = (
        "import os; os.close(2)\n"
        "from pytest_trtgray.logs.capture import native_stderr\n"
        "with native_stderr():\n"
        "    print('ran')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "ran\n")
