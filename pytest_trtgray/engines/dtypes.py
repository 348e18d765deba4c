"""Names of data types and numpy's objects for them, the small floats included."""

from __future__ import annotations

from typing import Any

import numpy as np

_ML_DTYPES = {
    "bfloat16": "bfloat16",
    "fp8": "float8_e4m3fn",
    "fp4": "float4_e2m1fn",
    "int4": "int4",
    "uint4": "uint4",
}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Numpy's dtype of a :class:`~pytest_trtgray.engines.model.TensorSpec`'s ``dtype``.

    Raises:
        TypeError: a name that numpy and ml_dtypes do not know.
    """
    if name in _ML_DTYPES:
        import ml_dtypes

        name = getattr(ml_dtypes, _ML_DTYPES[name])
    dtype: np.dtype[Any] = np.dtype(name)
    return dtype


def dtype_name(dtype: Any) -> str:
    """The inverse: the house's name of a numpy dtype."""
    name = np.dtype(dtype).name
    return next((house for house, foreign in _ML_DTYPES.items() if foreign == name), name)


def is_integer(dtype: Any) -> bool:
    """Whether a type holds integers or truth values, those of two and four bits included."""
    found: np.dtype[Any] = np.dtype(dtype)
    return found.kind in "biu" or found.name in ("int4", "uint4", "int2", "uint2")


def float_bits(dtype: Any) -> int:
    """Bits of a floating-point type with a sign of its own; 0 for every other type, and for more than 64 bits."""
    found: np.dtype[Any] = np.dtype(dtype)
    if found in (np.float16, np.float32, np.float64):
        return 8 * found.itemsize
    if found.kind not in "fV":
        return 0
    import ml_dtypes

    try:
        limits = ml_dtypes.finfo(found)
    except ValueError:
        return 0
    return int(limits.bits) if limits.bits <= 64 and limits.min < 0 else 0
