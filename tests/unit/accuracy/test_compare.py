from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pytest_trtgray.accuracy import chunks
from pytest_trtgray.accuracy.compare import Comparison, compare, compare_many
from pytest_trtgray.accuracy.differences import MIN_INFORMATIVE
from pytest_trtgray.accuracy.metrics import WorstElement
from pytest_trtgray.accuracy.scan import WORST_SHOWN
from pytest_trtgray.accuracy.tolerance import Tolerance

NAN, INF = float("nan"), float("inf")
Array = NDArray[Any]


def floats(*values: float, dtype: Any = np.float32) -> Array:
    return np.array(values, dtype)


def rules(found: Comparison) -> list[str]:
    return [finding.rule for finding in found.findings]


def single(got: Array, wanted: Array, **options: Any) -> Comparison:
    return compare({"y": got}, {"y": wanted}, **options)


class TestAgainstNumpy:
    @given(
        hnp.arrays(
            np.float32,
            st.tuples(st.just(2), st.integers(1, 30)),
            elements=st.floats(-100, 100, width=32) | st.sampled_from([NAN, INF, -INF, 0.0]),
        ),
        st.floats(0, 1),
        st.floats(0, 1),
        st.booleans(),
    )
    def test_the_same_elements_pass(self, pair: Array, rtol: float, atol: float, equal_nan: bool) -> None:
        got, wanted = pair
        close = np.isclose(got.astype(np.float64), wanted.astype(np.float64), rtol=rtol, atol=atol, equal_nan=equal_nan)
        if not equal_nan:  # infinities that agree are wrong all the same, unless the user accepts them
            close &= np.isfinite(got) & np.isfinite(wanted)
        found = single(got, wanted, rtol=rtol, atol=atol, equal_nan=equal_nan)

        assert found.ok == bool(close.all())
        assert found.outputs[0].wrong == int((~close).sum())

    @given(hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e3, 1e3, width=32)))
    def test_an_array_agrees_with_itself(self, values: Array) -> None:
        (output,) = single(values, values.copy(), rtol=0, atol=0).outputs

        assert output.ok
        assert (output.wrong, output.max_abs, output.relative_l2) == (0, 0.0, 0.0)
        assert output.elements == values.size

    @given(
        hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e3, 1e3, width=32)),
        hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e3, 1e3, width=32)),
    )
    def test_statistics(self, got: Array, wanted: Array) -> None:
        size = min(got.size, wanted.size)
        got, wanted = got[:size], wanted[:size]
        (output,) = single(got, wanted, rtol=0, atol=1e9).outputs
        exact, right = got.astype(np.float64), wanted.astype(np.float64)

        assert output.max_abs == np.abs(exact - right).max()
        assert output.metrics is not None
        assert output.metrics.rms_wanted == pytest.approx(np.sqrt(np.mean(right**2)))
        if right.any():
            assert output.relative_l2 == pytest.approx(np.linalg.norm(exact - right) / np.linalg.norm(right))

    @given(st.integers(1, 7), st.integers(1, 50), st.data())
    def test_chunks_make_no_difference(self, chunk: int, size: int, data: st.DataObject) -> None:
        wanted = np.linspace(-1, 1, size, dtype=np.float32) + 3
        got = wanted.copy()
        wrong = data.draw(st.sets(st.integers(0, size - 1), max_size=5))
        for rank, index in enumerate(sorted(wrong)):
            got[index] += 10.0**rank
        whole = single(got, wanted, rtol=1e-3, atol=0)
        before, chunks.CHUNK_ELEMENTS = chunks.CHUNK_ELEMENTS, chunk
        try:
            parts = single(got, wanted, rtol=1e-3, atol=0)
        finally:
            chunks.CHUNK_ELEMENTS = before

        assert parts.outputs[0].wrong == whole.outputs[0].wrong == len(wrong)
        assert parts.outputs[0].worst == whole.outputs[0].worst
        assert parts.outputs[0].relative_l2 == pytest.approx(whole.outputs[0].relative_l2)
        assert parts.outputs[0].max_abs == whole.outputs[0].max_abs


class TestWorstElement:
    @pytest.mark.parametrize("place", [0, chunks.CHUNK_ELEMENTS - 1, chunks.CHUNK_ELEMENTS, chunks.CHUNK_ELEMENTS + 6])
    def test_its_index_across_the_border_of_a_chunk(self, place: int) -> None:
        wanted = np.ones((1, chunks.CHUNK_ELEMENTS // 8 + 1, 8), np.float32)
        got = wanted.copy()
        got.flat[place] = 7
        got.flat[5] = 1.5 if place != 5 else 7
        (output,) = single(got, wanted, rtol=1e-3, atol=0).outputs

        assert output.worst[0].index == tuple(int(axis) for axis in np.unravel_index(place, wanted.shape))
        assert output.worst[0].got == 7
        assert output.worst[1].got == 1.5
        assert output.wrong == 2

    def test_the_worst_is_relative_to_what_was_allowed(self) -> None:
        (output,) = single(floats(1010, 1.5), floats(1000, 1), rtol=1e-3, atol=0).outputs

        assert [element.index for element in output.worst] == [(1,), (0,)]

    def test_nan_is_worse_than_any_number(self) -> None:
        (output,) = single(floats(1e30, NAN, 3), floats(1, 1, 1), rtol=1e-3, atol=0).outputs

        assert output.worst[0].index == (1,)
        assert len(output.worst) == 3

    def test_nan_in_a_later_chunk_is_first_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", 2)
        (output,) = single(floats(1e30, 1, 1, NAN), floats(1, 1, 1, 1), rtol=1e-3, atol=0).outputs

        assert output.worst[0].index == (3,)

    @given(hnp.arrays(np.float32, 20, elements=st.floats(-5, 5, width=32)))
    def test_worst_first(self, got: Array) -> None:
        (output,) = single(got, np.zeros(20, np.float32), rtol=0, atol=0.5).outputs
        errors = sorted((abs(float(value)) for value in got if abs(value) > 0.5), reverse=True)

        assert [abs(element.got) for element in output.worst] == errors[:WORST_SHOWN]

    def test_of_a_scalar(self) -> None:
        found = single(np.float32(2), np.float32(1))

        assert found.outputs[0].worst[0].index == ()
        assert "worst at []" in found.message()

    @pytest.mark.parametrize(
        ("got", "wanted", "allowed", "excess"),
        [(2.0, 1.0, 0.5, 2.0), (NAN, 1.0, 0.5, INF), (2.0, INF, 0.5, INF), (2.0, 1.0, 0.0, INF)],
    )
    def test_excess(self, got: float, wanted: float, allowed: float, excess: float) -> None:
        assert WorstElement((0,), got, wanted, allowed).excess == excess


class TestNotFinite:
    @pytest.mark.parametrize("value", [NAN, INF, -INF])
    def test_alone_on_either_side(self, value: float) -> None:
        for equal_nan in (False, True):
            for got, wanted in ((floats(1, value), floats(1, 2)), (floats(1, 2), floats(1, value))):
                found = single(got, wanted, rtol=0.5, atol=1e9, equal_nan=equal_nan)

                assert rules(found) == ["accuracy.non-finite"]
                assert (found.outputs[0].wrong, found.outputs[0].nan) == (1, 1)
                assert found.outputs[0].worst[0].index == (1,)
                assert "65504" in found.findings[0].remedy

    @pytest.mark.parametrize("value", [NAN, INF, -INF])
    def test_on_both_sides(self, value: float) -> None:
        got, wanted = floats(1, value), floats(1, value)

        assert not single(got, wanted).ok
        assert single(got, wanted, equal_nan=True).ok

    @pytest.mark.parametrize(("got", "wanted"), [(INF, -INF), (-INF, INF), (NAN, INF), (INF, NAN)])
    def test_not_the_same(self, got: float, wanted: float) -> None:
        assert not single(floats(got), floats(wanted), rtol=1, atol=1e9, equal_nan=True).ok

    def test_everything_is_nan(self) -> None:
        nothing = np.full((3, 4), NAN, np.float32)
        (output,) = single(nothing, nothing).outputs

        assert (output.wrong, output.nan) == (12, 12)
        assert output.relative_l2 == output.max_abs == INF
        assert output.metrics is not None
        assert output.metrics.compared == 0
        assert output.metrics.relative_l2 is output.metrics.cosine is output.metrics.mean_abs is None

    def test_the_message_tells_how_many(self) -> None:
        message = single(floats(NAN, INF, 9, 1), floats(1, 1, 1, 1)).message()

        assert "3 of 4 elements differ" in message
        assert "2 of them are NaN or infinite" in message

    def test_statistics_leave_them_out(self) -> None:
        (output,) = single(floats(NAN, 3, 1), floats(1, 1, 1)).outputs

        assert output.max_abs == 2.0
        assert output.relative_l2 == pytest.approx(2 / np.sqrt(2))

    def test_the_scale_of_the_default_tolerance_leaves_them_out(self) -> None:
        (output,) = single(floats(INF, 1, 1), floats(INF, 1, 1), equal_nan=True).outputs

        assert output.ok
        assert output.metrics is not None
        assert output.metrics.rms_wanted == 1.0

    def test_every_number_of_a_small_float_that_has_no_infinity(self) -> None:
        values = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn)
        found = single(values, values)

        assert found.outputs[0].nan == int(np.isnan(values.astype(np.float32)).sum()) == 2
        assert single(values, values, equal_nan=True).ok


class TestNames:
    def test_a_missing_output(self) -> None:
        found = compare({"a": floats(1)}, {"a": floats(1), "b": floats(2)})

        assert rules(found) == ["accuracy.output-missing"]
        assert found.findings[0].where == "b"
        assert [output.name for output in found.outputs] == ["a"]

    def test_an_extra_output(self) -> None:
        assert rules(compare({"a": floats(1), "b": floats(2)}, {"a": floats(1)})) == ["accuracy.output-extra"]

    def test_a_renamed_output(self) -> None:
        found = compare({"z": floats(1)}, {"y": floats(1)})

        assert rules(found) == ["accuracy.output-missing", "accuracy.output-extra"]
        assert not found.ok

    def test_the_order_of_outputs_does_not_matter(self) -> None:
        assert compare({"b": floats(2), "a": floats(1)}, {"a": floats(1), "b": floats(2)}).ok

    def test_no_outputs_at_all(self) -> None:
        with pytest.raises(ValueError, match="nothing to compare"):
            compare({}, {})
        with pytest.raises(ValueError, match="nothing to compare"):
            compare({"a": floats(1)}, {})
        assert rules(compare({}, {"a": floats(1)})) == ["accuracy.output-missing"]

    def test_one_output_of_many_is_wrong(self) -> None:
        names = [f"out{index}" for index in range(20)]
        reference = {name: floats(1, 2, 3) for name in names}
        actual = {**reference, "out7": floats(1, 2, 4)}
        found = compare(actual, reference)

        assert [finding.where for finding in found.findings] == ["out7"]
        assert len(found.outputs) == 20


class TestForm:
    @pytest.mark.parametrize("shape", [(4,), (1, 4), (2, 2, 1), ()])
    def test_another_shape(self, shape: tuple[int, ...]) -> None:
        size = int(np.prod(shape))
        found = single(np.ones(shape, np.float32), np.ones((2, 2), np.float32))

        assert rules(found) == ["accuracy.shape"]
        assert "wanted 2x2" in found.findings[0].what
        assert size in (1, 4)

    def test_shapes_that_would_broadcast(self) -> None:
        assert rules(single(np.ones((1, 4), np.float32), np.ones((3, 4), np.float32))) == ["accuracy.shape"]

    def test_empty_arrays(self) -> None:
        empty = np.ones((0, 4), np.float32)

        assert rules(single(empty, empty)) == ["accuracy.empty"]
        assert not single(empty, empty).ok

    @pytest.mark.parametrize(
        ("got", "wanted"),
        [(np.float16, np.float32), (np.float64, np.float32), (np.int32, np.int64), (np.int8, np.uint8)],
    )
    def test_another_dtype(self, got: Any, wanted: Any) -> None:
        found = single(np.ones(3, got), np.ones(3, wanted))

        assert rules(found) == ["accuracy.dtype"]
        assert f"is {np.dtype(got).name}, wanted {np.dtype(wanted).name}" in found.findings[0].what

    def test_a_declared_dtype_is_the_one_that_counts(self) -> None:
        half, full = floats(1, 2, dtype=np.float16), floats(1, 2)

        assert single(half, full, dtypes={"y": "float16"}).ok
        assert rules(single(full, full, dtypes={"y": "float16"})) == ["accuracy.dtype"]

    @pytest.mark.parametrize(
        "dtype",
        [
            np.float64,
            np.float32,
            np.float16,
            ml_dtypes.bfloat16,
            ml_dtypes.float8_e4m3fn,
            np.int64,
            np.int32,
            np.int8,
            np.uint8,
            ml_dtypes.int4,
            np.bool_,
        ],
    )
    def test_every_dtype(self, dtype: Any) -> None:
        values = np.array([0, 1, 1, 0, 1, 0, 0, 1], np.float32).astype(dtype)
        other = values.copy()
        other[3] = np.float32(1).astype(dtype)

        assert single(values, values.copy(), rtol=0, atol=0).ok
        found = single(other, values, rtol=0, atol=0)
        assert found.outputs[0].wrong == 1
        assert found.outputs[0].worst[0].index == (3,)

    def test_half_precision_is_compared_by_value(self) -> None:
        wanted = np.linspace(1, 2, 100, dtype=np.float32)
        for dtype, name in ((np.float16, "float16"), (ml_dtypes.bfloat16, "bfloat16")):
            found = single(wanted.astype(dtype), wanted, dtypes={"y": name}, precision=name)

            assert found.ok
            assert found.outputs[0].max_abs > 0

    def test_no_overflow_in_small_integers(self) -> None:
        """200 - 10 and 10 - 200 do not fit into eight bits."""
        found = single(np.array([200, 10], np.uint8), np.array([10, 200], np.uint8), rtol=0, atol=100)

        assert found.outputs[0].max_abs == 190
        assert found.outputs[0].wrong == 2

    def test_large_integers_are_not_rounded(self) -> None:
        found = single(np.array([2**53 + 1]), np.array([2**53]), rtol=0, atol=0)

        assert found.outputs[0].wrong == 1

    @pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
    def test_indices_have_no_default_tolerance(self, precision: str) -> None:
        """The next class or token is another one, however large its number."""
        wanted = np.array([50_000, 101, 7, 3], np.int64)
        got = np.array([50_001, 101, 7, 3], np.int64)

        assert not single(got, wanted, precision=precision).ok
        assert single(wanted, wanted, precision=precision).ok
        assert single(got, wanted, rtol=0.1, precision=precision).ok

    @pytest.mark.filterwarnings("error")
    def test_very_large_numbers(self) -> None:
        large = floats(1e200, -1e200, dtype=np.float64)

        assert single(large, large.copy()).ok
        assert not single(-large, large).ok

    def test_complex_numbers_are_not_cut_to_their_real_part(self) -> None:
        """Refused or compared, but never passed over."""
        try:
            agrees = single(np.array([1 + 2j]), np.array([1 + 3j])).ok
        except (TypeError, ValueError):
            agrees = False

        assert not agrees

    def test_lists_and_scalars_are_arrays(self) -> None:
        assert compare({"y": [1.0, 2.0]}, {"y": np.array([1.0, 2.0])}).ok  # type: ignore[dict-item]


class TestTolerance:
    def test_the_default_scales_with_the_tensor(self) -> None:
        """Elements near zero by cancellation are as wrong as the tensor is large."""
        wanted = floats(1000, -1000, 0, 500)

        assert single(wanted + floats(0, 0, 0.05, 0), wanted).ok
        assert not single(wanted + floats(0, 0, 0.5, 0), wanted).ok
        assert single(wanted + floats(0, 0, 0.5, 0), wanted, precision="float16").ok

    @given(st.floats(2**-10, 2**10, width=32))
    def test_the_default_does_not_depend_on_the_unit(self, factor: float) -> None:
        wanted = floats(3, -1, 0.5, 2, dtype=np.float64)
        good, bad = wanted + 5e-5, wanted + 5e-3

        assert single(good * factor, wanted * factor).ok
        assert not single(bad * factor, wanted * factor).ok

    def test_own_numbers_replace_the_default(self) -> None:
        assert single(floats(1.4), floats(1), rtol=0.5).ok
        assert single(floats(1.4), floats(1), atol=0.5).ok
        assert not single(floats(1.4), floats(1), rtol=0.1).ok
        assert not single(floats(1 + 1e-5), floats(1), rtol=0).ok

    def test_exactly_the_tolerance_passes(self) -> None:
        assert single(floats(1.5), floats(1), rtol=0, atol=0.5).ok
        assert not single(floats(np.nextafter(np.float32(1.5), np.float32(2))), floats(1), rtol=0, atol=0.5).ok

    @pytest.mark.parametrize("atol", [5e-324, 1e-300])
    def test_next_to_nothing(self, atol: float) -> None:
        """How many times over the tolerance is more than a float can hold."""
        (output,) = single(floats(4, 1e30), floats(0, 0), rtol=0, atol=atol).outputs

        assert output.wrong == 2
        assert output.worst[0].excess >= 1e300

    @pytest.mark.parametrize("given_", [Tolerance(0, 0.5), {"atol": 0.5}, (0.0, 0.5)])
    def test_of_one_output(self, given_: Any) -> None:
        actual, reference = {"a": floats(1.4), "b": floats(1.4)}, {"a": floats(1), "b": floats(1)}
        found = compare(actual, reference, rtol=1e-3, per_output={"a": given_})

        assert [finding.where for finding in found.findings] == ["b"]

    def test_of_an_output_that_is_not_there(self) -> None:
        with pytest.raises(ValueError, match=r"per_output names \['z'\]"):
            single(floats(1), floats(1), per_output={"z": (1, 1)})

    def test_a_misspelt_key(self) -> None:
        with pytest.raises(ValueError, match=r"unknown \['tol'\]"):
            single(floats(1), floats(1), per_output={"y": {"tol": 1.0}})

    @pytest.mark.parametrize("value", [-1e-9, NAN, INF])
    def test_numbers_that_make_no_sense(self, value: float) -> None:
        with pytest.raises(ValueError, match="rtol must be a finite number"):
            single(floats(1), floats(1), rtol=value)
        with pytest.raises(ValueError, match="atol must be a finite number"):
            single(floats(1), floats(1), atol=value)


class TestBlindReference:
    def test_a_constant_reference(self) -> None:
        same = np.full(MIN_INFORMATIVE, 0.25, np.float32)
        found = single(same, same)

        assert found.ok
        assert rules(found) == ["accuracy.blind-reference"]
        assert "the same number everywhere (0.25)" in found.findings[0].what
        assert found.findings[0].severity == "warning"

    def test_a_saturated_reference(self) -> None:
        saturated = np.zeros(10, np.float32)
        saturated[3] = 1

        assert "only two different values" in single(saturated, saturated).findings[0].what

    def test_not_for_few_elements_or_integers(self) -> None:
        few = np.ones(MIN_INFORMATIVE - 1, np.float32)
        integers = np.ones(50, np.int64)

        assert single(few, few).findings == ()
        assert single(integers, integers).findings == ()

    def test_not_beside_an_error(self) -> None:
        same = np.zeros(10, np.float32)

        assert rules(single(same + 1, same)) == ["accuracy.difference"]

    def test_not_for_a_sound_reference(self) -> None:
        sound = np.linspace(0, 1, 10, dtype=np.float32)

        assert single(sound, sound).findings == ()


class TestMessage:
    def test_the_verdict_is_on_the_first_line(self) -> None:
        found = single(floats(1, 5, 1), floats(1, 2, 1), rtol=1e-3, atol=0)
        with pytest.raises(AssertionError) as caught:
            found.check()
        first = str(caught.value).splitlines()[0]

        assert first == ("outputs differ: output 'y': 1 of 3 elements differ; worst at [1]: got 5, wanted 2 (+-0.002)")
        assert "--" not in first
        assert "rtol= and atol=" in str(caught.value)

    def test_of_agreement(self) -> None:
        found = single(floats(1), floats(1))
        found.check()

        assert found.message() == "outputs agree"

    def test_of_several_outputs(self) -> None:
        reference = {name: floats(1, 2) for name in ("a", "b", "c")}
        message = compare({"a": floats(1, 9), "b": floats(1, 2)}, reference).message()

        assert message.startswith("outputs differ: output 'c' is missing")
        assert "(and 1 more)" in message.splitlines()[0]
        assert "output 'a': 1 of 2 elements differ" in message

    def test_evidence_is_fit_for_json(self) -> None:
        (finding,) = single(floats(1, NAN), floats(1, 2)).findings

        assert finding.evidence["wrong"] == 1
        assert finding.evidence["got"] == "nan"
        assert all(isinstance(value, str | int | float) for value in finding.evidence.values())


class TestManyRuns:
    RUN: ClassVar[dict[str, Array]] = {"y": floats(1, 2, 3)}
    OTHER: ClassVar[dict[str, Array]] = {"y": floats(1, 2, 9)}

    def test_all_agree(self) -> None:
        found = compare_many([self.RUN] * 3, [self.RUN] * 3)
        found.check()

        assert found.ok
        assert len(found.runs) == 3
        assert found.message() == "outputs of 3 runs agree"

    def test_the_second_is_wrong(self) -> None:
        found = compare_many([self.RUN, self.OTHER], [self.RUN, self.RUN], rtol=1e-3)
        with pytest.raises(AssertionError) as caught:
            found.check()

        assert str(caught.value).startswith("outputs differ: run 1: output 'y': 1 of 3 elements differ")
        assert [run.ok for run in found.runs] == [True, False]

    def test_no_runs(self) -> None:
        none: list[dict[str, Array]] = []
        for nothing in (none, iter(none), (run for run in none)):
            found = compare_many(nothing, [])
            assert not found.ok
            assert [finding.rule for finding in found.findings] == ["accuracy.no-runs"]
            with pytest.raises(AssertionError, match="nothing was compared: there are no runs"):
                found.check()

    @pytest.mark.parametrize(
        ("actual", "reference", "says"),
        [
            (1, 2, "the outputs under test end after 1 run, the other side goes on"),
            (2, 1, "the reference ends after 1 run, the other side goes on"),
            (0, 1, "the outputs under test end after 0 runs, the other side goes on"),
        ],
    )
    def test_one_side_has_fewer(self, actual: int, reference: int, says: str) -> None:
        found = compare_many([self.RUN] * actual, [self.RUN] * reference)

        assert not found.ok
        assert says in found.message()
        assert len(found.runs) == min(actual, reference)

    def test_runs_are_not_kept(self) -> None:
        """One run of each side is alive at a time."""
        alive: list[weakref.ref[Array]] = []
        most = 0

        def stream() -> Iterator[dict[str, Array]]:
            nonlocal most
            for _ in range(20):
                made = np.ones(10, np.float32)
                alive.append(weakref.ref(made))
                run = {"y": made}
                del made
                most = max(most, sum(ref() is not None for ref in alive))
                yield run
                del run

        assert compare_many(stream(), stream(), rtol=0, atol=0).ok
        assert most <= 4

    def test_options_are_for_every_run(self) -> None:
        found = compare_many([self.OTHER] * 2, [self.RUN] * 2, per_output={"y": (0.0, 10.0)})
        assert found.ok
        with pytest.raises(ValueError, match="per_output names"):
            compare_many([self.RUN], [self.RUN], per_output={"z": (0.0, 1.0)})


class TestArguments:
    def test_a_tolerance_in_place_of_two_numbers(self) -> None:
        assert single(floats(1.4), floats(1), tolerance=Tolerance(0.5, 0)).ok
        assert not single(floats(1.4), floats(1), tolerance=Tolerance(0.1, 0)).ok
        with pytest.raises(ValueError, match="give tolerance, or rtol and atol, not both"):
            single(floats(1), floats(1), tolerance=Tolerance(0, 0), atol=1)

    @pytest.mark.parametrize(
        ("precision", "passes"), [("fp16", True), ("float16", True), ("fp32", False), ("tf32", True)]
    )
    def test_a_precision_by_either_name(self, precision: str, passes: bool) -> None:
        assert single(floats(1.005, 2), floats(1, 2), precision=precision).ok is passes

    def test_an_unknown_precision(self) -> None:
        with pytest.raises(ValueError, match="precision='fp12' is unknown; known are float64"):
            single(floats(1), floats(1), precision="fp12")

    def test_one_output_by_name(self) -> None:
        found = compare({"a": floats(1), "b": floats(2)}, {"a": floats(1), "b": floats(1)})

        assert found["a"].ok
        assert not found["b"].ok
        with pytest.raises(KeyError, match="no output 'c' was compared"):
            found["c"]

    def test_classifiers(self) -> None:
        scores = np.eye(6, dtype=np.float32).reshape(2, 3, 6)
        outputs = {"logits": scores, "flat": scores.reshape(6, 6), "ids": scores.argmax(axis=2)}
        found = compare(outputs, outputs)
        named = compare(outputs, outputs, classifiers=["logits"])

        assert [found[name].metrics.top_k() for name in outputs] == [None, 1.0, None]  # type: ignore[union-attr]
        assert [named[name].metrics.top_k() for name in outputs] == [1.0, None, None]  # type: ignore[union-attr]
        with pytest.raises(ValueError, match=r"classifiers names \['z'\]"):
            compare(outputs, outputs, classifiers=["z"])

    def test_integers_of_four_bits_have_no_default_tolerance(self) -> None:
        wanted = np.array([7, 3, -8], np.int8).astype(ml_dtypes.int4)
        got = np.array([7, 2, -8], np.int8).astype(ml_dtypes.int4)

        assert not single(got, wanted, precision="int4").ok
        assert single(got, wanted, atol=1).ok

    @pytest.mark.parametrize("dtype", ["U3", "O", "M8[s]"])
    def test_what_is_not_a_number(self, dtype: str) -> None:
        values = np.array(["1", "2"]).astype("M8[s]" if dtype == "M8[s]" else dtype)
        found = single(values, values)

        assert rules(found) == ["accuracy.dtype"]
        assert "there are no numbers to compare" in found.message()

    def test_complex_against_real(self) -> None:
        found = single(np.ones(3, np.complex64), np.ones(3, np.float32), dtypes={"y": "complex64"})
        assert rules(found) == ["accuracy.dtype"]


class TestTrapsOfOtherTools:
    """What passes elsewhere although it is wrong: benchmarks/compare.py runs the others on the same."""

    def test_an_output_is_missing(self) -> None:
        assert not compare({"a": floats(1)}, {"a": floats(1), "b": floats(1)}).ok

    def test_iterations_are_missing(self) -> None:
        run, wrong = {"y": floats(1)}, {"y": floats(9)}
        assert not compare_many([run], [run, wrong]).ok
        assert not compare_many([], []).ok

    def test_an_output_is_renamed(self) -> None:
        assert not compare({"bar": floats(1)}, {"foo": floats(1)}).ok

    def test_everything_is_nan(self) -> None:
        nothing = floats(NAN, NAN, NAN)
        assert not single(nothing, floats(1, 2, 3)).ok
        assert not single(nothing, nothing).ok

    def test_the_reference_is_declared(self) -> None:
        low, high = floats(1, 2, 3), floats(10, 20, 30)
        there, back = single(low, high)["y"].metrics, single(high, low)["y"].metrics
        assert there is not None
        assert back is not None
        assert there.snr_db == pytest.approx(0.915, abs=1e-3)
        assert back.snr_db == pytest.approx(-19.08, abs=0.01)
        assert (there.peak, back.peak) == (30, 3)

    def test_another_scale(self) -> None:
        found = single(floats(1, 2, 3) * 1000, floats(1, 2, 3))
        assert not found.ok
        assert found["y"].metrics is not None
        assert found["y"].metrics.cosine == pytest.approx(1)
        assert found["y"].metrics.gain == pytest.approx(1000)

    def test_what_cannot_be_computed_is_no_number(self) -> None:
        zeros = np.zeros(9, np.float32)
        metrics = single(zeros, zeros)["y"].metrics
        assert metrics is not None
        assert metrics.cosine is metrics.snr_db is metrics.psnr_db is metrics.mean_rel is None
        numbers = [value for value in metrics.to_dict().values() if isinstance(value, float)]
        assert np.isfinite(numbers).all()

    def test_zero_over_zero(self) -> None:
        """A relative tolerance that was measured so would be 0, or NaN."""
        got, wanted = floats(0, 0, 1, 2), floats(0, 0, 1, 2.5)
        metrics = single(got, wanted)["y"].metrics
        assert metrics is not None
        assert metrics.mean_rel == pytest.approx(0.1)
        assert metrics.max_rel is not None
        assert metrics.max_rel.index == (3,)
