"""Run documents to series: what is there with which value, how many at most, and that nothing odd breaks it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.metrics import families as of
from pytest_trtgray.metrics.extraction import MAX_CHECKS, OTHERS, TOP, HistogramValue, Series, series_of
from pytest_trtgray.metrics.families import CHECK_LABELS, ENGINE_LABELS, FAMILIES, Family
from pytest_trtgray.timing.latency import Latency
from pytest_trtgray.timing.samples import Samples
from tests.documents import document

TIMING = ("bert", "tensorrt_rtx 1.5.0.114", "NVIDIA H200", "trtgray::layers", "timing")
ENGINE = TIMING[:3]
OUTPUTS = (*TIMING[:3], "trtgray::outputs", "outputs")


def value(series: Series, family: Family, *labels: str) -> float | HistogramValue:
    return series.values[family][labels]


def timing(run: dict[str, Any]) -> dict[str, Any]:
    details: dict[str, Any] = run["checks"][0]["details"]
    return details


def test_verdicts_are_counted_and_each_check_says_its_own() -> None:
    run = document(slower=3)
    series = series_of(run)
    assert value(series, of.FAILED, *TIMING) == 1
    assert value(series, of.FAILED, *OUTPUTS) == 0
    assert value(series, of.OUTCOME, *TIMING, "slower") == 1
    assert value(series, of.CHECKS, *ENGINE, "slower") == 1
    assert value(series, of.CHECKS, *ENGINE, "pass") == len(run["checks"]) - 1
    assert value(series, of.CHECKS, *ENGINE, "differs") == 0  # alerts need it before it happens
    assert value(series, of.FINDINGS, *TIMING, "error") == 1
    assert value(series, of.TIMESTAMP, *ENGINE) == 1795262400  # date -u -d 2026-11-21T12:00:00Z +%s
    assert value(series, of.INFO, *ENGINE, "0.1.0", "3.12.0", "beef00") == 1


def test_times_are_seconds_and_layers_add_up_to_all() -> None:
    run = document(layers=24)
    rows = {row["key"]: row["us"] for row in timing(run)["layers"]}
    layers = series_of(run).values[of.LAYER]
    assert len(layers) == TOP + 1
    named = {labels[-2]: seconds for labels, seconds in layers.items() if labels[-2] != OTHERS}
    longest = sorted(rows, key=lambda key: -rows[key])[:TOP]
    assert named == {key: pytest.approx(rows[key] / 1e6) for key in longest}
    assert sum(map(float, layers.values())) == pytest.approx(sum(rows.values()) / 1e6)  # type: ignore[arg-type]


def test_a_histogram_is_cumulated_in_seconds() -> None:
    run = document()
    latency = Latency.of([Samples([[1.0]], [1000.0, 1500.0, 2e7], ["layer"])])
    assert latency is not None
    timing(run)["latency"] = latency.to_dict()
    series = series_of(run)
    found = value(series, of.LATENCY, *TIMING)
    assert isinstance(found, HistogramValue)
    buckets = dict(found.buckets)
    assert (buckets[0.00063], buckets[0.001], buckets[0.0016], buckets[10.0], buckets[float("inf")]) == (0, 1, 2, 2, 3)
    assert found.sum_seconds == pytest.approx(20.0025)
    assert value(series, of.LATENCY_PERCENTILES, *TIMING, "50") == pytest.approx(0.0015)


def test_accuracy_saturation_memory_and_overheads() -> None:
    run = document()
    timing(run)["overheads"] = {"cold_start_us": "120000.5", "upload_us": "80.0"}
    run["checks"][1]["details"]["outputs"][0]["wrong"] = 250
    run["checks"][2]["details"]["memory"] = {"weights_bytes": 1 << 20}
    scales = {"tensors": [{"tensor": f"t{index}", "clipped": index / 100} for index in range(30)] + [{"tensor": "x"}]}
    run["checks"].append({**run["checks"][1], "kind": "scales", "outcome": "suspect", "details": scales})
    series = series_of(run)
    assert value(series, of.RELATIVE_L2, *OUTPUTS, "hidden") == 5e-4
    assert value(series, of.WRONG, *OUTPUTS, "hidden") == 0.25
    saturated = {labels[-1]: share for labels, share in series.values[of.SATURATED].items()}
    assert saturated == {f"t{index}": index / 100 for index in range(20, 30)}
    assert list(series.values[of.MEMORY].values()) == [1 << 20]
    assert list(series.values[of.LAYERS].values()) == [24]
    assert value(series, of.COLD_START, *TIMING) == 0.1200005
    assert value(series, of.TRANSFER, *TIMING, "upload") == 8e-05
    assert (*TIMING, "download") not in series.values[of.TRANSFER]


def test_telemetry_in_base_units_with_the_clock_under_load() -> None:
    run = document()
    timing(run)["context"] |= {
        "sm_mhz": "345", "memory_mhz": "2619", "temperature_c": "61", "power_w": "612.5", "power_limit_w": "700",
        "utilisation_percent": "97",
    }  # fmt: skip
    series = series_of(run)
    assert value(series, of.GPU_CLOCK, *TIMING, "sm") == 1980e6  # not the 345 MHz after it
    assert value(series, of.GPU_CLOCK, *TIMING, "memory") == 2619e6
    assert value(series, of.GPU_TEMPERATURE, *TIMING) == 61
    assert value(series, of.GPU_POWER, *TIMING) == 612.5
    assert value(series, of.GPU_POWER_LIMIT, *TIMING) == 700
    assert value(series, of.GPU_UTILIZATION, *TIMING) == 0.97
    for family in (of.GPU_TEMPERATURE, of.GPU_POWER, of.GPU_UTILIZATION):
        assert family not in series_of(document()).values  # a CPU has none, and none is no zero


def test_a_document_without_details_has_the_verdict_and_its_numbers() -> None:
    run = document()
    for check in run["checks"]:
        check["details"] = {}
    run["checks"][0] |= {"total_us": 2000.0, "change": 0.02, "low": -0.01, "high": 0.05}
    run["checks"][1]["relative_l2"] = 0.003
    series = series_of(run)
    assert value(series, of.INFERENCE, *TIMING) == 0.002
    assert [value(series, each, *TIMING) for each in (of.CHANGE, of.CHANGE_LOW, of.CHANGE_HIGH)] == [0.02, -0.01, 0.05]
    assert value(series, of.RELATIVE_L2, *OUTPUTS, "(worst)") == 0.003
    assert of.LAYER not in series.values
    assert of.DISTURBED not in series.values


def test_parameters_of_a_test_share_labels_and_the_worst_is_shown() -> None:
    run = document()
    check = run["checks"][0]
    run["checks"] = [
        {**check, "test": "t.py::test_a[1]", "total_us": 9e3},
        {**check, "test": "t.py::test_a[2]", "total_us": 5e3, "outcome": "slower"},
        {**check, "test": "t.py::test_a[3]", "total_us": 7e3, "outcome": "inconclusive"},
    ]
    series = series_of(run)
    labels = (*TIMING[:3], "t.py::test_a", "timing")
    assert value(series, of.INFERENCE, *labels) == 5e-3
    assert value(series, of.LEFT_OUT, *ENGINE) == 2
    assert value(series, of.CHECKS, *ENGINE, "inconclusive") == 1  # still counted


def test_the_number_of_series_is_bounded_and_failures_come_first() -> None:
    run = document(layers=300)
    check = run["checks"][0]
    run["checks"] = [
        {**check, "engine": f"{index}-{'long' * 60}", "outcome": "slower" if index == 1999 else "pass"}
        for index in range(2000)
    ]
    series = series_of(run)
    assert value(series, of.LEFT_OUT, OTHERS, "", "") == 2000 - MAX_CHECKS
    assert max(map(len, series.values.values())) <= MAX_CHECKS * (TOP + 1)
    assert sum(map(float, series.values[of.FAILED].values())) == 1  # type: ignore[arg-type]
    assert all(len(text) <= 80 for rows in series.values.values() for labels in rows for text in labels)


def test_each_series_has_the_labels_of_its_family() -> None:
    for family, rows in series_of(document()).values.items():
        assert all(len(labels) == len(family.labels) for labels in rows), family.name
        of_check = family not in (of.INFO, of.TIMESTAMP, of.CHECKS, of.LEFT_OUT)
        assert family.labels[: len(CHECK_LABELS if of_check else ENGINE_LABELS)] == (
            CHECK_LABELS if of_check else ENGINE_LABELS
        )
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def _paths(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [found for key, each in items for found in [(*path, key), *_paths(each, (*path, key))]]


SMALL = document(layers=2)
ODD = st.sampled_from([None, "", "text", [], {}, True, -1, 1e300, [None], {"a": 1}, "nan", "\ud800"])


@given(st.sampled_from(_paths(SMALL)), ODD)
def test_a_hook_may_leave_anything_anywhere(path: tuple[Any, ...], odd: Any) -> None:
    run = copy.deepcopy(SMALL)
    place: Any = run
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = odd
    for family, rows in series_of(run).values.items():
        assert all(len(labels) == len(family.labels) for labels in rows)
        assert all(isinstance(each, (float, HistogramValue)) for each in rows.values())


def test_two_engines_of_a_run_are_counted_apart() -> None:
    run = document(slower=1)
    run["checks"] += document(engine="vit")["checks"]
    series = series_of(run)
    assert value(series, of.CHECKS, *ENGINE, "slower") == 1
    assert value(series, of.CHECKS, "vit", *ENGINE[1:], "slower") == 0
    assert set(series.values[of.TIMESTAMP]) == {ENGINE, ("vit", *ENGINE[1:])}
