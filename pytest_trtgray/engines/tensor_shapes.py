"""Type and shape of every tensor of a model at given input shapes.

ONNX's shape inference stops where a shape is computed by nodes that it does not follow (``Range``, ``Expand`` to a
size from a ``Shape``). With the inputs' sizes known that arithmetic has known results: it is carried out, and the
inference goes on behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_trtgray.engines.onnx_model import SIZE_ARITHMETIC, OnnxModel, dtype_name, subgraphs, without_weights

Shape = tuple[int, ...]
TypeAndShape = tuple[str, "Shape | None"]

_COMPUTED = SIZE_ARITHMETIC | {"Range", "ConstantOfShape", "Constant", "Size", "Transpose", "ReduceMax"}
_MAX_ELEMENTS = 4096
"""A tensor of more is data, no arithmetic of shapes."""
_MAX_ROUNDS = 8


def tensor_shapes(model: OnnxModel, shapes: Mapping[str, Shape]) -> dict[str, TypeAndShape]:
    """Type and shape of every tensor; ``None`` for a shape that cannot be known.

    Args:
        model: any.
        shapes: of the inputs; one that is missing keeps its symbols, and what depends on it stays unknown.
    """
    proto = without_weights(model.proto)
    for value in proto.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            dim.dim_value = size
    # what an exporter wrote about symbolic shapes would win over what follows from the sizes
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    del proto.graph.value_info[:]
    found = _infer(proto)
    for _ in range(_MAX_ROUNDS):
        if not _fold(proto, found):
            break
        found = {**found, **_infer(proto)}
    for name, tensor in model.initializers.items():
        found[name] = (dtype_name(tensor.data_type), tuple(tensor.dims))
    return found


def _infer(proto: Any) -> dict[str, TypeAndShape]:
    import onnx

    try:
        graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    except Exception:  # a custom operator, a model that is not quite valid: then less is known
        graph = proto.graph
    found: dict[str, TypeAndShape] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        sizes = [int(dim.dim_value) for dim in tensor.shape.dim if dim.HasField("dim_value")]
        known = tensor.HasField("shape") and len(sizes) == len(tensor.shape.dim)
        found[value.name] = (dtype_name(tensor.elem_type), tuple(sizes) if known else None)
    for held in graph.initializer:
        found[held.name] = (dtype_name(held.data_type), tuple(held.dims))
    return found


def _fold(proto: Any, known: Mapping[str, TypeAndShape]) -> bool:
    """Replace arithmetic whose operands are known by its results; whether there was any."""
    import numpy as np
    import onnx

    values = {held.name: onnx.numpy_helper.to_array(held) for held in proto.graph.initializer}
    kept, folded = [], False
    outputs = {value.name for value in proto.graph.output}
    opsets = {each.domain: each.version for each in proto.opset_import}
    for node in proto.graph.node:
        result = None
        if node.op_type == "Shape" and not node.attribute:
            shape = known.get(node.input[0], ("", None))[1]
            result = None if shape is None else np.array(shape, np.int64)
        elif node.op_type in _COMPUTED and not any(True for _ in subgraphs(node)):
            result = _result(node, values, opsets)
        if result is None or result.size > _MAX_ELEMENTS or len(node.output) != 1 or node.output[0] in outputs:
            kept.append(node)
            continue
        values[node.output[0]] = result
        proto.graph.initializer.append(onnx.numpy_helper.from_array(result, node.output[0]))
        folded = True
    if folded:
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)
    return folded


def _result(node: Any, values: Mapping[str, Any], opsets: Mapping[str, int]) -> Any:
    """What a node computes from known values; ``None`` if they are not all known, or small."""
    import numpy as np
    from onnx.reference import ReferenceEvaluator

    if any(name and (name not in values or values[name].size > _MAX_ELEMENTS) for name in node.input):
        return None
    try:
        (result,) = ReferenceEvaluator(node, opsets=dict(opsets)).run(
            None, {name: values[name] for name in node.input if name}
        )
    except Exception:  # an operator or a type that the reference does not have
        return None
    return np.asarray(result)
