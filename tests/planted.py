"""Models for end-to-end tests: a planted fault, a vision transformer, a model that exactly fits INT8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.models import Graph


def scaled_at_batch(path: Path, *, batch: int, factor: float) -> Path:
    """``y = relu(x @ w)`` over (batch, 4), multiplied by ``factor`` at one batch size only."""
    graph = Graph()
    x = graph.input("x", ["batch", 4])
    y = graph.add("Relu", [graph.add("MatMul", [x, graph.weight("w", 4, 4)], "/MatMul")], "/Relu")
    size = graph.add("Gather", [graph.add("Shape", [x], "/Shape"), graph.constant("zero", np.int64(0))], "/Gather")
    hit = graph.add("Equal", [size, graph.constant("planted", np.int64(batch))], "/Equal")
    scale = graph.add(
        "Where",
        [hit, graph.constant("factor", np.float32(factor)), graph.constant("one", np.float32(1))],
        "/Where",
    )
    graph.add("Mul", [y, scale], "/Mul", "y")
    graph.output("y", ["batch", 4])
    return graph.save(path)


def faulty_at(path: Path, *, batch: int = 0, remainder: int = 0, factor: float = 1.1) -> Path:
    """``y = relu(2 x + 1)`` over (batch, sequence); an ``If`` multiplies it by ``factor`` at one batch size only, or
    where the sequence leaves a remainder of 64. With ``factor`` 1 it is the reference of that model.
    """
    graph = Graph()
    x = graph.input("x", ["batch", "sequence"])
    doubled = graph.add("Mul", [x, graph.constant("two", np.float32(2))], "/Mul")
    y = graph.add("Relu", [graph.add("Add", [doubled, graph.constant("one", np.float32(1))], "/Add")], "/Relu")
    axis = graph.constant("axis", np.int64(0 if batch else 1))
    size = graph.add("Gather", [graph.add("Shape", [x], "/Shape"), axis], "/Gather")
    if remainder:
        size = graph.add("Mod", [size, graph.constant("tile", np.int64(64))], "/Mod")
    hit = graph.add("Equal", [size, graph.constant("planted", np.int64(batch or remainder))], "/Equal")
    graph.constant("factor", np.float32(factor))

    def branch(name: str, op: str, *operands: str) -> Any:
        out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, ["batch", "sequence"])
        node = helper.make_node(op, [y, *operands], [f"{name}_y"], name=f"/{name}/{op}")
        return helper.make_graph([node], name, [], [out])

    branches = {"then_branch": branch("wrong", "Mul", "factor"), "else_branch": branch("right", "Identity")}
    graph.add("If", [hit], "/If", "y", **branches)
    graph.output("y", ["batch", "sequence"])
    return graph.save(path)


def vision_transformer(path: Path, *, layers: int = 2, width: int = 8) -> Path:
    """``x`` (batch, 3, 224, 224) -> ``y`` (batch, 49, width); nodes ``/encoder/layer.0/attention/…``."""
    graph = Graph()
    x = graph.input("x", ["batch", 3, 224, 224])
    patches = graph.add(
        "Conv", [x, graph.weight("patches.weight", width, 3, 32, 32)], "/patches/Conv", strides=[32, 32]
    )
    shape = graph.constant("tokens", np.array([0, width, 49], np.int64))
    tensor = graph.add("Reshape", [patches, shape], "/patches/Reshape")
    tensor = graph.add("Transpose", [tensor], "/patches/Transpose", perm=[0, 2, 1])
    for index in range(layers):
        block = f"/encoder/layer.{index}"
        query, key, value = (
            graph.add(
                "MatMul", [tensor, graph.weight(f"{part}{index}", width, width)], f"{block}/attention/{part}/MatMul"
            )
            for part in ("query", "key", "value")
        )
        turned = graph.add("Transpose", [key], f"{block}/attention/Transpose", perm=[0, 2, 1])
        scores = graph.add("MatMul", [query, turned], f"{block}/attention/MatMul")
        weights = graph.add("Softmax", [scores], f"{block}/attention/Softmax", axis=-1)
        mixed = graph.add("MatMul", [weights, value], f"{block}/attention/MatMul_1")
        tensor = graph.add("Add", [mixed, tensor], f"{block}/attention/Add")
        wide = graph.add("MatMul", [tensor, graph.weight(f"up{index}", width, 512 * width)], f"{block}/mlp/up/MatMul")
        wide = graph.add("Relu", [wide], f"{block}/mlp/Relu")
        narrow = graph.add(
            "MatMul", [wide, graph.weight(f"down{index}", 512 * width, width)], f"{block}/mlp/down/MatMul"
        )
        tensor = graph.add("Add", [narrow, tensor], f"{block}/mlp/Add")
    graph.add("Identity", [tensor], "/Identity", "y")
    graph.output("y", ["batch", 49, width])
    return graph.save(path)


def int8_pair(folder: Path) -> tuple[Path, Path]:
    """``model.onnx`` and ``model_int8.onnx``: a convolution ``conv1`` whose weights lie on the INT8 grid.

    Only the activations are rounded, to 1/64: within rtol 2e-2, atol 1e-3 for weights that sum to little.
    """
    weights = np.random.default_rng(0).integers(-3, 4, (4, 3, 3, 3)).astype(np.int8)
    scale, step = np.float32(1 / 4096), np.float32(1 / 32)
    full = Graph()
    x = full.input("x", ["batch", 3, 8, 8])
    full.add("Conv", [x, full.constant("w", weights.astype(np.float32) * scale)], "conv1", "y")
    full.output("y", ["batch", 4, 6, 6])
    half = Graph()
    x = half.input("x", ["batch", 3, 8, 8])
    zero = half.constant("zero", np.int8(0))
    quantised = half.add("QuantizeLinear", [x, half.constant("step", step), zero], "x_quantise")
    values = half.add(
        "DequantizeLinear",
        [quantised, half.constant("step2", step), half.constant("zero2", np.int8(0))],
        "x_dequantise",
    )
    kernel = half.add(
        "DequantizeLinear",
        [half.constant("w_int8", weights), half.constant("w_scale", scale), half.constant("zero3", np.int8(0))],
        "w_dequantise",
    )
    y = half.add("Conv", [values, kernel], "conv1")
    out_step = np.float32(1 / 4096)
    y = half.add(
        "QuantizeLinear", [y, half.constant("out_step", out_step), half.constant("zero4", np.int8(0))], "y_quantise"
    )
    half.add(
        "DequantizeLinear",
        [y, half.constant("out_step2", out_step), half.constant("zero5", np.int8(0))],
        "y_dequantise",
        "y",
    )
    half.output("y", ["batch", 4, 6, 6], TensorProto.FLOAT)
    return full.save(folder / "model.onnx"), half.save(folder / "model_int8.onnx")


def with_zero_ring(source: Path, target: Path, node_name: str, *, ring: int = 3) -> Path:
    """The same function, one convolution of it computed with a wider kernel whose outer weights are zero."""
    proto = onnx.load(str(source))
    (node,) = (node for node in proto.graph.node if node.name == node_name)
    weights = next(tensor for tensor in proto.graph.initializer if tensor.name == node.input[1])
    small = numpy_helper.to_array(weights)
    large = np.pad(small, [(0, 0), (0, 0), (ring, ring), (ring, ring)])
    weights.CopyFrom(numpy_helper.from_array(large, weights.name))
    for attribute in node.attribute:
        grown = {"kernel_shape": large.shape[2:], "pads": [1 + ring] * 4}.get(attribute.name)
        if grown:
            attribute.ints[:] = grown
    onnx.save(proto, str(target))
    return target
