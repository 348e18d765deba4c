"""A line on the terminal that says how far long work is, and is gone when the work is done.

It is written to the right of what pytest has written so far, and the cursor is put back each time, so that whatever
pytest writes next stands where it would stand anyway. The terminal is kept open beside pytest's capture (a duplicate
of its file descriptor): capture is neither suspended nor disturbed, not even while native code prints.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Mapping

import pytest

_SAVE, _RESTORE, _ERASE, _FAINT, _PLAIN = "\x1b7", "\x1b8", "\x1b[K", "\x1b[2m", "\x1b[22m"
_LEAST = 20
"""Columns; in fewer nothing can be said."""


class ProgressLine:
    """The line.

    Args:
        config: pytest's, whose terminal writer knows how far the current line is written.
        terminal: file descriptor of the terminal; closed by :meth:`close`.
    """

    def __init__(self, config: pytest.Config, terminal: int) -> None:
        self._config = config
        self._terminal = terminal
        self._is_shown = False

    def show(self, text: str) -> None:
        """Show this instead of what is there; nothing where the line has no room."""
        used = self._config.get_terminal_writer().width_of_current_line
        room = shutil.get_terminal_size().columns - used - 3  # the last column would wrap on some terminals
        if room < _LEAST:
            return
        line = text if len(text) <= room else f"{text[: room - 3]}..."
        self._write(f"{_SAVE}{_ERASE}  {_FAINT}{_printable(line)}{_PLAIN}{_RESTORE}")
        self._is_shown = True

    def clear(self) -> None:
        """Erase it."""
        if self._is_shown:
            self._write(_ERASE)
            self._is_shown = False

    def close(self) -> None:
        """Give the terminal back."""
        self.clear()
        with contextlib.suppress(OSError):
            os.close(self._terminal)

    def _write(self, text: str) -> None:
        # pytest flushes what it writes; to do it here would send the rest of it into a captured file
        with contextlib.suppress(OSError):
            os.write(self._terminal, text.encode("utf-8", "replace"))


def progress_line(config: pytest.Config, environ: Mapping[str, str] = os.environ) -> ProgressLine | None:
    """The line of this run, to be made while nothing is captured; ``None`` where nobody looks or others write there.

    That is: no terminal, a CI service, ``-q``, workers of pytest-xdist and their controller, ``-s`` and live logs
    (others write where the line is), and a debugger.
    """
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    option = config.option
    in_the_way = (
        config.get_verbosity() < 0
        or hasattr(config, "workerinput")
        or bool(getattr(option, "numprocesses", None))
        or option.capture == "no"
        or config.getini("log_cli")
        or option.log_cli_level is not None
        or option.usepdb
        or option.trace
    )
    if reporter is None or in_the_way or not _is_terminal(reporter, environ):
        return None
    try:
        terminal = os.dup(sys.__stdout__.fileno())  # type: ignore[union-attr]
    except (OSError, ValueError, AttributeError):
        return None
    line = ProgressLine(config, terminal)
    if not os.isatty(terminal):
        line.close()
        return None
    return line


def _is_terminal(reporter: pytest.TerminalReporter, environ: Mapping[str, str]) -> bool:
    silent = any(environ.get(name) for name in ("CI", "BUILD_NUMBER"))
    return bool(reporter.isatty) and not silent and environ.get("TERM", "") not in ("", "dumb")


def _printable(text: str) -> str:
    """No name of a model moves the cursor."""
    return "".join(char if char.isprintable() else "?" for char in text)
