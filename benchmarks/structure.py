"""How long a diff of large engines takes, and how many layers it matches; prints a table.

The engines are real ones (a recorded build of BERT-base, ``tests/data``), repeated under other block numbers until they
have the size asked for; every case changes the same thing as often as it occurs in one block, or once.

    python benchmarks/structure.py [LAYERS ...]
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pytest_trtgray.engines.model import Layer, LayerTensor
from pytest_trtgray.structure import diff
from tests import recordings

SIZES = (200, 1000, 5000, 20_000)
REPEATS = 3


def enlarged(layers: list[Layer], size: int) -> list[Layer]:
    """Copies of an engine one after the other, each with nodes and names of its own."""
    found: list[Layer] = []
    for copy in range(-(-size // len(layers))):
        for each in layers:
            moved = f"_myl0_{len(found)}"
            found.append(
                replace(
                    each,
                    name=re.sub(r"_myl\d+_\d+$", moved, each.name),
                    onnx_nodes=frozenset(f"/part.{copy}{node}" for node in each.onnx_nodes),
                    inputs=_of(each.inputs, copy),
                    outputs=_of(each.outputs, copy),
                )
            )
    return found[:size]


def _of(tensors: tuple[LayerTensor, ...], copy: int) -> tuple[LayerTensor, ...]:
    return tuple(replace(tensor, name=f"{copy}_{tensor.name}") for tensor in tensors)


def renamed(layers: list[Layer]) -> list[Layer]:
    """Every positional name moved by one."""
    return [replace(each, name=re.sub(r"_(\d+)$", lambda m: f"_{int(m[1]) + 1}", each.name)) for each in layers]


def inserted(layers: list[Layer]) -> list[Layer]:
    """One more layer in the middle."""
    middle = len(layers) // 2
    return [*layers[:middle], Layer("x_myl0_0", "gemm", frozenset({"/inserted/MatMul"})), *renamed(layers[middle:])]


def in_half(layers: list[Layer]) -> list[Layer]:
    """All types FP16 in place of FP32."""

    def half(tensors: tuple[LayerTensor, ...]) -> tuple[LayerTensor, ...]:
        return tuple(replace(tensor, dtype="float16") for tensor in tensors)

    return [replace(each, inputs=half(each.inputs), outputs=half(each.outputs), constants=()) for each in layers]


def split(layers: list[Layer]) -> list[Layer]:
    """Every fusion of several nodes in two."""
    found = []
    for each in layers:
        nodes = sorted(each.onnx_nodes)
        if len(nodes) < 2:
            found.append(each)
            continue
        found += [replace(each, onnx_nodes=frozenset(nodes[:1])), replace(each, onnx_nodes=frozenset(nodes[1:]))]
    return found


def unrelated(layers: list[Layer]) -> list[Layer]:
    """Another model: no node in common."""
    return [replace(each, onnx_nodes=frozenset(f"/other{node}" for node in each.onnx_nodes)) for each in layers]


CASES: dict[str, Callable[[list[Layer]], list[Layer]]] = {
    "same, other names": renamed,
    "one layer inserted": inserted,
    "FP32 -> FP16": in_half,
    "every fusion lost": split,
    "another model": unrelated,
}


def main(sizes: list[int]) -> None:
    """Print the table."""
    old, new = recordings.log_layers("rtx15_bert_base"), recordings.log_layers("rtx17_bert_base")
    print(f"{'layers':>8}  {'case':<20} {'matched':>8} {'wrong':>6} {'findings':>9} {'best of 3, ms':>14}")
    for size in sizes:
        base = enlarged(new, size)
        pairs = {name: (base, change(base)) for name, change in CASES.items()}
        pairs["RTX 1.5 -> 1.7"] = (enlarged(old, size), enlarged(new, round(size * len(new) / len(old))))
        for name, (before, after) in pairs.items():
            spent = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                found = diff(before, after)
                spent.append(time.perf_counter() - start)
            labelled = sum(bool(layer.onnx_nodes) for layer in before)
            matched = len(found.matching.pairs) + sum(len(olds) for olds, _ in found.matching.groups)
            wrong = sum(a.onnx_nodes != b.onnx_nodes for a, b in found.matching.pairs)
            print(
                f"{len(before):>8}  {name:<20} {matched / labelled:>8.1%} {wrong:>6} {len(found.findings):>9} "
                f"{min(spent) * 1e3:>14.0f}"
            )


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or list(SIZES))
