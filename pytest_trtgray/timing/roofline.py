"""Whether a layer is bound by arithmetic or by memory, by the roofline model.

A kernel that does F operations and moves B bytes cannot take less than max(F / peak rate, B / peak bandwidth)
(Williams, Waterman, Patterson: "Roofline: an insightful visual performance model", CACM 52 (4), 2009). Which of the two
is larger says what bounds it; how far the measured time is above says how much there is to gain at most.

F and B come from the ONNX nodes of a layer at the shapes that were measured (:mod:`pytest_trtgray.engines.costs`), in
the layer's own types: B counts each tensor that enters or leaves the fused kernel once, weights included. That is the
least a kernel can move; data that is still in a cache moves faster, so a small layer may lie above the roof.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_trtgray.engines.costs import ModelCosts, NodeCost, TensorSize
from pytest_trtgray.engines.kernels import is_matrix_kernel, moves_data
from pytest_trtgray.engines.model import DTYPE_BITS, Layer, LayerTensor, coarsest, is_conversion
from pytest_trtgray.engines.peaks import DevicePeak

Bound = Literal["compute", "memory", "unknown"]


@dataclass(frozen=True)
class Roofline:
    """One layer against the roofs of its device.

    Attributes:
        bound: ``compute``, ``memory``, or ``unknown``.
        reason: why it is unknown.
        flops: operations; ``None`` is unknown.
        bytes_moved: bytes in and out of the kernel; ``None`` is unknown.
        weights_bytes: of those, weights.
        written_bytes: of those, what it writes.
        roof_us: shortest possible time, microseconds; ``None`` is unknown.
    """

    bound: Bound = "unknown"
    reason: str = ""
    flops: int | None = None
    bytes_moved: int | None = None
    weights_bytes: int | None = None
    written_bytes: int | None = None
    roof_us: float | None = None

    @property
    def intensity(self) -> float | None:
        """Operations a byte."""
        return self.flops / self.bytes_moved if self.flops is not None and self.bytes_moved else None


def rooflines(
    layers: Sequence[Layer], costs: ModelCosts | None, peak: DevicePeak | None, *, device: str, tf32: bool
) -> tuple[Roofline, ...]:
    """The roofline of every layer.

    Args:
        layers: of the engine.
        costs: of its model at the shapes that were measured; ``None`` if the model is not known.
        peak: of the device; ``None`` if it is not known.
        device: its name, for the reason.
        tf32: whether FP32 products may be computed in TF32.
    """
    if costs is None:
        return (Roofline(reason="the ONNX model is not known"),) * len(layers)
    owners = _owners(layers, costs)
    return tuple(
        _roofline(layer, owned, costs, peak, device=device, tf32=tf32)
        for layer, owned in zip(layers, owners, strict=True)
    )


def bound_of(parts: Iterable[tuple[Roofline, float]]) -> Bound:
    """What bounds several layers together: what bounds most of their (known) time.

    Args:
        parts: a layer's roofline and its time.
    """
    spent: defaultdict[Bound, float] = defaultdict(float)
    for roofline, us in parts:
        spent[roofline.bound] += us
    if not spent or spent["unknown"] >= 0.5 * sum(spent.values()):
        return "unknown"
    return "compute" if spent["compute"] >= spent["memory"] else "memory"


def _owners(layers: Sequence[Layer], costs: ModelCosts) -> list[frozenset[str]]:
    """Of each layer, the nodes whose work it does.

    A node may stand in several layers: a product also in the copies of its operands and in the kernel that reads its
    result. Its work is that of the product's own kernel; other nodes belong to the first layer that computes.
    """
    listing: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
    for index, layer in enumerate(layers):
        for node in layer.onnx_nodes:
            listing[layer.profile, node].append(index)
    owned: list[set[str]] = [set() for _ in layers]
    for (_, node), found in listing.items():
        working = [i for i in found if not moves_data(layers[i])] or found
        cost = costs.nodes.get(node)
        products = [i for i in working if cost is not None and cost.is_matrix and is_matrix_kernel(layers[i])]
        owned[(products or working)[0]].add(node)
    return [frozenset(nodes) for nodes in owned]


def _roofline(
    layer: Layer, nodes: frozenset[str], costs: ModelCosts, peak: DevicePeak | None, *, device: str, tf32: bool
) -> Roofline:
    if not layer.onnx_nodes:
        return Roofline(reason="it has no ONNX node")
    # a converter's casts may be missing in the model that was given
    unknown = sorted(node for node in nodes if node not in costs.nodes and not is_conversion(node))
    nodes = nodes & costs.nodes.keys()
    if unknown:
        return Roofline(reason=f"the model has no node {unknown[0]!r}")
    if not nodes:
        return Roofline(reason="it works for nodes that are counted in another layer")
    members = [costs.nodes[node] for node in nodes]
    flops = _total(cost.flops for cost in members)
    reads, weights, writes = _traffic(layer, nodes, costs)
    moved = _total((reads, weights, writes))
    known = Roofline(flops=flops, bytes_moved=moved, weights_bytes=weights, written_bytes=writes)
    if flops is None or moved is None:
        return _unknown(known, f"the shapes of {sorted(nodes)[0]} are not known")
    if peak is None:
        return _unknown(known, f"the peaks of {device or 'this device'} are not known")
    is_matrix = any(cost.is_matrix for cost in members)
    rate = peak.rate(layer.precision, is_matrix=is_matrix, tf32=tf32)
    if rate is None:
        return _unknown(known, f"no published rate of {device} for {layer.precision or 'its type'}")
    compute_us, memory_us = flops / rate * 1e6, moved / peak.bandwidth * 1e6
    bound: Bound = "compute" if compute_us > memory_us else "memory"
    return Roofline(bound, "", flops, moved, weights, writes, max(compute_us, memory_us))


def _unknown(known: Roofline, reason: str) -> Roofline:
    return Roofline("unknown", reason, known.flops, known.bytes_moved, known.weights_bytes, known.written_bytes)


def _traffic(layer: Layer, nodes: frozenset[str], costs: ModelCosts) -> tuple[int | None, int | None, int | None]:
    """Bytes of activations read, of weights read, and written, by a kernel that computes these nodes."""
    made = {tensor for node in nodes for tensor in costs.nodes[node].outputs if tensor}
    read = {tensor for node in nodes for tensor in costs.nodes[node].inputs if tensor} - made
    leaving = {tensor for tensor in made if tensor in costs.outputs or costs.consumers.get(tensor, frozenset()) - nodes}
    sizes: Mapping[str, TensorSize] = costs.tensors
    weights = {tensor for tensor in read if tensor in sizes and sizes[tensor].is_constant}
    picked = _picked(nodes, costs)
    return (
        _bytes(read - weights, sizes, layer.inputs, picked),
        _bytes(weights, sizes, layer.constants, picked),
        _bytes(leaving, sizes, layer.outputs, {}),
    )


def _picked(nodes: frozenset[str], costs: ModelCosts) -> dict[str, int]:
    """Elements that are read of tensors of which nodes read a part only, such as an embedding's table."""
    readers: defaultdict[str, list[NodeCost]] = defaultdict(list)
    for node in nodes:
        for tensor in costs.nodes[node].inputs:
            readers[tensor].append(costs.nodes[node])
    found = {}
    for tensor, reading in readers.items():
        written = [costs.tensors.get(cost.outputs[0]) for cost in reading if cost.picks and cost.inputs[0] == tensor]
        if len(written) == len(reading):
            elements = [size.elements for size in written if size is not None and size.elements is not None]
            if len(elements) == len(reading):
                found[tensor] = sum(elements)
    return found


def _bytes(
    tensors: Iterable[str],
    sizes: Mapping[str, TensorSize],
    listed: Sequence[LayerTensor],
    picked: Mapping[str, int],
) -> int | None:
    """Bytes of tensors; floats in the type that the engine lists, which may be another than the model's."""
    own = coarsest(tensor.dtype for tensor in listed)
    total = 0
    for tensor in tensors:
        size = sizes.get(tensor)
        bits = DTYPE_BITS[own] if own and size is not None and size.is_float else size.bits if size else None
        if size is None or size.elements is None or bits is None:
            return None
        total += min(size.elements, picked.get(tensor, size.elements)) * bits // 8
    return total


def _total(values: Iterable[int | None]) -> int | None:
    found = list(values)
    return None if any(value is None for value in found) else sum(value for value in found if value is not None)
