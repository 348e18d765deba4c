"""ONNX Runtime as engine and as reference: the CPU everywhere, CUDA through the same code."""

from __future__ import annotations

import functools
import json
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.engines.base import DEFAULT_TIMING, Engine, Feed, TimingContext, TimingOptions
from pytest_trtgray.engines.device import available_cores, find_cpu, find_gpu
from pytest_trtgray.engines.model import (
    DeviceInfo,
    EngineInfo,
    Layer,
    LayerTensor,
    Memory,
    ShapeProfile,
)
from pytest_trtgray.engines.onnx_model import OnnxModel, dtype_name, load_small_weights, node_name
from pytest_trtgray.engines.profiles import any_shape
from pytest_trtgray.engines.provenance import GraphNode, trace_origins
from pytest_trtgray.engines.scopes import with_scoped_names
from pytest_trtgray.engines.taps import Taps
from pytest_trtgray.errors import EngineError
from pytest_trtgray.logs.capture import native_stderr
from pytest_trtgray.logs.records import LogSeverity, Record, at_least
from pytest_trtgray.logs.sink import SINK
from pytest_trtgray.vendor import quiet_import

Provider = Literal["CPUExecutionProvider", "CUDAExecutionProvider"]
Optimisation = Literal["all", "none"]

KERNEL_SUFFIX = "_kernel_time"
_WITH_SUBGRAPHS = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_TOKEN = re.compile(r"_token_\d+$")
_ORT_TENSOR = re.compile(r"tensor\((\w+)\)")
ORT_FLOATS = {"float": "float32", "double": "float64"}
_EVENTS_AT_ONCE = 20
"""Lines of a profile between two pauses, about a tenth of a millisecond of work."""
_MAX_INLINE_BYTES = 1_500_000_000  # a protocol buffer ends at 2 GiB
_SEVERITY: Mapping[LogSeverity, int] = {"verbose": 0, "info": 1, "warning": 2, "error": 3, "internal_error": 4}


class OnnxRuntimeEngine(Engine):
    """A model in ONNX Runtime.

    Args:
        model: the checked model.
        name: short name for reports.
        profiles: shapes that :meth:`run` accepts.
        provider: execution provider that must really be used.
        optimisation: ``all`` is what ships; ``none`` runs the graph as written and is the reference.
        device_index: CUDA device, for the CUDA provider.
        notes: what was assumed about the profiles.
        log_level: what is kept of what ONNX Runtime says while it loads the model.

    Raises:
        EngineError: the model cannot be loaded, or another provider was used silently.
    """

    model: OnnxModel

    def __init__(
        self,
        model: OnnxModel,
        *,
        name: str,
        profiles: tuple[ShapeProfile, ...],
        provider: Provider = "CPUExecutionProvider",
        optimisation: Optimisation = "all",
        device_index: int = 0,
        notes: tuple[str, ...] = (),
        log_level: LogSeverity = "warning",
    ) -> None:
        self._ort = quiet_import("onnxruntime")
        self.model = model
        self.provider = provider
        self.optimisation = optimisation
        self.device_index = device_index
        self.notes = notes
        self.blocked = ""
        with SINK.collect("load") as collected, native_stderr():
            self._session = self._open(log_level=log_level)
        self.records: Sequence[Record] = tuple(at_least(collected, log_level))
        self.info = EngineInfo(
            name=name,
            path=str(model.path),
            runtime="onnxruntime",
            version=self._ort.__version__,
            inputs=model.inputs,
            outputs=model.outputs,
            profiles=profiles,
            device=self._device(),
            targets=find_cpu().details["architecture"] if provider.startswith("CPU") else "cuda",
            memory=Memory(weights_bytes=model.weights_bytes),
        )

    @functools.cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The nodes of ONNX Runtime's optimised graph, each with the ONNX nodes fused into it."""
        nodes = self._optimised_nodes()
        origins = self.origins(nodes.nodes)
        outputs_of = {node.name: node.outputs for node in self.model.nodes}
        layers = []
        names = stable_names([node.name for node in nodes.nodes])
        for name, node, origin in zip(names, nodes.nodes, origins, strict=True):
            made = [tensor for member in origin for tensor in outputs_of[member]]
            layers.append(
                Layer(
                    name=name,
                    kind=node.op_type,
                    onnx_nodes=origin,
                    inputs=self._tensors([t for t in node.input if t not in nodes.constants], nodes.constants),
                    constants=self._tensors([t for t in node.input if t in nodes.constants], nodes.constants),
                    outputs=self._tensors(node.output, nodes.constants, made),
                    tactic=str(node.domain),
                )
            )
        return with_scoped_names(layers, self.model.scoped_names)

    @property
    def timing_method(self) -> Mapping[str, str]:
        """The provider, its threads, and where the two kinds of times come from."""
        method = {"layers": "onnxruntime-profiler", "engine": "wall-clock", "provider": self.provider}
        if self.provider.startswith("CPU"):
            method["threads"] = str(available_cores())
        return method

    @contextmanager
    def timing_context(
        self, feed: Feed, *, profiled: bool, options: TimingOptions = DEFAULT_TIMING
    ) -> Iterator[TimingContext]:
        """A fresh session; a profiled one has ONNX Runtime's own profiler switched on."""
        if options.cuda_graph:
            raise EngineError(
                self.info.name, "is measured without CUDA graphs in ONNX Runtime", "Drop cuda_graph, or use TensorRT."
            )
        self.checked(feed)  # before a session is opened for it
        with tempfile.TemporaryDirectory(prefix="trtgray-") as folder:
            with native_stderr():
                session = self._open(profile_prefix=str(Path(folder) / "profile") if profiled else None)
            context = _OrtTiming(self, session, feed, profiled=profiled)
            try:
                yield context
            finally:
                context.close()

    def renew(self) -> None:
        """Start over in a fresh session."""
        with native_stderr():
            self._session = self._open()

    def _infer(self, feed: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with SINK.phase("run"), native_stderr():
            return self.outputs_of(self._session, feed)[0]

    def outputs_of(self, session: Any, feed: dict[str, NDArray[Any]]) -> tuple[dict[str, NDArray[Any]], float]:
        """What a session of this model answers to a checked feed, and the microseconds that it took.

        Raises:
            EngineError: ONNX Runtime failed.
        """
        started = time.perf_counter_ns()
        try:
            values = session.run(self._output_names, feed)
        except Exception as error:  # onnxruntime has an exception class for every status code
            shapes = ", ".join(f"{name} {array.shape}" for name, array in feed.items())
            raise EngineError(self.info.name, f"ONNX Runtime failed on {shapes}: {_first_line(error)}") from error
        took_us = (time.perf_counter_ns() - started) / 1e3
        return dict(zip(self._output_names, (np.asarray(value) for value in values), strict=True)), took_us

    @functools.cached_property
    def _output_names(self) -> list[str]:
        return [spec.name for spec in self.info.outputs]

    def _open(
        self,
        *,
        profile_prefix: str | None = None,
        optimised_path: Path | None = None,
        log_level: LogSeverity = "warning",
    ) -> Any:
        options = self._ort.SessionOptions()
        options.log_severity_level = _SEVERITY["error" if optimised_path else log_level]
        # a part of a model is run once; an arena grows in powers of two and keeps what it has
        options.enable_cpu_mem_arena = not self.model.is_edited
        level = "ORT_ENABLE_ALL" if self.optimisation == "all" else "ORT_DISABLE_ALL"
        options.graph_optimization_level = getattr(self._ort.GraphOptimizationLevel, level)
        if profile_prefix:
            options.enable_profiling = True
            options.profile_file_prefix = profile_prefix
        if optimised_path:
            options.optimized_model_filepath = str(optimised_path)
            # Weights go to a file of their own: the graph is all that is wanted, and 2 GiB is a limit.
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights.bin")
            options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "256")
        source = self._source(options)
        if held := self.model.held:
            values = [self._ort.OrtValue.ortvalue_from_numpy(array) for array in held.values()]
            options.add_external_initializers([*held], values)
        try:
            session = self._ort.InferenceSession(
                source, options, providers=self._providers(), disabled_optimizers=self._disabled(options)
            )
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(
                self.model.called,
                f"ONNX Runtime {self._ort.__version__} cannot load it: {_first_line(error)}",
                "Check the model with onnx.checker, and its opset against this ONNX Runtime.",
            ) from error
        used = session.get_providers()
        if used[0] != self.provider:
            raise EngineError(
                self.model.called,
                f"ONNX Runtime fell back to {used[0]}, {self.provider} was asked for",
                "See its log above; often a CUDA or cuDNN library of another version.",
            )
        session.disable_fallback()
        return session

    def _source(self, options: Any) -> str | bytes:
        """The path; of an edited graph, unnamed nodes or names that are no UTF-8, the bytes as reports have them."""
        as_in_file = not (self.model.is_edited or self.model.is_renamed)
        if as_in_file and all(node.name for node in self.model.proto.graph.node):
            return str(self.model.path)
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(self.model.path.parent.resolve())
        )
        # to ask a model for its size takes as long as to write it
        if not self.model.is_edited and self.model.proto.ByteSize() > _MAX_INLINE_BYTES:
            return str(self.model.path)
        proto = type(self.model.proto)()
        proto.CopyFrom(self.model.proto)
        for node in proto.graph.node:
            node.name = node_name(node)
        load_small_weights(proto, self.model.path.parent)  # its shape inference reads no external data of such a model
        return bytes(proto.SerializeToString())

    def _disabled(self, options: Any) -> list[str] | None:
        """Optimisations of ONNX Runtime (1.31) that break FP8: some fail to load, one silently loses a Relu."""
        if "fp8" not in {node_type.dtype for node_type in self.model.tensors.values()}:
            return None
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        return ["ReluQuantRewrite"]

    def _providers(self) -> list[Any]:
        require_provider(self.provider)
        if self.provider == "CUDAExecutionProvider":
            # TF32 would make an FP32 reference that is none.
            cuda = (self.provider, {"device_id": str(self.device_index), "use_tf32": "0"})
            return [cuda, "CPUExecutionProvider"]
        return [self.provider]

    def _device(self) -> DeviceInfo | None:
        return find_cpu() if self.provider.startswith("CPU") else find_gpu(self.device_index)

    @contextmanager
    def taps(self, feed: Feed) -> Iterator[Taps]:
        """What exists between the nodes of the optimised graph, read from that very graph."""
        from pytest_trtgray.engines.onnxruntime_taps import taps_of

        with tempfile.TemporaryDirectory(prefix="trtgray-") as folder:
            yield taps_of(self, self.checked(feed), Path(folder))

    def output_dtypes(self) -> dict[str, str]:
        """What ONNX Runtime says of the outputs' types; outputs that are no tensors are left out."""
        kinds = {output.name: _ORT_TENSOR.fullmatch(output.type) for output in self._session.get_outputs()}
        return {name: ORT_FLOATS.get(kind[1], kind[1]) for name, kind in kinds.items() if kind}

    def origins(self, nodes: Sequence[Any]) -> list[frozenset[str]]:
        """For every node (NodeProto) of the optimised graph, the names of the model's nodes that it computes."""
        original = [GraphNode(n.name, n.op_type, n.inputs, n.outputs) for n in self.model.nodes]
        graph = [GraphNode(n.name, n.op_type, tuple(n.input), tuple(n.output)) for n in nodes]
        return trace_origins(original, graph, self.model.initializers)

    def save_optimised(self, folder: Path) -> OnnxModel:
        """The graph that this engine runs, with its larger weights beside it in ``folder``."""
        path = folder / "optimised.onnx"
        with native_stderr():
            self._open(optimised_path=path)
        return OnnxModel(path, original=self.model.original, made="optimised by ONNX Runtime")

    def _optimised_nodes(self) -> _OptimisedGraph:
        with tempfile.TemporaryDirectory(prefix="trtgray-") as folder:
            graph = self.save_optimised(Path(folder)).proto.graph
        return _OptimisedGraph(
            tuple(graph.node), {tensor.name: dtype_name(tensor.data_type) for tensor in graph.initializer}
        )

    def _tensors(
        self, names: Sequence[str], constants: Mapping[str, str], origins: Sequence[str] = ()
    ) -> tuple[LayerTensor, ...]:
        """Tensors with their types; a tensor that ONNX Runtime made up has the type of what it stands for."""
        known = self.model.tensors
        fallback = next((known[name].dtype for name in origins if name in known), "")
        return tuple(
            LayerTensor(name, constants.get(name) or (known[name].dtype if name in known else fallback))
            for name in names
            if name
        )


def open_reference(
    model: OnnxModel, *, name: str = "", provider: Provider = "CPUExecutionProvider", device_index: int = 0
) -> OnnxRuntimeEngine:
    """A model as written: without optimisations, without TF32, at any shape that its inputs allow.

    Raises:
        EngineError: as of :class:`OnnxRuntimeEngine`.
    """
    return OnnxRuntimeEngine(
        model,
        name=name or f"{model.path.stem}-fp32",
        profiles=({spec.name: any_shape(spec) for spec in model.inputs},),
        provider=provider,
        optimisation="none",
        device_index=device_index,
    )


class _OptimisedGraph:
    def __init__(self, nodes: tuple[Any, ...], constants: Mapping[str, str]) -> None:
        self.nodes = nodes
        self.constants = constants


class _OrtTiming:
    """One session of ONNX Runtime with its feed."""

    def __init__(self, engine: OnnxRuntimeEngine, session: Any, feed: Feed, *, profiled: bool) -> None:
        self._engine = engine
        self._session = session
        self._profile: Path | None = None
        self._profiled = profiled
        self.bind(feed)

    def bind(self, feed: Feed) -> None:
        self._feed = self._engine.checked(feed)

    def transfers(self) -> None:
        return None

    def run(self) -> float:
        started = time.perf_counter_ns()
        self._session.run(None, self._feed)
        return (time.perf_counter_ns() - started) / 1e3

    def infer(self, feed: Feed) -> tuple[dict[str, NDArray[Any]], float]:
        return self._engine.outputs_of(self._session, self._engine.checked(feed))

    def layer_times(self, *, pause_s: float = 0.0) -> list[dict[str, float]]:
        self.close()
        if self._profile is None:
            return []
        return read_profile(list(_profile_events(self._profile, pause_s)))

    def close(self) -> None:
        if self._profiled and self._profile is None:
            self._profile = Path(self._session.end_profiling())


def _profile_events(path: Path, pause_s: float) -> Iterator[Mapping[str, Any]]:
    """The events of a profile that :func:`read_profile` needs; ONNX Runtime writes one a line.

    A parser that is given the whole file holds the interpreter's lock until it is through.
    """
    kernel = KERNEL_SUFFIX.encode()
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if kernel in line or b'"model_run"' in line:
                yield json.loads(line.strip().rstrip(b","))
            if pause_s and number % _EVENTS_AT_ONCE == 0:
                time.sleep(pause_s)


def read_profile(events: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Per ``model_run`` of an ONNX Runtime profile, microseconds of each node by its stable name.

    What runs inside of another kernel (the branches of If, the body of Loop) is part of that kernel's time. A
    node that runs several times in one inference is summed.
    """
    runs = sorted((event["ts"], event["ts"] + event["dur"]) for event in events if event.get("name") == "model_run")
    kernels = sorted(
        (event for event in events if event.get("cat") == "Node" and event["name"].endswith(KERNEL_SUFFIX)),
        key=lambda event: (event["ts"], event["ts"] + event["dur"]),
    )
    holders = [
        (event["ts"], event["ts"] + event["dur"])
        for event in kernels
        if event.get("args", {}).get("op_name") in _WITH_SUBGRAPHS
    ]
    outer = [
        (event["ts"], event["name"][: -len(KERNEL_SUFFIX)], float(event["dur"]))
        for event in kernels
        if not _is_inside(event, holders)
    ]
    names = list(dict.fromkeys(name for _, name, _ in outer))
    stable = dict(zip(names, stable_names(names), strict=True))
    times: list[dict[str, float]] = [{} for _ in runs]
    current = 0
    for started, name, duration in outer:
        while current + 1 < len(runs) and started > runs[current][1]:
            current += 1
        if times:
            times[current][stable[name]] = times[current].get(stable[name], 0.0) + duration
    return times


def _is_inside(event: Mapping[str, Any], holders: Sequence[tuple[float, float]]) -> bool:
    start, end = event["ts"], event["ts"] + event["dur"]
    return any(first <= start and end <= last and (first, last) != (start, end) for first, last in holders)


def stable_names(names: Sequence[str]) -> list[str]:
    """Node names without ``_token_17``: ONNX Runtime counts these on from one session to the next.

    >>> stable_names(["ReorderOutput_token_3", "conv", "ReorderOutput_token_9"])
    ['ReorderOutput', 'conv', 'ReorderOutput #2']
    """
    counts: dict[str, int] = {}
    stable = []
    for name in names:
        plain = _TOKEN.sub("", name)
        if not plain:  # nodes of functions that were inlined; the profile calls them by type and number
            stable.append("")
            continue
        counts[plain] = counts.get(plain, 0) + 1
        stable.append(plain if counts[plain] == 1 else f"{plain} #{counts[plain]}")
    return stable


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def require_provider(provider: Provider) -> None:
    """Refuse an execution provider that this ONNX Runtime does not have.

    Raises:
        EngineError: names those that it has.
    """
    available = quiet_import("onnxruntime").get_available_providers()
    if provider not in available:
        raise EngineError(
            "onnxruntime",
            f"this build has no {provider}; it has {', '.join(available)}",
            "Install onnxruntime-gpu: pip install 'pytest-trtgray[gpu]'.",
        )


def onnxruntime_version() -> str:
    """The installed version.

    Raises:
        EngineError: not installed.
    """
    return str(quiet_import("onnxruntime").__version__)


def choose_provider(device_index: int = 0) -> Provider:
    """CUDA where a GPU and a build that can use it are there, else the CPU."""
    ort = quiet_import("onnxruntime")
    has_cuda = "CUDAExecutionProvider" in ort.get_available_providers()
    return "CUDAExecutionProvider" if has_cuda and find_gpu(device_index) else "CPUExecutionProvider"
