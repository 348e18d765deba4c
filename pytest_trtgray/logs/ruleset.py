"""Rules of diagnosis as data: read from TOML files, checked, compiled. ``docs/log-rules.md`` describes the schema."""

from __future__ import annotations

import functools
import importlib.resources
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pytest_trtgray.errors import TrtGrayError
from pytest_trtgray.findings import Severity
from pytest_trtgray.logs.records import SEVERITIES

if sys.version_info >= (3, 11):
    import tomllib
else:  # the same library, before it went into Python
    import tomli as tomllib

Rank = Literal["capture", "cause", "consequence"]
"""``capture``: the log itself is not whole, so this comes before anything that it says; ``cause``: the first one said
counts; ``consequence``: counts where no cause is known."""

STATED = ("internal_error", "error", "warning")
"""Severities of messages that a condition looks at unless it says otherwise."""

_ID = re.compile(r"[A-Z][A-Z0-9]*(?:[_-][A-Z0-9]+)*")
_FILE_TABLES = ("rule", "noise", "follow_up")
_REGEXES = ("text", "api", "category", "function", "operator", "call", "result")
_LISTS: Mapping[str, type] = {"event": str, "error_code": int, "severity": str, "producer": str, "phase": str}
_RULE_TEXTS = ("code", "optimisation", "severity", "cause", "remedy", "effect", "rank")
_RULE_KEYS = {*_RULE_TEXTS, "benign", "priority", "sources", "match", "requires", "unless", "explains"}
_NEEDED = ("severity", "cause", "remedy", "match")


class RuleError(TrtGrayError):
    """A file of rules cannot be used; names the file, the rule, the key and the reason."""


@dataclass(frozen=True)
class Condition:
    """What one message, event or result of a call has to be; whatever is given has to hold.

    Attributes:
        text: found in the message, without the place in the source that said it.
        event: kinds of the event.
        api: the API or function that reported a core error.
        error_code: numbers of a core or parser error.
        category: of a core error.
        function: of the parser.
        operator: ONNX operator of a parser error.
        standard_operator: whether that operator is one of ONNX's own.
        severity: of the message.
        producer: of the message.
        phase: of the message; one that says none fits every phase.
        call: the call whose result is looked at.
        result: what it returned or raised, as text.
        above: fields of the event with what they must exceed.
        needles: one of these is in every text that ``text`` fits, in lower case; empty if that cannot be said.
    """

    text: re.Pattern[str] | None = None
    event: frozenset[str] = frozenset()
    api: re.Pattern[str] | None = None
    error_code: frozenset[int] = frozenset()
    category: re.Pattern[str] | None = None
    function: re.Pattern[str] | None = None
    operator: re.Pattern[str] | None = None
    standard_operator: bool | None = None
    severity: frozenset[str] = frozenset()
    producer: frozenset[str] = frozenset()
    phase: frozenset[str] = frozenset()
    call: re.Pattern[str] | None = None
    result: re.Pattern[str] | None = None
    above: tuple[tuple[str, float], ...] = ()
    needles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """One known way in which a log speaks of something.

    Attributes:
        code: of the diagnosis; empty for a rule that only advises.
        optimisation: number in the table of optimisation rules, such as ``OPT-05``; empty for none.
        severity: of the finding.
        cause: what is behind it.
        remedy: what to do.
        sources: threads, documents or source files that say so.
        effect: what the remedy brought, in numbers of a source; empty where no source has any.
        rank: see :data:`Rank`.
        priority: decides between rules that fit one message; then the one that stands first.
        benign: whether a build that completed is well in spite of it.
        match: alternatives, one of which has to hold for one message.
        requires: conditions that have to hold for some message each, anywhere in the log.
        unless: conditions none of which may hold anywhere.
        explains: codes of what follows from this.
        file: that the rule stands in.
    """

    code: str
    optimisation: str
    severity: Severity
    cause: str
    remedy: str
    sources: tuple[str, ...]
    effect: str
    rank: Rank
    priority: int
    benign: bool
    match: tuple[Condition, ...]
    requires: tuple[Condition, ...]
    unless: tuple[Condition, ...]
    explains: frozenset[str]
    file: str

    @property
    def id(self) -> str:
        """What a finding calls it, and what an allow list names."""
        return self.code or self.optimisation


@dataclass(frozen=True)
class RuleSet:
    """Rules in the order in which they are asked.

    Attributes:
        rules: a user's own first.
        noise: messages that say nothing about the run.
        follow_ups: messages that say that something failed, and not why.
    """

    rules: tuple[Rule, ...]
    noise: tuple[Condition, ...]
    follow_ups: tuple[Condition, ...]

    def __add__(self, other: RuleSet) -> RuleSet:
        return RuleSet(self.rules + other.rules, self.noise + other.noise, self.follow_ups + other.follow_ups)


@functools.cache
def builtin_rules() -> RuleSet:
    """The rules that come with this package."""
    folder = importlib.resources.files("pytest_trtgray.logs") / "rules"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".toml")), key=lambda entry: entry.name)
    return _joined(_parsed(entry.name, entry.read_text("utf-8")) for entry in files)


def load_rules(paths: Iterable[str | Path]) -> RuleSet:
    """A user's own rules, before the built-in ones.

    Raises:
        RuleError: a file cannot be read or a rule in it is not valid.
    """
    own = []
    for path in paths:
        try:
            text = Path(path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RuleError(path, f"cannot be read: {error}", "Check trt_rules in the ini file.") from error
        own.append(_parsed(str(path), text))
    return _joined([*own, builtin_rules()])


def _joined(sets: Iterable[RuleSet]) -> RuleSet:
    return sum(sets, RuleSet((), (), ()))


def _parsed(file: str, text: str) -> RuleSet:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RuleError(file, f"is not TOML: {error}") from error
    for table in data:
        if table not in _FILE_TABLES:
            raise RuleError(file, f"unknown table {table!r}", f"A file of rules has {_listed(_FILE_TABLES)}.")
    return RuleSet(
        tuple(_rule(file, entry, index) for index, entry in enumerate(_tables(file, data, "rule"))),
        tuple(_aside(file, entry, f"noise {index + 1}") for index, entry in enumerate(_tables(file, data, "noise"))),
        tuple(
            _aside(file, entry, f"follow_up {index + 1}")
            for index, entry in enumerate(_tables(file, data, "follow_up"))
        ),
    )


def _tables(file: str, data: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = data.get(name, [])
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise RuleError(file, f"{name!r} is no list of tables", f"Write [[{name}]].")
    return found


class _Where:
    """The place that an error names."""

    def __init__(self, file: str, rule: str, key: str = "") -> None:
        self.file, self.rule, self.key = file, rule, key

    def at(self, key: str) -> _Where:
        return _Where(self.file, self.rule, f"{self.key}.{key}" if self.key else key)

    def error(self, reason: str, remedy: str = "See docs/log-rules.md for the schema.") -> RuleError:
        key = f": {self.key}" if self.key else ""
        return RuleError(f"{self.file}: {self.rule}{key}", reason, remedy)


def _rule(file: str, entry: Mapping[str, Any], index: int) -> Rule:
    name = entry.get("code") or entry.get("optimisation") or index + 1
    where = _Where(file, f"rule {name}")
    _check_keys(where, entry, _RULE_KEYS)
    texts = {key: _text(where.at(key), entry.get(key, "")) for key in _RULE_TEXTS}
    if not (texts["code"] or texts["optimisation"]):
        raise where.error("has neither 'code' nor 'optimisation'")
    for key in ("code", "optimisation"):
        if texts[key] and not _ID.fullmatch(texts[key]):
            raise where.at(key).error(f"{texts[key]!r} is no name", "Write capitals, digits and _, such as MY_CODE.")
    for key in _NEEDED:
        if not entry.get(key):
            raise where.at(key).error("is missing")
    if texts["severity"] not in get_args(Severity):
        raise where.at("severity").error(f"{texts['severity']!r} is not one of {_listed(get_args(Severity))}")
    rank = texts["rank"] or "cause"
    if rank not in get_args(Rank):
        raise where.at("rank").error(f"{rank!r} is not one of {_listed(get_args(Rank))}")
    sources = _strings(where.at("sources"), entry.get("sources", []))
    if texts["effect"] and not (sources and re.search(r"\d", texts["effect"])):
        raise where.at("effect").error(
            "promises something without a number or without a source", "Give the source's number, or no effect."
        )
    return Rule(
        code=texts["code"],
        optimisation=texts["optimisation"],
        severity=texts["severity"],  # type: ignore[arg-type]
        cause=texts["cause"],
        remedy=texts["remedy"],
        sources=sources,
        effect=texts["effect"],
        rank=rank,  # type: ignore[arg-type]
        priority=_typed(where.at("priority"), entry.get("priority", 0), int),
        benign=_typed(where.at("benign"), entry.get("benign", False), bool),
        match=_conditions(where.at("match"), entry["match"]),
        requires=_conditions(where.at("requires"), entry.get("requires", [])),
        unless=_conditions(where.at("unless"), entry.get("unless", [])),
        explains=frozenset(_strings(where.at("explains"), entry.get("explains", []))),
        file=file,
    )


def _aside(file: str, entry: Mapping[str, Any], name: str) -> Condition:
    """An entry of ``noise`` or ``follow_up``: a condition, and the reason for it, which is for the reader."""
    where = _Where(file, name)
    _text(where.at("reason"), entry.get("reason", ""))
    return _condition(where, {key: value for key, value in entry.items() if key != "reason"})


def _conditions(where: _Where, value: Any) -> tuple[Condition, ...]:
    if not isinstance(value, list):
        raise where.error("is no list of conditions")
    return tuple(
        _condition(_Where(where.file, where.rule, f"{where.key}[{i}]"), entry) for i, entry in enumerate(value)
    )


def _condition(where: _Where, value: Any) -> Condition:
    if not isinstance(value, dict) or not value:
        raise where.error("is no condition", "Write a table such as { text = 'out of memory' }.")
    _check_keys(where, value, {*_REGEXES, *_LISTS, "standard_operator", "above"})
    given: dict[str, Any] = {}
    for key in _REGEXES:
        if key in value:
            given[key] = _regex(where.at(key), value[key])
    for key, kind in _LISTS.items():
        if key in value:
            given[key] = frozenset(_listed_values(where.at(key), value[key], kind))
    for name in given.get("severity", ()):
        if name not in SEVERITIES:
            raise where.at("severity").error(f"{name!r} is not one of {_listed(SEVERITIES)}")
    if "standard_operator" in value:
        given["standard_operator"] = _typed(where.at("standard_operator"), value["standard_operator"], bool)
    if "above" in value:
        given["above"] = _above(where.at("above"), value["above"])
    if "text" in given:
        given["needles"] = needles_of(given["text"].pattern)
    return Condition(**given)


_SHORTEST_NEEDLE = 4


def needles_of(pattern: str) -> tuple[str, ...]:
    """For each alternative of a regular expression its longest plain part, in lower case.

    Looking for plain text takes a fraction of the time of a search, and nearly all searches are in vain. What stands
    in groups and classes or is repeated does not count, as it may be left out. Empty if an alternative has no such
    part.
    """
    found = []
    for alternative in _alternatives(pattern):
        longest = max(_plain_parts(alternative), key=len, default="")
        if len(longest) < _SHORTEST_NEEDLE:
            return ()
        found.append(longest.lower())
    return tuple(found)


# an escape, a class, a count, or a character
_PIECE = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{\d*,?\d*\}|.", re.DOTALL)


def _alternatives(pattern: str) -> list[list[str]]:
    """The pieces of each alternative outside of groups; a group is one piece, empty."""
    alternatives: list[list[str]] = [[]]
    depth = 0
    for match in _PIECE.finditer(pattern):
        piece = match[0]
        if piece == "(":
            depth += 1
        elif piece == ")":
            depth -= 1
            if depth == 0:
                alternatives[-1].append("")
        elif depth == 0 and piece == "|":
            alternatives.append([])
        elif depth == 0:
            alternatives[-1].append(piece)
    return alternatives


def _plain_parts(pieces: Sequence[str]) -> list[str]:
    parts = [""]
    for piece in pieces:
        if piece in ("?", "*") or (piece[:1] == "{" and len(piece) > 1):
            parts[-1] = parts[-1][:-1]  # what stands before may be left out
            parts.append("")
        elif len(piece) == 2 and piece[0] == "\\" and not piece[1].isalnum():
            parts[-1] += piece[1]
        elif len(piece) == 1 and piece not in ".^$+":
            parts[-1] += piece
        else:
            parts.append("")
    return parts


def _above(where: _Where, value: Any) -> tuple[tuple[str, float], ...]:
    if not isinstance(value, dict) or not value:
        raise where.error("is no table of numbers", "Write above = { seconds = 30 }.")
    for name, number in value.items():
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise where.at(name).error(f"{number!r} is no number")
    return tuple((name, float(number)) for name, number in value.items())


def _check_keys(where: _Where, entry: Mapping[str, Any], known: Iterable[str]) -> None:
    for key in entry:
        if key not in known:
            raise where.at(key).error("is not known", f"Known: {_listed(sorted(known))}.")


def _regex(where: _Where, value: Any) -> re.Pattern[str]:
    text = _text(where, value)
    try:
        return re.compile(text, re.IGNORECASE | re.MULTILINE)
    except re.error as error:
        raise where.error(f"is no regular expression: {error}") from error


def _text(where: _Where, value: Any) -> str:
    return str(_typed(where, value, str))


def _typed(where: _Where, value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise where.error(f"is {value!r}, not {_KINDS[kind]}")
    return value


_KINDS = {str: "text", int: "a whole number", bool: "true or false"}


def _strings(where: _Where, value: Any) -> tuple[str, ...]:
    return tuple(_listed_values(where, value, str))


def _listed_values(where: _Where, value: Any, kind: type) -> Sequence[Any]:
    values = value if isinstance(value, list) else [value]
    return [_typed(where, entry, kind) for entry in values]


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)
