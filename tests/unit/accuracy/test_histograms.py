from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from pytest_trtgray.accuracy import histograms

FINITE = st.floats(-(2.0**100), 2.0**100, width=32)
ARRAYS = hnp.arrays(np.float32, st.integers(1, 60), elements=FINITE)
RNG = np.random.default_rng(6)


@given(values=ARRAYS)
def test_every_value_lies_between_the_edges_of_its_bin(values: Any) -> None:
    counts = histograms.magnitudes(histograms.count(values))
    edges = histograms.edges()

    assert counts.sum() == values.size
    for value in np.abs(values):
        index = int(np.searchsorted(edges[:2041], float(value), side="right")) - 1
        assert counts[index] > 0
        assert edges[index] <= value < edges[index + 1]


@given(one=ARRAYS, other=ARRAYS)
def test_counts_add_up(one: Any, other: Any) -> None:
    both = histograms.count(np.concatenate([one, other]))

    np.testing.assert_array_equal(histograms.count(one) + histograms.count(other), both)


def test_what_is_not_finite() -> None:
    counts = histograms.count(np.array([np.nan, -np.nan, np.inf, -np.inf, 3.4e38, 0, -0.0, 1e-45], np.float32))

    assert histograms.not_finite(counts) == 4
    assert histograms.magnitudes(counts)[0] == 3  # zeros, and the smallest subnormal numbers beside them


def test_powers_of_two_are_edges() -> None:
    edges = histograms.edges()

    assert {2.0**power for power in range(-126, 128)} <= set(edges)


@given(one=ARRAYS, other=ARRAYS)
def test_the_distance_is_that_of_kolmogorov_and_smirnov_at_the_edges(one: Any, other: Any) -> None:
    found = histograms.distance(histograms.count(one), histograms.count(other))

    exact = max(abs(np.mean(one <= value) - np.mean(other <= value)) for value in (*one, *other))
    assert 0 <= found <= exact + 1e-9
    assert histograms.distance(histograms.count(one), histograms.count(one)) == 0


@pytest.mark.parametrize("factor", [1.5, 2, 10])
def test_the_distance_of_normal_distributions(factor: float) -> None:
    one, other = RNG.standard_normal(100_000), factor * RNG.standard_normal(100_000)

    found = histograms.distance(histograms.count(one), histograms.count(other))
    assert found == pytest.approx(stats.ks_2samp(one, other).statistic, abs=0.02)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_quantiles_of_magnitudes(share: float) -> None:
    values = RNG.standard_normal(100_000) * 7

    found = histograms.quantile(histograms.count(values), share)
    assert found == pytest.approx(np.quantile(np.abs(values), share), rel=0.125)


def test_a_quantile_of_nothing() -> None:
    assert histograms.quantile(histograms.count(np.zeros(0, np.float32)), 0.5) == 0
    assert histograms.quantile(histograms.count(np.zeros(5, np.float32)), 0.5) == 0
