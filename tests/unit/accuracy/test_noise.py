from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.accuracy.compare import compare
from pytest_trtgray.accuracy.noise import FACTOR, SMALLEST, noise_floor
from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.accuracy.tolerance import Tolerance
from pytest_trtgray.engines.precision import convert
from pytest_trtgray.feeds import make_feed
from tests import models
from tests.unit.helpers import ort_engine


class Fixed:
    """Gives its outputs, one after the other."""

    def __init__(self, *outputs: dict[str, Any]) -> None:
        self._outputs = iter(outputs)

    def run(self, feed: Any) -> Any:
        return next(self._outputs)


def floor_of(got: Any, wanted: Any, **options: Any) -> Tolerance:
    return noise_floor(Fixed({"y": np.asarray(wanted)}), Fixed({"y": np.asarray(got)}), [{}], **options)["y"]


class TestRule:
    @given(st.integers(0, 99), st.floats(1e-6, 0.5))
    def test_the_smallest_that_passes(self, seed: int, noise: float) -> None:
        """With a factor of one, what was measured passes; with a little less, it does not."""
        rng = np.random.Generator(np.random.PCG64(seed))
        wanted = rng.standard_normal((4, 25))
        got = wanted + noise * rng.standard_normal((4, 25))
        floor = floor_of(got, wanted, factor=1)

        assert floor.scaled
        assert floor.rtol == floor.atol
        more, less = (Tolerance(floor.rtol * by, floor.atol * by, scaled=True) for by in (1 + 1e-9, 1 - 1e-6))
        assert compare({"y": got}, {"y": wanted}, tolerance=more).ok
        assert compare({"y": got}, {"y": wanted}, tolerance=less).outputs[0].wrong == 1
        assert floor_of(got, wanted).rtol == pytest.approx(FACTOR * floor.rtol)

    def test_the_largest_of_all_feeds(self) -> None:
        wanted = np.ones(4)
        near, far = ({"y": wanted + size} for size in (1e-3, 1e-2))
        found = noise_floor(Fixed(*[{"y": wanted}] * 3), Fixed(near, far, near), [{}] * 3, factor=1)

        assert found["y"].rtol == pytest.approx(1e-2 / 2)

    def test_outputs_that_agree_beside_one_that_does_not(self) -> None:
        wanted = {"a": np.ones(4, np.float32), "b": np.ones(4, np.float32), "n": np.arange(4)}
        got = {"a": wanted["a"] * np.float32(1.01), "b": wanted["b"], "n": wanted["n"]}
        floor = noise_floor(Fixed(wanted), Fixed(got), [{}])

        assert floor["b"] == Tolerance(SMALLEST, SMALLEST, scaled=True)
        assert floor["n"] == Tolerance(0, 0)

    def test_integers_are_absolute(self) -> None:
        assert floor_of(np.array([3, 7], np.uint8), np.array([3, 250], np.uint8)) == Tolerance(0, 2 * 243)

    def test_only_integers(self) -> None:
        assert floor_of(np.arange(4), np.arange(4)) == Tolerance(0, 0)


class TestRefusals:
    def test_no_feeds(self) -> None:
        with pytest.raises(ValueError, match="there are no feeds"):
            noise_floor(Fixed(), Fixed(), [])

    def test_the_same_computation_twice(self) -> None:
        with pytest.raises(ValueError, match="bit for bit, so no noise was measured"):
            floor_of(np.ones(4), np.ones(4))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_not_finite(self, value: float) -> None:
        for got, wanted in (([1, value], [1, 2]), ([1, 2], [1, value])):
            with pytest.raises(ValueError, match="output 'y' has NaN or infinities"):
                floor_of(np.array(got, np.float32), np.array(wanted, np.float32))

    def test_a_reference_of_zeros(self) -> None:
        with pytest.raises(ValueError, match="'y' is 0 everywhere, so its noise has no scale"):
            floor_of(np.array([0.0, 1e-9]), np.zeros(2))

    def test_another_model(self) -> None:
        with pytest.raises(ValueError, match="shapes"):
            floor_of(np.ones(4), np.ones(5))
        with pytest.raises(ValueError, match=r"not one model: outputs \['z'\] and \['y'\]"):
            noise_floor(Fixed({"y": np.ones(1)}), Fixed({"z": np.ones(1)}), [{}])

    @pytest.mark.parametrize("factor", [0.5, 0, -1, float("nan")])
    def test_a_factor_below_one(self, factor: float) -> None:
        with pytest.raises(ValueError, match="factor must be at least 1"):
            floor_of(np.ones(2), np.zeros(2), factor=factor)


def test_half_precision_of_a_real_model(conv_net: Path, tmp_path: Path) -> None:
    """Measured on some inputs, it holds on others, and catches a weight that is a hundredth off."""
    shadow = Shadow(conv_net, tmp_path)
    (tmp_path / "half.onnx").write_bytes(convert(conv_net, "fp16"))
    half = ort_engine(tmp_path / "half.onnx")
    feeds = [make_feed(shadow.inputs, {"x": (4, 3, 16, 16)}, seed) for seed in range(8)]
    floor = noise_floor(shadow, half, feeds[:4])

    assert 1e-5 < floor["logits"].rtol < 1.6e-2
    for feed in feeds[4:]:
        assert compare(half.run(feed), shadow.run(feed), per_output=floor).ok
    models.scale_weight(conv_net, tmp_path / "changed.onnx", "head.weight", 1.01)
    changed = ort_engine(tmp_path / "changed.onnx")
    assert not compare(changed.run(feeds[5]), shadow.run(feeds[5]), per_output=floor).ok
