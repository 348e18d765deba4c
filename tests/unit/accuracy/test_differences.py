"""Messages: where it clusters, what explains it, what to try."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pytest_trtgray.accuracy.compare import compare
from pytest_trtgray.accuracy.scan import AXIS_BINS
from pytest_trtgray.accuracy.tolerance import Tolerance
from pytest_trtgray.findings import Finding

Array = NDArray[Any]


def finding(got: Array, wanted: Array, **options: Any) -> Finding:
    options = {"rtol": 1e-3, "atol": 1e-3, **options}
    (found,) = compare({"y": got}, {"y": wanted}, **options).findings
    return found


def clusters(got: Array, wanted: Array) -> str:
    return str(finding(got, wanted).evidence["clusters"])


def normal(*shape: int, seed: int = 7) -> Array:
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, dtype=np.float32)


class TestClusters:
    def test_one_row(self) -> None:
        wanted = normal(8, 20)
        got = wanted.copy()
        got[3] += normal(20)
        found = finding(got, wanted)

        assert found.evidence["clusters"] == "all in row 3 of 8"
        assert "all in row 3 of 8" in found.what.splitlines()
        assert "check_batch_consistency" in found.remedy

    def test_most_of_them_in_one_channel(self) -> None:
        wanted = normal(4, 64, 5, 5)
        got = wanted.copy()
        got[:, 17] += 1
        got[0, :8, 0, 0] += 1

        assert clusters(got, wanted) == "92 % in channel 17 of 64"

    def test_a_stretch_of_rows(self) -> None:
        """The second half of a batch, the rest of a tile."""
        wanted = normal(8, 30)
        got = wanted.copy()
        got[5:] += normal(3, 30)

        assert clusters(got, wanted) == "all in rows 5 to 7 of 8"

    def test_every_fourth_column(self) -> None:
        wanted = normal(16, 64)
        got = wanted.copy()
        got[:, 3::4] += 1

        assert clusters(got, wanted) == "all in columns 3, 7, 11, ... of 64"

    def test_several_axes(self) -> None:
        wanted = normal(4, 6, 10)
        got = wanted.copy()
        got[1, 2:4] += normal(2, 10)

        assert clusters(got, wanted) == "all in row 1 of 4; all at places 2 to 3 of 6 along axis 1"

    def test_one_axis(self) -> None:
        wanted = normal(1000)
        got = wanted.copy()
        got[100:120] += 1

        assert clusters(got, wanted) == "all at places 100 to 119 of 1000 along axis 0"

    def test_a_long_axis_in_stretches(self) -> None:
        wanted = np.ones(AXIS_BINS * 3 - 1, np.float32)
        got = wanted.copy()
        got[3000:3005] = 7

        assert clusters(got, wanted) == f"all at places 3000 to 3005 of {wanted.size} along axis 0"

    def test_everything(self) -> None:
        wanted = normal(8, 30)
        assert clusters(wanted + 1, wanted) == ""

    def test_one_element(self) -> None:
        wanted = normal(8, 30)
        got = wanted.copy()
        got[3, 4] += 1
        assert clusters(got, wanted) == ""

    @pytest.mark.parametrize("count", [2, 3, 5, 10, 50, 300])
    def test_scattered_ones_do_not_cluster(self, count: int) -> None:
        """Or hardly ever: along three axes, one in 300 at most is to be expected."""
        rng = np.random.Generator(np.random.PCG64(count))
        wanted = np.zeros((8, 16, 25), np.float32)
        said = 0
        for _ in range(200):
            got = wanted.copy()
            got.reshape(-1)[rng.choice(wanted.size, count, replace=False)] = 1
            said += bool(clusters(got, wanted))
        assert said <= 3

    @given(st.integers(0, 7), st.integers(2, 8), st.booleans())
    def test_the_row_is_named_whatever_the_rest(self, row: int, rows: int, nan: bool) -> None:
        row %= rows
        wanted = np.ones((rows, 40), np.float32)
        got = wanted.copy()
        got[row] = np.nan if nan else 5

        assert clusters(got, wanted) == f"all in row {row} of {rows}"


class TestCauses:
    def test_a_missing_scale(self) -> None:
        wanted = normal(4, 50)
        found = finding(wanted / 255, wanted)

        assert "is 0.003922 times the reference" in found.remedy
        assert "rtol=" not in found.remedy
        assert "cosine 1 at 0.003922 times the reference" in found.what

    def test_a_missing_offset(self) -> None:
        wanted = normal(4, 50)
        assert "with +0.5 everywhere" in finding(wanted + np.float32(0.5), wanted).remedy

    def test_other_weights(self) -> None:
        assert "little in common with the reference" in finding(normal(4, 50), normal(4, 50, seed=8)).remedy

    def test_close_to_the_tolerance(self) -> None:
        wanted = normal(4, 50)
        got = wanted.copy()
        got[2, 3] += 0.005
        assert "noise_floor() measures" in finding(got, wanted).remedy

    def test_far_from_it(self) -> None:
        wanted = normal(4, 50)
        got = wanted.copy()
        got[2, 3] += 0.5
        assert finding(got, wanted).remedy.startswith("If this much is fine for the model, say so")

    def test_indices(self) -> None:
        assert "compare the scores" in finding(np.array([3, 4]), np.array([3, 5]), rtol=0, atol=0).remedy

    def test_nan_before_everything(self) -> None:
        wanted = normal(4, 50)
        got = wanted / 255
        got[0, 0] = np.nan
        found = finding(got, wanted)

        assert found.rule == "accuracy.non-finite"
        assert "65504" in found.remedy

    def test_an_exact_copy_of_part_of_a_small_output_explains_nothing(self) -> None:
        """Two numbers always have a factor."""
        assert "times the reference and" not in finding(np.ones(2) * 3, np.ones(2)).remedy

    def test_transposed(self) -> None:
        (found,) = compare({"y": np.ones((1, 4, 4, 3))}, {"y": np.ones((1, 3, 4, 4))}).findings
        assert "NHWC" in found.remedy
        (found,) = compare({"y": np.ones((1, 5))}, {"y": np.ones((1, 4))}).findings
        assert found.remedy == ""


class TestText:
    def test_everything_that_is_needed(self) -> None:
        wanted = normal(8, 10)
        got = wanted.copy()
        got[3] = 0
        wanted[5, 5] = 0
        got[5, 5] = 3
        message = compare(
            {"y": got}, {"y": wanted}, rtol=1e-3, atol=1e-3, reference_name="Shadow net.onnx (FP32)"
        ).message()

        assert message.startswith(
            "outputs differ: output 'y': 11 of 80 elements differ; worst at [5, 5]: got 3, wanted 0"
        )
        assert "reference: Shadow net.onnx (FP32)" in message
        assert "90 % in row 3 of 8" in message
        assert "1 element should be 0" in message
        assert "relative L2 error" in message
        assert "the largest of a row is in its place in" in message
        assert "allowed per element: 0.001 * |wanted| + 0.001" in message

    def test_large_integers_in_full(self) -> None:
        found = finding(np.array([2**53 + 1]), np.array([2**53]), rtol=0, atol=0)
        assert "got 9007199254740993, wanted 9007199254740992" in found.what

    def test_nothing_is_finite(self) -> None:
        nothing = np.full(9, np.nan, np.float32)
        assert "no element is finite on both sides" in finding(nothing, nothing).what

    def test_a_tolerance_of_its_own_is_said(self) -> None:
        found = finding(np.ones(3) * 2, np.ones(3), rtol=None, atol=None, tolerance=Tolerance(0.1, 0.2, scaled=True))
        assert "allowed per element: 0.1 * |wanted| + 0.2 * rms(wanted)" in found.what

    @given(st.lists(st.floats(width=32) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=20), st.integers(0, 99))
    def test_any_numbers_make_a_message(self, values: list[float], seed: int) -> None:
        got = np.array(values, np.float32)
        wanted = np.random.Generator(np.random.PCG64(seed)).permutation(got)
        found = compare({"y": got}, {"y": wanted}, rtol=0, atol=0, reference_name="r")

        assert found.ok == (found.message() == "outputs agree")
        for each in found.findings:
            assert all(value is None or value == value for value in each.evidence.values())
