"""``trt_profiler.beside`` in a user's test: the terminal, the document, and what a machine without PyTorch says."""

from __future__ import annotations

import json

import pytest

from tests.integration.conftest import Project
from tests.torch_models import Net, export, torch

TEST = """
import torch
from tests.torch_models import Net

def test_modules(trt_build, trt_profiler):
    torch.set_num_threads(1)
    found = trt_profiler.beside(trt_build("net.onnx"), Net(), torch.zeros(2, 8, 64), iterations=3)
    assert found["head"].engine_us
"""


@pytest.fixture
def exported(project: Project) -> Project:
    export(Net(), torch.zeros(2, 8, 64), project.path / "net.onnx", dynamo=False)
    project.pytester.makepyfile(TEST)
    return project


def test_the_table_is_in_the_terminal_and_in_the_document(exported: Project) -> None:
    result = exported.run(
        "--trt-json=run.json", "--trt-report=run.html", "--trt-summary=run.md", "--trt-metrics=r.prom"
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["  torch     measured     * in PyTorch (cpu), * as engine, gain *"])
    result.stdout.fnmatch_lines(["    blocks.[*].*: * us in PyTorch, * us as engine, gain *"])
    for name in ("run.html", "run.md"):
        assert "in PyTorch (cpu)" in (exported.path / name).read_text().replace("\\", "")
    assert 'kind="torch",outcome="measured"' in (exported.path / "r.prom").read_text()
    (check,) = json.loads((exported.path / "run.json").read_text())["checks"]
    assert (check["kind"], check["outcome"], len(check["rows"])) == ("torch", "measured", 5)
    modules = {row["module"]: row for row in check["details"]["modules"]}
    assert modules["mix"]["calls"] == 2
    assert modules["blocks.0.drop"]["engine_us"] is None
    assert check["details"]["gain"] == pytest.approx(check["details"]["torch_us"] / check["details"]["engine_us"])


def test_without_pytorch_the_test_fails_with_the_way_out(exported: Project) -> None:
    exported.pytester.makeconftest(
        "import sys, pytest\n"
        "@pytest.fixture(autouse=True)\n"
        "def missing(monkeypatch):\n"
        "    monkeypatch.setitem(sys.modules, 'torch', None)\n"
    )
    exported.pytester.makepyfile(
        "def test_modules(trt_build, trt_profiler):\n    trt_profiler.beside(trt_build('net.onnx'), None, None)\n"
    )
    result = exported.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*pip install 'pytest-trtgray?torch?'*"])
