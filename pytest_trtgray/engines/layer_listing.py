r"""Reading TensorRT's list of layers: the inspector's JSON of every schema, and the verbose build log.

Without a GPU there is no inspector, but the builder prints the same listing as its last VERBOSE message: with all
details (``Layers:``, then ``Name: …, LayerType: …``), or one short line a layer (``Layer(CaskConvolution): …``) up
to TensorRT 10 where the profiling verbosity is not detailed. Up to TensorRT 10 (and RTX 1.4) a tensor has one
``Format/Datatype`` text; from 11 (RTX 1.5) on ``Datatype`` and ``Format`` are apart. ``Metadata`` holds
``[ONNX Layer: name]`` entries, separated by ``\x1f`` between fused layers and ``\x1e`` inside one; 8.x has no
``Metadata`` and joins ONNX names with `` + ``. An engine built without detailed verbosity (trtexec's default) lists
bare names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pytest_trtgray.engines.model import Dim, Layer, LayerTensor, Memory, TensorSpec

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
# a log that was pasted somewhere may have lost its control characters
_BETWEEN_ENTRIES = re.compile(r"[\x1e\x1f]|(?<=\])(?=\[ONNX Layer: )")
_REMARK = re.compile(r"\]__[a-z0-9_]+$")
_PROFILE = re.compile(r"\[profile (\d+)\]")
_UNNAMED = re.compile(
    r"\(Unnamed Layer\*? ?\d*\) ?\[[^\]]+\]|(copied_|un)?(squeeze|reshape|shuffle)_(before|after|between)_.*"
)
_NO_NODES = re.compile(r"^(__my|_gemm_|\[|\{|onnx::|Reformatting CopyNode)|__mye|hvar\^")
"""Names that TensorRT makes up for layers of its own, and those of weights (``onnx::Conv_633``)."""
_NO_FORMAT = "N/A"
"""``N/A due to dynamic shapes`` in TensorRT 8; a type alone, in trtexec 10, is no format either."""
SHORT_FORMATS = ("linear", "vectors of ")
"""All that the short listing of the log says of a format; the inspector has other words for the same."""
_NO_TACTIC = re.compile(r"^(0x)?0*$")
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
    "TacticName": re.compile(r"TacticName: (.*?)(?:, TacticValue: |, StreamId: |, Metadata: |$)", re.DOTALL),
    "TacticValue": re.compile(r"TacticValue: (\w+)"),
    "StreamId": re.compile(r"StreamId: (\d+)"),
    "Metadata": re.compile(r"Metadata: (.*)$", re.DOTALL),
}
_DETAILED_HEAD = "Layers:\n"
_SHORT_HEAD = "Engine Layer Information:\n"
_SHORT_LAYER = re.compile(
    r"Layer\((?P<LayerType>\w*)\): (?P<Name>.*?), Tactic: (?P<TacticValue>-?\w+), (?P<Inputs>.*) -> (?P<Outputs>.*)$",
    re.DOTALL,
)
# 8.5 and later: "x (Half[8,64:8,56,56])"; before: "x[Half(8,64:8,56,56)]"
_SHORT_TENSOR = re.compile(
    r"(?P<Name>.+?) ?[\[(](?P<Datatype>[A-Z]\w+)[\[(](?P<dims>[-\d,: ]*)[\])]{2}(?:, |$)", re.DOTALL
)
_JSON_STRING = re.compile(r'(?<![^\s\[{,:])"(.*?)"(?=\s*(?:[,:]\s*["\[{\w-]|[\]}]\s*(?:[,\]}]|$)))', re.DOTALL)
_LOG_PREFIX = re.compile(r"\n(?=\[\d\d/\d\d/\d{4}-|\[[XVIWE!]\] |\d{4}-\d\d-\d\d |[VIWE]\d{4} \d\d:|&&&& )")
"""Where the next message of a log begins: TensorRT and trtexec, Polygraphy, ONNX Runtime, Triton, trtexec's banner."""


def parse_listing(text: str) -> Any:
    """The JSON of an inspector or of trtexec, which write node names as they are: quotes and backslashes included.

    Raises:
        ValueError: it is no JSON even if such names are taken for what they are.
    """
    try:
        return json.loads(text, strict=False)
    except ValueError as error:
        try:
            return json.loads(_JSON_STRING.sub(_escaped, text), strict=False)
        except ValueError:
            raise error from None


def as_listed(name: str) -> str:
    """A name as :func:`parse_listing` reads it where TensorRT wrote it as it is: what looks like an escape is one."""
    try:
        return str(json.loads(_escaped_text(name), strict=False))
    except ValueError:
        return name


def layers_from_json(data: Mapping[str, Any]) -> list[Layer]:
    """Layers of an inspector's or ``trtexec --exportLayerInfo``'s JSON.

    Entries that are bare strings (an engine built without detailed verbosity) become layers with a name, the ONNX
    nodes that the name tells, and nothing else.
    """
    return _with_profiles(
        [_named(entry) if isinstance(entry, str) else _layer(entry) for entry in data.get("Layers", [])]
    )


def layers_from_log(messages: Iterable[str]) -> list[Layer]:
    """Layers of the last listing in a verbose build log; empty if there is none."""
    listing = ""
    for message in messages:
        if message.startswith((_DETAILED_HEAD, _SHORT_HEAD)):
            listing = message
    if listing.startswith(_SHORT_HEAD):
        return _with_profiles(_short_layers(listing[len(_SHORT_HEAD) :]))
    body = re.split(r"\n\s*(?:I/O Tensors|Bindings|Engine Metadata):", listing[len(_DETAILED_HEAD) :])[0]
    # A node name may contain a newline: a new layer starts where "Name: … LayerType:" does.
    parts = re.split(r"\n\s*(?=Name: [^\n]*, LayerType: )", body) if body.strip() else []
    return _with_profiles([layer for part in parts if (layer := _log_layer(part.strip())) is not None])


def listing_in(text: str) -> str:
    """The last listing of layers in the text of a whole log, as one message; empty if there is none."""
    start = max(text.rfind(_DETAILED_HEAD), text.rfind(_SHORT_HEAD))
    return _LOG_PREFIX.split(text[start:], maxsplit=1)[0] if start >= 0 else ""


def specs_from_json(data: Mapping[str, Any]) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of an engine (TensorRT 11, RTX); up to 10 there are names only, and nothing is returned."""
    found: dict[str, list[TensorSpec]] = {"input": [], "output": []}
    for entry in data.get("I/O Tensors", ()):
        dims: list[Dim] = [int(dim) if dim >= 0 else "?" for dim in entry["Dimensions"]]
        spec = TensorSpec(str(entry["Name"]), datatype(str(entry["DataType"])), tuple(dims))
        found.setdefault(str(entry["IOMode"]).lower(), []).append(spec)
    return tuple(found["input"]), tuple(found["output"])


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
    entries = [_REMARK.sub("]", entry) for entry in _BETWEEN_ENTRIES.split(metadata)]
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
        for field in ("profile", "stream"):
            if number := getattr(layer, field):
                row[field] = number
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
            stream=int(row.get("stream", 0)),
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


def _escaped(match: re.Match[str]) -> str:
    return _escaped_text(match[1])


def _escaped_text(text: str) -> str:
    """A string of a listing as JSON wants it; what is an escape already stays one."""
    inner = re.sub(r'\\(?!["\\/bfnrtu])', r"\\\\", text)
    inner = re.sub(r'(?<!\\)"', r'\\"', inner)
    return f'"{inner}"'


def _named(name: str) -> Layer:
    """A layer of which only the name is known."""
    profile = _PROFILE.search(name)
    plain = _MYELIN_GRAPH.sub("", name)
    # Myelin joins names with a bare "+"
    text = plain if plain == name or " + " in plain else plain.replace("+", " + ")
    nodes = frozenset() if _NO_NODES.search(name) else _nodes_in_name(text, {})
    return Layer(name=name, kind="", onnx_nodes=nodes, profile=int(profile[1]) if profile else 0)


def _layer(entry: Mapping[str, Any]) -> Layer:
    name = str(entry.get("Name", ""))
    metadata = str(entry.get("Metadata") or "")
    profile = _PROFILE.search(name)
    value = str(entry.get("TacticValue") or "")
    return Layer(
        name=name,
        kind=str(entry.get("LayerType", "")),
        onnx_nodes=onnx_nodes(metadata) or _nodes_in_name(name, entry),
        inputs=_tensors(entry.get("Inputs")),
        constants=_tensors(entry.get("Constants")) or _weights(entry),
        outputs=_tensors(entry.get("Outputs")),
        tactic=str(entry.get("TacticName") or "") or ("" if _NO_TACTIC.match(value) else value),
        profile=int(profile[1]) if profile else 0,
        stream=int(entry.get("StreamId") or 0),
    )


def _short_layers(body: str) -> list[Layer]:
    """Layers of the short listing, one a line (a node name may hold a newline)."""
    layers = []
    for line in re.split(r"\n\s*(?=Layer\(\w*\): )", body):
        match = _SHORT_LAYER.match(line.strip())
        if match is not None:
            entry: dict[str, Any] = {field: match[field] for field in ("Name", "LayerType", "TacticValue")}
            for field in ("Inputs", "Outputs"):
                entry[field] = [_short_tensor(part) for part in _SHORT_TENSOR.finditer(match[field])]
            layers.append(_layer(entry))
    return layers


def _short_tensor(match: re.Match[str]) -> dict[str, str]:
    """``64:8`` are channels in vectors of 8: the only thing that this listing says of a format."""
    vector = re.search(r":(\d+)", match["dims"])
    return {
        "Name": match["Name"],
        "Datatype": match["Datatype"],
        "Format": f"{SHORT_FORMATS[1]}{vector[1]}" if vector else SHORT_FORMATS[0],
    }


def _tensors(entries: Any) -> tuple[LayerTensor, ...]:
    found = []
    for entry in entries or ():
        if isinstance(entry, str):
            found.append(LayerTensor(entry, ""))
            continue
        both = str(entry.get("Format/Datatype", ""))
        layout = str(entry.get("Format", both))
        found.append(
            LayerTensor(
                str(entry.get("Name", "")),
                datatype(str(entry.get("Datatype", both))),
                "" if layout.lower() in _DATATYPES or layout.startswith(_NO_FORMAT) else layout,
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
    plain = _PROFILE.sub("", name).strip()
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
