"""From a path to an engine: which runtime, build or load, from the cache or anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_trtgray.engines.base import Engine, Feed
from pytest_trtgray.engines.cache import CachedEngine, EngineCache
from pytest_trtgray.engines.device import find_gpu, no_gpu_reason
from pytest_trtgray.engines.header import Flavour, read_header
from pytest_trtgray.engines.model import ShapeProfile
from pytest_trtgray.engines.onnx_model import OnnxModel, open_model
from pytest_trtgray.engines.precision import (
    CALIBRATED,
    CONVERSION,
    built_precision_finding,
    calibration_digest,
    convert,
    needs_conversion,
)
from pytest_trtgray.engines.profiles import ShapeRequest, resolve_profiles
from pytest_trtgray.engines.weights import facts_of_build
from pytest_trtgray.errors import EngineError, NotRunnableError
from pytest_trtgray.logs.buffer import RecordBuffer
from pytest_trtgray.logs.records import LogSeverity, Record, at_least
from pytest_trtgray.logs.silence import silent_findings
from pytest_trtgray.logs.sink import SINK
from pytest_trtgray.logs.storage import unpacked
from pytest_trtgray.vendor import is_installed

if TYPE_CHECKING:
    from pytest_trtgray.engines.tensorrt import TensorRTEngine

Runtime = Literal["auto", "tensorrt", "tensorrt_rtx", "onnxruntime"]
FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt_rtx")
"""In order of preference."""
ENGINE_SUFFIXES = (".engine", ".plan", ".trt")


@dataclass(frozen=True)
class LoadOptions:
    """How engines are built and loaded.

    Attributes:
        runtime: ``auto`` chooses TensorRT where a GPU and a TensorRT are there, else ONNX Runtime.
        device: CUDA device index.
        shapes: one request an optimization profile; empty for the default.
        cache_dir: where built engines are kept.
        precision: to build in, see :mod:`~pytest_trtgray.engines.precision`; empty for the model's own types.
        calibration: inputs from which INT8 and FP8 take their ranges.
        calibration_method: how, see :mod:`~pytest_trtgray.engines.calibration`. With one, the model is converted
            on every runtime; without, a weakly typed TensorRT calibrates itself (by entropy), others by ``minmax``.
        tactic_sources: names of TensorRT's ``TacticSource``; empty for its default.
        tf32: whether FP32 layers may compute in TF32; off for a reference.
        log_level: what is kept of what the runtime says; ``verbose`` is another build.
    """

    runtime: Runtime = "auto"
    device: int = 0
    shapes: Sequence[ShapeRequest] = field(default=())
    cache_dir: Path = Path(".trtgray_cache")
    precision: str = ""
    calibration: tuple[Feed, ...] = ()
    calibration_method: str = ""
    tactic_sources: tuple[str, ...] = ()
    tf32: bool = True
    log_level: LogSeverity = "info"


@dataclass(frozen=True)
class EngineSource:
    """What :func:`load_engine` was called with, to load the same engine in another process."""

    path: Path
    options: LoadOptions
    name: str
    onnx: Path | None = None

    def load(self) -> Engine:
        """The engine once more."""
        return load_engine(self.path, self.options, name=self.name, onnx=self.onnx)


def is_engine_file(path: Path) -> bool:
    """Whether the name says engine rather than ONNX."""
    return path.suffix.lower() in ENGINE_SUFFIXES


def check_file(path: Path) -> OnnxModel | None:
    """Refuse early what cannot work: a missing, empty, cut off or foreign file.

    Returns:
        the model of an ONNX file.

    Raises:
        ModelError: for an ONNX file.
        EngineError: for an engine file, also one that another version of TensorRT made.
    """
    if not is_engine_file(path):
        return open_model(path)
    if not path.is_file():
        reason = "is not a file" if path.exists() else "no such file"
        raise EngineError(path, reason, "Check the path; it is taken relative to the current folder.")
    from pytest_trtgray.engines.flavour import check_version

    check_version(path, read_header(path))
    return None


def load_engine(
    path: Path,
    options: LoadOptions,
    *,
    name: str = "",
    onnx: Path | None = None,
) -> Engine:
    """Load an engine file, or build one from ONNX.

    Args:
        path: ``.engine``/``.plan``, or ``.onnx``.
        options: see :class:`LoadOptions`.
        name: short name for reports; the file's stem by default.
        onnx: the model behind an engine file, for provenance.

    Raises:
        ModelError: the ONNX file is unusable.
        EngineError: it cannot be built or loaded.
        ShapeError: symbolic dimensions need shapes.
        NotRunnableError: the build needs a GPU that is not there.
    """
    name = name or path.stem
    is_built = is_engine_file(path)
    engine = _load_plan(path, options, name, onnx) if is_built else load_model(open_model(path), options, name)
    engine.source = EngineSource(path, options, name, onnx)
    return engine


def choose_runtime(options: LoadOptions) -> Literal["tensorrt", "tensorrt_rtx", "onnxruntime"]:
    """The runtime for an ONNX file."""
    if options.runtime != "auto":
        return options.runtime
    here = [flavour for flavour in FLAVOURS if is_installed(flavour)]
    return here[0] if here and find_gpu(options.device) is not None else "onnxruntime"


def choose_tensorrt(device: int) -> Flavour:
    """The TensorRT of this machine.

    Raises:
        EngineError: none is installed.
        NotRunnableError: there is no GPU to run it on.
    """
    here = [flavour for flavour in FLAVOURS if is_installed(flavour)]
    if not here:
        raise EngineError("TensorRT", "is not installed", "Install it: pip install 'pytest-trtgray[tensorrt]'.")
    if find_gpu(device) is None:
        raise NotRunnableError("TensorRT", no_gpu_reason(device))
    return here[0]


def load_model(given: OnnxModel, options: LoadOptions, name: str) -> Engine:
    """The engine of a model that was opened already; errors as of :func:`load_engine`."""
    profiles, notes = resolve_profiles(given.inputs, options.shapes)
    runtime = choose_runtime(options)
    model, flag = _in_precision(given, options, runtime)
    if runtime == "onnxruntime":
        from pytest_trtgray.engines.onnxruntime import OnnxRuntimeEngine, choose_provider

        engine: Engine = OnnxRuntimeEngine(
            model,
            name=name,
            profiles=profiles,
            provider=choose_provider(options.device),
            device_index=options.device,
            notes=notes,
            log_level=options.log_level,
        )
    else:
        engine = _build_engine(model, options, runtime, flag, profiles=profiles, name=name, notes=notes)
    if model is not given:
        engine.origin = given
    # ONNX Runtime's layers do not tell: it computes FP16 in FP32 where a processor has no kernels for it
    is_built = runtime != "onnxruntime"
    found = built_precision_finding(options.precision, engine.layers) if options.precision and is_built else None
    silent = silent_findings(facts_of_build(given, options.precision, len(engine.layers) if is_built else None))
    engine.findings = (*([found] if found else []), *silent)
    return engine


def build_again(engine: Engine, *, model: OnnxModel | None = None, debug_tensors: bool = False) -> TensorRTEngine:
    """An engine of TensorRT once more, with its profiles and options, and with something to show besides.

    Args:
        engine: of either flavour.
        model: another model to build; the engine's own by default.
        debug_tensors: see :class:`~pytest_trtgray.engines.building.BuildRequest`.

    Raises:
        EngineError: it was not loaded by :func:`load_engine`, its model is not known, or it does not build.
    """
    if engine.source is None or engine.model is None:
        raise EngineError(
            engine.info.name,
            "cannot be built once more: its ONNX model is not known",
            "Give it: --trt-onnx=PATH, or give the .onnx instead of the engine.",
        )
    options, flavour = engine.source.options, engine.info.runtime
    if flavour not in FLAVOURS:
        raise EngineError(engine.info.name, f"is no engine of TensorRT but of {flavour}")
    _, flag = _in_precision(engine.model, options, flavour)
    return _build_engine(
        model or engine.model,
        options,
        flavour,
        flag,
        profiles=engine.info.profiles,
        name=engine.info.name,
        notes=(),
        debug_tensors=debug_tensors,
    )


def _in_precision(
    given: OnnxModel, options: LoadOptions, runtime: Literal["tensorrt", "tensorrt_rtx", "onnxruntime"]
) -> tuple[OnnxModel, str]:
    """The model to build, and the builder's precision flag: one of the two carries the precision asked for."""
    from pytest_trtgray.engines.building import is_weakly_typed

    method = options.calibration_method
    if not options.precision or (runtime != "onnxruntime" and is_weakly_typed(runtime) and not method):
        return given, options.precision
    if not needs_conversion(given, options.precision):
        return given, ""
    calibration = options.calibration if options.precision in CALIBRATED else ()
    cached = EngineCache(options.cache_dir).get(
        {
            "model_sha256": given.sha256,
            "precision": options.precision,
            "conversion": CONVERSION,
            "calibration": calibration_digest(calibration),
            **({"method": method} if method else {}),
        },
        lambda: (convert(given.path, options.precision, calibration, method), {}),
        suffix=".onnx",
    )
    return open_model(cached.path, original=given.path, made=f"converted to {options.precision}"), ""


def _build_engine(
    model: OnnxModel,
    options: LoadOptions,
    flavour: Flavour,
    precision: str,
    *,
    profiles: tuple[ShapeProfile, ...],
    name: str,
    notes: tuple[str, ...],
    debug_tensors: bool = False,
) -> TensorRTEngine:
    """The engine of a flavour, from the cache or built now."""
    from pytest_trtgray.engines.building import BuildRequest, build, shown_profiles, timing_cache_path
    from pytest_trtgray.engines.flavour import version_of
    from pytest_trtgray.engines.tensorrt import TensorRTEngine

    request = BuildRequest(
        flavour,
        profiles,
        tf32=options.tf32,
        precision=precision,
        calibration=options.calibration if precision in CALIBRATED else (),
        tactic_sources=options.tactic_sources if flavour == "tensorrt" else (),
        device=options.device,
        timing_cache=timing_cache_path(options.cache_dir, flavour, options.device),
        debug_tensors=debug_tensors,
    )
    cache = EngineCache(options.cache_dir)
    gpu = find_gpu(options.device)
    # TensorRT for RTX builds for several architectures at once and gives the same engine on every machine.
    target = "portable" if flavour == "tensorrt_rtx" else f"{gpu.name} {gpu.sm}" if gpu else "none"
    key = {
        "model_sha256": model.sha256,
        "flavour": flavour,
        "version": version_of(flavour),
        "target": target,
        "tf32": request.tf32,
        "profiles": shown_profiles(profiles),
    }
    if precision:
        key |= {"precision": precision, "calibration": calibration_digest(request.calibration)}
    if debug_tensors:
        key["debug_tensors"] = True
    if request.tactic_sources:
        key["tactic_sources"] = sorted(request.tactic_sources)
    if options.log_level == "verbose":
        key["log"] = options.log_level
        request = replace(request, log_file=cache.path(key, ".log.jsonl.gz"))
    cached = cache.get(key, lambda: build(model, request))
    records = _kept_records(cached, request.log_file, options.log_level)
    if cached.was_cached:
        for record in records:
            SINK.replay(record)
    return TensorRTEngine(
        cached.path,
        name=name,
        model=model,
        profiles=profiles,
        facts=cached.manifest,
        records=records,
        targets=target if flavour == "tensorrt_rtx" else (gpu.sm if gpu else ""),
        notes=notes,
        device_index=options.device,
        log_level=options.log_level,
    )


def _kept_records(cached: CachedEngine, log_file: Path | None, level: LogSeverity) -> RecordBuffer:
    """What the build said, as far as it was kept."""
    if log_file is not None:
        return RecordBuffer.of(unpacked(log_file))
    return RecordBuffer.of(at_least(map(Record.from_dict, cached.manifest.get("records", ())), level))


def _load_plan(path: Path, options: LoadOptions, name: str, onnx: Path | None) -> Engine:
    check_file(path)
    header = read_header(path)
    if options.runtime not in ("auto", header.runtime):
        raise EngineError(
            path,
            f"is an engine of {header.runtime}, but --trt-runtime={options.runtime} was asked for",
            f"Drop the option, or use --trt-runtime={header.runtime}.",
        )
    from pytest_trtgray.engines.tensorrt import TensorRTEngine

    return TensorRTEngine(
        path,
        name=name,
        model=open_model(onnx) if onnx else None,
        device_index=options.device,
        log_level=options.log_level,
    )
