"""How long a build spent in which phase, from the times of its messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_trtgray.logs.records import Record

MAX_SPANS = 60
"""The longest; a build times tactics in thousands of phases."""


@dataclass(frozen=True)
class Span:
    """A phase of a build.

    Attributes:
        name: of the phase.
        parent: the phase that it is part of; empty for the outermost.
        start_s: when it began, as :attr:`Record.time_s` tells time.
        seconds: how long it took, as far as messages tell.
    """

    name: str
    parent: str
    start_s: float
    seconds: float


def spans_of(records: Sequence[Record]) -> tuple[Span, ...]:
    """The phases of a log in the order of their beginning: parse, build, load, and what a progress monitor told.

    A phase lasts from its first message to the first one of the next phase. Phases of a progress monitor, which are
    heard where a log is kept with ``verbose``, have both ends; one that began anew before it ended is as long as all
    of it.
    """
    timed = [record for record in records if record.time_s]
    spans: list[Span] = []
    for record, following in zip(timed, [*timed[1:], *timed[-1:]], strict=True):
        end = following.time_s
        if spans and spans[-1].name == record.phase:
            spans[-1] = Span(record.phase, "", spans[-1].start_s, max(end - spans[-1].start_s, 0.0))
        elif record.phase:
            spans.append(Span(record.phase, "", record.time_s, max(end - record.time_s, 0.0)))
    longest = sorted((*spans, *_monitored(timed)), key=lambda span: -span.seconds)[:MAX_SPANS]
    return tuple(sorted(longest, key=lambda span: span.start_s))


def _monitored(records: Sequence[Record]) -> list[Span]:
    """What :func:`pytest_trtgray.engines.callbacks.monitor_of` said: each phase from its first message to its last."""
    found: dict[str, Span] = {}
    for record in records:
        name = str(record.details.get("progress", ""))
        if not name:
            continue
        begun = found.get(name)
        start = begun.start_s if begun else record.time_s
        parent = str(record.details.get("parent", "")) or record.phase
        found[name] = Span(name, parent, start, record.time_s - start)
    return list(found.values())
