"""The built-in suite: ``pytest --trt-engine=model.onnx`` in a folder without tests."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import jsonschema
import pytest

from tests import models, planted
from tests.documents import document
from tests.integration.conftest import ENCODER_SHAPES, RECORDS, Project, needs_rtx, printed_command, text

KINDS = ["layers", "outputs", "structure", "log", "shapes"]


def test_collects_five_readable_tests_for_every_engine(project: Project) -> None:
    project.mlp("a.onnx")
    project.mlp("b.onnx", seed=1)
    result = project.run("--trt-engine=a.onnx", "--trt-engine=other=b.onnx", "--collect-only", "-q")
    for name in ("a", "other"):
        for kind in KINDS:
            assert f"trtgray::{kind}[{name}]" in text(result)
    result.stdout.fnmatch_lines(["10 tests collected*"])


def test_steps_aside_for_the_users_own_tests(project: Project) -> None:
    project.mlp()
    project.pytester.makepyfile("def test_name(trt_engine):\n    assert trt_engine.info.name == 'mlp'")
    result = project.run("--trt-engine=mlp.onnx")
    result.assert_outcomes(passed=1)
    assert "trtgray::" not in text(result)


def test_runs_beside_other_tests_where_it_is_named(project: Project) -> None:
    project.mlp()
    project.pytester.makepyfile(test_own="def test_own():\n    pass")
    named = ["test_own.py", "--pyargs", "pytest_trtgray.suite.builtin", "-k", "own or structure"]
    result = project.run("--trt-engine=mlp.onnx", *named, "-o", "trt_on_missing=record")
    result.assert_outcomes(passed=2, deselected=4)
    assert project.baselines()[0].endswith("/trtgray.structure-mlp.json")


def test_an_engine_that_no_test_uses_is_said(project: Project) -> None:
    project.mlp()
    project.pytester.makepyfile("def test_own():\n    pass")
    result = project.run("--trt-engine=mlp.onnx")
    result.assert_outcomes(passed=1)
    assert "no collected test uses trt_engine, so --trt-engine had no effect" in text(result)


def test_is_not_collected_where_the_users_tests_cannot_be(project: Project) -> None:
    project.mlp()
    project.pytester.makepyfile("import nothing_of_this_name")
    result = project.run("--trt-engine=mlp.onnx")
    result.assert_outcomes(errors=1)


def test_is_not_collected_without_an_engine(project: Project) -> None:
    assert project.run().ret == pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.mark.parametrize("kind", KINDS)
def test_k_selects_one_kind(project: Project, kind: str) -> None:
    project.mlp()
    result = project.run("--trt-engine=mlp.onnx", "-k", kind, "-o", "trt_on_missing=record")
    result.assert_outcomes(passed=1, deselected=4)


def test_life_of_a_baseline(project: Project) -> None:
    """Missing; the printed command records; then it passes."""
    project.conv_net()
    missing = project.run("--trt-engine=net.onnx")
    missing.assert_outcomes(passed=3, failed=2)
    assert missing.ret == pytest.ExitCode.TESTS_FAILED
    assert "missing baseline: no timing baseline for trtgray::layers[net]" in text(missing)
    assert project.baselines() == []

    recorded = project.run(*printed_command(missing))
    recorded.assert_outcomes(passed=5)
    assert [name.rpartition("/")[2] for name in project.baselines()] == [
        "trtgray.layers-net.json",
        "trtgray.structure-net.json",
    ]

    again = project.run("--trt-engine=net.onnx")
    again.assert_outcomes(passed=5)


def test_a_changed_weight_fails_on_outputs_and_names_the_worst_element(project: Project) -> None:
    old = project.conv_net("old.onnx")
    models.scale_weight(old, project.path / "net.onnx", "head.weight", 1.05)
    project.record("--trt-engine=net.onnx", "--trt-onnx=net.onnx", "-k", "structure or layers")
    result = project.run("--trt-engine=net.onnx", "--trt-onnx=old.onnx")
    result.assert_outcomes(passed=3, failed=2)
    result.stdout.re_match_lines(
        [r"outputs differ: output 'logits': \d of 5 elements differ; worst at \[0, \d\]: got .*, wanted .*"]
    )


@needs_rtx
def test_an_inserted_node_is_the_only_change_in_tensorrt(project: Project) -> None:
    _inserted_node_is_the_only_change(project, "tensorrt_rtx")


def test_an_inserted_node_is_the_only_change_in_onnxruntime(project: Project) -> None:
    _inserted_node_is_the_only_change(project, "onnxruntime")


def _inserted_node_is_the_only_change(project: Project, runtime: str) -> None:
    models.encoder(project.path / "encoder.onnx")
    args = ["--trt-engine=encoder.onnx", f"--trt-runtime={runtime}", *ENCODER_SHAPES, "-k", "structure"]
    project.record(*args)
    models.insert_matmul(
        project.path / "encoder.onnx",
        project.path / "encoder.onnx",
        before="/encoder/layer.1/attention/query/MatMul",
        name="/planted/MatMul",
    )
    result = project.run(*args)
    result.assert_outcomes(failed=1, deselected=4)
    result.stdout.re_match_lines([r"structure changed: ONNX node '/planted/MatMul' is new \(.*\)$"])
    failure = text(result).partition("FAILURES")[2].partition("=== trtgray")[0]
    assert "fusion changed" not in failure
    assert "computes in" not in failure


@needs_rtx
def test_tensorrt_without_a_gpu_builds_for_real_and_skips_the_rest(project: Project, no_gpu: None) -> None:
    project.conv_net()
    args = ["--trt-engine=net.onnx", "--trt-runtime=tensorrt_rtx", "-rs"]
    result = project.run(*args, "--update-baselines")
    result.assert_outcomes(passed=2, skipped=3)
    assert "net: running a TensorRT for RTX engine needs a GPU: no NVIDIA driver on this machine" in text(result)
    layers = project.baseline("structure").read_text()
    assert "/layer0/conv1/Conv" in layers
    assert '"weights_bytes"' in layers
    project.run(*args).assert_outcomes(passed=2, skipped=3)


def test_a_fault_at_one_shape_is_found_shrunk_and_reproducible(project: Project) -> None:
    planted.scaled_at_batch(project.path / "net.onnx", batch=13, factor=1.1)
    planted.scaled_at_batch(project.path / "reference.onnx", batch=13, factor=1.0)
    result = project.run("--trt-engine=net.onnx", "--trt-onnx=reference.onnx", "-k", "shapes")
    result.assert_outcomes(failed=1, deselected=4)
    result.stdout.fnmatch_lines(
        ["shapes: at x:13x4: outputs differ: *", "*make_feed(trt_engine, {'x': (13, 4)}, seed=*"]
    )
    (line,) = (line.strip() for line in result.outlines if line.strip().startswith("def test_it("))
    (project.path / "test_again.py").write_text(line)
    again = project.run("--trt-engine=net.onnx", "--trt-onnx=reference.onnx")
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["E * outputs differ: output 'y': *"])


def test_a_seed_makes_another_search(project: Project) -> None:
    """Without one, every run is the same; with Hypothesis' own option, CI may look elsewhere every night."""
    for name, factor in (("net.onnx", 1.1), ("reference.onnx", 1.0)):
        planted.faulty_at(project.path / name, batch=13, factor=factor)
    ends = [f"--trt-{which}-shapes=x:{shape}" for which, shape in (("min", "1x1"), ("opt", "8x8"), ("max", "64x64"))]
    args = ["--trt-engine=net.onnx", "--trt-onnx=reference.onnx", *ends, "-k", "shapes", "--trt-json=run.json"]

    def found_after(*more: str) -> int:
        project.run(*args, *more).assert_outcomes(failed=1, deselected=4)
        (check,) = json.loads((project.path / "run.json").read_text())["checks"]
        (finding,) = check["findings"]
        assert (finding["rule"], finding["where"]) == ("shapes.difference", "x:13x1")
        return int(finding["evidence"]["examples"])

    assert found_after() == found_after()
    assert found_after("--hypothesis-seed=3") == found_after("--hypothesis-seed=3")
    assert len({found_after(f"--hypothesis-seed={seed}") for seed in range(4)}) > 1


def test_what_was_tried_is_in_the_report(project: Project) -> None:
    project.mlp()
    project.run("--trt-engine=mlp.onnx", "-k", "shapes", "--trt-json=run.json").assert_outcomes(passed=1, deselected=4)
    (check,) = json.loads((project.path / "run.json").read_text())["checks"]

    assert check["summary"].startswith("32 shapes against the reference (batch 32 of 32), 6 outside refused, ")
    assert check["summary"].endswith(" in changing order")


def test_a_symbolic_first_dimension_gets_a_profile_and_says_so(project: Project) -> None:
    project.mlp()
    result = project.run("--trt-engine=mlp.onnx", "-k", "outputs")
    result.stdout.fnmatch_lines(["*no shapes given; the first dimension gets 1 (min), 8 (opt), 32 (max)*"])


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "xdist"])
def test_details_go_to_the_json_report_only(project: Project, workers: list[str]) -> None:
    """Every layer's row is in the report, also from a worker, and not in JUnit's properties."""
    project.mlp(layers=3)
    project.record("--trt-engine=mlp.onnx", *RECORDS)
    options = ("-k", "not shapes", "--trt-json=run.json", "--junitxml=junit.xml")
    result = project.run("--trt-engine=mlp.onnx", *options, *workers)

    assert result.parseoutcomes()["passed"] == 4
    checks = {check["kind"]: check for check in json.loads((project.path / "run.json").read_text())["checks"]}
    timing = checks["timing"]["details"]
    assert [row["kind"] for row in timing["layers"]] == ["FusedGemm"] * 2 + ["Gemm"]
    assert sum(row["share"] for row in timing["layers"]) == pytest.approx(1, abs=0.01)
    assert [len(run["context"]) > 1 for run in timing["history"]] == [True]
    assert timing["engine"]["change"] == checks["timing"]["change"]
    assert [row["name"] for row in checks["outputs"]["details"]["outputs"]] == ["y"]
    assert len(checks["structure"]["details"]["layers"]) == 3
    assert "p_value" not in (project.path / "junit.xml").read_text()


@pytest.mark.parametrize("slower", [None, 3], ids=["pass", "slower"])
def test_made_up_documents_follow_the_schema(slower: int | None) -> None:
    """Reports are tested with them."""
    validate(document(slower=slower))


def test_the_json_report_follows_its_schema(project: Project) -> None:
    project.mlp(layers=3)
    options = ("--trt-engine=mlp.onnx", "--trt-json=run.json")
    for more in ([], ["--update-baselines"], [], ["--trt-against=mlp.onnx", "-o", "trt_iterations=10"]):
        project.run(*options, *more)
        written = json.loads((project.path / "run.json").read_text())
        assert written["checks"]
        validate(written)


def validate(written: dict[str, Any]) -> None:
    schema = json.loads((files("pytest_trtgray.reporting") / "run.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(written)
