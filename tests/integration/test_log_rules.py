"""Rules for logs in a user's project, and what a build does not say."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from tests.integration.conftest import Project, needs_rtx, text


def test_a_mistake_in_a_rule_is_one_message_before_anything_runs(project: Project) -> None:
    (project.path / "own.toml").write_text(
        '[[rule]]\ncode = "MINE"\nseverity = "loud"\ncause = "c"\nremedy = "r"\nmatch = [{ text = "x" }]\n'
    )
    project.ini("trt_rules = own.toml")
    result = project.run_apart(f"--trt-engine={project.mlp()}", "-k", "log")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    said = text(result)
    assert "own.toml: rule MINE: severity: 'loud' is not one of error, warning, advice" in said
    assert "Traceback" not in said


def test_rules_lie_beside_the_ini_file(project: Project) -> None:
    (project.path / "own.toml").write_text("[[noise]]\ntext = 'telemetry'\n")
    project.ini("trt_rules = own.toml")
    sub = project.path / "sub"
    sub.mkdir()

    assert (
        project.run_apart(f"--rootdir={project.path}", f"--trt-engine={project.mlp()}", "-k", "log", str(sub)).ret == 0
    )


@needs_rtx
def test_weights_that_are_nan_are_a_finding_though_the_build_is_silent(project: Project) -> None:
    path = project.mlp()
    proto = onnx.load(str(path))
    weight = proto.graph.initializer[0]
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(proto, str(path))
    report = project.path / "report.json"
    project.run_apart(f"--trt-engine={path}", "--trt-runtime=tensorrt_rtx", "-k", "log", f"--trt-json={report}")

    rules = [finding["rule"] for check in json.loads(report.read_text())["checks"] for finding in check["findings"]]
    assert "silent.nan-weights" in rules
