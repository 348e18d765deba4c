"""What changed between two engines' layers, told by ONNX nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from pytest_trtgray.engines.model import Layer
from pytest_trtgray.findings import Finding, counted, errors, failure_message
from pytest_trtgray.structure.matching import Matching, match_layers

ACCEPT = "If the change is intended, accept it with --update-baselines and commit the new baseline."


@dataclass(frozen=True)
class StructureDiff:
    """The difference of two engines.

    Attributes:
        matching: which layer is which.
        added_nodes: ONNX nodes that only the new engine has.
        removed_nodes: ONNX nodes that only the old engine has.
        findings: what changed, worst first; ``error`` for what makes it another engine.
    """

    matching: Matching
    added_nodes: tuple[str, ...]
    removed_nodes: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing that matters changed."""
        return not errors(self.findings)

    def check(self) -> None:
        """Fail if the engine is not the same any more.

        Raises:
            AssertionError: lists the changes.
        """
        __tracebackhide__ = True
        if not self.ok:
            raise AssertionError(describe(self.findings))


def diff(old: Iterable[Layer], new: Iterable[Layer]) -> StructureDiff:
    """Compare two engines' layers.

    An inserted or removed ONNX node is one finding, and the fusions that changed around it are part of that
    finding's evidence, not changes of their own.
    """
    old_layers, new_layers = list(old), list(new)
    matching = match_layers(old_layers, new_layers)
    old_nodes = _nodes(side for side, _ in matching.pairs) | _nodes(
        layer for group, _ in matching.groups for layer in group
    )
    new_nodes = _nodes(side for _, side in matching.pairs) | _nodes(
        layer for _, group in matching.groups for layer in group
    )
    added = (_nodes(matching.added) | new_nodes) - old_nodes
    removed = (_nodes(matching.removed) | old_nodes) - new_nodes
    disturbed = _disturbed(old_layers, removed) | _disturbed(new_layers, added)
    findings = [
        *_node_findings(matching, added, removed),
        *_fusion_findings(matching, disturbed),
        *_precision_findings(matching),
        *_advice(matching, disturbed),
    ]
    return StructureDiff(matching, tuple(sorted(added)), tuple(sorted(removed)), tuple(findings))


def describe(findings: Iterable[Finding]) -> str:
    """A failure message: the verdict on the first line, then the changes."""
    return failure_message("structure changed", errors(findings))


def _nodes(layers: Iterable[Layer]) -> set[str]:
    return {node for layer in layers for node in layer.onnx_nodes}


def _node_findings(matching: Matching, added: set[str], removed: set[str]) -> list[Finding]:
    old_layers = [*matching.removed, *(layer for group, _ in matching.groups for layer in group)]
    new_layers = [*matching.added, *(layer for _, group in matching.groups for layer in group)]
    return [
        *(_node_finding(node, new_layers, added, is_new=True) for node in sorted(added)),
        *(_node_finding(node, old_layers, removed, is_new=False) for node in sorted(removed)),
    ]


def _node_finding(node: str, layers: list[Layer], same_kind: set[str], *, is_new: bool) -> Finding:
    layer = next(layer for layer in layers if node in layer.onnx_nodes)
    others = sorted(layer.onnx_nodes - same_kind)
    fused = f", fused with {', '.join(others[:3])}" if others else ""
    what = f"ONNX node {node!r} is {'new' if is_new else 'gone'} ({layer.kind} {layer.precision}{fused})"
    return Finding(
        severity="error",
        where=node,
        what=what,
        rule="structure.node-added" if is_new else "structure.node-removed",
        evidence={"layer": layer.name, "kind": layer.kind, "precision": layer.precision},
        remedy=ACCEPT,
    )


def _disturbed(layers: list[Layer], nodes: set[str]) -> set[str]:
    """ONNX nodes of the layers that hold, touch, or run next to inserted or removed nodes.

    What a fusion there becomes is a consequence of the insertion. Neighbours are found by the tensors
    between layers and, because TensorRT renames those too, by the order of execution.
    """
    labelled = [layer for layer in layers if layer.onnx_nodes]
    changed = {index for index, layer in enumerate(labelled) if layer.onnx_nodes & nodes}
    tensors = _tensors(labelled[index] for index in changed)
    near = {index + step for index in changed for step in (-1, 0, 1)}
    return {
        node
        for index, layer in enumerate(labelled)
        if index in near or _tensors([layer]) & tensors
        for node in layer.onnx_nodes
    }


def _fusion_findings(matching: Matching, disturbed: set[str]) -> list[Finding]:
    findings = []
    for old, new in matching.groups:
        if (_nodes(old) | _nodes(new)) & disturbed:
            continue
        before, after = (" | ".join(layer.title for layer in side) for side in (old, new))
        findings.append(
            Finding(
                severity="error",
                where=sorted(_nodes(new))[0],
                what=f"fusion changed: {len(old)} -> {len(new)} layers\nbefore: {before}\nafter:  {after}",
                rule="structure.fusion-changed",
                evidence={"layers_before": len(old), "layers_after": len(new)},
                remedy=ACCEPT,
            )
        )
    return findings


def _tensors(layers: Iterable[Layer]) -> set[str]:
    return {tensor.name for layer in layers for tensor in (*layer.inputs, *layer.outputs) if tensor.name}


def _precision_findings(matching: Matching) -> list[Finding]:
    findings = []
    for old, new in matching.pairs:
        if old.precision and new.precision and old.precision != new.precision:
            findings.append(
                Finding(
                    severity="error",
                    where=new.title,
                    what=f"{new.title} computes in {new.precision}, was {old.precision}",
                    rule="structure.precision-changed",
                    evidence={"before": old.precision, "after": new.precision, "kind": new.kind},
                    remedy=ACCEPT,
                )
            )
    return findings


def _advice(matching: Matching, disturbed: set[str]) -> list[Finding]:
    """What may cost time but does not make it another engine."""
    findings = []
    pairs = [(old, new) for old, new in matching.pairs if not new.onnx_nodes & disturbed]
    kinds = Counter((old.kind, new.kind) for old, new in pairs if old.kind != new.kind)
    for (before, after), count in sorted(kinds.items()):
        findings.append(
            Finding(
                severity="advice",
                where=counted(count, "layer"),
                what=f"{counted(count, 'layer')} changed the kind from {before} to {after}",
                rule="structure.kind-changed",
                evidence={"layers": count},
            )
        )
    formats = [
        new.title
        for old, new in pairs
        if [t.format for t in old.outputs] != [t.format for t in new.outputs]
        and all(t.format for t in (*old.outputs, *new.outputs))
    ]
    if formats:
        findings.append(
            Finding(
                severity="advice",
                where=formats[0],
                what=f"another memory format is written by {counted(len(formats), 'layer')}: {', '.join(formats[:3])}",
                rule="structure.format-changed",
                evidence={"layers": len(formats)},
            )
        )
    more = len(matching.unlabelled_added) - len(matching.unlabelled_removed)
    if more > 0:
        names = ", ".join(sorted({layer.kind for layer in matching.unlabelled_added}))
        findings.append(
            Finding(
                severity="advice",
                where=f"{more} layers",
                what=f"{counted(more, 'layer')} more to move data only ({names})",
                rule="structure.copies-added",
                evidence={"layers": more},
                remedy="Copies and reformats between layers often mean a format or precision that does not fit.",
            )
        )
    return findings
