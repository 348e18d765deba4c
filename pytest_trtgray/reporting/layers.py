"""Layers as a table, for the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pytest_trtgray.engines.kernels import tactic_family
from pytest_trtgray.engines.layer_listing import layers_to_rows
from pytest_trtgray.engines.model import Layer
from pytest_trtgray.findings import counted
from pytest_trtgray.structure.snapshot import LISTING_FORMAT, Snapshot

LISTING_SCHEMA = 1
_WIDTHS = {"format": 18, "tactic": 44}
_VECTOR_WIDTHS = {"two": 2, "four": 4, "eight": 8, "sixteen": 16, "thirty-two": 32}
# from TensorRT's descriptions of its formats, in the wording of 8 to 10 and of 11
_FORMATS = (
    (re.compile(r"not available|N/A", re.IGNORECASE), ""),
    (re.compile(r"stride order = \[([\d,]+)\]"), r"strides \1"),
    (re.compile(r"^\((Linear)\)"), "linear"),
    (re.compile(r"^\((\w+)\)"), r"\1"),
    (re.compile(r"^Row major linear"), "linear"),
    (re.compile(r"^Channel major \w+ format where channel % (\d+) == 0"), r"NHWC\1"),
    (re.compile(r"^Channel major"), "NHWC"),
)


def layer_table(layers: Sequence[Layer]) -> Iterator[str]:
    """Lines: a layer's number and type, precision, memory format of what it writes, tactic, ONNX nodes."""
    columns = ("#", "layer", "precision", "format", "tactic", "ONNX nodes")
    rows = [
        (
            str(index),
            layer.kind or "-",
            layer.precision or "-",
            _cut(short_format(layer.outputs[0].format) if layer.outputs else "", _WIDTHS["format"]),
            _cut(tactic_family(layer.tactic), _WIDTHS["tactic"]),
            layer.title + (f" [profile {layer.profile}]" if layer.profile else ""),
        )
        for index, layer in enumerate(layers)
    ]
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns) - 1)]
    for row in (columns, *rows):
        number, *others = (f"{text:<{width}}" for text, width in zip(row, widths, strict=False))
        yield "  ".join([number.strip().rjust(widths[0]), *others, row[-1]]).rstrip()
    yield counted(len(rows), "layer")


def layers_json(source: str, snapshot: Snapshot) -> dict[str, Any]:
    """The same as data, which ``trtgray diff`` and ``read_layers`` read again."""
    made = snapshot.to_dict()
    rows = layers_to_rows(snapshot.layers)
    for row, layer in zip(rows, snapshot.layers, strict=True):
        row["precision"] = layer.precision
    return {"format": LISTING_FORMAT, "schema": LISTING_SCHEMA, "source": source, **made, "layers": rows}


def short_format(text: str) -> str:
    """A memory format in a word or two; ``""`` where the engine does not tell.

    >>> short_format("Four wide channel vectorized row major Int8 format")
    'NC/4HW4'
    """
    vector = re.match(r"(\S+) wide channel vectorized row major", text)
    if vector and vector[1].lower() in _VECTOR_WIDTHS:
        width = _VECTOR_WIDTHS[vector[1].lower()]
        return f"NC/{width}HW{width}"
    for pattern, short in _FORMATS:
        if match := pattern.search(text):
            return match.expand(short)
    return text


def _cut(text: str, width: int) -> str:
    return (text if len(text) <= width else f"{text[: width - 3]}...") or "-"
