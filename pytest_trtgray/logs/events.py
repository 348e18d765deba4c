"""What messages say, as facts with fields."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_trtgray.logs.records import LogSeverity, Record

PARSER_CODES = (
    "SUCCESS",
    "INTERNAL_ERROR",
    "MEM_ALLOC_FAILED",
    "MODEL_DESERIALIZE_FAILED",
    "INVALID_VALUE",
    "INVALID_GRAPH",
    "INVALID_NODE",
    "UNSUPPORTED_GRAPH",
    "UNSUPPORTED_NODE",
    "UNSUPPORTED_NODE_ATTR",
    "UNSUPPORTED_NODE_INPUT",
    "UNSUPPORTED_NODE_DATATYPE",
    "UNSUPPORTED_NODE_DYNAMIC",
    "UNSUPPORTED_NODE_SHAPE",
    "REFIT_FAILED",
)
"""The ONNX parser's error codes; not those of TensorRT's core, which share numbers."""


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


class EventReader:
    """Turns messages into events; remembers what later messages leave out."""

    def __init__(self) -> None:
        self._node = _Node()

    def feed(self, record: Record) -> list[Event]:
        """The events of one message."""
        text = record.message
        found: list[tuple[str, dict[str, Any]]] = []
        if "rror" in text:
            found += _core_errors(text)
        found += self._parser(text)
        return [Event(kind, fields, record.line, record.severity) for kind, fields in found]

    def _parser(self, text: str) -> list[tuple[str, dict[str, Any]]]:
        start = _PARSING.match(text)
        if start:
            self._node.inner = (start["name"], start["operator"])
            return []
        if "--- Begin node ---" in text:
            name = _NODE_NAME.search(text)
            if name:
                self._node.name = name["plain"] if name["plain"] is not None else name["quoted"]
            return []
        while_parsing = _WHILE_PARSING.search(text)
        if while_parsing:
            self._node.number = int(while_parsing["number"])
            self._node.operator = while_parsing["operator"]
            self._node.name = ""
            return []
        found = _PARSER_ERROR.search(text)
        if found:
            node, self._node = self._node, _Node(inner=self._node.inner)
            return [("parser_error", _parser_error(found, node))]
        found = _PARSER_STATUS.search(text)
        if found and found["name"] in PARSER_CODES:
            return [
                (
                    "parser_error",
                    {
                        "code": PARSER_CODES.index(found["name"]),
                        "code_name": found["name"],
                        "node": int(found["node"] or -1),
                        "node_name": found["node_name"] or "",
                        "node_operator": found["operator"] or "",
                        "func": found["func"],
                        "desc": found["desc"],
                    },
                )
            ]
        return []


@dataclass
class _Node:
    """The node that the parser is at."""

    number: int = -1
    name: str = ""
    operator: str = ""
    inner: tuple[str, str] = ("", "")


_PARSING = re.compile(r"(?:Static check for parsing|Parsing) node: (?P<name>.*) \[(?P<operator>[^\[\]\n]*)\]$", re.DOTALL)
_WHILE_PARSING = re.compile(r"While parsing node number (?P<number>\d+) \[(?P<operator>[^\s\]]*) -> ")
_NODE_NAME = re.compile(r'^(?:Node name: (?P<plain>.*)|name: "(?P<quoted>[^"\n]*)")\Z|^name: "(?P<other>[^"\n]*)"$', re.M | re.S)
_NODE_NAME = re.compile(r'^Node name: (?P<plain>.*)|^ *name: "(?P<quoted>[^"\n]*)"$', re.M | re.S)
_PARSER_ERROR = re.compile(
    r"ERROR: (?P<file>.*?):(?P<line>\d+) In function (?P<func>[^\n]*?):\n\s*\[(?P<code>\d+)\] (?P<desc>.*)", re.DOTALL
)
_PARSER_STATUS = re.compile(
    r"(?:In node (?P<node>-?\d+) with name: (?P<node_name>.*?) and operator: (?P<operator>\S*) )?"
    r"\((?P<func>\w+)\): (?P<name>[A-Z_]{5,}): (?P<desc>.*)",
    re.DOTALL,
)


def _parser_error(found: re.Match[str], node: _Node) -> dict[str, Any]:
    code = int(found["code"])
    name, operator = node.name, node.operator
    inner_name, inner_operator = node.inner
    outer: list[str] = []
    if node.number >= 0 and inner_operator and (inner_name, inner_operator) != (name, operator):
        # an error inside of a function, an If or a Loop: the header names the outer node only
        if operator not in ("", inner_operator):
            outer = [f"{name} ({operator})"]
            name, operator = inner_name, inner_operator
    return {
        "code": code,
        "code_name": PARSER_CODES[code] if code < len(PARSER_CODES) else "",
        "node": node.number,
        "node_name": name,
        "node_operator": operator,
        "outer": outer,
        "func": found["func"],
        "file": found["file"],
        "line": int(found["line"]),
        "desc": found["desc"],
    }


_CORE = re.compile(
    r"(?:(?:\d+: )?\[(?P<file>[\w./\\-]+\.\w+)::(?P<func>[^\]\n]*?)::(?P<line>\d+)\] |(?P<api>[\w:~<>]+::~?\w+|create\w+): )?"
    r"Error Code:? (?P<code>\d+): (?P<category>[A-Za-z][\w ]*?) \("
)
_CORE7 = re.compile(
    r"(?P<file>\S[^\n(]*?\.\w+) \((?P<line>\d+)\) - (?P<category>\w+) Error in (?P<func>\S[^\n]*?): (?P<code>-?\d+)(?: \((?P<text>[^\n]*)\))?"
)
_IN = re.compile(r" ?In (?P<func>\S+(?: \S+)?) at (?P<file>\S+?):(?P<line>\d+)(?: \(cudaError (?P<cuda>\d+): (?P<cuda_text>[^\n]*?)\))?$")


def _core_errors(text: str) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    for match in _CORE.finditer(text):
        message = _in_parentheses(text, match.end())
        fields: dict[str, Any] = {
            "api": match["api"] or "",
            "code": int(match["code"]),
            "category": match["category"],
            "message": message,
            "text": message,
            "file": (match["file"] or "").replace("\\", "/").rsplit("/", 1)[-1],
            "func": match["func"] or "",
            "line": int(match["line"] or 0),
        }
        where = _IN.search(message)
        if where:
            fields["text"] = message[: where.start()].strip()
            fields["file"] = where["file"].rsplit("/", 1)[-1]
            fields["func"] = where["func"]
            fields["line"] = int(where["line"])
            if where["cuda"]:
                fields["cuda_error"] = int(where["cuda"])
                fields["cuda_text"] = where["cuda_text"]
        found.append(("core_error", fields))
    for match in _CORE7.finditer(text):
        found.append(
            (
                "core_error",
                {
                    "api": "",
                    "code": int(match["code"]),
                    "category": match["category"],
                    "message": match["text"] or "",
                    "text": match["text"] or "",
                    "file": match["file"].replace("\\", "/").rsplit("/", 1)[-1],
                    "func": match["func"],
                    "line": int(match["line"]),
                },
            )
        )
    return found


def _in_parentheses(text: str, start: int) -> str:
    """What stands up to the closing parenthesis of the error, which ends its line or the message."""
    depth = 1
    for position in range(start, min(len(text), start + 20_000)):
        character = text[position]
        if character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if depth == 0:
                return text[start:position]
    end = text.find("\n", start)
    return text[start:] if end < 0 else text[start:end]
