"""Intermediate values of an engine: the tensors between its layers, as far as a runtime shows them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from pytest_trtgray.engines.model import Layer
from pytest_trtgray.engines.onnx_model import OnnxNode


@dataclass(frozen=True)
class Tap:
    """A tensor that an engine shows.

    Attributes:
        name: the engine's own name of it.
        tensors: the ONNX tensors of the engine's model that it can be.
        exact: whether it is the one in ``tensors``, element for element. Otherwise the engine tells only which
            nodes made it: the values have to decide, and axes may be merged or lie in another order in memory.
    """

    name: str
    tensors: tuple[str, ...]
    exact: bool = True


class Taps(ABC):
    """An engine, or a build of the same model, that shows intermediate values. Get it from ``engine.taps(feed)``.

    Attributes:
        taps: what it shows, in execution order; the engine's outputs are among them.
        how: how values are taken, for the report.
        fusions: ``untouched`` where the engine that shows them has the layers of the engine under test,
            ``changed`` where it has others, ``unknown`` where the layers of one of the two are not known.
    """

    taps: tuple[Tap, ...]
    how: str
    fusions: str

    def expect(self, sizes: Mapping[str, int]) -> None:  # noqa: B027  (most have nothing to prepare)
        """Told before anything is read: how many bytes each tap has, as far as that is known."""

    @abstractmethod
    def read(self, names: Collection[str]) -> dict[str, NDArray[Any]]:
        """Infer once, on the feed that ``engine.taps`` was given.

        Args:
            names: of the taps whose values are wanted; the others are not kept.

        Returns:
            the values by name; without those that did not show.
        """


def tensor_between(
    made_by: Collection[str], read_by: Collection[str] | None, nodes: Sequence[OnnxNode], outputs: Collection[str]
) -> tuple[str, ...]:
    """ONNX tensors that leave one group of nodes, for another or for any.

    Args:
        made_by: names of the nodes that are fused into a layer.
        read_by: names of the nodes of the layers that read it; ``None`` for any node outside of ``made_by``.
        nodes: of the model.
        outputs: of the model; they leave every layer.
    """
    made = [name for node in nodes if node.name in made_by for name in node.outputs if name]
    read = {
        name
        for node in nodes
        if (node.name not in made_by if read_by is None else node.name in read_by)
        for name in node.inputs
    }
    return tuple(name for name in made if name in read or (read_by is None and name in outputs))


def taps_of_layers(layers: Iterable[Layer], nodes: Sequence[OnnxNode]) -> list[Tap]:
    """What the tensors between an engine's layers can be, from the ONNX nodes fused into the layers.

    TensorRT's own names do not tell: ``/relu/Relu_output_0.1_13_myl0`` was seen on what the Relu's convolution
    reads. A tensor between two layers is an ONNX tensor that a node of the first makes and a node of the second
    reads. A layer without nodes continues the work of those before it. Nothing is said of what may be half of an
    operator, such as a convolution before its bias was added: what a layer without nodes reads, and what a node makes
    that is on both sides.
    """
    layers = list(layers)
    maker = {tensor.name: layer for layer in layers for tensor in layer.outputs}
    readers_of: dict[str, list[Layer]] = {}
    for layer in layers:
        for name in {tensor.name for tensor in layer.inputs}:
            readers_of.setdefault(name, []).append(layer)
    nodes_of: dict[str, frozenset[str]] = {}
    for layer in layers:
        own = layer.onnx_nodes
        if not own:
            before = [maker[tensor.name].name for tensor in layer.inputs if tensor.name in maker]
            own = frozenset().union(*(nodes_of.get(name, frozenset()) for name in before))
        nodes_of[layer.name] = own
    taps = []
    for layer in layers:
        for tensor in layer.outputs:
            readers = readers_of.get(tensor.name, [])
            if not readers or not all(other.onnx_nodes for other in readers):
                continue
            read_by = frozenset().union(*(other.onnx_nodes for other in readers))
            tensors = tensor_between(nodes_of[layer.name] - read_by, read_by, nodes, ())
            if tensors:
                taps.append(Tap(tensor.name, tensors, exact=False))
    return taps
