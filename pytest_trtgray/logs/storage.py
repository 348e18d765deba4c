"""Records as JSON Lines: one a line, fields that say nothing left out.

For others to read (:func:`json_lines`) a line also names the schema and what the message states: ``event`` and its
``fields``; ``more_events`` where a message states several facts. What several messages state together, such as the
header of a model, stands with the one that follows them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pytest_trtgray.errors import LogError
from pytest_trtgray.files import write_atomically
from pytest_trtgray.logs.events import EventReader
from pytest_trtgray.logs.records import Record

SCHEMA = "trtgray.log/1"
"""A later version only adds fields; what no longer means the same gets a new number."""

_ENCODER = json.JSONEncoder(separators=(",", ":"), default=str)
_GZIP = 31  # zlib's window size that means a gzip header
_DEFAULTS: Mapping[str, Any] = {**Record("info", "", "").to_dict(), "severity": "", "producer": None, "message": None}


def to_line(record: Record, **more: Any) -> bytes:
    """One line with its newline; ``more`` comes first. Names that are no UTF-8 are escaped, as all that is no ASCII."""
    data = {name: value for name, value in record.to_dict().items() if value != _DEFAULTS[name]}
    return _ENCODER.encode({**more, **data}).encode() + b"\n"


def from_line(line: bytes | str) -> Record:
    """The inverse of :func:`to_line`, without ``more``."""
    return Record.from_dict(json.loads(line))


def json_lines(records: Iterable[Record], **more: Any) -> Iterator[bytes]:
    """Records for others to read: with the schema and with what each message states; ``more`` comes first."""
    reader = EventReader()
    for record in records:
        stated: dict[str, Any] = {}
        first, *others = [event.to_dict() for event in reader.feed(record)] or [{}]
        if first:
            stated = {"event": first["kind"], "fields": first["fields"]}
        if others:
            stated["more_events"] = [{"event": event["kind"], "fields": event["fields"]} for event in others]
        yield to_line(record, schema=SCHEMA, **more, **stated)


def write_jsonl(path: Path, records: Iterable[Record]) -> None:
    """Write records as :func:`json_lines`; takes as much memory as the file.

    Raises:
        OSError: it cannot be written.
    """
    write_atomically(path, b"".join(json_lines(records)))


def read_jsonl(path: Path) -> Iterator[Record]:
    """The records of a file that :func:`write_jsonl` made; lines that are no records are left out.

    Raises:
        LogError: the file cannot be read, or is of a later schema.
    """
    for _, record in read_tests(path):
        yield record


def read_tests(path: Path) -> Iterator[tuple[str, Record]]:
    """The same with the id of the test in which each was said; empty where a line names none.

    Raises:
        LogError: as above.
    """
    try:
        with path.open("rb") as file:
            for line in file:
                found = _from_foreign_line(path, line)
                if found is not None:
                    yield found
    except OSError as error:
        raise LogError(path, error.strerror or str(error), "Give a file of JSON Lines.") from error


def _from_foreign_line(path: Path, line: bytes) -> tuple[str, Record] | None:
    try:
        data = json.loads(line)
        schema = data.get("schema", SCHEMA)
        if schema != SCHEMA:
            raise LogError(path, f"has records of the schema {schema!r}, not {SCHEMA!r}", "Upgrade pytest-trtgray.")
        return str(data.get("test", "")), Record.from_dict(data)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def packed(records: Iterable[Record]) -> bytes:
    """Records as compressed lines; takes as much memory as these."""
    packer = zlib.compressobj(level=1, wbits=_GZIP)
    return b"".join([*(packer.compress(to_line(record)) for record in records), packer.flush()])


def unpacked(path: Path) -> Iterator[Record]:
    """Records of a file that :func:`packed` made, one after the other.

    Raises:
        OSError: the file cannot be read.
    """
    import gzip

    with gzip.open(path, "rb") as file:
        yield from map(from_line, file)
