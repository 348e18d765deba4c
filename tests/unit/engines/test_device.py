from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pytest_trtgray.engines.device import available_cores, find_cpu, find_gpu, no_gpu_reason

needs_no_gpu = pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")


def test_this_machines_processor() -> None:
    cpu = find_cpu()

    assert (cpu.kind, cpu.sm) == ("cpu", "")
    assert cpu.name
    assert cpu.memory_bytes > 2**28
    assert cpu.details["cores"] == str(available_cores())
    assert find_cpu() is cpu


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this platform has no affinity")
def test_cores_are_those_that_the_process_may_use() -> None:
    """A container or a job scheduler allows fewer than there are; in a process of its own."""
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from pytest_trtgray.engines.device import available_cores\n"
        "print(available_cores())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "1\n"


@needs_no_gpu
@pytest.mark.parametrize("index", [0, 7])
def test_without_a_gpu(index: int) -> None:
    assert find_gpu(index) is None
    assert "NVIDIA driver" in no_gpu_reason(index) or "no CUDA device" in no_gpu_reason(index)


@pytest.mark.skipif(find_gpu() is None, reason="this machine has no GPU")
def test_with_a_gpu() -> None:
    gpu = find_gpu()
    assert gpu is not None

    assert gpu.sm.startswith("sm_")
    assert gpu.memory_bytes > 2**30
    assert find_gpu(999) is None
    assert "no CUDA device 999" in no_gpu_reason(999)
