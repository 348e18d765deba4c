"""Records as JSON Lines: one a line, fields that say nothing left out."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from pytest_trtgray.logs.records import Record

_GZIP = 31  # zlib's window size that means a gzip header
_DEFAULTS: Mapping[str, Any] = {
    field.name: field.default_factory() if field.default_factory is not MISSING else field.default
    for field in fields(Record)
}


def to_line(record: Record, **more: str) -> bytes:
    """One line with its newline; ``more`` comes first. Names that are no UTF-8 are escaped, as all that is no ASCII."""
    data = {name: value for name in _DEFAULTS if (value := getattr(record, name)) != _DEFAULTS[name]}
    return json.dumps({**more, **data}, default=str, separators=(",", ":")).encode() + b"\n"


def from_line(line: bytes | str) -> Record:
    """The inverse of :func:`to_line`, without ``more``."""
    return Record.from_dict(json.loads(line))


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
