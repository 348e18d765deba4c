"""What a log says went wrong: the first cause with its remedy, and everything worth a finding."""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_trtgray.findings import Finding, Severity, some
from pytest_trtgray.logs.events import Event, EventReader
from pytest_trtgray.logs.facts import facts_of
from pytest_trtgray.logs.records import Record
from pytest_trtgray.logs.ruleset import STATED, Condition, Rule, RuleSet, builtin_rules

OK = "OK"
UNDIAGNOSED = "UNDIAGNOSED"
"""The log has errors, and no rule knows them."""

_ERRORS = ("internal_error", "error")
_ERROR_KINDS = ("core_error", "parser_error")
_UNSTATED = ("stderr", "jetson")  # producers that print no severity
_SHOWN_CHARACTERS = 1_000
_QUOTED_CHARACTERS = 80
_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "advice")
# calls that return something unless they fail, and what they return or raise then
_RETURNS = re.compile(
    r"build_(?:serialized_network|engine)|deserialize|parse|create_execution_context|^(?:Builder|Runtime)$"
)
_FAILED = re.compile(r"^\W*(?:None|False|RAISED)\b")
# who said it is no part of what was said: it moves with every release
_SOURCE = re.compile(r"\s*\bIn [^\n()]{1,80} at /_src/[^\s:]+:\d+ ?|^\w+\.(?:cpp|hpp|h):\d+: ", re.MULTILINE)


@dataclass(frozen=True)
class ApiResult:
    """What a call returned or raised: more reliable than text, where it is at hand.

    Attributes:
        call: the call, such as ``build_serialized_network``.
        result: what it returned, as ``repr`` shows it, or ``RAISED`` and the exception.
        errors: of a parser: ``code``, ``desc``, ``func``, ``node_name``, ``node_operator`` each.
    """

    call: str
    result: str
    errors: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Evidence:
    """A message that a diagnosis rests on; ``line`` is its first in the file, None for a live message or a result."""

    line: int | None
    text: str


@dataclass(frozen=True)
class Diagnosis:
    """What a log comes down to.

    Attributes:
        code: from the table in ``docs/log-rules.md``; ``OK`` and what begins with ``OK_`` ran or was built.
        severity: ``error`` if something failed, ``""`` for ``OK``.
        cause: what is behind it.
        remedy: what to do.
        sources: where cause and remedy were found.
        evidence: messages; the first is where it began.
        where: the ONNX node, tensor or file it is about, as far as the message says.
        optimisation: number of the optimisation rule that says the same, or empty.
    """

    code: str
    severity: str = ""
    cause: str = ""
    remedy: str = ""
    sources: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    where: str = ""
    optimisation: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether nothing failed."""
        return self.code == OK or self.code.startswith("OK_")


def diagnose(
    records: Iterable[Record],
    events: Iterable[Event] = (),
    api: Iterable[ApiResult] = (),
    rules: RuleSet | None = None,
) -> Diagnosis:
    """The first cause of what a log reports.

    A later error is often the consequence of an earlier one, so the first that a rule knows counts. An error
    that no rule knows gives ``UNDIAGNOSED``, unless a build completed after it: TensorRT also calls a skipped
    tactic an error. Without errors, warnings decide.

    Args:
        records: messages in order, of a file or of this process.
        events: what they say, from :func:`~pytest_trtgray.logs.events.events_of`; read from them if empty.
        api: results of the calls behind the log, where they are known.
        rules: the built-in ones by default.
    """
    reading = _read(records, events, api, rules)
    match = reading.first_cause
    if match is not None:
        return _diagnosis(match, reading)
    failure = reading.undiagnosed_failure
    if failure is not None:
        return _undiagnosed(failure)
    remark = reading.first_remark
    return Diagnosis(OK, cause="nothing that a rule knows") if remark is None else _diagnosis(remark, reading)


def findings_of(
    records: Iterable[Record],
    events: Iterable[Event] = (),
    api: Iterable[ApiResult] = (),
    rules: RuleSet | None = None,
) -> tuple[Finding, ...]:
    """One finding for every rule that fits, the first cause first; arguments as for :func:`diagnose`.

    What follows from a cause that is known is not reported again. Errors that no rule knows are one finding,
    ``log.UNDIAGNOSED``.
    """
    reading = _read(records, events, api, rules)
    found = [_finding(matches) for matches in reading.by_rule()]
    unknown = reading.undiagnosed
    if unknown:
        found.append(_undiagnosed_finding(unknown))
    return tuple(sorted(found, key=lambda finding: _SEVERITIES.index(finding.severity)))


# -- what rules look at


@dataclass(frozen=True)
class _Statement:
    """A message, an event, a fact or a result, as conditions see it; ``said`` is the whole message.

    Statements of one position come from one message; a fact, which follows from many, has a number of its own.
    """

    position: int
    line: int | None
    said: str
    text: str
    kind: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    severity: str = ""
    producer: str = ""
    phase: str = ""
    is_stated: bool = True
    fact: int = 0


@dataclass(frozen=True)
class _Match:
    rule: Rule
    order: int
    statement: _Statement
    where: str

    @property
    def key(self) -> tuple[int, int, int]:
        """Smaller comes first: what was said first; of one message, the rule that outranks the others."""
        return (self.statement.position, -self.rule.priority, self.order)


def _read(
    records: Iterable[Record], events: Iterable[Event], api: Iterable[ApiResult], rules: RuleSet | None
) -> _Reading:
    messages = list(records)
    results = list(api)
    placed = _placed(messages, list(events))
    by_position: dict[int, list[Event]] = {}
    for position, event in placed:
        by_position.setdefault(position, []).append(event)
    reading = _Reading(rules or builtin_rules())
    for position, record in enumerate(messages):
        reading.take(_of_record(position, record, by_position.get(position, ())))
    for number, (position, fact) in enumerate(facts_of(messages, placed), start=1):
        reading.take([_of_fact(position, fact, number)])
    for position, result in enumerate(results, start=len(messages)):
        reading.take(_of_result(position, result))
    reading.settle()
    return reading


def _placed(records: Sequence[Record], events: Sequence[Event]) -> list[tuple[int, Event]]:
    """Events with the index of the message that said them."""
    lines = [record.line for record in records if record.line is not None]
    if len(lines) == len(records) and events and all(event.line is not None for event in events):
        # of a huge file not every message is kept; what it says then belongs to the one before it
        return [(max(bisect.bisect_right(lines, event.line or 0) - 1, 0), event) for event in events]
    reader = EventReader()
    return [(position, event) for position, record in enumerate(records) for event in reader.feed(record)]


def _of_record(position: int, record: Record, events: Iterable[Event]) -> Iterator[_Statement]:
    is_stated = record.producer not in _UNSTATED
    common = {"severity": record.severity, "producer": record.producer, "phase": record.phase, "is_stated": is_stated}
    text = record.message
    if not is_stated or record.severity in STATED:
        text = _SOURCE.sub("", text)
    yield _Statement(position, record.line, record.message, text, **common)  # type: ignore[arg-type]
    for event in events:
        about = (_text_of(event), event.kind, event.fields)
        yield _Statement(position, record.line, record.message, *about, **common)  # type: ignore[arg-type]


def _text_of(event: Event) -> str:
    for name in ("desc", "text", "message"):
        if name in event.fields:
            return str(event.fields[name])
    return ""


def _of_fact(position: int, fact: Event, number: int) -> _Statement:
    said = f"{fact.kind}: " + ", ".join(f"{name} = {value}" for name, value in fact.fields.items())
    return _Statement(position, fact.line, said, said, fact.kind, fact.fields, fact=number)


def _of_result(position: int, result: ApiResult) -> Iterator[_Statement]:
    said = f"{result.call} -> {result.result}"
    yield _Statement(position, None, said, said, "api", {"call": result.call, "result": result.result}, "info")
    for error in result.errors:
        desc = str(error.get("desc", ""))
        yield _Statement(position, None, desc, desc, "parser_error", {**error, "desc": desc}, "error")
        yield _Statement(position, None, desc, _SOURCE.sub("", desc), "", error, "error")
        for event in EventReader().feed(Record("error", "", desc)):
            yield _Statement(position, None, desc, _text_of(event), event.kind, event.fields, "error")


# -- matching


class _Reading:
    """The messages of one log against all rules."""

    def __init__(self, rules: RuleSet) -> None:
        self._rules = rules
        self._index = _index_of(rules)
        self._matches: list[_Match] = []
        self._held: set[int] = set()
        self._errors: list[_Statement] = []
        self._at_nodes: list[_Statement] = []
        self._completed = -1

    def take(self, statements: Iterable[_Statement]) -> None:
        """Ask all conditions about the statements of one message."""
        for statement in map(self._without_noise, statements):
            if statement is None:
                continue
            if statement.kind in ("build_completed", "api"):
                self._note_completion(statement)
            if statement.kind in _ERROR_KINDS and statement.is_stated and statement.severity not in STATED:
                continue  # a report that repeats an error
            if statement.kind == "parser_error":
                self._at_nodes.append(statement)
            if _is_failure(statement):
                self._errors.append(statement)
            lowered = statement.text.lower()
            for condition, owners in self._index.candidates(statement):
                if condition.needles and not any(needle in lowered for needle in condition.needles):
                    continue
                found = _holds(condition, statement)
                if found is None:
                    continue
                self._held.add(id(condition))
                for order, rule in owners:
                    self._matches.append(_Match(rule, order, statement, found))

    def settle(self) -> None:
        """Of the rules that fit a message keep the first, and find out what it is about."""
        by_place: dict[tuple[int, int, bool], list[_Match]] = {}
        for match in self._matches:
            if self._stands(match.rule):
                place = (match.statement.position, match.statement.fact, match.rule.rank == "capture")
                by_place.setdefault(place, []).append(match)
        self._matches = []
        for matches in by_place.values():
            best = min(matches, key=lambda match: match.key)
            where = next((match.where for match in matches if match.where and match.order == best.order), "")
            self._matches.append(replace(best, where=where or self._node_of(best.statement)))
        self._matches.sort(key=lambda match: match.key)
        known = {position for position, fact, _ in by_place if not fact}
        unknown = [error for error in self._errors if error.position not in known]
        if self._failures():
            unknown = [error for error in unknown if not self._is_follow_up(error)]
        self.undiagnosed = unknown

    def _node_of(self, statement: _Statement) -> str:
        """The node of the parser error that a message is, or that quotes it: the core says its errors first."""
        quoted = _first_line(statement.text)[:_QUOTED_CHARACTERS]
        for error in self._at_nodes:
            if error.position == statement.position or (quoted and quoted in error.text):
                return str(error.fields.get("node_name", ""))
        return ""

    @property
    def first_cause(self) -> _Match | None:
        """Of what failed; what the log lacks comes before what it says, a consequence after every cause."""
        capture = [match for match in self._matches if match.rule.rank == "capture"]
        return next(iter([*capture, *self._failures()]), None)

    @property
    def undiagnosed_failure(self) -> _Statement | None:
        """The first error that no rule knows and that no build has got over; one that says why, if there is one."""
        failures = [error for error in self.undiagnosed if error.position > self._completed]
        telling = [error for error in failures if not self._is_follow_up(error)]
        return next(iter([*telling, *failures]), None)

    @property
    def first_remark(self) -> _Match | None:
        """The gravest that is worth a word although nothing failed."""
        remarks = [match for match in self._matches if match.rule.code and match.rule.severity != "error"]
        if self._completed >= 0:
            remarks = [match for match in remarks if not match.rule.benign]
        return min(remarks, key=lambda match: (_SEVERITIES.index(match.rule.severity), match.key), default=None)

    def by_rule(self) -> list[list[_Match]]:
        """Matches by rule, without what follows from others."""
        failures = self._failures()
        explained = frozenset[str]().union(*(match.rule.explains for match in failures))
        has_cause = any(match.rule.rank == "cause" for match in failures)
        groups: dict[str, list[_Match]] = {}
        for match in self._matches:
            if match.rule.code in explained or (has_cause and match.rule.rank == "consequence"):
                continue
            groups.setdefault(match.rule.id, []).append(match)
        return list(groups.values())

    def evidence(self, match: _Match) -> tuple[Evidence, ...]:
        """The message, and what else the rule required."""
        return (_shown(match.statement),)

    def _failures(self) -> list[_Match]:
        errors = [match for match in self._matches if match.rule.severity == "error" and match.rule.rank != "capture"]
        return sorted(errors, key=lambda match: (match.rule.rank == "consequence", match.key))

    def _stands(self, rule: Rule) -> bool:
        return all(id(condition) in self._held for condition in rule.requires) and not any(
            id(condition) in self._held for condition in rule.unless
        )

    def _note_completion(self, statement: _Statement) -> None:
        if statement.kind == "build_completed" or _is_built(statement.fields):
            self._completed = max(self._completed, statement.position)

    def _without_noise(self, statement: _Statement) -> _Statement | None:
        """The statement without what says nothing; ``None`` if nothing is left. Noise may be a line of a message."""
        if statement.is_stated and statement.severity not in STATED:
            return statement
        text = statement.text
        lowered = text.lower()
        for condition in self._rules.noise:
            if condition.needles and not any(needle in lowered for needle in condition.needles):
                continue
            if _holds(condition, statement) is None:
                continue
            if condition.event or condition.text is None:
                return None
            text = condition.text.sub("", text)
        if text == statement.text:
            return statement
        return replace(statement, text=text) if text.strip() else None

    def _is_follow_up(self, statement: _Statement) -> bool:
        """Whether it says that something failed, and not why."""
        return statement.kind == "api" or any(
            _holds(condition, statement) is not None for condition in self._rules.follow_ups
        )


def _is_built(fields: Mapping[str, Any]) -> bool:
    return "build" in fields["call"] and not _FAILED.search(fields["result"])


def _is_failure(statement: _Statement) -> bool:
    if statement.kind == "api":
        return bool(_RETURNS.search(statement.fields["call"]) and _FAILED.search(statement.fields["result"]))
    return statement.severity in _ERRORS and statement.kind in ("", "parser_error")


Owners = tuple[tuple[int, Rule], ...]


class _Index:
    """Conditions by what they look at, so that the many verbose messages meet only few."""

    def __init__(self, rules: RuleSet) -> None:
        self._by_severity: dict[str, list[tuple[Condition, Owners]]] = {}
        self._by_kind: dict[str, list[tuple[Condition, Owners]]] = {}
        self._unstated: list[tuple[Condition, Owners]] = []
        for order, rule in enumerate(rules.rules):
            for condition in rule.match:
                self._add(condition, ((order, rule),))
            for condition in (*rule.requires, *rule.unless):
                self._add(condition, ())

    def candidates(self, statement: _Statement) -> Iterable[tuple[Condition, Owners]]:
        if statement.kind:
            return self._by_kind.get(statement.kind, ())
        if not statement.is_stated:
            return self._unstated
        return self._by_severity.get(statement.severity, ())

    def _add(self, condition: Condition, owners: Owners) -> None:
        kinds = set(condition.event)
        if condition.call or condition.result:
            kinds.add("api")
        if not kinds and (condition.api or condition.category):
            kinds.add("core_error")
        if not kinds and (condition.function or condition.operator or condition.standard_operator is not None):
            kinds.add("parser_error")
        if not kinds and condition.error_code:
            kinds |= {"core_error", "parser_error"}
        if kinds:
            for kind in kinds:
                self._by_kind.setdefault(kind, []).append((condition, owners))
            return
        self._unstated.append((condition, owners))
        for severity in condition.severity or STATED:
            self._by_severity.setdefault(severity, []).append((condition, owners))


@functools.lru_cache(maxsize=8)
def _index_of(rules: RuleSet) -> _Index:
    return _Index(rules)


def _holds(condition: Condition, statement: _Statement) -> str | None:
    """What the statement is about if the condition holds for it (often empty); ``None`` if it does not hold."""
    fields = statement.fields
    if condition.event and statement.kind not in condition.event:
        return None
    if condition.severity and statement.is_stated and statement.severity not in condition.severity:
        return None
    if condition.producer and statement.producer not in condition.producer:
        return None
    if condition.phase and statement.phase and statement.phase not in condition.phase:
        return None
    if condition.error_code and fields.get("code") not in condition.error_code:
        return None
    if condition.standard_operator is not None and condition.standard_operator != _is_standard(
        str(fields.get("node_operator", ""))
    ):
        return None
    for pattern, name in (
        (condition.category, "category"),
        (condition.function, "func"),
        (condition.operator, "node_operator"),
        (condition.call, "call"),
        (condition.result, "result"),
    ):
        if pattern and not pattern.search(str(fields.get(name, ""))):
            return None
    if condition.api and not condition.api.search(str(fields.get("api") or fields.get("func", ""))):
        return None
    for name, limit in condition.above:
        value = fields.get(name)
        if not isinstance(value, (int, float)) or not value > limit:
            return None
    found = condition.text.search(statement.text) if condition.text else None
    if condition.text and found is None:
        return None
    where = found.groupdict().get("where") if found else None
    return _name(str(where or fields.get("node_name", "") or fields.get("where", "")))


@functools.lru_cache(maxsize=1024)
def _is_standard(operator: str) -> bool:
    """Whether ONNX itself defines an operator; plugins and other domains have those that it does not."""
    import onnx

    return bool(operator) and bool(onnx.defs.has(operator))


# -- what comes out


def _shown(statement: _Statement) -> Evidence:
    return Evidence(statement.line, _printable(statement.said.strip()[:_SHOWN_CHARACTERS]))


def _name(text: str) -> str:
    """A name as it stood in a message, fit for one line."""
    return _printable(text.strip(" '\"`(),.;")).replace("\n", "\\n")


def _printable(text: str) -> str:
    """Names that are no UTF-8 arrive as surrogates, which no report can write."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _diagnosis(match: _Match, reading: _Reading) -> Diagnosis:
    rule = match.rule
    return Diagnosis(
        code=rule.code or rule.optimisation,
        severity=rule.severity,
        cause=rule.cause,
        remedy=rule.remedy,
        sources=rule.sources,
        evidence=reading.evidence(match),
        where=match.where,
        optimisation=rule.optimisation,
    )


_REPORT = "Read the message; a rule of your own can name its cause (ini option trt_rules)."


def _undiagnosed(statement: _Statement) -> Diagnosis:
    return Diagnosis(UNDIAGNOSED, "error", "an error that no rule knows", _REPORT, evidence=(_shown(statement),))


def _undiagnosed_finding(errors: Sequence[_Statement]) -> Finding:
    shown = _shown(errors[0])
    count = len({error.position for error in errors})
    return Finding(
        "error",
        _place(shown.line),
        f"an error that no rule knows: {_told(errors[0])}" + (f" (and {count - 1} more)" if count > 1 else ""),
        f"log.{UNDIAGNOSED}",
        {"messages": count, "line": shown.line},
        _REPORT,
    )


def _finding(matches: Sequence[_Match]) -> Finding:
    first = matches[0]
    rule = first.rule
    shown = _shown(first.statement)
    names = list(dict.fromkeys(match.where for match in matches if match.where))
    about = f" ({some(names)})" if names else ""
    effect = f" Reported effect: {rule.effect}." if rule.effect else ""
    return Finding(
        rule.severity,
        some(names) or _place(shown.line),
        f"{rule.cause}{about}: {_told(first.statement)}",
        f"log.{rule.id}",
        {
            "messages": len(matches),
            "line": shown.line,
            "optimisation": rule.optimisation or None,
            "sources": "; ".join(rule.sources),
        },
        f"{rule.remedy}{effect}",
    )


def _told(statement: _Statement) -> str:
    """The first line of the message, without where in the source it was said."""
    return _first_line(_printable(_SOURCE.sub("", statement.said)))


def _place(line: int | None) -> str:
    return "log" if line is None else f"line {line}"


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:300]
