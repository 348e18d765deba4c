"""Two processes on one GPU wait for each other; nobody waits for a processor. The GPU is made up: a lock needs none."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_trtgray.engines.device import find_cpu
from pytest_trtgray.engines.model import DeviceInfo
from pytest_trtgray.timing import exclusive
from pytest_trtgray.timing.exclusive import PATIENCE_S, alone_on, lock_file

GPU = DeviceInfo("NVIDIA H200", "gpu", "sm_90", index=71)
OTHER = DeviceInfo("NVIDIA H200", "gpu", "sm_90", index=72)
SHORT_S = 0.05
HOLD = """
import sys, tempfile
from pytest_trtgray.engines.model import DeviceInfo
from pytest_trtgray.timing.exclusive import alone_on
tempfile.tempdir = sys.argv[1]
with alone_on(DeviceInfo("NVIDIA H200", "gpu", "sm_90", index=71)) as why:
    print("held" + why, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the locks of these tests lie; the tests of others are not waited for."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def holder(own_folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the GPU until it reads a line, or dies."""
    command = [sys.executable, "-c", HOLD, str(own_folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def waited_for(device: DeviceInfo | None, patience_s: float = SHORT_S) -> str:
    with alone_on(device, patience_s) as why:
        return why


class TestTwoProcesses:
    def test_one_of_them_has_it(self, holder: subprocess.Popen[str], own_folder: Path) -> None:
        reason = waited_for(GPU)

        assert reason == f"another timing test held NVIDIA H200 for {SHORT_S} s ({lock_file(GPU)})"
        assert lock_file(GPU).parent == own_folder

    def test_the_body_runs_although_waiting_was_in_vain(self, holder: subprocess.Popen[str]) -> None:
        with pytest.raises(ValueError, match="of the body: another") as caught, alone_on(GPU, SHORT_S) as why:
            raise ValueError(f"of the body: {why}")
        assert caught.value.__context__ is None
        # who did not get the lock must not give it away
        assert waited_for(GPU)

    def test_the_second_goes_on_when_the_first_is_done(self, holder: subprocess.Popen[str]) -> None:
        reasons: list[str] = []
        waiting = threading.Thread(target=lambda: reasons.append(waited_for(GPU, PATIENCE_S)))
        waiting.start()
        assert holder.stdin is not None
        holder.stdin.write("\n")
        holder.stdin.close()
        waiting.join(timeout=60)

        assert reasons == [""]

    def test_one_that_was_killed_holds_nothing(self, holder: subprocess.Popen[str]) -> None:
        assert waited_for(GPU)
        holder.kill()
        holder.wait()

        assert waited_for(GPU, PATIENCE_S) == ""

    def test_another_gpu_is_free(self, holder: subprocess.Popen[str]) -> None:
        assert lock_file(OTHER) != lock_file(GPU)
        assert waited_for(OTHER) == ""


class TestOneProcess:
    def test_one_after_the_other(self) -> None:
        assert [waited_for(GPU) for _ in range(3)] == ["", "", ""]

    def test_an_error_of_the_body_frees_it(self) -> None:
        with pytest.raises(ValueError, match="of the body"), alone_on(GPU):
            raise ValueError("of the body")

        assert waited_for(GPU) == ""

    def test_two_threads(self) -> None:
        with alone_on(GPU) as why:
            assert why == ""
            reasons: list[str] = []
            thread = threading.Thread(target=lambda: reasons.append(waited_for(GPU)))
            thread.start()
            thread.join(timeout=60)

        assert len(reasons) == 1
        assert reasons[0].startswith("another timing test held")

    @pytest.mark.parametrize("device", [None, find_cpu()])
    def test_a_processor_is_for_all(self, device: DeviceInfo | None, own_folder: Path) -> None:
        with alone_on(device) as outer, alone_on(device, 0) as inner:
            assert (outer, inner) == ("", "")

        assert list(own_folder.iterdir()) == []


class TestTheFile:
    def test_one_name_whatever_the_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A GPU that CUDA_VISIBLE_DEVICES renumbers is still the same GPU."""
        monkeypatch.setattr(exclusive, "pci_bus_id", lambda index: "0000:3B:00.0")

        assert lock_file(GPU) == lock_file(OTHER)
        assert lock_file(GPU).name == "trtgray-gpu-0000-3B-00.0.lock"

    def test_other_users_may_open_it(self) -> None:
        with alone_on(GPU):
            assert lock_file(GPU).stat().st_mode & 0o666 == 0o666

    def test_a_folder_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setattr(exclusive, "lock_file", lambda device: tmp_path / "file" / "x.lock")
        with alone_on(GPU, SHORT_S) as why:
            assert why.startswith("the lock of NVIDIA H200 cannot be used: ")
            assert str(tmp_path / "file" / "x.lock") in why

    def test_a_folder_under_its_name(self) -> None:
        lock_file(GPU).mkdir()

        assert "cannot be used" in waited_for(GPU)
