"""pytest-xdist on a GPU machine: a GPU a worker, engines built once, times only where they can be trusted."""

from __future__ import annotations

import json

import pytest

from pytest_trtgray.engines.device import count_gpus
from tests import models
from tests.integration.conftest import Project

pytest.importorskip("xdist")

SUITE = """
import pytest

@pytest.mark.parametrize("part", range(8))
def test_times(part, trt_build, trt_profiler, trt_device, record_property):
    engine = trt_build("net.onnx")
    profile = trt_profiler(engine, sessions=1, iterations=10)
    with open("seen.txt", "a") as file:
        file.write(f"{trt_device.index} {engine.info.device.index} {profile.run.disturbed}\\n")
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    return Project(pytester)


def test_workers_share_out_the_gpus(project: Project, runtime: str, tactic_options: list[str]) -> None:
    gpus = count_gpus()
    models.conv_net(project.path / "net.onnx")
    project.pytester.makepyfile(SUITE)
    result = project.run_apart("-n2", "--dist=load", f"--trt-runtime={runtime}", "--trt-json=r.json", *tactic_options)
    result.assert_outcomes(passed=8)
    lines = (project.path / "seen.txt").read_text().splitlines()
    assert {line.split()[0] for line in lines} == ({"0", "1"} if gpus > 1 else {"0"})
    assert all(line.split()[0] == line.split()[1] for line in lines)
    disturbed = {" ".join(line.split()[2:]) for line in lines}
    assert disturbed == ({""} if gpus > 1 else {"2 pytest-xdist workers shared 1 GPU"})
    engines = list((project.path / ".trtgray_cache").glob("*.engine"))
    assert len(engines) == 1
    assert json.loads((project.path / "r.json").read_text())
