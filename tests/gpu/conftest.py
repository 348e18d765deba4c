"""These tests need an NVIDIA GPU and TensorRT for RTX (or TensorRT); elsewhere they are skipped with a reason.

A TensorRT whose cuBLAS or cuDNN is missing is told what it may use by the ini option ``trt_tactic_sources``.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from pytest_trtgray.engines.base import Engine
from pytest_trtgray.engines.device import find_gpu, no_gpu_reason
from pytest_trtgray.engines.loading import LoadOptions, load_engine
from pytest_trtgray.engines.profiles import ShapeRequest, parse_shapes
from pytest_trtgray.errors import EngineError
from pytest_trtgray.vendor import is_installed
from tests import models

RUNTIMES = ("tensorrt_rtx", "tensorrt")
NETWORKS = "TRTGRAY_NETWORKS"
ENCODER = ShapeRequest(
    parse_shapes("ids:1x2,mask:1x1x1x2"),
    parse_shapes("ids:2x8,mask:2x1x1x8"),
    parse_shapes("ids:4x16,mask:4x1x1x16"),
)
# These run pytest in other processes, to which this process would be a disturbance once it uses the GPU.
FIRST = ("test_suite_gpu.py", "test_workers_gpu.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    reason = no_gpu_reason() if find_gpu() is None else ""
    items.sort(key=lambda item: item.path.name not in FIRST)
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


@pytest.fixture(scope="session")
def rtx(runtime: str) -> None:
    if runtime != "tensorrt_rtx":
        pytest.skip(f"needs tensorrt_rtx, found {runtime}")


@pytest.fixture(scope="session")
def tactic_options(pytestconfig: pytest.Config) -> list[str]:
    """For a pytest that a test starts."""
    sources = " ".join(pytestconfig.getini("trt_tactic_sources"))
    return ["-o", f"trt_tactic_sources={sources}"] if sources else []


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def options(folder: Path, runtime: str, pytestconfig: pytest.Config) -> LoadOptions:
    sources = tuple(pytestconfig.getini("trt_tactic_sources"))
    return LoadOptions(runtime=runtime, cache_dir=folder / "cache", tactic_sources=sources)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def net(folder: Path, options: LoadOptions) -> Engine:
    return load_engine(models.conv_net(folder / "net.onnx"), options)


@pytest.fixture(scope="session")
def encoder(folder: Path, options: LoadOptions, runtime: str) -> Engine:
    path = models.encoder(folder / "encoder.onnx", fused_norm=runtime == "tensorrt_rtx")
    try:
        return load_engine(path, dataclasses.replace(options, shapes=(ENCODER,)))
    except EngineError as error:
        if not options.tactic_sources:
            raise
        pytest.skip(f"needs a TensorRT with cuBLAS for products of activations, found {error.reason[:200]}")


@pytest.fixture(scope="session")
def networks() -> Path:
    """The folder that ``benchmarks/networks.py`` has filled."""
    folder = os.environ.get(NETWORKS)
    if not folder or not Path(folder, "resnet50.onnx").exists():
        pytest.skip(f"needs {NETWORKS}=FOLDER with what `python benchmarks/networks.py FOLDER` makes")
    return Path(folder)
