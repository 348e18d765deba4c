"""Hypothesis strategies over optimization profiles."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

from hypothesis import strategies as st

from pytest_trtgray.engines.base import Engine
from pytest_trtgray.engines.model import ShapeProfile, TensorSpec
from pytest_trtgray.engines.onnx_model import open_model
from pytest_trtgray.engines.profiles import fitting_requests, request_shapes, resolve_profiles
from pytest_trtgray.feeds import Feed, make_feed
from pytest_trtgray.settings import active

EngineOrModel = Engine | str | Path
Shapes = dict[str, tuple[int, ...]]


def profile_shapes(
    engine_or_onnx: EngineOrModel,
    profile: int | None = None,
    *,
    min_shapes: str = "",
    opt_shapes: str = "",
    max_shapes: str = "",
) -> st.SearchStrategy[Shapes]:
    """Shapes inside an optimization profile, one a name.

    Dimensions with the same symbol (``batch`` in several inputs) are always equal; so are dimensions without a
    symbol that have the same range. The profile's bounds and
    its optimum come often, as do their neighbours, where kernels change; failures shrink to the smallest
    shape.

    Args:
        engine_or_onnx: an engine, or the path of an ONNX model; a path is read when the first example is
            drawn, from the test's folder, the root folder or the current folder.
        profile: index of the profile; by default any.
        min_shapes: for a path, the profile in trtexec's notation; by default that of the command line.
        opt_shapes: see ``min_shapes``.
        max_shapes: see ``min_shapes``.
    """
    given = (min_shapes, opt_shapes, max_shapes)
    return st.deferred(lambda: _shapes(*_inputs_and_profiles(engine_or_onnx, given), profile))


def profile_feeds(
    engine_or_onnx: EngineOrModel,
    profile: int | None = None,
    *,
    min_shapes: str = "",
    opt_shapes: str = "",
    max_shapes: str = "",
) -> st.SearchStrategy[Feed]:
    """Whole inputs inside an optimization profile: shapes as :func:`profile_shapes`, and values from a seed.

    Values suit the model: token ids lie below the length of their table, masks are ones. Arguments are those of
    :func:`profile_shapes`.
    """
    given = (min_shapes, opt_shapes, max_shapes)

    def strategy() -> st.SearchStrategy[Feed]:
        inputs, profiles = _inputs_and_profiles(engine_or_onnx, given)
        return st.builds(
            functools.partial(make_feed, inputs), _shapes(inputs, profiles, profile), seed=st.integers(0, 999)
        )

    return st.deferred(strategy)


def _inputs_and_profiles(
    engine_or_onnx: EngineOrModel, given: tuple[str, str, str]
) -> tuple[tuple[TensorSpec, ...], tuple[ShapeProfile, ...]]:
    if isinstance(engine_or_onnx, Engine):
        return engine_or_onnx.info.inputs, engine_or_onnx.info.profiles
    context = active()
    shapes = (request_shapes(*given),) if any(given) else context.shapes
    inputs = open_model(context.find_file(engine_or_onnx)).inputs
    profiles, _ = resolve_profiles(inputs, fitting_requests(inputs, shapes))
    return inputs, profiles


def _shapes(
    inputs: tuple[TensorSpec, ...], profiles: tuple[ShapeProfile, ...], profile: int | None
) -> st.SearchStrategy[Shapes]:
    chosen = profiles if profile is None else (profiles[profile],)
    return st.one_of([_profile_shapes(inputs, each) for each in chosen])


def _profile_shapes(inputs: tuple[TensorSpec, ...], profile: ShapeProfile) -> st.SearchStrategy[Shapes]:
    """One free number for every symbol, and for every dimension that has none."""
    free: dict[str, tuple[int, int, int]] = {}
    places: dict[str, list[str | int]] = {}
    for spec in inputs:
        bounds = profile[spec.name]
        places[spec.name] = []
        for axis, (low, best, high) in enumerate(zip(bounds.min, bounds.opt, bounds.max, strict=True)):
            symbol = "?" if spec.is_shape else spec.shape[axis]
            if low == high and not isinstance(symbol, str):
                places[spec.name].append(low)
                continue
            # An engine file does not keep symbols. Dimensions of one range then move together: rather miss a
            # combination than feed one that the model does not allow.
            key = symbol if isinstance(symbol, str) and symbol != "?" else f"{low} to {high}, best {best}"
            was = free.get(key, (low, best, high))
            free[key] = (max(low, was[0]), best, min(high, was[2]))
            places[spec.name].append(key)
    sizes = st.fixed_dictionaries({key: _size(*bounds) for key, bounds in free.items()})
    return sizes.map(_placer(places))


def _placer(places: Mapping[str, list[str | int]]) -> Callable[[Mapping[str, int]], Shapes]:
    def place(sizes: Mapping[str, int]) -> Shapes:
        return {
            name: tuple(sizes[dim] if isinstance(dim, str) else dim for dim in dims) for name, dims in places.items()
        }

    return place


def _size(low: int, best: int, high: int) -> st.SearchStrategy[int]:
    """Sizes of one dimension: any, and often those where kernels and tilings change."""
    powers = [1 << bit for bit in range(high.bit_length())]
    corners = {low, low + 1, best - 1, best, best + 1, high - 1, high}
    corners.update(power + step for power in powers for step in (-1, 0, 1))
    inside = sorted(size for size in corners if low <= size <= high)
    # integers() comes first: failures shrink towards it, and so to the smallest size
    return st.integers(low, high) | st.sampled_from(inside)
