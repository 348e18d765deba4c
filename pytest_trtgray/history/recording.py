"""Storing a run at its end; whatever happens, the run of pytest does not fail by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trtgray.errors import TrtGrayError
from pytest_trtgray.files import from_here
from pytest_trtgray.findings import counted

if TYPE_CHECKING:
    from pytest_trtgray.logs.records import LogSeverity, Record


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        remarks: worth a line.
        problems: worth a red one.
    """

    remarks: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def record(
    url: str,
    document: dict[str, Any],
    said: Sequence[tuple[str, Record]],
    *,
    cache: Path,
    level: LogSeverity,
) -> Outcome:
    """Store a run, and those that still wait; where that fails, let it wait too.

    Args:
        url: of the database.
        document: the run.
        said: the ids of tests, and what the runtimes said in them.
        cache: the folder in which runs wait.
        level: of what is kept of that.
    """
    from pytest_trtgray.history.database import Database, without_password
    from pytest_trtgray.history.spool import folder_for

    folder = folder_for(cache, url)
    try:
        from pytest_trtgray.history.rows import rows_of
        from pytest_trtgray.history.store import History

        database = Database(url)
        history = History(database)
        history.add(rows_of(document, said, level=level))
    except TrtGrayError as error:
        return _kept(folder, document, said, f"--trt-history: {error.message}")
    except Exception as error:  # a driver's mistake must not cost a run's results
        what = f"--trt-history {without_password(url)}: {type(error).__name__}"
        return _kept(folder, document, said, what)
    return _delivered(folder, history, level)


def _delivered(folder: Path, history: Any, level: LogSeverity) -> Outcome:
    if not folder.is_dir():
        return Outcome()
    from pytest_trtgray.history.spool import deliver

    try:
        done = deliver(folder, history, level=level)
    except TrtGrayError as error:
        return Outcome(problems=(f"--trt-history: earlier runs go on waiting: {error.message}",))
    remarks = (f"--trt-history: {counted(done.stored, 'earlier run')} stored as well",) if done.stored else ()
    return Outcome(remarks, tuple(f"--trt-history: cannot be stored: {text}" for text in done.unreadable))


def _kept(folder: Path, document: dict[str, Any], said: Sequence[tuple[str, Record]], problem: str) -> Outcome:
    from pytest_trtgray.history.spool import keep

    try:
        path = keep(folder, document, said)
    except (OSError, ValueError) as error:
        return Outcome(problems=(f"{problem}\n  The run is lost, it cannot be kept in {folder} either: {error}",))
    where = from_here(path)
    return Outcome(
        problems=(
            f"{problem}\n  The run waits in {where}, for the next one with --trt-history; "
            f"or: trtgray history add --db URL {where}",
        )
    )
