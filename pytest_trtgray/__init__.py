"""Gray-box regression tests for TensorRT engines.

Importing this package costs nothing: numpy, onnx and the runtimes are loaded when something is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_trtgray.accuracy.calibrations import Calibrations, compare_calibrations
    from pytest_trtgray.accuracy.compare import Comparison, compare
    from pytest_trtgray.accuracy.fp16 import Fp16Ranges, fp16_ranges
    from pytest_trtgray.accuracy.quantisation import Quantisation, inspect_quantisation
    from pytest_trtgray.asserting import assert_outputs_close
    from pytest_trtgray.engines.base import Engine
    from pytest_trtgray.engines.model import DeviceInfo, Layer
    from pytest_trtgray.feeds import Feed, make_feed
    from pytest_trtgray.findings import Finding
    from pytest_trtgray.fuzz import profile_feeds, profile_shapes
    from pytest_trtgray.instruments import (
        Comparer,
        EngineFactory,
        LogReader,
        Profiler,
        QuantisationInspector,
        ShadowFactory,
        StructureOf,
    )
    from pytest_trtgray.logs.log import Log

__version__ = "0.1.0"

_HOMES = {
    "Calibrations": "accuracy.calibrations",
    "Comparer": "instruments",
    "Comparison": "accuracy.compare",
    "DeviceInfo": "engines.model",
    "Engine": "engines.base",
    "EngineFactory": "instruments",
    "Feed": "feeds",
    "Finding": "findings",
    "Fp16Ranges": "accuracy.fp16",
    "Layer": "engines.model",
    "Log": "logs.log",
    "LogReader": "instruments",
    "Profiler": "instruments",
    "Quantisation": "accuracy.quantisation",
    "QuantisationInspector": "instruments",
    "ShadowFactory": "instruments",
    "StructureOf": "instruments",
    "assert_outputs_close": "asserting",
    "compare": "accuracy.compare",
    "compare_calibrations": "accuracy.calibrations",
    "fp16_ranges": "accuracy.fp16",
    "inspect_quantisation": "accuracy.quantisation",
    "make_feed": "feeds",
    "profile_feeds": "fuzz",
    "profile_shapes": "fuzz",
}

__all__ = [
    "Calibrations",
    "Comparer",
    "Comparison",
    "DeviceInfo",
    "Engine",
    "EngineFactory",
    "Feed",
    "Finding",
    "Fp16Ranges",
    "Layer",
    "Log",
    "LogReader",
    "Profiler",
    "Quantisation",
    "QuantisationInspector",
    "ShadowFactory",
    "StructureOf",
    "__version__",
    "assert_outputs_close",
    "compare",
    "compare_calibrations",
    "fp16_ranges",
    "inspect_quantisation",
    "make_feed",
    "profile_feeds",
    "profile_shapes",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
