"""Networks quantised by ONNX Runtime for real, and faults planted into their scales."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.precision import convert
from pytest_trtgray.feeds import Feed, make_feed
from tests import models

SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "mlp": {"x": (16, 8)},
    "conv_net": {"x": (4, 3, 16, 16)},
    "encoder": {"ids": (4, 12), "mask": (4, 1, 1, 12)},
}


def feeds_for(path: Path, count: int, first: int = 0) -> list[Feed]:
    """Seeded inputs of the models in :data:`SHAPES`, by the names of their inputs."""
    inputs = OnnxModel(path).inputs
    (shapes,) = (
        shapes for shapes in SHAPES.values() if set(shapes) == {spec.name for spec in inputs} and _fit(shapes, inputs)
    )
    return [make_feed(inputs, shapes, seed) for seed in range(first, first + count)]


def _fit(shapes: dict[str, tuple[int, ...]], inputs: Any) -> bool:
    return all(
        len(shapes[spec.name]) == len(spec.shape)
        and all(isinstance(dim, str) or dim == size for dim, size in zip(spec.shape, shapes[spec.name], strict=True))
        for spec in inputs
    )


def quantised(source: Path, path: Path, precision: str = "int8", method: str = "", count: int = 4) -> Path:
    """The model with Q/DQ nodes, calibrated with the first seeded inputs."""
    if precision == "fp8":
        proto = onnx.version_converter.convert_version(onnx.load(str(source)), 19)
        proto.ir_version = 10
        source = models.write(proto, path.with_suffix(".opset19.onnx"))
    path.write_bytes(convert(source, precision, feeds_for(source, count), method))
    return path


def rescale(source: Path, path: Path, node: str, factor: float, channel: int | None = None) -> Path:
    """The same model with the scale of one Q/DQ pair multiplied, of one channel or of all."""
    proto = onnx.load(str(source))
    (name,) = (each.input[1] for each in proto.graph.node if each.name == node)
    (tensor,) = (each for each in proto.graph.initializer if each.name == name)
    scale = numpy_helper.to_array(tensor).copy()
    if channel is None:
        scale = scale * np.float32(factor)
    else:
        scale[channel] *= factor
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(scale, np.float32), name))
    return models.write(proto, path)


def scale_channel(source: Path, path: Path, weight: str, channel: int, factor: float, axis: int = 0) -> Path:
    """The same model with one channel of one weight multiplied."""
    proto = onnx.load(str(source))
    (tensor,) = (each for each in proto.graph.initializer if each.name == weight)
    values = numpy_helper.to_array(tensor).copy()
    values[(slice(None),) * axis + (channel,)] *= np.float32(factor)
    tensor.CopyFrom(numpy_helper.from_array(values, weight))
    return models.write(proto, path)


def quantisers(path: Path, operator: str = "QuantizeLinear") -> list[str]:
    """Names of the Q nodes."""
    return [node.name for node in onnx.load(str(path)).graph.node if node.op_type == operator]
