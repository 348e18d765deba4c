from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pytest_trtgray.engines.base import DEFAULT_TIMING, Engine, Feed, TimingContext, TimingOptions
from pytest_trtgray.engines.model import EngineInfo, Layer
from pytest_trtgray.errors import NotRunnableError, ShapeError
from pytest_trtgray.feeds import make_feed
from pytest_trtgray.timing import session as module
from pytest_trtgray.timing import telemetry
from pytest_trtgray.timing.gate import Baseline, Run, Session, judge
from pytest_trtgray.timing.session import Overheads, Plan, first_calls, measure_run, measure_session
from pytest_trtgray.timing.telemetry import Reading
from tests.unit.helpers import layer, ort_engine


def one_session(engine: Engine, feed: Feed, iterations: int) -> tuple[Session, tuple[Layer, ...]]:
    result = measure_session(engine, feed, Plan(iterations=iterations))
    return result.session, result.layers


def one_run(engine: Engine, feed: Feed, plan: Plan, **keywords: Any) -> tuple[Run, tuple[Layer, ...]]:
    measured = measure_run(engine, feed, plan, **keywords)
    return measured.run, measured.layers


class ScriptedContext:
    """Tells times from a script; the clock of the machine plays no part."""

    def __init__(self, engine: ScriptedEngine, *, profiled: bool) -> None:
        self.engine, self.profiled = engine, profiled
        self.runs, self.bound, self.moved = 0, 0, 0

    def run(self) -> float:
        self.runs += 1
        # a first call that compiles, a few that are not steady yet
        return {1: 50_000.0, 2: 4_000.0, 3: 2_000.0}.get(self.runs, 1_000.0)

    def bind(self, feed: Feed) -> None:
        self.runs = 0
        self.bound += 1

    def transfers(self) -> tuple[float, float] | None:
        self.moved += 1
        return self.engine.transfer()

    def layer_times(self) -> list[dict[str, float]]:
        if not self.profiled:
            return []
        slow = {name: 10 * time for name, time in self.engine.times.items()}
        return [dict(slow if run < 3 else self.engine.times) for run in range(self.runs)]


class ScriptedEngine(Engine):
    """An engine whose layers and times are given."""

    def __init__(self, layers: tuple[Layer, ...], times: Mapping[str, float], blocked: str = "") -> None:
        self.info = EngineInfo("scripted", "", "tensorrt_rtx", "1.7", (), (), ({},))
        self.records, self.notes, self.blocked = (), (), blocked
        self._layers, self.times = layers, times
        self.contexts: list[ScriptedContext] = []
        self.options: list[TimingOptions] = []
        self.transfer: Callable[[], tuple[float, float] | None] = lambda: None

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self._layers

    @property
    def timing_method(self) -> Mapping[str, str]:
        return {}

    @contextmanager
    def timing_context(
        self, feed: Feed, *, profiled: bool, options: TimingOptions = DEFAULT_TIMING
    ) -> Iterator[TimingContext]:
        context = ScriptedContext(self, profiled=profiled)
        self.contexts.append(context)
        self.options.append(options)
        yield context

    def _infer(self, feed: Any) -> Any:
        raise NotImplementedError


def stopwatch(durations: Sequence[float]) -> Iterator[float]:
    """Readings of a clock, seconds: every second one is so many microseconds after the one before."""
    now = 0.0
    for us in durations:
        yield now
        now += us / 1e6
        yield now


def scripted(**times: float) -> ScriptedEngine:
    return ScriptedEngine(tuple(layer(name, f"/{name}") for name in times), times)


class TestScripted:
    def test_layers_and_engine_come_from_contexts_of_their_own(self) -> None:
        engine = scripted(a=10.0, b=30.0)
        session, layers = one_session(engine, {}, 20)

        assert [context.profiled for context in engine.contexts] == [False, True]
        assert [each.name for each in layers] == ["a", "b"]
        np.testing.assert_allclose(np.exp(session.log_us), [10, 30])
        assert math.exp(session.engine_log_us) == pytest.approx(1000)
        assert session.iterations == 20

    def test_warm_up_is_not_measured(self) -> None:
        session, _ = one_session(scripted(a=10.0), {}, 12)

        assert list(session.log_us) == pytest.approx([math.log(10)])
        assert session.log_se == (0.0,)

    def test_every_session_is_fresh(self) -> None:
        engine = scripted(a=10.0)
        run, _ = one_run(engine, {}, Plan(sessions=4, iterations=10), context={"host": "ci"})

        assert len(run.sessions) == 4
        assert len(engine.contexts) == 8
        assert run.context["host"] == "ci"
        assert set(run.context) == {"host", "cold_start_us"}

    def test_every_iteration_is_kept_for_diagnoses(self) -> None:
        engine = scripted(a=10.0, b=30.0)
        measured = measure_run(engine, {}, Plan(2, 12), context={})

        assert len(measured.samples) == 2
        for samples in measured.samples:
            np.testing.assert_allclose(samples.layer_us, np.tile([10.0, 30.0], (12, 1)))
            np.testing.assert_allclose(samples.latency_us, np.full(12, 1000.0))
            assert samples.layers == measured.layers

    def test_why_it_is_disturbed(self) -> None:
        run, _ = one_run(scripted(a=1.0), {}, Plan(2, 10), context={}, disturbed="other workers")

        assert run.disturbed == "other workers"

    def test_layers_that_the_profiler_never_names_have_no_column(self) -> None:
        engine = ScriptedEngine((layer("host", "/shape"), layer("a", "/a")), {"a": 10.0})
        session, layers = one_session(engine, {}, 10)

        assert [each.name for each in layers] == ["a"]
        assert session.layers == ("/a",)

    def test_names_that_the_engine_does_not_list_lose_no_time(self) -> None:
        engine = ScriptedEngine((layer("a", "/a"),), {"a": 10.0, "unlisted": 5.0})
        session, layers = one_session(engine, {}, 10)

        assert [each.name for each in layers] == ["a", "unlisted"]
        assert np.exp(session.log_us).sum() == pytest.approx(15)

    def test_columns_are_in_the_engines_order(self) -> None:
        engine = ScriptedEngine((layer("b", "/b"), layer("a", "/a")), {"a": 10.0, "b": 20.0})
        session, _ = one_session(engine, {}, 10)

        assert session.layers == ("/b", "/a")
        np.testing.assert_allclose(np.exp(session.log_us), [20, 10])

    def test_an_engine_that_cannot_run(self) -> None:
        engine = ScriptedEngine((), {}, blocked="no NVIDIA driver on this machine")
        with pytest.raises(NotRunnableError, match="no NVIDIA driver"):
            one_session(engine, {}, 10)
        assert engine.contexts == []

    def test_a_slow_engine_gets_fewer_iterations(self) -> None:
        assert module.affordable(1.0) == module.DEFAULT_ITERATIONS
        assert module.affordable(module.SESSION_BUDGET_S * 1e6 / 20) == 20
        assert module.affordable(1e9) == module.MIN_ITERATIONS
        assert module.affordable(0.0) == module.DEFAULT_ITERATIONS

    def test_a_planted_slowdown_end_to_end(self) -> None:
        fast = {f"l{index}": 10.0 + index for index in range(10)}
        engine = scripted(**fast)
        baseline = Baseline([one_run(engine, {}, Plan(2, 10), context={})[0] for _ in range(4)])
        slowed = scripted(**{**fast, "l4": 20.0})
        verdict = judge(baseline, one_run(slowed, {}, Plan(2, 10), context={})[0])

        assert [judged.key for judged in verdict.layers if judged.outcome == "slower"] == ["/l4"]


class TestOverheads:
    def test_transfers_are_medians_and_recorded_with_units(self) -> None:
        engine = scripted(a=10.0)
        script = iter([(1.0, 100.0), (3.0, 300.0), (2.0, 200.0), *((9.0, 900.0),) * 4, *((1.0, 100.0),) * 3] * 2)
        engine.transfer = lambda: next(script)
        measured = measure_run(engine, {}, Plan(2, 5), context={"host": "ci"})

        assert (measured.overheads.upload_us, measured.overheads.download_us) == (2.5, 250.0)
        assert measured.run.context["upload_us"] == "2.5"
        assert measured.run.context["download_us"] == "250.0"
        assert measured.run.context["host"] == "ci"

    def test_transfers_are_those_of_the_context_without_a_profiler(self) -> None:
        engine = scripted(a=10.0)
        engine.transfer = lambda: (1.0, 2.0)
        measure_session(engine, {}, Plan(1, 5))

        assert [context.moved for context in engine.contexts] == [module.TRANSFERS, 0]

    def test_nothing_is_moved(self) -> None:
        overheads = measure_session(scripted(a=10.0), {}, Plan(1, 5)).overheads

        assert (overheads.upload_us, overheads.download_us) == (None, None)
        assert set(overheads.context()) == {"cold_start_us"}

    def test_of_a_run_they_are_medians_over_the_sessions(self) -> None:
        found = [Overheads(10.0, 1.0, None), Overheads(500.0, None, None), Overheads(30.0, 3.0, None)]

        assert module._median_of(found) == Overheads(30.0, 2.0, None)

    def test_are_no_part_of_the_verdict(self) -> None:
        engine, loaded = scripted(a=10.0), scripted(a=10.0)
        loaded.transfer = lambda: (1e6, 1e6)
        baseline = Baseline([one_run(engine, {}, Plan(2, 10), context={})[0] for _ in range(4)])

        assert judge(baseline, one_run(loaded, {}, Plan(2, 10), context={})[0]).outcome == "pass"


class TestFirstCalls:
    def test_each_shape_in_one_context(self, mlp: Path) -> None:
        engine = ort_engine(mlp)
        shapes = [(1, 8), (32, 8), (1, 8)]
        found = first_calls(engine, [make_feed(engine.info.inputs, {"x": shape}) for shape in shapes])

        assert [call.shapes for call in found] == [{"x": shape} for shape in shapes]
        assert all(call.first_us > 0 and call.steady_us > 0 for call in found)

    def test_the_context_is_fresh_and_the_order_is_kept(self) -> None:
        engine = scripted(a=10.0)
        found = first_calls(engine, [{}, {}], TimingOptions(kept_kernels=False))
        (context,) = engine.contexts

        assert len(found) == 2
        assert not context.profiled
        assert engine.options == [TimingOptions(kept_kernels=False)]
        assert context.bound == 2 * (1 + module.WARMUP_BLOCK)

    def test_the_creation_of_the_context_is_timed_apart(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ticks = stopwatch([700.0, *([90.0] + [7.0] * module.WARMUP_BLOCK) * 2])
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
        found = first_calls(scripted(a=10.0), [{}, {}])

        assert found.creation_us == pytest.approx(700)
        assert found.cold_start_us == pytest.approx(790)
        assert [(round(call.first_us), round(call.steady_us)) for call in found] == [(90, 7), (90, 7)]
        assert found.run.first_us == tuple(call.first_us for call in found)
        assert found.run.steady_us == tuple(call.steady_us for call in found)

    def test_what_is_recorded_beside_them(self) -> None:
        found = first_calls(scripted(a=10.0), [{}], context={"job": "7"}, disturbed="other workers")

        assert found.run.context == {"job": "7"}
        assert found.run.disturbed == "other workers"

    def test_a_disturbed_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(telemetry, "read", lambda device: Reading(others=1, sm_mhz=1980.0))
        found = first_calls(scripted(a=10.0), [{}])

        assert found.run.disturbed == "1 other process used the GPU"
        assert found.run.context == {"sm_mhz": "1980"}

    def test_method_is_that_of_the_host(self, mlp: Path) -> None:
        """How layers are timed has no part in it; threads have."""
        engine = ort_engine(mlp)
        kept, new = (
            first_calls(engine, [], TimingOptions(kept_kernels=kept_kernels)).method for kept_kernels in (True, False)
        )

        assert set(kept) == {"provider", "threads", "clock", "kept_kernels"}
        assert (kept["kept_kernels"], new["kept_kernels"]) == ("yes", "no")

    def test_no_shapes(self) -> None:
        engine = scripted(a=10.0)

        assert first_calls(engine, []) == ()
        assert engine.contexts == []

    def test_an_engine_that_cannot_run(self) -> None:
        with pytest.raises(NotRunnableError, match="no driver"):
            first_calls(ScriptedEngine((), {}, blocked="no driver"), [{}])

    def test_a_shape_out_of_the_profile(self, mlp: Path) -> None:
        engine = ort_engine(mlp)
        feeds = [make_feed(engine.info.inputs, {"x": (rows, 8)}) for rows in (1, 33)]
        with pytest.raises(ShapeError, match="input 'x' has shape 33x8"):
            first_calls(engine, feeds)


class TestPlan:
    @pytest.mark.parametrize(("sessions", "iterations"), [(0, 1), (-1, None), (1, 0), (1, -5)])
    def test_refusals(self, sessions: int, iterations: int | None) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            Plan(sessions, iterations)

    def test_defaults(self) -> None:
        assert Plan() == Plan(3, None)
        assert Plan().method == {}

    def test_what_changes_the_times(self) -> None:
        graph = TimingOptions(cuda_graph=True)

        assert Plan(processes=True).method == {"processes": "fresh"}
        assert Plan(options=graph).method == {"cuda_graph": "yes"}
        assert Plan(9, 9, processes=True, options=graph).method == {"processes": "fresh", "cuda_graph": "yes"}


class TestReal:
    def test_onnxruntime(self, conv_net: Path) -> None:
        engine = ort_engine(conv_net)
        feed = make_feed(engine.info.inputs, {"x": (2, 3, 16, 16)})
        run, layers = one_run(engine, feed, Plan(sessions=2, iterations=5), context={})

        assert run.iterations == 10
        assert len(layers) == len(run.layers) == len(engine.layers)
        assert {node for each in layers for node in each.onnx_nodes} == {node.name for node in engine.model.nodes}
        assert all(math.isfinite(value) for value in run.location())

    def test_one_iteration(self, mlp: Path) -> None:
        engine = ort_engine(mlp)
        session, _ = one_session(engine, make_feed(engine.info.inputs, {"x": (1, 8)}), 1)

        assert session.iterations == 1
        assert session.log_se == (0.0, 0.0)
