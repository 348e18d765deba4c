"""Importing other people's packages: quietly, late, and with a way out when they are missing."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from pytest_trtgray.errors import EngineError

_INSTALL = {
    "onnxruntime": "pip install 'pytest-trtgray[cpu]' (or [gpu])",
    "tensorrt": "pip install 'pytest-trtgray[tensorrt]', or the wheel that came with your TensorRT",
    "tensorrt_rtx": "pip install 'pytest-trtgray[rtx]'",
    "pycuda": "pip install 'pytest-trtgray[gpu]'",
    "sqlalchemy": "pip install 'pytest-trtgray[history]'",
    "alembic": "pip install 'pytest-trtgray[history]'",
    "prometheus_client": "pip install 'pytest-trtgray[metrics]'",
    "torch": "pip install 'pytest-trtgray[torch]'",
    "sklearn": "pip install 'pytest-trtgray[anomalies]'",
}


def quiet_import(name: str) -> Any:
    """Import ``name`` without letting its own deprecation warnings fail a run under ``-W error``.

    Raises:
        EngineError: the package is missing or cannot be loaded; says how to install it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError as error:
            top = name.partition(".")[0]
            remedy = f"Install it: {_INSTALL[top]}" if top in _INSTALL else ""
            raise EngineError(top, f"cannot be imported: {error}", remedy) from error


def is_installed(name: str) -> bool:
    """Whether a package can be found, without importing it."""
    from importlib.util import find_spec

    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False
