"""What ``polygraphy run --save-outputs`` and ``RunResults.save`` write: outputs and run times of several runners.

Read here and not by Polygraphy, which hands what a file calls a torch tensor to torch, knows only its own release's
classes, and answers a damaged file with a log of its own.
"""

from __future__ import annotations

import base64
import binascii
import functools
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.errors import InterchangeError
from pytest_trtgray.interchange.text import AGAIN, number_in, parse_json

CLASS = "polygraphy_class"
RUN_RESULTS = "RunResults"
_STARTED = re.compile(r"-N\d+-\d\d/\d\d/\d\d-\d\d:\d\d:\d\d$")


@dataclass(frozen=True, eq=False)
class RunnerResults:
    """One runner's iterations.

    Attributes:
        name: of the runner, without the number and the time that Polygraphy adds.
        outputs: arrays by name, of each iteration.
        runtime_us: of each iteration by the host's clock, copies included; ``None`` where it was not taken.
    """

    name: str
    outputs: tuple[Mapping[str, NDArray[Any]], ...]
    runtime_us: tuple[float | None, ...]


def read_run_results(path: Path, text: str) -> tuple[RunnerResults, ...]:
    """The runners of a RunResults file, in its order.

    Raises:
        InterchangeError: it is no RunResults, or an array in it cannot be read.
    """
    data = parse_json(path, text)
    if not isinstance(data, Mapping) or not isinstance(data.get("lst"), list):
        raise InterchangeError(
            path, "is no RunResults of Polygraphy", "Save them with `polygraphy run --save-outputs`."
        )
    if not data["lst"]:
        raise InterchangeError(path, "holds the results of no runner", AGAIN)
    return tuple(_runner(path, number, entry) for number, entry in enumerate(data["lst"], start=1))


def _runner(path: Path, number: int, entry: Any) -> RunnerResults:
    if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], list)):
        raise InterchangeError(path, f"runner {number} is no pair of a name and its iterations", AGAIN)
    name = _STARTED.sub("", str(entry[0]))
    outputs, times = [], []
    for turn, iteration in enumerate(entry[1]):
        where = f"runner {name!r}, iteration {turn}"
        if not isinstance(iteration, Mapping) or not isinstance(iteration.get("outputs"), Mapping):
            raise InterchangeError(path, f"{where} has no outputs", AGAIN)
        outputs.append(
            {str(key): _array(path, f"{where}, output {key!r}", value) for key, value in iteration["outputs"].items()}
        )
        seconds = number_in(iteration, "runtime", functools.partial(_wrong, path, where))
        times.append(None if seconds is None else seconds * 1e6)
    if not outputs:
        raise InterchangeError(path, f"runner {name!r} has no iterations", AGAIN)
    return RunnerResults(name, tuple(outputs), tuple(times))


def _wrong(path: Path, where: str, reason: str) -> InterchangeError:
    return InterchangeError(path, f"{where}: {reason}", AGAIN)


def _array(path: Path, where: str, value: Any) -> NDArray[Any]:
    """An array: base64 of numpy's own file format, maybe inside of a wrapper."""
    while isinstance(value, Mapping) and "values" in value:
        value = value["values"]
    if isinstance(value, Mapping) and "tensor" in value:
        raise InterchangeError(path, f"{where} is a torch tensor", "Save numpy arrays: convert with tensor.numpy().")
    if not isinstance(value, Mapping) or not isinstance(value.get("array"), str):
        raise InterchangeError(path, f"{where} is no array", AGAIN)
    try:
        array: NDArray[Any] = np.load(io.BytesIO(base64.b64decode(value["array"], validate=True)), allow_pickle=False)
    except (ValueError, EOFError, OSError, binascii.Error, SyntaxError) as error:
        raise InterchangeError(path, f"{where} cannot be decoded: {error}", AGAIN) from error
    return array
