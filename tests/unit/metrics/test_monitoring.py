"""The dashboard and the alerts: Prometheus loads them, each alert fires when it should, all metrics they name exist."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_trtgray.metrics.families import FAMILIES
from pytest_trtgray.metrics.monitoring import ALERTS, DASHBOARD
from tests import prometheus

CHECK = 'engine="bert",runtime="rtx 1.7",device="H200",test="t.py::test_a",kind="timing"'
RULE = re.compile(r"^\s*- alert: (\w+)$", re.MULTILINE)
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}
METRIC = re.compile(r"\btrtgray_\w+")

# alert: series that make it fire, series that must not, and when to look
Case = tuple[list[tuple[str, str]], list[tuple[str, str]], str]


def _requests(outcome: str) -> str:
    return f'trtgray_requests_total{{job="a",version="stable",outcome="{outcome}"}}'


def _duration(bound: str) -> str:
    return f'trtgray_request_duration_seconds_bucket{{job="a",version="stable",le="{bound}"}}'


CASES: dict[str, Case] = {
    "TrtgrayCheckFailed": (
        [(f"trtgray_run_check_failed{{{CHECK}}}", "0 1 1")],
        [(f"trtgray_run_check_failed{{{CHECK}}}", "1 0 0")],
        "2h",
    ),
    "TrtgrayRunOverdue": (
        [('trtgray_run_timestamp_seconds{engine="bert"}', "0x60")],
        [('trtgray_run_timestamp_seconds{engine="bert"}', "0+3600x60")],
        "60h",
    ),
    "TrtgrayNoVerdict": (
        [(f'trtgray_run_check_outcome_info{{{CHECK},outcome="inconclusive"}}', "1x80")],
        [
            (f'trtgray_run_check_outcome_info{{{CHECK},outcome="inconclusive"}}', "1x40 stale"),
            (f'trtgray_run_check_outcome_info{{{CHECK},outcome="pass"}}', "1x80"),
        ],
        "80h",
    ),
    "TrtgrayCreepingSlowdown": (
        [(f"trtgray_run_inference_seconds{{{CHECK}}}", "0.010+0.00001x240")],
        [(f"trtgray_run_inference_seconds{{{CHECK}}}", "0.010+0.000002x240")],
        "240h",
    ),
    "TrtgrayAccuracyDrift": (
        [(f'trtgray_run_relative_l2_ratio{{{CHECK},output="logits"}}', "0.001x99 0.003x20")],
        [
            (f'trtgray_run_relative_l2_ratio{{{CHECK},output="logits"}}', "0.001x99 0.0015x20"),
            (f'trtgray_run_relative_l2_ratio{{{CHECK},output="exact"}}', "1e-9x99 1e-7x20"),
        ],
        "102h",
    ),
    "TrtgraySaturation": (
        [(f'trtgray_run_saturated_ratio{{{CHECK},tensor="x"}}', "0.02x3")],
        [(f'trtgray_run_saturated_ratio{{{CHECK},tensor="x"}}', "0.005x3")],
        "2h",
    ),
    "TrtgrayMachineDisturbed": (
        [(f"trtgray_run_disturbed{{{CHECK}}}", "1x30")],
        [(f"trtgray_run_disturbed{{{CHECK}}}", "1x10 0x20")],
        "30h",
    ),
    # minutes: an interval of an hour has no rate over five of them
    "TrtgrayRequestErrors": (
        [(_requests("failed"), "0+2x60"), (_requests("ok"), "0+98x60")],
        [(_requests("failed"), "0+0x60"), (_requests("invalid"), "0+9x60"), (_requests("ok"), "0+98x60")],
        "30m",
    ),
    "TrtgrayFallback": (
        [(_requests("fallback"), "0x20 1x40")],
        [(_requests("fallback"), "1x60"), (_requests("ok"), "0+9x60")],
        "25m",
    ),
    "TrtgrayCanaryWithdrawn": (
        [('trtgray_version_traffic_ratio{version="canary"}', "0.1x20 0x20")],
        [
            ('trtgray_version_traffic_ratio{version="canary"}', "0.1x20 1x20"),
            ('trtgray_version_traffic_ratio{version="stable"}', "0.9x20 0x20"),
        ],
        "35m",
    ),
    "TrtgrayRequestLatency": (
        [
            (_duration("0.01"), "0+100x1500 150000+50x60"),
            (_duration("0.1"), "0+100x1560"),
            (_duration("+Inf"), "0+100x1560"),
        ],
        [(_duration("0.01"), "0+100x1560"), (_duration("0.1"), "0+100x1560"), (_duration("+Inf"), "0+100x1560")],
        "1540m",
    ),
    "TrtgrayEngineSlower": (
        [('trtgray_baseline_change_ratio{engine="a",shape="x:1",bound="low"}', "0.03x30")],
        [
            ('trtgray_baseline_change_ratio{engine="a",shape="x:1",bound="low"}', "-0.01x30"),
            ('trtgray_baseline_change_ratio{engine="a",shape="x:1",bound="estimate"}', "0.04x30"),
        ],
        "20m",
    ),
    "TrtgrayAnomalies": (
        [('trtgray_anomalies_total{engine="a",rule="timing.anomaly.drift"}', "0+1x90")],
        [('trtgray_anomalies_total{engine="a",rule="timing.anomaly.drift"}', "0x30 1x30 2x30")],
        "80m",
    ),
    "TrtgrayUnusableOutputs": (
        [('trtgray_output_faults_total{version="canary",kind="non_finite"}', "0x20 1x40")],
        [('trtgray_output_faults_total{version="canary",kind="non_finite"}', "0x60")],
        "25m",
    ),
    "TrtgrayProfilingCostly": (
        [('trtgray_sampling_overhead_ratio{engine="a"}', "0.08x30")],
        [('trtgray_sampling_overhead_ratio{engine="a"}', "0.08x8 0.02x30")],
        "20m",
    ),
    "TrtgrayProfilerFails": (
        [('trtgray_profiler_errors_total{engine="a",stage="read"}', "0x20 1x40")],
        [('trtgray_profiler_errors_total{engine="a",stage="read"}', "0x60")],
        "25m",
    ),
}


def dashboard() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return data


def expressions() -> Iterator[tuple[str, str]]:
    """Title and PromQL of each target of the dashboard."""
    board = dashboard()
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for annotation in board["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def names_of_a_run() -> set[str]:
    return {family.name + suffix for family in FAMILIES for suffix in SUFFIXES[family.kind]}


def names_of_the_service() -> set[str]:
    pytest.importorskip("pytest_trtgray.serving", reason="needs pytest_trtgray.serving")
    serving = importlib.import_module("pytest_trtgray.serving.metrics").ServingMetrics()
    importlib.import_module("pytest_trtgray.serving.requests").RequestMetrics(serving, ("stable", "canary"))
    families = [each for each in serving.registry.collect() if each.name.startswith("trtgray_")]
    return {family.name + suffix for family in families for suffix in SUFFIXES[family.type]}


@pytest.mark.parametrize("text", [ALERTS.read_text("utf-8"), "\n".join(each for _, each in expressions())])
def test_every_metric_that_is_named_exists(text: str) -> None:
    named = set(METRIC.findall(text))
    of_runs = {name for name in named if name.startswith("trtgray_run_")}
    assert of_runs
    assert of_runs - names_of_a_run() == set()
    assert named - of_runs - names_of_the_service() == set()


def test_every_family_of_the_service_is_shown() -> None:
    shown = {name for _, text in expressions() for name in METRIC.findall(text)}
    assert {name for name in names_of_the_service() if not name.endswith(("_sum", "_count"))} - shown == set()


def test_every_family_of_a_run_is_shown() -> None:
    """Information about the run itself, counts that the verdicts' table has, and what only alerts need, are not."""
    shown = {name for _, text in expressions() for name in METRIC.findall(text)}
    elsewhere = {"info", "checks", "left_out_checks", "check_findings", "layers", "disturbed"}
    missing = {f.name for f in FAMILIES if not any(name.startswith(f.name) for name in shown)}
    assert {name.removeprefix("trtgray_run_") for name in missing} == elsewhere


def test_every_family_and_every_alert_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text("utf-8")
    named = set(re.findall(r"`(\w+)`", text))
    assert {family.name for family in FAMILIES} - named == set()
    assert set(CASES) - named == set()


def test_promtool_accepts_the_rules() -> None:
    done = prometheus.promtool("check", "rules", "--lint=all", "--lint-fatal", str(ALERTS))
    assert done.returncode == 0, done.stderr.decode()


def test_every_alert_has_a_case() -> None:
    assert set(RULE.findall(ALERTS.read_text("utf-8"))) == set(CASES)


@pytest.mark.parametrize("alert", sorted(CASES))
def test_an_alert_fires_when_it_should_and_only_then(alert: str, tmp_path: Path) -> None:
    firing, quiet, at = CASES[alert]
    interval = "1m" if at.endswith("m") else "1h"
    unit = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": interval,
        "tests": [
            {
                "name": "firing" if fires else "quiet",
                "interval": interval,
                "input_series": [{"series": name, "values": values} for name, values in series],
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)',
                        "eval_time": at,
                        "exp_samples": [{"labels": "{}", "value": int(fires)}],
                    }
                ],
            }
            for fires, series in ((True, firing), (False, quiet))
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(json.dumps(unit))  # YAML takes JSON
    done = prometheus.promtool("test", "rules", str(file))
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


def test_what_an_alert_says(tmp_path: Path) -> None:
    unit = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1h",
        "tests": [
            {
                "interval": "1h",
                "input_series": [{"series": f'trtgray_run_saturated_ratio{{{CHECK},tensor="x"}}', "values": "0.02x3"}],
                "alert_rule_test": [
                    {
                        "alertname": "TrtgraySaturation",
                        "eval_time": "2h",
                        "exp_alerts": [
                            {
                                "exp_labels": {
                                    **dict(re.findall(r'(\w+)="([^"]*)"', CHECK)),
                                    "tensor": "x",
                                    "severity": "warning",
                                },
                                "exp_annotations": {
                                    "summary": "bert: 2% of x is clipped",
                                    "description": "The scale is too small for these values: trtgray quantisation "
                                    "MODEL --feeds FEED.npz.",
                                },
                            }
                        ],
                    }
                ],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(json.dumps(unit))
    done = prometheus.promtool("test", "rules", str(file))
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


def test_prometheus_evaluates_every_expression_and_loads_the_rules(tmp_path: Path) -> None:
    wrong = []
    with prometheus.server(tmp_path, f"127.0.0.1:{prometheus.free_port()}", ALERTS) as url:
        for title, text in expressions():
            try:
                prometheus.query(url, re.sub(r"\$\w+", ".*", text.replace("$__rate_interval", "5m")))
            except OSError as error:
                wrong.append((title, text, str(error)))
        groups = json.loads(prometheus.get(f"{url}/api/v1/rules"))["data"]["groups"]
    assert wrong == []
    assert {rule["name"] for group in groups for rule in group["rules"]} == set(CASES)


def test_the_dashboard_is_whole() -> None:
    """What Grafana's import needs: identities once, a place for each panel, the data source by its variable."""
    board = dashboard()
    panels = board["panels"]
    assert board["uid"] == "trtgray"
    assert board["schemaVersion"] >= 36
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"
    variables = {each["name"] for each in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps([panel.get("targets", ()) for panel in panels])))
    assert {name for name in used if not name.startswith("__")} == variables  # those with __ are Grafana's own
