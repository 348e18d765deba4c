"""The one-line assertion for tests that run engines themselves."""

from __future__ import annotations

from pytest_trtgray.accuracy.compare import Arrays, PerOutput, compare
from pytest_trtgray.accuracy.tolerance import Tolerance


def assert_outputs_close(
    actual: Arrays,
    reference: Arrays,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    tolerance: Tolerance | None = None,
    per_output: PerOutput | None = None,
    equal_nan: bool = False,
    precision: str = "",
    reference_name: str = "",
) -> None:
    """Assert that named arrays agree: ``|got - wanted| <= atol + rtol * |wanted|`` for every element.

    Missing, extra and renamed outputs and other shapes fail always; floats of different widths are compared
    by value.

    Args:
        actual: outputs under test, by name.
        reference: what they should be, by the same names.
        rtol: relative tolerance; without ``rtol``, ``atol`` and ``tolerance`` the default of ``precision``.
        atol: absolute tolerance.
        tolerance: instead of ``rtol`` and ``atol``.
        per_output: tolerances of single outputs; :func:`~pytest_trtgray.accuracy.noise.noise_floor` measures them.
        equal_nan: accept NaN and infinities where both have the same.
        precision: that was computed in, such as ``float16`` or ``tf32``; by default the coarsest dtype of the outputs,
            which does not tell what an engine with FP32 outputs computes in.
        reference_name: what the reference is, for the message.

    Raises:
        AssertionError: names the outputs and their worst elements.
        ValueError: there is nothing to compare.
    """
    __tracebackhide__ = True
    compare(
        actual,
        reference,
        rtol=rtol,
        atol=atol,
        tolerance=tolerance,
        per_output=per_output,
        equal_nan=equal_nan,
        dtypes=float_dtypes(actual, reference),
        precision=precision or narrowest(actual),
        reference_name=reference_name,
    ).check()


def float_dtypes(actual: Arrays, reference: Arrays) -> dict[str, str]:
    """The dtype that each output should have: its own, where both are floats; else the reference's."""
    import numpy as np

    from pytest_trtgray.engines.dtypes import dtype_name
    from pytest_trtgray.engines.model import PRECISION_ORDER

    floats = {name for name in PRECISION_ORDER if not name.startswith("int")}
    dtypes = {}
    for name, wanted in reference.items():
        if name not in actual:
            continue
        got_name, wanted_name = (
            dtype_name(np.asarray(actual[name]).dtype),
            dtype_name(np.asarray(wanted).dtype),
        )
        dtypes[name] = got_name if {got_name, wanted_name} <= floats else wanted_name
    return dtypes


def narrowest(arrays: Arrays) -> str:
    """The coarsest precision among arrays; ``float32`` if they are all integers."""
    import numpy as np

    from pytest_trtgray.engines.dtypes import dtype_name
    from pytest_trtgray.engines.model import coarsest

    return coarsest(dtype_name(np.asarray(array).dtype) for array in arrays.values()) or "float32"
