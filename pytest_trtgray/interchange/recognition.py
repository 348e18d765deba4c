"""Which tool has written a file, told by its content."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pytest_trtgray.errors import InterchangeError
from pytest_trtgray.interchange.polygraphy_results import CLASS, RUN_RESULTS
from pytest_trtgray.interchange.text import AGAIN
from pytest_trtgray.reporting.document import FORMAT
from pytest_trtgray.structure.snapshot import LISTING_FORMAT

Kind = Literal["profile", "times", "outputs", "layers", "onnxruntime", "polygraphy", "document"]

CALLED: Mapping[Kind, str] = {
    "profile": "trtexec --exportProfile",
    "times": "trtexec --exportTimes",
    "outputs": "trtexec --exportOutput",
    "layers": "layers (trtexec --exportLayerInfo, the engine inspector, a build log)",
    "onnxruntime": "ONNX Runtime's profile",
    "polygraphy": "Polygraphy's RunResults",
    "document": "a run document of trtgray",
}
_HEAD = 1 << 16
_KEY = re.compile(r'[{,]\s*"(\w+)"\s*:')
_LOG_OF_LAYERS = re.compile(r"Layers:\n|Engine Layer Information:\n")
_CLASSES: tuple[tuple[Kind, str, str], ...] = (
    ("document", "format", FORMAT),
    ("layers", "format", LISTING_FORMAT),
    ("polygraphy", CLASS, RUN_RESULTS),
)
_BY_KEY: tuple[tuple[Kind, frozenset[str]], ...] = (
    ("layers", frozenset({"Layers", "entries"})),
    ("times", frozenset({"startEnqMs", "computeMs", "latencyMs"})),
    ("onnxruntime", frozenset({"ph"})),
    ("profile", frozenset({"count", "timeMs", "averageMs", "medianMs"})),
    ("outputs", frozenset({"dimensions", "values"})),
)


def kind_of(path: Path, text: str) -> Kind:
    """What a file is, even where it is broken.

    Raises:
        InterchangeError: it is nothing that can be imported.
    """
    start = text.lstrip("\ufeff \t\r\n")
    found = (_by_class(start) or _by_key(start)) if start[:1] in ("[", "{") else None
    if found is not None:
        return found
    if _LOG_OF_LAYERS.search(text):  # logs begin with a bracket, too
        return "layers"
    if start.startswith("[") and not start[1:].strip(" \t\r\n]"):
        raise InterchangeError(path, "holds an empty list", "Let at least one inference end before it is exported.")
    raise _unknown(path, "is nothing that is known")


def _by_class(start: str) -> Kind | None:
    """Documents that say what they are, which they may do at their end."""
    if start.startswith("["):
        return None
    for kind, key, mark in _CLASSES:
        if re.search(rf'"{key}"\s*:\s*"{mark}"', start):
            return kind
    return None


def _by_key(start: str) -> Kind | None:
    """By the keys at the beginning; an object within a list says most with its own."""
    keys = set(_KEY.findall(start[:_HEAD]))
    for kind, wanted in _BY_KEY:
        if not keys.isdisjoint(wanted):
            return kind
    return None


def _unknown(path: Path, reason: str) -> InterchangeError:
    known = "; ".join(text for kind, text in CALLED.items() if kind != "document")
    return InterchangeError(path, reason, f"What can be imported: {known}. {AGAIN}")
