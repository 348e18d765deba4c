"""What the fixtures give: things that build, measure, compare and inspect engines within a test."""

from __future__ import annotations

from pytest_trtgray.instruments.building import EngineFactory, ShadowFactory
from pytest_trtgray.instruments.comparer import Comparer, Reference, compare_on
from pytest_trtgray.instruments.inputs import default_feed, marked
from pytest_trtgray.instruments.logs import LogReader, log_level
from pytest_trtgray.instruments.metamorphic import Metamorphic
from pytest_trtgray.instruments.profiler import Profiler
from pytest_trtgray.instruments.quantisation import QuantisationInspector
from pytest_trtgray.instruments.structure import StructureOf

__all__ = [
    "Comparer",
    "EngineFactory",
    "LogReader",
    "Metamorphic",
    "Profiler",
    "QuantisationInspector",
    "Reference",
    "ShadowFactory",
    "StructureOf",
    "compare_on",
    "default_feed",
    "log_level",
    "marked",
]
