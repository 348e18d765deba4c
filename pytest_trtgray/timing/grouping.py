"""Layers by module: a model's own structure, read from the names of its ONNX nodes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from pytest_trtgray.engines.model import Layer

LayerGroup = Callable[[Layer], "str | None"]
"""Returns the module path of a layer, or ``None`` for what its ONNX nodes say."""


def segments(path: str) -> list[str]:
    """A module path or ONNX node name in parts; ``/`` and ``.`` both separate.

    >>> segments("/encoder/layer.0/attention/MatMul")
    ['encoder', 'layer', '0', 'attention', 'MatMul']
    """
    return [part for part in re.split(r"[/.]", path) if part]


def matches(pattern: str, path: str) -> bool:
    """Whether consecutive parts of ``path`` match the parts of ``pattern``, each a shell pattern.

    >>> matches("encoder.layer.*/attention", "/encoder/layer.0/attention/query/MatMul")
    True
    """
    wanted, parts = segments(pattern), segments(path)
    return any(
        all(fnmatchcase(part, want) for part, want in zip(parts[start:], wanted, strict=False))
        for start in range(len(parts) - len(wanted) + 1)
    )


def share_of(pattern: str, layer: Layer, group: LayerGroup | None = None) -> float:
    """Which part of a layer belongs to the modules that ``pattern`` names.

    A kernel that fuses nodes of two modules counts for each in proportion to its nodes.
    """
    named = group(layer) if group else None
    if named is not None:
        return float(matches(pattern, named))
    nodes = layer.onnx_nodes
    return sum(matches(pattern, node) for node in nodes) / len(nodes) if nodes else 0.0


def module_of(layer: Layer) -> str:
    """The innermost module that holds all ONNX nodes of a layer; ``""`` if they share none."""
    paths = [node.split("/")[:-1] for node in sorted(layer.onnx_nodes)]
    if not paths:
        return ""
    common = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return "/".join(common).strip("/")


def modules(layers: Iterable[Layer]) -> Sequence[str]:
    """All modules of an engine, in order."""
    return list(dict.fromkeys(name for name in map(module_of, layers) if name))
