"""What goes wrong at run time, each as one message that names the thing, the reason and the way out."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import pytest_trtgray
from pytest_trtgray.engines.base import DEFAULT_TIMING, Engine
from pytest_trtgray.engines.building import polygraphy_of
from pytest_trtgray.engines.callbacks import logger_of
from pytest_trtgray.engines.cuda import cuda
from pytest_trtgray.engines.loading import LoadOptions, load_engine
from pytest_trtgray.engines.profiles import ShapeRequest, parse_shapes
from pytest_trtgray.engines.tensorrt import TensorRTEngine
from pytest_trtgray.errors import EngineError, ShapeError, TrtGrayError
from pytest_trtgray.feeds import make_feed
from pytest_trtgray.vendor import quiet_import
from tests import models

ROOT = Path(pytest_trtgray.__file__).parent.parent


def feed_of(engine: Engine, batch: int = 8) -> dict[str, np.ndarray]:
    return make_feed(engine.info.inputs, {"x": (batch, 3, 16, 16)})


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, which may crash."""
    lines = "try:\n    import ml_dtypes\nexcept ImportError:\n    pass\n" + textwrap.dedent(code)
    command = [sys.executable, "-c", lines, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)


def test_a_shape_outside_the_profile(net: Engine) -> None:
    with pytest.raises(ShapeError, match=r"input 'x' has shape 33x3x16x16, profile 0 allows 1x3x16x16 .. .*32x3x16x16"):
        net.run(feed_of(net, 33))
    net.run(feed_of(net))


def test_what_tensorrt_says_of_a_shape_that_slipped_through(net: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """``set_input_shape`` returns False; the error recorder knows why, and nothing of it is lost."""
    for room in ("base", "tensorrt"):
        monkeypatch.setattr(f"pytest_trtgray.engines.{room}.check_shapes", lambda *_: 0)
    with pytest.raises(
        EngineError, match=r"input 'x' cannot have shape 64x3x16x16: .*Error Code 3.*optimization profile"
    ):
        net.run(feed_of(net, 64))
    monkeypatch.undo()
    net.run(feed_of(net))


def test_a_missing_address(net: Engine) -> None:
    """``execute_async_v3`` returns False."""
    assert isinstance(net, TensorRTEngine)
    with net.timing_context(feed_of(net), profiled=False) as context:
        execution = context._execution  # type: ignore[attr-defined]
        execution.context = net._create_context(DEFAULT_TIMING)
        with cuda().current():
            execution.context.set_input_shape("x", (8, 3, 16, 16))
        with cuda().current(), pytest.raises(EngineError, match="net: the inference was refused"):
            execution.enqueue()


@pytest.mark.parametrize("kept", [20, 64, 0.5, -8])
def test_a_truncated_engine_is_refused_before_native_code(
    net: Engine, folder: Path, options: LoadOptions, kept: float
) -> None:
    content = Path(net.info.path).read_bytes()
    size = int(kept * len(content)) if isinstance(kept, float) else kept
    path = folder / "cut.engine"
    path.write_bytes(content[:size])
    with pytest.raises(EngineError, match=r"cut\.engine: the engine file is cut off: .* bytes"):
        load_engine(path, options)


def test_a_corrupt_engine_is_refused_with_the_first_cause(net: Engine, folder: Path, options: LoadOptions) -> None:
    content = bytearray(Path(net.info.path).read_bytes())
    content[64:] = bytes(len(content) - 64)
    (folder / "damaged.engine").write_bytes(content)
    with pytest.raises(EngineError, match=r"damaged\.engine: TensorRT.* refuses it on .*Serialization"):
        load_engine(folder / "damaged.engine", options)
    net.run(feed_of(net))


@pytest.mark.usefixtures("rtx")
def test_an_engine_for_another_gpu_loads_where_tensorrt_takes_it(folder: Path, options: LoadOptions) -> None:
    """``get_engine_validity`` calls it invalid, and it runs: nothing here asks for the validity."""
    trt, logger = quiet_import("tensorrt_rtx"), logger_of("tensorrt_rtx")
    model = models.conv_net(folder / "sm89.onnx", seed=4)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    assert trt.OnnxParser(network, logger).parse_from_file(str(model))
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape("x", *((batch, 3, 16, 16) for batch in (1, 8, 32)))
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    (folder / "sm89.engine").write_bytes(bytes(builder.build_serialized_network(network, config)))
    engine = load_engine(folder / "sm89.engine", options)
    assert engine.info.targets == "sm_89"
    assert engine.run(feed_of(engine))["logits"].shape == (8, 5)


def test_a_refused_node_is_named(folder: Path, options: LoadOptions) -> None:
    """A Q/DQ model whose bias is quantised to INT32, as quantisers do by default."""
    graph = models.Graph()
    x = graph.input("x", ["batch", 4])
    bias = graph.constant("fc.bias_quantized", np.arange(4, dtype=np.int32))
    scale = graph.constant("fc.bias_scale", np.float32(0.1))
    zero = graph.constant("fc.bias_zero", np.int32(0))
    wide = graph.add("DequantizeLinear", [bias, scale, zero], "fc.bias_DequantizeLinear")
    graph.add("Add", [x, wide], "/fc/Add", "y")
    graph.output("y", ["batch", 4])
    path = graph.save(folder / "int32_bias.onnx")
    with pytest.raises(EngineError, match=r"cannot build it: .*(DequantizeLinear|fc\.bias)"):
        load_engine(path, options)


def test_a_wrong_dtype_and_a_missing_input(net: Engine) -> None:
    with pytest.raises(EngineError, match="input 'x' wants float32, got float64"):
        net.run({"x": np.zeros((8, 3, 16, 16))})
    with pytest.raises(ShapeError, match="input 'x' is missing"):
        net.run({})


def test_the_process_ends_cleanly(net: Engine) -> None:
    """PyCUDA aborts a process that ends with a context on its stack."""
    done = python(
        """
        import sys
        from pathlib import Path
        from pytest_trtgray.engines.loading import LoadOptions, load_engine
        from pytest_trtgray.feeds import make_feed
        engine = load_engine(Path(sys.argv[1]), LoadOptions())
        feed = make_feed(engine.info.inputs, {"x": (8, 3, 16, 16)})
        with engine.timing_context(feed, profiled=True) as context:
            context.run()
        print(engine.run(feed)["logits"].shape)
        """,
        net.info.path,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "(8, 5)"), done.stderr


FULL = """
import sys, faulthandler
faulthandler.enable()
from pathlib import Path
from pytest_trtgray.engines.cuda import cuda
from pytest_trtgray.engines.loading import LoadOptions, load_engine
from pytest_trtgray.errors import TrtGrayError
from pytest_trtgray.feeds import make_feed
path, left, when = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
def fill():
    with cuda().current() as driver:
        return driver.mem_alloc(driver.mem_get_info()[0] - left)
cuda()
held = fill() if when == "before loading" else None
try:
    engine = load_engine(path, LoadOptions())
    held = held or fill()
    feed = make_feed(engine.info.inputs, {"x": (engine.info.profiles[0]["x"].max[0], 1024)})
    engine.run(feed)
    print("ran")
except TrtGrayError as error:
    print(type(error).__name__, error.message)
with cuda().current():
    held.free()
try:
    if when != "before loading":
        print("afterwards", engine.run(feed)["y"].shape)
except TrtGrayError as error:
    print("afterwards", error.message)
"""


@pytest.mark.parametrize("when", ["before loading", "before running"])
def test_a_full_gpu(folder: Path, options: LoadOptions, when: str) -> None:
    """One message that says so; when the memory is there again, the engine runs."""
    path = folder / "wide.onnx"
    if not path.exists():
        graph = models.Graph()
        x = graph.input("x", ["batch", 1024])
        weight = graph.constant("w", np.full((1024, 32768), 1e-3, np.float32))
        graph.add("Relu", [graph.add("MatMul", [x, weight], "/MatMul")], "/Relu", "y")
        graph.output("y", ["batch", 32768])
        graph.save(path)
    request = ShapeRequest(*(parse_shapes(f"x:{batch}x1024") for batch in (1, 64, 8192)))
    built = load_engine(path, dataclasses.replace(options, shapes=(request,)))
    built.close()
    done = python(FULL, built.info.path, 64 << 20, when)
    first, *rest = done.stdout.strip().split("\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert first.startswith("EngineError"), done.stdout
    assert "GPU" in done.stdout
    assert "nvidia-smi" in done.stdout
    if when == "before running":
        assert rest[-1] == "afterwards (8192, 32768)"


def test_killed_while_running_leaves_nothing(net: Engine, folder: Path) -> None:
    """Neither on the GPU nor on the disk."""
    code = """
    import sys
    from pathlib import Path
    from pytest_trtgray.engines.loading import LoadOptions, load_engine
    from pytest_trtgray.feeds import make_feed
    engine = load_engine(Path(sys.argv[1]), LoadOptions())
    feed = make_feed(engine.info.inputs, {"x": (8, 3, 16, 16)})
    print("ready", flush=True)
    while True:
        engine.run(feed)
    """
    before = sorted(path.name for path in Path(net.info.path).parent.iterdir())
    lines = "try:\n    import ml_dtypes\nexcept ImportError:\n    pass\n" + textwrap.dedent(code)
    with cuda().current() as driver:
        free_before = driver.mem_get_info()[0]
    with subprocess.Popen(
        [sys.executable, "-c", lines, net.info.path], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.kill()
    assert sorted(path.name for path in Path(net.info.path).parent.iterdir()) == before
    with cuda().current() as driver:
        assert free_before - driver.mem_get_info()[0] < 64 << 20
    net.run(feed_of(net))


def test_an_unsupported_operator(folder: Path, options: LoadOptions) -> None:
    node = helper.make_node("NoSuchOp", ["x"], ["y"], name="/odd", domain="nobody")
    graph = helper.make_graph(
        [node],
        "odd",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("nobody", 1)]
    path = models.write(helper.make_model(graph, opset_imports=imports, ir_version=8), folder / "odd.onnx")
    with pytest.raises(TrtGrayError, match=r"odd\.onnx: TensorRT.* cannot build it: .*NoSuchOp"):
        load_engine(path, options)


def test_one_flavour_a_process(runtime: str) -> None:
    other = "tensorrt" if runtime == "tensorrt_rtx" else "tensorrt_rtx"
    polygraphy_of(runtime)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="this process already uses"):
        polygraphy_of(other)  # type: ignore[arg-type]
