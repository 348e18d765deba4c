"""Is it still right? Outputs against the FP32 shadow."""

from pytest_trtgray.accuracy.compare import Comparison, OutputComparison, compare
from pytest_trtgray.accuracy.localise import Localisation, localise
from pytest_trtgray.accuracy.tolerance import Tolerance

__all__ = ["Comparison", "Localisation", "OutputComparison", "Tolerance", "compare", "localise"]
