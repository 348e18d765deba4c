"""Bad input: one clear message that names the file and the way out, pytest's exit codes, nothing touched."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from tests import models
from tests.integration.conftest import Project, needs_rtx, text


def _empty(project: Project) -> None:
    (project.path / "m.onnx").touch()


def _truncated(project: Project) -> None:
    content = models.mlp(project.path / "whole.onnx").read_bytes()
    (project.path / "m.onnx").write_bytes(content[: len(content) // 2])


def _web_page(project: Project) -> None:
    (project.path / "m.onnx").write_text("<!DOCTYPE html><title>404</title>")


def _lfs_pointer(project: Project) -> None:
    (project.path / "m.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def _without_external_data(project: Project) -> None:
    models.external(models.mlp(project.path / "whole.onnx"), project.path / "m.onnx", "weights.bin")
    (project.path / "weights.bin").unlink()


def _short_external_data(project: Project) -> None:
    models.external(models.mlp(project.path / "whole.onnx"), project.path / "m.onnx", "weights.bin")
    (project.path / "weights.bin").write_bytes(b"short")


def _no_nodes(project: Project) -> None:
    proto = onnx.load(str(models.mlp(project.path / "whole.onnx")))
    del proto.graph.node[:]
    onnx.save(proto, str(project.path / "m.onnx"))


def _folder(project: Project) -> None:
    (project.path / "m.onnx").mkdir()


@pytest.mark.parametrize(
    ("make", "reason", "way_out"),
    [
        (lambda project: None, "m.onnx: no such file", "Check the path"),
        (_empty, "m.onnx: the ONNX file is empty", "Export or download it again"),
        (_truncated, "m.onnx: not a readable ONNX model: it starts like one, so it is probably cut off", "Export"),
        (_web_page, "m.onnx: not a readable ONNX model: it is a web page", "Export"),
        (_lfs_pointer, "m.onnx: not a readable ONNX model: it is a Git LFS pointer", "git lfs pull"),
        (_without_external_data, "weights.bin is missing", "Copy it beside m.onnx"),
        (_short_external_data, "weights.bin is cut off: 5 bytes", "Copy it beside m.onnx"),
        (_no_nodes, "m.onnx: has no nodes", "onnx.checker"),
        (_folder, "m.onnx: is not a file", ""),
    ],
)
def test_unusable_onnx(project: Project, make: Callable[[Project], None], reason: str, way_out: str) -> None:
    make(project)
    before = _fingerprint(project.path)
    result = project.run("--trt-engine=m.onnx", "--update-baselines")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    output = text(result)
    assert reason in output
    assert way_out in output
    assert "Traceback" not in output
    assert output.count("m.onnx:") <= 1
    assert _fingerprint(project.path) == before


def _engine(project: Project, edit: Callable[[bytes], bytes]) -> None:
    header = bytearray(128)
    header[:4] = b"vtrt"
    header[16:24] = (128).to_bytes(8, "little")
    header[24:28] = bytes([1, 7, 1, 116])
    (project.path / "m.engine").write_bytes(edit(bytes(header)))


@needs_rtx
@pytest.mark.parametrize(
    ("edit", "reason", "way_out"),
    [
        (lambda engine: b"", "m.engine: the engine file is empty", "Build it again"),
        (lambda engine: engine[:100], "the engine file is cut off: 100 of 128 bytes", "Build it again"),
        (lambda engine: engine[:10], "the engine file is cut off: 10 bytes", "Build it again"),
        (lambda engine: b"\x08\x09" + engine[2:], "it looks like an ONNX model; name it .onnx", ""),
        (lambda engine: b"abcd" + engine[4:], "not a TensorRT engine: it starts with b'abcd'", "Build it again"),
        (
            lambda engine: engine[:24] + bytes([1, 4, 0, 76]) + engine[28:],
            "m.engine: was built by TensorRT for RTX 1.4.0.76, ",
            "install 1.4.0.76",
        ),
    ],
)
def test_unusable_engine(project: Project, edit: Callable[[bytes], bytes], reason: str, way_out: str) -> None:
    _engine(project, edit)
    before = _fingerprint(project.path)
    result = project.run("--trt-engine=m.engine")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert reason in text(result)
    assert way_out in text(result)
    assert _fingerprint(project.path) == before


def test_engine_of_a_tensorrt_that_is_not_installed(project: Project) -> None:
    pytest.importorskip("pytest_trtgray")
    from pytest_trtgray.vendor import is_installed

    if is_installed("tensorrt"):
        pytest.skip("needs a machine without tensorrt")
    _engine(project, lambda engine: b"ftrt" + engine[4:24] + bytes([10, 3, 0, 26]) + engine[28:])
    result = project.run("--trt-engine=m.engine")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "m.engine: was built by TensorRT 10.3.0.26; cannot be imported" in text(result)


@needs_rtx
def test_a_good_engine_without_a_gpu_is_skipped_with_a_reason(project: Project, no_gpu: None) -> None:
    project.mlp()
    project.record("--trt-engine=mlp.onnx", "--trt-runtime=tensorrt_rtx", "-k", "structure")
    (engine,) = (project.path / ".trtgray_cache").glob("*.engine")
    result = project.run(f"--trt-engine=built={engine}", "--trt-allow-unlisted", "-rs")
    result.assert_outcomes(skipped=5)
    assert result.ret == pytest.ExitCode.OK
    assert "Give the .onnx" not in text(result)
    assert "needs a GPU: no NVIDIA driver on this machine" in text(result)
    required = project.run(f"--trt-engine=built={engine}", "--trt-allow-unlisted", "--trt-require-gpu")
    assert required.ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--trt-runtime=cuda"], "invalid choice: 'cuda'"),
        (["--trt-engine=mlp.onnx", "--trt-engine=./mlp.onnx"], "two engines are called 'mlp'"),
        (["--trt-engine=mlp.onnx", "--trt-min-shapes=x:1x8"], "are given 1, 0 and 0 times"),
        (["--trt-timing=loud"], "invalid choice: 'loud'"),
        (["--trt-device=-1"], "--trt-device = -1: must be at least 0"),
        (["--trt-history=history.db"], "--trt-history: is no database URL"),
        (["-o", "trt_on_missing=ignore"], "trt_on_missing = ignore: must be one of fail, skip, record"),
        (["-o", "trt_inconclusive=pass"], "trt_inconclusive = pass: must be one of warn, skip, fail"),
        (["-o", "trt_false_alarm_rate=2"], "trt_false_alarm_rate = 2.0: must lie between 0 and 1"),
        (["-o", "trt_rtol=-1"], "trt_rtol = -1.0: must be a finite number, not below 0"),
        (["-o", "trt_identity=gpu"], "unknown ['gpu']"),
        (["--trt-engine=mlp.onnx", *(f"--trt-{m}-shapes=x:1x9" for m in ("min", "opt", "max"))], "does not fit"),
        (["--trt-engine=mlp.onnx", *(f"--trt-{m}-shapes=z:1x8" for m in ("min", "opt", "max"))], "no input 'z'"),
        (["--trt-engine=mlp.onnx", *(f"--trt-{m}-shapes=x" for m in ("min", "opt", "max"))], "cannot be read as"),
    ],
)
def test_wrong_options(project: Project, args: list[str], message: str) -> None:
    project.mlp()
    result = project.run(*args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in text(result)
    assert "Traceback" not in text(result)


def test_other_symbolic_dimensions_print_a_command_line_that_works(project: Project) -> None:
    models.encoder(project.path / "encoder.onnx")
    result = project.run("--trt-engine=encoder.onnx")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "encoder.onnx" in text(result)
    options = [line.strip(" \\") for line in text(result).splitlines() if line.strip().startswith("--trt-")]
    assert len(options) == 3
    project.run("--trt-engine=encoder.onnx", *options, "-k", "outputs").assert_outcomes(passed=1, deselected=4)


@needs_rtx
def test_a_model_that_tensorrt_cannot_parse(project: Project) -> None:
    models.unary(project.path / "odd.onnx", "Frobnicate", domain="nobody")
    result = project.run("--trt-engine=odd.onnx", "--trt-runtime=tensorrt_rtx", "-k", "structure")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "odd.onnx: TensorRT for RTX" in text(result)
    assert "Frobnicate" in text(result)
    assert not list((project.path / ".trtgray_cache").glob("*.engine"))


def test_a_cache_folder_that_cannot_be(project: Project) -> None:
    pytest.importorskip("tensorrt_rtx")
    project.mlp()
    (project.path / "file").touch()
    result = project.run(
        "--trt-engine=mlp.onnx", "--trt-runtime=tensorrt_rtx", "-o", "trt_cache_dir=file/cache", "-k", "structure"
    )
    assert "the engine cache cannot be used" in text(result)
    assert "trt_cache_dir" in text(result)


def _fingerprint(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and ".pytest_cache" not in path.parts
    }
