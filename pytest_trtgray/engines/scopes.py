"""Names of ONNX nodes that an insertion does not move: where the exporter's are numbers, the module path.

PyTorch's exporter (``torch.onnx.export``, the default since 2.9) calls nodes ``node_MatMul_3``, by their number in the
graph: one more layer renames all that follow. It keeps the module path in each node's metadata. From it a node gets
the name that the older exporter gave, ``/blocks.0/attn/q/MatMul``, which also tells its module.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pytest_trtgray.engines.model import Layer

NAME_SCOPES = "pkg.torch.onnx.name_scopes"
"""Metadata of a node: a list such as ``['', 'blocks.0', 'blocks.0.attn', 'linear']``, the last is the node's own."""


def scope_path(name_scopes: str) -> str:
    """A module path from the metadata's text; ``""`` for the root, or for what is no list of names.

    >>> scope_path("['', 'blocks.0', 'blocks.0.attn', 'blocks.0.attn.q', 'linear']")
    '/blocks.0/attn/q'
    """
    try:
        scopes = ast.literal_eval(name_scopes)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ""
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
        return ""
    parts, outer = [], ""
    for scope in scopes[:-1]:
        if scope:
            parts.append(scope[len(outer) + 1 :] if outer and scope.startswith(f"{outer}.") else scope)
            outer = scope
    return "".join(f"/{part}" for part in parts)


def scoped_names(nodes: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """A name by module path for every node that has one.

    Args:
        nodes: name and NodeProto of each node of a model, in order.

    Returns:
        by the node's own name: path and operator, with an ordinal where a module has several
        (``/blocks.0/attn/MatMul_1``).
    """
    seen: Counter[str] = Counter()
    found = {}
    for name, node in nodes:
        text = next((entry.value for entry in node.metadata_props if entry.key == NAME_SCOPES), None)
        if text is not None:
            base = f"{scope_path(text)}/{node.op_type}"
            found[name] = f"{base}_{seen[base]}" if seen[base] else base
            seen[base] += 1
    return found


def with_scoped_names(layers: Sequence[Layer], names: Mapping[str, str]) -> tuple[Layer, ...]:
    """Layers whose ONNX nodes are called as :func:`scoped_names` says."""
    if not names:
        return tuple(layers)
    return tuple(
        replace(layer, onnx_nodes=frozenset(names.get(node, node) for node in layer.onnx_nodes)) for layer in layers
    )
