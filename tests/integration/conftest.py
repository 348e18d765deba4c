"""A project of a user, in an empty folder, on which pytest is run for real."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from tests import models

CHEAP = """
[pytest]
addopts = --strict-markers --strict-config -p no:randomly
trt_sessions = 1
trt_iterations = 5
"""
ENCODER_SHAPES = (
    "--trt-min-shapes=ids:1x2,mask:1x1x1x2",
    "--trt-opt-shapes=ids:2x8,mask:2x1x1x8",
    "--trt-max-shapes=ids:4x16,mask:4x1x1x16",
)

RECORDS = ("-k", "layers or structure")
"""Of the five built-in tests those that have a baseline; `shapes`, a search of seconds, has tests of its own."""

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="needs tensorrt_rtx, found none installed"
)


class Project:
    """A folder with models and tests, and pytest to run in it."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path
        pytester.makefile(".ini", pytest=CHEAP)

    def run(self, *args: str) -> pytest.RunResult:
        """Run pytest in this process."""
        return self.pytester.runpytest_inprocess(*args)

    def run_apart(self, *args: str) -> pytest.RunResult:
        """Run pytest in a process of its own."""
        return self.pytester.runpytest_subprocess(*args)

    def mlp(self, name: str = "mlp.onnx", **options: int) -> Path:
        """A small perceptron; its node names are those of the module of models."""
        return models.mlp(self.path / name, **options)  # type: ignore[arg-type]

    def conv_net(self, name: str = "net.onnx") -> Path:
        """A small residual network with a static batch of 1."""
        return models.conv_net(self.path / name, batch=1)

    def ini(self, text: str) -> None:
        """Add lines to the project's ini file."""
        file = self.path / "pytest.ini"
        file.write_text(f"{file.read_text().rstrip()}\n{text}\n")

    def baselines(self) -> list[str]:
        """All baseline files, relative to their folder."""
        folder = self.path / "baselines"
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.json"))

    def baseline(self, kind: str) -> Path:
        """The one baseline file whose name contains ``kind``."""
        (found,) = (path for path in (self.path / "baselines").rglob("*.json") if kind in path.name)
        return found

    def record(self, *args: str) -> None:
        """Record all baselines."""
        result = self.run(*args, "--update-baselines")
        assert result.ret == 0, result.stdout.str()


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    return Project(pytester)


def text(result: pytest.RunResult) -> str:
    """Everything that was printed."""
    return result.stdout.str() + result.stderr.str()


def printed_command(result: pytest.RunResult) -> list[str]:
    """The arguments of the command that the output offers for recording."""
    match = re.search(r"To record it: +pytest (.*)", text(result))
    assert match, text(result)
    return shlex.split(match[1])


@pytest.fixture
def no_gpu() -> None:
    """Skip where there is a GPU: what is tested is its absence."""
    from pytest_trtgray.engines.device import find_gpu

    if find_gpu() is not None:
        pytest.skip("needs a machine without a GPU")
