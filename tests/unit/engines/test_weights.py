from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pytest_trtgray.engines.loading import LoadOptions, load_engine
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.weights import facts_of_build, odd_values
from tests.models import Graph


def saved(path: Path, *, external: bool = False, **weights: list[float]) -> Path:
    """``y = x + w1 + w2 …``, as FP32."""
    graph = Graph()
    value = graph.input("x", [1, 4])
    for name, values in weights.items():
        value = graph.add("Add", [value, graph.constant(name, np.array(values, np.float32))], name=f"/add_{name}")
    graph.add("Identity", [value], name="/y", output="y")
    graph.output("y", [1, 4])
    graph.save(path)
    if external:
        import onnx

        onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.data", size_threshold=0)
    return path


@pytest.mark.parametrize("external", [False, True])
def test_odd_values_are_counted_by_weight(tmp_path: Path, external: bool) -> None:
    nan, inf = float("nan"), float("inf")
    path = saved(
        tmp_path / "m.onnx",
        external=external,
        good=[1.0, 2.0, 3.0, 65504.0],
        bad=[nan, 1.0, nan, 2.0],
        mask=[0.0, -inf, -inf, -inf],
        big=[1e6, -1e6, 0.0, nan],
    )
    found = odd_values(OnnxModel(path))

    assert found.nan == {"bad": 2, "big": 1}
    assert found.infinite == {"mask": 3}
    assert found.beyond["fp16"] == {"big": 2}


def test_the_range_matters_only_for_the_precision_that_was_asked_for(tmp_path: Path) -> None:
    model = OnnxModel(saved(tmp_path / "m.onnx", big=[1e6, 0.0, 0.0, 0.0]))

    assert facts_of_build(model, "", None).beyond_precision == {}
    assert facts_of_build(model, "fp16", 1).beyond_precision == {"big": 1}
    assert facts_of_build(model, "bf16", 1).beyond_precision == {}
    assert (facts_of_build(model, "", 2).opset, facts_of_build(model, "", 2).engine_layers) == (17, 2)


def test_an_engine_tells_what_no_build_says(tmp_path: Path) -> None:
    options = LoadOptions(runtime="onnxruntime", cache_dir=tmp_path / "cache")
    good = load_engine(saved(tmp_path / "good.onnx", w=[1.0, 2.0, 3.0, 4.0]), options)
    bad = load_engine(saved(tmp_path / "bad.onnx", w=[1.0, float("nan"), 3.0, 4.0]), options)

    assert good.findings == ()
    assert [finding.rule for finding in bad.findings] == ["silent.nan-weights"]
    assert bad.findings[0].where == "w"
