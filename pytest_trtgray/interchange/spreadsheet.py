"""A run document's layers as CSV (RFC 4180, UTF-8), one row a layer."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_trtgray.engines.layer_listing import layers_from_rows
from pytest_trtgray.errors import InterchangeError
from pytest_trtgray.interchange.comparison import TIMED
from pytest_trtgray.reporting.document import UNREADABLE
from pytest_trtgray.reporting.results import details_of
from pytest_trtgray.timing.grouping import module_of

COLUMNS = (
    "engine",
    "runtime",
    "device",
    "test",
    "position",
    "layer",
    "onnx_nodes",
    "engine_names",
    "type",
    "precision",
    "module",
    "us",
    "share_percent",
    "baseline_us",
    "change_percent",
    "low_percent",
    "high_percent",
    "p_value",
    "outcome",
)
# A spreadsheet takes a cell that begins so for a formula, also behind spaces and in full width (CWE-1236).
_FORMULA = re.compile(r"[\s\x00]*[=+\-@|%\uff1d\uff0b\uff0d\uff20]|[\t\r\n\x00]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def layers_csv(document: Mapping[str, Any], source: str = "") -> str:
    """Every layer with its time, baseline, change and interval.

    Engines of which no times are known have the layers of their structure, without times.

    Args:
        document: as ``--trt-json`` or ``trtgray import`` writes it.
        source: its file, for messages.

    Raises:
        InterchangeError: it holds no layers.
    """
    try:
        rows = list(_rows(document))
    except UNREADABLE as error:
        raise InterchangeError(
            source or "the run document", f"its details cannot be read: {error}", "Give it as trtgray wrote it."
        ) from error
    if not rows:
        raise InterchangeError(
            source or "the run document", "holds no layers", "Write it with --trt-json in a run that looks at layers."
        )
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return text.getvalue()


def _rows(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    timed = {check["engine"] for check in document["checks"] if check["kind"] in TIMED and _layers(check)}
    for check in document["checks"]:
        if check["kind"] in TIMED:
            layers = [_timed(row) for row in _layers(check)]
        elif check["kind"] == "structure" and check["engine"] not in timed:
            layers = _structural(check)
        else:
            continue
        about = {name: check[name] for name in ("engine", "runtime", "device", "test")}
        for position, layer in enumerate(layers, start=1):
            yield {**about, "position": position, **layer}


def _layers(check: Mapping[str, Any]) -> Any:
    return details_of(check).get("layers") or ()


def _timed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "layer": row.get("key"),
        "onnx_nodes": "; ".join(map(str, row.get("nodes") or ())),
        "engine_names": "; ".join(map(str, row.get("names") or ())),
        "type": row.get("kind"),
        "baseline_us": row.get("before_us"),
        **{name: row.get(name) for name in ("precision", "module", "us", "p_value", "outcome")},
        "share_percent": percent(row.get("share")),
        **changes(row),
    }


def changes(row: Mapping[str, Any]) -> dict[str, float | None]:
    """A layer's change and its interval, in percent; nothing of a layer that one side does not have."""
    both = row.get("us") is not None and row.get("before_us") is not None
    return {f"{name}_percent": percent(row.get(name)) if both else None for name in ("change", "low", "high")}


def _structural(check: Mapping[str, Any]) -> list[dict[str, Any]]:
    layers = layers_from_rows(_layers(check))
    return [
        {
            "layer": layer.title,
            "onnx_nodes": "; ".join(sorted(layer.onnx_nodes)),
            "engine_names": layer.name,
            "type": layer.kind,
            "precision": layer.precision,
            "module": module_of(layer),
        }
        for layer in layers
    ]


def percent(value: Any) -> float | None:
    """A part in percent; ``None`` where there is none."""
    return round(value * 100, 4) if isinstance(value, (int, float)) else None


def _cell(value: Any) -> Any:
    """Text that no spreadsheet runs, with control characters spelt out; numbers as they are."""
    if not isinstance(value, str):
        return value
    text = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", value)
    return f"'{text}" if _FORMULA.match(value) or _FORMULA.match(text) else text
