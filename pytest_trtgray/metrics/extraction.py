"""From the run document to series: what is known, of at most so many checks, layers and tensors."""

from __future__ import annotations

import calendar
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_trtgray.metrics import families as of
from pytest_trtgray.metrics.families import ENGINE_LABELS, Family
from pytest_trtgray.metrics.labels import bounded, label_of_test
from pytest_trtgray.reporting.headline import BAD, DOUBTFUL

MAX_CHECKS = 200
"""Checks with series of their own, failures first."""
TOP = 10
"""Layers, modules, outputs and tensors of a check, the worst first."""
OTHERS = "(others)"
OUTCOMES = (
    "pass",
    "recorded",
    "faster",
    "inconclusive",
    "suspect",
    "not recorded",
    "missing",
    "slower",
    "differs",
    "changed",
    "fail",
)
"""Written with 0 too: an alert needs the series that was there before."""
_SEVERITIES = ("error", "warning", "advice")


@dataclass(frozen=True)
class HistogramValue:
    """A histogram as Prometheus has it.

    Attributes:
        buckets: upper bound in seconds, and how many lie at or below it; the last bound is infinite.
        sum_seconds: of all.
    """

    buckets: tuple[tuple[float, int], ...]
    sum_seconds: float


@dataclass(frozen=True)
class Series:
    """Values by family and labels' values; a second value of the same labels is not taken."""

    values: dict[Family, dict[tuple[str, ...], float | HistogramValue]] = field(default_factory=dict)

    def add(self, family: Family, labels: Sequence[str], value: float | HistogramValue | None) -> None:
        """Add one value; ``None`` is not known and has no series."""
        if value is not None:
            self.values.setdefault(family, {}).setdefault(tuple(map(bounded, labels)), value)


def series_of(document: Mapping[str, Any]) -> Series:
    """All series of a run.

    Args:
        document: as ``--trt-json`` writes it.
    """
    found = Series()
    checks = list(_rows(document, "checks"))
    shown = _distinct(checks)[:MAX_CHECKS]
    engines = dict.fromkeys(map(_engine, shown))
    for engine in engines:
        _add_engine(found, engine, document, [check for check in checks if _engine(check) == engine])
    own = Counter(map(_engine, shown))
    left_out = Counter(engine if engine in engines else (OTHERS, "", "") for engine in map(_engine, checks))
    for engine, count in left_out.items():
        found.add(of.LEFT_OUT, engine, float(count - own[engine]))
    for check in shown:
        _add_check(found, check)
    return found


def _engine(check: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(bounded(str(check.get(name, ""))) for name in ENGINE_LABELS)


def _labels(check: Mapping[str, Any]) -> tuple[str, ...]:
    return (*_engine(check), label_of_test(str(check.get("test", ""))), bounded(str(check.get("kind", ""))))


def _add_engine(
    found: Series, engine: tuple[str, ...], document: Mapping[str, Any], checks: Sequence[Mapping[str, Any]]
) -> None:
    """What a run says of an engine as a whole."""
    versions = [str(document.get(key, "")) for key in ("pytest_trtgray", "python")]
    found.add(of.INFO, (*engine, *versions, _commit(checks)), 1.0)
    found.add(of.TIMESTAMP, engine, _timestamp(str(document.get("time_utc", ""))))
    counts = Counter(str(check.get("outcome")) for check in checks)
    for outcome in (*OUTCOMES, *sorted(set(counts) - set(OUTCOMES))):
        found.add(of.CHECKS, (*engine, outcome), float(counts[outcome]))


def _distinct(checks: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One check of each set of labels, the worst first; of equally good ones the slowest."""

    def rank(check: Mapping[str, Any]) -> tuple[int, float]:
        outcome = str(check.get("outcome"))
        return 0 if outcome in BAD else 1 if outcome in DOUBTFUL else 2, -(_number(check, "total_us") or 0.0)

    kept: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for check in sorted(checks, key=rank):
        kept.setdefault(_labels(check), check)
    return list(kept.values())


def _add_check(found: Series, check: Mapping[str, Any]) -> None:
    labels = _labels(check)
    details = _mapping(check, "details")
    found.add(of.FAILED, labels, float(str(check.get("outcome")) in BAD))
    found.add(of.OUTCOME, (*labels, str(check.get("outcome", ""))), 1.0)
    severities = Counter(str(row.get("severity")) for row in _rows(check, "findings"))
    for severity in _SEVERITIES:
        found.add(of.FINDINGS, (*labels, severity), float(severities[severity]))
    for family, key in ((of.CHANGE, "change"), (of.CHANGE_LOW, "low"), (of.CHANGE_HIGH, "high")):
        found.add(family, labels, _number(check, key))
    found.add(of.INFERENCE, labels, _seconds(check, "total_us"))
    found.add(of.CREATION, labels, _seconds(check, "creation_us"))
    firsts = [seconds for call in _rows(check, "calls") if (seconds := _seconds(call, "first_us")) is not None]
    found.add(of.FIRST_CALL, labels, max(firsts, default=None))
    if "iterations" in details:
        _add_timing(found, labels, details)
    _add_outputs(found, labels, check, details)
    scales = [row for row in _rows(details, "tensors") if _number(row, "clipped") is not None]
    for row in _largest(scales, "clipped"):
        found.add(of.SATURATED, (*labels, str(row.get("tensor", ""))), _number(row, "clipped"))
    memory = _mapping(details, "memory")
    for use in sorted(memory):
        found.add(of.MEMORY, (*labels, use.removesuffix("_bytes")), _number(memory, use))
    if memory or (check.get("kind") == "structure" and "layers" in details):
        found.add(of.LAYERS, labels, float(len(list(_rows(details, "layers")))))


def _add_timing(found: Series, labels: tuple[str, ...], details: Mapping[str, Any]) -> None:
    found.add(of.BASELINE, labels, _seconds(_mapping(details, "engine"), "before_us"))
    found.add(of.DISTURBED, labels, float(bool(details.get("disturbed"))))
    _add_latency(found, labels, _mapping(details, "latency"))
    layers = [row for row in _rows(details, "layers") if _number(row, "us") is not None]
    top = _largest(layers, "us")
    for row in top:
        key = (*labels, str(row.get("key", "")), str(row.get("precision", "")))
        found.add(of.LAYER, key, _seconds(row, "us"))
    if len(layers) > len(top):
        rest = sum(row["us"] for row in layers) - sum(row["us"] for row in top)
        found.add(of.LAYER, (*labels, OTHERS, ""), max(rest, 0.0) / 1e6)
    for row in _largest(_rows(details, "module_times"), "us"):
        found.add(of.MODULE, (*labels, str(row.get("module", ""))), _seconds(row, "us"))
    overheads, context = _mapping(details, "overheads"), _mapping(details, "context")
    found.add(of.COLD_START, labels, _seconds(overheads, "cold_start_us"))
    for direction in ("upload", "download"):
        found.add(of.TRANSFER, (*labels, direction), _seconds(overheads, f"{direction}_us"))
    _add_telemetry(found, labels, context, _number(details, "clock_mhz"))


def _add_latency(found: Series, labels: tuple[str, ...], latency: Mapping[str, Any]) -> None:
    edges, counts = latency.get("edges_us"), latency.get("counts")
    total = _seconds(latency, "sum_us")
    if not isinstance(edges, list) or not isinstance(counts, list) or total is None:
        return
    below, buckets = 0, []
    for edge, count in zip([*edges, math.inf], counts, strict=False):
        below += int(count)
        buckets.append((edge / 1e6, below))
    found.add(of.LATENCY, labels, HistogramValue(tuple(buckets), total))
    percentiles = _mapping(latency, "percentiles_us")
    for percentile in percentiles:
        found.add(of.LATENCY_PERCENTILES, (*labels, percentile), _seconds(percentiles, percentile))


def _add_telemetry(found: Series, labels: tuple[str, ...], context: Mapping[str, Any], busy_mhz: float | None) -> None:
    """What NVML told; the clock under load, where it was read, and not the one after it."""
    sm_mhz = _number(context, "sm_mhz") if busy_mhz is None else busy_mhz
    for domain, mhz in (("sm", sm_mhz), ("memory", _number(context, "memory_mhz"))):
        found.add(of.GPU_CLOCK, (*labels, domain), None if mhz is None else mhz * 1e6)
    found.add(of.GPU_TEMPERATURE, labels, _number(context, "temperature_c"))
    found.add(of.GPU_POWER, labels, _number(context, "power_w"))
    found.add(of.GPU_POWER_LIMIT, labels, _number(context, "power_limit_w"))
    percent = _number(context, "utilisation_percent")
    found.add(of.GPU_UTILIZATION, labels, None if percent is None else percent / 100)


def _add_outputs(found: Series, labels: tuple[str, ...], check: Mapping[str, Any], details: Mapping[str, Any]) -> None:
    # a structure has outputs too; those of a comparison have errors
    rows = [row for row in _rows(details, "outputs") if "wrong" in row]
    for row in _largest(rows, "relative_l2"):
        output = str(row.get("name", ""))
        found.add(of.RELATIVE_L2, (*labels, output), _number(row, "relative_l2"))
        wrong, elements = _number(row, "wrong"), _number(row, "elements")
        found.add(of.WRONG, (*labels, output), None if wrong is None or not elements else wrong / elements)
    if not rows:  # a document without details has the worst of all outputs
        found.add(of.RELATIVE_L2, (*labels, "(worst)"), _number(check, "relative_l2"))


def _largest(rows: Iterable[Mapping[str, Any]], key: str) -> list[Mapping[str, Any]]:
    """The first :data:`TOP` by a number; what has none is an error that JSON could not hold, and comes first."""

    def size(row: Mapping[str, Any]) -> float:
        value = _number(row, key)
        return -math.inf if value is None else -value

    return sorted(rows, key=size)[:TOP]


def _number(row: Mapping[str, Any], key: str) -> float | None:
    """A finite number, also one that a run's context keeps as text."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _seconds(row: Mapping[str, Any], key: str) -> float | None:
    us = _number(row, key)
    return None if us is None else us / 1e6


def _mapping(row: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = row.get(key)
    return value if isinstance(value, Mapping) else {}


def _rows(row: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    value = row.get(key)
    return (each for each in value if isinstance(each, Mapping)) if isinstance(value, list) else iter(())


def _commit(checks: Iterable[Mapping[str, Any]]) -> str:
    commits = (_mapping(_mapping(check, "details"), "context").get("commit") for check in checks)
    return next((str(commit) for commit in commits if commit), "")


def _timestamp(time_utc: str) -> float | None:
    try:
        return float(calendar.timegm(time.strptime(time_utc, "%Y-%m-%dT%H:%M:%SZ")))
    except ValueError:
        return None
