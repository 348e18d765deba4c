"""An engine's log as a test sees it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pytest_trtgray.findings import Finding, errors, failure_message
from pytest_trtgray.logs.events import Event, EventReader
from pytest_trtgray.logs.reader import read_records
from pytest_trtgray.logs.records import Record, errors_of

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
        messages: how many there were; more than records for a huge file.
    """

    records: tuple[Record, ...]
    events: tuple[Event, ...] = ()
    producer: str = ""
    product: str = ""
    version: str = ""
    phase: str = ""
    messages: int = 0

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
    """Read a log file.

    Raises:
        LogError: the file cannot be read, or is not text.
    """
    records: list[Record] = []
    events: list[Event] = []
    reader = EventReader()
    for record in read_records(source):
        records.append(record)
        events += reader.feed(record)
    return Log(tuple(records), tuple(events), messages=len(records))


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
