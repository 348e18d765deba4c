"""What an engine shows of itself, as a structure baseline keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_trtgray.engines.layer_listing import layers_from_rows, layers_to_rows
from pytest_trtgray.engines.model import Layer, Memory, TensorSpec, coarsest
from pytest_trtgray.engines.scopes import with_scoped_names
from pytest_trtgray.findings import Finding
from pytest_trtgray.structure.changes import ACCEPT
from pytest_trtgray.structure.diff import StructureDiff, diff

if TYPE_CHECKING:
    from pytest_trtgray.engines.base import Engine
    from pytest_trtgray.engines.onnx_model import OnnxModel

LISTING_FORMAT = "trtgray-layers"
"""Of the file that ``trtgray layers --json`` writes: a snapshot."""
MEMORY_TOLERANCE = 0.05
"""Growth of weights or activations beyond which it is a finding: allocators round, engines do not."""


@dataclass(frozen=True)
class Snapshot:
    """An engine's structure.

    Attributes:
        layers: in execution order.
        inputs: of the engine.
        outputs: of the engine.
        memory: as far as the runtime tells.
        folded: ONNX nodes that depend on an input and that no layer lists (the arithmetic of shapes, and what became
            part of its neighbours); empty where the model is not known.
    """

    layers: tuple[Layer, ...]
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    memory: Memory = field(default_factory=Memory)
    folded: tuple[str, ...] = ()

    @property
    def precision(self) -> str:
        """The coarsest precision of any layer."""
        return coarsest(layer.precision for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Builtins for a baseline: a row a layer."""
        return {
            "layers": layers_to_rows(self.layers),
            "inputs": [_spec_row(spec) for spec in self.inputs],
            "outputs": [_spec_row(spec) for spec in self.outputs],
            "memory": {name: value for name, value in vars(self.memory).items() if value is not None},
            **({"folded": list(self.folded)} if self.folded else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Snapshot:
        """The inverse of :meth:`to_dict`.

        Raises:
            KeyError, TypeError, ValueError: not what :meth:`to_dict` writes.
        """
        return cls(
            layers=tuple(layers_from_rows(data["layers"])),
            inputs=tuple(_row_spec(row) for row in data["inputs"]),
            outputs=tuple(_row_spec(row) for row in data["outputs"]),
            memory=Memory(**{str(name): int(value) for name, value in data["memory"].items()}),
            folded=tuple(map(str, data.get("folded", ()))),
        )


def snapshot_of(engine: Engine) -> Snapshot:
    """The structure of an engine.

    Raises:
        NotRunnableError: the runtime shows layers only on a GPU.
    """
    info = engine.info
    found = Snapshot(engine.layers, info.inputs, info.outputs, info.memory)
    return with_model(found, engine.model) if engine.model else found


def with_model(snapshot: Snapshot, model: OnnxModel) -> Snapshot:
    """The same with what the ONNX model behind it tells: modules in the names of nodes, and nodes without a layer."""
    layers = with_scoped_names(snapshot.layers, model.scoped_names)
    listed = {node for layer in layers for node in layer.onnx_nodes}
    return replace(snapshot, layers=layers, folded=tuple(node for node in model.computed_nodes if node not in listed))


def diff_snapshots(old: Snapshot, new: Snapshot) -> StructureDiff:
    """The difference of two engines' layers, with what is known of their models."""
    return diff(old.layers, new.layers, old_folded=old.folded, new_folded=new.folded)


def compare_snapshots(old: Snapshot, new: Snapshot) -> tuple[Finding, ...]:
    """Everything that changed: layers, inputs and outputs, memory."""
    layers = diff_snapshots(old, new)
    tells = all(side.inputs or side.outputs for side in (old, new))  # not every listing does
    return (
        *(_spec_findings("input", old.inputs, new.inputs) if tells else ()),
        *(_spec_findings("output", old.outputs, new.outputs) if tells else ()),
        *layers.findings,
        # Added nodes bring memory with them; that is no second change.
        *_memory_findings(old.memory, new.memory, explained=bool(layers.added_nodes)),
    )


def _spec_row(spec: TensorSpec) -> list[Any]:
    return [spec.name, spec.dtype, list(spec.shape)]


def _row_spec(row: Sequence[Any]) -> TensorSpec:
    name, dtype, shape = row
    return TensorSpec(str(name), str(dtype), tuple(dim if isinstance(dim, int) else str(dim) for dim in shape))


def _spec_findings(role: str, old: Sequence[TensorSpec], new: Sequence[TensorSpec]) -> list[Finding]:
    before, after = ({spec.name: spec for spec in side} for side in (old, new))
    findings = []
    for name in [*before, *(name for name in after if name not in before)]:
        was, now = before.get(name), after.get(name)
        if was is None or now is None:
            what = f"{role} {now} is new" if was is None else f"{role} {was} is gone"
        elif was.dtype != now.dtype or _sizes(was) != _sizes(now):
            what = f"{role} {was} is now {now}"
        else:
            continue
        findings.append(
            Finding("error", name, what, f"structure.{role}-changed", remedy=f"Callers will notice. {ACCEPT}")
        )
    return findings


def _sizes(spec: TensorSpec) -> list[int | None]:
    """Dimensions without their symbols: another name for a batch is no other batch."""
    return [dim if isinstance(dim, int) else None for dim in spec.shape]


def _memory_findings(old: Memory, new: Memory, *, explained: bool) -> list[Finding]:
    findings = []
    for name, called in (("weights_bytes", "weights"), ("activations_bytes", "activation memory")):
        before, after = getattr(old, name), getattr(new, name)
        if not before or after is None:
            continue
        growth = after / before - 1
        if growth > MEMORY_TOLERANCE:
            findings.append(
                Finding(
                    severity="advice" if explained else "error",
                    where=called,
                    what=f"{called} grew by {growth:.0%}: {before:,} -> {after:,} bytes",
                    rule="structure.memory-grew",
                    evidence={"before_bytes": before, "after_bytes": after},
                    remedy="Look for another precision, larger shapes in a profile, or a fusion that was lost; "
                    f"--trt-max-shapes and the workspace limit bound it. {ACCEPT}",
                )
            )
    return findings
