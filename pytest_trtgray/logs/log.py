"""An engine's log as a test sees it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pytest_trtgray.findings import Finding, errors, failure_message
from pytest_trtgray.logs.events import Event, EventReader
from pytest_trtgray.logs.headers import Header
from pytest_trtgray.logs.identity import TELLING, Identity
from pytest_trtgray.logs.reader import batches
from pytest_trtgray.logs.records import PROBLEMS, Record, errors_of

_VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|\b0x[0-9a-fA-F]+\b|\b\d[\d.,]*\b")
# "graph.cc:5777 CleanUnused] text" of ONNX Runtime, "ModelImporter.cpp:1071: text" of TensorRT's parser
_SOURCE = re.compile(r"^\S+\.(?:cc|cpp|h):\d+(?::| \S+\]) ")


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
    """

    records: tuple[Record, ...]
    events: tuple[Event, ...] = ()
    producer: str = ""
    product: str = ""
    version: str = ""
    phase: str = ""
    messages: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def errors(self) -> tuple[Record, ...]:
        """Messages of severity error and worse."""
        return tuple(errors_of(self.records))

    @property
    def warnings(self) -> tuple[Record, ...]:
        """Messages of severity warning."""
        return tuple(r for r in self.records if r.severity == "warning")

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Errors and warnings; messages that differ in names and numbers only are one finding."""
        return (*_grouped(self.errors, "error"), *_grouped(self.warnings, "warning"))

    def check(self) -> None:
        """Fail if the log has errors.

        Raises:
            AssertionError: the first error, then the others.
        """
        __tracebackhide__ = True
        failing = errors(self.findings)
        if failing:
            raise AssertionError(failure_message("the log has errors", failing))


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
        for line, text in enumerate(texts, first):
            if kept.takes_all or severity in PROBLEMS:
                kept.message(header, line, text, reader.phase)
            for event in reader.read(text, severity, line):
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
    named = [(count, name) for name, count in producers.items() if name != "stderr"]
    return max(named)[1] if named else "stderr" if producers else ""


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

    def message(self, header: Header, line: int, text: str, phase: str) -> None:
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


def _grouped(records: Iterable[Record], severity: str) -> list[Finding]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(_VARIABLE.sub("_", record.message), []).append(record)
    findings = []
    for members in groups.values():
        first = members[0]
        text = _SOURCE.sub("", first.message).strip()
        more = f" (and {len(members) - 1} like it)" if len(members) > 1 else ""
        findings.append(
            Finding(
                "error" if severity == "error" else "warning",
                first.producer,
                f"{first.producer}: {text}{more}",
                f"log.{severity}",
                {"messages": len(members), "phase": first.phase},
            )
        )
    return findings
