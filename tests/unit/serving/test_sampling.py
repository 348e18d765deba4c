"""``SamplingProfiler`` on a real engine in ONNX Runtime."""

from __future__ import annotations

import asyncio
import logging
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_trtgray import Finding, SamplingProfiler, ServiceBaselines
from pytest_trtgray.baselines.store import BaselineStore
from pytest_trtgray.engines.base import DEFAULT_TIMING, Feed, TimingContext, TimingOptions
from pytest_trtgray.engines.onnxruntime import OnnxRuntimeEngine
from pytest_trtgray.errors import EngineError, ShapeError
from pytest_trtgray.serving.buckets import Block
from pytest_trtgray.serving.policy import CANARY, LEARNING, OFF, Policy
from tests.request_threads import MAX_ROWS, ask_while_policies_change
from tests.unit.helpers import ort_engine

ANY_COST = Policy("half", 0.5, None)


def feed(rows: int = 2, seed: int = 0) -> dict[str, Any]:
    return {"x": np.random.default_rng(seed).standard_normal((rows, 8)).astype(np.float32)}


def serve(profiler: SamplingProfiler, count: int, rows: int = 2) -> None:
    """Requests at an easy pace: what happens beside them keeps up."""
    for _ in range(count):
        profiler.run(feed(rows))
        profiler.settle()


@pytest.fixture
def engine(mlp: Path) -> OnnxRuntimeEngine:
    return ort_engine(mlp)


class Engine(OnnxRuntimeEngine):
    """Real answers; profiled contexts that fail, or times that are made up."""

    spoil: Callable[[TimingContext], None] = staticmethod(lambda context: None)

    @contextmanager
    def timing_context(
        self, feed: Feed, *, profiled: bool, options: TimingOptions = DEFAULT_TIMING
    ) -> Iterator[TimingContext]:
        with super().timing_context(feed, profiled=profiled, options=options) as context:
            if profiled:
                self.spoil(context)
            yield context


def spoilt(path: Path, spoil: Callable[[Any], None]) -> Engine:
    known = ort_engine(path)
    engine = Engine(known.model, name="spoilt", profiles=known.info.profiles)
    engine.spoil = spoil
    return engine


class TestAnswers:
    @pytest.mark.parametrize("policy", [OFF, LEARNING, CANARY], ids=lambda policy: policy.name)
    def test_are_those_of_the_engine(self, engine: OnnxRuntimeEngine, policy: Policy) -> None:
        with SamplingProfiler(engine, feed(), policy=policy, iterations=5) as profiler:
            for seed in range(12):
                np.testing.assert_array_equal(profiler.run(feed(3, seed))["y"], engine.run(feed(3, seed))["y"])
                profiler.settle()
            assert profiler.status.served == 12

    @pytest.mark.parametrize("policy", [OFF, CANARY], ids=lambda policy: policy.name)
    def test_a_bad_input_is_the_callers(self, engine: OnnxRuntimeEngine, policy: Policy) -> None:
        with SamplingProfiler(engine, feed(), policy=policy) as profiler:
            serve(profiler, 2)
            with pytest.raises(ShapeError, match="profile 0 allows"):
                profiler.run(feed(4000))
            with pytest.raises(EngineError, match="wants float32"):
                profiler.run({"x": np.zeros((2, 8))})
            serve(profiler, 2)
            assert profiler.status.served == 4

    def test_after_the_end_there_are_none(self, engine: OnnxRuntimeEngine) -> None:
        profiler = SamplingProfiler(engine, feed())
        profiler.close()
        profiler.close()
        for _ in range(2):
            with pytest.raises(EngineError, match="its profiler is closed"):
                profiler.run(feed())
        with pytest.raises(EngineError, match="its profiler is closed"):
            asyncio.run(profiler.run_async(feed()))

    def test_in_an_event_loop(self, engine: OnnxRuntimeEngine) -> None:
        async def both(profiler: SamplingProfiler) -> list[Any]:
            return await asyncio.gather(*(profiler.run_async(feed(seed=seed)) for seed in range(20)))

        with SamplingProfiler(engine, feed(), policy=ANY_COST, contexts=2) as profiler:
            for seed, answer in enumerate(asyncio.run(both(profiler))):
                np.testing.assert_allclose(answer["y"], engine.run(feed(seed=seed))["y"], rtol=1e-5)

    def test_from_many_threads_while_policies_change(self, engine: OnnxRuntimeEngine) -> None:
        wanted = {rows: engine.run(feed(rows))["y"] for rows in range(1, MAX_ROWS + 1)}

        def ask(rows: int) -> None:
            np.testing.assert_array_equal(profiler.run(feed(rows))["y"], wanted[rows])

        with SamplingProfiler(engine, feed(), policy=OFF, contexts=2, iterations=7, max_buckets=2) as profiler:
            assert ask_while_policies_change(profiler, ask) == []
            assert profiler.status.served == 240
            assert len(profiler.status.shapes) == 3  # two, and the others


class TestProfiled:
    def test_sessions_have_layers_and_engine(self, engine: OnnxRuntimeEngine) -> None:
        blocks: list[tuple[str, Block]] = []
        with SamplingProfiler(
            engine, feed(), policy=ANY_COST, iterations=20, on_block=lambda name, block: blocks.append((name, block))
        ) as profiler:
            serve(profiler, 130)
            profiler.flush()
            status = profiler.status
        name, block = blocks[0]
        assert name == "x:2x8"
        assert block.session is not None
        assert block.session.iterations == 20
        assert block.session.layers == ("/fc0/Add + /fc0/MatMul + /fc0/Relu", "/fc1/Add + /fc1/MatMul")
        assert all(math.isfinite(value) for value in block.session.log_us)
        assert 30 < status.profiled < 100
        assert status.spent_s > 0

    def test_every_request_of_a_canary_once_its_context_is_open(self, engine: OnnxRuntimeEngine) -> None:
        with SamplingProfiler(engine, feed(), policy=CANARY, iterations=10) as profiler:
            serve(profiler, 51)
            assert profiler.status.profiled == 50  # the first one had it opened

    def test_nothing_while_it_is_off(self, engine: OnnxRuntimeEngine) -> None:
        with SamplingProfiler(engine, feed(), policy=OFF) as profiler:
            serve(profiler, 30)
            assert (profiler.status.profiled, profiler.status.spent_s) == (0, 0.0)

    def test_switching_off_frees_the_profiled_context(self, mlp: Path) -> None:
        closed: list[bool] = []

        def watch(context: Any) -> None:
            original = context.close

            def close() -> None:
                closed.append(True)
                original()

            context.close = close

        with SamplingProfiler(spoilt(mlp, watch), feed(), policy=CANARY) as profiler:
            serve(profiler, 5)
            assert closed == []
            profiler.switch(OFF)
            profiler.settle()
            assert closed
            serve(profiler, 3)
            assert profiler.status.profiled == 4

    def test_the_budget_holds(self, engine: OnnxRuntimeEngine) -> None:
        """An inference of microseconds can never pay for a context: none is opened, everything is answered."""
        with SamplingProfiler(engine, feed(), policy=Policy("tight", 1.0, 0.001)) as profiler:
            serve(profiler, 100)
            assert (profiler.status.served, profiler.status.profiled) == (100, 0)

    def test_memory_does_not_grow_with_requests(self, engine: OnnxRuntimeEngine) -> None:
        with SamplingProfiler(engine, feed(), policy=ANY_COST, iterations=6, max_buckets=2) as profiler:
            for rows in range(1, 9):
                serve(profiler, 15, rows)
            buckets = list(profiler._buckets)
            assert len(buckets) == 3
            assert all(len(bucket.plain_us) <= 6 and len(bucket._samples) < 6 for bucket in buckets)


class TestFailures:
    """Nothing but the inference itself may fail a request."""

    def test_a_profiled_context_that_cannot_be_opened(self, mlp: Path, caplog: pytest.LogCaptureFixture) -> None:
        def refuse(context: Any) -> None:
            raise EngineError("spoilt", "no memory")

        with caplog.at_level(logging.ERROR), SamplingProfiler(spoilt(mlp, refuse), feed(), policy=CANARY) as profiler:
            serve(profiler, 5)
            assert (profiler.status.served, profiler.status.profiled) == (5, 0)
        assert "its requests run unprofiled" in caplog.text

    def test_a_profiled_context_that_fails_at_a_request(self, mlp: Path) -> None:
        def fail(context: Any) -> None:
            def infer(feed: Feed) -> Any:
                raise EngineError("spoilt", "an illegal memory access")

            context.infer = infer

        engine = spoilt(mlp, fail)
        with SamplingProfiler(engine, feed(), policy=CANARY) as profiler:
            for seed in range(4):
                np.testing.assert_array_equal(profiler.run(feed(seed=seed))["y"], engine.run(feed(seed=seed))["y"])
                profiler.settle()
            assert (profiler.status.served, profiler.status.profiled) == (4, 0)

    @pytest.mark.parametrize(
        ("times", "said"), [([], "the profile has 0 inferences of 5"), (None, "trtgray-profiles failed")]
    )
    def test_a_profile_that_cannot_be_read(
        self, mlp: Path, times: Any, said: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        def lose(context: Any) -> None:
            context.layer_times = lambda pause_s: times

        with (
            caplog.at_level(logging.WARNING),
            SamplingProfiler(spoilt(mlp, lose), feed(), policy=CANARY, iterations=5) as profiler,
        ):
            serve(profiler, 20)
            assert profiler.status.served == 20
        assert said in caplog.text

    def test_a_callback_that_raises(self, engine: OnnxRuntimeEngine, caplog: pytest.LogCaptureFixture) -> None:
        def fail(name: str, block: Block) -> None:
            raise RuntimeError("the pager is broken")

        with (
            caplog.at_level(logging.ERROR),
            SamplingProfiler(engine, feed(), policy=CANARY, iterations=5, on_block=fail) as profiler,
        ):
            serve(profiler, 20)
            assert profiler.status.served == 20
        assert "the pager is broken" in caplog.text


class TestAgainstTheBaseline:
    """Layer times are made up, so that the verdict does not depend on this machine."""

    @staticmethod
    def timed(path: Path, factor: Callable[[], float]) -> Engine:
        """Every layer and the engine take ``factor`` times as long as they did at first."""
        generator = np.random.default_rng(0)

        def around(us: float) -> float:
            return float(us * factor() * (1 + 0.01 * generator.standard_normal()))

        def fake(context: Any) -> None:
            infer, runs = context.infer, []

            def timed_infer(feed: Feed) -> Any:
                runs.append(1)
                return infer(feed)[0], around(60)

            context.infer = timed_infer
            context.layer_times = lambda *, pause_s: [
                {layer.name: around(20) for layer in known.layers} for _ in range(len(runs) + 3)
            ]

        known = ort_engine(path)

        class Timed(Engine):
            @contextmanager
            def timing_context(
                self, feed: Feed, *, profiled: bool, options: TimingOptions = DEFAULT_TIMING
            ) -> Iterator[TimingContext]:
                with OnnxRuntimeEngine.timing_context(self, feed, profiled=profiled, options=options) as context:
                    fake(context)
                    if not profiled:
                        context.layer_times = lambda *, pause_s=0.0: []  # type: ignore[method-assign]
                    yield context

        engine = Timed(known.model, name="timed", profiles=known.info.profiles)
        return engine

    def serve_hours(self, engine: Engine, store: BaselineStore, monkeypatch: pytest.MonkeyPatch, hours: range) -> None:
        for hour in hours:
            monkeypatch.setenv("GITHUB_RUN_ID", str(hour))
            baselines = ServiceBaselines(store, "service[timed]", record=True)
            with SamplingProfiler(engine, feed(), policy=ANY_COST, iterations=20, baselines=baselines) as profiler:
                serve(profiler, 220)

    def test_it_is_learnt_kept_and_told_from_slower(self, mlp: Path, tmp_path: Path, monkeypatch: Any) -> None:
        now = [1.0]
        told: list[tuple[Finding, str]] = []
        engine, store = self.timed(mlp, lambda: now[0]), BaselineStore(tmp_path)
        self.serve_hours(engine, store, monkeypatch, range(4))
        (learnt,) = ServiceBaselines(store, "service[timed]").load(engine).values()
        assert len(learnt.jobs()) == 4

        def verdict(factor: float) -> str:
            now[0] = factor
            with SamplingProfiler(
                engine,
                feed(),
                policy=ANY_COST,
                iterations=20,
                baselines=ServiceBaselines(store, "service[timed]"),
                on_anomaly=lambda finding: told.append((finding, threading.current_thread().name)),
            ) as profiler:
                for _ in range(60):
                    serve(profiler, 10)
                    if profiler.status.verdicts:
                        break
                return profiler.status.verdicts["x:2x8"].outcome

        assert verdict(1.0) == "pass"
        assert told == []
        assert verdict(1.5) == "slower"
        assert {thread for _, thread in told} == {"trtgray-anomalies"}
        assert any(finding.severity == "error" and finding.rule.startswith("timing.") for finding, _ in told)

    def test_an_hour_is_learnt_once(self, mlp: Path, tmp_path: Path, monkeypatch: Any) -> None:
        engine, store = self.timed(mlp, lambda: 1.0), BaselineStore(tmp_path)
        self.serve_hours(engine, store, monkeypatch, range(1))
        self.serve_hours(engine, store, monkeypatch, range(1))
        (learnt,) = ServiceBaselines(store, "service[timed]").load(engine).values()
        assert len(learnt.runs) == 1

    def test_a_folder_that_cannot_be_written_fails_no_request(
        self, mlp: Path, tmp_path: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").touch()
        engine = self.timed(mlp, lambda: 1.0)
        with caplog.at_level(logging.WARNING):
            self.serve_hours(engine, BaselineStore(tmp_path / "file" / "folder"), monkeypatch, range(1))
        assert "the baseline is not recorded" in caplog.text


def test_pytest_is_not_loaded() -> None:
    """A service has no use for it, nor for Hypothesis."""
    code = (
        "import sys; from pytest_trtgray import SamplingProfiler, ServiceBaselines, OutputGuard, ServingMetrics;"
        "print(sorted({'pytest', '_pytest', 'hypothesis', 'prometheus_client'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
