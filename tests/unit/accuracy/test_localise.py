"""Planted faults are named by their ONNX node, whatever noise is around them; healthy engines have no culprit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from pytest_trtgray.accuracy.localise import Localisation, localise
from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.accuracy.tolerance import Tolerance
from pytest_trtgray.engines.base import Feed
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.precision import convert
from pytest_trtgray.errors import EngineError, ModelError, NotRunnableError
from pytest_trtgray.feeds import make_feed
from pytest_trtgray.findings import errors
from tests import models, planted
from tests.unit.helpers import ort_engine

LAYERS, HIDDEN = 12, 16
SHAPES = "ids:2x5,mask:2x1x1x5"
WEIGHTS = [
    f"encoder.layer.{layer}.{part}.weight"
    for layer, part in ((0, "attention.output"), (5, "intermediate"), (6, "attention.value"), (11, "output"))
]
SCALES = {
    "first": "/embeddings/LayerNorm/LayerNormalization_output_scale",
    "middle": "/encoder/layer.6/intermediate/Mul_1_output_scale",
    "last": "/encoder/layer.11/attention/output/LayerNorm/LayerNormalization_output_scale",
    "weight": "encoder.layer.6.attention.output.weight_scale",
}
NORMS = ["embeddings.LayerNorm", "encoder.layer.6.attention.output.LayerNorm", "encoder.layer.11.output.LayerNorm"]
STRICT = Tolerance(1e-5, 1e-5, scaled=True)


@pytest.fixture(scope="module")
def base(folder: Path) -> Path:
    return models.encoder(folder / "base.onnx", layers=LAYERS, hidden=HIDDEN)


@pytest.fixture(scope="module")
def feed(base: Path) -> Feed:
    return feed_of(base, seed=3)


@pytest.fixture(scope="module")
def shadow(base: Path, folder: Path) -> Shadow:
    return Shadow(base, folder / "cache")


@pytest.fixture(scope="module")
def int8(base: Path, folder: Path) -> Path:
    path = folder / "int8.onnx"
    path.write_bytes(convert(base, "int8", [feed_of(base, seed=seed) for seed in range(6)]))
    return path


@pytest.fixture(scope="module")
def small(encoder: Path, folder: Path) -> Shadow:
    """The reference of a model with two layers."""
    return Shadow(encoder, folder / "cache")


@pytest.fixture(scope="module")
def wrong(encoder: Path, folder: Path) -> Path:
    """The same model with one weight scaled."""
    return models.scale_weight(encoder, folder / "wrong.onnx", "encoder.layer.1.attention.value.weight", 1.02)


def feed_of(path: Path, seed: int = 0, **shapes: tuple[int, ...]) -> Feed:
    return make_feed(OnnxModel(path).inputs, shapes or {"ids": (2, 5), "mask": (2, 1, 1, 5)}, seed)


def in_fp16(path: Path) -> Path:
    half = path.with_suffix(".fp16.onnx")
    half.write_bytes(convert(path, "fp16"))
    return half


def changed(source: Path, path: Path, name: str, change: Any) -> Path:
    """The same model with one weight changed by a function."""
    proto = onnx.load(str(source))
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(change(numpy_helper.to_array(tensor))), name))
    return models.write(proto, path)


def reshaped_after(source: Path, path: Path, node_name: str, size: int) -> Path:
    """The same model with a Reshape that changes nothing behind a node.

    ONNX Runtime computes an FP16 node in FP32 on a processor, unless one beside it is in FP16 as well.
    """
    proto = onnx.load(str(source))
    index = next(i for i, node in enumerate(proto.graph.node) if node.name == node_name)
    node = proto.graph.node[index]
    tensor, node.output[0] = node.output[0], f"{node_name}/before"
    shape = numpy_helper.from_array(np.array([0, 0, size]), f"{node_name}/shape")
    proto.graph.initializer.append(shape)
    reshape = onnx.helper.make_node("Reshape", [node.output[0], shape.name], [tensor], name=f"{node_name}/Reshape")
    proto.graph.node.insert(index + 1, reshape)
    return models.write(proto, path)


def node_of_weight(path: Path, name: str) -> str:
    return next(node.name for node in OnnxModel(path).nodes if name in node.inputs)


def culprit_of(found: Localisation) -> str:
    assert found.culprit is not None, found.message()
    return found.culprit.node


class TestPlantedWeight:
    """One weight of twelve layers, times 1.02."""

    @pytest.mark.parametrize("precision", ["fp32", "fp16"])
    @pytest.mark.parametrize("weight", WEIGHTS)
    def test_is_localised_to_its_node(
        self, base: Path, shadow: Shadow, feed: Feed, weight: str, precision: str, tmp_path: Path
    ) -> None:
        path = models.scale_weight(base, tmp_path / "planted.onnx", weight, 1.02)
        path = in_fp16(path) if precision == "fp16" else path
        tolerance = Tolerance(1e-3, 1e-3, scaled=True)
        found = localise(ort_engine(path, SHAPES), shadow, feed, tolerance=tolerance)

        assert culprit_of(found) == node_of_weight(base, weight)
        assert found.culprit is not None
        assert found.culprit.op == "MatMul"
        assert found.culprit.made_here == pytest.approx(0.02, rel=0.1)
        assert found.culprit.share == pytest.approx(1, abs=1e-2 if precision == "fp32" else 0.2)
        assert "1.02 times the reference's" in found.cause
        assert repr(weight) in found.cause
        assert (found.fusions, found.reproduced, found.complete) == ("untouched", True, True)

    def test_is_first_and_culprit_in_fp32(self, base: Path, shadow: Shadow, feed: Feed, tmp_path: Path) -> None:
        path = models.scale_weight(base, tmp_path / "planted.onnx", WEIGHTS[1], 1.02)
        found = localise(ort_engine(path, SHAPES), shadow, feed)
        position = [error.tensor for error in found.tensors].index("/encoder/layer.5/intermediate/MatMul_output")

        assert found.first == found.culprit == found.tensors[position]
        assert max(error.relative_l2 for error in found.tensors[:position]) < 1e-6
        assert max(error.made_here for error in found.tensors[position + 1 :]) < 1e-5
        assert found.tensors[-1].relative_l2 > 1e-4
        with pytest.raises(AssertionError) as caught:
            found.check()
        first, *rest = str(caught.value).splitlines()
        assert first.startswith("localised: MatMul '/encoder/layer.5/intermediate/MatMul' makes the outputs wrong: ")
        assert "    this alone makes 100% of the outputs' error" in rest
        assert any("along the depth" in line for line in rest)

    def test_one_that_does_nothing_to_the_outputs(self, base: Path, shadow: Shadow, feed: Feed, tmp_path: Path) -> None:
        """A wrong tensor is no culprit if the outputs are right: here softmax takes a constant in all scores away."""
        bias = "encoder.layer.6.attention.key.bias"
        path = changed(base, tmp_path / "harmless.onnx", bias, lambda values: values + np.float32(0.5))
        found = localise(ort_engine(path, SHAPES), shadow, feed)

        assert found.ok
        assert found.culprit is None
        assert found.first is None
        assert max(error.made_here for error in found.tensors) > 0.1
        assert any(error.is_wrong and not error.reaches_output for error in found.tensors)
        found.check()

    def test_two_of_them_are_both_shown(self, base: Path, shadow: Shadow, feed: Feed, tmp_path: Path) -> None:
        first = models.scale_weight(base, tmp_path / "one.onnx", WEIGHTS[0], 1.02)
        path = models.scale_weight(first, tmp_path / "two.onnx", WEIGHTS[3], 1.02)
        found = localise(ort_engine(path, SHAPES), shadow, feed)
        made = sorted(found.tensors, key=lambda error: -error.made_here)[:2]

        assert {error.node for error in made} == {node_of_weight(base, name) for name in (WEIGHTS[0], WEIGHTS[3])}
        assert found.first is not None
        assert found.first.node == node_of_weight(base, WEIGHTS[0])
        shares = [error.share for error in made if error.share is not None]
        assert shares
        assert max(shares) > 0.3


class TestPlantedScale:
    """One scale of a Q/DQ model, divided by 4, among 168 that are as they should be."""

    @pytest.mark.parametrize("place", sorted(SCALES))
    def test_is_localised_to_its_quantiser(
        self, int8: Path, shadow: Shadow, feed: Feed, place: str, tmp_path: Path
    ) -> None:
        name = SCALES[place]
        path = changed(int8, tmp_path / "planted.onnx", name, lambda scale: scale / np.float32(4))
        found = localise(ort_engine(path, SHAPES), shadow, feed)

        assert culprit_of(found) == name.removesuffix("_scale") + "_QuantizeLinear"
        assert found.culprit is not None
        assert found.culprit.op == "QuantizeLinear"
        assert "clips" in found.cause
        assert found.reproduced

    def test_healthy_int8_has_no_culprit(self, int8: Path, shadow: Shadow, feed: Feed) -> None:
        found = localise(ort_engine(int8, SHAPES), shadow, feed, tolerance=STRICT)

        assert not found.ok
        assert found.culprit is None
        (verdict,) = errors(found.findings)
        assert verdict.rule == "accuracy.many-makers"
        assert "no single node" in verdict.what
        assert found.message().startswith("not localised: ")

    def test_of_the_dequantiser_alone(self, base: Path, int8: Path, shadow: Shadow, feed: Feed, tmp_path: Path) -> None:
        proto = onnx.load(str(int8))
        name = SCALES["last"].removesuffix("_scale")
        scale = next(tensor for tensor in proto.graph.initializer if tensor.name == f"{name}_scale")
        proto.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(4), "other"))
        for node in proto.graph.node:
            if node.name.startswith(f"{name}_DequantizeLinear"):
                node.input[1] = "other"
        found = localise(ort_engine(models.write(proto, tmp_path / "pair.onnx"), SHAPES), shadow, feed)

        assert culprit_of(found).startswith(name)
        assert "and is dequantised with" in found.cause

    def test_of_a_weight_that_is_stored_quantised(self, tmp_path: Path) -> None:
        path = models.qdq(tmp_path / "stored.onnx", stored="int", axis=1)
        path = changed(path, tmp_path / "planted.onnx", "w_scale", lambda scale: scale / np.float32(4))
        plain = models.plain_matmul(tmp_path / "plain.onnx", models.quantised_weight(axis=1)[0])
        found = localise(ort_engine(path), Shadow(plain, tmp_path), feed_of(path, x=(8, 8)))

        assert culprit_of(found) == "/w/DQ"
        assert "times the reference's" in found.cause


class TestOverflow:
    """One LayerNormalization in FP16 whose results do not fit."""

    @pytest.mark.parametrize("norm", NORMS)
    def test_is_localised_to_its_node(self, base: Path, feed: Feed, norm: str, tmp_path: Path) -> None:
        node = "/" + norm.replace(".", "/").replace("layer/", "layer.") + "/LayerNormalization"
        large = changed(base, tmp_path / "large.onnx", f"{norm}.weight", lambda values: np.full_like(values, 6e4))
        large = reshaped_after(large, tmp_path / "reshaped.onnx", node, HIDDEN)
        found = localise(ort_engine(in_fp16(large), SHAPES), Shadow(large, tmp_path), feed)

        assert culprit_of(found) == node
        assert found.culprit is not None
        assert found.culprit.non_finite > 0
        assert found.cause.startswith("overflows: its result reaches")
        assert "FP16 ends at 65504" in found.cause
        (verdict,) = errors(found.findings)
        assert verdict.rule == "accuracy.first-non-finite"
        assert "NaN or infinite" in found.message()

    @pytest.mark.parametrize("weight", [1.0, 1.1])
    def test_an_infinity_that_goes_no_further_is_no_culprit(self, weight: float, tmp_path: Path) -> None:
        """As in attention masks: FP16 has -inf where FP32 has a large number, and softmax gives 0 for both."""
        graph = models.Graph()
        x = graph.input("x", ["batch", 4])
        mask = graph.constant("mask", np.array([0, 0, 0, -1e30], np.float32))
        masked = graph.add("Mul", [mask, graph.add("Abs", [x], "/Abs")], "/Mul")
        half = graph.add("Reshape", [graph.add("Cast", [masked], "/Cast", to=10), graph.constant("s", [0, 4])], "/R")
        wide = graph.add("Cast", [half], "/Cast_1", to=1)
        scores = graph.add("MatMul", [x, graph.weight("w", 4, 4)], "/MatMul")
        graph.add("Softmax", [graph.add("Add", [scores, wide], "/Add")], "/Softmax", "y", axis=-1)
        graph.output("y", ["batch", 4])
        path = graph.save(tmp_path / "mask.onnx")
        engine = ort_engine(models.scale_weight(path, tmp_path / "wrong.onnx", "w", weight))
        found = localise(engine, Shadow(path, tmp_path), feed_of(path, x=(8, 4)), tolerance=Tolerance(1e-7, 0))

        assert any(error.non_finite for error in found.tensors)
        assert (found.culprit is None) == (weight == 1)
        assert weight == 1 or "1.1 times the reference's" in found.cause


class TestOtherCauses:
    def half_division(self, tmp_path: Path) -> Path:
        """``y = x / (x * 1e-5)^2`` with the square in FP16, where it is 0."""
        graph = models.Graph()
        x = graph.input("x", ["batch", 4])
        small = graph.add("Mul", [x, graph.constant("small", np.float32(1e-5))], "/Mul")
        square = graph.add("Mul", [small, small], "/Square")
        half = graph.add("Cast", [square], "/Cast", to=10)
        half = graph.add("Reshape", [half, graph.constant("shape", np.array([0, 4]))], "/Reshape")
        graph.add("Div", [x, graph.add("Cast", [half], "/Cast_1", to=1)], "/Div", "y")
        graph.output("y", ["batch", 4])
        return graph.save(tmp_path / "division.onnx")

    def test_division_by_what_became_zero(self, tmp_path: Path) -> None:
        path = self.half_division(tmp_path)
        found = localise(ort_engine(path), Shadow(path, tmp_path), {"x": np.ones((8, 4), np.float32)})

        assert culprit_of(found) == "/Div"
        assert "divides by zero: its divisor is 0 in the engine" in found.cause

    def test_the_reference_is_not_finite_either(self, tmp_path: Path) -> None:
        path = models.nan_producer(tmp_path / "nan.onnx")
        found = localise(ort_engine(path), Shadow(path, tmp_path), feed_of(path, x=(8, 4)))

        assert not found.ok
        assert culprit_of(found) == "/Sqrt"
        assert "takes a root of negative values" in found.cause
        (verdict,) = errors(found.findings)
        assert verdict.rule == "accuracy.reference-non-finite"
        assert "no fault of the engine" in verdict.remedy

    def test_a_node_that_the_reference_has_not(self, conv_net: Path, tmp_path: Path) -> None:
        path = models.insert_matmul(conv_net, tmp_path / "inserted.onnx", before="/head/Gemm")
        found = localise(ort_engine(path), Shadow(conv_net, tmp_path), feed_of(path, x=(2, 3, 16, 16)))

        assert culprit_of(found) == "/inserted/MatMul"
        assert found.cause == "is not in the reference"

    def test_without_a_better_reason_the_precision(
        self, base: Path, shadow: Shadow, feed: Feed, tmp_path: Path
    ) -> None:
        """Another operator of the same name and type: only an attribute differs."""
        proto = onnx.load(str(base))
        node = next(node for node in proto.graph.node if node.name == "/encoder/layer.6/attention/Softmax")
        del node.attribute[:]
        node.attribute.append(onnx.helper.make_attribute("axis", 1))
        found = localise(ort_engine(models.write(proto, tmp_path / "axis.onnx"), SHAPES), shadow, feed)

        assert culprit_of(found) == "/encoder/layer.6/attention/Softmax"
        assert found.cause.startswith("is computed in float32")


class TestConvolutions:
    @pytest.mark.parametrize("weight", ["stem.weight", "layer1.conv1.weight", "layer3.conv2.weight", "head.weight"])
    def test_in_the_blocked_layout_of_the_processor(self, weight: str, tmp_path: Path) -> None:
        net = models.conv_net(tmp_path / "net.onnx", channels=16, blocks=4)
        path = models.scale_weight(net, tmp_path / "planted.onnx", weight, 1.02)
        found = localise(ort_engine(path), Shadow(net, tmp_path), feed_of(net, x=(2, 3, 16, 16)))

        assert culprit_of(found) == node_of_weight(net, weight)
        assert found.fusions == "untouched"
        assert len(found.tensors) >= 11


class TestHealthy:
    @pytest.mark.parametrize("precision", ["fp32", "fp16"])
    def test_nothing_is_wrong(self, encoder: Path, small: Shadow, feed: Feed, precision: str) -> None:
        path = encoder if precision == "fp32" else in_fp16(encoder)
        found = localise(ort_engine(path, SHAPES), small, feed)

        assert found.ok
        assert (found.culprit, found.first, found.cause) == (None, None, "")
        assert not errors(found.findings)
        assert "outputs are right" in found.summary
        assert found.message() == "outputs agree"
        found.check()

    def test_rounding_has_many_makers(self, encoder: Path, small: Shadow, feed: Feed) -> None:
        found = localise(ort_engine(in_fp16(encoder), SHAPES), small, feed, tolerance=STRICT)

        assert not found.ok
        assert found.culprit is None
        shares = [error.share for error in found.tensors if error.share is not None]
        assert shares
        assert max(shares) < 0.5

    def test_the_reference_itself(self, encoder: Path, small: Shadow, feed: Feed) -> None:
        """As written, without optimisations, and from the same file: not a bit differs."""
        found = localise(ort_engine(encoder, SHAPES, optimisation="none"), small, feed, tolerance=Tolerance(0, 0))

        assert found.ok
        assert {error.relative_l2 for error in found.tensors} == {0.0}
        assert {error.made_here for error in found.tensors} == {0.0}
        floats = {node.outputs[0] for node in OnnxModel(encoder).nodes}
        assert {error.tensor for error in found.tensors} == floats


class TestBudget:
    def test_many_passes_find_the_same(self, wrong: Path, small: Shadow, feed: Feed) -> None:
        engine = ort_engine(wrong, SHAPES)
        whole = localise(engine, small, feed)
        parts = localise(engine, small, feed, budget_bytes=30_000)

        assert parts.peak_bytes <= 30_000 < whole.peak_bytes
        assert parts.passes > whole.passes + 2
        assert [error.tensor for error in parts.tensors] == [error.tensor for error in whole.tensors]
        for name in ("relative_l2", "made_here", "max_abs"):
            numbers = [[getattr(error, name) for error in found.tensors] for found in (parts, whole)]
            assert numbers[0] == pytest.approx(numbers[1], rel=1e-3, abs=1e-6)
        assert culprit_of(parts) == culprit_of(whole)

    def test_one_tensor_may_be_larger(self, wrong: Path, small: Shadow, feed: Feed) -> None:
        found = localise(ort_engine(wrong, SHAPES), small, feed, budget_bytes=1, time_limit_s=0)

        assert len(found.tensors) == 1
        assert found.peak_bytes > 1

    def test_out_of_time(self, wrong: Path, small: Shadow, feed: Feed) -> None:
        found = localise(ort_engine(wrong, SHAPES), small, feed, budget_bytes=60_000, time_limit_s=0)

        assert not found.complete
        assert found.culprit is None
        assert not found.ok
        assert {"accuracy.many-makers", "accuracy.not-finished"} == {finding.rule for finding in found.findings}
        assert "ended before" in found.message()


class TestModels:
    def test_unnamed_nodes(self, wrong: Path, small: Shadow, feed: Feed, tmp_path: Path) -> None:
        found = localise(ort_engine(models.unnamed(wrong, tmp_path / "unnamed.onnx"), SHAPES), small, feed)

        assert culprit_of(found) == "node_of_/encoder/layer.1/attention/value/MatMul_output"

    def test_external_weights_on_both_sides(self, tmp_path: Path) -> None:
        net = models.mlp(tmp_path / "mlp.onnx", layers=4)
        wrong = models.scale_weight(net, tmp_path / "wrong.onnx", "fc2.weight", 1.1)
        tested = models.external(wrong, tmp_path / "tested.onnx", "tested.bin")
        reference = models.external(net, tmp_path / "reference.onnx", "reference.bin")
        found = localise(ort_engine(tested), reference, feed_of(net, x=(8, 8)))

        assert culprit_of(found) == "/fc2/MatMul"
        assert "1.1 times" in found.cause

    def test_fp16_inputs_and_outputs(self, mlp: Path, tmp_path: Path) -> None:
        wrong = models.scale_weight(mlp, tmp_path / "wrong.onnx", "fc1.weight", 1.1)
        half = models.to_fp16(wrong, tmp_path / "half.onnx")
        found = localise(ort_engine(half), Shadow(mlp, tmp_path), feed_of(half, x=(8, 8)))

        assert culprit_of(found) == "/fc1/MatMul"

    @pytest.mark.parametrize("make", [models.with_if, models.with_loop])
    def test_graphs_inside_of_nodes(self, make: Any, tmp_path: Path) -> None:
        path = make(tmp_path / "nested.onnx")
        engine = ort_engine(path)
        shapes = {name: bounds.opt for name, bounds in engine.info.profiles[0].items()}
        found = localise(engine, Shadow(path, tmp_path), make_feed(engine.info.inputs, shapes))

        assert found.ok
        assert found.tensors[-1].tensor == "y"

    def test_outputs_that_are_whole_numbers(self, tmp_path: Path) -> None:
        graph = models.Graph()
        x = graph.input("x", ["batch", 4])
        scores = graph.add("MatMul", [x, graph.weight("w", 4, 4)], "/MatMul")
        graph.add("ArgMax", [graph.add("Relu", [scores], "/Relu")], "/ArgMax", "class", axis=1, keepdims=0)
        graph.output("class", ["batch"], TensorProto.INT64)
        path = graph.save(tmp_path / "classes.onnx")
        turned = changed(path, tmp_path / "turned.onnx", "w", lambda values: values[:, ::-1])
        found = localise(ort_engine(turned), Shadow(path, tmp_path), feed_of(path, x=(8, 4)))

        assert culprit_of(found) == "/MatMul"

    def test_operators_that_onnx_does_not_know(self, tmp_path: Path) -> None:
        """Behind them nobody knows types but ONNX Runtime; sequences are no tensors."""
        graph = models.Graph()
        x = graph.input("x", ["batch", 4])
        y = graph.add("Gelu", [x], "/Gelu", domain="com.microsoft")
        y = graph.add("MatMul", [y, graph.weight("w", 4, 4)], "/MatMul")
        y = graph.add("SplitToSequence", [y], "/Split", axis=1, keepdims=1)
        graph.add("Relu", [graph.add("ConcatFromSequence", [y], "/Concat", axis=1)], "/Relu", "y")
        graph.output("y", ["batch", 4])
        path = graph.save(tmp_path / "unknown.onnx", extra_domains=["com.microsoft"])
        wrong = models.scale_weight(path, tmp_path / "wrong.onnx", "w", 1.1)
        found = localise(ort_engine(wrong), Shadow(path, tmp_path), feed_of(path, x=(8, 4)))

        assert culprit_of(found) == "/MatMul"
        assert {error.tensor for error in found.tensors} == {"/Gelu_output", "/MatMul_output", "/Concat_output", "y"}

    def test_int8_against_its_original(self, tmp_path: Path) -> None:
        full, half = planted.int8_pair(tmp_path)
        found = localise(ort_engine(half), full, feed_of(full, x=(8, 3, 8, 8)))

        assert found.ok


class TestRefusals:
    def test_a_reference_of_something_else(self, mlp: Path, conv_net: Path, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"has none of the outputs of mlp\.onnx: y"):
            localise(ort_engine(mlp), Shadow(conv_net, tmp_path), feed_of(mlp, x=(8, 8)))

    def test_other_sizes(self, mlp: Path, tmp_path: Path) -> None:
        wider = models.mlp(tmp_path / "wider.onnx", hidden=32)
        found = localise(ort_engine(wider), Shadow(mlp, tmp_path), feed_of(mlp, x=(8, 8)))

        assert [error.tensor for error in found.tensors] == ["y"]
        assert "accuracy.left-out" in {finding.rule for finding in found.findings}

    def test_an_engine_that_cannot_run(self, mlp: Path, tmp_path: Path) -> None:
        engine = ort_engine(mlp)
        engine.blocked = "there is no processor"
        with pytest.raises(NotRunnableError, match="no processor"):
            localise(engine, Shadow(mlp, tmp_path), feed_of(mlp, x=(8, 8)))

    def test_an_engine_without_a_model(self, mlp: Path, tmp_path: Path) -> None:
        engine = ort_engine(mlp)
        engine.model = None  # type: ignore[assignment]
        with pytest.raises(EngineError, match="its ONNX model is not known") as caught:
            localise(engine, Shadow(mlp, tmp_path), feed_of(mlp, x=(8, 8)))
        assert "--trt-onnx" in caught.value.remedy

    def test_a_feed_outside_of_the_profile(self, base: Path, shadow: Shadow, feed: Feed) -> None:
        with pytest.raises(EngineError, match="shape 2x5"):
            localise(ort_engine(base, "ids:2x6,mask:2x1x1x6"), shadow, feed)


class TestText:
    def test_a_table_shows_the_largest_errors_and_the_depth(self, wrong: Path, small: Shadow, feed: Feed) -> None:
        found = localise(ort_engine(wrong, SHAPES), small, feed)
        head, *rows = found.table(20).splitlines()

        assert head.split() == ["error", "made", "here", "tensor"]
        assert 15 <= len(rows) <= 22
        assert any("/encoder/layer.1/attention/value/MatMul_output  wrong" in row for row in rows)
        assert "hidden_states" in rows[-1]

    def test_a_summary_is_one_line(self, wrong: Path, small: Shadow, feed: Feed) -> None:
        summary = localise(ort_engine(wrong, SHAPES), small, feed).summary

        assert "\n" not in summary
        assert summary.startswith("MatMul '/encoder/layer.1/attention/value/MatMul' makes them wrong")
