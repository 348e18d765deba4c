"""Histograms of single inferences, against numpy on the same samples."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pytest_trtgray.timing.latency import EDGES_US, Latency
from pytest_trtgray.timing.samples import Samples


def samples(latency_us: list[float] | None) -> Samples:
    return Samples([[1.0]], latency_us, ["layer"])


def test_counts_sum_and_percentiles_are_those_of_all_sessions() -> None:
    times = np.random.default_rng(0).lognormal(6, 2, 500)
    latency = Latency.of([samples(list(times[:100])), samples(list(times[100:]))])
    assert latency is not None
    cumulated = np.cumsum(latency.counts)
    assert list(cumulated[:-1]) == [int((times <= edge).sum()) for edge in EDGES_US]
    assert cumulated[-1] == 500
    assert latency.sum_us == pytest.approx(times.sum())
    wanted = {percent: pytest.approx(np.percentile(times, percent)) for percent in (50, 90, 95, 99)}
    assert latency.percentiles_us == wanted


def test_a_bound_belongs_to_its_bucket_and_what_is_beyond_the_last_has_its_own() -> None:
    latency = Latency.of([samples([EDGES_US[3], EDGES_US[-1], EDGES_US[-1] * 2])])
    assert latency is not None
    counts = dict(enumerate(latency.counts))
    assert {place for place, count in counts.items() if count} == {3, len(EDGES_US) - 1, len(EDGES_US)}


def test_bounds_ascend_five_a_decade() -> None:
    assert list(EDGES_US) == sorted(EDGES_US)
    assert len(EDGES_US) == 5 * 7 + 1
    assert (EDGES_US[0], EDGES_US[-1]) == (1.0, 1e7)


@pytest.mark.parametrize("sessions", [[], [samples(None)]])
def test_nothing_measured_is_none(sessions: list[Samples]) -> None:
    assert Latency.of(sessions) is None


def test_the_row_of_a_document_is_json_with_per_cent_as_keys() -> None:
    latency = Latency.of([samples([100.0, 200.0])])
    assert latency is not None
    row = json.loads(json.dumps(latency.to_dict()))
    assert row["percentiles_us"]["50"] == 150.0
    assert len(row["counts"]) == len(row["edges_us"]) + 1
