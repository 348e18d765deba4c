"""TensorRT and TensorRT for RTX behind one adapter.

Members differ between 8.5 and 11 and between the flavours; the adapter asks ``hasattr`` and knows enums by
name, never by number (``STRONGLY_TYPED`` is 1 in 10.x and 0 in 11.x). The builder of TensorRT for RTX runs
without a GPU; everything else asks :func:`~pytest_trtgray.engines.device.find_gpu` first, because on a
machine without a driver some objects of TensorRT crash the process when they are only looked at.
"""

from __future__ import annotations

import contextlib
import functools
import re
import time
import warnings
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from pytest_trtgray.engines.base import DEFAULT_TIMING, Engine, Feed, TimingContext, TimingOptions
from pytest_trtgray.engines.building import primary_context
from pytest_trtgray.engines.callbacks import deferred_interrupt, logger_of, recorder_of
from pytest_trtgray.engines.cuda import cuda
from pytest_trtgray.engines.device import find_gpu, no_gpu_reason
from pytest_trtgray.engines.execution import Execution
from pytest_trtgray.engines.flavour import PRODUCT, check_version, first_cause, shares_profiles
from pytest_trtgray.engines.header import EngineHeader, Flavour, read_header
from pytest_trtgray.engines.layer_listing import datatype, layers_from_json, layers_from_rows, parse_listing
from pytest_trtgray.engines.model import EngineInfo, Layer, Memory, ShapeProfile, ShapeRange, TensorSpec
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.profiles import check_shapes, requested
from pytest_trtgray.engines.scopes import with_scoped_names
from pytest_trtgray.engines.taps import Taps
from pytest_trtgray.errors import EngineError, NotRunnableError
from pytest_trtgray.files import write_atomically
from pytest_trtgray.logs.buffer import RecordBuffer
from pytest_trtgray.logs.capture import native_stderr
from pytest_trtgray.logs.records import LogSeverity, Record
from pytest_trtgray.logs.sink import SINK
from pytest_trtgray.vendor import is_installed, quiet_import

FREE_MEMORY = "Free memory on the GPU (nvidia-smi shows who uses it), or build with smaller --trt-max-shapes."
_OUT_OF_MEMORY = re.compile(r"out of memory|outofmemory|alloc|cudaerror 2\b", re.IGNORECASE)


class TensorRTEngine(Engine):
    """An engine of either flavour.

    Args:
        path: the engine file.
        name: short name for reports.
        model: the ONNX model behind it, if known: input limits, and tensor specs without a GPU.
        profiles: of the build; read from the engine where there is a GPU.
        facts: what :func:`build` told, if it was built here.
        records: what the build said, if it was built here; what loading says is added.
        targets: the hardware it was built for.
        notes: what was assumed about the profiles.
        device_index: CUDA device.
        log_level: what is kept of what TensorRT says.

    Raises:
        EngineError: damaged, made by another version, or refused by TensorRT.
    """

    reads_device_arrays: ClassVar[bool] = True

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        model: OnnxModel | None = None,
        profiles: tuple[ShapeProfile, ...] = (),
        facts: Mapping[str, Any] | None = None,
        records: RecordBuffer | None = None,
        targets: str = "",
        notes: tuple[str, ...] = (),
        device_index: int = 0,
        log_level: LogSeverity = "info",
    ) -> None:
        self.path = path
        self.model = model
        self.header = read_header(path)
        self.notes = notes
        self._facts = facts or {}
        self._device_index = device_index
        self._execution: Execution | None = None
        self._executions: weakref.WeakSet[Execution] = weakref.WeakSet()
        self._kernels: KernelCache | None = None
        self._runtime_configs: dict[TimingOptions, Any] = {}
        flavour = self.flavour = self.header.runtime
        check_version(path, self.header)
        device = find_gpu(device_index)
        self.blocked = (
            "" if device else f"running a {PRODUCT[flavour]} engine needs a GPU: " + no_gpu_reason(device_index)
        )
        self._engine: Any = None
        said = RecordBuffer() if records is None else records
        if device is not None:
            with SINK.collect("load", level=log_level) as loaded, native_stderr():
                try:
                    self._engine = _deserialize(path, flavour, self.header, device_index)
                except EngineError as error:
                    if not self._facts:
                        raise
                    # What was built here can still be looked at (RTX 1.7 builds on any GPU and runs on few).
                    self.blocked = error.reason
            for record in loaded:
                said.append(record)
        self.records: Sequence[Record] = said
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
            memory=self._memory(),
        )

    @functools.cached_property
    def layers(self) -> tuple[Layer, ...]:
        """From the build's log where it was built here (the same on every machine), else the inspector."""
        names = self.model.scoped_names if self.model else {}
        if rows := self._facts.get("layers"):
            return with_scoped_names(layers_from_rows(rows), names)
        if self._engine is None:
            raise NotRunnableError(
                self.info.name,
                f"the layers of an engine file are only shown on a GPU: {no_gpu_reason(self._device_index)}",
                "Give the .onnx instead of the engine: the build's log lists them on any machine.",
            )
        trt = quiet_import(self.flavour)
        inspector = self._engine.create_engine_inspector()
        with self._optimal_context() as context:
            if context is not None:
                inspector.execution_context = context
            text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
        return with_scoped_names(layers_from_json(parse_listing(text)), names)

    @contextmanager
    def _optimal_context(self) -> Iterator[Any]:
        """A context at the optimal shapes: without one, TensorRT 8 does not tell the types of dynamic tensors."""
        dynamic = any(low != high for low, high in ((b.min, b.max) for b in self.info.profiles[0].values()))
        if self.flavour != "tensorrt" or not dynamic or self.blocked or not is_installed("pycuda"):
            yield None
            return
        self._make_way()
        with cuda(self._device_index).current():
            context = self._create_context(DEFAULT_TIMING)
            if context is not None:
                for spec in self.info.inputs:
                    if not spec.is_shape:
                        context.set_input_shape(spec.name, self.info.profiles[0][spec.name].opt)
            yield context
            del context

    @property
    def rebuild_s(self) -> float:
        """What the build took; unknown of an engine file."""
        return float(self._facts.get("build_s", "inf"))

    @property
    def timing_method(self) -> Mapping[str, str]:
        """TensorRT's profiler for layers; CUDA events around the execution alone for the engine."""
        method = {"layers": "tensorrt-profiler", "engine": "cuda-events", "transfers": "no", "cuda_graph": "no"}
        if self.flavour == "tensorrt_rtx":
            method["kernels"] = "eager"
        return method

    @contextmanager
    def timing_context(
        self, feed: Feed, *, profiled: bool, options: TimingOptions = DEFAULT_TIMING
    ) -> Iterator[TimingContext]:
        """A fresh execution context, with TensorRT's profiler if ``profiled``."""
        self.require_runnable()
        if profiled:  # under a CUDA graph the profiler sees one meaningless layer
            options = replace(options, cuda_graph=False)
        profiler = _layer_clock(quiet_import(self.flavour))() if profiled else None
        with SINK.collect("run") as records, self._explained(records):
            execution = self._new_execution(profiler, options)
            try:
                # TensorRT for RTX captures by itself, at each new shape
                capture = options.cuda_graph and self.flavour == "tensorrt"
                timing = _TrtTiming(self, execution, profiler, capture=capture)
                timing.bind(feed)
                yield timing
            finally:
                execution.close()

    @contextmanager
    def taps(self, feed: Feed) -> Iterator[Taps]:
        """A second build of the model that shows what no fusion takes away; before 10.12, what is made an output."""
        from pytest_trtgray.engines.tensorrt_taps import open_taps

        with open_taps(self, self.checked(feed)) as taps:
            yield taps

    def run_watched(
        self, feed: Mapping[str, Any], wanted: Collection[str]
    ) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """Infer once in a context that shows its debug tensors.

        Args:
            feed: checked.
            wanted: names of the debug tensors to keep.

        Returns:
            the debug tensors that showed, and the outputs.

        Raises:
            EngineError: TensorRT refuses the listener, or a tensor could not be copied.
        """
        from pytest_trtgray.engines.tensorrt_taps import debug_listener

        self.require_runnable()
        listener = debug_listener(quiet_import(self.flavour), wanted, self._device_index)
        with SINK.collect("run") as records, self._explained(records):
            execution = self._new_execution(None, DEFAULT_TIMING)
            try:
                execution.bind(feed, self.profile_of(feed))
                execution.watched(listener)
                outputs = execution.fetch()
            finally:
                execution.close()
        if listener.failures:
            raise EngineError(self.info.name, f"a debug tensor could not be read: {listener.failures[0]}")
        return listener.shown, outputs

    def renew(self) -> None:
        """Start over in a fresh execution context; compiled kernels are kept."""
        if self._execution is not None:
            self._execution.close()
            self._execution = None

    def close(self) -> None:
        """Free the engine and its contexts; keep the kernels that were compiled for this GPU."""
        self.renew()
        if self._kernels is not None:
            with cuda(self._device_index).current():
                self._kernels.save()
        # what was made last goes first
        self._runtime_configs.clear()
        self._kernels = None
        self._engine = None

    def _infer(self, feed: dict[str, Any]) -> dict[str, NDArray[Any]]:
        # current from begin to end: another thread may run the same engine
        with SINK.collect("run") as records, self._explained(records), cuda(self._device_index).current():
            if self._execution is None:
                self._execution = self._new_execution(None, DEFAULT_TIMING)
            self._execution.bind(feed, self.profile_of(feed))
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
            cause = first_cause(records, "")
            said = f"{error.reason}: {cause}" if cause else error.reason
            raise EngineError(self.info.name, said, error.remedy) from error

    def profile_of(self, arrays: Mapping[str, Any]) -> int:
        """Index of the first optimization profile that contains a feed."""
        return check_shapes(self.info.profiles, requested(self.info.inputs, arrays), self.info.name)

    def _new_execution(self, profiler: Any, options: TimingOptions) -> Execution:
        """A fresh execution context with buffers of its own."""
        device = cuda(self._device_index)
        self._make_way()
        with device.current():
            context = self._create_context(options)
            if context is None:
                raise EngineError(
                    self.info.name,
                    f"no execution context can be created on {self._memory_text(device)}",
                    FREE_MEMORY,
                )
            context.error_recorder = recorder_of(self.flavour)
            if profiler is not None:
                # before the shapes: TensorRT 8.5 reports nothing to a profiler that comes later
                context.profiler = profiler
                context.enqueue_emits_profile = False
        execution = Execution(
            quiet_import(self.flavour),
            self._engine,
            context,
            device,
            inputs=self.info.inputs,
            outputs=self.info.outputs,
            name=self.info.name,
        )
        self._executions.add(execution)
        return execution

    def _make_way(self) -> None:
        """Give the profiles back that the context for :meth:`run` holds, where another one could not have them.

        Raises:
            EngineError: somebody else's context holds them.
        """
        if shares_profiles(self.flavour):
            return
        self.renew()
        if any(execution.context is not None for execution in self._executions):
            raise EngineError(
                self.info.name,
                f"has one execution context at a time in TensorRT {self.info.version}, and one is open",
                "Close that one first. To profile in service, or to have several contexts, use TensorRT 10 or newer.",
            )

    def _memory_text(self, device: Any) -> str:
        with device.current() as driver:
            free, total = driver.mem_get_info()
        return f"a GPU with {free / 1e9:.1f} of {total / 1e9:.1f} GB free"

    def _create_context(self, options: TimingOptions) -> Any:
        if not hasattr(self._engine, "create_runtime_config"):
            return self._engine.create_execution_context()
        if options not in self._runtime_configs:
            config = self._engine.create_runtime_config()
            self._configure(config, options)
            self._runtime_configs[options] = config  # one for all contexts of a kind; it has to live as long as they
        return self._engine.create_execution_context(self._runtime_configs[options])

    def _configure(self, config: Any, options: TimingOptions) -> None:
        """How the contexts of a runtime configuration compile and launch their kernels."""
        trt = quiet_import(self.flavour)
        if hasattr(config, "dynamic_shapes_kernel_specialization_strategy"):
            # compiled when a shape is first seen; lazily compiled kernels would change the times while measuring
            eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
            config.dynamic_shapes_kernel_specialization_strategy = eager
        if options.cuda_graph and hasattr(config, "cuda_graph_strategy"):
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if options.kept_kernels and hasattr(config, "create_runtime_cache"):
            if self._kernels is None:
                self._kernels = KernelCache(config.create_runtime_cache(), self._kernel_file())
            config.set_runtime_cache(self._kernels.cache)

    def _kernel_file(self) -> Path | None:
        """Beside an engine that was built here; nobody asked for a file beside the user's own."""
        device = self.info.device
        return self.path.with_suffix(f".{device.sm}.kernels") if self._facts and device else None

    def _memory(self) -> Memory:
        """What the build told; of an engine file what a context needs, activations and scratch together."""
        if self._facts or self._engine is None:
            return Memory(**self._facts.get("memory", {}))
        engine = self._engine
        if hasattr(engine, "device_memory_size_v2"):
            return Memory(activations_bytes=int(engine.device_memory_size_v2))
        return Memory(
            activations_bytes=int(engine.device_memory_size) if hasattr(engine, "device_memory_size") else None
        )

    def _specs(self, mode: str) -> tuple[TensorSpec, ...]:
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        return tuple(
            TensorSpec(
                name,
                datatype(self._engine.get_tensor_dtype(name).name),
                tuple(dim if dim >= 0 else "?" for dim in self._engine.get_tensor_shape(name)),
                is_shape=mode == "INPUT" and bool(self._engine.is_shape_inference_io(name)),
            )
            for name in names
            if self._engine.get_tensor_mode(name).name == mode
        )

    def _profiles(self, inputs: Sequence[TensorSpec]) -> tuple[ShapeProfile, ...]:
        return tuple(
            {spec.name: ShapeRange(*map(tuple, self._bounds(spec, index))) for spec in inputs}
            for index in range(self._engine.num_optimization_profiles)
        )

    def _bounds(self, spec: TensorSpec, profile: int) -> Any:
        if not spec.is_shape:
            return self._engine.get_tensor_profile_shape(spec.name, profile)
        if hasattr(self._engine, "get_tensor_profile_values"):
            # by position: the names of the two arguments are swapped in every version
            return self._engine.get_tensor_profile_values(profile, spec.name)
        if hasattr(self._engine, "get_profile_shape_input"):
            # TensorRT 8.5 tells the first value only; the others are taken to have the same range
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecated there, without a successor for values before 8.6
                found = self._engine.get_profile_shape_input(profile, spec.name)
            count = spec.value_count
            return [(*bound, *bound[-1:] * count)[:count] for bound in map(tuple, found)]
        raise EngineError(self.info.name, f"this TensorRT does not tell the range of the values of {spec.name!r}")


class _TrtTiming:
    def __init__(self, engine: TensorRTEngine, execution: Execution, profiler: Any, *, capture: bool) -> None:
        self._engine = engine
        self._execution = execution
        self._profiler = profiler
        self._capture = capture

    def bind(self, feed: Feed) -> None:
        arrays = self._engine.checked(feed)
        self._execution.bind(arrays, self._engine.profile_of(arrays))
        if self._capture:
            self._execution.capture()

    def run(self) -> float:
        if self._profiler is None:
            return self._execution.timed()
        self._profiler.times.append({})
        started = time.perf_counter_ns()
        self._execution.profiled()
        return (time.perf_counter_ns() - started) / 1e3

    def infer(self, feed: Feed) -> tuple[dict[str, NDArray[Any]], float]:
        self.bind(feed)
        took_us = self.run()
        return self._execution.fetch(), took_us

    def transfers(self) -> tuple[float, float] | None:
        return self._execution.timed_transfers()

    def layer_times(self, *, pause_s: float = 0.0) -> list[dict[str, float]]:
        return list(self._profiler.times) if self._profiler is not None else []


class KernelCache:
    """Kernels that TensorRT for RTX compiled for this GPU, kept from run to run.

    Args:
        cache: an ``IRuntimeCache``.
        path: the file; ``None`` to keep them for this process only.
    """

    def __init__(self, cache: Any, path: Path | None) -> None:
        self.cache = cache
        self._path = path
        self._stored = b""
        if path is not None and path.exists():
            stored = path.read_bytes()
            # a file of another driver or version is refused
            if self.cache.deserialize(stored):  # api: deserialize
                self._stored = stored

    def save(self) -> None:
        """Write the file if there are new kernels; a cache that cannot be written costs time only."""
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            content = bytes(self.cache.serialize())
            if content != self._stored:
                write_atomically(self._path, content)


def _deserialize(path: Path, flavour: Flavour, header: EngineHeader, device_index: int) -> Any:
    trt = quiet_import(flavour)
    with deferred_interrupt(), SINK.collect("load") as records, primary_context(device_index):
        runtime = trt.Runtime(logger_of(flavour))
        runtime.error_recorder = recorder_of(flavour)
        engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        gpu = find_gpu(device_index)
        targets = f" It was built for {', '.join(header.targets)}." if header.targets else ""
        cause = first_cause(records, "no reason given")
        if _OUT_OF_MEMORY.search(cause):
            raise EngineError(path, f"the GPU has no room for it: {cause}", FREE_MEMORY)
        raise EngineError(
            path,
            f"{PRODUCT[flavour]} {header.version} refuses it on {gpu.name if gpu else 'this machine'} "
            f"({gpu.sm if gpu else 'no GPU'}): {cause}",
            f"Build it again on this kind of GPU.{targets}",
        )
    # An engine does not keep its runtime alive.
    _runtimes.append(runtime)
    return engine


_runtimes: list[Any] = []


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
