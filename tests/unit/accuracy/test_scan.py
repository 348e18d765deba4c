"""The one pass, held against plain numpy over whole arrays and against Python's own numbers."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pytest_trtgray.accuracy import chunks
from pytest_trtgray.accuracy.chunks import Pair
from pytest_trtgray.accuracy.metrics import RANKS, Histogram, Metrics
from pytest_trtgray.accuracy.scan import Totals, root_mean_square, scan, summarise, ulp_distance
from pytest_trtgray.accuracy.tolerance import Tolerance
from pytest_trtgray.engines.dtypes import float_bits

Array = NDArray[Any]
INF, NAN = float("inf"), float("nan")
SMALL_FLOATS = [
    *(ml_dtypes.bfloat16, np.float16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fnuz),
    *(ml_dtypes.float6_e2m3fn, ml_dtypes.float4_e2m1fn),
]
ALL_FLOATS = [np.float64, np.float32, *SMALL_FLOATS]
INTEGERS = [np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64, ml_dtypes.int4, ml_dtypes.uint4]
EXACT = Tolerance(0.0, 0.0)


@contextmanager
def chunks_of(elements: int) -> Iterator[None]:
    before, chunks.CHUNK_ELEMENTS = chunks.CHUNK_ELEMENTS, elements
    try:
        yield
    finally:
        chunks.CHUNK_ELEMENTS = before


def measured(
    got: Array, wanted: Array, tolerance: Tolerance = EXACT, classes: int = 0, **options: Any
) -> tuple[Totals, Metrics]:
    pair = Pair(got, wanted, classes)
    totals = scan(pair, tolerance, **options)
    return totals, summarise(totals, pair)


def close(got: Array, wanted: Array, tolerance: Tolerance) -> Array:
    """Numpy's own verdict in FP64; NaN and infinities are wrong."""
    left, right = got.astype(np.float64), wanted.astype(np.float64)
    near = np.isclose(left, right, rtol=tolerance.rtol, atol=tolerance.atol)
    return np.asarray(near & np.isfinite(left) & np.isfinite(right))


class TestVerdict:
    @given(
        hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(width=32)),
        hnp.arrays(np.float32, 30, elements=st.floats(width=32)),
        st.floats(0, 1e3) | st.sampled_from([0.0, 5e-324, 1e-45, 1e-40, 1e-38, 1e-30]),
        st.floats(0, 1e3) | st.sampled_from([0.0, 5e-324, 1e-45, 1e-40, 1e-38, 1e-30]),
        st.integers(1, 40),
    )
    def test_any_numbers(self, got: Array, wanted: Array, rtol: float, atol: float, chunk: int) -> None:
        tolerance, wanted = Tolerance(rtol, atol), wanted[: got.size]
        with chunks_of(chunk):
            totals, _ = measured(got, wanted, tolerance)

        assert totals.wrong == int((~close(got, wanted, tolerance)).sum())

    @pytest.mark.parametrize("dtype", [np.float64, *(dtype for dtype in SMALL_FLOATS if np.dtype(dtype).itemsize > 1)])
    @given(st.data())
    def test_other_widths(self, dtype: Any, data: st.DataObject) -> None:
        values = hnp.arrays(np.float64, 20, elements=st.floats(-1e5, 1e5) | st.sampled_from([INF, NAN, 0.0]))
        with np.errstate(over="ignore"):
            got, wanted = data.draw(values).astype(dtype), data.draw(values).astype(dtype)
        got[:10] = wanted[:10]
        tolerance = Tolerance(data.draw(st.floats(0, 1)), data.draw(st.floats(0, 10)))

        assert measured(got, wanted, tolerance)[0].wrong == int((~close(got, wanted, tolerance)).sum())

    @given(
        hnp.arrays(np.float32, 40, elements=st.floats(-(2.0**100), 2.0**100, width=32)),
        st.sampled_from([1e-3, 1e-5, 0.5, 0.0, 2.0**-140]),
        st.sampled_from([1e-3, 1e-5, 0.5, 0.0, 2.0**-149, 1e-42, 2.0**-126]),
        hnp.arrays(np.int32, 40, elements=st.integers(-6, 6)),
    )
    def test_a_few_steps_around_the_tolerance(self, wanted: Array, rtol: float, atol: float, steps: Array) -> None:
        """There FP32 alone would often be wrong, in both directions."""
        tolerance = Tolerance(rtol, atol)
        exact = wanted.astype(np.float64)
        edge = (exact + (atol + rtol * np.abs(exact)) * np.where(steps % 2, 1, -1)).astype(np.float32)
        got = edge.copy()
        for _ in range(6):
            got = np.where(np.abs(steps) > _, np.nextafter(got, np.copysign(np.float32(INF), steps)), got)

        assert measured(got, wanted, tolerance)[0].wrong == int((~close(got, wanted, tolerance)).sum())

    @pytest.mark.parametrize("dtype", INTEGERS)
    @given(st.data())
    def test_integers_are_exact(self, dtype: Any, data: st.DataObject) -> None:
        limits = ml_dtypes.iinfo(dtype)
        number = st.integers(int(limits.min), int(limits.max))
        pairs = data.draw(
            st.lists(st.tuples(number, number) | number.flatmap(lambda n: st.just((n, max(n - 1, int(limits.min))))),
                     min_size=1, max_size=20)
        )  # fmt: skip
        tolerance = Tolerance(data.draw(st.sampled_from([0.0, 0.25, 1.0])), float(data.draw(st.integers(0, 3))))
        wide = np.uint64 if limits.min == 0 else np.int64
        got, wanted = (np.array([pair[side] for pair in pairs], wide).astype(dtype) for side in (0, 1))
        wrong = [
            abs(one - other) > Fraction(tolerance.atol + tolerance.rtol * float(abs(other))) for one, other in pairs
        ]
        totals, metrics = measured(got, wanted, tolerance)

        assert totals.wrong == sum(wrong)
        assert metrics.max_abs is not None
        assert metrics.max_abs.error == max(abs(one - other) for one, other in pairs)

    def test_the_largest_integers(self) -> None:
        wanted = np.array([2**63 - 1, -(2**63), 0], np.int64)
        totals, metrics = measured(wanted - np.array([1, 0, 0]), wanted)
        assert totals.wrong == 1
        assert totals.worst[0].got == 2**63 - 2
        assert metrics.max_abs is not None
        assert metrics.max_abs.error == 1

        far = np.array([-(2**63), 2**63 - 1, 0], np.int64)
        assert measured(far, wanted, Tolerance(0, 2.0**63))[0].wrong == 2
        assert measured(far, wanted, Tolerance(0, 2.0**64))[0].wrong == 0

        unsigned = np.array([2**64 - 1, 0], np.uint64)
        assert measured(unsigned[::-1], unsigned)[1].max_abs.error == 2**64 - 1  # type: ignore[union-attr]

    def test_truth_values(self) -> None:
        totals, metrics = measured(np.array([True, False, True]), np.array([True, True, True]))
        assert totals.wrong == 1
        assert metrics.mean_abs == pytest.approx(1 / 3)
        assert metrics.max_ulp is None

    @given(
        hnp.arrays(np.complex64, (3, 4), elements=st.complex_numbers(max_magnitude=100, width=64)), st.integers(1, 9)
    )
    def test_complex_numbers_part_by_part(self, wanted: Array, chunk: int) -> None:
        got = wanted.copy()
        got[1, 2] += 3j
        with chunks_of(chunk):
            totals, metrics = measured(got, wanted, Tolerance(0, 1))

        assert totals.wrong == 1
        assert totals.worst[0].index == (1, 2, 1)
        assert metrics.compared == 24


class TestMetrics:
    @given(
        hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=7), elements=st.floats(-1e6, 1e6, width=32)),
        st.integers(0, 99),
        st.integers(1, 50),
        st.sampled_from([np.float64, np.float32, np.float16, ml_dtypes.bfloat16]),
    )
    def test_as_numpy_has_them(self, wanted: Array, seed: int, chunk: int, dtype: Any) -> None:
        wanted = np.clip(wanted, -6e4, 6e4).astype(dtype)
        rng = np.random.Generator(np.random.PCG64(seed))
        got = (wanted.astype(np.float64) * rng.normal(1, 0.1, wanted.shape)).clip(-6e4, 6e4).astype(dtype)
        with chunks_of(chunk):
            _, metrics = measured(got, wanted)

        check_against_numpy(metrics, got, wanted)

    @pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-30, 1e-12, 1e30, 1e160, 1e300])
    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    def test_squares_that_do_not_fit_into_the_type(self, scale: float, dtype: Any) -> None:
        rng = np.random.Generator(np.random.PCG64(3))
        ratios = rng.normal(1, 0.01, 300)
        base = rng.standard_normal(300)
        with np.errstate(over="ignore", under="ignore"):
            wanted = (base * scale).astype(dtype)
            got = (base * ratios * scale).astype(dtype)
        assume_usable = np.isfinite(wanted).all() and np.abs(wanted).min() > np.finfo(dtype).tiny
        if not assume_usable:
            pytest.skip(f"{np.dtype(dtype).name} has no numbers of this size")
        _, metrics = measured(got, wanted)
        # the same, at a size where nothing can go wrong
        left, right = (array.astype(np.float64) / scale for array in (got, wanted))

        assert metrics.relative_l2 == pytest.approx(np.linalg.norm(left - right) / np.linalg.norm(right), rel=1e-5)
        assert metrics.cosine == pytest.approx(left @ right / np.linalg.norm(left) / np.linalg.norm(right), rel=1e-6)
        assert metrics.gain == pytest.approx(left @ right / (right @ right), rel=1e-6)
        assert metrics.rms_wanted == pytest.approx(np.sqrt(np.mean(right**2)) * scale, rel=1e-6)
        assert root_mean_square(Pair(got, wanted)) == pytest.approx(metrics.rms_wanted, rel=1e-6)

    def test_chunks_of_very_different_size(self) -> None:
        wanted = np.repeat(np.array([1e-30, 1e30, 1.0, 0.0], np.float32), 100)
        with chunks_of(100):
            _, metrics = measured(wanted * np.float32(1.5), wanted)

        assert metrics.relative_l2 == pytest.approx(0.5)
        assert metrics.gain == pytest.approx(1.5)
        assert metrics.cosine == pytest.approx(1.0)
        assert metrics.mean_rel == pytest.approx(0.5)
        assert metrics.nonzero == 300

    def test_a_reference_of_zeros(self) -> None:
        zeros = np.zeros(10, np.float32)
        got = zeros.copy()
        got[3] = 2
        totals, metrics = measured(got, zeros)

        assert totals.wrong == metrics.wrong_zeros == 1
        assert metrics.nonzero == 0
        assert metrics.max_rel is None
        assert metrics.mean_rel is metrics.cosine is metrics.gain is None
        assert metrics.snr_db is metrics.psnr_db is None
        assert metrics.rel_errors.quantile(0.5) is None
        assert metrics.relative_l2 == INF
        assert metrics.to_dict()["relative_l2"] is None

    def test_zeros_on_both_sides(self) -> None:
        """0 / 0 is no error, and no number of its own."""
        zeros = np.zeros(10, np.float32)
        totals, metrics = measured(zeros, -zeros)

        assert totals.wrong == metrics.wrong_zeros == metrics.max_ulp == 0
        assert metrics.relative_l2 == 0
        assert metrics.max_abs is not None
        assert metrics.max_abs.error == 0
        assert metrics.mean_rel is metrics.cosine is None

    @given(
        hnp.arrays(np.float32, 24, elements=st.floats(-100, 100, width=32) | st.sampled_from([0.0, NAN, INF, -INF])),
        st.integers(1, 30),
    )
    def test_what_is_not_finite_is_left_out(self, got: Array, chunk: int) -> None:
        wanted = np.linspace(-50, 50, 24, dtype=np.float32)
        wanted[::5] = 0
        finite = np.isfinite(got)
        with chunks_of(chunk):
            totals, metrics = measured(got, wanted, Tolerance(0, 1e9))

        assert totals.wrong == totals.nonfinite == int((~finite).sum())
        assert metrics.compared == int(finite.sum())
        assert int(metrics.abs_errors.counts.sum()) == metrics.compared
        if finite.any():
            check_against_numpy(metrics, got[finite], wanted[finite])
            assert metrics.max_abs is not None
            assert math.isfinite(metrics.max_abs.got)

    def test_equal_arrays(self) -> None:
        values = np.linspace(-1, 1, 50, dtype=np.float32)
        _, metrics = measured(values, values.copy())

        assert metrics.snr_db == metrics.psnr_db == INF
        assert metrics.cosine == pytest.approx(1)
        assert metrics.abs_errors.quantile(1) == 0
        assert metrics.to_dict()["snr_db"] is None

    def test_the_reference_is_the_second_one(self) -> None:
        """Swapped, the relative numbers are others."""
        small, large = np.linspace(1, 2, 10, dtype=np.float32), np.linspace(10, 20, 10, dtype=np.float32)
        there, back = measured(small, large)[1], measured(large, small)[1]

        assert there.relative_l2 == pytest.approx(0.9)
        assert back.relative_l2 == pytest.approx(9)
        assert there.snr_db == pytest.approx(-20 * math.log10(0.9))
        assert there.peak == 20
        assert back.peak == 2

    def test_the_peak_is_the_largest_magnitude(self) -> None:
        """All negative too: 1.0 in its place would make any output of small numbers good."""
        wanted = -np.linspace(1e-3, 5e-3, 10, dtype=np.float32)
        _, metrics = measured(wanted + np.float32(5e-4), wanted)

        assert metrics.peak == pytest.approx(5e-3)
        assert metrics.psnr_db == pytest.approx(20, abs=0.01)

    def test_cosine_does_not_see_scale_and_gain_does(self) -> None:
        wanted = np.linspace(-1, 1, 50, dtype=np.float32)
        _, metrics = measured(wanted * 1000, wanted)

        assert metrics.cosine == pytest.approx(1)
        assert metrics.gain == pytest.approx(1000)
        assert metrics.relative_l2 == pytest.approx(999)

    @given(st.integers(0, 99), st.integers(1, 5000), st.sampled_from([0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0]))
    def test_quantiles(self, seed: int, size: int, share: float) -> None:
        errors = np.exp(np.random.Generator(np.random.PCG64(seed)).normal(-7, 3, size)).astype(np.float32)
        _, metrics = measured(errors, np.zeros_like(errors))
        exact = float(np.quantile(errors, share, method="inverted_cdf"))

        assert metrics.abs_errors.quantile(share) == pytest.approx(exact, rel=0.032)

    def test_quantiles_of_few_and_of_none(self) -> None:
        histogram = measured(np.array([0, 0, 3], np.float32), np.zeros(3, np.float32))[1].abs_errors
        assert [histogram.quantile(share) for share in (0, 0.5, 0.67, 1)] == [0, 0, 3, 3]
        assert Histogram(np.zeros(5, np.int64), 0.0).quantile(0.5) is None
        with pytest.raises(ValueError, match="a share between 0 and 1, not 99"):
            histogram.quantile(99)

    def test_errors_by_decade(self) -> None:
        errors = np.array([0, 1e-40, 3e-7, 4e-7, 2, 5, 70, np.float32(3e38)], np.float32)
        _, metrics = measured(errors, np.zeros_like(errors))

        assert metrics.abs_errors.between([0, 1e-7, 1e-6, 1, 10, 100]) == [2, 2, 0, 2, 1, 1]

    def test_long_arrays(self) -> None:
        """Over several chunks of the usual size, with a rest."""
        rng = np.random.Generator(np.random.PCG64(5))
        wanted = rng.standard_normal((5, 7, 20_011), dtype=np.float32)
        got = wanted + np.float32(1e-3) * rng.standard_normal(wanted.shape, dtype=np.float32)
        totals, metrics = measured(got, wanted, Tolerance(0, 2e-3))

        assert totals.wrong == int((~close(got, wanted, Tolerance(0, 2e-3))).sum()) > 1000
        check_against_numpy(metrics, got, wanted)


def check_against_numpy(metrics: Metrics, got: Array, wanted: Array) -> None:
    """Every number, computed in FP64 over the whole arrays."""
    left, right = got.astype(np.float64).reshape(-1), wanted.astype(np.float64).reshape(-1)
    error = np.abs(left - right)
    nonzero = right != 0
    tiny = 1e-12 * max(1.0, float(error.max()))
    assert metrics.max_abs is not None
    assert metrics.max_abs.error == error.max()
    assert metrics.mean_abs == pytest.approx(error.mean(), rel=1e-5, abs=tiny)
    assert metrics.bias == pytest.approx((left - right).mean(), rel=1e-4, abs=1e-6 * max(error.mean(), 1e-300))
    assert metrics.l2 == pytest.approx(np.linalg.norm(error), rel=1e-5, abs=tiny)
    assert metrics.rms_wanted == pytest.approx(np.sqrt(np.mean(right**2)), rel=1e-5)
    assert metrics.nonzero == np.count_nonzero(nonzero)
    assert metrics.wrong_zeros == np.count_nonzero(error[~nonzero])
    if nonzero.any():
        relative = error[nonzero] / np.abs(right[nonzero])
        assert metrics.max_rel is not None
        assert float(metrics.max_rel.error) / abs(metrics.max_rel.wanted) == pytest.approx(relative.max(), rel=1e-12)
        assert metrics.mean_rel == pytest.approx(relative.mean(), rel=1e-5)
        assert metrics.relative_l2 == pytest.approx(np.linalg.norm(error) / np.linalg.norm(right), rel=1e-5)
        if left.any():
            cosine = left @ right / np.linalg.norm(left) / np.linalg.norm(right)
            assert metrics.cosine == pytest.approx(cosine, rel=1e-5, abs=1e-6)
            assert metrics.gain == pytest.approx(left @ right / (right @ right), rel=1e-5, abs=1e-6)
        if error.any():
            assert metrics.snr_db == pytest.approx(10 * np.log10((right @ right) / (error @ error)), abs=1e-4)
            peak = np.abs(right).max()
            assert metrics.psnr_db == pytest.approx(10 * np.log10(peak**2 / np.mean(error**2)), abs=1e-4)


class TestUlp:
    @pytest.mark.parametrize("dtype", ALL_FLOATS)
    def test_steps_between_neighbours(self, dtype: Any) -> None:
        """From one number to the next is one step, across zero as well; from the n-th to the m-th is m - n."""
        bits = float_bits(dtype)
        if bits <= 16:
            kind = np.uint16 if bits == 16 else np.uint8
            numbers = np.arange(1 << bits, dtype=np.uint32).astype(kind).view(dtype)
            with np.errstate(invalid="ignore"):
                numbers = numbers[np.isfinite(numbers.astype(np.float64))]
            order = np.argsort(numbers.astype(np.float64), kind="stable")
            numbers = numbers[order]
        else:
            start = np.array(0, dtype)
            up = list(itertools.accumulate(range(40), lambda x, _: np.nextafter(x, dtype(1)), initial=start))
            numbers = np.array([-x for x in reversed(up[1:])] + up, dtype)
        values = numbers.astype(np.float64)
        place = np.unique(values, return_inverse=True)[1].reshape(-1).astype(np.int64)
        rng = np.random.Generator(np.random.PCG64(1))
        left, right = rng.integers(0, numbers.size, (2, 3000))

        assert ulp_distance(numbers[:-1], numbers[1:], bits).max() == 1
        assert (ulp_distance(numbers[left], numbers[right], bits) == np.abs(place[left] - place[right])).all()

    @given(
        st.lists(st.tuples(*(st.floats(allow_nan=False, allow_infinity=False),) * 2), min_size=1, max_size=10),
        st.sampled_from([np.float32, np.float64]),
    )
    def test_any_two_numbers(self, pairs: list[tuple[float, float]], dtype: Any) -> None:
        with np.errstate(over="ignore"):
            got, wanted = np.array(pairs).astype(dtype).T.copy()
        assume(np.isfinite(got).all() and np.isfinite(wanted).all())
        kind = np.int32 if dtype == np.float32 else np.int64

        def ordinal(value: Any) -> int:
            integer = int(np.asarray(value).view(kind))
            return integer if integer >= 0 else -(integer + np.iinfo(kind).max + 1)

        exact = [abs(ordinal(one) - ordinal(other)) for one, other in zip(got, wanted, strict=True)]
        assert [int(x) for x in ulp_distance(got, wanted, np.dtype(dtype).itemsize * 8)] == exact
        assert measured(got, wanted)[1].max_ulp == max(exact)

    def test_the_reference_is_rounded_to_the_outputs_type(self) -> None:
        wanted = np.linspace(1, 2, 1000, dtype=np.float32)
        got = np.nextafter(wanted.astype(np.float16), np.float16(9))
        _, metrics = measured(got, wanted)

        assert metrics.ulp_dtype == "float16"
        assert metrics.max_ulp == 1
        assert metrics.ulps.quantile(0.5) == 1

    def test_quantiles_of_small_distances_are_exact(self) -> None:
        wanted = np.ones(32, np.float32)
        got = (wanted.view(np.int32) + np.arange(32, dtype=np.int32)).view(np.float32)
        _, metrics = measured(got, wanted)

        assert [metrics.ulps.quantile(index / 32 + 1e-9) for index in range(32)] == list(range(32))

    @pytest.mark.parametrize("dtype", [np.longdouble, ml_dtypes.float8_e8m0fnu, np.int32])
    def test_types_without(self, dtype: Any) -> None:
        values = np.ones(9, np.float32).astype(dtype)
        _, metrics = measured(values, values)

        assert metrics.max_ulp is None
        assert metrics.ulp_dtype == ""


class TestClasses:
    @given(
        hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(2, 15)), elements=st.integers(-3, 3)),
        st.integers(0, 99),
        st.integers(1, 100),
    )
    def test_as_a_stable_sort_has_it(self, wanted: Array, seed: int, chunk: int) -> None:
        """With many ties."""
        rng = np.random.Generator(np.random.PCG64(seed))
        got = (wanted + rng.integers(-1, 2, wanted.shape)).astype(np.float32)
        with chunks_of(chunk):
            _, metrics = measured(got, wanted, classes=wanted.shape[1])
        order = np.argsort(-got, axis=1, kind="stable")

        for k in range(1, RANKS + 1):
            hits = (order[:, :k] == wanted.argmax(axis=1)[:, None]).any(axis=1)
            assert metrics.top_k(k) == pytest.approx(hits.mean())

    def test_a_row_with_nan_does_not_agree(self) -> None:
        wanted = np.eye(4, dtype=np.float32)
        got = wanted.copy()
        got[2, 0] = NAN
        _, metrics = measured(got, wanted, classes=4)

        assert metrics.top_k(1) == metrics.top_k(4) == 0.75

    def test_a_constant_output_agrees_by_chance_only(self) -> None:
        wanted = np.eye(10, dtype=np.float32)
        _, metrics = measured(np.ones_like(wanted), wanted, classes=10)

        assert metrics.top_k(1) == 0.1

    def test_without_classes(self) -> None:
        _, metrics = measured(np.ones((2, 3)), np.ones((2, 3)))

        assert metrics.top_k(1) is None
        with pytest.raises(ValueError, match="k must be between 1 and 10"):
            metrics.top_k(11)


class TestRows:
    @given(
        st.integers(2, 6), st.integers(1, 40), st.integers(1, 60), st.sampled_from([np.float64, np.float32, np.float16])
    )
    def test_every_row_on_its_own(self, rows: int, length: int, chunk: int, dtype: Any) -> None:
        rng = np.random.Generator(np.random.PCG64(rows * length))
        wanted = rng.standard_normal((rows, length, 1)).astype(dtype)
        got = wanted + (rng.standard_normal((rows, length, 1)) * 0.1).astype(dtype)
        with chunks_of(chunk):
            _, metrics = measured(got, wanted, Tolerance(0, 0.1))

        assert [row.index for row in metrics.rows] == list(range(rows))
        for row, one, other in zip(metrics.rows, got.astype(float), wanted.astype(float), strict=True):
            error = np.abs(one - other)
            assert row.max_abs == pytest.approx(error.max(), rel=1e-6)
            assert row.relative_l2 == pytest.approx(np.linalg.norm(error) / np.linalg.norm(other), rel=1e-4)
            assert row.wrong == int((error > 0.1).sum())

    def test_rows_longer_than_a_block(self) -> None:
        wanted = np.ones((3, 10_000), np.float32)
        got = wanted.copy()
        got[1] += 0.5
        _, metrics = measured(got, wanted)

        assert [row.relative_l2 for row in metrics.rows] == [0, pytest.approx(0.5), 0]
        assert [row.wrong for row in metrics.rows] == [0, 10_000, 0]

    def test_a_row_with_nan_is_infinitely_wrong(self) -> None:
        wanted = np.ones((3, 4), np.float32)
        got = wanted.copy()
        got[1, 2] = NAN
        _, metrics = measured(got, wanted)

        assert [(row.relative_l2, row.max_abs, row.wrong) for row in metrics.rows] == [
            (0, 0, 0),
            (INF, INF, 1),
            (0, 0, 0),
        ]
        accepted = got.copy()
        assert [row.wrong for row in measured(got, accepted, equal_nan=True)[1].rows] == [0, 0, 0]

    @pytest.mark.parametrize("shape", [(12,), (1, 12), (chunks.MAX_ROWS + 1, 2)])
    def test_none_of_one_row_or_of_very_many(self, shape: tuple[int, ...]) -> None:
        assert measured(np.ones(shape), np.ones(shape))[1].rows == ()


class TestReading:
    @given(st.permutations(range(3)), st.integers(1, 70), st.booleans())
    def test_any_layout_of_memory(self, order: list[int], chunk: int, step: bool) -> None:
        wanted = np.arange(60, dtype=np.float32).reshape(3, 4, 5).transpose(order)
        wanted = wanted[:, ::2] if step else wanted
        got = np.array(wanted, order="C")
        got[1, 1, 1] += 7
        with chunks_of(chunk):
            totals, metrics = measured(got, wanted, Tolerance(0, 1))

        assert totals.worst[0].index == (1, 1, 1)
        assert totals.wrong == 1
        check_against_numpy(metrics, got, wanted)

    @given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 30), st.integers(1, 40))
    @example(2, 3, 7, 4)
    def test_chunks_cover_everything_once(self, rows: int, inner: int, classes: int, chunk: int) -> None:
        array = np.zeros((rows, inner, classes), np.float32)
        with chunks_of(chunk):
            pair = Pair(array, array, classes)
            spans = list(pair.spans())

            assert [start for start, _ in spans] == [0, *(stop for _, stop in spans[:-1])]
            assert spans[-1][1] == array.size
            assert all(start % classes == 0 and stop - start <= pair.chunk for start, stop in spans)
            row = inner * classes
            assert all(start % row == 0 or start // row == (stop - 1) // row for start, stop in spans if rows > 1)

    def test_memory_does_not_grow_with_the_arrays(self, tmp_path: Path) -> None:
        """An output of 128 MiB on disk, and its reference, in another layout."""
        shape = (64, 1 << 19)
        got = np.memmap(tmp_path / "got", np.float32, "w+", shape=shape)
        got[:] = 1
        wanted = np.memmap(tmp_path / "wanted", np.float32, "w+", shape=shape[::-1]).T
        wanted[:] = 1
        wanted[63, 5] = 3
        tracemalloc.start()
        try:
            totals, metrics = measured(got, wanted, Tolerance(0, 0.5))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

        assert totals.worst[0].index == (63, 5)
        assert metrics.compared == 1 << 25
        assert peak < 16 << 20
