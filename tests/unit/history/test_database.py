from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.history.database import Database, HistoryError, without_password
from pytest_trtgray.history.rows import rows_of
from pytest_trtgray.history.store import History
from tests.documents import document

SECRET = "s3cr3t"


class TestPasswords:
    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("sqlite:///history.db", "sqlite:///history.db"),
            (f"postgresql://ci:{SECRET}@db/history", "postgresql://ci:***@db/history"),
            (f"postgresql+psycopg://ci:{SECRET}@db:5432/h?sslmode=require", "postgresql+psycopg://ci:***@db:5432/h?sslmode=require"),
            (f"postgresql://db/h?user=ci&password={SECRET}&x=1", "postgresql://db/h?user=ci&password=***&x=1"),
            (f"postgresql://ci:{SECRET}/@:{SECRET}@db/h", "postgresql://ci:***@db/h"),
        ],
    )  # fmt: skip
    def test_are_not_shown(self, url: str, shown: str) -> None:
        assert without_password(url) == shown

    @given(st.text("abcXYZ019:/@#?%&=+-_. ", min_size=4).filter(lambda text: "?" not in text and " " not in text))
    def test_whatever_is_in_them(self, password: str) -> None:
        assert without_password(f"postgresql://ci:{password}@db/h") == "postgresql://ci:***@db/h"

    @pytest.mark.parametrize("url", [f"postgresql://ci:{SECRET}@127.0.0.1:9/h", f"nothing://ci:{SECRET}@db/h"])
    def test_no_message_has_them(self, url: str) -> None:
        with pytest.raises(HistoryError) as caught:
            History(Database(url))
        assert SECRET not in caught.value.message
        assert SECRET not in repr(caught.value)
        assert caught.value.__cause__ is None


class TestRefusals:
    def test_of_what_is_no_url(self) -> None:
        with pytest.raises(HistoryError, match=r"is no database URL\n  Write sqlite:///history.db"):
            Database("history.db")

    def test_of_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(HistoryError, match=r"unable to open database file\n  Does its folder exist"):
            History(Database(f"sqlite:///{tmp_path / 'gone' / 'history.db'}"))

    def test_of_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        path = tmp_path / "history.db"
        path.write_text("this is a text of mine, and long enough to be mistaken for a header of something\n" * 20)

        with pytest.raises(HistoryError, match="file is not a database"):
            History(Database(f"sqlite:///{path}"))
        assert path.read_text().startswith("this is a text of mine")

    def test_to_make_a_file_in_order_to_read_it(self, tmp_path: Path) -> None:
        path = tmp_path / "history.db"
        with pytest.raises(HistoryError, match="no such history"):
            Database(f"sqlite:///{path}").require_file()
        assert not path.exists()

    def test_of_a_database_that_may_only_be_read(self, sqlite: History, tmp_path: Path) -> None:
        path = tmp_path / "history.db"
        read_only = Database(f"sqlite:///file:{path}?mode=ro&uri=true")

        assert History(read_only).runs() == []
        with pytest.raises(HistoryError, match="readonly database\n  This account may not write there"):
            History(read_only).add(rows_of(document(2)))

    def test_of_a_missing_driver(self) -> None:
        with pytest.raises(HistoryError, match="has no driver here"):
            Database("mysql+aiomysql://db/h")

    def test_names_a_lock(self, sqlite: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pytest_trtgray.history.database.BUSY_S", 0.1)
        url = f"sqlite:///{tmp_path / 'history.db'}"
        with sqlite3.connect(tmp_path / "history.db") as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(HistoryError, match="database is locked"):
                History(Database(url))
            other.rollback()
        other.close()
