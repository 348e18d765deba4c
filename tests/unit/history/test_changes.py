from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pytest_trtgray.history.changes import MIN_SIDE, energy, find_changes

STEP = math.log(1.05)


def by_definition(values: np.ndarray, at: int) -> float:
    """mn / (m + n) (2 E|X - Y| - E|X - X'| - E|Y - Y'|), pair by pair."""
    before, after = values[:at], values[at:]
    m, n = len(before), len(after)

    def within(side: np.ndarray) -> float:
        distances = [abs(a - b) for i, a in enumerate(side) for j, b in enumerate(side) if i != j]
        return float(np.mean(distances))

    across = np.mean([abs(a - b) for a in before for b in after])
    return float(m * n / (m + n) * (2 * across - within(before) - within(after)))


class TestEnergy:
    @pytest.mark.parametrize("size", [4, 5, 63, 64, 130])
    def test_is_as_defined(self, size: int) -> None:
        values = np.random.default_rng(size).normal(size=size)
        found = energy(values)

        places = {2, size // 2, size - 2}
        assert [found[at] for at in places] == pytest.approx([by_definition(values, at) for at in places])
        assert np.isneginf(found[[0, 1, size - 1]]).all()

    def test_as_apache_otava_computes_it(self) -> None:
        # PairDistanceCalculator(series)._get_Q_vals(0, 8)[1:6, -1] of apache-otava 0.8.0
        series = np.array([1.0, 2.0, 1.5, 1.2, 4.0, 4.5, 3.8, 4.2])
        otava = [1.7699999999999996, 4.324999999999999, 8.933333333333334, 5.024999999999999, 2.259999999999998]
        assert energy(series)[2:7] == pytest.approx(otava)

    @given(arrays(np.float64, st.integers(4, 90), elements=st.floats(-1e3, 1e3, width=32)))
    def test_does_not_depend_on_place_and_direction(self, values: np.ndarray) -> None:
        found = energy(values)[2:-1]

        assert energy(values + 7.0)[2:-1] == pytest.approx(found, abs=1e-6 * (1 + np.abs(values).max()))
        assert energy(values[::-1])[2:-1][::-1] == pytest.approx(found, abs=1e-6 * (1 + np.abs(values).max()))


class TestChanges:
    @pytest.mark.parametrize("size", [0, 1, 2 * MIN_SIDE - 1])
    def test_of_too_few_values(self, size: int) -> None:
        assert find_changes([0.0, 9.0] * size, min_change=0.01)[:0] == []
        assert find_changes(list(range(size)), min_change=0.01) == []

    def test_a_constant_has_none(self) -> None:
        assert find_changes([3.0] * 100, min_change=0.01) == []

    def test_a_step_is_found_where_it_is(self) -> None:
        values = np.random.default_rng(1).normal(5, 0.007, 80)
        values[50:] += STEP
        (found,) = find_changes(values, min_change=0.03)

        assert (found.index, found.earliest, found.latest) == (50, 50, 50)
        assert (found.before, found.after - found.before) == pytest.approx((5, STEP), abs=0.005)
        assert found.p_value < 1e-9

    def test_a_step_down_and_one_that_is_taken_back(self) -> None:
        values = np.random.default_rng(2).normal(0, 0.007, 300)
        values[100:115] -= STEP

        assert [change.index for change in find_changes(values, min_change=0.03)] == [100, 115]

    def test_a_small_step_is_none(self) -> None:
        values = np.random.default_rng(3).normal(0, 0.002, 80)
        values[40:] += 0.02

        assert find_changes(values, min_change=0.03) == []
        assert [change.index for change in find_changes(values, min_change=0.01)] == [40]

    def test_where_the_place_is_not_clear_the_range_is_wide(self) -> None:
        random = np.random.default_rng(4)
        widths, inside = [], 0
        for _ in range(40):
            values = random.normal(0, 0.04, 100)
            values[60:] += 0.08
            found = find_changes(values, min_change=0.03)
            widths += [change.latest - change.earliest for change in found]
            inside += any(change.earliest <= 60 <= change.latest for change in found)
        assert max(widths) > 0
        assert inside >= 36

    def test_single_outliers_are_none(self) -> None:
        values = np.random.default_rng(5).normal(0, 0.007, 100)
        values[[20, 21, 70]] += 3.0

        assert find_changes(values, min_change=0.03) == []

    @pytest.mark.parametrize("drift", [0.0, 0.5, 0.8])
    def test_quiet_series_rarely_have_any(self, drift: float) -> None:
        """Also where jobs resemble the one before, as on a warm day; without a least size, which hides most."""
        random = np.random.default_rng(6)
        alarms = 0
        for _ in range(100):
            values = np.zeros(200)
            fresh = random.standard_t(4, 200) * 0.007 * math.sqrt(1 - drift**2)
            for job in range(1, 200):
                values[job] = drift * values[job - 1] + fresh[job]
            alarms += bool(find_changes(values, min_change=0.0))
        assert alarms <= 5
