"""Progress on a real terminal: seen while work is under way, and gone without a trace."""

from __future__ import annotations

import os
import pty
import select
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import pytest

from tests import models
from tests.integration.conftest import CHEAP, needs_rtx

LINES, COLUMNS = 60, 100
WORK = """
def test_it(trt_device):
    from pytest_trtgray.progress import PROGRESS

    with PROGRESS.work("sawing") as tell:
        tell(2, 3, "log")
"""


class Terminal:
    """What was written to a terminal, and what a reader saw on it on the way."""

    def __init__(self) -> None:
        pyte = pytest.importorskip("pyte", reason="needs pyte, found none")
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self.seen: list[str] = []

    def take(self, output: bytes) -> None:
        self.raw += output
        for part in output.split(b"\x1b8"):
            self._stream.feed(part + b"\x1b8" if b"\x1b7" in part else part)
            self.seen.append("\n".join(self.lines()))

    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display if line.strip()]


def run(folder: Path, *args: str, **environ: str) -> Terminal:
    """Run pytest on a terminal of its own."""
    terminal = Terminal()
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "BUILD_NUMBER", "COLUMNS")}
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:randomly", "--color=no", *args],
        cwd=folder,
        env={**kept, "TERM": "xterm-256color", **environ},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    while True:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                output = os.read(ours, 1 << 16)
            except OSError:  # nobody has the other end any more
                break
            if not output:
                break
            terminal.take(output)
        elif process.poll() is not None:
            break
    process.wait()
    os.close(ours)
    return terminal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    models.mlp(tmp_path / "mlp.onnx", layers=3)
    (tmp_path / "pytest.ini").write_text(CHEAP)
    return tmp_path


def told(terminal: Terminal, what: str) -> bool:
    return any(what in screen for screen in terminal.seen)


def test_sessions_and_shapes_are_told_beside_what_pytest_writes(folder: Path) -> None:
    terminal = run(
        folder, "--trt-engine=mlp.onnx", "--update-baselines", "-k", "layers or shapes", "-o", "trt_sessions=3"
    )

    assert told(terminal, "timing mlp: session ")
    assert told(terminal, "shapes of mlp")
    assert not any("timing mlp" in line or "shapes of" in line for line in terminal.lines())
    assert "trtgray ..                                                                                   [100%]" in (
        "\n".join(terminal.lines())
    )


@needs_rtx
def test_a_build_tells_the_phase_that_tensorrt_is_in(folder: Path) -> None:
    terminal = run(folder, "--trt-engine=mlp.onnx", "--trt-runtime=tensorrt_rtx", "-k", "log", "-v")

    assert told(terminal, "building mlp")
    assert not any("building mlp" in line for line in terminal.lines())
    assert any(line.startswith("trtgray::log[mlp] PASSED") for line in terminal.lines())


@pytest.mark.parametrize(
    ("args", "environ", "is_told"),
    [
        ((), {}, True),
        ((), {"CI": "true"}, False),
        ((), {"TERM": "dumb"}, False),
        (("-q",), {}, False),
        (("-s",), {}, False),
        (("-n1",), {}, False),
        (("-o", "log_cli=true"), {}, False),
    ],
    ids=["a terminal", "CI", "dumb terminal", "quiet", "uncaptured", "xdist", "live logs"],
)
def test_nothing_where_nobody_looks_or_others_write(
    tmp_path: Path, args: tuple[str, ...], environ: dict[str, str], is_told: bool
) -> None:
    """Beside one where it is told, so that silence means something; the work is a made-up one, as quick as can be."""
    (tmp_path / "pytest.ini").write_text(CHEAP)
    (tmp_path / "test_it.py").write_text(WORK)
    terminal = run(tmp_path, *args, **environ)

    assert any("1 passed" in line for line in terminal.lines())
    assert (b"\x1b7" in terminal.raw) == told(terminal, "sawing: log 2 of 3") == is_told


def test_no_terminal_no_escape_codes(folder: Path) -> None:
    command = [sys.executable, "-m", "pytest", "--trt-engine=mlp.onnx", "-k", "shapes"]
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "BUILD_NUMBER")}
    output = subprocess.run(command, cwd=folder, env=kept, capture_output=True, check=True).stdout

    assert b"1 passed" in output
    assert b"\x1b" not in output
