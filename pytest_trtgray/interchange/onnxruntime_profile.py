"""The profile that ONNX Runtime writes where ``enable_profiling`` is set: a row a kernel and inference."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.engines.model import Layer, LayerTensor
from pytest_trtgray.engines.onnxruntime import KERNEL_SUFFIX, ORT_FLOATS, read_profile, stable_names
from pytest_trtgray.errors import InterchangeError
from pytest_trtgray.interchange.text import AGAIN, dict_rows, number_in, parse_json

_RUN = "model_run"
_REMEDY = "Set enable_profiling, run the model some times, and call end_profiling."
# ONNX Runtime's optimiser names what it puts in, and what it puts together
_MADE_UP = re.compile(r"_token_\d+$|_nchwc$|^Reorder(Input|Output)|(^|[/_ ])fused?([/_ ]|$)|^$", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class OnnxRuntimeProfile:
    """Times of an ONNX Runtime session.

    Attributes:
        layers: one a column, in order of execution; ONNX nodes where the kernel has the name of one.
        layer_us: shape (inferences, layers), microseconds; without the first inference if there are several.
        latency_us: of each whole inference, with the profiler on.
        provider: execution providers of the kernels.
        left_out: inferences that warmed up, and those that had not ended.
    """

    layers: tuple[Layer, ...]
    layer_us: NDArray[np.float64]
    latency_us: NDArray[np.float64]
    provider: str
    left_out: int


def read_onnxruntime_profile(path: Path, text: str) -> OnnxRuntimeProfile:
    """The kernels of every inference.

    Raises:
        InterchangeError: an event cannot be read, or there is no inference.
    """
    events = [_checked(path, number, row) for number, row in dict_rows(path, parse_json(path, text))]
    runs = sorted((event["ts"], event["dur"]) for event in events if event.get("name") == _RUN)
    if not runs:
        raise InterchangeError(path, "holds no inference", _REMEDY)
    last = max(start + duration for start, duration in runs)
    complete = [event for event in events if event.get("cat") != "Node" or event["ts"] <= last]
    times = read_profile(complete)
    skipped = 1 if len(times) > 1 else 0
    names = list(dict.fromkeys(name for inference in times for name in inference))
    if not names:
        raise InterchangeError(path, "holds no kernel of any node", _REMEDY)
    table = np.array([[inference.get(name, 0.0) for name in names] for inference in times[skipped:]])
    kernels = _kernels(complete)
    return OnnxRuntimeProfile(
        tuple(_layer(name, kernels.get(name, {})) for name in names),
        table,
        np.array([duration for _, duration in runs[skipped:]]),
        " + ".join(sorted({str(kernel["provider"]) for kernel in kernels.values() if kernel.get("provider")})),
        skipped,
    )


def _checked(path: Path, number: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """An event whose times are numbers; those of no node and no inference are of no interest."""
    if row.get("cat") != "Node" and row.get("name") != _RUN:
        return {}

    def wrong(reason: str) -> InterchangeError:
        return InterchangeError(path, f"event {number}: {reason}", AGAIN)

    name = row.get("name")
    if not isinstance(name, str):
        raise wrong("has no name")
    start, duration = (number_in(row, key, wrong) for key in ("ts", "dur"))
    if start is None or duration is None:
        raise wrong(f"{name!r} has no ts and dur that are numbers")
    arguments = row.get("args")
    return {
        "name": name,
        "cat": row.get("cat"),
        "ts": start,
        "dur": duration,
        "args": arguments if isinstance(arguments, Mapping) else {},
    }


def _kernels(events: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """What is said of each kernel, by its stable name."""
    ordered = sorted((event for event in events if event.get("cat") == "Node"), key=lambda event: float(event["ts"]))
    said: dict[str, Mapping[str, Any]] = {}
    for event in ordered:
        if event["name"].endswith(KERNEL_SUFFIX):
            said.setdefault(event["name"][: -len(KERNEL_SUFFIX)], event["args"])
    return dict(zip(stable_names(list(said)), said.values(), strict=True))


def _layer(name: str, kernel: Mapping[str, Any]) -> Layer:
    inputs, outputs = (_tensors(kernel.get(f"{side}_type_shape")) for side in ("input", "output"))
    return Layer(
        name=name,
        kind=str(kernel.get("op_name", "")),
        onnx_nodes=frozenset() if _MADE_UP.search(name) else frozenset({name}),
        inputs=inputs,
        outputs=outputs,
    )


def _tensors(types: Any) -> tuple[LayerTensor, ...]:
    """``[{"float": [2, 8]}]``, which older releases write as text."""
    if isinstance(types, str):
        try:
            types = json.loads(types)
        except ValueError:
            return ()
    if not isinstance(types, list):
        return ()
    return tuple(
        LayerTensor("", ORT_FLOATS.get(str(name), str(name)))
        for entry in types
        if isinstance(entry, Mapping)
        for name in entry
    )


__all__ = ["OnnxRuntimeProfile", "read_onnxruntime_profile"]
