"""Optimization profiles: trtexec's notation, the default for a batch dimension, and clear refusals."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_trtgray.engines.model import (
    ShapeProfile,
    ShapeRange,
    TensorSpec,
    format_shape,
    static_profile,
)
from pytest_trtgray.errors import ShapeError

DEFAULT_BATCH = (1, 8, 32)
"""min, opt and max of a symbolic first dimension for which nobody gave shapes."""

_UNLIMITED = 2**31 - 1
_LARGEST_VALUE = 2**63 - 1
"""Of an input whose values are positions: the end of a Slice is often the largest INT64."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class ShapeRequest:
    """The three shape options of one profile, as a user wrote them."""

    min: Shapes
    opt: Shapes
    max: Shapes


def parse_shapes(text: str) -> dict[str, tuple[int, ...]]:
    """Read trtexec's notation.

    >>> parse_shapes("x:8x3x224x224,mask:8x1")
    {'x': (8, 3, 224, 224), 'mask': (8, 1)}

    The numbers of an input whose values are sizes may be negative, as in a Reshape to ``-1x8``. Which inputs these are
    is only known with the model: :func:`resolve_profiles` refuses a negative size of any other.

    Raises:
        ShapeError: anything else; names the part that cannot be read.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for part in filter(None, text.split(",")):
        name, colon, dims = part.strip().rpartition(":")
        if not colon or not name or not re.fullmatch(r"scalar|-?\d+(x-?\d+)*", dims):
            raise ShapeError(
                part.strip() or text,
                "cannot be read as a shape",
                "Write NAME:1x3x224x224, several separated by commas.",
            )
        if name in shapes:
            raise ShapeError(name, "is given two shapes in one option")
        shapes[name] = () if dims == "scalar" else tuple(int(size) for size in dims.split("x"))
    if not shapes:
        raise ShapeError(repr(text), "names no shape", "Write NAME:1x3x224x224.")
    return shapes


def request_shapes(min_shapes: str, opt_shapes: str, max_shapes: str) -> ShapeRequest:
    """The three shapes of one profile from trtexec's notation.

    Raises:
        ShapeError: one of them is missing or cannot be read.
    """
    if not (min_shapes and opt_shapes and max_shapes):
        raise ShapeError("min_shapes, opt_shapes and max_shapes", "go together", "Give all three.")
    return ShapeRequest(parse_shapes(min_shapes), parse_shapes(opt_shapes), parse_shapes(max_shapes))


def fitting_requests(inputs: Sequence[TensorSpec], requests: Sequence[ShapeRequest]) -> tuple[ShapeRequest, ...]:
    """The command line's shapes are for ``--trt-engine``; for another model only those that name its inputs."""
    names = {spec.name for spec in inputs}
    return tuple(request for request in requests if set(request.opt) <= names)


def resolve_profiles(
    inputs: Sequence[TensorSpec], requests: Sequence[ShapeRequest]
) -> tuple[tuple[ShapeProfile, ...], tuple[str, ...]]:
    """The optimization profiles of a model, and notes on what was assumed.

    A static model has one profile with min = opt = max. Without a request, a symbolic *first* dimension
    gets 1 : 8 : 32; any other symbolic dimension needs shapes.

    Raises:
        ShapeError: shapes are missing, for inputs that do not exist, of the wrong rank, negative, or not
            min <= opt <= max; the message has a command line to copy.
    """
    if requests:
        return tuple(_requested(inputs, request) for request in requests), ()
    dynamic = [spec for spec in inputs if spec.is_dynamic]
    if not dynamic:
        return (static_profile(tuple(inputs)),), ()
    if any(spec.is_shape or any(isinstance(dim, str) for dim in spec.shape[1:]) for spec in dynamic):
        raise ShapeError(
            _inputs_text(dynamic),
            "has symbolic dimensions other than the first, or values that are sizes; their range is needed",
            "Add, with sizes that suit the model:\n" + suggest_options(inputs),
        )
    profile = {}
    for spec in inputs:
        first = DEFAULT_BATCH if spec.is_dynamic else (spec.shape[0],) * 3 if spec.shape else ()
        rest = tuple(int(dim) for dim in spec.shape[1:])
        sizes = [(int(size), *rest) if spec.shape else () for size in first] or [()] * 3
        profile[spec.name] = ShapeRange(*sizes)
    low, best, high = DEFAULT_BATCH
    note = (
        f"{_inputs_text(dynamic)}: no shapes given; the first dimension gets {low} (min), {best} (opt), "
        f"{high} (max). Set them with --trt-min-shapes, --trt-opt-shapes and --trt-max-shapes."
    )
    return (profile,), (note,)


def any_shape(spec: TensorSpec) -> ShapeRange:
    """The range of an input that has no optimization profile: whatever the model allows."""
    if spec.is_shape:
        count = spec.value_count
        return ShapeRange((-_LARGEST_VALUE - 1,) * count, (0,) * count, (_LARGEST_VALUE,) * count)
    low = tuple(dim if isinstance(dim, int) else 0 for dim in spec.shape)
    high = tuple(dim if isinstance(dim, int) else _UNLIMITED for dim in spec.shape)
    return ShapeRange(low, low, high)


def requested(inputs: Sequence[TensorSpec], feed: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """What a feed asks of a profile: the shape of every input; the values of one whose values are sizes."""
    values = {spec.name for spec in inputs if spec.is_shape}
    return {
        name: tuple(int(size) for size in array.reshape(-1))
        if name in values and isinstance(array, np.ndarray)
        else tuple(array.shape)
        for name, array in feed.items()
    }


def check_shapes(profiles: Sequence[ShapeProfile], shapes: Shapes, engine: str) -> int:
    """The index of the first profile that contains ``shapes``.

    Raises:
        ShapeError: an input is missing or unknown, or no profile contains the shapes; names the input,
            its shape and the allowed range.
    """
    known = profiles[0].keys()
    for name in known - shapes.keys():
        raise ShapeError(engine, f"input {name!r} is missing", f"Feed all of: {', '.join(sorted(known))}.")
    for name in shapes.keys() - known:
        raise ShapeError(engine, f"has no input {name!r}", f"Its inputs are: {', '.join(sorted(known))}.")
    for index, profile in enumerate(profiles):
        if all(profile[name].contains(tuple(shape)) for name, shape in shapes.items()):
            return index
    lines = [
        f"input {name!r} has shape {format_shape(tuple(shape))}, profile {index} allows {profile[name]}"
        for index, profile in enumerate(profiles)
        for name, shape in shapes.items()
        if not profile[name].contains(tuple(shape))
    ]
    raise ShapeError(engine, "; ".join(lines), "Feed a shape inside the profile, or widen it with --trt-max-shapes.")


def opt_shapes(profile: ShapeProfile) -> dict[str, tuple[int, ...]]:
    """The optimal shape of every input."""
    return {name: bounds.opt for name, bounds in profile.items()}


def suggest_options(inputs: Sequence[TensorSpec]) -> str:
    """The three shape options as a command line to copy, with sizes that are a guess."""
    guesses = {"min": (1, 1), "opt": (8, 128), "max": (32, 512)}
    lines = []
    for option, (first, other) in guesses.items():
        shapes = ",".join(
            f"{spec.name}:"
            + format_shape(
                (other,) * spec.value_count
                if spec.is_shape
                else tuple(
                    dim if isinstance(dim, int) else first if axis == 0 else other
                    for axis, dim in enumerate(spec.shape)
                )
            )
            for spec in inputs
            if spec.is_dynamic
        )
        lines.append(f"    --trt-{option}-shapes={shapes}")
    return " \\\n".join(lines)


def _requested(inputs: Sequence[TensorSpec], request: ShapeRequest) -> ShapeProfile:
    by_name = {spec.name: spec for spec in inputs}
    for option, shapes in (("min", request.min), ("opt", request.opt), ("max", request.max)):
        for name in shapes.keys() - by_name.keys():
            raise ShapeError(
                f"--trt-{option}-shapes",
                f"the model has no input {name!r}",
                f"Its inputs are: {', '.join(str(spec) for spec in inputs)}.",
            )
    profile = {}
    for spec in inputs:
        given = [shapes.get(spec.name) for shapes in (request.min, request.opt, request.max)]
        if all(shape is None for shape in given) and not spec.is_dynamic:
            profile[spec.name] = static_profile((spec,))[spec.name]
            continue
        if any(shape is None for shape in given):
            raise ShapeError(
                str(spec),
                "its shape is not given in all three of --trt-min-shapes, --trt-opt-shapes, --trt-max-shapes",
                "Add, with sizes that suit the model:\n" + suggest_options(inputs),
            )
        low, best, high = (tuple(shape) for shape in given if shape is not None)
        _check_range(spec, ShapeRange(low, best, high))
        profile[spec.name] = ShapeRange(low, best, high)
    return profile


def _check_range(spec: TensorSpec, bounds: ShapeRange) -> None:
    for option, shape in (("min", bounds.min), ("opt", bounds.opt), ("max", bounds.max)):
        given = f"--trt-{option}-shapes={spec.name}:{format_shape(shape)}"
        if not spec.is_shape and any(size < 0 for size in shape):
            raise ShapeError(
                given,
                f"gives the input {spec} a negative size",
                "Write NAME:1x3x224x224; only inputs whose values are sizes take negative numbers.",
            )
        fits = (
            len(shape) == spec.value_count
            if spec.is_shape
            else len(shape) == len(spec.shape)
            and all(isinstance(dim, str) or dim == size for dim, size in zip(spec.shape, shape, strict=False))
        )
        if not fits:
            raise ShapeError(given, f"does not fit the input {spec}")
    ordered = all(low <= best <= high for low, best, high in zip(bounds.min, bounds.opt, bounds.max, strict=True))
    if not ordered:
        raise ShapeError(spec.name, f"needs min <= opt <= max in every dimension, got {bounds}")


def _inputs_text(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(str(spec) for spec in specs)
