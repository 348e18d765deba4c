from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from pytest_trtgray.accuracy.shadow import derive_fp32
from pytest_trtgray.engines.base import Feed
from pytest_trtgray.engines.layer_listing import datatype, layers_from_json
from pytest_trtgray.engines.loading import LoadOptions, load_engine
from pytest_trtgray.engines.model import Layer, LayerTensor
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.precision import (
    HEAVY_OPS,
    PRECISIONS,
    built_precision_finding,
    calibration_digest,
    convert,
    needs_conversion,
    precision_of,
)
from pytest_trtgray.engines.profiles import ShapeRequest
from pytest_trtgray.errors import EngineError, ModelError, ShapeError
from pytest_trtgray.feeds import make_feed
from tests import models, recordings
from tests.unit import strategies
from tests.unit.helpers import layer, ort_engine

NAMES = ("mlp", "conv_net", "encoder")
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "mlp": {"x": (4, 8)},
    "conv_net": {"x": (2, 3, 16, 16)},
    "encoder": {"ids": (2, 5), "mask": (2, 1, 1, 5)},
    "with_if": {"x": (2, 4)},
    "with_loop": {"x": (3, 4)},
}
QDQ_OPS = ("QuantizeLinear", "DequantizeLinear")


@pytest.fixture(scope="module")
def newest(folder: Path) -> Any:
    """The models of :mod:`tests.models` in opset 22, by the way out that the errors name."""

    def make(name: str) -> Path:
        path = folder / f"{name}-22.onnx"
        if not path.exists():
            old = getattr(models, name)(folder / f"{name}-17.onnx")
            models.write(onnx.version_converter.convert_version(onnx.load(str(old)), 22), path)
        return path

    return make


def feeds_of(path: Path, shapes: dict[str, tuple[int, ...]], count: int = 4) -> list[Feed]:
    return [make_feed(OnnxModel(path).inputs, shapes, seed) for seed in range(count)]


def run(path: Path, feed: Feed) -> dict[str, Any]:
    """As written: ONNX Runtime's optimisations do not know FP8."""
    shapes = ",".join(f"{name}:{'x'.join(map(str, np.shape(value)))}" for name, value in feed.items())
    return ort_engine(path, shapes, optimisation="none").run(feed)


def evaluate(path: Path, feed: Feed) -> dict[str, Any]:
    """By ONNX's reference, which knows BF16 on the CPU."""
    from onnx.reference import ReferenceEvaluator

    names = [value.name for value in OnnxModel(path).proto.graph.output]
    return dict(zip(names, ReferenceEvaluator(str(path)).run(None, dict(feed)), strict=True))


def relative_l2(got: dict[str, Any], wanted: dict[str, Any]) -> float:
    assert got.keys() == wanted.keys()
    assert all(got[name].dtype == wanted[name].dtype for name in wanted)
    return max(float(np.linalg.norm(got[n] - wanted[n]) / np.linalg.norm(wanted[n])) for n in wanted)


def converted(path: Path, folder: Path, precision: str, calibration: Sequence[Feed] = ()) -> Path:
    target = folder / f"{path.stem}-{precision}.onnx"
    target.write_bytes(convert(path, precision, calibration))
    return target


def layers_in_rtx(path: Path, folder: Path, shapes: dict[str, tuple[int, ...]]) -> tuple[Layer, ...]:
    pytest.importorskip("tensorrt_rtx")
    options = LoadOptions(runtime="tensorrt_rtx", cache_dir=folder, shapes=[ShapeRequest(shapes, shapes, shapes)])
    return load_engine(path, options).layers


def public(path: Path) -> list[tuple[Any, ...]]:
    model = OnnxModel(path)
    return [(spec.name, spec.dtype, spec.shape) for spec in (*model.inputs, *model.outputs)]


def node_names(path: Path) -> set[str]:
    return {node.name for node in OnnxModel(path).nodes}


def kept_nodes(original: Path, path: Path) -> list[str]:
    known = node_names(original)
    return [node.name for node in OnnxModel(path).nodes if node.name in known]


class TestTheModel:
    @pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "fp8"])
    @pytest.mark.parametrize("name", NAMES)
    def test_the_outside_stays_and_the_inside_changes(
        self, name: str, precision: str, newest: Any, tmp_path: Path
    ) -> None:
        original = newest(name)
        path = converted(original, tmp_path, precision, feeds_of(original, SHAPES[name]))

        assert public(path) == public(original)
        assert node_names(original) <= node_names(path)
        assert precision_of(OnnxModel(original)) == "float32"
        assert precision_of(OnnxModel(path)) == PRECISIONS[precision]
        onnx.checker.check_model(str(path), full_check=True)

    @pytest.mark.parametrize(("precision", "limit"), [("fp16", 1e-2), ("bf16", 5e-2), ("int8", 5e-2), ("fp8", 0.15)])
    @pytest.mark.parametrize("name", NAMES)
    def test_results_are_those_of_the_original_to_rounding(
        self, name: str, precision: str, limit: float, newest: Any, tmp_path: Path
    ) -> None:
        original = newest(name)
        feeds = feeds_of(original, SHAPES[name])
        path = converted(original, tmp_path, precision, feeds)
        wanted = run(original, feeds[0])
        got = (evaluate if precision == "bf16" else run)(path, feeds[0])

        assert 0 < relative_l2(got, wanted) < limit

    @pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "fp8"])
    @pytest.mark.parametrize("name", NAMES)
    def test_tensorrt_for_rtx_computes_in_it(self, name: str, precision: str, newest: Any, tmp_path: Path) -> None:
        original = newest(name)
        path = converted(original, tmp_path, precision, feeds_of(original, SHAPES[name]))
        layers = layers_in_rtx(path, tmp_path, SHAPES[name])

        assert built_precision_finding(precision, layers) is None
        missed = built_precision_finding("fp32", layers)
        assert missed is not None
        assert (missed.rule, missed.severity) == ("precision.not-honoured", "warning")

    @pytest.mark.parametrize("name", ["with_if", "with_loop"])
    @pytest.mark.parametrize("precision", ["fp16", "bf16"])
    def test_graphs_inside_of_nodes(self, name: str, precision: str, newest: Any, tmp_path: Path) -> None:
        original = newest(name)
        (feed,) = feeds_of(original, SHAPES[name], 1)
        path = converted(original, tmp_path, precision)

        onnx.checker.check_model(str(path), full_check=True)
        got = (evaluate if precision == "bf16" else run)(path, feed)
        assert 0 < relative_l2(got, run(original, feed)) < 2e-2
        assert any(item.precision == PRECISIONS[precision] for item in layers_in_rtx(path, tmp_path, SHAPES[name]))

    @pytest.mark.parametrize("precision", ["fp16", "int8"])
    def test_external_weights_come_inside(self, precision: str, mlp: Path, tmp_path: Path) -> None:
        feeds = feeds_of(mlp, SHAPES["mlp"])
        path = models.external(mlp, tmp_path / "external.onnx")
        target = tmp_path / "alone" / "model.onnx"
        target.parent.mkdir()
        target.write_bytes(convert(path, precision, feeds))

        assert relative_l2(run(target, feeds[0]), run(mlp, feeds[0])) < 5e-2
        assert sorted(file.name for file in tmp_path.iterdir()) == ["alone", "external.onnx", "weights.bin"]

    @pytest.mark.parametrize("precision", ["fp16", "int8"])
    def test_nodes_without_names_get_those_of_the_reports(self, precision: str, mlp: Path, tmp_path: Path) -> None:
        path = models.unnamed(mlp, tmp_path / "unnamed.onnx")
        before = node_names(path)
        after = node_names(converted(path, tmp_path, precision, feeds_of(mlp, SHAPES["mlp"])))

        assert "node_of_y" in before
        assert before <= after

    def test_weights_that_are_listed_as_inputs(self, mlp: Path, tmp_path: Path) -> None:
        """As IR version 3 wanted it: they are no inputs to be kept in FP32."""
        proto = onnx.load(str(mlp))
        proto.ir_version = 3
        for tensor in proto.graph.initializer:
            proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        path = converted(models.write(proto, tmp_path / "old.onnx"), tmp_path, "fp16")

        assert {tensor.data_type for tensor in onnx.load(str(path)).graph.initializer} == {TensorProto.FLOAT16}
        assert public(path) == public(mlp)

    @pytest.mark.parametrize("seed", ["1", "2"])
    def test_the_same_bytes_in_every_process(self, seed: str, conv_net: Path) -> None:
        """Or an engine would be built anew for each."""
        program = (
            "import hashlib, pathlib, sys; from pytest_trtgray.engines import precision, onnx_model; "
            "from pytest_trtgray.feeds import make_feed; path = pathlib.Path(sys.argv[1]); "
            "feed = make_feed(onnx_model.OnnxModel(path).inputs, {'x': (2, 3, 16, 16)}); "
            "print(*(hashlib.sha256(precision.convert(path, p, [feed])).hexdigest() for p in ('fp16', 'int8')))"
        )
        found = subprocess.run(
            [sys.executable, "-c", program, str(conv_net)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        import hashlib

        (feed,) = feeds_of(conv_net, SHAPES["conv_net"], 1)
        here = [hashlib.sha256(convert(conv_net, precision, [feed])).hexdigest() for precision in ("fp16", "int8")]
        assert found.stdout.split() == here


class TestSixteenBits:
    def test_what_stays_in_fp32_gets_each_cast_once(self, tmp_path: Path) -> None:
        """Max and Min stay in FP32 and share an input, which is cast for both."""
        graph = models.Graph()
        x = graph.input("x", ["batch", 4])
        relu = graph.add("Relu", [x], "/Relu")
        largest = graph.add("Max", [relu, x], "/Max")
        graph.add("Min", [relu, graph.add("Mul", [largest, graph.weight("w", 4)], "/Mul")], "/Min", "y")
        graph.output("y", ["batch", 4])
        original = graph.save(tmp_path / "shared.onnx")
        path = converted(original, tmp_path, "fp16")
        (feed,) = feeds_of(original, {"x": (3, 4)}, 1)

        outputs = [name for node in OnnxModel(path).nodes for name in node.outputs]
        assert len(outputs) == len(set(outputs))
        assert kept_nodes(original, path) == ["/Relu", "/Max", "/Mul", "/Min"]
        assert relative_l2(run(path, feed), run(original, feed)) < 1e-2

    def test_a_branch_with_what_stays_in_fp32(self, tmp_path: Path) -> None:
        """The casts of a node inside of a branch belong into that branch."""
        graph = models.Graph()
        x = graph.input("x", [2, 4])
        total = graph.add("ReduceSum", [x], "/ReduceSum", keepdims=0)
        condition = graph.add("Greater", [total, graph.constant("zero", np.float32(0))], "/Greater")
        branches = []
        for name in ("then", "else"):
            held = numpy_helper.from_array(np.full(4, 0.3, np.float32), f"{name}_w")
            nodes = [
                helper.make_node("Mul", [x, f"{name}_w"], [f"{name}_m"], name=f"/{name}/Mul"),
                helper.make_node("Max", [f"{name}_m", x], [f"{name}_y"], name=f"/{name}/Max"),
            ]
            out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, [2, 4])
            branches.append(helper.make_graph(nodes, name, [], [out], [held]))
        graph.add("If", [condition], "/If", "y", then_branch=branches[0], else_branch=branches[1])
        graph.output("y", [2, 4])
        original = graph.save(tmp_path / "branch.onnx")
        path = converted(original, tmp_path, "fp16")

        for sign in (1, -1):
            feed = {"x": sign * np.linspace(0.1, 2, 8, dtype=np.float32).reshape(2, 4)}
            assert relative_l2(run(path, feed), run(original, feed)) < 1e-2

    @pytest.mark.parametrize("precision", ["fp16", "bf16"])
    @pytest.mark.parametrize("stored", ["constant", "initializer"])
    def test_the_scales_of_a_resize_stay_exact(self, stored: str, precision: str, tmp_path: Path) -> None:
        scales = np.array([1, 1, 1.3, 2.7], np.float32)
        graph = models.Graph()
        x = graph.input("x", ["batch", 3, 10, 10])
        if stored == "constant":
            graph.add("Constant", [], "/scales", "scales", value=numpy_helper.from_array(scales))
        else:
            graph.constant("scales", scales)
        scaled = graph.add("Mul", [x, graph.weight("w", 3, 1, 1)], "/Mul")
        graph.add("Resize", [scaled, "", "scales"], "/Resize", "y", mode="nearest")
        graph.output("y", ["batch", 3, 13, 27])
        path = converted(graph.save(tmp_path / "resize.onnx"), tmp_path, precision)

        held = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer}
        np.testing.assert_array_equal(held["scales"], scales)
        assert layers_in_rtx(path, tmp_path, {"x": (1, 3, 10, 10)})

    @pytest.mark.parametrize("precision", ["fp16", "bf16"])
    @pytest.mark.parametrize("attribute", ["value", "value_float", "value_floats"])
    def test_constants_of_every_form(self, attribute: str, precision: str, tmp_path: Path) -> None:
        value = {
            "value": numpy_helper.from_array(np.array([0.3], np.float32)),
            "value_float": 0.3,
            "value_floats": [0.3],
        }[attribute]
        graph = models.Graph()
        x = graph.input("x", ["batch", 4])
        factor = graph.add("Constant", [], "/factor", **{attribute: value})
        graph.add("Mul", [graph.add("Add", [x, graph.weight("w", 4)], "/Add"), factor], "/Mul", "y")
        graph.output("y", ["batch", 4])
        original = graph.save(tmp_path / "constant.onnx")
        (feed,) = feeds_of(original, {"x": (3, 4)}, 1)
        path = converted(original, tmp_path, precision)

        got = (evaluate if precision == "bf16" else run)(path, feed)
        assert 0 < relative_l2(got, run(original, feed)) < 1e-2

    @pytest.mark.parametrize("precision", ["fp16", "bf16"])
    def test_a_constant_of_shape_without_a_value(self, precision: str, tmp_path: Path) -> None:
        graph = models.Graph()
        x = graph.input("x", [2, 4])
        zeros = graph.add("ConstantOfShape", [graph.constant("shape", np.array([2, 4]))], "/ConstantOfShape")
        graph.add("Add", [graph.add("Mul", [x, graph.weight("w", 4)], "/Mul"), zeros], "/Add", "y")
        graph.output("y", [2, 4])
        original = graph.save(tmp_path / "zeros.onnx", opset=20 if precision == "bf16" else models.OPSET, ir=9)
        path = converted(original, tmp_path, precision)
        (feed,) = feeds_of(original, {"x": (2, 4)}, 1)

        got = (evaluate if precision == "bf16" else run)(path, feed)
        assert 0 < relative_l2(got, run(original, feed)) < 1e-2

    def test_bf16_weights_are_rounded_once_from_fp32(self, tmp_path: Path) -> None:
        """By way of FP16 they would be clamped, lose small values, and round twice."""
        weight = np.array([[1e-30, 1e30, 65504 * 4.0, 1 + 2**-8 + 2**-12, -3e-9, 0.1]], np.float32)
        original = models.plain_matmul(tmp_path / "wide.onnx", weight)
        held = onnx.load(str(converted(original, tmp_path, "bf16"))).graph.initializer[0]

        assert held.data_type == TensorProto.BFLOAT16
        found = np.frombuffer(held.raw_data, ml_dtypes.bfloat16).reshape(weight.shape)
        np.testing.assert_array_equal(found, weight.astype(ml_dtypes.bfloat16))
        with np.errstate(over="ignore"):
            assert not np.array_equal(found, weight.astype(np.float16).astype(ml_dtypes.bfloat16))

    @pytest.mark.parametrize("precision", ["fp16", "bf16"])
    def test_a_mask_of_the_most_negative_fp32_stays_finite(self, precision: str, tmp_path: Path) -> None:
        """It would become -inf, and 0 * -inf is NaN."""
        graph = models.Graph()
        x = graph.input("x", ["batch", 4])
        low = graph.constant("low", np.finfo(np.float32).min)
        graph.add("Add", [x, graph.add("Mul", [x, low], "/Mul")], "/Add", "y")
        graph.output("y", ["batch", 4])
        path = converted(graph.save(tmp_path / "mask.onnx"), tmp_path, precision)

        got = (evaluate if precision == "bf16" else run)(path, {"x": np.zeros((1, 4), np.float32)})
        np.testing.assert_array_equal(got["y"], np.zeros((1, 4)))

    @given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
    @settings(max_examples=40, deadline=None)
    def test_no_weight_becomes_infinite_or_moves_further_than_rounding(self, folder: Path, values: list[float]) -> None:
        weight = np.array([values], np.float32)
        path = models.plain_matmul(folder / "any.onnx", weight)
        tensor = onnx.load_from_string(convert(path, "bf16")).graph.initializer[0]
        found = np.frombuffer(tensor.raw_data, ml_dtypes.bfloat16).astype(np.float32)

        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, weight[0], rtol=2**-8, atol=1e-40)

    def test_an_operator_without_bf16_stays_in_fp32(self, tmp_path: Path) -> None:
        graph = models.Graph()
        x = graph.input("x", ["batch", 4])
        product = graph.add("Einsum", [x, graph.weight("w", 4, 4)], "/Einsum", equation="ij,jk->ik")
        graph.add("Add", [product, graph.weight("b", 4)], "/Add", "y")
        graph.output("y", ["batch", 4])
        original = graph.save(tmp_path / "einsum.onnx")
        path = converted(original, tmp_path, "bf16")
        (feed,) = feeds_of(original, {"x": (3, 4)}, 1)

        held = {tensor.name: tensor.data_type for tensor in onnx.load(str(path)).graph.initializer}
        assert held == {"w": TensorProto.FLOAT, "b": TensorProto.BFLOAT16}
        assert relative_l2(evaluate(path, feed), run(original, feed)) < 1e-2

    def test_an_opset_without_bf16_is_refused_with_a_way_out_that_works(
        self, conv_net: Path, mlp: Path, newest: Any
    ) -> None:
        with pytest.raises(
            ModelError, match=r"has opset 17; bf16 needs opset 22 for Conv, GlobalAveragePool"
        ) as caught:
            convert(conv_net, "bf16")
        assert "onnx.version_converter.convert_version(model, 22)" in caught.value.remedy
        assert convert(newest("conv_net"), "bf16")
        assert convert(mlp, "bf16")  # a MatMul needs opset 13 only

    @pytest.mark.parametrize("precision", ["fp16", "bf16"])
    def test_a_custom_operator_before_what_stays_in_fp32(self, precision: str, tmp_path: Path) -> None:
        """Max reads FP32, and whether the custom operator's result has to be cast for it nobody knows."""
        graph = models.Graph()
        x = graph.input("x", ["batch", 4])
        hidden = graph.add("Mystery", [x], "/Mystery", domain="me")
        graph.add("Max", [hidden, graph.add("Mul", [x, graph.weight("w", 4)], "/Mul")], "/Max", "y")
        graph.output("y", ["batch", 4])
        path = graph.save(tmp_path / "custom.onnx", extra_domains=["me"])

        with pytest.raises(ModelError, match="type of '/Mystery_output' at /Max is not known"):
            convert(path, precision)

    def test_what_the_converter_breaks_is_refused(self, tmp_path: Path) -> None:
        """A weight that is an output as well: the converter would give that output no value."""
        graph = models.Graph()
        x = graph.input("x", ["batch", 4])
        graph.add("Mul", [x, graph.weight("w", 4)], "/Mul", "y")
        graph.output("y", ["batch", 4])
        graph.output("w", [4])
        with pytest.raises(ModelError, match="cannot be converted to fp16: ") as caught:
            convert(graph.save(tmp_path / "weight.onnx"), "fp16")
        assert "NVIDIA ModelOpt" in caught.value.remedy

    def test_two_branches_with_weights_of_one_name(self, tmp_path: Path) -> None:
        graph = models.Graph()
        x = graph.input("x", [2, 4])
        condition = graph.add("Greater", [graph.add("ReduceSum", [x], "/Sum", keepdims=0), "zero"], "/Greater")
        graph.constant("zero", np.float32(0))
        held = numpy_helper.from_array(np.ones(4, np.float32), "w")
        out = helper.make_tensor_value_info("o", TensorProto.FLOAT, [2, 4])
        branches = [
            helper.make_graph([helper.make_node("Mul", [x, "w"], ["o"], name=f"/{name}/Mul")], name, [], [out], [held])
            for name in ("then", "else")
        ]
        graph.add("If", [condition], "/If", "y", then_branch=branches[0], else_branch=branches[1])
        graph.output("y", [2, 4])
        with pytest.raises(ModelError, match="ONNX Runtime's converter fails: AssertionError"):
            convert(graph.save(tmp_path / "names.onnx"), "fp16")


class TestQuantisation:
    @pytest.mark.parametrize(("precision", "zero"), [("int8", TensorProto.INT8), ("fp8", TensorProto.FLOAT8E4M3FN)])
    @pytest.mark.parametrize("name", NAMES)
    def test_every_heavy_operator_reads_quantised_inputs(
        self, name: str, precision: str, zero: int, newest: Any, tmp_path: Path
    ) -> None:
        original = newest(name)
        proto = onnx.load(str(converted(original, tmp_path, precision, feeds_of(original, SHAPES[name]))))
        weights = {tensor.name: tensor for tensor in proto.graph.initializer}
        maker = {output: node for node in proto.graph.node for output in node.output}
        heavy = [node for node in proto.graph.node if node.op_type in HEAVY_OPS]
        pairs = [node for node in proto.graph.node if node.op_type in QDQ_OPS]

        assert heavy
        assert {maker[tensor].op_type for node in heavy for tensor in node.input[:2]} == {"DequantizeLinear"}
        assert {weights[node.input[2]].data_type for node in pairs} == {zero}
        assert all(not numpy_helper.to_array(weights[node.input[2]]).astype(np.float32).any() for node in pairs)
        read_by_heavy = {tensor for node in heavy for tensor in node.input[:2]}
        assert {node.output[0] for node in pairs if node.op_type == QDQ_OPS[1]} == read_by_heavy

    def test_int8_weights_have_a_scale_for_each_channel(self, conv_net: Path, tmp_path: Path) -> None:
        proto = onnx.load(str(converted(conv_net, tmp_path, "int8", feeds_of(conv_net, SHAPES["conv_net"]))))
        weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
        (node,) = (node for node in proto.graph.node if node.input[0] == "stem.weight")

        kernel, scales = weights["stem.weight"], weights[node.input[1]]
        np.testing.assert_allclose(scales, np.abs(kernel).reshape(len(kernel), -1).max(axis=1) / 127, rtol=1e-2)
        assert np.unique(scales).size > 1

    def test_fp8_keeps_an_outlier(self, tmp_path: Path, newest: Any) -> None:
        """A scale of the standard deviation, ONNX Runtime's for FP8, would cut it off."""
        original = models.plain_matmul(tmp_path / "p.onnx", np.eye(64, dtype=np.float32))
        proto = onnx.version_converter.convert_version(onnx.load(str(original)), 19)
        path = models.write(proto, tmp_path / "plain.onnx")
        values = np.random.default_rng(0).standard_normal((16, 64)).astype(np.float32)
        values[3, 5] = 300
        got = run(converted(path, tmp_path, "fp8", [{"x": values}]), {"x": values})["y"]

        assert got[3, 5] == pytest.approx(300, rel=1e-3)
        np.testing.assert_allclose(got, values, rtol=2**-3, atol=300 / 448 * 2**-6)

    @given(bound=st.floats(0.01, 1000), batches=st.lists(st.integers(1, 5), min_size=1, max_size=3))
    @settings(max_examples=15, deadline=None)
    def test_the_calibrated_range_is_the_largest_value_of_all_feeds(
        self, folder: Path, bound: float, batches: list[int]
    ) -> None:
        """Of any batch: the symbol needs no fixed size."""
        path = models.plain_matmul(folder / "range.onnx", np.eye(4, dtype=np.float32))
        feeds: list[Feed] = [{"x": np.full((size, 4), bound / 2, np.float32)} for size in batches]
        feeds.append({"x": np.full((1, 4), -bound, np.float32)})
        proto = onnx.load_from_string(convert(path, "int8", iter(feeds)))
        weights = {tensor.name: tensor for tensor in proto.graph.initializer}
        (node,) = (node for node in proto.graph.node if node.input[0] == "x")

        assert float(numpy_helper.to_array(weights[node.input[1]])) == pytest.approx(bound / 127, rel=1e-2)

    def test_taking_it_off_again_gives_the_original(self, conv_net: Path, tmp_path: Path) -> None:
        feeds = feeds_of(conv_net, SHAPES["conv_net"])
        path = converted(conv_net, tmp_path, "int8", feeds)
        back = models.write(derive_fp32(path), tmp_path / "back.onnx")

        np.testing.assert_array_equal(run(back, feeds[0])["logits"], run(conv_net, feeds[0])["logits"])

    @pytest.mark.parametrize("precision", ["int8", "fp8"])
    def test_without_calibration(self, precision: str, newest: Any) -> None:
        with pytest.raises(EngineError, match=f"{precision} needs calibration inputs, and none were given"):
            convert(newest("mlp"), precision, [])

    def test_calibration_inputs_that_do_not_fit(self, mlp: Path) -> None:
        good = np.ones((2, 8), np.float32)
        with pytest.raises(ShapeError, match=r"inputs \['z'\], the model wants \['x'\]"):
            convert(mlp, "int8", [{"z": good}])
        with pytest.raises(ShapeError, match="'x' has shape 2x9, the model wants batchx8"):
            convert(mlp, "int8", [{"x": good}, {"x": np.ones((2, 9), np.float32)}])
        with pytest.raises(EngineError, match="'x' is float64, the model wants float32"):
            convert(mlp, "int8", [{"x": good.astype(np.float64)}])

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_calibration_inputs_that_are_no_numbers(self, mlp: Path, value: float) -> None:
        with pytest.raises(EngineError, match="calibration input 'x' has values that are not finite"):
            convert(mlp, "int8", [{"x": np.full((2, 8), value, np.float32)}])

    def test_ranges_that_the_model_makes_infinite(self, tmp_path: Path) -> None:
        graph = models.Graph()
        x = graph.input("x", ["batch", 4])
        root = graph.add("Log", [graph.add("Relu", [x], "/Relu")], "/Log")
        graph.add("MatMul", [root, graph.weight("w", 4, 4)], "/MatMul", "y")
        graph.output("y", ["batch", 4])
        path = graph.save(tmp_path / "log.onnx")
        with pytest.raises((EngineError, ModelError), match=r"finite|NaN"):
            convert(path, "int8", [{"x": -np.ones((1, 4), np.float32)}])

    def test_an_opset_without_the_types(self, mlp: Path) -> None:
        with pytest.raises(ModelError, match="has opset 17; fp8 needs opset 19 for its Q/DQ nodes"):
            convert(mlp, "fp8", feeds_of(mlp, SHAPES["mlp"]))

    def test_nothing_to_quantise(self, tmp_path: Path) -> None:
        path = models.unary(tmp_path / "relu.onnx", "Relu")
        with pytest.raises(ModelError, match="nothing to quantise: no Conv, ConvTranspose, Gemm or MatMul"):
            convert(path, "int8", feeds_of(path, {"x": (1, 4)}))

    def test_the_quantiser_is_quiet_and_logging_stays_as_it_was(
        self, mlp: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        root = logging.getLogger()
        before = (list(root.handlers), list(root.filters), root.level)

        def feeds() -> Any:
            for feed in feeds_of(mlp, SHAPES["mlp"]):
                logging.getLogger().warning("of the user")
                yield feed

        convert(mlp, "int8", feeds())

        assert (list(root.handlers), list(root.filters), root.level) == before
        assert set(caplog.messages) == {"of the user"}
        assert capfd.readouterr().out == ""

    def test_no_handler_is_installed_in_a_process_without_one(self, mlp: Path) -> None:
        program = (
            "import logging, pathlib, sys; import numpy as np; from pytest_trtgray.engines.precision import convert; "
            "convert(pathlib.Path(sys.argv[1]), 'int8', [{'x': np.ones((1, 8), np.float32)}]); "
            "print(logging.getLogger().handlers)"
        )
        found = subprocess.run([sys.executable, "-c", program, str(mlp)], capture_output=True, text=True, check=True)

        assert (found.stdout, found.stderr) == ("[]\n", "")


class TestWhatIsGiven:
    @pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
    def test_a_model_of_this_precision_comes_back_as_it_is(self, precision: str, mlp: Path, tmp_path: Path) -> None:
        path = {
            "fp32": lambda: mlp,
            "fp16": lambda: models.to_fp16(mlp, tmp_path / "half.onnx"),
            "int8": lambda: models.qdq(tmp_path / "qdq.onnx", stored="int", axis=-1),
        }[precision]()

        assert not needs_conversion(OnnxModel(path), precision)
        assert onnx.load_from_string(convert(path, precision)) == onnx.load(str(path))

    @pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "fp8"])
    @pytest.mark.parametrize("name", NAMES)
    def test_converting_twice_is_converting_once(self, name: str, precision: str, newest: Any, tmp_path: Path) -> None:
        original = newest(name)
        path = converted(original, tmp_path, precision, feeds_of(original, SHAPES[name]))

        assert onnx.load_from_string(convert(path, precision)) == onnx.load(str(path))

    @pytest.mark.parametrize("wanted", ["fp32", "bf16", "int8", "fp8"])
    def test_what_was_rounded_cannot_be_had_back(self, wanted: str, mlp: Path, tmp_path: Path) -> None:
        half = models.to_fp16(mlp, tmp_path / "half.onnx")
        with pytest.raises(
            ModelError, match=f"is a model in float16; {wanted} can only be made from the FP32"
        ) as caught:
            convert(half, wanted, feeds_of(half, SHAPES["mlp"]))
        assert "Give the FP32 model that it was made from" in caught.value.remedy

    def test_a_quantised_model_in_another_precision(self, tmp_path: Path) -> None:
        path = models.qdq(tmp_path / "qdq.onnx")
        with pytest.raises(ModelError, match="is a model in int8; fp16 can only be made from the FP32 original"):
            convert(path, "fp16")

    def test_an_unknown_precision(self, mlp: Path) -> None:
        with pytest.raises(EngineError, match="precision='half': is not known") as caught:
            convert(mlp, "half")
        assert caught.value.remedy == "Choose one of fp32, fp16, bf16, int8, fp8."

    def test_a_model_without_weights_is_what_its_inputs_are(self, tmp_path: Path) -> None:
        plain = models.unary(tmp_path / "relu.onnx", "Relu")

        assert precision_of(OnnxModel(plain)) == "float32"
        assert precision_of(OnnxModel(models.to_fp16(plain, tmp_path / "half.onnx"))) == "float16"

    def test_a_model_above_two_gigabytes_is_refused_before_it_is_read(self, tmp_path: Path) -> None:
        rows = 400_000_000
        with (tmp_path / "weights.bin").open("wb") as file:
            file.truncate(rows * 8)  # a hole: it takes no room
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, rows], data_location=TensorProto.EXTERNAL)
        for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", str(rows * 8))):
            tensor.external_data.add(key=key, value=value)
        graph = models.Graph()
        graph.weights.append(tensor)
        graph.add("MatMul", [graph.input("x", [1, 2]), "w"], "/MatMul", "y")
        graph.output("y", [1, rows])
        path = graph.save(tmp_path / "large.onnx")

        with pytest.raises(ModelError, match=r"has 3.2 GB; above 2 GB it cannot be converted") as caught:
            convert(path, "fp16")
        assert "Convert it with the exporter" in caught.value.remedy

    def test_local_functions(self, tmp_path: Path, mlp: Path) -> None:
        proto = onnx.load(str(mlp))
        body = [helper.make_node("Relu", ["a"], ["b"])]
        proto.functions.append(helper.make_function("me", "Mine", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
        proto.opset_import.append(helper.make_opsetid("me", 1))
        with pytest.raises(ModelError, match=r"has local functions \(Mine\)") as caught:
            convert(models.write(proto, tmp_path / "function.onnx"), "fp16")
        assert "onnx.inliner.inline_local_functions" in caught.value.remedy


ARRAYS = st.builds(
    lambda shape, seed, dtype: np.random.default_rng(seed).integers(0, 3, shape).astype(dtype),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.integers(0, 5),
    st.sampled_from([np.float32, np.int64, np.bool_, ml_dtypes.bfloat16]),
)
FEEDS = st.lists(st.dictionaries(st.sampled_from(["x", "y", "xy"]), ARRAYS, max_size=2), max_size=3)


def same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(
        a.keys() == b.keys()
        and all(a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and (a[k] == b[k]).all() for k in a)
        for a, b in zip(one, other, strict=True)
    )


class TestTheDigest:
    @given(one=FEEDS, other=FEEDS)
    def test_equal_for_equal_feeds_only(self, one: list[Any], other: list[Any]) -> None:
        assert (calibration_digest(one) == calibration_digest(other)) == same(one, other)

    @given(feeds=FEEDS)
    def test_order_of_names_and_memory_layout_do_not_matter(self, feeds: list[Any]) -> None:
        turned = [{name: np.array(feed[name], order="F") for name in reversed(feed)} for feed in feeds]

        assert calibration_digest(iter(turned)) == calibration_digest(feeds)


def with_weights(name: str) -> list[Layer]:
    """A recording of TensorRT 8.5, whose layers tell the type of their weights only."""
    listing = recordings.listing(name)
    layers = []
    for entry, found in zip(listing["Layers"], layers_from_json(listing), strict=True):
        held = entry.get("Weights") or entry.get("ConvWeights") or {}
        weights = (LayerTensor("weights", datatype(held["Type"])),) if held.get("Type") else ()
        layers.append(replace(found, constants=weights))
    return layers


class TestTheFinding:
    def test_an_fp16_engine_of_tensorrt_for_rtx(self) -> None:
        layers = layers_from_json(recordings.listing("rtx15_bert_base_fp16"))
        missed = built_precision_finding("int8", layers)

        assert built_precision_finding("fp16", layers) is None
        assert missed is not None
        assert missed.severity == "warning"
        assert missed.evidence == {"honoured": 0, "total": 60, "unknown": 0}
        assert missed.what.startswith(
            "int8 was asked for, and none of the 60 convolutions and matrix products computes in it; FP16: /m/encoder/"
        )

    def test_an_fp32_engine_of_tensorrt_for_rtx(self) -> None:
        layers = layers_from_json(recordings.listing("rtx15_bert_base_fp32"))
        missed = built_precision_finding("fp16", layers)

        assert built_precision_finding("fp32", layers) is None
        assert missed is not None
        assert missed.rule == "precision.not-honoured"
        assert missed.evidence["total"] == 72  # 60 gemm, 12 with their activation

    def test_an_int8_engine_that_is_one_in_name_only(self) -> None:
        """TensorRT 8.5 took FP16 for all but the first convolution of ResNet-50."""
        finding = built_precision_finding("int8", with_weights("trt85_resnet50_int8"))

        assert finding is not None
        assert (finding.rule, finding.severity) == ("precision.partly", "warning")
        assert finding.evidence == {"honoured": 1, "total": 54, "unknown": 0}
        assert finding.what.startswith(
            "1 of 54 convolutions and matrix products compute in int8; FP16: "
            "/layer1/layer1.0/conv1/Conv + /layer1/layer1.0/relu/Relu, "
        )
        assert finding.what.endswith(" and 50 more")

    def test_types_read_from_the_names_of_kernels(self) -> None:
        """What TensorRT 8.5 says of a layer with dynamic shapes: no types but in its kernel's name."""
        half, quantised = (
            [replace(item, constants=()) for item in layers_from_json(recordings.listing(name))]
            for name in ("trt85_resnet50_fp16", "trt85_resnet50_int8")
        )
        missed = built_precision_finding("int8", quantised)

        assert {item.precision for item in half} == {""}
        assert built_precision_finding("fp16", half) is None
        assert missed is not None
        # The one layer that does not tell may be the one that was asked for: no verdict.
        assert missed.severity == "warning"
        assert missed.evidence == {"honoured": 0, "total": 53, "unknown": 1}

    @pytest.mark.parametrize(
        ("tactic", "dtype"),
        [
            ("sm80_xmma_fprop_implicit_gemm_f16f16_f32_f16_nhwckrsc_nhwc_tilesize128x128x32", "fp16"),
            ("sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32kcrs", "int8"),
            ("sm80_xmma_gemm_tf32tf32_tf32f32_tf32_tn_n_tilesize64x64x32", "fp32"),
            ("sm90_xmma_gemm_e4m3e4m3_e4m3f32_f32_tn_n_tilesize64x64x64", "fp8"),
            ("sm80_xmma_gemm_bf16bf16_bf16f32_f32_tn_n", "bf16"),
        ],
    )
    def test_the_names_of_kernels(self, tactic: str, dtype: str) -> None:
        layers = [Layer("c", "CaskConvolution", frozenset({"/Conv"}), tactic=tactic)]

        assert built_precision_finding(dtype, layers) is None
        assert [p for p in PRECISIONS if built_precision_finding(p, layers) is None] == [dtype]

    def test_pointwise_layers_do_not_count(self) -> None:
        layers = [
            layer("q", "/Q", "/MatMul", dtype="float32"),
            layer("/MatMul_myl0_1", "/MatMul", kind="gemm", dtype="int8"),
        ]

        assert built_precision_finding("int8", layers) is None

    def test_more_than_half_is_advice(self) -> None:
        layers = [layer(f"l{i}", f"/{i}/MatMul", kind="gemm", dtype="int8") for i in range(3)]
        layers.append(layer("l3", "/3/MatMul", kind="gemm", dtype="float32"))
        finding = built_precision_finding("int8", layers)

        assert finding is not None
        assert finding.severity == "advice"
        assert finding.what == "3 of 4 convolutions and matrix products compute in int8; FP32: /3/MatMul"

    def test_a_layer_of_several_profiles_counts_once(self) -> None:
        layers = [layer(f"l_myl{i}_0", "/MatMul", kind="gemm", dtype="float32", profile=i) for i in range(3)]
        finding = built_precision_finding("fp16", layers)

        assert finding is not None
        assert finding.evidence["total"] == 1

    def test_an_engine_without_heavy_layers(self) -> None:
        cast, relu = layer("cast", "/Cast", dtype="float32"), layer("relu", "/Relu", dtype="float16")
        missed = built_precision_finding("fp16", [cast])

        assert built_precision_finding("fp16", [cast, relu]) is None
        assert missed is not None
        assert missed.what == "fp16 was asked for, and none of the 1 layers computes in it; FP32: /Cast"

    @given(wanted=st.sampled_from(sorted(PRECISIONS)), layers=st.lists(strategies.layers(), max_size=6))
    def test_of_any_engine(self, wanted: str, layers: list[Layer]) -> None:
        finding = built_precision_finding(wanted, layers)

        if finding is not None:
            honoured, total = finding.evidence["honoured"], finding.evidence["total"]
            assert isinstance(honoured, int)
            assert isinstance(total, int)
            assert 0 <= honoured < total <= len(layers)
            assert (finding.rule == "precision.partly") == (honoured > 0)
        elif any(item.kind == "gemm" and item.precision for item in layers) and len({i.name for i in layers}) == len(
            layers
        ):  # layers of one name are judged once
            assert PRECISIONS[wanted] in {item.precision for item in layers}
