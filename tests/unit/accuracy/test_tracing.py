"""Engines that only tell which nodes made a tensor: values decide which one it is; true FP16 inside of fusions."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from pytest_trtgray.accuracy.localise import localise
from pytest_trtgray.accuracy.reference_graph import ReferenceGraph
from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.accuracy.tolerance import Tolerance
from pytest_trtgray.accuracy.tracing import Trace, _layouts, _most_alike, segments
from pytest_trtgray.engines.base import Engine, Feed
from pytest_trtgray.engines.loading import LoadOptions, load_engine
from pytest_trtgray.engines.model import format_shapes
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.precision import convert
from pytest_trtgray.engines.profiles import ShapeRequest, parse_shapes
from pytest_trtgray.engines.taps import Tap, Taps, taps_of_layers
from pytest_trtgray.feeds import make_feed
from pytest_trtgray.vendor import is_installed
from tests import models
from tests.unit.helpers import ort_engine

needs_rtx = pytest.mark.skipif(not is_installed("tensorrt_rtx"), reason="needs tensorrt_rtx")
TOLERANCE = Tolerance(1e-3, 1e-3, scaled=True)
CASES: dict[str, tuple[dict[str, tuple[int, ...]], list[str]]] = {
    "conv_net": ({"x": (2, 3, 16, 16)}, ["stem.weight", "layer1.conv2.weight"]),
    "encoder": (
        {"ids": (2, 5), "mask": (2, 1, 1, 5)},
        ["encoder.layer.0.intermediate.weight", "encoder.layer.1.attention.output.weight"],
    ),
}


class Dictated(Taps):
    """Taps that show given values."""

    how = "as the test says"
    fusions = "unknown"

    def __init__(self, taps: list[Tap], values: dict[str, NDArray[Any]]) -> None:
        self.taps = tuple(taps)
        self._values = values

    def read(self, names: Collection[str]) -> dict[str, NDArray[Any]]:
        return {name: self._values[name] for name in names if name in self._values}


def values_of(path: Path, feed: Feed) -> dict[str, NDArray[Any]]:
    """All floating-point tensors of a model and its outputs, as ONNX's own evaluator computes them.

    It computes FP16 in FP16, which ONNX Runtime mostly does not on a processor.
    """
    proto = onnx.load(str(path))
    names = [name for node in proto.graph.node for name in node.output]
    have = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in have)
    evaluator: Any = ReferenceEvaluator(proto)
    with np.errstate(all="ignore"):
        found = dict(zip(evaluator.output_names, evaluator.run(None, dict(feed)), strict=True))
    return {name: np.asarray(array) for name, array in found.items() if np.asarray(array).dtype.kind == "f"}


def showing(engine: Engine, taps: Taps, outputs: dict[str, NDArray[Any]]) -> Engine:
    """An engine of which only the taps and the outputs are looked at."""

    @contextlib.contextmanager
    def opened(feed: Feed) -> Iterator[Taps]:
        yield taps

    engine.taps = opened  # type: ignore[method-assign]
    engine._infer = lambda feed: outputs  # type: ignore[method-assign]
    return engine


def in_memory(array: NDArray[Any], order: tuple[int, ...]) -> NDArray[Any]:
    """What an engine shows of a tensor whose axes lie in another order in memory: its bytes, under its shape."""
    return np.ascontiguousarray(array.transpose(order)).reshape(array.shape)


def feed_of(path: Path, shapes: dict[str, tuple[int, ...]]) -> Feed:
    return make_feed(OnnxModel(path).inputs, shapes, seed=5)


@pytest.fixture(scope="module", params=sorted(CASES))
def case(request: pytest.FixtureRequest, folder: Path) -> Any:
    if not is_installed("tensorrt_rtx"):
        pytest.skip("needs tensorrt_rtx")
    shapes, weights = CASES[request.param]
    path = folder / f"identified_{request.param}.onnx"
    path = models.conv_net(path, blocks=3) if request.param == "conv_net" else models.encoder(path)
    requested = (ShapeRequest(*(parse_shapes(format_shapes(shapes)),) * 3),)
    return path, shapes, weights, load_engine(path, LoadOptions("tensorrt_rtx", cache_dir=folder, shapes=requested))


class TestIdentification:
    """Layers as the builder of TensorRT for RTX really lists them; values as an engine could show them."""

    def shown(self, engine: Engine, values: dict[str, NDArray[Any]], rng: np.random.Generator) -> Taps:
        """Every tap as one of the tensors that it can be, its axes in any order, the last two of four merged."""
        assert engine.model is not None
        taps = taps_of_layers(engine.layers, engine.model.nodes)
        shown = {}
        for tap in taps:
            array = values[tap.tensors[int(rng.integers(len(tap.tensors)))]]
            if array.ndim == 4 and rng.random() < 0.5:
                array = array.reshape(*array.shape[:2], -1)
            orders = list(itertools.permutations(range(array.ndim)))
            shown[tap.name] = in_memory(array, orders[int(rng.integers(len(orders)))])
        outputs = [spec.name for spec in engine.info.outputs]
        shown |= {name: values[name] for name in outputs}
        return Dictated([*taps, *(Tap(name, (name,)) for name in outputs)], shown)

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("which", [0, 1])
    def test_a_planted_weight_is_found(self, case: Any, which: int, seed: int, tmp_path: Path) -> None:
        path, shapes, weights, built = case
        wrong = models.scale_weight(path, tmp_path / "wrong.onnx", weights[which], 1.05)
        feed = feed_of(path, shapes)
        values = values_of(wrong, feed)
        taps = self.shown(built, values, np.random.default_rng(seed))
        engine = showing(ort_engine(wrong, format_shapes(shapes)), taps,
                         {spec.name: values[spec.name] for spec in built.info.outputs})  # fmt: skip
        found = localise(engine, Shadow(path, tmp_path), feed, tolerance=TOLERANCE)
        node = next(node.name for node in OnnxModel(path).nodes if weights[which] in node.inputs)

        assert found.culprit is not None, found.message()
        assert node in found.culprit.nodes
        assert "1.05 times" in found.cause
        assert len(found.tensors) >= 0.7 * len(taps.taps)

    def test_half_an_operator_is_not_taken_for_a_whole(self, case: Any, tmp_path: Path) -> None:
        """What is none of the model's tensors is left out, or at least no culprit."""
        path, shapes, _, built = case
        feed = feed_of(path, shapes)
        values = values_of(path, feed)
        taps = self.shown(built, values, np.random.default_rng(0))
        assert isinstance(taps, Dictated)
        broken = next(tap for tap in taps.taps if not tap.exact)
        taps._values[broken.name] = taps._values[broken.name] + np.float32(3)
        graph = ReferenceGraph(Shadow(path, tmp_path), OnnxModel(path))
        trace = Trace(OnnxModel(path), graph, taps, dict(feed), tolerance=TOLERANCE, budget_bytes=1 << 28)
        engine = showing(ort_engine(path, format_shapes(shapes)), taps,
                         {spec.name: values[spec.name] for spec in built.info.outputs})  # fmt: skip
        found = localise(engine, Shadow(path, tmp_path), feed, tolerance=TOLERANCE)

        assert trace.left_out >= 0
        assert found.ok
        assert found.culprit is None

    def test_rows_of_a_matrix_in_another_order(self, tmp_path: Path) -> None:
        """As Myelin shows a transformer: batch and sequence merged, the sequence outside; one weight is wrong."""
        path = models.encoder(tmp_path / "encoder.onnx")
        weight = "encoder.layer.1.attention.output.weight"
        wrong = models.scale_weight(path, tmp_path / "wrong.onnx", weight, 1.05)
        feed = feed_of(path, {"ids": (3, 5), "mask": (3, 1, 1, 5)})
        values = values_of(wrong, feed)
        model = OnnxModel(wrong)
        outputs = [spec.name for spec in model.outputs]
        hidden = next(array.shape[-1] for name, array in values.items() if array.ndim == 3 and name not in outputs)
        inner = [name for name, array in values.items() if array.shape == (3, 5, hidden) and name not in outputs]
        shown = {f"__myln_{name}": values[name].transpose(1, 0, 2).reshape(15, hidden) for name in inner}
        shown |= {name: values[name] for name in outputs}
        taps = [
            *(Tap(f"__myln_{name}", (name,), exact=False) for name in inner),
            *(Tap(name, (name,)) for name in outputs),
        ]
        engine = showing(
            ort_engine(wrong, format_shapes({name: array.shape for name, array in feed.items()})),
            Dictated(taps, shown),
            {name: values[name] for name in outputs},
        )
        found = localise(engine, Shadow(path, tmp_path), feed, tolerance=TOLERANCE)
        node = next(node.name for node in model.nodes if weight in node.inputs)

        assert len(found.tensors) == len(taps)
        assert found.culprit is not None, found.message()
        assert node in found.culprit.nodes
        assert [error.relative_l2 for error in found.tensors[:3]] == [pytest.approx(0, abs=1e-5)] * 3

    @pytest.mark.parametrize(
        ("shown", "wanted", "axes"),
        [
            ((64, 768), (2, 32, 768), (2, 32, 768)),
            ((24, 64, 32), (2, 12, 32, 64), (2, 12, 32, 2, 32)),
            ((2, 1, 4), (2, 4), (2, 4)),
            ((6, 4), (8, 3), (6, 4)),  # no axes in common
            ((2, 3, 4), (4, 6), (2, 3, 4)),
            ((1, 1), (1,), ()),
        ],
    )
    def test_axes_are_those_that_both_shapes_have(self, shown: Any, wanted: Any, axes: Any) -> None:
        layouts = list(_layouts(shown, wanted))
        assert {layout.sizes for layout in layouts} == {axes}
        assert layouts[0].order == tuple(range(len(axes)))
        assert len(set(layouts)) == math.factorial(len(axes))

    def test_a_wrong_tensor_is_not_rearranged(self) -> None:
        """Another order of axes that is hardly better than the usual one is a coincidence."""
        wanted = np.random.default_rng(0).standard_normal((2, 2, 2)).astype(np.float32)
        for seed in range(50):
            shown = wanted + 0.4 * np.random.default_rng(seed).standard_normal((2, 2, 2)).astype(np.float32)
            error, layout = _most_alike(shown, wanted)
            assert layout.order == (0, 1, 2)
            assert error == pytest.approx(np.linalg.norm(shown - wanted) / np.linalg.norm(wanted), rel=1e-3)

    def test_a_tap_that_does_not_show(self, case: Any, tmp_path: Path) -> None:
        path, shapes, _, built = case
        feed = feed_of(path, shapes)
        taps = self.shown(built, values_of(path, feed), np.random.default_rng(0))
        assert isinstance(taps, Dictated)
        hidden = [tap.name for tap in taps.taps if not tap.exact][::2]
        for name in hidden:
            del taps._values[name]
        graph = ReferenceGraph(Shadow(path, tmp_path), OnnxModel(path))
        trace = Trace(OnnxModel(path), graph, taps, dict(feed), tolerance=TOLERANCE, budget_bytes=1 << 28)

        assert trace.left_out >= len(hidden)
        assert all(not measured.is_wrong for window in trace.measure() for measured in window)


class TestLayers:
    @needs_rtx
    def test_a_tap_is_made_and_read_by_the_nodes_of_its_layers(self, conv_net: Path, tmp_path: Path) -> None:
        engine = load_engine(conv_net, LoadOptions("tensorrt_rtx", cache_dir=tmp_path))
        assert engine.model is not None
        taps = taps_of_layers(engine.layers, engine.model.nodes)
        makers = {name: node for node in engine.model.nodes for name in node.outputs}

        assert taps
        for tap in taps:
            (layer,) = (layer for layer in engine.layers if tap.name in {tensor.name for tensor in layer.outputs})
            for name in tap.tensors:
                assert not layer.onnx_nodes or makers[name].name in layer.onnx_nodes


class TestFusedHalfPrecision:
    """Models in true FP16, of which only some tensors show, as behind a fusion."""

    def found(self, full: Path, tmp_path: Path, feed: Feed, shown: list[str]) -> Any:
        half = tmp_path / "half.onnx"
        half.write_bytes(convert(full, "fp16"))
        values = values_of(half, feed)
        outputs = [spec.name for spec in OnnxModel(half).outputs]
        taps = Dictated([Tap(name, (name,)) for name in (*shown, *outputs)], values)
        engine = showing(ort_engine(half), taps, {name: values[name] for name in outputs})
        return localise(engine, Shadow(full, tmp_path), feed)

    def norm(self, tmp_path: Path, factor: float) -> Path:
        """A layer normalisation, spelled out, of values around ``factor``."""
        graph = models.Graph()
        graph.fused_norm = False
        x = graph.input("x", ["batch", 16])
        scaled = graph.add("Mul", [x, graph.constant("factor", np.float32(factor))], "/Mul")
        graph.add("Relu", [models._layer_norm(graph, scaled, "/norm", 16)], "/Relu", "y")
        graph.output("y", ["batch", 16])
        return graph.save(tmp_path / "norm.onnx")

    def test_an_overflow_inside_of_a_fusion_is_named(self, tmp_path: Path) -> None:
        path = self.norm(tmp_path, 300)
        found = self.found(path, tmp_path, feed_of(path, {"x": (8, 16)}), ["/Mul_output", "/norm/Add_1_output"])

        assert found.culprit is not None, found.message()
        assert found.culprit.node == "/norm/Square"
        assert found.culprit.tensor == "/norm/Add_1_output"
        assert "overflows: its result reaches" in found.cause
        assert "FP16 ends at 65504; what it reads reaches" in found.cause

    def test_a_divisor_that_is_zero_in_fp16(self, tmp_path: Path) -> None:
        graph = models.Graph()
        x = graph.input("x", ["batch", 4])
        small = graph.add("Mul", [x, graph.constant("small", np.float32(1e-4))], "/Small")
        graph.add("Div", [x, graph.add("Mul", [small, small], "/Square")], "/Div", "y")
        graph.output("y", ["batch", 4])
        path = graph.save(tmp_path / "division.onnx")
        found = self.found(path, tmp_path, {"x": np.ones((8, 4), np.float32)}, ["/Small_output"])

        assert found.culprit is not None, found.message()
        assert found.culprit.node == "/Div"
        assert "its divisor gets down to 1e-08, which is 0 in FP16" in found.cause

    def test_an_overflow_that_leaves_no_infinity(self, tmp_path: Path) -> None:
        """A division by the infinite deviation gives 0, which is wrong and finite."""
        path = self.norm(tmp_path, 300)
        found = self.found(path, tmp_path, feed_of(path, {"x": (8, 16)}), ["/Mul_output"])

        assert found.culprit is not None, found.message()
        assert found.culprit.non_finite == 0
        assert found.culprit.node == "/norm/Square"
        assert found.cause.startswith("overflows")

    def test_a_fused_operator_that_squares(self, tmp_path: Path) -> None:
        """Its result fits, and so does what it reads."""
        graph = models.Graph()
        x = graph.input("x", ["batch", 16])
        scaled = graph.add("Mul", [x, graph.constant("factor", np.float32(300))], "/Mul")
        graph.add("Relu", [models._layer_norm(graph, scaled, "/norm", 16)], "/Relu", "y")
        graph.output("y", ["batch", 16])
        path = graph.save(tmp_path / "fused.onnx")
        half = tmp_path / "half.onnx"
        half.write_bytes(convert(path, "fp16"))
        feed = feed_of(path, {"x": (8, 16)})
        values = values_of(half, feed)
        values["/norm/LayerNormalization_output"][:] = np.nan
        values["y"][:] = np.nan
        taps = Dictated(
            [Tap(name, (name,)) for name in ("/Mul_output", "/norm/LayerNormalization_output", "y")], values
        )
        found = localise(showing(ort_engine(half), taps, {"y": values["y"]}), Shadow(path, tmp_path), feed)

        assert found.culprit is not None
        assert found.culprit.node == "/norm/LayerNormalization"
        assert "squares values up to" in found.cause


class TestSegments:
    def test_the_way_back_ends_at_what_shows(self, mlp: Path) -> None:
        found = segments(OnnxModel(mlp), ["/fc0/Relu_output", "y"])

        assert [node.name for node in found["/fc0/Relu_output"].nodes] == ["/fc0/MatMul", "/fc0/Add", "/fc0/Relu"]
        assert found["/fc0/Relu_output"].sources == ()
        assert [node.name for node in found["y"].nodes] == ["/fc1/MatMul", "/fc1/Add"]
        assert found["y"].sources == ("/fc0/Relu_output",)
        assert found["y"].main.name == "/fc1/MatMul"

    def test_shapes_are_no_part_of_it(self, tmp_path: Path) -> None:
        graph = models.Graph()
        x = graph.input("x", ["batch", 4])
        shape = graph.add("Shape", [x], "/Shape")
        graph.add("Relu", [graph.add("Reshape", [x, shape], "/Reshape")], "/Relu", "y")
        graph.output("y", ["batch", 4])
        found = segments(OnnxModel(graph.save(tmp_path / "shape.onnx")), ["y"])

        assert [node.name for node in found["y"].nodes] == ["/Reshape", "/Relu"]

    def test_everything_shows(self, encoder: Path) -> None:
        model = OnnxModel(encoder)
        names = [name for node in model.nodes for name in node.outputs]

        assert all([node.outputs[0] for node in found.nodes] == [name]
                   for name, found in segments(model, names).items())  # fmt: skip
