from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pytest_trtgray.timing.spread import (
    LONE_LAYER_SD,
    MAX_PRIOR_DF,
    RunTimes,
    Spread,
    deviation,
    fit,
    looks_suspicious,
    moderated,
    usual_variance,
    with_sessions,
)


def times(layers: np.ndarray, clock: np.ndarray | None = None, engine: np.ndarray | None = None) -> RunTimes:
    runs, count = layers.shape
    return RunTimes(
        layers=layers,
        errors=np.zeros_like(layers),
        engine=np.log(np.exp(layers).sum(axis=1)) if engine is None else engine,
        clock=np.full(runs, np.nan) if clock is None else clock,
        within=np.zeros(count),
        within_df=0.0,
    )


def noise(runs: int, layers: int, sd: float = 0.01, seed: int = 0) -> np.ndarray:
    rng = np.random.Generator(np.random.PCG64(seed))
    return np.asarray(np.linspace(1, 5, layers) + rng.normal(0, sd, (runs, layers)))


def look(spread: Spread, row: np.ndarray, clock: float | None = None) -> np.ndarray:
    return deviation(spread, row, np.zeros_like(row), float(np.log(np.exp(row).sum())), clock).change


class TestFit:
    def test_what_all_layers_share_is_no_layers_change(self) -> None:
        runs = noise(6, 40)
        found = deviation(fit(times(runs)), runs[0] + 0.2, np.zeros(40), 0.0, None)

        assert found.shift == pytest.approx(0.2, abs=0.01)
        assert np.abs(found.change).max() < 0.08
        assert np.abs(found.change / found.sd).max() < 4  # a shift far from the baseline's is known to be uncertain

    def test_one_layer_is(self) -> None:
        runs = noise(6, 40)
        row = runs.mean(axis=0)
        row[7] += 0.1

        assert look(fit(times(runs)), row)[7] == pytest.approx(0.1, abs=0.01)

    def test_a_slower_clock_explains_a_slower_engine(self) -> None:
        clock = np.log([1900.0, 1950, 2000, 1930, 1980, 1910])
        runs = noise(6, 40, sd=0.001) - 0.9 * (clock - clock.mean())[:, np.newaxis]
        spread = fit(times(runs, clock))
        slow = clock.mean() - 0.05
        row = np.linspace(1, 5, 40) + 0.9 * 0.05
        found = deviation(spread, row, np.zeros(40), float(np.log(np.exp(row).sum())), slow)

        assert found.explained == pytest.approx(0.045, abs=0.005)
        assert abs(found.engine_change) < 0.01
        assert np.abs(found.change).max() < 0.01

    def test_a_layer_that_does_not_follow_the_clock_is_known_for_it(self) -> None:
        clock = np.log(np.linspace(1700.0, 2000, 10))
        runs = noise(10, 40, sd=0.001) - 0.9 * (clock - clock.mean())[:, np.newaxis]
        runs[:, 3] += 0.9 * (clock - clock.mean())
        spread = fit(times(runs, clock))
        row = np.linspace(1, 5, 40) + 0.9 * 0.1
        row[3] -= 0.9 * 0.1

        assert look(spread, row, clock.mean() - 0.1)[3] == pytest.approx(0, abs=0.02)

    @pytest.mark.parametrize("runs", [1, 2])
    def test_few_runs_have_the_spread_of_elsewhere(self, runs: int) -> None:
        spread = fit(times(noise(runs, 40)))

        assert not spread.is_measured
        assert (np.sqrt(spread.variance) >= LONE_LAYER_SD - 1e-12).all()

    @pytest.mark.parametrize("layers", [0, 1, 2, 4])
    def test_few_layers(self, layers: int) -> None:
        spread = fit(times(noise(5, layers), engine=np.zeros(5)))

        assert not spread.common
        assert spread.variance.shape == (layers,)
        assert np.isfinite(spread.variance).all()


class TestModeration:
    def test_equal_layers_lend_all_they_may(self) -> None:
        """200 samples of one variance: nothing is left of the scatter, and the prior is that variance."""
        rng = np.random.Generator(np.random.PCG64(1))
        own = 1e-4 * stats.chi2.rvs(4, size=2000, random_state=rng) / 4
        prior, df = usual_variance(own, 4.0, np.zeros(2000))

        assert df == pytest.approx(MAX_PRIOR_DF, rel=1e-6)
        assert float(prior[0]) == pytest.approx(1e-4, rel=0.1)

    def test_the_priors_degrees_of_freedom_are_found(self) -> None:
        """Variances drawn as in Smyth 2004: scaled inverse chi-square with 4 degrees, sampled with 6."""
        rng = np.random.Generator(np.random.PCG64(2))
        true = 1e-4 * 4 / stats.chi2.rvs(4, size=20_000, random_state=rng)
        own = true * stats.chi2.rvs(6, size=20_000, random_state=rng) / 6
        prior, df = usual_variance(own, 6.0, np.zeros(20_000))

        assert df == pytest.approx(4, rel=0.15)
        assert float(prior[0]) == pytest.approx(1e-4, rel=0.1)

    def test_a_wild_layer_keeps_its_own(self) -> None:
        own = np.full(50, 1e-4)
        own[9] = 1.0
        variance, df = moderated(own, 4.0, np.linspace(0, 5, 50))

        assert variance[9] == 1.0
        assert df[9] == 4.0
        assert (np.delete(variance, 9) < 2e-4).all()

    @given(st.integers(1, 60), st.integers(0, 99))
    def test_between_its_own_and_the_usual(self, layers: int, seed: int) -> None:
        rng = np.random.Generator(np.random.PCG64(seed))
        own = np.exp(rng.normal(-9, 1, layers))
        variance, df = moderated(own, 4.0, rng.normal(3, 1, layers))

        assert (variance > 0).all()
        assert (df >= 4.0 - 1e-9).all()
        assert np.isfinite(variance).all()


class TestSessions:
    def test_runs_that_differ_twice_as_much_as_their_sessions_tell(self) -> None:
        rng = np.random.Generator(np.random.PCG64(3))
        true = np.exp(rng.normal(-9, 1, 500))
        between = true * stats.chi2.rvs(3, size=500, random_state=rng) / 3
        within = 0.5 * true * stats.chi2.rvs(8, size=500, random_state=rng) / 8
        helped, df = with_sessions(between, 3.0, within, 8.0)

        assert df == 7.0
        assert np.std(np.log(helped / true)) < 0.8 * np.std(np.log(between / true))

    def test_single_sessions_tell_nothing(self) -> None:
        own = np.full(20, 1e-4)

        assert with_sessions(own, 3.0, np.zeros(20), 0.0) == (own, 3.0)


def test_suspicion() -> None:
    assert looks_suspicious(np.array([0.9, 0.001, 0.5]))
    assert not looks_suspicious(np.array([0.9, 0.2, 0.5]))
    assert not looks_suspicious(np.array([]))
