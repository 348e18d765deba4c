from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis.stateful import rule

import pytest_trtgray
from pytest_trtgray import ShapeSwitches, make_feed
from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.engines.onnxruntime import OnnxRuntimeEngine
from pytest_trtgray.errors import NotRunnableError
from pytest_trtgray.shape_switches import Alone, SwitchLog, switch_feeds
from tests import models
from tests.unit.helpers import ort_engine, profiled_engine

ENDS = ("x:1x8", "x:8x8", "x:32x8")
QUICK = hypothesis.settings(
    max_examples=30,
    stateful_step_count=8,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


class Stale(OnnxRuntimeEngine):
    """An engine that keeps its largest output: of a smaller batch, the last row stays as it was."""

    kept: Any = None

    def renew(self) -> None:
        super().renew()
        self.kept = None

    def _infer(self, feed: Any) -> Any:
        outputs = super()._infer(feed)
        rows = len(outputs["y"])
        if self.kept is not None and 1 < rows < len(self.kept):
            outputs["y"][-1] = self.kept[rows - 1]
        elif self.kept is None or rows > len(self.kept):
            self.kept = outputs["y"].copy()
        return outputs


class FirstCallOfSecondProfile(OnnxRuntimeEngine):
    """An engine that is wrong at its second switch to the second profile."""

    switches = 0
    before = 0

    def renew(self) -> None:
        super().renew()
        self.switches = self.before = 0

    def _infer(self, feed: Any) -> Any:
        outputs = super()._infer(feed)
        profile = int(len(feed["x"]) > 8)
        self.switches += profile > self.before
        self.before = profile
        return {"y": outputs["y"] * (2 if profile and self.switches > 1 else 1)}


class TestCheck:
    def test_an_engine_without_a_memory(self, mlp: Path) -> None:
        log = SwitchLog()
        ShapeSwitches.check(profiled_engine(mlp, ENDS), log=log, settings=QUICK)

        assert log.inferences > 100
        assert log.failure == []

    def test_one_that_keeps_rows_of_a_larger_batch(self, mlp: Path) -> None:
        """The shortest order: one large batch, one smaller one."""
        log = SwitchLog()
        with pytest.raises(AssertionError, match=r"at x:\d+x8, after x:\d+x8: outputs differ: output 'y'") as caught:
            ShapeSwitches.check(profiled_engine(mlp, ENDS, kind=Stale), log=log, settings=QUICK)

        large, small = (feed["x"].shape[0] for feed in log.failure)
        assert large > small > 1
        assert f"ShapeSwitches.check(engine, feeds=[{log.failure[0]!r}, {log.failure[1]!r}])" in str(caught.value)

    def test_the_printed_line_shows_it_again(self, mlp: Path) -> None:
        engine = profiled_engine(mlp, ENDS, kind=Stale)
        with pytest.raises(AssertionError) as caught:
            ShapeSwitches.check(engine, settings=QUICK)
        (line,) = (line for line in str(caught.value).splitlines() if "To see it again: " in line)

        with pytest.raises(AssertionError, match="outputs differ"):
            eval(line.partition(": ")[2], {"ShapeSwitches": ShapeSwitches, "make_feed": make_feed, "engine": engine})

    def test_against_a_reference(self, mlp: Path, tmp_path: Path) -> None:
        """What is wrong alone shows, too."""
        other = models.mlp(tmp_path / "other.onnx", seed=1)
        ShapeSwitches.check(profiled_engine(mlp, ENDS), Shadow(mlp, tmp_path), settings=QUICK)
        with pytest.raises(AssertionError, match="at x:1x8, in a fresh context: outputs differ"):
            ShapeSwitches.check(profiled_engine(mlp, ENDS), Shadow(other, tmp_path), settings=QUICK)

    def test_switches_of_profiles(self, mlp: Path) -> None:
        profiles = (("x:1x8", "x:4x8", "x:8x8"), ("x:9x8", "x:16x8", "x:32x8"))
        log = SwitchLog()
        ShapeSwitches.check(profiled_engine(mlp, *profiles), settings=QUICK)
        with pytest.raises(AssertionError, match="outputs differ"):
            ShapeSwitches.check(profiled_engine(mlp, *profiles, kind=FirstCallOfSecondProfile), log=log, settings=QUICK)

        assert [feed["x"].shape[0] > 8 for feed in log.failure] == [True, False, True]

    def test_after_the_deadline_nothing_is_tried(self, mlp: Path) -> None:
        log = SwitchLog(deadline=0.0)
        ShapeSwitches.check(profiled_engine(mlp, ENDS, kind=Stale), log=log, settings=QUICK)

        assert log.inferences == 0

    def test_a_tolerance(self, mlp: Path) -> None:
        ShapeSwitches.check(profiled_engine(mlp, ENDS, kind=Stale), atol=1e6, settings=QUICK)

    def test_a_static_model(self, tmp_path: Path) -> None:
        engine = ort_engine(models.mlp(tmp_path / "static.onnx", batch=4))
        log = SwitchLog()
        ShapeSwitches.check(engine, log=log, settings=QUICK)

        assert log.inferences > 0

    def test_an_engine_that_cannot_run_here(self, mlp: Path) -> None:
        engine = profiled_engine(mlp, ENDS)
        engine.blocked = "no GPU"
        with pytest.raises(NotRunnableError, match="no GPU"):
            ShapeSwitches.check(engine)


class TestOwnClass:
    def test_more_rules(self, mlp: Path) -> None:
        class WithReload(ShapeSwitches):
            renewed = 0

            @rule()
            def renew(self) -> None:
                type(self).renewed += 1
                self.engine.renew()

        log = SwitchLog()
        WithReload.check(profiled_engine(mlp, ENDS), log=log, settings=QUICK)
        assert WithReload.renewed > 10

        with pytest.raises(AssertionError, match=r"WithReload\.check\(engine, feeds="):
            WithReload.check(profiled_engine(mlp, ENDS, kind=Stale), log=log, settings=QUICK)

    def test_as_a_test_case(self, mlp: Path) -> None:
        """Hypothesis' own way to run a machine."""

        class Own(ShapeSwitches):
            def __init__(self) -> None:
                super().__init__(profiled_engine(mlp, ENDS, kind=Stale))

        Own.TestCase.settings = QUICK
        with pytest.raises(AssertionError, match="outputs differ"):
            Own.TestCase("runTest").runTest()

    def test_is_exported(self) -> None:
        assert pytest_trtgray.ShapeSwitches is ShapeSwitches


class TestFeeds:
    def test_ends_of_all_profiles_small_ones_first(self, mlp: Path) -> None:
        profiles = (("x:1x8", "x:4x8", "x:8x8"), ("x:9x8", "x:16x8", "x:32x8"))
        rows = [feed["x"].shape[0] for feed in switch_feeds(profiled_engine(mlp, *profiles))]

        assert rows == sorted(rows)
        assert {1, 4, 8, 9, 16, 32} <= set(rows)
        assert len(rows) == 8

    def test_alone_is_the_answer_of_a_fresh_context(self, mlp: Path) -> None:
        engine = profiled_engine(mlp, ENDS, kind=Stale)
        feeds = [make_feed(engine, {"x": (rows, 8)}, rows) for rows in (32, 5)]
        alone = Alone(engine, feeds)
        right = ort_engine(mlp)

        for feed in feeds:
            np.testing.assert_allclose(alone.run(feed)["y"], right.run(feed)["y"], rtol=1e-5)
