"""Answers that no caller should get."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from pytest_trtgray import OutputGuard
from tests.models import Graph
from tests.unit.helpers import ort_engine


def dequantised(path: Path, dtype: type, zero: int, scale: float = 0.5) -> Path:
    """``y``: ``x`` rounded to eight bits and back."""
    graph = Graph()
    x = graph.input("x", ["batch", 4])
    scales = [graph.constant("scale", np.float32(scale)), graph.constant("zero", dtype(zero))]
    graph.add("DequantizeLinear", [graph.add("QuantizeLinear", [x, *scales], "/q"), *scales], "/dq", "y")
    graph.output("y", ["batch", 4])
    return graph.save(path)


@pytest.mark.parametrize(
    ("dtype", "zero", "ends"),
    [(np.int8, 0, (-64.0, 63.5)), (np.int8, -28, (-50.0, 77.5)), (np.uint8, 128, (-64.0, 63.5))],
)
def test_what_saturates_is_found_in_what_the_engine_answers(
    tmp_path: Path, dtype: type, zero: int, ends: tuple[float, float]
) -> None:
    engine = ort_engine(dequantised(tmp_path / "m.onnx", dtype, zero))
    guard = OutputGuard.of(engine)

    assert guard.ends == {"y": ends}
    inside = np.linspace(ends[0] + 1, ends[1] - 1, 40, dtype=np.float32).reshape(10, 4)
    assert guard.check(engine.run({"x": inside[:8]})) is None
    beyond = inside[:8].copy()
    beyond[0] = 1e4
    fault = guard.check(engine.run({"x": beyond}))
    assert fault is not None
    assert (fault.output, fault.kind, fault.share) == ("y", "saturated", 4 / 32)
    assert str(fault) == "output 'y': 12% of the elements are at the end of what it can hold"


def test_one_value_at_the_end_is_no_fault() -> None:
    guard = OutputGuard({"y": (-1.0, 1.0)})
    values = np.zeros((10, 10), np.float32)
    values[0, :5] = 1.0
    assert guard.check({"y": values}) is None
    values[0, 5] = -1.0
    assert guard.check({"y": values}) is not None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_single_value_that_is_not_finite(value: float) -> None:
    values = np.zeros((2, 5), np.float32)
    values[1, 1] = value
    fault = OutputGuard({}).check({"a": np.zeros(3), "y": values})
    assert fault is not None
    assert (fault.output, fault.kind) == ("y", "non_finite")
    assert fault.share == pytest.approx(0.1)


def test_fp16_ends_where_its_type_ends(tmp_path: Path) -> None:
    graph = Graph()
    x = graph.input("x", ["batch", 4], TensorProto.FLOAT16)
    graph.add("Identity", [x], "/id", "y")
    graph.output("y", ["batch", 4], TensorProto.FLOAT16)
    guard = OutputGuard.of(ort_engine(graph.save(tmp_path / "half.onnx")))

    assert guard.ends == {"y": (-65504.0, 65504.0)}
    assert guard.check({"y": np.full((1, 4), 65504, np.float16)}) is not None
    assert guard.check({"y": np.full((1, 4), 60000, np.float16)}) is None


def test_outputs_that_cannot_saturate(mlp: Path) -> None:
    guard = OutputGuard.of(ort_engine(mlp))
    assert guard.ends == {}
    assert guard.check({"y": np.full(4, 1e30, np.float32), "ids": np.full(4, 2**62), "none": np.zeros((0, 3))}) is None
