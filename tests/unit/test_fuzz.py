from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

import pytest_trtgray
from pytest_trtgray import fuzz, profile_feeds, profile_shapes
from pytest_trtgray.engines.model import ShapeRange, TensorSpec
from pytest_trtgray.engines.profiles import ShapeRequest, check_shapes, parse_shapes
from pytest_trtgray.errors import ModelError, ShapeError
from pytest_trtgray.settings import ActiveTest, activated
from tests import models
from tests.unit.helpers import ort_engine

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def request(low: str, best: str, high: str) -> ShapeRequest:
    return ShapeRequest(parse_shapes(low), parse_shapes(best), parse_shapes(high))


def examples(strategy: st.SearchStrategy[Any], count: int = 150) -> list[Any]:
    """What the strategy draws, without touching the database of examples."""
    drawn: list[Any] = []

    @settings(
        max_examples=count,
        database=None,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: Any) -> None:
        drawn.append(value)

    collect()
    return drawn


class TestShapes:
    @given(st.data())
    @QUICK
    def test_always_inside_the_profile(self, mlp: Path, data: st.DataObject) -> None:
        engine = ort_engine(mlp)
        shapes = data.draw(profile_shapes(engine))

        assert check_shapes(engine.info.profiles, shapes, "mlp") == 0
        assert shapes["x"][1] == 8

    def test_bounds_optimum_and_neighbours_come_often(self, mlp: Path) -> None:
        drawn = [shapes["x"][0] for shapes in examples(profile_shapes(ort_engine(mlp)))]

        assert {1, 2, 7, 8, 9, 31, 32} <= set(drawn)
        assert len(set(drawn)) > 12

    def test_where_kernels_change_among_many_sizes(self) -> None:
        """By chance alone these twelve of a million would hardly ever be drawn."""
        inputs = (TensorSpec("x", "float32", ("length",)),)
        profile = {"x": ShapeRange((1,), (300_000,), (1_000_000,))}
        drawn = {shapes["x"][0] for shapes in examples(fuzz._shapes(inputs, (profile,), None), 400)}
        corners = {place + step for place in (300_000, 2**13, 2**15, 2**17) for step in (-1, 0, 1)}

        assert len(corners & drawn) >= 8

    def test_failures_shrink_to_the_smallest_shape(self, mlp: Path) -> None:
        strategy = profile_shapes(ort_engine(mlp))

        assert find(strategy, lambda shapes: True, settings=QUICK) == {"x": (1, 8)}
        assert find(strategy, lambda shapes: shapes["x"][0] >= 13, settings=QUICK) == {"x": (13, 8)}

    def test_dimensions_of_one_symbol_are_equal(self, tmp_path: Path) -> None:
        path = models.two_inputs(tmp_path / "two.onnx")

        for shapes in examples(profile_shapes(path)):
            assert shapes["a"][0] == shapes["b"][0] == shapes["k"][0]

    def test_dimensions_of_two_symbols_are_not(self, tmp_path: Path) -> None:
        path = models.two_inputs(tmp_path / "two.onnx", shared=False)

        assert any(shapes["a"][0] != shapes["b"][0] for shapes in examples(profile_shapes(path)))

    def test_dimensions_without_a_symbol_move_together_if_their_range_is_the_same(self) -> None:
        """An engine file does not keep symbols: rather miss a combination than feed one that cannot be."""
        inputs = tuple(TensorSpec(name, "float32", ("?", "?")) for name in "ab")
        profile = {name: ShapeRange((1, 1), (4, 6), (9, 9)) for name in "ab"}
        drawn = examples(fuzz._shapes(inputs, (profile,), None))

        assert all(shapes["a"] == shapes["b"] for shapes in drawn)
        assert any(shapes["a"][0] != shapes["a"][1] for shapes in drawn)

    def test_ranges_of_one_symbol_are_intersected(self) -> None:
        """``batch`` is 1 to 8 for one input and 4 to 16 for the other: only 4 to 8 suits both."""
        inputs = tuple(TensorSpec(name, "float32", ("batch",)) for name in "ab")
        profile = {"a": ShapeRange((1,), (4,), (8,)), "b": ShapeRange((4,), (8,), (16,))}

        assert {shapes["a"][0] for shapes in examples(fuzz._shapes(inputs, (profile,), None))} == {4, 5, 6, 7, 8}

    def test_a_symbol_that_is_fixed_for_one_input(self) -> None:
        """``batch`` is 4 for one input: it can be nothing else for the other."""
        inputs = tuple(TensorSpec(name, "float32", ("batch",)) for name in "ab")
        profile = {"a": ShapeRange((4,), (4,), (4,)), "b": ShapeRange((1,), (4,), (8,))}

        for shapes in examples(fuzz._shapes(inputs, (profile,), None)):
            assert shapes == {"a": (4,), "b": (4,)}

    def test_every_profile_is_used(self, mlp: Path) -> None:
        engine = ort_engine(mlp)
        first, second = {"x": ShapeRange((1, 8), (1, 8), (2, 8))}, {"x": ShapeRange((16, 8), (16, 8), (20, 8))}
        strategy = fuzz._shapes(engine.info.inputs, (first, second), None)
        drawn = {shapes["x"][0] for shapes in examples(strategy)}

        assert drawn == {1, 2, 16, 17, 18, 19, 20}
        only = {shapes["x"][0] for shapes in examples(fuzz._shapes(engine.info.inputs, (first, second), 1))}
        assert only == {16, 17, 18, 19, 20}

    def test_a_static_model(self, tmp_path: Path) -> None:
        path = models.mlp(tmp_path / "static.onnx", batch=4)

        assert examples(profile_shapes(path), 5)[0] == {"x": (4, 8)}

    def test_a_profile_that_is_not_there(self, mlp: Path) -> None:
        with pytest.raises(IndexError):
            examples(profile_shapes(ort_engine(mlp), profile=1))


class TestFeeds:
    @given(st.data())
    @QUICK
    def test_the_engine_takes_them(self, mlp: Path, data: st.DataObject) -> None:
        engine = ort_engine(mlp)
        feed = data.draw(profile_feeds(engine))

        assert engine.run(feed)["y"].shape == (feed["x"].shape[0], 8)

    def test_values_suit_the_model(self, encoder: Path) -> None:
        engine = ort_engine(encoder, "ids:2x4,mask:2x1x1x4")

        for feed in examples(profile_feeds(engine), 20):
            assert 0 <= feed["ids"].min() <= feed["ids"].max() < 50
            assert (feed["mask"] == 1).all()
            assert np.isfinite(engine.run(feed)["hidden_states"]).all()

    def test_the_falsifying_example_is_short(self, mlp: Path) -> None:
        feed = find(profile_feeds(ort_engine(mlp)), lambda feed: feed["x"].shape[0] > 3, settings=QUICK)

        assert repr(feed) == "Feed(x:4x8, seed=0)"


class TestOwnProfile:
    def test_replaces_that_of_the_command_line(self, encoder: Path) -> None:
        strategy = profile_shapes(
            encoder,
            min_shapes="ids:1x2,mask:1x1x1x2",
            opt_shapes="ids:1x3,mask:1x1x1x3",
            max_shapes="ids:2x4,mask:2x1x1x4",
        )

        for shapes in examples(strategy, 40):
            batch, length = shapes["ids"]
            assert 1 <= batch <= 2
            assert 2 <= length <= 4
            assert shapes["mask"] == (batch, 1, 1, length)

    def test_needs_all_three(self, mlp: Path) -> None:
        with pytest.raises(ShapeError, match="go together"):
            examples(profile_feeds(mlp, min_shapes="x:1x8"))


class TestPaths:
    def test_read_when_the_first_example_is_drawn(self, tmp_path: Path) -> None:
        strategy = profile_shapes(tmp_path / "later.onnx")
        models.mlp(tmp_path / "later.onnx")

        assert examples(strategy, 3)

    def test_looked_for_in_the_tests_folders(self, mlp: Path) -> None:
        with activated(ActiveTest(folders=(mlp.parent / "none", mlp.parent))):
            assert examples(profile_feeds(mlp.name), 3)

    def test_nowhere_to_be_found(self, tmp_path: Path) -> None:
        with (
            activated(ActiveTest(folders=(tmp_path,))),
            pytest.raises(ModelError, match="no such file") as caught,
        ):
            examples(profile_shapes("none.onnx"))
        assert str(tmp_path) in caught.value.reason

    def test_the_command_lines_shapes_apply_to_models_that_have_these_inputs(self, mlp: Path, encoder: Path) -> None:
        shapes = (request("x:3x8", "x:4x8", "x:5x8"),)
        with activated(ActiveTest(shapes=shapes)):
            assert {drawn["x"][0] for drawn in examples(profile_shapes(mlp), 40)} == {3, 4, 5}
            with pytest.raises(ShapeError, match="symbolic dimensions other than the first"):
                examples(profile_shapes(encoder))

    def test_a_model_that_was_exported_again(self, tmp_path: Path) -> None:
        """A long-lived process must not fuzz yesterday's model."""
        path = models.mlp(tmp_path / "net.onnx", features=8)
        assert examples(profile_shapes(path), 3)[0]["x"][1] == 8
        models.mlp(path, features=6)

        assert examples(profile_shapes(path), 3)[0]["x"][1] == 6


class TestSizes:
    @given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300), st.data())
    def test_inside_the_bounds(self, low: int, step: int, more: int, data: st.DataObject) -> None:
        best, high = low + step, low + step + more

        assert low <= data.draw(fuzz._size(low, best, high)) <= high


def test_the_package_exports_the_strategies() -> None:
    assert pytest_trtgray.profile_shapes is profile_shapes
    assert "profile_feeds" in dir(pytest_trtgray)
