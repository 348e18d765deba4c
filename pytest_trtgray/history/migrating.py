"""Bringing a database to this version's tables; several processes may do it at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trtgray.history.database import Database, HistoryError
from pytest_trtgray.vendor import quiet_import

if TYPE_CHECKING:
    from sqlalchemy import Connection

MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x7472746772617920
"""A number for PostgreSQL's advisory lock: ``trtgray `` in ASCII."""


def ensure_current(database: Database) -> None:
    """Make or change the tables, unless they are as this version wants them.

    The first of several processes migrates in one transaction, the others wait for it: SQLite has one writer, in
    PostgreSQL an advisory lock is held. Other databases get no lock. Tables that may not be changed are used as they
    are, if they can be: a copy in a read-only folder, a role in PostgreSQL that does not own them.

    Raises:
        HistoryError: the database cannot be used, or is of a later version.
    """
    from pytest_trtgray.history.schema import HEAD, USABLE_FROM

    with database.reading() as connection:
        found = version_of(connection)
    _refuse_later(database, found)
    if found == HEAD:
        return
    try:
        _migrate(database)
    except HistoryError:
        if found < USABLE_FROM:
            raise


def _migrate(database: Database) -> None:
    from pytest_trtgray.history.schema import HEAD

    with database.writing() as connection:
        if database.dialect == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        found = version_of(connection)
        _refuse_later(database, found)
        if found < HEAD:
            _upgrade(connection)


def version_of(connection: Connection) -> int:
    """The number of a database's schema; 0 for a database without one."""
    from sqlalchemy import inspect

    from pytest_trtgray.history.schema import VERSION_TABLE

    if not inspect(connection).has_table(VERSION_TABLE):
        return 0
    return int(connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar() or 0)


def _refuse_later(database: Database, found: int) -> None:
    from pytest_trtgray.history.schema import HEAD

    if found > HEAD:
        raise HistoryError(
            database.name,
            f"has schema {found}, this version of pytest-trtgray knows those up to {HEAD}",
            "Upgrade pytest-trtgray here.",
        )


def _upgrade(connection: Connection) -> None:
    config = quiet_import("alembic.config").Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    quiet_import("alembic.command").upgrade(config, "head")
