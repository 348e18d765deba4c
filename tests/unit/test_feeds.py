from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.engines.dtypes import numpy_dtype
from pytest_trtgray.engines.model import TensorSpec
from pytest_trtgray.errors import EngineError, ShapeError
from pytest_trtgray.feeds import Feed, load_feed, make_feed

X = TensorSpec("x", "float32", ("batch", 8))


class TestValues:
    @given(st.integers(0, 2**31), st.integers(1, 5))
    def test_a_seed_gives_the_same_arrays(self, seed: int, batch: int) -> None:
        first, second = (make_feed([X], {"x": (batch, 8)}, seed) for _ in range(2))

        np.testing.assert_array_equal(first["x"], second["x"])

    def test_on_every_machine(self) -> None:
        """Feeds are part of what a failing example says; they must not move between versions."""
        values = make_feed([X], {"x": (1, 8)}, 7)["x"]

        np.testing.assert_allclose(values[0, :3], [-0.1932854, -1.0504524, -0.2722776], rtol=1e-6)

    def test_other_seeds_and_names_give_others(self) -> None:
        feed = make_feed([X, TensorSpec("z", "float32", (8,))], {"x": (1, 8), "z": (8,)}, 0)

        assert not np.array_equal(feed["x"][0], feed["z"])
        assert not np.array_equal(feed["x"], make_feed([X], {"x": (1, 8)}, 1)["x"])

    def test_another_input_changes_nothing_for_the_first(self) -> None:
        alone = make_feed([X], {"x": (2, 8)})
        together = make_feed([TensorSpec("a", "float32", (3,)), X], {"x": (2, 8), "a": (3,)})

        np.testing.assert_array_equal(alone["x"], together["x"])

    @pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
    def test_floats_are_standard_normal(self, dtype: str) -> None:
        values = make_feed([TensorSpec("x", dtype, ("n",))], {"x": (4000,)})["x"]

        assert values.dtype == numpy_dtype(dtype)
        assert float(values.astype(np.float64).mean()) == pytest.approx(0, abs=0.08)
        assert float(values.astype(np.float64).std()) == pytest.approx(1, abs=0.08)

    @pytest.mark.parametrize(
        ("dtype", "low", "high"),
        [("int8", -127, 127), ("int4", -7, 7), ("int32", 0, 99), ("int64", 0, 99), ("uint8", 0, 99), ("uint4", 0, 15)],
    )
    def test_integers(self, dtype: str, low: int, high: int) -> None:
        values = make_feed([TensorSpec("x", dtype, ("n",))], {"x": (4000,)})["x"].astype(np.int64)

        assert low <= values.min() <= values.max() <= high
        assert len(np.unique(values)) > (high - low) // 2

    def test_booleans_are_both(self) -> None:
        values = make_feed([TensorSpec("x", "bool", ("n",))], {"x": (100,)})["x"]

        assert values.dtype == np.bool_
        assert 0 < values.sum() < 100

    @pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "int32", "bool"])
    def test_masks_are_ones(self, dtype: str) -> None:
        values = make_feed([TensorSpec("mask", dtype, ("n",), limits=(1.0, 1.0))], {"mask": (50,)})["mask"]

        assert (values == 1).all()
        assert values.dtype == numpy_dtype(dtype)

    @given(st.integers(1, 10**6), st.integers(0, 99))
    def test_indices_stay_below_the_length_of_their_table(self, length: int, seed: int) -> None:
        spec = TensorSpec("ids", "int64", ("n",), limits=(0.0, float(length - 1)))
        values = make_feed([spec], {"ids": (200,)}, seed)["ids"]

        assert 0 <= values.min() <= values.max() < length

    def test_small_floats(self) -> None:
        values = make_feed([TensorSpec("x", "fp8", ("n",))], {"x": (1000,)})["x"]

        assert values.dtype == np.dtype(ml_dtypes.float8_e4m3fn)
        assert np.isfinite(values.astype(np.float32)).all()


class TestShapes:
    @given(st.lists(st.integers(0, 5), max_size=4).map(tuple))
    def test_any(self, shape: tuple[int, ...]) -> None:
        for dtype in ("float32", "int64", "bool"):
            assert make_feed([TensorSpec("x", dtype, shape)], {"x": shape})["x"].shape == shape

    def test_one_that_is_missing(self) -> None:
        with pytest.raises(ShapeError, match="x: no shape is given"):
            make_feed([X], {"y": (1, 8)})

    def test_no_inputs(self) -> None:
        assert make_feed([], {}) == {}


class TestFeed:
    def test_prints_as_what_made_it(self) -> None:
        feed = make_feed([X], {"x": (2, 8)}, 5)

        assert repr(feed) == "Feed(x:2x8, seed=5)"
        assert repr(Feed({"t": np.float32(1).reshape(())})) == "Feed(t:scalar)"
        assert feed.shapes == {"x": (2, 8)}
        assert feed.seed == 5

    def test_is_a_dictionary(self) -> None:
        feed = make_feed([X], {"x": (2, 8)})

        assert list(feed) == ["x"]
        assert {**feed, "y": 1}.keys() == {"x", "y"}


class TestFiles:
    def test_a_feed_comes_back(self, tmp_path: Path) -> None:
        feed: dict[str, Any] = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "ids": np.array([1, 2])}
        np.savez(tmp_path / "feed.npz", **feed)
        loaded = load_feed(tmp_path / "feed.npz")

        assert set(loaded) == set(feed)
        for name, values in feed.items():
            np.testing.assert_array_equal(loaded[name], values)
        assert repr(loaded) == "Feed(x:2x3,ids:2)"

    def test_no_such_file_or_another_kind_of_file(self, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match="no such file"):
            load_feed(tmp_path / "none.npz")
        for content in (b"", b"hello", b"PK\x03\x04 cut off"):
            (tmp_path / "bad.npz").write_bytes(content)
            with pytest.raises(EngineError, match=r"cannot be read as \.npz") as caught:
                load_feed(tmp_path / "bad.npz")
            assert "numpy.savez" in caught.value.remedy
        np.save(tmp_path / "one.npy", np.ones(3))
        with pytest.raises(EngineError, match=r"cannot be read as \.npz"):
            load_feed(tmp_path / "one.npy")
