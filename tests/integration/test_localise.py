"""A failed `outputs` test names the node; a test asks for it itself."""

from __future__ import annotations

import json

import pytest

from tests import models
from tests.integration.conftest import ENCODER_SHAPES, Project, needs_rtx, text

OUTPUTS = ("--trt-engine=wrong.onnx", "--trt-onnx=encoder.onnx", *ENCODER_SHAPES, "-k", "outputs")
NODE = "/encoder/layer.1/attention/output/MatMul"


@pytest.fixture
def wrong(project: Project) -> Project:
    """A project with an encoder, and one in which a weight is 2 % too large."""
    path = models.encoder(project.path / "encoder.onnx")
    models.scale_weight(path, project.path / "wrong.onnx", "encoder.layer.1.attention.output.weight", 1.02)
    return project


def test_the_built_in_test_names_the_node(wrong: Project) -> None:
    result = wrong.run(*OUTPUTS, "--trt-json=run.json")
    result.assert_outcomes(failed=1, deselected=4)
    result.stdout.fnmatch_lines(
        [
            "outputs differ: output 'hidden_states': *",
            f"  MatMul '{NODE}' makes the outputs wrong: it adds a relative L2 error of 0.02 to *; what it reads has *",
            "    this alone makes 100% of the outputs' error",
            "    it has a weight, 'encoder.layer.1.attention.output.weight', that is 1.02 times the reference's",
            "    relative L2 error along the depth: *",
            "*origin * localised *",
        ]
    )
    checks = {check["kind"]: check for check in json.loads((wrong.path / "run.json").read_text())["checks"]}
    assert checks["outputs"]["outcome"] == "differs"
    details = checks["origin"]["details"]
    assert details["culprit"] == f"{NODE}_output"
    assert (details["fusions"], details["reproduced"], details["complete"]) == ("untouched", True, True)
    assert [row["tensor"] for row in details["tensors"]][-1] == "hidden_states"
    assert all(set(row) >= {"node", "op", "relative_l2", "made_here"} for row in details["tensors"])


def test_it_can_be_switched_off(wrong: Project) -> None:
    wrong.ini("trt_localise = 0")
    result = wrong.run(*OUTPUTS)
    result.assert_outcomes(failed=1, deselected=4)
    assert "outputs differ" in text(result)
    assert NODE not in text(result)
    assert "origin" not in text(result)


def test_a_failure_of_the_search_does_not_hide_the_verdict(wrong: Project) -> None:
    wrong.pytester.makeconftest(
        """
        import pytest
        from pytest_trtgray.accuracy import tracing

        @pytest.fixture(autouse=True)
        def broken(monkeypatch):
            def measure(self):
                raise ZeroDivisionError("planted")
            monkeypatch.setattr(tracing.Trace, "measure", measure)
        """
    )
    result = wrong.run(*OUTPUTS)
    result.assert_outcomes(failed=1, deselected=4)
    assert "outputs differ: output 'hidden_states'" in text(result)
    assert "not localised: ZeroDivisionError('planted')" in text(result)


def test_right_outputs_are_not_looked_into(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.mlp()
    monkeypatch.setattr("pytest_trtgray.instruments.Comparer.localise", lambda *_, **__: pytest.fail("called"))
    project.run("--trt-engine=mlp.onnx", "-k", "outputs").assert_outcomes(passed=1, deselected=4)


def test_in_a_test(wrong: Project) -> None:
    wrong.pytester.makepyfile(
        """
        import pytest
        from pytest_trtgray import Localisation, localise
        from pytest_trtgray.errors import TrtGrayError

        SHAPES = dict(min_shapes="ids:1x2,mask:1x1x1x2", opt_shapes="ids:2x8,mask:2x1x1x8",
                      max_shapes="ids:4x16,mask:4x1x1x16")

        @pytest.fixture
        def engine(trt_build):
            return trt_build("wrong.onnx", **SHAPES)

        def test_by_shadow(engine, trt_shadow, trt_compare):
            found = trt_compare.localise(engine, trt_shadow("encoder.onnx"))
            assert isinstance(found, Localisation)
            assert found.culprit.node == "/encoder/layer.1/attention/output/MatMul"
            assert not found.ok

        @pytest.mark.trt_shapes(ids=(3, 5), mask=(3, 1, 1, 5))
        def test_by_path_at_other_shapes_with_little_memory(engine, trt_compare):
            found = trt_compare.localise(engine, "encoder.onnx", budget_bytes=20_000)
            assert found.culprit.node == "/encoder/layer.1/attention/output/MatMul"
            assert found.passes > 5
            assert found.peak_bytes <= 20_000
            assert found.tensors[-1].elements == 3 * 5 * 16

        def test_a_tolerance_that_allows_it(engine, trt_compare):
            trt_compare.localise(engine, "encoder.onnx", rtol=0.5, atol=0.5).check()

        def test_against_an_engine(engine, trt_compare):
            with pytest.raises(TrtGrayError, match="errors are localised against the FP32 reference"):
                trt_compare.localise(engine, engine)

        def test_fails_with_the_node_on_its_first_line(engine, trt_compare):
            trt_compare.localise(engine, "encoder.onnx").check()
        """
    )
    result = wrong.run()
    result.assert_outcomes(passed=4, failed=1)
    assert f"localised: MatMul '{NODE}' makes the outputs wrong" in text(result)


def test_of_its_own_model_where_none_is_given(wrong: Project) -> None:
    """The reference of `trt_engine` is made from its own model, and knows nothing of a wrong weight."""
    wrong.pytester.makepyfile(
        """
        def test_it(trt_engine, trt_shadow, trt_compare):
            assert trt_compare.localise(trt_engine, trt_shadow).ok
        """
    )
    wrong.run("--trt-engine=wrong.onnx", *ENCODER_SHAPES).assert_outcomes(passed=1)


@needs_rtx
def test_an_engine_that_cannot_run_here_is_skipped(wrong: Project, no_gpu: None) -> None:
    wrong.pytester.makepyfile(
        """
        def test_it(trt_engine, trt_shadow, trt_compare):
            trt_compare.localise(trt_engine, trt_shadow)
        """
    )
    result = wrong.run("--trt-engine=wrong.onnx", "--trt-runtime=tensorrt_rtx", *ENCODER_SHAPES, "-rs")
    result.assert_outcomes(skipped=1)
    assert "needs a GPU" in text(result)
