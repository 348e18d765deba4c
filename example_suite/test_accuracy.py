"""Is it still right? Outputs against the FP32 reference of the same model.

The reference ("shadow") runs the model as written, in FP32, without optimisations. Every output is compared
element by element; a tolerance that is not given follows from the engine's precision.
"""

from __future__ import annotations

import pytest

from pytest_trtgray import (
    Comparer,
    Engine,
    EngineFactory,
    Metamorphic,
    ShadowFactory,
    compare_many,
    make_feed,
    noise_floor,
)

from .models import ENCODER_SHAPES, image_batches


def test_given_engine_tracks_fp32(trt_engine: Engine, trt_shadow: ShadowFactory, trt_compare: Comparer) -> None:
    """For an engine file, ``--trt-onnx=model.onnx`` names the model it was built from."""
    trt_compare(trt_engine, trt_shadow).check()


@pytest.mark.parametrize("name", ["resnet50", "squeezenet", "densenet121", "shufflenet"])
def test_optimised_classifier_tracks_fp32(
    name: str, trt_build: EngineFactory, trt_shadow: ShadowFactory, trt_compare: Comparer
) -> None:
    """What fusions and kernels change must stay within rounding."""
    model = f".models/{name}.onnx"
    trt_compare(trt_build(model), trt_shadow(model)).check()


@pytest.mark.trt_shapes(ids=(2, 48), mask=(2, 48))
def test_fp16_tracks_fp32(trt_build: EngineFactory, trt_shadow: ShadowFactory, trt_compare: Comparer) -> None:
    """The FP16 model against the FP32 one; an output can have a tolerance of its own."""
    engine = trt_build(".models/encoder_fp16.onnx", **ENCODER_SHAPES)
    shadow = trt_shadow(".models/encoder.onnx")
    trt_compare(engine, shadow, rtol=1e-2, atol=2e-2, per_output={"pooled": {"rtol": 1e-2, "atol": 1e-2}}).check()


@pytest.mark.trt_requires(runtime="onnxruntime")
def test_int8_tracks_fp32(trt_build: EngineFactory, trt_shadow: ShadowFactory, trt_compare: Comparer) -> None:
    """A quantised model states what it may lose; the logits' standard deviation is 3.

    The last line asks what was really built: an engine that fell back to FP32 would be right, and slow.
    """
    engine = trt_build(".models/resnet20_int8.onnx")
    trt_compare(engine, trt_shadow(".models/resnet20.onnx"), rtol=2e-2, atol=0.3).check()
    assert engine.layer("/stem/conv/Conv").precision == "int8"


def test_two_engines_agree(trt_build: EngineFactory, trt_compare: Comparer) -> None:
    """The reference may be another engine, such as the one that is in production."""
    candidate = trt_build(".models/encoder_fp16.onnx", name="candidate", **ENCODER_SHAPES)
    production = trt_build(".models/encoder.onnx", name="production", **ENCODER_SHAPES)
    trt_compare(candidate, production, rtol=1e-2, atol=2e-2).check()


@pytest.mark.trt_shapes(ids=(4, 32), mask=(4, 32))
def test_fp16_is_within_the_noise(trt_build: EngineFactory, trt_shadow: ShadowFactory, trt_compare: Comparer) -> None:
    """A tolerance that was measured, not chosen: twice what FP16 does to other inputs in another runtime."""
    shadow = trt_shadow(".models/encoder.onnx")
    half = trt_build(".models/encoder_fp16.onnx", runtime="onnxruntime", name="half", **ENCODER_SHAPES)
    feeds = [make_feed(shadow.inputs, {"ids": (4, 32), "mask": (4, 32)}, seed) for seed in (1, 2, 3)]
    engine = trt_build(".models/encoder.onnx", precision="fp16", **ENCODER_SHAPES)
    trt_compare(engine, shadow, per_output=noise_floor(shadow, half, feeds)).check()


@pytest.mark.trt_requires(runtime="onnxruntime")
def test_int8_keeps_the_class(trt_build: EngineFactory, trt_shadow: ShadowFactory) -> None:
    """Over several batches. What counts for a classifier may be another metric than the elements' errors."""
    engine, shadow = trt_build(".models/resnet20_int8.onnx"), trt_shadow(".models/resnet20.onnx")
    feeds = image_batches()
    series = compare_many(map(engine.run, feeds), map(shadow.run, feeds), rtol=2e-2, atol=0.3)
    series.check()
    metrics = [run["logits"].metrics for run in series.runs]
    assert all(each and (each.top_k(1) or 0) >= 0.875 and (each.snr_db or 0) > 20 for each in metrics)


def test_the_encoder_agrees_with_itself(trt_build: EngineFactory, trt_metamorphic: Metamorphic) -> None:
    """No reference: the same input twice, sentences alone and in another order, and whatever the mask hides."""
    trt_metamorphic(trt_build(".models/encoder.onnx", **ENCODER_SHAPES)).check()
