"""How far an output is from its reference, in the numbers that the field uses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MANTISSA_BITS = 4
"""Of the bins of a :class:`Histogram`: each octave has 16."""
_INFINITE = 255
"""The exponent of what FP32 does not hold."""
RANKS = 10
"""Ranks that are told apart; ``top_k`` goes up to this ``k``."""

Number = int | float


@dataclass(frozen=True)
class WorstElement:
    """One element of an output beside its reference.

    Attributes:
        index: of the element; of a complex output with a last number more, 0 for the real and 1 for the imaginary part.
        got: its value; an ``int`` for integers.
        wanted: the reference's.
        allowed: absolute error that the tolerance allows it.
    """

    index: tuple[int, ...]
    got: Number
    wanted: Number
    allowed: float

    @property
    def error(self) -> Number:
        """Absolute error; NaN or infinite if one of the two is."""
        return abs(self.got - self.wanted)

    @property
    def excess(self) -> float:
        """Error over allowed error; infinite for NaN, infinities and where nothing was allowed."""
        error = float(self.error)
        return error / self.allowed if math.isfinite(error) and self.allowed > 0 else float("inf")


@dataclass(frozen=True)
class Histogram:
    """How often errors of each size occur, in bins that are a sixteenth of an octave wide.

    A bin is the exponent and the first four bits of the mantissa of an error in FP32. What is taken for an error of
    the bin is at most 3.2 % off; errors below 1.2e-38 count as 0.

    Attributes:
        counts: one a bin.
        largest: the largest error, which no quantile exceeds.
        whole: whether errors are whole numbers; quantiles below 32 are then exact.
    """

    counts: NDArray[np.int64]
    largest: float
    whole: bool = False

    def quantile(self, share: float) -> float | None:
        """The smallest error that at least this share of the elements does not exceed, within 3.2 %.

        Args:
            share: between 0 and 1, such as 0.5 for the median.

        Returns:
            ``None`` if no element has such an error.

        Raises:
            ValueError: ``share`` is no number between 0 and 1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"a quantile is of a share between 0 and 1, not {share!r}")
        total = int(self.counts.sum())
        if not total:
            return None
        index = int(np.searchsorted(np.cumsum(self.counts), max(share * total, 1)))
        exponent, mantissa = divmod(index, 1 << MANTISSA_BITS)
        if exponent in (0, _INFINITE):
            return self.largest if exponent else 0.0
        middle = math.ldexp((1 << MANTISSA_BITS) + mantissa + 0.5, exponent - 127 - MANTISSA_BITS)
        return min(float(math.floor(middle)) if self.whole else middle, float(self.largest))

    def between(self, edges: Sequence[float]) -> list[int]:
        """How many errors lie from each edge to the next, the last one open; a bin counts where its middle lies.

        Args:
            edges: in ascending order, the first at most 0.
        """
        exponents, mantissas = np.divmod(np.arange(self.counts.size), 1 << MANTISSA_BITS)
        middles = np.ldexp((1 << MANTISSA_BITS) + mantissas + 0.5, exponents - 127 - MANTISSA_BITS)
        places = np.digitize(np.where(exponents == 0, 0.0, middles), edges) - 1
        return [int(count) for count in np.bincount(places, self.counts, len(edges))]


@dataclass(frozen=True)
class RowError:
    """One row of the first axis, such as one sample of a batch.

    Attributes:
        index: of the row.
        max_abs: largest absolute error.
        relative_l2: ``|got - wanted| / |wanted|`` in the L2 norm; infinite if only the reference is 0. Both numbers
            are infinite if an element of the row is wrong for not being finite.
        wrong: elements over the tolerance.
    """

    index: int
    max_abs: float
    relative_l2: float
    wrong: int


@dataclass(frozen=True)
class Metrics:
    """An output against its reference: all metrics are over the elements that are finite in both.

    ``None`` is a number that does not exist for these arrays, never a good one: the cosine of a zero vector, the
    relative error where the whole reference is 0. The reference is always ``wanted``: swapping the arguments changes
    the relative ones, SNR and PSNR.

    Attributes:
        compared: elements that are finite in both.
        max_abs: element with the largest absolute error ``|got - wanted|``; ``None`` if nothing was compared.
        mean_abs: mean absolute error.
        bias: mean of ``got - wanted``.
        abs_errors: absolute errors by size; for quantiles.
        max_rel: element with the largest relative error ``|got - wanted| / |wanted|``, among those whose reference is
            not 0.
        mean_rel: mean relative error of these.
        rel_errors: relative errors of these by size.
        nonzero: how many these are.
        wrong_zeros: elements whose reference is 0 and which are not 0.
        l2: L2 norm of the error.
        rms_wanted: root mean square of the reference.
        relative_l2: ``l2`` over the reference's L2 norm; 0 if both are 0, ``inf`` if only the reference's is.
        cosine: cosine similarity, between -1 and 1. It does not see scale: read it with ``gain``.
        gain: the factor that takes the reference nearest to the output, in the least-squares sense.
        snr_db: signal-to-noise ratio ``20 log10(|wanted| / |got - wanted|)``; ``inf`` without an error.
        psnr_db: peak signal-to-noise ratio ``20 log10(peak / rms error)``; ``inf`` without an error.
        peak: of ``psnr_db``: the largest ``|wanted|``.
        max_ulp: largest distance in representable numbers of ``ulp_dtype``; +0 and -0 are one number.
        ulps: these distances by size.
        ulp_dtype: type of the output; the reference is rounded to it first. Empty for integers, which have no ULP.
        ranks: of an output of classes, in how many rows the reference's class comes first, second, ... in the output,
            up to rank 10; the last number is of the rows where it comes later or a value is not finite. Empty for
            other outputs.
        rows: error of every row of the first axis, for arrays with 2 to 4096 rows; else empty.
    """

    compared: int
    max_abs: WorstElement | None
    mean_abs: float | None
    bias: float | None
    abs_errors: Histogram
    max_rel: WorstElement | None
    mean_rel: float | None
    rel_errors: Histogram
    nonzero: int
    wrong_zeros: int
    l2: float | None
    rms_wanted: float | None
    relative_l2: float | None
    cosine: float | None
    gain: float | None
    snr_db: float | None
    psnr_db: float | None
    peak: float | None
    max_ulp: int | None
    ulps: Histogram
    ulp_dtype: str
    ranks: tuple[int, ...]
    rows: tuple[RowError, ...]

    def top_k(self, k: int = 1) -> float | None:
        """Share of rows in which the class that the reference puts first is among the ``k`` largest of the output.

        Of equal values the one with the lower index comes first, as :func:`numpy.argmax` has it.

        Returns:
            ``None`` for an output that has no classes.

        Raises:
            ValueError: ``k`` is not between 1 and 10.
        """
        if not 1 <= k <= RANKS:
            raise ValueError(f"k must be between 1 and {RANKS}, not {k!r}")
        return sum(self.ranks[:k]) / sum(self.ranks) if self.ranks else None

    def to_dict(self) -> Mapping[str, Number | str | None]:
        """The scalars, fit for a table or JSON: what is infinite becomes ``None``."""
        numbers: dict[str, Number | str | None] = {
            "compared": self.compared,
            "max_abs": float(self.max_abs.error) if self.max_abs else None,
            "mean_abs": self.mean_abs,
            "bias": self.bias,
            "abs_p50": self.abs_errors.quantile(0.5),
            "abs_p99": self.abs_errors.quantile(0.99),
            "max_rel": _relative(self.max_rel),
            "mean_rel": self.mean_rel,
            "rel_p50": self.rel_errors.quantile(0.5),
            "rel_p99": self.rel_errors.quantile(0.99),
            "l2": self.l2,
            "rms_wanted": self.rms_wanted,
            "relative_l2": self.relative_l2,
            "cosine": self.cosine,
            "gain": self.gain,
            "snr_db": self.snr_db,
            "psnr_db": self.psnr_db,
            "max_ulp": self.max_ulp,
            "ulp_p50": self.ulps.quantile(0.5),
            "ulp_p99": self.ulps.quantile(0.99),
        }
        for k in (1, 5):
            numbers[f"top_{k}"] = self.top_k(k)
        return {name: finite(value) if isinstance(value, float) else value for name, value in numbers.items()}


def finite(number: float | None) -> float | None:
    """The number, unless it is infinite or none; JSON has no others."""
    return number if number is not None and math.isfinite(number) else None


def _relative(element: WorstElement | None) -> float | None:
    return float(element.error) / abs(float(element.wanted)) if element else None
