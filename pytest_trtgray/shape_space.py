"""The shapes that optimization profiles allow: what varies by itself, which sizes to try, what lies outside."""

from __future__ import annotations

import ast
import functools
import itertools
import math
import operator
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pytest_trtgray.engines.model import ShapeProfile, TensorSpec
from pytest_trtgray.errors import ShapeError

SMALL = 32
"""Up to here every size is a case of its own: tails of tiles, vector instead of matrix kernels."""
TILE = 64
MAX_TILES = 16
"""Of a long range, multiples of the tile that count as worth a try."""
_SHUFFLED = 4096
"""Longer ranges are drawn from, not shuffled."""

Shapes = dict[str, tuple[int, ...]]
Sizes = tuple[int, ...]
"""One a dimension of a space, in their order."""

_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv}


@dataclass(frozen=True)
class Dimension:
    """A size that varies by itself; all dimensions with its symbol have it.

    Attributes:
        name: the symbol, such as ``batch``; the range where the engine does not tell symbols.
        low: smallest size.
        best: the size that the profile is optimised for.
        high: largest size.
    """

    name: str
    low: int
    best: int
    high: int

    @property
    def count(self) -> int:
        """How many sizes it can have."""
        return self.high - self.low + 1

    @functools.cached_property
    def bounds(self) -> Sizes:
        """The profile's bounds and its optimum, with their neighbours."""
        return self._inside(self.low, self.high, self.best, self.low + 1, self.high - 1, self.best - 1, self.best + 1)

    @functools.cached_property
    def corners(self) -> Sizes:
        """Bounds, and where kernels and tilings change: powers of two, and what just does not fill a tile."""
        powers = (1 << bit for bit in range(self.high.bit_length()))
        tiles = range(TILE * max(self.low // TILE, 1), self.high + 2, TILE)
        some_tiles = tiles[:: math.ceil(len(tiles) / MAX_TILES) or 1]
        around = (size + step for size in powers for step in (-1, 0, 1))
        return self._inside(*self.bounds, *around, *(size - 1 for size in some_tiles))

    def sizes(self, rng: random.Random) -> Iterator[int]:
        """All sizes in random order, without repetition: bounds first, then corners and small sizes, then the rest."""
        small = range(max(self.low, -1), min(self.high, SMALL) + 1)
        seen: set[int] = set()
        for tier in (self.bounds, (*self.corners, *small)):
            fresh = [size for size in dict.fromkeys(tier) if size not in seen]
            seen.update(fresh)
            yield from rng.sample(fresh, len(fresh))
        if self.count <= _SHUFFLED:
            rest = [size for size in range(self.low, self.high + 1) if size not in seen]
            yield from rng.sample(rest, len(rest))
            return
        while len(seen) < self.count:
            size = rng.randint(self.low, self.high)
            if size not in seen:
                seen.add(size)
                yield size

    def _inside(self, *sizes: int) -> Sizes:
        return tuple(size for size in dict.fromkeys(sizes) if self.low <= size <= self.high)


@dataclass(frozen=True)
class ShapeSpace:
    """The shapes of one optimization profile.

    Attributes:
        profile: the ranges of all inputs.
        dimensions: what varies by itself.
        places: by input, for each of its dimensions a size, the name of a dimension, or an expression of names
            (``past_length + 1``).
        values: names of inputs whose entry is their values, not their shape.
    """

    profile: ShapeProfile
    dimensions: tuple[Dimension, ...]
    places: Mapping[str, tuple[int | str, ...]]
    values: frozenset[str] = field(default_factory=frozenset)

    @property
    def count(self) -> int:
        """How many combinations of sizes there are."""
        return math.prod(dimension.count for dimension in self.dimensions)

    def shapes(self, sizes: Sizes) -> Shapes | None:
        """The shape of every input; ``None`` where an expression leaves its range."""
        named = {dimension.name: size for dimension, size in zip(self.dimensions, sizes, strict=True)}
        shapes = {
            name: tuple(place if isinstance(place, int) else _evaluated(place, named) for place in places)
            for name, places in self.places.items()
        }
        fits = all(self.profile[name].contains(shape) for name, shape in shapes.items())
        return shapes if fits else None

    def at(self, which: str) -> Sizes:
        """The sizes at the profile's ``low``, ``best`` or ``high`` end."""
        return tuple(getattr(dimension, which) for dimension in self.dimensions)


@dataclass(frozen=True)
class Row:
    """One shape of a plan: the index of its space, and its sizes."""

    space: int
    sizes: Sizes


def shape_space(inputs: Sequence[TensorSpec], profile: ShapeProfile) -> ShapeSpace:
    """What may vary within a profile.

    Dimensions with the same symbol are one. An engine file does not keep symbols: dimensions without one that have the
    same range then move together, rather missing a combination than feeding one that the model does not allow.

    Raises:
        ShapeError: one symbol has ranges in two inputs that have no size in common.
    """
    symbols = {dim for spec in inputs if not spec.is_shape for dim in spec.shape if isinstance(dim, str) and dim != "?"}
    ranges: dict[str, Dimension] = {}
    places: dict[str, tuple[int | str, ...]] = {}
    for spec in inputs:
        bounds = profile[spec.name]
        row: list[int | str] = []
        for axis, (low, best, high) in enumerate(zip(bounds.min, bounds.opt, bounds.max, strict=True)):
            symbol = "?" if spec.is_shape else spec.shape[axis]
            if not isinstance(symbol, str) or (symbol == "?" and low == high):
                row.append(low)
                continue
            name = f"{low} to {high}, best {best}" if symbol == "?" else symbol
            row.append(name)
            if not _is_expression(name, symbols):
                ranges[name] = _common(ranges.get(name), Dimension(name, low, best, high), spec.name)
        places[spec.name] = tuple(row)
    values = frozenset(spec.name for spec in inputs if spec.is_shape)
    return ShapeSpace(profile, tuple(ranges.values()), places, values)


def shape_spaces(inputs: Sequence[TensorSpec], profiles: Sequence[ShapeProfile]) -> tuple[ShapeSpace, ...]:
    """One a profile; a model without inputs has one space with nothing in it.

    Raises:
        ShapeError: see :func:`shape_space`.
    """
    return tuple(shape_space(inputs, profile) for profile in profiles or ({},))


def plan(spaces: Sequence[ShapeSpace], count: int, seed: int | str = 0) -> tuple[Row, ...]:
    """Up to ``count`` different shapes that together have many different sizes in every dimension; all, if so few.

    The ends of every profile come first. Then every shape has a new size in each dimension (a Latin hypercube), in the
    order of :meth:`Dimension.sizes`: whatever one size alone breaks is hit once its turn comes, however many
    dimensions there are.

    Args:
        spaces: one a profile.
        count: how many at most.
        seed: decides which sizes meet, and on the order.
    """
    rows: dict[tuple[tuple[str, tuple[int, ...]], ...], Row] = {}

    def add(row: Row) -> None:
        shapes = spaces[row.space].shapes(row.sizes)
        if shapes is not None:
            rows.setdefault(tuple(shapes.items()), row)

    for index, space in enumerate(spaces):
        for sizes in _ends(space):
            add(Row(index, sizes))
    if sum(space.count for space in spaces) <= count:
        for index, space in enumerate(spaces):
            for sizes in itertools.product(*(range(dim.low, dim.high + 1) for dim in space.dimensions)):
                add(Row(index, sizes))
        return tuple(rows.values())
    varied = [(index, space) for index, space in enumerate(spaces) if space.count > 1]
    streams = {
        (index, dim.name): _cycled(dim, random.Random(f"{seed} {index} {dim.name}"))
        for index, space in varied
        for dim in space.dimensions
    }
    for index, space in itertools.islice(itertools.cycle(varied), 4 * count):
        if len(rows) >= count:
            break
        add(Row(index, tuple(next(streams[index, dim.name]) for dim in space.dimensions)))
    return tuple(rows.values())[:count]


def outside(spaces: Sequence[ShapeSpace], space: ShapeSpace, base: Shapes) -> tuple[Shapes, ...]:
    """Shapes like ``base`` that no profile contains: bounds exceeded by one, alone and with their symbol; wrong rank.

    Args:
        spaces: of all profiles.
        space: the one whose bounds are exceeded.
        base: a shape inside of it.
    """
    edited: list[Shapes] = []
    for dimension in space.dimensions:
        at = {name: [axis for axis, place in enumerate(row) if place == dimension.name]
              for name, row in space.places.items()}  # fmt: skip
        edited += [_with_sizes(base, at, size) for size in _exceeding(dimension.low, dimension.high)]
    for name, bounds in space.profile.items():
        for axis, (low, high) in enumerate(zip(bounds.min, bounds.max, strict=True)):
            edited += [_with_sizes(base, {name: [axis]}, size) for size in _exceeding(low, high)]
        if name not in space.values:
            edited += [{**base, name: (*base[name], 1)}]
            edited += [{**base, name: base[name][:-1]}] if base[name] else []
    unique = {tuple(shapes.items()): shapes for shapes in edited}
    return tuple(shapes for shapes in unique.values() if _is_outside(spaces, shapes))


def _is_outside(spaces: Sequence[ShapeSpace], shapes: Shapes) -> bool:
    negative = any(size < 0 for name, shape in shapes.items() if name not in spaces[0].values for size in shape)
    return not negative and not any(
        all(space.profile[name].contains(shape) for name, shape in shapes.items()) for space in spaces
    )


def _exceeding(low: int, high: int) -> tuple[int, int]:
    return low - 1, high + 1


def _with_sizes(base: Shapes, axes: Mapping[str, Sequence[int]], size: int) -> Shapes:
    return {
        name: tuple(size if axis in axes.get(name, ()) else was for axis, was in enumerate(shape))
        for name, shape in base.items()
    }


def _ends(space: ShapeSpace) -> Iterator[Sizes]:
    """Smallest, best and largest; and each dimension at one end while the others are at the other."""
    low, best, high = space.at("low"), space.at("best"), space.at("high")
    yield from (low, best, high)
    if 1 < len(low) <= 4:
        for axis in range(len(low)):
            yield (*low[:axis], high[axis], *low[axis + 1 :])
            yield (*high[:axis], low[axis], *high[axis + 1 :])


def _cycled(dimension: Dimension, rng: random.Random) -> Iterator[int]:
    """All sizes, again and again in another order."""
    while True:
        yield from dimension.sizes(rng)


def _common(was: Dimension | None, new: Dimension, where: str) -> Dimension:
    """The sizes that all inputs with one symbol allow."""
    if was is None:
        return new
    low, high = max(was.low, new.low), min(was.high, new.high)
    if low > high:
        raise ShapeError(
            f"dimension {new.name!r}",
            f"is {new.low} to {new.high} in input {where!r} and {was.low} to {was.high} before: no size suits both",
            "Give the inputs profiles that overlap in this dimension.",
        )
    return Dimension(was.name, low, min(max(was.best, low), high), high)


@functools.lru_cache(maxsize=256)
def _parsed(text: str) -> ast.expr | None:
    """Arithmetic on names and integers, such as ``2*batch`` and ``past + 1``."""
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return None
    known = all(
        isinstance(node, (ast.Name, ast.BinOp, ast.Load, *_OPERATORS))
        or (isinstance(node, ast.Constant) and type(node.value) is int)
        for node in ast.walk(tree)
    )
    return tree if known else None


def _is_expression(symbol: str, symbols: set[str]) -> bool:
    """Whether a symbol follows from others: exporters call a dimension ``past_length + 1``."""
    tree = _parsed(symbol)
    if not isinstance(tree, ast.BinOp):
        return False
    return all(node.id in symbols for node in ast.walk(tree) if isinstance(node, ast.Name))


def _evaluated(place: str, sizes: Mapping[str, int]) -> int:
    if place in sizes:
        return sizes[place]

    def value(node: ast.expr) -> int:
        if isinstance(node, ast.BinOp):
            return int(_OPERATORS[type(node.op)](value(node.left), value(node.right)))
        return sizes[node.id] if isinstance(node, ast.Name) else int(ast.literal_eval(node))

    tree = _parsed(place)
    assert tree is not None  # only expressions have no dimension of their own
    return value(tree)
