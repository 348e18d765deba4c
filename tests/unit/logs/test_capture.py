from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading

import pytest

from pytest_trtgray.logs.capture import native_stderr
from pytest_trtgray.logs.records import Record
from pytest_trtgray.logs.sink import SINK


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

    assert record.message == "caf\\xe9"


def test_a_subprocess_is_heard() -> None:
    with SINK.collect("test") as records, native_stderr():
        subprocess.run([sys.executable, "-c", "import os; os.write(2, b'from a child')"], check=True)

    assert [record.message for record in records] == ["from a child"]


def test_much_text_does_not_block() -> None:
    """A pipe would be full after 64 KiB."""
    assert len(captured(b"line\n" * 20_000)) == 20_000


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

    assert [record.message for record in records] == ["outer", "inner"]


def test_a_line_belongs_to_the_phase_in_which_it_was_said() -> None:
    with SINK.collect("build") as records, native_stderr():
        os.write(2, b"first ")
        with SINK.phase("parse"), native_stderr():
            os.write(2, b"half\nsecond\n")
        os.write(2, b"third\n")

    assert [(record.phase, record.message) for record in records] == [
        ("parse", "first half"),  # its end decides
        ("parse", "second"),
        ("build", "third"),
    ]


def test_threads_that_do_not_leave_in_the_order_in_which_they_came(capfd: pytest.CaptureFixture[str]) -> None:
    inside, gone = threading.Event(), threading.Event()

    def stay() -> None:
        with native_stderr():
            inside.set()
            assert gone.wait(60)
            os.write(2, b"alone\n")

    with SINK.collect("test") as records:
        thread = threading.Thread(target=stay)
        with native_stderr():
            thread.start()
            assert inside.wait(60)
            os.write(2, b"both\n")
        gone.set()
        thread.join(60)
    os.write(2, b"outside\n")

    assert [record.message for record in records] == ["both", "alone"]
    assert capfd.readouterr().err == "outside\n"


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_process_that_is_forked_inside_has_its_stderr_back(capfd: pytest.CaptureFixture[str]) -> None:
    with SINK.collect("test") as records:
        with contextlib.suppress(ZeroDivisionError), native_stderr():
            os.write(2, b"before\n")
            child = os.fork()
            if child == 0:  # pragma: no cover
                os.write(2, b"of the child\n")
                with native_stderr():
                    os.write(2, b"captured by the child\n")
                os.write(2, b"of the child again\n")
                os._exit(0)
            os.waitpid(child, 0)
            os.write(2, b"after\n")
            raise ZeroDivisionError
        os.write(2, b"outside\n")

    assert [record.message for record in records] == ["before", "after"]
    assert capfd.readouterr().err == "of the child\nof the child again\noutside\n"


def test_no_room_for_a_temporary_file(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", "/proc/none")
        records = captured(b"as ever\n")

    assert records == []
    assert capfd.readouterr().err == "as ever\n"


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
