"""What both flavours of TensorRT need before there is an engine: a version, a logger, an error recorder."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytest_trtgray.engines.header import EngineHeader, Flavour
from pytest_trtgray.errors import EngineError
from pytest_trtgray.logs.records import SINK, LogSeverity, Record, errors_of
from pytest_trtgray.vendor import quiet_import

PRODUCT: Mapping[Flavour, str] = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}
_MAX_ERRORS_KEPT = 100
_SEVERITIES: Mapping[str, LogSeverity] = {
    "INTERNAL_ERROR": "internal_error",
    "ERROR": "error",
    "WARNING": "warning",
    "INFO": "info",
    "VERBOSE": "verbose",
}


def version_of(flavour: Flavour) -> str:
    """The installed version.

    Raises:
        EngineError: not installed.
    """
    return str(quiet_import(flavour).__version__)


def check_version(path: Path, header: EngineHeader) -> None:
    """Refuse an engine that another version made, before native code sees it.

    Raises:
        EngineError: says which version made it and which is installed.
    """
    flavour = header.runtime
    product = PRODUCT[flavour]
    made_with = f"{product} {header.version}".strip()
    try:
        installed = version_of(flavour)
    except EngineError as error:
        raise EngineError(path, f"was built by {made_with}; {error.reason}", f"Install {made_with}.") from error
    made_by, here = header.version.split(".")[:3], installed.split(".")[:3]
    if header.version and made_by != here:
        raise EngineError(
            path,
            f"was built by {product} {header.version}, {installed} is installed",
            f"Build it again with {installed} (give the .onnx to --trt-engine), or install {header.version}.",
        )


@functools.lru_cache(maxsize=2)
def logger_of(flavour: Flavour) -> Any:
    """The one logger of this process for a flavour; it feeds the sink and never raises."""
    trt = quiet_import(flavour)

    class Bridge(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            SINK.say(_SEVERITIES.get(getattr(severity, "name", ""), "info"), flavour, message)

    return Bridge()


@functools.lru_cache(maxsize=2)
def recorder_of(flavour: Flavour) -> Any:
    """The one error recorder of this process for a flavour.

    An object with a recorder tells its errors to the recorder *instead of* the logger, with a code; this one
    hands them on to the sink. It must outlive every object that it is attached to, and must not be attached to
    a builder before the parser is made (the process then crashes when they are destroyed).
    """
    trt = quiet_import(flavour)

    class Recorder(trt.IErrorRecorder):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IErrorRecorder.__init__(self)
            self._errors: deque[tuple[Any, str]] = deque(maxlen=_MAX_ERRORS_KEPT)
            self._overflowed = False

        def report_error(self, code: Any, description: str) -> bool:
            self._overflowed = self._overflowed or len(self._errors) == _MAX_ERRORS_KEPT
            self._errors.append((code, description))
            SINK.say("error", flavour, description)
            return True  # the call that failed cannot go on

        def num_errors(self) -> int:
            return len(self._errors)

        def get_error_code(self, index: int) -> Any:
            return self._errors[index][0]

        def get_error_desc(self, index: int) -> str:
            return self._errors[index][1]

        def has_overflowed(self) -> bool:
            return self._overflowed

        def clear(self) -> None:
            self._errors.clear()
            self._overflowed = False

    return Recorder()


def shares_profiles(flavour: Flavour) -> bool:
    """Whether two execution contexts may use one optimization profile at the same time.

    Before 8.6 they may not: the second context has no profile, refuses every shape, and crashes when it is asked
    which shapes are missing.
    """
    return not hasattr(quiet_import(flavour).ICudaEngine, "get_binding_name")  # the API of bindings ended with 9


def first_cause(records: Iterable[Record], fallback: str) -> str:
    """The first error of a cascade; the last one is mostly a consequence."""
    said = errors_of(records)
    text = said[0].message if said else fallback
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return " ".join(lines[:3]) if lines else fallback
