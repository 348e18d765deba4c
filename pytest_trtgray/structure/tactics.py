"""Which kernels changed from one build of a model to the next."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_trtgray.engines.model import Layer
from pytest_trtgray.findings import Finding
from pytest_trtgray.logs.comparison import tactic_findings
from pytest_trtgray.structure.snapshot import Snapshot


def compare_tactics(old: Snapshot, new: Snapshot) -> tuple[Finding, ...]:
    """Layers of the same ONNX nodes that run another kernel (optimisation rule OPT-15); advice, never a failure.

    Kernels that were compiled for a fused part carry a hash of it in their names and change with it.
    """
    return tactic_findings(_tactics(old.layers), _tactics(new.layers))


def _tactics(layers: Iterable[Layer]) -> dict[str, str]:
    kernels: dict[str, set[str]] = {}
    for layer in layers:
        if layer.tactic and layer.onnx_nodes:
            kernels.setdefault(layer.title, set()).add(layer.tactic)
    return {title: " + ".join(sorted(names)) for title, names in kernels.items()}
