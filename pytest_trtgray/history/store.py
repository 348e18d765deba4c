"""What a history's database is asked: add a run, list runs, read a series, delete old runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pytest_trtgray.history.database import Database
from pytest_trtgray.history.migrating import ensure_current
from pytest_trtgray.history.rows import RunRows

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

    from pytest_trtgray.history.rows import CheckRows

_CHUNK = 500
"""Values of one ``IN``: SQLite before 3.32 takes 999."""


@dataclass(frozen=True)
class RunLine:
    """A run in a listing.

    Attributes:
        id: in the database.
        time_utc: when it ended.
        commit: under test; empty if unknown.
        branch: of it.
        dirty: whether tracked files differed from the commit.
        engines: names, in order.
        outcomes: how often each outcome, such as ``{"pass": 3}``.
    """

    id: int
    time_utc: datetime
    commit: str
    branch: str
    dirty: bool | None
    engines: tuple[str, ...]
    outcomes: dict[str, int]


@dataclass(frozen=True)
class Series:
    """What may be compared over time: one check of one test on one engine, on one identity.

    Attributes:
        id: in the database.
        kind: of the check.
        test: pytest's node id.
        engine: its name.
        device: it ran on.
        runtime: with its version.
        identity: what else decides, such as precision.
        shapes: of the inputs.
        method: how times were taken.
        runs: how many the database has.
    """

    id: int
    kind: str
    test: str
    engine: str
    device: str
    runtime: str
    identity: dict[str, str]
    shapes: dict[str, list[int]]
    method: dict[str, str]
    runs: int


@dataclass(frozen=True)
class TimedRun:
    """One run of a series: where it comes from, and its total.

    Attributes:
        check_id: of its row.
        time_utc: when.
        commit: under test.
        job: CI job; runs of one job are no independent measurements.
        host: a name or its hash.
        us: of the whole engine, microseconds.
        clock_mhz: of the GPU; ``None`` if unknown.
        context: driver and the like.
    """

    check_id: int
    time_utc: datetime
    commit: str
    job: str
    host: str
    us: float
    clock_mhz: float | None
    context: dict[str, str]


class History:
    """The runs in one database.

    Args:
        database: whose tables are made or brought up to date if need be.

    Raises:
        HistoryError: it cannot be used. So do all methods.
    """

    def __init__(self, database: Database) -> None:
        ensure_current(database)
        self.database = database

    def add(self, rows: RunRows) -> bool:
        """Store a run, whole or not at all.

        Returns:
            whether it is new; a run that is there already is left alone.
        """
        from sqlalchemy import select

        from pytest_trtgray.history import schema

        with self.database.writing() as connection:
            known = select(schema.runs.c.id).where(schema.runs.c.uid == rows.run["uid"])
            if connection.execute(known).scalar() is not None:
                return False
            # in one order, so that two writers never wait for each other
            series = _ids(connection, schema.series, {check.series["digest"]: check.series for check in rows.checks})
            digests = {layer.key: _digest(layer.key) for check in rows.checks for layer in check.layers}
            known_layers = _ids(
                connection, schema.layers, {each: {"digest": each, "key": key} for key, each in digests.items()}
            )
            layers = {key: known_layers[digest] for key, digest in digests.items()}
            try:
                with connection.begin_nested():
                    run_id = _insert_one(connection, schema.runs, rows.run)
            except _integrity_error():
                return False  # another process has added the same run meanwhile
            for check in rows.checks:
                _add_check(connection, run_id, check, series, layers)
            _insert(connection, schema.log_records, ({"run_id": run_id, **row} for row in rows.log))
        return True

    def runs(self, *, engine: str = "", branch: str = "", limit: int = 20) -> list[RunLine]:
        """The newest runs, the newest first."""
        from sqlalchemy import select

        from pytest_trtgray.history.schema import checks, runs, series

        newest = select(runs.c.id, runs.c.time_utc, runs.c.commit, runs.c.branch, runs.c.dirty)
        newest = newest.order_by(runs.c.time_utc.desc(), runs.c.id.desc()).limit(limit)
        if engine:
            of_engine = select(checks.c.run_id).join(series).where(series.c.engine == engine)
            newest = newest.where(runs.c.id.in_(of_engine))
        if branch:
            newest = newest.where(runs.c.branch == branch)
        with self.database.reading() as connection:
            found = connection.execute(newest).all()
            per_run: dict[int, list[tuple[str, str]]] = {row.id: [] for row in found}
            asked = select(checks.c.run_id, series.c.engine, checks.c.outcome).join(series)
            for ids in _chunks(list(per_run)):
                for row in connection.execute(asked.where(checks.c.run_id.in_(ids)).order_by(checks.c.position)):
                    per_run[row.run_id].append((row.engine, row.outcome))
        return [
            RunLine(
                *row,
                engines=tuple(dict.fromkeys(name for name, _ in per_run[row.id])),
                outcomes=_tally(outcome for _, outcome in per_run[row.id]),
            )
            for row in found
        ]

    def branches(self) -> dict[str, int]:
        """Branches and how many runs each has, the one with most first."""
        from sqlalchemy import func, select

        from pytest_trtgray.history.schema import runs

        count = func.count().label("runs_there")
        asked = select(runs.c.branch, count).group_by(runs.c.branch).order_by(count.desc(), runs.c.branch)
        with self.database.reading() as connection:
            return {row.branch: row.runs_there for row in connection.execute(asked)}

    def series(self, *, engine: str = "", kinds: Sequence[str] = ("timing",)) -> list[Series]:
        """All series that have times, by engine, the longest first."""
        from sqlalchemy import func, select

        from pytest_trtgray.history.schema import checks
        from pytest_trtgray.history.schema import series as table

        count = func.count(checks.c.id).label("runs_there")
        counted = select(checks.c.series_id, count).where(checks.c.total_us.is_not(None))
        per_series = counted.group_by(checks.c.series_id).subquery()
        asked = select(table, per_series.c.runs_there).join(per_series, per_series.c.series_id == table.c.id)
        asked = asked.where(table.c.kind.in_(kinds)).order_by(
            table.c.engine, per_series.c.runs_there.desc(), table.c.id
        )
        if engine:
            asked = asked.where(table.c.engine == engine)
        columns = [column for column in table.c if column.name != "digest"]
        with self.database.reading() as connection:
            return [
                Series(**{column.name: row._mapping[column.name] for column in columns}, runs=row.runs_there)
                for row in connection.execute(asked)
            ]

    def timed_runs(self, series_id: int, *, branch: str | None = None, last: int = 0) -> list[TimedRun]:
        """The undisturbed runs of a series, the oldest first.

        Args:
            series_id: see :meth:`series`.
            branch: only of this; ``None`` for all.
            last: only so many, the newest; 0 for all.
        """
        from sqlalchemy import select

        from pytest_trtgray.history.schema import checks, runs

        asked = select(
            checks.c.id,
            runs.c.time_utc,
            runs.c.commit,
            runs.c.job,
            runs.c.host,
            checks.c.total_us,
            checks.c.clock_mhz,
            checks.c.context,
        ).join(runs)
        asked = asked.where(checks.c.series_id == series_id, checks.c.total_us > 0, checks.c.disturbed == "")
        if branch is not None:
            asked = asked.where(runs.c.branch == branch)
        asked = asked.order_by(runs.c.time_utc.desc(), checks.c.id.desc())
        if last:
            asked = asked.limit(last)
        with self.database.reading() as connection:
            return [TimedRun(*row) for row in connection.execute(asked)][::-1]

    def layers(self, series_id: int, check_id: int) -> dict[str, int]:
        """Keys and ids of the layers of one run, those that take longest first."""
        from sqlalchemy import select

        from pytest_trtgray.history.schema import layer_times, layers

        asked = select(layers.c.key, layers.c.id).join(layer_times)
        asked = asked.where(layer_times.c.check_id == check_id, layer_times.c.series_id == series_id)
        with self.database.reading() as connection:
            return {row.key: row.id for row in connection.execute(asked.order_by(layer_times.c.us.desc()))}

    def times_of_checks(
        self, check_ids: Sequence[int], *, layer_ids: Sequence[int] | None = None
    ) -> list[tuple[int, int, float]]:
        """Layers' times of some checks: layer, check, microseconds.

        Args:
            check_ids: see :meth:`timed_runs`.
            layer_ids: only of these, a few; see :meth:`layers`. ``None`` for all.
        """
        from sqlalchemy import select

        from pytest_trtgray.history.schema import layer_times as times

        asked = select(times.c.layer_id, times.c.check_id, times.c.us)
        if layer_ids is not None:
            asked = asked.where(times.c.layer_id.in_(layer_ids))
        with self.database.reading() as connection:
            return [
                tuple(row)
                for ids in _chunks(check_ids)
                for row in connection.execute(asked.where(times.c.check_id.in_(ids))).all()
            ]

    def prune(
        self, *, keep_days: int | None = None, keep_runs: int | None = None, now: datetime, dry_run: bool = False
    ) -> int:
        """Delete old runs with all that hangs on them; a run goes only if every limit given lets it go.

        Args:
            keep_days: younger runs stay.
            keep_runs: so many stay, the newest.
            now: UTC.
            dry_run: delete nothing.

        Returns:
            how many runs.
        """
        from sqlalchemy import select

        from pytest_trtgray.history.schema import runs

        doomed = select(runs.c.id).order_by(runs.c.time_utc, runs.c.id)
        if keep_days is not None:
            doomed = doomed.where(runs.c.time_utc < now - timedelta(days=keep_days))
        if keep_runs is not None:
            kept = select(runs.c.id).order_by(runs.c.time_utc.desc(), runs.c.id.desc()).limit(keep_runs)
            doomed = doomed.where(runs.c.id.not_in(kept.scalar_subquery()))
        with self.database.writing() as connection:
            ids = list(connection.execute(doomed).scalars())
            if not dry_run:
                for some in _chunks(ids):
                    connection.execute(runs.delete().where(runs.c.id.in_(some)))
        if ids and not dry_run:
            self.database.shrink()
        return len(ids)


def _integrity_error() -> type[Exception]:
    from sqlalchemy.exc import IntegrityError

    return IntegrityError


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _ids(connection: Connection, table: Table, wanted: dict[str, dict[str, Any]]) -> dict[str, int]:
    """The ids of rows by digest; those that are not there yet are inserted."""
    found = _known(connection, table, list(wanted))
    missing = [wanted[digest] for digest in sorted(wanted) if digest not in found]
    if missing:
        try:
            with connection.begin_nested():
                connection.execute(table.insert(), missing)
        except _integrity_error():
            return _ids(connection, table, wanted)  # another writer has added some of them: now they are known
        found |= _known(connection, table, [row["digest"] for row in missing])
    return found


def _known(connection: Connection, table: Table, digests: Sequence[str]) -> dict[str, int]:
    from sqlalchemy import select

    found: dict[str, int] = {}
    for some in _chunks(digests):
        asked = select(table.c.digest, table.c.id).where(table.c.digest.in_(some))
        found.update((row.digest, row.id) for row in connection.execute(asked))
    return found


def _add_check(
    connection: Connection, run_id: int, rows: CheckRows, series: dict[str, int], layers: dict[str, int]
) -> None:
    from pytest_trtgray.history import schema

    series_id = series[rows.series["digest"]]
    values = {**rows.check, "run_id": run_id, "series_id": series_id}
    check_id = _insert_one(connection, schema.checks, values)
    times = (
        {
            "check_id": check_id,
            "layer_id": layers[layer.key],
            "series_id": series_id,
            "us": layer.us,
            "outcome": layer.outcome,
        }
        for layer in rows.layers
    )
    _insert(connection, schema.layer_times, times)
    _insert(connection, schema.outputs, ({"check_id": check_id, **row} for row in rows.outputs))
    _insert(connection, schema.findings, ({"check_id": check_id, **row} for row in rows.findings))


def _insert_one(connection: Connection, table: Table, row: dict[str, Any]) -> int:
    """Its id."""
    # beside the statement, not in it: so it is the same for all rows, and nothing of it is compiled again
    inserted = connection.execute(table.insert(), row).inserted_primary_key
    return int(inserted[0]) if inserted else 0


def _insert(connection: Connection, table: Table, rows: Iterable[dict[str, Any]]) -> None:
    if listed := list(rows):
        connection.execute(table.insert(), listed)


def _chunks(values: Sequence[Any]) -> Iterable[Sequence[Any]]:
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]


def _tally(words: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    return counts
