"""Gray-box regression tests for TensorRT engines.

Importing this package costs nothing: numpy, onnx and the runtimes are loaded when something is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_trtgray.accuracy.calibrations import Calibrations, compare_calibrations
    from pytest_trtgray.accuracy.compare import Comparison, compare, compare_many
    from pytest_trtgray.accuracy.fp16 import Fp16Ranges, fp16_ranges
    from pytest_trtgray.accuracy.localise import Localisation, localise
    from pytest_trtgray.accuracy.metamorphic import (
        check_batch_consistency,
        check_determinism,
        check_padding,
        check_relations,
        check_row_permutation,
    )
    from pytest_trtgray.accuracy.noise import noise_floor
    from pytest_trtgray.accuracy.quantisation import Quantisation, inspect_quantisation
    from pytest_trtgray.accuracy.tolerance import Tolerance
    from pytest_trtgray.asserting import assert_outputs_close
    from pytest_trtgray.engines.base import Engine
    from pytest_trtgray.engines.model import DeviceInfo, Layer
    from pytest_trtgray.feeds import Feed, make_feed
    from pytest_trtgray.findings import Finding
    from pytest_trtgray.fuzz import outside_profile_shapes, profile_feeds, profile_shapes
    from pytest_trtgray.instruments import (
        Comparer,
        EngineFactory,
        LogReader,
        Metamorphic,
        Profiler,
        QuantisationInspector,
        ShadowFactory,
        StructureOf,
    )
    from pytest_trtgray.logs.log import Log
    from pytest_trtgray.reporting.tables import beside_table
    from pytest_trtgray.shape_switches import ShapeSwitches
    from pytest_trtgray.timing.beside import Beside, beside

__version__ = "0.1.0"

_HOMES = {
    "Beside": "timing.beside",
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
    "Localisation": "accuracy.localise",
    "Log": "logs.log",
    "LogReader": "instruments",
    "Metamorphic": "instruments",
    "Profiler": "instruments",
    "Quantisation": "accuracy.quantisation",
    "QuantisationInspector": "instruments",
    "ShadowFactory": "instruments",
    "StructureOf": "instruments",
    "Tolerance": "accuracy.tolerance",
    "assert_outputs_close": "asserting",
    "beside": "timing.beside",
    "beside_table": "reporting.tables",
    "check_batch_consistency": "accuracy.metamorphic",
    "check_determinism": "accuracy.metamorphic",
    "check_padding": "accuracy.metamorphic",
    "check_relations": "accuracy.metamorphic",
    "check_row_permutation": "accuracy.metamorphic",
    "compare": "accuracy.compare",
    "compare_calibrations": "accuracy.calibrations",
    "fp16_ranges": "accuracy.fp16",
    "inspect_quantisation": "accuracy.quantisation",
    "localise": "accuracy.localise",
    "compare_many": "accuracy.compare",
    "make_feed": "feeds",
    "noise_floor": "accuracy.noise",
    "ShapeSwitches": "shape_switches",
    "outside_profile_shapes": "fuzz",
    "profile_feeds": "fuzz",
    "profile_shapes": "fuzz",
}

__all__ = [
    "Beside",
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
    "Localisation",
    "Log",
    "LogReader",
    "Metamorphic",
    "Profiler",
    "Quantisation",
    "QuantisationInspector",
    "ShadowFactory",
    "ShapeSwitches",
    "StructureOf",
    "Tolerance",
    "__version__",
    "assert_outputs_close",
    "beside",
    "beside_table",
    "check_batch_consistency",
    "check_determinism",
    "check_padding",
    "check_relations",
    "check_row_permutation",
    "compare",
    "compare_calibrations",
    "compare_many",
    "fp16_ranges",
    "inspect_quantisation",
    "localise",
    "make_feed",
    "noise_floor",
    "outside_profile_shapes",
    "profile_feeds",
    "profile_shapes",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
