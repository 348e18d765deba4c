"""The FP32 reference of a model: run as written, without optimisations, on the CPU or by the GPU in true FP32.

On a GPU ONNX Runtime computes it without TF32; where onnxruntime-gpu is missing, TensorRT can, in a build of its
own without TF32. That is as exact, but a fault that all builds of this TensorRT share does not show.

From an FP16 model the reference is the same graph in FP32; from a Q/DQ model the graph without the
quantisation. What was lost when the weights were rounded cannot be had back: for the accuracy of a
quantisation itself, give the original model (``--trt-onnx``, ``trt_shadow("model.onnx")``).
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.accuracy.references import ReferenceCache
from pytest_trtgray.accuracy.rounding import spread
from pytest_trtgray.engines.base import Engine, Feed, to_numpy
from pytest_trtgray.engines.cache import EngineCache
from pytest_trtgray.engines.device import find_gpu
from pytest_trtgray.engines.dtypes import numpy_dtype
from pytest_trtgray.engines.flavour import version_of
from pytest_trtgray.engines.header import Flavour
from pytest_trtgray.engines.loading import LoadOptions, choose_tensorrt, load_model
from pytest_trtgray.engines.model import TensorSpec
from pytest_trtgray.engines.onnx_model import OnnxModel, graphs, open_model, stored_tensors, subgraphs
from pytest_trtgray.engines.onnxruntime import (
    OnnxRuntimeEngine,
    Provider,
    choose_provider,
    onnxruntime_version,
    open_reference,
    require_provider,
)
from pytest_trtgray.engines.precision import calibration_digest
from pytest_trtgray.engines.profiles import ShapeRequest, fitting_requests
from pytest_trtgray.errors import EngineError, ShapeError
from pytest_trtgray.vendor import is_installed

DERIVATION = 1
"""Changes with what :func:`derive_fp32` does, so that copies of an earlier version are not used."""
_FLOAT16, _FLOAT = 10, 1
_QUANTISE, _DEQUANTISE = "QuantizeLinear", "DequantizeLinear"


class Shadow:
    """A model's FP32 reference.

    Args:
        path: the ONNX model; FP16 and Q/DQ models are turned into FP32 first.
        cache_dir: where a derived model is kept.
        on: ``cpu`` or ``cuda`` for ONNX Runtime, ``tensorrt``, or ``auto``: ``cuda`` where it can be, else ``cpu``,
            else ``tensorrt``.
        device: CUDA device index.
        shapes: optimization profiles that the reference has to cover; only TensorRT needs them.
        tactic_sources: of a TensorRT build, see :class:`~pytest_trtgray.engines.loading.LoadOptions`.

    Attributes:
        model: the model as given.
        derived: what was done to it, empty for an FP32 model.
        on: what computes it.

    Raises:
        ModelError: the model cannot be used.
        EngineError: it cannot be computed there.
    """

    def __init__(
        self,
        path: Path,
        cache_dir: Path,
        *,
        on: str = "cpu",
        device: int = 0,
        shapes: Sequence[ShapeRequest] = (),
        tactic_sources: tuple[str, ...] = (),
    ) -> None:
        self.model = open_model(path)
        self.on = _choose(on, device)
        self._name = f"{self.model.path.stem}-fp32"
        self.derived = derivations(self.model)
        self._source = self._derived_model(cache_dir) if self.derived else self.model
        self._options = LoadOptions(
            runtime=_tensorrt_for_references(device) if self.on == "tensorrt" else "onnxruntime",
            device=device,
            shapes=fitting_requests(self._source.inputs, shapes),
            cache_dir=cache_dir,
            tactic_sources=tactic_sources,
            tf32=False,
        )
        if self.on in _PROVIDERS:
            require_provider(_PROVIDERS[self.on])
        self._kept = ReferenceCache(cache_dir / "references")

    @functools.cached_property
    def _engine(self) -> Engine:
        """What computes the reference; not needed for inputs whose reference was kept."""
        if self.on == "tensorrt":
            return load_model(self._source, self._options, self._name)
        return self.open_part(self._source)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs of the model as given, with its dtypes."""
        return self.model.inputs

    @property
    def source(self) -> OnnxModel:
        """The FP32 model that is computed: the one given, or the one derived from it."""
        return self._source

    def open_part(self, model: OnnxModel) -> OnnxRuntimeEngine:
        """A part of :attr:`source` as it computes the reference: unoptimised, without TF32.

        By ONNX Runtime also where TensorRT computes the outputs: there, to mark an inner tensor as an output
        changes the fusions.

        Args:
            model: made with ``source.edited``; its outputs are what is computed.

        Raises:
            EngineError: ONNX Runtime is missing or cannot load it.
        """
        provider = _PROVIDERS.get(self.on) or choose_provider(self._options.device)
        return open_reference(model, name=self._name, provider=provider, device_index=self._options.device)

    def run(self, feed: Feed) -> dict[str, NDArray[Any]]:
        """Infer once, in FP32.

        Args:
            feed: one array an input; floats of any width are converted.

        Returns:
            one FP32 array an output (integer outputs as they are).

        Raises:
            ShapeError: an input is missing or unknown, or its shape does not fit the model.
        """
        converted = self.converted(feed)
        return self._kept.get(self._key(converted), lambda: self._engine.run(converted))

    def converted(self, feed: Feed) -> dict[str, NDArray[Any]]:
        """A feed of the model as given in the types of :attr:`source`.

        Raises:
            ShapeError: an input is unknown.
        """
        wanted = {spec.name: spec for spec in self._source.inputs}
        unknown = set(feed) - set(wanted)
        if unknown:
            raise ShapeError(
                self.model.path.name,
                f"the FP32 reference has no input {sorted(unknown)}",
                f"Its inputs are: {', '.join(sorted(wanted))}.",
            )
        arrays = {name: to_numpy(name, value) for name, value in feed.items()}
        return {name: array.astype(numpy_dtype(wanted[name].dtype), copy=False) for name, array in arrays.items()}

    def _key(self, feed: Mapping[str, NDArray[Any]]) -> str:
        """Everything that the outputs depend on."""
        runtime = self._options.runtime
        version = version_of(runtime) if runtime in ("tensorrt", "tensorrt_rtx") else onnxruntime_version()
        parts = (self._source.sha256, self.on, version, calibration_digest([feed]))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def close(self) -> None:
        """Release what it holds."""
        if "_engine" in vars(self):
            self._engine.close()

    def __call__(self, feed: Feed) -> dict[str, NDArray[Any]]:
        """The same as :meth:`run`."""
        return self.run(feed)

    def __repr__(self) -> str:
        how = f", {' and '.join(self.derived)}" if self.derived else ""
        return f"<Shadow {self.model.path.name} (FP32, {_PLACES[self.on]}{how})>"

    def _derived_model(self, cache_dir: Path) -> OnnxModel:
        cached = EngineCache(cache_dir).get(
            {"fp32_of": self.model.sha256, "derivation": DERIVATION},
            lambda: (derive_fp32(self.model.path).SerializeToString(), {}),
            suffix=".onnx",
        )
        return open_model(cached.path, original=self.model.path, made=" and ".join(self.derived))


_PLACES = {
    "cpu": "ONNX Runtime CPU, unoptimised",
    "cuda": "ONNX Runtime CUDA, unoptimised, no TF32",
    "tensorrt": "TensorRT, no TF32",
}
_PROVIDERS: Mapping[str, Provider] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def _choose(on: str, device: int) -> str:
    if on not in ("auto", *_PLACES):
        raise EngineError(f"on={on!r}", "is no place for an FP32 reference", f"Choose auto, {', '.join(_PLACES)}.")
    if on != "auto":
        return on
    if not is_installed("onnxruntime") and find_gpu(device) is not None:
        return "tensorrt"
    return "cuda" if choose_provider(device) == "CUDAExecutionProvider" else "cpu"


def _tensorrt_for_references(device: int) -> Flavour:
    """The TensorRT that computes true FP32.

    Raises:
        EngineError: measured on an NVIDIA H200, TensorRT for RTX 1.5 compiles its kernels with TF32 whatever the
            builder was told; only the CUDA libraries' own switch, an environment variable, reaches them.
    """
    flavour = choose_tensorrt(device)
    if flavour == "tensorrt_rtx" and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0":
        raise EngineError(
            "the FP32 reference",
            "TensorRT for RTX computes FP32 in TF32, whatever its builder is told",
            "Use --trt-shadow=cpu or cuda, or set NVIDIA_TF32_OVERRIDE=0 for the whole run.",
        )
    return flavour


def derivations(model: OnnxModel) -> tuple[str, ...]:
    """What :func:`derive_fp32` would do to a model, in words; empty for an FP32 model."""
    found = ["FP16 widened"] if model.uses_float16 else []
    return (*found, "Q/DQ removed") if model.is_quantised else tuple(found)


def derive_fp32(path: Path) -> Any:
    """The FP32 twin of an FP16 or Q/DQ model, as a ModelProto with its weights inside."""
    import onnx

    proto = onnx.load(str(path))
    _remove_qdq(proto.graph)
    _widen(proto.graph)
    return proto


def _widen(graph: Any) -> None:
    """Turn every FP16 type of the graph, and of the graphs inside of it, into FP32."""
    from onnx import numpy_helper

    for part in graphs(graph):
        for tensor in stored_tensors(part):
            if tensor.data_type == _FLOAT16:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
        for node in part.node:
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == _FLOAT16:
                    attribute.i = _FLOAT
        for value in (*part.input, *part.output, *part.value_info):
            if value.type.tensor_type.elem_type == _FLOAT16:
                value.type.tensor_type.elem_type = _FLOAT


def _remove_qdq(graph: Any, outer: Mapping[str, Any] | None = None) -> None:
    """Bypass Quantize/Dequantize pairs; dequantise weights that are stored as integers.

    Args:
        graph: changed in place, with the graphs inside of it.
        outer: weights of the graphs around it.
    """
    from onnx import numpy_helper

    weights = {**(outer or {}), **{tensor.name: tensor for tensor in graph.initializer}}
    replaced = _bypassed(graph)
    kept = []
    for node in graph.node:
        if node.op_type == _DEQUANTISE:
            source = node.input[0]
            if node.output[0] in replaced:
                continue
            if source in weights and all(name in weights for name in node.input if name):
                values = _dequantised(node, weights)
                graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
                continue
        kept.append(node)
    outputs = {value.name for value in graph.output}
    del graph.node[:]
    graph.node.extend(kept)
    for part in graphs(graph):
        for node in part.node:
            for index, name in enumerate(node.input):
                node.input[index] = _final(name, replaced)
    for node in graph.node:
        for inner in subgraphs(node):
            _remove_qdq(inner, weights)
    _keep_outputs(graph, outputs, replaced)
    _drop_unused(graph)


def fp32_names(model: OnnxModel) -> dict[str, str]:
    """Tensors of a Q/DQ model that its FP32 reference knows by another name: the one that was quantised.

    Returns:
        by the name of a dequantised tensor of the main graph, the name in :attr:`Shadow.source`. All other
        activations keep their names.
    """
    replaced = _bypassed(model.proto.graph)
    return {name: _final(name, replaced) for name in replaced}


def _bypassed(graph: Any) -> dict[str, str]:
    """What is read in place of the output of each DequantizeLinear that follows a QuantizeLinear."""
    quantised = {node.output[0]: node.input[0] for node in graph.node if node.op_type == _QUANTISE}
    return {
        node.output[0]: quantised[node.input[0]]
        for node in graph.node
        if node.op_type == _DEQUANTISE and node.input[0] in quantised
    }


def _final(name: str, replaced: Mapping[str, str]) -> str:
    while name in replaced:
        name = replaced[name]
    return name


def _keep_outputs(graph: Any, outputs: set[str], replaced: Mapping[str, str]) -> None:
    """A graph output that was a dequantised tensor keeps its name."""
    import onnx

    for name in sorted(outputs & set(replaced)):
        graph.node.append(onnx.helper.make_node("Identity", [_final(name, replaced)], [name]))


def _drop_unused(graph: Any) -> None:
    """Remove quantisers, scales and integer weights that nobody reads any more."""

    def used() -> set[str]:
        names = {value.name for part in graphs(graph) for value in part.output}
        return names | {name for part in graphs(graph) for node in part.node for name in node.input}

    read = used()
    kept = [node for node in graph.node if node.op_type != _QUANTISE or any(out in read for out in node.output)]
    del graph.node[:]
    graph.node.extend(kept)
    read = used()
    weights = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(weights)


def _dequantised(node: Any, weights: Mapping[str, Any]) -> NDArray[np.float32]:
    """``(q - zero_point) * scale``, per tensor, per axis or per block (ONNX DequantizeLinear)."""
    from onnx import numpy_helper

    quantised, scale, *rest = (numpy_helper.to_array(weights[name]) for name in node.input if name)
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    block = next((attribute.i for attribute in node.attribute if attribute.name == "block_size"), 0)
    values = quantised.astype(np.float32)
    zero = rest[0].astype(np.float32) if rest else np.float32(0)
    offset, factor = (spread(np.asarray(array), values.shape, axis, block) for array in (zero, scale))
    return np.asarray((values - offset) * factor, dtype=np.float32)
