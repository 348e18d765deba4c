"""A connection to a history's database, in whose messages no password stands."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trtgray.errors import EngineError, TrtGrayError
from pytest_trtgray.vendor import quiet_import

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

BUSY_S = 30
"""How long a writer waits for others; eight that write at once need well below a second."""
CONNECT_S = 10
_READING = "trtgray_reading"
_FORM = "Write sqlite:///history.db, or postgresql://USER:PASSWORD@HOST/NAME."


class HistoryError(TrtGrayError):
    """A history's database cannot be read or written now."""


class Database:
    """A database that holds, or is to hold, a history.

    Args:
        url: of SQLAlchemy; ``postgresql://`` is spoken through psycopg.

    Raises:
        HistoryError: the URL is none, or SQLAlchemy or the driver are not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            sqlalchemy = quiet_import("sqlalchemy")
        except EngineError as error:
            raise HistoryError(error.thing, error.reason, error.remedy) from None
        self.name = without_password(url)
        try:
            self._url = sqlalchemy.engine.make_url(re.sub(r"^postgres(?:ql)?://", "postgresql+psycopg://", url))
            self._engine: Engine = sqlalchemy.create_engine(
                self._url, connect_args=_connect_args(self._url), poolclass=sqlalchemy.pool.NullPool
            )
        except sqlalchemy.exc.ArgumentError:
            raise HistoryError(self.name, "is no database URL", _FORM) from None
        except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
            raise HistoryError(
                self.name, f"has no driver here: {error}", "Install it: pip install 'pytest-trtgray[history]'"
            ) from None
        if self.dialect == "sqlite":
            _take_over_transactions(self._engine)

    @property
    def dialect(self) -> str:
        """``sqlite``, ``postgresql``, …."""
        return self._engine.dialect.name

    def require_file(self) -> None:
        """Refuse to make an empty SQLite database where one is only to be read.

        Raises:
            HistoryError: there is no file.
        """
        name = self._url.database or ""
        is_file = self.dialect == "sqlite" and name not in ("", ":memory:") and not name.startswith("file:")
        if is_file and not Path(name).exists():
            raise HistoryError(name, "no such history", "Write one with pytest --trt-history, or name it with --db.")

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes: all of it or nothing, however the process ends.

        Raises:
            HistoryError: the database cannot be reached or written.
        """
        with self._transaction(reading=False) as connection:
            yield connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads, and waits for no writer.

        Raises:
            HistoryError: the database cannot be reached or read.
        """
        with self._transaction(reading=True) as connection:
            yield connection

    def shrink(self) -> None:
        """Give back the space of deleted rows, where the database does not do so by itself."""
        if self.dialect == "sqlite":
            with self._errors_named(), self._engine.connect() as connection:
                raw: Any = connection.connection.dbapi_connection  # VACUUM runs in no transaction
                raw.execute("VACUUM")

    @contextlib.contextmanager
    def _transaction(self, *, reading: bool) -> Iterator[Connection]:
        with self._errors_named(), self._engine.connect() as plain:
            connection = plain.execution_options(**{_READING: reading})
            with connection.begin():
                if self.dialect == "postgresql":
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_S}s'")
                yield connection

    @contextlib.contextmanager
    def _errors_named(self) -> Iterator[None]:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except SQLAlchemyError as error:
            raise HistoryError(self.name, self._reason(error), _remedy(error)) from None

    def _reason(self, error: Exception) -> str:
        """The driver's words, without the statement and its values, and without the password."""
        text = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
        password = str(self._url.password or "")
        text = text.replace(password, "***") if password else text
        return " ".join(without_password(line.strip()) for line in text.splitlines()[:3])


def without_password(url: str) -> str:
    """A URL as it may be shown: its password, and a password among its options, as ``***``.

    >>> without_password("postgresql://ci:s3/cr@et@db/history?sslmode=require&password=x")
    'postgresql://ci:***@db/history?sslmode=require&password=***'
    """
    # greedy: a password may have the characters that should have been escaped
    hidden = re.sub(r"(://[^:/@?\s]*):[^\s?]*@", r"\1:***@", url)
    return re.sub(r"(?i)((?:password|passwd|sslpassword|token)=)[^&\s]+", r"\1***", hidden)


def _connect_args(url: Any) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"timeout": BUSY_S}
    if url.get_backend_name() == "postgresql" and "connect_timeout" not in url.query:
        return {"connect_timeout": CONNECT_S}
    return {}


def _take_over_transactions(engine: Engine) -> None:
    """Let transactions that write take SQLite's lock as they begin.

    The driver begins one at the first write, when others may have written since this one has read; and it ends one
    before a table is made, so that a migration would not be whole.
    """
    from sqlalchemy import event

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begun(connection: Any) -> None:
        reading = connection.get_execution_options().get(_READING, False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _remedy(error: Exception) -> str:
    text = str(error).lower()
    for sign, remedy in (
        ("unable to open database file", "Does its folder exist, and may this account write there?"),
        ("readonly database", "This account may not write there."),
        ("database or disk is full", "Free some space, or: trtgray history prune."),
        ("file is not a database", "Name another file, or move this one away."),
        ("malformed", "Restore it from a copy, or: sqlite3 FILE .recover."),
        ("database is locked", f"Another process held it for {BUSY_S} s."),
        ("permission denied", "Grant this account the right to create and write tables."),
    ):
        if sign in text:
            return remedy
    return ""
