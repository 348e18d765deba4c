"""Files in trtexec's own spelling, made of real measurements: its profiles, times and outputs are written by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def profile(names: Sequence[str], layer_us: Floats, *, median: bool = True) -> str:
    """A ``--exportProfile``.

    Args:
        names: of the layers; written as they are.
        layer_us: shape (iterations, layers), microseconds.
        median: TensorRT 8.4 and later.
    """
    milliseconds = layer_us / 1e3
    totals = milliseconds.sum(axis=0)
    lines = ["[", f'  {{ "count" : {len(layer_us)} }}']
    for column, name in enumerate(names):
        numbers = {"timeMs": totals[column], "averageMs": milliseconds[:, column].mean()}
        if median:
            numbers["medianMs"] = float(np.median(milliseconds[:, column]))
        numbers["percentage"] = totals[column] / totals.sum() * 100 if totals.sum() else float("nan")
        rest = "".join(f', "{key}" : {cpp(value)}' for key, value in numbers.items())
        lines.append(f', {{ "name" : "{name}"{rest} }}')
    return "\n".join([*lines, "]", ""])


def times(compute_us: Floats, *, upload_us: float = 0.0, end_to_end: bool = False, gap_us: float = 3.0) -> str:
    """A ``--exportTimes``, one inference after the other.

    Args:
        compute_us: of each inference.
        upload_us: of its inputs.
        end_to_end: TensorRT before 8.4.
        gap_us: from the end of an inference to the start of the next; less than 0 is overlap.
    """
    rows, now = [], 2000.0
    for compute in compute_us:
        start, end = now + upload_us, now + upload_us + compute
        parts = {
            "startEnqMs": now - 40, "endEnqMs": now - 10, "startH2dMs": now, "endH2dMs": start,
            "startComputeMs": start, "endComputeMs": end, "startD2hMs": end, "endD2hMs": end,
            "h2dMs": upload_us, "computeMs": compute, "d2hMs": 0.0, "latencyMs": upload_us + compute,
        }  # fmt: skip
        if end_to_end:
            parts["endToEndMs"] = upload_us + compute + 40
        rows.append("{ " + ", ".join(f'"{key}" : {cpp(value / 1e3)}' for key, value in parts.items()) + " }")
        now = end + gap_us
    return "[\n  " + "\n, ".join(rows) + "\n]\n"


def outputs(arrays: dict[str, Floats]) -> str:
    """A ``--exportOutput``."""
    parts = []
    for name, array in arrays.items():
        dims, values = "x".join(map(str, array.shape)), ", ".join(cpp(float(value)) for value in array.ravel())
        parts.append(f'{{ "name" : "{name}"\n  , "dimensions" : "{dims}"\n  , "values" : [ {values} ]\n  }}')
    return "[\n  " + "\n, ".join(parts) + "\n]\n"


def cpp(value: float) -> str:
    """A number as C++ streams print it: six digits."""
    if np.isnan(value):
        return "-nan"
    return f"{value:.6g}"
