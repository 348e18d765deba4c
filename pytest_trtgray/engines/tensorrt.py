"""TensorRT and TensorRT for RTX behind one adapter.

Members differ between 8.5 and 11 and between the flavours; the adapter asks ``hasattr`` and knows enums by
name, never by number (``STRONGLY_TYPED`` is 1 in 10.x and 0 in 11.x). The builder of TensorRT for RTX runs
without a GPU; everything else asks :func:`~pytest_trtgray.engines.device.find_gpu` first, because on a
machine without a driver some objects of TensorRT crash the process when they are only looked at.
"""

from __future__ import annotations

import contextlib
import functools
import json
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pytest_trtgray.engines.base import Engine, Feed, TimingContext
from pytest_trtgray.engines.cuda import cuda
from pytest_trtgray.engines.device import find_gpu, no_gpu_reason
from pytest_trtgray.engines.execution import Execution
from pytest_trtgray.engines.header import EngineHeader, Flavour, read_header
from pytest_trtgray.engines.layer_listing import (
    datatype,
    layers_from_json,
    layers_from_log,
    layers_from_rows,
    layers_to_rows,
    memory_from_log,
)
from pytest_trtgray.engines.model import EngineInfo, Layer, Memory, ShapeProfile, ShapeRange, TensorSpec
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.profiles import check_shapes
from pytest_trtgray.errors import EngineError, NotRunnableError
from pytest_trtgray.files import write_atomically
from pytest_trtgray.logs.capture import native_stderr
from pytest_trtgray.logs.records import SINK, LogSeverity, Record, problems
from pytest_trtgray.vendor import is_installed, quiet_import

PRODUCT = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}
_SILENT = 1_000  # above every severity of Polygraphy's logger: errors come as exceptions
_MAX_KEPT_MESSAGE = 20_000


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    Attributes:
        flavour: which TensorRT.
        profiles: optimization profiles.
        tf32: whether FP32 layers may compute in TF32 (TensorRT's default); off for a reference.
    """

    flavour: Flavour
    profiles: tuple[ShapeProfile, ...]
    tf32: bool = True


def version_of(flavour: Flavour) -> str:
    """The installed version.

    Raises:
        EngineError: not installed.
    """
    return str(quiet_import(flavour).__version__)


def build(model: OnnxModel, request: BuildRequest) -> tuple[bytes, dict[str, Any]]:
    """Build an engine: strongly typed, with detailed layer information.

    Returns:
        the serialized engine, and facts for the cache: ``layers``, ``memory``, ``records``, ``build_s``.

    Raises:
        EngineError: the model does not parse or does not build; carries the first cause from the log.
    """
    if request.flavour == "tensorrt" and find_gpu() is None:
        raise NotRunnableError(
            model.path.name,
            f"building with TensorRT needs a GPU: {no_gpu_reason()}",
            "Use --trt-runtime=tensorrt_rtx, whose builder needs none, or run on a GPU machine.",
        )
    backend = _polygraphy(request.flavour)
    started = time.perf_counter()
    with SINK.collect("build") as records, native_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Polygraphy's use of deprecated members is not the user's
        try:
            engine = _build(backend, model, request)
        except backend.error as error:
            raise EngineError(
                model.path,
                f"{PRODUCT[request.flavour]} {version_of(request.flavour)} cannot build it: "
                + _first_cause(records, str(error)),
                "See the log of the build: trt_log in a test, or the `log` test of the built-in suite.",
            ) from None
    messages = [record.message for record in records]
    memory = memory_from_log(messages)
    facts = {
        "layers": layers_to_rows(layers_from_log(messages)),
        "memory": {name: value for name, value in vars(memory).items() if value is not None},
        "records": [_kept(record) for record in records if record.severity != "verbose"],
        "build_s": round(time.perf_counter() - started, 3),
    }
    return engine, facts


class TensorRTEngine(Engine):
    """An engine of either flavour.

    Args:
        path: the engine file.
        name: short name for reports.
        model: the ONNX model behind it, if known: input limits, and tensor specs without a GPU.
        profiles: of the build; read from the engine where there is a GPU.
        facts: what :func:`build` told, if it was built here.
        targets: the hardware it was built for.
        notes: what was assumed about the profiles.
        device_index: CUDA device.

    Raises:
        EngineError: damaged, made by another version, or refused by TensorRT.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        model: OnnxModel | None = None,
        profiles: tuple[ShapeProfile, ...] = (),
        facts: Mapping[str, Any] | None = None,
        targets: str = "",
        notes: tuple[str, ...] = (),
        device_index: int = 0,
    ) -> None:
        self.path = path
        self.model = model
        self.header = read_header(path)
        self.notes = notes
        self._facts = facts or {}
        self._device_index = device_index
        self._execution: Execution | None = None
        self._kernels: KernelCache | None = None
        self._runtime_config: Any = None
        flavour = self.flavour = self.header.runtime
        check_version(path, self.header)
        device = find_gpu(device_index)
        self.blocked = (
            "" if device else f"running a {PRODUCT[flavour]} engine needs a GPU: " + no_gpu_reason(device_index)
        )
        self._engine: Any = None
        loaded: tuple[Record, ...] = ()
        if device is not None:
            with SINK.collect("load") as collected, native_stderr():
                try:
                    self._engine = _deserialize(path, flavour, self.header, device_index)
                except EngineError as error:
                    if not self._facts:
                        raise
                    # What was built here can still be looked at (RTX 1.7 builds on any GPU and runs on few).
                    self.blocked = error.reason
            loaded = tuple(collected)
        self.records: Sequence[Record] = (
            *(Record.from_dict(record) for record in self._facts.get("records", ())),
            *loaded,
        )
        # The model knows more: symbols such as "batch", and which values an input takes.
        inputs = model.inputs if model else self._specs("INPUT") if self._engine else ()
        outputs = model.outputs if model else self._specs("OUTPUT") if self._engine else ()
        self.info = EngineInfo(
            name=name,
            path=str(path),
            runtime=flavour,
            version=self.header.version,
            inputs=inputs,
            outputs=outputs,
            profiles=profiles or (self._profiles(inputs) if self._engine else ()),
            device=device,
            targets=targets or "+".join(self.header.targets),
            memory=Memory(**self._facts.get("memory", {})),
        )

    @functools.cached_property
    def layers(self) -> tuple[Layer, ...]:
        """From the build's log where it was built here (the same on every machine), else the inspector."""
        if rows := self._facts.get("layers"):
            return tuple(layers_from_rows(rows))
        if self._engine is None:
            raise NotRunnableError(
                self.info.name,
                f"the layers of an engine file are only shown on a GPU: {no_gpu_reason(self._device_index)}",
                "Give the .onnx instead of the engine: the build's log lists them on any machine.",
            )
        trt = quiet_import(self.flavour)
        inspector = self._engine.create_engine_inspector()
        text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
        return tuple(layers_from_json(json.loads(text)))

    @property
    def timing_method(self) -> Mapping[str, str]:
        """TensorRT's profiler for layers; CUDA events around the execution alone for the engine."""
        method = {"layers": "tensorrt-profiler", "engine": "cuda-events", "transfers": "no", "cuda_graph": "no"}
        if self.flavour == "tensorrt_rtx":
            method["kernels"] = "eager"
        return method

    @contextmanager
    def timing_context(self, feed: Feed, *, profiled: bool) -> Iterator[TimingContext]:
        """A fresh execution context, with TensorRT's profiler if ``profiled``."""
        self.require_runnable()
        arrays = self.checked(feed)
        profiler = _layer_clock(quiet_import(self.flavour))() if profiled else None
        with SINK.collect("run") as records, self._explained(records):
            execution = self._new_execution(profiler)
            try:
                execution.bind(arrays, self._profile_of(arrays))
                yield _TrtTiming(execution, profiler)
            finally:
                execution.close()

    def close(self) -> None:
        """Free the engine and its contexts; keep the kernels that were compiled for this GPU."""
        if self._execution is not None:
            self._execution.close()
        if self._kernels is not None:
            self._kernels.save()
        # what was made last goes first
        self._execution = None
        self._runtime_config = None
        self._kernels = None
        self._engine = None

    def _infer(self, feed: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with SINK.collect("run") as records, self._explained(records):
            if self._execution is None:
                self._execution = self._new_execution(None)
            self._execution.bind(feed, self._profile_of(feed))
            self._execution.enqueue()
            return self._execution.fetch()

    @contextmanager
    def _explained(self, records: Iterable[Record]) -> Iterator[None]:
        """Add what TensorRT logged to an error of the execution."""
        try:
            yield
        except NotRunnableError:
            raise
        except EngineError as error:
            cause = _first_cause(records, "")
            said = f"{error.reason}: {cause}" if cause else error.reason
            raise EngineError(self.info.name, said, error.remedy) from error

    def _profile_of(self, feed: Mapping[str, NDArray[Any]]) -> int:
        return check_shapes(self.info.profiles, {name: a.shape for name, a in feed.items()}, self.info.name)

    def _new_execution(self, profiler: Any) -> Execution:
        """A fresh execution context with buffers of its own."""
        device = cuda(self._device_index)
        with device.current():
            context = self._create_context()
            if context is None:
                raise EngineError(self.info.name, "TensorRT cannot create an execution context", "Is the GPU full?")
            if profiler is not None:
                # before the shapes: TensorRT 8.5 reports nothing to a profiler that comes later
                context.profiler = profiler
                context.enqueue_emits_profile = False
        return Execution(
            quiet_import(self.flavour),
            self._engine,
            context,
            device,
            inputs=self.info.inputs,
            outputs=self.info.outputs,
            name=self.info.name,
        )

    def _create_context(self) -> Any:
        if not hasattr(self._engine, "create_runtime_config"):
            return self._engine.create_execution_context()
        if self._runtime_config is None:
            self._runtime_config = self._make_runtime_config()
        return self._engine.create_execution_context(self._runtime_config)

    def _make_runtime_config(self) -> Any:
        """One configuration for all contexts of the engine; it has to live as long as they do."""
        trt = quiet_import(self.flavour)
        config = self._engine.create_runtime_config()
        if hasattr(config, "dynamic_shapes_kernel_specialization_strategy"):
            # compiled when a shape is first seen; lazily compiled kernels would change the times while measuring
            eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
            config.dynamic_shapes_kernel_specialization_strategy = eager
        if hasattr(config, "set_runtime_cache"):
            self._kernels = KernelCache(config, self._kernel_file())
            config.set_runtime_cache(self._kernels.cache)
        return config

    def _kernel_file(self) -> Path | None:
        """Beside an engine that was built here; nobody asked for a file beside the user's own."""
        device = self.info.device
        return self.path.with_suffix(f".{device.sm}.kernels") if self._facts and device else None

    def _specs(self, mode: str) -> tuple[TensorSpec, ...]:
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        return tuple(
            TensorSpec(
                name,
                datatype(self._engine.get_tensor_dtype(name).name),
                tuple(dim if dim >= 0 else "?" for dim in self._engine.get_tensor_shape(name)),
            )
            for name in names
            if self._engine.get_tensor_mode(name).name == mode
        )

    def _profiles(self, inputs: Sequence[TensorSpec]) -> tuple[ShapeProfile, ...]:
        return tuple(
            {
                spec.name: ShapeRange(
                    *(tuple(shape) for shape in self._engine.get_tensor_profile_shape(spec.name, index))
                )
                for spec in inputs
            }
            for index in range(self._engine.num_optimization_profiles)
        )


class _TrtTiming:
    def __init__(self, execution: Execution, profiler: Any) -> None:
        self._execution = execution
        self._profiler = profiler

    def run(self) -> float:
        if self._profiler is None:
            return self._execution.timed()
        self._profiler.times.append({})
        started = time.perf_counter_ns()
        self._execution.profiled()
        return (time.perf_counter_ns() - started) / 1e3

    def layer_times(self) -> list[dict[str, float]]:
        return list(self._profiler.times) if self._profiler is not None else []


class KernelCache:
    """Kernels that TensorRT for RTX compiled for this GPU, kept from run to run.

    Args:
        config: a runtime configuration that can create a cache.
        path: the file; ``None`` to keep them for this process only.
    """

    def __init__(self, config: Any, path: Path | None) -> None:
        self.cache = config.create_runtime_cache()
        self._path = path
        self._stored = b""
        if path is not None and path.exists():
            stored = path.read_bytes()
            if self.cache.deserialize(stored):  # a file of another driver or version is refused
                self._stored = stored

    def save(self) -> None:
        """Write the file if there are new kernels; a cache that cannot be written costs time only."""
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            content = bytes(self.cache.serialize())
            if content != self._stored:
                write_atomically(self._path, content)


def check_version(path: Path, header: EngineHeader) -> None:
    """Refuse an engine that another version made, before native code sees it.

    Raises:
        EngineError: says which version made it and which is installed.
    """
    flavour = header.runtime
    product = PRODUCT[flavour]
    try:
        installed = version_of(flavour)
    except EngineError as error:
        raise EngineError(
            path, f"was built by {product} {header.version}; {error.reason}", f"Install {product} {header.version}."
        ) from error
    made_by, here = header.version.split(".")[:3], installed.split(".")[:3]
    if made_by != here:
        raise EngineError(
            path,
            f"was built by {product} {header.version}, {installed} is installed",
            f"Build it again with {installed} (give the .onnx to --trt-engine), or install {header.version}.",
        )


class _Polygraphy:
    def __init__(self, flavour: Flavour) -> None:
        import polygraphy

        config = quiet_import("polygraphy.config")
        config.USE_TENSORRT_RTX = flavour == "tensorrt_rtx"
        self.trt = quiet_import("polygraphy.backend.trt")
        self.rtx = quiet_import("polygraphy.backend.tensorrt_rtx") if flavour == "tensorrt_rtx" else None
        self.error = quiet_import("polygraphy.exception").PolygraphyException
        self.version = polygraphy.__version__
        quiet_import("polygraphy.logger").G_LOGGER.module_severity = _SILENT
        quiet_import("polygraphy.backend.trt.util").TRT_LOGGER = _logger(flavour)


_flavour_in_use: list[Flavour] = []


def _polygraphy(flavour: Flavour) -> _Polygraphy:
    # Polygraphy decides for one flavour when its backend is imported, for the whole process.
    if _flavour_in_use and _flavour_in_use[0] != flavour:
        raise EngineError(
            PRODUCT[flavour],
            f"this process already uses {PRODUCT[_flavour_in_use[0]]}",
            "Test the two flavours in two runs of pytest.",
        )
    _flavour_in_use[:] = [flavour]
    return _cached_polygraphy(flavour)


@functools.lru_cache(maxsize=2)
def _cached_polygraphy(flavour: Flavour) -> _Polygraphy:
    return _Polygraphy(flavour)


def _build(backend: _Polygraphy, model: OnnxModel, request: BuildRequest) -> bytes:
    trt = quiet_import(request.flavour)
    typed = hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    with SINK.phase("parse"):
        network = backend.trt.network_from_onnx_path(str(model.path), strongly_typed=typed)
    if network[1].num_layers == 0:
        raise backend.error("the parser found no layers")
    profiles = [_to_polygraphy(backend, profile) for profile in request.profiles]
    make_config = backend.rtx.CreateConfigRTX if backend.rtx else backend.trt.CreateConfig
    common = {} if backend.rtx else {"tf32": request.tf32}
    config = make_config(profiles=profiles, profiling_verbosity=trt.ProfilingVerbosity.DETAILED, **common)
    if backend.rtx and not request.tf32:
        config = backend.trt.PostprocessConfig(
            config, func=lambda builder, network, config: config.clear_flag(trt.BuilderFlag.TF32)
        )
    return bytes(backend.trt.engine_bytes_from_network(network, config=config))


def _to_polygraphy(backend: _Polygraphy, profile: ShapeProfile) -> Any:
    made = backend.trt.Profile()
    for name, bounds in profile.items():
        made.add(name, bounds.min, bounds.opt, bounds.max)
    return made


def _primary_context(device_index: int) -> AbstractContextManager[Any]:
    """The context that will run the engine; looking at an engine's layers needs no PyCUDA."""
    return cuda(device_index).current() if is_installed("pycuda") else contextlib.nullcontext()


def _deserialize(path: Path, flavour: Flavour, header: EngineHeader, device_index: int) -> Any:
    trt = quiet_import(flavour)
    with SINK.collect("load") as records, _primary_context(device_index):
        runtime = trt.Runtime(_logger(flavour))
        engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        gpu = find_gpu(device_index)
        targets = f" It was built for {', '.join(header.targets)}." if header.targets else ""
        raise EngineError(
            path,
            f"{PRODUCT[flavour]} {header.version} refuses it on {gpu.name if gpu else 'this machine'} "
            f"({gpu.sm if gpu else 'no GPU'}): {_first_cause(records, 'no reason given')}",
            f"Build it again on this kind of GPU.{targets}",
        )
    # An engine does not keep its runtime alive.
    _runtimes.append(runtime)
    return engine


_runtimes: list[Any] = []


def _first_cause(records: Any, fallback: str) -> str:
    """The first error of a cascade; the last line of it is mostly a consequence."""
    said = [r for r in problems(records) if r.severity != "warning"]
    text = said[0].message if said else fallback
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return " ".join(lines[:3]) if lines else fallback


def _kept(record: Record) -> dict[str, Any]:
    kept = record.to_dict()
    kept["message"] = record.message[:_MAX_KEPT_MESSAGE]
    return kept


@functools.lru_cache(maxsize=2)
def _logger(flavour: Flavour) -> Any:
    """The one logger of this process for a flavour; it feeds the sink and never raises."""
    trt = quiet_import(flavour)
    names: dict[str, LogSeverity] = {
        "INTERNAL_ERROR": "internal_error",
        "ERROR": "error",
        "WARNING": "warning",
        "INFO": "info",
        "VERBOSE": "verbose",
    }

    class Bridge(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            SINK.say(names.get(getattr(severity, "name", ""), "info"), flavour, message)

    return Bridge()


def _layer_clock(trt: Any) -> Any:
    """A profiler class of ``trt`` that notes microseconds of each layer, per inference."""

    class LayerClock(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.times: list[dict[str, float]] = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            if self.times:
                now = self.times[-1]
                now[layer_name] = now.get(layer_name, 0.0) + ms * 1e3

    return LayerClock
