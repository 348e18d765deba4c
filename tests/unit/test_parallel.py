"""Which GPU a worker of pytest-xdist takes, and whether workers disturb each other. The GPUs are made up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_trtgray.engines import device
from pytest_trtgray.engines.device import find_cpu
from pytest_trtgray.engines.model import DeviceInfo
from pytest_trtgray.parallel import check_parallel, crowd, device_of_worker
from pytest_trtgray.state import settings_key
from tests.unit.test_settings import read

GPU = DeviceInfo("NVIDIA H200", "gpu", "sm_90")


def config_of(folder: Path, worker: str = "", workers: int = 1, **options: Any) -> pytest.Config:
    """A worker's configuration, or that of a run without workers."""
    config = SimpleNamespace(stash={settings_key: read(folder, **options)}, option=SimpleNamespace())
    if worker:
        config.workerinput = {"workerid": worker, "workercount": workers}
    return cast("pytest.Config", config)


@pytest.fixture
def gpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    count: int = request.param
    monkeypatch.setattr(device, "count_gpus", lambda: count)
    return count


class TestDevice:
    @pytest.mark.parametrize(
        ("gpus", "devices"),
        [
            (0, [0, 0, 0, 0, 0, 0]),
            (1, [0, 0, 0, 0, 0, 0]),
            (2, [0, 1, 0, 1, 0, 1]),
            (4, [0, 1, 2, 3, 0, 1]),
        ],
        indirect=["gpus"],
    )
    def test_workers_take_turns(self, gpus: int, devices: list[int], tmp_path: Path) -> None:
        assert [device_of_worker(config_of(tmp_path, f"gw{number}", 6)) for number in range(6)] == devices

    @pytest.mark.parametrize("gpus", [4], indirect=True)
    @pytest.mark.parametrize(("worker", "index"), [("gw10", 2), ("gw127", 3), ("popen", 0), ("", 0)])
    def test_names_of_workers(self, gpus: int, worker: str, index: int, tmp_path: Path) -> None:
        assert device_of_worker(config_of(tmp_path, worker, 200)) == index

    def test_no_driver_is_asked_without_workers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(device, "count_gpus", lambda: pytest.fail("asked"))

        assert device_of_worker(config_of(tmp_path)) == 0


class TestCrowd:
    @pytest.mark.parametrize(
        ("gpus", "workers", "reason"),
        [
            (1, 2, "2 pytest-xdist workers shared 1 GPU"),
            (2, 2, ""),
            (2, 3, "3 pytest-xdist workers shared 2 GPUs"),
            (4, 2, ""),
            (4, 4, ""),
            (4, 5, "5 pytest-xdist workers shared 4 GPUs"),
        ],
        indirect=["gpus"],
    )
    def test_workers_on_gpus(self, gpus: int, workers: int, reason: str, tmp_path: Path) -> None:
        assert crowd(config_of(tmp_path, "gw0", workers), GPU) == reason

    @pytest.mark.parametrize("gpus", [4], indirect=True)
    def test_a_device_that_all_were_given(self, gpus: int, tmp_path: Path) -> None:
        shared = config_of(tmp_path, "gw1", 2, trt_device=3)

        assert crowd(shared, GPU) == "2 pytest-xdist workers shared 1 GPU"

    @pytest.mark.parametrize("gpus", [4], indirect=True)
    @pytest.mark.parametrize("where", [None, find_cpu()])
    def test_all_share_the_processor(self, gpus: int, where: DeviceInfo | None, tmp_path: Path) -> None:
        assert crowd(config_of(tmp_path, "gw0", 2), where) == "other pytest-xdist workers ran at the same time"

    @pytest.mark.parametrize("where", [None, find_cpu(), GPU])
    def test_one_worker_is_alone(self, where: DeviceInfo | None, tmp_path: Path) -> None:
        assert crowd(config_of(tmp_path, "gw0", 1), where) == ""
        assert crowd(config_of(tmp_path), where) == ""


class TestSettings:
    @pytest.mark.parametrize(("given", "index"), [(None, 0), (0, 0), (3, 3)])
    def test_whether_the_device_was_given(self, given: int | None, index: int, tmp_path: Path) -> None:
        settings = read(tmp_path, trt_device=given)

        assert (settings.device, settings.device_given) == (index, given is not None)


@pytest.mark.parametrize(("workers", "refused"), [(None, False), (0, False), (1, False), (2, True)])
@pytest.mark.parametrize("option", ["trt_update_baselines", "trt_rebaseline", "trt_prune_baselines"])
def test_recording_beside_others(option: str, workers: int | None, refused: bool, tmp_path: Path) -> None:
    options: dict[str, Any] = {option: True}
    config = config_of(tmp_path, **options)
    config.option.numprocesses = workers
    if not refused:
        check_parallel(config)
        return
    with pytest.raises(pytest.UsageError, match="do not go with -n"):
        check_parallel(config)


def test_workers_of_a_real_run_take_turns(tmp_path: Path) -> None:
    """Two real workers, on a machine that says it has two GPUs."""
    (tmp_path / "conftest.py").write_text(
        "import pytest\n"
        "@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_configure(config):\n"
        "    from pytest_trtgray.engines import device\n"
        "    device.count_gpus = lambda: 2\n"
    )
    (tmp_path / "test_it.py").write_text(
        "import os, pytest\n"
        "from pytest_trtgray.state import settings_of\n"
        "@pytest.mark.parametrize('number', range(8))\n"
        "def test_it(number, request):\n"
        "    worker, used = os.environ['PYTEST_XDIST_WORKER'], settings_of(request.config).device\n"
        "    open('seen', 'a').write(f'{worker} {used}\\n')\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-n2", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)

    assert done.returncode == 0, done.stdout
    assert set((tmp_path / "seen").read_text().splitlines()) == {"gw0 0", "gw1 1"}
    given = subprocess.run(
        [*command, "--trt-device=5"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert given.returncode == 0, given.stdout
    assert set((tmp_path / "seen").read_text().splitlines()[8:]) == {"gw0 5", "gw1 5"}
