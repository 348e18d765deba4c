"""What is wrong with a quantisation, from its numbers: the worst first, each with what to do about it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from pytest_trtgray.accuracy.drift import Drift
from pytest_trtgray.accuracy.quantised_tensor import QuantisedTensor
from pytest_trtgray.accuracy.quantisers import Quantiser
from pytest_trtgray.findings import Finding, counted, some

MAX_FINDINGS = 12
LOW_SNR_DB: Mapping[str, float] = {"int4": 10.0, "uint4": 10.0, "fp4": 10.0}
DEFAULT_LOW_SNR_DB = 15.0
"""Below, quantisation itself is to blame. INT8 gives normally distributed values about 40 dB, FP8 31, INT4 in blocks
of 32 about 20; the noise of all layers adds up."""
MIN_GAIN_DB = 6.0
"""One bit: a scale is wrong if another one gives as much as a bit more."""
SERIOUS_SNR_DB = 30.0
"""From here on a bit more or less is no fault: INT8 alone is rarely better."""
MIN_CLIPPED = 1e-3
MIN_PILED_UP = 0.01
"""Of a stored weight: its shape may well put some values next to the outermost levels."""
MIN_SPREAD = 8.0
"""Channels this much apart cost the small ones three bits."""

MIN_DRIFTED = 0.1

_CALIBRATE = (
    "Calibrate again, with more and real inputs; pytest_trtgray.compare_calibrations(model, feeds) tells which of "
    "minmax, entropy and percentile suits. If no scale does, keep the layer in FP16."
)
_WEIGHTS = "Weights need no calibration: quantise it again with its own largest value, one scale a channel."


def findings_of(
    tensors: Sequence[QuantisedTensor],
    quantisers: Sequence[Quantiser],
    left_out: Mapping[str, str],
    input_drift: Mapping[str, Drift],
    *,
    has_feeds: bool,
    representative: bool = True,
) -> tuple[Finding, ...]:
    """All findings of a model, the largest losses first, no more than :data:`MAX_FINDINGS` and a rest.

    Warnings at most: only a test that asks for it (:meth:`Quantisation.check`) fails on what is a matter of degree.

    Args:
        tensors: what was inspected.
        quantisers: of the model.
        left_out: nodes that were not inspected, and why.
        input_drift: of the model's inputs.
        has_feeds: whether activations were to be looked at.
        representative: whether the inputs are like those of production.
    """
    found = [*_invalid(quantisers), *_refused(quantisers, tensors), *_drifted(tensors, input_drift)]
    judged = []
    for tensor in tensors:
        entry = _judged(tensor)
        if entry is not None and tensor.role == "activation" and not representative:
            what = f"with inputs that need not be typical, {entry[1].what}"
            entry = entry[0], replace(entry[1], severity="advice", what=what)
        judged += [entry] if entry is not None else []
    found += [finding for _, finding in sorted(judged, key=lambda entry: -entry[0])]
    found += _advice(tensors, quantisers, left_out, is_partial=representative and not has_feeds)
    found.sort(key=lambda finding: finding.severity == "advice")
    if len(found) <= MAX_FINDINGS:
        return tuple(found)
    rest = found[MAX_FINDINGS:]
    more = Finding(
        rest[0].severity,
        rest[0].where,
        f"{len(rest)} more findings, at {some([finding.where for finding in rest])}",
        "quantisation.more",
        {"findings": len(rest)},
        "Mend the worst first; .tensors has the numbers of all.",
    )
    return (*found[:MAX_FINDINGS], more)


def over_limits(
    tensors: Sequence[QuantisedTensor], max_clipped: float | None, min_snr_db: float | None
) -> Iterator[Finding]:
    """Tensors beyond the limits of a test, the worst first."""
    if max_clipped is not None:
        for tensor in sorted(tensors, key=lambda tensor: -tensor.clipped):
            if tensor.clipped > max_clipped:
                yield _finding("error", tensor, "limit", f"{tensor.clipped:.2%} are clipped, allowed {max_clipped:.2%}")
    if min_snr_db is not None:
        known = [tensor for tensor in tensors if not math.isnan(tensor.snr_db)]
        for tensor in sorted(known, key=lambda tensor: tensor.snr_db):
            if tensor.snr_db < min_snr_db:
                yield _finding("error", tensor, "limit", f"SNR {tensor.snr_db:.1f} dB, wanted {min_snr_db:g} dB")


def _judged(tensor: QuantisedTensor) -> tuple[float, Finding] | None:
    """The one thing that is wrong with a tensor, and how much it costs."""
    if tensor.not_finite:
        text = f"{counted(tensor.not_finite, 'value')} of the FP32 reference are NaN or infinite"
        return math.inf, _finding("warning", tensor, "not-finite", text, "Look for the first bad tensor in FP32.")
    if tensor.is_constant and tensor.low == 0:
        what = "all values are zero" if tensor.role == "weight" else "all values are zero with every input given"
        remedy = "Its scale means nothing; keep it in FP16, or give inputs that reach it."
        return 200.0, _finding("warning", tensor, "dead", what, remedy)
    low = LOW_SNR_DB.get(tensor.dtype, DEFAULT_LOW_SNR_DB)
    if math.isnan(tensor.snr_db):
        return _judged_stored(tensor)
    remedy = _WEIGHTS if tensor.role == "weight" else _CALIBRATE
    if tensor.gain_db >= MIN_GAIN_DB and tensor.snr_db < SERIOUS_SNR_DB:
        better = f"SNR {tensor.snr_db:.0f} dB, {tensor.snr_db + tensor.gain_db:.0f} dB with {_better_scale(tensor)}"
        if tensor.clipped >= MIN_CLIPPED and tensor.best_factor >= 1:
            reach = max(abs(tensor.low), abs(tensor.high))
            what = f"{tensor.clipped:.1%} of the values are clipped (they reach {reach:.3g}): {better}"
            return tensor.gain_db, _finding("warning", tensor, "clipped", what, remedy)
        lost = -math.log2(max(tensor.used[0], 1e-9))
        what = f"values use {tensor.used[0]:.1%} of the range, {lost:.0f} bits of the scale are empty: {better}"
        return tensor.gain_db, _finding("warning", tensor, "range-unused", what, remedy)
    if tensor.channel_spread >= MIN_SPREAD and tensor.channel_snr_db < low and tensor.granularity == "tensor":
        what = (
            f"one channel reaches {tensor.channel_spread:.0f} times as far as the median channel, which the common "
            f"scale leaves with SNR {tensor.channel_snr_db:.0f} dB"
        )
        remedy = (
            "Quantise this weight with one scale a channel."
            if tensor.role == "weight"
            else "Move the outlier into the weights (SmoothQuant), or keep the layer in FP16."
        )
        return low - tensor.channel_snr_db, _finding("warning", tensor, "channel-outlier", what, remedy)
    if tensor.snr_db < low:
        what = f"SNR {tensor.snr_db:.0f} dB, and no other scale is better ({tensor.bits:.1f} bits carry information)"
        remedy = (
            "Use finer scales (one a channel, smaller blocks), or keep the layer in FP16."
            if tensor.role == "weight"
            else "Keep the layer in FP16; its values lie too unevenly for these levels."
        )
        return low - tensor.snr_db, _finding("warning", tensor, "low-snr", what, remedy)
    return None


def _judged_stored(tensor: QuantisedTensor) -> tuple[float, Finding] | None:
    if tensor.clipped >= MIN_PILED_UP:
        what = f"{tensor.clipped:.1%} of the values pile up at the outermost levels, as if they were clipped"
        return 20 * tensor.clipped, _finding("warning", tensor, "clipped", what, _WEIGHTS)
    if 0 < tensor.used[0] < 1 / 8:
        lost = -math.log2(tensor.used[0])
        what = f"values use {tensor.used[0]:.1%} of the range of their scale: {lost:.0f} bits are empty"
        return 6 * lost, _finding("warning", tensor, "range-unused", what, _WEIGHTS)
    return None


def _better_scale(tensor: QuantisedTensor) -> str:
    if tensor.granularity != "tensor":
        return "scales that fit"
    factor = tensor.best_factor
    return f"a scale {_times(factor)} times as large" if factor >= 1 else f"a scale {_times(1 / factor)} times as small"


def _times(ratio: float) -> str:
    """Two digits, without an exponent.

    >>> _times(1.41421), _times(256.3)
    ('1.4', '256')
    """
    return f"{ratio:.2g}" if ratio < 99 else f"{ratio:.0f}"


def _finding(severity: str, tensor: QuantisedTensor, rule: str, what: str, remedy: str = "") -> Finding:
    evidence: dict[str, float | int | str | None] = {
        "tensor": tensor.tensor,
        "dtype": tensor.dtype,
        "snr_db": _number(tensor.snr_db),
        "gain_db": _number(tensor.gain_db),
        "clipped_percent": round(100 * tensor.clipped, 4),
        "used_percent": round(100 * tensor.used[0], 2),
        "low": _number(tensor.low),
        "high": _number(tensor.high),
        "scale": _number(tensor.scale[1]),
    }
    return Finding(
        severity,  # type: ignore[arg-type]
        tensor.node,
        f"{_called(tensor)}: {what}",
        f"quantisation.{rule}",
        evidence,
        remedy,
    )


def _called(tensor: QuantisedTensor) -> str:
    readers = some([reader.node for reader in tensor.readers], 1)
    return f"{tensor.role} {tensor.tensor!r} of {readers} ({tensor.node})" if readers else f"{tensor.tensor!r}"


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


# -- what TensorRT demands, seen with the parser and builder of TensorRT for RTX 1.7


def _invalid(quantisers: Iterable[Quantiser]) -> Iterator[Finding]:
    wrong = [each.node for each in quantisers if not ((each.scale > 0) & (each.scale < math.inf)).all()]
    if wrong:
        yield Finding(
            "warning",
            wrong[0],
            f"the scale is zero, negative or no number at {some(wrong)}",
            "quantisation.scale",
            {"nodes": len(wrong)},
            "Look for NaN, infinity or zeros in the calibration data, and calibrate again.",
        )


def _refused(quantisers: Sequence[Quantiser], tensors: Sequence[QuantisedTensor]) -> Iterator[Finding]:
    shifted = [each.node for each in quantisers if each.zero_point.any() and each.dtype != "int32"]
    if shifted:
        yield _about_tensorrt(
            shifted,
            "has zero points that are not zero, which TensorRT refuses",
            "zero-point",
            "Quantise symmetrically: ActivationSymmetric and WeightSymmetric in ONNX Runtime's extra_options.",
        )
    biases = [each.node for each in quantisers if each.dtype == "int32"]
    if biases:
        yield _about_tensorrt(
            biases,
            "dequantises an INT32 bias, which TensorRT refuses",
            "bias",
            "Keep biases in FP32: QuantizeBias=False in ONNX Runtime's extra_options.",
        )
    types = [each.node for each in quantisers if each.dtype not in ("int8", "uint8", "int4", "fp4", "int32")]
    foreign = [each.node for each in quantisers if each.node in types and not (each.dtype == "fp8" and each.levels)]
    if foreign:
        yield _about_tensorrt(
            foreign,
            "has a type that TensorRT does not read",
            "type",
            "Quantise to INT8, FP8 (E4M3), INT4 or FP4.",
        )
    unsigned = [each.node for each in quantisers if each.dtype == "uint8" and not each.zero_point.any()]
    if unsigned:
        used = max((tensor.used[1] for tensor in tensors if tensor.node in unsigned), default=0.0)
        yield _about_tensorrt(
            unsigned,
            "is UINT8, which TensorRT reads as INT8: it clips at half of this range"
            + (f", and values reach {used:.0%} of it" if used else ""),
            "type",
            "Quantise to INT8, symmetrically.",
        )


def _about_tensorrt(nodes: Sequence[str], what: str, rule: str, remedy: str) -> Finding:
    return Finding("warning", nodes[0], f"{some(nodes)} {what}", f"quantisation.{rule}", {"nodes": len(nodes)}, remedy)


# -- over all tensors


def _drifted(tensors: Sequence[QuantisedTensor], inputs: Mapping[str, Drift]) -> Iterator[Finding]:
    """One finding for the first tensor that drifts: what comes after it drifts because of it."""
    drifts = [(f"input {name!r}", name, drift) for name, drift in inputs.items()]
    drifts += [(_called(tensor), tensor.node, tensor.drift) for tensor in tensors if tensor.drift is not None]
    drifted = [entry for entry in drifts if entry[2].is_significant]
    # other data show in most of what is computed from them; one tensor of many differs by chance
    if not drifted or (drifted[0][1] not in inputs and len(drifted) < max(2, MIN_DRIFTED * len(drifts))):
        return
    called, where, first = drifted[0]
    excess, ratio = _times(first.excess), _times(first.tail_ratio)
    yield Finding(
        "warning",
        where,
        f"the data under test are not like the calibration data, from {called} on: distributions differ by "
        f"{first.distance:.2f} (Kolmogorov-Smirnov), {excess} times as much as parts of one side, and the range is "
        f"{ratio} times as large; so in {len(drifted)} of {len(drifts)} tensors",
        "quantisation.drift",
        {
            "distance": _number(first.distance),
            "excess": _number(first.excess),
            "p_value": _number(min(first.p_value, first.tail_p_value)),
            "tail_ratio": _number(first.tail_ratio),
            "tensors": len(drifted),
        },
        "Calibrate with data like those of production, preprocessed in the same way (mean, scale, channel order).",
    )


def _advice(
    tensors: Sequence[QuantisedTensor],
    quantisers: Sequence[Quantiser],
    left_out: Mapping[str, str],
    is_partial: bool,
) -> Iterator[Finding]:
    for role in ("weight", "activation"):
        dead = [each for each in tensors if each.role == role and 0 < each.dead_channels < each.channels]
        if dead:
            worst = max(dead, key=lambda tensor: tensor.dead_channels / tensor.channels)
            others = f"; so are some in {counted(len(dead) - 1, f'other {role}')}" if len(dead) > 1 else ""
            yield _finding(
                "advice",
                worst,
                "dead-channels",
                f"{worst.dead_channels} of {worst.channels} channels are always zero{others}",
                "Prune them."
                if role == "weight"
                else "Prune them, or give inputs that reach them: what calibration says of them means nothing.",
            )
    slow = [each for each in quantisers if _is_across(each)]
    if slow:
        yield Finding(
            "advice",
            slow[0].node,
            f"{some([each.node for each in slow])} has scales along another axis than the outputs of the layer: "
            "TensorRT for RTX 1.7 has no INT8 kernel for that and dequantises first",
            "quantisation.axis",
            {"nodes": len(slow)},
            "Use one scale for an activation, and one an output channel for a weight.",
        )
    reasons: dict[str, list[str]] = {}
    for node, reason in left_out.items():
        if "positive number" not in reason and "is not known here" not in reason:  # said already
            reasons.setdefault(reason, []).append(node)
    for reason, nodes in reasons.items():
        yield Finding(
            "advice",
            nodes[0],
            f"{counted(len(nodes), 'Q/DQ node')} not inspected ({some(nodes)}): {reason}",
            "quantisation.not-inspected",
            {"nodes": len(nodes)},
        )
    if is_partial and any(each.role == "activation" for each in quantisers):
        yield Finding(
            "advice",
            "activations",
            "only weights and scales were inspected: no inputs were given",
            "quantisation.no-inputs",
            {},
            "Give real inputs: feeds=[...].",
        )


def _is_across(quantiser: Quantiser) -> bool:
    if quantiser.axis is None or quantiser.block or not quantiser.readers or quantiser.dtype not in ("int8", "fp8"):
        return False
    reader = quantiser.readers[0]
    if quantiser.shape is None:
        return True
    rank = len(quantiser.shape)
    if reader.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or reader.operand != 1:
        return False
    return quantiser.axis % rank != reader.channel_axis("weight") % rank
