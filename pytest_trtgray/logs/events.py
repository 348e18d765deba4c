"""What messages say, as facts with fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_trtgray.logs.error_grammar import NodeContext, core_errors, failed_checks
from pytest_trtgray.logs.numbers import whole
from pytest_trtgray.logs.phases import phase_of
from pytest_trtgray.logs.records import LogSeverity, Record
from pytest_trtgray.logs.reports import ProfileTable, is_section, layers, old_summary, onnx_header, summary
from pytest_trtgray.logs.statements import STATEMENTS, VERBOSE_STATEMENTS, Statement, may_state
from pytest_trtgray.logs.tuning import Found, Tuning
from pytest_trtgray.logs.versions import of_banner


@dataclass(frozen=True)
class Event:
    """One fact that a message states.

    Attributes:
        kind: what happened, such as ``core_error``.
        fields: its values; sizes in bytes, times with their unit in the name.
        line: of the message in its file; None for a live one.
        severity: of the message.
    """

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    line: int | None = None
    severity: LogSeverity = "info"

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, fit for JSON."""
        return {"kind": self.kind, "fields": dict(self.fields), "line": self.line, "severity": self.severity}


def events_of(records: Iterable[Record]) -> Iterator[Event]:
    """The events of messages, in order; constant memory."""
    reader = EventReader()
    for record in records:
        yield from reader.feed(record)
    yield from reader.close()


_NOTHING: tuple[Event, ...] = ()
_NONE: Found = []
_KEY = 6  # characters by which a message is looked up
_MAX_STATEMENT = 4096  # characters of a message in which facts are sought
# Starts of messages from which nothing is to be learned: most of the lines of a verbose build.
_CHATTER = (
    "Searching for input",
    "Registering ",
    "Registered plugin",
    "Importing initializer",
    "Running: ",
    "        ",  # dimensions and
    "    Input ",  # tensors of the graph that TensorRT for RTX lists
    "    Output ",
    "ACTIVATION ",  # and a name: the layers that TensorRT 8 to 10 lists
    "CONCATENATION ",
    "CONSTANT ",
    "CONVOLUTION ",
    "ELEMENTWISE ",
    "GATHER ",
    "IDENTITY ",
    "MATRIX_MULTIPLY ",
    "NORMALIZATION ",
    "POOLING ",
    "REDUCE ",
    "SHUFFLE ",
    "SOFTMAX ",
    "UNARY ",
)

_BANNER = re.compile(
    r"^(?:&&&& )?(?P<result>RUNNING|PASSED|FAILED|WAIVED|TASK_\w+) (?P<tool>[\w.]+)(?: .*?# (?P<command>.*))?",
    re.DOTALL,
)
_WEIGHTS = re.compile(
    r"^Weights \[name=(?P<weights>.*)\] had the following issues when converted to (?P<type>\w+)", re.DOTALL
)
_WEIGHTS_ISSUE = re.compile(r"^ ?- (?P<issue>(?:Subnormal|Values|Finite|Overflow)\w*[^\n]*)", re.IGNORECASE)
_AFFECTED = re.compile(r"^ ?- (?P<n>\d+) weights are affected by this issue: (?P<issue>[^\n]*)")
_ISSUES = (("overflow", "overflow"), ("less than smallest positive", "underflow"), ("ubnormal", "subnormal"))


def _issue(text: str) -> str:
    return next((name for sign, name in _ISSUES if sign in text), text)


def _affected(text: str) -> dict[str, Any] | None:
    match = _AFFECTED.match(text)
    return {_issue(match["issue"]): whole(match["n"])} if match else None


# Facts that several messages tell together: how a further one is read, and what the event is called.
_TOLD_TOGETHER: Mapping[str, tuple[Callable[[str], dict[str, Any] | None], str]] = {
    "onnx_header": (onnx_header, "onnx_header"),
    "fp16_weights_summary": (_affected, "fp16_weights_summary"),
    "perf section": (old_summary, "perf"),
}


class EventReader:
    """Turns messages into events, one at a time; remembers what later messages leave out."""

    def __init__(self) -> None:
        self.phase = ""
        self._node = NodeContext()
        self._table = ProfileTable()
        self._open: Event | None = None
        self._weights = ""
        tuning = Tuning()
        self._tuning = tuning
        self._by_start: dict[str, Callable[[str], Found] | None] = {
            **{start[:_KEY]: None for start in _CHATTER},
            "Tactic": tuning.tactic,
            "Fastest Tactic"[:_KEY]: tuning.fastest,
            "Set Tactic Name"[:_KEY]: tuning.named,
            "------": self._dashes,
            "======": tuning.costs,
            "******": tuning.formats,
            ">>>>>>": tuning.chosen,
            "Parsing node"[:_KEY]: self._at,
            "Static check"[:_KEY]: self._at,
            "Setting a default quantization"[:_KEY]: self._setting,
            "Layers:\n"[:_KEY]: layers,
            "Engine Layer Information"[:_KEY]: self._engine,
        }

    def feed(self, record: Record) -> Sequence[Event]:
        """The events of one message."""
        return self.read(record.message, record.severity, record.line)

    def close(self) -> Sequence[Event]:
        """What was begun and is complete as nothing follows."""
        begun, self._open = self._open, None
        return _NOTHING if begun is None else (begun,)

    def read(self, text: str, severity: LogSeverity, line: int | None = None) -> Sequence[Event]:
        """:meth:`feed`, without a record."""
        if self._open is not None:
            more = self._more(text)
            if more is not None:
                self._open = more
                return _NOTHING
            return (*self.close(), *self.read(text, severity, line))
        if severity == "verbose":
            handler = self._by_start.get(text[:_KEY], self._verbose)
            if handler is None:
                return _NOTHING
        else:
            self.phase = phase_of(text, severity, self.phase)
            handler = self._by_start.get(text[:_KEY]) or self._any
        found = handler(text)
        if not found:
            return _NOTHING
        kind, fields = found[0]
        if kind in _TOLD_TOGETHER:
            self._continue, kind = _TOLD_TOGETHER[kind]
            self._open = Event(kind, fields, line, severity)
            return _NOTHING
        if len(found) == 1:
            return (Event(kind, fields, line, severity),)
        return [Event(kind, fields, line, severity) for kind, fields in found]

    def read_all(self, texts: Iterable[str], severity: LogSeverity, line: int) -> Iterator[Event]:
        """:meth:`read` for messages of one line each, from this line on."""
        chatter = self._by_start if severity == "verbose" else {}
        for number, text in enumerate(texts, line):
            if self._open is None and chatter.get(text[:_KEY], self) is None:
                continue
            yield from self.read(text, severity, number)

    def _more(self, text: str) -> Event | None:
        begun = self._open
        more = self._continue(text)
        if begun is None or more is None or (more.keys() & begun.fields.keys()) - {"unit"}:
            return None
        return replace(begun, fields={**begun.fields, **more})

    def _at(self, text: str) -> Found:
        self.phase = "parse"
        self._node.at(text)
        return _NONE

    def _dashes(self, text: str) -> Found:
        self.phase = phase_of(text, "verbose", self.phase)
        return self._tuning.runner(text)

    def _setting(self, text: str) -> Found:
        default = text.startswith("Setting a default quantization params")
        return self._tuning.default_scale(text) if default else self._any(text)

    def _engine(self, text: str) -> Found:
        return layers(text) if text.startswith("Engine Layer Information") else self._any(text)

    def _verbose(self, text: str) -> Found:
        """Verbose messages that their first characters do not tell; most name a node first."""
        self.phase = phase_of(text, "verbose", self.phase)
        if "puts: [" in text and "Error" not in text:  # "NODE [Op] inputs: [", the other half of the parser's
            return _NONE
        if " Set Tactic Name: " in text:
            return self._tuning.named(text)
        if " Tactic: " in text and " profiling completed in " in text:
            return self._tuning.profiled(text)
        if "o valid tactics for" in text:
            return self._tuning.unfit(text)
        if "rror" in text:
            return self._any(text)
        found = _stated(text, VERBOSE_STATEMENTS) if may_state(text) else _NONE
        return found or (self._reports(text) if text[:1] in _REPORTED else _NONE)

    def _any(self, text: str) -> Found:
        """Messages that their first characters do not tell."""
        if " Set Tactic Name: " in text:
            return self._tuning.named(text)
        if " profiling completed in " in text:
            return self._tuning.profiled(text)
        if "o valid tactics for" in text:
            return self._tuning.unfit(text)
        if "rror" not in text and "Parameter check" not in text and not text.startswith(_NAMED_ERRORS):
            return self._parser(text) or _stated(text, STATEMENTS) or self._reports(text)
        found = [*_errors(text), *self._parser(text)]
        found += _stated(text, STATEMENTS)
        return found or self._reports(text)

    def _parser(self, text: str) -> Found:
        return self._node.read(text[:_MAX_ERROR])

    def _reports(self, text: str) -> Found:
        """Lines of headers, summaries and tables."""
        text = text[:_MAX_STATEMENT]
        header = onnx_header(text)
        if header is not None:
            return [("onnx_header", header)]
        if "weights are affected by" in text and (affected := _affected(text)):
            return [("fp16_weights_summary", affected)]
        if is_section(text):
            return [("perf section", {"metric": text})]
        if match := _WEIGHTS.match(text):
            self._weights = match["weights"]
            return []
        if self._weights and (match := _WEIGHTS_ISSUE.match(text)):
            return [("fp16_weights_issue", {"weights": self._weights, "issue": _issue(match["issue"])})]
        if match := _BANNER.match(text):
            return [_banner(match, text)]
        return summary(text) or self._table.read(text)


_MAX_ERROR = 65_536
_NAMED_ERRORS = ("INVALID_", "FAILED_", "INTERNAL_ERROR: ", "UNSUPPORTED_STATE: ", "UNSPECIFIED_ERROR: ")
_REPORTED = frozenset("ONIPDMH -[W")  # first characters of what the reports' readers know


def _stated(text: str, statements: Sequence[Statement]) -> Found:
    """The facts that a message states, one of each kind."""
    text = text[:_MAX_STATEMENT]
    found: dict[str, dict[str, Any]] = {}
    for statement in statements:
        if statement.needle in text and statement.kind not in found:
            fields = statement.read(text)
            if fields is not None:
                found[statement.kind] = fields
    return [*found.items()]


def _errors(text: str) -> Found:
    head = text[:_MAX_ERROR]
    return [*core_errors(head), *failed_checks(head)]


def _banner(match: re.Match[str], text: str) -> tuple[str, dict[str, Any]]:
    fields: dict[str, Any] = {"tool": match["tool"], **of_banner(text)}
    if match["command"]:
        fields["command"] = match["command"]
    if match["result"] == "RUNNING" or match["result"].startswith("TASK_"):
        return (
            "trtexec_start" if match["result"] == "RUNNING" else "trtexec_task",
            {**fields, "state": match["result"]},
        )
    return "trtexec_result", {"result": match["result"], **fields}
