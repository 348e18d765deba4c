"""Runs that could not be stored, kept as files until they can: a database that is down loses nothing.

A run is a folder's JSON document, with what the runtimes said beside it, as ``--trt-json`` writes them. So
``trtgray history add`` reads them as well.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_trtgray.errors import TrtGrayError
from pytest_trtgray.files import dump_json, write_atomically
from pytest_trtgray.history.database import HistoryError, without_password
from pytest_trtgray.history.rows import rows_of
from pytest_trtgray.history.store import History
from pytest_trtgray.logs.records import LogSeverity, Record
from pytest_trtgray.logs.storage import read_tests, to_line
from pytest_trtgray.reporting.document import read_document
from pytest_trtgray.reporting.logs import log_path

MAX_AT_ONCE = 100
"""Waiting runs that one run of pytest stores besides its own: a second or two."""


@dataclass(frozen=True)
class Delivery:
    """What became of the runs that waited.

    Attributes:
        stored: how many.
        unreadable: files that hold no run, with the reason; they are left where they are.
    """

    stored: int
    unreadable: tuple[str, ...]


def folder_for(cache: Path, url: str) -> Path:
    """Where runs wait for one database; its password may change meanwhile."""
    name = hashlib.sha256(without_password(url).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return cache / "history-spool" / name


def keep(folder: Path, document: dict[str, Any], said: Sequence[tuple[str, Record]]) -> Path:
    """Keep a run for later.

    Raises:
        OSError: the folder cannot be written.
    """
    path = folder / f"{document['time_utc'].replace(':', '')}-{document['run']['id']}.json"
    if said:
        # first: a document that is there is complete
        write_atomically(log_path(path), b"".join(to_line(record, test=test) for test, record in said))
        document = {**document, "log": {"file": log_path(path).name, "records": len(said), "dropped": 0}}
    write_atomically(path, dump_json(document))
    return path


def deliver(folder: Path, history: History, *, level: LogSeverity) -> Delivery:
    """Store what waits in a folder, the oldest first; another process may do the same.

    Raises:
        HistoryError: the database fails again; what is not stored goes on waiting.
    """
    stored, unreadable = 0, []
    for path in sorted(folder.glob("*.json"))[:MAX_AT_ONCE]:
        try:
            add_file(path, history, level=level)
        except HistoryError:
            raise
        except TrtGrayError as error:
            if path.exists():  # else another process has stored it meanwhile
                unreadable.append(error.message)
            continue
        stored += 1
        for done in (path, log_path(path)):
            with contextlib.suppress(OSError):  # a file that stays is stored already, and known next time
                done.unlink()
    return Delivery(stored, tuple(unreadable))


def add_file(path: Path, history: History, *, level: LogSeverity) -> bool:
    """Store a file that ``--trt-json`` has written, with the log beside it.

    Returns:
        whether it is new.

    Raises:
        DocumentError: the file is no run document.
        LogError: the log beside it cannot be read.
        HistoryError: the database cannot be used.
    """
    document = read_document(path)
    return history.add(rows_of(document, _said(path, document), level=level))


def _said(path: Path, document: dict[str, Any]) -> Iterator[tuple[str, Record]]:
    name = (document.get("log") or {}).get("file")
    beside = path.parent / Path(str(name)).name if name else None
    if beside is not None and beside.exists():  # an artefact may have been kept without its log
        yield from read_tests(beside)
