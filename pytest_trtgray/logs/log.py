"""An engine's log as a test sees it."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from pytest_trtgray.errors import LogError
from pytest_trtgray.findings import Finding, errors, failure_message
from pytest_trtgray.logs import redaction
from pytest_trtgray.logs.diagnosis import UNDIAGNOSED, Diagnosis, diagnose, findings_of
from pytest_trtgray.logs.events import Event, EventReader, events_of
from pytest_trtgray.logs.headers import Header
from pytest_trtgray.logs.identity import TELLING, Identity
from pytest_trtgray.logs.reader import batches
from pytest_trtgray.logs.records import PROBLEMS, Record, errors_of
from pytest_trtgray.logs.ruleset import RuleSet

_VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|\b0x[0-9a-fA-F]+\b|\b\d[\d.,]*\b")
# "graph.cc:5777 CleanUnused] text" of ONNX Runtime, "ModelImporter.cpp:1071: text" of TensorRT's parser
_SOURCE = re.compile(r"^\S+\.(?:cc|cpp|h):\d+(?::| \S+\]) ")
_CODE = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")
_PRODUCTS = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
"""Of messages that were captured: who said them is known."""


@dataclass(frozen=True)
class Log:
    """What a runtime said about one engine.

    Attributes:
        records: whole messages, in order; of a huge file all problems and the first of the others.
        events: what they say.
        producer: who printed most of the messages.
        product: ``TensorRT``, ``TensorRT-RTX``, ``ONNX Runtime``, as far as the text says.
        version: of the product, or empty.
        phase: the last that was reached: ``parse``, ``build``, ``load``, ``run``.
        messages: how many there were; of a huge file only some are records.
        counts: how many events of each kind there were; of a huge file only some are events.
        rules: what it is diagnosed by; ``None`` for the built-in rules.
    """

    records: Sequence[Record]
    events: tuple[Event, ...] = ()
    producer: str = ""
    product: str = ""
    version: str = ""
    phase: str = ""
    messages: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    rules: RuleSet | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, records: Sequence[Record], rules: RuleSet | None = None) -> Log:
        """The log of messages that were captured."""
        identity, kept = Identity(), _Kept()
        for event in events_of(records):
            kept.event(event)
            if event.kind in TELLING:
                identity.event(event)
        producer = _main_producer(Counter(record.producer for record in records))
        return cls(
            records=records,
            events=(*kept.events,),
            producer=producer,
            product=_PRODUCTS.get(producer) or identity.product(producer),
            version=identity.version,
            phase=next((record.phase for record in reversed(records) if record.phase), ""),
            messages=len(records),
            counts=kept.counts,
            rules=rules,
        )

    @property
    def errors(self) -> tuple[Record, ...]:
        """Messages of severity error and worse."""
        return tuple(errors_of(self.records))

    @property
    def warnings(self) -> tuple[Record, ...]:
        """Messages of severity warning."""
        return tuple(r for r in self.records if r.severity == "warning")

    @functools.cached_property
    def diagnosis(self) -> Diagnosis:
        """The first cause of what went wrong, with its remedy; ``OK`` if nothing did. Without what is private."""
        redact = redaction.current()
        found = diagnose(self.records, self.events, rules=self.rules)
        evidence = tuple(replace(item, text=redact(item.text)) for item in found.evidence)
        return replace(found, where=redact(found.where), evidence=evidence)

    @functools.cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What a rule knows, the first cause first; then warnings that no rule knows, alike ones once.

        Without what is private (:mod:`~pytest_trtgray.logs.redaction`).
        """
        known = findings_of(self.records, self.events, rules=self.rules)
        unknown = [group for group in _groups(self.warnings) if self._is_unknown(group[0])]
        return tuple(map(redaction.current().finding, (*known, *map(_group_finding, unknown))))

    def assert_clean(self, allow: str | Iterable[str] = ()) -> None:
        """Fail on every error and every warning that is not allowed.

        Args:
            allow: codes of the table in ``docs/log-rules.md``, such as ``OK_WARN_INT64_IO``; and regular expressions
                that are searched in messages, such as ``has Int64 binding``.

        Raises:
            AssertionError: the first finding, then the others.
            LogError: an entry is neither.
        """
        __tracebackhide__ = True
        allowed = (allow,) if isinstance(allow, str) else tuple(allow)
        codes = {text for text in allowed if _CODE.fullmatch(text)}
        patterns = [_compiled(text) for text in allowed if text not in codes]
        rest = [record for record in self.records if not any(p.search(record.message) for p in patterns)]
        # a warning that a rule calls harmless is one all the same
        problems = Log.of([record for record in rest if record.severity in PROBLEMS], self.rules)
        warned = {finding.rule for finding in problems.findings}
        failing = [
            finding
            for finding in Log.of(rest, self.rules).findings
            if (finding.severity != "advice" or finding.rule in warned)
            and finding.rule.removeprefix("log.") not in codes
        ]
        if failing:
            raise AssertionError(failure_message("the log is not clean", failing))

    def check(self) -> None:
        """Fail if the log has errors.

        Raises:
            AssertionError: the first error, then the others.
        """
        __tracebackhide__ = True
        failing = errors(self.findings)
        if failing:
            raise AssertionError(failure_message("the log has errors", failing))

    def _is_unknown(self, record: Record) -> bool:
        """Whether no rule knows a warning, nor calls it noise: as an error it would have no diagnosis."""
        if findings_of([record], rules=self.rules):
            return False
        as_error = findings_of([replace(record, severity="error")], rules=self.rules)
        return any(finding.rule == f"log.{UNDIAGNOSED}" for finding in as_error)


def read(source: str | Path | BinaryIO) -> Log:
    """Read a log file, of any size, in one pass and bounded memory.

    Raises:
        LogError: the file cannot be read, or is not text.
    """
    reader, identity, kept = EventReader(), Identity(), _Kept()
    producers: Counter[str] = Counter()
    for header, first, texts in batches(source):
        severity = header.severity
        producers[header.producer] += len(texts)
        for event in reader.read_all(kept.messages(header, first, texts, reader), severity, first):
            kept.event(event)
            if event.kind in TELLING:
                identity.event(event)
    for event in reader.close():
        kept.event(event)
    producer = _main_producer(producers)
    return Log(
        records=(*kept.records,),
        events=(*kept.events,),
        producer=producer,
        product=identity.product(producer),
        version=identity.version,
        phase=reader.phase,
        messages=producers.total(),
        counts=kept.counts,
    )


def _main_producer(producers: Counter[str]) -> str:
    named = [(name not in ("other", "stderr"), count, name) for name, count in producers.items()]
    return max(named)[2] if named else ""


MAX_KEPT_BYTES = 24 << 20
"""Of the text of problems, and of the text of the other messages."""
MAX_KEPT_RECORDS = 20_000
MAX_KEPT_EVENTS = 20_000
"""Of one kind."""


class _Kept:
    """What stays in memory of a log."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.events: list[Event] = []
        self.counts: dict[str, int] = {}
        self.takes_all = True
        self._records = {True: MAX_KEPT_RECORDS, False: MAX_KEPT_RECORDS}
        self._bytes = {True: MAX_KEPT_BYTES, False: MAX_KEPT_BYTES}

    def messages(self, header: Header, first: int, texts: list[str], reader: EventReader) -> Iterable[str]:
        """The messages, kept as they are read one after the other; each is kept with the phase before it."""
        if self.takes_all or header.severity in PROBLEMS:
            return self._as_read(header, first, texts, reader)
        return texts

    def _as_read(self, header: Header, first: int, texts: list[str], reader: EventReader) -> Iterator[str]:
        for line, text in enumerate(texts, first):
            if self.takes_all or header.severity in PROBLEMS:
                self._message(header, line, text, reader.phase)
            yield text

    def _message(self, header: Header, line: int, text: str, phase: str) -> None:
        problem = header.severity in PROBLEMS
        self._records[problem] -= 1
        self._bytes[problem] -= len(text)
        if self._records[problem] >= 0 and self._bytes[problem] >= 0:
            self.records.append(header.record(line, text, phase))
        elif not problem:
            self.takes_all = False

    def event(self, event: Event) -> None:
        kind = event.kind
        count = self.counts[kind] = self.counts.get(kind, 0) + 1
        if count <= MAX_KEPT_EVENTS:
            self.events.append(event)


def _groups(records: Iterable[Record]) -> list[list[Record]]:
    """Records whose messages differ in names and numbers only."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(_VARIABLE.sub("_", record.message), []).append(record)
    return list(groups.values())


def _group_finding(members: Sequence[Record]) -> Finding:
    first = members[0]
    text = _SOURCE.sub("", first.message).strip()
    more = f" (and {len(members) - 1} like it)" if len(members) > 1 else ""
    return Finding(
        "warning",
        first.producer,
        f"{first.producer}: {text}{more}",
        "log.warning",
        {"messages": len(members), "phase": first.phase},
    )


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise LogError(
            f"allow={pattern!r}", f"is no regular expression: {error}", "A backslash before what is meant literally."
        ) from None
