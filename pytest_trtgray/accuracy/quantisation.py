"""What the scales of a Q/DQ model do to the values that the FP32 reference really computes."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.accuracy.activations import streamed
from pytest_trtgray.accuracy.drift import Drift, Samples, Side
from pytest_trtgray.accuracy.histograms import not_finite
from pytest_trtgray.accuracy.quantisers import Constants, Quantiser, Reader, Role, find_quantisers
from pytest_trtgray.accuracy.rounding import spread
from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.accuracy.tally import Tally, snr
from pytest_trtgray.engines.base import Engine, Feed
from pytest_trtgray.engines.intermediates import BUDGET_BYTES
from pytest_trtgray.engines.onnx_model import OnnxModel, open_model
from pytest_trtgray.errors import ModelError
from pytest_trtgray.findings import Finding, failure_message

CACHE = Path(".trtgray_cache")


@dataclass(frozen=True)
class QuantisedTensor:
    """One quantised tensor, over all inputs.

    Attributes:
        node: name of the QuantizeLinear; of the DequantizeLinear of a weight that is stored quantised.
        tensor: name of what is quantised, in the FP32 reference.
        role: ``activation`` or ``weight``.
        dtype: of the quantised values.
        granularity: how many scales there are: ``tensor``, ``axis 0``, ``blocks of 32 on axis 0``.
        readers: names of the nodes that read it.
        scale: smallest and largest scale.
        is_symmetric: whether all zero points are zero.
        elements: values that were looked at.
        low: smallest FP32 value.
        high: largest.
        not_finite: values that are NaN or infinite.
        clipped: share of the values that the type cuts off. Of a weight that is stored quantised: how many more of its
            values lie at the outermost levels than right beside them.
        used: part of the range that the values need, at the channel or block that needs least and the one that needs
            most; above 1 they are clipped.
        bits: entropy of the levels that are taken, of at most 8 (or 4) bits.
        snr_db: signal to quantisation noise, ``10 log10(sum x^2 / sum (x - Q(x))^2)``. NaN where it is not known: all
            values are zero, or the weight is stored quantised and no FP32 original was given.
        gain_db: by how much it would be better with the best scale, of the same granularity.
        best_factor: that scale over the present one; of a tensor with one scale.
        channels: how many there are; 0 where that is not known.
        dead_channels: those with zeros only.
        channel_spread: the largest channel's largest magnitude over the median channel's.
        channel_snr_db: of the median channel.
        drift: calibration data against data under test; ``None`` without calibration data, or with too few of both.
    """

    node: str
    tensor: str
    role: Role
    dtype: str
    granularity: str
    readers: tuple[Reader, ...]
    scale: tuple[float, float]
    is_symmetric: bool
    elements: int
    low: float
    high: float
    not_finite: int
    clipped: float
    used: tuple[float, float]
    bits: float
    snr_db: float
    gain_db: float
    best_factor: float = 1.0
    channels: int = 0
    dead_channels: int = 0
    channel_spread: float = 1.0
    channel_snr_db: float = math.nan
    drift: Drift | None = None

    @property
    def is_constant(self) -> bool:
        """Whether all values are the same."""
        return self.elements > 1 and self.low == self.high


@dataclass(frozen=True)
class QuantisedLayer:
    """A node that reads quantised operands.

    Attributes:
        node: name of the ONNX node.
        op_type: its operator.
        snr_db: of a product of operands with independent errors: the noise shares of its operands added up. An
            estimate of what quantisation does to this layer alone, before errors of other layers come in.
        operands: the quantised tensors that it reads.
    """

    node: str
    op_type: str
    snr_db: float
    operands: tuple[str, ...]


@dataclass(frozen=True)
class Quantisation:
    """The quantised tensors of a model and what is wrong with them.

    Attributes:
        model: file name.
        tensors: in the order in which the model computes; weights where they are read.
        findings: the worst first, of a bounded number.
        samples: how many inputs (rows of the first axis) were looked at.
        left_out: names of Q/DQ nodes that were not inspected, each with the reason.
    """

    model: str
    tensors: tuple[QuantisedTensor, ...]
    findings: tuple[Finding, ...]
    samples: int = 0
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; advice is no fault."""
        return all(finding.severity == "advice" for finding in self.findings)

    @property
    def layers(self) -> tuple[QuantisedLayer, ...]:
        """The nodes that read quantised operands, in order."""
        operands: dict[Reader, list[QuantisedTensor]] = {}
        nodes: dict[str, Reader] = {}
        for tensor in self.tensors:
            for reader in tensor.readers:
                first = nodes.setdefault(reader.node, reader)
                operands.setdefault(first, []).append(tensor)
        found = []
        for reader, tensors in operands.items():
            noise = [10 ** (-tensor.snr_db / 10) for tensor in tensors if not math.isnan(tensor.snr_db)]
            names = tuple(tensor.tensor for tensor in tensors)
            found.append(QuantisedLayer(reader.node, reader.op_type, snr(1.0, sum(noise)), names))
        return tuple(found)

    def tensor(self, name: str) -> QuantisedTensor:
        """The row of a tensor, or of the Q/DQ node, with this name.

        Raises:
            KeyError: there is none.
        """
        for tensor in self.tensors:
            if name in (tensor.tensor, tensor.node):
                return tensor
        known = ", ".join(tensor.tensor for tensor in self.tensors[:8])
        raise KeyError(f"{self.model} has no quantised tensor {name!r} (there are: {known}, ...)")

    def sorted(self, key: str = "snr_db", *, reverse: bool = False) -> tuple[QuantisedTensor, ...]:
        """The rows by one of their attributes, smallest first; those that do not have it (NaN) last."""

        def order(tensor: QuantisedTensor) -> Any:
            value = getattr(tensor, key)
            return math.inf if isinstance(value, float) and math.isnan(value) else -value if reverse else value

        return tuple(sorted(self.tensors, key=order))

    def check(self, *, max_clipped: float | None = None, min_snr_db: float | None = None) -> None:
        """Fail if something is wrong with the quantisation.

        Args:
            max_clipped: largest share of the values of a tensor that may be cut off.
            min_snr_db: smallest signal to noise of a tensor.

        Raises:
            AssertionError: errors and warnings, and what is over these limits.
        """
        __tracebackhide__ = True
        from pytest_trtgray.accuracy.quantisation_findings import over_limits

        found = [*over_limits(self.tensors, max_clipped, min_snr_db)]
        found += [finding for finding in self.findings if finding.severity != "advice"]
        if found:
            raise AssertionError(failure_message(f"quantisation of {self.model}", found))


def inspect_quantisation(
    model: str | Path | Engine,
    feeds: Sequence[Feed] = (),
    *,
    calibration: Sequence[Feed] = (),
    reference: str | Path | Shadow | None = None,
    budget_bytes: int = BUDGET_BYTES,
    time_limit_s: float | None = None,
    cache_dir: Path = CACHE,
) -> Quantisation:
    """Hold the scales of a Q/DQ model (INT8, FP8 E4M3, INT4, FP4) against the values that FP32 computes.

    Args:
        model: with Q/DQ nodes, or an engine that was built from one (also by ``trt_build(precision="int8")``).
        feeds: real inputs. Without, only weights and scales are inspected.
        calibration: the inputs from which the scales were taken, to see whether they are like ``feeds``.
        reference: the FP32 model that was quantised, or its shadow. By default the engine's origin, else the model
            without its Q/DQ nodes; from weights that are stored quantised the original cannot be had back.
        budget_bytes: of intermediate tensors that are held at once.
        time_limit_s: activations that are not reached by then are left out, and said so.
        cache_dir: where a derived model is kept.

    Raises:
        ModelError: the model is unusable, has no Q/DQ nodes, or is not known.
        ShapeError, EngineError: a feed does not fit, or the reference cannot be computed.
    """
    from pytest_trtgray.accuracy.quantisation_findings import findings_of

    deadline = math.inf if time_limit_s is None else time.monotonic() + time_limit_s
    quantised, origin = _model_of(model)
    quantisers, dynamic = find_quantisers(quantised)
    if not quantisers and not dynamic:
        raise ModelError(
            quantised.called,
            "has no Q/DQ nodes in its main graph",
            "Give the quantised model; trt_build(..., precision='int8') makes one from FP32.",
        )
    given = reference if reference is not None else origin
    shadow = given if isinstance(given, Shadow) else Shadow(Path(given or quantised.path), cache_dir)
    inspection = _Inspection(quantised, shadow, quantisers)
    left_out = dict.fromkeys(dynamic, "the model computes its scales")
    try:
        inspection.look_at_weights()
        inspection.look_at_activations(feeds, calibration, budget_bytes, deadline)
    finally:
        if shadow is not given:
            shadow.close()
    left_out |= inspection.left_out
    tensors = inspection.rows
    findings = findings_of(tensors, quantisers, left_out, inspection.input_drift, bool(feeds))
    return Quantisation(quantised.original.name, tensors, findings, samples(feeds), left_out)


def samples(feeds: Iterable[Feed]) -> int:
    """How many inputs feeds hold: the sizes of their first axes; a feed of scalars is one."""
    return sum(max((np.shape(array)[0] for array in feed.values() if np.ndim(array)), default=1) for feed in feeds)


def _model_of(model: str | Path | Engine) -> tuple[OnnxModel, Path | None]:
    if not isinstance(model, Engine):
        return open_model(Path(model)), None
    if model.model is None:
        raise ModelError(
            model.info.path,
            "its ONNX model is not known, and an engine does not tell its scales",
            "Give the ONNX model with the Q/DQ nodes (--trt-onnx).",
        )
    return model.model, model.origin.path if model.origin is not None else None


class _Inspection:
    """The walk over a model's quantisers.

    Attributes:
        rows: of what was inspected so far, in the order of the quantisers.
        left_out: names of the nodes that could not be, and why.
        input_drift: of the inputs of the model.
    """

    def __init__(self, model: OnnxModel, shadow: Shadow, quantisers: Sequence[Quantiser]) -> None:
        self._model = model
        self._shadow = shadow
        self._is_original = shadow.model.sha256 != model.sha256
        self._quantisers = quantisers
        self._rows: dict[int, QuantisedTensor] = {}
        self.left_out: dict[str, str] = {}
        self.input_drift: dict[str, Drift] = {}

    @property
    def rows(self) -> tuple[QuantisedTensor, ...]:
        return tuple(self._rows[index] for index in sorted(self._rows))

    def look_at_weights(self) -> None:
        """All weights, those that are stored quantised against the original's where that is known."""
        originals = Constants(self._shadow.source)
        for index, quantiser in enumerate(self._quantisers):
            if quantiser.role != "weight" or not self._is_known(quantiser):
                continue
            name = self._name_in_reference(quantiser) if self._is_original else None
            if not quantiser.is_stored:
                self._rows[index] = _weight_row(quantiser, quantiser.weight)
            elif name is not None and name in originals and originals.shape(name) == quantiser.weight.shape:
                self._rows[index] = _weight_row(quantiser, originals[name].astype(np.float32))
            else:
                self._rows[index] = _stored_row(quantiser)

    def look_at_activations(
        self, feeds: Sequence[Feed], calibration: Sequence[Feed], budget_bytes: int, deadline: float
    ) -> None:
        """All activations that the reference computes from the feeds, one chunk of tensors after the other."""
        if not feeds:
            return
        wanted: dict[str, list[int]] = {}
        for index, quantiser in enumerate(self._quantisers):
            if quantiser.role == "activation" and self._is_known(quantiser):
                name = self._name_in_reference(quantiser)
                if name is None:
                    self.left_out[quantiser.node] = f"the FP32 reference has no tensor {quantiser.tensor!r}"
                else:
                    wanted.setdefault(name, []).append(index)
        inputs = [spec.name for spec in self._shadow.source.inputs if spec.dtype == "float32"] if calibration else []
        feeds_of_both = [*feeds, *calibration]
        seen: dict[str, int] = {}
        tallies: dict[str, list[Tally]] = {}
        drifts: dict[str, Samples] = {}
        for index, name, values in streamed(
            self._shadow, feeds_of_both, list(dict.fromkeys([*inputs, *wanted])), budget_bytes
        ):
            if time.monotonic() > deadline:
                break
            side: Side = "test" if index < len(feeds) else "calibration"
            if calibration:
                drifts.setdefault(name, Samples()).add(side, values)
            if side == "test":
                fresh = [Tally(self._quantisers[number]) for number in wanted.get(name, ())]
                for tally in tallies.setdefault(name, fresh):
                    tally.add(values)
            seen[name] = seen.get(name, 0) + 1
            if seen[name] == len(feeds_of_both):  # nothing more comes: keep numbers only
                drift = drifts.pop(name).drift() if calibration else None
                if name in inputs and drift is not None:
                    self.input_drift[name] = drift
                for number, tally in zip(wanted.get(name, ()), tallies.pop(name), strict=True):
                    self._rows[number] = _activation_row(tally, drift)
        for numbers in wanted.values():
            for number in numbers:
                if number not in self._rows:
                    self.left_out[self._quantisers[number].node] = "the time limit was reached before"

    def _is_known(self, quantiser: Quantiser) -> bool:
        """Whether scales and type can be computed with; what cannot is left out."""
        if quantiser.levels is None:
            self.left_out[quantiser.node] = f"{quantiser.dtype} (ONNX type {quantiser.onnx_type}) is not known here"
        elif not (np.isfinite(quantiser.scale).all() and (quantiser.scale > 0).all()):
            self.left_out[quantiser.node] = "its scale is not a positive number"
        else:
            return True
        return False

    def _name_in_reference(self, quantiser: Quantiser) -> str | None:
        """What the FP32 reference calls a tensor: in an original, what the same operand of the same node reads."""
        if not self._is_original:
            return quantiser.tensor
        for reader in quantiser.readers:
            if (reader.node, reader.op_type, reader.operand) in self._operands:
                return self._operands[reader.node, reader.op_type, reader.operand]
        return quantiser.tensor if quantiser.tensor in self._computed else None

    @functools.cached_property
    def _operands(self) -> Mapping[tuple[str, str, int], str]:
        return {
            (node.name, node.op_type, operand): name
            for node in self._shadow.source.nodes
            for operand, name in enumerate(node.inputs)
            if name
        }

    @functools.cached_property
    def _computed(self) -> set[str]:
        source = self._shadow.source
        return {name for node in source.nodes for name in node.outputs} | {spec.name for spec in source.inputs}


def _activation_row(tally: Tally, drift: Drift | None) -> QuantisedTensor:
    factor, gain = tally.best_factor() if tally.quantiser.axis is None else (1.0, 0.0)
    used = tally.used()
    return _row(tally, used=(used, used), gain_db=gain, best_factor=factor, drift=drift)


def _weight_row(quantiser: Quantiser, values: NDArray[np.float32]) -> QuantisedTensor:
    """A weight against its FP32 values."""
    levels = quantiser.levels
    assert levels is not None
    tally = Tally(quantiser)
    tally.add(values)
    peaks = largest_by_scale(values, quantiser)
    finest = np.where(peaks > 0, peaks / levels.high, quantiser.scale).astype(np.float32)
    best = Tally(quantiser.with_scale(finest))
    best.add(values)
    gain = best.snr_db - tally.snr_db
    return _row(
        tally,
        used=_used_by_scale(peaks, quantiser),
        gain_db=max(0.0, gain) if math.isfinite(gain) else 0.0,
        best_factor=float(finest / quantiser.scale) if quantiser.axis is None else 1.0,
        drift=None,
    )


def _stored_row(quantiser: Quantiser) -> QuantisedTensor:
    """A weight without its FP32 values: what was rounded away or cut off cannot be had back."""
    stored = quantiser.weight
    scale, zero = (
        spread(array, stored.shape, quantiser.axis, quantiser.block)
        for array in (quantiser.scale, quantiser.zero_point)
    )
    values = np.asarray((stored - zero) * scale, np.float32)
    tally = Tally(quantiser)
    tally.add(values)
    row = _row(
        tally,
        used=_used_by_scale(largest_by_scale(values, quantiser), quantiser),
        gain_db=0.0,
        best_factor=1.0,
        drift=None,
    )
    return replace(row, clipped=_piled_up(stored, quantiser), snr_db=math.nan, channel_snr_db=math.nan)


def _piled_up(stored: NDArray[np.float32], quantiser: Quantiser) -> float:
    """The share of values at the outermost levels beyond what lies beside them, and beyond one a scale."""
    levels = quantiser.levels
    assert levels is not None
    top, bottom = levels.high, max(levels.low, -levels.high)
    inwards = float(levels.spacing(np.array([levels.high]))[0])
    count = np.count_nonzero
    above = count(stored >= top) - count(stored == top - inwards)
    below = count(stored <= bottom) - count(stored == bottom + inwards)
    excess = max(0, above) + max(0, below) - quantiser.scale.size
    return float(max(0.0, excess / max(1, stored.size)))


def _used_by_scale(peaks: NDArray[np.float64], quantiser: Quantiser) -> tuple[float, float]:
    """How far values reach into the range of their scale: the least and the most of those that are not all zero."""
    assert quantiser.levels is not None
    used = (peaks / (quantiser.scale * quantiser.levels.high))[peaks > 0]
    return (float(used.min()), float(used.max())) if used.size else (0.0, 0.0)


def largest_by_scale(values: NDArray[np.float32], quantiser: Quantiser) -> NDArray[np.float64]:
    """The largest magnitude of the values that share a scale, in the shape of the scales."""
    magnitudes = np.abs(values)
    if quantiser.axis is None:
        return np.asarray(magnitudes.max(initial=0.0), np.float64)
    axis = quantiser.axis % values.ndim
    if not quantiser.block:
        others = tuple(other for other in range(values.ndim) if other != axis)
        return np.asarray(magnitudes.max(axis=others, initial=0.0), np.float64)
    starts = np.arange(0, values.shape[axis], quantiser.block)
    return np.asarray(np.maximum.reduceat(magnitudes, starts, axis=axis), np.float64)


def _row(
    tally: Tally,
    *,
    used: tuple[float, float],
    gain_db: float,
    best_factor: float,
    drift: Drift | None,
) -> QuantisedTensor:
    quantiser = tally.quantiser
    return QuantisedTensor(
        node=quantiser.node,
        tensor=quantiser.tensor,
        role=quantiser.role,
        dtype=quantiser.dtype,
        granularity=quantiser.granularity,
        readers=quantiser.readers,
        scale=(float(quantiser.scale.min()), float(quantiser.scale.max())),
        is_symmetric=not quantiser.zero_point.any(),
        elements=tally.elements,
        low=tally.low if tally.elements else 0.0,
        high=tally.high if tally.elements else 0.0,
        not_finite=not_finite(tally.counts),
        clipped=tally.clipped / max(1, tally.elements),
        used=used,
        bits=tally.bits(),
        snr_db=tally.snr_db,
        gain_db=gain_db,
        best_factor=best_factor,
        drift=drift,
        **_channel_numbers(tally),
    )


def _channel_numbers(tally: Tally) -> dict[str, Any]:
    channels = tally.channels
    if channels is None or len(channels.peak) < 2:
        return {}
    alive = channels.peak[channels.peak > 0]
    ratios = channels.snr_db()
    ratios = ratios[~np.isnan(ratios)]
    return {
        "channels": len(channels.peak),
        "dead_channels": int(np.count_nonzero(channels.peak == 0)),
        "channel_spread": float(alive.max() / np.median(alive)) if alive.size else 1.0,
        "channel_snr_db": float(np.median(ratios)) if ratios.size else math.nan,
    }
