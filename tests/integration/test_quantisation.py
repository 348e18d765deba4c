"""Scales of Q/DQ models in a run of pytest: the fixture, the built-in test, a chosen calibration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import models, quantised
from tests.integration.conftest import Project, text

WEIGHT = "head.weight_QuantizeLinear"
ACTIVATION = "/layer0/conv1/Relu_output_QuantizeLinear"
LOOSE = ("-k", "outputs", "-o", "trt_rtol=0.3", "-o", "trt_atol=0.3")

FIXTURE = """
import numpy as np
import pytest
from tests import quantised

def feeds(first):
    return quantised.feeds_for("net.onnx", 3, first)

SHAPES = dict.fromkeys(["min_shapes", "opt_shapes", "max_shapes"], "x:4x3x16x16")

def test_healthy(trt_build, trt_quantisation):
    engine = trt_build("net.onnx", precision="int8", calibration=feeds(0), **SHAPES)
    found = trt_quantisation(engine, feeds(100), calibration=feeds(0))
    found.check(min_snr_db=30, max_clipped=0.001)
    assert found.tensor("head.weight").role == "weight"

def test_by_path(trt_quantisation):
    with pytest.raises(AssertionError, match="of the values are clipped"):
        trt_quantisation("bad.onnx", feeds(100), reference="net.onnx").check()
"""


@pytest.fixture
def net(project: Project) -> Path:
    source = models.conv_net(project.path / "net.onnx", blocks=2)
    return quantised.quantised(source, project.path / "int8.onnx")


def test_the_fixture(project: Project, net: Path) -> None:
    quantised.rescale(net, project.path / "bad.onnx", ACTIVATION, 1 / 8)
    project.pytester.makepyfile(FIXTURE)
    result = project.run()
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "  scales    suspect      bad.onnx: 12 tensors in int8*",
            "  scales    pass         12 tensors in int8, SNR at least 3? dB*",
        ]
    )


def test_beside_the_outputs_of_a_healthy_model(project: Project, net: Path) -> None:
    result = project.run("--trt-engine=int8.onnx", *LOOSE)
    result.assert_outcomes(passed=1, deselected=4)
    result.stdout.fnmatch_lines(
        ["  outputs   pass*", "  scales    pass         6 tensors in int8, SNR at least 4? dB*"]
    )
    assert "warning" not in text(result)


def test_a_weight_that_is_clipped_is_said_although_the_outputs_pass(project: Project, net: Path) -> None:
    quantised.rescale(net, project.path / "bad.onnx", WEIGHT, 0.4)
    result = project.run("--trt-engine=bad.onnx", "-k", "outputs", "-o", "trt_rtol=9", "-o", "trt_atol=9")
    result.assert_outcomes(passed=1, deselected=4)
    result.stdout.fnmatch_lines(["  scales    suspect*", "warning: weight 'head.weight' of /head/Gemm*clipped*"])


def test_an_activation_explains_outputs_that_differ(project: Project, net: Path) -> None:
    """The input is random, and says so."""
    quantised.rescale(net, project.path / "bad.onnx", ACTIVATION, 1 / 16)
    result = project.run("--trt-engine=bad.onnx", *LOOSE[:2])
    result.assert_outcomes(failed=1, deselected=4)
    result.stdout.fnmatch_lines(
        [
            "outputs differ: *",
            "advice: with inputs that need not be typical, activation '/layer0/conv1/Relu_output' of*",
        ]
    )


def test_the_fp32_original_is_the_reference(project: Project, net: Path) -> None:
    result = project.run("--trt-engine=int8.onnx", "--trt-onnx=net.onnx", *LOOSE)
    result.assert_outcomes(passed=1, deselected=4)
    result.stdout.fnmatch_lines(["  scales    pass         6 tensors in int8*"])


def test_a_model_without_quantisation_has_no_such_line(project: Project) -> None:
    project.mlp()
    result = project.run("--trt-engine=mlp.onnx", "-k", "outputs")
    result.assert_outcomes(passed=1, deselected=4)
    assert "scales" not in text(result)


def test_a_calibration_method(project: Project) -> None:
    models.conv_net(project.path / "net.onnx", batch=2)
    project.pytester.makepyfile("""
        import pytest
        from pytest_trtgray.errors import TrtGrayError

        def test_it(trt_build, trt_shadow, trt_compare):
            entropy = trt_build("net.onnx", precision="int8", calibration_method="entropy")
            assert trt_build("net.onnx", precision="int8", calibration_method="entropy") is entropy
            assert trt_build("net.onnx", precision="int8") is not entropy
            trt_compare(entropy, trt_shadow("net.onnx"), rtol=0.3, atol=0.3).check()

        @pytest.mark.parametrize("options", [
            {"precision": "int8", "calibration_method": "kl"},
            {"precision": "fp8", "calibration_method": "entropy"},
            {"precision": "fp16", "calibration_method": "minmax"},
        ])
        def test_what_is_refused(trt_build, options):
            with pytest.raises(TrtGrayError, match="calibration_method"):
                trt_build("net.onnx", **options)
    """)
    project.run().assert_outcomes(passed=4)


def test_every_tensor_is_in_the_json_report(project: Project, net: Path) -> None:
    project.run("--trt-engine=int8.onnx", "--trt-json=report.json", *LOOSE)
    report = json.loads((project.path / "report.json").read_text("utf-8"))
    (scales,) = (check for check in report["checks"] if check["kind"] == "scales")
    rows = {row["tensor"]: row for row in scales["details"]["tensors"]}

    assert set(rows) == {name.removesuffix("_QuantizeLinear") for name in quantised.quantisers(net) if "weight" in name}
    assert rows["head.weight"]["readers"] == ["/head/Gemm"]
    assert rows["head.weight"]["snr_db"] > 40
