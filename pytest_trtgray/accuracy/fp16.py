"""Whether a model's values fit into FP16, before anybody builds it so: a TensorRT that overflows says nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.accuracy import histograms
from pytest_trtgray.accuracy.activations import streamed
from pytest_trtgray.accuracy.quantisers import Constants, Role
from pytest_trtgray.accuracy.rounding import Levels
from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.accuracy.tally import PIECE_ELEMENTS, expected_errors, snr
from pytest_trtgray.engines.base import Feed
from pytest_trtgray.engines.intermediates import BUDGET_BYTES
from pytest_trtgray.engines.onnx_model import OnnxModel, node_name
from pytest_trtgray.findings import Finding, counted, failure_message, some

LARGEST = 65504.0
OVERFLOWS_FROM = 65520.0
"""Half-way between the largest FP16 number and the next one there would be; from here values become infinite."""
SMALLEST_NORMAL = 2.0**-14
SMALLEST = 2.0**-24
LEVELS = Levels(-LARGEST, LARGEST, OVERFLOWS_FROM, SMALLEST, 10)
LOW_SNR_DB = 40.0
"""FP16 gives 73 dB to values in its range; below 40 dB (1 %) so many of them are tiny that it is no longer FP16."""
MAX_FINDINGS = 12
CACHE = Path(".trtgray_cache")

_SQUARES = {"LayerNormalization", "InstanceNormalization", "GroupNormalization", "ReduceL2", "ReduceSumSquare"}
_SUMS = {"ReduceSum", "ReduceMean", "GlobalAveragePool"}
_CENTRED = {"LayerNormalization", "InstanceNormalization", "GroupNormalization"}
_SOFTMAX = {"Softmax", "LogSoftmax"}
_MASKING = {
    "Add", "Sub", "Mul", "Where", "Expand", "Unsqueeze", "Squeeze", "Reshape", "Concat", "Cast", "Slice", "Transpose",
    "Identity", "Gather", "Min", "Max", "Div",
}  # fmt: skip
"""Through these, a mask of large negative numbers reaches the Softmax that it is for."""
_REMEDY = (
    "Keep {} in FP32 (op_block_list or node_block_list of ONNX Runtime's converter; in TensorRT up to 10 a layer's "
    "precision), or build in BF16, which has the range of FP32."
)


@dataclass(frozen=True)
class Fp16Tensor:
    """One tensor, as FP16 would hold it.

    Attributes:
        name: of the tensor.
        node: name of the node that computes it, or reads it if it is a weight; empty for an input.
        op_type: that node's operator.
        role: ``activation`` or ``weight``.
        elements: values that were looked at.
        low: smallest FP32 value.
        high: largest.
        overflow: share of values that become infinite; of weights, converters make them the largest finite value.
        subnormal: share of values other than zero below 2^-14, which lose digits.
        flushed: share of values other than zero that become zero.
        snr_db: signal to rounding noise of the values in range, estimated from their distribution.
    """

    name: str
    node: str
    op_type: str
    role: Role
    elements: int
    low: float
    high: float
    overflow: float
    subnormal: float
    flushed: float
    snr_db: float


@dataclass(frozen=True)
class Fp16Accumulation:
    """One node that adds up: what its sums reach, in FP32.

    Attributes:
        node: its name.
        op_type: its operator.
        tensor: that it reads.
        largest_term: largest single term: of a normalisation, the square of the distance from the mean.
        largest_sum: largest sum of terms' magnitudes.
        masked_rows: rows of a Softmax that are minus infinity throughout in FP16, and give NaN.
    """

    node: str
    op_type: str
    tensor: str
    largest_term: float = 0.0
    largest_sum: float = 0.0
    masked_rows: int = 0


@dataclass(frozen=True)
class Fp16Ranges:
    """How a model's values fit into FP16.

    Attributes:
        model: file name.
        tensors: weights first, then activations in the order in which they are computed.
        accumulations: normalisations, reductions and Softmax, in order.
        findings: the worst first, of a bounded number.
    """

    model: str
    tensors: tuple[Fp16Tensor, ...]
    accumulations: tuple[Fp16Accumulation, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; advice is no fault."""
        return all(finding.severity == "advice" for finding in self.findings)

    def check(self) -> None:
        """Fail if something does not fit.

        Raises:
            AssertionError: names nodes and tensors.
        """
        __tracebackhide__ = True
        found = [finding for finding in self.findings if finding.severity != "advice"]
        if found:
            raise AssertionError(failure_message(f"{self.model} in FP16", found))


def fp16_ranges(
    model: str | Path | Shadow,
    feeds: Sequence[Feed] = (),
    *,
    budget_bytes: int = BUDGET_BYTES,
    cache_dir: Path = CACHE,
) -> Fp16Ranges:
    """Look for values that FP16 cannot hold: in weights, in what FP32 computes from inputs, and in inner sums.

    Args:
        model: in FP32 (an FP16 one is widened first), or its shadow.
        feeds: real inputs. Without, only weights are looked at.
        budget_bytes: of intermediate tensors that are held at once.
        cache_dir: where a derived model is kept.

    Raises:
        ModelError: the model is unusable.
        ShapeError, EngineError: a feed does not fit, or the reference cannot be computed.
    """
    shadow = model if isinstance(model, Shadow) else Shadow(Path(model), cache_dir)
    try:
        source = shadow.source
        weights = tuple(_weights(source))
        activations, accumulations = _activations(shadow, feeds, budget_bytes) if feeds else ((), ())
    finally:
        if shadow is not model:
            shadow.close()
    tensors = (*weights, *activations)
    findings = _findings(source, tensors, accumulations)
    return Fp16Ranges(shadow.model.original.name, tensors, accumulations, findings)


class _Range:
    """What is added up of one tensor."""

    def __init__(self) -> None:
        self.counts = np.zeros(histograms.BINS, np.int64)
        self.low, self.high, self.overflowing = math.inf, -math.inf, 0

    def add(self, values: NDArray[Any]) -> None:
        counts = histograms.count(values)
        self.counts += counts
        if histograms.not_finite(counts):  # as much in FP32, which is no matter of FP16
            values = values[np.isfinite(values)]
        if values.size:
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
            if max(-self.low, self.high) >= OVERFLOWS_FROM:
                self.overflowing += int(np.count_nonzero(np.abs(values) >= OVERFLOWS_FROM))

    def row(self, name: str, node: str, op_type: str, role: Role) -> Fp16Tensor:
        magnitudes = histograms.magnitudes(self.counts)
        lower = histograms.edges()
        elements = int(magnitudes.sum())
        total = max(1, elements)
        small = np.flatnonzero(lower < SMALLEST_NORMAL)[1:]
        tiny = np.flatnonzero(lower < SMALLEST / 2)[1:]
        centres = histograms.centres()
        inside = np.where(centres < OVERFLOWS_FROM, magnitudes[: len(centres)], 0)
        return Fp16Tensor(
            name=name,
            node=node,
            op_type=op_type,
            role=role,
            elements=elements,
            low=self.low if self.low <= self.high else 0.0,
            high=self.high if self.low <= self.high else 0.0,
            overflow=self.overflowing / total,
            subnormal=float(magnitudes[small].sum() / total),
            flushed=float(magnitudes[tiny].sum() / total),
            snr_db=snr(float((centres**2 * inside).sum()), expected_errors(inside, 1.0, LEVELS, LARGEST)),
        )


def _weights(model: OnnxModel) -> Iterator[Fp16Tensor]:
    constants = Constants(model)
    done: set[str] = set()
    for node in model.proto.graph.node:
        for name in node.input:
            if name in constants and name not in done and constants.kind(name) == 1:
                done.add(name)
                found = _Range()
                found.add(constants[name])
                yield found.row(name, node_name(node), node.op_type, "weight")


def _activations(
    shadow: Shadow, feeds: Sequence[Feed], budget_bytes: int
) -> tuple[tuple[Fp16Tensor, ...], tuple[Fp16Accumulation, ...]]:
    model = shadow.source
    makers = {name: node for node in model.proto.graph.node for name in node.output if name}
    floats = {name for name, spec in model.tensors.items() if spec.dtype == "float32"}
    inputs = [spec.name for spec in model.inputs if spec.name in floats]
    names = [*inputs, *(name for name in makers if name in floats and makers[name].op_type != "Constant")]
    reductions: dict[str, list[_Reduction]] = {}
    constants = Constants(model)
    for node in model.proto.graph.node:
        if node.op_type in _SQUARES | _SUMS | _SOFTMAX and node.input[0] in names:
            reductions.setdefault(node.input[0], []).append(_Reduction(node, constants, model))
    ranges: dict[str, _Range] = {}
    for _, name, values in streamed(shadow, feeds, names, budget_bytes):
        ranges.setdefault(name, _Range()).add(values)
        for reduction in reductions.get(name, ()):
            reduction.add(values)
    rows = []
    for name, found in ranges.items():
        maker = makers.get(name)
        rows.append(found.row(name, node_name(maker) if maker else "", maker.op_type if maker else "", "activation"))
    order = {node_name(node): index for index, node in enumerate(model.proto.graph.node)}
    sums = [reduction.result() for several in reductions.values() for reduction in several]
    return tuple(rows), tuple(sorted(sums, key=lambda each: order[each.node]))


class _Reduction:
    """The largest sums of one node, over all inputs."""

    def __init__(self, node: Any, constants: Constants, model: OnnxModel) -> None:
        self._node = node
        self._attributes = {attribute.name: attribute for attribute in node.attribute}
        self._axes = tuple(int(axis) for axis in self._attributes["axes"].ints) if "axes" in self._attributes else None
        if self._axes is None and len(node.input) > 1 and node.op_type.startswith("Reduce"):
            given = constants.get(node.input[1])
            self._axes = tuple(int(axis) for axis in np.ravel(given)) if given is not None else None
        self._old_softmax = model.opset < 13
        self._term = self._sum = 0.0
        self._masked = 0

    def add(self, values: NDArray[Any]) -> None:
        if not values.size or not values.ndim:
            return
        if self._node.op_type == "GroupNormalization":
            values = values.reshape(len(values), self._attributes["num_groups"].i, -1)
        axes = self._reduced(values.ndim)
        if not axes:
            return
        rows = len(values) if 0 in axes else max(1, PIECE_ELEMENTS * len(values) // values.size)
        for start in range(0, len(values), rows):
            self._add_part(values[start : start + rows].astype(np.float64), axes)

    def _add_part(self, part: NDArray[np.float64], axes: tuple[int, ...]) -> None:
        if self._node.op_type in _SOFTMAX:
            self._masked += int(np.count_nonzero((part <= -OVERFLOWS_FROM).all(axis=axes)))
            return
        if self._node.op_type in _CENTRED:
            part = part - part.mean(axis=axes, keepdims=True)
        terms = part * part if self._node.op_type in _SQUARES else np.abs(part)
        self._term = max(self._term, float(terms.max()))
        self._sum = max(self._sum, float(terms.sum(axis=axes).max()))

    def _reduced(self, rank: int) -> tuple[int, ...]:
        kind = self._node.op_type
        axis = self._attributes["axis"].i if "axis" in self._attributes else None
        if kind in ("InstanceNormalization", "GlobalAveragePool", "GroupNormalization"):
            return tuple(range(2, rank))
        if kind == "LayerNormalization" or (kind in _SOFTMAX and self._old_softmax):
            first = axis if axis is not None else (-1 if kind == "LayerNormalization" else 1)
            return tuple(range(first % rank, rank))
        if kind in _SOFTMAX:
            return ((axis if axis is not None else -1) % rank,)
        return tuple(sorted({axis % rank for axis in self._axes})) if self._axes else tuple(range(rank))

    def result(self) -> Fp16Accumulation:
        return Fp16Accumulation(
            node_name(self._node), self._node.op_type, self._node.input[0], self._term, self._sum, self._masked
        )


# -- judgement


def _findings(
    model: OnnxModel, tensors: Sequence[Fp16Tensor], accumulations: Sequence[Fp16Accumulation]
) -> tuple[Finding, ...]:
    masks = _masks(model, tensors, accumulations)
    overflowing = [tensor for tensor in tensors if tensor.overflow and tensor.name not in masks]
    found = [*_overflows(overflowing), *_sums(accumulations)]
    small = [tensor for tensor in tensors if tensor.snr_db < LOW_SNR_DB and not tensor.overflow]
    constants = [tensor for tensor in small if tensor.role == "weight" and tensor.elements == 1]
    small = [tensor for tensor in small if tensor not in constants]
    found += [_too_small(tensor) for tensor in sorted(small, key=lambda tensor: tensor.snr_db)]
    if constants:
        found.append(
            Finding(
                "advice",
                constants[0].node,
                f"{counted(len(constants), 'constant')} such as {constants[0].low:.3g} of {constants[0].node} "
                "vanish in FP16: what they keep from zero is no longer kept",
                "fp16.constant",
                {"constants": len(constants)},
                "An epsilon of 1e-5 survives, rounded; 1e-12 does not.",
            )
        )
    if masks:
        found.append(
            Finding(
                "advice",
                masks[0],
                f"the mask in {some(masks)} is minus infinity in FP16: harmless as long as no row of the Softmax is "
                "masked throughout, which is NaN",
                "fp16.mask",
                {"tensors": len(masks)},
                "A mask of -1e4 fits.",
            )
        )
    found.sort(key=lambda finding: finding.severity == "advice")
    if len(found) <= MAX_FINDINGS:
        return tuple(found)
    rest = found[MAX_FINDINGS:]
    what = f"{len(rest)} more findings, at {some([finding.where for finding in rest])}"
    more = Finding(rest[0].severity, rest[0].where, what, "fp16.more", {"findings": len(rest)})
    return (*found[:MAX_FINDINGS], more)


def _overflows(overflowing: Sequence[Fp16Tensor]) -> Iterator[Finding]:
    """Weights each; of activations the first, for what comes after it is its consequence."""
    for tensor in overflowing:
        if tensor.role == "weight":
            what = f"weight {tensor.name!r} of {tensor.node}: {tensor.overflow:.2%} of the values are above {LARGEST:g}"
            yield _finding("warning", tensor, "weights", what, _REMEDY.format("the node"))
    activations = [tensor for tensor in overflowing if tensor.role == "activation"]
    if activations:
        first = activations[0]
        reach = max(abs(first.low), abs(first.high))
        after = f"; {counted(len(activations) - 1, 'tensor')} after it overflow too" if len(activations) > 1 else ""
        called = f"{first.node} ({first.op_type})" if first.node else "input"
        what = f"{called} gives {first.name!r}, which reaches {reach:.3g}: {first.overflow:.2%} overflow FP16{after}"
        yield _finding("warning", first, "overflow", what, _REMEDY.format(first.node or "what reads it"))


def _sums(accumulations: Sequence[Fp16Accumulation]) -> Iterator[Finding]:
    for each in sorted(accumulations, key=lambda each: -each.largest_term):
        if each.masked_rows:
            yield Finding(
                "warning",
                each.node,
                f"{each.node} ({each.op_type}): {counted(each.masked_rows, 'row')} of {each.tensor!r} are minus "
                "infinity throughout in FP16, and come out as NaN",
                "fp16.softmax",
                {"rows": each.masked_rows, "tensor": each.tensor},
                "Use a mask that fits into FP16, such as -1e4.",
            )
        if each.largest_term > LARGEST or each.largest_sum > LARGEST:
            squares = each.op_type in _SQUARES
            term = "squares" if squares else "terms"
            over = squares and each.largest_term > LARGEST  # a single term of a plain sum is a tensor's, reported there
            what = (
                f"{each.node} ({each.op_type}) overflows FP16 inside: its {term} reach {each.largest_term:.3g}"
                if over
                else f"{each.node} ({each.op_type}) adds {term} up to {each.largest_sum:.3g}: more than FP16 holds, if "
                "a kernel accumulates in it"
            )
            yield Finding(
                "warning" if over else "advice",
                each.node,
                what,
                "fp16.accumulation",
                {"largest_term": each.largest_term, "largest_sum": each.largest_sum, "tensor": each.tensor},
                _REMEDY.format(each.node),
            )


def _too_small(tensor: Fp16Tensor) -> Finding:
    what = (
        f"{tensor.role} {tensor.name!r} of {tensor.node or 'the model'}: {tensor.subnormal:.1%} of the values are "
        f"subnormal in FP16 and {tensor.flushed:.1%} become zero, SNR {tensor.snr_db:.0f} dB"
    )
    return _finding("warning", tensor, "subnormal", what, "Scale it up and its reader down; " + _REMEDY.format("it"))


def _finding(severity: str, tensor: Fp16Tensor, rule: str, what: str, remedy: str) -> Finding:
    evidence: dict[str, float | int | str | None] = {
        "tensor": tensor.name,
        "overflow_percent": round(100 * tensor.overflow, 4),
        "subnormal_percent": round(100 * tensor.subnormal, 4),
        "flushed_percent": round(100 * tensor.flushed, 4),
        "low": tensor.low if math.isfinite(tensor.low) else None,
        "high": tensor.high if math.isfinite(tensor.high) else None,
    }
    return Finding(severity, tensor.node or tensor.name, what, f"fp16.{rule}", evidence, remedy)  # type: ignore[arg-type]


def _masks(
    model: OnnxModel, tensors: Sequence[Fp16Tensor], accumulations: Sequence[Fp16Accumulation]
) -> tuple[str, ...]:
    """Tensors that overflow downwards only and do nothing but mask a Softmax."""
    readers: dict[str, list[Any]] = {}
    for node in model.proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    known: dict[str, bool] = {}

    def masks(name: str) -> bool:
        if name not in known:
            known[name] = False  # a way that comes back to itself is none
            nodes = readers.get(name, [])
            known[name] = bool(nodes) and all(
                node.op_type in _SOFTMAX or (node.op_type in _MASKING and masks(node.output[0])) for node in nodes
            )
        return known[name]

    return tuple(
        tensor.name for tensor in tensors if tensor.overflow and tensor.high < OVERFLOWS_FROM and masks(tensor.name)
    )
