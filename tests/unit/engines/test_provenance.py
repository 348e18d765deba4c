from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.engines.onnxruntime import OnnxRuntimeEngine
from pytest_trtgray.engines.provenance import GraphNode, trace_origins
from tests import models
from tests.unit.helpers import ort_engine

PRODUCTS = ("Conv", "MatMul", "Gemm")


def origins_are_consistent(engine: OnnxRuntimeEngine, folded: tuple[str, ...] = ()) -> None:
    """Every node in exactly one layer, and products where products are computed."""
    operators = {node.name: node.op_type for node in engine.model.nodes}
    found = Counter(node for layer in engine.layers for node in layer.onnx_nodes)
    assert set(found) | set(folded) == set(operators)
    assert set(found.values()) == {1}
    for layer in engine.layers:
        holds_product = any(operators[node] in PRODUCTS for node in layer.onnx_nodes)
        assert holds_product == any(product in layer.kind for product in PRODUCTS), layer


def nodes_of(engine: OnnxRuntimeEngine, node: str) -> frozenset[str]:
    return next(layer.onnx_nodes for layer in engine.layers if node in layer.onnx_nodes)


class TestOnnxRuntimesFusions:
    def test_matmul_add_relu(self, mlp: Path) -> None:
        engine = ort_engine(mlp)

        assert [layer.onnx_nodes for layer in engine.layers] == [
            {"/fc0/MatMul", "/fc0/Add", "/fc0/Relu"},
            {"/fc1/MatMul", "/fc1/Add"},
        ]

    def test_nodes_without_names(self, mlp: Path, tmp_path: Path) -> None:
        engine = ort_engine(models.unnamed(mlp, tmp_path / "unnamed.onnx"))

        origins_are_consistent(engine)
        assert nodes_of(engine, "node_of_y") == {"node_of_y", "node_of_/fc1/MatMul_output"}

    def test_nodes_without_names_beside_external_weights(self, mlp: Path, tmp_path: Path) -> None:
        path = models.external(models.unnamed(mlp, tmp_path / "unnamed.onnx"), tmp_path / "external.onnx")
        engine = ort_engine(path)

        origins_are_consistent(engine)

    @pytest.mark.parametrize("channels", [4, 8, 16, 32])
    def test_a_residual_network(self, tmp_path: Path, channels: int) -> None:
        """Up to 8 channels ONNX Runtime keeps layouts apart; from 16 on it works in blocks of channels."""
        engine = ort_engine(models.conv_net(tmp_path / "net.onnx", channels=channels, blocks=3))

        origins_are_consistent(engine)
        assert nodes_of(engine, "/stem/Conv") == {"/stem/Conv", "/stem/BatchNormalization", "/stem/Relu"}
        assert nodes_of(engine, "/layer1/Add") == {
            "/layer1/conv2/Conv",
            "/layer1/conv2/BatchNormalization",
            "/layer1/Add",
            "/layer1/Relu",
        }

    def test_an_encoder(self, encoder: Path) -> None:
        engine = ort_engine(encoder, "ids:2x4,mask:2x1x1x4")

        origins_are_consistent(engine)
        block = "/encoder/layer.1"
        assert nodes_of(engine, f"{block}/intermediate/Erf") == {
            f"{block}/intermediate/{op}" for op in ("Add", "Div", "Erf", "Add_1", "Mul", "Mul_1")
        }
        assert nodes_of(engine, f"{block}/attention/Div") == {f"{block}/attention/Div", f"{block}/attention/MatMul"}
        assert nodes_of(engine, f"{block}/attention/output/LayerNorm/LayerNormalization") >= {
            f"{block}/attention/output/Add_1"
        }

    def test_a_product_of_three_dimensions_is_a_gemm_between_reshapes(self, tmp_path: Path) -> None:
        """The time of a linear layer is the product's, not that of the reshape after it."""
        model = onnx.parser.parse_model(
            """<ir_version: 8, opset_import: ["": 17]>
            net (float[2, 4, 8] x) => (float[2, 4, 8] y) <float[8, 8] w, float[8] b>
            {
                [norm] n = Softmax(x)
                [product] p = MatMul(n, w)
                [bias] s = Add(p, b)
                [activation] y = Sigmoid(s)
            }"""
        )
        values = {"w": np.eye(8, dtype=np.float32), "b": np.ones(8, np.float32)}
        del model.graph.initializer[:]
        model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in values.items())
        path = tmp_path / "linear.onnx"
        onnx.save(model, path)
        engine = ort_engine(path)

        origins_are_consistent(engine)
        assert nodes_of(engine, "product") == {"product", "bias"}
        assert nodes_of(engine, "norm") == {"norm"}

    def test_activations_with_two_inputs(self, tmp_path: Path) -> None:
        graph = models.Graph()
        tensor = graph.input("x", ["batch", 3, 16, 16])
        first = models._conv_bn(graph, tensor, "/a", 3, 16)
        first = graph.add("Mul", [first, graph.add("Sigmoid", [first], "/a/Sigmoid")], "/a/Mul")
        second = models._conv_bn(graph, first, "/b", 16, 16)
        second = graph.add("Mul", [second, graph.add("Sigmoid", [second], "/b/Sigmoid")], "/b/Mul")
        joined = graph.add("Concat", [first, second], "/Concat", axis=1)
        limits = [graph.constant("low", np.float32(0)), graph.constant("high", np.float32(6))]
        clipped = graph.add("Clip", [models._conv_bn(graph, joined, "/c", 32, 8), *limits], "/c/Clip")
        pooled = graph.add("MaxPool", [clipped], "/MaxPool", kernel_shape=[2, 2], strides=[2, 2])
        graph.add("Transpose", [pooled], "/Transpose", "y", perm=[0, 2, 3, 1])
        graph.output("y", ["batch", 8, 8, 8])
        engine = ort_engine(graph.save(tmp_path / "silu.onnx"))

        origins_are_consistent(engine)
        assert "/c/Clip" in nodes_of(engine, "/c/Conv")

    def test_squeeze_and_excitation(self, tmp_path: Path) -> None:
        graph = models.Graph()
        tensor = models._conv_bn(graph, graph.input("x", ["batch", 3, 8, 8]), "/a", 3, 16)
        tensor = graph.add("HardSwish", [tensor], "/a/HardSwish")
        depthwise = graph.weight("dw", 16, 1, 3, 3)
        tensor = graph.add("Conv", [tensor, depthwise], "/dw/Conv", group=16, pads=[1, 1, 1, 1])
        gate = graph.add("GlobalAveragePool", [tensor], "/se/Pool")
        gate = graph.add("Relu", [models._conv_bn(graph, gate, "/se/1", 16, 16)], "/se/Relu")
        gate = graph.add(
            "HardSigmoid", [graph.add("Conv", [gate, graph.weight("g", 16, 16, 1, 1)], "/se/2/Conv")], "/se/Hard"
        )
        tensor = graph.add("Mul", [tensor, gate], "/se/Mul")
        left, right = (models._conv_bn(graph, tensor, f"/{side}", 16, 16) for side in ("left", "right"))
        graph.add("Relu", [graph.add("Add", [left, right], "/Add")], "/Relu", "y")
        graph.output("y", ["batch", 16, 8, 8])

        origins_are_consistent(ort_engine(graph.save(tmp_path / "se.onnx")))

    def test_a_quantised_product(self, tmp_path: Path) -> None:
        engine = ort_engine(models.qdq(tmp_path / "qdq.onnx", axis=1))

        origins_are_consistent(engine, folded=("/w/Q", "/w/DQ"))

    def test_branches_stay_one_node(self, tmp_path: Path) -> None:
        engine = ort_engine(models.with_if(tmp_path / "if.onnx"))

        assert nodes_of(engine, "/If") == {"/If"}
        assert {node for layer in engine.layers for node in layer.onnx_nodes} == {"/ReduceSum", "/Greater", "/If"}

    def test_constants_are_folded_away(self, tmp_path: Path) -> None:
        graph = models.Graph()
        x = graph.input("x", ["batch", 4])
        weight = graph.add("Transpose", [graph.weight("w", 6, 4)], "/w/Transpose")
        weight = graph.add("Mul", [weight, graph.constant("two", np.float32(2))], "/w/Mul")
        graph.add("MatMul", [x, weight], "/MatMul", "y")
        graph.output("y", ["batch", 6])
        engine = ort_engine(graph.save(tmp_path / "folded.onnx"))

        origins_are_consistent(engine, folded=("/w/Transpose", "/w/Mul"))

    @pytest.mark.parametrize("name", ["mlp", "conv_net", "encoder"])
    def test_a_half_precision_model_on_the_cpu(self, name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        """The CPU has few FP16 kernels: casts go in between, and tensors get a prefix."""
        source: Path = request.getfixturevalue(name)
        shapes = "ids:2x4,mask:2x1x1x4" if name == "encoder" else ""
        engine = ort_engine(models.to_fp16(source, tmp_path / "half.onnx"), shapes)

        origins_are_consistent(engine)
        for layer in engine.layers:
            if layer.name:  # a Softmax becomes five nodes without names
                assert bool(layer.onnx_nodes) != layer.kind.startswith(("Cast", "Reorder")), layer

    @pytest.mark.parametrize("name", ["mlp", "conv_net"])
    def test_without_optimisation_every_node_is_its_own_layer(self, name: str, request: pytest.FixtureRequest) -> None:
        engine = ort_engine(request.getfixturevalue(name), optimisation="none")

        assert [layer.onnx_nodes for layer in engine.layers] == [{node.name} for node in engine.model.nodes]


@st.composite
def graphs(draw: st.DrawFn) -> list[GraphNode]:
    """A graph in topological order: each node reads what comes before it."""
    nodes: list[GraphNode] = []
    tensors = ["x", "w"]
    for index in range(draw(st.integers(1, 12))):
        inputs = draw(st.lists(st.sampled_from(tensors), min_size=1, max_size=3))
        outputs = tuple(f"t{index}.{place}" for place in range(draw(st.integers(1, 2))))
        nodes.append(GraphNode(f"n{index}", draw(st.sampled_from(["Conv", "Add", "Relu"])), tuple(inputs), outputs))
        tensors.extend(outputs)
    return nodes


class TestTracing:
    @given(graphs())
    def test_an_unchanged_graph(self, nodes: list[GraphNode]) -> None:
        assert trace_origins(nodes, nodes, ["w"]) == [{node.name} for node in nodes]

    @given(graphs(), st.data())
    def test_no_node_is_in_two_layers(self, nodes: list[GraphNode], data: st.DataObject) -> None:
        kept = [node for node in nodes if data.draw(st.booleans())]
        origins = trace_origins(nodes, kept, ["w"])
        found = Counter(name for origin in origins for name in origin)

        assert len(origins) == len(kept)
        assert all(count == 1 for count in found.values())
        assert all(node.name in origin for node, origin in zip(kept, origins, strict=True))

    @given(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    def test_a_chain_fused_in_groups(self, sizes: list[int]) -> None:
        """The tensors inside of a group are gone, and so are its nodes' names."""
        chain = [GraphNode(f"n{i}", "Relu", (f"t{i}",), (f"t{i + 1}",)) for i in range(sum(sizes))]
        fused, expected, start = [], [], 0
        for index, size in enumerate(sizes):
            fused.append(GraphNode(f"fused_{index}", "Fused", (f"t{start}",), (f"t{start + size}",)))
            expected.append({node.name for node in chain[start : start + size]})
            start += size

        assert trace_origins(chain, fused, []) == expected

    def test_copies_own_nothing(self) -> None:
        original = [GraphNode("a", "Conv", ("x",), ("t",)), GraphNode("b", "Relu", ("t",), ("y",))]
        optimised = [
            GraphNode("copy", "ReorderInput", ("x",), ("r",)),
            GraphNode("t_nchwc", "Conv", ("r",), ("q",)),
            GraphNode("copy_1", "ReorderOutput", ("q",), ("t",)),
            GraphNode("b", "Relu", ("t",), ("y",)),
        ]

        assert trace_origins(original, optimised, []) == [set(), {"a"}, set(), {"b"}]

    def test_what_was_folded_belongs_to_nobody(self) -> None:
        """The product reads a constant with a name of its own, made of the transposed weight when it was loaded."""
        original = [GraphNode("fold", "Transpose", ("w",), ("t",)), GraphNode("product", "MatMul", ("x", "t"), ("y",))]
        optimised = [GraphNode("product", "MatMul", ("x", "packed"), ("y",))]

        assert trace_origins(original, optimised, ["w"]) == [{"product"}]

    def test_nothing_optimised_away_is_lost_between_layers(self) -> None:
        original = [
            GraphNode("conv", "Conv", ("x", "w"), ("t",)),
            GraphNode("add", "Add", ("t", "x"), ("u",)),
            GraphNode("relu", "Relu", ("u",), ("y",)),
        ]
        optimised = [GraphNode("t_nchwc", "Conv", ("x", "w"), ("r",)), GraphNode("c", "ReorderOutput", ("r",), ("y",))]

        assert trace_origins(original, optimised, ["w"]) == [{"conv", "add", "relu"}, set()]

    def test_empty_graphs(self) -> None:
        assert trace_origins([], [], []) == []
