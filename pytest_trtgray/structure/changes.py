"""The findings of two matched engines: each kind of change with a rule and a remedy of its own."""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pytest_trtgray.engines.kernels import generated_ops, moves_data, tactic_family
from pytest_trtgray.engines.layer_listing import SHORT_FORMATS
from pytest_trtgray.engines.model import PRECISION_ORDER, Layer, coarsest, is_conversion
from pytest_trtgray.findings import Finding, counted, some
from pytest_trtgray.structure.matching import Group, Matching

ACCEPT = "If the change is intended, accept it with --update-baselines and commit the new baseline."
MAX_EACH = 12
"""So many findings of a rule are told one by one; the rest is one more."""

MAX_NODES = 25
"""So many ONNX nodes of another model are named one by one; ``StructureDiff.added_nodes`` has all."""
_NUMBER = re.compile(r"\d+")
_REMEDY = {
    "fusion-lost": "Look for what stands between these nodes now: a cast or Q/DQ node, a tensor that became an output "
    f"of the network, another opset or TensorRT. {ACCEPT}",
    "precision-fallback": "Look for casts, missing Q/DQ nodes or scales, a precision flag that this TensorRT does not "
    f"have any more, or hardware without this type. {ACCEPT}",
    "precision-changed": f"Check the outputs against the FP32 reference (the `outputs` test). {ACCEPT}",
    "reformat-added": "Copies and reformats between layers mean a format or precision that does not fit: look at "
    f"casts, Q/DQ nodes and the formats of inputs and outputs around it. {ACCEPT}",
    "tactics-changed": "Autotuning measures, and noise decides between kernels of equal speed. For the same kernels in "
    "every build keep a timing cache, raise the average timing iterations, and fix the optimization level; that does "
    "not promise equal bits.",
    "format-changed": "Formats follow kernels and precisions; only a reformat beside it costs time.",
    "unlabelled-changed": "Nothing tells which ONNX nodes they compute: build with detailed profiling verbosity.",
}


@dataclass(frozen=True)
class Changes:
    """What is different, by kind.

    Attributes:
        matching: which layer is which.
        added: ONNX nodes that only the new model has.
        removed: ONNX nodes that only the old model has.
        conversions: Q/DQ nodes and casts that only one of them has (new, gone).
        unfolded: layers of nodes that had no layer of their own before.
        absorbed: layers of nodes that have none any more.
        relabelled: groups of one layer each that compute the same, though one of them lists fewer nodes.
        disturbed: nodes near an added or removed one: what changes there is part of that change.
    """

    matching: Matching
    added: frozenset[str]
    removed: frozenset[str]
    conversions: tuple[tuple[str, ...], tuple[str, ...]]
    unfolded: tuple[Layer, ...]
    absorbed: tuple[Layer, ...]
    relabelled: tuple[Group, ...]
    disturbed: frozenset[str]

    @functools.cached_property
    def pairs(self) -> list[tuple[Layer, Layer]]:
        """Pairs that no added or removed node is near."""
        return [(old, new) for old, new in self.matching.pairs if not new.onnx_nodes & self.disturbed]

    @property
    def unexplained(self) -> tuple[Layer, ...]:
        """Unlabelled layers of one side that do more than move data."""
        matching = self.matching
        return tuple(
            layer for layer in (*matching.unlabelled_removed, *matching.unlabelled_added) if not moves_data(layer)
        )

    def findings(self) -> Iterator[Finding]:
        """All of them, errors and advice."""
        precision = list(self._precision())
        yield from self._profiles()
        yield from self._nodes()
        yield from _bounded(precision)
        yield from self._conversions(is_other_precision=bool(precision))
        yield from _bounded(self._fusions())
        yield from _bounded(self._copies())
        yield from self._tactics()
        yield from self._kinds()
        yield from self._formats()
        yield from self._unlabelled()

    def _profiles(self) -> Iterator[Finding]:
        before, after = (len({layer.profile for layer in side}) for side in (self.matching.old, self.matching.new))
        if before != after and before and after:
            yield Finding(
                "error",
                "engine",
                f"{counted(after, 'optimization profile')} with layers of their own, {before} before",
                "structure.profiles-changed",
                {"before": before, "after": after},
                ACCEPT,
            )

    def _nodes(self) -> Iterator[Finding]:
        matching = self.matching
        sides = (
            (self.added, matching.new, "new", "added"),
            (self.removed, matching.old, "gone", "removed"),
        )
        for nodes, layers, word, rule in sides:
            layer_of = {node: layer for layer in reversed(layers) for node in layer.onnx_nodes}
            names = sorted(nodes)
            for node in names[:MAX_NODES]:
                layer = layer_of[node]
                others = sorted(layer.onnx_nodes - nodes)
                fused = f", fused with {', '.join(others[:3])}" if others else ""
                what = f"is {word} ({layer.kind} {layer.precision}{fused})"
                if rule == "removed" and moves_data(layer):
                    what = (
                        f"has no layer any more ({layer.kind} {layer.precision}, which only moved data): "
                        "it is gone, or part of its neighbours"
                    )
                yield Finding(
                    "error",
                    node,
                    f"ONNX node {node!r} {what}",
                    f"structure.node-{rule}",
                    {"layer": layer.name, "kind": layer.kind, "precision": layer.precision},
                    ACCEPT,
                )
            if rest := names[MAX_NODES:]:
                what = (
                    f"{counted(len(rest), 'more ONNX node')} {'is' if len(rest) == 1 else 'are'} {word}: {some(rest)}"
                )
                yield Finding("error", rest[0], what, f"structure.node-{rule}", {"nodes": len(rest)}, ACCEPT)

    def _conversions(self, *, is_other_precision: bool) -> Iterator[Finding]:
        """Casts and Q/DQ nodes are part of another precision; without one they are a change like any other."""
        new, gone = self.conversions
        parts = [
            f"{counted(len(nodes), 'cast or Q/DQ node')} {word}: {some(nodes)}"
            for nodes, word in ((new, "more"), (gone, "fewer"))
            if nodes
        ]
        if parts:
            yield Finding(
                "advice" if is_other_precision else "error",
                (new or gone)[0],
                "; ".join(parts),
                "structure.conversions-changed",
                {"added": len(new), "removed": len(gone)},
                "" if is_other_precision else ACCEPT,
            )

    def _fusions(self) -> Iterator[Finding]:
        for group in self.matching.groups:
            if group not in self.relabelled and not (_nodes(group[0]) | _nodes(group[1])) & self.disturbed:
                yield _fusion(group)
        for layer in self.unfolded:
            if not moves_data(layer):
                yield _fusion(((), (layer,)))
        for layer in self.absorbed:
            if not moves_data(layer):
                yield _fusion(((layer,), ()))

    def _copies(self) -> Iterator[Finding]:
        """Labelled layers that only move data: certain, other than those without a node."""
        for layer in (*self.matching.extra_new, *self.unfolded):
            if moves_data(layer) and not layer.onnx_nodes & self.disturbed:
                yield Finding(
                    "error",
                    layer.title,
                    f"a copy for {layer.title} is new ({layer.kind} {layer.name})",
                    "structure.reformat-added",
                    {"layer": layer.name, "kind": layer.kind},
                    _REMEDY["reformat-added"],
                )

    def _precision(self) -> Iterator[Finding]:
        for layer, before, after in self._precisions():
            if before and after and before != after:
                title = layer.title
                is_fallback = PRECISION_ORDER.index(after) < PRECISION_ORDER.index(before)
                rule = "precision-fallback" if is_fallback else "precision-changed"
                yield Finding(
                    "error",
                    title,
                    f"{title} computes in {after}, was {before}",
                    f"structure.{rule}",
                    {"before": before, "after": after, "kind": layer.kind},
                    _REMEDY[rule],
                )

    def _precisions(self) -> Iterator[tuple[Layer, str, str]]:
        for old, new in self.matching.pairs:
            yield new, self._precision_of(old), self._precision_of(new)
        for olds, news in self.matching.groups:
            before, after = (
                coarsest(self._precision_of(layer) for layer in side if not moves_data(layer)) for side in (olds, news)
            )
            yield news[0], before, after

    def _precision_of(self, layer: Layer) -> str:
        """By what both listings tell: TensorRT 10's schema (and that of RTX 1.4) has no constants."""
        return layer.precision if self._both_tell_constants else replace(layer, constants=()).precision

    @functools.cached_property
    def _both_tell_constants(self) -> bool:
        before, after = (any(layer.constants for layer in side) for side in (self.matching.old, self.matching.new))
        return before == after

    def _tactics(self) -> Iterator[Finding]:
        """Kernel churn: other tactics for the same work in the same precision."""
        compared = [
            (old, new)
            for old, new in self.pairs
            if old.tactic and new.tactic and old.precision == new.precision and old.kind == new.kind
            # one listing tells names, another numbers
            if old.tactic.startswith("0x") == new.tactic.startswith("0x")
        ]
        changed = [(old, new) for old, new in compared if old.tactic != new.tactic]
        if not changed:
            return
        old, new = next(
            ((old, new) for old, new in changed if tactic_family(old.tactic) != tactic_family(new.tactic)), changed[0]
        )
        yield Finding(
            "advice",
            new.title,
            f"{len(changed)} of {counted(len(compared), 'layer')} have another tactic, such as {new.title}\n"
            f"before: {old.tactic}\nafter:  {new.tactic}",
            "structure.tactics-changed",
            {
                "layers": len(changed),
                "compared": len(compared),
                "churn_percent": round(100 * len(changed) / len(compared), 1),
            },
            _REMEDY["tactics-changed"],
        )

    def _kinds(self) -> Iterator[Finding]:
        kinds = Counter((old.kind, new.kind) for old, new in self.pairs if old.kind != new.kind)
        for (before, after), count in sorted(kinds.items()):
            yield Finding(
                "advice",
                counted(count, "layer"),
                f"{counted(count, 'layer')} changed the kind from {before} to {after}",
                "structure.kind-changed",
                {"layers": count},
            )

    def _formats(self) -> Iterator[Finding]:
        # up to TensorRT 10 a format's text names the precision too
        formats = [
            new.title
            for old, new in self.pairs
            if old.precision == new.precision
            and [t.format for t in old.outputs] != [t.format for t in new.outputs]
            and all(t.format for t in (*old.outputs, *new.outputs))
            and len({t.format.startswith(SHORT_FORMATS) for t in (*old.outputs, *new.outputs)}) == 1
        ]
        if formats:
            yield Finding(
                "advice",
                formats[0],
                f"another memory format is written by {counted(len(formats), 'layer')}: {', '.join(formats[:3])}",
                "structure.format-changed",
                {"layers": len(formats)},
                _REMEDY["format-changed"],
            )

    def _unlabelled(self) -> Iterator[Finding]:
        """Layers without ONNX nodes prove nothing: they pair up by their looks."""
        matching = self.matching
        added = [layer for layer in matching.unlabelled_added if moves_data(layer)]
        more = len(added) - sum(moves_data(layer) for layer in matching.unlabelled_removed)
        if more > 0:
            kinds = ", ".join(sorted({layer.kind for layer in added}))
            yield Finding(
                "advice",
                added[0].title,
                f"{counted(more, 'layer')} more to move data only ({kinds}), such as {added[0].title}",
                "structure.reformat-added",
                {"layers": more},
                _REMEDY["reformat-added"],
            )
        relabelled = [*matching.relabelled, *((olds[0], news[0]) for olds, news in self.relabelled)]
        if relabelled:
            title = max(relabelled[0], key=lambda layer: len(layer.onnx_nodes)).title
            yield Finding(
                "advice",
                title,
                f"{counted(len(relabelled), 'layer')} tell all their ONNX nodes in one of the engines only, "
                f"such as {title}; they look alike otherwise",
                "structure.labels-changed",
                {"layers": len(relabelled)},
            )
        if self.unexplained:
            names = some([layer.title for layer in self.unexplained])
            yield Finding(
                "advice",
                self.unexplained[0].title,
                f"{counted(len(self.unexplained), 'layer')} without ONNX nodes on one side only: {names}",
                "structure.unlabelled-changed",
                {"layers": len(self.unexplained)},
                _REMEDY["unlabelled-changed"],
            )


def changes_between(matching: Matching, old_folded: frozenset[str], new_folded: frozenset[str]) -> Changes:
    """Sort out which nodes are really new, and what happened around them.

    Args:
        matching: of the two engines.
        old_folded: nodes that the old model has though no layer lists them.
        new_folded: the same of the new model.
    """
    before, after = ([layer for layer in side if layer.onnx_nodes] for side in (matching.old, matching.new))
    old, new = _nodes(before), _nodes(after)
    new_only, old_only = new - old, old - new
    conversions = [tuple(sorted(filter(is_conversion, nodes))) for nodes in (new_only, old_only)]
    told = _nodes(layer for pair in matching.relabelled for layer in pair)
    # nodes that one engine lists and the other one has all the same; a known model decides what looks only suggest
    had = (old_folded or told) | _unlisted(matching.groups, 0) | set(conversions[0])
    has = (new_folded or told) | _unlisted(matching.groups, 1) | set(conversions[1])
    added, removed = frozenset(new_only - had), frozenset(old_only - has)
    return Changes(
        matching,
        added,
        removed,
        (conversions[0], conversions[1]),
        unfolded=tuple(layer for layer in matching.added if layer.onnx_nodes <= old_folded),
        absorbed=tuple(layer for layer in matching.removed if layer.onnx_nodes <= new_folded),
        relabelled=tuple(
            (olds, news)
            for olds, news in matching.groups
            if len(olds) == len(news) == 1
            and _nodes(news) - _nodes(olds) <= had
            and _nodes(olds) - _nodes(news) <= has
            and (
                _nodes(olds) <= _nodes(news) | set(conversions[1]) or _nodes(news) <= _nodes(olds) | set(conversions[0])
            )
        ),
        disturbed=frozenset(_disturbed(before, removed) | _disturbed(after, added)),
    )


def _unlisted(groups: Iterable[Group], side: int) -> set[str]:
    """Nodes that a generated kernel computes by its name (``__myl_FcAddRelu``), though it does not list them."""
    found = set()
    for group in groups:
        ops = {op for layer in group[side] for op in generated_ops(layer.name)}
        missing = _nodes(group[1 - side]) - _nodes(group[side])
        found |= {node for node in missing if ops and _abbreviated(node) in ops}
    return found


def _abbreviated(node: str) -> str:
    """An operator in a node's name as Myelin abbreviates it: ``/relu/Relu_1`` is ``Relu``, ``/Transpose`` ``Tran``."""
    operator = re.split(r"[/.]", node)[-1].partition("_")[0]
    return {"MatMul": "Fc", "Gemm": "Fc"}.get(operator, operator[:4])


def _fusion(group: Group) -> Finding:
    old, new = group
    before, after = (" | ".join(layer.title for layer in side) or "part of its neighbours" for side in (old, new))
    is_lost = len(new) > len(old)
    layers = f"{len(old)} -> {len(new)} layers"
    return Finding(
        "error",
        (new or old)[0].title,
        f"{'fusion lost' if is_lost else 'fusion changed'}: {layers}\nbefore: {before}\nafter:  {after}",
        "structure.fusion-lost" if is_lost else "structure.fusion-changed",
        {"layers_before": len(old), "layers_after": len(new)},
        _REMEDY["fusion-lost"] if is_lost else ACCEPT,
    )


def _bounded(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Findings of one rule without their repetition.

    What the blocks of a network have in common is told once: findings that differ in numbers only
    (``/encoder/layer.3/…``). Beyond :data:`MAX_EACH` of a rule, one more tells the rest.
    """
    alike: defaultdict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        alike[finding.rule, _NUMBER.sub("*", finding.what)].append(finding)
    by_rule: defaultdict[str, list[list[Finding]]] = defaultdict(list)
    for (rule, _), same in alike.items():
        by_rule[rule].append(same)
    for groups in by_rule.values():
        for first, *others in groups[:MAX_EACH]:
            if not others:
                yield first
                continue
            head, *rest = first.what.split("\n")
            what = "\n".join([f"{head}; {len(others)} more like it", *rest])
            yield replace(first, what=what, evidence={**first.evidence, "times": len(others) + 1})
        left = [finding for same in groups[MAX_EACH:] for finding in same]
        if left:
            first = left[0]
            what = f"{len(left)} more findings of this kind: {some([finding.where for finding in left])}"
            shared = {
                name: value
                for name, value in first.evidence.items()
                if all(finding.evidence.get(name) == value for finding in left)
            }
            yield replace(first, what=what, evidence={**shared, "times": len(left)})


def _nodes(layers: Iterable[Layer]) -> set[str]:
    return {node for layer in layers for node in layer.onnx_nodes}


def _tensors(layers: Iterable[Layer]) -> set[str]:
    return {tensor.name for layer in layers for tensor in (*layer.inputs, *layer.outputs) if tensor.name}


def _disturbed(labelled: Sequence[Layer], nodes: frozenset[str]) -> set[str]:
    """ONNX nodes of the layers that hold, touch, or run next to inserted or removed nodes.

    What a fusion there becomes is a consequence of the insertion. Neighbours are found by the tensors
    between layers and, because TensorRT renames those too, by the order of execution.
    """
    if not nodes:
        return set()
    changed = {index for index, layer in enumerate(labelled) if layer.onnx_nodes & nodes}
    tensors = _tensors(labelled[index] for index in changed)
    near = {index + step for index in changed for step in (-1, 0, 1)}
    return {
        node
        for index, layer in enumerate(labelled)
        if index in near or _tensors([layer]) & tensors
        for node in layer.onnx_nodes
    }
