"""The run document: everything that one run of pytest has found, as ``--trt-json`` writes it."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest_trtgray
from pytest_trtgray.errors import TrtGrayError
from pytest_trtgray.reporting.details import MEASURED
from pytest_trtgray.reporting.results import CheckResult

FORMAT = "trtgray-run"
SCHEMA = 1
UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError)
"""What a document raises whose members are not what they should be, because somebody has edited it."""


class DocumentError(TrtGrayError):
    """A run document cannot be read."""


def make_document(checks: Iterable[CheckResult]) -> dict[str, Any]:
    """The document of this run: builtins only, and no number that JSON does not have."""
    document: dict[str, Any] = finite(
        {
            "format": FORMAT,
            "schema": SCHEMA,
            "pytest_trtgray": pytest_trtgray.__version__,
            "python": platform.python_version(),
            "time_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "checks": [_check_row(result) for result in checks],
        }
    )
    return document


def _check_row(result: CheckResult) -> dict[str, Any]:
    """What sessions measured stands beside the details: no report draws it, and a page should not carry it."""
    details = dict(result.details)
    measured = details.pop(MEASURED, None)
    row = {"test": result.nodeid, **result.check, "details": details}
    return {**row, MEASURED: measured} if measured else row


def read_document(path: Path) -> dict[str, Any]:
    """A run document from its file.

    Raises:
        DocumentError: there is none, it is no run document, or one of a later version.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise DocumentError(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise DocumentError(path, f"is no JSON: {error}", "Give a file that --trt-json has written.") from error
    return parse_document(path, text)


def parse_document(path: Path, text: str) -> dict[str, Any]:
    """A run document from the text of its file.

    Raises:
        DocumentError: as of :func:`read_document`.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DocumentError(path, f"is no JSON: {error}", "Give a file that --trt-json has written.") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data.get("checks"), list):
        raise DocumentError(path, f"is no {FORMAT} document", "Give a file that --trt-json has written.")
    if data.get("schema") != SCHEMA:
        raise DocumentError(
            path,
            f"has schema {data.get('schema')}, this version reads {SCHEMA}",
            "Use the version of pytest-trtgray that wrote it, or record the run again.",
        )
    return data


def finite(value: Any) -> Any:
    """The same with ``None`` for NaN and infinities, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return value
