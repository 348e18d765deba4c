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
