"""What a change of shape costs, as a test sees it."""

from __future__ import annotations

import json

from tests import shape_inputs
from tests.integration.conftest import Project, text


def test_each_shape_in_order(project: Project) -> None:
    project.mlp()
    project.pytester.makepyfile(
        """
        def test_it(trt_build, trt_profiler):
            engine = trt_build("mlp.onnx")
            calls = trt_profiler.first_calls(engine, [{"x": (1, 8)}, {"x": (32, 8)}, {"x": (1, 8)}])
            assert [call.shapes["x"] for call in calls] == [(1, 8), (32, 8), (1, 8)]
            assert all(call.first_us > 0 and call.steady_us > 0 for call in calls)
            assert trt_profiler.first_calls(engine, []) == ()
            assert len(trt_profiler.first_calls(engine, [{}], kept_kernels=False)) == 1
        """
    )
    project.run().assert_outcomes(passed=1)


def test_values_that_are_sizes(project: Project) -> None:
    shape_inputs.expanding(project.path / "net.onnx")
    project.pytester.makepyfile(
        """
        def test_it(trt_build, trt_profiler):
            engine = trt_build("net.onnx", min_shapes="s:1x4", opt_shapes="s:3x4", max_shapes="s:8x4")
            calls = trt_profiler.first_calls(engine, [{"s": (2, 4)}, {}, {"s": (8, 4)}])
            assert [call.shapes["s"] for call in calls] == [(2, 4), (3, 4), (8, 4)]
        """
    )
    project.run().assert_outcomes(passed=1)


def test_what_does_not_fit(project: Project) -> None:
    project.mlp()
    project.pytester.makepyfile(
        """
        def test_shape(trt_build, trt_profiler):
            trt_profiler.first_calls(trt_build("mlp.onnx"), [{"x": (1, 8)}, {"x": (33, 8)}])

        def test_name(trt_build, trt_profiler):
            trt_profiler.first_calls(trt_build("mlp.onnx"), [{"z": (1, 8)}])
        """
    )
    result = project.run()
    result.assert_outcomes(failed=2)
    assert "input 'x' has shape 33x8, profile 0 allows 1x8 .. 8x8 .. 32x8" in text(result)
    assert "mlp: has no input 'z'" in text(result)


def test_a_machine_that_cannot_run_the_engine(project: Project, no_gpu: None) -> None:
    project.mlp()
    project.pytester.makepyfile(
        "def test_it(trt_build, trt_profiler):\n"
        "    trt_profiler.first_calls(trt_build('mlp.onnx', runtime='tensorrt_rtx'), [{}])\n"
    )
    result = project.run("-rs")
    assert "SKIPPED" in text(result)
    assert "needs a GPU: no NVIDIA driver" in text(result)


def test_real_times_are_recorded_and_reported(project: Project) -> None:
    """What this machine's clock says is nobody's verdict."""
    project.mlp()
    project.pytester.makepyfile(
        "def test_it(trt_build, trt_profiler):\n"
        "    trt_profiler.first_calls(trt_build('mlp.onnx'), [{'x': (1, 8)}, {'x': (32, 8)}]).check()\n"
    )
    for _ in range(2):
        project.record()
    result = project.run("--trt-timing=report", "--trt-json=run.json")
    result.assert_outcomes(passed=1)
    (check,) = json.loads((project.path / "run.json").read_text())["checks"]
    assert (check["kind"], check["outcome"]) == ("first-calls", "inconclusive")  # two runs, one job
    assert [call["shapes"] for call in check["calls"]] == ["x:1x8", "x:32x8"]
    assert check["creation_us"] > 0
