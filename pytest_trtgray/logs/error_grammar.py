"""TensorRT's errors taken apart: the core's three grammars, and the ONNX parser's."""

from __future__ import annotations

import itertools
import re
from typing import Any

from pytest_trtgray.logs.numbers import whole

Fields = dict[str, Any]
Found = list[tuple[str, Fields]]

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
"""The ONNX parser's error codes (``NvOnnxParser.h``); not those of TensorRT's core, which share numbers."""

CORE_CODES = (
    "SUCCESS",
    "UNSPECIFIED_ERROR",
    "INTERNAL_ERROR",
    "INVALID_ARGUMENT",
    "INVALID_CONFIG",
    "FAILED_ALLOCATION",
    "FAILED_INITIALIZATION",
    "FAILED_EXECUTION",
    "FAILED_COMPUTATION",
    "INVALID_STATE",
    "UNSUPPORTED_STATE",
)
"""TensorRT's ``ErrorCode`` (``NvInferRuntimeCommon.h``). What a message calls its category is the class of the
exception and not this."""

# 8 to 9: "[file.cpp::func::line] Error Code N: Category (text)"; 10 on: "API::method: Error Code N: Category (text In
# func at /_src/file.cpp:line (cudaError n: text))", or the older bracket where no API call is known.
_CORE = re.compile(r"Error Code:? (?P<code>\d+): (?P<category>[A-Za-z][A-Za-z ]{0,40}?) \(")
_BY = re.compile(
    r"(?:\[(?P<file>[\w./\\-]+\.\w+)::(?P<func>[^\]\n]*)::(?P<line>\d+)\] |(?P<api>(?:[\w~<>]+::)+~?\w+|create\w+): )$"
)
_MAX_ERRORS = 100  # in one message
_MAX_BY = 400  # characters before an error in which the one who says it is sought
# up to 7: "file (line) - Category Error in func: N (text)", without text where the category says it
_CORE7_IN = re.compile(
    r" (?P<category>\w{1,40}) Error in (?P<func>[^\n]{0,300}?): (?P<code>-?\d+)(?: \((?P<text>[^\n]*)\))?$", re.M
)
_CORE7_AT = re.compile(r"(?P<file>[^\s(][^\n(]*\.\w{1,4}) \((?P<line>\d+)\) -$")
# up to 7: "Parameter check failed at: ../builder/Network.cpp::addInput::957, condition: isValidDims(dims, …)"
_CHECK = re.compile(
    r"Parameter check failed(?: at: (?P<file>[^:\n]+)::(?P<func>[^\n]*?)::(?P<line>\d+))?, condition: "
    r"(?P<condition>[^\n]*)"
)
# up to 7, and where there is no exception: "INVALID_CONFIG: text", by the names of the enum ErrorCode
_NAMED = re.compile(r"^(?P<name>" + "|".join(CORE_CODES[1:]) + r"): (?P<text>.*)", re.DOTALL)
_WHERE = re.compile(
    r" ?In (?P<func>[^\s()]\S*(?: \S+)?) at (?P<file>\S+?):(?P<line>\d+)"
    r"(?: \(cudaError (?P<cuda_code>\d+): (?P<cuda_text>[^\n]*?)\))?(?: [^\n]*)?$"
)
_PARSER = re.compile(
    r"ERROR: (?P<file>.{0,400}?):(?P<line>\d+) In function (?P<func>[^\n]{0,400}?):\n(?P<indent> {0,200})\["
    r"(?P<code>\d+)\] (?P<desc>.*)",
    re.DOTALL,
)
# IParserError as text: Polygraphy and trtexec print it, and the parser itself where it has no node
_STATUS = re.compile(
    r"(?:In node (?P<node>-?\d+) (?:with name: (?P<node_name>.{0,4000}?) and operator: (?P<operator>\S*) )?)?"
    r"\((?P<func>\w+)\): (?P<code_name>[A-Z]+(?:_[A-Z]+)+): (?P<desc>.*)",
    re.DOTALL,
)
_DUMPED_NAME = re.compile(r'^ *(?:Node name: (?P<plain>.*)|name: "(?P<quoted>[^"\n]*)"$)', re.MULTILINE | re.DOTALL)
_WHILE = re.compile(r"While parsing node number (?P<number>\d+) \[(?P<operator>[^\s\]]*)")
_AT = re.compile(
    r"(?:Static check for parsing|Parsing) node: (?P<name>.*?)(?: \[(?P<operator>[^\[\]\n]*)\])?$", re.DOTALL
)


def core_errors(text: str) -> Found:
    """``core_error`` for each error of the core in a message; a parser's error may hold several.

    Fields: ``code``, ``category``, ``message`` (all that stands in parentheses), ``text`` (without the place), ``api``,
    ``file``, ``func``, ``line``, ``cuda_code``, ``cuda_text``; what a grammar lacks is absent.
    """
    matches = list(itertools.islice(_CORE.finditer(text), _MAX_ERRORS))
    found: Found = []
    for number, match in enumerate(matches):
        following = matches[number + 1] if number + 1 < len(matches) else None
        end = text.rfind("\n", match.end(), following.start()) if following else len(text)
        said = text[match.end() : max(end, match.end())]
        fields: Fields = {"code": whole(match["code"]), "category": match["category"]}
        if by := _BY.search(text[max(0, match.start() - _MAX_BY) : match.start()]):
            fields |= _present(by.groupdict())
        fields["message"] = fields["text"] = message = _closed(said)
        if where := _WHERE.search(message):
            fields["text"] = message[: where.start()].strip()
            fields |= _present(where.groupdict())
        found.append(("core_error", _placed(fields)))
    for match in _CORE7_IN.finditer(text) if " Error in " in text else ():
        at = _CORE7_AT.search(text[max(0, match.start() - _MAX_BY) : match.start()])
        if at is None:
            continue
        fields = _present({**at.groupdict(), **match.groupdict()})
        fields["code"] = whole(fields["code"])
        fields["message"] = fields["text"] = match["text"] or ""
        found.append(("core_error", _placed(fields)))
    if not found and (named := _NAMED.match(text)):
        fields = {"code": CORE_CODES.index(named["name"]), "category": named["name"]}
        found.append(("core_error", {**fields, "message": named["text"], "text": named["text"]}))
    return found


def failed_checks(text: str) -> Found:
    """``param_check_failed``: the condition that an argument does not meet."""
    found: Found = []
    for match in _CHECK.finditer(text):
        fields = _placed(_present(match.groupdict()))
        condition = fields["condition"].split(" In ", 1)[0].rstrip()
        if condition.count(")") > condition.count("("):  # that of the error around it
            condition = condition[:-1].rstrip()
        fields["condition"] = condition
        if code := re.search(r"Error Code:? (\d+)", text):
            fields["code"] = whole(code[1])
        found.append(("param_check_failed", fields))
    return found


def _present(groups: dict[str, Any]) -> Fields:
    return {name: value for name, value in groups.items() if value is not None}


def _placed(fields: Fields) -> Fields:
    if "file" in fields:
        fields["file"] = fields["file"].replace("\\", "/").rsplit("/", 1)[-1]
    for name in ("line", "cuda_code"):
        if name in fields:
            fields[name] = whole(fields[name])
    return fields


def _closed(said: str) -> str:
    """The text of an error up to its closing parenthesis; the text itself may hold unbalanced ones."""
    whole = said.rstrip()
    for end in (len(whole), said.find("\n")):
        candidate = said[: max(end, 0)].rstrip()
        if candidate.endswith(")"):
            return candidate[:-1].rstrip("\n")
    depth = 1
    for position, character in enumerate(said[:20_000]):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return said[:position]
    return whole


class NodeContext:
    """What the parser says in several messages about one error."""

    def __init__(self) -> None:
        self._number = -1
        self._name = ""
        self._operator = ""
        self._dumping = False
        self._at = ""

    def at(self, text: str) -> None:
        """A message that the parser has come to a node, which may be inside of another."""
        self._at = text

    def read(self, text: str) -> Found:
        """``parser_error``, where a message completes one.

        Fields: ``code``, ``code_name``, ``node`` (-1: none), ``node_name``, ``node_operator``, ``func``, ``desc``,
        ``file``, ``line``; ``outer`` if the node is inside of another: ``name (operator)`` of that one.
        """
        if match := _WHILE.search(text):
            self._number, self._operator, self._name = whole(match["number"]), match["operator"], ""
            return []
        if "--- Begin node ---" in text:
            self._dumping = True
        if self._dumping:
            if "--- End node ---" in text:
                self._dumping = False
            elif not self._name and (match := _DUMPED_NAME.search(_SOURCE.sub("", text, count=1))):
                self._name = match["plain"] if match["plain"] is not None else match["quoted"]
            return []
        if match := _PARSER.search(text):
            return [("parser_error", self._error(match))]
        if (match := _STATUS.search(text)) and match["code_name"] in PARSER_CODES:
            fields = {
                "code": PARSER_CODES.index(match["code_name"]),
                "code_name": match["code_name"],
                "node": whole(match["node"], -1),
                "node_name": match["node_name"] or "",
                "node_operator": match["operator"] or "",
                "func": match["func"],
                "desc": match["desc"],
            }
            return [("parser_error", fields)]
        return []

    def _error(self, match: re.Match[str]) -> Fields:
        code = whole(match["code"])
        fields = {
            "code": code,
            "code_name": PARSER_CODES[code] if code < len(PARSER_CODES) else "",
            "node": self._number,
            "node_name": self._name,
            "node_operator": self._operator,
            "func": match["func"],
            "desc": match["desc"].replace("\n" + match["indent"], "\n"),
            "file": match["file"],
            "line": whole(match["line"]),
        }
        inner = _AT.match(self._at)
        name, operator = (inner["name"], inner["operator"] or "") if inner else ("", "")
        if self._number >= 0 and operator and operator != self._operator:
            # Inside of a function, an If or a Loop the error names the outer node alone.
            fields |= {"node_name": name, "node_operator": operator, "outer": f"{self._name} ({self._operator})"}
        self._number, self._name, self._operator = -1, "", ""
        return fields


_SOURCE = re.compile(r"^\S+\.(?:cpp|hpp|h):\d+: (?:--- Begin node ---\n?)?")
