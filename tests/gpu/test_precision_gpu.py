"""A precision that is asked for, built, read back and right."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pytest_trtgray.accuracy.compare import compare
from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.engines.base import Engine
from pytest_trtgray.engines.building import timing_cache_path
from pytest_trtgray.engines.loading import LoadOptions, load_engine
from pytest_trtgray.errors import EngineError
from pytest_trtgray.feeds import make_feed
from tests import models


@pytest.fixture(scope="module")
def wide(folder: Path) -> Path:
    """Large enough for the narrow kernels to be the faster ones."""
    return models.conv_net(folder / "wide_net.onnx", channels=128, blocks=3, seed=2)


def built(path: Path, options: LoadOptions, precision: str) -> Engine:
    model = load_engine(path, options)
    feeds = tuple(make_feed(model.info.inputs, {"x": (8, 3, 16, 16)}, seed) for seed in range(4))
    return load_engine(path, dataclasses.replace(options, precision=precision, calibration=feeds))


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "float32"), ("fp16", "float16"), ("int8", "int8")])
def test_is_built_and_right(wide: Path, folder: Path, options: LoadOptions, precision: str, dtype: str) -> None:
    try:
        engine = built(wide, options, precision)
    except EngineError as error:
        if precision != "int8" or options.runtime != "tensorrt_rtx":
            raise
        pytest.skip(f"needs a TensorRT that builds convolutions in INT8, found {error.reason[:120]}")
    assert not [finding for finding in engine.findings if finding.rule == "precision.not-honoured"]
    assert engine.precision == dtype
    feed = make_feed(engine.info.inputs, {"x": (8, 3, 16, 16)}, seed=7)
    reference = Shadow(wide, folder / "cache").run(feed)
    compare(engine.run(feed), reference, precision="tf32" if precision == "fp32" else dtype).check()
    assert engine.info.inputs[0].dtype == "float32"


def test_int8_needs_feeds_of_the_optimal_shape(wide: Path, options: LoadOptions, runtime: str) -> None:
    if runtime != "tensorrt":
        pytest.skip("needs tensorrt up to 10, which calibrates; TensorRT for RTX takes Q/DQ nodes")
    model = load_engine(wide, options)
    small = (make_feed(model.info.inputs, {"x": (2, 3, 16, 16)}),)
    for feeds, message in (((), "INT8 needs inputs to calibrate with"), (small, "calibrates at the optimal shape")):
        with pytest.raises(EngineError, match=message):
            load_engine(wide, dataclasses.replace(options, precision="int8", calibration=feeds))
    model.run(make_feed(model.info.inputs, {"x": (8, 3, 16, 16)}))


def test_timings_are_kept_between_builds(wide: Path, options: LoadOptions, folder: Path, runtime: str) -> None:
    path = timing_cache_path(options.cache_dir, options.runtime, 0)  # type: ignore[arg-type]
    assert path is not None
    if runtime == "tensorrt_rtx":  # measures nothing while it builds
        built(wide, options, "fp16")
        assert not path.exists()
        return
    built(wide, options, "fp16")
    assert path.stat().st_size > 100
    for content in (b"", b"damaged", path.read_bytes()[:200]):
        path.write_bytes(content)
        engine = load_engine(models.conv_net(folder / f"n{len(content)}.onnx", seed=len(content)), options)
        assert engine.run(make_feed(engine.info.inputs, {"x": (1, 3, 16, 16)}))["logits"].shape == (1, 5)
        assert not [record for record in engine.records if record.severity == "error"]


def test_a_reference_by_tensorrt_is_true_fp32(wide: Path, folder: Path, options: LoadOptions, runtime: str) -> None:
    """TF32 keeps 10 bits of 23, which is 1e-3; without it three digits more agree."""
    if runtime == "tensorrt_rtx":  # compiles its kernels with TF32 whatever its builder is told
        with pytest.raises(EngineError, match="computes FP32 in TF32"):
            Shadow(wide, folder / "cache", on="tensorrt")
        return
    shadow = Shadow(wide, folder / "cache", on="tensorrt", tactic_sources=options.tactic_sources)
    feed = make_feed(shadow.inputs, {"x": (8, 3, 16, 16)})
    wanted = Shadow(wide, folder / "cache", on="cpu").run(feed)
    assert compare(shadow.run(feed), wanted).outputs[0].relative_l2 < 1e-5
