"""Inputs for engines: seeded, within the values that a model can take."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pytest_trtgray.engines.base import Engine
from pytest_trtgray.engines.dtypes import numpy_dtype
from pytest_trtgray.engines.model import DTYPE_BITS, TensorSpec, format_shape, format_shapes
from pytest_trtgray.engines.onnx_model import open_model
from pytest_trtgray.errors import EngineError, ShapeError
from pytest_trtgray.settings import active

EngineOrModel = Engine | str | Path
Shapes = Mapping[str, tuple[int, ...]]
Samples = Mapping[str, "ArrayLike | Sequence[ArrayLike]"]
"""By input, what it really gets: an array of many rows, or a list of arrays."""
Ranges = Mapping[str, tuple[float, float]]
"""By input, its smallest and largest sensible value."""

VALUES = ("normal", "uniform", "extremes", "large", "denormal", "zeros", "nonfinite")
"""Distributions of :func:`make_feed`."""
PADDINGS = ("none", "right", "left")
"""Where :func:`make_feed` pads the sequences of masks."""

LARGE = 8.0
"""How many times the standard deviation of ``normal`` that of ``large`` is: what outliers of real data reach, and what
no FP16 engine in good health overflows on."""
_UNIT = (0.0, 1.0)
_ENDS = (-4.0, 4.0)
"""Of a float input that declares no range: where normal values practically end."""
_INTEGER_RANGES = {"int8": (-127, 127), "int4": (-7, 7), "uint8": (0, 255), "uint4": (0, 15)}
_INTEGER_RANGE = (0, 99)
_NAMED_RANGES = {
    r"token_type|segment": (0, 1),
    r"timestep": (0, 999),
}
"""Of integer inputs about which the model says nothing, by what exporters call them."""
_POSITIONS = re.compile(r"position", re.IGNORECASE)
_MASK_LIMITS = (1.0, 1.0)


class Feed(dict[str, NDArray[Any]]):
    """Arrays by input name that print as the call that made them, not as a thousand numbers.

    Args:
        arrays: the inputs.
        seed: that :func:`make_feed` was given.
        shapes: that it was given.
        call: Python that makes it again.
    """

    def __init__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        seed: int | None = None,
        shapes: Shapes | None = None,
        call: str = "",
    ) -> None:
        super().__init__(arrays)
        self.seed = seed
        self.call = call
        self._shapes = dict(shapes or {})

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every input; the values of one whose values are sizes."""
        return {name: self._shapes.get(name, array.shape) for name, array in self.items()}

    def __repr__(self) -> str:
        return self.call or f"Feed({format_shapes(self.shapes)})"


def make_feed(
    inputs: EngineOrModel | Iterable[TensorSpec],
    shapes: Shapes,
    seed: int = 0,
    *,
    values: str = "normal",
    padding: str = "none",
    samples: Samples | None = None,
    ranges: Ranges | None = None,
) -> Feed:
    """Arrays for every input.

    Integers stay within the limits that the model sets (token ids below the length of their table); position ids count
    from 0; without limits, integers lie in what their dtype and name suggest. Inputs whose name says ``mask`` are 1
    for what is seen and 0 for what is not (the ends of their range, where ``ranges`` gives one).

    Args:
        inputs: an engine, the path of an ONNX model (found as by ``trt_build``), or what either declares.
        shapes: one shape an input; for an input whose values are sizes, its values.
        seed: the same arguments give the same arrays, on every machine.
        values: distribution of floats: ``normal``; ``uniform`` over the input's range, [0, 1) without one;
            ``extremes``, the ends of the range alone; ``large``, 8 times ``normal``; ``denormal``, subnormal numbers
            among normal ones; ``zeros``; ``nonfinite``, NaN and infinities among normal ones. Values never leave a
            declared range. Integers know ``zeros`` and ``extremes`` too.
        padding: ``none``, or the side on which masks hide a random part of every sequence, never all of it.
        samples: by input, real data: an array of rows or a list of arrays, of which rows are drawn (with ``seed=0`` the
            first ones) and repeated up to the batch; other dimensions are cropped or repeated.
        ranges: by input, smallest and largest sensible value.

    Raises:
        ShapeError: an input has no shape, or samples do not fit theirs.
        ValueError: no such distribution or padding.
    """
    _check_choice("values", values, VALUES)
    _check_choice("padding", padding, PADDINGS)
    specs = _with_ranges(inputs_of(inputs), ranges or {}, samples or {})
    arrays: dict[str, NDArray[Any]] = {}
    for spec in specs:
        if spec.name not in shapes:
            raise ShapeError(spec.name, "no shape is given for this input")
        shape = tuple(shapes[spec.name])
        if spec.is_shape:
            sizes = np.array(shape, numpy_dtype(spec.dtype))
            arrays[spec.name] = sizes.reshape([spec.value_count] if spec.shape else [])
        elif samples and spec.name in samples:
            arrays[spec.name] = _sampled(spec, samples[spec.name], shape, seed)
        elif _is_mask(spec):
            arrays[spec.name] = _mask(spec, shape, seed, padding)
        else:
            arrays[spec.name] = _values(spec, shape, _stream(seed, spec.name), values)
    used = {name: tuple(shape) for name, shape in shapes.items() if name in arrays}
    return Feed(arrays, seed, used, _call(inputs, used, seed, values, padding, samples, ranges))


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


def inputs_of(source: EngineOrModel | Iterable[TensorSpec]) -> tuple[TensorSpec, ...]:
    """What an engine or model wants to be fed.

    Raises:
        ModelError: there is no such model, or it cannot be read.
    """
    if isinstance(source, Engine):
        return source.info.inputs
    if isinstance(source, (str, Path)):
        return open_model(active().find_file(source)).inputs
    return tuple(source)


def has_masks(inputs: Iterable[TensorSpec]) -> bool:
    """Whether ``padding`` matters to any input."""
    return any(_is_mask(spec) for spec in inputs if not spec.is_shape)


def has_floats(inputs: Iterable[TensorSpec]) -> bool:
    """Whether the distributions that only floats know matter to any input."""
    return any(_is_float(spec) for spec in inputs if not _is_mask(spec))


def _check_choice(argument: str, given: str, known: Sequence[str]) -> None:
    if given not in known:
        raise ValueError(f"{argument}={given!r}: known are {', '.join(known)}")


def _call(
    source: EngineOrModel | Iterable[TensorSpec],
    shapes: Shapes,
    seed: int,
    values: str,
    padding: str,
    samples: Samples | None,
    ranges: Ranges | None,
) -> str:
    """A line of Python that gives the same feed; ``engine`` and ``samples`` are for the reader to put in."""
    parts = [repr(str(source)) if isinstance(source, (str, Path)) else "engine", repr(dict(shapes)), f"seed={seed}"]
    if values != "normal":
        parts.append(f"{values=}")
    if padding != "none":
        parts.append(f"{padding=}")
    if samples:
        parts.append("samples=samples")
    if ranges:
        parts.append(f"ranges={dict(ranges)!r}")
    return f"make_feed({', '.join(parts)})"


def _with_ranges(specs: tuple[TensorSpec, ...], ranges: Ranges, samples: Samples) -> tuple[TensorSpec, ...]:
    """Specs with the user's ranges as limits.

    Raises:
        ShapeError: ``ranges`` or ``samples`` name an input that is not there, or whose values are sizes.
    """
    data = {spec.name: spec for spec in specs if not spec.is_shape}
    for argument, given in (("ranges", ranges), ("samples", samples)):
        for name in given.keys() - data.keys():
            raise ShapeError(
                f"{argument}={{{name!r}: …}}", "is for no input of the model", f"Known: {', '.join(data)}."
            )
    for name, (low, high) in ranges.items():
        if not low <= high:
            raise ShapeError(f"ranges={{{name!r}: …}}", f"goes from {low} to {high}, which holds nothing")
    return tuple(replace(spec, limits=ranges[spec.name]) if spec.name in ranges else spec for spec in specs)


def _stream(seed: int, name: str) -> np.random.Generator:
    """One stream of random numbers an input: adding an input leaves the others' values as they were."""
    own = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64([seed, own]))


def _is_mask(spec: TensorSpec) -> bool:
    return "mask" in spec.name.lower() or spec.limits == _MASK_LIMITS


def _is_float(spec: TensorSpec) -> bool:
    return spec.dtype in DTYPE_BITS and "int" not in spec.dtype


def _mask(spec: TensorSpec, shape: tuple[int, ...], seed: int, padding: str) -> NDArray[Any]:
    """Ones, and zeros on one side of the last axis: of every row of the first axis a part of its own length."""
    low, high = (0.0, 1.0) if spec.limits in (None, _MASK_LIMITS) else spec.limits or (0.0, 1.0)
    seen = np.ones(shape, np.bool_)
    if padding != "none" and shape and seen.size:
        length, rows = shape[-1], shape[0] if len(shape) > 1 else 1
        lengths = _lengths(rows, length, seed)
        columns = np.arange(length) if padding == "right" else np.arange(length)[::-1]
        seen &= columns < lengths.reshape(-1, *[1] * (len(shape) - 1))
    return np.asarray(np.where(seen, high, low)).astype(numpy_dtype(spec.dtype))


def _lengths(rows: int, length: int, seed: int) -> NDArray[np.int64]:
    """How much of each row is seen; with ``seed=0`` even steps, so that what needs padding shrinks to it."""
    if seed == 0:
        return np.maximum(length * np.arange(1, rows + 1) // (rows + 1), 1)
    # by size, not by name: all masks of one batch of sequences hide the same
    return _stream(seed, f"{rows}x{length}").integers(1, length, rows, endpoint=True)


def _values(spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator, values: str) -> NDArray[Any]:
    dtype = numpy_dtype(spec.dtype)
    if spec.dtype == "bool":
        fixed = {"zeros": False, "extremes": True}
        return np.full(shape, fixed[values]) if values in fixed else rng.random(shape) < 0.5
    if _is_float(spec):
        return _floats(spec, shape, rng, values)
    low, high = _integer_range(spec)
    if _POSITIONS.search(spec.name) and shape:
        return np.broadcast_to(low + np.arange(shape[-1]) % (high - low + 1), shape).astype(dtype)
    if values == "zeros":
        return np.full(shape, min(max(0, low), high), dtype)
    if values == "extremes":
        return np.where(rng.random(shape) < 0.5, low, high).astype(dtype)
    return np.asarray(rng.integers(low, high, shape, endpoint=True)).astype(dtype)


def _integer_range(spec: TensorSpec) -> tuple[int, int]:
    if spec.limits is not None:
        return int(spec.limits[0]), int(spec.limits[1])
    named = (bounds for pattern, bounds in _NAMED_RANGES.items() if re.search(pattern, spec.name, re.IGNORECASE))
    return next(named, _INTEGER_RANGES.get(spec.dtype, _INTEGER_RANGE))


def _floats(spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator, values: str) -> NDArray[Any]:
    import ml_dtypes

    dtype = numpy_dtype(spec.dtype)
    finfo = ml_dtypes.finfo(dtype)
    low, high = spec.limits or (-np.inf, np.inf)
    if values == "uniform":
        return np.asarray(rng.uniform(*(spec.limits or _UNIT), shape)).astype(dtype)
    if values == "extremes":
        return np.where(rng.random(shape) < 0.5, *(spec.limits or _ENDS)).astype(dtype)
    if values == "zeros":
        return np.full(shape, min(max(0.0, low), high)).astype(dtype)
    numbers: NDArray[Any] = np.asarray(rng.standard_normal(shape))
    if values == "large":
        numbers = numbers * LARGE
    if spec.limits is not None:
        numbers = (low + high) / 2 + (high - low) / 6 * numbers
    if values == "denormal":
        tiny = rng.uniform(-1, 1, shape) * float(finfo.smallest_normal)
        numbers = np.where(rng.random(shape) < 0.5, tiny, numbers)
    numbers = np.clip(numbers, max(low, float(finfo.min)), min(high, float(finfo.max)))
    if values == "nonfinite":
        odd = rng.choice([np.nan, np.inf, -np.inf], shape)
        numbers = np.where(rng.random(shape) < 0.05, odd, numbers)
        numbers.reshape(-1)[:1] = np.nan
    with np.errstate(invalid="ignore"):
        return np.asarray(numbers).astype(dtype)


def _sampled(spec: TensorSpec, given: Any, shape: tuple[int, ...], seed: int) -> NDArray[Any]:
    """Rows of the user's data in the shape asked for.

    Raises:
        ShapeError: there are none, they have another rank, or numbers that the input's dtype cannot hold.
    """
    where = f"samples={{{spec.name!r}: …}}"
    arrays = [np.asarray(array) for array in (given if isinstance(given, (list, tuple)) else [given])]
    rng = _stream(seed, spec.name)
    if arrays and all(array.ndim and array.ndim == len(shape) and array.shape[0] == spec.shape[0] for array in arrays):
        # nothing to be repeated: the first dimension is no batch, or a fixed one
        rows = list(arrays[0 if seed == 0 or len(arrays) < 2 else rng.integers(len(arrays))])
        chosen = np.arange(len(rows))
    else:
        rows = [row for array in arrays for row in _rows(array, shape, where)]
        if not rows:
            raise ShapeError(where, "holds no row")
        count = shape[0] if shape else 1
        chosen = np.arange(count) % len(rows) if seed == 0 else rng.integers(0, len(rows), count)
    drawn = [_fitted(rows[index], shape[1:]) for index in chosen]
    array = np.stack(drawn).reshape(shape) if drawn else np.zeros(shape)
    dtype = numpy_dtype(spec.dtype)
    converted = array.astype(dtype)
    if dtype.kind in "biu" and not np.array_equal(converted, array):
        raise ShapeError(where, f"has numbers that {spec.dtype} cannot hold", f"Give an array of {spec.dtype}.")
    return converted


def _rows(array: NDArray[Any], shape: tuple[int, ...], where: str) -> Sequence[NDArray[Any]]:
    """The rows of an array of many, or the one that it is."""
    rank = max(len(shape), 1)
    if array.ndim == rank:
        return list(array)
    if array.ndim == rank - 1:
        return [array]
    raise ShapeError(
        where,
        f"has shape {format_shape(array.shape)}, the input {format_shape(shape)}",
        "Give an array with one dimension for the rows and then those of the input, or a list of arrays.",
    )


def _fitted(row: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A row cropped, or repeated, in every dimension."""
    for axis, size in enumerate(shape):
        if row.shape[axis] != size:
            row = np.take(row, np.arange(size) % max(row.shape[axis], 1), axis)
    return row
