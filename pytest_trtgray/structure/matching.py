"""Which layer of one engine is which layer of another.

TensorRT's layer names are positional: one inserted node renames every layer after it. What survives is the
set of ONNX nodes fused into a layer. Matching goes from certain to uncertain:

1. the same nodes (per profile), told apart by type, name and order where a node went into several layers;
2. leftovers that share nodes form n:m groups: the fusion changed, the work did not;
3. layers without any ONNX node (copies, reformats) pair up by name and order; they never prove anything.

Nodes that never had a name are called after their output, which an insertion may rename; they are first
recognised by the weights that they hold.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

from pytest_trtgray.engines.model import Layer, canonical_name

KEY_SEPARATOR = " + "
_UNNAMED = "node_of_"
_POSITIONAL_CONSTANT = re.compile(r"^(__my|reorder)|^$")
_MYELIN_SUFFIX = re.compile(r"(_constant\w+)?_myl\d+$")


@dataclass(frozen=True)
class Matching:
    """How two lists of layers belong together.

    Attributes:
        pairs: the same layer in both; the old one carries the new one's node names.
        groups: the same work, fused differently (n old layers, m new ones).
        removed: old layers of which no node is left.
        added: new layers made of new nodes only.
        unlabelled_pairs: layers without ONNX nodes that look alike.
        unlabelled_removed: such layers without a partner in the new engine.
        unlabelled_added: such layers without a partner in the old engine.
    """

    pairs: tuple[tuple[Layer, Layer], ...]
    groups: tuple[tuple[tuple[Layer, ...], tuple[Layer, ...]], ...]
    removed: tuple[Layer, ...]
    added: tuple[Layer, ...]
    unlabelled_pairs: tuple[tuple[Layer, Layer], ...]
    unlabelled_removed: tuple[Layer, ...]
    unlabelled_added: tuple[Layer, ...]


def match_layers(old: Iterable[Layer], new: Iterable[Layer]) -> Matching:
    """Match two engines' layers by their ONNX nodes."""
    old_layers, new_layers = list(old), list(new)
    old_layers = _rename_unnamed(old_layers, new_layers)
    labelled_old = [layer for layer in old_layers if layer.onnx_nodes]
    labelled_new = [layer for layer in new_layers if layer.onnx_nodes]
    pairs, left_old, left_new = _pair(
        labelled_old,
        labelled_new,
        (
            lambda layer: (layer.profile, layer.onnx_nodes, layer.kind, canonical_name(layer.name)),
            lambda layer: (layer.profile, layer.onnx_nodes, layer.kind),
            lambda layer: (layer.profile, layer.onnx_nodes),
        ),
    )
    shared = components(
        [_nodes_by_profile(layer) for layer in left_old], [_nodes_by_profile(layer) for layer in left_new]
    )
    groups = [(tuple(left_old[i] for i in olds), tuple(left_new[i] for i in news)) for olds, news in shared]
    blank_pairs, blank_old, blank_new = _pair(
        [layer for layer in old_layers if not layer.onnx_nodes],
        [layer for layer in new_layers if not layer.onnx_nodes],
        (
            lambda layer: (layer.profile, layer.kind, canonical_name(layer.name)),
            lambda layer: (layer.profile, layer.kind),
        ),
    )
    return Matching(
        pairs=tuple(pairs),
        groups=tuple(group for group in groups if group[0] and group[1]),
        removed=tuple(layer for group in groups if not group[1] for layer in group[0]),
        added=tuple(layer for group in groups if not group[0] for layer in group[1]),
        unlabelled_pairs=tuple(blank_pairs),
        unlabelled_removed=tuple(blank_old),
        unlabelled_added=tuple(blank_new),
    )


def layer_keys(layers: Sequence[Layer]) -> list[str]:
    """A key for each layer, unique within the engine and stable across builds of the same graph.

    Made of the ONNX nodes (of the canonical name where there are none), with the layer's type and an
    ordinal where that is not enough.
    """
    bases = [KEY_SEPARATOR.join(sorted(layer.onnx_nodes)) or canonical_name(layer.name) for layer in layers]
    bases = [
        f"{base} [profile {layer.profile}]" if layer.profile else base
        for base, layer in zip(bases, layers, strict=True)
    ]
    counts = Counter(bases)
    bases = [f"{base} ({layer.kind})" if counts[base] > 1 else base for base, layer in zip(bases, layers, strict=True)]
    taken: set[str] = set()
    keys = []
    for base in bases:
        key, ordinal = base, 1
        while key in taken:
            ordinal += 1
            key = f"{base} #{ordinal}"
        taken.add(key)
        keys.append(key)
    return keys


def _nodes_by_profile(layer: Layer) -> list[tuple[int, str]]:
    return [(layer.profile, node) for node in layer.onnx_nodes]


def _pair(
    old: Sequence[Layer], new: Sequence[Layer], keys: Sequence[Callable[[Layer], Hashable]]
) -> tuple[list[tuple[Layer, Layer]], list[Layer], list[Layer]]:
    """Pair layers with equal keys, the strictest key first, in order of appearance."""
    pairs: list[tuple[Layer, Layer]] = []
    left_old, left_new = list(old), list(new)
    for key in keys:
        waiting: defaultdict[Hashable, list[Layer]] = defaultdict(list)
        for layer in reversed(left_new):
            waiting[key(layer)].append(layer)
        unmatched = []
        taken = set()
        for layer in left_old:
            if partners := waiting[key(layer)]:
                partner = partners.pop()
                taken.add(id(partner))
                pairs.append((layer, partner))
            else:
                unmatched.append(layer)
        left_old = unmatched
        left_new = [layer for layer in left_new if id(layer) not in taken]
    return pairs, left_old, left_new


def components(
    old: Sequence[Iterable[Hashable]], new: Sequence[Iterable[Hashable]]
) -> list[tuple[list[int], list[int]]]:
    """Connected components of layers that share nodes.

    Args:
        old: of each layer on one side, its nodes.
        new: the same of the other side.

    Returns:
        for each component the positions of its old and of its new layers, in order; one side may be empty.
    """
    everything = [frozenset(nodes) for nodes in (*old, *new)]
    by_node: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, nodes in enumerate(everything):
        for node in nodes:
            by_node[node].append(index)
    seen: set[int] = set()
    found = []
    for start in range(len(everything)):
        if start in seen:
            continue
        seen.add(start)
        pending, members = [start], []
        while pending:
            index = pending.pop()
            members.append(index)
            fresh = {other for node in everything[index] for other in by_node[node]} - seen
            seen |= fresh
            pending.extend(fresh)
        members.sort()
        count = len(old)
        found.append(([i for i in members if i < count], [i - count for i in members if i >= count]))
    return found


def _rename_unnamed(old: list[Layer], new: list[Layer]) -> list[Layer]:
    """Give old layers of one unnamed node the name that the node with the same weights has now."""
    old_by_weights, new_by_weights = _by_weights(old), _by_weights(new)
    renamed = {}
    for weights, layer in old_by_weights.items():
        partner = new_by_weights.get(weights)
        if partner and partner.onnx_nodes != layer.onnx_nodes:
            renamed[id(layer)] = replace(layer, onnx_nodes=partner.onnx_nodes)
    return [renamed.get(id(layer), layer) for layer in old]


def _by_weights(layers: Iterable[Layer]) -> dict[Hashable, Layer]:
    """Layers of a single unnamed node by the weights they hold, where these are unlike any other's."""
    found: defaultdict[Hashable, list[Layer]] = defaultdict(list)
    for layer in layers:
        weights = frozenset(
            _MYELIN_SUFFIX.sub("", constant.name)
            for constant in layer.constants
            if not _POSITIONAL_CONSTANT.match(constant.name)
        )
        (node, *more) = sorted(layer.onnx_nodes) or [""]
        if weights and not more and node.startswith(_UNNAMED):
            found[layer.profile, layer.kind, weights].append(layer)
    return {key: members[0] for key, members in found.items() if len(members) == 1}
