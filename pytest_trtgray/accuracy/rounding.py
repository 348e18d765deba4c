"""What quantisation makes of numbers: the levels of each type, scales along axes and blocks, rounding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.engines.dtypes import numpy_dtype


@dataclass(frozen=True)
class Levels:
    """The values that a quantised type takes, in units of the scale.

    Attributes:
        low: smallest.
        high: largest.
        clipped_from: magnitude from which a value is not rounded but cut off.
        finest: distance of the levels next to zero.
        mantissa: bits of a floating-point type; ``None`` for integers, whose levels are equally far apart.
    """

    low: float
    high: float
    clipped_from: float
    finest: float = 1.0
    mantissa: int | None = None

    def spacing(self, magnitudes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance of the levels at given magnitudes."""
        if self.mantissa is None:
            return np.full(magnitudes.shape, self.finest)
        with np.errstate(divide="ignore"):
            exponent = np.floor(np.log2(np.minimum(magnitudes, self.high)))
        return np.maximum(2.0 ** (exponent - self.mantissa), self.finest)


LEVELS: Mapping[str, Levels] = {
    "int8": Levels(-128, 127, 127.5),
    "uint8": Levels(0, 255, 255.5),
    "int16": Levels(-32768, 32767, 32767.5),
    "uint16": Levels(0, 65535, 65535.5),
    "int4": Levels(-8, 7, 7.5),
    "uint4": Levels(0, 15, 15.5),
    # E4M3: the next level above 448 would be 480, and half-way to it is still rounded down
    "fp8": Levels(-448, 448, 464, 2.0**-9, 3),
    # E2M1: after 4 comes 6, and 8 would be next
    "fp4": Levels(-6, 6, 7, 0.5, 1),
}


@dataclass(frozen=True, eq=False)
class Quantised:
    """What a quantiser makes of some values.

    Attributes:
        values: dequantised again, FP32.
        codes: numbers of the levels, from 0.
        clipped: how many values were cut off.
    """

    values: NDArray[np.float32]
    codes: NDArray[np.integer[Any]]
    clipped: int


def quantise(values: NDArray[Any], scale: Any, zero: Any, dtype: str) -> Quantised:
    """Quantise and dequantise as ONNX's operators do: divide, round half to even, saturate.

    Args:
        values: FP32.
        scale: broadcasts to ``values``.
        zero: zero points, likewise.
        dtype: a key of :data:`LEVELS`.
    """
    levels = LEVELS[dtype]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        scaled = np.asarray(values / scale, np.float32)
    if levels.mantissa is None:
        rounded = np.rint(scaled) + zero
        codes = np.clip(rounded, levels.low, levels.high)
        clipped = int(np.count_nonzero(codes != rounded))
        numbers = np.nan_to_num(codes - levels.low).astype(np.int64)
        return Quantised(np.asarray((codes - zero) * scale, np.float32), numbers, clipped)
    clipped = int(np.count_nonzero(np.abs(scaled) > levels.clipped_from))
    narrow = np.clip(scaled, levels.low, levels.high).astype(numpy_dtype(dtype))
    return Quantised(np.asarray(narrow.astype(np.float32) * scale, np.float32), narrow.view(np.uint8), clipped)


def spread(parameters: NDArray[Any], shape: Sequence[int], axis: int | None, block: int) -> NDArray[np.float32]:
    """Scales or zero points in a shape that broadcasts to the tensor's: ONNX QuantizeLinear, opset 21.

    Args:
        parameters: a scalar, one a slice along ``axis``, or one a block.
        shape: of the tensor.
        axis: along which they vary.
        block: values of a block; 0 without blocks.
    """
    array = np.asarray(parameters, dtype=np.float32)
    if array.ndim == 0 or array.size == 1 or axis is None:
        return array.reshape(())
    if block:
        return np.asarray(np.repeat(array, block, axis=axis)[tuple(slice(size) for size in shape)])
    return array.reshape([-1 if index == axis % len(shape) else 1 for index in range(len(shape))])
