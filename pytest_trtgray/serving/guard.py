"""Outputs that no caller should get: not finite, or stuck at the ends of what their type can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.engines.base import Engine

MAX_SATURATED = 0.05
"""Share of an output's elements that may lie at its ends. Calibrated by percentile 99.99 or by entropy, well below one
in a hundred values is clipped; a scale that is ten times too small clips nine in ten."""
_INTEGERS = {"int8": (-128, 127), "uint8": (0, 255)}
_HALF = float(np.finfo(np.float16).max)

FaultKind = Literal["non_finite", "saturated"]


@dataclass(frozen=True)
class OutputFault:
    """Why an answer must not be used.

    Attributes:
        output: its name.
        kind: ``non_finite`` or ``saturated``.
        share: of the output's elements (0 to 1).
    """

    output: str
    kind: FaultKind
    share: float

    def __str__(self) -> str:
        what = "not finite" if self.kind == "non_finite" else "at the end of what it can hold"
        return f"output {self.output!r}: {self.share:.0%} of the elements are {what}"


@dataclass(frozen=True)
class OutputGuard:
    """Looks at each answer of an engine; a few microseconds for a thousand elements.

    Attributes:
        ends: by output the smallest and the largest value that it can hold; an output that is not named may be
            anything that is finite.
        max_saturated: share of an output's elements (0 to 1) that may lie at its ends.
    """

    ends: Mapping[str, tuple[float, float]]
    max_saturated: float = MAX_SATURATED

    @classmethod
    def of(cls, engine: Engine, max_saturated: float = MAX_SATURATED) -> OutputGuard:
        """The guard that an engine's outputs need: those in FP16, and those that the model dequantises with one scale.

        Args:
            engine: its ONNX model tells the scales; without it only the types of the outputs are known.
            max_saturated: see the class.
        """
        ends = {spec.name: (-_HALF, _HALF) for spec in engine.info.outputs if spec.dtype == "float16"}
        if engine.model is not None:
            ends.update(_quantised_ends(engine.model.proto.graph, {spec.name for spec in engine.info.outputs}))
        return cls(ends, max_saturated)

    def check(self, outputs: Mapping[str, NDArray[Any]]) -> OutputFault | None:
        """The first fault of an answer; ``None`` if it may be given."""
        for name, values in outputs.items():
            if values.dtype.kind != "f" or not values.size:
                continue
            finite = np.isfinite(values)
            if not finite.all():
                return OutputFault(name, "non_finite", 1 - float(finite.mean()))
            if name in self.ends:
                low, high = self.ends[name]
                stuck = float(np.mean((values <= low) | (values >= high)))
                if stuck > self.max_saturated:
                    return OutputFault(name, "saturated", stuck)
        return None


def _quantised_ends(graph: Any, outputs: set[str]) -> dict[str, tuple[float, float]]:
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    ends = {}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.output[0] not in outputs or node.input[1] not in constants:
            continue
        scale = numpy_helper.to_array(constants[node.input[1]])
        zero = constants.get(node.input[2]) if len(node.input) > 2 else None
        levels = numpy_helper.to_array(zero) if zero is not None else np.zeros((), np.uint8)
        if scale.size != 1 or str(levels.dtype) not in _INTEGERS:
            continue
        # in the type of the values, so that the ends are met exactly
        steps = np.array(_INTEGERS[str(levels.dtype)], scale.dtype) - levels.astype(scale.dtype).reshape(-1)[0]
        low, high = (steps * scale.reshape(-1)[0]).tolist()
        ends[node.output[0]] = (low, high)
    return ends
