"""What real engines said and how long they took; where each file comes from is in ``data/README.md``."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.engines.layer_listing import layers_from_json, layers_from_log, listing_in
from pytest_trtgray.engines.model import Layer

DATA = Path(__file__).parent / "data"


def text(name: str) -> str:
    """The text of a compressed recording."""
    return gzip.decompress((DATA / f"{name}.gz").read_bytes()).decode()


def listing(name: str) -> Any:
    """An inspector's JSON."""
    return json.loads(text(f"{name}.layers.json"), strict=False)


def messages(name: str) -> list[str]:
    """Every message of a build, as TensorRT's logger was given it."""
    return [json.loads(line)["msg"] for line in text(f"{name}.messages.jsonl").splitlines()]


def log_layers(name: str) -> list[Layer]:
    """The layers in the log of a build."""
    return layers_from_log([listing_in(text(f"{name}.log"))])


def bert_layers() -> list[Layer]:
    """The layers of the BERT-base of :class:`H200`, with the node names of ``bert_base.onnx``."""
    read = layers_from_json(listing("rtx15_bert_base_fp16"))
    return [
        replace(each, onnx_nodes=frozenset(node.replace("/m/", "/bert/", 1) for node in each.onnx_nodes))
        for each in read
    ]


def model(name: str, folder: Path) -> Path:
    """A recorded ONNX model as a file."""
    path = folder / f"{name}.onnx"
    path.write_bytes(gzip.decompress((DATA / f"{name}.onnx.gz").read_bytes()))
    return path


def unpacked(name: str, folder: Path) -> Path:
    """A recording as a file of its own."""
    path = folder / name
    path.write_text(text(name), encoding="utf-8")
    return path


class H200:
    """Sessions of a BERT-base encoder on an NVIDIA H200: 12 processes on machine ``a``, 10 on machine ``b``."""

    def __init__(self) -> None:
        with np.load(DATA / "h200_bert_base_fp16_8x128.npz", allow_pickle=False) as data:
            self.layer_names: list[str] = [str(name) for name in data["layer_names"]]
            tick = float(data["tick_us"])
            self.layer_us: dict[str, NDArray[np.float64]] = {m: data[f"{m}_ticks"] * tick for m in "ab"}
            self.latency_us: dict[str, NDArray[np.float32]] = {m: data[f"{m}_latency_us"] for m in "ab"}
