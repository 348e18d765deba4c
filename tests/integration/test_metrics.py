"""A run's metrics on their way: file, Prometheus, push gateway; and what a user sees where one is missing."""

from __future__ import annotations

import functools
import http.server
import json
import sys
import threading
from pathlib import Path

import pytest
from prometheus_client import parser

from tests import prometheus
from tests.integration.conftest import Project

SECRET = "pass-me-not"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def measured(project: Project) -> Project:
    """With a baseline of one run."""
    project.mlp()
    project.run("--trt-engine=mlp.onnx", "--update-baselines", "-k", "not shapes").assert_outcomes(
        passed=4, deselected=1
    )
    return project


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_a_run_leaves_its_metrics_and_an_old_run_document_the_same(
    measured: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    from pytest_trtgray.cli import main

    arguments = ("--trt-engine=mlp.onnx", "-k", "not shapes", "--trt-json=run.json", "--trt-metrics=out/trt.prom")
    measured.run(*arguments).assert_outcomes(passed=4, deselected=1)
    text = (measured.path / "out/trt.prom").read_text()
    found = samples(text)
    run = json.loads((measured.path / "run.json").read_text())
    details = next(check["details"] for check in run["checks"] if check["kind"] == "timing")
    assert found["trtgray_run_latency_seconds_count"][0][1] == details["iterations"] == 5
    (_, percentile), *_ = found["trtgray_run_latency_percentiles_seconds"]
    assert percentile == pytest.approx(details["latency"]["percentiles_us"]["50"] / 1e6)
    assert found["trtgray_run_inference_seconds"][0][0]["engine"] == "mlp"
    assert 0 <= found["trtgray_run_relative_l2_ratio"][0][1] < 1e-3
    assert sum(value for _, value in found["trtgray_run_checks"]) == len(run["checks"])
    assert [path.name for path in (measured.path / "out").iterdir()] == ["trt.prom"]
    capsys.readouterr()
    assert main(["metrics", str(measured.path / "run.json")]) == 0
    assert capsys.readouterr().out == text
    assert main(["metrics", str(measured.path / "run.json"), "-o", str(measured.path / "again.prom")]) == 0
    assert (measured.path / "again.prom").read_text() == text


def test_a_query_returns_what_a_run_measured(measured: Project) -> None:
    measured.run("--trt-engine=mlp.onnx", "-k", "layers", "--trt-metrics=www/metrics").assert_outcomes(
        passed=1, deselected=4
    )
    text = (measured.path / "www/metrics").read_text()
    ((labels, seconds),) = samples(text)["trtgray_run_inference_seconds"]
    handler = functools.partial(_Quiet, directory=str(measured.path / "www"))
    files = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=files.serve_forever, daemon=True).start()
    try:
        with prometheus.server(measured.path, f"127.0.0.1:{files.server_port}") as url:
            asked = 'trtgray_run_inference_seconds{engine="mlp"}'
            prometheus.until(lambda: prometheus.query(url, asked))
            (answer,) = prometheus.query(url, asked)
            (median,) = prometheus.query(url, "histogram_quantile(0.5, trtgray_run_latency_seconds_bucket)")
    finally:
        files.shutdown()
        files.server_close()
    assert float(answer["value"][1]) == seconds
    assert labels.items() <= answer["metric"].items()
    exact = samples(text)["trtgray_run_latency_percentiles_seconds"]
    percentiles = {each["percentile"]: value for each, value in exact}
    # a histogram knows its buckets only, which are a factor of 1.6 wide
    assert percentiles["50"] / 1.6 <= float(median["value"][1]) <= percentiles["50"] * 1.6


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def guess_type(self, path: object) -> str:
        """Of a file without a suffix."""
        return "text/plain; version=0.0.4"


def test_a_run_is_pushed_also_with_workers(measured: Project) -> None:
    with prometheus.gateway(measured.path) as url:
        result = measured.run_apart(
            "--trt-engine=mlp.onnx", "-k", "structure or log", f"--trt-push-gateway={url}", "-n1"
        )
        result.assert_outcomes(passed=2)
        text = prometheus.get(f"{url}/metrics").decode()
    kinds = {labels["kind"] for labels, _ in samples(text)["trtgray_run_check_failed"] if labels["engine"] == "mlp"}
    assert kinds == {"structure", "log"}


def test_a_gateway_that_is_down_is_one_warning_and_no_failure(measured: Project) -> None:
    url = f"http://ci:{SECRET}@127.0.0.1:{prometheus.free_port()}"
    result = measured.run(
        "--trt-engine=mlp.onnx", "-k", "structure", f"--trt-push-gateway={url}", "--trt-json=run.json"
    )
    assert result.ret == 0
    result.stdout.fnmatch_lines(["warning: push gateway http://127.0.0.1:*: did not take the metrics: connection ref*"])
    assert str(result.stdout).count("push gateway http") == 1
    assert SECRET not in str(result.stdout) + str(result.stderr)
    assert (measured.path / "run.json").exists()


def test_the_command_that_records_does_not_repeat_a_password(project: Project) -> None:
    project.mlp()
    url = f"http://ci:{SECRET}@127.0.0.1:{prometheus.free_port()}"
    for given in ((f"--trt-push-gateway={url}",), ("--trt-push-gateway", url)):
        result = project.run("--trt-engine=mlp.onnx", "-k", "structure", *given)
        assert result.ret == 1
        result.stdout.fnmatch_lines(["*pytest --trt-engine=mlp.onnx -k structure --update-baselines*"])
        assert SECRET not in str(result.stdout) + str(result.stderr)


def test_a_url_that_is_none_is_refused_before_anything_runs(project: Project) -> None:
    project.mlp()
    result = project.run("--trt-engine=mlp.onnx", f"--trt-push-gateway=ftp://ci:{SECRET}@gw")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*ftp://gw: is no URL of http or https*"])
    assert SECRET not in str(result.stdout) + str(result.stderr)


def test_without_the_client_library_the_run_is_refused_with_the_way_out(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.mlp()
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    result = project.run("--trt-engine=mlp.onnx", "--trt-metrics=a.prom")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*pip install 'pytest-trtgray?metrics?'*"])


def test_a_folder_that_cannot_be_written_is_one_line(measured: Project) -> None:
    (measured.path / "file").touch()
    result = measured.run("--trt-engine=mlp.onnx", "-k", "structure", "--trt-metrics=file/a.prom")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*file/a.prom: the metrics cannot be written: *"])


def test_the_command_pushes_prints_and_refuses(measured: Project, capsys: pytest.CaptureFixture[str]) -> None:
    from pytest_trtgray.cli import main

    measured.run("--trt-engine=mlp.onnx", "-k", "structure", "--trt-json=run.json")
    run = str(measured.path / "run.json")
    capsys.readouterr()
    with prometheus.gateway(measured.path) as url:
        assert main(["metrics", run, "--push", url.replace("//", f"//ci:{SECRET}@")]) == 0
        assert capsys.readouterr() == (f"{url}\n", "")
        assert 'kind="structure"' in prometheus.get(f"{url}/metrics").decode()
    assert main(["metrics", run, "--push", url.replace("//", f"//ci:{SECRET}@")]) == 2
    said = capsys.readouterr()
    assert "connection refused" in said.err
    assert SECRET not in said.err
    assert main(["metrics", "--dashboard"]) == 0
    assert json.loads(capsys.readouterr().out)["uid"] == "trtgray"
    assert main(["metrics", "--alerts"]) == 0
    assert "groups:" in capsys.readouterr().out
    for wrong in (["metrics"], ["metrics", "--dashboard", "--alerts"], ["metrics", run, "--alerts"]):
        assert main(wrong) == 2
    assert "needs one of RUN.json, --dashboard and --alerts" in capsys.readouterr().err
    assert main(["metrics", str(Path(run).with_name("none.json"))]) == 2
    assert main(["metrics", run, "-o", f"{run}/a.prom"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_run_without_checks_leaves_the_metrics_of_the_last_one(measured: Project) -> None:
    last = measured.path / "last.prom"
    last.write_text("of the last run")
    with prometheus.gateway(measured.path) as url:
        wanted = ("--trt-engine=mlp.onnx", "--trt-metrics=last.prom", f"--trt-push-gateway={url}")
        for arguments in (("--collect-only",), ("-k", "nothing_like_it")):
            result = measured.run(*wanted, *arguments)
            assert "the metrics of the run before stay" in str(result.stdout)
        assert "trtgray_run" not in prometheus.get(f"{url}/metrics").decode()
    assert last.read_text() == "of the last run"


def test_checks_that_a_hook_left_odd_break_nothing(measured: Project) -> None:
    measured.pytester.makeconftest("def pytest_trt_update_json(data):\n    data['checks'] = {'odd': 1}")
    result = measured.run("--trt-engine=mlp.onnx", "-k", "structure", "--trt-metrics=a.prom")
    assert result.ret == 0
    assert (measured.path / "a.prom").read_text() == "# EOF\n"
