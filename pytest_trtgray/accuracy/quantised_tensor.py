"""One quantised tensor in numbers: an activation, a weight, a weight whose FP32 values are gone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.accuracy.drift import Drift
from pytest_trtgray.accuracy.quantisers import Quantiser, Reader, Role
from pytest_trtgray.accuracy.rounding import spread
from pytest_trtgray.accuracy.tally import Tally


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
        low: smallest FP32 value that a reader lets through: before a Relu, none is below zero.
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


def activation_row(tally: Tally, drift: Drift | None) -> QuantisedTensor:
    """An activation, from all that was added of it."""
    factor, gain = tally.best_factor() if tally.quantiser.axis is None else (1.0, 0.0)
    used = tally.used()
    return _row(tally, used=(used, used), gain_db=gain, best_factor=factor, drift=drift)


def weight_row(quantiser: Quantiser, values: NDArray[np.float32]) -> QuantisedTensor:
    """A weight against its FP32 values."""
    levels = quantiser.levels
    assert levels is not None
    tally = Tally(quantiser)
    tally.add(values)
    peaks = _largest_by_scale(values, quantiser)
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


def stored_row(quantiser: Quantiser) -> QuantisedTensor:
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
        used=_used_by_scale(_largest_by_scale(values, quantiser), quantiser),
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


def _largest_by_scale(values: NDArray[np.float32], quantiser: Quantiser) -> NDArray[np.float64]:
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
        not_finite=tally.not_finite,
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
