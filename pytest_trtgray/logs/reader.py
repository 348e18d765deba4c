"""Reads log files of any size into records, in one pass."""

from __future__ import annotations

import calendar
import codecs
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from pytest_trtgray.errors import LogError
from pytest_trtgray.logs.formats import BARE, FORMATS, WHOLE, Bare, Format
from pytest_trtgray.logs.phases import phase_of
from pytest_trtgray.logs.records import LogSeverity, Record

BLOCK_BYTES = 1 << 20
MAX_MESSAGE_BYTES = 1 << 22
"""A longer message is cut: what follows is counted and dropped."""

_ANSI = re.compile(rb"\x1b\[[0-9;]*[A-Za-z]")
_BY_FIRST: dict[int, list[tuple[Format, re.Pattern[bytes]]]] = {}
for _format in FORMATS:
    for _byte in _format.first:
        _BY_FIRST.setdefault(_byte, []).append((_format, re.compile(_format.pattern)))
_BARE = tuple((bare, re.compile(bare.pattern)) for bare in BARE)
_WHOLE = tuple((start, re.compile(end)) for start, end in WHOLE)
_SOURCE = re.compile(rb"(?:\[TRT\] )?([\w./-]+\.(?:cpp|hpp|h|cu|cc):\d+): ")
_ERROR_SOURCE = re.compile(
    r" ?In (\S[^\n]*?) at (/_src/[^\s:]+:\d+)|\[([\w./\\-]+\.\w+)::([^\]\n]*?)::(\d+)\] Error Code"
)
_PARSER_SOURCE = re.compile(r"ERROR: ([^\n]*?:\d+) In function ([^\n]*?):\n")
_CLOCK_JUMP_S = 2 * 3600  # more than the end of summer time


def read_records(source: str | Path | BinaryIO) -> Iterator[Record]:
    """The messages of a log, in order, in constant memory.

    A message of several lines is one record. Nothing in a log makes this raise: bytes that are no UTF-8 survive as
    surrogate escapes, a message longer than :data:`MAX_MESSAGE_BYTES` is cut, a damaged end is the end.

    Args:
        source: a path, plain or gzip; or a binary stream.

    Raises:
        LogError: the file cannot be read, or is not text.
    """
    phase = ""
    for header, line, body in messages(source):
        record = header.record(line, body, phase)
        phase = record.phase
        yield record


class Header:
    """What a prefix says; one for all messages that share it."""

    __slots__ = ("format", "function", "prefix", "producer", "severity", "source", "tag", "thread", "time_s")

    def __init__(
        self,
        prefix: bytes,
        format: Format | None,
        producer: str,
        severity: LogSeverity,
        time_s: float = 0.0,
        tag: str = "",
        source: str = "",
        function: str = "",
        thread: int = 0,
    ) -> None:
        self.prefix = prefix
        self.format = format
        self.producer = producer
        self.severity = severity
        self.time_s = time_s
        self.tag = tag
        self.source = source
        self.function = function
        self.thread = thread

    def record(self, line: int, body: bytes, phase: str) -> Record:
        """The record of one message, said after others in ``phase``."""
        message = body.decode("utf-8", "surrogateescape")
        source, function = self.source, self.function
        if not source and (b".cpp" in body or b".h" in body):
            source, function = _said_by(body, message)
        return Record(
            severity=self.severity,
            producer=self.producer,
            message=message,
            phase=phase_of(message, self.severity, phase),
            time_s=self.time_s,
            thread=self.thread,
            line=line,
            source=source,
            function=function,
            tag=self.tag,
            prefix=self.prefix.decode("utf-8", "surrogateescape"),
        )


def _said_by(body: bytes, message: str) -> tuple[str, str]:
    found = _PARSER_SOURCE.search(message) or _ERROR_SOURCE.search(message)
    if found:
        groups = found.groups()
        if len(groups) == 2:
            return groups[0], groups[1]
        return (groups[1], groups[0]) if groups[1] else (f"{groups[2]}:{groups[4]}", groups[3])
    start = _SOURCE.match(body)
    return (start[1].decode("ascii", "replace"), "") if start else ("", "")


def messages(source: str | Path | BinaryIO) -> Iterator[tuple[Header, int, bytes]]:
    """Header, line number and body of each message; see :func:`read_records`."""
    return _Assembler().messages(_blocks(source))


class _Assembler:
    """Puts lines together to messages."""

    def __init__(self) -> None:
        self._headers: dict[bytes, Header] = {}

    def messages(self, blocks: Iterable[bytes]) -> Iterator[tuple[Header, int, bytes]]:
        header: Header | None = None
        prefix = b"\n"  # of the message at hand; no line has this one
        first = number = size = 0
        parts: list[bytes] = []
        for block in blocks:
            for line in block.split(b"\n"):
                number += 1
                if line.startswith(prefix) and header is not None:
                    yield header, first, parts[0] if len(parts) == 1 else b"\n".join(parts)
                    body = line[len(prefix) :]
                    if body.endswith(b"\r") or b"\x1b" in body:
                        body = _ANSI.sub(b"", body.rstrip(b"\r"))
                    parts, first, size = [body], number, 0
                    continue
                line = line.rstrip(b"\r")
                new = self._header(line)
                if new is not None and header is not None and not self._begins(header, parts, new):
                    new = None
                if new is None:
                    plain = _ANSI.sub(b"", line) if b"\x1b" in line else line
                    if header is not None and self._continues(header, parts, plain):
                        if size < MAX_MESSAGE_BYTES:
                            parts.append(plain[: MAX_MESSAGE_BYTES - size])
                            size += len(plain) + 1
                        continue
                    new = self._bare(plain)
                    if not plain and header is None:
                        continue
                    body = plain
                else:
                    body = line[len(new.prefix) :]
                    if b"\x1b" in body:
                        body = _ANSI.sub(b"", body)
                if header is not None:
                    yield header, first, parts[0] if len(parts) == 1 else b"\n".join(parts)
                header, prefix = new, new.prefix or b"\n"
                parts, first, size = [body], number, 0
        if header is not None:
            if len(parts) > 1 and not parts[-1]:
                parts.pop()
            yield header, first, b"\n".join(parts)

    def _header(self, line: bytes) -> Header | None:
        candidates = _BY_FIRST.get(line[0]) if line else None
        if not candidates:
            return None
        for format, pattern in candidates:
            match = pattern.match(line)
            if match:
                known = self._headers.get(match[0])
                if known is None:
                    known = _read_header(format, match)
                    if len(self._headers) > 1000:
                        self._headers.clear()
                    self._headers[match[0]] = known
                return known
        return None

    def _begins(self, header: Header, parts: list[bytes], new: Header) -> bool:
        """Whether a line with a prefix begins a message; a node's name may hold both."""
        first = parts[0]
        for start, end in _WHOLE:
            if first.startswith(start):
                return end.search(b"\n".join(parts)) is not None
        return not (
            new.format is header.format and new.time_s and new.time_s < header.time_s - _CLOCK_JUMP_S and len(parts) > 1
        )

    def _continues(self, header: Header, parts: list[bytes], line: bytes) -> bool:
        """Whether a line without prefix belongs to the message before it."""
        if header.format is None or header.format.indented:
            return line[:1] in (b" ", b"\t")
        if header.format.whole:
            return False
        return not any(bare.bypasses and pattern.match(line) for bare, pattern in _BARE)

    def _bare(self, line: bytes) -> Header:
        for bare, pattern in _BARE:
            if pattern.match(line):
                return _bare_header(bare)
        return Header(b"", None, "stderr", "info")


def _bare_header(bare: Bare) -> Header:
    return Header(b"", None, bare.producer, bare.severity)


def _read_header(format: Format, match: re.Match[bytes]) -> Header:
    groups = match.groupdict()

    def text(name: str) -> str:
        return (groups.get(name) or b"").decode("utf-8", "replace")

    word = groups.get("inner") or groups.get("sev") or b""
    severity = format.severities.get(word) or format.severities.get(word.upper()) or format.default
    thread = groups.get("thread")
    tag = "TRT" if groups.get("inner") else (format.tag or text("tag"))
    return Header(
        match[0],
        format,
        format.producer,
        severity,
        _seconds(text("time")),
        tag,
        text("src"),
        text("func"),
        int(thread) if thread else 0,
    )


_TIMES = (
    (re.compile(r"(?P<m>\d\d)/(?P<d>\d\d)/(?P<y>\d{4})-(?P<H>\d\d):(?P<M>\d\d):(?P<S>\d\d)"), 0),
    (re.compile(r"(?P<y>\d{4})-(?P<m>\d\d)-(?P<d>\d\d)[ T](?P<H>\d\d):(?P<M>\d\d):(?P<S>\d\d(?:[.,]\d+)?)"), 0),
)


def _seconds(text: str) -> float:
    """Seconds since the epoch, the clock read as UTC; 0 where the date is missing."""
    for pattern, _ in _TIMES:
        match = pattern.match(text)
        if match:
            whole, _, fraction = match["S"].replace(",", ".").partition(".")
            year, month, day, hour, minute = (int(match[key]) for key in "ymdHM")
            if not (1970 <= year and 1 <= month <= 12 and 1 <= day <= 31):
                return 0.0
            return calendar.timegm((year, month, day, hour, minute, int(whole))) + float(f"0.{fraction or 0}")
    return 0.0


def _blocks(source: str | Path | BinaryIO) -> Iterator[bytes]:
    """Whole lines, in blocks; the last block ends where the text ends."""
    if isinstance(source, (str, Path)):
        try:
            with Path(source).open("rb") as stream:
                yield from _lines(stream, str(source))
        except OSError as error:
            raise LogError(source, error.strerror or str(error), "Give the log file itself.") from error
    else:
        yield from _lines(source, getattr(source, "name", "stream"))


def _lines(stream: BinaryIO, name: object) -> Iterator[bytes]:
    head = stream.read(BLOCK_BYTES)
    chunks = _chunks(head, stream)
    if head[:2] == b"\x1f\x8b":
        chunks = _unzipped(chunks)
    first = next(chunks, b"")
    if first[:2] in (b"\xff\xfe", b"\xfe\xff"):  # PowerShell's redirection
        chunks = _utf8(first, chunks)
        first = next(chunks, b"")
    if _is_binary(first):
        raise LogError(name, "is not text", "Give a log: the text that a build or a run printed.")
    rest = b""
    while first:
        cut = first.rfind(b"\n")
        if cut < 0:
            rest = (rest + first)[: 2 * MAX_MESSAGE_BYTES]
        else:
            yield rest + first[:cut]
            rest = first[cut + 1 :]
        first = next(chunks, b"")
    if rest:
        yield rest


def _chunks(head: bytes, stream: BinaryIO) -> Iterator[bytes]:
    while head:
        yield head
        head = stream.read(BLOCK_BYTES)


def _unzipped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    unzip = zlib.decompressobj(wbits=31)
    for chunk in chunks:
        try:
            while chunk:
                yield from filter(None, [unzip.decompress(chunk, BLOCK_BYTES)])
                chunk = unzip.unconsumed_tail
                if unzip.eof:
                    chunk, unzip = unzip.unused_data, zlib.decompressobj(wbits=31)
        except zlib.error:
            return


def _utf8(first: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder("utf-16")("replace")
    yield decoder.decode(first).encode("utf-8", "replace")
    for chunk in chunks:
        yield decoder.decode(chunk).encode("utf-8", "replace")


def _is_binary(sample: bytes) -> bool:
    sample = sample[:65536]
    control = sum(sample.count(bytes([byte])) for byte in (*range(7), *range(14, 27)))
    return control > len(sample) // 10
