"""Is it still right? Outputs against the FP32 shadow, and against themselves."""

from pytest_trtgray.accuracy.compare import Comparison, OutputComparison, compare
from pytest_trtgray.accuracy.localise import Localisation, localise
from pytest_trtgray.accuracy.tolerance import Tolerance

__all__ = ["Comparison", "Localisation", "OutputComparison", "Tolerance", "compare", "localise"]
from pytest_trtgray.accuracy.compare import (
    ComparisonSeries,
    compare_many,
)
from pytest_trtgray.accuracy.metrics import Metrics
from pytest_trtgray.accuracy.noise import noise_floor

__all__ = [
    "Comparison",
    "ComparisonSeries",
    "Metrics",
    "OutputComparison",
    "Tolerance",
    "compare",
    "compare_many",
    "noise_floor",
]
