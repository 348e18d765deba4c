"""Puts the lines of a log together to messages, in one pass and constant memory."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeGuard

from pytest_trtgray.logs.formats import AROUND
from pytest_trtgray.logs.headers import Header, Headers, bare_header, bypasses
from pytest_trtgray.logs.records import Record
from pytest_trtgray.logs.source import text_blocks
from pytest_trtgray.logs.splices import Splices

MAX_MESSAGE = 1 << 22
"""Characters; of a longer message only the number of the others is kept."""

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_COLOUR_ENDS = ("\x1b[0m", "\x1b[m")
_CLOCK_JUMP_S = 2 * 3600  # more than the end of summer time
_MAX_HELD = 100  # lines of which it is not known yet whether they go on with a message or begin one
_MIN_WINDOW, _MAX_WINDOW = 1 << 11, 1 << 18  # characters in which lines with one prefix are looked for
_GLUE = re.compile(r"(?<=[^\d\s])(?=\d{1,2}: \[[\w./\\-]{1,200}::[^\]\n]{1,200}::\d+\] Error Code \d+: )")
_MAX_GLUED = 100_000
_AROUND = tuple(re.compile(f"^{pattern}", re.ASCII | re.MULTILINE) for pattern in AROUND)
_SAMPLE, _NEARLY_ALL = 1 << 16, 0.9

Batch = tuple[Header, int, list[str]]
"""Messages with one header: each of one line, from the given line of the file on; or one message of many lines."""


def read_records(source: str | Path | BinaryIO) -> Iterator[Record]:
    """The messages of a log, in order, in constant memory.

    A message of several lines is one record. Bytes that are no UTF-8 survive as surrogate escapes, a message longer
    than :data:`MAX_MESSAGE` is cut, a damaged end is the end.

    Args:
        source: a path, plain or gzip; or a binary stream.

    Raises:
        LogError: the file cannot be read, or is not text.
    """
    phase = ""
    for header, line, texts in batches(source):
        for number, text in enumerate(texts, line):
            record = header.record(number, text, phase)
            phase = record.phase
            yield record


def batches(source: str | Path | BinaryIO) -> Iterator[Batch]:
    """:func:`read_records` before there are records, for whoever needs few of them."""
    return _Assembler().batches(text_blocks(source))


class _Assembler:
    """Decides for each line whether it begins a message or goes on with the one before.

    Most lines of a large log have the prefix of the line before, to the second of its clock; those are split off in
    bulk. All others are looked at one by one.
    """

    def __init__(self) -> None:
        self._headers = Headers()
        self._splices = Splices(self._headers)
        self._line = 0  # number of the last line that was read
        self._window = _MIN_WINDOW
        # The message at hand: its header, the number of its first line, its lines, its characters
        self._header: Header | None = None
        self._first = 0
        self._parts: list[str] = []
        self._size = 0
        self._ended = False  # by the end of its colour
        self._last: Header | None = None  # that was no bare one
        # Lines that begin at another time, and so may be part of a name that forges a prefix
        self._suspect: Header | None = None
        self._held: list[tuple[int, str]] = []

    def batches(self, blocks: Iterable[str]) -> Iterator[Batch]:
        """The messages of a text that comes in blocks of whole lines."""
        around: re.Pattern[str] | None = None
        for number, block in enumerate(blocks):
            if "\r" in block:
                block = block.replace("\r\n", "\n")
            around = _around(block) if number == 0 else around
            if around is not None:
                block = around.sub("", block)
            start = 0
            while start <= len(block):
                header = self._header
                if self._runs(header) and block.startswith(header.prefix, start):
                    start = yield from self._run(header, block, start)
                    continue
                end = block.find("\n", start)
                end = end if end >= 0 else len(block)
                yield from self._take(block[start:end])
                start = end + 1
        yield from self._settle(None)
        for header, text in self._splices.rest():
            yield from self._begin(header or bare_header(text), self._line, text)
        yield from self._end()

    def _runs(self, header: Header | None) -> TypeGuard[Header]:
        return header is not None and bool(header.prefix) and header.is_severe and not self._held

    def _run(self, header: Header, block: str, start: int) -> Generator[Batch, None, int]:
        """Messages that begin with the prefix of the one at hand; returns where the next line begins."""
        separator = "\n" + header.prefix
        end = min(start + self._window, len(block))
        if end < len(block):
            end = block.find("\n", end)
            end = end if end >= 0 else len(block)
        text = block[start + len(header.prefix) : end]
        pieces = text.split(separator)
        is_plain = "\x1b" not in text and "\r" not in text and not self._splices.may_be_inside(text)
        if is_plain and text.count("\n") < len(pieces):
            last, rest = pieces.pop(), ""
            yield from self._plain(header, pieces)
        else:
            # The last piece goes on to the end, whatever prefix it has there.
            last, _, rest = pieces.pop().partition("\n")
            yield from self._mixed(header, pieces)
        yield from self._take(header.prefix + last)
        begun = end - len(rest) if rest else end + 1
        self._window = min(4 * self._window, _MAX_WINDOW) if not rest else max(2 * (begun - start), _MIN_WINDOW)
        return begun

    def _mixed(self, header: Header, pieces: Iterable[str]) -> Iterator[Batch]:
        """Messages of which some have several lines, colours, or parts of others."""
        inside = self._splices.inside
        plain: list[str] = []
        for piece in pieces:
            if "\n" not in piece and "\x1b" not in piece and "\r" not in piece and not inside(piece):
                plain.append(piece)
                continue
            yield from self._plain(header, plain)
            plain = []
            for line in (header.prefix + piece).split("\n"):
                yield from self._take(line)
        yield from self._plain(header, plain)

    def _plain(self, header: Header, texts: list[str]) -> Iterator[Batch]:
        if texts:
            yield from self._settle(header)
            yield from self._end()
            yield header, self._line + 1, texts
            self._line += len(texts)

    def _take(self, line: str) -> Iterator[Batch]:
        """One line, whatever it is."""
        self._line += 1
        if "\r" not in line:
            yield from self._judge(self._line, line)
            return
        for piece in line.split("\r"):  # a progress bar; the whole text of an old Macintosh
            if piece:
                yield from self._judge(self._line, piece)

    def _judge(self, number: int, line: str) -> Iterator[Batch]:
        """A line; one of another time is held back until the next ones tell whether the clock has changed."""
        new = self._headers.of(line)
        if self._suspect is not None:
            goes_on = new is None or (_are_near(new, self._suspect) and not _are_near(new, self._header))
            if goes_on and len(self._held) < _MAX_HELD:
                self._held.append((number, line))
                return
            yield from self._settle(new)
        if new is not None and not _are_near(new, self._header):
            self._suspect = new
            self._held = [(number, line)]
            return
        yield from self._place(number, line, new)

    def _settle(self, new: Header | None) -> Iterator[Batch]:
        """Place the lines held back: if the clock goes on as before, they belong to the message at hand."""
        held, suspect = self._held, self._suspect
        if suspect is None:
            return
        self._held, self._suspect = [], None
        forged = new is not None and _are_near(new, self._header) and not _are_near(new, suspect)
        for number, line in held:
            if forged:
                self._add(line)
            else:
                yield from self._place(number, line, self._headers.of(line))

    def _place(self, number: int, line: str, new: Header | None) -> Iterator[Batch]:
        if new is not None:
            body = line[len(new.prefix) :]
            if not self._splices.inside(body):
                yield from self._begin(new, number, body)
                return
        else:
            body = line
            if self._parts and (tail := self._splices.tail(self._parts[-1], line)):
                self._parts[-1] = self._parts[-1][: -len(tail)]
            if not self._splices.concerns(line):
                yield from self._loose(number, line)
                return
        for header, text in self._splices.split(new, body, new or self._last):
            if header is not None:
                yield from self._begin(header, number, text)
            else:
                yield from self._loose(number, text)

    def _loose(self, number: int, line: str) -> Iterator[Batch]:
        """A line without prefix: more of the message at hand, or a message without prefix."""
        if self._splices.is_break(line):
            return
        ended = self._ended or (self._header is not None and line.rstrip().endswith(_COLOUR_ENDS))
        plain = _ANSI.sub("", line) if "\x1b" in line else line
        if self._continues(plain):
            self._add(plain)
            self._ended = ended
            return
        for text in _glued(plain) if plain.strip() else ():
            yield from self._begin(bare_header(text), number, text)

    def _continues(self, line: str) -> bool:
        header = self._header
        if header is None or self._ended:
            return not line.strip()
        if header.format is None and " In function " in self._parts[-1] and self._parts[-1].endswith(":"):
            return True  # the parser's errors have a second line
        if header.format is None or header.format.indented:
            return not line.strip() or line[0] in " \t" or self._is_coloured()
        return not header.format.whole and not bypasses(line)

    def _is_coloured(self) -> bool:
        return self._header is not None and self._header.prefix.startswith("\x1b")

    def _begin(self, header: Header, number: int, body: str) -> Iterator[Batch]:
        yield from self._end()
        if not header.is_severe:
            header = self._headers.judged(header, body)
        self._header, self._first = header, number
        self._last = header if header.prefix else self._last
        self._ended = "\x1b" in body and self._is_coloured() and body.rstrip().endswith(_COLOUR_ENDS)
        text = _ANSI.sub("", body) if "\x1b" in body else body
        self._parts, self._size = [text[:MAX_MESSAGE]], len(text)

    def _add(self, line: str) -> None:
        """One more line of the message at hand."""
        if self._size < MAX_MESSAGE:
            self._parts.append(line[: MAX_MESSAGE - self._size])
        self._size += len(line) + 1

    def _end(self) -> Iterator[Batch]:
        """The message at hand is complete."""
        if self._header is not None:
            if self._ended or self._header.format is None:
                while len(self._parts) > 1 and not self._parts[-1].strip():
                    self._parts.pop()
            text = self._parts[0] if len(self._parts) == 1 else "\n".join(self._parts)
            if self._size > MAX_MESSAGE:
                text += f"\n... ({self._size - MAX_MESSAGE} more characters)"
            header, self._header = self._header, None
            yield header, self._first, [text]


def _around(block: str) -> re.Pattern[str] | None:
    """What a service put before the lines, if it did before nearly all."""
    lines = [line for line in block[:_SAMPLE].split("\n") if line.strip()]
    enough = len(lines) * _NEARLY_ALL
    for pattern in _AROUND:
        if len(lines) > 1 and sum(1 for line in lines if pattern.match(line)) >= enough:
            return pattern
    return None


def _glued(line: str) -> list[str]:
    """Messages without prefix that a program has printed without line breaks."""
    return _GLUE.split(line) if len(line) < _MAX_GLUED else [line]


def _are_near(header: Header, other: Header | None) -> bool:
    """Whether two times are of one run, or of two programs whose clocks differ by their time zones."""
    if other is None or header.format is not other.format or not header.time_s or not other.time_s:
        return True
    apart = abs(header.time_s - other.time_s)
    between_zones = apart <= 26 * 3600 and min(apart % 900, 900 - apart % 900) <= 5
    return apart <= _CLOCK_JUMP_S or between_zones
