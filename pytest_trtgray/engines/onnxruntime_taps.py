"""Intermediate values of a model in ONNX Runtime.

ONNX Runtime saves the graph that its optimisations made. Run as it is written, with more of its tensors as outputs,
that graph computes bit for bit what the engine computes, in the same fused nodes. What lies between two
convolutions in the blocked layout of the processor is brought back into order by a ``ReorderOutput`` beside them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from pytest_trtgray.engines.onnx_model import OnnxModel, made_floats, with_outputs
from pytest_trtgray.engines.provenance import NCHWC_DOMAIN, REORDER_OUTPUT, plain_name
from pytest_trtgray.engines.taps import Tap, Taps, tensor_between
from pytest_trtgray.errors import EngineError

if TYPE_CHECKING:
    from pytest_trtgray.engines.onnxruntime import OnnxRuntimeEngine


Arrays = Mapping[str, NDArray[Any]]


class OptimisedTaps(Taps):
    """What exists between the nodes of an engine's optimised graph.

    Args:
        engine: under test.
        feed: checked.
        optimised: its optimised graph.

    Raises:
        EngineError: ONNX Runtime does not load the graph that it saved.
    """

    how = "from the tensors of ONNX Runtime's optimised graph"
    fusions = "untouched"

    def __init__(self, engine: OnnxRuntimeEngine, feed: Arrays, optimised: OnnxModel) -> None:
        self._engine = engine
        self._feed = feed
        self._optimised = optimised
        self._open(optimised).close()
        self._floats = made_floats(engine.model)
        self._source: dict[str, str] = {}
        """The optimised graph's tensor behind each tap."""
        self._blocked: dict[str, int] = {}
        """Channels of those that lie in blocks."""
        nodes = optimised.proto.graph.node
        for node, origin in zip(nodes, engine.origins(nodes), strict=True):
            for tensor in node.output:
                self._add(node, tensor, origin)
        self.taps = tuple(Tap(name, (name,)) for name in self._source)

    def read(self, names: Collection[str]) -> dict[str, NDArray[Any]]:
        """See :meth:`Taps.read`."""
        import onnx

        shown, ordering = {}, []
        for name in names:
            shown[name] = self._source[name]
            if name in self._blocked:
                shown[name] += "/ordered"
                ordering.append(
                    onnx.helper.make_node(
                        REORDER_OUTPUT,
                        [self._source[name]],
                        [shown[name]],
                        domain=NCHWC_DOMAIN,
                        channels=self._blocked[name],
                    )
                )
        proto = with_outputs(self._optimised, shown.values())
        proto.graph.node.extend(ordering)
        engine = self._open(self._optimised.edited(proto))
        values = engine.run(self._feed)
        engine.close()
        return {name: values[tensor] for name, tensor in shown.items()}

    def _open(self, model: OnnxModel) -> OnnxRuntimeEngine:
        from pytest_trtgray.engines.onnxruntime import open_reference

        return open_reference(model, provider=self._engine.provider, device_index=self._engine.device_index)

    def _add(self, node: Any, tensor: str, origin: frozenset[str]) -> None:
        model = self._engine.model
        name = plain_name(tensor)
        if node.domain == NCHWC_DOMAIN and node.op_type != REORDER_OUTPUT:
            outputs = [spec.name for spec in model.outputs]
            between = tensor_between(origin, None, model.nodes, outputs)
            if len(between) != 1 or between[0] in self._source:
                return
            (name,) = between
            channels = model.tensors[name].shape[1:2] if name in model.tensors else ()
            if not channels or not isinstance(channels[0], int):
                return
            self._blocked[name] = channels[0]
        elif name not in self._floats or (name in self._source and name not in self._blocked):
            return
        else:
            self._blocked.pop(name, None)
        self._source[name] = tensor


class MarkedTaps(Taps):
    """A model with its own tensors as outputs, optimised like the engine: what is shown is not fused away.

    Args:
        engine: under test.
        feed: checked.
    """

    how = "by making tensors of the model outputs"
    fusions = "changed"

    def __init__(self, engine: OnnxRuntimeEngine, feed: Arrays) -> None:
        self._engine = engine
        self._feed = feed
        self.taps = tuple(Tap(name, (name,)) for name in made_floats(engine.model))

    def read(self, names: Collection[str]) -> dict[str, NDArray[Any]]:
        """See :meth:`Taps.read`."""
        from pytest_trtgray.engines.onnxruntime import OnnxRuntimeEngine

        mine = self._engine
        engine = OnnxRuntimeEngine(
            mine.model.edited(with_outputs(mine.model, names)),
            name=mine.info.name,
            profiles=mine.info.profiles,
            provider=mine.provider,
            optimisation=mine.optimisation,
            device_index=mine.device_index,
        )
        values = engine.run(self._feed)
        engine.close()
        return {name: values[name] for name in names}


def taps_of(engine: OnnxRuntimeEngine, feed: Arrays, folder: Path) -> Taps:
    """The optimised graph's tensors, or marked ones where ONNX Runtime does not load what it has saved."""
    try:
        return OptimisedTaps(engine, feed, engine.save_optimised(folder))
    except EngineError:
        return MarkedTaps(engine, feed)
