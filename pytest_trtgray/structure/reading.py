"""Layers, memory, inputs and outputs of an engine from files that people have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_trtgray.engines.layer_listing import (
    layers_from_json,
    layers_from_log,
    layers_from_rows,
    listing_in,
    memory_from_log,
    parse_listing,
    specs_from_json,
)
from pytest_trtgray.engines.model import Layer
from pytest_trtgray.errors import ModelError
from pytest_trtgray.structure.snapshot import LISTING_FORMAT, Snapshot

_HINT = (
    "Give the JSON of `trtexec --exportLayerInfo` or of the engine inspector, a verbose build log, what "
    "`trtgray layers --json` wrote, or a baseline file."
)


def read_layers(path_or_json: str | Path | Mapping[str, Any]) -> list[Layer]:
    """Layers from a file or from parsed JSON.

    Args:
        path_or_json: a path to the inspector's JSON (TensorRT 8 to 11 and RTX; ``trtexec
            --exportLayerInfo``), to a verbose build log, or to a structure baseline of this package; or the
            parsed JSON itself.

    Raises:
        ModelError: no such file, or no layers in it.
    """
    return list(read_snapshot(path_or_json).layers)


def read_snapshot(path_or_json: str | Path | Mapping[str, Any]) -> Snapshot:
    """The same with what else the file tells: memory (build log), inputs and outputs (TensorRT 11, RTX).

    Raises:
        ModelError: no such file, or no layers in it.
    """
    if isinstance(path_or_json, Mapping):
        return _from_mapping("JSON", path_or_json)
    path = Path(path_or_json)
    try:
        text = path.read_text("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise ModelError(path, error.strerror or str(error), _HINT) from error
    return snapshot_in(path, text)


def snapshot_in(path: Path, text: str) -> Snapshot:
    """The same from the text of a file that was read.

    Args:
        path: for messages.
        text: the whole file.

    Raises:
        ModelError: no layers in it.
    """
    if text.lstrip().startswith("{"):
        try:
            data = parse_listing(text)
        except ValueError as error:
            raise ModelError(path, f"not valid JSON: {error}", _HINT) from error
        return _from_mapping(path, data)
    layers = layers_from_log([listing_in(text)])
    if not layers:
        raise ModelError(path, "has no list of layers", f"{_HINT} Builders list layers at severity VERBOSE.")
    return Snapshot(tuple(layers), memory=memory_from_log(text.split("\n")))


def _from_mapping(source: object, data: Mapping[str, Any]) -> Snapshot:
    try:
        if "entries" in data:
            stored = data["entries"]["structure"]
            # a hand-made file may have layers only
            return (
                Snapshot.from_dict(stored)
                if "memory" in stored
                else Snapshot(tuple(layers_from_rows(stored["layers"])))
            )
        if data.get("format") == LISTING_FORMAT:
            return Snapshot.from_dict(data)
        layers = layers_from_json({"Layers": data["Layers"]})
        return Snapshot(tuple(layers), *specs_from_json(data))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(source, "has no list of layers that can be read", _HINT) from error
