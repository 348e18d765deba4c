"""``pytest --trt-engine=model.onnx`` on a GPU."""

from __future__ import annotations

import pytest

from tests import models, planted
from tests.integration.conftest import ENCODER_SHAPES, Project, text


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    return Project(pytester)


def test_the_suite_runs_all_five(project: Project, runtime: str) -> None:
    models.encoder(project.path / "encoder.onnx")
    args = ["--trt-engine=encoder.onnx", f"--trt-runtime={runtime}", "--trt-require-gpu", *ENCODER_SHAPES]
    project.run_apart(*args, "--update-baselines").assert_outcomes(passed=5)
    again = project.run_apart(*args)
    again.assert_outcomes(passed=5)
    print(text(again))


def test_a_planted_fault_is_found(project: Project, runtime: str) -> None:
    planted.scaled_at_batch(project.path / "net.onnx", batch=13, factor=1.1)
    planted.scaled_at_batch(project.path / "good.onnx", batch=13, factor=1.0)
    result = project.run_apart(
        "--trt-engine=net.onnx", "--trt-onnx=good.onnx", f"--trt-runtime={runtime}", "-k", "shapes"
    )
    result.assert_outcomes(failed=1, deselected=4)
    result.stdout.fnmatch_lines(["at x:13x4: outputs differ: *"])


def test_the_architecture_decides(project: Project) -> None:
    project.pytester.makepyfile(
        "import pytest\n"
        "@pytest.mark.trt_arch(min='sm_75')\ndef test_new():\n    pass\n"
        "@pytest.mark.trt_arch(max='sm_70')\ndef test_old():\n    raise AssertionError\n"
        "@pytest.mark.trt_requires(memory_gb=1, precision='fp16')\ndef test_memory():\n    pass\n"
    )
    project.run_apart("--trt-require-gpu").assert_outcomes(passed=2, skipped=1)
