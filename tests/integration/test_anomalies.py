"""What a report says of oddities inside a run: a few lines, never a failure; the times are made up."""

from __future__ import annotations

import json
from typing import Any

from pytest_trtgray.baselines.store import encode, read_file
from tests.integration.conftest import Project, text

ODD = """
import numpy as np
import pytest

@pytest.fixture(autouse=True)
def odd_times(monkeypatch):
    from pytest_trtgray.timing import session

    real = session.measure_session

    def measure(*args, **keywords):
        result = real(*args, **keywords)
        rng = np.random.default_rng(0)
        table = np.tile([10.0 + column for column in range(len(result.layers))], (60, 1))
        table *= np.exp(rng.normal(0, 0.01, table.shape))
        {plant}
        samples = session.Samples(table, table.sum(axis=1), result.layers)
        return session.SessionResult(result.session, result.layers, result.overheads, samples)

    monkeypatch.setattr(session, "measure_session", measure)
"""
TEST = """
def test_layers(trt_build, trt_profiler):
    profile = trt_profiler(trt_build("mlp.onnx"))
    assert len(profile.anomalies) == {count}
    assert len(profile.samples) == 1
    profile.check()
"""
# Log microseconds that no machine reaches, however idle or busy it is.
LONG_AGO = -2.0
OUTLIERS = "table[::15, 1] *= 3"
MANY = "table[::15, 1] *= 3; table[:, 0] *= 1 + np.linspace(0, .3, 60); table[::2, 2] *= 1.5; table[30, 3] *= 9"


def plant(project: Project, what: str, count: int) -> None:
    project.mlp(layers=6)
    project.pytester.makeconftest(ODD.format(plant=what))
    project.pytester.makepyfile(test_it=TEST.format(count=count))


def findings(project: Project) -> list[dict[str, Any]]:
    (check,) = json.loads((project.path / "run.json").read_text())["checks"]
    assert not {"samples", "layer_us"} & set(check)
    return [each for each in check["findings"] if each["rule"].startswith("timing.anomaly.")]


def make_doubtful(project: Project) -> None:
    """A baseline of a faster past, of one job: suspicious, but no proof."""
    (path,) = (path for path in (project.path / "baselines").rglob("*.json") if '"runs"' in path.read_text())
    file = read_file(path)
    ((key, timing),) = file.entries.items()
    for run in timing["runs"]:
        run["engine_log_us"] = LONG_AGO
    path.write_bytes(encode(file.with_entry(key, timing)))


def test_a_line_in_the_report_and_in_the_json(project: Project) -> None:
    """Beside a doubt: what is odd explains it."""
    plant(project, OUTLIERS, 2)
    project.record()
    make_doubtful(project)
    result = project.run("--trt-json=run.json", "--trt-timing=report")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["warning: 4 of 60 iterations of /fc* took 3.0x its median (1* us)"])
    assert "outlier" in {each["rule"].rpartition(".")[2] for each in findings(project)}
    assert {each["severity"] for each in findings(project)} <= {"warning", "advice"}


def test_three_lines_at_most(project: Project) -> None:
    plant(project, MANY, 5)
    project.record()
    make_doubtful(project)
    result = project.run("--trt-json=run.json", "--trt-timing=report")

    result.assert_outcomes(passed=1)
    shown = findings(project)
    assert [each["rule"] == "timing.anomaly.more" for each in shown] == [False, False, True]
    assert shown[2]["what"].startswith("3 more oddities of the iterations: ")
    assert "3 more oddities" in text(result)


def test_few_iterations_tell_nothing(project: Project) -> None:
    project.mlp()
    project.record("--trt-engine=mlp.onnx", "-k", "layers", "--trt-json=run.json")

    assert findings(project) == []


def test_beside_other_workers_nothing_is_said(project: Project) -> None:
    plant(project, OUTLIERS, 2)
    project.record()
    result = project.run("-n2", "--trt-json=run.json", "--trt-timing=report")

    result.assert_outcomes(passed=1)
    assert findings(project) == []


def test_a_slow_cold_start_is_a_warning(project: Project) -> None:
    project.mlp()
    for _ in range(3):
        project.record("--trt-engine=mlp.onnx", "-k", "layers")
    path = project.baseline("layers")
    file = read_file(path)
    ((key, timing),) = file.entries.items()
    for run in timing["runs"]:
        run["context"]["cold_start_us"] = "0.5"
        run["engine_log_us"] = LONG_AGO
    path.write_bytes(encode(file.with_entry(key, timing)))
    project.run("--trt-engine=mlp.onnx", "-k", "layers", "--trt-json=run.json", "--trt-timing=report")

    (found,) = (each for each in findings(project) if "cold" in each["rule"])
    assert (found["rule"], found["severity"]) == ("timing.anomaly.cold-start", "warning")
    assert found["evidence"]["before_us"] == 0.5
    assert found["evidence"]["runs"] == 3
