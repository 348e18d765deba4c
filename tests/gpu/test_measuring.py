"""Times on a GPU: layers and engine, graphs, transfers, first calls, fresh processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pytest_trtgray.engines.base import Engine, TimingOptions
from pytest_trtgray.engines.loading import LoadOptions, load_engine
from pytest_trtgray.engines.tensorrt import TensorRTEngine
from pytest_trtgray.feeds import make_feed
from pytest_trtgray.timing.session import Plan, first_calls, measure_run
from pytest_trtgray.vendor import quiet_import
from tests import models


@pytest.fixture(scope="module")
def feed(net: Engine) -> dict[str, np.ndarray]:
    return make_feed(net.info.inputs, {"x": (8, 3, 16, 16)})


def inspected_names(engine: Engine) -> list[str]:
    """Layer names from the engine inspector."""
    assert isinstance(engine, TensorRTEngine)
    trt = quiet_import(engine.flavour)
    inspector = engine._engine.create_engine_inspector()
    listing = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    return [layer["Name"] if isinstance(layer, dict) else layer for layer in listing["Layers"]]


def test_layers_are_timed_under_the_inspectors_names(net: Engine, feed: dict[str, np.ndarray]) -> None:
    measured = measure_run(net, feed, Plan(sessions=2, iterations=20), context={})
    assert len(measured.run.sessions) == 2
    timed = [layer.name for layer in measured.layers]
    assert set(timed) <= set(inspected_names(net))
    assert not any(layer.kind == "unlisted" for layer in measured.layers)
    assert {"/stem/Conv", "/head/Gemm"} <= {node for layer in measured.layers for node in layer.onnx_nodes}
    assert np.exp(measured.run.location()).sum() > 1.0
    assert np.exp(measured.run.engine()) > 1.0


def test_what_lies_beside_an_inference(net: Engine, feed: dict[str, np.ndarray]) -> None:
    measured = measure_run(net, feed, Plan(sessions=1, iterations=10), context={})
    beside = measured.overheads
    assert beside.upload_us is not None
    assert beside.download_us is not None
    assert 0 < beside.upload_us < 1e5
    assert 0 < beside.download_us < 1e5
    assert beside.cold_start_us > np.exp(measured.run.engine())
    assert {"cold_start_us", "upload_us", "download_us"} <= set(measured.run.context)


def test_a_cuda_graph_gives_the_same_result(net: Engine, feed: dict[str, np.ndarray]) -> None:
    """And is another method: its times never meet a baseline that was taken without."""
    assert isinstance(net, TensorRTEngine)
    plan = Plan(sessions=1, iterations=50, options=TimingOptions(cuda_graph=True))
    assert plan.method == {"cuda_graph": "yes"}
    assert net.timing_method["cuda_graph"] == "no"
    wanted = net.run(feed)["logits"]
    with net.timing_context(feed, profiled=False, options=plan.options) as context:
        for _ in range(3):
            context.run()
        execution = context._execution  # type: ignore[attr-defined]
        np.testing.assert_array_equal(execution.fetch()["logits"], wanted)
        context.bind(make_feed(net.info.inputs, {"x": (3, 3, 16, 16)}))
        context.run()
        assert execution.fetch()["logits"].shape == (3, 5)
    assert measure_run(net, feed, plan, context={}).layers


def test_a_shape_switch_costs_more_than_the_steady_state(net: Engine) -> None:
    feeds = [make_feed(net.info.inputs, {"x": (batch, 3, 16, 16)}) for batch in (5, 6, 5)]
    calls = first_calls(net, feeds, TimingOptions(kept_kernels=False))
    assert [call.shapes["x"][0] for call in calls] == [5, 6, 5]
    assert calls[0].first_us > calls[0].steady_us


def test_sessions_in_fresh_processes(folder: Path, options: LoadOptions) -> None:
    """The waiting process has a context on the GPU too, which is no disturbance."""
    engine = load_engine(models.conv_net(folder / "apart.onnx", seed=9), options)
    feed = make_feed(engine.info.inputs, {"x": (8, 3, 16, 16)})
    engine.run(feed)
    here = measure_run(engine, feed, Plan(sessions=1, iterations=30), context={})
    apart = measure_run(engine, feed, Plan(sessions=2, iterations=30, processes=True), context={})
    assert apart.run.disturbed == ""
    assert [layer.name for layer in apart.layers] == [layer.name for layer in here.layers]
    assert len(apart.run.sessions) == 2
    assert apart.run.engine() == pytest.approx(here.run.engine(), abs=1.0)
