"""An engine on a GPU: built, run, measured, loaded from a file."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from pytest_trtgray.accuracy.compare import compare
from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.engines.base import Engine
from pytest_trtgray.engines.flavour import shares_profiles
from pytest_trtgray.engines.loading import LoadOptions, load_engine
from pytest_trtgray.engines.profiles import ShapeRequest, parse_shapes
from pytest_trtgray.errors import EngineError, ShapeError
from pytest_trtgray.feeds import make_feed
from pytest_trtgray.shape_switches import ShapeSwitches, SwitchLog
from pytest_trtgray.structure import diff
from tests import models


@pytest.mark.parametrize("batch", [1, 7, 8, 32])
def test_outputs_track_the_shadow(folder: Path, net: Engine, batch: int) -> None:
    feed = make_feed(net.info.inputs, {"x": (batch, 3, 16, 16)})
    shadow = Shadow(folder / "net.onnx", folder / "cache")
    comparison = compare(net.run(feed), shadow.run(feed), precision="tf32")
    comparison.check()
    assert comparison.outputs[0].relative_l2 < 1e-2


def test_integers_and_two_inputs(folder: Path, encoder: Engine) -> None:
    shadow = Shadow(folder / "encoder.onnx", folder / "cache")
    for size in ((1, 2), (2, 8), (3, 13), (4, 16)):
        feed = make_feed(encoder.info.inputs, {"ids": size, "mask": (size[0], 1, 1, size[1])})
        compare(encoder.run(feed), shadow.run(feed), precision="tf32").check()


def test_fp16_inputs_and_outputs(folder: Path, options: LoadOptions) -> None:
    models.to_fp16(models.mlp(folder / "mlp.onnx"), folder / "mlp16.onnx")
    engine = load_engine(folder / "mlp16.onnx", options)
    feed = make_feed(engine.info.inputs, {"x": (5, 8)})
    output = engine.run(feed)["y"]
    assert output.dtype == np.float16
    shadow = Shadow(folder / "mlp16.onnx", folder / "cache")
    compare({"y": output.astype(np.float32)}, shadow.run(feed), precision="float16").check()


def test_an_engine_file_shows_the_layers_of_the_build(net: Engine, options: LoadOptions) -> None:
    loaded = load_engine(Path(net.info.path), options, name="file")
    assert loaded.info.profiles[0]["x"].max == (32, 3, 16, 16)
    assert [spec.name for spec in loaded.info.outputs] == ["logits"]
    assert diff(net.layers, loaded.layers).findings == ()


def test_an_output_whose_shape_depends_on_the_data(folder: Path, options: LoadOptions, runtime: str) -> None:
    graph = models.Graph()
    x = graph.input("x", ["batch", 4])
    graph.add("NonZero", [x], "/NonZero", "y")
    graph.output("y", [2, "found"], TensorProto.INT64)
    try:
        engine = load_engine(graph.save(folder / "nonzero.onnx"), options)
    except EngineError as error:
        # TensorRT for RTX 1.5 ends with an internal error of its own here
        if runtime != "tensorrt_rtx":
            raise
        pytest.skip(f"needs a TensorRT that builds NonZero, found {error.reason}")
    for filled in (0, 1, 5, 12):
        values = np.zeros(12, np.float32)
        values[:filled] = 1
        feed = {"x": np.random.default_rng(filled).permutation(values).reshape(3, 4)}
        found = engine.run(feed)["y"]
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, np.array(np.nonzero(feed["x"])))


def test_values_that_are_sizes(folder: Path, options: LoadOptions) -> None:
    """A shape tensor: the profile bounds its values, also in the engine file alone."""
    graph = models.Graph()
    x, shape = graph.input("x", ["batch", 8]), graph.input("shape", [2], TensorProto.INT64)
    graph.add("Relu", [graph.add("Reshape", [x, shape], "/Reshape")], "/Relu", "y")
    graph.output("y", ["rows", "columns"])
    request = ShapeRequest(
        *(parse_shapes(text) for text in ("x:1x8,shape:1x1", "x:4x8,shape:8x4", "x:8x8,shape:64x64"))
    )
    built = load_engine(graph.save(folder / "reshape.onnx"), dataclasses.replace(options, shapes=(request,)))
    alone = load_engine(Path(built.info.path), options)
    x_values = np.arange(32, dtype=np.float32).reshape(4, 8)
    for engine in (built, alone):
        dtype = engine.info.inputs[1].dtype  # INT32 in an engine of TensorRT 8
        assert engine.info.inputs[1].is_shape
        for rows, columns in ((2, 16), (32, 1)):
            found = engine.run({"x": x_values, "shape": np.array([rows, columns], dtype)})["y"]
            np.testing.assert_array_equal(found, x_values.reshape(rows, columns))
        with pytest.raises(ShapeError, match="profile 0 allows"):
            engine.run({"x": x_values, "shape": np.array([1, 65], dtype)})


def test_several_profiles(folder: Path, options: LoadOptions) -> None:
    """The profile that fits is chosen, back and forth."""
    requests = tuple(
        ShapeRequest(*(parse_shapes(f"x:{batch}x3x16x16") for batch in batches)) for batches in ((1, 2, 4), (8, 16, 32))
    )
    path = models.conv_net(folder / "profiles.onnx", seed=3)
    engine = load_engine(path, dataclasses.replace(options, shapes=requests))
    shadow = Shadow(path, folder / "cache")
    for batch in (2, 16, 1, 32, 4):
        feed = make_feed(engine.info.inputs, {"x": (batch, 3, 16, 16)}, seed=batch)
        compare(engine.run(feed), shadow.run(feed), precision="tf32").check()
    with pytest.raises(ShapeError, match=r"shape 6x3x16x16, profile 0 allows .*; .* profile 1 allows"):
        engine.run(make_feed(engine.info.inputs, {"x": (6, 3, 16, 16)}))


@pytest.mark.parametrize("dtype", ["bool", "int64", "int32"])
def test_other_types(folder: Path, options: LoadOptions, dtype: str) -> None:
    """``y = where(c, x, 0)`` with a condition of each type."""
    graph = models.Graph()
    x = graph.input("x", ["batch", 4])
    kind = {"bool": TensorProto.BOOL, "int64": TensorProto.INT64, "int32": TensorProto.INT32}[dtype]
    condition = graph.input("c", ["batch", 4], kind)
    if dtype != "bool":
        condition = graph.add("Cast", [condition], "/Cast", to=TensorProto.BOOL)
    zero = graph.constant("zero", np.float32(0))
    graph.add("Where", [condition, x, zero], "/Where", "y")
    graph.output("y", ["batch", 4])
    engine = load_engine(graph.save(folder / f"where_{dtype}.onnx"), options)
    x_values = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    chosen = (np.arange(12).reshape(3, 4) % 3 == 0).astype(dtype)
    found = engine.run({"x": x_values, "c": chosen})["y"]
    np.testing.assert_array_equal(found, np.where(chosen, x_values, 0))


def test_shapes_may_come_in_any_order(folder: Path, net: Engine) -> None:
    """Buffers and contexts are used again; an answer must not depend on what ran before."""
    feeds = [make_feed(net.info.inputs, {"x": (batch, 3, 16, 16)}, seed=batch) for batch in (1, 32, 2, 31, 8)]
    first = [net.run(feed)["logits"] for feed in feeds]
    again = [net.run(feed)["logits"] for feed in reversed(feeds)]
    for one, other in zip(first, reversed(again), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("rtx")  # it compiles kernels when a shape is first seen
def test_compiled_kernels_are_kept(folder: Path, options: LoadOptions) -> None:
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


def test_shapes_of_two_profiles_in_any_order(folder: Path, options: LoadOptions) -> None:
    """One context, switched to and fro; every answer is that of a fresh one."""
    ends = [("x:1x3x16x16", "x:4x3x16x16", "x:8x3x16x16"), ("x:9x3x16x16", "x:16x3x16x16", "x:32x3x16x16")]
    profiles = [ShapeRequest(*map(parse_shapes, each)) for each in ends]
    path = models.conv_net(folder / "two_profiles.onnx")
    engine = load_engine(path, dataclasses.replace(options, shapes=tuple(profiles)))
    log = SwitchLog()
    ShapeSwitches.check(engine, log=log)
    assert log.inferences > 100


def test_a_renewed_engine_answers_as_before(net: Engine) -> None:
    feed = make_feed(net, {"x": (5, 3, 16, 16)})
    before = net.run(feed)
    net.renew()
    net.renew()
    compare(net.run(feed), before, precision="tf32").check()


def test_threads_share_an_engine(net: Engine, runtime: str) -> None:
    """New shapes are compiled in one thread, and logged, while another opens a context: neither waits for ever."""
    wanted = {rows: net.run({"x": np.full((rows, 3, 16, 16), 0.5, np.float32)})["logits"] for rows in range(1, 9)}
    failures: list[BaseException] = []

    def run(first: int) -> None:
        try:
            for number in range(24):
                rows = 1 + (first + number) % 8
                found = net.run({"x": np.full((rows, 3, 16, 16), 0.5, np.float32)})["logits"]
                np.testing.assert_allclose(found, wanted[rows], rtol=1e-2, atol=1e-2)
        except BaseException as error:
            failures.append(error)

    def open_contexts() -> None:
        try:
            for rows in range(1, 9):
                with net.timing_context({"x": np.zeros((rows, 3, 16, 16), np.float32)}, profiled=True) as context:
                    context.run()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(first,)) for first in (0, 3)]
    if shares_profiles(runtime):  # type: ignore[arg-type]
        threads.append(threading.Thread(target=open_contexts))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
