from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from pytest_trtgray.engines.model import EngineInfo, Layer
from pytest_trtgray.feeds import make_feed
from pytest_trtgray.timing.anomalies import Samples
from pytest_trtgray.timing.gate import Run, Session
from pytest_trtgray.timing.profile import Profile, layer_times
from pytest_trtgray.timing.session import Plan, measure_run
from tests.unit.helpers import layer, ort_engine

INFO = EngineInfo("net", "", "onnxruntime", "1", (), (), ({},))


def profile(times: dict[str, float], *layers: Layer, latency: float = 150.0, **options: Any) -> Profile:
    table = np.tile(list(times.values()), (10, 1))
    made = layers or tuple(layer(name, name) for name in times)
    run = Run([Session.from_samples(table, np.full(10, latency), layers=made)])
    return Profile(INFO, {"x": (1, 3)}, run, layer_times(run, tuple(made)), {}, **options)


def test_the_total_is_what_was_measured_without_a_profiler() -> None:
    measured = profile({"/a/x": 30.0, "/b/x": 70.0})

    assert measured.total_us == pytest.approx(150)
    assert measured.total_ms == pytest.approx(0.15)


def test_shares_are_of_the_sum_of_layers() -> None:
    measured = profile({"/a/x": 30.0, "/b/x": 70.0})

    assert measured.layer("/a/x").us == pytest.approx(30)
    assert measured.layer("/a/x").share == pytest.approx(0.3)
    assert sum(timed.share for timed in measured.layers) == pytest.approx(1)


def test_a_module() -> None:
    measured = profile({"/a/x": 30.0, "/a/y": 20.0, "/b/x": 50.0})
    group = measured.group("a")

    assert [group.us, group.share] == pytest.approx([50, 0.5])
    assert [each.name for each in group.layers] == ["/a/x", "/a/y"]


def test_a_kernel_that_spans_modules_counts_in_proportion() -> None:
    measured = profile({"one": 40.0, "two": 60.0}, layer("one", "/a/x", "/b/x"), layer("two", "/b/y"))

    assert measured.group("a").us == pytest.approx(20)
    assert measured.group("b").us == pytest.approx(80)


def test_a_pattern_that_matches_nothing() -> None:
    with pytest.raises(KeyError, match="matches no layer of net; modules: a, b"):
        profile({"/a/x": 30.0, "/b/x": 70.0}).group("c")
    with pytest.raises(KeyError, match="no module paths"):
        profile({"MatMul_0": 30.0}).group("c")


def test_a_node_that_is_not_there() -> None:
    with pytest.raises(KeyError, match="computes the ONNX node 'z'"):
        profile({"/a/x": 30.0}).layer("z")


def test_a_users_grouping() -> None:
    measured = profile({"/a/x": 30.0, "/b/x": 70.0}, group_of=lambda each: "mine" if each.name == "/a/x" else None)

    assert measured.group("mine").share == pytest.approx(0.3)
    assert measured.group("b").share == pytest.approx(0.7)


def test_anomalies_are_of_the_samples() -> None:
    table = np.tile([30.0, 70.0], (50, 1))
    table[::14, 1] = 140.0
    samples = (Samples(table, np.full(50, 150.0), [layer("__myl_0", "/a/x"), layer("__myl_1", "/b/x")]),)
    measured = profile({"/a/x": 30.0, "/b/x": 70.0}, samples=samples)
    (found,) = measured.anomalies

    assert found.what == "4 of 50 iterations of /b/x took 2.0x its median (70 us)"
    assert measured.anomalies is measured.anomalies
    assert "samples" not in repr(measured)


def test_without_samples_there_are_no_anomalies() -> None:
    assert profile({"/a/x": 30.0}).anomalies == ()


def test_without_a_fixture_there_is_no_baseline() -> None:
    with pytest.raises(RuntimeError, match="not made by the trt_profiler fixture"):
        profile({"/a/x": 30.0}).check()


def test_check_asks_the_fixture() -> None:
    asked = []

    def check(measured: Profile) -> None:
        asked.append(measured)

    measured = profile({"/a/x": 30.0}, checker=check)
    measured.check()

    assert asked == [measured]


def test_of_a_real_encoder(encoder: Path) -> None:
    engine = ort_engine(encoder, "ids:2x8,mask:2x1x1x8")
    feed = make_feed(engine.info.inputs, {"ids": (2, 8), "mask": (2, 1, 1, 8)})
    measurement = measure_run(engine, feed, Plan(1, 5), context={})
    run, layers = measurement.run, measurement.layers
    measured = Profile(engine.info, {}, run, layer_times(run, layers), engine.timing_method)
    blocks = measured.group("encoder.layer.*")
    halves = [measured.group(f"encoder.layer.{index}") for index in (0, 1)]

    assert 0 < measured.group("encoder.layer.*/attention").share < blocks.share <= 1
    assert blocks.us == pytest.approx(sum(half.us for half in halves))
    assert math.isfinite(measured.total_us)


class TestModules:
    TIMES: ClassVar[dict[str, float]] = {
        "/m/layer.0/fc/MatMul": 30.0,
        "/m/layer.1/fc/MatMul": 40.0,
        "/m/layer.0/norm/Add": 5.0,
        "/head/MatMul": 25.0,
    }

    def test_by_time(self) -> None:
        found = profile(self.TIMES).modules()

        assert [(module.pattern, round(module.us)) for module in found] == [
            ("m", 75),
            ("m/layer.*", 75),
            ("m/layer.*/fc", 70),
            ("head", 25),
            ("m/layer.*/norm", 5),
        ]
        assert found[2].share == pytest.approx(0.7)
        assert len(found[2].layers) == 2

    def test_each_block(self) -> None:
        found = profile(self.TIMES).modules(repeated=False)

        assert [module.pattern for module in found if module.pattern.endswith("fc")] == ["m/layer.1/fc", "m/layer.0/fc"]

    def test_a_module_can_be_asked_for_by_its_pattern(self) -> None:
        measured = profile(self.TIMES)

        for module in measured.modules():
            assert measured.group(module.pattern) == module

    def test_the_critical_ones(self) -> None:
        assert [module.pattern for module in profile(self.TIMES).critical_modules()] == ["m/layer.*/fc", "head"]
        assert [module.pattern for module in profile(self.TIMES).critical_modules(0.5)] == ["m/layer.*/fc"]

    def test_without_a_model_bounds_are_unknown(self) -> None:
        module = profile(self.TIMES).group("head")

        assert (module.bound, module.flops, module.weights_bytes, module.activations_bytes) == (
            "unknown",
            None,
            None,
            None,
        )


class TestTop:
    def test_the_longest_first(self) -> None:
        found = profile({"a": 10.0, "b": 30.0, "c": 20.0}).top(2)

        assert [timed.layer.name for timed, _ in found] == ["b", "c"]
        assert {line.reason for _, line in found} == {"the ONNX model is not known"}

    def test_of_a_measured_model(self, mlp: Path) -> None:
        """On a CPU there are operations and bytes, and no roof."""
        engine = ort_engine(mlp)
        shapes = {"x": (4, 8)}
        feed = make_feed(engine.info.inputs, shapes)
        result = measure_run(engine, feed, Plan(sessions=1, iterations=10), context={})
        measured = Profile(
            engine.info, shapes, result.run, layer_times(result.run, result.layers), {}, model=engine.model
        )
        lines = {timed.layer.title: line for timed, line in measured.top()}
        first = lines["/fc0/Add + /fc0/MatMul + /fc0/Relu"]

        assert first.flops is not None
        assert first.flops > 2 * 4 * 8 * 16
        assert first.bound == "unknown"
        assert first.reason.startswith("the peaks of ")
        assert measured.group("fc0").flops == first.flops
        assert measured.advice == ()
