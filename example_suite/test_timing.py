"""Is it still fast? Times of layers, modules and the whole engine.

``check()`` compares with the baseline of the same hardware. Shares of the total need no baseline at all: a
budget such as "attention takes less than 80 %" holds on any machine.
"""

from __future__ import annotations

import pytest

from pytest_trtgray import Engine, EngineFactory, Profiler

from .models import ENCODER_SHAPES


def test_given_engine_keeps_its_speed(trt_engine: Engine, trt_profiler: Profiler) -> None:
    """Any engine, one test: ``pytest --trt-engine=model.engine`` (repeat the option for more engines)."""
    trt_profiler(trt_engine).check()


@pytest.mark.trt_timing(tolerance=0.10, sessions=3, iterations=20)
@pytest.mark.trt_shapes(ids=(2, 48), mask=(2, 48))
def test_encoder_keeps_its_speed(trt_build: EngineFactory, trt_profiler: Profiler) -> None:
    """Markers say at which shapes to measure, how much, and how much slower a layer may become."""
    engine = trt_build(".models/encoder.onnx", **ENCODER_SHAPES)
    trt_profiler(engine).check()


@pytest.mark.parametrize("batch", [1, 8])
def test_attention_stays_within_its_budget(trt_build: EngineFactory, trt_profiler: Profiler, batch: int) -> None:
    """A module's share of the time; ``*`` stands for the number of the encoder's layer."""
    engine = trt_build(".models/encoder.onnx", **ENCODER_SHAPES)
    profile = trt_profiler(engine, shapes={"ids": (batch, 64), "mask": (batch, 64)})
    assert profile.group("encoder.layer.*/attention").share < 0.8
    assert profile.group("embeddings").share < 0.2


@pytest.mark.trt_timing(sessions=1)
def test_no_stage_of_resnet50_dominates(trt_build: EngineFactory, trt_profiler: Profiler) -> None:
    """Groups of your own: the hook ``pytest_trt_layer_group`` in conftest.py gives ResNet-50 its stages."""
    profile = trt_profiler(trt_build(".models/resnet50.onnx"))
    stages = [profile.group(stage).share for stage in ("res2", "res3", "res4", "res5")]
    assert max(stages) < 0.6
    assert profile.group("res4/0").share < profile.group("res4").share
