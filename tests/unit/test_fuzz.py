from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import HealthCheck, find, given, seed, settings
from hypothesis import strategies as st

import pytest_trtgray
from pytest_trtgray import (
    Feed,
    assert_outputs_close,
    fuzz,
    make_feed,
    outside_profile_shapes,
    profile_feeds,
    profile_shapes,
)
from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.engines.profiles import ShapeRequest, check_shapes, parse_shapes
from pytest_trtgray.errors import ModelError, ShapeError
from pytest_trtgray.feeds import VALUES
from pytest_trtgray.settings import ActiveTest, activated
from pytest_trtgray.shape_space import Dimension, plan, shape_spaces
from tests import models, planted
from tests.unit.helpers import ort_engine, profiled_engine

QUICK = settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def request(low: str, best: str, high: str) -> ShapeRequest:
    return ShapeRequest(parse_shapes(low), parse_shapes(best), parse_shapes(high))


TWO = ("x:1x1", "x:8x128", "x:512x512")


def planned_two(folder: Path) -> Path:
    """A model whose batch and sequence are dynamic."""
    return planted.faulty_at(folder / "two.onnx", batch=13)


def calls(feed: Feed) -> dict[str, Any]:
    """The keyword arguments of the call that makes a feed."""
    call = ast.parse(feed.call, mode="eval").body
    assert isinstance(call, ast.Call)
    return {str(word.arg): ast.literal_eval(word.value) for word in call.keywords if word.arg != "samples"}


def examples(strategy: st.SearchStrategy[Any], count: int = 150, *, seed: int = 0) -> list[Any]:
    """What the strategy draws, without touching the database of examples."""
    drawn: list[Any] = []

    @hypothesis.seed(seed)
    @settings(
        max_examples=count,
        database=None,
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

    def test_where_kernels_change_among_many_sizes(self, tmp_path: Path) -> None:
        """By chance alone these twelve of a million would hardly ever be drawn."""
        path = models.mlp(tmp_path / "net.onnx")
        strategy = profile_shapes(path, min_shapes="x:1x8", opt_shapes="x:300000x8", max_shapes="x:1000000x8")
        drawn = {shapes["x"][0] for shapes in examples(strategy, 400)}
        corners = {place + step for place in (300_000, 2**13, 2**15, 2**17) for step in (-1, 0, 1)}

        assert len(corners & drawn) >= 8

    def test_every_planned_shape_comes_within_the_default_number_of_examples(self, tmp_path: Path) -> None:
        """What one size alone breaks is found whatever the seed."""
        path = planned_two(tmp_path)
        spaces = shape_spaces(*fuzz._inputs_and_profiles(path, TWO))
        planned = [spaces[0].shapes(row.sizes) for row in plan(spaces, fuzz.PLANNED)]
        strategy = profile_shapes(path, min_shapes=TWO[0], opt_shapes=TWO[1], max_shapes=TWO[2])
        for number in range(5):
            drawn = examples(strategy, 100, seed=number)
            missing = [shapes for shapes in planned if shapes not in drawn]

            assert missing == []
            assert {shapes["x"][0] for shapes in drawn} >= set(range(1, 33))
            assert len({shapes["x"][0] for shapes in drawn}) > 60

    def test_corners_still_come_often_after_the_plan(self, tmp_path: Path) -> None:
        strategy = profile_shapes(planned_two(tmp_path), min_shapes=TWO[0], opt_shapes=TWO[1], max_shapes=TWO[2])
        later = examples(strategy, 400)[100:]
        corners = set(Dimension("batch", 1, 8, 512).corners)

        assert sum(shapes["x"][0] in corners for shapes in later) > len(later) / 3
        assert sum(shapes["x"][0] not in corners for shapes in later) > len(later) / 4

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

    def test_every_profile_is_used(self, mlp: Path) -> None:
        engine = profiled_engine(mlp, ("x:1x8", "x:1x8", "x:2x8"), ("x:16x8", "x:16x8", "x:20x8"))

        assert {shapes["x"][0] for shapes in examples(profile_shapes(engine))} == {1, 2, 16, 17, 18, 19, 20}
        assert {shapes["x"][0] for shapes in examples(profile_shapes(engine, 1))} == {16, 17, 18, 19, 20}

    def test_shrinks_from_one_profile_to_another(self, mlp: Path) -> None:
        engine = profiled_engine(mlp, ("x:1x8", "x:1x8", "x:2x8"), ("x:16x8", "x:16x8", "x:900x8"))

        assert find(profile_shapes(engine), lambda shapes: shapes["x"][0] > 17, settings=QUICK) == {"x": (18, 8)}
        assert find(profile_shapes(engine), lambda shapes: True, settings=QUICK) == {"x": (1, 8)}

    def test_a_shape_that_an_expression_excludes_is_not_drawn(self, tmp_path: Path) -> None:
        graph = models.Graph()
        past, mask = graph.input("past", ["past"]), graph.input("mask", ["past + 1"])
        graph.add("Concat", [past, mask], "/Concat", "y", axis=0)
        graph.output("y", ["both"])
        path = graph.save(tmp_path / "net.onnx")
        drawn = examples(
            profile_shapes(path, min_shapes="past:0,mask:1", opt_shapes="past:4,mask:5", max_shapes="past:90,mask:80")
        )

        assert {each["mask"][0] - each["past"][0] for each in drawn} == {1}
        assert max(each["past"][0] for each in drawn) == 79

    def test_a_static_model(self, tmp_path: Path) -> None:
        path = models.mlp(tmp_path / "static.onnx", batch=4)

        assert examples(profile_shapes(path), 5)[0] == {"x": (4, 8)}

    def test_a_profile_that_is_not_there(self, mlp: Path) -> None:
        for strategy in (profile_shapes, profile_feeds, outside_profile_shapes):
            with pytest.raises(ShapeError, match="profile=1: is none of the 1 profiles"):
                examples(strategy(ort_engine(mlp), 1))


class TestFeeds:
    @given(st.data())
    @QUICK
    def test_the_engine_takes_them(self, mlp: Path, data: st.DataObject) -> None:
        engine = ort_engine(mlp)
        feed = data.draw(profile_feeds(engine))

        assert engine.run(feed)["y"].shape == (feed["x"].shape[0], 8)

    def test_values_suit_the_model(self, encoder: Path) -> None:
        engine = ort_engine(encoder, "ids:2x4,mask:2x1x1x4")
        drawn = examples(profile_feeds(engine), 60)

        for feed in drawn:
            assert 0 <= feed["ids"].min() <= feed["ids"].max() < 50
            assert set(np.unique(feed["mask"])) <= {0, 1}
            assert (feed["mask"].sum(axis=-1) >= 1).all()
            assert np.isfinite(engine.run(feed)["hidden_states"]).all()
        assert {calls(feed).get("padding", "none") for feed in drawn} == {"none", "right", "left"}
        assert {calls(feed).get("values", "normal") for feed in drawn} == {"normal", "extremes", "zeros"}

    def test_all_kinds_of_floats_come_within_the_default_number_of_examples(self, mlp: Path) -> None:
        for number in range(3):
            drawn = examples(profile_feeds(mlp), 100, seed=number)
            kinds = {calls(feed).get("values", "normal") for feed in drawn}

            assert kinds == set(VALUES) - {"nonfinite"}
            assert all(np.isfinite(feed["x"]).all() for feed in drawn)

    def test_only_those_that_were_asked_for(self, mlp: Path, encoder: Path) -> None:
        feeds = examples(profile_feeds(mlp, values=["uniform", "nonfinite"]), 60)
        kinds = {calls(feed)["values"] for feed in feeds}
        engine = ort_engine(encoder, "ids:2x4,mask:2x1x1x4")
        padded = examples(profile_feeds(engine, padding=["left"]), 30)

        assert kinds == {"uniform", "nonfinite"}
        assert {calls(feed)["padding"] for feed in padded} == {"left"}

    def test_quantised_models_get_nothing_that_saturates(self, tmp_path: Path) -> None:
        path = models.qdq(tmp_path / "int8.onnx")
        for source in (path, ort_engine(path)):
            kinds = {calls(feed).get("values", "normal") for feed in examples(profile_feeds(source), 100)}

            assert kinds == set(VALUES) - {"nonfinite", "large", "extremes"}

    def test_fp16_gets_nothing_that_overflows(self, mlp: Path, tmp_path: Path) -> None:
        path = models.to_fp16(mlp, tmp_path / "half.onnx")
        for source in (path, ort_engine(path)):
            kinds = {calls(feed).get("values", "normal") for feed in examples(profile_feeds(source), 100)}

            assert kinds == set(VALUES) - {"nonfinite", "large"}

    def test_samples_and_ranges(self, mlp: Path) -> None:
        rows = np.arange(24, dtype=np.float32).reshape(3, 8)
        for feed in examples(profile_feeds(mlp, samples={"x": rows}), 40):
            assert {tuple(row) for row in feed["x"]} <= {tuple(row) for row in rows}
        for feed in examples(profile_feeds(mlp, ranges={"x": (2.0, 3.0)}), 40):
            assert 2 <= feed["x"].min() <= feed["x"].max() <= 3

    def test_no_inputs(self, tmp_path: Path) -> None:
        graph = models.Graph()
        graph.add("Neg", [graph.weight("w", 2, 2)], "/Neg", "y")
        graph.output("y", [2, 2])
        path = graph.save(tmp_path / "constant.onnx")

        assert examples(profile_feeds(path), 5)[0] == {}
        with pytest.raises(ShapeError, match="has no inputs, so no shape is outside of its profile"):
            examples(outside_profile_shapes(path), 5)

    def test_a_scalar_input(self, tmp_path: Path) -> None:
        graph = models.Graph()
        graph.add("Mul", [graph.input("x", ["batch", 4]), graph.input("scale", [])], "/Mul", "y")
        graph.output("y", ["batch", 4])
        engine = ort_engine(graph.save(tmp_path / "scaled.onnx"))

        for feed in examples(profile_feeds(engine), 20):
            assert engine.run(feed)["y"].shape == feed["x"].shape
        refused = examples(outside_profile_shapes(engine), 80)
        assert {"x": (1, 4), "scale": (1,)} in refused

    def test_the_falsifying_example_is_short(self, mlp: Path) -> None:
        feed = find(profile_feeds(ort_engine(mlp)), lambda feed: feed["x"].shape[0] > 3, settings=QUICK)

        assert repr(feed) == "make_feed(engine, {'x': (4, 8)}, seed=0)"

    def test_what_needs_padding_shrinks_to_the_shortest_padded_sequence(self, encoder: Path) -> None:
        engine = profiled_engine(encoder, ("ids:1x1,mask:1x1x1x1", "ids:2x8,mask:2x1x1x8", "ids:8x64,mask:8x1x1x64"))
        feed = find(profile_feeds(engine), lambda feed: not feed["mask"][:, 0, 0, 0].all(), settings=QUICK)

        assert feed.shapes == {"ids": (1, 2), "mask": (1, 1, 1, 2)}
        assert feed["mask"].tolist() == [[[[0, 1]]]]

    def test_a_value_that_only_one_distribution_has(self, mlp: Path) -> None:
        feed = find(profile_feeds(mlp), lambda feed: bool((np.abs(feed["x"]) > 12).any()), settings=QUICK)

        assert feed["x"].shape[0] <= 4
        assert calls(feed)["values"] == "large"


class TestOutside:
    @given(st.data())
    @QUICK
    def test_the_engine_refuses_them(self, encoder: Path, data: st.DataObject) -> None:
        ends = ("ids:1x2,mask:1x1x1x2", "ids:2x8,mask:2x1x1x8", "ids:4x16,mask:4x1x1x16")
        engine = profiled_engine(encoder, ends)
        shapes = data.draw(outside_profile_shapes(engine))

        with pytest.raises(ShapeError, match="profile 0 allows"):
            engine.run(make_feed(engine, shapes))

    def test_every_bound_comes(self, mlp: Path) -> None:
        drawn = {shapes["x"] for shapes in examples(outside_profile_shapes(ort_engine(mlp)), 300)}

        assert {shape[0] for shape in drawn if len(shape) == 2 and shape[1] == 8} == {0, 33}
        assert {shape[1] for shape in drawn if len(shape) == 2} == {7, 8, 9}
        assert {len(shape) for shape in drawn} == {1, 2, 3}

    def test_of_one_profile(self, mlp: Path) -> None:
        engine = profiled_engine(mlp, ("x:1x8", "x:1x8", "x:2x8"), ("x:16x8", "x:16x8", "x:20x8"))
        drawn = {shapes["x"] for shapes in examples(outside_profile_shapes(engine, 1), 300)}

        assert {shape[0] for shape in drawn if shape[1:] == (8,)} == {15, 21}


class TestPlantedFault:
    """A user's test with Hypothesis' own settings, in ONNX Runtime against the FP32 reference."""

    @pytest.mark.parametrize("number", range(10))
    def test_a_batch_of_13(self, number: int, tmp_path: Path) -> None:
        ends = ("x:1x1", "x:8x128", "x:32x512" if number % 2 else "x:512x512")
        engine = profiled_engine(planted.faulty_at(tmp_path / "net.onnx", batch=13), ends)
        reference = Shadow(planted.faulty_at(tmp_path / "ref.onnx", batch=13, factor=1.0), tmp_path)
        failed: list[Feed] = []

        @seed(number)
        @settings(database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(feed=profile_feeds(engine))
        def search(feed: Feed) -> None:
            try:
                assert_outputs_close(engine.run(feed), reference.run(feed))
            except AssertionError:
                failed.append(feed)
                raise

        with pytest.raises(AssertionError, match="outputs differ"):
            search()
        assert repr(failed[-1]) == "make_feed(engine, {'x': (13, 1)}, seed=0)"


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


def test_the_package_exports_the_strategies() -> None:
    assert pytest_trtgray.profile_shapes is profile_shapes
    assert pytest_trtgray.outside_profile_shapes is outside_profile_shapes
    assert "profile_feeds" in dir(pytest_trtgray)
