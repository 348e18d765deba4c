"""Common to all test layers."""

from __future__ import annotations

# pytester forgets every module that a test run imported, and numpy cannot be imported twice in a process.
import hypothesis
import ml_dtypes
import numpy
import onnx
import onnxruntime
import scipy.stats

import pytest_trtgray.session
import pytest_trtgray.suite.builtin

pytest_plugins = ["pytester"]

LOADED_FIRST = (hypothesis, ml_dtypes, numpy, onnx, onnxruntime, scipy.stats, pytest_trtgray.suite.builtin)
