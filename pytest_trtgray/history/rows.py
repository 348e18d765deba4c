"""A run document as rows: what of it a history keeps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pytest_trtgray.logs.records import LogSeverity, Record, at_least
from pytest_trtgray.reporting.document import DocumentError

MAX_LOG_RECORDS = 1000
"""Of a run; of more, the first, which are the causes."""
MAX_MESSAGE = 4000
"""Characters of a message."""
_TIMED = ("timing", "against")
_OWN_COLUMNS = frozenset(
    ("test", "kind", "engine", "runtime", "device", "outcome", "summary", "findings", "notes", "details", "total_us")
) | {"change", "low", "high", "relative_l2", "top_layers"}

Row = dict[str, Any]


@dataclass(frozen=True)
class LayerTime:
    """A layer's time in one check.

    Attributes:
        key: of the layer: its ONNX nodes.
        us: microseconds.
        outcome: of the verdict on it; empty where there was none.
    """

    key: str
    us: float
    outcome: str


@dataclass(frozen=True)
class CheckRows:
    """One check: its series, its own row, and what hangs on it."""

    series: Row
    check: Row
    layers: tuple[LayerTime, ...]
    outputs: tuple[Row, ...]
    findings: tuple[Row, ...]


@dataclass(frozen=True)
class RunRows:
    """One run, as it is stored."""

    run: Row
    checks: tuple[CheckRows, ...]
    log: tuple[Row, ...]


def rows_of(
    document: Mapping[str, Any],
    said: Iterable[tuple[str, Record]] = (),
    *,
    level: LogSeverity = "warning",
) -> RunRows:
    """The rows of a run document.

    Args:
        document: what ``--trt-json`` writes.
        said: the id of a test, and what the runtimes said in it.
        level: of what is kept of that.

    Raises:
        DocumentError: the document is damaged.
    """
    try:
        run = _run_row(document)
        checks = tuple(_check_rows(position, check) for position, check in enumerate(document["checks"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"is damaged: {type(error).__name__}: {error}"
        raise DocumentError("run document", what, "Take it from where it was written again.") from error
    messages = [(test, record) for test, record in said if at_least([record], level)]
    run["log_left_out"] = max(len(messages) - MAX_LOG_RECORDS, 0)
    return RunRows(run, checks, tuple(_log_rows(messages[:MAX_LOG_RECORDS])))


def digest_of(value: Any) -> str:
    """SHA-256 of a value as JSON, the same for the same content."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _run_row(document: Mapping[str, Any]) -> Row:
    facts: Mapping[str, Any] = document.get("run") or {}
    # of a document without that: what the first engine's times were taken with
    contexts = (check["details"].get("context") for check in document["checks"])
    context: Mapping[str, Any] = next((found for found in contexts if found), {})
    dirty = facts.get("dirty")
    return {
        # the document itself, where it has no id: who adds it twice adds it once
        "uid": _text(facts.get("id") or digest_of(document)),
        "time_utc": datetime.strptime(document["time_utc"], "%Y-%m-%dT%H:%M:%SZ"),
        "version": _text(document["pytest_trtgray"]),
        "python": _text(document["python"]),
        "commit": _text(facts.get("commit") or context.get("commit")),
        "branch": _text(facts.get("branch")),
        "dirty": None if dirty is None else bool(dirty),
        "job": _text(facts.get("job") or context.get("job")),
        "host": _text(facts.get("host")),
    }


def _check_rows(position: int, check: Mapping[str, Any]) -> CheckRows:
    details: Mapping[str, Any] = check["details"]
    names = {name: _text(check[name]) for name in ("kind", "test", "engine", "device", "runtime")}
    what = {name: _clean(details.get(name) or {}) for name in ("identity", "shapes", "method")}
    context = _clean(details.get("context") or {})
    return CheckRows(
        series={**names, **what, "digest": digest_of([names, what])},
        check={
            "position": position,
            "outcome": _text(check["outcome"]),
            "summary": _text(check["summary"]),
            "total_us": _number(check.get("total_us", (details.get("engine") or {}).get("us"))),
            **{name: _number(check.get(name)) for name in ("change", "low", "high", "relative_l2")},
            "clock_mhz": _number(details.get("clock_mhz")),
            "disturbed": _text(details.get("disturbed")),
            "context": context,
            "numbers": _clean({name: value for name, value in check.items() if name not in _OWN_COLUMNS}),
            "notes": _clean(list(check["notes"])),
        },
        layers=tuple(_layer_times(details["layers"])) if names["kind"] in _TIMED and "layers" in details else (),
        outputs=tuple(_output_rows(details["outputs"])) if names["kind"] == "outputs" and "outputs" in details else (),
        findings=tuple(_finding_rows(check["findings"])),
    )


def _layer_times(rows: Sequence[Mapping[str, Any]]) -> Iterable[LayerTime]:
    seen = set()
    for row in rows:
        key, us = _text(row["key"]), _number(row["us"])
        if us is None:
            continue  # a layer that is gone
        if key in seen:
            raise ValueError(f"two layers are called {key}")
        seen.add(key)
        yield LayerTime(key, us, _text(row.get("outcome")))


def _output_rows(rows: Sequence[Mapping[str, Any]]) -> Iterable[Row]:
    for position, row in enumerate(rows):
        yield {
            "position": position,
            "name": _text(row["name"]),
            **{name: _count(row.get(name)) for name in ("elements", "wrong", "non_finite")},
            **{name: _number(row.get(name)) for name in ("max_abs", "relative_l2")},
            "tolerance": _text(row.get("tolerance")),
        }


def _finding_rows(rows: Sequence[Mapping[str, Any]]) -> Iterable[Row]:
    for position, row in enumerate(rows):
        yield {
            "position": position,
            "severity": _text(row["severity"]),
            "rule": _text(row["rule"]),
            "place": _text(row["where"]),
            "what": _text(row["what"]),
            "evidence": _clean(row["evidence"]),
            "remedy": _text(row["remedy"]),
        }


def _log_rows(messages: Sequence[tuple[str, Record]]) -> Iterable[Row]:
    for position, (test, record) in enumerate(messages):
        yield {
            "position": position,
            "test": _text(test),
            "severity": record.severity,
            "producer": _text(record.producer),
            "phase": _text(record.phase),
            "time_s": float(record.time_s),
            "message": _text(record.message)[:MAX_MESSAGE],
        }


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _count(value: Any) -> int | None:
    return None if value is None else int(value)


def _text(value: Any) -> str:
    """What every database can store: PostgreSQL has no NUL, and names need not be UTF-8."""
    text = "" if value is None else str(value)
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return {_text(name): _clean(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(each) for each in value]
    return value
