"""An ONNX model as the rest of the house needs it: inputs, node names, a content hash, clear refusals."""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.engines.header import describe_content
from pytest_trtgray.engines.model import DTYPE_BITS, Dim, TensorSpec
from pytest_trtgray.engines.provenance import GraphNode, foldable
from pytest_trtgray.engines.scopes import scoped_names
from pytest_trtgray.errors import ModelError

_ONNX_DTYPES: Mapping[int, str] = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "str",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
    17: "fp8",
    18: "fp8",
    19: "fp8",
    20: "fp8",
    21: "uint4",
    22: "int4",
    23: "fp4",
}

_ONNX_NUMBERS = {name: number for number, name in _ONNX_DTYPES.items()}
_FLOAT16 = 10
FLOATS = ("float16", "float32", "float64", "bfloat16")
_EXTERNAL = 1  # TensorProto.DataLocation
_SMALL_BYTES = 1024
"""Constants up to here are values that shapes depend on; above are weights."""

_SIZE_OPERANDS: Mapping[str, tuple[int, ...]] = defaultdict(
    tuple,
    {
        "Reshape": (1,),
        "Expand": (1,),
        "Tile": (1,),
        "ConstantOfShape": (0,),
        "Slice": (1, 2, 4),
        "Resize": (3,),
        "Pad": (1,),
        "Range": (0, 1, 2),
        "TopK": (1,),
        "OneHot": (1,),
    },
)
"""Which operands of an operator are sizes or positions."""
SIZE_ARITHMETIC = frozenset(
    ("Abs", "Add", "And", "Cast", "Ceil", "Concat", "Div", "Equal", "Expand", "Floor", "Gather", "Greater",
     "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "ReduceMax",
     "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Round", "Slice", "Split", "Squeeze", "Sub", "Unsqueeze",
     "Where")
)  # fmt: skip
"""Operators that make sizes from sizes."""
_PASSES_INDICES = frozenset(
    ("Cast", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
)
"""Operators whose output has no other numbers than their first input."""


@dataclass(frozen=True)
class OnnxNode(GraphNode):
    """One node of the main graph, with the name that reports use."""


class OnnxModel:
    r"""A checked ONNX file; weights are read only where needed.

    Names that are no UTF-8 have escapes in the place of their bytes (``caf\xe9``), here and in what the runtimes get:
    their Python bindings drop every message with such a name.

    Args:
        path: the ``.onnx`` file. External data must lie where the model says.
        original: the user's file, where ``path`` was made from it and lies in the cache.
        made: how, such as ``converted to fp16``.

    Attributes:
        is_renamed: whether names were escaped, so that the file is not what a runtime should read.
        is_edited: whether ``proto`` is no longer what the file says; see :meth:`edited`.
        held: weights that ``proto`` only declares, by name.

    Raises:
        ModelError: missing, empty, cut off, no ONNX, without nodes, or with missing external data.
    """

    def __init__(self, path: Path | str, *, original: Path | None = None, made: str = "") -> None:
        self.path = Path(path)
        self.original = original or self.path
        self.proto = _load_proto(self.path, is_optimised=bool(made))
        self.is_renamed = _make_legible(self.proto)
        self.is_edited = False
        self.held: Mapping[str, NDArray[Any]] = {}
        self._made = made
        _check_external_data(self.path, self.proto)

    def edited(self, proto: Any, held: Mapping[str, NDArray[Any]] | None = None) -> OnnxModel:
        """The same file with another graph in memory, whose external data are still found beside the file.

        Args:
            proto: the graph.
            held: weights that it only declares, see :func:`held_weights`.
        """
        model = OnnxModel.__new__(OnnxModel)
        model.path, model.original, model.proto, model._made = self.path, self.original, proto, self._made
        model.is_renamed, model.is_edited, model.held = self.is_renamed, True, held or {}
        return model

    @property
    def called(self) -> str:
        """What errors call it: the user's file, and what was done to it."""
        return f"{self.original} ({self._made})" if self._made else str(self.original)

    @functools.cached_property
    def nodes(self) -> tuple[OnnxNode, ...]:
        """Nodes of the main graph in order; a node without a name is called ``node_of_<output>``, as TensorRT does."""
        return tuple(
            OnnxNode(node_name(node), node.op_type, tuple(node.input), tuple(node.output))
            for node in self.proto.graph.node
        )

    @property
    def opset(self) -> int:
        """Version of ONNX's own operators; 1 where the model does not say."""
        return max(
            (int(entry.version) for entry in self.proto.opset_import if entry.domain in ("", "ai.onnx")), default=1
        )

    @functools.cached_property
    def scoped_names(self) -> Mapping[str, str]:
        """By node name, a name that tells the module, where the exporter's own names are numbers."""
        return scoped_names((node_name(node), node) for node in _nodes(self.proto.graph))

    @functools.cached_property
    def computed_nodes(self) -> tuple[str, ...]:
        """Nodes of the main graph that depend on an input, in order, as layers call them."""
        constant = foldable(self.nodes, set(self.initializers))
        return tuple(self.scoped_names.get(node.name, node.name) for node in self.nodes if node.name not in constant)

    @functools.cached_property
    def initializers(self) -> Mapping[str, Any]:
        """The graph's weights (TensorProto) by name."""
        return {tensor.name: tensor for tensor in self.proto.graph.initializer}

    @functools.cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What a caller has to feed: graph inputs that no initializer provides."""
        return tuple(
            replace(_spec(value, self._limits(value.name)), is_shape=self._is_shape(value))
            for value in self.proto.graph.input
            if value.name not in self.initializers
        )

    @functools.cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The graph's outputs."""
        return tuple(_spec(value, None) for value in self.proto.graph.output)

    @functools.cached_property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """Type and shape of every tensor that ONNX shape inference knows, by name."""
        import onnx

        try:
            # Strict mode would refuse whole models for one custom operator.
            graph = onnx.shape_inference.infer_shapes(without_weights(self.proto)).graph
        except Exception:  # inference is a help, not a need
            graph = self.proto.graph
        found = {}
        for value in (*graph.input, *graph.value_info, *graph.output):
            if value.type.HasField("tensor_type"):
                found[value.name] = _spec(value, None)
        for name, tensor in self.initializers.items():
            found[name] = TensorSpec(name, dtype_name(tensor.data_type), tuple(tensor.dims))
        return found

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of the model's content: the file and every external data file, in order of their names."""
        digest = hashlib.sha256(self.proto.SerializeToString(deterministic=True) if self.is_edited else b"")
        files = () if self.is_edited else (self.path,)
        for part in (*files, *sorted(external_files(self.path, self.proto))):
            with part.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
        return digest.hexdigest()

    @functools.cached_property
    def uses_float16(self) -> bool:
        """Whether any weight, input, output, constant or cast is FP16."""
        return any(_uses_type(graph, _FLOAT16) for graph in graphs(self.proto.graph))

    @functools.cached_property
    def is_quantised(self) -> bool:
        """Whether it has Q/DQ nodes."""
        return any(node.op_type == "DequantizeLinear" for graph in graphs(self.proto.graph) for node in graph.node)

    @property
    def weights_bytes(self) -> int:
        """Bytes of all initializers as stored."""
        return sum(_tensor_bytes(tensor) for tensor in self.proto.graph.initializer)

    def _limits(self, name: str) -> tuple[float, float] | None:
        """Sensible values of an input, where the graph tells: indices stay below the length of every table."""
        if "mask" in name.lower():
            return (1.0, 1.0)
        aliases = {name}
        lengths = []
        for node in self.proto.graph.node:
            if node.op_type in _PASSES_INDICES and node.input and node.input[0] in aliases:
                aliases.update(node.output)
            if node.op_type == "Gather" and len(node.input) > 1 and node.input[1] in aliases:
                axis = next((attr.i for attr in node.attribute if attr.name == "axis"), 0)
                lengths += [dim for dim in self._table_shape(node.input[0])[axis:][:1] if isinstance(dim, int) and dim]
        return (0.0, float(min(lengths) - 1)) if lengths else None

    def _table_shape(self, name: str) -> tuple[Dim, ...]:
        """The shape of a table of embeddings: a weight, or what is made of one (cast, dequantised)."""
        if name in self.initializers:
            return tuple(self.initializers[name].dims)
        return self.tensors[name].shape if name in self.tensors else ()

    def _is_shape(self, value: Any) -> bool:
        """Whether an input's values are sizes: a short list of integers that ends where a size is read."""
        spec = _spec(value, None)
        if spec.dtype not in ("int32", "int64") or len(spec.shape) > 1 or any(isinstance(d, str) for d in spec.shape):
            return False
        sizes = {spec.name}
        for node in _nodes(self.proto.graph):
            if any(index < len(node.input) and node.input[index] in sizes for index in _SIZE_OPERANDS[node.op_type]):
                return True
            if node.op_type in SIZE_ARITHMETIC and any(name in sizes for name in node.input):
                sizes.update(node.output)
        return False


def made_floats(model: OnnxModel) -> dict[str, None]:
    """Tensors that the nodes of a model's main graph make, in order; without those known to hold no floats."""
    made = (name for node in model.nodes for name in node.outputs if name)
    return dict.fromkeys(name for name in made if name not in model.tensors or model.tensors[name].dtype in FLOATS)


def activations(model: OnnxModel) -> dict[str, None]:
    """The tensors of :func:`made_floats` that depend on an input."""
    constant = set(model.initializers)
    for node in model.proto.graph.node:
        if all(not name or name in constant for name in read_names(node)):
            constant.update(node.output)
    return dict.fromkeys(name for name in made_floats(model) if name not in constant)


def with_outputs(model: OnnxModel, names: Iterable[str]) -> Any:
    """A copy of a model's ModelProto that has these outputs besides its own, with their types where they are known."""
    import onnx

    copied = type(model.proto)()
    copied.CopyFrom(model.proto)
    have = {spec.name for spec in model.outputs}
    for name in dict.fromkeys(names):
        if name not in have:
            spec = model.tensors.get(name)
            value = onnx.ValueInfoProto(name=name)
            if spec is not None and spec.dtype in FLOATS:
                value = onnx.helper.make_tensor_value_info(name, _ONNX_NUMBERS[spec.dtype], None)
            copied.graph.output.append(value)
    return copied


def open_model(path: Path, *, original: Path | None = None, made: str = "") -> OnnxModel:
    """The model of a file, read once as long as the file stays as it is; arguments as for :class:`OnnxModel`.

    Raises:
        ModelError: see :class:`OnnxModel`.
    """
    try:
        state = path.stat()
    except OSError:
        return OnnxModel(path)  # says what is wrong
    return _open_once(path, state.st_mtime_ns, state.st_size, original, made)


@functools.lru_cache(maxsize=8)
def _open_once(path: Path, mtime_ns: int, size: int, original: Path | None, made: str) -> OnnxModel:
    return OnnxModel(path, original=original, made=made)


def node_name(node: Any) -> str:
    """The name of an ONNX node; TensorRT's convention where it has none."""
    return str(node.name) or f"node_of_{next((output for output in node.output if output), '?')}"


def dtype_name(onnx_dtype: int) -> str:
    """The name of an ONNX tensor type; ``unknown`` for one that this version does not know."""
    return _ONNX_DTYPES.get(onnx_dtype, "unknown")


def graphs(graph: Any) -> Iterator[Any]:
    """A graph and all graphs inside of its nodes (branches of If, bodies of Loop)."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from graphs(inner)


def _nodes(graph: Any) -> Iterator[Any]:
    """Nodes in order, each followed by those of the graphs inside of it."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from _nodes(inner)


def subgraphs(node: Any) -> Iterator[Any]:
    """The graphs directly inside of a node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def read_names(node: Any) -> Iterator[str]:
    """Tensors that a node reads, those inside of its graphs included."""
    yield from node.input
    for inner in subgraphs(node):
        for part in graphs(inner):
            yield from (value.name for value in part.output)
            for nested in part.node:
                yield from nested.input


def stored_tensors(graph: Any) -> Iterator[Any]:
    """Weights and constants of one graph, without those of the graphs inside of its nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.t.data_type:  # ONNX Runtime's converter leaves an empty tensor in every attribute
                yield attribute.t
            yield from attribute.tensors


def external_files(path: Path, proto: Any) -> set[Path]:
    """Files beside the model that hold its weights."""
    return {path.parent / entry["location"] for _, entry in _external_entries(proto)}


def load_small_weights(proto: Any, folder: Path) -> None:
    """Bring shapes, axes and other small constants from external files into the model, which is changed."""
    from onnx.external_data_helper import load_external_data_for_tensor

    for graph in graphs(proto.graph):
        for tensor in stored_tensors(graph):
            if tensor.data_location == _EXTERNAL and _tensor_bytes(tensor) <= _SMALL_BYTES:
                load_external_data_for_tensor(tensor, str(folder))
                tensor.data_location = 0
                tensor.ClearField("external_data")


def _uses_type(graph: Any, onnx_dtype: int) -> bool:
    return (
        any(tensor.data_type == onnx_dtype for tensor in stored_tensors(graph))
        or any(value.type.tensor_type.elem_type == onnx_dtype for value in (*graph.input, *graph.output))
        or any(
            attribute.name == "to" and attribute.i == onnx_dtype for node in graph.node for attribute in node.attribute
        )
    )


def _load_proto(path: Path, *, is_optimised: bool) -> Any:
    """The model; of an optimised graph, nothing but constants may be left."""
    from google.protobuf.message import DecodeError

    from pytest_trtgray.vendor import quiet_import

    onnx = quiet_import("onnx")
    if not path.exists():
        raise ModelError(path, "no such file", "Check the path; it is taken relative to the current folder.")
    if not path.is_file():
        raise ModelError(path, "is not a file")
    if path.stat().st_size == 0:
        raise ModelError(path, "the ONNX file is empty", "Export or download it again.")
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError, OSError, UnicodeDecodeError) as error:
        raise ModelError(path, _unreadable(path, str(error)), "Export or download it again.") from None
    # Protocol buffers decode many a random file without complaint; a model has a version and a graph.
    if not proto.ir_version or not proto.opset_import or not (proto.graph.node or is_optimised):
        headless = not proto.ir_version or (proto.graph.node and not proto.opset_import)
        what = _unreadable(path, "no IR version or opset") if headless else "has no nodes"
        raise ModelError(path, what, "Export it again and check it with onnx.checker.")
    return proto


def _make_legible(message: Any) -> bool:
    """Escape texts that are no UTF-8, in place; whether there were any. Protocol buffers give them as bytes."""
    changed = False
    for name, is_text in _texts_and_messages(message.DESCRIPTOR):
        value = getattr(message, name)
        if isinstance(value, bytes):
            setattr(message, name, _escaped(value))
            changed = True
        elif isinstance(value, str):
            continue
        elif is_text:
            for index, text in enumerate(value):
                if isinstance(text, bytes):
                    value[index] = _escaped(text)
                    changed = True
        elif hasattr(value, "DESCRIPTOR"):
            changed |= message.HasField(name) and _make_legible(value)
        else:
            for inner in value:
                changed |= _make_legible(inner)
    return changed


@functools.lru_cache(maxsize=256)
def _texts_and_messages(descriptor: Any) -> tuple[tuple[str, bool], ...]:
    """Fields of a message that are texts, and those that may hold some; weights are neither."""
    from google.protobuf.descriptor import FieldDescriptor

    kinds = {FieldDescriptor.TYPE_STRING: True, FieldDescriptor.TYPE_MESSAGE: False}
    return tuple((field.name, kinds[field.type]) for field in descriptor.fields if field.type in kinds)


def _escaped(name: bytes) -> str:
    return name.decode("utf-8", errors="backslashreplace")


def _unreadable(path: Path, error: str) -> str:
    with path.open("rb") as file:
        head = file.read(64)
    content = describe_content(head)
    reason = "it starts like one, so it is probably cut off" if "ONNX" in content else content
    return f"not a readable ONNX model: {reason} ({error.splitlines()[0] if error else 'no reason given'})"


def _check_external_data(path: Path, proto: Any) -> None:
    folder = Path(os.path.realpath(path.parent))
    for name, entry in _external_entries(proto):
        location = path.parent / entry["location"]
        way_out = f"Copy it beside {path.name}, or save the model with its weights inside."
        if Path(os.path.realpath(location)).parts[: len(folder.parts)] != folder.parts:
            raise ModelError(path, f"weight {name!r} lies outside the model's folder: {entry['location']}", way_out)
        if not location.is_file():
            raise ModelError(path, f"external data file {location} is missing (weight {name!r})", way_out)
        needed = int(entry.get("offset", 0)) + int(entry.get("length", 0))
        size = location.stat().st_size
        if size < needed:
            raise ModelError(
                path,
                f"external data file {location} is cut off: {size:,} bytes, weight {name!r} ends at {needed:,}",
                way_out,
            )


def _external_entries(proto: Any) -> Iterator[tuple[str, dict[str, str]]]:
    for graph in graphs(proto.graph):
        for tensor in stored_tensors(graph):
            if tensor.data_location == _EXTERNAL:
                yield tensor.name, {entry.key: entry.value for entry in tensor.external_data}


def _spec(value: Any, limits: tuple[float, float] | None) -> TensorSpec:
    tensor = value.type.tensor_type
    dims: list[Dim] = []
    for dim in tensor.shape.dim:
        dims.append(int(dim.dim_value) if dim.HasField("dim_value") else (dim.dim_param or "?"))
    return TensorSpec(value.name, dtype_name(tensor.elem_type), tuple(dims), limits)


def without_weights(proto: Any) -> Any:
    """A copy without large weights: shape inference needs small constants only, and has a 2 GiB limit."""
    import onnx

    graph = onnx.GraphProto(name=proto.graph.name)
    graph.node.extend(proto.graph.node)
    graph.input.extend(proto.graph.input)
    graph.output.extend(proto.graph.output)
    graph.value_info.extend(proto.graph.value_info)
    declared = {value.name for value in graph.input}
    for tensor in proto.graph.initializer:
        if _tensor_bytes(tensor) <= _SMALL_BYTES and tensor.data_location != _EXTERNAL:
            graph.initializer.append(tensor)
        elif tensor.name not in declared:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return onnx.ModelProto(
        ir_version=proto.ir_version, opset_import=proto.opset_import, functions=proto.functions, graph=graph
    )


def held_weights(proto: Any) -> dict[str, NDArray[Any]]:
    """The large FP32 weights of a model in memory, for many parts of it that only declare them (:func:`declared`)."""
    from onnx import numpy_helper

    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in proto.graph.initializer
        if dtype_name(tensor.data_type) == "float32"
        and tensor.data_location != _EXTERNAL
        and _tensor_bytes(tensor) > _SMALL_BYTES
    }


def declared(tensor: Any) -> Any:
    """A weight without its values, which ONNX Runtime is given apart."""
    declaration = type(tensor)(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, data_location=_EXTERNAL)
    for key, value in (("location", "held"), ("length", str(_tensor_bytes(tensor)))):
        declaration.external_data.add(key=key, value=value)
    return declaration


def _tensor_bytes(tensor: Any) -> int:
    """Bytes of a tensor's values, however they are stored."""
    if tensor.data_location == _EXTERNAL:
        length = next((int(e.value) for e in tensor.external_data if e.key == "length"), None)
        if length is not None:
            return length
    if tensor.raw_data:
        return len(tensor.raw_data)
    name = dtype_name(tensor.data_type)
    if name in ("str", "unknown"):
        return int(tensor.ByteSize())
    bits = DTYPE_BITS.get(name) or np.dtype(name).itemsize * 8
    return int(math.prod(tensor.dims)) * bits // 8
