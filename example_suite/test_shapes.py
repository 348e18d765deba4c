"""Is it right at every shape? Hypothesis draws inputs from the optimization profile.

Smallest, optimal and largest shapes come often, and so do their neighbours, where kernels change. A failure
shrinks to the smallest input that shows it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray import (
    EngineFactory,
    Feed,
    ShadowFactory,
    assert_outputs_close,
    make_feed,
    profile_feeds,
    profile_shapes,
)

from .models import ENCODER_SHAPES

# On a GPU, FP32 means TF32 unless it is switched off: three decimal digits.
RTOL, ATOL = 1e-2, 2e-2


@given(feed=profile_feeds(".models/resnet20.onnx"))
def test_every_batch_tracks_fp32(trt_build: EngineFactory, trt_shadow: ShadowFactory, feed: Feed) -> None:
    """A model with a dynamic batch needs no shapes: 1 to 32, optimum 8."""
    engine, shadow = trt_build(".models/resnet20.onnx"), trt_shadow(".models/resnet20.onnx")
    assert_outputs_close(engine.run(feed), shadow.run(feed), rtol=RTOL, atol=ATOL)


@given(data=st.data())
def test_every_sequence_tracks_fp32(trt_build: EngineFactory, trt_shadow: ShadowFactory, data: Any) -> None:
    """With shapes of its own, the strategy takes the engine; ``ids`` and ``mask`` always fit each other."""
    engine = trt_build(".models/encoder.onnx", **ENCODER_SHAPES)
    feed = data.draw(profile_feeds(engine))
    assert_outputs_close(engine.run(feed), trt_shadow(".models/encoder.onnx").run(feed), rtol=RTOL, atol=ATOL)


@given(data=st.data())
def test_padding_changes_nothing(trt_build: EngineFactory, data: Any) -> None:
    """No reference needed: whatever tokens the mask hides, those that it shows have the same result."""
    engine = trt_build(".models/encoder.onnx", **ENCODER_SHAPES)
    shapes = data.draw(profile_shapes(engine))
    feed = make_feed(engine.info.inputs, shapes)
    visible = data.draw(st.integers(1, shapes["ids"][1]))
    feed["mask"][:, visible:] = 0
    cut = {name: array[:, :visible] for name, array in feed.items()}
    whole, alone = engine.run(feed), engine.run(cut)
    whole["hidden"] = whole["hidden"][:, :visible]
    assert_outputs_close(whole, alone, rtol=RTOL, atol=ATOL)


@given(shapes=profile_shapes(".models/resnet20.onnx"), seed=st.integers(0, 99))
def test_images_of_a_batch_are_independent(
    trt_build: EngineFactory, shapes: dict[str, tuple[int, ...]], seed: int
) -> None:
    """The result of an image does not depend on its place in the batch."""
    engine = trt_build(".models/resnet20.onnx")
    feed = make_feed(engine.info.inputs, shapes, seed)
    reversed_logits = engine.run({"image": np.flip(feed["image"], axis=0)})["logits"]
    assert_outputs_close({"logits": reversed_logits[::-1]}, engine.run(feed), rtol=RTOL, atol=ATOL)
