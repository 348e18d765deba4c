"""Inputs for engines: seeded, within the values that a model can take."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.engines.dtypes import numpy_dtype
from pytest_trtgray.engines.model import DTYPE_BITS, TensorSpec, format_shapes
from pytest_trtgray.errors import EngineError, ShapeError

_INTEGER_HIGH = 100


class Feed(dict[str, NDArray[Any]]):
    """Arrays by input name that print as what made them, not as a thousand numbers.

    Args:
        arrays: the inputs.
        seed: that :func:`make_feed` was given.
        shapes: that it was given.
    """

    def __init__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        seed: int | None = None,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        super().__init__(arrays)
        self.seed = seed
        self._shapes = dict(shapes or {})

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every input; the values of one whose values are sizes."""
        return {name: self._shapes.get(name, array.shape) for name, array in self.items()}

    def __repr__(self) -> str:
        seed = f", seed={self.seed}" if self.seed is not None else ""
        return f"Feed({format_shapes(self.shapes)}{seed})"


def make_feed(inputs: Iterable[TensorSpec], shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> Feed:
    """Arrays for every input.

    Floats are standard normal. Integers stay within the limits that the model sets (token ids below the
    length of their table), inputs whose name says ``mask`` are ones, other integers lie in [0, 100).

    Args:
        inputs: what the engine declares.
        shapes: one shape an input; for an input whose values are sizes, its values.
        seed: the same seed and shapes give the same arrays, on every machine.

    Raises:
        ShapeError: an input has no shape.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for spec in inputs:
        if spec.name not in shapes:
            raise ShapeError(spec.name, "no shape is given for this input")
        if spec.is_shape:
            values = np.array(shapes[spec.name], numpy_dtype(spec.dtype))
            arrays[spec.name] = values.reshape([spec.value_count] if spec.shape else [])
            continue
        # One stream an input: adding an input leaves the others' values as they were.
        own = int.from_bytes(hashlib.sha256(spec.name.encode()).digest()[:8], "little")
        rng = np.random.Generator(np.random.PCG64([seed, own]))
        arrays[spec.name] = _values(spec, tuple(shapes[spec.name]), rng)
    return Feed(arrays, seed, {name: tuple(shape) for name, shape in shapes.items() if name in arrays})


def load_feed(path: Path) -> Feed:
    """One feed from a ``.npz`` file, an array an input by name (``numpy.savez(path, **feed)``).

    Raises:
        EngineError: it is missing, or no such file.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return Feed({name: stored[name] for name in stored.files})
    except Exception as error:  # numpy and zipfile raise a dozen kinds of errors on a damaged file
        what = "no such file" if not path.exists() else f"cannot be read as .npz ({type(error).__name__})"
        raise EngineError(path, what, "Write it with numpy.savez(path, **feed), one array an input.") from None


def _values(spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
    dtype = numpy_dtype(spec.dtype)
    if spec.dtype == "bool":
        return np.ones(shape, dtype) if spec.limits else rng.random(shape) < 0.5
    if spec.limits is not None:
        low, high = spec.limits
        if spec.dtype in DTYPE_BITS and spec.dtype.startswith(("float", "bfloat")):
            return np.asarray(rng.uniform(low, high, shape)).astype(dtype)
        return rng.integers(int(low), int(high), shape, endpoint=True).astype(dtype)
    if spec.dtype in DTYPE_BITS and "int" not in spec.dtype:
        return np.asarray(rng.standard_normal(shape)).astype(dtype)
    if spec.dtype in ("int8", "int4"):
        bound = 127 if spec.dtype == "int8" else 7
        return rng.integers(-bound, bound, shape, endpoint=True).astype(dtype)
    return rng.integers(0, _INTEGER_HIGH, shape).astype(dtype)
