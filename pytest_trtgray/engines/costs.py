"""What an ONNX model has to compute and to move at given shapes: operations and bytes of each node.

Shapes come from ONNX's shape inference with the inputs that were measured; what it cannot tell is unknown, never
guessed. Operations are counted as usual: a multiplication and an addition are two, a matrix product of (m, k) and
(k, n) is 2mkn, an operator that works element by element is one an element. Only products and convolutions decide on
anything; the rest is bound by memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_trtgray.engines.model import DTYPE_BITS
from pytest_trtgray.engines.onnx_model import OnnxModel, subgraphs
from pytest_trtgray.engines.provenance import foldable
from pytest_trtgray.engines.tensor_shapes import Shape, tensor_shapes

_MOVING = frozenset(
    ("Reshape", "Transpose", "Cast", "Concat", "Slice", "Split", "Gather", "GatherElements", "GatherND", "Expand",
     "Tile", "Identity", "Squeeze", "Unsqueeze", "Flatten", "Pad", "Shape", "Size", "Constant", "ConstantOfShape",
     "ScatterND", "ScatterElements", "DepthToSpace", "SpaceToDepth", "Range", "NonZero", "Where")
)  # fmt: skip
_PICKING = frozenset(("Gather", "GatherElements", "GatherND", "Slice"))
_STEPS = {
    "Softmax": 5, "LogSoftmax": 5, "LayerNormalization": 8, "InstanceNormalization": 8, "GroupNormalization": 8,
    "RMSNormalization": 5, "BatchNormalization": 2, "Gelu": 5, "QuantizeLinear": 2, "DequantizeLinear": 2,
}  # fmt: skip
"""Elementary operations an element of the output; 1 for all others."""


@dataclass(frozen=True)
class TensorSize:
    """Elements and bits an element of a tensor; ``None`` is unknown."""

    elements: int | None
    bits: int | None
    is_float: bool
    is_constant: bool


@dataclass(frozen=True)
class NodeCost:
    """What one node computes.

    Attributes:
        flops: floating-point (or integer) operations; ``None`` is unknown.
        is_matrix: a product or convolution.
        inputs: tensors it reads, weights included.
        outputs: tensors it writes.
        picks: it reads no more of its first input than it writes (a row of a table, a slice).
    """

    flops: int | None
    is_matrix: bool
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    picks: bool = False


@dataclass(frozen=True)
class ModelCosts:
    """Costs of a model at one set of shapes.

    Attributes:
        nodes: by name, as layers call them.
        tensors: by name.
        outputs: tensors that leave the model.
        consumers: of each tensor, the nodes that read it.
    """

    nodes: Mapping[str, NodeCost]
    tensors: Mapping[str, TensorSize]
    outputs: frozenset[str]
    consumers: Mapping[str, frozenset[str]]


def model_costs(model: OnnxModel, shapes: Mapping[str, tuple[int, ...]]) -> ModelCosts:
    """Costs of every node of the main graph.

    Args:
        model: of an engine.
        shapes: of the inputs, as they were measured; symbols take their sizes from them.
    """
    known = tensor_shapes(model, shapes)
    constants = set(model.initializers) | _folded_tensors(model)
    tensors = {
        name: TensorSize(
            _count(shape) if shape is not None else None,
            _bits(dtype),
            is_float=dtype in DTYPE_BITS,
            is_constant=name in constants,
        )
        for name, (dtype, shape) in known.items()
    }
    consumers: dict[str, set[str]] = {}
    nodes = {}
    for proto, node in zip(model.proto.graph.node, model.nodes, strict=True):
        name = model.scoped_names.get(node.name, node.name)
        for tensor in node.inputs:
            consumers.setdefault(tensor, set()).add(name)
        flops = _flops(proto, {tensor: shape for tensor, (_, shape) in known.items()})
        nodes[name] = NodeCost(
            flops, proto.op_type in _MATRIX, node.inputs, node.outputs, picks=proto.op_type in _PICKING
        )
    return ModelCosts(
        nodes,
        tensors,
        frozenset(spec.name for spec in model.outputs),
        {tensor: frozenset(names) for tensor, names in consumers.items()},
    )


Known = Mapping[str, "Shape | None"]


def _bits(dtype: str) -> int | None:
    if dtype in ("unknown", "str"):
        return None
    return DTYPE_BITS.get(dtype) or np.dtype(dtype).itemsize * 8


def _folded_tensors(model: OnnxModel) -> set[str]:
    """Tensors that depend on weights only: TensorRT computes them when it builds."""
    constant = foldable(model.nodes, set(model.initializers))
    return {tensor for node in model.nodes if node.name in constant for tensor in node.outputs}


def _flops(node: Any, shapes: Known) -> int | None:
    """Operations of a node; ``None`` if a shape that matters or the operator is not known."""
    if node.domain not in ("", "ai.onnx") or any(True for _ in subgraphs(node)):
        return None
    if node.op_type in _MOVING:
        return 0
    count = _MATRIX.get(node.op_type, _elementwise)
    try:
        return count(node, [shapes.get(name) if name else () for name in node.input], _outputs(node, shapes))
    except (TypeError, IndexError, ValueError):  # an unknown shape where one is needed
        return None


def _outputs(node: Any, shapes: Known) -> list[Shape | None]:
    return [shapes.get(name) for name in node.output]


def _count(sizes: Any) -> int:
    """Elements of a shape; a TypeError for one that is not known."""
    return int(math.prod(sizes))


def _elementwise(node: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    if node.op_type.startswith(("Reduce", "Arg", "Global", "CumSum")):
        return _count(inputs[0])
    if node.op_type in ("MaxPool", "AveragePool", "LpPool"):
        return _count(outputs[0]) * _count(_attribute(node, "kernel_shape"))
    return _count(outputs[0]) * _STEPS.get(node.op_type, 1)


def _matmul(node: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    return 2 * _count(outputs[0]) * int(inputs[0][-1])


def _gemm(node: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    return 2 * _count(outputs[0]) * int(inputs[0][0 if _attribute(node, "transA", 0) else 1])


def _conv(node: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Weights are (outputs, inputs / groups, kernel …)."""
    return 2 * _count(outputs[0]) * _count(inputs[_WEIGHTS.get(node.op_type, 1)][1:])


def _conv_transpose(node: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Weights are (inputs, outputs / groups, kernel …); every input element meets all of them."""
    return 2 * _count(inputs[0]) * _count(inputs[1][1:])


def _einsum(node: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Two operands without an ellipsis: one multiplication and one addition for every combination of indices."""
    terms = _attribute(node, "equation").decode().replace(" ", "").split("->")[0].split(",")
    if len(terms) != 2 or "." in "".join(terms):
        raise ValueError("not a product of two")
    sizes = {
        label: size for term, shape in zip(terms, inputs, strict=True) for label, size in zip(term, shape, strict=True)
    }
    return 2 * _count(sizes.values())


def _attention(node: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Two products: queries with keys, and weights with values, over the keys' length."""
    length = inputs[1][2] if len(inputs[1]) == 4 else inputs[1][1]
    return 2 * int(length) * (_count(inputs[0]) + _count(outputs[0]))


def _recurrent(node: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Every step multiplies the input weights (directions, gates, inputs) and the recurrent ones."""
    steps, batch = inputs[0][:2]
    return 2 * int(steps) * int(batch) * (_count(inputs[1]) + _count(inputs[2]))


def _attribute(node: Any, name: str, default: Any = None) -> Any:
    import onnx

    return next((onnx.helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)


_WEIGHTS = {"QLinearConv": 3}
"""Which operand of a convolution its weights are, if not the second."""
_MATRIX: Mapping[str, Callable[[Any, Sequence[Any], Sequence[Any]], int]] = {
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "ConvInteger": _conv,
    "QLinearConv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Attention": _attention,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
}
"""Products and convolutions."""
