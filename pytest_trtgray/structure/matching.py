"""Which layer of one engine is which layer of another.

TensorRT's layer names are positional: one inserted node renames every layer after it. What survives is the
set of ONNX nodes fused into a layer. Matching goes from certain to uncertain:

1. the same nodes (per profile), type and canonical name;
2. the same nodes, told apart by type and order where a node went into several layers;
3. leftovers that share nodes form n:m groups: the fusion changed, the work did not;
4. layers without any ONNX node (copies, reformats), and those that have one on one side only (TensorRT for RTX 1.5
   does not label what 1.7 does), pair up by canonical name and the matched layer before them.

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
from pytest_trtgray.engines.model import Layer, canonical_name

KEY_SEPARATOR = " + "
_UNNAMED = "node_of_"
_POSITIONAL_CONSTANT = re.compile(r"^(__my|reorder)|^$")
_MYELIN_SUFFIX = re.compile(r"(_constant\w+)?_myl\d+$")
# Names that exporters and converters give: ONNX Runtime's quantiser and FP16 converter, ModelOpt, PyTorch
_CONVERSION = re.compile(
    r"(^|[/_.])(De)?[Qq]uantizeLinear(_\d+)?$|(^|[/_.])D?Q(_\d+)?$|(^|[/_.])[Cc]ast_?\d*$|^Inserted(PrecisionFree)?Cast_"
)

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
        extra_old: old layers beside a matched one that computes their nodes (a copy, a part that was split off).
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


def is_conversion(node: str) -> bool:
    """Whether an ONNX node is named as a converter names Q/DQ nodes and casts.

    >>> is_conversion("/conv1/input_quantizer/QuantizeLinear"), is_conversion("graph_output_cast0")
    (True, True)
    """
    return _CONVERSION.search(node) is not None


def match_layers(old: Iterable[Layer], new: Iterable[Layer]) -> Matching:
    """Match two engines' layers by their ONNX nodes."""
    new_layers = list(new)
    old_layers = _rename_unnamed(list(old), new_layers)
    listed = [frozenset().union(*(layer.onnx_nodes for layer in side)) for side in (old_layers, new_layers)]
    converted = frozenset(node for node in listed[0] ^ listed[1] if is_conversion(node))
    before, after = _Side(old_layers, converted), _Side(new_layers, converted)
    for key in (_Side.by_name, _Side.by_kind, _Side.by_work, _Side.by_nodes):
        _pair(before, after, [(key(before, i), i) for i in before.left], [(key(after, i), i) for i in after.left])
    groups = _groups(before, after)
    old_extra, new_extra = before.take_extras(after), after.take_extras(before)
    blank_pairs = _pair_unlabelled(before, after)
    relabelled = _pair_relabelled(before, after)
    return Matching(
        old=tuple(old_layers),
        new=tuple(new_layers),
        pairs=tuple((old_layers[i], new_layers[j]) for i, j in before.pairs),
        groups=groups,
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
        self.partner: dict[int, int] = {}
        """Of a paired layer, which pair it is."""

    def by_name(self, i: int) -> Hashable:
        return self.by_kind(i), self.names[i]

    def by_kind(self, i: int) -> Hashable:
        return self.layers[i].profile, self.work[i], self.layers[i].kind

    def by_work(self, i: int) -> Hashable:
        """A copy of what a product reads is no product, though it lists the same node."""
        return self.by_nodes(i), moves_data(self.layers[i])

    def by_nodes(self, i: int) -> Hashable:
        return self.layers[i].profile, self.work[i]

    def take_extras(self, other: _Side) -> tuple[Layer, ...]:
        """Take out leftovers whose nodes the other side lists, in layers that have their partners."""
        listed = {(layer.profile, node) for layer, work in zip(other.layers, other.work, strict=True) for node in work}
        found = [i for i in self.left if any((self.layers[i].profile, node) in listed for node in self.work[i])]
        self.left = [i for i in self.left if i not in set(found)]
        return tuple(self.layers[i] for i in found)

    def anchors(self) -> list[int]:
        """Of each layer, the pair that runs last before it."""
        last, found = -1, []
        for i in range(len(self.layers)):
            found.append(last)
            last = self.partner.get(i, last)
        return found

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
        before.partner[i] = after.partner[j] = len(before.pairs)
        before.pairs.append((i, j))
    before.left = [i for i in before.left if i not in before.partner]
    after.left = [j for j in after.left if j not in after.partner]


def _equal(old: Iterable[tuple[Hashable, int]], new: Iterable[tuple[Hashable, int]]) -> list[tuple[int, int]]:
    """Positions with equal keys, each used once, the first with the first."""
    waiting: defaultdict[Hashable, list[int]] = defaultdict(list)
    for key, j in new:
        waiting[key].append(j)
    for partners in waiting.values():
        partners.reverse()
    return [(i, waiting[key].pop()) for key, i in old if waiting.get(key)]


def _groups(before: _Side, after: _Side) -> tuple[Group, ...]:
    """Take out leftovers that share nodes with leftovers of the other side."""
    nodes = [[[(side.layers[i].profile, node) for node in side.work[i]] for i in side.left] for side in (before, after)]
    found = [(olds, news) for olds, news in components(*nodes) if olds and news]
    groups = []
    for olds, news in found:
        groups.append(
            (
                tuple(before.layers[before.left[i]] for i in olds),
                tuple(after.layers[after.left[j]] for j in news),
            )
        )
    for side, taken in (
        (before, {i for olds, _ in found for i in olds}),
        (after, {j for _, news in found for j in news}),
    ):
        side.left = [position for number, position in enumerate(side.left) if number not in taken]
    return tuple(groups)


def _pair_unlabelled(before: _Side, after: _Side) -> tuple[tuple[Layer, Layer], ...]:
    """Pair layers without nodes, first those behind the same pair."""
    found = []
    for anchored in (True, False):
        keys = [_unlabelled_keys(side, side.blank, anchored=anchored) for side in (before, after)]
        now = _equal(*keys)
        found += now
        before.blank = [i for i in before.blank if i not in {i for i, _ in now}]
        after.blank = [j for j in after.blank if j not in {j for _, j in now}]
    return tuple((before.layers[i], after.layers[j]) for i, j in sorted(found))


def _pair_relabelled(before: _Side, after: _Side) -> tuple[tuple[Layer, Layer], ...]:
    """Pair layers of which only one side tells the nodes."""
    gained = _equal(_unlabelled_keys(before, before.blank), _unlabelled_keys(after, after.left))
    lost = _equal(_unlabelled_keys(before, before.left), _unlabelled_keys(after, after.blank))
    before.blank = [i for i in before.blank if i not in {i for i, _ in gained}]
    after.left = [j for j in after.left if j not in {j for _, j in gained}]
    before.left = [i for i in before.left if i not in {i for i, _ in lost}]
    after.blank = [j for j in after.blank if j not in {j for _, j in lost}]
    return tuple((before.layers[i], after.layers[j]) for i, j in sorted([*gained, *lost]))


def _unlabelled_keys(side: _Side, positions: Iterable[int], *, anchored: bool = True) -> list[tuple[Hashable, int]]:
    anchors = side.anchors() if anchored else None
    return [
        ((side.layers[i].profile, side.layers[i].kind, side.names[i], anchors[i] if anchors else None), i)
        for i in positions
    ]


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
