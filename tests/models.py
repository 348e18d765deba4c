"""Tiny ONNX models for tests: real networks with named nodes, seeded weights, and planted faults.

Every function writes a model to ``path`` and returns the path. Models of opset 17 run in ONNX Runtime and
build in TensorRT for RTX within a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
Dims = Sequence["int | str"]

OPSET, IR = 17, 8
BLOCKED_OPSET, BLOCKED_IR = 21, 10
"""Of models with blocked quantisation."""


class Graph:
    """A graph in the making: ``add`` returns the name of a node's output."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.fused_norm = True

    def input(self, name: str, dims: Dims, dtype: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, list(dims)))
        return name

    def output(self, name: str, dims: Dims, dtype: int = TensorProto.FLOAT) -> None:
        self.outputs.append(helper.make_tensor_value_info(name, dtype, list(dims)))

    def constant(self, name: str, values: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def weight(self, name: str, *shape: int, scale: float | None = None) -> str:
        """Random normal weights; by default scaled so that activations keep their size."""
        fan_in = float(np.prod(shape[1:] if len(shape) == 4 else shape[:1]))
        values = self.rng.standard_normal(shape) * (fan_in**-0.5 if scale is None else scale)
        return self.constant(name, values.astype(np.float32))

    def add(self, op: str, inputs: Sequence[str], name: str = "", output: str = "", **attributes: Any) -> str:
        output = output or (f"{name}_output" if name else f"t{len(self.nodes)}")
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=name, **attributes))
        return output

    def save(self, path: Path, opset: int = OPSET, ir: int = IR, extra_domains: Sequence[str] = ()) -> Path:
        graph = helper.make_graph(self.nodes, path.stem, self.inputs, self.outputs, self.weights)
        imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in extra_domains)]
        return write(helper.make_model(graph, opset_imports=imports, ir_version=ir), path)


def write(proto: Any, path: Path) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def mlp(
    path: Path,
    *,
    batch: int | str = "batch",
    features: int = 8,
    hidden: int = 16,
    layers: int = 2,
    seed: int = 0,
    output: str = "y",
) -> Path:
    """``x`` -> (MatMul, Add, Relu) a layer -> ``y``; nodes ``/fc0/MatMul``, ``/fc0/Add``, ``/fc0/Relu``, …"""
    graph = Graph(seed)
    tensor, size = graph.input("x", [batch, features]), features
    for index in range(layers):
        last = index == layers - 1
        width = features if last else hidden
        block = f"/fc{index}"
        tensor = graph.add("MatMul", [tensor, graph.weight(f"fc{index}.weight", size, width)], f"{block}/MatMul")
        bias = graph.weight(f"fc{index}.bias", width, scale=0.1)
        tensor = graph.add("Add", [tensor, bias], f"{block}/Add", output if last else "")
        if not last:
            tensor = graph.add("Relu", [tensor], f"{block}/Relu")
        size = width
    graph.output(output, [batch, features])
    return graph.save(path)


def conv_net(path: Path, *, batch: int | str = "batch", channels: int = 8, blocks: int = 1, seed: int = 0) -> Path:
    """A small residual network: ``x`` (batch, 3, 16, 16) -> ``logits`` (batch, 5), BatchNorm not folded."""
    graph = Graph(seed)
    tensor = graph.input("x", [batch, 3, 16, 16])
    tensor = _conv_bn(graph, tensor, "/stem", 3, channels)
    tensor = graph.add("Relu", [tensor], "/stem/Relu")
    for index in range(blocks):
        block, skip = f"/layer{index}", tensor
        tensor = _conv_bn(graph, tensor, f"{block}/conv1", channels, channels)
        tensor = graph.add("Relu", [tensor], f"{block}/conv1/Relu")
        tensor = _conv_bn(graph, tensor, f"{block}/conv2", channels, channels)
        tensor = graph.add("Add", [tensor, skip], f"{block}/Add")
        tensor = graph.add("Relu", [tensor], f"{block}/Relu")
    tensor = graph.add("GlobalAveragePool", [tensor], "/pool/GlobalAveragePool")
    tensor = graph.add("Flatten", [tensor], "/Flatten")
    weights = [graph.weight("head.weight", channels, 5), graph.weight("head.bias", 5, scale=0.1)]
    graph.add("Gemm", [tensor, *weights], "/head/Gemm", "logits")
    graph.output("logits", [batch, 5])
    return graph.save(path)


def encoder(
    path: Path,
    *,
    batch: int | str = "batch",
    length: int | str = "length",
    layers: int = 2,
    hidden: int = 16,
    heads: int = 2,
    vocabulary: int = 50,
    seed: int = 0,
    fused_norm: bool = True,
) -> Path:
    """A transformer: ``ids`` (batch, length) int64 and ``mask`` -> ``hidden_states``.

    Nodes are named like an exporter's: ``/encoder/layer.0/attention/query/MatMul``. Without ``fused_norm``
    LayerNormalization is spelled out, as exporters do before opset 17 (TensorRT 8.5 does not know it).
    """
    graph = Graph(seed)
    graph.fused_norm = fused_norm
    ids = graph.input("ids", [batch, length], TensorProto.INT64)
    mask = graph.input("mask", [batch, 1, 1, length])
    one = graph.constant("one", np.float32(1.0))
    low = graph.constant("low", np.float32(-1e4))
    masked = graph.add("Mul", [graph.add("Sub", [one, mask], "/mask/Sub"), low], "/mask/Mul")
    table = graph.weight("embeddings.weight", vocabulary, hidden, scale=1.0)
    tensor = graph.add("Gather", [table, ids], "/embeddings/Gather")
    tensor = _layer_norm(graph, tensor, "/embeddings/LayerNorm", hidden)
    for index in range(layers):
        tensor = _encoder_layer(graph, tensor, masked, f"/encoder/layer.{index}", hidden, heads)
    graph.add("Identity", [tensor], "/output/Identity", "hidden_states")
    graph.output("hidden_states", [batch, length, hidden])
    return graph.save(path)


def two_inputs(path: Path, *, shared: bool = True) -> Path:
    """``y = a + b`` over (batch, 4), plus ``n`` = the sum of int32 ``k``; ``shared``: one symbol for both batches."""
    graph = Graph()
    a = graph.input("a", ["batch", 4])
    b = graph.input("b", ["batch" if shared else "other", 4])
    k = graph.input("k", ["batch"], TensorProto.INT32)
    graph.add("Add", [a, b], "/Add", "y")
    graph.add("ReduceSum", [k], "/ReduceSum", "n", keepdims=0)
    graph.output("y", ["batch", 4])
    graph.output("n", [], TensorProto.INT32)
    return graph.save(path)


def unary(path: Path, op: str, *, batch: int | str = "batch", opset: int = OPSET, domain: str = "") -> Path:
    """``y = op(x)`` over (batch, 4); ``domain`` makes it an operator that nobody has."""
    graph = Graph()
    x = graph.input("x", [batch, 4])
    graph.add(op, [x], f"/{op}", "y", domain=domain)
    graph.output("y", [batch, 4])
    return graph.save(path, opset, extra_domains=[domain] if domain else [])


def nan_producer(path: Path) -> Path:
    """``y = relu(sqrt(x - 1000))``: NaN for every sensible ``x``; the first bad tensor is ``/Sqrt``'s."""
    graph = Graph()
    x = graph.input("x", ["batch", 4])
    shifted = graph.add("Sub", [x, graph.constant("thousand", np.float32(1000))], "/Sub")
    graph.add("Mul", [graph.add("Sqrt", [shifted], "/Sqrt"), x], "/Mul", "y")
    graph.output("y", ["batch", 4])
    return graph.save(path)


def with_if(path: Path) -> Path:
    """``y = x @ w`` if the sum of ``x`` is positive, else ``x + c``: an ``If`` with weights inside its branches."""
    graph = Graph()
    x = graph.input("x", [2, 4])
    total = graph.add("ReduceSum", [x], "/ReduceSum", keepdims=0)
    condition = graph.add("Greater", [total, graph.constant("zero", np.float32(0))], "/Greater")
    weight = np.arange(16, dtype=np.float32).reshape(4, 4) / 16
    branches = []
    for name, op, tensor in (("then", "MatMul", weight), ("else", "Add", weight[0])):
        out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, [2, 4])
        node = helper.make_node(op, [x, f"{name}_w"], [f"{name}_y"], name=f"/{name}/{op}")
        held = numpy_helper.from_array(tensor, f"{name}_w")
        branches.append(helper.make_graph([node], name, [], [out], [held]))
    graph.add("If", [condition], "/If", "y", then_branch=branches[0], else_branch=branches[1])
    graph.output("y", [2, 4])
    return graph.save(path)


def with_loop(path: Path) -> Path:
    """``y = tanh(... tanh(x))``, five times, through ``Loop``."""
    float_ = TensorProto.FLOAT
    state: list[int | str] = ["batch", 4]
    inside = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("carried", float_, state),
    ]
    outside = [
        helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("next", float_, state),
    ]
    nodes = [
        helper.make_node("Identity", ["go"], ["go_on"], name="/body/Identity"),
        helper.make_node("Tanh", ["carried"], ["next"], name="/body/Tanh"),
    ]
    graph = Graph()
    x = graph.input("x", state)
    limits = [graph.constant("trips", np.int64(5)), graph.constant("start", np.array(True))]
    graph.add("Loop", [*limits, x], "/Loop", "y", body=helper.make_graph(nodes, "body", inside, outside))
    graph.output("y", state)
    return graph.save(path)


def qdq(
    path: Path,
    *,
    stored: str = "float",
    axis: int | None = None,
    block: int = 0,
    zero_point: int = 0,
    activations: bool = True,
    seed: int = 0,
) -> Path:
    """``y = x @ w`` (8 to 6 features), quantised to INT8.

    Args:
        path: of the model.
        stored: ``float`` keeps the FP32 weight and a Quantize/Dequantize pair (``AddQDQPairToWeight``), ``int``
            stores the INT8 weight and a Dequantize.
        axis: per-channel scales along this axis, -1 for the last; per tensor without.
        block: blocks of that many rows share a scale (opset 21).
        zero_point: of the weights.
        activations: quantise ``x`` as well.
        seed: of the weights.
    """
    graph = Graph(seed)
    x = graph.input("x", ["batch", 8])
    if activations:
        scale = [graph.constant("x_scale", np.float32(0.05)), graph.constant("x_zero", np.int8(0))]
        x = graph.add("DequantizeLinear", [graph.add("QuantizeLinear", [x, *scale], "/x/Q"), *scale], "/x/DQ")
    values, scales, quantised = quantised_weight(axis=axis, block=block, zero_point=zero_point, seed=seed)
    parts = [graph.constant("w_scale", scales), graph.constant("w_zero", np.full(scales.shape, zero_point, np.int8))]
    attributes: dict[str, Any] = {"axis": axis} if axis is not None else {}
    if block:
        attributes["block_size"] = block
    if stored == "float":
        source = graph.add("QuantizeLinear", [graph.constant("w", values), *parts], "/w/Q", **attributes)
    else:
        source = graph.constant("w_quantised", quantised)
    w = graph.add("DequantizeLinear", [source, *parts], "/w/DQ", **attributes)
    graph.add("MatMul", [x, w], "/MatMul", "y")
    graph.output("y", ["batch", 6])
    return graph.save(path, BLOCKED_OPSET, BLOCKED_IR) if block else graph.save(path)


def quantised_weight(
    *, axis: int | None = None, block: int = 0, zero_point: int = 0, seed: int = 0
) -> tuple[Array, Array, Array]:
    """The weight of :func:`qdq`: FP32 values, scales, and INT8 values."""
    rng = np.random.Generator(np.random.PCG64(seed))
    values = (rng.standard_normal((8, 6)) * np.linspace(0.1, 2, 6)).astype(np.float32)
    if block:
        grouped = np.abs(values).reshape(8 // block, block, 6).max(axis=1)
        scales = (grouped / 100).astype(np.float32)
        spread = np.repeat(scales, block, axis=0)
    elif axis is not None:
        axis %= 2
        scales = (np.abs(values).max(axis=1 - axis) / 100).astype(np.float32)
        spread = scales.reshape((-1, 1) if axis == 0 else (1, -1))
    else:
        scales = spread = np.asarray(np.abs(values).max() / 100, np.float32)
    quantised = np.clip(np.rint(values / spread) + zero_point, -128, 127).astype(np.int8)
    return values, scales, quantised


def plain_matmul(path: Path, weight: Array) -> Path:
    """``y = x @ weight`` in FP32: what :func:`qdq` is without the quantisation."""
    graph = Graph()
    x = graph.input("x", ["batch", weight.shape[0]])
    graph.add("MatMul", [x, graph.constant("w", weight.astype(np.float32))], "/MatMul", "y")
    graph.output("y", ["batch", weight.shape[1]])
    return graph.save(path)


def to_fp16(source: Path, path: Path) -> Path:
    """The same model with FP16 weights, inputs and outputs."""
    proto = onnx.load(str(source))
    _to_fp16(proto.graph)
    return write(proto, path)


def unnamed(source: Path, path: Path) -> Path:
    """The same model without node names."""
    proto = onnx.load(str(source))
    for node in proto.graph.node:
        node.name = ""
    return write(proto, path)


def external(source: Path, path: Path, location: str = "weights.bin") -> Path:
    """The same model with all its weights in the file ``location`` beside it."""
    proto = onnx.load(str(source))
    onnx.save_model(
        proto, str(path), save_as_external_data=True, all_tensors_to_one_file=True, location=location, size_threshold=0
    )
    return path


def insert_matmul(source: Path, path: Path, *, before: str, name: str = "/inserted/MatMul", size: int = 0) -> Path:
    """One more MatMul (by a near-identity matrix) in front of the node ``before``, on its first input."""
    proto = onnx.load(str(source))
    index = next(i for i, node in enumerate(proto.graph.node) if node.name == before)
    target = proto.graph.node[index]
    width = size or _width(proto.graph, target)
    matrix = np.eye(width, dtype=np.float32) + np.float32(0.01)
    proto.graph.initializer.append(numpy_helper.from_array(matrix, f"{name}.weight"))
    node = helper.make_node("MatMul", [target.input[0], f"{name}.weight"], [f"{name}_output"], name=name)
    target.input[0] = f"{name}_output"
    proto.graph.node.insert(index, node)
    return write(proto, path)


def scale_weight(source: Path, path: Path, weight: str, factor: float) -> Path:
    """The same model with one weight multiplied."""
    proto = onnx.load(str(source))
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == weight)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), weight))
    return write(proto, path)


def with_output(path: Path, node: str) -> Path:
    """The model, in place, with what a node writes as one more output."""
    proto = onnx.load(str(path))
    tensor = next(each.output[0] for each in proto.graph.node if each.name == node)
    proto.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
    return write(onnx.shape_inference.infer_shapes(proto), path)


def rename_output(source: Path, path: Path, new: str) -> Path:
    """The same model with its (first) output renamed."""
    proto = onnx.load(str(source))
    old = proto.graph.output[0].name
    proto.graph.output[0].name = new
    for node in proto.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = new if name == old else name
    return write(proto, path)


def _conv_bn(graph: Graph, tensor: str, block: str, inputs: int, outputs: int) -> str:
    key = block.strip("/").replace("/", ".")
    kernel = graph.weight(f"{key}.weight", outputs, inputs, 3, 3)
    tensor = graph.add("Conv", [tensor, kernel], f"{block}/Conv", pads=[1, 1, 1, 1])
    statistics = [
        graph.constant(f"{key}.bn.scale", graph.rng.uniform(0.5, 1.5, outputs).astype(np.float32)),
        graph.constant(f"{key}.bn.bias", graph.rng.uniform(-0.1, 0.1, outputs).astype(np.float32)),
        graph.constant(f"{key}.bn.mean", graph.rng.uniform(-0.1, 0.1, outputs).astype(np.float32)),
        graph.constant(f"{key}.bn.var", graph.rng.uniform(0.5, 1.5, outputs).astype(np.float32)),
    ]
    return graph.add("BatchNormalization", [tensor, *statistics], f"{block}/BatchNormalization")


def _linear(graph: Graph, tensor: str, block: str, inputs: int, outputs: int) -> str:
    key = block.strip("/").replace("/", ".")
    tensor = graph.add("MatMul", [tensor, graph.weight(f"{key}.weight", inputs, outputs)], f"{block}/MatMul")
    return graph.add("Add", [graph.weight(f"{key}.bias", outputs, scale=0.1), tensor], f"{block}/Add")


def _layer_norm(graph: Graph, tensor: str, name: str, size: int) -> str:
    key = name.strip("/").replace("/", ".")
    scale = graph.constant(f"{key}.weight", graph.rng.uniform(0.5, 1.5, size).astype(np.float32))
    bias = graph.constant(f"{key}.bias", graph.rng.uniform(-0.1, 0.1, size).astype(np.float32))
    if graph.fused_norm:
        return graph.add("LayerNormalization", [tensor, scale, bias], f"{name}/LayerNormalization", axis=-1)
    mean = graph.add("ReduceMean", [tensor], f"{name}/ReduceMean", axes=[-1])
    centred = graph.add("Sub", [tensor, mean], f"{name}/Sub")
    square = graph.add("Mul", [centred, centred], f"{name}/Square")
    variance = graph.add("ReduceMean", [square], f"{name}/ReduceMean_1", axes=[-1])
    eps = graph.constant(f"{key}.eps", np.float32(1e-5))
    deviation = graph.add("Sqrt", [graph.add("Add", [variance, eps], f"{name}/Add")], f"{name}/Sqrt")
    normal = graph.add("Div", [centred, deviation], f"{name}/Div")
    return graph.add("Add", [graph.add("Mul", [normal, scale], f"{name}/Mul"), bias], f"{name}/Add_1")


def _encoder_layer(graph: Graph, tensor: str, mask: str, block: str, hidden: int, heads: int) -> str:
    attention = f"{block}/attention"
    split = graph.constant(f"{attention}/split", np.array([0, 0, heads, hidden // heads], np.int64))
    merge = graph.constant(f"{attention}/merge", np.array([0, 0, hidden], np.int64))
    parts = {}
    for part, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
        linear = _linear(graph, tensor, f"{attention}/{part}", hidden, hidden)
        shaped = graph.add("Reshape", [linear, split], f"{attention}/{part}/Reshape")
        parts[part] = graph.add("Transpose", [shaped], f"{attention}/{part}/Transpose", perm=order)
    scores = graph.add("MatMul", [parts["query"], parts["key"]], f"{attention}/MatMul")
    root = graph.constant(f"{attention}/root", np.float32((hidden // heads) ** 0.5))
    scores = graph.add("Div", [scores, root], f"{attention}/Div")
    scores = graph.add("Add", [scores, mask], f"{attention}/Add")
    weights = graph.add("Softmax", [scores], f"{attention}/Softmax", axis=-1)
    mixed = graph.add("MatMul", [weights, parts["value"]], f"{attention}/MatMul_1")
    mixed = graph.add("Transpose", [mixed], f"{attention}/Transpose", perm=[0, 2, 1, 3])
    mixed = graph.add("Reshape", [mixed, merge], f"{attention}/Reshape")
    dense = _linear(graph, mixed, f"{attention}/output", hidden, hidden)
    tensor = graph.add("Add", [dense, tensor], f"{attention}/output/Add_1")
    tensor = _layer_norm(graph, tensor, f"{attention}/output/LayerNorm", hidden)
    inner = _linear(graph, tensor, f"{block}/intermediate", hidden, 4 * hidden)
    half = graph.add("Div", [inner, graph.constant(f"{block}/sqrt2", np.float32(2**0.5))], f"{block}/intermediate/Div")
    gate = graph.add("Erf", [half], f"{block}/intermediate/Erf")
    gate = graph.add("Add", [gate, graph.constant(f"{block}/one", np.float32(1))], f"{block}/intermediate/Add_1")
    gelu = graph.add("Mul", [inner, gate], f"{block}/intermediate/Mul")
    gelu = graph.add("Mul", [gelu, graph.constant(f"{block}/half", np.float32(0.5))], f"{block}/intermediate/Mul_1")
    outer = _linear(graph, gelu, f"{block}/output", 4 * hidden, hidden)
    tensor = graph.add("Add", [outer, tensor], f"{block}/output/Add_1")
    return _layer_norm(graph, tensor, f"{block}/output/LayerNorm", hidden)


def _to_fp16(graph: Any) -> None:
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _to_fp16(attribute.g)


def _width(graph: Any, node: Any) -> int:
    """Features of a node's first input, as its weight's first dimension tells."""
    weight = next(tensor for tensor in graph.initializer if tensor.name in list(node.input)[1:])
    return int(weight.dims[0])
