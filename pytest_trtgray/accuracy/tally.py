"""Sums over the values of one quantised tensor, which arrive in parts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.accuracy import histograms
from pytest_trtgray.accuracy.quantisers import Quantiser
from pytest_trtgray.accuracy.rounding import Levels, quantise

PIECE_ELEMENTS = 1 << 18
"""Quantised at a time: what fits into a processor's cache, and a bound on the memory beside the tensor itself."""
_CODES = 256
_FACTORS = 2.0 ** (np.arange(-48, 49) / 4)


@dataclass
class Channels:
    """Sums by channel: largest magnitude, squares of the values, squares of the errors."""

    peak: NDArray[np.float64]
    squares: NDArray[np.float64]
    errors: NDArray[np.float64]

    @classmethod
    def of(cls, count: int) -> Channels:
        """None of anything so far."""
        return cls(np.zeros(count), np.zeros(count), np.zeros(count))

    def snr_db(self) -> NDArray[np.float64]:
        """Of each channel; NaN where all values are zero."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(10 * np.log10(self.squares / self.errors))


@dataclass
class Tally:
    """What a quantiser does to the values that were added.

    Attributes:
        quantiser: whose scales are used.
        elements: values so far.
        clipped: values that were cut off.
        squares: sum of the squares of the values.
        errors: sum of the squares of the differences that quantisation makes.
        low: smallest finite value.
        high: largest.
        not_finite: values that are NaN or infinite.
        counts: see :mod:`~pytest_trtgray.accuracy.histograms`.
        codes: how often each level was taken; of types with at most 256.
        channels: sums by channel; ``None`` where their number differs from part to part.
    """

    quantiser: Quantiser
    elements: int = 0
    clipped: int = 0
    squares: float = 0.0
    errors: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    not_finite: int = 0
    counts: histograms.Counts = field(default_factory=lambda: np.zeros(histograms.BINS, np.int64))
    codes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_CODES, np.int64))
    channels: Channels | None = None
    _channels_differ: bool = False

    @property
    def snr_db(self) -> float:
        """Signal to quantisation noise, ``10 log10(sum x^2 / sum (x - Q(x))^2)``; NaN for zeros only."""
        return snr(self.squares, self.errors)

    def add(self, values: NDArray[Any]) -> None:
        """Count in more values, as the readers let them through; NaN and infinities count as zero."""
        if not values.size:
            return
        values = np.asarray(values, np.float32)
        self.elements += values.size
        counts = histograms.count(values)
        if bad := histograms.not_finite(counts):
            self.not_finite += bad
            values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        if self.quantiser.passing != (-math.inf, math.inf):
            values = np.clip(values, *map(np.float32, self.quantiser.passing))
            counts = histograms.count(values)
        self.counts += counts
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        axis = self._axis(values)
        row = 0
        for part, scale, zero in self.quantiser.pieces(values, PIECE_ELEMENTS):
            quantised = quantise(part, scale, zero, self.quantiser.dtype)
            self.clipped += quantised.clipped
            if self.quantiser.dtype not in ("int16", "uint16"):
                self.codes += np.bincount(quantised.codes.reshape(-1), minlength=_CODES)
            wide = part.astype(np.float64)
            squares, errors = wide * wide, (wide - quantised.values) ** 2
            self.squares += float(squares.sum())
            self.errors += float(errors.sum())
            if self.channels is not None and axis is not None:
                rows = slice(row, row + len(part)) if axis == 0 else slice(None)
                others = tuple(other for other in range(part.ndim) if other != axis)
                peak = np.abs(part).max(axis=others)
                self.channels.peak[rows] = np.maximum(self.channels.peak[rows], peak)
                self.channels.squares[rows] += squares.sum(axis=others)
                self.channels.errors[rows] += errors.sum(axis=others)
            row += len(part) if part.ndim else 0

    def _axis(self, values: NDArray[Any]) -> int | None:
        """The axis of the channels, if all parts so far have as many."""
        wanted = self.quantiser.channel_axis
        if not -values.ndim <= wanted < values.ndim or self._channels_differ:
            return None
        axis = wanted % values.ndim
        count = values.shape[axis]
        if self.channels is None:
            self.channels = Channels.of(count)
        elif len(self.channels.peak) != count:
            self.channels, self._channels_differ = None, True
            return None
        return axis

    def used(self) -> float:
        """The part of the range of a single scale that the values need; above 1 where they are clipped."""
        levels = self.quantiser.levels
        assert levels is not None
        scale, zero = float(self.quantiser.scale.max()), float(self.quantiser.zero_point.max())
        above, below = (levels.high - zero) * scale, (zero - levels.low) * scale
        parts = [self.high / above if above else 0.0, -self.low / below if below else 0.0]
        return max(0.0, *parts)

    def bits(self) -> float:
        """Entropy of the levels that were taken: how many bits of the type carry information."""
        share = self.codes[self.codes > 0] / max(1, int(self.codes.sum()))
        return float(-(share * np.log2(share)).sum()) + 0.0

    def best_factor(self) -> tuple[float, float]:
        """The factor on a single scale that would give the best SNR on these values, and by how many dB it is better.

        From the histogram: a value is off by a twelfth of the squared distance of the levels around it, a small one
        by itself, a clipped one by what is cut off.
        """
        levels = self.quantiser.levels
        assert levels is not None
        scale, zero = float(self.quantiser.scale.max()), float(self.quantiser.zero_point.max())
        high = max(levels.high - zero, zero - levels.low)
        counts = histograms.magnitudes(self.counts)
        errors = np.array([expected_errors(counts, scale * factor, levels, high) for factor in _FACTORS])
        now = expected_errors(counts, scale, levels, high)
        best = int(np.argmin(errors))
        if not now or errors[best] >= now:
            return 1.0, 0.0
        return float(_FACTORS[best]), snr(now, float(errors[best]))


def expected_errors(counts: histograms.Counts, scale: float, levels: Levels, high: float) -> float:
    """What rounding makes of values of which only the histogram is known: the sum of the squared errors.

    Args:
        counts: of magnitudes, see :func:`~pytest_trtgray.accuracy.histograms.magnitudes`.
        scale: of the quantisation; 1 for a type of its own.
        levels: of the type.
        high: largest magnitude of a level.
    """
    centres = histograms.centres()
    inside = np.flatnonzero(counts[: len(centres)])
    magnitudes, weights = centres[inside] / scale, counts[inside]
    rounding = np.minimum(magnitudes**2, levels.spacing(magnitudes) ** 2 / 12)
    cut = np.maximum(magnitudes - high, 0.0) ** 2
    return float((np.maximum(rounding, cut) * weights).sum()) * scale**2


def snr(squares: float, errors: float) -> float:
    """A ratio in dB: infinite without errors, NaN without anything."""
    if not squares:
        return math.nan
    return 10 * math.log10(squares / errors) if errors else math.inf
