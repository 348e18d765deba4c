"""What kind of work a layer's kernel does, told by its type and name.

A fused layer lists ONNX nodes, and a copy in front of a matrix product lists the product's node as the product does.
Which of the two computes only the kernel's own type and name tell.
"""

from __future__ import annotations

import re

from pytest_trtgray.engines.model import Layer, canonical_name

_MATRIX_KINDS = ("conv", "gemm", "matmul", "matrixmultiply", "fullyconnected", "correlation", "attention", "einsum")
_MOVING_KINDS = frozenset(
    ("reformat", "noop", "shuffle", "slice", "concat", "concatenation", "cast", "constant", "shape", "memset", "copy",
     "shapehosttodevice", "shapecall", "reorderinput", "reorderoutput", "transpose", "reshape", "identity", "squeeze",
     "unsqueeze", "flatten", "expand", "tile", "split")
)  # fmt: skip
"""Layer types of TensorRT, TensorRT for RTX and ONNX Runtime that compute nothing."""
_MOVING_OPS = frozenset(("Move", "Resh", "Tran", "Repl", "Conc", "Slic", "Cast", "Copy"))
"""Abbreviations in the names of Myelin's generated kernels (``__myl_MoveReshTran``) that compute nothing."""
_GENERATED = re.compile(r"^__myl_(?P<ops>[A-Za-z0-9]+)")
_HASH = re.compile(r"_?0x[0-9a-f]{32}")


def is_matrix_kernel(layer: Layer) -> bool:
    """Whether a layer is a convolution, a matrix product, or attention: where tensor cores can work."""
    kind = _plain(layer.kind)
    if kind in ("kgen", "myelin"):
        # A pointwise kernel names the matrix product that it feeds among its nodes; only its own name tells.
        name = layer.name.lower()
        return "gemm" in name or "mha" in name or "Fc" in generated_ops(layer.name)
    return kind == "runtimefusion" or (any(word in kind for word in _MATRIX_KINDS) and "convert" not in kind)


def moves_data(layer: Layer) -> bool:
    """Whether a layer only copies, reorders or converts what others compute."""
    ops = generated_ops(layer.name)
    if ops:
        return set(ops) <= _MOVING_OPS
    return _plain(layer.kind) in _MOVING_KINDS


def generated_ops(name: str) -> list[str]:
    """What a kernel that Myelin generated does, in its abbreviations; empty for any other layer.

    >>> generated_ops("__myl_MoveReshTran_myl1_4")
    ['Move', 'Resh', 'Tran']
    """
    match = _GENERATED.match(canonical_name(name))
    return re.findall(r"[A-Z][a-z0-9]*", match["ops"]) if match else []


def tactic_family(tactic: str) -> str:
    """A tactic without the hash of generated code: what is left tells one kernel from another for a reader.

    >>> tactic_family("__myl_Tran_0x6ef3e02c2537e016416ab9ec1725d55f_vec")
    '__myl_Tran_vec'
    """
    return _HASH.sub("", tactic)


def _plain(kind: str) -> str:
    return kind.lower().replace("_", "")
