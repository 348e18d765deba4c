"""Facts that no single message states, as events: what rules may ask for beside messages."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_trtgray.logs.events import Event
from pytest_trtgray.logs.records import Record

# a clock that was cut off by another message's: two threads wrote at once
_SPLICED = re.compile(r"\[[\d/]*(?:-[\d:]*)?\[\d\d/\d\d/\d{4}-\d\d:")
_PARSE_BEGINS = ("Input filename:", "Adding network input:")
_PARSE_GOES_ON = ("Parsing node:", "Static check for parsing node:")
_BUILD = ("Engine generation completed in", "Total Weights Memory:", "Graph construction completed in")
_BUILT = ("engine_built", "build_time", "engine_size")
_PROFILE_INFO = re.compile(
    r"Name: (?P<tensor>[^,\n]+), IOMode: Input\b[^\n]*?"
    r"MinShape: \[(?P<min>[\d,]*)\][^\n]*?MaxShape: \[(?P<max>[\d,]*)\]"
)
_HEAVY = re.compile(r"conv|matmul|gemm|matrixmultiply|fullyconnected|linear|dense", re.IGNORECASE)


def facts_of(records: Sequence[Record], placed: Sequence[tuple[int, Event]]) -> list[tuple[int, Event]]:
    """What follows from many messages, each with the index of the message from which on it holds.

    Args:
        records: messages in order.
        placed: their events, with the index of the message.

    Returns:
        ``build_completed`` (``seconds``, where they are said), ``interleaved`` (``places``), ``enqueue_time`` and
        ``transfer_time`` (``ratio`` to the GPU's time, medians of trtexec's summary), ``profile_spread`` (``ratio`` of
        elements at the largest shape to those at the smallest, ``where``: the input), ``missing_scales`` (``share`` of
        convolutions and matrix products with a tensor that has no scale, ``missing``, ``total``).
    """
    return [
        *_completions(placed),
        *_interleavings(records),
        *_time_ratios(placed),
        *_profile_spreads(records, placed),
        *_missing_scales(placed),
    ]


def _completions(placed: Sequence[tuple[int, Event]]) -> Iterator[tuple[int, Event]]:
    for position, event in placed:
        if event.kind in _BUILT or (event.kind == "trtexec_result" and event.fields.get("result") == "PASSED"):
            seconds = event.fields.get("seconds")
            yield position, Event("build_completed", {} if seconds is None else {"seconds": seconds}, event.line)


def _interleavings(records: Sequence[Record]) -> Iterator[tuple[int, Event]]:
    """A parse that goes on after the message of a build: somebody else's, from another thread."""
    places = []
    stage = ""
    for position, record in enumerate(records):
        text = record.message
        if text.startswith(_PARSE_BEGINS):
            stage = "parse"
        elif text.startswith(_BUILD):
            stage = "build" if stage else ""
        elif text.startswith(_PARSE_GOES_ON):
            if stage == "build":
                places.append(position)
            stage = "parse"
        elif _SPLICED.search(text):
            places.append(position)
    if places:
        yield places[0], Event("interleaved", {"places": len(places)}, records[places[0]].line)


def _time_ratios(placed: Sequence[tuple[int, Event]]) -> Iterator[tuple[int, Event]]:
    medians = {
        str(event.fields.get("metric")): (position, event)
        for position, event in placed
        if event.kind == "perf" and event.fields.get("median")
    }
    compute = medians.get("GPU Compute Time") or medians.get("GPU Compute")
    if compute is None:
        return
    for metric, kind in (
        ("Enqueue Time", "enqueue_time"),
        ("H2D Latency", "transfer_time"),
        ("D2H Latency", "transfer_time"),
    ):
        if metric in medians:
            position, event = medians[metric]
            ratio = event.fields["median"] / compute[1].fields["median"]
            yield position, Event(kind, {"ratio": ratio, "where": metric}, event.line)


def _profile_spreads(records: Sequence[Record], placed: Sequence[tuple[int, Event]]) -> Iterator[tuple[int, Event]]:
    for position, event in placed:
        if event.kind == "profile_shapes":
            low, high = (_volume(event.fields[which].split("x")) for which in ("min", "max"))
            yield from _spread(position, str(event.fields["tensor"]), low, high, event.line)
    for position, record in enumerate(records):
        if "MinShape" in record.message:
            for match in _PROFILE_INFO.finditer(record.message):
                low, high = (_volume(match[which].split(",")) for which in ("min", "max"))
                yield from _spread(position, match["tensor"], low, high, record.line)


def _spread(position: int, tensor: str, low: int, high: int, line: int | None) -> Iterator[tuple[int, Event]]:
    if low > 0:
        yield position, Event("profile_spread", {"ratio": high / low, "where": tensor}, line)


def _volume(sizes: Sequence[str]) -> int:
    return math.prod(int(size) for size in sizes if size.isdigit())


def _missing_scales(placed: Sequence[tuple[int, Event]]) -> Iterator[tuple[int, Event]]:
    missing = {str(event.fields["tensor"]): position for position, event in placed if event.kind == "missing_scale"}
    heavy = [
        event.fields
        for _, event in placed
        if event.kind == "layer_info" and _HEAVY.search(f"{event.fields.get('layer_type', '')} {event.fields['name']}")
    ]
    if not missing or not heavy:
        return
    lacking = sum(any(_touches(layer, tensor) for tensor in missing) for layer in heavy)
    fields = {"share": lacking / len(heavy), "missing": lacking, "total": len(heavy)}
    yield min(missing.values()), Event("missing_scales", fields)


def _touches(layer: Mapping[str, Any], tensor: str) -> bool:
    """Whether a layer reads or writes a tensor: by its list of tensors, or by an output that carries its name."""
    listed = f" {layer.get('inputs', '')}, {layer.get('outputs', '')} "
    if any(f" {tensor}{end}" in listed for end in ("[", " (", ",", " ")):
        return True
    nodes = layer.get("onnx") or str(layer["name"]).split(" + ")
    return any(node and (tensor == node or tensor.startswith(f"{node}_output")) for node in nodes)
