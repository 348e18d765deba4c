from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pytest_trtgray import Tolerance, assert_outputs_close
from pytest_trtgray.asserting import float_dtypes, narrowest

WANTED = np.linspace(-3, 3, 50, dtype=np.float32)


def test_equal_arrays_pass() -> None:
    assert_outputs_close({"y": WANTED}, {"y": WANTED.copy()}, rtol=0, atol=0)

    assert narrowest({"y": WANTED}) == "float32"


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_floats_of_other_widths_are_compared_by_value(dtype: Any) -> None:
    assert_outputs_close({"y": WANTED.astype(dtype)}, {"y": WANTED})
    wrong = (WANTED + np.float32(0.5)).astype(dtype)
    with pytest.raises(AssertionError, match="outputs differ: output 'y': 50 of 50 elements differ"):
        assert_outputs_close({"y": wrong}, {"y": WANTED})


def test_the_default_is_that_of_the_narrower_type() -> None:
    off = WANTED * np.float32(1.003)
    with pytest.raises(AssertionError, match="elements differ"):
        assert_outputs_close({"y": off}, {"y": WANTED})
    assert_outputs_close({"y": off.astype(np.float16)}, {"y": WANTED})

    assert narrowest({"y": off.astype(np.float16), "z": off}) == "float16"


def test_integers_are_not_floats() -> None:
    integers = np.arange(5)
    with pytest.raises(AssertionError, match="is int64, wanted float32"):
        assert_outputs_close({"y": integers}, {"y": integers.astype(np.float32)})
    with pytest.raises(AssertionError, match="is int32, wanted int64"):
        assert_outputs_close({"y": integers.astype(np.int32)}, {"y": integers})


def test_names_and_shapes() -> None:
    with pytest.raises(AssertionError, match="output 'y' is missing"):
        assert_outputs_close({"z": WANTED}, {"y": WANTED})
    with pytest.raises(AssertionError, match="has shape 50x1, wanted 50"):
        assert_outputs_close({"y": WANTED[:, None]}, {"y": WANTED})
    with pytest.raises(ValueError, match="nothing to compare"):
        assert_outputs_close({}, {})


def test_nan() -> None:
    nothing = np.array([np.nan, 1], np.float32)
    with pytest.raises(AssertionError, match="1 of them are NaN or infinite"):
        assert_outputs_close({"y": nothing}, {"y": nothing})
    assert_outputs_close({"y": nothing}, {"y": nothing}, equal_nan=True)

    assert float_dtypes({"y": nothing}, {"y": nothing}) == {"y": "float32"}


@given(hnp.arrays(np.float32, 20, elements=st.floats(-10, 10, width=32)), st.integers(0, 19), st.floats(0.1, 100))
def test_one_wrong_element_is_enough(wanted: Any, place: int, error: float) -> None:
    got = wanted.copy()
    got[place] += np.float32(error)
    with pytest.raises(AssertionError, match=rf"1 of 20 elements differ; worst at \[{place}\]"):
        assert_outputs_close({"y": got}, {"y": wanted}, rtol=0, atol=0.05)


def test_a_precision_a_tolerance_and_the_reference() -> None:
    off = {"y": WANTED * np.float32(1.003)}
    assert_outputs_close(off, {"y": WANTED}, precision="fp16")
    assert_outputs_close(off, {"y": WANTED}, tolerance=Tolerance(1e-2, 0))
    assert_outputs_close(off, {"y": WANTED}, per_output={"y": Tolerance(1e-2, 1e-2, scaled=True)})
    with pytest.raises(AssertionError, match="reference: last week's engine"):
        assert_outputs_close(off, {"y": WANTED}, reference_name="last week's engine")
    with pytest.raises(ValueError, match="precision='half' is unknown"):
        assert_outputs_close(off, {"y": WANTED}, precision="half")


def test_the_traceback_ends_at_the_users_line() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_outputs_close({"y": WANTED + 1}, {"y": WANTED})

    assert all(entry.frame.f_locals.get("__tracebackhide__") for entry in caught.traceback[1:])
