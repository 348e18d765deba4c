from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from pytest_trtgray.accuracy.shadow import Shadow, derivations, derive_fp32
from pytest_trtgray.engines.device import find_gpu
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.errors import EngineError, ModelError, NotRunnableError, ShapeError
from pytest_trtgray.feeds import make_feed
from pytest_trtgray.vendor import is_installed
from tests import models
from tests.unit.helpers import ort_engine

needs_no_gpu = pytest.mark.skipif(find_gpu() is not None, reason="needs a machine without a GPU")
HALF_EPS = 2.0**-11
FEED = {"x": np.linspace(-2, 2, 24, dtype=np.float32).reshape(3, 8)}
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "mlp": {"x": (4, 8)},
    "conv_net": {"x": (2, 3, 16, 16)},
    "encoder": {"ids": (2, 5), "mask": (2, 1, 1, 5)},
}


def output_of(path: Path, feed: Any, folder: Path) -> Any:
    (value,) = Shadow(path, folder).run(feed).values()
    return value


def feed_of(path: Path, **shapes: tuple[int, ...]) -> Any:
    from pytest_trtgray.engines.onnx_model import OnnxModel

    return make_feed(OnnxModel(path).inputs, shapes)


def elem_types(proto: Any) -> set[int]:
    graph = proto.graph
    return {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)} | {
        tensor.data_type for tensor in graph.initializer
    }


class TestPlainModels:
    def test_an_fp32_model_is_run_as_it_is(self, mlp: Path, tmp_path: Path) -> None:
        shadow = Shadow(mlp, tmp_path)
        feed = feed_of(mlp, x=(3, 8))
        w0, b0, w1, b1 = (numpy_helper.to_array(tensor) for tensor in shadow.model.proto.graph.initializer)

        np.testing.assert_allclose(shadow.run(feed)["y"], np.maximum(feed["x"] @ w0 + b0, 0) @ w1 + b1, rtol=1e-5)
        assert shadow.derived == ()
        assert [path.name for path in tmp_path.iterdir()] == ["references"]
        assert repr(shadow) == "<Shadow mlp.onnx (FP32, ONNX Runtime CPU, unoptimised)>"

    def test_calling_it_is_running_it(self, mlp: Path, tmp_path: Path) -> None:
        shadow, feed = Shadow(mlp, tmp_path), feed_of(mlp, x=(3, 8))

        np.testing.assert_array_equal(shadow(feed)["y"], shadow.run(feed)["y"])

    @given(batch=st.integers(1, 100))
    def test_any_size_of_a_symbol(self, encoder: Path, folder: Path, batch: int) -> None:
        """A reference has no optimization profile."""
        feed = feed_of(encoder, ids=(batch, 3), mask=(batch, 1, 1, 3))

        assert Shadow(encoder, folder).run(feed)["hidden_states"].shape == (batch, 3, 16)

    @pytest.mark.parametrize("dtype", [np.float16, np.float64])
    def test_floats_of_any_width(self, mlp: Path, tmp_path: Path, dtype: Any) -> None:
        values = np.ones((2, 8), dtype)

        np.testing.assert_array_equal(
            output_of(mlp, {"x": values}, tmp_path), output_of(mlp, {"x": values.astype(np.float32)}, tmp_path)
        )

    def test_an_input_that_is_not_there(self, mlp: Path, tmp_path: Path) -> None:
        shadow = Shadow(mlp, tmp_path)
        with pytest.raises(ShapeError, match=r"no input \['z'\]") as caught:
            shadow.run({"x": np.ones((1, 8)), "z": np.ones(1)})
        assert "Its inputs are: x" in caught.value.remedy
        with pytest.raises(ShapeError, match="input 'x' is missing"):
            shadow.run({})

    def test_a_size_that_does_not_fit(self, mlp: Path, tmp_path: Path) -> None:
        with pytest.raises(ShapeError, match="input 'x' has shape 2x9"):
            Shadow(mlp, tmp_path).run({"x": np.ones((2, 9))})

    def test_a_model_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="no such file"):
            Shadow(tmp_path / "none.onnx", tmp_path)

    def test_external_weights(self, mlp: Path, tmp_path: Path) -> None:
        path = models.external(mlp, tmp_path / "external.onnx")
        feed = feed_of(mlp, x=(3, 8))

        np.testing.assert_array_equal(output_of(path, feed, tmp_path), output_of(mlp, feed, tmp_path))


class TestHalfPrecision:
    @pytest.mark.parametrize("name", ["mlp", "conv_net", "encoder"])
    def test_the_twin_is_the_original_to_rounding(
        self, name: str, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        """Weights were rounded to eleven bits; nothing else may differ."""
        original: Path = request.getfixturevalue(name)
        feed = feed_of(original, **SHAPES[name])
        half = models.to_fp16(original, tmp_path / "half.onnx")
        shadow = Shadow(half, tmp_path)
        (got,) = shadow.run(feed).values()
        wanted = output_of(original, feed, tmp_path)

        assert shadow.derived == ("FP16 widened",)
        assert got.dtype == np.float32
        error = float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))
        assert 0 < error < 8 * HALF_EPS

    def test_the_weights_are_exactly_those_of_the_half_model(self, mlp: Path, tmp_path: Path) -> None:
        half = models.to_fp16(mlp, tmp_path / "half.onnx")
        rounded = onnx.load(str(mlp))
        for tensor in rounded.graph.initializer:
            values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        feed = feed_of(mlp, x=(4, 8))

        np.testing.assert_array_equal(
            output_of(half, feed, tmp_path),
            output_of(models.write(rounded, tmp_path / "rounded.onnx"), feed, tmp_path),
        )

    def test_it_does_not_overflow_where_the_half_model_does(self, tmp_path: Path) -> None:
        graph = models.Graph()
        x = graph.input("x", ["batch", 4], TensorProto.FLOAT16)
        large = graph.add("Mul", [x, graph.constant("large", np.float16(60000))], "/Mul")
        graph.add("Mul", [large, graph.constant("small", np.float16(2**-14))], "/Mul_1", "y")
        graph.output("y", ["batch", 4], TensorProto.FLOAT16)
        path = graph.save(tmp_path / "overflow.onnx")
        result = output_of(path, {"x": np.full((1, 4), 100, np.float16)}, tmp_path)

        np.testing.assert_allclose(result, 60000 * 100 * 2**-14, rtol=1e-3)

    def test_inputs_keep_the_dtypes_of_the_model_as_given(self, mlp: Path, tmp_path: Path) -> None:
        shadow = Shadow(models.to_fp16(mlp, tmp_path / "half.onnx"), tmp_path)

        assert shadow.inputs[0].dtype == "float16"
        assert shadow.run({"x": np.ones((1, 8), np.float16)})["y"].dtype == np.float32

    def test_casts_and_constants(self, tmp_path: Path) -> None:
        """An FP16 block inside an FP32 model: casts around it, a Constant node in it."""
        graph = models.Graph()
        x = graph.input("x", ["batch", 4])
        half = graph.add("Cast", [x], "/down", to=TensorProto.FLOAT16)
        third = graph.add("Constant", [], "/third", value=numpy_helper.from_array(np.float16(1 / 3)))
        half = graph.add("Mul", [half, third], "/Mul")
        graph.add("Cast", [half], "/up", "y", to=TensorProto.FLOAT)
        graph.output("y", ["batch", 4])
        path = graph.save(tmp_path / "mixed.onnx")
        values = np.array([[1.0001, 2.0003, 3.0007, 70000]], np.float32)

        assert Shadow(path, tmp_path).derived == ("FP16 widened",)
        np.testing.assert_array_equal(output_of(path, {"x": values}, tmp_path), values * np.float32(np.float16(1 / 3)))

    def test_only_casts(self, tmp_path: Path) -> None:
        graph = models.Graph()
        half = graph.add("Cast", [graph.input("x", ["batch", 4])], "/down", to=TensorProto.FLOAT16)
        graph.add("Cast", [half], "/up", "y", to=TensorProto.FLOAT)
        graph.output("y", ["batch", 4])
        values = np.array([[1.0001, 70000, -1e-9, 0]], np.float32)

        np.testing.assert_array_equal(output_of(graph.save(tmp_path / "c.onnx"), {"x": values}, tmp_path), values)

    def test_a_model_that_is_half_in_its_inputs_and_outputs_only(self, tmp_path: Path) -> None:
        graph = models.Graph()
        graph.add("Exp", [graph.input("x", ["batch", 4], TensorProto.FLOAT16)], "/Exp", "y")
        graph.output("y", ["batch", 4], TensorProto.FLOAT16)
        path = graph.save(tmp_path / "exp.onnx")
        result = output_of(path, {"x": np.full((1, 4), 15, np.float16)}, tmp_path)

        np.testing.assert_allclose(result, np.exp(np.float32(15)), rtol=1e-6)

    @pytest.mark.parametrize("positive", [True, False])
    def test_branches(self, tmp_path: Path, positive: bool) -> None:
        original = models.with_if(tmp_path / "if.onnx")
        half = models.to_fp16(original, tmp_path / "half.onnx")
        feed = {"x": np.full((2, 4), 1.0 if positive else -1.0, np.float32)}
        proto = derive_fp32(half)

        np.testing.assert_allclose(output_of(half, feed, tmp_path), output_of(original, feed, tmp_path), rtol=1e-3)
        for attribute in proto.graph.node[-1].attribute:
            assert {tensor.data_type for tensor in attribute.g.initializer} == {TensorProto.FLOAT}

    def test_a_branch_alone_is_half(self, tmp_path: Path) -> None:
        """FP16 only inside of a subgraph is FP16 all the same."""
        path = models.with_if(tmp_path / "if.onnx")
        proto = onnx.load(str(path))
        for attribute in proto.graph.node[-1].attribute:
            branch = attribute.g
            (node,) = branch.node
            down = [helper.make_node("Cast", [name], [f"{name}_half"], to=TensorProto.FLOAT16) for name in node.input]
            up = helper.make_node("Cast", ["half_y"], [node.output[0]], to=TensorProto.FLOAT)
            inner = helper.make_node(node.op_type, [f"{name}_half" for name in node.input], ["half_y"], name=node.name)
            del branch.node[:]
            branch.node.extend([*down, inner, up])

        assert derivations(OnnxModel(models.write(proto, tmp_path / "half.onnx"))) == ("FP16 widened",)

    def test_errors_name_the_model_that_was_given(self, tmp_path: Path) -> None:
        model = models.unary(tmp_path / "custom.onnx", "Mystery", domain="acme")
        proto = onnx.load(str(model))
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
        shadow = Shadow(models.write(proto, model), tmp_path / "cache")
        with pytest.raises(EngineError, match="cannot load it") as caught:
            shadow.run({"x": np.zeros((2, 4), np.float32)})

        assert caught.value.thing == f"{model} (FP16 widened)"

    def test_no_half_is_left(self, encoder: Path, tmp_path: Path) -> None:
        half = models.to_fp16(encoder, tmp_path / "half.onnx")

        assert TensorProto.FLOAT16 in elem_types(onnx.load(str(half)))
        assert TensorProto.FLOAT16 not in elem_types(derive_fp32(half))

    def test_external_weights(self, mlp: Path, tmp_path: Path) -> None:
        half = models.to_fp16(mlp, tmp_path / "half.onnx")
        apart = models.external(half, tmp_path / "apart.onnx")
        feed = feed_of(mlp, x=(2, 8))

        np.testing.assert_array_equal(output_of(apart, feed, tmp_path / "c"), output_of(half, feed, tmp_path / "d"))


class TestQuantised:
    @pytest.mark.parametrize("axis", [None, 0, 1])
    def test_pairs_around_float_weights_give_the_original_exactly(self, tmp_path: Path, axis: int | None) -> None:
        path = models.qdq(tmp_path / "qdq.onnx", axis=axis)
        original = models.plain_matmul(tmp_path / "plain.onnx", models.quantised_weight(axis=axis)[0])
        shadow = Shadow(path, tmp_path)

        assert shadow.derived == ("Q/DQ removed",)
        np.testing.assert_array_equal(shadow.run(FEED)["y"], output_of(original, FEED, tmp_path))

    @pytest.mark.parametrize(
        "options", [{}, {"axis": 0}, {"axis": 1}, {"axis": -1}, {"zero_point": 3}, {"axis": 1, "zero_point": -7}]
    )
    def test_stored_integers_are_dequantised(self, tmp_path: Path, options: dict[str, Any]) -> None:
        """As ONNX Runtime itself dequantises them."""
        path = models.qdq(tmp_path / "qdq.onnx", stored="int", activations=False, **options)
        (got,) = Shadow(path, tmp_path).run(FEED).values()

        np.testing.assert_allclose(got, _reference(path, FEED), rtol=1e-6, atol=1e-6)

    def test_blocks_that_share_a_scale(self, tmp_path: Path) -> None:
        path = models.qdq(tmp_path / "blocks.onnx", stored="int", axis=0, block=4, activations=False)
        (got,) = Shadow(path, tmp_path).run(FEED).values()

        np.testing.assert_allclose(got, _reference(path, FEED), rtol=1e-6, atol=1e-6)

    def test_the_error_is_that_of_the_rounded_weights_only(self, tmp_path: Path) -> None:
        path = models.qdq(tmp_path / "qdq.onnx", stored="int", axis=1)
        values, scales, _ = models.quantised_weight(axis=1)
        original = models.plain_matmul(tmp_path / "plain.onnx", values)
        got, wanted = (output_of(model, FEED, tmp_path) for model in (path, original))

        bound = np.abs(FEED["x"]).sum(axis=1, keepdims=True) * scales / 2
        assert (np.abs(got - wanted) <= bound + 1e-5).all()
        assert (got != wanted).any()

    def test_no_quantiser_is_left(self, tmp_path: Path) -> None:
        operators = {node.op_type for node in derive_fp32(models.qdq(tmp_path / "qdq.onnx", axis=1)).graph.node}

        assert operators == {"MatMul"}

    def test_nothing_is_said_about_weights_that_are_not_used_any_more(self, tmp_path: Path) -> None:
        """Scales and zero points that the derivation left behind are not the user's business."""
        assert Shadow(models.qdq(tmp_path / "qdq.onnx", stored="int", axis=1), tmp_path)._engine.records == ()

    def test_a_quantised_output(self, tmp_path: Path) -> None:
        graph = models.Graph()
        parts = [graph.constant("scale", np.float32(0.1)), graph.constant("zero", np.int8(0))]
        negated = graph.add("Neg", [graph.input("x", ["batch", 4])], "/Neg")
        graph.add("DequantizeLinear", [graph.add("QuantizeLinear", [negated, *parts], "/Q"), *parts], "/DQ", "y")
        graph.output("y", ["batch", 4])
        values = np.array([[0.123, 55, -3, 0]], np.float32)
        result = Shadow(graph.save(tmp_path / "out.onnx"), tmp_path).run({"x": values})

        assert list(result) == ["y"]
        np.testing.assert_array_equal(result["y"], -values)

    def test_one_quantiser_with_two_readers(self, tmp_path: Path) -> None:
        graph = models.Graph()
        parts = [graph.constant("scale", np.float32(0.1)), graph.constant("zero", np.int8(0))]
        quantised = graph.add("QuantizeLinear", [graph.input("x", ["batch", 4]), *parts], "/Q")
        left, right = (graph.add("DequantizeLinear", [quantised, *parts], f"/DQ_{i}") for i in range(2))
        graph.add("Add", [left, right], "/Add", "y")
        graph.output("y", ["batch", 4])
        values = np.array([[0.123, 55, -3, 0]], np.float32)

        np.testing.assert_array_equal(
            output_of(graph.save(tmp_path / "two.onnx"), {"x": values}, tmp_path), values + values
        )

    def test_pair_after_pair(self, tmp_path: Path) -> None:
        graph = models.Graph()
        parts = [graph.constant("scale", np.float32(0.1)), graph.constant("zero", np.int8(0))]
        tensor = graph.input("x", ["batch", 4])
        for index in range(3):
            quantised = graph.add("QuantizeLinear", [tensor, *parts], f"/Q{index}")
            tensor = graph.add("DequantizeLinear", [quantised, *parts], f"/DQ{index}")
        graph.add("Neg", [tensor], "/Neg", "y")
        graph.output("y", ["batch", 4])
        values = np.array([[0.123, 55, -3, 0]], np.float32)

        np.testing.assert_array_equal(output_of(graph.save(tmp_path / "p.onnx"), {"x": values}, tmp_path), -values)

    def test_an_integer_input_is_still_dequantised(self, tmp_path: Path) -> None:
        graph = models.Graph()
        parts = [graph.constant("scale", np.float32(0.5)), graph.constant("zero", np.int8(2))]
        graph.add("DequantizeLinear", [graph.input("x", ["batch", 4], TensorProto.INT8), *parts], "/DQ", "y")
        graph.output("y", ["batch", 4])
        values = np.array([[2, 4, -128, 127]], np.int8)

        np.testing.assert_array_equal(
            output_of(graph.save(tmp_path / "in.onnx"), {"x": values}, tmp_path),
            (values.astype(np.float32) - 2) / 2,
        )

    def test_a_branch_that_reads_a_dequantised_tensor(self, tmp_path: Path) -> None:
        path = models.with_if(tmp_path / "if.onnx")
        proto = onnx.load(str(path))
        graph = proto.graph
        for name, values in (("q_scale", np.float32(0.01)), ("q_zero", np.int8(0))):
            graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        pair = [
            helper.make_node("QuantizeLinear", ["x", "q_scale", "q_zero"], ["x_q"], name="/Q"),
            helper.make_node("DequantizeLinear", ["x_q", "q_scale", "q_zero"], ["x_dq"], name="/DQ"),
        ]
        for attribute in graph.node[-1].attribute:
            attribute.g.node[0].input[0] = "x_dq"
        nodes = [*pair, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
        feed = {"x": np.full((2, 4), 0.123456, np.float32)}

        np.testing.assert_array_equal(
            output_of(models.write(proto, tmp_path / "outer.onnx"), feed, tmp_path), output_of(path, feed, tmp_path)
        )

    def test_a_pair_inside_of_a_branch(self, tmp_path: Path) -> None:
        path = models.with_if(tmp_path / "if.onnx")
        proto = onnx.load(str(path))
        for name, values in (("q_scale", np.float32(0.01)), ("q_zero", np.int8(0))):
            proto.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        for attribute in proto.graph.node[-1].attribute:
            branch = attribute.g
            inner = branch.node[0]
            inner.input[0] = "inner_dq"
            nodes = [
                helper.make_node("QuantizeLinear", ["x", "q_scale", "q_zero"], ["inner_q"]),
                helper.make_node("DequantizeLinear", ["inner_q", "q_scale", "q_zero"], ["inner_dq"]),
                inner,
            ]
            kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
            del branch.node[:]
            branch.node.extend(kept)
        feed = {"x": np.full((2, 4), 0.123456, np.float32)}

        assert derivations(OnnxModel(models.write(proto, tmp_path / "inner.onnx"))) == ("Q/DQ removed",)
        np.testing.assert_array_equal(
            output_of(models.write(proto, tmp_path / "inner.onnx"), feed, tmp_path), output_of(path, feed, tmp_path)
        )

    def test_half_and_quantised(self, tmp_path: Path) -> None:
        """FP16 activations and scales around INT8 weights, as TensorRT 11 wants them."""
        path = models.qdq(tmp_path / "qdq.onnx", stored="int", axis=1, activations=False)
        half = models.to_fp16(path, tmp_path / "half.onnx")
        shadow = Shadow(half, tmp_path)

        assert shadow.derived == ("FP16 widened", "Q/DQ removed")
        np.testing.assert_allclose(shadow.run(FEED)["y"], output_of(path, FEED, tmp_path), rtol=5e-3, atol=5e-3)


class TestCache:
    def test_the_derived_model_is_kept(self, mlp: Path, tmp_path: Path) -> None:
        half = models.to_fp16(mlp, tmp_path / "half.onnx")
        feed = feed_of(mlp, x=(2, 8))
        first = output_of(half, feed, tmp_path / "cache")
        (kept,) = (tmp_path / "cache").glob("*.onnx")
        stamp = kept.stat().st_mtime_ns

        np.testing.assert_array_equal(output_of(half, feed, tmp_path / "cache"), first)
        assert kept.stat().st_mtime_ns == stamp

    def test_another_model_is_another_file(self, mlp: Path, tmp_path: Path) -> None:
        half = models.to_fp16(mlp, tmp_path / "half.onnx")
        other = models.scale_weight(mlp, tmp_path / "other.onnx", "fc1.weight", 3.0)
        other_half = models.to_fp16(other, tmp_path / "other_half.onnx")
        for path in (half, other_half):
            Shadow(path, tmp_path / "cache")

        assert len(list((tmp_path / "cache").glob("*.onnx"))) == 2

    def test_a_damaged_copy_is_derived_again(self, mlp: Path, tmp_path: Path) -> None:
        half = models.to_fp16(mlp, tmp_path / "half.onnx")
        feed = feed_of(mlp, x=(2, 8))
        first = output_of(half, feed, tmp_path / "cache")
        (kept,) = (tmp_path / "cache").glob("*.onnx")
        kept.write_bytes(kept.read_bytes()[:100])

        np.testing.assert_array_equal(output_of(half, feed, tmp_path / "cache"), first)

    def test_a_folder_that_cannot_be_used_is_explained(self, mlp: Path, tmp_path: Path) -> None:
        half = models.to_fp16(mlp, tmp_path / "half.onnx")
        (tmp_path / "file").write_text("")
        with pytest.raises(EngineError) as caught:
            Shadow(half, tmp_path / "file" / "cache")
        assert "trt_cache_dir" in caught.value.message


def _reference(path: Path, feed: Any) -> Any:
    """As ONNX Runtime computes the graph as written."""
    (value,) = ort_engine(path, optimisation="none").run(feed).values()
    return value


class TestPlaces:
    def test_the_processor_by_name(self, mlp: Path, tmp_path: Path) -> None:
        assert Shadow(mlp, tmp_path, on="cpu").on == "cpu"

    @needs_no_gpu
    def test_auto_is_the_processor_without_a_gpu(self, mlp: Path, tmp_path: Path) -> None:
        assert Shadow(mlp, tmp_path, on="auto").on == "cpu"

    @pytest.mark.parametrize("on", ["gpu", "CUDA", "", "tensorrt_rtx"])
    def test_a_place_that_is_none(self, on: str, mlp: Path, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match="is no place for an FP32 reference") as caught:
            Shadow(mlp, tmp_path, on=on)
        assert caught.value.thing == f"on={on!r}"
        assert caught.value.remedy == "Choose auto, cpu, cuda, tensorrt."

    @needs_no_gpu
    def test_cuda_with_a_build_that_has_none(self, mlp: Path, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match="this build has no CUDAExecutionProvider") as caught:
            Shadow(mlp, tmp_path, on="cuda")
        assert "onnxruntime-gpu" in caught.value.remedy

    @needs_no_gpu
    @pytest.mark.skipif(not is_installed("tensorrt_rtx"), reason="needs tensorrt_rtx")
    def test_tensorrt_without_a_gpu(self, mlp: Path, tmp_path: Path) -> None:
        with pytest.raises(NotRunnableError, match="TensorRT: no NVIDIA driver"):
            Shadow(mlp, tmp_path, on="tensorrt")
