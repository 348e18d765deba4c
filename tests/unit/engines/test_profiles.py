from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.engines.model import ShapeRange, TensorSpec, format_shapes
from pytest_trtgray.engines.profiles import (
    ShapeRequest,
    check_shapes,
    opt_shapes,
    parse_shapes,
    resolve_profiles,
    suggest_options,
)
from pytest_trtgray.errors import ShapeError

NAMES = st.text(st.characters(codec="utf-8", exclude_characters=",", exclude_categories=("Z", "C")), min_size=1)
SHAPES = st.lists(st.integers(-(10**6), 10**6), max_size=6).map(tuple)

IMAGE = TensorSpec("x", "float32", ("batch", 3, 8, 8))
TOKENS = TensorSpec("ids", "int64", ("batch", "length"))
STATIC = TensorSpec("s", "float32", (2, 3))
SCALAR = TensorSpec("t", "float32", ())


def request(low: str, best: str, high: str) -> ShapeRequest:
    return ShapeRequest(parse_shapes(low), parse_shapes(best), parse_shapes(high))


class TestParse:
    @given(st.dictionaries(NAMES, SHAPES, min_size=1))
    def test_round_trip(self, shapes: dict[str, tuple[int, ...]]) -> None:
        assert parse_shapes(format_shapes(shapes)) == shapes

    @pytest.mark.parametrize(
        ("text", "shapes"),
        [
            ("x:1x3x224x224", {"x": (1, 3, 224, 224)}),
            (" x:8x3 , mask:8x1 ", {"x": (8, 3), "mask": (8, 1)}),
            ("input:0:1x3", {"input:0": (1, 3)}),
            ("x:5,", {"x": (5,)}),
            ("x:scalar", {"x": ()}),
            ("x:-1x8,n:-3", {"x": (-1, 8), "n": (-3,)}),
        ],
    )
    def test_notation(self, text: str, shapes: dict[str, tuple[int, ...]]) -> None:
        assert parse_shapes(text) == shapes

    @pytest.mark.parametrize(
        "text",
        [
            "",
            ",",
            "x",
            "x:",
            ":1x3",
            "x:1x",
            "x:x3",
            "x:--1x3",
            "x:1x-",
            "x:-",
            "x:1-2",
            "x:1.5",
            "x:1X3",
            "x 1x3",
            "x:1x3,y",
            "x:1,x:2",
        ],
    )
    def test_refusals(self, text: str) -> None:
        with pytest.raises(ShapeError) as caught:
            parse_shapes(text)
        assert caught.value.reason

    def test_the_part_that_cannot_be_read_is_named(self) -> None:
        with pytest.raises(ShapeError, match=r"^y:2y3: cannot be read as a shape\n  Write NAME:1x3x224x224"):
            parse_shapes("x:1x2,y:2y3")

    @given(st.text(max_size=20))
    def test_any_text(self, text: str) -> None:
        """Read or refused, never a half of it."""
        try:
            shapes = parse_shapes(text)
        except ShapeError:
            return
        assert shapes.keys() == {part.strip().rpartition(":")[0] for part in text.split(",") if part}


class TestDefaults:
    def test_a_static_model(self) -> None:
        (profile,), notes = resolve_profiles((STATIC, SCALAR), ())

        assert profile == {"s": ShapeRange((2, 3), (2, 3), (2, 3)), "t": ShapeRange((), (), ())}
        assert notes == ()

    def test_a_model_without_inputs(self) -> None:
        assert resolve_profiles((), ()) == (({},), ())

    def test_a_symbolic_first_dimension(self) -> None:
        (profile,), (note,) = resolve_profiles((IMAGE, STATIC, SCALAR), ())

        assert profile["x"] == ShapeRange((1, 3, 8, 8), (8, 3, 8, 8), (32, 3, 8, 8))
        assert profile["s"] == ShapeRange((2, 3), (2, 3), (2, 3))
        assert profile["t"] == ShapeRange((), (), ())
        assert "1 (min), 8 (opt), 32 (max)" in note
        assert "x:batchx3x8x8" in note
        assert "--trt-opt-shapes" in note

    def test_another_symbolic_dimension_needs_shapes(self) -> None:
        with pytest.raises(ShapeError, match="symbolic dimensions other than the first") as caught:
            resolve_profiles((TOKENS, IMAGE), ())
        assert "ids:batchxlength" in caught.value.thing

    def test_the_suggested_command_line_works(self) -> None:
        inputs = (TOKENS, IMAGE, STATIC)
        with pytest.raises(ShapeError) as caught:
            resolve_profiles(inputs, ())
        given = [re.search(rf"--trt-{which}-shapes=(\S+)", caught.value.remedy) for which in ("min", "opt", "max")]
        texts = [match[1] for match in given if match]

        (profile,), notes = resolve_profiles(inputs, [request(*texts)])
        assert profile["ids"].min < profile["ids"].opt < profile["ids"].max
        assert notes == ()

    def test_the_suggestion_leaves_static_inputs_out(self) -> None:
        assert "s:" not in suggest_options((STATIC, IMAGE))


class TestRequests:
    def test_one(self) -> None:
        (profile,), notes = resolve_profiles((TOKENS, STATIC), [request("ids:1x1", "ids:4x64", "ids:8x128")])

        assert profile == {
            "ids": ShapeRange((1, 1), (4, 64), (8, 128)),
            "s": ShapeRange((2, 3), (2, 3), (2, 3)),
        }
        assert notes == ()

    def test_two_profiles(self) -> None:
        small, large = request("ids:1x1", "ids:1x8", "ids:1x16"), request("ids:1x16", "ids:4x64", "ids:8x128")
        first, second = resolve_profiles((TOKENS,), [small, large])[0]

        assert first["ids"].max == (1, 16)
        assert second["ids"].opt == (4, 64)

    def test_a_static_input_may_be_named(self) -> None:
        (profile,), _ = resolve_profiles((STATIC,), [request(*("s:2x3",) * 3)])

        assert profile["s"].opt == (2, 3)

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            (("y:1", "ids:1x1", "ids:1x1"), "no input 'y'"),
            (("ids:1x1", "y:1", "ids:1x1"), "no input 'y'"),
            (("ids:1x1", "ids:1x1", "y:1"), "no input 'y'"),
            (("s:2x3", "ids:1x1", "ids:1x1"), "not given in all three"),
            (("ids:1x1", "ids:1x1", "s:2x3"), "not given in all three"),
            (("ids:1", "ids:1x1", "ids:1x1"), "does not fit"),
            (("ids:1x1", "ids:1x1x1", "ids:1x1"), "does not fit"),
            (("ids:1x1,s:2x4", "ids:1x1,s:2x4", "ids:1x1,s:2x4"), "does not fit"),
            (("ids:2x1", "ids:1x1", "ids:4x1"), "min <= opt <= max"),
            (("ids:1x1", "ids:4x8", "ids:4x7"), "min <= opt <= max"),
            (("ids:-1x1", "ids:1x1", "ids:1x1"), "--trt-min-shapes=ids:-1x1: gives the input ids:batchxlength"),
            (("ids:1x1", "ids:4x8", "ids:4x-1"), "--trt-max-shapes=ids:4x-1: gives the input ids:batchxlength"),
            (("ids:1x1,s:-2x3",) * 3, "gives the input s:2x3 float32 a negative size"),
        ],
    )
    def test_refusals(self, given: tuple[str, str, str], words: str) -> None:
        with pytest.raises(ShapeError) as caught:
            resolve_profiles((TOKENS, STATIC), [request(*given)])
        assert words in caught.value.message

    def test_a_missing_dynamic_input_gets_a_suggestion(self) -> None:
        with pytest.raises(ShapeError) as caught:
            resolve_profiles((TOKENS, IMAGE), [request(*("ids:1x1",) * 3)])
        assert "x:8x3x8x8" in caught.value.remedy


class TestCheck:
    PROFILES = (
        {"x": ShapeRange((1, 3), (2, 3), (4, 3)), "m": ShapeRange((), (), ())},
        {"x": ShapeRange((4, 3), (6, 3), (8, 3)), "m": ShapeRange((), (), ())},
    )

    @pytest.mark.parametrize(("batch", "index"), [(1, 0), (2, 0), (4, 0), (5, 1), (8, 1)])
    def test_the_first_profile_that_fits(self, batch: int, index: int) -> None:
        assert check_shapes(self.PROFILES, {"x": (batch, 3), "m": ()}, "net") == index

    @pytest.mark.parametrize("shape", [(0, 3), (9, 3), (4, 4), (4,), (4, 3, 1), ()])
    def test_outside_of_all(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ShapeError) as caught:
            check_shapes(self.PROFILES, {"x": shape, "m": ()}, "net")
        assert "profile 0 allows 1x3 .. 2x3 .. 4x3" in caught.value.reason
        assert "profile 1 allows 4x3 .. 6x3 .. 8x3" in caught.value.reason
        assert "'m'" not in caught.value.reason

    def test_a_missing_input(self) -> None:
        with pytest.raises(ShapeError, match="input 'm' is missing"):
            check_shapes(self.PROFILES, {"x": (1, 3)}, "net")

    def test_an_unknown_input(self) -> None:
        with pytest.raises(ShapeError, match="has no input 'z'"):
            check_shapes(self.PROFILES, {"x": (1, 3), "m": (), "z": (1,)}, "net")

    @given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9)), max_size=4), st.data())
    def test_every_shape_between_the_bounds_fits(self, sizes: list[tuple[int, int, int]], data: st.DataObject) -> None:
        low = tuple(size for size, _, _ in sizes)
        best = tuple(size + step for size, step, _ in sizes)
        high = tuple(size + step + more for size, step, more in sizes)
        profile = {"x": ShapeRange(low, best, high)}
        shape = tuple(data.draw(st.integers(a, b)) for a, b in zip(low, high, strict=True))

        assert check_shapes([profile], {"x": shape}, "net") == 0
        assert opt_shapes(profile) == {"x": best}
