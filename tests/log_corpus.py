"""Logs with the facts that a reader has to find in them: folders of ``X.log``, ``X.json``, ``X.messages.jsonl``.

``X.json`` holds ``expected``: a list of facts. ``text_evidence`` is a literal of the log that must be found again
through the parsed messages; any other fact is an event with its fields. ``X.messages.jsonl`` are the messages of
the same run as TensorRT gave them to a logger of Python: the truth about where messages begin and end.
"""

from __future__ import annotations

import gzip
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_trtgray.logs.log import Log, read
from pytest_trtgray.logs.reader import read_records

MIB = 1 << 20
# The facts' names of sizes, with their unit; events say bytes.
_SIZES = {
    "mib": ("size_bytes", MIB),
    "gpu_delta": ("gpu_delta_bytes", MIB),
    "gpu_now": ("gpu_now_bytes", MIB),
    "request_mb": ("request_bytes", MIB),
    "available_mb": ("available_bytes", MIB),
}
# Known from the parser's API alone, or how often a fact was said
_NOT_IN_THE_TEXT = ("event", "local_function_stack", "count")
_CUT_AT = 300  # characters of a long text that the facts quote
# The two captures of a run are two runs: what they took differs.
_DURATION = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?(?= ?m?s\b| seconds)")


@dataclass(frozen=True)
class Pair:
    """A log and what is known about it."""

    log: Path
    facts: list[dict[str, Any]]
    messages: Path | None
    about: Mapping[str, Any]


def pairs(corpus: Path) -> Iterator[Pair]:
    """All logs below a folder that have facts."""
    for log in sorted([*corpus.rglob("*.log"), *corpus.rglob("*.log.gz")]):
        stem = log.name.removesuffix(".gz").removesuffix(".log")
        sidecar = log.with_name(f"{stem}.json")
        messages = [log.with_name(f"{stem}.messages.jsonl{end}") for end in ("", ".gz")]
        if sidecar.exists():
            about = json.loads(sidecar.read_text("utf-8"))
            yield Pair(log, about.get("expected", []), next(filter(Path.exists, messages), None), about)


def missing(pair: Pair, log: Log | None = None) -> list[dict[str, Any]]:
    """The facts that are not found."""
    log = read(pair.log) if log is None else log
    said = "\n".join(record.prefix + record.message for record in log.records)
    return [fact for fact in pair.facts if not is_found(fact, log, said)]


def is_found(fact: Mapping[str, Any], log: Log, said: str) -> bool:
    """Whether a fact is found: as text with its prefix, or as an event that has all its fields."""
    if fact["event"] == "text_evidence":
        return fact["contains"] in said
    wanted = _wanted(fact)
    return any(
        event.kind == fact["event"] and all(_alike(value, event.fields.get(name)) for name, value in wanted.items())
        for event in log.events
    )


def _wanted(fact: Mapping[str, Any]) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    for name, value in fact.items():
        if name in _SIZES:
            wanted[_SIZES[name][0]] = round(value * _SIZES[name][1])
        elif name == "time" and value == "inf":
            wanted["time_ms"] = None
        elif name not in _NOT_IN_THE_TEXT:
            wanted[name] = value
    return wanted


def _alike(wanted: Any, have: Any) -> bool:
    if isinstance(wanted, float) and isinstance(have, (int, float)):
        return math.isclose(wanted, have, rel_tol=1e-6)
    if isinstance(wanted, str) and isinstance(have, str):
        return wanted == have or (len(wanted) >= _CUT_AT and have.startswith(wanted)) or have.endswith(f" {wanted}")
    return bool(wanted == have)


def boundaries(pair: Pair) -> tuple[int, int]:
    """How many messages of the truth are found whole, and how many there are."""
    assert pair.messages is not None
    stored = pair.messages.read_bytes()
    lines = gzip.decompress(stored) if pair.messages.suffix == ".gz" else stored
    truth = Counter(_DURATION.sub("#", json.loads(line)["msg"]) for line in lines.splitlines())
    mine = Counter(_DURATION.sub("#", record.message) for record in read_records(pair.log))
    return sum(truth.values()) - sum((truth - mine).values()), sum(truth.values())
