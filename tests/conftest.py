"""Common to all test layers."""

from __future__ import annotations

import importlib

# pytester forgets every module that a test run imported, and numpy cannot be imported twice in a process.
import hypothesis
import ml_dtypes
import numpy
import onnx
import onnxruntime
import scipy.stats

import pytest_trtgray.checks
import pytest_trtgray.instruments
import pytest_trtgray.session
import pytest_trtgray.suite.builtin
import pytest_trtgray.timing.session
from pytest_trtgray.engines.building import polygraphy_of
from pytest_trtgray.vendor import is_installed

pytest_plugins = ["pytester"]

for name in ("sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.sqlite", "alembic.command", "psycopg"):
    if is_installed(name.partition(".")[0]):
        importlib.import_module(name)
if is_installed("tensorrt_rtx"):
    polygraphy_of("tensorrt_rtx")

LOADED_FIRST = (hypothesis, ml_dtypes, numpy, onnx, onnxruntime, scipy.stats, pytest_trtgray.suite.builtin)
