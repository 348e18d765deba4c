"""Reports that a log holds: lists of layers, trtexec's summary and profile, the header of a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pytest_trtgray.logs.numbers import number, whole
from pytest_trtgray.logs.tuning import Found

_ONNX = re.compile(r"\[ONNX Layer: (.*?)\](?=[\x1e\x1f]|\[ONNX Layer: |\s|$)", re.DOTALL)
_TACTIC = re.compile(r", TacticName: ([^,\n]*)")
_TACTIC_ID = re.compile(r", TacticValue: (-?\w+)")


def layers(text: str) -> Found:
    r"""``layer_info`` for each layer of a list, in both forms.

    ``Engine Layer Information:\nLayer(Type): name, Tactic: id, in -> out`` and, of a build with detailed verbosity,
    ``Layers:\nName: …, LayerType: …, …, Metadata: [ONNX Layer: x]``.
    """
    plain = filter(None, (_plain_layer(line.lstrip()) for line in text.split("\n")))
    found: Found = [("layer_info", layer) for layer in plain]
    if found:
        return found
    body = re.split(r"\n\n? *(?:I/O Tensors|Bindings|Engine Metadata):", text, maxsplit=1)[0]
    for part in re.split(r"\n *(?=Name: )", body)[1:]:
        name, kind, rest = part.partition(", LayerType: ")
        if not kind:
            continue
        fields: dict[str, Any] = {"name": name[len("Name: ") :], "layer_type": rest.partition(",")[0]}
        if match := _TACTIC.search(rest):
            fields["tactic_name"] = match[1]
        if match := _TACTIC_ID.search(rest):
            fields["tactic"] = match[1]
        metadata = rest.rpartition("Metadata: ")[2]
        fields["onnx"] = _ONNX.findall(metadata)
        fields["onnx_layers"] = len(fields["onnx"])
        found.append(("layer_info", fields))
    return found


def _plain_layer(line: str) -> dict[str, Any] | None:
    head, _, rest = line.partition(", Tactic: ")
    kind, colon, name = head.partition(": ")
    if not (rest and colon and kind.startswith("Layer")):
        return None
    tactic, _, tensors = rest.partition(", ")
    inputs, _, outputs = tensors.partition("-> ")
    fields = {"name": name, "tactic": tactic, "inputs": inputs.rstrip(), "outputs": outputs}
    if kind.endswith(")"):
        fields["layer_type"] = kind.partition("(")[2][:-1]
    return fields


_HEADER = re.compile(
    r"^(?:ONNX )?(?P<name>Input filename|IR version|Opset version|Producer name|Producer version|Domain|Model version|"
    r"Doc string): *(?P<value>.*)$",
    re.DOTALL,
)
_HEADER_FIELDS = {
    "Input filename": "file",
    "IR version": "ir_version",
    "Opset version": "opset",
    "Producer name": "producer",
    "Producer version": "producer_version",
    "Domain": "domain",
    "Model version": "model_version",
    "Doc string": "doc",
}


def onnx_header(text: str) -> dict[str, Any] | None:
    """One field of the header that the parser prints for a model."""
    match = _HEADER.match(text)
    if not match:
        return None
    field = _HEADER_FIELDS[match["name"]]
    value: Any = match["value"].strip()
    if field == "opset" and value.isdigit():
        value = whole(value)
    return {field: value}


_METRIC = re.compile(r"^(?P<metric>[A-Z][\w() -]*?): (?P<values>\w[^:]* = .*)$")
_VALUE = re.compile(r"([\w()%.]+) = (\S+?) (ms|s|us)\b")
_SINGLE = re.compile(
    r"^(?P<metric>Throughput|Total Host Walltime|Total GPU Compute Time): (?P<value>\S+) (?P<unit>qps|s)$"
)
_OLD = re.compile(
    r"^(?P<name>min|max|mean|median|percentile|walltime|throughput): (?P<value>\S+) (?P<unit>ms|s|qps)"
    r"(?: at (?P<percent>[\d.]+)%)?(?: \(end to end (?P<end>\S+) ms)?"
)
_SECTIONS = ("Host Latency", "Enqueue Time", "GPU Compute", "Host latency", "GPU latency")


def is_section(text: str) -> bool:
    """Whether trtexec up to 7 begins the numbers of one metric."""
    return text in _SECTIONS


def summary(text: str) -> Found:
    """``perf`` of a line of trtexec's summary, 8 on: times in ms, in the fields ``min`` … ``p99``, and ``unit``."""
    if match := _SINGLE.match(text):
        return [("perf", {"metric": match["metric"], "value": number(match["value"]), "unit": match["unit"]})]
    match = _METRIC.match(text)
    values = _VALUE.findall(match["values"]) if match else []
    if not match or not values:
        return []
    fields: dict[str, Any] = {"metric": match["metric"], "unit": values[0][2]}
    for name, value, _ in values:
        fields[_percentile(name)] = number(value)
    return [("perf", fields)]


def old_summary(text: str) -> dict[str, Any] | None:
    """One number of trtexec's summary up to 7, where the metric stands in a line before."""
    match = _OLD.match(text)
    if not match:
        return None
    name = f"p{match['percent'].removesuffix('.0')}" if match["percent"] else match["name"]
    fields: dict[str, Any] = {name: number(match["value"]), "unit": match["unit"]}
    if match["end"]:
        fields[f"end_to_end_{name}"] = number(match["end"])
    if match["unit"] != "ms":
        fields = {f"{name}_{match['unit']}": fields[name]}
    return fields


def _percentile(name: str) -> str:
    return f"p{name[len('percentile(') : -2]}" if name.startswith("percentile(") else name


_COLUMNS = {
    "Layer": "layer",
    "Time(ms)": "total_ms",
    "Time (ms)": "total_ms",
    "Avg.(ms)": "avg_ms",
    "Avg. Time (ms)": "avg_ms",
    "Median(ms)": "median_ms",
    "Median Time (ms)": "median_ms",
    "Time(%)": "pct",
    "Time %": "pct",
}
_COLUMN = re.compile(
    r"Avg\. Time \(ms\)|Median Time \(ms\)|Time \(ms\)|Time %|Time\(ms\)|Avg\.\(ms\)|Median\(ms\)|Time\(%\)|Layer"
)
_PROFILE_HEAD = re.compile(r"=== Profile \((?P<iterations>\d+) iterations ?\) ===")
_TOTAL, _MEAN, _PERCENT = (re.compile(rf"\d{{1,12}}\.\d{{{digits}}}") for digits in ("1,2", "2,9", "1"))


def _row(words: Sequence[str]) -> list[str | None] | None:
    """Total, average, median if there is one, and percentage, if that is what the words are."""
    if len(words) not in (3, 4) or not (_TOTAL.fullmatch(words[0]) and _PERCENT.fullmatch(words[-1])):
        return None
    if not all(_MEAN.fullmatch(word) for word in words[1:-1]):
        return None
    return [words[0], words[1], words[2] if len(words) == 4 else None, words[-1]]


def _named_row(text: str, *, name_first: bool) -> tuple[str, list[str | None]] | None:
    for count in (4, 3):
        if name_first:
            name, *words = text.rsplit(None, count) or [""]
        else:
            *words, name = text.split(None, count) or [""]
        row = _row(words)
        if row is not None:
            return name.strip(), row
    return None


class ProfileTable:
    """trtexec's ``=== Profile ===``, with the columns of its version.

    ``layer_time``: ``layer``, ``total_ms``, ``avg_ms``, ``median_ms`` (8.4 on), ``pct``; ``layer_time_total`` also
    ``iterations``. Up to 8.5 the name comes first, from 8.6 on last.
    """

    def __init__(self) -> None:
        self._iterations = 0
        self._name_first: bool | None = None

    def read(self, text: str) -> Found:
        """A row, or nothing."""
        if match := _PROFILE_HEAD.search(text):
            self._iterations = whole(match["iterations"])
            return []
        columns = _COLUMN.findall(text)
        if len(columns) >= 4 and "Layer" in columns:
            self._name_first = columns[0] == "Layer"
            return []
        orders = (False, True) if self._name_first is None else (self._name_first,)
        found = next(filter(None, (_named_row(text, name_first=order) for order in orders)), None)
        if found is None:
            return []
        name, (total, average, median, percent) = found
        fields: dict[str, Any] = {
            "layer": name,
            "total_ms": number(total or ""),
            "avg_ms": number(average or ""),
            "pct": number(percent or ""),
        }
        if median is not None:
            fields["median_ms"] = number(median)
        if fields["layer"] == "Total":
            del fields["layer"]
            if self._iterations:
                fields["iterations"] = self._iterations
            return [("layer_time_total", fields)]
        return [("layer_time", fields)]
