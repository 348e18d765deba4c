"""Is it still the same engine? Fused layers, precisions and memory.

None of this runs the engine. The builder of TensorRT for RTX needs no GPU, so these tests guard a model on
any machine; its structure baselines (``portable_...``) hold on all of them.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_trtgray import DeviceInfo, Engine, EngineFactory, StructureOf

from .models import ENCODER_SHAPES

Structure = Callable[[Engine], StructureOf]


def test_given_engine_is_unchanged(trt_engine: Engine, trt_structure: Structure) -> None:
    """Nodes, fusions, precisions, inputs, outputs and memory are those of the baseline."""
    trt_structure(trt_engine).check()


@pytest.mark.parametrize("name", ["resnet50", "squeezenet"])
def test_classifier_is_unchanged(name: str, trt_build: EngineFactory, trt_structure: Structure) -> None:
    """The same for models that are built here."""
    trt_structure(trt_build(f".models/{name}.onnx")).check()


@pytest.mark.trt_requires(tensorrt_rtx=">=1.4")
@pytest.mark.parametrize("name", ["encoder", "encoder_fp16"])
def test_encoder_is_unchanged(name: str, trt_build: EngineFactory, trt_structure: Structure) -> None:
    """Without a GPU: TensorRT's own parser and builder, real fused layers."""
    engine = trt_build(f".models/{name}.onnx", runtime="tensorrt_rtx", **ENCODER_SHAPES)
    trt_structure(engine).check()


def test_convolution_takes_in_what_follows(trt_build: EngineFactory) -> None:
    """One fusion that must not get lost: convolution, batch normalisation and ReLU are one layer."""
    engine = trt_build(".models/resnet50.onnx")
    convolution = engine.layer("/res4_2_branch2b/Conv")
    assert convolution == engine.layer("/res4_2_branch2b/BatchNormalization")
    assert convolution == engine.layer("/res4_2_branch2b/Relu")


@pytest.mark.trt_requires(tensorrt_rtx=">=1.4")
def test_fp16_fuses_attention(trt_build: EngineFactory) -> None:
    """In FP16 each attention becomes one kernel; in FP32 its products and its softmax stay apart."""
    fp32 = trt_build(".models/encoder.onnx", runtime="tensorrt_rtx", **ENCODER_SHAPES)
    fp16 = trt_build(".models/encoder_fp16.onnx", runtime="tensorrt_rtx", **ENCODER_SHAPES)
    softmax, product = "/encoder/layer.0/attention/self/Softmax", "/encoder/layer.0/attention/self/MatMul"
    assert fp32.layer(softmax) != fp32.layer(product)
    assert fp16.layer(softmax) == fp16.layer(product)
    assert len(fp16.layers) < len(fp32.layers)


@pytest.mark.trt_requires(tensorrt_rtx=">=1.5")
@pytest.mark.parametrize("role", ["query", "key", "value"])
def test_projections_are_int8(role: str, trt_build: EngineFactory) -> None:
    """Which layers a Q/DQ model really computes in INT8, and which it does not."""
    engine = trt_build(".models/encoder_int8.onnx", runtime="tensorrt_rtx", **ENCODER_SHAPES)
    assert engine.layer(f"/encoder/layer.0/attention/self/{role}/MatMul").precision == "int8"
    assert engine.layer("/encoder/layer.0/attention/self/Softmax").precision == "float32"


@pytest.mark.trt_requires(tensorrt_rtx=">=1.7")
def test_every_convolution_is_int8(trt_build: EngineFactory) -> None:
    """A list of what fell back says more than a count."""
    engine = trt_build(".models/resnet20_int8.onnx", runtime="tensorrt_rtx")
    convolutions = {node for layer in engine.layers for node in layer.onnx_nodes if node.endswith("/Conv")}
    assert [node for node in sorted(convolutions) if engine.layer(node).precision != "int8"] == []


def test_encoder_fits_into_memory(trt_build: EngineFactory, trt_device: DeviceInfo) -> None:
    """What the engine asks for, against the memory of the GPU (or of the machine, without one)."""
    memory = trt_build(".models/encoder.onnx", **ENCODER_SHAPES).info.memory
    needed = (memory.weights_bytes or 0) + (memory.activations_bytes or 0)
    assert 0 < needed < 0.1 * trt_device.memory_bytes
