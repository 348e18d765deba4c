r"""Reading TensorRT's list of layers: the inspector's JSON of every schema, and the verbose build log.

Without a GPU there is no inspector, but the builder prints the same listing as its last VERBOSE message.
Up to TensorRT 10 (and RTX 1.4) a tensor has one ``Format/Datatype`` text; from 11 (RTX 1.5) on ``Datatype``
and ``Format`` are apart. ``Metadata`` holds ``[ONNX Layer: name]`` entries, separated by ``\x1f`` between
fused layers and ``\x1e`` inside one; 8.x has no ``Metadata`` and joins ONNX names with `` + ``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pytest_trtgray.engines.model import Layer, LayerTensor, Memory

_DATATYPES = {
    "float": "float32",
    "fp32": "float32",
    "half": "float16",
    "fp16": "float16",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "int8": "int8",
    "uint8": "uint8",
    "fp8": "fp8",
    "int4": "int4",
    "fp4": "fp4",
    "int32": "int32",
    "int64": "int64",
    "bool": "bool",
}
_PREFIX = "[ONNX Layer: "
_REMARK = re.compile(r"\]__[a-z0-9_]+$")
_PROFILE = re.compile(r"\[profile (\d+)\]")
_UNNAMED = re.compile(r"\(Unnamed Layer\*? ?\d*\) ?\[[^\]]+\]")
_MYELIN_GRAPH = re.compile(r"_myl(\d+)_\d+$")

# One layer of the log's listing; names may hold brackets, commas and quotes, so each part ends at the next
# keyword and not at a delimiter.
_LOG_LAYER = re.compile(
    r"Name: (?P<Name>.*?), LayerType: (?P<LayerType>.*?), Inputs: \[(?P<Inputs>.*?)\], "
    r"(?:Constants: \[(?P<Constants>.*?)\], )?Outputs: \[(?P<Outputs>.*?)\], "
    r"(?P<rest>(?:ParameterType|TacticName|TacticValue|StreamId|Metadata): .*)",
    re.DOTALL,
)
_LOG_TENSOR = re.compile(
    r"\{ Name: (?P<Name>.*?), (?:Location: \w+, )?Dimensions: (?P<rest>.*?) \}(?=, \{|$)", re.DOTALL
)
_LOG_FIELD = {
    "TacticName": re.compile(r"TacticName: (.*?)(?:, StreamId: |, Metadata: |$)", re.DOTALL),
    "Metadata": re.compile(r"Metadata: (.*)$", re.DOTALL),
}
_LISTING_HEAD = "Layers:\n"


def layers_from_json(data: Mapping[str, Any]) -> list[Layer]:
    """Layers of an inspector's or ``trtexec --exportLayerInfo``'s JSON.

    Entries that are bare strings (an engine built without detailed verbosity) become layers with a name
    and nothing else.
    """
    return _with_profiles(
        [Layer(name=entry, kind="") if isinstance(entry, str) else _layer(entry) for entry in data.get("Layers", [])]
    )


def layers_from_log(messages: Iterable[str]) -> list[Layer]:
    """Layers of the last listing in a verbose build log; empty if there is none."""
    listing = ""
    for message in messages:
        if message.startswith(_LISTING_HEAD):
            listing = message
    body = re.split(r"\n\n?(?:I/O Tensors|Bindings|Engine Metadata):", listing[len(_LISTING_HEAD) :])[0]
    # A node name may contain a newline: a new layer starts where "Name: … LayerType:" does.
    parts = re.split(r"\n(?=Name: [^\n]*, LayerType: )", body) if body.strip() else []
    return _with_profiles([layer for part in parts if (layer := _log_layer(part)) is not None])


def memory_from_log(messages: Iterable[str]) -> Memory:
    """Bytes that the builder reports at the end of a build."""
    patterns = {
        "weights_bytes": re.compile(r"Total Weights Memory: (\d+)"),
        "activations_bytes": re.compile(r"Total Activation Memory: (\d+)"),
        "scratch_bytes": re.compile(r"(?:Max|Total) Scratch Memory: (\d+)"),
    }
    found: dict[str, int] = {}
    for message in messages:
        for name, pattern in patterns.items():
            if match := pattern.search(message):
                found[name] = int(match[1])
    return Memory(**found)


def onnx_nodes(metadata: str) -> frozenset[str]:
    r"""The ONNX node names in a ``Metadata`` text.

    TensorRT for RTX adds what it made of a node: ``[ONNX Layer: conv1]__gemm_from_conv1x1``.

    >>> sorted(onnx_nodes("[ONNX Layer: fc1]\x1f[ONNX Layer: relu1]"))
    ['fc1', 'relu1']
    """
    entries = [_REMARK.sub("]", entry) for entry in re.split("[\x1e\x1f]", metadata)]
    return frozenset(entry[len(_PREFIX) : -1] for entry in entries if entry.startswith(_PREFIX) and entry.endswith("]"))


def datatype(text: str) -> str:
    """The house's name of a data type in any of TensorRT's spellings; ``""`` if it names none."""
    plain = text.strip().lower()
    if plain in _DATATYPES:
        return _DATATYPES[plain]
    words = re.findall(r"[a-z]+\d*", plain.replace("fp8_e4m3", "fp8").replace("fp8e4m3", "fp8"))
    return next((_DATATYPES[word] for word in words if word in _DATATYPES), "")


def layers_to_rows(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """Layers as compact JSON rows, for a cache or baseline."""
    rows = []
    for layer in layers:
        row: dict[str, Any] = {"name": layer.name, "kind": layer.kind}
        if layer.onnx_nodes:
            row["onnx"] = sorted(layer.onnx_nodes)
        for field in ("inputs", "constants", "outputs"):
            if tensors := getattr(layer, field):
                row[field] = [[tensor.name, tensor.dtype, tensor.format] for tensor in tensors]
        if layer.tactic:
            row["tactic"] = layer.tactic
        if layer.profile:
            row["profile"] = layer.profile
        rows.append(row)
    return rows


def layers_from_rows(rows: Iterable[Mapping[str, Any]]) -> list[Layer]:
    """The inverse of :func:`layers_to_rows`."""
    return [
        Layer(
            name=row["name"],
            kind=row["kind"],
            onnx_nodes=frozenset(row.get("onnx", ())),
            inputs=_row_tensors(row, "inputs"),
            constants=_row_tensors(row, "constants"),
            outputs=_row_tensors(row, "outputs"),
            tactic=row.get("tactic", ""),
            profile=int(row.get("profile", 0)),
        )
        for row in rows
    ]


def _with_profiles(layers: list[Layer]) -> list[Layer]:
    """Give every layer its optimization profile.

    Only some layers say ``[profile 1]``, in their name or in a tensor's; the other layers of the same Myelin
    graph (``_myl1_…``) belong to that profile all the same.
    """
    profiles: dict[str, int] = {}
    for layer in layers:
        graph = _MYELIN_GRAPH.search(layer.name)
        texts = [layer.name, *(tensor.name for tensor in (*layer.inputs, *layer.outputs))]
        said = [int(match[1]) for text in texts if (match := _PROFILE.search(text))]
        if graph and said:
            profiles[graph[1]] = max(said)
    return [
        replace(layer, profile=profiles[graph[1]])
        if (graph := _MYELIN_GRAPH.search(layer.name)) and graph[1] in profiles
        else layer
        for layer in layers
    ]


def _row_tensors(row: Mapping[str, Any], field: str) -> tuple[LayerTensor, ...]:
    return tuple(LayerTensor(*tensor) for tensor in row.get(field, ()))


def _layer(entry: Mapping[str, Any]) -> Layer:
    name = str(entry.get("Name", ""))
    metadata = str(entry.get("Metadata") or "")
    profile = _PROFILE.search(name)
    return Layer(
        name=name,
        kind=str(entry.get("LayerType", "")),
        onnx_nodes=onnx_nodes(metadata) or _nodes_in_name(name, entry),
        inputs=_tensors(entry.get("Inputs")),
        constants=_tensors(entry.get("Constants")) or _weights(entry),
        outputs=_tensors(entry.get("Outputs")),
        tactic=str(entry.get("TacticName") or ""),
        profile=int(profile[1]) if profile else 0,
    )


def _tensors(entries: Any) -> tuple[LayerTensor, ...]:
    found = []
    for entry in entries or ():
        if isinstance(entry, str):
            found.append(LayerTensor(entry, ""))
            continue
        both = str(entry.get("Format/Datatype", ""))
        found.append(
            LayerTensor(
                str(entry.get("Name", "")),
                datatype(str(entry.get("Datatype", both))),
                str(entry.get("Format", both)),
            )
        )
    return tuple(found)


def _weights(entry: Mapping[str, Any]) -> tuple[LayerTensor, ...]:
    """Weights as TensorRT 8 lists them; with dynamic shapes the only types that it tells without a context."""
    found = [entry.get(field) for field in ("Weights", "ConvWeights")]
    return tuple(
        LayerTensor("weights", datatype(str(weights.get("Type", ""))))
        for weights in found
        if isinstance(weights, Mapping) and weights.get("Count")
    )


def _nodes_in_name(name: str, entry: Mapping[str, Any]) -> frozenset[str]:
    """ONNX names in a layer name of TensorRT 8, which has no metadata."""
    if "Metadata" in entry or str(entry.get("LayerType")) in ("Constant", "Reformat", "NoOp"):
        return frozenset()
    plain = _PROFILE.sub("", name)
    if plain.startswith("{"):  # a ForeignNode names only the first and the last node that it holds
        return frozenset()
    parts = [part for piece in plain.split(" + ") for part in _pointwise(piece.strip())]
    return frozenset(part for part in parts if part and not _UNNAMED.fullmatch(part))


def _pointwise(part: str) -> list[str]:
    """The nodes in ``PWN(PWN(a), b)``, TensorRT 8's name of a pointwise fusion."""
    if not part.startswith("PWN("):
        return [part]
    return [name.strip("() ") for name in part.replace("PWN(", "").split(", ")]


def _log_layer(text: str) -> Layer | None:
    match = _LOG_LAYER.match(text)
    if match is None:
        return None
    entry: dict[str, Any] = {"Name": match["Name"], "LayerType": match["LayerType"]}
    for field in ("Inputs", "Constants", "Outputs"):
        entry[field] = [_log_tensor(part) for part in _LOG_TENSOR.finditer(match[field] or "")]
    for field, pattern in _LOG_FIELD.items():
        found = pattern.search(match["rest"])
        entry[field] = found[1].rstrip("\n") if found else ""
    return _layer(entry)


def _log_tensor(match: re.Match[str]) -> dict[str, str]:
    tensor = {"Name": match["Name"]}
    for field, pattern in (
        ("Format/Datatype", r"Format/Datatype: (.*)$"),
        ("Datatype", r"(?<!/)Datatype: (.*?)(?:, Format: |$)"),
        ("Format", r", Format: (.*)$"),
    ):
        if found := re.search(pattern, match["rest"], re.DOTALL):
            tensor[field] = found[1]
    return tensor
