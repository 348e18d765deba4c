"""Is it right at every shape? Hypothesis draws inputs from the optimization profile.

The profile's bounds, their neighbours and the sizes where kernels change are tried first, then any. A failure shrinks
to the smallest input that shows it and prints the call of ``make_feed`` that makes it again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray import (
    Engine,
    EngineFactory,
    Feed,
    ShadowFactory,
    ShapeSwitches,
    assert_outputs_close,
    make_feed,
    outside_profile_shapes,
    profile_feeds,
    profile_shapes,
)
from pytest_trtgray.errors import ShapeError

from .models import ENCODER_SHAPES, image_batches

# On a GPU, FP32 means TF32 unless it is switched off: three decimal digits.
RTOL, ATOL = 1e-2, 2e-2
# Tolerances that do not grow with the outputs suit inputs of the usual size.
USUAL = ("normal", "uniform", "zeros")


@pytest.fixture(scope="session")
def encoder(trt_build: EngineFactory) -> Engine:
    """Hypothesis runs a test many times: what it uses has to live as long as the session."""
    return trt_build(".models/encoder.onnx", **ENCODER_SHAPES)


@given(feed=profile_feeds(".models/resnet20.onnx", values=USUAL))
def test_every_batch_tracks_fp32(trt_build: EngineFactory, trt_shadow: ShadowFactory, feed: Feed) -> None:
    """A model with a dynamic batch needs no shapes: 1 to 32, optimum 8."""
    engine, shadow = trt_build(".models/resnet20.onnx"), trt_shadow(".models/resnet20.onnx")
    assert_outputs_close(engine.run(feed), shadow.run(feed), rtol=RTOL, atol=ATOL)


@given(feed=profile_feeds(".models/resnet20.onnx", samples={"image": [batch["image"] for batch in image_batches()]}))
def test_real_images_in_every_batch(trt_build: EngineFactory, trt_shadow: ShadowFactory, feed: Feed) -> None:
    """Data of your own: rows are drawn from it and repeated up to the batch."""
    engine, shadow = trt_build(".models/resnet20.onnx"), trt_shadow(".models/resnet20.onnx")
    assert_outputs_close(engine.run(feed), shadow.run(feed), rtol=RTOL, atol=ATOL)


@given(data=st.data())
def test_every_sequence_tracks_fp32(encoder: Engine, trt_shadow: ShadowFactory, data: Any) -> None:
    """With shapes of its own, the strategy takes the engine; ``ids`` and ``mask`` always fit each other."""
    feed = data.draw(profile_feeds(encoder))
    assert_outputs_close(encoder.run(feed), trt_shadow(".models/encoder.onnx").run(feed), rtol=RTOL, atol=ATOL)


@given(data=st.data())
def test_padding_changes_nothing(encoder: Engine, data: Any) -> None:
    """No reference needed: whatever tokens the mask hides, those that it shows have the same result."""
    shapes = data.draw(profile_shapes(encoder))
    feed = make_feed(encoder, shapes)
    visible = data.draw(st.integers(1, shapes["ids"][1]))
    feed["mask"][:, visible:] = 0
    cut = {name: array[:, :visible] for name, array in feed.items()}
    whole, alone = encoder.run(feed), encoder.run(cut)
    whole["hidden"] = whole["hidden"][:, :visible]
    assert_outputs_close(whole, alone, rtol=RTOL, atol=ATOL)


@given(shapes=profile_shapes(".models/resnet20.onnx"), seed=st.integers(0, 99))
def test_images_of_a_batch_are_independent(
    trt_build: EngineFactory, shapes: dict[str, tuple[int, ...]], seed: int
) -> None:
    """The result of an image does not depend on its place in the batch."""
    engine = trt_build(".models/resnet20.onnx")
    feed = make_feed(engine, shapes, seed)
    reversed_logits = engine.run({"image": np.flip(feed["image"], axis=0)})["logits"]
    assert_outputs_close({"logits": reversed_logits[::-1]}, engine.run(feed), rtol=RTOL, atol=ATOL)


@given(data=st.data())
def test_other_shapes_are_refused(encoder: Engine, data: Any) -> None:
    """One more than the largest, one less than the smallest, a dimension too many: a clear error, and no harm done."""
    encoder.require_runnable()
    shapes = data.draw(outside_profile_shapes(encoder))
    with pytest.raises(ShapeError, match="profile 0 allows"):
        encoder.run(make_feed(encoder, shapes))


def test_the_order_of_shapes_does_not_matter(encoder: Engine) -> None:
    """What a fresh execution context answers, one that has seen other shapes answers too."""
    ShapeSwitches.check(encoder, rtol=RTOL, atol=ATOL)
