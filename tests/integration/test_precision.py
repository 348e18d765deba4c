"""A precision by its short name: what is built, what is compared with, and what is said where it was not honoured."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import version_converter

from tests import models
from tests.integration.conftest import Project, needs_rtx, text

RTX = "tensorrt_rtx"
STRUCTURE = """
import pytest

def test_it(trt_build, trt_structure):
    engine = trt_build("net.onnx", precision={precision!r}, runtime={runtime!r})
    assert trt_build("net.onnx", precision={precision!r}, runtime={runtime!r}) is engine
    assert engine.layer({node!r}).precision == {dtype!r}
    assert [spec.dtype for spec in engine.info.inputs] == ["float32"]
    assert engine.origin is None if {precision!r} == "fp32" else engine.origin.path.name == "net.onnx"
    assert engine.findings == ()
    trt_structure(engine).check()
"""
AGREES = """
from pytest_trtgray.feeds import make_feed

def test_it(trt_build, trt_shadow, trt_compare):
    engine = trt_build("net.onnx", precision={precision!r})
    trt_compare(engine, trt_shadow("net.onnx"), rtol=0.1, atol=0.1).check()
    with_default = trt_compare(engine, trt_shadow("net.onnx"), rtol=1e-7, atol=0).outputs[0].relative_l2
    assert {exact} == (with_default < 1e-6), with_default
"""


def newest(project: Project, name: str = "net.onnx") -> Path:
    """A small convolutional network of an opset that has FP8 and BF16 everywhere."""
    source = models.conv_net(project.path / "source.onnx", batch=2)
    proto = version_converter.convert_version(onnx.load(str(source)), 22)
    proto.ir_version = 10
    return models.write(proto, project.path / name)


def with_einsum(project: Project, count: int) -> None:
    """One MatMul, which INT8 quantises, and ``count`` Einsums, which it does not."""
    graph = models.Graph()
    tensor = graph.add("MatMul", [graph.input("x", [4, 16]), graph.weight("w", 16, 16)], "/MatMul")
    for index in range(count):
        operands = [tensor, graph.weight(f"v{index}", 16, 16)]
        tensor = graph.add("Einsum", operands, f"/Einsum{index}", equation="ij,jk->ik")
        tensor = graph.add("Tanh", [tensor], f"/Tanh{index}")
    graph.add("Identity", [tensor], "/Identity", "y")
    graph.output("y", [4, 16])
    graph.save(project.path / "net.onnx")


@needs_rtx
@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", "float32"), ("fp16", "float16"), ("bf16", "bfloat16"), ("int8", "int8"), ("fp8", "fp8")],
)
def test_tensorrt_for_rtx_builds_it(project: Project, precision: str, dtype: str) -> None:
    newest(project)
    values = {"precision": precision, "runtime": RTX, "node": "/layer0/conv1/Conv", "dtype": dtype}
    project.pytester.makepyfile(STRUCTURE.format(**values))
    project.run("--update-baselines").assert_outcomes(passed=1)
    project.run().assert_outcomes(passed=1)
    (folder,) = {name.partition("/")[0] for name in project.baselines()}

    assert folder.endswith(dtype)


@pytest.mark.parametrize(("precision", "exact"), [("fp32", True), ("fp16", False), ("int8", False), ("fp8", False)])
def test_onnxruntime_computes_it_near_the_original(project: Project, precision: str, exact: bool) -> None:
    newest(project)
    project.pytester.makepyfile(AGREES.format(precision=precision, exact=exact))
    project.run().assert_outcomes(passed=1)


def test_a_precision_that_the_processor_has_not_is_one_clear_error(project: Project) -> None:
    newest(project)
    project.pytester.makepyfile("def test_it(trt_build):\n    trt_build('net.onnx', precision='bf16')\n")
    result = project.run()
    result.assert_outcomes(failed=1)
    assert "cannot load it: [ONNXRuntimeError] : 9 : NOT_IMPLEMENTED" in text(result)
    assert f"{project.path / 'net.onnx'} (converted to bf16): ONNX Runtime" in text(result)
    assert ".trtgray_cache" not in text(result)


def test_the_suites_reference_is_the_fp32_original(project: Project) -> None:
    """Not the converted model, whose quantisation would then go unnoticed."""
    newest(project)
    project.pytester.makeconftest(
        """
        import pytest

        @pytest.fixture(scope="session")
        def trt_engine(trt_build, pytestconfig):
            from pytest_trtgray.state import trt_session
            session = trt_session(pytestconfig)
            session.current = trt_build("net.onnx", precision="int8")
            yield session.current
            session.current = None
        """
    )
    project.pytester.makepyfile(
        """
        import numpy as np
        from pytest_trtgray.feeds import make_feed

        def test_it(trt_engine, trt_shadow):
            assert trt_shadow.current.model.path.name == "net.onnx"
            assert trt_shadow.current.derived == ()
            feed = make_feed(trt_engine.info.inputs, {"x": (2, 3, 16, 16)})
            original, quantised = trt_shadow.run(feed)["logits"], trt_engine.run(feed)["logits"]
            assert trt_shadow.run(feed)["logits"].dtype == np.float32
            error = np.abs(original - quantised).max() / np.abs(original).max()
            assert 1e-5 < error < 0.2
        """
    )
    project.run().assert_outcomes(passed=1)


def test_other_calibrations_are_other_engines(project: Project) -> None:
    newest(project)
    project.pytester.makepyfile(
        """
        import numpy as np

        def feeds(scale):
            return [{"x": np.full((2, 3, 16, 16), scale, np.float32)}]

        def test_it(trt_build):
            small = trt_build("net.onnx", precision="int8", calibration=feeds(1))
            assert trt_build("net.onnx", precision="int8", calibration=feeds(1)) is small
            assert trt_build("net.onnx", precision="int8", calibration=iter(feeds(1))) is small
            large = trt_build("net.onnx", precision="int8", calibration=feeds(100))
            by_default = trt_build("net.onnx", precision="int8")
            assert len({engine.info.path for engine in (small, large, by_default)}) == 3
            x = feeds(1)[0]
            assert not np.array_equal(small.run(x)["logits"], large.run(x)["logits"])
        """
    )
    project.run().assert_outcomes(passed=1)
    cached = {path: path.stat().st_mtime_ns for path in (project.path / ".trtgray_cache").glob("*.onnx")}
    assert len(cached) == 3
    project.run().assert_outcomes(passed=1)
    assert {path: path.stat().st_mtime_ns for path in (project.path / ".trtgray_cache").glob("*.onnx")} == cached


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("'net.onnx', precision='fp64'", "precision='fp64': is not known"),
        ("'net.onnx', precision='FP16'", "Choose one of fp32, fp16, bf16, int8, fp8"),
        ("'half.onnx', precision='int8'", "half.onnx: is a model in float16; int8 can only be made from the FP32"),
        ("'half.onnx', precision='fp32'", "half.onnx: is a model in float16; fp32 can only be made from the FP32"),
        ("'old.onnx', precision='fp8'", "old.onnx: has opset 17; fp8 needs opset 19"),
        (
            "'plain.onnx', precision='int8'",
            "plain.onnx: has nothing to quantise: no Conv, ConvTranspose, Gemm or MatMul",
        ),
        ("'net.onnx', precision='int8', calibration=[{}]", "net.onnx: a calibration feed has inputs []"),
        (
            "'net.onnx', precision='int8', calibration=[{'x': np.zeros((1, 3, 16, 16), np.float32)}]",
            "calibration input 'x' has shape 1x3x16x16, the model wants 2x3x16x16",
        ),
        (
            "'net.onnx', precision='int8', calibration=[{'x': np.zeros((2, 3, 16, 16))}]",
            "calibration input 'x' is float64, the model wants float32",
        ),
        (
            "'net.onnx', precision='int8', calibration=[{'x': np.full((2, 3, 16, 16), np.nan, np.float32)}]",
            "calibration input 'x' has values that are not finite",
        ),
    ],
)
def test_what_cannot_be(project: Project, call: str, message: str) -> None:
    newest(project)
    models.to_fp16(project.mlp("old.onnx"), project.path / "half.onnx")
    models.unary(project.path / "plain.onnx", "Relu")
    project.pytester.makepyfile(f"import numpy as np\ndef test_it(trt_build):\n    trt_build({call})\n")
    result = project.run()
    result.assert_outcomes(failed=1)
    assert message in text(result)


@needs_rtx
@pytest.mark.parametrize(
    ("einsums", "severity", "what"),
    [
        (1, "advice", "1 of 2 convolutions and matrix products compute in int8; FP32: /Einsum0"),
        (2, "warning", "1 of 3 convolutions and matrix products compute in int8; FP32: /Einsum0"),
    ],
)
def test_a_precision_that_not_every_layer_has_is_told(project: Project, einsums: int, severity: str, what: str) -> None:
    with_einsum(project, einsums)
    project.pytester.makepyfile(
        f"""
        def test_it(trt_build, trt_structure):
            engine = trt_build("net.onnx", precision="int8", runtime="{RTX}")
            assert [finding.rule for finding in engine.findings] == ["precision.partly"]
            trt_structure(engine).check()
        """
    )
    recorded = project.run("--update-baselines", "--trt-json=run.json")
    recorded.assert_outcomes(passed=1)
    for result in (recorded, project.run("--trt-json=run.json"), project.run("--trt-json=run.json", "-n2")):
        result.assert_outcomes(passed=1)
        assert text(result).count(f"{severity}: {what}") == 1
        (check,) = json.loads((project.path / "run.json").read_text())["checks"]
        (finding,) = check["findings"]
        assert (finding["rule"], finding["severity"]) == ("precision.partly", severity)
        assert finding["evidence"] == {"honoured": 1, "total": 1 + einsums, "unknown": 0}


@needs_rtx
def test_a_precision_that_no_layer_has_is_told(project: Project) -> None:
    """No model is known that this builder gives another type altogether; so the finding is made by hand."""
    project.mlp("net.onnx")
    project.pytester.makepyfile(
        f"""
        from pytest_trtgray.engines.precision import built_precision_finding

        def test_it(trt_build, trt_structure):
            engine = trt_build("net.onnx", runtime="{RTX}")
            engine.findings = (built_precision_finding("fp16", engine.layers),)
            trt_structure(engine).check()
        """
    )
    result = project.run("--update-baselines", "--trt-json=run.json")
    result.assert_outcomes(passed=1)
    assert "warning: fp16 was asked for, and none of the" in text(result)
    (check,) = json.loads((project.path / "run.json").read_text())["checks"]
    assert [finding["rule"] for finding in check["findings"]] == ["precision.not-honoured"]
