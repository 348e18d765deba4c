from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_trtgray.cli import main
from pytest_trtgray.files import dump_json
from pytest_trtgray.history.plots import marks, sparkline
from tests.documents import document
from tests.run_series import Step, World, layer_key

Captured = pytest.CaptureFixture[str]
SLOWER, FINE, UNUSABLE = 1, 0, 2
WORLD = World(layers=14, jobs=30, steps=(Step(18, 5, 0.08),))


def run(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    code = main(["history", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> Path:
    """A folder with ``history.db``, which is the default, and the documents that it was made from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRTGRAY_HISTORY", raising=False)
    paths = []
    for number, each in enumerate(WORLD.documents()):
        paths.append(tmp_path / f"run{number}.json")
        paths[-1].write_bytes(dump_json(each))
    assert run(capsys, "add", *paths) == (FINE, "30 runs added, 0 known already or unreadable\n", "")
    return tmp_path


def test_adding_again_and_rubbish(filled: Path, capsys: Captured) -> None:
    (filled / "bad.json").write_text("{}")
    code, out, err = run(capsys, "add", filled / "run3.json", filled / "bad.json")

    assert (code, out) == (UNUSABLE, "0 runs added, 2 known already or unreadable\n")
    assert "bad.json: is no trtgray-run document" in err


def test_a_log_beside_a_document_is_added(filled: Path, capsys: Captured) -> None:
    (filled / "new.json").write_bytes(dump_json({**document(2), "log": {"file": "new.log.jsonl"}}))
    (filled / "new.log.jsonl").write_text('{"test":"t::a","severity":"error","producer":"tensorrt","message":"m"}\n')
    run(capsys, "add", filled / "new.json")

    from pytest_trtgray.history.database import Database

    with Database("sqlite:///history.db").reading() as connection:
        rows = connection.exec_driver_sql("SELECT test, severity, message FROM trtgray_log_records").all()
    assert [tuple(row) for row in rows] == [("t::a", "error", "m")]


def test_list(filled: Path, capsys: Captured) -> None:
    code, out, _ = run(capsys, "list", "--limit=2")

    assert code == FINE
    first, second, last = out.splitlines()
    assert first.split() == ["2026-01-04", "15:00:00", WORLD.commit(29), "main", "bert:", "1", "pass"]
    assert WORLD.commit(28) in second
    assert last.startswith("2 runs")


def test_changes(filled: Path, capsys: Captured) -> None:
    code, out, err = run(capsys, "changes")

    assert (code, err) == (SLOWER, "")
    title, place, layer, *rest = out.splitlines()
    assert title.startswith(
        "bert  tensorrt_rtx 1.5.0.114, NVIDIA H200, float16, ids:8x128, trtgray::layers[bert], 30 runs"
    )
    assert place.strip() == f"{WORLD.commit(17)}..{WORLD.commit(18)}  (since 2026-01-03 06:00 UTC)"
    assert layer.endswith(layer_key(5))
    assert rest == []


def test_changes_as_json_and_with_a_limit(filled: Path, capsys: Captured) -> None:
    code, out, _ = run(capsys, "changes", "--json", "--engine=bert")
    (finding,) = json.loads(out)["findings"]
    assert (code, finding["rule"], finding["evidence"]["bad"]) == (SLOWER, "history.slower", WORLD.commit(18))

    code, out, _ = run(capsys, "changes", "--layer-change=0.2")
    assert (code, out.splitlines()[1]) == (FINE, "  30 jobs, 14 layers: no change")


def test_too_few_jobs_are_said(filled: Path, capsys: Captured) -> None:
    code, out, _ = run(capsys, "changes", "--last=5")
    assert (code, out.splitlines()[1]) == (FINE, "  5 jobs, 14 layers: too few to say anything; 8 jobs are needed")


def test_a_layer_over_all_runs(filled: Path, capsys: Captured) -> None:
    code, out, _ = run(capsys, "plot", "--layer=part5/")
    _, engine, layer, below = out.splitlines()

    assert code == FINE
    assert engine.startswith("(engine)")
    assert layer.startswith(layer_key(5))
    assert below.index("^") == 50 + 18
    assert below.endswith(f"{WORLD.commit(17)}..{WORLD.commit(18)}")


def test_a_plot_shows_what_changed_first(filled: Path, capsys: Captured) -> None:
    _, out, _ = run(capsys, "plot")
    lines = out.splitlines()
    assert lines[2].startswith(layer_key(5))
    assert len([line for line in lines if "attention/part" in line]) == 10
    _, out, _ = run(capsys, "plot", "--all-layers")
    assert out.count("attention/part") == 14


def test_a_plot_in_html(filled: Path, capsys: Captured) -> None:
    code, out, _ = run(capsys, "plot", "-o", "trend.html")
    html = (filled / "trend.html").read_text("utf-8")

    assert (code, out) == (FINE, "trend.html\n")
    assert html.count("<svg") == 11
    assert html.count('<line x1="') == 1
    assert f"{WORLD.commit(17)}..{WORLD.commit(18)}" in html
    assert "<script" not in html


def test_names_in_html_are_escaped(filled: Path, capsys: Captured) -> None:
    (each,) = World(layers=1, jobs=1, names={"engine": "<b>&"}).documents()
    (filled / "odd.json").write_bytes(dump_json(each))
    run(capsys, "add", filled / "odd.json")
    run(capsys, "plot", "--engine=<b>&", "-o", "odd.html")

    assert "&lt;b&gt;&amp;" in (filled / "odd.html").read_text("utf-8")
    assert "<b>" not in (filled / "odd.html").read_text("utf-8")


def test_the_branch_with_most_runs_is_looked_at(filled: Path, capsys: Captured) -> None:
    for number, each in enumerate(World(layers=14, jobs=5, seed=1).documents()):
        each["run"] |= {"branch": "mine", "job": f"mine-{number}"}
        (filled / f"mine{number}.json").write_bytes(dump_json(each))
    run(capsys, "add", *filled.glob("mine*.json"))
    _, out, err = run(capsys, "changes")
    assert "branch main, 30 of 35 runs" in err
    assert "30 jobs" in run(capsys, "changes", "--layer-change=9", "--branch=main")[1]
    assert "5 jobs" in run(capsys, "changes", "--branch=mine")[1]
    assert "35 jobs" in run(capsys, "changes", "--layer-change=99", "--engine-change=99", "--all-branches")[1]
    assert WORLD.commit(18) in out


def test_prune(filled: Path, capsys: Captured) -> None:
    code, _, err = run(capsys, "prune")
    assert (code, "Give --keep-days=N" in err) == (UNUSABLE, True)
    assert run(capsys, "prune", "--keep-runs=10", "--dry-run")[:2] == (FINE, "20 runs would be deleted\n")
    assert run(capsys, "prune", "--keep-runs=10")[:2] == (FINE, "20 runs deleted\n")
    assert "10 runs" in run(capsys, "list")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--db=sqlite:///gone.db"], "no such history"),
        (["list", "--db=history.db"], "is no database URL"),
        (["changes", "--engine=gone"], "engine gone: has no run with times"),
        (["changes", "--layer=gone"], "0 layers of the newest run have that in their name"),
        (["plot", "-o", "/dev/null/x.html"], "cannot be written"),
        (["changes", "--branch=gone"], "has no undisturbed run on branch gone"),
    ],
)
def test_refusals(filled: Path, capsys: Captured, arguments: list[str], message: str) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == UNUSABLE
    assert message in err
    assert "Traceback" not in err


def test_the_variable_names_the_database(filled: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    (filled / "history.db").rename(filled / "other.db")
    monkeypatch.setenv("TRTGRAY_HISTORY", "sqlite:///other.db")
    assert "20 runs" in run(capsys, "list")[1]


def test_sparkline() -> None:
    assert sparkline([]) == ""
    assert sparkline([5.0, 5.0]) == "▁▁"
    assert sparkline(range(1000), width=8) == "▁▂▃▄▅▆▇█"
    assert marks(1000, [0, 999], width=8) == "^      ^"
