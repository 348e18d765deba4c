from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from pytest_trtgray.accuracy.quantisers import Quantiser, Reader, find_quantisers
from pytest_trtgray.engines.onnx_model import OnnxModel
from tests import models


def only(path: Path) -> Quantiser:
    ((found,), dynamic) = find_quantisers(OnnxModel(path))
    assert dynamic == ()
    return found


class TestPairs:
    @pytest.mark.parametrize("stored", ["float", "int"])
    @pytest.mark.parametrize(("axis", "block"), [(None, 0), (0, 0), (1, 0), (0, 4)])
    def test_of_a_weight(self, stored: str, axis: int | None, block: int, tmp_path: Path) -> None:
        path = models.qdq(tmp_path / "q.onnx", stored=stored, axis=axis, block=block, activations=False)
        found = only(path)
        values, scale, codes = models.quantised_weight(axis=axis, block=block)

        assert (found.role, found.dtype, found.block) == ("weight", "int8", block)
        assert found.axis == axis
        assert found.channel_axis == (1 if axis is None or block else axis) % 2 or found.channel_axis == -1
        assert found.readers == (Reader("/MatMul", "MatMul", 1),)
        assert (found.node, found.is_stored) == (("/w/DQ", True) if stored == "int" else ("/w/Q", False))
        np.testing.assert_array_equal(found.weight, codes if stored == "int" else values)
        np.testing.assert_array_equal(found.scale, scale)

    def test_of_an_activation_with_two_readers(self, tmp_path: Path) -> None:
        graph = models.Graph()
        x = graph.input("x", [2, 8])
        x = graph.add("Relu", [x], "/Relu")
        q = [graph.constant("scale", np.float32(0.1)), graph.constant("zero", np.int8(0))]
        x = graph.add("DequantizeLinear", [graph.add("QuantizeLinear", [x, *q], "/Q"), *q], "/DQ")
        y = graph.add("MatMul", [x, graph.weight("w", 8, 8)], "/MatMul")
        graph.add("Add", [y, x], "/Add", "y")
        graph.output("y", [2, 8])
        found = only(graph.save(tmp_path / "q.onnx"))

        assert (found.tensor, found.role, found.granularity) == ("/Relu_output", "activation", "tensor")
        assert found.readers == (Reader("/MatMul", "MatMul", 0), Reader("/Add", "Add", 1))
        assert found.shape is None

    def test_pair_after_pair_is_the_same_tensor(self, tmp_path: Path) -> None:
        graph = models.Graph()
        x = graph.input("x", [2, 8])
        for index in range(2):
            q = [graph.constant(f"scale{index}", np.float32(0.1)), graph.constant(f"zero{index}", np.int8(0))]
            x = graph.add("DequantizeLinear", [graph.add("QuantizeLinear", [x, *q], f"/Q{index}"), *q], f"/DQ{index}")
        graph.add("Relu", [x], "/Relu", "y")
        graph.output("y", [2, 8])
        found, _ = find_quantisers(OnnxModel(graph.save(tmp_path / "q.onnx")))

        assert [each.tensor for each in found] == ["x", "x"]

    def test_scales_in_constant_nodes_and_without_a_zero_point(self, tmp_path: Path) -> None:
        graph = models.Graph()
        x = graph.input("x", [2, 8])
        graph.nodes.append(helper.make_node("Constant", [], ["scale"], value=helper.make_tensor("", 1, [], [0.25])))
        x = graph.add("DequantizeLinear", [graph.add("QuantizeLinear", [x, "scale"], "/Q"), "scale"], "/DQ")
        graph.add("Relu", [x], "/Relu", "y")
        graph.output("y", [2, 8])
        found = only(graph.save(tmp_path / "q.onnx"))

        assert (found.dtype, float(found.scale), float(found.zero_point)) == ("uint8", 0.25, 0.0)

    def test_the_type_of_an_attribute(self, tmp_path: Path) -> None:
        graph = models.Graph()
        x = graph.input("x", [2, 8])
        scale = graph.constant("scale", np.float32(1))
        q = graph.add("QuantizeLinear", [x, scale], "/Q", output_dtype=TensorProto.FLOAT8E4M3FN)
        graph.add("DequantizeLinear", [q, scale], "/DQ", "y")
        graph.output("y", [2, 8])
        found = only(graph.save(tmp_path / "q.onnx", 21, 10))

        assert (found.dtype, found.onnx_type) == ("fp8", TensorProto.FLOAT8E4M3FN)
        assert found.levels is not None
        assert found.readers == ()

    @pytest.mark.parametrize(
        ("kind", "known"),
        [(TensorProto.FLOAT8E4M3FN, True), (TensorProto.FLOAT8E5M2, False), (TensorProto.FLOAT8E4M3FNUZ, False)],
    )
    def test_the_fp8_types_are_told_apart(self, kind: int, known: bool, tmp_path: Path) -> None:
        graph = models.Graph()
        x = graph.input("x", [2, 8])
        scale = graph.constant("scale", np.float32(1))
        graph.weights.append(helper.make_tensor("zero", kind, [], [0.0]))
        q = graph.add("QuantizeLinear", [x, scale, "zero"], "/Q")
        graph.add("DequantizeLinear", [q, scale, "zero"], "/DQ", "y")
        graph.output("y", [2, 8])
        found = only(graph.save(tmp_path / "q.onnx", 21, 10))

        assert (found.dtype, found.levels is not None) == ("fp8", known)

    @pytest.mark.parametrize(
        ("op", "inputs", "passing"),
        [
            ("Relu", [], (0, math.inf)),
            ("Clip", [0.0, 6.0], (0, 6)),
            ("Clip", [-1.0], (-1, math.inf)),
            ("Tanh", [], (-math.inf, math.inf)),
        ],
    )
    def test_what_the_readers_let_through(self, op: str, inputs: list[float], passing: Any, tmp_path: Path) -> None:
        graph = models.Graph()
        x = graph.input("x", [2, 8])
        q = [graph.constant("scale", np.float32(0.1)), graph.constant("zero", np.int8(0))]
        x = graph.add("DequantizeLinear", [graph.add("QuantizeLinear", [x, *q], "/Q"), *q], "/DQ")
        limits = [graph.constant(f"limit{index}", np.float32(value)) for index, value in enumerate(inputs)]
        graph.add(op, [x, *limits], f"/{op}", "y")
        graph.output("y", [2, 8])

        assert only(graph.save(tmp_path / "q.onnx")).passing == passing

    @pytest.mark.parametrize(("transposed", "axis"), [(0, 1), (1, 0)])
    def test_the_outputs_of_a_gemm(self, transposed: int, axis: int, tmp_path: Path) -> None:
        graph = models.Graph()
        x = graph.input("x", [2, 8])
        w = graph.weight("w", 8, 8)
        q = [graph.constant("scale", np.float32(0.1)), graph.constant("zero", np.int8(0))]
        w = graph.add("DequantizeLinear", [graph.add("QuantizeLinear", [w, *q], "/Q"), *q], "/DQ")
        graph.add("Gemm", [x, w], "/Gemm", "y", transB=transposed)
        graph.output("y", [2, 8])

        assert only(graph.save(tmp_path / "q.onnx")).channel_axis == axis

    def test_a_large_tensor_goes_in_pieces(self, tmp_path: Path) -> None:
        found = only(models.qdq(tmp_path / "q.onnx", axis=0, activations=False))
        pieces = list(found.pieces(found.weight, 10))

        assert len(pieces) == 8
        assert all(scale.shape == (1, 1) for _, scale, _ in pieces)
        np.testing.assert_array_equal(np.concatenate([values for values, _, _ in pieces]), found.weight)
        np.testing.assert_array_equal(np.ravel([scale for _, scale, _ in pieces]), found.scale)
