"""What stands before a message, read with the tables of formats.py."""

from __future__ import annotations

import calendar
import re

from pytest_trtgray.logs.formats import BARE, FORMATS, Format
from pytest_trtgray.logs.numbers import whole
from pytest_trtgray.logs.phases import phase_of
from pytest_trtgray.logs.records import PROBLEMS, LogSeverity, Record

MAX_PREFIX = 1000
"""Characters of a line in which a prefix is sought; ONNX Runtime names whole C++ functions."""
_MAX_KNOWN = 4096  # prefixes; a log's clock makes ever new ones

_SOURCE = re.compile(r"(?:\[TRT\] )?(?P<source>[\w./-]+\.(?:cpp|hpp|h|cu|cc):\d+): ")
_PARSER_SOURCE = re.compile(r"ERROR: (?P<source>[^\n]{0,400}?:\d+) In function (?P<function>[^\n]{0,400}?):\n")
_CORE_SOURCE = re.compile(r"In (?P<function>[^\s()]\S*(?: \S+)?) at (?P<source>/_src/[^\s:]+:\d+)")
_OLD_CORE_SOURCE = re.compile(r"\[(?P<file>[\w./\\-]+\.\w+)::(?P<function>[^\]\n]*)::(?P<line>\d+)\] Error Code")
_MAX_SOURCE = 4096  # characters of a message in which its source is sought


class Header:
    """What a prefix says; one for all messages that share it.

    Attributes:
        prefix: the text itself, empty for a message without.
        format: None for a message without prefix.
        is_severe: whether the prefix tells the severity, so that messages which share it share that.
    """

    __slots__ = (
        "format",
        "function",
        "is_severe",
        "prefix",
        "producer",
        "severity",
        "source",
        "tag",
        "thread",
        "time_s",
    )

    def __init__(
        self,
        prefix: str,
        format: Format | None,
        producer: str,
        severity: LogSeverity,
        *,
        time_s: float = 0.0,
        tag: str = "",
        source: str = "",
        function: str = "",
        thread: int = 0,
        is_severe: bool = True,
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
        self.is_severe = is_severe

    def record(self, line: int, message: str, phase: str) -> Record:
        """The record of one message, said after others in ``phase``."""
        source, function = self.source, self.function
        if not source:
            source, function = said_by(message)
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
            prefix=self.prefix,
        )


def said_by(message: str) -> tuple[str, str]:
    """``file:line`` and function of the C++ source, where a message tells them."""
    message = message[:_MAX_SOURCE]
    if "/_src/" in message or "Error Code" in message or "In function " in message:
        if match := _PARSER_SOURCE.search(message) or _CORE_SOURCE.search(message):
            return match["source"], match["function"]
        if match := _OLD_CORE_SOURCE.search(message):
            return f"{match['file']}:{match['line']}", match["function"]
    match = _SOURCE.match(message)
    return (match["source"], "") if match else ("", "")


class Headers:
    """Reads prefixes; remembers those that it knows, as a log repeats them thousands of times."""

    def __init__(self) -> None:
        self._known: dict[str, Header] = {}

    def of(self, line: str) -> Header | None:
        """The header of a line that begins with one."""
        candidates = _BY_FIRST.get(line[:1])
        if not candidates:
            return None
        line = line[:MAX_PREFIX]
        for format, pattern in candidates:
            match = pattern.match(line)
            if match:
                return self._known.get(match[0]) or self._read(format, match)
        return None

    def judged(self, header: Header, message: str) -> Header:
        """The header of a message whose prefix tells no severity, with that of its text."""
        bare = bare_header(message)
        if bare.severity not in PROBLEMS:
            return header
        return Header(
            header.prefix,
            header.format,
            header.producer,
            bare.severity,
            time_s=header.time_s,
            tag=header.tag,
            is_severe=False,
        )

    def _read(self, format: Format, match: re.Match[str]) -> Header:
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        header = self._known[match[0]] = _header(format, match)
        return header


def bare_header(line: str) -> Header:
    """The header of a message that has none in the text."""
    line = line[:MAX_PREFIX]
    return next((header for header, pattern, _ in _BARE if pattern.match(line)), _UNKNOWN)


def bypasses(line: str) -> bool:
    """Whether a line without prefix is known to be no part of the message before it."""
    line = line[:MAX_PREFIX]
    return any(bypassing and pattern.match(line) for _, pattern, bypassing in _BARE)


def _header(format: Format, match: re.Match[str]) -> Header:
    groups = match.groupdict(default="")
    word = groups.get("inner") or groups.get("sev", "")
    thread = groups.get("thread", "")
    return Header(
        match[0],
        format,
        format.producer,
        format.severities.get(word) or format.severities.get(word.upper()) or format.default,
        time_s=_seconds(groups.get("time", "")),
        tag="TRT" if groups.get("inner") else format.tag or groups.get("tag", ""),
        source=groups.get("src", ""),
        function=groups.get("func", ""),
        thread=whole(thread),
        is_severe=bool(word) or not format.severities,
    )


def _compiled() -> dict[str, list[tuple[Format, re.Pattern[str]]]]:
    by_first: dict[str, list[tuple[Format, re.Pattern[str]]]] = {}
    for format in FORMATS:
        for character in format.first:
            by_first.setdefault(character, []).append((format, re.compile(format.pattern, re.ASCII)))
    return by_first


_BY_FIRST = _compiled()
_BARE = tuple(
    (Header("", None, bare.producer, bare.severity), re.compile(bare.pattern, re.ASCII), bare.bypasses) for bare in BARE
)
_UNKNOWN = Header("", None, "stderr", "info")

_TIMES = (
    re.compile(r"(?P<m>\d\d)/(?P<d>\d\d)/(?P<y>\d{4})-(?P<H>\d\d):(?P<M>\d\d):(?P<S>\d\d)"),
    re.compile(r"(?P<y>\d{4})-(?P<m>\d\d)-(?P<d>\d\d)[ T](?P<H>\d\d):(?P<M>\d\d):(?P<S>\d\d)(?:[.,](?P<part>\d+))?"),
)


def _seconds(text: str) -> float:
    """Seconds since the epoch, the clock read as UTC; 0 where there is no date, or one that is none."""
    for pattern in _TIMES:
        if match := pattern.match(text):
            year, month, day, hour, minute, second = (int(match[key]) for key in "ymdHMS")
            if not (1 <= month <= 12 and 1 <= day <= 31 and year >= 1970):
                return 0.0
            part = match.groupdict().get("part")
            return calendar.timegm((year, month, day, hour, minute, second)) + (float(f"0.{part}") if part else 0.0)
    return 0.0
