"""The structure of an engine in a user's project, built by TensorRT for RTX without a GPU."""

from __future__ import annotations

import json

import pytest

from tests import models, recordings
from tests.integration.conftest import ENCODER_SHAPES, Project, needs_rtx, text
from tests.unit.engines.test_scopes import with_one_more

RTX = ("--trt-runtime=tensorrt_rtx", "-k", "structure")
ADVICE = "advice: attention is not fused"
SCOPED = ("--trt-min-shapes=x:1x8x16", "--trt-opt-shapes=x:2x8x16", "--trt-max-shapes=x:4x8x16")


@needs_rtx
class TestAdvice:
    def test_is_shown_and_fails_nothing(self, project: Project) -> None:
        models.encoder(project.path / "encoder.onnx")
        result = project.run(
            "--trt-engine=encoder.onnx", *RTX, *ENCODER_SHAPES, "--update-baselines", "--trt-json=r.json"
        )
        result.assert_outcomes(passed=1, deselected=4)
        (check,) = json.loads((project.path / "r.json").read_text())["checks"]

        assert ADVICE in text(result)
        assert [finding["rule"] for finding in check["findings"]] == ["structure.OPT-20"]
        assert check["findings"][0]["severity"] == "advice"

    def test_can_be_switched_off(self, project: Project) -> None:
        models.encoder(project.path / "encoder.onnx")
        project.ini("trt_advice = false")
        result = project.run("--trt-engine=encoder.onnx", *RTX, *ENCODER_SHAPES, "--update-baselines")

        result.assert_outcomes(passed=1, deselected=4)
        assert ADVICE not in text(result)

    def test_a_test_gets_all_of_it(self, project: Project) -> None:
        models.encoder(project.path / "encoder.onnx")
        project.pytester.makepyfile(
            """
            def test_structure(trt_build, trt_structure):
                engine = trt_build("encoder.onnx", runtime="tensorrt_rtx", min_shapes="ids:1x2,mask:1x1x1x2",
                                   opt_shapes="ids:2x8,mask:2x1x1x8", max_shapes="ids:4x16,mask:4x1x1x16")
                assert [finding.rule for finding in trt_structure(engine).advice] == ["structure.OPT-20"]
            """
        )
        project.run().assert_outcomes(passed=1)


@needs_rtx
def test_the_log_of_a_build_is_enough(project: Project) -> None:
    """What one machine has logged is compared on another one, in a test."""
    recordings.unpacked("rtx17_bert_base.log", project.path)
    recordings.unpacked("rtx17_bert_base_inserted.log", project.path)
    project.pytester.makepyfile(
        """
        from pytest_trtgray.structure import diff, read_layers

        def test_same_engine():
            old, new = (read_layers(f"rtx17_bert_base{name}.log") for name in ("", "_inserted"))
            diff(old, new).check()
        """
    )
    result = project.run()
    result.assert_outcomes(failed=1)
    assert "structure changed: ONNX node '/inserted/MatMul' is new (gemm float32, fused with " in text(result)


@needs_rtx
def test_an_inserted_module_of_a_model_whose_nodes_are_numbered(project: Project) -> None:
    """PyTorch's exporter numbers nodes through; modules keep them apart all the same."""
    path = recordings.model("torch215_scopes", project.path)
    arguments = (f"--trt-engine=net={path.name}", *RTX, *SCOPED)
    project.run(*arguments, "--update-baselines").assert_outcomes(passed=1, deselected=4)
    project.run(*arguments).assert_outcomes(passed=1, deselected=4)
    with_one_more(path, path)
    result = project.run(*arguments)
    result.assert_outcomes(failed=1, deselected=4)
    assert "structure changed: ONNX node '/blocks.0/mlp/3/Tanh' is new (" in text(result)
    assert "and 1 more)" not in text(result)


@needs_rtx
def test_a_lost_fusion_names_the_nodes(project: Project) -> None:
    """A tensor that became an output of the network has to be written."""
    models.encoder(project.path / "encoder.onnx", layers=1)
    arguments = ("--trt-engine=encoder.onnx", *RTX, *ENCODER_SHAPES)
    project.run(*arguments, "--update-baselines").assert_outcomes(passed=1, deselected=4)
    models.with_output(project.path / "encoder.onnx", "/encoder/layer.0/intermediate/Add")
    result = project.run(*arguments)
    result.assert_outcomes(failed=1, deselected=4)
    assert "structure changed: output /encoder/layer.0/intermediate/Add_output" in text(result)
    assert "fusion lost: 1 -> " in text(result)
    assert "before: /encoder/layer.0/intermediate/Add + " in text(result)
    assert "a tensor that became an output of the network" in text(result)


@pytest.mark.parametrize("name", ["rtx15_bert_base_fp16", "trt85_resnet50_int8"])
def test_an_inspectors_json_without_any_runtime(project: Project, name: str) -> None:
    recordings.unpacked(f"{name}.layers.json", project.path)
    project.pytester.makepyfile(
        f"""
        from pytest_trtgray.structure import read_layers

        def test_precision():
            layers = read_layers("{name}.layers.json")
            assert {{layer.precision for layer in layers}} >= {{"float16"}}
        """
    )
    project.run_apart("-p", "no:cacheprovider").assert_outcomes(passed=1)
