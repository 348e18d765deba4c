"""A run document as a trace for Perfetto and ``chrome://tracing``: the Trace Event Format, JSON object form.

An engine is a process. Its threads are the layers of each check of times, the layers of the baseline where it is known,
and the engine as a whole. Times are those of one usual inference, layer after layer: where an engine runs layers at
once, the trace is longer than the engine takes.

Format: the Trace Event Format of Chromium (complete events ``X`` with ``ts`` and ``dur`` in microseconds, metadata
events ``M`` for names and order). Viewers keep nanoseconds, so slices begin and end on whole ones: neighbours that
overlap by rounding are drawn inside of each other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_trtgray.errors import InterchangeError
from pytest_trtgray.interchange.comparison import TIMED
from pytest_trtgray.interchange.spreadsheet import changes, percent
from pytest_trtgray.reporting.document import UNREADABLE
from pytest_trtgray.reporting.results import details_of

Event = dict[str, Any]
_LAYERS, _BASELINE, _ENGINE = "layers", "layers of the baseline", "engine"
_MAX_US = 1e11  # a day; of longer ones, a floating-point number does not hold the nanoseconds


def trace_of(document: Mapping[str, Any], source: str = "") -> dict[str, Any]:
    """The trace of a run document.

    Args:
        document: as ``--trt-json`` or ``trtgray import`` writes it.
        source: its file, for messages.

    Raises:
        InterchangeError: it holds no times.
    """
    try:
        return _trace(document, source)
    except UNREADABLE as error:
        raise InterchangeError(
            source or "the run document", f"its details cannot be read: {error}", "Give it as trtgray wrote it."
        ) from error


def _trace(document: Mapping[str, Any], source: str) -> dict[str, Any]:
    engines: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for check in document["checks"]:
        if check["kind"] in TIMED and any(slices for _, slices in _threads(check)):
            engines.setdefault((check["engine"], check["runtime"], check["device"]), []).append(check)
    if not engines:
        raise InterchangeError(
            source or "the run document", "holds no times", "Write it with --trt-json in a run that measures times."
        )
    events: list[Event] = []
    tids = itertools.count(1)  # of the whole trace: to the kernel, and to Perfetto, a thread has one process
    for pid, (names, checks) in enumerate(engines.items(), start=1):
        events += _process(pid, names, checks, tids)
    return {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": {
            "source": source,
            "pytest_trtgray": document["pytest_trtgray"],
            "time_utc": document["time_utc"],
        },
    }


def _process(
    pid: int, names: tuple[str, str, str], checks: Sequence[Mapping[str, Any]], tids: Iterator[int]
) -> Iterator[Event]:
    engine, runtime, device = names
    where = " on ".join(part for part in (runtime, device) if part)
    yield _metadata(pid, 0, "process_name", {"name": f"{engine} ({where})" if where else engine})
    yield _metadata(pid, 0, "process_sort_index", {"sort_index": pid})
    for check in checks:
        for what, slices in _threads(check):
            if slices:
                tid = next(tids)
                name = what if len(checks) == 1 else f"{what}: {check['test']}"
                yield _metadata(pid, tid, "thread_name", {"name": name})
                yield _metadata(pid, tid, "thread_sort_index", {"sort_index": tid})
                yield from ({"ph": "X", "pid": pid, "tid": tid, **each} for each in slices)


def _metadata(pid: int, tid: int, name: str, arguments: Mapping[str, str | int]) -> Event:
    return {"ph": "M", "pid": pid, "tid": tid, "ts": 0, "name": name, "cat": "__metadata", "args": arguments}


def _threads(check: Mapping[str, Any]) -> Iterator[tuple[str, list[Event]]]:
    details = details_of(check)
    rows = details.get("layers") or ()
    yield _ENGINE, _in_turn([(check["engine"], check.get("total_us"), _engine_arguments(check))], "engine")
    for what, member in ((_LAYERS, "us"), (_BASELINE, "before_us")):
        yield what, _in_turn([(_name(row), row.get(member), _arguments(row)) for row in rows], "layer")


def _in_turn(parts: Sequence[tuple[str, Any, dict[str, Any]]], category: str) -> list[Event]:
    """Slices one after the other; what has no time is none."""
    found: list[Event] = []
    start_ns = 0
    for name, time_us, arguments in parts:
        if not isinstance(time_us, (int, float)) or isinstance(time_us, bool) or not 0 <= time_us < _MAX_US:
            continue
        duration_ns = round(time_us * 1000)
        found.append(
            {"name": name, "cat": category, "ts": start_ns / 1000, "dur": duration_ns / 1000, "args": arguments}
        )
        start_ns += duration_ns
    return found


def _name(row: Mapping[str, Any]) -> str:
    return str(row.get("key") or " + ".join(map(str, row.get("names") or ())) or "a layer")


def _arguments(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a viewer shows of a slice: texts and numbers that are known."""
    shown = {
        "onnx_nodes": ", ".join(map(str, row.get("nodes") or ())),
        "engine_names": ", ".join(map(str, row.get("names") or ())),
        "type": row.get("kind"),
        **{name: row.get(name) for name in ("module", "precision", "outcome", "before_us", "us", "median_us")},
        "share_percent": percent(row.get("share")),
        **changes(row),
    }
    return {name: value for name, value in shown.items() if value not in (None, "")}


def _engine_arguments(check: Mapping[str, Any]) -> dict[str, Any]:
    shown = {
        "test": check["test"],
        "outcome": check["outcome"],
        "summary": check["summary"],
        **{f"{name}_percent": percent(check.get(name)) for name in ("change", "low", "high")},
        **{f"context.{name}": value for name, value in (details_of(check).get("context") or {}).items()},
        **{f"method.{name}": value for name, value in (details_of(check).get("method") or {}).items()},
    }
    return {name: value for name, value in shown.items() if value not in (None, "")}
