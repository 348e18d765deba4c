"""RunResults that Polygraphy really writes here, and what may happen to them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from polygraphy.comparator import RunResults

from pytest_trtgray.errors import InterchangeError
from pytest_trtgray.interchange.polygraphy_results import read_run_results

HERE = Path("results.json")
STARTED = "-N0-11/21/26-21:04:48"


def saved(folder: Path, **runners: list[dict[str, Any]]) -> Path:
    """A file of results, by Polygraphy's own hand."""
    results = RunResults()
    for name, iterations in runners.items():
        results.add(iterations, runtime=1.5e-3, runner_name=name.replace("_", "-") + STARTED)
    path = folder / f"{'-'.join(runners)}.json"
    results.save(str(path))
    return path


def read(path: Path) -> Any:
    return read_run_results(path, path.read_text())


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bool", "uint8"])
def test_arrays_come_back(tmp_path: Path, dtype: str) -> None:
    array = (np.arange(12).reshape(3, 4) % 2).astype(dtype)
    scalar = np.array(3, dtype)
    (runner,) = read(saved(tmp_path, onnxrt_runner=[{"y": array, "s": scalar}, {"y": array[:1], "s": scalar}]))

    assert runner.name == "onnxrt-runner"  # without number and time: it is to be found again
    assert runner.runtime_us == (1500.0, 1500.0)
    np.testing.assert_array_equal(runner.outputs[0]["y"], array)
    assert runner.outputs[0]["y"].dtype == array.dtype
    assert runner.outputs[0]["s"].shape == ()
    assert runner.outputs[1]["y"].shape == (1, 4)


def test_several_runners_in_their_order(tmp_path: Path) -> None:
    path = saved(tmp_path, trt_runner=[{"y": np.ones(2)}], onnxrt_runner=[{"y": np.ones(2)}])
    assert [runner.name for runner in read(path)] == ["trt-runner", "onnxrt-runner"]


def test_arrays_without_wrapper_and_without_time() -> None:
    """As earlier releases write them."""
    data = io.BytesIO()
    np.save(data, np.ones(3, np.float32))
    array = {"array": base64.b64encode(data.getvalue()).decode(), "polygraphy_class": "ndarray"}
    text = json.dumps({"lst": [["trt", [{"outputs": {"y": array}, "runtime": None}]]]})
    (runner,) = read_run_results(HERE, text)
    assert runner.runtime_us == (None,)
    np.testing.assert_array_equal(runner.outputs[0]["y"], np.ones(3))


def test_pickles_are_not_opened() -> None:
    data = io.BytesIO()
    np.save(data, np.array([{"a": 1}], object), allow_pickle=True)
    array = {"array": base64.b64encode(data.getvalue()).decode()}
    with pytest.raises(InterchangeError, match="output 'y' cannot be decoded"):
        read_run_results(HERE, json.dumps({"lst": [["trt", [{"outputs": {"y": array}}]]]}))


def test_types_that_numpy_does_not_have(tmp_path: Path) -> None:
    """numpy writes bfloat16 as bytes without a meaning: nobody can say what they were."""
    path = saved(tmp_path, trt=[{"y": np.ones(3, ml_dtypes.bfloat16)}])
    (runner,) = read(path)
    assert runner.outputs[0]["y"].dtype.kind == "V"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([], "is no RunResults"),
        ({"lst": {}}, "is no RunResults"),
        ({"lst": []}, "holds the results of no runner"),
        ({"lst": ["trt"]}, "runner 1 is no pair"),
        ({"lst": [["trt", []]]}, "runner 'trt' has no iterations"),
        ({"lst": [["trt", [3]]]}, "runner 'trt', iteration 0 has no outputs"),
        ({"lst": [["trt", [{"outputs": {"y": 3}}]]]}, "output 'y' is no array"),
        ({"lst": [["trt", [{"outputs": {"y": {"tensor": "abc"}}}]]]}, "is a torch tensor"),
        ({"lst": [["trt", [{"outputs": {"y": {"array": "?"}}}]]]}, "output 'y' cannot be decoded"),
        ({"lst": [["trt", [{"outputs": {"y": {"array": "AAAA"}}}]]]}, "output 'y' cannot be decoded"),
        ({"lst": [["trt", [{"outputs": {}, "runtime": "long"}]]]}, "runtime is 'long', which is no number"),
    ],
)
def test_refusals(data: Any, reason: str) -> None:
    with pytest.raises(InterchangeError, match=reason):
        read_run_results(HERE, json.dumps(data))
