"""A killed process, a full disk, two processes at once: nothing is lost, nothing is half-written."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from pytest_trtgray.baselines.store import read_file
from tests.integration.conftest import RECORDS, Project, needs_rtx, text

RECORD = ["--trt-engine=mlp.onnx", *RECORDS, "--update-baselines", "-p", "no:randomly"]
KILLED_BEFORE_RENAMING = """
import os, pathlib, signal, sys, pytest
pathlib.Path.replace = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)
pytest.main(sys.argv[1:])
"""
FULL_WHEN_WRITING = """
import resource, signal, sys, tempfile, pytest
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
mkstemp = tempfile.mkstemp
def full(*args, **options):
    resource.setrlimit(resource.RLIMIT_FSIZE, (256, 256))
    return mkstemp(*args, **options)
tempfile.mkstemp = full
sys.exit(pytest.main(sys.argv[1:]))
"""


def run_code(project: Project, code: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, cwd=project.path, capture_output=True, text=True, timeout=120, check=False)


def test_killed_while_writing(project: Project) -> None:
    project.mlp()
    project.record("--trt-engine=mlp.onnx", *RECORDS)
    before = {name: (project.path / "baselines" / name).read_bytes() for name in project.baselines()}
    killed = run_code(project, KILLED_BEFORE_RENAMING, *RECORD)
    assert killed.returncode == -signal.SIGKILL
    assert {name: (project.path / "baselines" / name).read_bytes() for name in project.baselines()} == before
    project.run("--trt-engine=mlp.onnx", *RECORDS).assert_outcomes(passed=2, deselected=3)
    project.record("--trt-engine=mlp.onnx", *RECORDS)


@needs_rtx
def test_killed_while_building(project: Project) -> None:
    project.mlp()
    args = ["--trt-engine=mlp.onnx", "--trt-runtime=tensorrt_rtx", "-k", "structure"]
    killed = run_code(project, KILLED_BEFORE_RENAMING, *args, "--update-baselines", "-p", "no:randomly")
    assert killed.returncode == -signal.SIGKILL
    assert not list((project.path / ".trtgray_cache").glob("*.engine"))
    project.record(*args)
    project.run(*args).assert_outcomes(passed=1, deselected=4)


def test_full_disk(project: Project) -> None:
    project.mlp()
    project.record("--trt-engine=mlp.onnx", "-k", "structure")
    before = project.baseline("structure").read_bytes()
    args = ["--trt-engine=mlp.onnx", "-k", "structure", "--update-baselines", "-p", "no:cacheprovider", "-s"]
    full = run_code(project, FULL_WHEN_WRITING, *args)
    assert full.returncode == pytest.ExitCode.TESTS_FAILED, full.stdout + full.stderr
    assert "the baseline cannot be written: File too large" in full.stdout
    assert project.baseline("structure").read_bytes() == before
    folder = project.baseline("structure").parent
    assert [path.name for path in folder.iterdir()] == ["trtgray.structure-mlp.json"]


def test_two_processes_at_once_lose_no_run(project: Project) -> None:
    project.mlp()
    project.record("--trt-engine=mlp.onnx", "-k", "layers")
    command = [sys.executable, "-m", "pytest", "--trt-engine=mlp.onnx", "-k", "layers", "--update-baselines"]
    processes = [
        subprocess.Popen(command, cwd=project.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(3)
    ]
    outputs = [process.communicate(timeout=120)[0].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    (timing,) = read_file(project.baseline("layers")).entries.values()
    assert len(timing["runs"]) == 4


def test_interrupted_by_the_user(project: Project) -> None:
    project.mlp()
    project.pytester.makepyfile(
        "def test_it(trt_build, trt_structure):\n"
        "    trt_structure(trt_build('mlp.onnx')).check()\n"
        "    raise KeyboardInterrupt\n"
    )
    result = project.run_apart("--update-baselines")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "INTERNALERROR" not in text(result)
    assert project.baselines() == []
