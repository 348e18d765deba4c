"""Which layer of one engine is which layer of another.

TensorRT's layer names are positional: one inserted node renames every layer after it. What survives is the
set of ONNX nodes fused into a layer. Matching goes from certain to uncertain:

1. the same nodes (per profile), type and canonical name;
2. the same nodes, told apart by type and order where a node went into several layers;
3. leftovers that share nodes form n:m groups: the fusion changed, the work did not. A leftover that shares nodes with
   matched layers only joins their group, unless it is a copy;
4. layers without any ONNX node (copies, reformats), and those that have one on one side only (TensorRT for RTX does
   not label every kernel), pair up by canonical name and the matched layer before them, or between the same two.

What the first three steps find may fail a test; the fourth is advice.

Nodes that never had a name are called after their output, which an insertion may rename; they are first
recognised by the weights that they hold. Nodes that a conversion to another precision put into one of the two models
(Q/DQ pairs, casts) are left out of the comparison of sets.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

from pytest_trtgray.engines.kernels import moves_data
from pytest_trtgray.engines.model import Layer, canonical_name, is_conversion

KEY_SEPARATOR = " + "
_UNNAMED = "node_of_"
_POSITIONAL_CONSTANT = re.compile(r"^(__my|reorder)|^$")
_MYELIN_SUFFIX = re.compile(r"(_constant\w+)?_myl\d+$")
Group = tuple[tuple[Layer, ...], tuple[Layer, ...]]


@dataclass(frozen=True)
class Matching:
    """How two lists of layers belong together; every layer is in exactly one of the lists from ``pairs`` on.

    Attributes:
        old: all layers of the old engine in order of execution, with the node names that the new one has.
        new: all layers of the new engine.
        pairs: the same layer in both.
        groups: the same work, fused differently (n old layers, m new ones).
        removed: old layers of which the new engine lists no node.
        added: new layers of which the old engine lists no node.
        extra_old: copies beside a matched old layer that computes their nodes.
        extra_new: such new layers.
        relabelled: layers that look alike and have ONNX nodes on one side only.
        unlabelled_pairs: layers without ONNX nodes that look alike.
        unlabelled_removed: such layers without a partner in the new engine.
        unlabelled_added: such layers without a partner in the old engine.
    """

    old: tuple[Layer, ...] = ()
    new: tuple[Layer, ...] = ()
    pairs: tuple[tuple[Layer, Layer], ...] = ()
    groups: tuple[Group, ...] = ()
    removed: tuple[Layer, ...] = ()
    added: tuple[Layer, ...] = ()
    extra_old: tuple[Layer, ...] = ()
    extra_new: tuple[Layer, ...] = ()
    relabelled: tuple[tuple[Layer, Layer], ...] = ()
    unlabelled_pairs: tuple[tuple[Layer, Layer], ...] = ()
    unlabelled_removed: tuple[Layer, ...] = ()
    unlabelled_added: tuple[Layer, ...] = ()


def match_layers(old: Iterable[Layer], new: Iterable[Layer]) -> Matching:
    """Match two engines' layers by their ONNX nodes."""
    new_layers = list(new)
    old_layers = _rename_unnamed(list(old), new_layers)
    listed = [frozenset().union(*(layer.onnx_nodes for layer in side)) for side in (old_layers, new_layers)]
    converted = frozenset(node for node in listed[0] ^ listed[1] if is_conversion(node))
    before, after = _Side(old_layers, converted), _Side(new_layers, converted)
    for key in (_Side.by_name, _Side.by_kind, _Side.by_work, _Side.by_nodes):
        _pair(before, after, [(key(before, i), i) for i in before.left], [(key(after, i), i) for i in after.left])
    groups = [*_groups(before, after, before.left, after.left), *_split_pairs(before, after)]
    old_extra, new_extra = before.take_extras(after), after.take_extras(before)
    blank_pairs = _pair_unlabelled(before, after)
    relabelled = _pair_relabelled(before, after)
    return Matching(
        old=tuple(old_layers),
        new=tuple(new_layers),
        pairs=tuple((old_layers[i], new_layers[j]) for i, j in before.pairs),
        groups=tuple(groups),
        removed=before.rest(labelled=True),
        added=after.rest(labelled=True),
        extra_old=old_extra,
        extra_new=new_extra,
        relabelled=relabelled,
        unlabelled_pairs=blank_pairs,
        unlabelled_removed=before.rest(labelled=False),
        unlabelled_added=after.rest(labelled=False),
    )


class _Side:
    """The layers of one engine while they are matched.

    Args:
        layers: in order of execution.
        converted: nodes that do not count.
    """

    def __init__(self, layers: list[Layer], converted: frozenset[str]) -> None:
        self.layers = layers
        self.work = [layer.onnx_nodes - converted for layer in layers]
        self.names = [canonical_name(layer.name) for layer in layers]
        self.left = [i for i, work in enumerate(self.work) if work]
        """Positions of labelled layers without a partner."""
        self.blank = [i for i, layer in enumerate(layers) if not layer.onnx_nodes]
        self.only_converted = [i for i, layer in enumerate(layers) if layer.onnx_nodes and not self.work[i]]
        self.pairs: list[tuple[int, int]] = []
        self.together: dict[int, int] = {}
        """Of a matched layer, its place among the pairs and groups."""

    def by_name(self, i: int) -> Hashable:
        return self.by_kind(i), self.names[i]

    def by_kind(self, i: int) -> Hashable:
        return self.layers[i].profile, self.work[i], self.layers[i].kind

    def by_work(self, i: int) -> Hashable:
        """A copy of what a product reads is no product, though it lists the same node."""
        return self.by_nodes(i), moves_data(self.layers[i])

    def by_nodes(self, i: int) -> Hashable:
        return self.layers[i].profile, self.work[i]

    def nodes_of(self, positions: Iterable[int]) -> list[list[Hashable]]:
        """The nodes of layers, each with its profile."""
        return [[(self.layers[i].profile, node) for node in self.work[i]] for i in positions]

    def take_extras(self, other: _Side) -> tuple[Layer, ...]:
        """Take out leftovers whose nodes the other side lists, in layers that have their partners."""
        listed = {node for nodes in other.nodes_of(range(len(other.layers))) for node in nodes}
        found = {
            i for i, nodes in zip(self.left, self.nodes_of(self.left), strict=True) if not listed.isdisjoint(nodes)
        }
        self.left = [i for i in self.left if i not in found]
        return tuple(self.layers[i] for i in sorted(found))

    def take(self, positions: Iterable[int]) -> None:
        """These layers have found their place."""
        gone = set(positions)
        self.left = [i for i in self.left if i not in gone]
        self.blank = [i for i in self.blank if i not in gone]

    def neighbours(self) -> list[tuple[int, int]]:
        """Of each layer, what is matched last before it and first after it."""
        count = len(self.layers)
        before, after = [-1] * count, [-1] * count
        for order, found in ((range(count), before), (range(count - 1, -1, -1), after)):
            last = -1
            for i in order:
                found[i] = last
                last = self.together.get(i, last)
        return list(zip(before, after, strict=True))

    def rest(self, *, labelled: bool) -> tuple[Layer, ...]:
        positions = sorted([*self.left, *self.only_converted]) if labelled else self.blank
        return tuple(self.layers[i] for i in positions)


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


def _pair(
    before: _Side, after: _Side, old: Iterable[tuple[Hashable, int]], new: Iterable[tuple[Hashable, int]]
) -> None:
    """Pair labelled layers with equal keys, in order of appearance."""
    for i, j in _equal(old, new):
        before.together[i] = after.together[j] = len(before.pairs)
        before.pairs.append((i, j))
    before.take(before.together)
    after.take(after.together)


def _equal(old: Iterable[tuple[Hashable, int]], new: Iterable[tuple[Hashable, int]]) -> list[tuple[int, int]]:
    """Positions with equal keys, each used once, the first with the first."""
    waiting: defaultdict[Hashable, list[int]] = defaultdict(list)
    for key, j in new:
        waiting[key].append(j)
    for partners in waiting.values():
        partners.reverse()
    return [(i, waiting[key].pop()) for key, i in old if waiting.get(key)]


def _groups(before: _Side, after: _Side, old: Sequence[int], new: Sequence[int]) -> list[Group]:
    """Layers of both sides that share nodes, put together and taken out."""
    found = [
        ([old[i] for i in olds], [new[j] for j in news])
        for olds, news in components(before.nodes_of(old), after.nodes_of(new))
        if olds and news
    ]
    start = max((*before.together.values(), *after.together.values()), default=-1) + 1
    for number, members in enumerate(found, start):
        for side, positions in zip((before, after), members, strict=True):
            side.together.update((i, number) for i in positions)
            side.take(positions)
    return [(tuple(before.layers[i] for i in olds), tuple(after.layers[j] for j in news)) for olds, news in found]


def _split_pairs(before: _Side, after: _Side) -> list[Group]:
    """Pairs of which one side has a further part: the layer was split, or two of one node became one."""
    parts = [[i for i in side.left if not moves_data(side.layers[i])] for side in (before, after)]
    loose = {
        node
        for side, more in zip((before, after), parts, strict=True)
        for nodes in side.nodes_of(more)
        for node in nodes
    }
    if not loose:
        return []
    opened = [
        (i, j)
        for i, j in before.pairs
        if any(node in loose for node in (*before.nodes_of([i])[0], *after.nodes_of([j])[0]))
    ]
    before.pairs = [pair for pair in before.pairs if pair not in set(opened)]
    old, new = [*(i for i, _ in opened), *parts[0]], [*(j for _, j in opened), *parts[1]]
    return _groups(before, after, sorted(old), sorted(new))


def _pair_unlabelled(before: _Side, after: _Side) -> tuple[tuple[Layer, Layer], ...]:
    """Pair layers without nodes that look alike, first those behind the same match."""
    found: list[tuple[int, int]] = []
    for behind in (True, False):
        now = _equal(_looks(before, before.blank, behind=behind), _looks(after, after.blank, behind=behind))
        before.take(i for i, _ in now)
        after.take(j for _, j in now)
        found += now
    return tuple((before.layers[i], after.layers[j]) for i, j in sorted(found))


def _pair_relabelled(before: _Side, after: _Side) -> tuple[tuple[Layer, Layer], ...]:
    """Pair layers of which only one side tells the nodes: they look alike, or both work between the same two."""
    found: list[tuple[int, int]] = []
    for key in (_looks, _places):
        now = _equal(key(before, before.blank), key(after, after.left))
        now += _equal(key(before, before.left), key(after, after.blank))
        before.take(i for i, _ in now)
        after.take(j for _, j in now)
        found += now
    return tuple((before.layers[i], after.layers[j]) for i, j in sorted(found))


def _looks(side: _Side, positions: Iterable[int], *, behind: bool = True) -> list[tuple[Hashable, int]]:
    neighbours = side.neighbours()
    return [
        ((side.layers[i].profile, side.layers[i].kind, side.names[i], neighbours[i][0] if behind else None), i)
        for i in positions
    ]


def _places(side: _Side, positions: Iterable[int]) -> list[tuple[Hashable, int]]:
    neighbours = side.neighbours()
    return [((side.layers[i].profile, neighbours[i]), i) for i in positions if not moves_data(side.layers[i])]


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
