"""What a Prometheus server reads."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("prometheus_client", reason="pip install 'pytest-trtgray[metrics]'")

from prometheus_client.parser import text_string_to_metric_families

from pytest_trtgray import SamplingProfiler, ServingMetrics
from pytest_trtgray.serving.metrics import MAX_LAYERS, MAX_RULES, REST
from pytest_trtgray.serving.policy import CANARY, OFF
from pytest_trtgray.serving.requests import RequestMetrics
from tests.unit.helpers import ort_engine


def samples(metrics: ServingMetrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """By name and values of the labels in the order of their names."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_what_a_profiler_counts(mlp: Path) -> None:
    metrics = ServingMetrics()
    feed = {"x": np.zeros((2, 8), np.float32)}
    with SamplingProfiler(ort_engine(mlp), feed, policy=CANARY, iterations=5, metrics=metrics) as profiler:
        for _ in range(11):
            profiler.run(feed)
            profiler.settle()
        during = samples(metrics)
        profiler.switch(OFF)
        after = samples(metrics)

    assert during["trtgray_inference_duration_seconds_count", ("plain", "mlp")] == 1
    assert during["trtgray_inference_duration_seconds_count", ("profiled", "mlp")] == 10
    assert during["trtgray_sampled_requests_total", ("mlp", "not_ready")] == 1
    assert during["trtgray_sampled_requests_total", ("mlp", "profiled")] == 10
    assert during["trtgray_sampling_rate_ratio", ("mlp",)] == 1
    assert after["trtgray_sampling_rate_ratio", ("mlp",)] == 0
    assert after["trtgray_sampling_policy_switches_total", ("mlp", "off")] == 1
    assert during["trtgray_sampling_buckets", ("mlp",)] == 1
    assert during["trtgray_layer_duration_seconds", ("mlp", "/fc1/Add + /fc1/MatMul")] < 0.1
    assert all(value == 0 for (name, _), value in during.items() if name == "trtgray_profiler_errors_total")


def test_labels_are_only_a_few() -> None:
    metrics = ServingMetrics()
    engine = metrics.of("large")
    engine.session("x:1x8", None, [(f"layer{number}", float(number)) for number in range(500)])
    for number in range(500):
        engine.anomaly(f"rule.{number}")
    found = samples(metrics)
    layers = {labels[1] for name, labels in found if name == "trtgray_layer_duration_seconds"}
    rules = {labels[1] for name, labels in found if name == "trtgray_anomalies_total"}

    assert len(layers) == MAX_LAYERS + 1
    assert {"layer499", REST} <= layers
    total = sum(value for (name, _), value in found.items() if name == "trtgray_layer_duration_seconds")
    assert total == pytest.approx(sum(range(500)) / 1e6)
    assert len(rules) == MAX_RULES + 1
    assert found["trtgray_anomalies_total", ("large", REST)] == 500 - MAX_RULES


def test_two_services_of_one_process_do_not_meet() -> None:
    first, second = ServingMetrics(), ServingMetrics()
    first.of("a").drawn("profiled")
    assert ("trtgray_sampled_requests_total", ("a", "profiled")) in samples(first)
    assert ("trtgray_sampled_requests_total", ("a", "profiled")) not in samples(second)


def test_requests() -> None:
    now = [100.0]
    metrics = ServingMetrics()
    requests = RequestMetrics(metrics, ("stable", "canary"), clock=lambda: now[0])
    assert math.isnan(samples(metrics)["trtgray_request_latency_seconds", ("p99", "stable")])
    for number in range(100):
        now[0] += 0.1
        requests.answered("stable", "ok", (number + 1) / 1000)
    requests.rejected("canary", "refused")
    requests.fault("canary", "saturated")
    requests.traffic("canary", 0.1)
    requests.waiting(3)
    found = samples(metrics)

    assert found["trtgray_requests_total", ("ok", "stable")] == 100
    assert found["trtgray_requests_total", ("refused", "canary")] == 1
    assert found["trtgray_request_latency_seconds", ("mean", "stable")] == pytest.approx(0.0505)
    assert found["trtgray_request_latency_seconds", ("p95", "stable")] == pytest.approx(0.095, abs=0.001)
    assert found["trtgray_request_latency_seconds", ("p99", "stable")] == pytest.approx(0.099, abs=0.001)
    assert found["trtgray_request_throughput_per_second", ()] == pytest.approx(10, rel=0.05)
    assert found["trtgray_output_faults_total", ("saturated", "canary")] == 1
    assert found["trtgray_version_traffic_ratio", ("canary",)] == 0.1
    assert found["trtgray_requests_waiting", ()] == 3
    assert found["process_resident_memory_bytes", ()] > 1e6
    now[0] += 61
    assert samples(metrics)["trtgray_request_throughput_per_second", ()] == 0
