"""Why the nodes between two tensors compute something else than the reference: what can be read off the models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from pytest_trtgray.accuracy.reference_graph import QUANTISE, SAME_VALUES, Magnitude, ReferenceGraph
from pytest_trtgray.accuracy.tracing import Measured, Trace
from pytest_trtgray.engines.dtypes import numpy_dtype
from pytest_trtgray.engines.model import PRECISION_ORDER
from pytest_trtgray.engines.onnx_model import OnnxModel, OnnxNode

NORMS = ("LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization", "ReduceL2",
         "SimplifiedLayerNormalization", "LpNormalization", "ReduceSumSquare")  # fmt: skip
"""Operators that square what they read."""
_ROUNDED = {"float64": 1e-12, "float32": 1e-6, "float16": 2e-3, "bfloat16": 2e-2}
"""Relative L2 difference up to which a weight of a type counts as the reference's, rounded."""
_SHORT = {"float16": "FP16", "bfloat16": "BF16", "float32": "FP32", "float64": "FP64"}
_NOT_ALL_OF_IT = 0.3
"""A quantiser explains an error if it makes that part of it by itself."""
_CLIPPING = 1e-3
_KEEP = "Keep it in FP32 (trt_build(precision=...) from a model that casts around it), or scale what it reads."


@dataclass(frozen=True)
class Cause:
    """What is known of why.

    Attributes:
        what: a sentence without its subject, which is the node: "overflows: ...".
        node: of the engine's model; ``None`` where the cause does not tell one of several nodes.
        remedy: what to do.
    """

    what: str = ""
    node: OnnxNode | None = None
    remedy: str = ""


def why_not_finite(trace: Trace, measured: Measured) -> Cause:
    """The cause of the first NaN or infinity: an overflow, a division by zero, a root or logarithm of the wrong sign.

    Read off the magnitudes of what FP32 computes from the engine's own inputs of the segment.
    """
    segment = trace.segments[measured.name]
    found = trace.magnitudes(measured.name)
    limits = _limits(measured.dtype)
    for magnitude in found.values():
        node = magnitude.node
        if node is None:
            continue
        read = [found[name] for name in node.inputs if name in found]
        if not math.isfinite(magnitude.largest):
            return _invalid(node, found)
        if magnitude.largest > limits.largest:
            return Cause(
                f"overflows: its result reaches {magnitude.largest:.3g}, {limits.name} ends at {limits.largest:.6g}"
                f"{_read(read)}",
                _own(segment.nodes, node),
                _KEEP,
            )
        divisor = found.get(node.inputs[1]) if node.op_type == "Div" and len(node.inputs) > 1 else None
        if divisor is not None and divisor.smallest < limits.smallest:
            return Cause(
                f"divides by zero: its divisor gets as small as {divisor.smallest:.3g}, which is 0 in {limits.name}",
                _own(segment.nodes, node),
                _KEEP,
            )
    last = segment.nodes[-1]
    largest = max((found[name].largest for name in found if found[name].node is None), default=0.0)
    if last.op_type in SAME_VALUES and largest > limits.largest:
        what = f"overflows: it reads values up to {largest:.3g}, {limits.name} ends at {limits.largest:.6g}"
        return Cause(what, last, _KEEP)
    for node in segment.nodes:
        if node.op_type in NORMS and largest**2 > limits.largest:
            what = (
                f"overflows: it squares values up to {largest:.3g}, that is {largest**2:.3g}, and {limits.name} ends at "
                f"{limits.largest:.6g}"
            )
            return Cause(what, node, _KEEP)
    return Cause(f"computes it from finite values up to {largest:.3g}, from which FP32 gets finite ones")


def why_wrong(measured: Measured, segment: Segment, graph: ReferenceGraph, feed: Arrays) -> Cause:
    """The cause of a finite error: a scale that clips or is too coarse, or a weight that is not the reference's."""
    candidates = [_quantiser(node, segment.nodes, graph, feed) for node in segment.nodes if node.op_type == QUANTISE]
    candidates += [_stored(node, graph, feed) for node in segment.nodes if node.op_type == DEQUANTISE]
    error, cause = max(candidates, key=lambda found: found[0], default=(0.0, Cause()))
    if error >= _NOT_ALL_OF_IT * measured.made_here:
        return cause
    for node in segment.nodes:
        for name in node.inputs:
            if difference := _other_weight(name, graph):
                remedy = "Export the engine's model and its reference from one checkpoint."
                return Cause(f"its weight {name!r} {difference}", node, remedy)
    return Cause()


@dataclass(frozen=True)
class _Limits:
    name: str
    largest: float
    smallest: float
    """Below this, a value is rounded to zero."""


def _limits(dtypes: Iterable[str]) -> _Limits:
    """Of the coarsest floating-point type among some."""
    import ml_dtypes

    name = coarsest(dtype for dtype in dtypes if dtype in FLOATS) or "float32"
    info = ml_dtypes.finfo(numpy_dtype(name))
    return _Limits(_SHORT[name], float(info.max), float(info.smallest_subnormal) / 2)


def _invalid(node: OnnxNode, read: Sequence[Magnitude]) -> Cause:
    """Of a node whose result is not finite in FP32 either, computed from the engine's values."""
    last = read[-1] if read else Magnitude(0.0, 1.0, 0.0)
    if node.op_type in ("Div", "Reciprocal") and last.smallest == 0:
        return Cause("divides by zero: its divisor is 0 in the engine", node, _KEEP)
    if node.op_type in ("Sqrt", "Pow") and read and read[0].lowest < 0:
        return Cause(f"takes a root of negative values, down to {read[0].lowest:.3g}", node, _KEEP)
    if node.op_type == "Log" and last.lowest <= 0:
        return Cause(f"takes the logarithm of values down to {last.lowest:.3g}", node, _KEEP)
    return Cause(f"is not finite in FP32 either, from the engine's values{_read(read)}", node)


def _read(read: Sequence[Magnitude]) -> str:
    return f"; what it reads reaches {max(each.largest for each in read):.3g}" if read else ""


def _quantiser(
    node: OnnxNode, nodes: Sequence[OnnxNode], graph: ReferenceGraph, feed: Arrays
) -> tuple[float, Cause]:  # fmt: skip
    """What a quantiser and its dequantiser do to the reference's values: the relative error, and what it comes from."""
    model = graph.tested
    back = next((other for other in nodes if other.op_type == DEQUANTISE and node.outputs[0] in other.inputs), node)
    values = _reference_values(node.inputs[0], graph, feed)
    pair = [_constants(each, model) for each in (node, back)]
    if values is None or pair[0] is None or pair[1] is None:
        return 0.0, Cause()
    (scale, zero), (scale_back, zero_back) = pair[0], pair[1]
    axis = model.attribute(node, "axis", 1)
    scale, zero, scale_back, zero_back = (_spread(part, values.ndim, axis) for part in (scale, zero, scale_back, zero_back))
    low, high = _range_of(zero.dtype)
    steps = np.rint(values / scale) + zero.astype(np.float64)
    clipped = float(np.mean((steps < low) | (steps > high)))
    result = (np.clip(steps, low, high) - zero_back.astype(np.float64)) * scale_back
    error = relative_l2(result, values)
    if not np.array_equal(scale, scale_back):
        what = f"quantises with a scale of {_shown(scale)}, and is dequantised with {_shown(scale_back)}"
    elif clipped > _CLIPPING:
        what = (
            f"clips {clipped:.2g} of its values: its scale of {_shown(scale)} reaches to "
            f"{float(np.max(scale)) * high:.3g}, they reach {float(np.abs(values).max()):.3g}"
        )
    else:
        what = f"is too coarse: steps of {_shown(scale)} for values of {float(np.sqrt(np.mean(values**2))):.3g} (rms)"
    return error, Cause(what, node, "Calibrate this tensor again, with real inputs.")
