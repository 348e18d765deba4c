r"""What ``trtexec`` of TensorRT 8 to 11 exports: ``--exportProfile``, ``--exportTimes``, ``--exportOutput``.

trtexec writes JSON by hand, and names as they are: a quote or a backslash in a name breaks it. Its own spelling (a
space before each colon) tells its files from those that another program has written again, whose names are escaped.

Of a profile only sums, averages and medians are left; times have a row an inference. ``medianMs`` came with 8.4,
``endToEndMs`` went with it. trtexec knows layers by position: it starts over when it sees the first name again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.errors import InterchangeError
from pytest_trtgray.findings import Finding, counted, some
from pytest_trtgray.interchange.text import AGAIN, dict_rows, is_cut_off, number_in, parse_json

Floats = NDArray[np.float64]

_NUMBER = r"[-+.\w#()]+"
_ENTRY = re.compile(
    rf'[\[,]\s*\{{ "name" : "(?P<name>.*?)"(?P<numbers>(?:, "\w+" : {_NUMBER})+) \}}(?=\s*[,\]])', re.DOTALL
)
_COUNT = re.compile(r'\s*\[\s*\{ "count" : (?P<count>\d+) \}\s*(?=[,\]])')
_PAIR = re.compile(rf', "(\w+)" : ({_NUMBER})')
_NEXT_ENTRY = re.compile(r'" : [^"]*\}\s*,\s*\{ "name" : "')
"""In a name: an entry could not be read, and the next one ended its name."""
_DIGITS = 5e-6
"""Numbers have six significant digits."""
_MISSING_PERCENT = 0.5
"""Rounding loses a few ten-thousandths of a percent; a layer that was deleted from the list loses more."""
_OVERLAPS = 0.01


@dataclass(frozen=True)
class LayerStatistics:
    """A layer in a profile; milliseconds, and ``None`` for what is not there or not a number.

    Attributes:
        name: as the engine has it.
        total_ms: over all inferences.
        mean_ms: of one execution.
        median_ms: of one execution; TensorRT 8.4 and later.
    """

    name: str
    total_ms: float | None
    mean_ms: float | None
    median_ms: float | None


@dataclass(frozen=True)
class ProfileExport:
    """A ``--exportProfile``.

    Attributes:
        count: inferences; ``None`` where the file does not say.
        layers: in execution order; several may have one name.
        findings: what is odd about the file.
    """

    count: int | None
    layers: tuple[LayerStatistics, ...]
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, eq=False)
class TimesExport:
    """A ``--exportTimes``: a value an inference, microseconds.

    Attributes:
        compute_us: of the kernels.
        upload_us: of the inputs; 0 where trtexec did not copy (``--noDataTransfers``, the default from 11 on).
        download_us: of the outputs.
        enqueue_us: that the host took to enqueue; empty where it is not there.
        overlapping: part of the inferences that began before the one before them had ended.
        findings: what is odd about the file.
    """

    compute_us: Floats
    upload_us: Floats
    download_us: Floats
    enqueue_us: Floats
    overlapping: float
    findings: tuple[Finding, ...] = ()

    @property
    def disturbed(self) -> str:
        """Why these are no times of one inference at a time; empty if they are."""
        if self.overlapping <= _OVERLAPS:
            return ""
        return f"{self.overlapping:.0%} of the inferences overlapped (--infStreams)"


def read_profile(path: Path, text: str) -> ProfileExport:
    """The layers of a ``--exportProfile``.

    Raises:
        InterchangeError: an entry cannot be read or holds no times, or there are none.
    """
    count, rows = _raw_profile(path, text) if '{ "name" : "' in text else _json_profile(path, text)
    layers = tuple(_statistics(path, number, row, count) for number, row in enumerate(rows, start=1))
    if not layers:
        raise InterchangeError(
            path, "holds no layers", "Export with --exportProfile, and let at least one inference end."
        )
    if all(layer.mean_ms is None for layer in layers):
        raise InterchangeError(path, "holds no time of any layer", AGAIN)
    return ProfileExport(count, layers, tuple(_oddities(path, count, layers, rows)))


def read_times(path: Path, text: str) -> TimesExport:
    """The inferences of a ``--exportTimes``.

    Start and end have six digits, which after a few seconds is a hundredth of a millisecond: a time that is missing
    is not computed from them.

    Raises:
        InterchangeError: an entry is no object or holds no number, or there are none.
    """
    rows: list[tuple[float, float, float, float, float, float]] = []
    left_out = 0
    for number, row in dict_rows(path, parse_json(path, text)):
        found = _inference(path, number, row)
        if found is None:
            left_out += 1
        else:
            rows.append(found)
    if not rows:
        reason = "holds no inference with a time" if left_out else "holds no inferences"
        raise InterchangeError(path, reason, "Export with --exportTimes, and let at least one inference end.")
    compute, upload, download, enqueue, started, ended = np.array(rows).T
    findings = []
    if left_out:
        what = (
            f"{left_out} of {counted(left_out + len(rows), 'inference')} have no computeMs that is a number; left out"
        )
        findings.append(Finding("warning", path.name, what, "interchange.no-number", remedy=AGAIN))
    return TimesExport(
        compute * 1e3,
        upload * 1e3,
        download * 1e3,
        enqueue[np.isfinite(enqueue)] * 1e3,
        _overlapping(started, ended),
        tuple(findings),
    )


def read_outputs(path: Path, text: str) -> dict[str, NDArray[np.float32]]:
    """The output tensors of a ``--exportOutput``, which tells no types: all become float32.

    Raises:
        InterchangeError: an entry has no values, or not as many as its dimensions say.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for number, row in dict_rows(path, parse_json(path, text)):
        name, dims, values = row.get("name"), row.get("dimensions"), row.get("values")
        if not isinstance(name, str) or not isinstance(dims, str) or not isinstance(values, list):
            raise InterchangeError(path, f"entry {number} has no name, dimensions and values", AGAIN)
        try:
            shape = tuple(int(dim) for dim in dims.split("x") if dim.strip())
            array = np.array([math.nan if value is None else float(value) for value in values], np.float32)
            found[name] = array.reshape(shape)
        except (TypeError, ValueError) as error:
            raise InterchangeError(path, f"output {name!r}: {error}", AGAIN) from error
    if not found:
        raise InterchangeError(path, "holds no outputs", AGAIN)
    return found


def _raw_profile(path: Path, text: str) -> tuple[int | None, list[dict[str, Any]]]:
    """Entries in trtexec's own spelling, whose names are what stands between the quotes."""
    head = _COUNT.match(text)
    position = head.end() if head else len(text) - len(text.lstrip())
    rows: list[dict[str, Any]] = []
    while (entry := _ENTRY.match(text, position)) is not None:
        if _NEXT_ENTRY.search(entry["name"]):
            raise InterchangeError(path, f"entry {len(rows) + 1} of the layers cannot be read", AGAIN)
        rows.append(
            {"name": entry["name"], **{key: _cpp_number(value) for key, value in _PAIR.findall(entry["numbers"])}}
        )
        position = _after_space(text, entry.end())
    if text[position:].strip() != "]":
        last = f" after {rows[-1]['name']!r}" if rows else ""
        if is_cut_off(text):
            raise InterchangeError(path, f"is cut off{last}: the times of further layers are missing", AGAIN)
        raise InterchangeError(path, f"entry {len(rows) + 1} of the layers{last} cannot be read", AGAIN)
    return int(head["count"]) if head else None, rows


def _after_space(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _json_profile(path: Path, text: str) -> tuple[int | None, list[dict[str, Any]]]:
    """Entries that another program has written again."""
    count: int | None = None
    rows: list[dict[str, Any]] = []
    for number, row in dict_rows(path, parse_json(path, text)):
        if "name" in row:
            rows.append({**row, "name": str(row["name"])})
        elif number == 1 and isinstance(row.get("count"), int):
            count = row["count"]
        else:
            raise InterchangeError(path, f"entry {number} has no name", AGAIN)
    return count, rows


def _cpp_number(text: str) -> float | str | None:
    try:
        value = float(text)
    except ValueError:
        return None if re.search(r"nan|inf|#", text, re.IGNORECASE) else text
    return value if math.isfinite(value) else None


def _statistics(path: Path, number: int, row: Mapping[str, Any], count: int | None) -> LayerStatistics:
    def wrong(reason: str) -> InterchangeError:
        return InterchangeError(path, f"layer {number}, {row['name']!r}: {reason}", AGAIN)

    total, mean, median = (number_in(row, key, wrong) for key in ("timeMs", "averageMs", "medianMs"))
    if not {"timeMs", "averageMs"} & set(row):
        raise wrong("has neither timeMs nor averageMs")
    if mean is None and total is not None and count:
        mean = total / count
    if median is None and "medianMs" not in row and count == 1:
        median = mean  # of one value
    return LayerStatistics(row["name"], total, mean, median)


def _oddities(
    path: Path, count: int | None, layers: Sequence[LayerStatistics], rows: Sequence[Mapping[str, Any]]
) -> list[Finding]:
    findings = []
    unknown = [layer.name for layer in layers if layer.mean_ms is None]
    if unknown:
        what = f"{counted(len(unknown), 'layer')} without a time that is a number: {some(unknown)}"
        findings.append(Finding("warning", path.name, what, "interchange.no-number", remedy=AGAIN))
    skipped = [layer.name for layer in layers if count and _executions(layer, count) != count]
    if skipped:
        findings.append(
            Finding(
                "warning",
                path.name,
                f"{counted(len(skipped), 'layer')} did not run in each of {count} inferences: {some(skipped)}",
                "interchange.uneven-counts",
                remedy="trtexec counts layers by position: behind a layer that is skipped, times may stand beside "
                "another layer's name. Profile a shape at which every layer runs.",
            )
        )
    shares = [row.get("percentage") for row in rows]
    known = [float(share) for share in shares if isinstance(share, (int, float)) and math.isfinite(share)]
    if len(known) == len(layers) and sum(known) > 0 and abs(sum(known) - 100) > _MISSING_PERCENT:
        findings.append(
            Finding(
                "warning",
                path.name,
                f"the layers' percentages add up to {sum(known):.1f} %: the list is not whole",
                "interchange.not-whole",
                {"percent": round(sum(known), 2)},
                "Take the file as trtexec wrote it.",
            )
        )
    return findings


def _executions(layer: LayerStatistics, count: int) -> int:
    """How often a layer ran, by its sum and its average; ``count`` where they do not tell."""
    if not layer.total_ms or not layer.mean_ms:
        return count
    times = layer.total_ms / layer.mean_ms
    return count if abs(times - count) <= max(0.5, 2 * _DIGITS * count) else round(times)


def _inference(
    path: Path, number: int, row: Mapping[str, Any]
) -> tuple[float, float, float, float, float, float] | None:
    def wrong(reason: str) -> InterchangeError:
        return InterchangeError(path, f"inference {number}: {reason}", AGAIN)

    if not {"computeMs", "latencyMs"} & set(row):
        raise wrong("has neither computeMs nor latencyMs")
    compute, upload, download, latency = (
        number_in(row, key, wrong) for key in ("computeMs", "h2dMs", "d2hMs", "latencyMs")
    )
    if compute is None and "computeMs" not in row and None not in (latency, upload, download):
        compute = max((latency or 0.0) - (upload or 0.0) - (download or 0.0), 0.0)
    if compute is None:
        return None
    started, ended, first, last = (
        number_in(row, key, wrong) for key in ("startComputeMs", "endComputeMs", "startEnqMs", "endEnqMs")
    )
    enqueue = math.nan if first is None or last is None else max(last - first, 0.0)
    nan = math.nan
    return (
        compute,
        upload or 0.0,
        download or 0.0,
        enqueue,
        nan if started is None else started,
        nan if ended is None else ended,
    )


def _overlapping(started: Floats, ended: Floats) -> float:
    if len(started) < 2 or not np.isfinite([started, ended]).all():
        return 0.0
    return float((started[1:] < ended[:-1] * (1 - 2 * _DIGITS)).mean())
