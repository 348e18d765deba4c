"""Intermediate values of an engine of TensorRT, from a second build of the same model.

From 10.12 on, and in TensorRT for RTX, a network can be told to show the tensors that no fusion takes away. Such a
build has the same layers (the engine of ResNet-50 differs in one byte), and its tensors go by the names of the layer
listing. Tensors that are marked one by one do not help: TensorRT for RTX 1.5 builds with them and shows none, and
elsewhere they prevent fusions. Before 10.12 the model's tensors are made outputs, which prevents fusions too.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.engines.building import shows_unfused
from pytest_trtgray.engines.cache import EngineCache
from pytest_trtgray.engines.device_arrays import DeviceArray
from pytest_trtgray.engines.loading import build_again
from pytest_trtgray.engines.model import Layer
from pytest_trtgray.engines.onnx_model import FLOATS, OnnxModel, activations, open_model, with_outputs
from pytest_trtgray.engines.taps import Tap, Taps, taps_of_layers
from pytest_trtgray.errors import EngineError, NotRunnableError

if TYPE_CHECKING:
    from pytest_trtgray.engines.base import Engine
    from pytest_trtgray.engines.tensorrt import TensorRTEngine

OUTPUTS_BYTES = 4 << 30
"""Of outputs that one build has, at most: they are all on the GPU at once."""


@contextlib.contextmanager
def open_taps(engine: TensorRTEngine, feed: Mapping[str, Any]) -> Iterator[Taps]:
    """What shows an engine's values.

    Args:
        engine: with a model.
        feed: checked.

    Raises:
        EngineError: the engine's model is not known, or it does not build once more.
    """
    taps: DebugTaps | MarkedTaps
    taps = DebugTaps(engine, feed) if shows_unfused(engine.flavour) else MarkedTaps(engine, feed)
    try:
        yield taps
    finally:
        taps.close()


class DebugTaps(Taps):
    """The tensors that no fusion takes away, from an engine with the same fusions.

    Args:
        engine: under test.
        feed: checked.
    """

    how = "from debug tensors of TensorRT"

    def __init__(self, engine: TensorRTEngine, feed: Mapping[str, Any]) -> None:
        self._feed = feed
        self._twin = build_again(engine, debug_tensors=True)
        self.fusions = compared_layers(engine, self._twin)
        profile = self._twin.profile_of(feed)
        layers = [layer for layer in self._twin.layers if layer.profile == profile]
        model = known_model(engine)
        outputs = [spec.name for spec in engine.info.outputs]
        inner = [tap for tap in taps_of_layers(layers, model.nodes) if tap.name not in outputs]
        self.taps = (*inner, *(Tap(name, (name,)) for name in outputs))

    def read(self, names: Collection[str]) -> dict[str, NDArray[Any]]:
        """See :meth:`Taps.read`."""
        shown, outputs = self._twin.run_watched(self._feed, names)
        return {name: array for name, array in {**shown, **outputs}.items() if name in names}

    def close(self) -> None:
        """Free the second engine."""
        self._twin.close()


class MarkedTaps(Taps):
    """The model's tensors as outputs, in as many builds as the GPU's memory asks for; fusions are lost.

    Args:
        engine: under test.
        feed: checked.
    """

    how = "by making tensors of the model outputs"
    fusions = "changed"

    def __init__(self, engine: TensorRTEngine, feed: Mapping[str, Any]) -> None:
        self._engine = engine
        self._feed = feed
        self._outputs = {spec.name for spec in engine.info.outputs}
        names = dict.fromkeys((*activations(known_model(engine)), *self._outputs))
        self.taps = tuple(Tap(name, (name,)) for name in names)
        self._groups = [[name for name in names if name not in self._outputs]]
        self._twin: tuple[int, TensorRTEngine] | None = None

    def expect(self, sizes: Mapping[str, int]) -> None:
        """See :meth:`Taps.expect`; what has no size there is never asked for."""
        self._groups = grouped([name for group in self._groups for name in group if name in sizes], sizes)

    def read(self, names: Collection[str]) -> dict[str, NDArray[Any]]:
        """See :meth:`Taps.read`."""
        found: dict[str, NDArray[Any]] = {}
        for index, group in enumerate(self._groups):
            if set(group) & set(names):
                found.update(self._open(index).run(self._feed))
                found = {name: array for name, array in found.items() if name in names}
        if set(names) - set(found):
            given = self._engine.run(self._feed)
            found.update({name: given[name] for name in set(names) & set(given) - set(found)})
        return found

    def close(self) -> None:
        """Free the build that is open."""
        if self._twin is not None:
            self._twin[1].close()
            self._twin = None

    def _open(self, index: int) -> TensorRTEngine:
        """The build of one group; one of them is open at a time."""
        if self._twin is None or self._twin[0] != index:
            self.close()
            model = marked(known_model(self._engine), self._groups[index], self._engine)
            self._twin = (index, build_again(self._engine, model=model))
        return self._twin[1]


def grouped(names: Sequence[str], sizes: Mapping[str, int], limit: int = OUTPUTS_BYTES) -> list[list[str]]:
    """Names in order, so many in a group that their sizes are within the limit, but one at least."""
    groups: list[list[str]] = []
    room = 0
    for name in names:
        if not groups or sizes[name] > room:
            groups.append([])
            room = limit
        groups[-1].append(name)
        room -= sizes[name]
    return groups


def marked(model: OnnxModel, names: Sequence[str], engine: Engine) -> OnnxModel:
    """A model with more outputs, as a file beside the engines."""
    import onnx

    assert engine.source is not None

    def make() -> tuple[bytes, dict[str, Any]]:
        proto = with_outputs(model, names)
        onnx.load_external_data_for_model(proto, str(model.path.parent))
        return bytes(proto.SerializeToString()), {}

    request = {"outputs_of": model.sha256, "names": list(names)}
    cached = EngineCache(engine.source.options.cache_dir).get(request, make, suffix=".onnx")
    return open_model(cached.path, original=model.original, made="with its tensors as outputs")


def known_model(engine: Engine) -> OnnxModel:
    """The model that an engine was built from.

    Raises:
        EngineError: it is not known.
    """
    if engine.model is None:
        raise EngineError(engine.info.name, "its ONNX model is not known", "Give it: --trt-onnx=PATH.")
    return engine.model


def compared_layers(engine: Engine, other: Engine) -> str:
    """Whether two engines have the same fusions: ``untouched``, ``changed``, or ``unknown``."""

    def fusions(layers: Sequence[Layer]) -> Counter[tuple[str, frozenset[str], int]]:
        return Counter((layer.kind, layer.onnx_nodes, layer.profile) for layer in layers)

    try:
        return "untouched" if fusions(engine.layers) == fusions(other.layers) else "changed"
    except NotRunnableError:
        return "unknown"


def debug_listener(trt: Any, wanted: Collection[str], device_index: int) -> Any:
    """A debug listener of ``trt`` that copies floating-point tensors to the host; its callback never raises.

    Its ``shown`` are the values by name, ``seen`` the names of all that showed, ``failures`` what went wrong.
    """
    from pytest_trtgray.engines.cuda import to_host
    from pytest_trtgray.engines.layer_listing import datatype

    class DebugListener(trt.IDebugListener):  # type: ignore[misc]  # api: IDebugListener
        def __init__(self) -> None:
            trt.IDebugListener.__init__(self)  # api: IDebugListener
            self.shown: dict[str, NDArray[Any]] = {}
            self.seen: list[str] = []
            self.failures: list[str] = []

        def process_debug_tensor(self, addr: Any, location: Any, type: Any, shape: Any, name: str, stream: Any) -> bool:
            # an exception here would be printed and forgotten
            try:
                self.seen.append(name)
                dtype = datatype(type.name)
                if name in wanted and dtype in FLOATS:
                    sizes = tuple(int(size) for size in shape)
                    array = DeviceArray(int(addr), sizes, dtype, device_index, owner=None)
                    self.shown[name] = to_host(array) if location.name == "DEVICE" else _on_host(array)
            except Exception as error:
                self.failures.append(f"{name}: {error!r}")
            return True

    return DebugListener()


def _on_host(array: DeviceArray) -> NDArray[Any]:
    """A copy of what lies at an address of the host."""
    import ctypes

    from pytest_trtgray.engines.dtypes import numpy_dtype

    content = ctypes.string_at(array.address, array.nbytes)
    return np.frombuffer(content, numpy_dtype(array.dtype)).reshape(array.shape)
