"""An engine against itself, and tolerances that were measured: as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

from tests import models, planted
from tests.integration.conftest import Project, needs_rtx, text
from tests.models import Graph


def mixing(path: Path) -> Path:
    """A model whose rows see each other: a softmax over the batch."""
    graph = Graph()
    graph.add("Softmax", [graph.input("x", ["batch", 4])], "/Softmax", "y", axis=0)
    graph.output("y", ["batch", 4])
    return graph.save(path)


def test_the_built_in_suite_looks_at_them(project: Project) -> None:
    project.mlp()
    result = project.run("--trt-engine=mlp.onnx", "-k", "outputs", "--trt-json=run.json")

    result.assert_outcomes(passed=1, deselected=4)
    result.stdout.fnmatch_lines(["*relations pass*determinism, batch consistency, row permutation hold; padding*"])
    kinds = [check["kind"] for check in json.loads((project.path / "run.json").read_text())["checks"]]
    assert kinds == ["outputs", "relations"]


def test_the_built_in_suite_says_both_that_outputs_differ_and_why(project: Project) -> None:
    planted.scaled_at_batch(project.path / "net.onnx", batch=8, factor=1.1)
    planted.scaled_at_batch(project.path / "reference.onnx", batch=8, factor=1.0)
    result = project.run("--trt-engine=net.onnx", "--trt-onnx=reference.onnx", "-k", "outputs")

    result.assert_outcomes(failed=1, deselected=4)
    result.stdout.fnmatch_lines(
        [
            "outputs differ: output 'y': *",
            "*reference: Shadow reference.onnx (FP32*",
            "*-> The output is 1.1 times the reference*",
            "no batch consistency: row * of a batch of 8, against the same row alone: output 'y': *",
            "*relations fail*no batch consistency; determinism, row permutation hold*",
        ]
    )


def test_a_model_that_mixes_rows_passes_the_built_in_suite(project: Project) -> None:
    """Its reference does the same."""
    mixing(project.path / "net.onnx")
    result = project.run("--trt-engine=net.onnx", "-k", "outputs")

    result.assert_outcomes(passed=1, deselected=4)
    assert "batch consistency: the reference does not have this property either" in text(result)


def test_in_a_test(project: Project) -> None:
    project.mlp("net.onnx")
    mixing(project.path / "mixing.onnx")
    models.mlp(project.path / "static.onnx", batch=4)
    project.pytester.makepyfile(
        """
        import pytest
        from pytest_trtgray import check_batch_consistency, check_determinism, make_feed

        def test_all(trt_build, trt_metamorphic):
            trt_metamorphic(trt_build("net.onnx"), shapes={"x": (5, 8)}).check()

        def test_one(trt_build):
            engine = trt_build("mixing.onnx")
            feed = make_feed(engine.info.inputs, {"x": (3, 4)})
            check_determinism(engine, feed).check()
            check_batch_consistency(engine, feed).check()

        @pytest.mark.trt_shapes(x=(3, 4))
        def test_excused(trt_build, trt_shadow, trt_metamorphic):
            engine = trt_build("mixing.onnx")
            trt_metamorphic(engine, reference=trt_shadow("mixing.onnx")).check()

        def test_makes_no_sense(trt_build):
            engine = trt_build("static.onnx")
            check_batch_consistency(engine, make_feed(engine.info.inputs, {"x": (4, 8)})).check()
        """
    )
    result = project.run("-rs")

    result.assert_outcomes(passed=2, failed=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "*AssertionError: no batch consistency: row 0 of a batch of 3, against the same row alone: output 'y'*",
            "SKIPPED*test_in_a_test.py:*batch consistency: no input has a dynamic first dimension",
        ]
    )


@needs_rtx
def test_an_engine_that_cannot_run_here_is_skipped(project: Project, no_gpu: None) -> None:
    project.mlp("net.onnx")
    project.pytester.makepyfile(
        """
        def test_it(trt_build, trt_metamorphic):
            trt_metamorphic(trt_build("net.onnx", runtime="tensorrt_rtx")).check()
        """
    )
    result = project.run("-rs")
    result.assert_outcomes(skipped=1)
    assert "needs a GPU" in text(result)


def test_a_noise_floor_as_tolerance(project: Project) -> None:
    """Measured in FP16, it lets FP16 pass and finds a weight that is a twentieth off."""
    project.mlp("net.onnx", layers=3)
    models.scale_weight(project.path / "net.onnx", project.path / "changed.onnx", "fc1.weight", 1.05)
    project.pytester.makepyfile(
        """
        import pytest
        from pytest_trtgray import make_feed, noise_floor

        @pytest.fixture
        def floor(trt_build, trt_shadow):
            shadow, half = trt_shadow("net.onnx"), trt_build("net.onnx", precision="fp16")
            return noise_floor(shadow, half, [make_feed(shadow.inputs, {"x": (8, 8)}, seed) for seed in range(1, 5)])

        def test_fp16(trt_build, trt_shadow, trt_compare, floor):
            engine = trt_build("net.onnx", precision="fp16")
            trt_compare(engine, trt_shadow("net.onnx"), per_output=floor).check()
            trt_compare(engine, trt_shadow("net.onnx"), tolerance=floor["y"]).check()

        def test_changed(trt_build, trt_shadow, trt_compare, floor):
            trt_compare(trt_build("changed.onnx"), trt_shadow("net.onnx"), per_output=floor).check()

        def test_misspelt(trt_build, trt_shadow, trt_compare):
            with pytest.raises(ValueError, match="precision='half' is unknown"):
                trt_compare(trt_build("net.onnx"), trt_shadow("net.onnx"), precision="half")
        """
    )
    result = project.run()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*outputs differ: output 'y': *", "*reference: Shadow net.onnx (FP32*"])


def test_outputs_that_are_nan_go_into_the_report(project: Project) -> None:
    """JSON has no NaN, the report has it all the same."""
    graph = Graph()
    graph.add("Sqrt", [graph.input("x", [2, 4])], "/Sqrt", "y")
    graph.output("y", [2, 4])
    graph.save(project.path / "net.onnx")
    result = project.run("--trt-engine=net.onnx", "-k", "outputs", "--trt-json=run.json")

    result.assert_outcomes(failed=1, deselected=4)
    (row,) = json.loads((project.path / "run.json").read_text())["checks"][0]["details"]["outputs"]
    assert row["worst"][0]["got"] == "nan"
    assert row["non_finite"] == row["wrong"] > 0
    assert row["max_ulp"] is not None
    assert len(row["rows"]) == 2
    assert sum(row["histogram"]["counts"]) == 8 - row["non_finite"]
    assert len(row["histogram"]["counts"]) == len(row["histogram"]["edges"])
