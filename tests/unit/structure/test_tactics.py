from __future__ import annotations

from pytest_trtgray.engines.model import Layer, Memory
from pytest_trtgray.structure.snapshot import Snapshot
from pytest_trtgray.structure.tactics import compare_tactics
from tests.unit.helpers import layer


def of(*layers: Layer) -> Snapshot:
    return Snapshot(layers, (), (), Memory())


def test_the_same_nodes_on_another_kernel() -> None:
    old = of(layer("a_myl0_1", "/a/Conv", tactic="sm80_f16"), layer("b_myl0_2", "/b/Conv", tactic="sm80_i8"))
    new = of(layer("b_myl0_1", "/b/Conv", tactic="sm80_i8"), layer("a_myl0_2", "/a/Conv", tactic="sm80_ffma"))
    (found,) = compare_tactics(old, new)

    assert (found.rule, found.severity, found.where) == ("log.OPT-15", "advice", "/a/Conv")
    assert "1 of 2 layers" in found.what
    assert "sm80_f16 -> sm80_ffma" in found.what


def test_layers_without_kernels_or_nodes_are_not_compared() -> None:
    old = of(layer("a", "/a/Conv"), layer("copy", tactic="x"))
    new = of(layer("a", "/a/Conv", tactic="y"), layer("copy", tactic="z"))
    assert compare_tactics(old, new) == ()
