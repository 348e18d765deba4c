from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.engines.onnxruntime import OnnxRuntimeEngine
from pytest_trtgray.errors import EngineError, NotRunnableError
from pytest_trtgray.findings import Finding
from pytest_trtgray.suite.shape_search import EXAMPLES, ShapeSearch
from tests import models, planted
from tests.unit.helpers import ort_engine, profiled_engine

SMALL = ("x:1x1", "x:8x128", "x:32x512")
LARGE = ("x:1x1", "x:8x128", "x:512x512")
MLP = ("x:1x8", "x:8x8", "x:32x8")


class Odd(OnnxRuntimeEngine):
    """A real engine with a fault of its own."""

    refuses: Callable[[Any], bool] = staticmethod(lambda feed: True)
    broken_by_refusals = False
    broken = False

    def run(self, feed: Any) -> Any:
        try:
            return super().run(feed)
        except EngineError:
            self.broken = self.broken_by_refusals
            if self.refuses(feed):
                raise
            return {"y": np.zeros((1, 8), np.float32)}

    def _infer(self, feed: Any) -> Any:
        outputs = super()._infer(feed)
        return {name: array + 1 for name, array in outputs.items()} if self.broken else outputs


class Stale(OnnxRuntimeEngine):
    """After a batch of 32, every smaller one but 1 and 8 is wrong until the context is renewed."""

    seen = False

    def renew(self) -> None:
        super().renew()
        self.seen = False

    def _infer(self, feed: Any) -> Any:
        outputs = super()._infer(feed)
        rows = len(feed["x"])
        wrong = self.seen and rows not in (1, 8, 32)
        self.seen = self.seen or rows == 32
        return {"y": outputs["y"] * (1.5 if wrong else 1.0)}


def search_of(
    folder: Path, ends: tuple[str, str, str], seed: int | None = None, **fault: Any
) -> tuple[ShapeSearch, tuple[Finding, ...]]:
    """A search for a planted fault, and what it found."""
    engine = profiled_engine(planted.faulty_at(folder / "net.onnx", **fault), ends)
    reference = Shadow(planted.faulty_at(folder / "ref.onnx", **fault, factor=1.0), folder)
    search = ShapeSearch(engine, reference, seed=seed, budget_s=600.0)  # whatever else runs on the machine
    return search, search.run()


class TestPlantedFault:
    @pytest.mark.parametrize("seed", range(10))
    @pytest.mark.parametrize(
        ("fault", "smallest"), [({"batch": 13}, "x:13x1"), ({"remainder": 63}, "x:1x63")], ids=["batch", "sequence"]
    )
    def test_is_found_and_shrunk_whatever_the_seed(
        self, fault: dict[str, int], smallest: str, seed: int, tmp_path: Path
    ) -> None:
        search, (finding,) = search_of(tmp_path, LARGE if seed % 2 else SMALL, seed, **fault)

        assert 0 < search.found_after <= EXAMPLES
        assert (finding.where, finding.rule) == (smallest, "shapes.difference")
        assert finding.evidence["seed"] == 0
        assert finding.evidence["values"] == "normal"
        assert finding.evidence["examples"] == search.found_after

    def test_without_a_seed_every_run_is_the_same(self, tmp_path: Path) -> None:
        first, second = (search_of(tmp_path, LARGE, batch=13)[0] for _ in range(2))

        assert first.found_after == second.found_after
        assert first.examples == second.examples

    def test_the_line_shows_it_again(self, tmp_path: Path) -> None:
        _, (finding,) = search_of(tmp_path, SMALL, batch=13)
        line = finding.remedy.splitlines()[-1].strip()
        seen: list[Any] = []

        class Compare:
            def __call__(self, engine: Any, shadow: Any, feed: Any) -> Compare:
                seen.append(feed)
                return self

            def check(self) -> None:
                seen.append("checked")

        scope: dict[str, Any] = {}
        exec(line, scope)
        scope["test_it"](profiled_engine(tmp_path / "net.onnx", SMALL), None, Compare())

        assert seen[0]["x"].shape == (13, 1)
        assert seen[1:] == ["checked"]


class TestPass:
    def test_says_what_was_tried(self, tmp_path: Path) -> None:
        search, findings = search_of(tmp_path, SMALL, batch=1000)

        assert findings == ()
        assert search.examples <= EXAMPLES
        summary = search.summary()
        tried, _, rest = summary.partition(" shapes against the reference (batch 32 of 32, sequence ")
        assert int(tried) > 150
        assert int(rest.split()[0]) > 140
        assert rest.partition(" of 512), ")[2] == "6 outside refused, 120 in changing order"

    def test_every_shape_where_there_are_few(self, mlp: Path, tmp_path: Path) -> None:
        search = ShapeSearch(profiled_engine(mlp, MLP), Shadow(mlp, tmp_path), budget_s=600.0)

        assert search.run() == ()
        assert search.summary().startswith("32 shapes against the reference (batch 32 of 32), ")

    def test_a_static_model(self, tmp_path: Path) -> None:
        path = models.mlp(tmp_path / "static.onnx", batch=4)
        search = ShapeSearch(ort_engine(path), Shadow(path, tmp_path), budget_s=600.0)

        assert search.run() == ()
        assert re.fullmatch(r"1 shape against the reference, (19|2\d) inputs, 6 outside refused", search.summary())

    def test_no_inputs(self, tmp_path: Path) -> None:
        graph = models.Graph()
        graph.add("Neg", [graph.weight("w", 2, 8)], "/Neg", "y")
        graph.output("y", [2, 8])
        path = graph.save(tmp_path / "constant.onnx")
        search = ShapeSearch(ort_engine(path), Shadow(path, tmp_path), budget_s=600.0)

        assert search.run() == ()
        assert search.summary().startswith("1 shape against the reference, ")

    def test_several_profiles(self, mlp: Path, tmp_path: Path) -> None:
        engine = profiled_engine(mlp, ("x:1x8", "x:2x8", "x:4x8"), ("x:3x8", "x:16x8", "x:20x8"))
        search = ShapeSearch(engine, Shadow(mlp, tmp_path), budget_s=600.0)

        assert search.run() == ()
        assert search.summary().startswith("20 shapes against the reference (batch 20 of 20), 10 outside refused")

    def test_an_encoder_with_padding(self, encoder: Path, tmp_path: Path) -> None:
        ends = ("ids:1x2,mask:1x1x1x2", "ids:2x8,mask:2x1x1x8", "ids:4x16,mask:4x1x1x16")
        search = ShapeSearch(profiled_engine(encoder, ends), Shadow(encoder, tmp_path), budget_s=600.0)

        assert search.run() == ()
        assert search.summary().startswith("60 shapes against the reference (batch 4 of 4, length 15 of 15), ")


class TestBudget:
    def test_without_time_the_bounds_are_tried(self, tmp_path: Path) -> None:
        engine = profiled_engine(planted.faulty_at(tmp_path / "net.onnx", batch=13), SMALL)
        reference = Shadow(planted.faulty_at(tmp_path / "ref.onnx", batch=13, factor=1.0), tmp_path)
        search = ShapeSearch(engine, reference, budget_s=0.0)

        assert search.run() == ()
        assert search.examples == 3
        assert search.summary() == (
            "3 shapes against the reference (batch 3 of 32, sequence 3 of 512), 6 outside refused, "
            "no time for 197 more in 0 s"
        )

    def test_a_bound_that_fails_is_found_without_time(self, tmp_path: Path) -> None:
        engine = profiled_engine(planted.faulty_at(tmp_path / "net.onnx", batch=32), SMALL)
        reference = Shadow(planted.faulty_at(tmp_path / "ref.onnx", batch=32, factor=1.0), tmp_path)
        (finding,) = ShapeSearch(engine, reference, budget_s=0.0).run()

        assert finding.where == "x:32x512"

    def test_what_takes_longer_than_there_is_time_is_left_out(self, mlp: Path, tmp_path: Path) -> None:
        """A larger input took 10 s, and 5 s are left: a smaller one is not begun."""
        search = ShapeSearch(profiled_engine(mlp, MLP), Shadow(mlp, tmp_path), budget_s=600.0)
        search._seconds = [(8, 0.0), (256, 10.0)]
        search._until = time.monotonic() + 5

        assert search._has_time_for({"x": (1, 8)})
        assert not search._has_time_for({"x": (2, 8)})


class TestFailures:
    def test_a_shape_outside_that_is_computed(self, mlp: Path, tmp_path: Path) -> None:
        engine = profiled_engine(mlp, MLP, kind=Odd)
        engine.refuses = lambda feed: feed["x"].shape != (33, 8)  # type: ignore[attr-defined]
        (finding,) = ShapeSearch(engine, Shadow(mlp, tmp_path), budget_s=600.0).run()

        assert (finding.where, finding.rule) == ("x:33x8", "shapes.not-refused")
        assert finding.what == "x:33x8 lies outside of every profile and is computed all the same"

    def test_a_refusal_that_is_none(self, mlp: Path, tmp_path: Path) -> None:
        def refuses(feed: Any) -> bool:
            if feed["x"].ndim == 1:
                raise RuntimeError("CUDA error 700")
            return True

        engine = profiled_engine(mlp, MLP, kind=Odd)
        engine.refuses = refuses  # type: ignore[attr-defined]
        (finding,) = ShapeSearch(engine, Shadow(mlp, tmp_path), budget_s=600.0).run()

        assert finding.what == "x:1 lies outside of every profile and ends in RuntimeError: CUDA error 700"

    def test_wrong_after_a_refusal(self, mlp: Path, tmp_path: Path) -> None:
        engine = profiled_engine(mlp, MLP, kind=Odd)
        engine.broken_by_refusals = True  # type: ignore[attr-defined]
        first, *_ = ShapeSearch(engine, Shadow(mlp, tmp_path), budget_s=600.0).run()

        assert first.rule == "shapes.difference" or first.what.startswith("after shapes were refused: outputs differ")

    def test_an_answer_that_depends_on_what_ran_before(self, mlp: Path, tmp_path: Path) -> None:
        engine = profiled_engine(mlp, MLP, kind=Stale)
        (finding,) = ShapeSearch(engine, Shadow(mlp, tmp_path), budget_s=600.0).run()
        *_, last = str(finding.evidence["order"]).split()

        assert finding.rule == "shapes.order"
        assert finding.evidence["order"] == f"x:32x8 {last}"
        assert f"at {last}, after x:32x8: outputs differ" in finding.what
        assert (
            "ShapeSwitches.check(trt_engine, trt_shadow, feeds=[make_feed(trt_engine, {'x': (32, 8)}" in finding.remedy
        )

    def test_an_engine_that_fails_where_its_reference_does_not(self, mlp: Path, tmp_path: Path) -> None:
        class Failing(OnnxRuntimeEngine):
            def _infer(self, feed: Any) -> Any:
                if len(feed["x"]) == 21:
                    raise EngineError("mlp", "the inference was refused")
                return super()._infer(feed)

        (finding,) = ShapeSearch(profiled_engine(mlp, MLP, kind=Failing), Shadow(mlp, tmp_path), budget_s=600.0).run()

        assert (finding.where, finding.rule) == ("x:21x8", "shapes.error")
        assert "the engine fails where its reference does not: mlp: the inference was refused" in finding.what

    def test_what_the_model_itself_does_not_take_is_left_out(self, tmp_path: Path) -> None:
        """A profile cannot say that a side has to be even."""
        graph = models.Graph()
        halves = graph.add("Reshape", [graph.input("x", ["n"]), graph.constant("s", np.array([-1, 2]))], "/Reshape")
        graph.add("Neg", [halves], "/Neg", "y")
        graph.output("y", ["half", 2])
        path = graph.save(tmp_path / "even.onnx")
        search = ShapeSearch(profiled_engine(path, ("x:4", "x:8", "x:40")), Shadow(path, tmp_path), budget_s=600.0)

        assert search.run() == ()
        assert "(n 19 of 37)" in search.summary()
        assert "inputs that the model itself does not take" in search.summary()

    def test_nothing_to_compare(self, tmp_path: Path) -> None:
        graph = models.Graph()
        parts = [graph.input("x", ["n"]), graph.constant("s", np.array([-1, 7]))]
        graph.add("Reshape", parts, "/Reshape", "y")
        graph.output("y", ["part", 7])
        path = graph.save(tmp_path / "seven.onnx")
        search = ShapeSearch(profiled_engine(path, ("x:1", "x:2", "x:6")), Shadow(path, tmp_path), budget_s=600.0)
        (finding, *_) = search.run()

        assert finding.rule == "shapes.nothing-compared"

    def test_a_reference_that_is_not_finite_for_odd_values(self, tmp_path: Path) -> None:
        """``1 / x`` overflows at subnormal numbers, in the model as in the engine."""
        graph = models.Graph()
        one = graph.constant("one", np.float32(1))
        graph.add("Div", [one, graph.input("x", ["batch", 4])], "/Div", "y")
        graph.output("y", ["batch", 4])
        path = graph.save(tmp_path / "div.onnx")
        engine = profiled_engine(path, ("x:1x4", "x:2x4", "x:8x4"))

        assert ShapeSearch(engine, Shadow(path, tmp_path), budget_s=600.0).run() == ()

    def test_an_engine_that_cannot_run_here(self, mlp: Path, tmp_path: Path) -> None:
        engine = profiled_engine(mlp, MLP)
        engine.blocked = "no GPU"
        with pytest.raises(NotRunnableError, match="no GPU"):
            ShapeSearch(engine, Shadow(mlp, tmp_path), budget_s=600.0).run()
