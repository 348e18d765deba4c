"""Inputs whose values are sizes: found in the model as TensorRT's own parser finds them, bounded, fed and drawn."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from pytest_trtgray import profile_feeds, profile_shapes
from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.baselines.identity import timing_key
from pytest_trtgray.engines.loading import LoadOptions, load_engine
from pytest_trtgray.engines.model import ShapeRange, TensorSpec
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.profiles import (
    ShapeRequest,
    check_shapes,
    parse_shapes,
    requested,
    resolve_profiles,
    suggest_options,
)
from pytest_trtgray.errors import EngineError, ShapeError
from pytest_trtgray.feeds import make_feed
from pytest_trtgray.timing.session import Plan, measure_run
from pytest_trtgray.vendor import is_installed
from tests import shape_inputs
from tests.models import Graph

Make = Callable[[Graph], None]
SIZES = TensorSpec("s", "int64", (2,), is_shape=True)
COUNT = TensorSpec("n", "int64", (), is_shape=True)
IMAGE = TensorSpec("x", "float32", ("batch", 4))


def name_of(make: Make) -> str:
    return make.__name__


def request(low: str, best: str, high: str) -> ShapeRequest:
    return ShapeRequest(parse_shapes(low), parse_shapes(best), parse_shapes(high))


ROWS = request("s:1x4", "s:3x4", "s:8x4")
STEPS = request("x:1x1,n:1", "x:2x1,n:5", "x:4x1,n:9")


def flags(path: Path) -> dict[str, bool]:
    return {spec.name: spec.is_shape for spec in OnnxModel(path).inputs}


class TestDetection:
    @pytest.mark.parametrize("make", shape_inputs.SIZES, ids=name_of)
    def test_values_that_decide_on_a_shape(self, make: Make, tmp_path: Path) -> None:
        found = flags(shape_inputs.save(make, tmp_path / "m.onnx"))

        assert found.pop("s") is True
        assert not any(found.values())

    @pytest.mark.parametrize("make", shape_inputs.DATA + shape_inputs.NOT_PARSED, ids=name_of)
    def test_values_that_are_data(self, make: Make, tmp_path: Path) -> None:
        assert not any(flags(shape_inputs.save(make, tmp_path / "m.onnx")).values())

    @pytest.mark.skipif(not is_installed("tensorrt_rtx"), reason="needs tensorrt_rtx")
    @pytest.mark.parametrize("make", shape_inputs.SIZES + shape_inputs.DATA, ids=name_of)
    def test_as_the_parser_of_tensorrt_finds_them(self, make: Make, tmp_path: Path) -> None:
        from pytest_trtgray.engines.building import polygraphy_of

        path = shape_inputs.save(make, tmp_path / "m.onnx")
        backend = polygraphy_of("tensorrt_rtx")
        _, network, _ = backend.trt.network_from_onnx_path(str(path), strongly_typed=True)
        tensors = [network.get_input(index) for index in range(network.num_inputs)]

        assert flags(path) == {tensor.name: tensor.is_shape_tensor for tensor in tensors}

    @pytest.mark.parametrize(
        ("dims", "dtype"),
        [
            (["n"], TensorProto.INT64),
            ([1, 2], TensorProto.INT64),
            ([2], TensorProto.FLOAT),
            ([2], TensorProto.BOOL),
            ([2], TensorProto.INT8),
        ],
        ids=["length-unknown", "rank-2", "float", "bool", "int8"],
    )
    def test_only_short_lists_of_integers(self, dims: list[Any], dtype: int, tmp_path: Path) -> None:
        graph = Graph()
        s = graph.input("s", dims, dtype)
        sizes = graph.add("Reshape", [s, graph.constant("flat", np.array([-1]))], "/Reshape")
        sizes = graph.add("Cast", [sizes], "/Cast", to=TensorProto.INT64)
        graph.add("Expand", [graph.input("x", [1, 4]), sizes], "/Expand", "y")
        graph.output("y", ["p", "q"])

        assert not any(flags(graph.save(tmp_path / "m.onnx")).values())

    def test_a_size_that_has_a_default(self, tmp_path: Path) -> None:
        """An initializer under the name of an input: nobody has to feed it."""
        graph = Graph()
        graph.input("s", [2], TensorProto.INT64)
        graph.constant("s", np.array([3, 4]))
        graph.add("Expand", [graph.input("x", [1, 4]), "s"], "/Expand", "y")
        graph.output("y", ["p", "q"])

        assert flags(graph.save(tmp_path / "m.onnx")) == {"x": False}


class TestProfiles:
    @pytest.mark.parametrize("inputs", [(SIZES,), (COUNT,), (SIZES, IMAGE), (IMAGE, COUNT)])
    def test_their_range_is_asked_for_with_a_command_line_that_works(self, inputs: tuple[TensorSpec, ...]) -> None:
        with pytest.raises(ShapeError, match="values that are sizes; their range is needed") as caught:
            resolve_profiles(inputs, ())
        given = [re.search(rf"--trt-{which}-shapes=(\S+)", caught.value.remedy) for which in ("min", "opt", "max")]
        (profile,), notes = resolve_profiles(inputs, [request(*(match[1] for match in given if match))])

        for spec in inputs:
            assert profile[spec.name].min < profile[spec.name].opt < profile[spec.name].max
        assert notes == ()

    def test_the_suggestion_has_one_number_a_value(self) -> None:
        assert "s:128x128" in suggest_options((SIZES,))
        assert "n:128" in suggest_options((COUNT,))

    def test_values_and_not_the_shape(self) -> None:
        (profile,), _ = resolve_profiles((SIZES, COUNT), [request("s:1x2,n:0", "s:3x4,n:5", "s:30x40,n:50")])

        assert profile == {"s": ShapeRange((1, 2), (3, 4), (30, 40)), "n": ShapeRange((0,), (5,), (50,))}

    @pytest.mark.parametrize("text", ["s:2", "s:1x2x3", "s:scalar"])
    def test_another_number_of_values(self, text: str) -> None:
        with pytest.raises(ShapeError, match="does not fit the input s:2 int64"):
            resolve_profiles((SIZES,), [request(text, text, text)])

    def test_values_may_be_negative(self) -> None:
        (profile,), _ = resolve_profiles((SIZES, COUNT), [request("s:-1x8,n:-9", "s:-1x8,n:0", "s:2x8,n:9")])

        assert profile == {"s": ShapeRange((-1, 8), (-1, 8), (2, 8)), "n": ShapeRange((-9,), (0,), (9,))}

    def test_sizes_may_not_be_negative_beside_them(self) -> None:
        with pytest.raises(ShapeError, match="x:-1x4: gives the input x:batchx4 float32 a negative size") as caught:
            resolve_profiles((SIZES, IMAGE), [request(*("s:-1x8,x:-1x4",) * 3)])
        assert "only inputs whose values are sizes" in caught.value.remedy

    def test_their_order(self) -> None:
        with pytest.raises(ShapeError, match="min <= opt <= max"):
            resolve_profiles((SIZES,), [request("s:1x5", "s:2x4", "s:3x6")])

    @given(st.tuples(st.integers(-9, 99), st.integers(-9, 99)))
    def test_values_are_checked_and_not_the_shape(self, values: tuple[int, int]) -> None:
        profile = {"s": ShapeRange((1, 4), (3, 4), (8, 4))}
        asked = requested([SIZES], {"s": np.array(values)})
        fits = 1 <= values[0] <= 8 and values[1] == 4

        assert asked == {"s": values}
        if fits:
            assert check_shapes([profile], asked, "net") == 0
        else:
            with pytest.raises(ShapeError, match=r"profile 0 allows 1x4 \.\. 3x4 \.\. 8x4"):
                check_shapes([profile], asked, "net")

    def test_how_many_values(self) -> None:
        assert [spec.value_count for spec in (SIZES, COUNT, TensorSpec("s", "int32", (0,), is_shape=True))] == [2, 1, 0]

    def test_a_scalar(self) -> None:
        assert requested([COUNT], {"n": np.array(7)}) == {"n": (7,)}


class TestFeed:
    def test_the_values_as_given(self) -> None:
        feed = make_feed([SIZES, COUNT, IMAGE], {"s": (3, 4), "n": (7,), "x": (2, 4)}, seed=5)

        np.testing.assert_array_equal(feed["s"], [3, 4])
        assert {feed[name].dtype for name in ("s", "n")} == {np.dtype(np.int64)}
        assert (feed["s"].shape, feed["n"].shape, int(feed["n"])) == ((2,), (), 7)
        assert feed["x"].shape == (2, 4)

    def test_prints_and_reproduces_itself(self) -> None:
        feed = make_feed([SIZES, COUNT], {"s": (3, 4), "n": (7,)}, seed=5)
        again = make_feed([SIZES, COUNT], feed.shapes, seed=5)

        assert repr(feed) == "make_feed(engine, {'s': (3, 4), 'n': (7,)}, seed=5)"
        np.testing.assert_array_equal(again["s"], feed["s"])
        assert again["n"] == feed["n"]

    def test_other_inputs_keep_their_values(self) -> None:
        alone = make_feed([IMAGE], {"x": (2, 4)})

        np.testing.assert_array_equal(make_feed([SIZES, IMAGE], {"s": (1, 1), "x": (2, 4)})["x"], alone["x"])


class TestOnnxRuntime:
    def test_runs(self, tmp_path: Path) -> None:
        engine = load_engine(shape_inputs.expanding(tmp_path / "m.onnx"), LoadOptions("onnxruntime", shapes=[ROWS]))
        x = np.arange(4, dtype=np.float32).reshape(1, 4)
        (y,) = engine.run({"x": x, "s": np.array([5, 4])}).values()

        np.testing.assert_array_equal(y, np.repeat(x, 5, axis=0) * 9)
        assert engine.info.profiles[0] == {"s": ShapeRange((1, 4), (3, 4), (8, 4)), "x": ShapeRange(*((1, 4),) * 3)}

    @pytest.mark.parametrize("values", [[9, 4], [0, 4], [3, 5], [-1, 4], [2**40, 4]])
    def test_values_out_of_the_profile(self, values: list[int], tmp_path: Path) -> None:
        engine = load_engine(shape_inputs.expanding(tmp_path / "m.onnx"), LoadOptions("onnxruntime", shapes=[ROWS]))
        with pytest.raises(ShapeError, match=r"input 's' has shape .* profile 0 allows 1x4"):
            engine.run({"x": np.zeros((1, 4), np.float32), "s": np.array(values)})

    @pytest.mark.parametrize("dtype", [TensorProto.INT64, TensorProto.INT32])
    def test_a_scalar(self, dtype: int, tmp_path: Path) -> None:
        engine = load_engine(
            shape_inputs.counting(tmp_path / "m.onnx", dtype), LoadOptions("onnxruntime", shapes=[STEPS])
        )
        feed = make_feed(engine.info.inputs, {"n": (5,), "x": (2, 1)})
        (y,) = engine.run(feed).values()

        np.testing.assert_allclose(y, feed["x"] + np.arange(5, dtype=np.float32))
        with pytest.raises(ShapeError, match="input 'n' has shape 10, profile 0 allows 1"):
            engine.run(make_feed(engine.info.inputs, {"n": (10,), "x": (2, 1)}))

    def test_another_integer_is_refused_as_for_any_input(self, tmp_path: Path) -> None:
        engine = load_engine(shape_inputs.counting(tmp_path / "m.onnx"), LoadOptions("onnxruntime", shapes=[STEPS]))
        with pytest.raises(EngineError, match="input 'n' wants int64, got int32"):
            engine.run({"n": np.array(5, np.int32), "x": np.zeros((1, 1), np.float32)})

    def test_two_profiles(self, tmp_path: Path) -> None:
        far = request("s:100x4", "s:110x4", "s:120x4")
        engine = load_engine(
            shape_inputs.expanding(tmp_path / "m.onnx"), LoadOptions("onnxruntime", shapes=[ROWS, far])
        )

        assert engine.run(make_feed(engine.info.inputs, {"s": (104, 4), "x": (1, 4)}))["y"].shape == (104, 4)
        with pytest.raises(ShapeError, match="profile 1 allows 100x4"):
            engine.run(make_feed(engine.info.inputs, {"s": (50, 4), "x": (1, 4)}))

    def test_the_reference_takes_every_value(self, tmp_path: Path) -> None:
        shadow = Shadow(shape_inputs.expanding(tmp_path / "m.onnx"), tmp_path, on="cpu")
        x = np.ones((1, 4), np.float32)

        assert shadow.run({"x": x, "s": np.array([1000, 4])})["y"].shape == (1000, 4)

    @pytest.mark.parametrize("end", [2**63 - 1, 3, -1, -(2**63)])
    def test_the_reference_takes_the_ends_of_a_slice(self, end: int, tmp_path: Path) -> None:
        """Exporters write the largest INT64 for "until the end"."""
        shadow = Shadow(shape_inputs.save(shape_inputs.slice_end, tmp_path / "m.onnx"), tmp_path, on="cpu")
        x = np.arange(16, dtype=np.float32).reshape(2, 8)
        (y,) = shadow.run({"x": x, "s": np.array([end])}).values()

        np.testing.assert_array_equal(y, x[:, :end])

    def test_a_baseline_for_each_value(self, tmp_path: Path) -> None:
        engine = load_engine(shape_inputs.expanding(tmp_path / "m.onnx"), LoadOptions("onnxruntime", shapes=[ROWS]))
        keys = {
            timing_key(requested(engine.info.inputs, make_feed(engine.info.inputs, {"s": (n, 4), "x": (1, 4)})), {})
            for n in (1, 3, 8)
        }

        assert keys == {f"timing s:{n}x4,x:1x4 " for n in (1, 3, 8)}

    @pytest.mark.parametrize("processes", [False, True])
    def test_is_measured(self, processes: bool, tmp_path: Path) -> None:
        engine = load_engine(shape_inputs.counting(tmp_path / "m.onnx"), LoadOptions("onnxruntime", shapes=[STEPS]))
        feed = make_feed(engine.info.inputs, {"n": (5,), "x": (2, 1)})
        measured = measure_run(engine, feed, Plan(1, 3, processes=processes), context={})

        assert {node for layer in measured.layers for node in layer.onnx_nodes} == {"/Range", "/Cast", "/Add"}


class TestDrawn:
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def test_shapes_are_inside(self, folder: Path, data: st.DataObject) -> None:
        path = shape_inputs.expanding(folder / "drawn.onnx")
        shapes = data.draw(profile_shapes(path, min_shapes="s:1x4", opt_shapes="s:3x4", max_shapes="s:8x4"))

        assert set(shapes) == {"s", "x"}
        assert 1 <= shapes["s"][0] <= 8
        assert (shapes["s"][1], shapes["x"]) == (4, (1, 4))

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def test_an_engine_takes_what_is_drawn(self, folder: Path, data: st.DataObject) -> None:
        path = folder / "counting.onnx"
        if not path.exists():
            shape_inputs.counting(path)
        engine = load_engine(path, LoadOptions("onnxruntime", shapes=[STEPS]))
        feed = data.draw(profile_feeds(engine))

        assert engine.run(feed)["y"].shape == (feed["x"].shape[0], int(feed["n"]))

    def test_every_value_comes(self, tmp_path: Path) -> None:
        path = shape_inputs.counting(tmp_path / "m.onnx")
        engine = load_engine(path, LoadOptions("onnxruntime", shapes=[STEPS]))
        drawn: set[int] = set()

        @settings(max_examples=200, database=None, derandomize=True, deadline=None)
        @given(profile_feeds(engine))
        def collect(feed: Any) -> None:
            drawn.add(int(feed["n"]))

        collect()

        assert drawn == set(range(1, 10))
