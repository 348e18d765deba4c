"""Messages that bypass every logger: what native code writes to file descriptor 2."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import threading
from collections.abc import Iterator

from pytest_trtgray.errors import LogError
from pytest_trtgray.logs.reader import read_records
from pytest_trtgray.logs.sink import SINK

_CHUNK = 1 << 24
_SHOWN = 1_000
"""Bytes of something that is no text."""


class _StandardError:
    """File descriptor 2 of this process: one redirection, however many threads and ``with`` blocks want it.

    The text goes to a file and not through a pipe: nobody has to read while native code writes, which may hold
    the interpreter's lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._saved = -1
        self._file = -1
        self._read = 0

    def enter(self) -> None:
        with self._lock:
            if self._users == 0:
                self._redirect()
            else:  # what was said so far belongs to the phase so far
                self._forward()
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            if self._users == 0:  # in a process that was forked inside of the block
                return
            self._forward(whole=self._users == 1)
            self._users -= 1
            if self._users == 0:
                self._restore()

    def release_child(self) -> None:
        """After a fork: the child's messages are its own, and go where the parent's went before."""
        self._lock = threading.Lock()
        if self._users:
            self._users = 0
            self._restore()

    def _redirect(self) -> None:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        try:
            self._saved = os.dup(2)
        except OSError:  # a daemon without stderr
            self._saved = -1
            return
        try:
            # appending: a child process shares the file, and each write goes to its end
            with tempfile.TemporaryFile(mode="a+b") as file:
                self._file = os.dup(file.fileno())
        except OSError:  # no room for a temporary file: the text stays where it always went
            os.close(self._saved)
            self._saved = -1
            return
        self._read = 0
        os.dup2(self._file, 2)

    def _restore(self) -> None:
        if self._saved >= 0:
            os.dup2(self._saved, 2)
            os.close(self._saved)
            os.close(self._file)
            self._saved = self._file = -1

    def _forward(self, *, whole: bool = False) -> None:
        """Send new lines to the sink; a line that has no end yet only if no more will come."""
        if self._saved < 0:
            return
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        while content := os.pread(self._file, _CHUNK, self._read):
            end = content.rfind(b"\n") + 1
            if end == 0 and not whole and len(content) < _CHUNK:
                return
            content = content[: end or len(content)]
            self._read += len(content)
            _say(content)


_STDERR = _StandardError()
os.register_at_fork(after_in_child=_STDERR.release_child)


@contextlib.contextmanager
def native_stderr() -> Iterator[None]:
    """Send what native code writes to stderr inside the ``with`` block to the log sink.

    They are read as a log file is (:func:`~pytest_trtgray.logs.reader.read_records`): ONNX Runtime's messages keep
    their severity, a line that nobody knows is a ``stderr`` record of severity ``info``. Nothing is lost when the
    block raises; a process that is forked inside of it has its stderr back.
    """
    _STDERR.enter()
    try:
        yield
    finally:
        _STDERR.leave()


def _say(content: bytes) -> None:
    """Send whole lines to the sink as the messages that they are; ONNX Runtime's keep their severity."""
    text = content.decode("utf-8", errors="backslashreplace").encode()
    try:
        for record in read_records(io.BytesIO(text)):
            if record.message.strip():
                SINK.take(record)
    except LogError:  # binary: what it says is lost, that somebody said it is not
        SINK.say("info", "stderr", repr(content[:_SHOWN])[2:-1])
