"""One message of a runtime, and the process-wide place where messages arrive."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

LogSeverity = Literal["internal_error", "error", "warning", "info", "verbose"]
SEVERITIES: tuple[LogSeverity, ...] = ("internal_error", "error", "warning", "info", "verbose")
PROBLEMS: tuple[LogSeverity, ...] = ("internal_error", "error", "warning")

MAX_RECORDS = 200_000
"""A verbose BERT-base build says 26,000 lines; beyond this the oldest that are no problems go."""


@dataclass(frozen=True)
class Record:
    """One whole message; it may have many lines. Live messages and those read from files are the same type.

    Attributes:
        severity: see :data:`SEVERITIES`.
        producer: who printed it: ``tensorrt``, ``tensorrt_rtx``, ``trtexec``, ``polygraphy``, ``onnxruntime``,
            ``triton``, ``deepstream``, ``torch_tensorrt``, ``tensorrt_llm``, ``jetson``; ``stderr`` for a line
            that passed by every logger.
        message: the text, as said; without prefix, colours and the indentation that the printer added.
        phase: ``parse``, ``build``, ``load``, ``run``; empty before the first.
        time_s: seconds since the epoch; of a file, its clock read as UTC, 0 where a format has none.
        thread: identifier of the thread that said it; 0 if unknown.
        line: number of its first line in the file, from 1; None for a live message.
        source: ``file:line`` of the C++ source that said it, or empty.
        function: the C++ function that said it, or empty.
        tag: what a format says beside the severity: ``TRT`` for TensorRT's own messages in another's log.
        prefix: what stood before the message in the file, verbatim.
    """

    severity: LogSeverity
    producer: str
    message: str
    phase: str = ""
    time_s: float = 0.0
    thread: int = 0
    line: int | None = None
    source: str = ""
    function: str = ""
    tag: str = ""
    prefix: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, fit for JSON Lines."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """The inverse of :meth:`to_dict`."""
        return cls(**{key: data[key] for key in cls.__dataclass_fields__ if key in data})


@dataclass(frozen=True, eq=False)
class _Collector:
    records: deque[Record]
    apart: bool


class LogSink:
    """Collects the messages of all runtimes of a process; safe to call from any thread.

    :meth:`say` is called from C++ callbacks and therefore never raises.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._collectors: list[_Collector] = []
        self._phase = ""

    def say(self, severity: LogSeverity, producer: str, message: str) -> None:
        """Take one message."""
        with contextlib.suppress(Exception):
            record = Record(severity, producer, message, self._phase, round(time.time(), 3), threading.get_ident())
            with self._lock:
                for collector in reversed(self._collectors):
                    collector.records.append(record)
                    if len(collector.records) > MAX_RECORDS:
                        _drop_chatter(collector.records)
                    if collector.apart:
                        break

    @contextlib.contextmanager
    def collect(self, phase: str, *, apart: bool = False) -> Iterator[deque[Record]]:
        """All messages said inside the ``with`` block, by any thread.

        Args:
            phase: that the messages belong to.
            apart: whether collectors around this one miss them: somebody tries something that may fail.
        """
        collector = _Collector(deque(), apart)
        with self._lock:
            self._collectors.append(collector)
            outer, self._phase = self._phase, phase
        try:
            yield collector.records
        finally:
            with self._lock:
                # threads do not leave in the order in which they came
                self._collectors = [other for other in self._collectors if other is not collector]
                self._phase = outer

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Messages said inside the ``with`` block belong to phase ``name``."""
        outer, self._phase = self._phase, name
        try:
            yield
        finally:
            self._phase = outer


def _drop_chatter(records: deque[Record]) -> None:
    """Make room for a tenth more: the oldest messages that are no problems go; the oldest of all if all are."""
    room = max(MAX_RECORDS // 10, 1)
    kept: list[Record] = []
    for record in records:
        is_problem = record.severity in ("internal_error", "error", "warning")
        if is_problem or room == 0:
            kept.append(record)
        else:
            room -= 1
    records.clear()
    records.extend(kept[-MAX_RECORDS:])


SINK = LogSink()
"""The one sink of this process: TensorRT allows one logger a process and warns about a second."""


def errors_of(records: Iterable[Record]) -> list[Record]:
    """Errors, in order."""
    return [record for record in records if record.severity in ("internal_error", "error")]
