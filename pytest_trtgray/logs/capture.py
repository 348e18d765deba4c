"""Messages that bypass every logger: what native code writes to file descriptor 2."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

from pytest_trtgray.logs.records import SINK, LogSeverity

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_ONNXRUNTIME = re.compile(r"^\S+ \S+ \[(?P<letter>[VIWEF]):onnxruntime:[^\]]*\] (?P<text>.*)$", re.DOTALL)
_LETTERS: dict[str, LogSeverity] = {
    "V": "verbose",
    "I": "info",
    "W": "warning",
    "E": "error",
    "F": "internal_error",
}


@contextlib.contextmanager
def native_stderr() -> Iterator[None]:
    """Send what native code writes to stderr inside the ``with`` block to the log sink.

    ONNX Runtime's lines keep their severity; any other line becomes a ``stderr`` record of severity
    ``info``. Nothing is lost when the block raises.
    """
    with contextlib.suppress(Exception):
        sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # a daemon without stderr
        yield
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            _forward(file.read().decode("utf-8", errors="replace"))


def _forward(text: str) -> None:
    for line in _ANSI.sub("", text).split("\n"):
        if not line.strip():
            continue
        match = _ONNXRUNTIME.match(line)
        if match:
            SINK.say(_LETTERS[match["letter"]], "onnxruntime", match["text"])
        else:
            SINK.say("info", "stderr", line)
