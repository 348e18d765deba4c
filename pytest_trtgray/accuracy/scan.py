"""The one pass over an output and its reference: verdict and metrics, chunk by chunk, in constant memory.

Arithmetic is in FP32 where that holds both arrays' values exactly, else in FP64. The verdict does not depend on it: an
FP32 chunk only says which elements *may* be over the tolerance (a margin of 2**-20 covers its rounding), and these
are judged in FP64 by numpy's rule, ``|got - wanted| <= atol + rtol * |wanted|``. The difference of 64-bit integers is
exact. A chunk in which anything is not finite, or whose squares FP32 could not hold, is done in FP64.

FP32 sums are over blocks of 4096 elements, and the blocks are added in FP64: the sums are good to about six digits,
maxima and everything that is counted are exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.accuracy.chunks import Pair
from pytest_trtgray.accuracy.metrics import MANTISSA_BITS, RANKS, Histogram, Metrics, RowError, WorstElement
from pytest_trtgray.accuracy.tolerance import Tolerance
from pytest_trtgray.engines.dtypes import dtype_name, float_bits

WORST_SHOWN = 3
BLOCK = 4096
"""Elements of one dot product: OpenBLAS would start threads of its own above 10 000."""
MARGIN = 2.0**-20
"""Of what FP32 calls within the tolerance; its own rounding is below 2**-22."""
AXIS_BINS = 1 << 16
"""Places of an axis that are told apart when wrong elements are counted; longer axes are counted in stretches."""
BINS = (1 << (8 + MANTISSA_BITS)) + 1
"""Of a histogram: the exponents of FP32 with the first bits of the mantissa."""
_SINGLE, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
_SMALL, _LARGE = 1e-15, 1e15
"""Between these the squares of FP32 numbers, and sums of a block of them, neither vanish nor overflow."""
_TINY = 2.0**-100
"""An absolute tolerance below this could drown in what FP32 rounds near its smallest number."""

Array = NDArray[Any]


@dataclass
class Peak:
    """The largest error so far and where it is; of equal ones the first."""

    value: float = -1.0
    element: WorstElement | None = None


@dataclass
class Totals:
    """What is known after some chunks: sums, counts and extremes, from which :func:`summarise` makes metrics.

    Attributes:
        compared: elements that are finite on both sides.
        nonfinite: wrong elements that are not.
        wrong: elements over the tolerance.
        worst: the worst of them, worst first.
        axes: how many of them are at each place of each axis, in stretches of :func:`stretch` places.
        low: smallest finite element of the reference.
        high: the largest.
        two_values: whether the reference's first chunk has at most two different ones.
    """

    compared: int = 0
    nonfinite: int = 0
    wrong: int = 0
    worst: list[WorstElement] = field(default_factory=list)
    axes: list[NDArray[np.int64]] = field(default_factory=list)
    low: float = math.inf
    high: float = -math.inf
    two_values: bool = False
    max_abs: Peak = field(default_factory=Peak)
    max_rel: Peak = field(default_factory=Peak)
    max_ulp: int = 0
    sum_abs: float = 0.0
    sum_signed: float = 0.0
    sum_rel: float = 0.0
    zeros: int = 0
    wrong_zeros: int = 0
    error_norm: float = 0.0
    wanted_norm: float = 0.0
    got_norm: float = 0.0
    cosine: float = 0.0
    abs_counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    rel_counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    ulp_counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    ranks: NDArray[np.int64] = field(default_factory=lambda: np.zeros(RANKS + 1, np.int64))
    row_max: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    row_error: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    row_wanted: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def add_norms(self, error: float, wanted: float, got: float, cosine: float) -> None:
        """Add the L2 norms of further elements; nothing overflows that is not infinite itself."""
        wanted_norm, got_norm = math.hypot(self.wanted_norm, wanted), math.hypot(self.got_norm, got)
        if wanted_norm > 0 and got_norm > 0:
            before = (self.wanted_norm / wanted_norm) * (self.got_norm / got_norm) * self.cosine
            self.cosine = before + (wanted / wanted_norm) * (got / got_norm) * cosine
        self.wanted_norm, self.got_norm = wanted_norm, got_norm
        self.error_norm = math.hypot(self.error_norm, error)


def scan(pair: Pair, tolerance: Tolerance, *, equal_nan: bool = False) -> Totals:
    """Read both arrays once.

    Args:
        pair: not empty.
        tolerance: not scaled.
        equal_nan: accept NaN and infinities where both have the same.
    """
    scanner = _Scanner(pair, tolerance, equal_nan=equal_nan)
    for start, stop in pair.spans():
        scanner.add(start, *pair.read(start, stop))
    return scanner.totals


def root_mean_square(pair: Pair) -> float:
    """Of the finite elements of the reference; 0 if there are none."""
    norm, count = 0.0, 0
    with np.errstate(all="ignore"):
        for start, stop in pair.spans():
            wanted = pair.read(start, stop)[1].astype(pair.working, copy=False)
            square, scale = _dot(wanted, wanted), 1.0
            if not _SMALL**2 < square < _LARGE**2:
                wanted = wanted[np.isfinite(wanted)].astype(_DOUBLE)
                scale = _scale(float(np.abs(wanted).max(initial=0)))
                square = _dot(wanted * scale, wanted * scale)
            norm, count = math.hypot(norm, math.sqrt(square) / scale), count + wanted.size
    return norm / math.sqrt(count) if count else 0.0


def summarise(totals: Totals, pair: Pair) -> Metrics:
    """The metrics of two arrays that were read to their end."""
    count, nonzero = totals.compared, totals.compared - totals.zeros
    error, wanted, got = totals.error_norm, totals.wanted_norm, totals.got_norm
    peak = max(-totals.low, totals.high, 0.0)
    ulp_dtype = dtype_name(pair.got_dtype) if float_bits(pair.got_dtype) else ""
    cosine = min(max(totals.cosine, -1.0), 1.0) if wanted and got and math.isfinite(error) else None
    return Metrics(
        compared=count,
        max_abs=totals.max_abs.element,
        mean_abs=totals.sum_abs / count if count else None,
        bias=totals.sum_signed / count if count else None,
        abs_errors=Histogram(totals.abs_counts, totals.max_abs.value),
        max_rel=totals.max_rel.element,
        mean_rel=totals.sum_rel / nonzero if nonzero else None,
        rel_errors=Histogram(totals.rel_counts, totals.max_rel.value),
        nonzero=nonzero,
        wrong_zeros=totals.wrong_zeros,
        l2=error if count else None,
        rms_wanted=wanted / math.sqrt(count) if count else None,
        relative_l2=_ratio(error, wanted) if count else None,
        cosine=cosine,
        gain=None if cosine is None else cosine * (got / wanted),
        snr_db=_decibels(wanted, error) if count else None,
        psnr_db=_decibels(peak, error / math.sqrt(count)) if count else None,
        peak=peak if count else None,
        max_ulp=totals.max_ulp if ulp_dtype and count else None,
        ulps=Histogram(totals.ulp_counts, totals.max_ulp, whole=True),
        ulp_dtype=ulp_dtype,
        ranks=tuple(map(int, totals.ranks)) if pair.classes else (),
        rows=tuple(
            RowError(index, float(top), _ratio(float(error), float(wanted)), int(wrong))
            for index, (top, error, wanted, wrong) in enumerate(
                zip(totals.row_max, totals.row_error, totals.row_wanted, totals.axes[0], strict=True)
            )
        )
        if pair.row_size
        else (),
    )


def _ratio(error: float, wanted: float) -> float:
    """``error / wanted``; of nothing by nothing it is 0."""
    if not wanted:
        return math.inf if error else 0.0
    return error / wanted if math.isfinite(wanted) else math.inf


def _decibels(signal: float, noise: float) -> float | None:
    """``20 log10(signal / noise)``; without a signal there is no such number."""
    if not signal:
        return None
    return 20 * (math.log10(signal) - math.log10(noise)) if noise else math.inf


class _Scratch:
    """Arrays that every chunk writes into anew.

    Args:
        size: elements of the longest chunk.
        dtype: that is computed in.
    """

    def __init__(self, size: int, dtype: np.dtype[Any]) -> None:
        self.error, self.magnitude, self.other = (np.empty(size, dtype) for _ in range(3))
        self.single = np.empty(size, np.float32)
        self.mask = np.empty(size, np.bool_)
        self.bins = np.empty(size, np.intp)


@dataclass(frozen=True)
class _Chunk:
    """Some elements of both arrays.

    Attributes:
        start: place of the first one.
        raw_got: in the array's own type.
        raw_wanted: in the array's own type.
        got: in the type that is computed in.
        wanted: in the type that is computed in.
        odd: which were not finite on one side; both sides are 0 there instead.
    """

    start: int
    raw_got: Array
    raw_wanted: Array
    got: Array
    wanted: Array
    odd: Array | None = None


class _Scanner:
    """Adds up chunks; one a thread."""

    def __init__(self, pair: Pair, tolerance: Tolerance, *, equal_nan: bool) -> None:
        self._pair = pair
        self._rtol, self._atol = tolerance.rtol, tolerance.atol
        self._equal_nan = equal_nan
        self._scratches: dict[np.dtype[Any], _Scratch] = {}
        self._ulp_bits = float_bits(pair.got_dtype)
        self.totals = totals = Totals()
        if pair.row_size:
            rows = pair.shape[0]
            totals.row_max, totals.row_error, totals.row_wanted = (np.zeros(rows) for _ in range(3))
        totals.axes = [np.zeros(min(size, AXIS_BINS), np.int64) for size in pair.shape]

    def add(self, start: int, raw_got: Array, raw_wanted: Array) -> None:
        """Add the chunk that begins at element ``start``."""
        working = self._pair.working
        with np.errstate(all="ignore"):
            got, wanted = raw_got.astype(working, copy=False), raw_wanted.astype(working, copy=False)
            if not self._add(_Chunk(start, raw_got, raw_wanted, got, wanted)):
                self._add(self._mended(start, raw_got, raw_wanted))

    def _mended(self, start: int, raw_got: Array, raw_wanted: Array) -> _Chunk:
        """The chunk in FP64, with 0 on both sides where one is not finite; these elements are dealt with here."""
        totals = self.totals
        got, wanted = raw_got.astype(_DOUBLE), raw_wanted.astype(_DOUBLE)
        odd = ~(np.isfinite(got) & np.isfinite(wanted))
        if odd.any():
            agree = (got == wanted) | (np.isnan(got) & np.isnan(wanted)) if self._equal_nan else np.zeros_like(odd)
            bad = np.flatnonzero(odd & ~agree)
            totals.nonfinite += bad.size
            self._note_wrong(_Chunk(start, raw_got, raw_wanted, got, wanted), bad)
            if self._pair.row_size:
                rows = (bad + start) // self._pair.row_size
                totals.row_max[rows] = totals.row_error[rows] = np.inf
            raw_got, raw_wanted = (np.where(odd, raw.dtype.type(0), raw) for raw in (raw_got, raw_wanted))
            got[odd] = wanted[odd] = 0
        return _Chunk(start, raw_got, raw_wanted, got, wanted, odd)

    def _add(self, chunk: _Chunk) -> bool:
        """Add a chunk; nothing is done and False returned if it has to be mended first."""
        totals, pair, size = self.totals, self._pair, chunk.got.size
        scratch = self._scratch(chunk.got.dtype)
        error, magnitude = scratch.error[:size], scratch.magnitude[:size]
        np.subtract(chunk.got, chunk.wanted, out=error)
        signed = _sum(error)
        np.abs(error, out=error)
        np.abs(chunk.wanted, out=magnitude)
        top = float(error.max())
        sizes = top, float(magnitude.max()), max(float(chunk.got.max()), -float(chunk.got.min()))
        if chunk.odd is None and not _is_tame(error.dtype, sizes):
            return False
        distance = _integer_distance(chunk.raw_got, chunk.raw_wanted) if pair.integers else None
        if distance is not None:
            np.copyto(error, distance, casting="unsafe")
            top = float(error.max())
        skipped = 0 if chunk.odd is None else int(np.count_nonzero(chunk.odd))
        totals.compared += size - skipped
        totals.sum_signed += signed
        totals.sum_abs += _sum(error)
        totals.abs_counts += _histogram(error, scratch)
        totals.abs_counts[0] -= skipped
        self._add_norms(chunk, error, sizes)
        self._add_range(chunk)
        self._judge(chunk, error, magnitude, distance, scratch)
        self._note_peak(totals.max_abs, chunk, error, top)
        self._add_relative(chunk, error, magnitude, scratch)
        totals.zeros -= skipped
        if self._ulp_bits:
            self._add_ulps(chunk, scratch)
        if pair.classes:
            self._add_ranks(chunk)
        return True

    def _scratch(self, dtype: np.dtype[Any]) -> _Scratch:
        if dtype not in self._scratches:
            self._scratches[dtype] = _Scratch(self._pair.chunk, dtype)
        return self._scratches[dtype]

    def _add_norms(self, chunk: _Chunk, error: Array, sizes: tuple[float, float, float]) -> None:
        """L2 norms of the chunk, and of each of its rows; ``sizes`` are the largest error, reference and output."""
        scales = [_scale(size) for size in sizes]
        arrays = [
            array if scale == 1 else array * scale
            for array, scale in zip((error, chunk.wanted, chunk.got), scales, strict=True)
        ]
        row = self._pair.row_size
        rows = max(error.size // row, 1) if row else 1
        errors, wanteds, gots = (_dots(array, array, rows) for array in arrays)
        norms = [math.sqrt(sums.sum()) for sums in (errors, wanteds, gots)]
        product = float(_dots(arrays[1], arrays[2], rows).sum())
        cosine = product / (norms[1] * norms[2]) if norms[1] and norms[2] else 0.0
        totals = self.totals
        totals.add_norms(norms[0] / scales[0], norms[1] / scales[1], norms[2] / scales[2], cosine)
        if row:
            which = slice(chunk.start // row, chunk.start // row + rows)
            _combine(np.hypot, totals.row_error[which], np.sqrt(errors) / scales[0])
            _combine(np.hypot, totals.row_wanted[which], np.sqrt(wanteds) / scales[1])
            _combine(np.maximum, totals.row_max[which], error.reshape(rows, -1).max(axis=1))

    def _add_range(self, chunk: _Chunk) -> None:
        kept = chunk.wanted if chunk.odd is None else chunk.wanted[~chunk.odd]
        if not kept.size:
            return
        low, high = kept.min(), kept.max()
        self.totals.low, self.totals.high = min(self.totals.low, float(low)), max(self.totals.high, float(high))
        if chunk.start == 0:
            self.totals.two_values = bool(((kept == low) | (kept == high)).all())

    def _judge(self, chunk: _Chunk, error: Array, magnitude: Array, distance: Array | None, scratch: _Scratch) -> None:
        """Find what is over the tolerance: first what may be, then what is."""
        limit = self._sure_limit(magnitude, scratch.other[: error.size])
        suspect = np.flatnonzero(np.greater(error, limit, out=scratch.mask[: error.size]))
        if not suspect.size:
            return
        wanted = chunk.raw_wanted[suspect].astype(_DOUBLE)
        allowed = self._atol + self._rtol * np.abs(wanted)
        if distance is None:
            bad = ~(np.abs(chunk.raw_got[suspect].astype(_DOUBLE) - wanted) <= allowed)
        else:
            bad = _exceeds(distance[suspect], allowed)
        self._note_wrong(chunk, suspect[bad])

    def _sure_limit(self, magnitude: Array, out: Array) -> Any:
        """An error up to which an element certainly passes, in the arithmetic of the chunk."""
        number = magnitude.dtype.type
        rtol, atol = (value * (1 - MARGIN) if value >= _TINY else 0.0 for value in (self._rtol, self._atol))
        if not rtol:
            return number(atol)
        np.multiply(magnitude, number(rtol), out=out)
        if atol:
            return np.add(out, number(atol), out=out)
        # the product may have been rounded up to the smallest numbers that there are
        np.subtract(out, number(2.0**-140), out=out)
        return np.maximum(out, number(0), out=out)

    def _note_wrong(self, chunk: _Chunk, places: NDArray[np.intp]) -> None:
        """Count wrong elements, along every axis too, and keep the worst."""
        if not places.size:
            return
        totals = self.totals
        totals.wrong += places.size
        remaining = places + chunk.start
        for size, counts in zip(reversed(self._pair.shape), reversed(totals.axes), strict=True):
            remaining, along = np.divmod(remaining, size)
            counts += np.bincount(along // stretch(size), minlength=counts.size)
        got, wanted = chunk.raw_got[places].astype(_DOUBLE), chunk.raw_wanted[places].astype(_DOUBLE)
        excess = np.abs(got - wanted) / (self._atol + self._rtol * np.abs(wanted))
        order = np.argsort(-np.nan_to_num(excess, nan=np.inf), kind="stable")[:WORST_SHOWN]
        totals.worst = _worst([*totals.worst, *(self._element(chunk, int(place)) for place in places[order])])

    def _note_peak(self, peak: Peak, chunk: _Chunk, sizes: Array, top: float, reference: Array | None = None) -> None:
        """Take over the largest error of a chunk, exactly, if it is the largest so far.

        Args:
            peak: of the chunks before.
            chunk: both arrays.
            sizes: errors, in the arithmetic of the chunk.
            top: the largest of them.
            reference: what the errors are relative to, infinite where they do not count.
        """
        if top < peak.value * (1 - MARGIN) or (peak.value == top == 0):
            return
        places = np.flatnonzero(sizes >= sizes.dtype.type(top * (1 - MARGIN)))
        if chunk.odd is not None:
            places = places[~chunk.odd[places]]
        if reference is not None:
            places = places[np.isfinite(reference[places])]
        if not places.size:
            return
        exact = sizes[places].astype(_DOUBLE)
        if sizes.dtype != _DOUBLE:
            exact = np.abs(chunk.raw_got[places].astype(_DOUBLE) - chunk.raw_wanted[places].astype(_DOUBLE))
            exact /= 1.0 if reference is None else reference[places].astype(_DOUBLE)
        best = int(exact.argmax())
        if exact[best] > peak.value:
            peak.value, peak.element = float(exact[best]), self._element(chunk, int(places[best]))

    def _element(self, chunk: _Chunk, place: int) -> WorstElement:
        got, wanted = (_number(raw[place]) for raw in (chunk.raw_got, chunk.raw_wanted))
        index = tuple(int(axis) for axis in np.unravel_index(chunk.start + place, self._pair.shape))
        return WorstElement(index, got, wanted, self._atol + self._rtol * abs(float(wanted)))

    def _add_relative(self, chunk: _Chunk, error: Array, magnitude: Array, scratch: _Scratch) -> None:
        """Relative errors of the elements whose reference is not 0; ``magnitude`` is lost."""
        totals, zeros = self.totals, 0
        if not magnitude.min():
            is_zero = np.equal(magnitude, 0, out=scratch.mask[: error.size])
            zeros = int(np.count_nonzero(is_zero))
            totals.wrong_zeros += int(np.count_nonzero(error[is_zero]))
            np.copyto(magnitude, np.inf, where=is_zero)  # their relative error becomes 0
        relative = np.divide(error, magnitude, out=scratch.other[: error.size])
        top = float(relative.max())
        if not math.isfinite(top):  # beside the smallest numbers that FP32 has
            relative = error.astype(_DOUBLE) / magnitude
            top = float(relative.max())
        totals.zeros += zeros
        totals.rel_counts += _histogram(relative, scratch)
        totals.rel_counts[0] -= zeros
        totals.sum_rel += _sum(relative)
        self._note_peak(totals.max_rel, chunk, relative, top, magnitude)

    def _add_ulps(self, chunk: _Chunk, scratch: _Scratch) -> None:
        got, wanted = chunk.raw_got, chunk.raw_wanted
        distance = ulp_distance(got, wanted.astype(got.dtype, copy=False), self._ulp_bits, scratch.bins)
        self.totals.max_ulp = max(self.totals.max_ulp, int(distance.max()))
        np.copyto(scratch.single[: distance.size], distance, casting="unsafe")
        self.totals.ulp_counts += _histogram(scratch.single[: distance.size], scratch)

    def _add_ranks(self, chunk: _Chunk) -> None:
        """Where the reference's first class comes in each row of the output."""
        totals, classes = self.totals, self._pair.classes
        got, wanted = chunk.got.reshape(-1, classes), chunk.wanted.reshape(-1, classes)
        right = wanted.argmax(axis=1)
        agree = got.argmax(axis=1) == right
        broken = np.zeros_like(agree) if chunk.odd is None else chunk.odd.reshape(-1, classes).any(axis=1)
        totals.ranks[0] += np.count_nonzero(agree & ~broken)
        totals.ranks[RANKS] += np.count_nonzero(broken)
        others = np.flatnonzero(~agree & ~broken)
        if others.size:
            rows, right = got[others], right[others, None]
            value = np.take_along_axis(rows, right, axis=1)
            before = (rows > value) | ((rows == value) & (np.arange(classes) < right))
            totals.ranks += np.bincount(np.minimum(np.count_nonzero(before, axis=1), RANKS), minlength=RANKS + 1)


def _worst(elements: list[WorstElement]) -> list[WorstElement]:
    """The few worst, worst first; of equal ones those that come first."""
    return sorted(elements, key=lambda element: -element.excess)[:WORST_SHOWN]


def ulp_distance(got: Array, wanted: Array, bits: int, scratch: NDArray[np.intp] | None = None) -> Array:
    """How many steps from one representable number to the next lie between two arrays.

    The bits of a float are its sign and a number that grows with its magnitude, so that the distance of two
    numbers of one sign is the difference of their bits, and of two numbers of different sign the sum of their
    magnitudes' bits.

    Args:
        got: finite floats.
        wanted: of the same dtype.
        bits: of the dtype, sign included.
        scratch: at least as many elements, that may be overwritten.

    Returns:
        unsigned integers.
    """
    left, right = _left_aligned(got, bits), _left_aligned(wanted, bits)
    size, kind = left.size, left.dtype
    work = np.empty(size, kind) if scratch is None else scratch.view(kind)[:size]
    np.bitwise_xor(left, right, out=work)
    # of different signs there are few, next to zero
    opposite = np.flatnonzero(work < 0) if work.min() < 0 else None
    np.subtract(left, right, out=work)
    np.abs(work, out=work)
    distance = work.view(np.uint64 if bits == 64 else np.uint32)
    if opposite is not None:
        most = np.iinfo(kind).max
        distance[opposite] = (left[opposite] & most).view(distance.dtype) + (right[opposite] & most).view(
            distance.dtype
        )
    return np.asarray(distance if bits in (32, 64) else distance >> np.uint32(32 - bits))


def _left_aligned(array: Array, bits: int) -> Array:
    """The bits of floats with the sign in front, as integers of 64 or 32 bits."""
    if bits == 64:
        return array.view(np.int64)
    if bits == 32:
        return array.view(np.int32)
    stored: Array = array.view(np.uint16 if array.dtype.itemsize == 2 else np.uint8)
    aligned: Array = stored.astype(np.uint32) << np.uint32(32 - bits)
    return aligned.view(np.int32)


def stretch(size: int) -> int:
    """Length of the stretches in which places of an axis of this size are counted."""
    return -(-size // AXIS_BINS)


def _is_tame(dtype: np.dtype[Any], sizes: tuple[float, ...]) -> bool:
    """Whether everything is finite, and squares of the largest numbers fit into the type."""
    if dtype == _DOUBLE:
        return all(map(math.isfinite, sizes))
    return all(size == 0 or _SMALL <= size <= _LARGE for size in sizes)


def _scale(size: float) -> float:
    """A power of two that brings numbers up to ``size`` to where their squares fit into FP64."""
    if size == 0 or 1e-140 < size < 1e140 or not math.isfinite(size):
        return 1.0
    return 2.0 ** -max(math.frexp(size)[1], -1000)


def _combine(operation: Any, into: Array, values: Array) -> None:
    operation(into, values, out=into)


def _dots(left: Array, right: Array, rows: int) -> Array:
    """The inner product of each of ``rows`` rows of equal length."""
    length = left.size // rows
    if length <= BLOCK:
        products = np.matmul(left.reshape(rows, 1, length), right.reshape(rows, length, 1))
        return np.asarray(products.reshape(rows), _DOUBLE)
    pairs = zip(left.reshape(rows, length), right.reshape(rows, length), strict=True)
    return np.array([_dot(one, other) for one, other in pairs])


def _dot(left: Array, right: Array) -> float:
    """The inner product, in blocks."""
    blocks, rest = divmod(left.size, BLOCK)
    total = float(np.dot(left[-rest:], right[-rest:])) if rest else 0.0
    if blocks:
        whole = blocks * BLOCK
        total += float(_dots(left[:whole], right[:whole], blocks).sum())
    return total


def _sum(values: Array) -> float:
    """The sum, in blocks: an inner product with ones is the quickest that numpy has."""
    blocks, rest = divmod(values.size, BLOCK)
    ones = _ONES[values.dtype]
    total = float(np.dot(values[-rest:], ones[:rest])) if rest else 0.0
    if blocks:
        sums = np.matmul(values[: blocks * BLOCK].reshape(blocks, 1, BLOCK), ones[:, None])
        total += float(sums.sum(dtype=_DOUBLE))
    return total


_ONES = {dtype: np.ones(BLOCK, dtype) for dtype in (_SINGLE, _DOUBLE)}


def _histogram(errors: Array, scratch: _Scratch) -> NDArray[np.int64]:
    single = errors.astype(_SINGLE, copy=False)
    bins = np.right_shift(single.view(np.int32), 23 - MANTISSA_BITS, out=scratch.bins[: errors.size])
    return np.bincount(bins, minlength=BINS)


def _integer_distance(got: Array, wanted: Array) -> NDArray[np.uint64]:
    """``|got - wanted|`` of 64-bit integers, which may be larger than the type itself holds."""
    left, right = got.view(np.uint64), wanted.view(np.uint64)
    return np.where(got >= wanted, left - right, right - left)


def _exceeds(distance: NDArray[np.uint64], allowed: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether an integer is larger than a number, without rounding the integer."""
    limit = np.floor(allowed)
    small = limit < 2.0**64
    return np.asarray(small & (distance > np.where(small, limit, 0).astype(np.uint64)))


def _number(value: Any) -> int | float:
    return int(value) if np.dtype(value.dtype).kind in "iu" else float(value)
