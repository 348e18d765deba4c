"""What an engine is made of: frozen data that travel between the rooms."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Dim = int | str
"""A dimension: a size, or the name of a symbol such as ``batch``. Unnamed symbols are called ``?``."""

DTYPE_BITS: Mapping[str, int] = {
    "float64": 64,
    "float32": 32,
    "bfloat16": 16,
    "float16": 16,
    "fp8": 8,
    "int8": 8,
    "uint8": 8,
    "fp4": 4,
    "int4": 4,
    "uint4": 4,
}
"""Data types that say something about a layer's precision, in bits. Index types (int32, int64, bool) do not."""

PRECISION_ORDER = ("float64", "float32", "bfloat16", "float16", "fp8", "int8", "fp4", "int4")
"""From the finest to the coarsest; the precision of an engine is the coarsest of its layers."""

# Names that exporters and converters give: ONNX Runtime's quantiser and FP16 converter, ModelOpt, PyTorch
_CONVERSION = re.compile(
    r"(^|[/_.])(De)?[Qq]uantizeLinear(_\d+)?$|(^|[/_.])D?Q(_\d+)?$|(^|[/_.])[Cc]ast_?\d*$|^Inserted(PrecisionFree)?Cast_"
)
QUANTISED = ("fp8", "int8", "uint8", "fp4", "int4", "uint4")
_SIGNED = {"uint8": "int8", "uint4": "int4"}


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of an engine.

    Attributes:
        name: tensor name.
        dtype: numpy's name of the type, or ``bfloat16``, ``fp8``, ``fp4``, ``int4``.
        shape: sizes and symbols.
        limits: smallest and largest sensible value, where the model tells (token ids, masks).
        is_shape: whether its *values* are sizes (what a Reshape or Expand reads). A profile then bounds its values,
            and wherever shapes are given by input, this input's entry is its values.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    limits: tuple[float, float] | None = None
    is_shape: bool = False

    @property
    def is_dynamic(self) -> bool:
        """Whether any dimension is symbolic, or its values decide on shapes."""
        return self.is_shape or any(isinstance(dim, str) for dim in self.shape)

    @property
    def value_count(self) -> int:
        """How many values an input has whose values are sizes, and so how many numbers its entry among shapes has.

        The product of its dimensions, which no runtime leaves open for such an input; 1 for a scalar.
        """
        return math.prod(dim for dim in self.shape if isinstance(dim, int))

    def __str__(self) -> str:
        return f"{self.name}:{'x'.join(str(dim) for dim in self.shape)} {self.dtype}"


@dataclass(frozen=True)
class ShapeRange:
    """Smallest, optimal and largest shape of one input."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def contains(self, shape: tuple[int, ...]) -> bool:
        """Whether ``shape`` has the right rank and every dimension lies between min and max."""
        return len(shape) == len(self.min) and all(
            low <= size <= high for low, size, high in zip(self.min, shape, self.max, strict=True)
        )

    def __str__(self) -> str:
        return " .. ".join(format_shape(shape) for shape in (self.min, self.opt, self.max))


ShapeProfile = Mapping[str, ShapeRange]
"""An optimization profile: the range of every input, by name."""


@dataclass(frozen=True)
class LayerTensor:
    """A tensor as the engine's layer listing shows it; ``dtype`` as in :class:`TensorSpec`."""

    name: str
    dtype: str
    format: str = ""


@dataclass(frozen=True)
class Layer:
    """One layer of the built engine.

    Attributes:
        name: the engine's own name; positional in TensorRT (``…_myl0_7``), never an identity.
        kind: the engine's layer type, such as ``gemm``, ``kgen``, ``FusedConv``.
        onnx_nodes: names of the ONNX nodes fused into it: its identity.
        inputs: activations that it reads.
        constants: weights that it holds.
        outputs: activations that it writes.
        tactic: the kernel chosen, where the engine says: its name, or its number (``0x…``) where it has none.
        profile: index of the optimization profile.
        stream: of several on which the engine runs layers at once.
    """

    name: str
    kind: str
    onnx_nodes: frozenset[str] = frozenset()
    inputs: tuple[LayerTensor, ...] = ()
    constants: tuple[LayerTensor, ...] = ()
    outputs: tuple[LayerTensor, ...] = ()
    tactic: str = ""
    profile: int = 0
    stream: int = 0

    @property
    def precision(self) -> str:
        """The coarsest floating-point or quantised type that the layer computes on, or ``""``.

        Read from its inputs and weights; a layer that only quantises (its output is coarser than its
        inputs) still computes in its input's type, one that only dequantises in its output's.
        """
        kind = self.kind.lower()
        if kind in ("quantizelinear", "dequantizelinear"):
            side = self.outputs if kind.startswith("de") else self.inputs
            return coarsest(tensor.dtype for tensor in side)
        read = [tensor.dtype for tensor in (*self.inputs, *self.constants)]
        if kind == "kgen" and "gemm" not in self.name:
            # Myelin's pointwise kernels take quantised inputs in; they dequantise and compute in floats.
            read = [dtype for dtype in read if dtype not in QUANTISED] or [tensor.dtype for tensor in self.outputs]
        return coarsest(read) or coarsest(tensor.dtype for tensor in self.outputs)

    @property
    def title(self) -> str:
        """What a report calls the layer: its ONNX nodes, shortened; the engine's name if it has none.

        Q/DQ nodes and casts come last: a convolution is no ``weight_DequantizeLinear``.
        """
        nodes = sorted(self.onnx_nodes, key=lambda node: (is_conversion(node), node))
        return shown_nodes(nodes) or canonical_name(self.name)


@dataclass(frozen=True)
class Memory:
    """Bytes that the engine asks for, as far as the runtime tells; ``None`` is unknown."""

    weights_bytes: int | None = None
    activations_bytes: int | None = None
    scratch_bytes: int | None = None


@dataclass(frozen=True)
class DeviceInfo:
    """Where an engine runs.

    Attributes:
        name: such as ``NVIDIA H200`` or the processor's model name.
        kind: ``gpu`` or ``cpu``.
        sm: compute capability as ``sm_90``; empty for a CPU.
        memory_bytes: total device memory.
        index: CUDA device index.
        details: context that is recorded and shown, never used for look-up (driver, cores, ...).
    """

    name: str
    kind: str
    sm: str = ""
    memory_bytes: int = 0
    index: int = 0
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EngineInfo:
    """What is known of an engine without running it.

    Attributes:
        name: short name for test ids and reports.
        path: the file it was loaded or built from.
        runtime: ``onnxruntime``, ``tensorrt`` or ``tensorrt_rtx``.
        version: of that runtime.
        inputs: in the model's order.
        outputs: in the model's order.
        profiles: optimization profiles; one with min = opt = max for a static model.
        device: where it runs; ``None`` when this machine cannot run it.
        targets: the hardware that it was built for, such as ``portable`` or ``x86_64``.
        memory: see :class:`Memory`.
    """

    name: str
    path: str
    runtime: str
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[ShapeProfile, ...]
    device: DeviceInfo | None = None
    targets: str = ""
    memory: Memory = Memory()


def coarsest(dtypes: Any) -> str:
    """The coarsest of several data types, ignoring those that are no precision (int32, int64, bool).

    >>> coarsest(["float32", "int8", "int64"])
    'int8'
    """
    names = {_SIGNED.get(dtype, dtype) for dtype in dtypes}
    return max(names & set(PRECISION_ORDER), key=PRECISION_ORDER.index, default="")


def is_conversion(node: str) -> bool:
    """Whether an ONNX node is named as a converter names Q/DQ nodes and casts.

    >>> is_conversion("/conv1/input_quantizer/QuantizeLinear"), is_conversion("graph_output_cast0")
    (True, True)
    """
    return _CONVERSION.search(node) is not None


def canonical_name(name: str) -> str:
    """An engine's layer name without its positional parts.

    >>> canonical_name("__myl_FcAdd_myl0_7")
    '__myl_FcAdd'
    """
    name = re.sub(r"\s*\[profile \d+\]", "", name)
    name = re.sub(r"_myl\d+_\d+$", "", name)
    return re.sub(r"__mye\d+", "__mye", name)


def shown_nodes(nodes: Sequence[str]) -> str:
    """The ONNX nodes of a layer as a report shows them.

    >>> shown_nodes(["/a/Conv", "/a/Relu"]), shown_nodes(list("abcde"))
    ('/a/Conv + /a/Relu', 'a + b + c (+2 nodes)')
    """
    more = f" (+{len(nodes) - 3} nodes)" if len(nodes) > 3 else ""
    return " + ".join(nodes[:3]) + more


def format_shape(shape: tuple[Dim, ...]) -> str:
    """A shape in trtexec's notation, ``1x3x224x224``; a scalar is ``scalar``."""
    return "x".join(str(dim) for dim in shape) or "scalar"


def format_shapes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Several shapes in trtexec's notation, ``x:1x3,mask:1x8``."""
    return ",".join(f"{name}:{format_shape(shape)}" for name, shape in shapes.items())


def static_profile(inputs: tuple[TensorSpec, ...]) -> dict[str, ShapeRange]:
    """The profile of a model without symbolic dimensions."""
    profile = {}
    for spec in inputs:
        shape = tuple(int(dim) for dim in spec.shape)
        profile[spec.name] = ShapeRange(shape, shape, shape)
    return profile
