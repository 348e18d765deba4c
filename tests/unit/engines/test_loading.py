from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pytest_trtgray.engines.device import find_gpu
from pytest_trtgray.engines.loading import LoadOptions, check_file, choose_runtime, is_engine_file, load_engine
from pytest_trtgray.errors import EngineError, ModelError, ShapeError, TrtGrayError


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.engine", True), ("a.plan", True), ("a.trt", True), ("A.ENGINE", True), ("a.onnx", False), ("engine", False)],
)
def test_engine_files_by_name(name: str, expected: bool) -> None:
    assert is_engine_file(Path(name)) is expected


@pytest.mark.parametrize("name", ["none.onnx", "none.engine"])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(TrtGrayError, match="no such file"):
        check_file(tmp_path / name)


@pytest.mark.parametrize("name", ["folder.onnx", "folder.engine"])
def test_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(TrtGrayError, match="is not a file"):
        check_file(tmp_path / name)


def test_the_kind_of_error_tells_the_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"")
    (tmp_path / "x.engine").write_bytes(b"")
    with pytest.raises(ModelError, match="empty"):
        check_file(tmp_path / "x.onnx")
    with pytest.raises(EngineError, match="empty"):
        check_file(tmp_path / "x.engine")


@pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")
def test_without_a_gpu_auto_is_onnxruntime() -> None:
    assert choose_runtime(LoadOptions()) == "onnxruntime"


def test_an_explicit_runtime_is_kept() -> None:
    assert choose_runtime(LoadOptions("tensorrt_rtx")) == "tensorrt_rtx"


def test_an_onnx_file_in_onnxruntime(mlp: Path) -> None:
    engine = load_engine(mlp, LoadOptions("onnxruntime"), name="net")

    assert (engine.info.name, engine.info.runtime) == ("net", "onnxruntime")
    assert engine.info.profiles[0]["x"].opt == (8, 8)


def test_an_error_of_a_converted_model_names_the_one_that_was_given(mlp: Path, tmp_path: Path) -> None:
    """Also where it comes later, as from the session of a measurement, and for two models of the same content."""
    for name in ("one.onnx", "two.onnx"):
        path = tmp_path / name
        path.write_bytes(mlp.read_bytes())
        engine = load_engine(path, LoadOptions("onnxruntime", precision="fp16", cache_dir=tmp_path / "cache"))
        Path(engine.info.path).write_bytes(b"")
        with (
            pytest.raises(EngineError, match="cannot load it") as caught,
            engine.timing_context({"x": np.zeros((8, 8), np.float32)}, profiled=False),
        ):
            pass

        assert caught.value.thing == f"{path} (converted to fp16)"


def test_shapes_are_needed_for_other_symbols(encoder: Path) -> None:
    with pytest.raises(ShapeError, match="symbolic dimensions other than the first"):
        load_engine(encoder, LoadOptions("onnxruntime"))


def test_an_engine_file_in_another_runtime(engine_file: Path) -> None:
    with pytest.raises(EngineError, match="is an engine of tensorrt_rtx, but --trt-runtime=onnxruntime"):
        load_engine(engine_file, LoadOptions("onnxruntime"))


def test_a_sound_engine_file_passes(engine_file: Path) -> None:
    check_file(engine_file)

    assert load_engine(engine_file, LoadOptions()).info.name == "mlp"
