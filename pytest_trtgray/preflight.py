"""What can be refused before a test runs: one message instead of one a test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trtgray.errors import NotRunnableError, ShapeError, TrtGrayError
from pytest_trtgray.settings import OptionError, Settings
from pytest_trtgray.vendor import quiet_import

if TYPE_CHECKING:
    from pytest_trtgray.engines.onnx_model import OnnxModel


def check_everything(settings: Settings) -> None:
    """Look at every file and device that the command line names.

    Raises:
        TrtGrayError: the first that cannot be used.
    """
    if settings.require_gpu:
        _require_gpu(settings)
    if settings.metrics_path or settings.push_gateway:
        quiet_import("prometheus_client")
    if settings.against and not settings.engines:
        raise OptionError(
            "--trt-against", "there is no engine to compare it with", "Name the engine under test with --trt-engine."
        )
    if not (settings.engines or settings.onnx):
        return
    from pytest_trtgray.engines.loading import check_file, is_engine_file

    requests = [*settings.engines, *([settings.against] if settings.against else [])]
    models = [check_file(request.path) for request in requests]
    if settings.onnx is not None:
        check_file(settings.onnx)
    _check_runtime(settings)
    for model in models:
        if model is not None:
            _check_shapes(settings, model)
    for request in requests:
        # listed only when it is loaded: not by a run that is refused, or that only collects
        if is_engine_file(request.path) and not settings.update:
            admit(request.path, settings)


def admit(path: Path, settings: Settings) -> Path | None:
    """Let an engine file pass to native code, or refuse it.

    It passes if ``engines.sha256`` lists its content, or by an option: ``--update-baselines`` lists it,
    ``--trt-allow-unlisted`` does not ask.

    Returns:
        the list, if it was written.

    Raises:
        EngineError: it is not listed, or has changed since.
        BaselineError: the list cannot be read or written.
    """
    from pytest_trtgray.baselines.engine_list import EngineList

    listed = EngineList(settings.baseline_dir)
    if settings.update:
        return listed.file if listed.add(path) else None
    if not settings.allow_unlisted:
        listed.require(path)
    return None


def _require_gpu(settings: Settings) -> None:
    from pytest_trtgray.engines.device import find_gpu, no_gpu_reason

    if find_gpu(settings.device) is None:
        raise NotRunnableError(
            "--trt-require-gpu", no_gpu_reason(settings.device), "Run on a GPU machine, or drop the option."
        )


def _check_runtime(settings: Settings) -> None:
    """The chosen runtime must be there; ``auto`` takes what is."""
    from pytest_trtgray.engines.loading import LoadOptions, choose_runtime

    if settings.engines:
        quiet_import(choose_runtime(LoadOptions(runtime=settings.runtime, device=settings.device)))  # type: ignore[arg-type]


def _check_shapes(settings: Settings, model: OnnxModel) -> None:
    from pytest_trtgray.engines.profiles import resolve_profiles

    try:
        resolve_profiles(model.inputs, settings.shapes)
    except TrtGrayError as error:
        raise ShapeError(f"{model.path}: {error.thing}", error.reason, error.remedy) from error
