"""``--trt-against``: two models in turn, no baseline; the times are real, the planted slowdown is large."""

from __future__ import annotations

import json

import onnx
import pytest
from onnx import numpy_helper

from tests import models, planted
from tests.integration.conftest import Project, text

FEW = ("-o", "trt_iterations=12")
SURE = ("-o", "trt_false_alarm_rate=0.0001")  # one run in a hundred would fail this project's own gate too often
SLOWED = "/layer1/conv1/Conv"


@pytest.fixture
def pair(project: Project) -> Project:
    old = models.conv_net(project.path / "old.onnx", channels=16, blocks=3)
    planted.with_zero_ring(old, project.path / "new.onnx", SLOWED)
    return project


def test_a_slow_layer_is_named_without_a_baseline(pair: Project) -> None:
    result = pair.run("--trt-engine=new.onnx", "--trt-against=old.onnx", "--trt-json=run.json", "-v", *FEW)

    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "trtgray::against[[]new[]] FAILED*",
            "trtgray::outputs[[]new[]] PASSED*",
            "trtgray::log[[]new[]] PASSED*",
            "trtgray::shapes[[]new[]] PASSED*",
            "* layers slower on *",
            f"  *{SLOWED}*us, +*%*",
        ]
    )
    assert "--trt-rebaseline" not in text(result)
    assert not list((pair.path / "baselines").rglob("*.json"))
    checks = json.loads((pair.path / "run.json").read_text())["checks"]
    (against,) = (check for check in checks if check["kind"] == "against")
    slower = [row for row in against["details"]["layers"] if row["outcome"] == "slower"]
    # what runs after it may find the caches empty
    worst = max(slower, key=lambda row: row["us"] - row["before_us"])
    assert SLOWED in worst["nodes"]
    assert worst["us"] > 2 * worst["before_us"]
    assert against["details"]["against"] == "old"


def test_the_same_model_twice_does_not_fail(pair: Project) -> None:
    result = pair.run("--trt-engine=again=old.onnx", "--trt-against=old.onnx", "-k", "against", *FEW, *SURE)

    result.assert_outcomes(passed=1)


def test_other_outputs_fail_before_anything_is_timed(pair: Project) -> None:
    proto = onnx.load(str(pair.path / "old.onnx"))
    for tensor in proto.graph.initializer:
        if tensor.name == "head.bias":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 1, tensor.name))
    onnx.save(proto, str(pair.path / "wrong.onnx"))
    result = pair.run("--trt-engine=wrong.onnx", "--trt-against=old.onnx", "-k", "against", *FEW)

    result.assert_outcomes(failed=1)
    assert "outputs differ: output 'logits'" in text(result)
    assert "layers slower" not in text(result)


def test_an_inserted_node_is_told_beside_the_times(pair: Project) -> None:
    proto = onnx.load(str(pair.path / "old.onnx"))
    last = proto.graph.node[-1]
    last.output[0] = "before"
    proto.graph.node.append(onnx.helper.make_node("Neg", ["before"], ["turned"], "/inserted/Neg"))
    proto.graph.node.append(onnx.helper.make_node("Neg", ["turned"], ["logits"], "/inserted/Neg_1"))
    onnx.save(proto, str(pair.path / "longer.onnx"))
    result = pair.run("--trt-engine=longer.onnx", "--trt-against=old.onnx", "-k", "against", *FEW, *SURE)

    result.assert_outcomes(passed=1)
    assert "/inserted/Neg" in text(result)


def test_in_a_test_of_ones_own(pair: Project) -> None:
    pair.pytester.makepyfile(
        f"""
        NODE = {SLOWED!r}

        def test_against(trt_engine, trt_against, trt_profiler):
            contest = trt_profiler.against(trt_engine, trt_against, {{"x": (2, 3, 16, 16)}}, pairs=3, iterations=10)
            assert contest.old.engine.name == "old" and contest.new.engine.name == "new"
            assert contest.new.shapes == {{"x": (2, 3, 16, 16)}}
            assert contest.verdict.baseline_runs in (3, 6)
            assert contest.new.layer(NODE).us > contest.old.layer(NODE).us

        def test_too_few(trt_engine, trt_against, trt_profiler):
            trt_profiler.against(trt_engine, trt_against, pairs=2, iterations=10)
        """
    )
    result = pair.run("--trt-engine=new.onnx", "--trt-against=old.onnx")

    result.assert_outcomes(passed=1, failed=1)
    assert "an A/B needs at least 3 pairs" in text(result)
    pair.run("--trt-engine=new.onnx", "-k", "test_against").assert_outcomes(skipped=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trt-against=old.onnx"], "--trt-against: there is no engine to compare it with"),
        (["--trt-engine=new.onnx", "--trt-against=gone.onnx"], "gone.onnx: no such file"),
        (["--trt-engine=new.onnx", "--trt-against==old.onnx"], "--trt-against==old.onnx: cannot be read"),
    ],
)
def test_what_cannot_be_compared(pair: Project, options: list[str], message: str) -> None:
    result = pair.run(*options)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in text(result)
