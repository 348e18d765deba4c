"""An engine on a GPU: built, run, measured, loaded from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from pytest_trtgray.accuracy.compare import compare
from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.engines.base import Engine
from pytest_trtgray.engines.loading import LoadOptions, load_engine
from pytest_trtgray.engines.profiles import ShapeRequest, parse_shapes
from pytest_trtgray.errors import EngineError, ShapeError
from pytest_trtgray.feeds import make_feed
from pytest_trtgray.structure import diff
from pytest_trtgray.timing.session import Plan, measure_run
from tests import models

ENCODER = ShapeRequest(
    parse_shapes("ids:1x2,mask:1x1x1x2"),
    parse_shapes("ids:2x8,mask:2x1x1x8"),
    parse_shapes("ids:4x16,mask:4x1x1x16"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def options(folder: Path, runtime: str) -> LoadOptions:
    return LoadOptions(runtime=runtime, cache_dir=folder / "cache")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def net(folder: Path, options: LoadOptions) -> Engine:
    return load_engine(models.conv_net(folder / "net.onnx"), options)


@pytest.mark.parametrize("batch", [1, 7, 8, 32])
def test_outputs_track_the_shadow(folder: Path, net: Engine, batch: int) -> None:
    feed = make_feed(net.info.inputs, {"x": (batch, 3, 16, 16)})
    shadow = Shadow(folder / "net.onnx", folder / "cache")
    comparison = compare(net.run(feed), shadow.run(feed), precision="tf32")
    comparison.check()
    assert comparison.outputs[0].relative_l2 < 1e-2


def test_integers_and_two_inputs(folder: Path, runtime: str) -> None:
    options = LoadOptions(runtime=runtime, cache_dir=folder / "cache", shapes=(ENCODER,))  # type: ignore[arg-type]
    engine = load_engine(models.encoder(folder / "encoder.onnx"), options)
    shadow = Shadow(folder / "encoder.onnx", folder / "cache")
    for size in ((1, 2), (2, 8), (3, 13), (4, 16)):
        feed = make_feed(engine.info.inputs, {"ids": size, "mask": (size[0], 1, 1, size[1])})
        compare(engine.run(feed), shadow.run(feed), precision="tf32").check()


def test_fp16(folder: Path, options: LoadOptions) -> None:
    models.to_fp16(models.mlp(folder / "mlp.onnx"), folder / "mlp16.onnx")
    engine = load_engine(folder / "mlp16.onnx", options)
    assert engine.precision == "float16"
    feed = make_feed(engine.info.inputs, {"x": (5, 8)})
    output = engine.run(feed)["y"]
    assert output.dtype == np.float16
    shadow = Shadow(folder / "mlp16.onnx", folder / "cache")
    compare({"y": output.astype(np.float32)}, shadow.run(feed), precision="float16").check()


def test_layers_are_timed_under_their_listed_names(net: Engine) -> None:
    feed = make_feed(net.info.inputs, {"x": (8, 3, 16, 16)})
    measured = measure_run(net, feed, Plan(sessions=2, iterations=20), context={})
    run, layers = measured.run, measured.layers
    assert len(run.sessions) == 2
    assert {layer.name for layer in layers} <= {layer.name for layer in net.layers}
    assert any("/stem/Conv" in node for layer in layers for node in layer.onnx_nodes)
    assert np.exp(run.location()).sum() > 1.0
    assert np.exp(run.engine()) > 1.0


def test_an_engine_file_shows_the_layers_of_the_build(net: Engine, options: LoadOptions) -> None:
    loaded = load_engine(Path(net.info.path), options, name="file")
    assert loaded.info.profiles[0]["x"].max == (32, 3, 16, 16)
    assert [spec.name for spec in loaded.info.outputs] == ["logits"]
    assert diff(net.layers, loaded.layers).findings == ()


def test_a_shape_outside_the_profile_is_refused(net: Engine) -> None:
    with pytest.raises(ShapeError, match=r"input 'x' has shape 33x3x16x16, profile 0 allows 1x3x16x16"):
        net.run(make_feed(net.info.inputs, {"x": (33, 3, 16, 16)}))
    net.run(make_feed(net.info.inputs, {"x": (8, 3, 16, 16)}))


def test_a_damaged_engine_is_an_error_with_the_first_cause(net: Engine, folder: Path, options: LoadOptions) -> None:
    content = bytearray(Path(net.info.path).read_bytes())
    content[64:] = bytes(len(content) - 64)
    (folder / "damaged.engine").write_bytes(content)
    with pytest.raises(EngineError, match=r"damaged\.engine: TensorRT.* refuses it on"):
        load_engine(folder / "damaged.engine", options)
    net.run(make_feed(net.info.inputs, {"x": (8, 3, 16, 16)}))


def test_an_output_whose_shape_depends_on_the_data(folder: Path, options: LoadOptions) -> None:
    graph = models.Graph()
    x = graph.input("x", ["batch", 4])
    graph.add("NonZero", [x], "/NonZero", "y")
    graph.output("y", [2, "found"], TensorProto.INT64)
    try:
        engine = load_engine(graph.save(folder / "nonzero.onnx"), options)
    except EngineError as error:
        # TensorRT for RTX 1.5 ends with an internal error of its own here
        pytest.skip(f"needs a TensorRT that builds NonZero, found {error.reason}")
    for filled in (0, 1, 5, 12):
        values = np.zeros(12, np.float32)
        values[:filled] = 1
        feed = {"x": np.random.default_rng(filled).permutation(values).reshape(3, 4)}
        np.testing.assert_array_equal(engine.run(feed)["y"], np.array(np.nonzero(feed["x"])))


def test_shapes_may_come_in_any_order(folder: Path, net: Engine) -> None:
    """Buffers and contexts are used again; an answer must not depend on what ran before."""
    feeds = [make_feed(net.info.inputs, {"x": (batch, 3, 16, 16)}, seed=batch) for batch in (1, 32, 2, 31, 8)]
    first = [net.run(feed)["logits"] for feed in feeds]
    again = [net.run(feed)["logits"] for feed in reversed(feeds)]
    for one, other in zip(first, reversed(again), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_method_says_how_times_are_taken(net: Engine) -> None:
    assert net.timing_method["engine"] == "cuda-events"
    assert net.timing_method["transfers"] == "no"


def test_compiled_kernels_are_kept(folder: Path, options: LoadOptions, runtime: str) -> None:
    if runtime != "tensorrt_rtx":
        pytest.skip("needs tensorrt_rtx, which compiles kernels when a shape is first seen")
    path = models.conv_net(folder / "kept.onnx", seed=5)
    feed_shape = {"x": (4, 3, 16, 16)}
    first = load_engine(path, options)
    wanted = first.run(make_feed(first.info.inputs, feed_shape))["logits"]
    first.close()
    (kept,) = (folder / "cache").glob(f"{Path(first.info.path).stem}*.kernels")
    second = load_engine(path, options)
    np.testing.assert_array_equal(second.run(make_feed(second.info.inputs, feed_shape))["logits"], wanted)
    kept.write_bytes(b"damaged")
    third = load_engine(path, options)
    np.testing.assert_array_equal(third.run(make_feed(third.info.inputs, feed_shape))["logits"], wanted)


def test_closing_gives_the_memory_back(folder: Path, options: LoadOptions) -> None:
    from pytest_trtgray.engines.cuda import cuda

    def free_bytes() -> int:
        with cuda().current() as driver:
            return int(driver.mem_get_info()[0])

    path = models.conv_net(folder / "leak.onnx", seed=6)
    load_engine(path, options).close()
    before = free_bytes()
    for _ in range(3):
        engine = load_engine(path, options)
        engine.run(make_feed(engine.info.inputs, {"x": (32, 3, 16, 16)}))
        engine.close()
        del engine
    assert before - free_bytes() < 64 << 20
