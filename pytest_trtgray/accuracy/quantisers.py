"""The Q/DQ nodes of a model: which tensor each one quantises, to which type, with which scales, and who reads it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.accuracy.rounding import LEVELS, Levels, spread
from pytest_trtgray.accuracy.shadow import fp32_names
from pytest_trtgray.engines.onnx_model import OnnxModel, dtype_name, node_name

QUANTISE, DEQUANTISE = "QuantizeLinear", "DequantizeLinear"
_UINT8, _INT32, _FLOAT8E4M3FN = 2, 6, 17

_EVERYTHING = (-math.inf, math.inf)

Role = Literal["activation", "weight"]


@dataclass(frozen=True)
class Reader:
    """A node that reads a dequantised tensor.

    Attributes:
        node: name of the ONNX node.
        op_type: its operator.
        operand: which of its inputs.
        transposed: whether a Gemm transposes this operand.
        passing: of a Relu or Clip, the smallest and largest value that it lets through.
    """

    node: str
    op_type: str
    operand: int
    transposed: bool = False
    passing: tuple[float, float] = _EVERYTHING

    def channel_axis(self, role: Role) -> int:
        """The axis of what it reads along which channels lie: those of its outputs for a weight, else its inputs."""
        if self.op_type in ("Conv", "ConvTranspose"):
            return 0 if role == "weight" and self.op_type == "Conv" else 1
        if self.op_type == "Gemm":
            return 0 if self.transposed else 1
        return -2 if self.op_type == "MatMul" and self.operand == 1 and role == "activation" else -1


class Constants(Mapping[str, NDArray[Any]]):
    """Weights and constants of a model's main graph by name, external data included; read when asked for.

    Args:
        model: whose they are.
    """

    def __init__(self, model: OnnxModel) -> None:
        self._folder: Path = model.path.parent
        self._tensors = {tensor.name: tensor for tensor in model.proto.graph.initializer}
        for node in model.proto.graph.node:
            for attribute in node.attribute if node.op_type == "Constant" else ():
                if attribute.name == "value":
                    self._tensors[node.output[0]] = attribute.t

    def __getitem__(self, name: str) -> NDArray[Any]:
        from onnx import numpy_helper

        return np.asarray(numpy_helper.to_array(self._tensors[name], base_dir=str(self._folder)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def kind(self, name: str) -> int:
        """ONNX's number of a tensor's type."""
        return int(self._tensors[name].data_type)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without reading it."""
        return tuple(self._tensors[name].dims)


@dataclass(frozen=True, eq=False)
class Quantiser:
    """One Q/DQ pair, one Dequantize of a weight that is stored quantised, or one Quantize of an output.

    Attributes:
        node: name of the QuantizeLinear; of the DequantizeLinear of a stored weight.
        tensor: what is quantised, by its name in the FP32 reference; the name of the stored weight.
        role: whether it changes with the input.
        dtype: name of the type as in :data:`LEVELS`.
        onnx_type: ONNX's number of it, which tells the FP8 types apart.
        scale: FP32; a scalar, one a slice along ``axis``, or one a block.
        zero_point: of the same shape; zeros where the model has none.
        axis: of the scales; ``None`` for one scale.
        block: how many values along ``axis`` share a scale; 0 without blocks.
        channel_axis: of the tensor; of a weight, the axis of the outputs.
        readers: who reads the dequantised tensor.
        passing: smallest and largest value that any of them lets through. Quantisers give the input of a Relu the
            scale of its output, and so cut off what the Relu would.
        constants: where the values of a weight are, under its name.
        is_stored: whether a weight is stored quantised; its FP32 values are not in the model then.
    """

    node: str
    tensor: str
    role: Role
    dtype: str
    onnx_type: int
    scale: NDArray[np.float32]
    zero_point: NDArray[np.float32]
    axis: int | None
    block: int
    channel_axis: int
    readers: tuple[Reader, ...]
    passing: tuple[float, float]
    constants: Constants
    is_stored: bool = False

    @property
    def granularity(self) -> str:
        """How many scales there are, in words."""
        if self.axis is None:
            return "tensor"
        return f"blocks of {self.block} on axis {self.axis}" if self.block else f"axis {self.axis}"

    @property
    def weight(self) -> NDArray[np.float32]:
        """The values of a weight as the model holds them, quantised where they are stored so; read at each call."""
        return self.constants[self.tensor].astype(np.float32)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of a weight, without reading it; ``None`` for an activation."""
        return self.constants.shape(self.tensor) if self.role == "weight" else None

    @property
    def levels(self) -> Levels | None:
        """Of its type; ``None`` for one that is not known here (INT32 biases, FP8 other than E4M3)."""
        if self.dtype == "fp8" and self.onnx_type != _FLOAT8E4M3FN:
            return None
        return LEVELS.get(self.dtype)

    def with_scale(self, scale: NDArray[np.float32]) -> Quantiser:
        """The same quantiser with other scales of the same shape."""
        return Quantiser(**{**vars(self), "scale": scale})

    def pieces(self, values: NDArray[Any], elements: int) -> Iterator[tuple[NDArray[Any], Any, Any]]:
        """Slices of a tensor along its first axis, each with scales and zero points that broadcast to it.

        Args:
            values: of the tensor.
            elements: about how many a slice has; one row at least.
        """
        scale = spread(self.scale, values.shape, self.axis, self.block)
        zero = spread(self.zero_point, values.shape, self.axis, self.block)
        if not values.ndim or values.size <= elements:
            yield values, scale, zero
            return
        rows = max(1, elements * len(values) // values.size)
        for start in range(0, len(values), rows):
            part = slice(start, start + rows)
            yield values[part], _part(scale, part), _part(zero, part)


def find_quantisers(model: OnnxModel) -> tuple[tuple[Quantiser, ...], tuple[str, ...]]:
    """All quantisers of the main graph with constant scales, in order.

    Returns:
        the quantisers, and the names of Q/DQ nodes whose scales are computed by the model, which nobody can judge
        without running it.
    """
    graph = model.proto.graph
    constants = Constants(model)
    names = fp32_names(model)
    readers = _readers(graph, constants)
    dequantisers: dict[str, list[Any]] = {}
    for node in graph.node:
        if node.op_type == DEQUANTISE:
            dequantisers.setdefault(node.input[0], []).append(node)
    quantisers, dynamic = [], []
    for node in graph.node:
        if node.op_type == QUANTISE:
            pairs = dequantisers.get(node.output[0], [])
            read = tuple(reader for pair in pairs for reader in readers.get(pair.output[0], ()))
        elif node.op_type == DEQUANTISE and node.input[0] in constants:
            read = tuple(readers.get(node.output[0], ()))
        else:
            continue
        if any(name and name not in constants for name in node.input[1:]):
            dynamic.append(node_name(node))
            continue
        quantisers.append(_quantiser(node, constants, names, read))
    return tuple(quantisers), tuple(dynamic)


def _quantiser(node: Any, constants: Constants, names: Mapping[str, str], readers: tuple[Reader, ...]) -> Quantiser:
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    source, scale_name, *rest = node.input
    scale = constants[scale_name].astype(np.float32)
    zero = constants[rest[0]].astype(np.float32) if rest and rest[0] else np.zeros(scale.shape, np.float32)
    is_stored = node.op_type == DEQUANTISE
    kind = constants.kind(rest[0]) if rest and rest[0] else attributes.get("output_dtype", 0)
    if is_stored:
        kind = constants.kind(source)
    kind = kind or _UINT8  # ONNX: where neither a zero point nor an attribute says otherwise
    is_weight = source in constants
    role: Role = "weight" if is_weight else "activation"
    axis = attributes.get("axis", 1) if scale.size > 1 else None
    block = attributes.get("block_size", 0) if scale.size > 1 else 0
    own_axis = axis if is_weight and not block else None
    return Quantiser(
        node=node_name(node),
        tensor=names.get(source, source),
        role=role,
        dtype=dtype_name(kind),
        onnx_type=kind,
        scale=scale.reshape(()) if scale.size == 1 else scale,
        zero_point=zero.reshape(()) if zero.size == 1 else zero,
        axis=axis,
        block=block,
        channel_axis=own_axis if own_axis is not None else readers[0].channel_axis(role) if readers else -1,
        readers=readers,
        passing=(
            min((reader.passing[0] for reader in readers), default=-math.inf),
            max((reader.passing[1] for reader in readers), default=math.inf),
        ),
        constants=constants,
        is_stored=is_stored,
    )


def _part(parameters: NDArray[Any], rows: slice) -> NDArray[Any]:
    return parameters[rows] if parameters.ndim and len(parameters) > 1 else parameters


def _readers(graph: Any, constants: Constants) -> dict[str, list[Reader]]:
    found: dict[str, list[Reader]] = {}
    for node in graph.node:
        transposed = {attribute.name for attribute in node.attribute if attribute.i and node.op_type == "Gemm"}
        passing = _passing(node, constants)
        for operand, name in enumerate(node.input):
            if name:
                turned = ("transA", "transB", "")[min(operand, 2)] in transposed
                found.setdefault(name, []).append(Reader(node_name(node), node.op_type, operand, turned, passing))
    return found


def _passing(node: Any, constants: Constants) -> tuple[float, float]:
    if node.op_type == "Relu":
        return 0.0, math.inf
    if node.op_type != "Clip":
        return _EVERYTHING
    limits = list(_EVERYTHING)
    for attribute in node.attribute:  # before opset 11
        limits[["min", "max"].index(attribute.name)] = attribute.f
    for index, name in enumerate(node.input[1:3]):
        if name:
            limits[index] = float(constants[name]) if name in constants else _EVERYTHING[index]
    return limits[0], limits[1]
