"""Hypothesis strategies over optimization profiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import reject
from hypothesis import strategies as st

from pytest_trtgray.engines.base import Engine
from pytest_trtgray.engines.model import QUANTISED, ShapeProfile, TensorSpec
from pytest_trtgray.engines.onnx_model import open_model
from pytest_trtgray.engines.profiles import fitting_requests, request_shapes, resolve_profiles
from pytest_trtgray.errors import ShapeError
from pytest_trtgray.feeds import (
    PADDINGS,
    VALUES,
    EngineOrModel,
    Feed,
    Ranges,
    Samples,
    has_floats,
    has_masks,
    make_feed,
)
from pytest_trtgray.settings import active
from pytest_trtgray.shape_space import Row, Shapes, ShapeSpace, outside, plan, shape_spaces

PLANNED = 64
"""Shapes that a strategy has ready; Hypothesis tries each of them once, within its default of 100 examples."""
SEEDS = 9999
_FOR_FLOATS = ("uniform", "large", "denormal")
_SATURATING = ("large", "extremes")
"""Quantised engines cut these off, which is no fault."""


def profile_shapes(
    engine_or_onnx: EngineOrModel,
    profile: int | None = None,
    *,
    min_shapes: str = "",
    opt_shapes: str = "",
    max_shapes: str = "",
) -> st.SearchStrategy[Shapes]:
    """Shapes inside an optimization profile, one a name.

    Dimensions with the same symbol (``batch`` in several inputs) are always equal, and ``past_length + 1`` is one more
    than ``past_length``; dimensions without a symbol that have the same range are equal too. 64 shapes that are tried
    first cover, in every dimension at once, the profile's bounds and optimum, their neighbours, powers of two with
    theirs, multiples of 64 less one, and every size up to 32; then any shape is drawn, and these sizes more often than
    others. Failures shrink to the smallest shape.

    Args:
        engine_or_onnx: an engine, or the path of an ONNX model; a path is read when the first example is
            drawn, from the test's folder, the root folder or the current folder.
        profile: index of the profile; by default any.
        min_shapes: for a path, the profile in trtexec's notation; by default that of the command line.
        opt_shapes: see ``min_shapes``.
        max_shapes: see ``min_shapes``.
    """
    given = (min_shapes, opt_shapes, max_shapes)

    def strategy() -> st.SearchStrategy[Shapes]:
        spaces = _chosen(_spaces(engine_or_onnx, given), profile)
        return _drawing(spaces).map(lambda drawn: drawn.shapes)

    return st.deferred(strategy)


def profile_feeds(
    engine_or_onnx: EngineOrModel,
    profile: int | None = None,
    *,
    values: Sequence[str] | None = None,
    padding: Sequence[str] | None = None,
    samples: Samples | None = None,
    ranges: Ranges | None = None,
    min_shapes: str = "",
    opt_shapes: str = "",
    max_shapes: str = "",
) -> st.SearchStrategy[Feed]:
    """Whole inputs inside an optimization profile: shapes as :func:`profile_shapes`, and values that suit the model.

    A feed prints as the call of :func:`make_feed` that makes it again. It shrinks to the smallest shape, then to normal
    values without padding and ``seed=0``.

    Args:
        engine_or_onnx: see :func:`profile_shapes`.
        profile: see :func:`profile_shapes`.
        values: distributions of floats, see :func:`make_feed`; by default all but ``nonfinite``, and for quantised
            engines and models those that do not saturate.
        padding: of masks; by default none, right and left.
        samples: real data by input, see :func:`make_feed`.
        ranges: smallest and largest value by input, see :func:`make_feed`.
        min_shapes: see :func:`profile_shapes`.
        opt_shapes: see :func:`profile_shapes`.
        max_shapes: see :func:`profile_shapes`.
    """
    given = (min_shapes, opt_shapes, max_shapes)

    def strategy() -> st.SearchStrategy[Feed]:
        inputs, profiles = _inputs_and_profiles(engine_or_onnx, given)
        spaces = _chosen(shape_spaces(inputs, profiles), profile)
        kinds = tuple(values or usual_values(inputs, saturates=is_quantised(engine_or_onnx)))
        sides = tuple(padding or (PADDINGS if has_masks(inputs) else PADDINGS[:1]))
        rows = planned_rows(spaces, PLANNED, kinds, sides)

        def feed(drawn: Drawn) -> Feed:
            return make_feed(
                engine_or_onnx,
                drawn.shapes,
                drawn.seed,
                values=drawn.values,
                padding=drawn.padding,
                samples=samples,
                ranges=ranges,
            )

        return Drawing(spaces, rows, kinds, sides, SEEDS).map(feed)

    return st.deferred(strategy)


def outside_profile_shapes(
    engine_or_onnx: EngineOrModel,
    profile: int | None = None,
    *,
    min_shapes: str = "",
    opt_shapes: str = "",
    max_shapes: str = "",
) -> st.SearchStrategy[Shapes]:
    """Shapes that no profile of the engine contains, and that it has to refuse with a ``ShapeError``.

    A bound of a profile is exceeded by one, in one input or in all that share the dimension, or an input has a
    dimension too many or too few. Arguments are those of :func:`profile_shapes`; ``profile`` is the one whose bounds
    are exceeded.

    Raises:
        ShapeError: when the first example is drawn, for a model without inputs.
    """
    given = (min_shapes, opt_shapes, max_shapes)

    def strategy() -> st.SearchStrategy[Shapes]:
        spaces = _spaces(engine_or_onnx, given)
        if not spaces[0].profile:
            raise ShapeError(str(engine_or_onnx), "has no inputs, so no shape is outside of its profile")
        exceeded = _chosen(spaces, profile)
        return st.one_of([_outside(spaces, space) for space in exceeded])

    return st.deferred(strategy)


@dataclass(frozen=True)
class Drawn:
    """What one feed is made of: arguments of :func:`make_feed`."""

    shapes: Shapes
    seed: int = 0
    values: str = "normal"
    padding: str = "none"


@dataclass(frozen=True)
class Planned:
    """A feed that is tried without drawing; ``values`` and ``padding`` by their place in what a strategy allows."""

    row: Row
    values: int = 0
    padding: int = 0
    seed: int = 0


class Drawing(st.SearchStrategy[Drawn]):
    """Planned feeds, each once, then any.

    The first choice is the number of a planned feed, or 0 for a free one. A planned feed makes the same choices as a
    free one, from ranges of one number. So its number alone tells it, Hypothesis never repeats one, and once something
    fails it can exchange the number for 0 and shrink the rest as if it had been drawn freely. Choices are made here and
    not by strategies inside, because Hypothesis would mix the choices of equal strategies and lose most of its
    examples on repetitions.

    Args:
        spaces: one a profile.
        rows: the plan.
        values: distributions, simplest first.
        padding: sides, simplest first.
        seeds: the largest seed.
    """

    def __init__(
        self,
        spaces: Sequence[ShapeSpace],
        rows: Sequence[Planned],
        values: Sequence[str] = VALUES[:1],
        padding: Sequence[str] = PADDINGS[:1],
        seeds: int = 0,
    ) -> None:
        super().__init__()
        self._spaces = tuple(spaces)
        self._rows = tuple(rows)
        self._values = tuple(values)
        self._padding = tuple(padding)
        self._seeds = seeds

    def do_draw(self, data: Any) -> Drawn:
        """Hypothesis' hook: one example."""

        def number(high: int, planned: int | None, low: int = 0) -> int:
            if planned is not None:
                low = high = planned
            return int(data.draw_integer(min_value=low, max_value=high))

        chosen = number(len(self._rows), None)
        planned = self._rows[chosen - 1] if chosen else None
        space = self._spaces[number(len(self._spaces) - 1, planned.row.space if planned else None)]
        sizes = []
        for axis, dimension in enumerate(space.dimensions):
            size = planned.row.sizes[axis] if planned else None
            # without a plan, every second size is a corner
            corner = number(2 * len(dimension.corners), 0 if planned else None)
            if 0 < corner <= len(dimension.corners):
                size = dimension.corners[corner - 1]
            sizes.append(number(dimension.high, size, dimension.low))
        shapes = space.shapes(tuple(sizes))
        if shapes is None:
            reject()
        values = number(len(self._values) - 1, planned.values if planned else None)
        padding = number(len(self._padding) - 1, planned.padding if planned else None)
        seed = number(self._seeds, planned.seed if planned else None)
        return Drawn(shapes, seed, self._values[values], self._padding[padding])

    def __repr__(self) -> str:
        return f"Drawing({len(self._rows)} planned)"


def planned_rows(
    spaces: Sequence[ShapeSpace], count: int, values: Sequence[str], padding: Sequence[str], seed: int | str = 0
) -> list[Planned]:
    """A plan of feeds: the shapes of :func:`~pytest_trtgray.shape_space.plan`, and all values at the best shape.

    Shapes come with normal values, in which any fault shows that lies in a shape.
    """
    best = Row(0, spaces[0].at("best"))
    variations = [Planned(best, values=index) for index in range(1, len(values))]
    variations += [Planned(best, padding=index) for index in range(1, len(padding))]
    if spaces[0].shapes(best.sizes) is None:
        variations = []
    shapes = plan(spaces, max(count - len(variations), 1), seed)
    rows = [Planned(row, padding=number % len(padding), seed=number % (SEEDS + 1)) for number, row in enumerate(shapes)]
    ends = 3 * len(spaces)
    return [*rows[:ends], *variations, *rows[ends:]]


def usual_values(inputs: Iterable[TensorSpec], *, saturates: bool) -> tuple[str, ...]:
    """The distributions that inputs know, without those that no engine has to bear."""
    known = tuple(inputs)
    return tuple(
        name
        for name in VALUES
        if name != "nonfinite"
        and (has_floats(known) or name not in _FOR_FLOATS)
        and not (saturates and name in _SATURATING)
    )


def is_quantised(engine_or_onnx: EngineOrModel) -> bool:
    """Whether an engine computes, or a model is written, in a quantised precision."""
    if isinstance(engine_or_onnx, Engine):
        return engine_or_onnx.precision in QUANTISED
    return open_model(active().find_file(engine_or_onnx)).is_quantised


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


def _spaces(engine_or_onnx: EngineOrModel, given: tuple[str, str, str]) -> tuple[ShapeSpace, ...]:
    return shape_spaces(*_inputs_and_profiles(engine_or_onnx, given))


def _chosen(spaces: tuple[ShapeSpace, ...], profile: int | None) -> tuple[ShapeSpace, ...]:
    if profile is None:
        return spaces
    if not 0 <= profile < len(spaces):
        raise ShapeError(f"profile={profile}", f"is none of the {len(spaces)} profiles", "They are counted from 0.")
    return (spaces[profile],)


def _drawing(spaces: Sequence[ShapeSpace]) -> Drawing:
    """Shapes alone."""
    return Drawing(spaces, [Planned(row) for row in plan(spaces, PLANNED)])


def _outside(spaces: Sequence[ShapeSpace], space: ShapeSpace) -> st.SearchStrategy[Shapes]:
    def exceed(drawn: Drawn) -> st.SearchStrategy[Shapes]:
        return st.sampled_from(outside(spaces, space, drawn.shapes))

    return _drawing([space]).flatmap(exceed)
