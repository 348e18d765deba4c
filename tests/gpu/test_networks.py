"""ResNet-50 and BERT-base: right, timed by layer, read back; the models come from ``benchmarks/networks.py``.

Run with ``--update-baselines`` first: a network has no baselines here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_trtgray import Comparer, Engine, EngineFactory, Log, Profiler, StructureOf
from pytest_trtgray.accuracy.compare import compare
from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.errors import EngineError
from pytest_trtgray.feeds import make_feed
from tests.gpu.test_measuring import inspected_names

Case = tuple[Engine, str, tuple[dict[str, tuple[int, ...]], ...]]
RESNET = {f"{which}_shapes": f"x:{batch}x3x224x224" for which, batch in (("min", 1), ("opt", 8), ("max", 16))}
BERT = {
    f"{which}_shapes": f"ids:{size},mask:{size}"
    for which, size in (("min", "1x16"), ("opt", "8x128"), ("max", "8x384"))
}
CASES = [
    ("resnet50", RESNET, "fp32", ({"x": (1, 3, 224, 224)}, {"x": (13, 3, 224, 224)})),
    ("resnet50", RESNET, "fp16", ({"x": (1, 3, 224, 224)}, {"x": (13, 3, 224, 224)})),
    ("resnet50", RESNET, "int8", ({"x": (1, 3, 224, 224)}, {"x": (13, 3, 224, 224)})),
    ("bert_base", BERT, "fp32", ({"ids": (1, 16), "mask": (1, 16)}, {"ids": (3, 77), "mask": (3, 77)})),
    ("bert_base", BERT, "fp16", ({"ids": (1, 16), "mask": (1, 16)}, {"ids": (3, 77), "mask": (3, 77)})),
]
DTYPES = {"fp32": "float32", "fp16": "float16", "int8": "int8"}
# INT8 with four random feeds for a calibration is a test of the way there, not of an accuracy.
RELATIVE_L2 = {"fp32": 2e-3, "fp16": 5e-3, "int8": 0.5}


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[2]}")
def case(request: pytest.FixtureRequest, networks: Path, trt_build: EngineFactory, runtime: str) -> Case:
    name, shapes, precision, tried = request.param
    if name == "bert_base" and runtime == "tensorrt":
        pytest.skip("needs a TensorRT that knows opset 17; 8.5 does not build this export")
    try:
        engine = trt_build(
            networks / f"{name}.onnx", name=f"{name}-{precision}", runtime=runtime, precision=precision, **shapes
        )
    except EngineError as error:
        if precision == "int8" and runtime == "tensorrt_rtx":
            pytest.skip(f"needs TensorRT for RTX 1.7 for convolutions in INT8, found {error.reason[:100]}")
        raise
    return engine, precision, tried


def test_outputs_track_fp32(case: Case, networks: Path) -> None:
    engine, precision, tried = case
    model = engine.origin or engine.model
    assert model is not None
    shadow = Shadow(model.path, networks)
    for shapes in tried:
        feed = make_feed(engine.info.inputs, shapes)
        (output,) = compare(engine.run(feed), shadow.run(feed), precision=DTYPES[precision]).outputs
        print(f"{engine.info.name} {shapes}: relative L2 {output.relative_l2:.2e}")
        assert output.relative_l2 < RELATIVE_L2[precision]


def test_every_layer_is_timed(case: Case, trt_profiler: Profiler) -> None:
    engine, _, _ = case
    profile = trt_profiler(engine)
    timed = {layer.layer.name for layer in profile.layers}
    listed = set(inspected_names(engine))
    print(
        f"{engine.info.name}: {profile.total_ms:.3f} ms, {len(timed)} layers timed of {len(listed)} in the inspector, "
        f"{len(timed - listed)} unknown; {profile.overheads}"
    )
    assert timed <= listed
    nodes = {node for layer in profile.layers for node in layer.layer.onnx_nodes}
    assert engine.model is not None
    heavy = {node.name for node in engine.model.nodes if node.op_type in ("Conv", "MatMul", "Gemm")}
    assert len(heavy - nodes) <= 0.05 * len(heavy), sorted(heavy - nodes)[:5]
    profile.check()


def test_what_was_asked_for_was_built(case: Case) -> None:
    engine, precision, _ = case
    print(f"{engine.info.name}: {[finding.what[:100] for finding in engine.findings]}")
    assert engine.precision == DTYPES[precision]
    assert not [finding for finding in engine.findings if finding.rule == "precision.not-honoured"]


def test_structure(case: Case, trt_structure: Callable[[Engine], StructureOf]) -> None:
    trt_structure(case[0]).check()


def test_log(case: Case, trt_log: Callable[[Engine], Log]) -> None:
    log = trt_log(case[0])
    print(f"{case[0].info.name}: {len(log.records)} messages, {len(log.warnings)} warnings")
    assert log.records
    log.check()


def test_comparison_by_fixture(
    case: Case,
    trt_compare: Comparer,
    networks: Path,
) -> None:
    """The default tolerance of the precision holds at the optimal shape."""
    engine, precision, _ = case
    if precision == "int8":
        pytest.skip("needs a real calibration")
    model = engine.origin or engine.model
    assert model is not None
    trt_compare(engine, Shadow(model.path, networks)).check()
