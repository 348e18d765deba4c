"""What computes the FP32 reference, and what is said where it cannot be computed there."""

from __future__ import annotations

import pytest

from tests.integration.conftest import Project, needs_rtx, text

ENGINE = ("--trt-engine=mlp.onnx", "-k", "outputs")


@pytest.mark.parametrize("on", ["auto", "cpu"])
def test_without_a_gpu(project: Project, no_gpu: None, on: str) -> None:
    project.mlp()
    project.run(*ENGINE, f"--trt-shadow={on}").assert_outcomes(passed=1, deselected=4)


def test_cuda_with_a_build_that_has_none(project: Project, no_gpu: None) -> None:
    project.mlp()
    result = project.run(*ENGINE, "--trt-shadow=cuda")
    result.assert_outcomes(failed=1, deselected=4)
    assert "onnxruntime: this build has no CUDAExecutionProvider" in text(result)
    assert "Install onnxruntime-gpu" in text(result)
    assert "Traceback" not in text(result)


@needs_rtx
def test_tensorrt_without_a_gpu_is_skipped(project: Project, no_gpu: None) -> None:
    project.mlp()
    result = project.run(*ENGINE, "--trt-shadow=tensorrt", "-rs")
    result.assert_outcomes(skipped=1, deselected=4)
    assert "TensorRT: no NVIDIA driver on this machine" in text(result)


def test_an_unknown_place_on_the_command_line(project: Project) -> None:
    result = project.run("--trt-shadow=gpu")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "invalid choice: 'gpu'" in text(result)


def test_in_a_test(project: Project, no_gpu: None) -> None:
    project.mlp()
    project.pytester.makepyfile(
        """
        import pytest
        from pytest_trtgray.errors import EngineError

        def test_by_name(trt_shadow):
            shadow = trt_shadow("mlp.onnx", on="cpu")
            assert shadow.on == "cpu"
            assert trt_shadow("mlp.onnx", on="cpu") is shadow

        def test_the_call_wins_over_the_option(trt_shadow, pytestconfig):
            assert pytestconfig.getoption("trt_shadow") == "cuda"
            assert trt_shadow("mlp.onnx", on="cpu").on == "cpu"

        @pytest.mark.parametrize("on", ["gpu", "CPU", "onnxruntime"])
        def test_unknown(trt_shadow, on):
            with pytest.raises(EngineError, match=f"on='{on}': is no place for an FP32 reference"):
                trt_shadow("mlp.onnx", on=on)

        def test_cuda(trt_shadow):
            with pytest.raises(EngineError, match="no CUDAExecutionProvider"):
                trt_shadow("mlp.onnx")
        """
    )
    project.run("--trt-shadow=cuda").assert_outcomes(passed=6)
