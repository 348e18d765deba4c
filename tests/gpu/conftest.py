"""These tests need an NVIDIA GPU and TensorRT for RTX (or TensorRT); elsewhere they are skipped with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_trtgray.engines.device import find_gpu, no_gpu_reason
from pytest_trtgray.vendor import is_installed

RUNTIMES = ("tensorrt_rtx", "tensorrt")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    reason = no_gpu_reason() if find_gpu() is None else ""
    # These run pytest in other processes, to which this process would be a disturbance once it uses the GPU.
    items.sort(key=lambda item: item.path.name != "test_suite_gpu.py")
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if reason:
                item.add_marker(pytest.mark.skip(reason=f"needs an NVIDIA GPU, found none: {reason}"))


@pytest.fixture(scope="session")
def runtime() -> str:
    """The TensorRT that is here."""
    found = [name for name in RUNTIMES if is_installed(name)]
    if not found:
        pytest.skip("needs tensorrt_rtx or tensorrt, found neither")
    return found[0]
