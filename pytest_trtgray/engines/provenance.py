"""Which ONNX nodes went into which node of ONNX Runtime's optimised graph.

ONNX Runtime fuses nodes and keeps no record of it. Two things survive: the names of tensors that still
exist between nodes, and the names of nodes (``r2_nchwc`` is named after the tensor ``r2``). From these the
origin is rebuilt in three steps: a node owns the producers of its outputs; walking back from there, it owns
everything up to the next tensor that another node produces; what is then left over (an Add or Relu that was
pulled into the convolution before it) belongs to its latest producer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

NCHWC_DOMAIN = "com.microsoft.nchwc"
"""Of operators that work on blocks of channels."""
REORDER_OUTPUT = "ReorderOutput"
"""Brings such blocks back into order."""
_NCHWC = "_nchwc"
_LAYOUT_OPS = frozenset({"ReorderInput", REORDER_OUTPUT})
# MatMul and Add of more than two dimensions become a Gemm between two reshapes.
_GEMM_INPUT, _GEMM_OUTPUT = "gemm_input_reshape", "gemm_output_reshape"
# On the CPU, FP16 models get casts around what has no FP16 kernel; the FP32 tensor is the same tensor.
_CAST = re.compile(r"^InsertedPrecisionFreeCast_|^InsertedCast_")
# Names that ONNX Runtime derives from a tensor: r8_bn_nchwc is the convolution that it made of r8's
# batch normalisation.
_MADE_FROM = re.compile(r"(_nchwc|_bn|_mul|_add|_token_\d+)$")


@dataclass(frozen=True)
class GraphNode:
    """A node of either graph: its name, type, and tensor names."""

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def plain_name(tensor: str) -> str:
    """A tensor of the original graph by its name in the optimised one: without the cast that was put around it."""
    return _CAST.sub("", tensor)


def trace_origins(
    original: Sequence[GraphNode], optimised: Sequence[GraphNode], constants: Iterable[str]
) -> list[frozenset[str]]:
    """For every optimised node, the names of the original nodes that it computes.

    Args:
        original: the model's nodes in topological order.
        optimised: the optimised graph's nodes in topological order.
        constants: names of initializers of the original model.

    Returns:
        one set a node of ``optimised``; empty for nodes that only move data (layout changes). An original
        node is in at most one set; nodes folded into constants at load time are in none.
    """
    optimised = _without_reshapes(optimised)
    producer = {output: node for node in original for output in node.outputs if output}
    by_name = {node.name: node for node in original}
    folded = foldable(original, set(constants))
    anchors = [_anchors(node, producer, by_name) for node in optimised]
    owner: dict[str, int] = {}
    for index, nodes in enumerate(anchors):
        for node in nodes:
            owner.setdefault(node.name, index)
    for index, nodes in enumerate(anchors):
        own = [node for node in nodes if owner[node.name] == index]
        _walk_back(index, optimised[index], own, producer, owner, folded)
    for node in original:
        if node.name not in owner and node.name not in folded:
            sources = [producer[tensor].name for tensor in node.inputs if tensor in producer]
            owners = [owner[name] for name in sources if name in owner]
            if owners:
                owner[node.name] = max(owners)
    origins: list[set[str]] = [set() for _ in optimised]
    for name, index in owner.items():
        origins[index].add(name)
    return [frozenset(names) for names in origins]


def _without_reshapes(optimised: Sequence[GraphNode]) -> list[GraphNode]:
    """Products read and write the tensors themselves, not the two-dimensional ones around a Gemm."""
    before = {node.outputs[0]: node.inputs[0] for node in optimised if node.name.startswith(_GEMM_INPUT)}
    after = {node.inputs[0]: node.outputs[0] for node in optimised if node.name.startswith(_GEMM_OUTPUT)}
    return [
        replace(node, outputs=())
        if node.name.startswith((_GEMM_INPUT, _GEMM_OUTPUT))
        else replace(
            node,
            inputs=tuple(before.get(tensor, tensor) for tensor in node.inputs),
            outputs=tuple(after.get(tensor, tensor) for tensor in node.outputs),
        )
        for node in optimised
    ]


def _anchors(node: GraphNode, producer: Mapping[str, GraphNode], by_name: Mapping[str, GraphNode]) -> list[GraphNode]:
    """Original nodes that an optimised node certainly computes."""
    if node.op_type in _LAYOUT_OPS or (node.op_type == "Cast" and _CAST.match(node.name)):
        return []
    found = [producer[tensor] for output in node.outputs if (tensor := plain_name(output)) in producer]
    name = _CAST.sub("", node.name)
    while not found:
        # r2_nchwc is named after a tensor, conv1_token_3 after a node
        places = (producer, by_name) if node.name.endswith(_NCHWC) else (by_name, producer)
        found = [place[name] for place in places if name in place][:1]
        shorter = _MADE_FROM.sub("", name)
        if shorter == name:
            break
        name = shorter
    return found


def _walk_back(
    index: int,
    node: GraphNode,
    start: Sequence[GraphNode],
    producer: Mapping[str, GraphNode],
    owner: dict[str, int],
    folded: set[str],
) -> None:
    """Give ``node`` everything before ``start`` up to the tensors that it reads."""
    boundary = {tensor for name in node.inputs if (tensor := plain_name(name)) in producer}
    # The tensors between layout-changed nodes have new names; such a node computes one operator of its own
    # type (with what follows fused into it), and the walk ends there.
    last = node.op_type if node.name.endswith(_NCHWC) else ""
    pending = list(start)
    while pending:
        current = pending.pop()
        if current.op_type == last:
            continue
        for tensor in current.inputs:
            source = producer.get(tensor)
            if source is None or tensor in boundary or source.name in owner or source.name in folded:
                continue
            owner[source.name] = index
            pending.append(source)


def foldable(nodes: Sequence[GraphNode], constants: set[str]) -> set[str]:
    """Names of nodes that depend on constants only.

    Args:
        nodes: in topological order.
        constants: names of initializers.
    """
    known = set(constants)
    folded = set()
    for node in nodes:
        if all(not tensor or tensor in known for tensor in node.inputs):
            folded.add(node.name)
            known.update(node.outputs)
    return folded
