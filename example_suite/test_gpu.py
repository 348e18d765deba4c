"""What only a GPU can answer; elsewhere each test is skipped, and says what it needs and what was found.

``--trt-require-gpu`` turns these skips into failures: on a GPU runner, a missing GPU must not look green.
"""

from __future__ import annotations

import pytest

from pytest_trtgray import Comparer, DeviceInfo, EngineFactory, Profiler, ShadowFactory

from .models import ENCODER_SHAPES


@pytest.mark.trt_requires(tensorrt_rtx=">=1.4")
def test_fp16_tracks_fp32_on_the_gpu(
    trt_build: EngineFactory, trt_shadow: ShadowFactory, trt_compare: Comparer
) -> None:
    """No marker for the GPU: the engine is built anywhere, and where it cannot run the test is skipped."""
    engine = trt_build(".models/encoder_fp16.onnx", runtime="tensorrt_rtx", **ENCODER_SHAPES)
    trt_compare(engine, trt_shadow(".models/encoder.onnx"), rtol=1e-2, atol=2e-2).check()


@pytest.mark.trt_arch(min="sm_80")
@pytest.mark.trt_requires(tensorrt_rtx=">=1.4")
@pytest.mark.trt_timing(tolerance=0.05, sessions=3, iterations=50)
@pytest.mark.trt_shapes(ids=(8, 64), mask=(8, 64))
def test_fp16_encoder_keeps_its_speed(trt_build: EngineFactory, trt_profiler: Profiler) -> None:
    """Every layer against this GPU's baseline, and attention against its budget."""
    engine = trt_build(".models/encoder_fp16.onnx", runtime="tensorrt_rtx", **ENCODER_SHAPES)
    profile = trt_profiler(engine)
    profile.check()
    assert profile.group("encoder.layer.*/attention").share < 0.8


@pytest.mark.trt_arch("sm_86", "sm_89", "sm_120")
@pytest.mark.trt_requires(tensorrt=">=10.3", precision="int8", memory_gb=4)
def test_int8_tracks_fp32_on_consumer_gpus(
    trt_build: EngineFactory, trt_shadow: ShadowFactory, trt_compare: Comparer
) -> None:
    """Several needs at once: the architectures that are shipped to, a TensorRT, a precision and memory."""
    engine = trt_build(".models/resnet20_int8.onnx", runtime="tensorrt")
    trt_compare(engine, trt_shadow(".models/resnet20.onnx"), rtol=2e-2, atol=0.3).check()
    assert engine.layer("/layer2/layer2.0/conv1/Conv").precision == "int8"


@pytest.mark.trt_arch(min="sm_75")
def test_engines_are_measured_on_a_gpu(trt_device: DeviceInfo) -> None:
    """The device under test can be asked for what it is."""
    assert trt_device.kind == "gpu"
    assert trt_device.memory_bytes > 2e9
