"""Weights of an ONNX model that a build takes without a word: NaN, infinity, and what a precision cannot hold."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pytest_trtgray.engines.onnx_model import OnnxModel, graphs, stored_tensors
from pytest_trtgray.logs.silence import BuildFacts

_FLOATS = (1, 10, 11)  # FLOAT, FLOAT16, DOUBLE
_LARGEST: Mapping[str, float] = {"fp16": 65_504.0}
"""Largest finite value of a precision with less range than FP32; beyond it, conversions cut silently."""


@dataclass(frozen=True)
class OddValues:
    """How many values of a weight are out of the ordinary, by its name; weights without any are left out.

    Attributes:
        nan: that are NaN.
        infinite: that are infinite.
        beyond: finite ones that a precision cannot hold, by precision.
    """

    nan: dict[str, int] = field(default_factory=dict)
    infinite: dict[str, int] = field(default_factory=dict)
    beyond: Mapping[str, dict[str, int]] = field(default_factory=lambda: {precision: {} for precision in _LARGEST})


@functools.lru_cache(maxsize=8)
def odd_values(model: OnnxModel) -> OddValues:
    """Look at every floating-point weight and constant of a model, once."""
    found = OddValues()
    for graph in graphs(model.proto.graph):
        for index, tensor in enumerate(stored_tensors(graph)):
            if tensor.data_type in _FLOATS:
                _look_at(tensor, tensor.name or f"constant {index}", model, found)
    return found


def _look_at(tensor: Any, name: str, model: OnnxModel, found: OddValues) -> None:
    from onnx import numpy_helper

    values = numpy_helper.to_array(tensor, base_dir=str(model.path.parent))
    finite = np.isfinite(values)
    if not finite.all():
        nan = int(np.count_nonzero(np.isnan(values)))
        infinite = int(np.count_nonzero(~finite)) - nan
        found.nan.update({name: nan} if nan else {})
        found.infinite.update({name: infinite} if infinite else {})
    for precision, largest in _LARGEST.items():
        beyond = int(np.count_nonzero(finite & (np.abs(values) > largest)))
        found.beyond[precision].update({name: beyond} if beyond else {})


def facts_of_build(model: OnnxModel, precision: str, engine_layers: int | None) -> BuildFacts:
    """What :func:`~pytest_trtgray.logs.silence.silent_findings` judges after one of the plugin's own builds.

    Args:
        model: as the user gave it.
        precision: that was asked for, or empty.
        engine_layers: of the built engine, where they are known.
    """
    values = odd_values(model)
    opsets = [entry.version for entry in model.proto.opset_import if entry.domain in ("", "ai.onnx")]
    return BuildFacts(
        engine_layers=engine_layers,
        ir_version=model.proto.ir_version,
        opset=max(opsets, default=None),
        nan_weights=values.nan,
        infinite_weights=values.infinite,
        precision=precision,
        beyond_precision=values.beyond.get(precision, {}),
    )
