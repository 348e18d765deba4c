"""Building engines, through Polygraphy: flags, calibration, timing cache, and what the build said.

A network is strongly typed where the flavour can do that and no precision was asked for: its types are those
of the ONNX model. Full TensorRT up to 10 also takes a precision as a flag; it then chooses layer by layer.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pytest_trtgray.engines.base import Feed
from pytest_trtgray.engines.callbacks import (
    Interrupt,
    deferred_interrupt,
    logger_of,
    monitor_of,
    recorder_of,
    say_parser_errors,
)
from pytest_trtgray.engines.cuda import cuda
from pytest_trtgray.engines.device import find_gpu, no_gpu_reason
from pytest_trtgray.engines.dtypes import numpy_dtype
from pytest_trtgray.engines.flavour import PRODUCT, first_cause, version_of
from pytest_trtgray.engines.header import Flavour
from pytest_trtgray.engines.layer_listing import datatype, layers_from_log, layers_to_rows, memory_from_log
from pytest_trtgray.engines.model import ShapeProfile, format_shape
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.errors import EngineError, NotRunnableError
from pytest_trtgray.files import locked, write_atomically
from pytest_trtgray.logs import redaction
from pytest_trtgray.logs.capture import native_stderr
from pytest_trtgray.logs.diagnosis import OK, UNDIAGNOSED, diagnose
from pytest_trtgray.logs.records import LogSeverity, Record, errors_of
from pytest_trtgray.logs.sink import SINK
from pytest_trtgray.logs.storage import packed
from pytest_trtgray.progress import PROGRESS
from pytest_trtgray.vendor import is_installed, quiet_import

_MAX_KEPT_MESSAGE = 20_000
_CACHE_FAULT = re.compile(r"myelincache|timing ?cache", re.IGNORECASE)
_FLAGS = {"fp16": ("FP16",), "bf16": ("BF16",), "fp8": ("FP8",), "int8": ("INT8",), "fp32": ()}
"""Flags of a weakly typed build. What a precision is not meant for stays in FP32, as it does in a Q/DQ model."""
_SEVERITIES: tuple[tuple[int, LogSeverity], ...] = (
    (logging.ERROR, "error"),
    (logging.WARNING, "warning"),
    (logging.INFO, "info"),
)


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    Attributes:
        flavour: which TensorRT.
        profiles: optimization profiles.
        tf32: whether FP32 layers may compute in TF32 (TensorRT's default); off for a reference.
        precision: flag of a weakly typed build (:func:`is_weakly_typed`); empty for the model's own types.
        calibration: inputs from which an INT8 build without Q/DQ nodes takes its ranges.
        tactic_sources: names of ``TacticSource``; empty for TensorRT's default.
        device: CUDA device on which kernels are tried.
        timing_cache: file that keeps measured kernels from build to build.
        log_file: where everything that is said goes, chatter included; ``None`` for nowhere.
        debug_tensors: whether the engine can show the tensors that no fusion takes away (:func:`shows_unfused`).
    """

    flavour: Flavour
    profiles: tuple[ShapeProfile, ...]
    tf32: bool = True
    precision: str = ""
    calibration: tuple[Feed, ...] = ()
    tactic_sources: tuple[str, ...] = ()
    device: int = 0
    timing_cache: Path | None = None
    log_file: Path | None = None
    debug_tensors: bool = False


def is_weakly_typed(flavour: Flavour) -> bool:
    """Whether precision is a flag of the builder: full TensorRT 8.5 to 10.

    TensorRT for RTX 1.4 still has the flags' names, and rejects them.
    """
    return flavour == "tensorrt" and hasattr(quiet_import(flavour).BuilderFlag, "FP16")


def shows_unfused(flavour: Flavour) -> bool:
    """Whether an engine can show tensors without losing fusions: TensorRT for RTX, and TensorRT from 10.12 on."""
    return hasattr(quiet_import(flavour).INetworkDefinition, "mark_unfused_tensors_as_debug_tensors")


def build(model: OnnxModel, request: BuildRequest) -> tuple[bytes, dict[str, Any]]:
    """Build an engine with detailed layer information.

    Returns:
        the serialized engine, and facts for the cache: ``layers``, ``memory``, ``records`` (without the chatter of
        severity ``verbose``), ``build_s``, ``files``.

    Raises:
        EngineError: the model does not parse or does not build; carries the first cause from the log.
        NotRunnableError: building needs a GPU that is not there.
    """
    if request.flavour == "tensorrt" and find_gpu(request.device) is None:
        raise NotRunnableError(
            model.original.name,
            f"building with TensorRT needs a GPU: {no_gpu_reason(request.device)}",
            "Use --trt-runtime=tensorrt_rtx, whose builder needs none, or run on a GPU machine.",
        )
    started = time.perf_counter()
    engine, records = _attempt(model, request)
    if request.timing_cache is not None and any(_CACHE_FAULT.search(record.message) for record in errors_of(records)):
        # TensorRT 8.5 sometimes cannot read the Myelin part of its own cache, and says so in the middle of a build.
        request.timing_cache.unlink(missing_ok=True)
        engine, records = _attempt(model, request)
    if engine is None:
        raise EngineError(
            model.called,
            f"{PRODUCT[request.flavour]} {version_of(request.flavour)} cannot build it: "
            + redaction.current()(first_cause(records, "no reason given")),
            _remedy(records),
        )
    memory = memory_from_log(record.message for record in records)
    facts = {
        "layers": layers_to_rows(layers_from_log(record.message for record in records)),
        "memory": {name: value for name, value in vars(memory).items() if value is not None},
        "records": [_kept(record) for record in records if record.severity != "verbose"],
        "build_s": round(time.perf_counter() - started, 3),
    }
    if request.log_file is not None:
        _keep_all(records, request.log_file)
        facts["files"] = [request.log_file.name]
    return engine, facts


def _remedy(records: Sequence[Record]) -> str:
    """What to do about a failed build, as far as a rule knows."""
    diagnosis = diagnose(records)
    told = "What else was said stands below the failure of a test, and beside --trt-json."
    return told if diagnosis.code in (OK, UNDIAGNOSED) else f"{diagnosis.code}: {diagnosis.remedy}\n  {told}"


def _attempt(model: OnnxModel, request: BuildRequest) -> tuple[bytes | None, Sequence[Record]]:
    """One build: the engine, or ``None``, and what was said."""
    backend = polygraphy_of(request.flavour)
    with (
        deferred_interrupt() as interrupt,
        SINK.collect("build") as records,
        backend.heard(),
        native_stderr(),
        warnings.catch_warnings(),
        primary_context(request.device),
    ):
        warnings.simplefilter("ignore")  # Polygraphy's use of deprecated members is not the user's
        try:
            return _build(backend, model, request, interrupt), records
        except _BuildStopped as error:
            if str(error):
                SINK.say("error", request.flavour, str(error))  # last: TensorRT's own errors come before it
        except backend.error:
            pass  # Polygraphy has logged it
        return None, records


class _BuildStopped(Exception):
    """A build that cannot go on; says why where TensorRT does not."""


def primary_context(device_index: int) -> AbstractContextManager[Any]:
    """The context in which engines are built and run; on a machine without a GPU or PyCUDA, none."""
    usable = is_installed("pycuda") and find_gpu(device_index) is not None
    return cuda(device_index).current() if usable else contextlib.nullcontext()


class _Polygraphy:
    def __init__(self, flavour: Flavour) -> None:
        config = quiet_import("polygraphy.config")
        config.USE_TENSORRT_RTX = flavour == "tensorrt_rtx"
        self.trt = quiet_import("polygraphy.backend.trt")
        self.rtx = quiet_import("polygraphy.backend.tensorrt_rtx") if flavour == "tensorrt_rtx" else None
        self.error = quiet_import("polygraphy.exception").PolygraphyException
        self._logger = quiet_import("polygraphy.logger").G_LOGGER
        quiet_import("polygraphy.backend.trt.util").TRT_LOGGER = logger_of(flavour)

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Send what Polygraphy says inside the ``with`` block to the log sink, and leave its logger as it was."""
        logger, python_logger, handler = self._logger, logging.getLogger("Polygraphy"), _ToSink()
        wanted = {
            **dict.fromkeys(("letter", "colors", "timestamp", "line_info"), False),
            "use_python_logging_system": True,
            "module_severity": logger.EXTRA_VERBOSE,
        }
        before = {name: getattr(logger, name) for name in wanted}
        level, propagates = python_logger.level, python_logger.propagate
        for name, value in wanted.items():
            setattr(logger, name, value)
        python_logger.addHandler(handler)
        python_logger.setLevel(1)
        python_logger.propagate = False
        try:
            yield
        finally:
            python_logger.removeHandler(handler)
            python_logger.setLevel(level)
            python_logger.propagate = propagates
            for name, value in before.items():
                setattr(logger, name, value)


class _ToSink(logging.Handler):
    """Polygraphy's messages; its severities between those of ``logging`` count as the one below."""

    def emit(self, record: logging.LogRecord) -> None:
        known: Iterator[LogSeverity] = (name for level, name in _SEVERITIES if record.levelno >= level)
        SINK.say(next(known, "verbose"), "polygraphy", record.getMessage())


_flavour_in_use: list[Flavour] = []


def polygraphy_of(flavour: Flavour) -> _Polygraphy:
    """Polygraphy's backend of a flavour, quiet and with this process's logger.

    Raises:
        EngineError: Polygraphy decides for one flavour when its backend is imported, for the whole process.
    """
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


def _build(backend: _Polygraphy, model: OnnxModel, request: BuildRequest, interrupt: Interrupt) -> bytes:
    trt = quiet_import(request.flavour)
    weak = is_weakly_typed(request.flavour)
    typed = hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") and not (weak and request.precision)
    with SINK.phase("parse"), native_stderr():
        builder, parsed, parser = _parse(backend, model, request.flavour, typed)
    if interrupt.is_pending:
        raise _BuildStopped("interrupted")
    if request.debug_tensors and hasattr(parsed, "mark_unfused_tensors_as_debug_tensors"):
        parsed.mark_unfused_tensors_as_debug_tensors()
    options: dict[str, Any] = {
        "profiles": [_to_polygraphy(backend, profile) for profile in request.profiles],
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,
    }
    if request.tactic_sources:
        options["tactic_sources"] = _tactic_sources(trt, request)
    if weak and not typed:
        options |= _weak_options(backend, parsed, model, request)
    make_config = backend.rtx.CreateConfigRTX if backend.rtx else backend.trt.CreateConfig
    config = make_config(**options)(builder, parsed)
    _set_tf32(trt, config, request.tf32)
    with (
        _kept_timings(config, request),
        _recorded(builder, request.flavour),
        PROGRESS.work(f"building {model.path.stem}") as tell,
    ):
        monitor = monitor_of(request.flavour, lambda: interrupt.is_pending, tell)
        if hasattr(config, "progress_monitor"):
            config.progress_monitor = monitor
        return bytes(backend.trt.engine_bytes_from_network((builder, parsed, parser), config=config))


def _parse(backend: _Polygraphy, model: OnnxModel, flavour: Flavour, typed: bool) -> tuple[Any, Any, Any]:
    """The builder, the network, and the parser, which has to live as long as the network.

    Polygraphy's own function drops the parser's list of errors.
    """
    trt = quiet_import(flavour)
    builder, network = backend.trt.create_network(strongly_typed=typed)
    trt.init_libnvinfer_plugins(logger_of(flavour), "")
    parser = trt.OnnxParser(network, logger_of(flavour))
    if model.is_renamed or model.is_edited:
        is_parsed = parser.parse(model.proto.SerializeToString(), str(model.path))
    else:
        is_parsed = parser.parse_from_file(str(model.path))
    say_parser_errors(flavour, parser)
    if parser.num_errors:
        raise _BuildStopped
    if not is_parsed:
        raise _BuildStopped("the parser refuses the model without saying why")
    if network.num_layers == 0:
        raise _BuildStopped("the parser found no layers")
    return builder, network, parser


def _weak_options(backend: _Polygraphy, parsed: Any, model: OnnxModel, request: BuildRequest) -> dict[str, Any]:
    """Precision flags as arguments of Polygraphy's configuration."""
    trt = quiet_import(request.flavour)
    wanted = _FLAGS[request.precision] if request.precision else _flags_of_model(model)
    missing = [name for name in wanted if not hasattr(trt.BuilderFlag, name)]
    if missing:
        raise EngineError(
            model.called,
            f"{PRODUCT[request.flavour]} {version_of(request.flavour)} has no {missing[0]}, "
            f"so it cannot build precision={request.precision!r}",
            "Choose another precision.",
        )
    options: dict[str, Any] = {name.lower(): True for name in wanted}
    if "INT8" in wanted and not model.is_quantised:
        _check_calibration(model, request)
        options["calibrator"] = backend.trt.Calibrator(data_loader=_calibration_feeds(parsed, request))
    return options


def _flags_of_model(model: OnnxModel) -> tuple[str, ...]:
    """What a TensorRT without strong typing (8.5 to 9.0) has to allow, for the model's own types to stand."""
    found = ["INT8"] if model.is_quantised else []
    return (*(["FP16"] if model.uses_float16 else []), *found)


def _calibration_feeds(parsed: Any, request: BuildRequest) -> list[dict[str, Any]]:
    """The feeds in the network's own types: FP32 for floats, and INT32 for what the model calls INT64."""
    inputs = [parsed.get_input(index) for index in range(parsed.num_inputs)]
    dtypes = {tensor.name: numpy_dtype(datatype(tensor.dtype.name)) for tensor in inputs}
    wanted = {name: np.dtype(np.float32) if dtype.kind in "fV" else dtype for name, dtype in dtypes.items()}
    return [
        {name: np.asarray(array).astype(wanted[name]) for name, array in feed.items()} for feed in request.calibration
    ]


def _check_calibration(model: OnnxModel, request: BuildRequest) -> None:
    """Other shapes than the optimal ones are an illegal memory access, after which the process is lost."""
    if not request.calibration:
        raise EngineError(
            model.called,
            "INT8 needs inputs to calibrate with, or a model with Q/DQ nodes",
            "Give trt_build(..., calibration=[feed, ...]) with real inputs.",
        )
    for index, feed in enumerate(request.calibration):
        for name, bounds in request.profiles[-1].items():  # Polygraphy calibrates with the last one
            if name not in feed or tuple(feed[name].shape) != bounds.opt:
                found = format_shape(tuple(feed[name].shape)) if name in feed else "nothing"
                raise EngineError(
                    model.called,
                    f"calibration feed {index} gives {found} for input {name!r}; TensorRT calibrates at the optimal "
                    f"shape of the last profile, {format_shape(bounds.opt)}",
                    "Give feeds of that shape, or set --trt-opt-shapes.",
                )


def _tactic_sources(trt: Any, request: BuildRequest) -> list[Any]:
    unknown = [name for name in request.tactic_sources if not hasattr(trt.TacticSource, name)]
    if unknown:
        raise EngineError(
            PRODUCT[request.flavour],
            f"{version_of(request.flavour)} has no tactic source {unknown[0]!r}",
            f"It has: {', '.join(sorted(trt.TacticSource.__members__))} (ini option trt_tactic_sources).",
        )
    return [getattr(trt.TacticSource, name) for name in request.tactic_sources]


def _set_tf32(trt: Any, config: Any, allowed: bool) -> None:
    """TF32 is on by default everywhere; Polygraphy switches it off unless told otherwise."""
    (config.set_flag if allowed else config.clear_flag)(trt.BuilderFlag.TF32)


@contextlib.contextmanager
def _recorded(builder: Any, flavour: Flavour) -> Iterator[None]:
    """With the error recorder attached, after parsing; see :func:`~pytest_trtgray.engines.callbacks.recorder_of`."""
    builder.error_recorder = recorder_of(flavour)
    try:
        yield
    finally:
        builder.error_recorder = None


@contextlib.contextmanager
def _kept_timings(config: Any, request: BuildRequest) -> Iterator[None]:
    """Load the timing cache before a build and keep what the build has measured.

    TensorRT for RTX measures nothing while it builds. A file that cannot be used costs time only.
    """
    path = request.timing_cache
    if path is None or request.flavour == "tensorrt_rtx":
        yield
        return
    try:
        stored = path.read_bytes()
    except OSError:
        stored = b""
    # Polygraphy has attached an empty cache; a second one would be an error
    kept = config.get_timing_cache()
    if stored:
        kept.combine(_timing_cache(config, stored), True)
    yield
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock")):
            now = path.read_bytes() if path.exists() else b""
            if now != stored:  # another process has written meanwhile
                kept.combine(_timing_cache(config, now), True)
            write_atomically(path, bytes(kept.serialize()))


def _timing_cache(config: Any, stored: bytes) -> Any:
    """A timing cache from what was stored; an empty one where TensorRT finds fault with it."""
    with SINK.collect("build", apart=True) as said:
        cache = config.create_timing_cache(stored)
    return config.create_timing_cache(b"") if cache is None or errors_of(said) else cache


def _to_polygraphy(backend: _Polygraphy, profile: ShapeProfile) -> Any:
    made = backend.trt.Profile()
    for name, bounds in profile.items():
        made.add(name, bounds.min, bounds.opt, bounds.max)
    return made


def _kept(record: Record) -> dict[str, Any]:
    shortened = replace(record, message=record.message[:_MAX_KEPT_MESSAGE])
    return redaction.current().record(shortened).to_dict()


def _keep_all(records: Iterable[Record], path: Path) -> None:
    redact = redaction.current().record
    try:
        write_atomically(path, packed(map(redact, records)))
    except OSError as error:
        raise EngineError(
            path,
            f"the log of the build cannot be kept: {error.strerror or error}",
            "Make room, or ask for less than --trt-log-level=verbose.",
        ) from error


def timing_cache_path(folder: Path, flavour: Flavour, device: int) -> Path | None:
    """Where a flavour's timings of a GPU are kept; ``None`` where there is no GPU."""
    gpu = find_gpu(device)
    if gpu is None:
        return None
    name = "".join(char if char.isalnum() else "-" for char in gpu.name.lower())
    return folder / f"{flavour}-{version_of(flavour)}.{name}.{gpu.sm}.timings"


def shown_profiles(profiles: Sequence[ShapeProfile]) -> list[dict[str, list[tuple[int, ...]]]]:
    """Profiles as part of a cache key."""
    return [
        {name: [bounds.min, bounds.opt, bounds.max] for name, bounds in sorted(profile.items())} for profile in profiles
    ]
