"""The protocol that every runtime fulfils."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from fnmatch import fnmatchcase
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.engines.dtypes import dtype_name
from pytest_trtgray.engines.model import EngineInfo, Layer, coarsest
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.profiles import check_shapes
from pytest_trtgray.errors import EngineError, NotRunnableError
from pytest_trtgray.logs.records import Record

Feed = Mapping[str, NDArray[Any]]


class TimingContext(Protocol):
    """A fresh execution context with its input already in place."""

    def run(self) -> float:
        """Infer once; returns the time in microseconds."""

    def layer_times(self) -> list[dict[str, float]]:
        """For a profiled context, per inference the time of each layer in microseconds, by engine's name."""


class Engine(ABC):
    """An engine under test or a reference.

    Attributes:
        info: what is known without running it.
        records: what the runtime said while it built and loaded the engine.
        notes: what was assumed on the user's behalf, for the report.
        blocked: why this machine cannot run it; empty if it can.
        model: the ONNX model behind it, where it is known.
    """

    info: EngineInfo
    records: Sequence[Record]
    notes: tuple[str, ...]
    blocked: str
    model: OnnxModel | None

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
    def timing_context(self, feed: Feed, *, profiled: bool) -> AbstractContextManager[TimingContext]:
        """A fresh context for one timing session; ``profiled`` times layers, otherwise the whole engine.

        The two are never the same context: a profiler disturbs the engine's own time.
        """

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

    def checked(self, feed: Feed) -> dict[str, NDArray[Any]]:
        """The feed as contiguous arrays, after its names, shapes and dtypes were checked."""
        arrays = {name: np.ascontiguousarray(value) for name, value in feed.items()}
        # ascontiguousarray turns a scalar into a vector
        arrays = {name: array.reshape(np.shape(feed[name])) for name, array in arrays.items()}
        check_shapes(self.info.profiles, {name: a.shape for name, a in arrays.items()}, self.info.name)
        for spec in self.info.inputs:
            found = dtype_name(arrays[spec.name].dtype)
            if found != spec.dtype:
                raise EngineError(
                    self.info.name,
                    f"input {spec.name!r} wants {spec.dtype}, got {found}",
                    f"Convert it: feed[{spec.name!r}].astype(...).",
                )
        return arrays

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
        found = [layer for layer in self.layers if name in layer.onnx_nodes or layer.name == name]
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
