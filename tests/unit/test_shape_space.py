from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.engines.model import ShapeRange, TensorSpec
from pytest_trtgray.engines.profiles import check_shapes
from pytest_trtgray.errors import ShapeError
from pytest_trtgray.shape_space import Dimension, Row, ShapeSpace, outside, plan, shape_space, shape_spaces


def space_of(**inputs: tuple[tuple[Any, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]) -> ShapeSpace:
    """A space from shape, min, opt and max by input name."""
    specs = [TensorSpec(name, "float32", given[0]) for name, given in inputs.items()]
    return shape_space(specs, {name: ShapeRange(*given[1:]) for name, given in inputs.items()})


def planned_shapes(space: ShapeSpace, count: int, seed: int = 0) -> list[dict[str, tuple[int, ...]]]:
    rows = plan([space], count, seed)
    shapes = [space.shapes(row.sizes) for row in rows]
    return [each for each in shapes if each is not None]


TWO = space_of(x=(("batch", "length"), (1, 1), (8, 128), (32, 512)))


class TestDimensions:
    def test_one_symbol_is_one_dimension(self) -> None:
        space = space_of(
            ids=(("batch", "length"), (1, 1), (4, 8), (8, 16)),
            mask=(("batch", 1, 1, "length"), (1, 1, 1, 1), (4, 1, 1, 8), (8, 1, 1, 16)),
        )

        assert [dim.name for dim in space.dimensions] == ["batch", "length"]
        assert space.shapes((3, 5)) == {"ids": (3, 5), "mask": (3, 1, 1, 5)}
        assert space.count == 8 * 16

    def test_dimensions_without_a_symbol_that_have_one_range_move_together(self) -> None:
        """An engine file does not keep symbols: rather miss a combination than feed one that cannot be."""
        space = space_of(a=(("?", "?"), (1, 1), (4, 6), (9, 9)), b=(("?", "?"), (1, 1), (4, 6), (9, 9)))

        assert space.shapes((2, 3)) == {"a": (2, 3), "b": (2, 3)}

    def test_ranges_of_one_symbol_are_intersected(self) -> None:
        space = space_of(a=(("batch",), (1,), (4,), (8,)), b=(("batch",), (4,), (8,), (16,)))

        assert space.dimensions == (Dimension("batch", 4, 4, 8),)

    def test_ranges_that_have_nothing_in_common(self) -> None:
        with pytest.raises(ShapeError, match=r"'batch': is 9 to 16 in input 'b' and 1 to 8 before: no size suits both"):
            space_of(a=(("batch",), (1,), (4,), (8,)), b=(("batch",), (9,), (9,), (16,)))

    def test_a_symbol_that_is_fixed_for_one_input(self) -> None:
        space = space_of(a=(("batch",), (4,), (4,), (4,)), b=(("batch",), (1,), (4,), (8,)))

        assert space.count == 1
        assert space.shapes((4,)) == {"a": (4,), "b": (4,)}

    def test_an_expression_follows_from_other_symbols(self) -> None:
        """What exporters write for decoders: the mask is as long as what was seen and what is new."""
        space = space_of(
            ids=(("batch", "new"), (1, 1), (2, 1), (4, 4)),
            past=(("batch", 2, "past", 8), (1, 2, 0, 8), (2, 2, 16, 8), (4, 2, 64, 8)),
            mask=(("batch", "past + new"), (1, 1), (2, 17), (4, 68)),
            heads=(("2*batch",), (2,), (4,), (8,)),
        )

        assert [dim.name for dim in space.dimensions] == ["batch", "new", "past"]
        assert space.shapes((3, 2, 10)) == {"ids": (3, 2), "past": (3, 2, 10, 8), "mask": (3, 12), "heads": (6,)}

    def test_an_expression_outside_of_its_own_range_is_no_shape(self) -> None:
        space = space_of(past=(("past",), (0,), (4,), (8,)), mask=(("past + 1",), (1,), (5,), (8,)))

        assert space.shapes((7,)) == {"past": (7,), "mask": (8,)}
        assert space.shapes((8,)) is None
        assert {shapes["past"][0] for shapes in planned_shapes(space, 100)} == set(range(8))

    @pytest.mark.parametrize("symbol", ["unk__0", "floor(h/2)", "onnx::Reshape_12", "h + w", "h ** 2", "1 +", "a.b"])
    def test_any_other_text_is_a_symbol(self, symbol: str) -> None:
        """``h + w`` too, where no input has an ``h``."""
        space = space_of(x=((symbol,), (1,), (4,), (8,)))

        assert [dim.name for dim in space.dimensions] == [symbol]

    def test_a_static_model_a_scalar_and_no_inputs(self) -> None:
        assert space_of(x=((4, 8), (4, 8), (4, 8), (4, 8))).shapes(()) == {"x": (4, 8)}
        assert space_of(t=((), (), (), ())).shapes(()) == {"t": ()}
        (empty,) = shape_spaces((), ())
        assert empty.shapes(()) == {}
        assert plan([empty], 10) == (Row(0, ()),)

    def test_values_of_a_shape_input(self) -> None:
        spec = TensorSpec("s", "int64", (2,), is_shape=True)
        space = shape_space([spec], {"s": ShapeRange((-1, 4), (2, 4), (8, 4))})

        assert space.values == {"s"}
        assert {space.shapes(row.sizes)["s"] for row in plan([space], 100)} == {(n, 4) for n in range(-1, 9)}  # type: ignore[index]


class TestSizes:
    @given(st.integers(-3, 300), st.integers(0, 300), st.integers(0, 6000), st.integers(0, 99))
    def test_all_of_them_once(self, low: int, step: int, more: int, seed: int) -> None:
        dimension = Dimension("n", low, low + step, low + step + more)

        assert sorted(dimension.sizes(random.Random(seed))) == list(range(low, low + step + more + 1))

    @given(st.integers(-3, 10**7), st.integers(0, 10**7), st.integers(0, 10**7))
    def test_corners_lie_inside(self, low: int, step: int, more: int) -> None:
        dimension = Dimension("n", low, low + step, low + step + more)

        assert {low, low + step, dimension.high} <= set(dimension.bounds) <= set(dimension.corners)
        assert low <= min(dimension.corners) <= max(dimension.corners) <= dimension.high
        assert len(dimension.corners) < 120

    def test_what_is_worth_a_try_comes_first(self) -> None:
        drawn = list(Dimension("n", 1, 100, 512).sizes(random.Random(3)))
        powers = {size + step for size in (2, 4, 8, 16, 32, 64, 128, 256, 512) for step in (-1, 0, 1)} & set(drawn)

        assert set(drawn[:7]) == {1, 2, 99, 100, 101, 511, 512}
        assert powers | {64 * n - 1 for n in range(1, 9)} | set(range(1, 33)) <= set(drawn[:60])

    def test_tiles_of_a_long_range_are_spread_over_it(self) -> None:
        tails = [size for size in Dimension("n", 1, 1, 100_000).corners if size % 64 == 63]

        assert 16 <= len(tails) <= 30
        assert max(tails) > 90_000


class TestPlan:
    @given(st.integers(0, 99), st.integers(1, 200))
    def test_different_shapes_inside_the_profile(self, seed: int, count: int) -> None:
        shapes = planned_shapes(TWO, count, seed)

        assert len(shapes) == len({each["x"] for each in shapes}) == count
        assert all(check_shapes([TWO.profile], each, "net") == 0 for each in shapes)

    def test_ends_first(self) -> None:
        ends = [each["x"] for each in planned_shapes(TWO, 5)]

        assert ends == [(1, 1), (8, 128), (32, 512), (32, 1), (1, 512)]

    @given(st.integers(0, 99))
    def test_every_dimension_has_many_sizes(self, seed: int) -> None:
        """64 shapes: every batch, and as many lengths as there are shapes beside the ends."""
        shapes = planned_shapes(TWO, 64, seed)

        assert {each["x"][0] for each in shapes} == set(range(1, 33))
        assert len({each["x"][1] for each in shapes}) > 55

    def test_all_if_so_few(self) -> None:
        space = space_of(x=(("a", "b"), (1, 1), (2, 2), (3, 4)))

        assert {each["x"] for each in planned_shapes(space, 12)} == {(a, b) for a in (1, 2, 3) for b in (1, 2, 3, 4)}
        assert len(planned_shapes(space, 11)) == 11

    def test_takes_turns_with_the_profiles(self) -> None:
        spec = TensorSpec("x", "float32", ("n",))
        spaces = shape_spaces(
            [spec], [{"x": ShapeRange((1,), (2,), (500,))}, {"x": ShapeRange((600,), (700,), (900,))}]
        )
        rows = plan(spaces, 60)

        assert 25 <= sum(row.space for row in rows) <= 35

    def test_a_seed_decides(self) -> None:
        assert plan([TWO], 50, 1) == plan([TWO], 50, 1) != plan([TWO], 50, 2)

    def test_where_little_fits(self) -> None:
        """One of a thousand lengths suits the mask: the plan does not search for ever."""
        space = space_of(past=(("past",), (0,), (4,), (999,)), mask=(("past + 1",), (5,), (5,), (5,)))

        assert len(planned_shapes(space, 60)) == 1


class TestOutside:
    def test_every_bound_by_one(self) -> None:
        found = {each["x"] for each in outside([TWO], TWO, {"x": (1, 1)})}

        assert found == {(0, 1), (33, 1), (1, 0), (1, 513), (1, 1, 1), (1,)}

    def test_alone_and_with_its_symbol(self) -> None:
        space = space_of(a=(("n", 4), (1, 4), (2, 4), (8, 4)), b=(("n",), (1,), (2,), (8,)))
        found = [(each["a"], each["b"]) for each in outside([space], space, {"a": (1, 4), "b": (1,)})]

        assert {((9, 4), (9,)), ((9, 4), (1,)), ((1, 4), (9,)), ((1, 5), (1,)), ((1, 3), (1,))} <= set(found)
        assert all(not space.profile["a"].contains(a) or not space.profile["b"].contains(b) for a, b in found)

    def test_what_another_profile_contains_is_not_outside(self) -> None:
        spec = TensorSpec("x", "float32", ("n",))
        spaces = shape_spaces([spec], [{"x": ShapeRange((1,), (2,), (4,))}, {"x": ShapeRange((5,), (6,), (9,))}])

        assert {each["x"] for each in outside(spaces, spaces[0], {"x": (1,)})} == {(0,), (), (1, 1)}
        assert {each["x"] for each in outside(spaces, spaces[1], {"x": (5,)})} == {(10,), (), (5, 1)}

    def test_values_may_be_negative_and_keep_their_number(self) -> None:
        spec = TensorSpec("s", "int64", (2,), is_shape=True)
        space = shape_space([spec], {"s": ShapeRange((-1, 4), (2, 4), (8, 4))})

        assert {each["s"] for each in outside([space], space, {"s": (1, 4)})} == {(-2, 4), (9, 4), (1, 3), (1, 5)}

    def test_a_scalar_has_no_dimension_to_lose(self) -> None:
        space = space_of(t=((), (), (), ()))

        assert outside([space], space, {"t": ()}) == ({"t": (1,)},)
