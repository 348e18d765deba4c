"""Inputs whose values are sizes, from the command line to the report."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests import models, shape_inputs
from tests.integration.conftest import Project, needs_rtx, text

ROWS = ("--trt-min-shapes=s:1x4", "--trt-opt-shapes=s:3x4", "--trt-max-shapes=s:8x4")
FREE = ("--trt-min-shapes=x:1x12,s:-1x4", "--trt-opt-shapes=x:2x12,s:-1x4", "--trt-max-shapes=x:4x12,s:-1x4")
STEPS = ("--trt-min-shapes=x:1x1,n:1", "--trt-opt-shapes=x:2x1,n:5", "--trt-max-shapes=x:4x1,n:9")
ENGINE = "--trt-engine=net.onnx"


@pytest.mark.parametrize(
    ("make", "shapes", "opt"),
    [(shape_inputs.expanding, ROWS, "s:3x4,x:1x4"), (shape_inputs.counting, STEPS, "n:5,x:2x1")],
    ids=["list", "scalar"],
)
def test_the_built_in_suite(project: Project, make: object, shapes: tuple[str, ...], opt: str) -> None:
    assert callable(make)
    make(project.path / "net.onnx")
    recorded = project.run(ENGINE, *shapes, "--update-baselines", "--trt-json=run.json")
    recorded.assert_outcomes(passed=5)
    again = project.run(ENGINE, *shapes, "-k", "not layers")
    again.assert_outcomes(passed=4, deselected=1)
    checks = json.loads((project.path / "run.json").read_text())["checks"]
    (timing,) = json.loads(project.baseline("layers").read_text())["entries"]

    assert timing.startswith(f"timing {opt} ")
    (tried,) = (check["summary"] for check in checks if check["kind"] == "shapes")
    assert int(tried.split()[0]) >= 8


def test_negative_values(project: Project) -> None:
    shape_inputs.save(shape_inputs.reshape, project.path / "net.onnx")
    project.run(ENGINE, *FREE, "-k", "outputs or shapes").assert_outcomes(passed=2, deselected=3)


@pytest.mark.parametrize("make", [shape_inputs.expanding, shape_inputs.counting])
def test_their_range_is_asked_for(project: Project, make: object) -> None:
    assert callable(make)
    make(project.path / "net.onnx")
    result = project.run(ENGINE)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "net.onnx" in text(result)
    assert "values that are sizes; their range is needed" in text(result)
    options = [line.strip(" \\") for line in text(result).splitlines() if line.strip().startswith("--trt-")]
    assert len(options) == 3
    project.run(ENGINE, *options, "-k", "log").assert_outcomes(passed=1, deselected=4)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ("s:3", "--trt-min-shapes=s:3: does not fit the input s:2 int64"),
        ("s:3x4x5", "does not fit the input s:2 int64"),
        ("x:1x4", "its shape is not given in all three"),
        ("s:1x4,x:-1x4", "--trt-min-shapes=x:-1x4: gives the input x:1x4 float32 a negative size"),
    ],
)
def test_values_that_do_not_fit(project: Project, shapes: str, message: str) -> None:
    shape_inputs.expanding(project.path / "net.onnx")
    result = project.run(ENGINE, *(f"--trt-{which}-shapes={shapes}" for which in ("min", "opt", "max")))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in text(result)
    assert "Traceback" not in text(result)


def test_what_fails_says_how_to_see_it_again(project: Project) -> None:
    """At five rows, between the corners of the profile, the model is another one than its reference."""
    for name, factor in (("net.onnx", 2.0), ("reference.onnx", 1.0)):
        graph = models.Graph()
        s = graph.input("s", [2], shape_inputs.INT64)
        wide = graph.add("Expand", [graph.input("x", [1, 4]), s], "/Expand")
        rows = graph.add("Gather", [s, shape_inputs.ints(graph, "first", 0)], "/Gather")
        wrong = graph.add("Equal", [rows, shape_inputs.ints(graph, "five", 5)], "/Equal")
        parts = [graph.constant(f"f{value}", np.float32(value)) for value in (factor, 1.0)]
        graph.add("Mul", [wide, graph.add("Where", [wrong, *parts], "/Where")], "/Mul", "y")
        graph.output("y", ["rows", 4])
        graph.save(project.path / name)
    result = project.run(ENGINE, *ROWS, "--trt-onnx=reference.onnx", "-k", "shapes")
    result.assert_outcomes(failed=1, deselected=4)
    assert "at s:5x4,x:1x4: outputs differ" in text(result)
    (line,) = (line.strip() for line in result.outlines if line.strip().startswith("def test_it("))
    assert "{'s': (5, 4), 'x': (1, 4)}" in line
    (project.path / "test_again.py").write_text(line)
    again = project.run(ENGINE, *ROWS, "--trt-onnx=reference.onnx")
    again.assert_outcomes(failed=1)
    assert "outputs differ: output 'y'" in text(again)


def test_in_a_test(project: Project) -> None:
    shape_inputs.expanding(project.path / "net.onnx")
    project.pytester.makepyfile(
        """
        import numpy as np
        import pytest
        from hypothesis import given
        from pytest_trtgray import assert_outputs_close, profile_feeds, profile_shapes
        from pytest_trtgray.errors import ShapeError

        @pytest.mark.trt_shapes(s=(7, 4))
        def test_marker(trt_engine, trt_profiler, trt_shadow, trt_compare):
            assert trt_profiler(trt_engine).shapes == {"s": (7, 4), "x": (1, 4)}
            trt_compare(trt_engine, trt_shadow).check()

        def test_argument(trt_engine, trt_profiler):
            assert trt_profiler(trt_engine, shapes={"s": (8, 4)}).shapes["s"] == (8, 4)
            with pytest.raises(ShapeError, match="input 's' has shape 9x4"):
                trt_profiler(trt_engine, shapes={"s": (9, 4)})

        def test_feed_of_scalars_and_lists(trt_engine, trt_profiler):
            feed = {"s": [2, 4], "x": np.ones((1, 4), np.float32)}
            assert trt_profiler(trt_engine, feed=feed).shapes == {"s": (2, 4), "x": (1, 4)}

        @given(shapes=profile_shapes("net.onnx"))
        def test_shapes(shapes):
            assert 1 <= shapes["s"][0] <= 8 and shapes["s"][1] == 4

        @given(feed=profile_feeds("net.onnx"))
        def test_feeds(trt_engine, trt_shadow, feed):
            assert_outputs_close(trt_engine.run(feed), trt_shadow.run(feed))
        """
    )
    project.run(ENGINE, *ROWS).assert_outcomes(passed=5)


@needs_rtx
def test_tensorrt_for_rtx_builds_it(project: Project) -> None:
    shape_inputs.expanding(project.path / "net.onnx")
    args = (ENGINE, *ROWS, "--trt-runtime=tensorrt_rtx", "-k", "structure or log")
    project.record(*args)
    project.run(*args).assert_outcomes(passed=2, deselected=3)


@needs_rtx
def test_calibration_feeds_of_their_own(project: Project) -> None:
    graph = models.Graph()
    s = graph.input("s", [2], shape_inputs.INT64)
    wide = graph.add("Expand", [graph.input("x", [1, 8]), s], "/Expand")
    graph.add("MatMul", [wide, graph.weight("w", 8, 8)], "/MatMul", "y")
    graph.output("y", ["rows", 8])
    graph.save(project.path / "net.onnx")
    project.pytester.makepyfile(
        """
        def test_it(trt_build):
            shapes = {f"{which}_shapes": f"s:{rows}x8" for which, rows in (("min", 1), ("opt", 4), ("max", 8))}
            engine = trt_build("net.onnx", precision="int8", runtime="tensorrt_rtx", **shapes)
            assert engine.layer("/MatMul").precision == "int8"
            assert engine.info.profiles[0]["s"].opt == (4, 8)
        """
    )
    project.run().assert_outcomes(passed=1)
