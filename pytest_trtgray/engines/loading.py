"""From a path to an engine: which runtime, build or load, from the cache or anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pytest_trtgray.engines.base import Engine
from pytest_trtgray.engines.cache import EngineCache
from pytest_trtgray.engines.device import find_gpu
from pytest_trtgray.engines.header import read_header
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.profiles import ShapeRequest, resolve_profiles
from pytest_trtgray.errors import EngineError
from pytest_trtgray.vendor import is_installed

Runtime = Literal["auto", "tensorrt", "tensorrt_rtx", "onnxruntime"]
ENGINE_SUFFIXES = (".engine", ".plan", ".trt")


@dataclass(frozen=True)
class LoadOptions:
    """How engines are built and loaded.

    Attributes:
        runtime: ``auto`` chooses TensorRT where a GPU and a TensorRT are there, else ONNX Runtime.
        device: CUDA device index.
        shapes: one request an optimization profile; empty for the default.
        cache_dir: where built engines are kept.
    """

    runtime: Runtime = "auto"
    device: int = 0
    shapes: Sequence[ShapeRequest] = field(default=())
    cache_dir: Path = Path(".trtgray_cache")


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
        return OnnxModel(path)
    if not path.is_file():
        reason = "is not a file" if path.exists() else "no such file"
        raise EngineError(path, reason, "Check the path; it is taken relative to the current folder.")
    from pytest_trtgray.engines.tensorrt import check_version

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
    if is_engine_file(path):
        return _load_plan(path, options, name, onnx)
    model = OnnxModel(path)
    profiles, notes = resolve_profiles(model.inputs, options.shapes)
    runtime = choose_runtime(options)
    if runtime == "onnxruntime":
        from pytest_trtgray.engines.onnxruntime import OnnxRuntimeEngine, choose_provider

        return OnnxRuntimeEngine(
            model,
            name=name,
            profiles=profiles,
            provider=choose_provider(options.device),
            device_index=options.device,
            notes=notes,
        )
    from pytest_trtgray.engines.tensorrt import BuildRequest, TensorRTEngine, build, version_of

    flavour = runtime
    request = BuildRequest(flavour, profiles)
    gpu = find_gpu(options.device)
    # TensorRT for RTX builds for several architectures at once and gives the same engine on every machine.
    target = "portable" if flavour == "tensorrt_rtx" else f"{gpu.name} {gpu.sm}" if gpu else "none"
    cached = EngineCache(options.cache_dir).get(
        {
            "model_sha256": model.sha256,
            "flavour": flavour,
            "version": version_of(flavour),
            "target": target,
            "tf32": request.tf32,
            "profiles": [
                {key: [bounds.min, bounds.opt, bounds.max] for key, bounds in sorted(profile.items())}
                for profile in profiles
            ],
        },
        lambda: build(model, request),
    )
    return TensorRTEngine(
        cached.path,
        name=name,
        model=model,
        profiles=profiles,
        facts=cached.manifest,
        targets=target if flavour == "tensorrt_rtx" else (gpu.sm if gpu else ""),
        notes=notes,
        device_index=options.device,
    )


def choose_runtime(options: LoadOptions) -> Literal["tensorrt", "tensorrt_rtx", "onnxruntime"]:
    """The runtime for an ONNX file."""
    if options.runtime != "auto":
        return options.runtime
    if find_gpu(options.device) is not None:
        if is_installed("tensorrt"):
            return "tensorrt"
        if is_installed("tensorrt_rtx"):
            return "tensorrt_rtx"
    return "onnxruntime"


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

    return TensorRTEngine(path, name=name, model=OnnxModel(onnx) if onnx else None, device_index=options.device)
