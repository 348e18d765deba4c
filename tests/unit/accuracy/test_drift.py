from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pytest_trtgray.accuracy.drift import ALPHA, Drift, Samples, Side

RNG = np.random.default_rng(7)


def drift(calibration: list[Any], test: list[Any]) -> Drift | None:
    sides: list[tuple[Side, list[Any]]] = [("calibration", calibration), ("test", test)]
    samples = Samples({side: len(tensors) for side, tensors in sides})
    for side, tensors in sides:
        for tensor in tensors:
            samples.add(side, np.asarray(tensor, np.float32))
    return samples.drift()


def found(calibration: list[Any], test: list[Any]) -> Drift:
    result = drift(calibration, test)
    assert result is not None
    return result


KINDS: dict[str, Callable[[Any], Any]] = {
    "normal": lambda rng: rng.standard_normal((4, 200)),
    "rows that differ": lambda rng: rng.normal(rng.normal(size=(4, 1)), rng.uniform(0.5, 2, (4, 1)), (4, 200)),
    "heavy tails": lambda rng: rng.standard_t(2, (4, 200)),
}
"""Data of one kind, of which no two batches are alike."""


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize(("calibration", "test"), [(1, 1), (4, 1), (4, 4), (8, 2), (32, 8)])
def test_data_of_one_kind_are_found_to_differ_as_often_as_promised(kind: str, calibration: int, test: int) -> None:
    """Each is a pair of draws from one distribution; more false alarms than ALPHA allows are a wrong test."""
    rng = np.random.default_rng(11)
    trials = 60
    alarms = sum(
        found([KINDS[kind](rng) for _ in range(calibration)], [KINDS[kind](rng) for _ in range(test)]).is_significant
        for _ in range(trials)
    )

    # two tests a pair; the limit is passed by chance once in ten thousand
    assert alarms <= stats.binom.isf(1e-4, trials, 2 * ALPHA)


@pytest.mark.parametrize("count", [4, 8, 20])
def test_feeds_whose_rows_are_alike_are_one_sample_each(count: int) -> None:
    """Frames of a film, or a folder in the order of its classes."""
    rng = np.random.default_rng(12)
    trials = 60

    def film() -> Any:
        return rng.normal(rng.normal(), rng.uniform(0.5, 2), (4, 200))

    alarms = sum(
        found([film() for _ in range(count)], [film() for _ in range(count)]).is_significant for _ in range(trials)
    )

    assert alarms <= stats.binom.isf(1e-4, trials, 2 * ALPHA)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "scaled": lambda x: 3 * x,
    "shifted": lambda x: x + 1.5,
    "normalised twice": lambda x: x / 255,
    "rectified": np.abs,
    "black": np.zeros_like,
}


@pytest.mark.parametrize("change", sorted(CHANGES))
@pytest.mark.parametrize(("calibration", "test"), [(1, 1), (2, 1), (4, 4), (8, 2), (32, 8)])
def test_data_of_another_kind(change: str, calibration: int, test: int) -> None:
    before = [RNG.standard_normal((4, 500)) for _ in range(calibration)]
    after = [CHANGES[change](RNG.standard_normal((4, 500))) for _ in range(test)]
    result = found(before, after)

    assert result.is_significant
    assert result.excess > 2


def test_a_range_that_the_distance_does_not_see() -> None:
    data = [RNG.standard_normal((4, 1000)) for _ in range(8)]
    for each in data[4:]:
        each[:, :5] *= 20
    result = found(data[:4], data[4:])

    assert result.distance < 0.02
    assert result.tail_ratio > 3
    assert result.is_significant


def test_the_numbers_are_those_of_scipy() -> None:
    one, other = RNG.standard_normal((8, 5000)), 2 * RNG.standard_normal((8, 5000))
    result = found([one], [other])

    assert result.distance == pytest.approx(stats.ks_2samp(one.ravel(), other.ravel()).statistic, abs=0.02)
    assert result.tail_ratio == pytest.approx(2, rel=0.15)


def test_too_few_samples_tell_nothing() -> None:
    one, other = np.ones((1, 500)), np.zeros((1, 500))

    assert drift([one], [other]) is None
    assert drift([], [other]) is None
    assert drift([one], []) is None
    assert not found([one, one], [other]).is_significant


def test_scalars_and_inputs_of_other_sizes() -> None:
    assert not found([1.0, 1.1, 0.9], [1.05]).is_significant
    lengths = [RNG.standard_normal((2, size)) for size in (30, 50, 80, 20, 90, 40, 60, 70)]
    assert not found(lengths[:4], lengths[4:]).is_significant
