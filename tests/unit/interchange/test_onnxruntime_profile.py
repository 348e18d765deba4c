"""Profiles that ONNX Runtime really writes here, and what may happen to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.errors import InterchangeError
from pytest_trtgray.interchange.onnxruntime_profile import read_onnxruntime_profile

RUNS = 12
HERE = Path("profile.json")


def profiled(model: Path, folder: Path, *, runs: int = RUNS, optimised: bool = True) -> Path:
    """The profile of a session, as its user gets it."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "ort")
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    feed = {
        each.name: np.ones([dim if isinstance(dim, int) else 2 for dim in each.shape], np.float32)
        for each in session.get_inputs()
    }
    for _ in range(runs):
        session.run(None, feed)
    return Path(session.end_profiling())


@pytest.fixture(scope="module")
def events(conv_net: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(profiled(conv_net, tmp_path_factory.mktemp("ort")).read_bytes())
    return found


def test_a_real_one(conv_net: Path, tmp_path: Path) -> None:
    path = profiled(conv_net, tmp_path)
    read = read_onnxruntime_profile(path, path.read_text())

    runs = [event["dur"] for event in json.loads(path.read_text()) if event["name"] == "model_run"]
    assert read.latency_us.tolist() == runs[1:]  # the first one warms up
    assert read.layer_us.shape == (RUNS - 1, len(read.layers))
    assert (read.layer_us.sum(axis=1) <= read.latency_us).all()
    assert read.provider == "CPUExecutionProvider"
    assert {layer.kind for layer in read.layers} >= {"Conv", "Gemm"}
    assert {layer.precision for layer in read.layers} == {"float32"}


def test_nodes_are_those_that_the_optimiser_left_alone(conv_net: Path, tmp_path: Path) -> None:
    written = profiled(conv_net, tmp_path, optimised=False)
    layers = read_onnxruntime_profile(written, written.read_text()).layers
    assert all(layer.onnx_nodes == {layer.name} for layer in layers)

    optimised = profiled(conv_net, tmp_path)
    names = {layer.name for layer in layers}
    for layer in read_onnxruntime_profile(optimised, optimised.read_text()).layers:
        assert layer.onnx_nodes <= names  # no name of a node that the model does not have


def test_an_inference_that_did_not_end(events: list[dict[str, Any]]) -> None:
    last = max(number for number, event in enumerate(events) if event["name"] == "model_run")
    whole = read_onnxruntime_profile(HERE, json.dumps(events))
    cut = read_onnxruntime_profile(HERE, json.dumps(events[:last]))
    assert len(cut.latency_us) == len(whole.latency_us) - 1
    np.testing.assert_array_equal(cut.layer_us, whole.layer_us[:-1])


def test_one_inference_is_kept(conv_net: Path, tmp_path: Path) -> None:
    path = profiled(conv_net, tmp_path, runs=1)
    assert len(read_onnxruntime_profile(path, path.read_text()).latency_us) == 1


@given(data=st.data())
def test_any_member_may_be_anything(events: list[dict[str, Any]], data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(events) - 1))
    event = dict(events[number])
    key = data.draw(st.sampled_from(["name", "ts", "dur", "args", "cat"]))
    event[key] = data.draw(st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.just([]) | st.just({}))
    try:
        read = read_onnxruntime_profile(HERE, json.dumps([*events[:number], event, *events[number + 1 :]]))
    except InterchangeError:
        return
    assert np.isfinite(read.layer_us).all()
    assert np.isfinite(read.latency_us).all()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "holds no inference"),
        ('[{"cat": "Session", "name": "model_loading_uri", "ts": 1, "dur": 2}]', "holds no inference"),
        ('[{"cat": "Session", "name": "model_run", "ts": 1, "dur": 2}]', "holds no kernel of any node"),
        ('[{"cat": "Session", "name": "model_run", "ts": 1, "dur": "x"}]', "event 1: dur is 'x', which is no number"),
        ('[{"cat": "Session", "name": "model_run", "ts": 1}]', "event 1: 'model_run' has no ts and dur"),
        ('[{"cat": "Node", "ts": 1, "dur": 1}]', "event 1: has no name"),
        ('[{"cat": "Node", "ts": 1', "is cut off"),
        ("[7]", "entry 1 is a number"),
    ],
)
def test_refusals(text: str, reason: str) -> None:
    with pytest.raises(InterchangeError, match=reason):
        read_onnxruntime_profile(HERE, text)
