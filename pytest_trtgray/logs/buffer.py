"""Records while they are collected: the latest in memory, older ones in a temporary file, never more than fits."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

from pytest_trtgray.logs.records import Record
from pytest_trtgray.logs.storage import from_line, to_line

MAX_RECORDS = 50_000
"""In memory. A verbose build of BERT-base says 12,000 to 26,000 messages, ResNet-50 in TensorRT 8.5 35,000."""
MAX_CHARACTERS = 64_000_000
"""In memory, of all messages together; one message can be 600 KiB."""
MAX_FILE_BYTES = 1 << 30
"""Beyond this a disk counts as full."""
PRODUCER = "trtgray"
"""Of a note about the log itself."""
_CHUNK = 1 << 20
_PROBLEMS = frozenset(("internal_error", "error", "warning"))


@dataclass
class _Segment:
    """Older records as JSON Lines in a file that has no name any more: it vanishes with the process."""

    descriptor: int
    process: int
    size: int = 0
    count: int = 0


class RecordBuffer(Sequence[Record]):
    """Records in the order in which they were said.

    Whoever appends is called from C++ and cannot handle an error: a disk that is full costs older chatter, and one
    note says so. Errors and warnings stay in memory then; the first ones, if they are too many.

    Args:
        max_records: kept in memory; the older half goes to a temporary file when there are more.
        max_characters: of messages kept in memory.
    """

    def __init__(self, max_records: int | None = None, max_characters: int | None = None) -> None:
        self._max_records = MAX_RECORDS if max_records is None else max_records
        self._max_characters = MAX_CHARACTERS if max_characters is None else max_characters
        self._segments: list[_Segment] = []
        self._memory: list[Record] = []
        self._characters = 0
        self._has_disk = True

    @classmethod
    def of(cls, records: Iterable[Record]) -> RecordBuffer:
        """A buffer of records that are there already."""
        buffer = cls()
        for record in records:
            buffer.append(record)
        return buffer

    def append(self, record: Record) -> None:
        """Take one more."""
        self._memory.append(record)
        self._characters += len(record.message)
        if len(self._memory) > self._max_records or self._characters > self._max_characters:
            self._make_room()

    def __len__(self) -> int:
        return sum(segment.count for segment in self._segments) + len(self._memory)

    def __iter__(self) -> Iterator[Record]:
        # as it is now: somebody may append meanwhile
        memory, stored = tuple(self._memory), [(segment, segment.size) for segment in self._segments]
        for segment, size in stored:
            yield from _read(segment, size)
        yield from memory

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        stored = len(self) - len(self._memory)
        if isinstance(index, int):
            if index < 0:
                index += len(self)
            if index >= stored:
                return self._memory[index - stored]
        return tuple(self)[index]

    def _make_room(self) -> None:
        half = max(len(self._memory) // 2, 1)
        older, latest = self._memory[:half], self._memory[half:]
        if self._has_disk:
            try:
                self._store(older)
                older = []
            except OSError as error:
                self._has_disk = False
                older.append(_note(error, older[-1]))
        self._memory = self._without_chatter(older) + latest
        self._characters = sum(len(record.message) for record in self._memory)

    def _store(self, records: Sequence[Record]) -> None:
        """Move records to the file, all or none.

        Raises:
            OSError: there is no room, or no temporary folder.
        """
        content = b"".join(map(to_line, records))
        segment = self._segment()
        if segment.size + len(content) > MAX_FILE_BYTES:
            raise OSError(errno.EFBIG, f"the temporary file has {MAX_FILE_BYTES >> 20} MiB")
        written = 0
        while written < len(content):
            # at a position of our own: a process that was forked from this one shares the file's
            written += os.pwrite(segment.descriptor, content[written:], segment.size + written)
        segment.size += len(content)
        segment.count += len(records)

    def _segment(self) -> _Segment:
        """Where this process may write; a process that was forked must not write where its parent does."""
        if not self._segments or self._segments[-1].process != os.getpid():
            descriptor, name = tempfile.mkstemp(prefix="trtgray-log-", suffix=".jsonl")
            weakref.finalize(self, os.close, descriptor)
            with contextlib.suppress(OSError):
                Path(name).unlink()
            self._segments.append(_Segment(descriptor, os.getpid()))
        return self._segments[-1]

    def _without_chatter(self, records: list[Record]) -> list[Record]:
        """The problems among records for which there is no room; of too many, the first: they are the causes."""
        kept: list[Record] = []
        characters = 0
        for record in records:
            if record.severity not in _PROBLEMS and record.producer != PRODUCER:
                continue
            characters += len(record.message)
            if len(kept) >= self._max_records // 4 or characters > self._max_characters // 4:
                break
            kept.append(record)
        return kept


def _note(error: OSError, last: Record) -> Record:
    return replace(
        last,
        severity="info",
        producer=PRODUCER,
        message=f"older messages are dropped, except for errors and warnings: {error.strerror or error}",
        details={},
    )


def _read(segment: _Segment, size: int) -> Iterator[Record]:
    rest, position = b"", 0
    while position < size:
        chunk = os.pread(segment.descriptor, min(_CHUNK, size - position), position)
        if not chunk:
            return
        position += len(chunk)
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield from_line(line)
