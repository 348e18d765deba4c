"""What changed between two engines' layers, told by ONNX nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pytest_trtgray.engines.kernels import moves_data
from pytest_trtgray.engines.model import Layer
from pytest_trtgray.findings import Finding, counted, errors, failure_message
from pytest_trtgray.structure.changes import Changes, changes_between
from pytest_trtgray.structure.matching import Matching, match_layers


@dataclass(frozen=True)
class StructureDiff:
    """The difference of two engines.

    Attributes:
        matching: which layer is which.
        added_nodes: ONNX nodes that only the new engine has.
        removed_nodes: ONNX nodes that only the old engine has.
        regrouped: groups of layers that are fused differently.
        copies_added: new layers that only move data.
        copies_removed: such layers that are gone.
        unexplained: layers without ONNX nodes on one side only, which do more than move data.
        findings: what changed, worst first; ``error`` for what makes it another engine.
    """

    matching: Matching
    added_nodes: tuple[str, ...]
    removed_nodes: tuple[str, ...]
    regrouped: int
    copies_added: int
    copies_removed: int
    unexplained: tuple[Layer, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing that matters changed."""
        return not errors(self.findings)

    @property
    def summary(self) -> str:
        """One line of numbers."""
        matching = self.matching
        together = len(matching.pairs) + len(matching.unlabelled_pairs) + len(matching.relabelled)
        together += len(matching.groups) - self.regrouped
        parts = [
            f"{counted(together, 'layer')} matched",
            f"{self.regrouped} fused differently",
            f"{len(self.added_nodes)} ONNX nodes added",
            f"{len(self.removed_nodes)} removed",
        ]
        for count, word in ((self.copies_added, "more"), (self.copies_removed, "fewer")):
            if count:
                parts.append(f"{count} {'copy' if count == 1 else 'copies'} {word}")
        return ", ".join(parts)

    def check(self) -> None:
        """Fail if the engine is not the same any more.

        Raises:
            AssertionError: lists the changes.
        """
        __tracebackhide__ = True
        if not self.ok:
            raise AssertionError(describe(self.findings))


def diff(
    old: Iterable[Layer],
    new: Iterable[Layer],
    *,
    old_folded: Collection[str] = (),
    new_folded: Collection[str] = (),
) -> StructureDiff:
    """Compare two engines' layers.

    An inserted or removed ONNX node is one finding, and the fusions that changed around it are part of that
    change, no changes of their own. Findings of severity ``error`` come from layers matched by their ONNX nodes;
    what is known of layers without any is ``advice``.

    Args:
        old: layers of the old engine.
        new: layers of the new engine.
        old_folded: ONNX nodes that the old model has though no layer lists them, where the model is known: a node
            that got a kernel of its own is not taken for an added one then.
        new_folded: the same of the new model.
    """
    matching = match_layers(old, new)
    changes = changes_between(matching, frozenset(old_folded), frozenset(new_folded))
    return StructureDiff(
        matching,
        tuple(sorted(changes.added)),
        tuple(sorted(changes.removed)),
        regrouped=len(matching.groups) - len(changes.relabelled),
        copies_added=_copies(matching.unlabelled_added, matching.extra_new, changes.unfolded),
        copies_removed=_copies(matching.unlabelled_removed, matching.extra_old, changes.absorbed),
        unexplained=changes.unexplained,
        findings=_worst_first(changes),
    )


def describe(findings: Iterable[Finding]) -> str:
    """A failure message: the verdict on the first line, then the changes."""
    return failure_message("structure changed", errors(findings))


def _copies(*sides: Iterable[Layer]) -> int:
    return sum(moves_data(layer) for side in sides for layer in side)


def _worst_first(changes: Changes) -> tuple[Finding, ...]:
    order = {"error": 0, "warning": 1, "advice": 2}
    return tuple(sorted(changes.findings(), key=lambda finding: order[finding.severity]))
