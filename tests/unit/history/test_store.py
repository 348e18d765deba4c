from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from pytest_trtgray.history import schema
from pytest_trtgray.history.database import Database, HistoryError
from pytest_trtgray.history.migrating import MIGRATIONS, ensure_current, version_of
from pytest_trtgray.history.rows import rows_of
from pytest_trtgray.history.store import History
from pytest_trtgray.history.trends import trends_of
from pytest_trtgray.logs.records import Record
from tests.documents import document
from tests.run_series import START, World, layer_key

TABLES = ("runs", "series", "checks", "layers", "layer_times", "outputs", "findings", "log_records")

# What other processes run. All modules are imported before they fork: the time goes to the database, and all at once.
PREPARED = '''
import os, signal, sys
import alembic.command, psycopg, sqlalchemy.dialects.postgresql.psycopg, sqlalchemy.dialects.sqlite
from sqlalchemy import Engine, event, inspect
from pytest_trtgray.history.database import Database
from pytest_trtgray.history.rows import rows_of
from pytest_trtgray.history.store import History
from pytest_trtgray.history.migrating import ensure_current, version_of
from tests.documents import document
from tests.run_series import World

def is_killed(statement, work):
    """Whether a child ends before its work does: it is killed at the statement of this number."""
    child = os.fork()
    if child == 0:
        left = [statement]
        @event.listens_for(Engine, sys.argv[2])
        def count(*_):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or status == 0, status
    return status != 0
'''
WRITERS = (
    PREPARED
    + """
def write(number):
    world = World(layers=12, jobs=8, seed=number % 7)
    history = History(Database(sys.argv[1]))
    print(sum(history.add(rows_of(document)) for document in world.documents()), flush=True)

children = []
for number in range(8):
    child = os.fork()
    if child == 0:
        write(number)
        os._exit(0)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
"""
)
KILLED = (
    PREPARED
    + """
rows = rows_of({**document(6, slower=2), "run": {"id": "x"}})

for statement in range(1, 100):
    if not is_killed(statement, lambda: History(Database(sys.argv[1])).add(rows)):
        print(statement - 1)
        break
    # nothing of it is there, or all
    with Database(sys.argv[1]).reading() as connection:
        tables = ("runs", "checks", "layer_times", "outputs", "findings")
        counts = [
            connection.exec_driver_sql(f"SELECT count(*) FROM trtgray_{name}").scalar() for name in tables
        ] if inspect(connection).has_table("trtgray_schema") else [0] * 5
    assert counts in ([0] * 5, [1, 4, 6, 2, 2]), (statement, counts)
    if counts[0]:
        print(statement)
        break
"""
)
MIGRATION_KILLED = (
    PREPARED
    + """
for statement in range(1, 100):
    killed = is_killed(statement, lambda: ensure_current(Database(sys.argv[1])))
    with Database(sys.argv[1]).reading() as connection:
        found = version_of(connection), len(inspect(connection).get_indexes("trtgray_layer_times"))
    assert found in ((1, 1), (2, 0)), (statement, found)
    if found == (2, 0):
        print(statement)
        break
    assert killed, statement
"""
)


def of_the_first_schema(url: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a database as the first version left it, with runs."""
    with Database(url).writing() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    with monkeypatch.context() as patch:
        patch.setattr(schema, "HEAD", 1)
        fill(History(Database(url)), world)


def state(database: Database) -> tuple[int, list[str | None]]:
    """The number of its schema, and what indexes layers' times have beside their key."""
    with database.reading() as connection:
        return version_of(connection), [each["name"] for each in inspect(connection).get_indexes("trtgray_layer_times")]


FIRST = (1, ["ix_trtgray_layer_times_series"])


def counts(history: History) -> dict[str, int]:
    with history.database.reading() as connection:
        return {
            name: int(connection.exec_driver_sql(f"SELECT count(*) FROM trtgray_{name}").scalar() or 0)
            for name in TABLES
        }


def pages(path: Path, size: int = 4096) -> list[bytes]:
    content = path.read_bytes()
    return [content[start : start + size] for start in range(0, len(content), size)]


def fill(history: History, world: World) -> None:
    for each in world.documents():
        assert history.add(rows_of(each))


class TestAdding:
    def test_all_of_a_document(self, history: History) -> None:
        said = [("t::a", Record("error", "tensorrt", "bad \0 node")), ("t::a", Record("info", "tensorrt", "hello"))]
        run = {"id": "x", "commit": "beef00", "branch": "main", "dirty": True, "job": "1", "host": "h"}

        assert history.add(rows_of({**document(24, slower=3), "run": run}, said))
        assert counts(history) == {
            "runs": 1, "series": 4, "checks": 4, "layers": 24, "layer_times": 24, "outputs": 2, "findings": 2,
            "log_records": 1,
        }  # fmt: skip
        (line,) = history.runs()
        assert (line.commit, line.branch, line.dirty, line.engines) == ("beef00", "main", True, ("bert",))
        assert line.outcomes == {"slower": 1, "pass": 3}
        (series,) = history.series()
        assert (series.kind, series.device, series.shapes, series.runs) == (
            "timing",
            "NVIDIA H200",
            {"ids": [8, 128]},
            1,
        )
        with history.database.reading() as connection:
            said_there = connection.exec_driver_sql("SELECT message FROM trtgray_log_records").scalar()
        assert said_there == "bad \\x00 node"

    def test_the_same_run_twice_is_one(self, history: History) -> None:
        with_id = {**document(4), "run": {"id": "x"}}

        assert [history.add(rows_of(each)) for each in (with_id, with_id, document(4), document(4))] == [
            True, False, True, False,
        ]  # fmt: skip
        assert counts(history)["runs"] == 2

    def test_an_unfinished_transaction_leaves_nothing(self, history: History) -> None:
        rows = rows_of(document(4))
        broken = rows.checks[0].__class__(**{**vars(rows.checks[0]), "findings": ({"position": 0},)})

        with pytest.raises(HistoryError):
            history.add(rows.__class__(rows.run, (broken,), ()))
        assert set(counts(history).values()) == {0}

    def test_eight_writers_lose_nothing(self, url: str) -> None:
        ended = subprocess.run(
            [sys.executable, "-c", WRITERS, url], capture_output=True, text=True, timeout=240, check=False
        )

        assert ended.returncode == 0, ended.stderr
        written = [int(number) for number in ended.stdout.split()]
        # two of them write the same runs: each is there once
        assert (len(written), sum(written)) == (8, 7 * 8)
        found = counts(History(Database(url)))
        assert (found["runs"], found["checks"], found["layer_times"]) == (56, 56, 56 * 12)
        assert (found["series"], found["layers"]) == (1, 12)

    @pytest.mark.parametrize("moment", ["before_cursor_execute", "after_cursor_execute", "commit"])
    def test_a_writer_killed_at_any_statement_leaves_no_half_run(self, url: str, moment: str) -> None:
        ended = subprocess.run(
            [sys.executable, "-c", KILLED, url, moment], capture_output=True, text=True, timeout=240, check=False
        )

        assert ended.returncode == 0, ended.stderr
        assert int(ended.stdout) >= (1 if moment == "commit" else 10)
        history = History(Database(url))
        history.add(rows_of({**document(6, slower=2), "run": {"id": "x"}}))
        found = counts(history)
        assert [found[name] for name in ("runs", "checks", "layer_times", "findings")] == [1, 4, 6, 2]


class TestSchema:
    def test_migrations_make_the_tables_of_this_version(self, history: History) -> None:
        with history.database.writing() as connection:
            options = {"version_table": schema.VERSION_TABLE, "compare_type": True}
            context = MigrationContext.configure(connection, opts=options)
            differences = compare_metadata(context, schema.metadata)
        assert differences == []

    def test_the_newest_migration_is_the_head(self) -> None:
        assert ScriptDirectory(str(MIGRATIONS)).get_heads() == [f"{schema.HEAD:04}"]

    def test_a_history_of_the_first_one_is_brought_up_to_date(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        world = World(layers=5, jobs=3)
        of_the_first_schema(url, world, monkeypatch)
        assert state(Database(url)) == FIRST

        history = History(Database(url))
        assert state(history.database) == (2, [])
        assert [history.add(rows_of(each)) for each in world.documents()] == [False] * 3
        fill(history, World(layers=5, jobs=2, seed=1))
        found = counts(history)
        assert (found["runs"], found["series"], found["layers"], found["layer_times"]) == (5, 1, 5, 25)
        (series,) = history.series()
        (trend,) = trends_of(history, series, layer=layer_key(2))[1:]
        assert sum(len(job.runs) for job in trend.jobs) == 5

    @pytest.mark.parametrize("moment", ["before_cursor_execute", "after_cursor_execute", "commit"])
    def test_whoever_is_killed_at_that_leaves_the_one_or_the_other(
        self, url: str, moment: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        of_the_first_schema(url, World(layers=5, jobs=3), monkeypatch)

        ended = subprocess.run(
            [sys.executable, "-c", MIGRATION_KILLED, url, moment], capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        assert int(ended.stdout) >= 2
        assert counts(History(Database(url)))["layer_times"] == 15

    def test_the_first_one_is_read_where_it_may_not_be_changed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "history.db"
        of_the_first_schema(f"sqlite:///{path}", World(layers=5, jobs=3), monkeypatch)

        history = History(Database(f"sqlite:///file:{path}?mode=ro&uri=true"))
        assert state(history.database) == FIRST
        (series,) = history.series()
        assert [len(trend.us) for trend in trends_of(history, series)] == [3] * 6

    def test_the_first_one_is_written_by_a_role_that_does_not_own_it(
        self, postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        of_the_first_schema(postgres_url, World(layers=5, jobs=3), monkeypatch)
        with Database(postgres_url).writing() as connection:
            connection.exec_driver_sql("CREATE ROLE ci LOGIN")
            connection.exec_driver_sql("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO ci")
            connection.exec_driver_sql("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO ci")

        history = History(Database(postgres_url.replace("trtgray@", "ci@")))
        fill(history, World(layers=5, jobs=1, seed=1))
        assert state(history.database) == FIRST
        assert counts(history)["runs"] == 4

    def test_a_later_schema_is_left_alone(self, history: History) -> None:
        with history.database.writing() as connection:
            connection.exec_driver_sql(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9000'")

        with pytest.raises(HistoryError, match="has schema 9000, this version of pytest-trtgray knows those up to"):
            ensure_current(history.database)

    def test_other_tables_are_left_alone(self, url: str) -> None:
        database = Database(url)
        with database.writing() as connection:
            connection.exec_driver_sql("CREATE TABLE runs (mine TEXT)")

        fill(History(database), World(layers=2, jobs=1))
        with database.reading() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM runs").scalar() == 0


class TestSeries:
    @pytest.mark.parametrize(
        "other",
        [
            {"device": "NVIDIA L4"},
            {"runtime": "tensorrt_rtx 1.6.0"},
            {"details": {"identity": {"precision": "float32"}}},
            {"details": {"method": {"layers": "onnxruntime"}}},
            {"details": {"shapes": {"ids": [1, 128]}}},
            {"kind": "against"},
            {"test": "test_mine.py::test_it"},
        ],
        ids=lambda other: str(next(iter(other))),
    )
    def test_another_identity_is_another_series(self, sqlite: History, other: dict[str, Any]) -> None:
        first, second = list(World(layers=3, jobs=2).documents())
        (check,) = second["checks"]
        details = {**check["details"], **other.get("details", {})}
        second["checks"] = [{**check, **other, "details": details}]
        for each in (first, second):
            sqlite.add(rows_of(each))

        found = sqlite.series(kinds=("timing", "against"))
        assert [series.runs for series in found] == [1, 1]
        assert [len(sqlite.timed_runs(series.id)) for series in found] == [1, 1]

    def test_runs_are_ordered_by_time_and_cut(self, sqlite: History) -> None:
        documents = list(World(layers=3, jobs=6).documents())
        for each in documents[::-1]:
            sqlite.add(rows_of(each))
        (series,) = sqlite.series()

        found = [run.time_utc for run in sqlite.timed_runs(series.id, last=4)]
        assert found == [START + timedelta(hours=3 * job) for job in range(2, 6)]
        assert sqlite.timed_runs(series.id, branch="other") == []

    def test_disturbed_runs_are_kept_and_not_compared(self, sqlite: History) -> None:
        (run,) = World(layers=3, jobs=1).documents()
        run["checks"][0]["details"]["disturbed"] = "another process used the GPU"
        sqlite.add(rows_of(run))
        (series,) = sqlite.series()

        assert len(sqlite.runs()) == 1
        assert sqlite.timed_runs(series.id) == []

    def test_times_of_one_layer(self, history: History) -> None:
        fill(history, World(layers=5, jobs=3))
        (series,) = history.series()
        checks = [run.check_id for run in history.timed_runs(series.id)]
        layers = history.layers(series.id, checks[-1])
        wanted = layers[layer_key(2)]

        all_times = history.times_of_checks(checks)
        assert len(all_times) == 15
        of_one = history.times_of_checks(checks, layer_ids=[wanted])
        assert sorted(of_one) == sorted(row for row in all_times if row[0] == wanted)
        assert history.times_of_checks(checks[:1], layer_ids=[]) == []

    def test_the_documented_query(self, history: History) -> None:
        fill(history, World(layers=5, jobs=3))
        text = (Path(__file__).parents[3] / "docs" / "history.md").read_text(encoding="utf-8")
        sql = text.partition("```sql\n")[2].partition("```")[0].replace("/encoder/…", layer_key(2))

        with history.database.reading() as connection:
            found = connection.exec_driver_sql(sql.strip().rstrip(";")).all()
        assert [row[1] for row in found] == [World().commit(job) for job in range(3)]
        assert all(row[2] > 0 for row in found)

    def test_times_of_one_layer_are_looked_up_by_the_key(self, sqlite: History) -> None:
        with sqlite.database.reading() as connection:
            plan = connection.exec_driver_sql(
                "EXPLAIN QUERY PLAN SELECT us FROM trtgray_layer_times WHERE check_id IN (1, 2) AND layer_id IN (1, 2)"
            ).all()
        assert "USING PRIMARY KEY (check_id=? AND layer_id=?)" in str(plan)

    def test_a_run_changes_few_pages_however_many_are_there(self, sqlite: History, tmp_path: Path) -> None:
        """Pages are what storing a run costs: each that is changed is read, kept in the journal, and written."""
        *earlier, last = World(layers=200, jobs=60).documents()
        for each in earlier:
            sqlite.add(rows_of(each))
        before = pages(tmp_path / "history.db")
        sqlite.add(rows_of(last))

        after = pages(tmp_path / "history.db")
        changed = sum(old != new for old, new in zip_longest(before, after))
        assert 3 <= changed <= 20  # 200 rows on 3 pages, and the ends of the other tables and indexes


class TestPruning:
    def test_by_number_and_by_age(self, history: History) -> None:
        fill(history, World(layers=4, jobs=10))
        now = START + timedelta(hours=3 * 9)

        assert history.prune(keep_runs=8, now=now, dry_run=True) == 2
        assert counts(history)["runs"] == 10
        assert history.prune(keep_runs=8, now=now) == 2
        assert history.prune(keep_days=1, now=now) == 0
        assert history.prune(keep_days=0, keep_runs=3, now=now) == 5
        found = counts(history)
        assert (found["runs"], found["checks"], found["layer_times"]) == (3, 3, 12)
        assert history.prune(keep_runs=3, now=datetime(2100, 1, 1)) == 0

    def test_a_pruned_run_can_be_added_again(self, history: History) -> None:
        (run,) = World(layers=4, jobs=1).documents()
        history.add(rows_of(run))
        history.prune(keep_runs=0, now=START)

        assert history.add(rows_of(run))
