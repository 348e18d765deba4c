from __future__ import annotations

import numpy as np
import pytest

from pytest_trtgray.accuracy.tolerance import DEFAULT_RTOL, Tolerance, default_tolerance, make_tolerance
from pytest_trtgray.engines.model import PRECISION_ORDER


@pytest.mark.parametrize("precision", PRECISION_ORDER)
def test_every_precision_has_a_default(precision: str) -> None:
    assert precision in DEFAULT_RTOL
    assert default_tolerance(precision) == Tolerance(DEFAULT_RTOL[precision], DEFAULT_RTOL[precision], scaled=True)


def test_coarser_floats_get_more() -> None:
    order = ["float64", "float32", "float16", "bfloat16", "fp8", "fp4"]
    values = [DEFAULT_RTOL[name] for name in order]

    assert values == sorted(values)
    assert DEFAULT_RTOL["tf32"] == DEFAULT_RTOL["float16"]  # both keep ten bits


def test_where_the_precision_is_not_known_it_counts_as_half() -> None:
    assert default_tolerance("") == default_tolerance("float16") == default_tolerance("fp16")


def test_a_misspelt_precision() -> None:
    with pytest.raises(ValueError, match="precision='half' is unknown; known are float64, float32"):
        default_tolerance("half")


@pytest.mark.parametrize(
    ("rtol", "atol", "expected"),
    [
        (None, None, Tolerance(1e-4, 1e-4, scaled=True)),
        (0.1, None, Tolerance(0.1, 0.0)),
        (None, 0.1, Tolerance(0.0, 0.1)),
        (0.0, 0.0, Tolerance(0.0, 0.0)),
    ],
)
def test_own_numbers(rtol: float | None, atol: float | None, expected: Tolerance) -> None:
    assert make_tolerance(rtol, atol, "float32") == expected


def test_the_absolute_part() -> None:
    assert Tolerance(0.1, 0.5).absolute(10) == 0.5
    assert Tolerance(0.1, 0.5, scaled=True).absolute(10) == 5.0
    assert Tolerance(0.1, 0.5, scaled=True).absolute(0) == 0.0


def test_in_words() -> None:
    assert str(Tolerance(0.1, 0.5)) == "0.1 * |wanted| + 0.5"
    assert str(Tolerance(0.1, 0.5, scaled=True)) == "0.1 * |wanted| + 0.5 * rms(wanted)"


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_rounding_of_a_long_sum_is_within_the_default(precision: str) -> None:
    """Products and sums in the precision itself, against float64: the walk that the default is made for."""
    rng = np.random.Generator(np.random.PCG64(1))
    left, right = rng.standard_normal((64, 256)), rng.standard_normal((256, 64))
    wanted = left @ right
    total = np.zeros((64, 64), precision)
    for k in range(256):
        total = total + np.outer(left[:, k], right[k]).astype(precision)
    tolerance = default_tolerance(precision)
    allowed = tolerance.rtol * np.abs(wanted) + tolerance.absolute(float(np.sqrt(np.mean(wanted**2))))

    assert (np.abs(total - wanted) <= allowed).all()
