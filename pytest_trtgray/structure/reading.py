"""Layers from files that people have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_trtgray.engines.layer_listing import layers_from_json, layers_from_log, layers_from_rows
from pytest_trtgray.engines.model import Layer
from pytest_trtgray.errors import ModelError

_HINT = (
    "Give the JSON of `trtexec --exportLayerInfo` or of the engine inspector, a verbose build log, or a baseline file."
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
    if isinstance(path_or_json, Mapping):
        return _from_mapping("JSON", path_or_json)
    path = Path(path_or_json)
    try:
        text = path.read_text("utf-8", errors="surrogateescape")
    except OSError as error:
        raise ModelError(path, error.strerror or str(error), _HINT) from error
    if text.lstrip().startswith("{"):
        try:
            data = json.loads(text, strict=False)
        except ValueError as error:
            raise ModelError(path, f"not valid JSON: {error}", _HINT) from error
        return _from_mapping(path, data)
    start = text.rfind("Layers:\n")
    layers = layers_from_log([text[start:]]) if start >= 0 else []
    if not layers:
        raise ModelError(path, "has no list of layers", _HINT)
    return layers


def _from_mapping(source: object, data: Mapping[str, Any]) -> list[Layer]:
    try:
        if "entries" in data:
            return layers_from_rows(data["entries"]["structure"]["layers"])
        return layers_from_json({"Layers": data["Layers"]})
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(source, "has no list of layers that can be read", _HINT) from error
