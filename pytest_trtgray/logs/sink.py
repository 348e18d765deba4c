"""The process-wide place where the messages of all runtimes arrive."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pytest_trtgray.logs.buffer import RecordBuffer
from pytest_trtgray.logs.records import SEVERITIES, LogSeverity, Record

_RANK = {severity: rank for rank, severity in enumerate(SEVERITIES)}


@dataclass(frozen=True, eq=False)
class _Collector:
    records: RecordBuffer
    apart: bool
    rank: int


class LogSink:
    """Collects the messages of all runtimes of a process; safe to call from any thread.

    :meth:`say` is called from C++ callbacks and therefore never raises.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._collectors: list[_Collector] = []
        self._least = -1  # severity that anybody wants, as a rank
        self._phase = ""

    def say(self, severity: LogSeverity, producer: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        """Take one message, with what came beside its text."""
        try:
            if _RANK[severity] <= self._least:
                self._hand_out(
                    Record(
                        severity,
                        producer,
                        message,
                        self._phase,
                        time.time(),
                        threading.get_ident(),
                        monotonic_s=time.monotonic(),
                        details=details or {},
                    )
                )
        except Exception:  # not with contextlib: this is called for every line of a build
            pass

    def take(self, record: Record) -> None:
        """Take one message that somebody has read; when and in which phase it was said is noted now."""
        with contextlib.suppress(Exception):
            if _RANK[record.severity] <= self._least:
                self._hand_out(
                    replace(
                        record,
                        line=None,
                        phase=self._phase,
                        time_s=time.time(),
                        monotonic_s=time.monotonic(),
                        thread=threading.get_ident(),
                    )
                )

    def replay(self, record: Record) -> None:
        """Take one message that was said long ago, as it is."""
        with contextlib.suppress(Exception):
            self._hand_out(record)

    def _hand_out(self, record: Record) -> None:
        rank = _RANK[record.severity]
        with self._lock:
            for collector in reversed(self._collectors):
                if rank <= collector.rank:
                    collector.records.append(record)
                if collector.apart:
                    break

    @contextlib.contextmanager
    def collect(
        self, phase: str | None, *, apart: bool = False, level: LogSeverity = "verbose"
    ) -> Iterator[RecordBuffer]:
        """All messages said inside the ``with`` block, by any thread.

        Args:
            phase: that the messages belong to; ``None`` to leave it as it is.
            apart: whether collectors around this one miss them: somebody tries something that may fail.
            level: the least severity that is wanted.
        """
        collector = _Collector(RecordBuffer(), apart, _RANK[level])
        with self._lock:
            self._set_collectors([*self._collectors, collector])
            outer = self._phase
            self._phase = outer if phase is None else phase
        try:
            yield collector.records
        finally:
            with self._lock:
                # threads do not leave in the order in which they came
                self._set_collectors([other for other in self._collectors if other is not collector])
                self._phase = outer

    def _set_collectors(self, collectors: list[_Collector]) -> None:
        self._collectors = collectors
        self._least = max((collector.rank for collector in collectors), default=-1)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Messages said inside the ``with`` block belong to phase ``name``."""
        outer, self._phase = self._phase, name
        try:
            yield
        finally:
            self._phase = outer

    def renew_lock(self) -> None:
        """After a fork: another thread may have held the lock, and there is no other thread in the child."""
        self._lock = threading.Lock()


SINK = LogSink()
"""The one sink of this process: TensorRT allows one logger a process and warns about a second."""

os.register_at_fork(after_in_child=SINK.renew_lock)
