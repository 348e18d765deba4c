"""A database for each test, in SQLite and in a real PostgreSQL."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_trtgray.history.database import Database
from pytest_trtgray.history.store import History
from tests import postgres

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    if reason := postgres.missing():
        pytest.skip(reason)
    with postgres.server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'history.db'}"
    server: str = request.getfixturevalue("postgres_url")
    name = f"test{next(_numbers)}"
    import sqlalchemy

    engine = sqlalchemy.create_engine(server.replace("://", "+psycopg://", 1), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return server.replace("@/postgres", f"@/{name}")


@pytest.fixture
def history(url: str) -> History:
    return History(Database(url))


@pytest.fixture
def sqlite(tmp_path: Path) -> History:
    return History(Database(f"sqlite:///{tmp_path / 'history.db'}"))
