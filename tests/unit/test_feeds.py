from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from pytest_trtgray.engines.dtypes import numpy_dtype
from pytest_trtgray.engines.model import TensorSpec
from pytest_trtgray.errors import EngineError, ShapeError
from pytest_trtgray.feeds import VALUES, Feed, load_feed, make_feed
from tests import models
from tests.unit.helpers import ort_engine

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
        [("int8", -127, 127), ("int4", -7, 7), ("int32", 0, 99), ("int64", 0, 99), ("uint8", 0, 255), ("uint4", 0, 15)],
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


FLOATS = ["float64", "float32", "float16", "bfloat16", "fp8", "fp4"]


def drawn(values: str, dtype: str = "float32", limits: tuple[float, float] | None = None, name: str = "x") -> Any:
    return make_feed([TensorSpec(name, dtype, ("n",), limits)], {name: (4000,)}, 1, values=values)[name]


class TestDistributions:
    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("values", [name for name in VALUES if name != "nonfinite"])
    def test_finite(self, values: str, dtype: str) -> None:
        array = drawn(values, dtype)

        assert array.dtype == numpy_dtype(dtype)
        assert np.isfinite(array.astype(np.float64)).all()

    @pytest.mark.parametrize("values", VALUES)
    def test_never_leave_a_declared_range(self, values: str) -> None:
        array = drawn(values, limits=(-1.0, 3.0))
        kept = array[np.isfinite(array)]

        assert -1 <= kept.min() <= kept.max() <= 3
        assert bool(kept.min() < kept.max()) is (values != "zeros")

    def test_uniform(self) -> None:
        assert 0 <= drawn("uniform").min() < 0.01 < 0.99 < drawn("uniform").max() < 1
        assert drawn("uniform", limits=(2.0, 4.0)).mean() == pytest.approx(3, abs=0.05)

    def test_extremes_are_the_ends_of_the_range_and_nothing_else(self) -> None:
        assert set(drawn("extremes", limits=(0.0, 255.0)).tolist()) == {0, 255}
        assert len(set(drawn("extremes").tolist())) == 2

    def test_large(self) -> None:
        assert float(drawn("large").std()) == pytest.approx(8 * float(drawn("normal").std()))

    @pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
    def test_subnormal_numbers_among_normal_ones(self, dtype: str) -> None:
        array = drawn("denormal", dtype)
        tiny = np.abs(array.astype(np.float64)) < float(ml_dtypes.finfo(array.dtype).smallest_normal)
        other = array[~tiny].astype(np.float64)

        assert 0.4 < tiny.mean() < 0.6
        assert np.count_nonzero(array[tiny]) > 1000
        assert float(other.std()) == pytest.approx(1, abs=0.1)

    def test_zeros(self) -> None:
        assert not drawn("zeros").any()
        assert (drawn("zeros", limits=(1.0, 2.0)) == 1).all()

    @pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
    def test_what_is_not_finite_on_request(self, dtype: str) -> None:
        array = drawn("nonfinite", dtype).astype(np.float64)

        assert np.isnan(array).any()
        assert np.isinf(array).any()
        assert np.isfinite(array).mean() > 0.9
        assert np.isnan(make_feed([X], {"x": (1, 8)}, values="nonfinite")["x"]).any()

    @pytest.mark.parametrize(("values", "expected"), [("zeros", {0}), ("extremes", {0, 9})])
    @pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
    def test_integers_know_zeros_and_extremes(self, dtype: str, values: str, expected: set[int]) -> None:
        assert set(drawn(values, dtype, (0.0, 9.0), "ids").tolist()) == expected

    @pytest.mark.parametrize("values", ["normal", "uniform", "large", "denormal"])
    def test_integers_do_not_know_the_others(self, values: str) -> None:
        np.testing.assert_array_equal(drawn(values, "int64", (0.0, 9.0)), drawn("normal", "int64", (0.0, 9.0)))

    def test_booleans(self) -> None:
        assert not drawn("zeros", "bool").any()
        assert drawn("extremes", "bool").all()

    def test_one_that_is_not_known(self) -> None:
        with pytest.raises(ValueError, match="values='gauss': known are normal, uniform"):
            make_feed([X], {"x": (1, 8)}, values="gauss")
        with pytest.raises(ValueError, match="padding='both': known are none, right, left"):
            make_feed([X], {"x": (1, 8)}, padding="both")


class TestNames:
    @pytest.mark.parametrize("name", ["token_type_ids", "segment_ids"])
    def test_types_of_tokens(self, name: str) -> None:
        assert set(drawn("normal", "int64", name=name).tolist()) == {0, 1}

    def test_steps_of_a_diffusion(self) -> None:
        steps = drawn("normal", "int64", name="timestep")

        assert 0 <= steps.min() < 50 < 950 < steps.max() < 1000

    def test_positions_count_and_stay_in_their_table(self) -> None:
        spec = TensorSpec("position_ids", "int64", ("b", "n"), (0.0, 4.0))
        found = make_feed([spec], {"position_ids": (2, 7)})["position_ids"]

        assert found.tolist() == [[0, 1, 2, 3, 4, 0, 1]] * 2

    def test_the_model_knows_better(self) -> None:
        assert drawn("normal", "int64", (0.0, 9.0), "token_type_ids").max() == 9


class TestMasks:
    @given(
        st.sampled_from([(3, 7), (3, 1, 1, 7), (3, 5, 7), (7,), (1, 7), (3, 1)]),
        st.sampled_from(["int32", "int64", "bool", "float32", "float16"]),
        st.sampled_from(["right", "left"]),
        st.integers(0, 999),
    )
    def test_padding_is_on_one_side_and_leaves_something(
        self, shape: tuple[int, ...], dtype: str, padding: str, seed: int
    ) -> None:
        spec = TensorSpec("attention_mask", dtype, tuple("abcd"[: len(shape)]))
        mask = make_feed([spec], {"attention_mask": shape}, seed, padding=padding)["attention_mask"]
        rows = mask.reshape(-1, shape[-1]).astype(int)
        kept = rows if padding == "left" else rows[:, ::-1]

        assert mask.shape == shape
        assert mask.dtype == numpy_dtype(dtype)
        assert set(np.unique(rows)) <= {0, 1}
        assert (rows.sum(axis=1) >= 1).all()
        assert (np.diff(kept, axis=1) >= 0).all()

    def test_rows_differ_in_length(self) -> None:
        mask = make_feed([TensorSpec("mask", "int64", ("b", "n"))], {"mask": (50, 40)}, 3, padding="right")["mask"]

        assert len(set(mask.sum(axis=1).tolist())) > 20

    def test_all_queries_and_all_masks_of_a_sequence_hide_the_same(self) -> None:
        specs = [TensorSpec("mask", "int64", ("b", "n")), TensorSpec("pair_mask", "bool", ("b", "q", "n"))]
        feed = make_feed(specs, {"mask": (4, 9), "pair_mask": (4, 3, 9)}, 5, padding="left")

        for query in range(3):
            np.testing.assert_array_equal(feed["pair_mask"][:, query], feed["mask"] == 1)

    def test_an_additive_mask_has_a_range(self) -> None:
        spec = TensorSpec("mask", "float32", ("b", "n"))
        shapes, ranges = {"mask": (4, 9)}, {"mask": (-1e4, 0.0)}

        assert (make_feed([spec], shapes, ranges=ranges)["mask"] == 0).all()
        assert set(make_feed([spec], shapes, padding="left", ranges=ranges)["mask"].flat) == {-1e4, 0}

    @pytest.mark.parametrize("shape", [(0, 4), (3, 0), ()])
    def test_nothing_to_hide(self, shape: tuple[int, ...]) -> None:
        spec = TensorSpec("mask", "int64", tuple("ab"[: len(shape)]))

        assert make_feed([spec], {"mask": shape}, padding="right")["mask"].shape == shape


IMAGES = np.arange(5 * 3 * 4 * 4, dtype=np.float32).reshape(5, 3, 4, 4)
IMAGE = TensorSpec("image", "float32", ("batch", 3, "h", "w"))


class TestSamples:
    @pytest.mark.parametrize("given", [IMAGES, list(IMAGES), [IMAGES[:2], IMAGES[2], IMAGES[3:]], IMAGES.tolist()])
    def test_rows_are_repeated_up_to_the_batch(self, given: Any) -> None:
        feed = make_feed([IMAGE], {"image": (7, 3, 4, 4)}, samples={"image": given})

        np.testing.assert_array_equal(feed["image"], np.concatenate([IMAGES, IMAGES[:2]]))

    @given(st.integers(1, 999))
    def test_another_seed_draws_others(self, seed: int) -> None:
        image = make_feed([IMAGE], {"image": (40, 3, 4, 4)}, seed, samples={"image": IMAGES})["image"]
        places = [int(row[0, 0, 0]) // 48 for row in image]

        np.testing.assert_array_equal(image, IMAGES[places])
        assert len(set(places)) == 5

    def test_are_cropped_and_repeated(self) -> None:
        image = make_feed([IMAGE], {"image": (1, 3, 2, 6)}, samples={"image": IMAGES})["image"]

        np.testing.assert_array_equal(image[0, :, :, :4], IMAGES[0, :, :2, :])
        np.testing.assert_array_equal(image[0, :, :, 4:], IMAGES[0, :, :2, :2])

    def test_sentences_of_different_lengths(self) -> None:
        ids = TensorSpec("ids", "int32", ("batch", "n"))
        feed = make_feed([ids], {"ids": (3, 4)}, samples={"ids": [[5, 6], [7, 8, 9, 10, 11]]})

        assert feed["ids"].tolist() == [[5, 6, 5, 6], [7, 8, 9, 10], [5, 6, 5, 6]]
        assert feed["ids"].dtype == np.int32

    def test_an_input_without_a_batch(self) -> None:
        """Channels are no samples: they stay in their order."""
        spec = TensorSpec("image", "float32", (3, "h", "w"))
        found = {make_feed([spec], {"image": (3, 4, 4)}, seed, samples={"image": list(IMAGES)})["image"].tobytes()
                 for seed in range(30)}  # fmt: skip

        assert found == {image.tobytes() for image in IMAGES}

    def test_a_scalar(self) -> None:
        spec = TensorSpec("scale", "float32", ())

        assert make_feed([spec], {"scale": ()}, samples={"scale": [0.5, 0.25]})["scale"] == np.float32(0.5)

    def test_an_empty_batch(self) -> None:
        assert make_feed([IMAGE], {"image": (0, 3, 4, 4)}, samples={"image": IMAGES})["image"].shape == (0, 3, 4, 4)

    @pytest.mark.parametrize(
        ("samples", "message"),
        [
            ({"picture": IMAGES}, "samples={'picture': …}: is for no input of the model\n  Known: image, ids."),
            ({"s": [1, 2]}, "samples={'s': …}: is for no input of the model"),
            ({"image": IMAGES[0, 0]}, "samples={'image': …}: has shape 4x4, the input 2x3x4x4"),
            ({"image": []}, "samples={'image': …}: holds no row"),
            ({"ids": [[0.5, 1.0]]}, "samples={'ids': …}: has numbers that int64 cannot hold"),
        ],
    )
    def test_that_do_not_fit(self, samples: Any, message: str) -> None:
        specs = [IMAGE, TensorSpec("ids", "int64", ("batch", "n")), TensorSpec("s", "int64", (2,), is_shape=True)]
        with pytest.raises(ShapeError) as caught:
            make_feed(specs, {"image": (2, 3, 4, 4), "ids": (2, 2), "s": (3, 4)}, samples=samples)

        assert message in caught.value.message

    def test_a_range_the_wrong_way_round(self) -> None:
        with pytest.raises(ShapeError, match=r"ranges=\{'x': …\}: goes from 2 to 1"):
            make_feed([X], {"x": (1, 8)}, ranges={"x": (2, 1)})


class TestSources:
    def test_an_engine_a_path_and_specs_give_the_same(self, encoder: Path) -> None:
        engine = ort_engine(encoder, "ids:2x4,mask:2x1x1x4")
        shapes = {"ids": (2, 4), "mask": (2, 1, 1, 4)}
        feeds = [make_feed(source, shapes, 3) for source in (engine, encoder, str(encoder), engine.info.inputs)]

        assert all((feed["ids"] == feeds[0]["ids"]).all() for feed in feeds)
        assert repr(feeds[1]) == f"make_feed({str(encoder)!r}, {shapes}, seed=3)"

    def test_the_printed_call_makes_it_again(self, encoder: Path) -> None:
        engine = ort_engine(encoder, "ids:2x4,mask:2x1x1x4")
        samples = {"ids": [[1, 2, 3], [4, 5, 6]]}
        feed = make_feed(
            engine,
            {"ids": (2, 4), "mask": (2, 1, 1, 4)},
            9,
            values="extremes",
            padding="left",
            samples=samples,
            ranges={"mask": (-1.0, 0.0)},
        )
        again = eval(repr(feed), {"make_feed": make_feed, "engine": engine, "samples": samples})

        assert repr(again) == repr(feed)
        assert {name: array.tolist() for name, array in again.items()} == {
            name: array.tolist() for name, array in feed.items()
        }

    @pytest.mark.parametrize("stored", ["cast", "dequantised"])
    def test_tokens_of_a_table_that_is_made_of_a_weight(self, stored: str, tmp_path: Path) -> None:
        graph = models.Graph()
        ids = graph.input("ids", ["batch", "n"], TensorProto.INT32)
        if stored == "cast":
            half = graph.constant("w", np.ones((7, 4), np.float16))
            table = graph.add("Cast", [half], "/Cast", to=TensorProto.FLOAT)
        else:
            parts = [graph.constant("w", np.ones((7, 4), np.int8)), graph.constant("scale", np.float32(0.5))]
            table = graph.add("DequantizeLinear", parts, "/DQ")
        second = graph.weight("positions", 5, 4)
        rows = graph.add("Gather", [table, ids], "/Gather")
        graph.add("Add", [rows, graph.add("Gather", [second, ids], "/Gather_1")], "/Add", "y")
        graph.output("y", ["batch", "n", 4])
        path = graph.save(tmp_path / "net.onnx")

        assert make_feed(path, {"ids": (30, 30)})["ids"].max() == 4


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

        assert repr(feed) == "make_feed(engine, {'x': (2, 8)}, seed=5)"
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
