"""Why the nodes between two tensors compute something else than the reference: what models and magnitudes tell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.accuracy.quantisers import DEQUANTISE, QUANTISE, Constants, Quantiser, find_quantisers
from pytest_trtgray.accuracy.reference_graph import SAME_VALUES, Magnitude, ReferenceGraph
from pytest_trtgray.accuracy.rounding import quantise, spread
from pytest_trtgray.accuracy.tracing import Measured, Segment, Trace
from pytest_trtgray.engines.dtypes import dtype_name, numpy_dtype
from pytest_trtgray.engines.model import coarsest
from pytest_trtgray.engines.onnx_model import FLOATS, OnnxNode

Arrays = Mapping[str, NDArray[Any]]

SQUARING = ("GroupNormalization", "InstanceNormalization", "LayerNormalization", "LpNormalization",
            "RMSNormalization", "ReduceL2", "ReduceSumSquare", "SimplifiedLayerNormalization")  # fmt: skip
"""Operators that square what they read, and may do so in the type that they read."""
_SHORT = {"float16": "FP16", "bfloat16": "BF16", "float32": "FP32", "float64": "FP64"}
_HALF = ("FP16", "BF16")
_ROUNDED = {"float64": 1e-9, "float32": 1e-6, "float16": 2e-3, "bfloat16": 2e-2}
"""Relative L2 difference up to which a weight of this type counts as the reference's, rounded."""
_EXPLAINS = 0.3
"""A quantiser explains an error if by itself it makes this part of it."""
_PROPORTIONAL = 0.1
"""What may be left of a difference if all values are multiplied by one number, as a part of the difference."""
_KEEP = "Keep this node in FP32, or scale what it reads so that it fits."
_CHECK = "Check the model and the input: this is no fault of the engine."
_RECALIBRATE = "Calibrate this tensor again, with real inputs; inspect_quantisation shows all scales."
_ONE_CHECKPOINT = "Export the engine's model and its reference from one checkpoint."


@dataclass(frozen=True)
class Cause:
    """What is known of why.

    Attributes:
        what: a sentence without its subject, the node; empty if nothing is known.
        node: the one of several nodes, where the cause tells it.
        remedy: what to do.
    """

    what: str = ""
    node: OnnxNode | None = None
    remedy: str = ""


def why_not_finite(trace: Trace, measured: Measured, dtypes: Iterable[str]) -> Cause:
    """The cause of the first NaN or infinity: an overflow, a division by zero, a root or logarithm that is not real.

    Args:
        trace: of the engine.
        measured: the tensor.
        dtypes: in which the segment may compute, besides the tensor's own.
    """
    found = trace.magnitudes(measured.name)
    remedy = _CHECK if measured.reference_non_finite else _KEEP
    cause = _out_of_range(trace.segments[measured.name], found, _limits([measured.dtype, *dtypes]), remedy)
    largest = max((magnitude.largest for magnitude in found.values() if magnitude.node is None), default=0.0)
    return cause or Cause(f"makes NaN or infinity of values up to {largest:.3g}, which FP32 does not", None, remedy)


def why_wrong(trace: Trace, measured: Measured, dtypes: Iterable[str], graph: ReferenceGraph) -> Cause:
    """The cause of a finite error: a scale that clips or is too coarse, an overflow, a weight that is another one.

    An infinity need not be seen: a layer normalisation divides by it, and gives 0.

    Args:
        trace: of the engine.
        measured: the tensor.
        dtypes: in which the segment may compute, besides the tensor's own.
        graph: the reference's.
    """
    segment, constants = trace.segments[measured.name], Constants(graph.tested)
    known = {quantiser.node: quantiser for quantiser in find_quantisers(graph.tested)[0]}
    judged = [
        _judge(known[node.name], node, segment, graph, trace.reference_feed)
        for node in segment.nodes
        if node.name in known
    ]
    error, cause = max(judged, key=lambda pair: pair[0], default=(0.0, Cause()))
    if error >= _EXPLAINS * measured.made_here:
        return cause
    added = [node for node in segment.nodes if node.name in graph.added]
    if added:
        remedy = "Give the FP32 model that the engine's model was made from."
        return Cause("is not in the reference", added[0], remedy)
    limits = _limits([measured.dtype, *dtypes])
    magnitudes = trace.magnitudes(measured.name) if limits.name in _HALF else {}
    if all(math.isfinite(each.largest) for each in magnitudes.values() if each.node is None) and (
        found := _out_of_range(segment, magnitudes, limits, _KEEP)
    ):
        return found
    for node in segment.nodes:
        for name in node.inputs if node.op_type not in (QUANTISE, DEQUANTISE) else node.inputs[:1]:
            difference = _other_weight(name, constants, graph)
            if difference:
                return Cause(f"has a weight, {name!r}, that {difference}", node, _ONE_CHECKPOINT)
    return Cause()


def _out_of_range(
    segment: Segment, found: Mapping[str, Magnitude], limits: _Limits, remedy: str
) -> Cause | None:  # fmt: skip
    """The first node whose result a type does not hold, by what FP32 computes from the engine's values before it."""
    for magnitude in found.values():
        node = magnitude.node
        if node is None:
            continue
        read = [found[name] for name in node.inputs if name in found]
        if not math.isfinite(magnitude.largest):
            return Cause(_undefined(node, read), _own(segment, node), remedy)
        divisor = found.get(node.inputs[1]) if node.op_type == "Div" else None
        if divisor is not None and divisor.smallest < limits.smallest:
            what = f"divides by zero: its divisor gets down to {divisor.smallest:.3g}, which is 0 in {limits.name}"
            return Cause(what, _own(segment, node), remedy)
        if magnitude.largest > limits.largest:
            reach = f"; what it reads reaches {max(each.largest for each in read):.3g}" if read else ""
            what = f"overflows: its result reaches {magnitude.largest:.3g}, {limits.end}{reach}"
            return Cause(what, _own(segment, node), remedy)
    largest = max((magnitude.largest for magnitude in found.values() if magnitude.node is None), default=0.0)
    for node in segment.nodes:
        if node.op_type in SAME_VALUES and largest > limits.largest:
            return Cause(f"overflows: it reads values up to {largest:.3g}, {limits.end}", node, remedy)
        if node.op_type in SQUARING and largest**2 > limits.largest:
            what = f"overflows: it squares values up to {largest:.3g}, that is {largest**2:.3g}, {limits.end}"
            return Cause(what, node, remedy)
    return None


@dataclass(frozen=True)
class _Limits:
    name: str
    largest: float
    smallest: float
    """What is below is rounded to zero."""

    @property
    def end(self) -> str:
        return f"{self.name} ends at {self.largest:.6g}"


def _limits(dtypes: Iterable[str]) -> _Limits:
    """Of the coarsest floating-point type among some."""
    import ml_dtypes

    name = coarsest(dtype for dtype in dtypes if dtype in FLOATS) or "float32"
    info = ml_dtypes.finfo(numpy_dtype(name))
    return _Limits(_SHORT[name], float(info.max), float(info.smallest_subnormal) / 2)


def _own(segment: Segment, node: OnnxNode) -> OnnxNode:
    """The node of the engine's model for one of the reference's."""
    return next((own for own in segment.nodes if own.name == node.name), node)


def _undefined(node: OnnxNode, read: Sequence[Magnitude]) -> str:
    """Why a node's result is not finite in FP32 either, if the engine's values are finite."""
    if node.op_type in ("Div", "Reciprocal") and read and read[-1].smallest == 0:
        return "divides by zero: its divisor is 0 in the engine"
    if node.op_type in ("Sqrt", "Pow") and read and read[0].lowest < 0:
        return f"takes a root of negative values, down to {read[0].lowest:.3g}"
    if node.op_type == "Log" and read and read[0].lowest <= 0:
        return f"takes the logarithm of values down to {read[0].lowest:.3g}"
    return "gives NaN or infinity in FP32, too, from the engine's values"


def _judge(
    quantiser: Quantiser, node: OnnxNode, segment: Segment, graph: ReferenceGraph, feed: Arrays
) -> tuple[float, Cause]:
    """The relative error that a quantiser makes of the reference's values, and what it comes from."""
    tensor = graph.tensor_of.get(node.outputs[0] if quantiser.is_stored else node.inputs[0], "")
    if quantiser.levels is None or not tensor:
        return 0.0, Cause()
    values = graph.compute([tensor], feed)[tensor]
    scale = spread(quantiser.scale, values.shape, quantiser.axis, quantiser.block)
    zero = spread(quantiser.zero_point, values.shape, quantiser.axis, quantiser.block)
    if quantiser.is_stored:
        stored = (quantiser.weight - zero) * scale
        return _relative_l2(stored, values), Cause(f"gives a weight that {_apart(stored, values)}", node, _RECALIBRATE)
    rounded = quantise(values, scale, zero, quantiser.dtype)
    back = _scale_back(node, segment, graph)
    if back is not None and not np.array_equal(back, quantiser.scale.reshape(back.shape)):
        ratio = spread(back, values.shape, quantiser.axis, quantiser.block) / scale
        error = _relative_l2(rounded.values * ratio, values)
        what = f"quantises with a scale of {_range(quantiser.scale)}, and is dequantised with {_range(back)}"
        return error, Cause(what, node, _RECALIBRATE)
    reach = float(np.max(quantiser.scale)) * quantiser.levels.high
    if rounded.clipped:
        what = f"clips {rounded.clipped / values.size:.2%} of its values"
    else:
        what = f"rounds in steps of {_range(quantiser.scale)}"
    what += f": its scale reaches to {reach:.3g}, the values to {float(np.abs(values).max()):.3g}"
    return _relative_l2(rounded.values, values), Cause(what, node, _RECALIBRATE)


def _scale_back(node: OnnxNode, segment: Segment, graph: ReferenceGraph) -> NDArray[Any] | None:
    """The scale of the dequantiser behind a quantiser."""
    constants = Constants(graph.tested)
    behind = [other for other in segment.nodes if other.op_type == DEQUANTISE and other.inputs[0] == node.outputs[0]]
    return constants[behind[0].inputs[1]] if behind and behind[0].inputs[1] in constants else None


def _other_weight(name: str, constants: Constants, graph: ReferenceGraph) -> str:
    """How a weight differs from the reference's of the same name; empty if it does not, or if there is none."""
    reference = graph.constants
    if name not in constants or name not in reference or constants.shape(name) != reference.shape(name):
        return ""
    mine = constants[name]
    if dtype_name(mine.dtype) not in _ROUNDED or not mine.size:
        return ""
    theirs = reference[name]
    return _apart(mine, theirs) if _relative_l2(mine, theirs) > _ROUNDED[dtype_name(mine.dtype)] else ""


def _apart(mine: NDArray[Any], theirs: NDArray[Any]) -> str:
    mine, theirs = (np.asarray(array, np.float64).reshape(-1) for array in (mine, theirs))
    square = float(theirs @ theirs)
    factor = float(mine @ theirs) / square if square else 0.0
    if factor and _relative_l2(mine, factor * theirs) < _PROPORTIONAL * abs(factor - 1):
        return f"is {factor:.4g} times the reference's"
    return f"differs from the reference's by {_relative_l2(mine, theirs):.2g} (relative L2)"


def _relative_l2(values: NDArray[Any], wanted: NDArray[Any]) -> float:
    scale = float(np.linalg.norm(wanted))
    error = float(np.linalg.norm(np.asarray(values, np.float64) - wanted))
    return error / scale if scale else error


def _range(scale: NDArray[Any]) -> str:
    low, high = float(scale.min()), float(scale.max())
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
