"""The protocol that every runtime fulfils."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.engines.device_arrays import DeviceArray, as_device_array
from pytest_trtgray.engines.dtypes import dtype_name
from pytest_trtgray.engines.model import EngineInfo, Layer, coarsest
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.profiles import check_shapes, requested
from pytest_trtgray.errors import EngineError, NotRunnableError
from pytest_trtgray.findings import Finding
from pytest_trtgray.logs.records import Record

if TYPE_CHECKING:
    from pytest_trtgray.engines.loading import EngineSource
    from pytest_trtgray.engines.taps import Taps

Feed = Mapping[str, Any]
"""An array an input, by name: numpy's, or one that lives on the GPU (torch, cupy, anything with
``__cuda_array_interface__`` or DLPack)."""

Signature = tuple[tuple[str, tuple[int, ...], Any], ...]
"""Name, shape and type of each array of a feed."""
MAX_ACCEPTED = 256
"""Signatures that an engine remembers as right."""


@dataclass(frozen=True)
class TimingOptions:
    """How an engine is run while it is measured.

    Attributes:
        cuda_graph: launch each inference as one CUDA graph; layers are always measured without.
        kept_kernels: use kernels that an earlier process compiled; without them the first call of a shape is that
            of a machine that has never seen the engine.
    """

    cuda_graph: bool = False
    kept_kernels: bool = True


DEFAULT_TIMING = TimingOptions()


class TimingContext(Protocol):
    """A fresh execution context with its input already in place."""

    def run(self) -> float:
        """Infer once; returns the time in microseconds."""

    def bind(self, feed: Feed) -> None:
        """Put another input in place, of any shape that the engine takes."""

    def transfers(self) -> tuple[float, float] | None:
        """Microseconds to copy the inputs to the device and the outputs back; ``None`` where nothing is copied."""

    def infer(self, feed: Feed) -> tuple[dict[str, NDArray[Any]], float]:
        """Answer one input: its outputs by name, and the time of the inference alone in microseconds.

        Raises:
            EngineError: the input does not fit, or the runtime failed.
        """

    def layer_times(self, *, pause_s: float = 0.0) -> list[dict[str, float]]:
        """For a profiled context, per inference the time of each layer in microseconds, by engine's name.

        Args:
            pause_s: to sleep now and then while reading, so that other threads of this process get their turn.
        """


class Engine(ABC):
    """An engine under test or a reference.

    Attributes:
        info: what is known without running it.
        records: what the runtime said while it built and loaded the engine.
        notes: what was assumed on the user's behalf, for the report.
        blocked: why this machine cannot run it; empty if it can.
        model: the ONNX model behind it, where it is known.
        origin: the model that the user gave, where ``model`` was made from it in another precision.
        source: what it was loaded from, where :func:`~pytest_trtgray.engines.loading.load_engine` did that.
        reads_device_arrays: whether an input on the GPU is read where it is.
        findings: what is worth knowing of the build itself, such as a precision that was not honoured.
    """

    info: EngineInfo
    records: Sequence[Record]
    notes: tuple[str, ...]
    blocked: str
    model: OnnxModel | None
    origin: OnnxModel | None = None
    source: EngineSource | None = None
    reads_device_arrays: ClassVar[bool] = False
    findings: tuple[Finding, ...] = ()

    @property
    def rebuild_s(self) -> float:
        """Seconds of the build that :meth:`taps` takes; infinite where nobody knows."""
        return 0.0

    @property
    @abstractmethod
    def layers(self) -> tuple[Layer, ...]:
        """The engine's fused layers in execution order.

        Raises:
            NotRunnableError: the runtime shows them only on a GPU.
        """

    @abstractmethod
    def _infer(self, feed: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run on a checked feed."""

    @abstractmethod
    def timing_context(
        self, feed: Feed, *, profiled: bool, options: TimingOptions = DEFAULT_TIMING
    ) -> AbstractContextManager[TimingContext]:
        """A fresh context for one timing session; ``profiled`` times layers, otherwise the whole engine.

        The two are never the same context: a profiler disturbs the engine's own time.

        Raises:
            EngineError: the runtime cannot do what the options say.
        """

    def taps(self, feed: Feed) -> AbstractContextManager[Taps]:
        """What shows this engine's intermediate values; see :mod:`~pytest_trtgray.engines.taps`.

        Args:
            feed: one array an input, as for :meth:`run`.

        Raises:
            EngineError: the runtime, or what is known of the engine, does not allow it.
        """
        raise EngineError(self.info.name, f"{self.info.runtime} shows no intermediate values")

    @property
    @abstractmethod
    def timing_method(self) -> Mapping[str, str]:
        """How times are taken here; part of a timing baseline's identity."""

    def run(self, feed: Feed) -> dict[str, NDArray[Any]]:
        """Infer once.

        Args:
            feed: one array an input; shapes inside a profile, dtypes as the engine declares.

        Returns:
            one array an output, by name.

        Raises:
            ShapeError: an input is missing or unknown, or its shape is outside every profile.
            EngineError: a dtype differs, or the runtime failed.
            NotRunnableError: this machine cannot run the engine.
        """
        self.require_runnable()
        return self._infer(self.checked(feed))

    def checked(self, feed: Feed) -> dict[str, Any]:
        """The feed as contiguous arrays, after its names, shapes and dtypes were checked."""
        signature = _signature(feed)
        if signature in self._accepted:
            return dict(feed)
        # what decides on shapes is read by the host
        sizes = {spec.name for spec in self.info.inputs if spec.is_shape}
        arrays = {
            name: to_numpy(name, value) if name in sizes else self._array(name, value) for name, value in feed.items()
        }
        # types first: values that are sizes have to be numbers before they can be inside of a profile
        for spec in self.info.inputs:
            found = _dtype_of(arrays[spec.name]) if spec.name in arrays else spec.dtype
            if found != spec.dtype:
                raise EngineError(
                    self.info.name,
                    f"input {spec.name!r} wants {spec.dtype}, got {found}",
                    f"Convert it: feed[{spec.name!r}].astype(...).",
                )
        check_shapes(self.info.profiles, requested(self.info.inputs, arrays), self.info.name)
        if signature and not sizes and len(self._accepted) < MAX_ACCEPTED:
            self._accepted.add(signature)
        return arrays

    @functools.cached_property
    def _accepted(self) -> set[Signature]:
        """Feeds that were right: names, shapes and types of arrays that were taken as they are."""
        return set()

    def _array(self, name: str, value: Any) -> NDArray[Any] | DeviceArray:
        """A contiguous array; one on the device is copied to the host, unless the runtime reads it there."""
        on_device = as_device_array(value, name=name) if self.reads_device_arrays else None
        return to_numpy(name, value) if on_device is None else on_device

    def renew(self) -> None:  # noqa: B027  (what holds no context has nothing to renew)
        """Start over: the next :meth:`run` is the first one in a fresh execution context."""

    def require_runnable(self) -> None:
        """Raise NotRunnableError if this machine cannot run the engine."""
        if self.blocked:
            raise NotRunnableError(self.info.name, self.blocked)

    def layer(self, name: str) -> Layer:
        """The layer that computes the ONNX node ``name``, or that the engine calls so.

        Where a node went into several layers, the one that computes at the coarsest precision: a copy
        beside a matrix product is not what the question is about.

        Raises:
            KeyError: no such node; the message lists the nearest names.
        """
        node = self.model.scoped_names.get(name, name) if self.model else name
        found = [layer for layer in self.layers if node in layer.onnx_nodes or layer.name == name]
        if found:
            wanted = coarsest(layer.precision for layer in found)
            return next((layer for layer in found if layer.precision == wanted), found[0])
        nodes = sorted({node for layer in self.layers for node in layer.onnx_nodes})
        near = [node for node in nodes if name.lower() in node.lower() or fnmatchcase(node, name)]
        hint = f"near: {', '.join(near[:5])}" if near else f"nodes: {', '.join(nodes[:8])}, ..."
        raise KeyError(f"{self.info.name} has no layer for the ONNX node {name!r} ({hint})")

    @functools.cached_property
    def precision(self) -> str:
        """The coarsest precision of any layer; ``""`` where the layers are not known."""
        try:
            return coarsest(layer.precision for layer in self.layers)
        except NotRunnableError:
            return ""

    def close(self) -> None:  # noqa: B027  (most runtimes hold nothing)
        """Release what the engine holds; it cannot be used afterwards."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.info.name} ({self.info.runtime} {self.info.version})>"


def _dtype_of(array: NDArray[Any] | DeviceArray) -> str:
    return array.dtype if isinstance(array, DeviceArray) else dtype_name(array.dtype)


def _signature(feed: Feed) -> Signature:
    """Names, shapes and types of a feed of contiguous arrays on the host; empty for any other."""
    try:
        found = tuple([(name, value.shape, value.dtype) for name, value in feed.items() if value.flags.c_contiguous])
    except AttributeError:
        return ()
    is_plain = len(found) == len(feed) and all(
        type(value) is np.ndarray and value.dtype.isnative for value in feed.values()
    )
    return found if is_plain else ()


def to_numpy(name: str, value: Any) -> NDArray[Any]:
    """An input as a contiguous array on the host.

    Raises:
        EngineError: an array on the device that is not contiguous, or of a type that no engine reads.
    """
    on_device = as_device_array(value, name=name)
    if on_device is not None:
        from pytest_trtgray.engines.cuda import to_host

        return to_host(on_device)
    # ascontiguousarray turns a scalar into a vector
    array: NDArray[Any] = np.ascontiguousarray(value).reshape(np.shape(value))
    # a runtime reads bytes as they are: float32 of another byte order is other numbers to it
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
