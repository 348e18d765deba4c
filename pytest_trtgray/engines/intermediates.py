"""Intermediate tensors of a model in ONNX Runtime, streamed under a budget of memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from numpy.typing import NDArray

from pytest_trtgray.engines.base import Engine
from pytest_trtgray.engines.dtypes import numpy_dtype
from pytest_trtgray.engines.onnx_model import OnnxModel, read_names
from pytest_trtgray.errors import ModelError

BUDGET_BYTES = 256 << 20
"""Of tensors that are held at once, by default."""
_SHAPE_SUFFIX = "::shape"
_UNKNOWN_ITEM_BYTES = 8

Arrays = Mapping[str, NDArray[Any]]


def stream(
    model: OnnxModel,
    open_part: Callable[[OnnxModel], Engine],
    feeds: Sequence[Arrays],
    names: Sequence[str],
    budget_bytes: int = BUDGET_BYTES,
) -> Iterator[tuple[int, str, NDArray[Any]]]:
    """Intermediate tensors, a few at a time.

    ONNX Runtime releases no output before an inference ends, so each chunk of tensors is an inference of its own, of
    no more than the nodes that lead to it. One inference before tells all sizes.

    Args:
        model: whose main graph computes the tensors.
        open_part: makes an engine of a part of it (:meth:`OnnxModel.edited`).
        feeds: one array an input of the model each, in its types.
        names: tensors that nodes of the main graph write, and inputs.
        budget_bytes: of all tensors of a chunk together. A tensor that is larger is a chunk of its own.

    Yields:
        index of the feed, name and values: all feeds of a chunk before the next chunk, and chunks in the order in
        which the model computes.

    Raises:
        ModelError: a name that is no activation of the model.
        EngineError: it cannot be computed.
    """
    ordered = _in_order(model, names)
    inputs = {spec.name for spec in model.inputs}
    inner = [name for name in ordered if name not in inputs]
    for name in ordered:
        if name in inputs:
            yield from ((index, name, feed[name]) for index, feed in enumerate(feeds))
    for chunk in _chunks(inner, _sizes(model, open_part, inner, feeds), budget_bytes):
        engine = open_part(model.edited(part_of(model.proto, chunk)))
        try:
            for index, feed in enumerate(feeds):
                found = engine.run(feed)
                for name in chunk:
                    yield index, name, found.pop(name)
        finally:
            engine.close()


def part_of(proto: Any, names: Sequence[str]) -> Any:
    """The model that computes ``names`` and nothing else, from the same inputs."""
    return _with_outputs(proto, _ancestors(proto.graph, names), names)


def _in_order(model: OnnxModel, names: Sequence[str]) -> list[str]:
    computed = [spec.name for spec in model.inputs]
    computed += [name for node in model.proto.graph.node for name in node.output if name]
    position = {name: index for index, name in enumerate(computed)}
    for name in names:
        if name not in position:
            near = ", ".join(get_close_matches(name, computed, 3)) or f"{computed[0]}, ..., {computed[-1]}"
            raise ModelError(model.called, f"no node of its main graph computes {name!r}", f"There are: {near}.")
    return sorted(set(names), key=position.__getitem__)


def _sizes(
    model: OnnxModel, open_part: Callable[[OnnxModel], Engine], names: Sequence[str], feeds: Sequence[Arrays]
) -> dict[str, int]:
    """Bytes of each tensor at the largest of the feeds, from one inference a set of shapes."""
    if len(names) < 2:  # one chunk, whatever its size
        return dict.fromkeys(names, 0)
    import onnx

    shapes = [f"{name}{_SHAPE_SUFFIX}" for name in names]
    proto = _with_outputs(model.proto, _ancestors(model.proto.graph, names), shapes)
    proto.graph.node.extend(
        onnx.helper.make_node("Shape", [name], [shape], name=shape) for name, shape in zip(names, shapes, strict=True)
    )
    engine = open_part(model.edited(proto))
    sizes = dict.fromkeys(names, 0)
    distinct = {repr(sorted((name, array.shape) for name, array in feed.items())): feed for feed in feeds}
    for feed in distinct.values():
        found = engine.run(feed)
        for name, shape in zip(names, shapes, strict=True):
            sizes[name] = max(sizes[name], math.prod(int(size) for size in found[shape]) * _item_bytes(model, name))
    engine.close()
    return sizes


def _item_bytes(model: OnnxModel, name: str) -> int:
    spec = model.tensors.get(name)
    try:
        return numpy_dtype(spec.dtype).itemsize if spec else _UNKNOWN_ITEM_BYTES
    except TypeError:
        return _UNKNOWN_ITEM_BYTES


def _chunks(names: Sequence[str], sizes: Mapping[str, int], budget_bytes: int) -> Iterator[list[str]]:
    chunk: list[str] = []
    held = 0
    for name in names:
        if chunk and held + sizes[name] > budget_bytes:
            yield chunk
            chunk, held = [], 0
        chunk.append(name)
        held += sizes[name]
    if chunk:
        yield chunk


def _ancestors(graph: Any, names: Sequence[str]) -> list[Any]:
    """The nodes that ``names`` depend on, in order."""
    needed, kept = set(names), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(read_names(node))
            kept.append(node)
    return kept[::-1]


def _with_outputs(proto: Any, nodes: Sequence[Any], outputs: Sequence[str]) -> Any:
    import onnx

    graph = onnx.GraphProto(name=proto.graph.name)
    graph.node.extend(nodes)
    graph.input.extend(proto.graph.input)
    read = {name for node in nodes for name in read_names(node)} | {value.name for value in proto.graph.input}
    graph.initializer.extend(tensor for tensor in proto.graph.initializer if tensor.name in read)
    graph.sparse_initializer.extend(tensor for tensor in proto.graph.sparse_initializer if tensor.values.name in read)
    made = {name for node in nodes for name in node.output}
    graph.value_info.extend(value for value in proto.graph.value_info if value.name in made)
    graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in outputs)
    return onnx.ModelProto(
        ir_version=proto.ir_version, opset_import=proto.opset_import, functions=proto.functions, graph=graph
    )
