"""ONNX Runtime's CUDA provider, through the same code as its CPU provider."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest

from pytest_trtgray.accuracy.compare import compare
from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.onnxruntime import OnnxRuntimeEngine, choose_provider
from pytest_trtgray.engines.profiles import resolve_profiles
from pytest_trtgray.feeds import make_feed
from pytest_trtgray.timing.session import Plan, measure_run
from tests import models

CUDA = "CUDAExecutionProvider"
pytestmark = pytest.mark.skipif(
    CUDA not in onnxruntime.get_available_providers(),
    reason=f"needs onnxruntime-gpu, found {', '.join(onnxruntime.get_available_providers())}",
)


@pytest.fixture
def engine(tmp_path: Path) -> OnnxRuntimeEngine:
    model = OnnxModel(models.conv_net(tmp_path / "net.onnx"))
    profiles, _ = resolve_profiles(model.inputs, ())
    return OnnxRuntimeEngine(model, name="net", profiles=profiles, provider="CUDAExecutionProvider")


def test_is_chosen_where_it_can_be() -> None:
    assert choose_provider() == CUDA


def test_outputs_track_the_shadow_closely(engine: OnnxRuntimeEngine, tmp_path: Path) -> None:
    """TF32 is off, so the default tolerance of FP32 holds."""
    feed = make_feed(engine.info.inputs, {"x": (8, 3, 16, 16)})
    compare(engine.run(feed), Shadow(tmp_path / "net.onnx", tmp_path).run(feed), precision="float32").check()


def test_the_device_is_the_gpu_and_nodes_are_timed(engine: OnnxRuntimeEngine) -> None:
    assert engine.info.device is not None
    assert engine.info.device.kind == "gpu"
    assert engine.timing_method["provider"] == CUDA
    feed = make_feed(engine.info.inputs, {"x": (8, 3, 16, 16)})
    measured = measure_run(engine, feed, Plan(sessions=1, iterations=10), context={})
    run, layers = measured.run, measured.layers
    assert {layer.name for layer in layers} <= {layer.name for layer in engine.layers}
    assert len(run.sessions) == 1
