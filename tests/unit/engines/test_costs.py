from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from pytest_trtgray.engines.costs import ModelCosts, model_costs
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.tensor_shapes import tensor_shapes
from tests import models, recordings

Shapes = Mapping[str, tuple[int, ...]]
ENCODER: Shapes = {"ids": (2, 8), "mask": (2, 1, 1, 8)}


def costs_of(path: Path, shapes: Shapes) -> ModelCosts:
    return model_costs(OnnxModel(path), shapes)


def flops(costs: ModelCosts) -> int:
    return sum(cost.flops or 0 for cost in costs.nodes.values() if cost.is_matrix)


def one_node(
    tmp_path: Path, op: str, shapes: dict[str, list[int]], out: list[int] | None, **attributes: Any
) -> int | None:
    """Operations of a model of one node over FP32 inputs."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    domain = attributes.pop("domain", "")
    node = helper.make_node(op, list(shapes), ["y"], name="node", domain=domain, **attributes)
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)])
    opsets = [helper.make_opsetid("", 23)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=11)
    path = models.write(proto, tmp_path / "one.onnx")
    given = {name: tuple(shape) for name, shape in shapes.items()}
    return model_costs(OnnxModel(path), given).nodes["node"].flops


class TestShapes:
    @pytest.mark.parametrize(("model", "shapes"), [("encoder", ENCODER), ("conv_net", {"x": (3, 3, 16, 16)})])
    def test_as_onnx_runtime_computes_them(
        self, model: str, shapes: Shapes, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        """Every tensor of the graph made an output, and run."""
        source = OnnxModel(request.getfixturevalue(model))
        known = tensor_shapes(source, shapes)
        proto = type(source.proto).FromString(source.proto.SerializeToString())
        names = [output for node in proto.graph.node for output in node.output]
        del proto.graph.output[:]
        proto.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        feed = {spec.name: np.ones(shapes[spec.name], np.dtype(spec.dtype)) for spec in source.inputs}
        computed = dict(zip(names, session.run(names, feed), strict=True))

        assert {name: known[name][1] for name in names} == {name: array.shape for name, array in computed.items()}
        assert {name: known[name][0] for name in names} == {name: str(a.dtype) for name, a in computed.items()}

    def test_arithmetic_on_shapes_is_followed(self, tmp_path: Path) -> None:
        """An exported BERT-base makes its mask of Range, Expand and GatherND over sizes from Shape."""
        model = OnnxModel(recordings.model("bert_base", tmp_path))
        known = tensor_shapes(model, {"ids": (8, 128), "mask": (8, 128)})

        assert [name for node in model.nodes for name in node.outputs if known[name][1] is None] == []

    def test_without_the_sizes_of_inputs(self, tmp_path: Path) -> None:
        known = tensor_shapes(OnnxModel(models.unary(tmp_path / "relu.onnx", "Relu")), {})

        assert known["y"] == ("float32", None)

    def test_an_operator_that_nobody_knows(self, tmp_path: Path) -> None:
        path = models.unary(tmp_path / "own.onnx", "Own", domain="own.domain")
        known = tensor_shapes(OnnxModel(path), {"x": (2, 4)})

        assert known["x"] == ("float32", (2, 4))


class TestOperations:
    def test_of_published_networks(self, tmp_path: Path) -> None:
        """BERT-base at 128 tokens: 22.35 billion operations a sequence (12 layers, without pooling)."""
        costs = costs_of(recordings.model("bert_base", tmp_path), {"ids": (1, 128), "mask": (1, 128)})
        tokens, width, inner = 128, 768, 3072
        projections = 2 * tokens * (4 * width * width + 2 * width * inner)
        attention = 2 * 2 * tokens * tokens * width

        assert flops(costs) == 12 * (projections + attention)
        assert flops(costs) / 1e9 == pytest.approx(22.35, abs=0.01)

    def test_they_follow_the_shape(self, encoder: Path) -> None:
        small, large = (flops(costs_of(encoder, {"ids": (batch, 8), "mask": (batch, 1, 1, 8)})) for batch in (1, 4))

        assert large == 4 * small

    @pytest.mark.parametrize(
        ("op", "shapes", "out", "attributes", "expected"),
        [
            ("MatMul", {"a": [2, 3, 4], "b": [4, 5]}, [2, 3, 5], {}, 2 * 2 * 3 * 4 * 5),
            ("Gemm", {"a": [4, 3], "b": [4, 5]}, [3, 5], {"transA": 1}, 2 * 3 * 4 * 5),
            ("Conv", {"x": [1, 6, 8, 8], "w": [4, 3, 3, 3]}, None, {"group": 2}, 2 * 4 * 6 * 6 * 3 * 9),
            ("ConvTranspose", {"x": [1, 6, 8, 8], "w": [6, 4, 2, 2]}, None, {"strides": [2, 2]}, 2 * 6 * 64 * 4 * 4),
            ("Einsum", {"a": [2, 3, 4], "b": [2, 4, 5]}, None, {"equation": "bij,bjk->bik"}, 2 * 2 * 3 * 4 * 5),
            ("LSTM", {"x": [7, 2, 4], "w": [1, 20, 4], "r": [1, 20, 5]}, None, {"hidden_size": 5}, 2 * 14 * (80 + 100)),
            (
                "Attention",
                {"q": [2, 3, 8, 16], "k": [2, 3, 10, 16], "v": [2, 3, 10, 16]},
                None,
                {},
                2 * 2 * (2 * 3 * 8 * 10 * 16),
            ),
            ("Relu", {"x": [2, 3]}, [2, 3], {}, 6),
            ("Softmax", {"x": [2, 3]}, [2, 3], {}, 30),
            ("ReduceMean", {"x": [2, 3]}, None, {}, 6),
            ("MaxPool", {"x": [1, 2, 4, 4]}, None, {"kernel_shape": [2, 2], "strides": [2, 2]}, 8 * 4),
            ("Transpose", {"x": [2, 3]}, None, {}, 0),
            ("Einsum", {"a": [2, 3], "b": [3], "c": [3]}, None, {"equation": "ij,j,j->i"}, None),
            ("Own", {"x": [2, 3]}, [2, 3], {"domain": "own"}, None),
        ],
    )
    def test_by_hand(
        self,
        tmp_path: Path,
        op: str,
        shapes: dict[str, list[int]],
        out: list[int] | None,
        attributes: Any,
        expected: Any,
    ) -> None:
        assert one_node(tmp_path, op, shapes, out, **attributes) == expected

    def test_a_node_with_a_graph_inside_is_unknown(self, tmp_path: Path) -> None:
        costs = costs_of(models.with_loop(tmp_path / "loop.onnx"), {"x": (2, 4)})

        assert costs.nodes["/Loop"].flops is None

    def test_an_unknown_shape_is_not_guessed(self, tmp_path: Path) -> None:
        costs = costs_of(models.unary(tmp_path / "relu.onnx", "Relu"), {})

        assert costs.nodes["/Relu"].flops is None
        assert costs.tensors["x"].elements is None


class TestTensors:
    def test_sizes(self, conv_net: Path) -> None:
        costs = costs_of(conv_net, {"x": (2, 3, 16, 16)})
        x, weight = costs.tensors["x"], costs.tensors["stem.weight"]

        assert (x.elements, x.bits, x.is_float, x.is_constant) == (2 * 3 * 256, 32, True, False)
        assert (weight.elements, weight.is_constant) == (8 * 3 * 9, True)
        assert costs.outputs == {"logits"}
        assert costs.consumers["x"] == {"/stem/Conv"}

    def test_what_depends_on_weights_only_is_a_weight(self, tmp_path: Path) -> None:
        costs = costs_of(models.qdq(tmp_path / "qdq.onnx", axis=1), {"x": (1, 8)})
        dequantised = costs.nodes["/w/DQ"].outputs[0]

        assert costs.tensors[dequantised].is_constant
        assert costs.tensors[dequantised].elements == math.prod((8, 6))

    def test_names_as_layers_have_them(self, tmp_path: Path) -> None:
        costs = costs_of(recordings.model("torch215_scopes", tmp_path), {"x": (2, 8, 16)})

        assert costs.nodes["/blocks.0/attn/q/MatMul"].flops == 2 * 2 * 8 * 16 * 16
