"""What engines show of their inside: bit for bit what they compute, or a second build with the same layers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from pytest_trtgray.engines.base import Engine
from pytest_trtgray.engines.building import shows_unfused
from pytest_trtgray.engines.device import find_gpu
from pytest_trtgray.engines.loading import LoadOptions, build_again, load_engine
from pytest_trtgray.engines.model import Layer, LayerTensor
from pytest_trtgray.engines.onnx_model import OnnxModel, OnnxNode, activations, made_floats
from pytest_trtgray.engines.onnxruntime import OnnxRuntimeEngine
from pytest_trtgray.engines.onnxruntime_taps import MarkedTaps, OptimisedTaps
from pytest_trtgray.engines.precision import convert
from pytest_trtgray.engines.taps import taps_of_layers, tensor_between
from pytest_trtgray.engines.tensorrt_taps import compared_layers, debug_listener, grouped, marked
from pytest_trtgray.errors import EngineError, NotRunnableError
from pytest_trtgray.feeds import make_feed
from pytest_trtgray.vendor import is_installed
from tests import models
from tests.unit.helpers import ort_engine

needs_rtx = pytest.mark.skipif(not is_installed("tensorrt_rtx"), reason="needs tensorrt_rtx")
needs_no_gpu = pytest.mark.skipif(find_gpu() is not None, reason="needs a machine without a GPU")
NODES = (
    OnnxNode("conv", "Conv", ("x", "w"), ("c",)),
    OnnxNode("relu", "Relu", ("c",), ("r",)),
    OnnxNode("left", "MatMul", ("r", "v"), ("l",)),
    OnnxNode("add", "Add", ("l", "r"), ("y",)),
)


def opt_feed(engine: Engine) -> Any:
    return make_feed(engine.info.inputs, {name: bounds.opt for name, bounds in engine.info.profiles[0].items()})


def layer(name: str, nodes: str, reads: str, makes: str) -> Layer:
    tensors = [tuple(LayerTensor(tensor, "float16") for tensor in text.split()) for text in (reads, makes)]
    return Layer(name, "kgen", frozenset(nodes.split()), inputs=tensors[0], outputs=tensors[1])


class TestOnnxRuntime:
    @pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
    @pytest.mark.parametrize(
        ("make", "shapes"),
        [
            (lambda path: models.mlp(path, layers=3), "x:4x8"),
            (lambda path: models.conv_net(path, channels=16, blocks=3), "x:2x3x16x16"),
            (models.encoder, "ids:2x5,mask:2x1x1x5"),
        ],
        ids=["mlp", "conv_net", "encoder"],
    )
    def test_outputs_are_bit_for_bit_those_of_the_engine(
        self, make: Any, shapes: str, precision: str, tmp_path: Path
    ) -> None:
        path = make(tmp_path / "full.onnx")
        feed = opt_feed(ort_engine(path, shapes))
        converted = tmp_path / "model.onnx"
        converted.write_bytes(convert(path, precision, [feed] if precision == "int8" else ()))
        engine = ort_engine(converted, shapes)
        with engine.taps(feed) as taps:
            names = [tap.name for tap in taps.taps]
            values = taps.read(names)

        assert (taps.fusions, set(values)) == ("untouched", set(names))
        assert all(tap.exact and tap.tensors == (tap.name,) for tap in taps.taps)
        for name, wanted in engine.run(feed).items():
            np.testing.assert_array_equal(values[name], wanted)

    def test_inside_of_an_optimised_graph_is_what_the_model_computes(self, tmp_path: Path) -> None:
        """Also of convolutions that lie in blocks of channels, 11 of 16 of which are filled."""
        path = models.conv_net(tmp_path / "net.onnx", channels=11, blocks=2)
        engine = ort_engine(path, "x:2x3x16x16")
        feed = opt_feed(engine)
        with engine.taps(feed) as taps:
            shown = taps.read([tap.name for tap in taps.taps])
        wanted = MarkedTaps(ort_engine(path, "x:2x3x16x16", optimisation="none"), feed).read(list(shown))

        assert len(shown) >= 8
        for name, array in shown.items():
            np.testing.assert_allclose(array, wanted[name], rtol=1e-4, atol=1e-5, err_msg=name)

    def test_only_what_is_asked_for(self, mlp: Path) -> None:
        engine = ort_engine(mlp)
        with engine.taps(opt_feed(engine)) as taps:
            assert list(taps.read(["y"])) == ["y"]
            assert taps.read([]) == {}

    def test_marked_tensors_where_the_saved_graph_does_not_load(
        self, mlp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(self: OnnxRuntimeEngine, folder: Path) -> OnnxModel:
            raise EngineError("the graph", "cannot be saved")

        engine = ort_engine(mlp)
        monkeypatch.setattr(OnnxRuntimeEngine, "save_optimised", refuse)
        with engine.taps(opt_feed(engine)) as taps:
            values = taps.read([tap.name for tap in taps.taps])

        assert isinstance(taps, MarkedTaps)
        assert taps.fusions == "changed"
        assert list(values) == [name for node in OnnxModel(mlp).nodes for name in node.outputs]
        np.testing.assert_allclose(values["y"], engine.run(opt_feed(engine))["y"], rtol=1e-5)

    def test_of_an_fp8_model(self, tmp_path: Path) -> None:
        """Some optimisations are off for FP8; what is saved is what runs."""
        path = models.mlp(tmp_path / "full.onnx")
        feed = opt_feed(ort_engine(path))
        models.write(onnx.version_converter.convert_version(onnx.load(str(path)), 19), path)
        quantised = tmp_path / "fp8.onnx"
        quantised.write_bytes(convert(path, "fp8", [feed]))
        engine = ort_engine(quantised)
        with engine.taps(feed) as taps:
            assert isinstance(taps, OptimisedTaps)
            np.testing.assert_array_equal(taps.read(["y"])["y"], engine.run(feed)["y"])

    def test_the_shape_of_the_feed_is_checked(self, mlp: Path) -> None:
        engine = ort_engine(mlp)
        with pytest.raises(EngineError, match="shape 2x9"), engine.taps({"x": np.zeros((2, 9), np.float32)}):
            pytest.fail("entered")


class TestBetweenLayers:
    def test_what_leaves_a_group_of_nodes(self) -> None:
        assert tensor_between({"conv", "relu"}, None, NODES, ["y"]) == ("r",)
        assert tensor_between({"conv", "relu"}, {"left"}, NODES, ["y"]) == ("r",)
        assert tensor_between({"conv"}, {"left"}, NODES, ["y"]) == ()
        assert tensor_between({"left", "add"}, None, NODES, ["y"]) == ("y",)
        assert tensor_between({"left", "relu"}, {"add"}, NODES, ["y"]) == ("r", "l")

    def test_by_the_nodes_on_both_sides_and_not_by_name(self) -> None:
        layers = [layer("a", "conv relu", "x", "l.1_myl0"), layer("b", "left add", "l.1_myl0", "y")]
        (tap,) = taps_of_layers(layers, NODES)

        assert (tap.name, tap.tensors, tap.exact) == ("l.1_myl0", ("r",), False)

    def test_a_layer_without_nodes_goes_on_with_those_before(self) -> None:
        layers = [layer("a", "conv relu", "x", "t1"), layer("b", "", "t1", "t2"), layer("c", "left add", "t2", "y")]

        assert [(tap.name, tap.tensors) for tap in taps_of_layers(layers, NODES)] == [("t2", ("r",))]

    def test_nothing_is_said_of_what_is_read_by_half(self) -> None:
        layers = [
            layer("a", "conv relu", "x", "t1"),
            layer("b", "left", "t1", "t2"),
            layer("c", "", "t1", "t3"),
            layer("d", "add", "t2 t3", "y"),
        ]

        assert [tap.name for tap in taps_of_layers(layers, NODES)] == ["t2", "t3"]

    def test_nor_of_a_node_that_is_on_both_sides(self) -> None:
        layers = [layer("a", "conv", "x", "t1"), layer("b", "conv relu", "t1", "t2"), layer("c", "left add", "t2", "y")]

        assert [(tap.name, tap.tensors) for tap in taps_of_layers(layers, NODES)] == [("t2", ("r",))]

    def test_activations_depend_on_an_input(self, tmp_path: Path) -> None:
        path = models.qdq(tmp_path / "qdq.onnx")
        model = OnnxModel(path)

        assert "t0" not in activations(model)
        assert set(made_floats(model)) - set(activations(model)) == {"/w/DQ_output"}
        assert list(activations(model)) == ["/x/DQ_output", "y"]


class TestGroups:
    def test_as_many_as_fit(self) -> None:
        sizes = {"a": 4, "b": 4, "c": 9, "d": 1, "e": 5}

        assert grouped(list(sizes), sizes, 8) == [["a", "b"], ["c"], ["d", "e"]]
        assert grouped([], {}, 8) == []


@needs_rtx
class TestSecondBuild:
    """TensorRT for RTX builds here; what its engines show at run time is for the tests on a GPU."""

    @pytest.fixture
    def engine(self, conv_net: Path, folder: Path) -> Engine:
        return load_engine(conv_net, LoadOptions("tensorrt_rtx", cache_dir=folder / "cache"))

    @pytest.mark.parametrize("precision", ["fp32", "fp16"])
    @pytest.mark.parametrize("name", ["conv_net", "encoder"])
    def test_debug_tensors_leave_the_layers_as_they_are(
        self, name: str, precision: str, folder: Path, request: pytest.FixtureRequest
    ) -> None:
        from pytest_trtgray.engines.profiles import ShapeRequest, parse_shapes

        path = request.getfixturevalue(name)
        shapes = () if name == "conv_net" else (ShapeRequest(*(parse_shapes("ids:2x5,mask:2x1x1x5"),) * 3),)
        options = LoadOptions("tensorrt_rtx", cache_dir=folder / "cache", shapes=shapes, precision=precision)
        engine = load_engine(path, options)
        twin = build_again(engine, debug_tensors=True)

        assert shows_unfused("tensorrt_rtx")
        assert twin.layers == engine.layers
        assert compared_layers(engine, twin) == "untouched"
        assert twin.info.path != engine.info.path
        first, second = (Path(each.info.path).read_bytes() for each in (engine, twin))
        assert len(first) == len(second)
        assert first != second

    def test_outputs_change_them(self, engine: Engine) -> None:
        assert engine.model is not None
        names = list(activations(engine.model))
        model = marked(engine.model, names, engine)
        twin = build_again(engine, model=model)

        assert {spec.name for spec in model.outputs} == set(names)
        assert {spec.dtype for spec in model.outputs} == {"float32"}
        assert compared_layers(engine, twin) == "changed"
        assert len(twin.layers) > len(engine.layers)
        assert model.original == engine.model.original

    def test_it_is_built_once(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        first = build_again(engine, debug_tensors=True)
        monkeypatch.setattr("pytest_trtgray.engines.building.build", lambda *_: pytest.fail("built again"))

        assert build_again(engine, debug_tensors=True).info.path == first.info.path
        assert engine.rebuild_s < float("inf")

    @needs_no_gpu
    def test_showing_needs_a_gpu(self, engine: Engine) -> None:
        feed = opt_feed(engine)
        with engine.taps(feed) as taps, pytest.raises(NotRunnableError, match="needs a GPU"):
            taps.read(["logits"])
        assert taps.fusions == "untouched"
        assert taps.taps[-1].tensors == ("logits",)

    @needs_no_gpu
    def test_an_engine_file_needs_its_model(self, engine_file: Path, mlp: Path) -> None:
        engine = load_engine(engine_file, LoadOptions())
        with pytest.raises(EngineError, match="its ONNX model is not known") as caught:
            build_again(engine)
        assert "--trt-onnx" in caught.value.remedy
        assert engine.rebuild_s == float("inf")

    def test_only_of_tensorrt(self, mlp: Path, tmp_path: Path) -> None:
        engine = load_engine(mlp, LoadOptions("onnxruntime", cache_dir=tmp_path))
        with pytest.raises(EngineError, match="is no engine of TensorRT but of onnxruntime"):
            build_again(engine)


@needs_rtx
class TestListener:
    """The real base class; TensorRT's part, the calls, by hand."""

    def listener(self, *wanted: str) -> Any:
        from pytest_trtgray.vendor import quiet_import

        return debug_listener(quiet_import("tensorrt_rtx"), wanted, 0)

    def call(self, listener: Any, name: str, array: Any, dtype: str = "HALF", location: str = "HOST") -> bool:
        kind, place = SimpleNamespace(name=dtype), SimpleNamespace(name=location)
        answer: bool = listener.process_debug_tensor(array.ctypes.data, place, kind, array.shape, name, 0)
        return answer

    def test_what_is_wanted_is_copied(self) -> None:
        values = np.arange(6, dtype=np.float16).reshape(2, 3)
        listener = self.listener("a")

        assert self.call(listener, "a", values)
        assert self.call(listener, "b", values)
        values[:] = 0
        np.testing.assert_array_equal(listener.shown["a"], np.arange(6).reshape(2, 3))
        assert (list(listener.shown), listener.failures) == (["a"], [])

    def test_whole_numbers_are_left_out(self) -> None:
        listener = self.listener("a")

        assert self.call(listener, "a", np.zeros(3, np.int32), dtype="INT32")
        assert (listener.shown, listener.failures) == ({}, [])

    @needs_no_gpu
    def test_a_failure_is_kept_and_not_raised(self) -> None:
        listener = self.listener("a")

        assert self.call(listener, "a", np.zeros(3, np.float16), location="DEVICE")
        assert listener.shown == {}
        (failure,) = listener.failures
        assert failure.startswith("a: NotRunnableError")
