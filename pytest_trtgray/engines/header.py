"""The first 64 bytes of an engine file: family, version, targets and truncation, before native code runs.

Engine files are executable artefacts; nothing of TensorRT sees one that this page would refuse. The layout
was measured on files of TensorRT for RTX 1.4 to 1.7 (``vtrt``) and of TensorRT 8.5 (``ptrt``);
``trtexec --getPlanVersionOnly`` reads the tag ``ftrt`` and the version bytes in files of TensorRT 10 and 11.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pytest_trtgray.errors import EngineError

Flavour = Literal["tensorrt", "tensorrt_rtx"]
HEADER_BYTES = 64
_FAMILIES: Mapping[bytes, Flavour] = {b"ptrt": "tensorrt", b"ftrt": "tensorrt", b"vtrt": "tensorrt_rtx"}
_OLD_MAGIC = b"ptrt"
_OLD_PREFIX_BYTES = 24
"""TensorRT 8 counts what follows the prefix."""
_OLD_VERSION = re.compile(rb"\x02\x80\x01\x00(.)" * 4, re.DOTALL)
_SIZE_OFFSET, _VERSION_OFFSET, _TARGETS_OFFSET = 16, 24, 32
_TARGET_BITS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121")


@dataclass(frozen=True)
class EngineHeader:
    """What the header says.

    Attributes:
        runtime: ``tensorrt`` or ``tensorrt_rtx``.
        version: four numbers, ``1.7.1.116``; empty where the layout is not known.
        plan_bytes: size of the whole plan.
        targets: compute capabilities that it was compiled for (TensorRT for RTX only).
    """

    runtime: Flavour
    version: str
    plan_bytes: int
    targets: tuple[str, ...] = ()


def read_header(path: Path) -> EngineHeader:
    """Read and check an engine file's header.

    Raises:
        EngineError: empty, cut off, or no TensorRT engine at all.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    rebuild = "Build it again, or fetch it again if it came from a store."
    if size == 0:
        raise EngineError(path, "the engine file is empty", rebuild)
    family = _FAMILIES.get(head[:4])
    if family is None:
        raise EngineError(path, f"not a TensorRT engine: {describe_content(head)}", rebuild)
    if len(head) < HEADER_BYTES:
        raise EngineError(path, f"the engine file is cut off: {size} bytes, not even its header", rebuild)
    (plan_bytes,) = struct.unpack_from("<Q", head, _SIZE_OFFSET)
    if head[:4] == _OLD_MAGIC:
        plan_bytes += _OLD_PREFIX_BYTES
    if plan_bytes > size:
        raise EngineError(path, f"the engine file is cut off: {size:,} of {plan_bytes:,} bytes are there", rebuild)
    version = ".".join(map(str, _version(head)))
    return EngineHeader(family, version, plan_bytes, _targets(head) if family == "tensorrt_rtx" else ())


def _version(head: bytes) -> bytes:
    """The four numbers; of TensorRT 8 they stand between tags, and may not be found in another one's layout."""
    if head[:4] != _OLD_MAGIC:
        return head[_VERSION_OFFSET : _VERSION_OFFSET + 4]
    found = _OLD_VERSION.search(head[_VERSION_OFFSET:])
    return b"".join(found.groups()) if found else b""


def describe_content(head: bytes) -> str:
    """In a few words, what a file that is not what it should be seems to hold."""
    if not head:
        return "the file is empty"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; run `git lfs pull`"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, probably a failed download"
    if head.startswith(b"PK\x03\x04"):
        return "it is a ZIP archive"
    if head.startswith(b"\x1f\x8b"):
        return "it is gzip-compressed; unpack it first"
    if text.startswith((b"{", b"[")):
        return "it is JSON"
    if head[:1] == b"\x08":  # the tag of ir_version, which every exporter writes first
        return "it looks like an ONNX model; name it .onnx"
    return f"it starts with {head[:4]!r}"


def _targets(head: bytes) -> tuple[str, ...]:
    (mask,) = struct.unpack_from("<Q", head, _TARGETS_OFFSET)
    named = tuple(name for bit, name in enumerate(_TARGET_BITS) if mask >> bit & 1)
    later = mask >> len(_TARGET_BITS)
    return (*named, "later") if later else named
