"""The section at the end of pytest's output: layers that changed, in columns, on terminals of any width."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.documents import layer_row
from tests.integration.conftest import Project, text

TOP = ("key", "module", "kind", "outcome", "before_us", "us", "change", "share")


def check(outcome: str, *rows: dict[str, Any]) -> dict[str, Any]:
    """One check on times, as a test's report carries it."""
    top = [{name: row[name] for name in TOP} for row in rows]
    finding = {
        "severity": "error",
        "where": "x",
        "what": "a layer is slower",
        "rule": "r",
        "evidence": {},
        "remedy": "Look.",
    }
    return {
        "kind": "timing",
        "engine": "net",
        "runtime": "onnxruntime 1",
        "device": "CPU",
        "outcome": outcome,
        "summary": "1 ms, +20.0% against 4 jobs",
        "findings": [finding] if outcome == "slower" else [],
        "notes": [],
        "top_layers": {"by_change": top, "by_share": top[:1]},
    }


def run(project: Project, made: dict[str, Any], *args: str) -> list[str]:
    project.pytester.makepyfile(
        test_it=f"def test_it(record_property): record_property('trtgray', {json.dumps(json.dumps([made]))})"
    )
    result = project.run("--trt-json=run.json", *args)
    lines = text(result).splitlines()
    start = next((index for index, line in enumerate(lines) if line.strip("=") == " trtgray "), len(lines))
    return [line for line in lines[start + 1 : -1] if line]


SLOWER, SAME = layer_row(7, slower=True), layer_row(31)


def test_a_slower_run_names_its_layers(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    lines = run(project, check("slower", SLOWER, SAME))

    assert lines == [
        "net  onnxruntime 1 on CPU",
        "  timing    slower       1 ms, +20.0% against 4 jobs",
        "    by change +200.0%  12 us  ->  36 us  slower  /encoder/layer.0/attention/part7/MatMul",
    ]


def test_verbose_names_all_of_them_and_those_that_take_longest(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    other = {**SAME, "key": "/up/Conv", "module": "decoder"}
    lines = run(project, check("pass", SLOWER, other), "-v")

    assert lines[2:] == [
        "    by change +200.0%  12 us  ->  36 us  slower  /encoder/layer.0/attention/part7/MatMul",
        "                +0.1%  36 us  ->  36 us    pass  /up/Conv  in decoder",
        "    by share  1.0%  36 us  /encoder/layer.0/attention/part7/MatMul",
    ]


def test_a_pass_names_none(project: Project) -> None:
    assert len(run(project, check("pass", SAME))) == 2


def test_a_narrow_terminal(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = run(project, check("slower", SLOWER))

    assert lines[2] == "    +200.0%  12 us  ->  36 us  slower  ...tion/part7/MatMul"
    assert len(lines[2]) < 60


def test_errors_are_told_where_failures_are_not_shown(project: Project) -> None:
    assert run(project, check("slower", SLOWER), "--tb=no")[-2:] == ["error: a layer is slower", "  -> Look."]
    assert run(project, check("slower", SLOWER), "-q", "-p", "no:cacheprovider") == []
