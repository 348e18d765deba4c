"""``--trt-history``: every run in a database, and none lost where that fails."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from pytest_trtgray.history.schema import VERSION_TABLE
from tests import postgres
from tests.integration.conftest import Project

SECRET = "s3cr3t"
SUITE = ("--trt-engine=mlp.onnx", "--trt-runtime=onnxruntime", "-o", "trt_on_missing=record", "-k", "not shapes")


def text(result: pytest.RunResult) -> str:
    return result.stdout.str() + result.stderr.str()


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def waiting(project: Project) -> list[Path]:
    return sorted((project.path / ".trtgray_cache" / "history-spool").rglob("*.json"))


def test_every_run_is_kept(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_SHA", "0123456789abcdef")
    monkeypatch.setenv("GITHUB_REF_NAME", "main")
    project.mlp()
    for _ in range(2):
        result = project.run(*SUITE, "--trt-history=sqlite:///h.db")
        assert result.ret == 0, text(result)

    path = project.path / "h.db"
    runs = rows(path, "SELECT commit_, branch, host FROM (SELECT [commit] AS commit_, branch, host FROM trtgray_runs)")
    assert [run[:2] for run in runs] == [("0123456789ab", "main")] * 2
    (timing,) = rows(path, "SELECT id, identity FROM trtgray_series WHERE kind = 'timing'")
    assert json.loads(str(timing[1]))["precision"] == "float32"
    times = f"SELECT count(*), min(us) > 0 FROM trtgray_layer_times WHERE series_id = {timing[0]}"
    assert rows(path, times) == [(4, 1)]
    assert rows(path, "SELECT count(*) FROM trtgray_outputs") == [(2,)]
    assert waiting(project) == []


def test_the_report_and_the_database_have_one_run(project: Project) -> None:
    from pytest_trtgray.cli import main

    project.mlp()
    project.run(*SUITE, "--trt-history=sqlite:///h.db", "--trt-json=run.json")
    code = main(["history", "add", str(project.path / "run.json"), "--db", f"sqlite:///{project.path / 'h.db'}"])

    assert code == 0
    assert rows(project.path / "h.db", "SELECT count(*) FROM trtgray_runs") == [(1,)]


def test_a_database_that_is_down_costs_nothing(project: Project) -> None:
    project.mlp()
    down = project.run(*SUITE, f"--trt-history=postgresql://ci:{SECRET}@127.0.0.1:9/h")
    assert down.ret == 0
    assert SECRET not in text(down)
    assert text(down).count("--trt-history: postgresql://ci:***@127.0.0.1:9/h: ") == 1
    (path,) = waiting(project)
    assert f"The run waits in {path.relative_to(project.path)}" in text(down)


def test_what_waited_is_stored_next_time(project: Project) -> None:
    project.mlp()
    url = "--trt-history=sqlite:///later/h.db"
    for _ in range(2):
        assert project.run(*SUITE, url).ret == 0
    assert len(waiting(project)) == 2
    (project.path / "later").mkdir()
    result = project.run(*SUITE, url)

    assert "note: --trt-history: 2 earlier runs stored as well" in text(result)
    assert waiting(project) == []
    assert rows(project.path / "later" / "h.db", "SELECT count(*) FROM trtgray_runs") == [(3,)]
    assert "earlier run" not in text(project.run(*SUITE, url))


def test_a_full_database_costs_nothing(project: Project) -> None:
    """SQLite says the same of a full disk as of a file that may not grow."""
    project.mlp()
    url = "--trt-history=sqlite:///h.db"
    project.pytester.makeconftest(
        """
        from sqlalchemy import Engine, event

        @event.listens_for(Engine, "connect")
        def connected(connection, record):
            connection.execute("PRAGMA max_page_count = 1")
        """
    )
    result = project.run_apart(*SUITE, url, "--trt-json=run.json")

    assert result.ret == 0
    assert "database or disk is full" in text(result)
    assert len(waiting(project)) == 1
    assert rows(project.path / "h.db", "SELECT name FROM sqlite_master") == []


def test_a_later_schema_and_rubbish_in_the_folder(project: Project) -> None:
    project.mlp()
    url = "--trt-history=sqlite:///h.db"
    project.run(*SUITE, url)
    with sqlite3.connect(project.path / "h.db") as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9000'")
    connection.close()
    result = project.run(*SUITE, url)
    assert result.ret == 0
    assert "has schema 9000" in text(result)
    assert "Upgrade pytest-trtgray here." in text(result)

    (kept,) = waiting(project)
    kept.with_name("a.json").write_text("half a docum")
    with sqlite3.connect(project.path / "h.db") as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '0001'")
    connection.close()
    result = project.run(*SUITE, url)
    assert "1 earlier run stored as well" in text(result)
    assert "a.json: is no JSON" in text(result)
    assert [path.name for path in waiting(project)] == ["a.json"]


def test_neither_database_nor_folder(project: Project) -> None:
    project.mlp()
    (project.path / "cache").write_text("a file where the folder should be")
    project.ini("trt_cache_dir = cache")
    result = project.run(*SUITE, "-k", "log", "--trt-history=sqlite:///gone/h.db")

    assert "The run is lost, it cannot be kept in" in text(result)


def test_workers_write_once(project: Project) -> None:
    project.mlp()
    result = project.run_apart(*SUITE, "--trt-timing=off", "-n2", "--trt-history=sqlite:///h.db")
    assert result.ret == 0, text(result)
    assert rows(project.path / "h.db", "SELECT count(*) FROM trtgray_runs") == [(1,)]
    assert rows(project.path / "h.db", "SELECT count(*) FROM trtgray_checks WHERE series_id > 0") >= [(3,)]


def test_what_was_said_is_kept_by_level(project: Project) -> None:
    project.pytester.makepyfile(
        """
        import logging
        from pytest_trtgray.logs.records import Record
        from pytest_trtgray.logs.sink import SINK

        def test_it(trt_log):
            SINK.take(Record("warning", "tensorrt", "careful"))
            SINK.take(Record("info", "tensorrt", "hello"))
        """
    )
    for level, expected in (("warning", ["careful"]), ("info", ["careful", "hello"])):
        project.run("-o", f"trt_history_log_level={level}", f"--trt-history=sqlite:///{level}.db")
        found = rows(project.path / f"{level}.db", "SELECT message FROM trtgray_log_records ORDER BY position")
        assert [message for (message,) in found] == expected


def test_a_command_to_copy_has_no_password(project: Project) -> None:
    project.mlp()
    url = f"--trt-history=postgresql://ci:{SECRET}@127.0.0.1:9/h"
    result = project.run("--trt-engine=mlp.onnx", "--trt-runtime=onnxruntime", url)
    assert result.ret == 1
    assert "--trt-history=postgresql://ci:***@127.0.0.1:9/h" in text(result).replace("'", "")
    assert SECRET not in text(result)


@pytest.mark.skipif(bool(postgres.missing()), reason=postgres.missing() or "there is one")
def test_a_real_postgresql(project: Project) -> None:
    project.mlp()
    with postgres.server() as url:
        result = project.run(*SUITE, f"--trt-history={url}")
        assert result.ret == 0
        assert "--trt-history:" not in text(result)
        from pytest_trtgray.history.database import Database
        from pytest_trtgray.history.store import History

        (run,) = History(Database(url)).runs()
        assert run.engines == ("mlp",)
