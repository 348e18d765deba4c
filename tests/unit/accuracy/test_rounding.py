from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from pytest_trtgray.accuracy.rounding import LEVELS, quantise, spread
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.onnxruntime import open_reference
from tests import models

TYPES = {
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "int16": TensorProto.INT16,
    "int4": TensorProto.INT4,
    "uint4": TensorProto.UINT4,
    "fp8": TensorProto.FLOAT8E4M3FN,
}
NUMPY = {"fp8": ml_dtypes.float8_e4m3fn, "fp4": ml_dtypes.float4_e2m1fn}
RNG = np.random.default_rng(5)


def by_onnxruntime(
    folder: Path, values: Any, scale: Any, zero: Any, dtype: str, axis: int | None = None, block: int = 0
) -> Any:
    """What ONNX Runtime's own QuantizeLinear and DequantizeLinear make of the values."""
    scale = np.asarray(scale, np.float32)
    zeros = helper.make_tensor("zero", TYPES[dtype], scale.shape, np.broadcast_to(zero, scale.shape).ravel().tolist())
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis, **({"block_size": block} if block else {})}
    graph = models.Graph()
    x = graph.input("x", values.shape)
    graph.weights += [numpy_helper.from_array(scale, "scale"), zeros]
    quantised = graph.add("QuantizeLinear", [x, "scale", "zero"], "/Q", **attributes)
    graph.add("DequantizeLinear", [quantised, "scale", "zero"], "/DQ", "y", **attributes)
    graph.output("y", values.shape)
    path = graph.save(folder / f"{dtype}.onnx", models.BLOCKED_OPSET, models.BLOCKED_IR)
    return open_reference(OnnxModel(path)).run({"x": values})["y"]


@pytest.mark.parametrize("dtype", sorted(TYPES))
@pytest.mark.parametrize("zero", [0, 3])
def test_one_scale_as_onnxruntime_does_it(dtype: str, zero: int, tmp_path: Path) -> None:
    zero = 0 if dtype == "fp8" else zero
    values = (RNG.standard_normal((40, 25)) * 3).astype(np.float32)
    values[0, :6] = [0, -0.0, 1e6, -1e6, 0.015, 0.045]  # far out, and half-way between two levels of 0.03
    mine = quantise(values, np.float32(0.03), zero, dtype)

    np.testing.assert_array_equal(mine.values, by_onnxruntime(tmp_path, values, 0.03, zero, dtype))


@pytest.mark.parametrize(("axis", "block"), [(0, 0), (1, 0), (-1, 0), (0, 4), (1, 5), (1, 4)])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_scales_along_axes_and_blocks(dtype: str, axis: int, block: int, tmp_path: Path) -> None:
    values = RNG.standard_normal((8, 10)).astype(np.float32)
    shape: Any = (values.shape[axis],)
    if block:
        shape = tuple(-(-size // block) if index == axis else size for index, size in enumerate(values.shape))
    scale = RNG.uniform(0.01, 0.2, shape).astype(np.float32)
    mine = quantise(values, spread(scale, values.shape, axis, block), 0.0, dtype)

    np.testing.assert_array_equal(mine.values, by_onnxruntime(tmp_path, values, scale, 0, dtype, axis, block))


@pytest.mark.parametrize(
    ("dtype", "beyond", "within"),
    [("int8", [128.0, -129.0, 1e30], [127.4, -128.4]), ("uint8", [256.0, -1.0], [255.4, -0.4]),
     ("int4", [8.0, -9.0], [7.4, -8.4]), ("fp8", [470.0, -1e4, 1e30], [460.0, -448.0]), ("fp4", [7.5, -8.0], [6.9])],
)  # fmt: skip
def test_what_is_cut_off_and_not_rounded(dtype: str, beyond: list[float], within: list[float]) -> None:
    found = quantise(np.array([*beyond, *within, 0], np.float32), np.float32(1), 0.0, dtype)

    assert found.clipped == len(beyond)
    assert found.values.max() <= LEVELS[dtype].high
    assert found.values.min() >= LEVELS[dtype].low


@pytest.mark.parametrize("dtype", ["fp8", "fp4"])
def test_the_spacing_of_floating_point_levels(dtype: str) -> None:
    """Every finite value of the type, and how far the next one is."""
    kind = NUMPY[dtype]
    numbers = np.arange(256 if dtype == "fp8" else 16, dtype=np.uint8).view(kind).astype(np.float64)
    levels = np.unique(numbers[np.isfinite(numbers) & (numbers >= 0)])
    steps = np.diff(levels)

    assert levels[-1] == LEVELS[dtype].high
    np.testing.assert_array_equal(LEVELS[dtype].spacing((levels[:-1] + levels[1:]) / 2), steps)


@given(
    values=hnp.arrays(np.float32, 30, elements=st.floats(-(2.0**100), 2.0**100, width=32)),
    scale=st.floats(2.0**-20, 2.0**20, width=32),
    dtype=st.sampled_from(sorted(LEVELS)),
)
def test_levels_stay_as_they_are(values: Any, scale: float, dtype: str) -> None:
    factor = np.float32(2 ** round(np.log2(scale)))  # exact, so that nothing else is rounded
    once = quantise(values, factor, 0.0, dtype)
    twice = quantise(once.values, factor, 0.0, dtype)

    np.testing.assert_array_equal(twice.values, once.values)
    assert twice.clipped == 0
