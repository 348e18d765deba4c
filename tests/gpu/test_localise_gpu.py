"""Which node is wrong, from engines of TensorRT whose fusions are left as they are.

ResNet-50 and BERT-base come from ``benchmarks/networks.py``. Every test prints what it saw of the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pytest_trtgray.accuracy.localise import Localisation, localise
from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.accuracy.tolerance import Tolerance
from pytest_trtgray.engines.base import DEFAULT_TIMING, Engine
from pytest_trtgray.engines.building import shows_unfused
from pytest_trtgray.engines.loading import LoadOptions, build_again, load_engine
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.profiles import ShapeRequest, opt_shapes, parse_shapes
from pytest_trtgray.engines.tensorrt import TensorRTEngine
from pytest_trtgray.engines.tensorrt_taps import DebugTaps, MarkedTaps, debug_listener
from pytest_trtgray.feeds import make_feed
from pytest_trtgray.vendor import quiet_import
from tests import models
from tests.gpu.test_measuring import inspected_names

MIB = 1 << 20
SHAPES = {
    "resnet50": ("x:1x3x224x224", "x:2x3x224x224", "x:4x3x224x224"),
    "bert_base": ("ids:1x16,mask:1x16", "ids:2x32,mask:2x32", "ids:4x64,mask:4x64"),
}
LEAST = {"resnet50": 30, "bert_base": 80}
"""Tensors that can be compared, of 70 and 125 that RTX 1.5 lists in FP16."""
MIDDLE = {"resnet50": "/layer3/layer3.2/conv2/Conv", "bert_base": "/bert/encoder/layer.6/intermediate/dense/MatMul"}
STRICT = Tolerance(1e-4, 1e-4, scaled=True)
"""No FP16 engine is within this: whatever is named then is named by its share in the error."""


@pytest.fixture(scope="module")
def unfused(runtime: str) -> None:
    if not shows_unfused(runtime):  # type: ignore[arg-type]
        pytest.skip(f"needs debug tensors of what is not fused: TensorRT 10.12, or TensorRT for RTX; found {runtime}")


@pytest.fixture(scope="module", params=sorted(SHAPES))
def name(request: pytest.FixtureRequest, networks: Path, unfused: None) -> str:
    return str(request.param)


def built(path: Path, name: str, runtime: str, cache: Path, precision: str = "fp16") -> Engine:
    requested = (ShapeRequest(*(parse_shapes(text) for text in SHAPES[name])),)
    return load_engine(path, LoadOptions(runtime, cache_dir=cache, shapes=requested, precision=precision))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def engine(name: str, networks: Path, folder: Path, runtime: str) -> Engine:
    return built(networks / f"{name}.onnx", name, runtime, folder)


def opt_feed(engine: Engine) -> dict[str, np.ndarray]:
    return make_feed(engine.info.inputs, opt_shapes(engine.info.profiles[0]))


def show(found: Localisation) -> None:
    print(
        f"{found.engine}: {len(found.tensors)} tensors {found.how}, fusions {found.fusions}, reproduced "
        f"{found.reproduced}, {found.passes} inferences, {found.peak_bytes / MIB:.1f} MiB at a time"
    )
    print(found.message())
    print(found.table(30))
    for finding in found.findings:
        print(f"{finding.severity} {finding.rule}: {finding.what}")


def names_of(engine: Engine) -> Sequence[str]:
    return [layer.name for layer in engine.layers]


def test_debug_tensors_leave_the_layers_as_they_are(engine: Engine) -> None:
    """By the build's log and by the inspector; so are the outputs, also while the tensors show."""
    twin = build_again(engine, debug_tensors=True)
    feed = opt_feed(engine)
    print(f"{engine.info.name}: {len(names_of(engine))} layers, {len(inspected_names(engine))} in the inspector")
    assert names_of(twin) == names_of(engine)
    assert inspected_names(twin) == inspected_names(engine)
    wanted = engine.run(feed)
    _, watched = twin.run_watched(feed, [])
    unwatched = twin.run(feed)
    for output, array in wanted.items():
        scale = np.linalg.norm(array.astype(np.float64))
        apart = [np.linalg.norm(other[output].astype(np.float64) - array) / scale for other in (unwatched, watched)]
        print(f"{output}: relative L2 to the engine under test {apart[0]:.2g} unwatched, {apart[1]:.2g} watched")
        assert max(apart) < 1e-3
    twin.close()


def test_what_shows(engine: Engine, name: str) -> None:
    """Names are those of the listing, and what is not asked for is not copied."""
    assert isinstance(engine, TensorRTEngine)
    twin = build_again(engine, debug_tensors=True)
    feed = twin.checked(opt_feed(engine))
    listed = {tensor.name for layer in twin.layers for tensor in layer.outputs}
    listener = debug_listener(quiet_import(twin.flavour), listed, 0)
    execution = twin._new_execution(None, DEFAULT_TIMING)
    execution.bind(feed, twin.profile_of(feed))
    execution.watched(listener)
    execution.close()
    print(f"{name}: {len(listener.seen)} tensors show, {len(listener.shown)} of {len(listed)} listed ones are copied")
    print(f"    not listed: {sorted(set(listener.seen) - listed)[:8]}; failures: {listener.failures[:3]}")
    for tensor, array in list(listener.shown.items())[:8]:
        print(f"    {tensor} {array.dtype} {array.shape} largest {np.abs(array.astype(np.float32)).max():.3g}")
    assert not listener.failures
    assert len(listener.shown) >= LEAST[name]
    some = sorted(listener.shown)[:3]
    again, _ = twin.run_watched(feed, some)
    assert sorted(again) == some
    for tensor in some:
        np.testing.assert_array_equal(again[tensor], listener.shown[tensor])
    twin.close()


def test_fp16_tracks_fp32_tensor_by_tensor(engine: Engine, name: str, networks: Path, folder: Path) -> None:
    """No culprit in an engine that is right: every tensor that could be compared is near the reference's."""
    found = localise(engine, Shadow(networks / f"{name}.onnx", folder), opt_feed(engine), budget_bytes=256 * MIB)
    show(found)
    assert found.fusions == "untouched"
    assert found.reproduced
    assert found.ok, found.message()
    assert found.culprit is None
    assert len(found.tensors) >= LEAST[name]
    assert found.peak_bytes <= 256 * MIB
    made = sorted(error.made_here for error in found.tensors)
    print(
        f"errors made: median {made[len(made) // 2]:.2g}, 90 % {made[int(len(made) * 0.9)]:.2g}, worst {made[-1]:.2g}"
    )
    assert made[len(made) // 2] < 5e-3


def test_a_planted_weight_is_localised(name: str, networks: Path, folder: Path, runtime: str) -> None:
    """2 % on one weight in the middle of an FP16 engine, whose fusions nobody touches."""
    original = networks / f"{name}.onnx"
    node = next(node for node in OnnxModel(original).nodes if node.name == MIDDLE[name])
    wrong = models.scale_weight(original, folder / f"{name}_wrong.onnx", node.inputs[1], 1.02)
    engine = built(wrong, name, runtime, folder)
    found = localise(engine, Shadow(original, folder), opt_feed(engine), tolerance=STRICT)
    show(found)
    assert found.fusions == "untouched"
    assert not found.ok
    assert found.culprit is not None
    assert node.name in found.culprit.nodes
    assert "1.02 times the reference's" in found.cause
    engine.close()


def test_little_memory_takes_more_inferences(engine: Engine, name: str, networks: Path, folder: Path) -> None:
    shadow, feed = Shadow(networks / f"{name}.onnx", folder), opt_feed(engine)
    budget = 32 * MIB
    found = localise(engine, shadow, feed, budget_bytes=budget)
    print(f"{name}: {found.passes} inferences, {found.peak_bytes / MIB:.1f} MiB at a time")
    largest = max(error.elements for error in found.tensors) * 4 * 4
    assert found.peak_bytes <= max(budget, largest)
    assert len(found.tensors) >= LEAST[name]
    assert found.ok


def test_small_networks_by_debug_tensors(net: Engine, encoder: Engine, folder: Path, unfused: None) -> None:
    for each, path in ((net, folder / "net.onnx"), (encoder, folder / "encoder.onnx")):
        feed = opt_feed(each)
        with each.taps(feed) as taps:
            assert isinstance(taps, DebugTaps)
            assert taps.fusions == "untouched"
        found = localise(each, Shadow(path, folder), feed)
        show(found)
        assert found.ok, found.message()
        assert found.reproduced


def test_tensors_as_outputs(net: Engine, folder: Path) -> None:
    """The way of TensorRT before 10.12; it changes the fusions, and says so."""
    assert isinstance(net, TensorRTEngine)
    feed = opt_feed(net)
    taps = MarkedTaps(net, feed)
    taps.expect({tap.name: 1 << 20 for tap in taps.taps})
    values = taps.read([tap.name for tap in taps.taps])
    wanted = Shadow(folder / "net.onnx", folder).run(feed)["logits"]
    print(f"{len(values)} tensors as outputs: {sorted(values)[:5]}")
    assert taps.fusions == "changed"
    assert set(values) == {tap.name for tap in taps.taps}
    np.testing.assert_allclose(values["logits"], wanted, rtol=2e-2, atol=2e-2)
    taps.close()
