"""A precision by its short name, in the ONNX model itself, and what an engine made of it.

Weakly typed TensorRT (8.5 to 10) takes a precision as a builder flag. Strongly typed builders (TensorRT 11,
TensorRT for RTX) and ONNX Runtime compute what the model says, so :func:`convert` writes it there: types for
FP16 and BF16, Quantize/Dequantize pairs for INT8 and FP8. Inputs and outputs stay as they are, so that one feed
fits all precisions, and so do the names of the nodes, by which layers are known.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import json
import logging
import math
import os
import re
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.engines.base import Feed
from pytest_trtgray.engines.calibration import check_method, checked_feeds, largest_values
from pytest_trtgray.engines.dtypes import dtype_name, numpy_dtype
from pytest_trtgray.engines.kernels import is_matrix_kernel
from pytest_trtgray.engines.model import Layer, coarsest
from pytest_trtgray.engines.onnx_model import (
    OnnxModel,
    external_files,
    graphs,
    node_name,
    read_names,
    stored_tensors,
    without_weights,
)
from pytest_trtgray.engines.onnx_model import dtype_name as onnx_dtype_name
from pytest_trtgray.errors import EngineError, ModelError
from pytest_trtgray.findings import Finding, some
from pytest_trtgray.logs.capture import native_stderr
from pytest_trtgray.logs.sink import SINK
from pytest_trtgray.vendor import quiet_import

PRECISIONS: Mapping[str, str] = {
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "int8": "int8",
    "fp8": "fp8",
}
"""Precisions that can be asked for, and the data type of :class:`~pytest_trtgray.engines.model.Layer`."""

CONVERSION = 1
"""Changes with what :func:`convert` does, so that models of an earlier version are not used."""

CALIBRATED = ("int8", "fp8")
"""Precisions that take ranges from inputs."""

HEAVY_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""What INT8 and FP8 quantise: the operators where the time goes. Everything between them stays in FP32."""

_FLOAT, _FLOAT16, _DOUBLE, _BFLOAT16, _FLOAT8E4M3FN = 1, 10, 11, 16, 17
_FLOATS = {_FLOAT, _FLOAT16, _DOUBLE, _BFLOAT16}
_MAX_BYTES = 2_000_000_000  # a protocol buffer ends at 2 GiB, and a conversion adds nodes
_BF16_OPSET = 22  # by then nearly all operators take BF16; those that do not stay in FP32
_QDQ_OPSET = {"int8": 13, "fp8": 19}  # scales along an axis; FP8 types
INT8_MAX = 127
_INT8_TO_FP8 = INT8_MAX / 448  # largest values of INT8 and E4M3: the range that was calibrated stays the same
_QUANTISERS = ("QuantizeLinear", "DequantizeLinear")
_INTEGER_OPS = ("QLinear", "ConvInteger", "MatMulInteger", "QGemm")
_DEFAULT_DOMAINS = ("", "ai.onnx")

_TACTIC_TYPE = re.compile(r"(?:^|_)(bf16|tf32|f16|f32|i8|s8|e4m3)(?:\1)?(?=_|$)")
_TACTIC_DTYPES = {
    "bf16": "bfloat16",
    "tf32": "float32",
    "f16": "float16",
    "f32": "float32",
    "i8": "int8",
    "s8": "int8",
    "e4m3": "fp8",
}


def precision_of(model: OnnxModel) -> str:
    """The data type that a model computes in, as in :data:`PRECISIONS`.

    The coarsest type of its quantisation if it is quantised (also ``int4`` and ``fp4``), else the type of most of
    its floating-point weights; of its inputs and outputs if it has none.
    """
    quantised = coarsest(_quantised_types(model.proto.graph))
    if quantised:
        return quantised
    elements: Counter[int] = Counter()
    for graph in graphs(model.proto.graph):
        for tensor in stored_tensors(graph):
            if tensor.data_type in _FLOATS:
                elements[tensor.data_type] += math.prod(tensor.dims)
    if not elements:
        public = (*model.proto.graph.input, *model.proto.graph.output)
        elements.update(kind for value in public if (kind := value.type.tensor_type.elem_type) in _FLOATS)
    return onnx_dtype_name(elements.most_common(1)[0][0]) if elements else "float32"


def check_precision(precision: str) -> None:
    """Refuse a precision that has no name here.

    Raises:
        EngineError: it is none of :data:`PRECISIONS`; names those.
    """
    if precision not in PRECISIONS:
        raise EngineError(f"precision={precision!r}", "is not known", f"Choose one of {', '.join(PRECISIONS)}.")


def needs_conversion(model: OnnxModel, precision: str) -> bool:
    """Whether ``model`` has to be converted to be of ``precision``; false if it is.

    Raises:
        EngineError: ``precision`` is none of :data:`PRECISIONS`.
        ModelError: the model is neither of this precision nor FP32; what was rounded cannot be had back.
    """
    check_precision(precision)
    found = precision_of(model)
    if found == PRECISIONS[precision]:
        return False
    if found != "float32":
        raise ModelError(
            model.path,
            f"is a model in {found}; {precision} can only be made from the FP32 original",
            "Give the FP32 model that it was made from, or ask for no precision to build it as it is.",
        )
    return True


def convert(path: Path, precision: str, calibration: Iterable[Feed] = (), method: str = "") -> bytes:
    """The model in another precision, whole, with its weights inside.

    Names, shapes and types of inputs and outputs and the names of nodes are kept (a node without a name gets the
    one that reports use). A model that has the precision already comes back as it is.

    FP16 and BF16: all floating-point tensors but those of a few operators (ONNX Runtime's ``op_block_list``, and
    those that know no such type). Values out of range become the largest finite value. INT8 and FP8: Q/DQ pairs
    around the inputs and weights of :data:`HEAVY_OPS`; symmetric; INT8 weights with a scale a channel, FP8 with one
    scale. Ranges of activations are the largest absolute values seen in the calibration (scales that follow the
    standard deviation, ONNX Runtime's way for FP8, cut outliers off), unless ``method`` says otherwise.

    Args:
        path: the FP32 ONNX file, with or without external data.
        precision: a key of :data:`PRECISIONS`.
        calibration: representative inputs for INT8 and FP8; not looked at otherwise.
        method: of :mod:`~pytest_trtgray.engines.calibration`; ``minmax`` by default.

    Returns:
        the serialised ModelProto. The same model and feeds give the same bytes.

    Raises:
        ModelError: it cannot be had from this model: other precision, above 2 GiB, opset too old, local functions,
            nothing to quantise, or an operator that the conversion breaks.
        EngineError: unknown precision, unusable calibration, or ONNX Runtime is missing.
        ShapeError: a calibration input has another name or shape than the model's.
    """
    import onnx

    model = OnnxModel(path)
    wanted = needs_conversion(model, precision)
    _check_size(model)
    proto = onnx.load(str(path))
    if wanted:
        _check_convertible(path, proto, precision)
        was_valid = not _complaint(proto)
        _prepare(proto)
        if precision in _QDQ_OPSET:
            check_method(method, precision)
            proto = _quantised(model, proto, precision, tuple(calibration), method or "minmax")
        else:
            proto = _narrowed(path, proto, precision)
        complaint = _complaint(proto) if was_valid else ""
        if complaint:
            raise _cannot(path, precision, complaint)
    return bytes(proto.SerializeToString(deterministic=True))


def calibration_digest(feeds: Iterable[Feed]) -> str:
    """SHA-256 over the feeds in order: names, types, shapes and values."""
    digest = hashlib.sha256()
    for feed in feeds:
        digest.update(f"{len(feed)};".encode())
        for name in sorted(feed):
            array = np.asarray(feed[name])
            # The header fixes the length of what follows, so that no two sets of feeds read the same.
            digest.update(json.dumps([name, dtype_name(array.dtype), array.shape]).encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def built_precision_finding(wanted: str, layers: Sequence[Layer]) -> Finding | None:
    """What an engine made of the precision that was asked for; ``None`` if all of its heavy layers have it.

    Heavy are convolutions, matrix products and attention; of an engine without any, all layers count. Copies,
    quantisers and pointwise layers do not: they are in FP32 in every INT8 engine.

    Args:
        wanted: a key of :data:`PRECISIONS`.
        layers: of the built engine.

    Returns:
        ``precision.not-honoured``, a warning, if no heavy layer computes in ``wanted``; ``precision.partly``, a
        warning if less than half of them do, else advice. What must not be is for a test to say, with
        ``engine.layer(node).precision``: a weakly typed builder may choose.
    """
    dtype = PRECISIONS[wanted]
    judged = {
        layer.title: layer for layer in layers if is_matrix_kernel(layer)
    }  # once, however many profiles there are
    noun = "convolutions and matrix products"
    if not judged:
        judged = {layer.title: layer for layer in layers if layer.precision}
        noun = "layers"
    found: dict[str, list[str]] = {}
    for title, layer in judged.items():
        found.setdefault(_computes_in(layer), []).append(title)
    unknown = len(found.pop("", ()))
    honoured, total = len(found.get(dtype, ())), sum(map(len, found.values()))
    # Without heavy layers, the casts of inputs and outputs are no reason to speak; also where nothing is known.
    if honoured == total or (honoured and noun == "layers"):
        return None
    others = {name: titles for name, titles in sorted(found.items()) if name != dtype}
    where = "; ".join(f"{_short_name(name)}: {some(titles)}" for name, titles in others.items())
    if not honoured:
        return Finding(
            "warning",
            f"precision={wanted}",
            f"{wanted} was asked for, and none of the {total} {noun} computes in it; {where}",
            "precision.not-honoured",
            {"honoured": 0, "total": total, "unknown": unknown},
            "Look for the reason in the log of the build: hardware without this type, missing scales, or faster "
            "kernels in another precision. If it is meant to be so, ask for the precision that was built.",
        )
    return Finding(
        "warning" if 2 * honoured < total else "advice",
        f"precision={wanted}",
        f"{honoured} of {total} {noun} compute in {wanted}; {where}",
        "precision.partly",
        {"honoured": honoured, "total": total, "unknown": unknown},
        "The builder takes another precision where it is faster or where no kernel exists.",
    )


def _computes_in(layer: Layer) -> str:
    """The type of a layer's operands; TensorRT 8 tells it only in the kernel's name for dynamic shapes."""
    if layer.precision:
        return layer.precision
    match = _TACTIC_TYPE.search(layer.tactic)
    return _TACTIC_DTYPES[match[1]] if match else ""


def _short_name(dtype: str) -> str:
    return next((short.upper() for short, name in PRECISIONS.items() if name == dtype), dtype)


def _cannot(path: Path, precision: str, reason: str) -> ModelError:
    return ModelError(
        path,
        f"cannot be converted to {precision}: {reason}",
        f"Make the {precision} model with the exporter or with NVIDIA ModelOpt, and give that one.",
    )


def _check_size(model: OnnxModel) -> None:
    size = model.proto.ByteSize() + sum(part.stat().st_size for part in external_files(model.path, model.proto))
    if size > _MAX_BYTES:
        raise ModelError(
            model.path,
            f"has {size / 1e9:.1f} GB; above {_MAX_BYTES / 1e9:.0f} GB it cannot be converted (ONNX ends at 2 GiB)",
            "Convert it with the exporter or with NVIDIA ModelOpt, and give that model without a precision.",
        )


def _check_convertible(path: Path, proto: Any, precision: str) -> None:
    if proto.functions:
        raise ModelError(
            path,
            f"has local functions ({proto.functions[0].name}), which cannot be converted to {precision}",
            "Inline them first: onnx.inliner.inline_local_functions(model).",
        )
    if precision in _QDQ_OPSET:
        if not any(node.op_type in HEAVY_OPS for node in proto.graph.node):
            raise ModelError(
                path,
                f"has nothing to quantise: no {', '.join(HEAVY_OPS[:-1])} or {HEAVY_OPS[-1]} in its main graph",
                "Build it in fp16 or fp32.",
            )
        _check_opset(path, proto, precision, _QDQ_OPSET[precision], "its Q/DQ nodes")


def _check_opset(path: Path, proto: Any, precision: str, needed: int, reason: str) -> None:
    if _opset(proto) < needed:
        raise ModelError(
            path,
            f"has opset {_opset(proto)}; {precision} needs opset {needed} for {reason}",
            f"Export it with opset {needed}, or save onnx.version_converter.convert_version(model, {needed}).",
        )


def _opset(proto: Any) -> int:
    return max((int(entry.version) for entry in proto.opset_import if entry.domain in _DEFAULT_DOMAINS), default=1)


def _complaint(proto: Any) -> str:
    """What ONNX's checker finds wrong, types included; empty for a valid model."""
    import onnx

    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:  # ValidationError, InferenceError, and what protobuf raises
        return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return ""


def _prepare(proto: Any) -> None:
    """Name all nodes while tensors have their own names; weights are no inputs."""
    for node in proto.graph.node:
        node.name = node_name(node)
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    if len(inputs) < len(proto.graph.input):
        proto.ir_version = max(proto.ir_version, 4)  # before, every weight had to be an input
        del proto.graph.input[:]
        proto.graph.input.extend(inputs)


# -- FP16 and BF16


def _narrowed(path: Path, proto: Any, precision: str) -> Any:
    """The model in a 16-bit type, through ONNX Runtime's converter to FP16, which changes ``proto``."""
    library = quiet_import("onnxruntime.transformers.float16")
    blocked = _blocked(proto, precision, library.DEFAULT_OP_BLOCK_LIST)
    for graph in graphs(proto.graph):
        _make_types_explicit(graph, blocked)
    node_count = len(proto.graph.node)
    original = type(proto)()
    if precision == "bf16":
        original.CopyFrom(proto)
    try:
        _add_types(proto)
    except Exception as error:  # its classes differ between versions of onnx
        raise _cannot(path, precision, f"ONNX's type inference fails: {error}") from error
    _check_types_known(path, proto, precision, blocked)
    try:
        with native_stderr():
            narrowed = library.convert_float_to_float16(
                proto,
                keep_io_types=True,
                disable_shape_infer=True,
                op_block_list=sorted(blocked),
            )
    except Exception as error:  # such as its assertion that no two weights have one name
        raise _cannot(path, precision, f"ONNX Runtime's converter fails: {error!r}") from error
    for graph in graphs(narrowed.graph):
        for node in graph.node:
            for attribute in node.attribute:
                if not attribute.t.data_type:
                    attribute.ClearField("t")  # the converter leaves an empty tensor in every attribute
    if precision == "bf16":
        _check_bf16_opset(path, narrowed)
        _retarget(original.graph, narrowed.graph)
    _put_casts_in_place(narrowed.graph, node_count)
    return narrowed


def _add_types(proto: Any) -> None:
    """Infer the types and shapes of all tensors; without the weights, which take seconds to be copied to and fro."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(without_weights(proto))
    for graph, typed in zip(graphs(proto.graph), graphs(inferred.graph), strict=True):
        for known, found in ((graph.value_info, typed.value_info), (graph.output, typed.output)):
            del known[:]
            known.extend(found)


def _blocked(proto: Any, precision: str, blocked: Iterable[str]) -> set[str]:
    """Operators that stay in FP32: those of the library, and those that know FP32 but not this type."""
    # An operator that learns BF16 by opset 22 is not one of them: the model's opset is too old.
    opset = max(_opset(proto), _BF16_OPSET) if precision == "bf16" else _opset(proto)
    used = {node.op_type for graph in graphs(proto.graph) for node in graph.node if node.domain in _DEFAULT_DOMAINS}
    unfit = {op for op in used if _takes(op, "float", opset) and not _takes(op, PRECISIONS[precision], opset)}
    return unfit.union(blocked)


def _takes(op: str, dtype: str, opset: int) -> bool:
    """Whether an ONNX operator has a type parameter that may be ``dtype``; true for one that ONNX does not know."""
    import onnx

    try:
        schema = onnx.defs.get_schema(op, opset)
    except onnx.defs.SchemaError:
        return True
    return any(f"tensor({dtype})" in constraint.allowed_type_strs for constraint in schema.type_constraints)


def _check_types_known(path: Path, proto: Any, precision: str, blocked: set[str]) -> None:
    """Refuse a node that stays in FP32 where its casts are not known: the converter would leave them out."""
    parts = list(graphs(proto.graph))
    known = {value.name for graph in parts for value in (*graph.input, *graph.output, *graph.value_info)}
    known |= {tensor.name for graph in parts for tensor in graph.initializer}
    for graph in parts:
        for node in graph.node:
            unknown = {*node.input, *node.output} - known - {""}
            if node.op_type in blocked and unknown:
                raise _cannot(path, precision, f"the type of {min(unknown)!r} at {node_name(node)} is not known")


def _make_types_explicit(graph: Any, blocked: set[str]) -> None:
    """Write down types that the converter would miss, and keep exact what stays in FP32."""
    from onnx import helper, numpy_helper

    exact = {name for node in graph.node if node.op_type in blocked | {"Resize"} for name in node.input}
    kept = []
    for node in graph.node:
        if node.domain in _DEFAULT_DOMAINS and node.op_type == "ConstantOfShape" and not node.attribute:
            node.attribute.append(helper.make_attribute("value", helper.make_tensor("value", _FLOAT, [1], [0.0])))
        if node.domain in _DEFAULT_DOMAINS and node.op_type == "Constant" and len(node.attribute) == 1:
            attribute, (output,) = node.attribute[0], node.output
            if attribute.name in ("value_float", "value_floats"):
                values = np.asarray(helper.get_attribute_value(attribute), np.float32)
                graph.initializer.append(numpy_helper.from_array(values, output))
                continue
            # As an initializer it is not rounded and widened again, and TensorRT wants scales to be constant.
            if attribute.name == "value" and attribute.t.data_type == _FLOAT and output in exact:
                graph.initializer.append(attribute.t)
                graph.initializer[-1].name = output
                continue
        kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _check_bf16_opset(path: Path, narrowed: Any) -> None:
    """Refuse operators on 16-bit tensors that take BF16 only from a later opset on."""
    have = _opset(narrowed)
    missing: dict[str, int] = {}
    for graph in graphs(narrowed.graph):
        small = {tensor.name for tensor in graph.initializer if tensor.data_type == _FLOAT16}
        small |= {value.name for value in graph.value_info if value.type.tensor_type.elem_type == _FLOAT16}
        for node in graph.node:
            if node.domain not in _DEFAULT_DOMAINS or not small & {*node.input, *node.output}:
                continue
            fit = (opset for opset in range(have, _BF16_OPSET + 1) if _takes(node.op_type, "bfloat16", opset))
            first = next(fit, have)
            if first > have:
                missing[node.op_type] = first
    if missing:
        _check_opset(path, narrowed, "bf16", max(missing.values()), ", ".join(sorted(missing)))


def _retarget(original: Any, narrowed: Any) -> None:
    """Turn FP16 into BF16, with weights rounded once, from FP32."""
    from onnx import numpy_helper

    # The converter adds nodes behind the others, so both graphs hold the same tensors in the same order.
    sources = [tensor for graph in graphs(original) for tensor in stored_tensors(graph)]
    targets = [tensor for graph in graphs(narrowed) for tensor in stored_tensors(graph)]
    for source, target in zip(sources, targets, strict=True):
        if target.data_type == _FLOAT16:
            target.CopyFrom(_bfloat16_tensor(target.name, numpy_helper.to_array(source)))
    for graph in graphs(narrowed):
        for value in (*graph.input, *graph.output, *graph.value_info):
            for kind in (value.type.tensor_type, value.type.sequence_type.elem_type.tensor_type):
                if kind.elem_type == _FLOAT16:
                    kind.elem_type = _BFLOAT16
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in ("to", "dtype") and attribute.i == _FLOAT16:
                    attribute.i = _BFLOAT16


def _bfloat16_tensor(name: str, values: NDArray[Any]) -> Any:
    from onnx import helper

    bfloat16 = numpy_dtype("bfloat16")
    largest = np.array(0x7F7F, np.uint16).view(bfloat16).astype(np.float32)
    # The most negative FP32, a usual mask, would round to -inf, and 0 * -inf is NaN.
    finite = np.where(np.isfinite(values), np.clip(values, -largest, largest), values)
    return helper.make_tensor(name, _BFLOAT16, values.shape, finite.astype(bfloat16).tobytes(), raw=True)


def _put_casts_in_place(graph: Any, count: int) -> None:
    """Bring the nodes that the converter appended to the main graph to where they belong, each once.

    Args:
        graph: of the converted model; changed in place.
        count: nodes of the original's main graph.
    """
    casts = list(graph.node[count:])
    del graph.node[count:]
    for part in reversed(list(graphs(graph))):  # inner graphs first: putting nodes in order copies them
        made = {value.name for value in part.input} | {tensor.name for tensor in part.initializer}
        made |= {name for node in part.node for name in node.output}
        pending = {cast.output[0]: cast for cast in casts}  # a tensor with two readers is cast twice
        while ready := [name for name, cast in pending.items() if cast.input[0] in made]:
            made.update(ready)
            part.node.extend(pending.pop(name) for name in ready)
        ordered = _in_order(part.node)
        del part.node[:]
        part.node.extend(ordered)
        known = {value.name: value for value in part.value_info if value.name in made}
        del part.value_info[:]
        part.value_info.extend(known.values())


def _in_order(nodes: Iterable[Any]) -> list[Any]:
    """Nodes after those that they read from, otherwise as they were."""
    copies = []
    for node in nodes:
        copies.append(type(node)())
        copies[-1].CopyFrom(node)
    maker = {name: index for index, node in enumerate(copies) for name in node.output if name}
    readers: dict[int, list[int]] = {}
    waiting = []
    for index, node in enumerate(copies):
        needed = {maker[name] for name in read_names(node) if name in maker} - {index}
        waiting.append(len(needed))
        for source in needed:
            readers.setdefault(source, []).append(index)
    ready = [index for index, count in enumerate(waiting) if not count]
    ordered = []
    while ready:
        index = heapq.heappop(ready)
        ordered.append(copies[index])
        for reader in readers.get(index, ()):
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    return ordered if len(ordered) == len(copies) else copies  # a cycle is for the checker to name


# -- INT8 and FP8


def _quantised(model: OnnxModel, proto: Any, precision: str, calibration: Sequence[Feed], method: str) -> Any:
    """The model with Q/DQ pairs around what its heavy operators read."""
    import onnx

    library = quiet_import("onnxruntime.quantization")
    reader = _reader(library.CalibrationDataReader, checked_feeds(model, precision, calibration))
    with tempfile.TemporaryDirectory(prefix="trtgray-") as folder:
        source, target = Path(folder) / "model.onnx", Path(folder) / "quantised.onnx"
        source.write_bytes(proto.SerializeToString())
        try:
            with _quiet_quantiser(), native_stderr():
                library.quantize_static(
                    str(source),
                    str(target),
                    reader,
                    quant_format=library.QuantFormat.QDQ,
                    op_types_to_quantize=list(HEAVY_OPS),
                    per_channel=precision == "int8",
                    activation_type=library.QuantType.QInt8,
                    weight_type=library.QuantType.QInt8,
                    calibrate_method=library.CalibrationMethod.MinMax,
                    extra_options={
                        "ActivationSymmetric": True,
                        "WeightSymmetric": True,
                        # TensorRT parses no INT32 bias, and wants weights with a Quantize of their own.
                        "QuantizeBias": False,
                        "AddQDQPairToWeight": True,
                        # Results are rounded where the next heavy operator reads them, not twice.
                        "OpTypesToExcludeOutputQuantization": list(HEAVY_OPS),
                    },
                )
        except EngineError:  # of the feeds
            raise
        except Exception as error:
            raise _cannot(model.path, precision, str(error).splitlines()[0] if str(error) else repr(error)) from error
        quantised = onnx.load(str(target))
    if not quantised.graph.node or not any(node.op_type in _QUANTISERS for node in quantised.graph.node):
        raise _cannot(model.path, precision, "ONNX Runtime found no tensor to quantise")
    _check_scales(model.path, quantised)
    if method != "minmax":
        _choose_ranges(model, quantised, calibration, method)
    if precision == "fp8":
        _to_fp8(quantised)
    return quantised


def _reader(base: Any, feeds: Iterator[dict[str, NDArray[Any]]]) -> Any:
    class Reader(base):  # type: ignore[misc]
        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(feeds, None)

    return Reader()


def _check_scales(path: Path, proto: Any) -> None:
    from onnx import numpy_helper

    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type in _QUANTISERS:
            scale = numpy_helper.to_array(weights[node.input[1]])
            if not (np.isfinite(scale).all() and (scale > 0).all()):
                raise EngineError(
                    path,
                    f"the calibration gives tensor {node.input[0]!r} no finite range",
                    "Look for NaN and infinity in what the FP32 model computes from these inputs.",
                )


def activation_scales(proto: Any) -> dict[str, str]:
    """The name of the scale by that of the activation, for the quantisers of a model that :func:`convert` made."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    return {
        node.input[0]: node.input[1]
        for node in proto.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in weights
    }


def _choose_ranges(model: OnnxModel, proto: Any, calibration: Sequence[Feed], method: str) -> None:
    """Put the scales of another method in place of those of the largest values."""
    from onnx import numpy_helper

    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    scales = {name: weights[scale] for name, scale in activation_scales(proto).items()}
    peaks = {name: float(numpy_helper.to_array(scale)) * INT8_MAX for name, scale in scales.items()}
    for name, largest in largest_values(model, calibration, peaks, method).items():
        scales[name].CopyFrom(numpy_helper.from_array(np.array(largest / INT8_MAX, np.float32), scales[name].name))


def _to_fp8(proto: Any) -> None:
    """Turn INT8's scales into those of E4M3 for the same range."""
    from onnx import helper, numpy_helper

    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    pairs = {(node.input[1], node.input[2]) for node in proto.graph.node if node.op_type in _QUANTISERS}
    for scale_name in {scale for scale, _ in pairs}:
        scale = numpy_helper.to_array(weights[scale_name])
        scaled = np.asarray(scale * np.float32(_INT8_TO_FP8), np.float32)
        weights[scale_name].CopyFrom(numpy_helper.from_array(scaled, scale_name))
    for zero_name in {zero for _, zero in pairs}:
        dims = weights[zero_name].dims
        zeros = bytes(math.prod(dims))
        weights[zero_name].CopyFrom(helper.make_tensor(zero_name, _FLOAT8E4M3FN, dims, zeros, raw=True))


@contextlib.contextmanager
def _quiet_quantiser() -> Iterator[None]:
    """Take the quantiser's advice, which goes to the root logger, into the log sink instead.

    ``logging.warning`` would also install a handler for the whole process if there is none.
    """
    root, thread = logging.getLogger(), threading.get_ident()
    package = f"{os.sep}onnxruntime{os.sep}quantization{os.sep}"

    def is_of_others(record: logging.LogRecord) -> bool:
        if record.thread != thread or package not in record.pathname:
            return True
        SINK.say("info", "onnxruntime", record.getMessage())
        return False

    placeholder = logging.NullHandler()
    root.addHandler(placeholder)
    root.addFilter(is_of_others)
    try:
        yield
    finally:
        root.removeFilter(is_of_others)
        root.removeHandler(placeholder)


# -- graphs


def _quantised_types(graph: Any) -> Iterator[str]:
    """The types that a graph is quantised to, by its Q/DQ nodes and integer operators."""
    for part in graphs(graph):
        kinds = {tensor.name: tensor.data_type for tensor in part.initializer}
        for node in part.node:
            if node.op_type == "Constant":
                kinds.update((node.output[0], attribute.t.data_type) for attribute in node.attribute)
        for node in part.node:
            if node.op_type in _QUANTISERS:
                declared = next((a.i for a in node.attribute if a.name == "output_dtype"), 0)
                stored = kinds.get(node.input[0], 0) if node.op_type == "DequantizeLinear" else declared
                zero = kinds.get(node.input[2], 0) if len(node.input) > 2 else 0
                # ONNX: UINT8 where neither a zero point nor an attribute says otherwise
                fallback = "uint8" if node.op_type == "QuantizeLinear" else ""
                yield onnx_dtype_name(zero or stored) if zero or stored else fallback
            elif node.op_type.startswith(_INTEGER_OPS):
                yield "int8"
