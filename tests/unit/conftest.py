"""Engines and models that many unit tests look at; each is built once a process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.profiles import resolve_profiles
from pytest_trtgray.fuzzing import relax_deadlines
from tests import models


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first example of a test imports onnx and onnxruntime: no verdict here depends on the clock."""
    here = Path(__file__).parent
    relax_deadlines(item for item in items if here in item.path.parents)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this process keeps its models."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def mlp(folder: Path) -> Path:
    return models.mlp(folder / "mlp.onnx")


@pytest.fixture(scope="session")
def conv_net(folder: Path) -> Path:
    return models.conv_net(folder / "conv_net.onnx", blocks=2)


@pytest.fixture(scope="session")
def encoder(folder: Path) -> Path:
    return models.encoder(folder / "encoder.onnx")


@pytest.fixture(scope="session")
def built(mlp: Path) -> tuple[bytes, dict[str, Any]]:
    """The MLP as an engine of TensorRT for RTX, and what its build told."""
    pytest.importorskip("tensorrt_rtx")
    from pytest_trtgray.engines.building import BuildRequest, build

    model = OnnxModel(mlp)
    profiles, _ = resolve_profiles(model.inputs, ())
    return build(model, BuildRequest("tensorrt_rtx", profiles))


@pytest.fixture
def engine_file(built: tuple[bytes, dict[str, Any]], tmp_path: Path) -> Path:
    """A real engine file that a test may damage."""
    path = tmp_path / "mlp.engine"
    path.write_bytes(built[0])
    return path
