"""Layers by module: a model's own structure, read from the names of its ONNX nodes.

Nodes are called by their module path (``/encoder/layer.0/attention/query/MatMul``) by PyTorch's older exporter and by
others; for its newer one, :mod:`pytest_trtgray.engines.scopes` makes such names from the metadata.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from pytest_trtgray.engines.model import Layer

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
"""A number that is a whole part of a name, as in ``layer.0``: the index of a block."""

LayerGroup = Callable[[Layer], "str | None"]
"""Returns the module path of a layer, or ``None`` for what its ONNX nodes say."""


def segments(path: str) -> list[str]:
    """A module path or ONNX node name in parts; ``/`` and ``.`` both separate.

    >>> segments("/encoder/layer.0/attention/MatMul")
    ['encoder', 'layer', '0', 'attention', 'MatMul']
    """
    return [part for part in re.split(r"[/.]", path) if part]


def block(name: str) -> str:
    """A name with ``*`` for the numbers of blocks.

    >>> block("encoder.layer.11.attention")
    'encoder.layer.*.attention'
    """
    return _NUMBER.sub("*", name)


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


def module_shares(
    layers: Sequence[Layer], group: LayerGroup | None = None, *, repeated: bool = True
) -> dict[str, dict[int, float]]:
    """All modules, outer ones too, with the part of each layer that belongs to them.

    Args:
        layers: of the engine.
        group: a user's own grouping, which comes first.
        repeated: put the blocks of a network together: ``encoder/layer.*`` for ``layer.0`` to ``layer.11``.

    Returns:
        by module path, in order of appearance: by position of a layer, its part (0 to 1). A kernel that fuses nodes
        of several modules counts for each in proportion to its nodes.
    """
    found: dict[str, dict[int, float]] = {}
    for index, layer in enumerate(layers):
        named = group(layer) if group else None
        paths = [node.rpartition("/")[0] for node in layer.onnx_nodes] if named is None else [named]
        for path in paths:
            outer = ""
            for part in path.strip("/").split("/") if path.strip("/") else ():
                outer = f"{outer}/{block(part) if repeated else part}".strip("/")
                parts = found.setdefault(outer, {})
                parts[index] = parts.get(index, 0.0) + 1 / len(paths)
    return found


def critical(shares: Mapping[str, float], least: float) -> list[str]:
    """The innermost modules that take at least a part of the whole; none of them holds another.

    Args:
        shares: part of the whole that each module takes; outer modules include inner ones.
        least: part that is worth naming.

    >>> critical({"a": 0.9, "a/b": 0.6, "a/c": 0.05, "d": 0.1}, 0.1)
    ['a/b', 'd']
    """
    large = [name for name, share in shares.items() if share >= least]
    inner = [name for name in large if not any(other.startswith(f"{name}/") for other in large)]
    return sorted(inner, key=lambda name: -shares[name])


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
