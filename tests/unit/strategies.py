"""Hypothesis strategies for engines' layers."""

from __future__ import annotations

from hypothesis import strategies as st

from pytest_trtgray.engines.model import Layer, LayerTensor

NODES = st.sampled_from([f"/{block}/{op}" for block in ("a", "b", "c", "d") for op in ("MatMul", "Add", "Relu")])
DTYPES = st.sampled_from(["float32", "float16", "bfloat16", "fp8", "int8", "int32", "int64", "bool", ""])
NAMES = st.text(min_size=1, max_size=12)


def tensors() -> st.SearchStrategy[tuple[LayerTensor, ...]]:
    return st.lists(st.builds(LayerTensor, NAMES, DTYPES, st.text(max_size=8)), max_size=3).map(tuple)


def layers(nodes: st.SearchStrategy[str] = NODES) -> st.SearchStrategy[Layer]:
    """Any layer at all: several layers may have the same nodes, or none."""
    return st.builds(
        Layer,
        name=NAMES,
        kind=st.sampled_from(["gemm", "kgen", "correlation", "Reformat"]),
        onnx_nodes=st.frozensets(nodes, max_size=3),
        inputs=tensors(),
        constants=tensors(),
        outputs=tensors(),
        tactic=st.text(max_size=8),
        profile=st.integers(0, 2),
        stream=st.integers(0, 2),
    )


@st.composite
def engines(draw: st.DrawFn, min_layers: int = 1) -> list[Layer]:
    """A chain of layers as a builder makes them: every ONNX node is fused into exactly one."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=min_layers, max_size=8))
    chain = []
    first = 0
    for index, size in enumerate(sizes):
        nodes = frozenset(f"/n{node}" for node in range(first, first + size))
        first += size
        chain.append(
            Layer(
                name=f"__myl_{draw(st.sampled_from(['Fc', 'AddRelu', 'Move']))}_myl0_{index}",
                kind=draw(st.sampled_from(["gemm", "kgen"])),
                onnx_nodes=nodes,
                inputs=(LayerTensor(f"t{index}_myl0", "float16"),),
                outputs=(LayerTensor(f"t{index + 1}_myl0", "float16"),),
            )
        )
    return chain
