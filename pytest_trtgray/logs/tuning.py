"""Autotuning: which tactics were timed for which node, and which one won."""

from __future__ import annotations

import re
from typing import Any

from pytest_trtgray.logs.numbers import MIB, number, whole

Found = list[tuple[str, dict[str, Any]]]
_NONE: Found = []  # never changed

DEAD_TACTICS = frozenset(("0xd15ea5edd15ea5ed", "-3360065831133338131"))
"""What TensorRT notes where no tactic worked ("diseased"), as hexadecimal and as decimal number."""

_TIME = ("Time:", "time", "time:", "Time")  # over the years
_NAMED_TIMED = re.compile(r"Tactic Name: (.*) Tactic: (\S+) Time: (\S+)$", re.DOTALL)
_SET_NAME = "Set Tactic Name: "
_RUNNER = "--------------- Timing Runner: "
_COSTS = re.compile(r"=+ Computing (?:reformatting )?costs(?: for|:)? ?(.*)$", re.DOTALL)
_FORMATS = "Autotuning "
_PROFILED = re.compile(
    r"(.*) \(([^()\[\]]+)(?:\[(0x\w+)\])?\) profiling completed in (\S+) seconds\. Fastest Tactic: (\S+) Time: (\S+)$",
    re.DOTALL,
)
_CHOSEN = "Chose Runner Type: "
_SKIPPED_SCRATCH = re.compile(r"Tactic: (\S+) skipped\. Scratch requested: (\d+), available: (\d+)")
_DEVICE_REQUEST = re.compile(r"Tactic Device request: (\d+) ?(MB|MiB|B)? Available: (\d+) ?(MB|MiB|B)?")


class Tuning:
    """The place in the autotuning, which TensorRT says once and later messages lack.

    ``tactic``: ``id``, ``time_ms`` (None: it failed, then ``dead``), and where known ``name``, ``node``, ``runner``,
    ``formats``. ``chosen_tactic``: the winner for one combination of formats, with ``time_ms`` of the fastest.
    """

    def __init__(self) -> None:
        self._node = self._runner = self._formats = self._name = self._named_id = ""
        self._fastest: dict[str, float | None] = {}

    def tactic(self, text: str) -> Found:
        """Messages that begin with ``Tactic``; a third of a verbose build's lines."""
        words = text.split(" ")
        if len(words) == 4 and words[2] in _TIME:
            tactic, time = words[1], words[3]
            fields = self._timed(tactic, time)
            if self._named_id == tactic or (self._name and not self._named_id):
                fields["name"] = self._name
                self._name = self._named_id = ""
            return [("tactic", fields)]
        if match := _NAMED_TIMED.match(text):
            fields = self._timed(match[2], match[3])
            fields["name"] = match[1]
            return [("tactic", fields)]
        if match := _SKIPPED_SCRATCH.match(text):
            fields = {"id": match[1], "requested_bytes": whole(match[2]), "available_bytes": whole(match[3])}
            return [("tactic_skipped_memory", self._placed(fields))]
        if match := _DEVICE_REQUEST.match(text):
            unit = {"MB": MIB, "MiB": MIB}
            fields = {
                "request_bytes": whole(match[1]) * unit.get(match[2] or "", 1),
                "available_bytes": whole(match[3]) * unit.get(match[4] or "", 1),
            }
            return [("tactic_device_request", self._placed(fields))]
        return []

    def _timed(self, tactic: str, time: str) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "id": tactic,
            "time_ms": None,
            "node": self._node,
            "runner": self._runner,
            "formats": self._formats,
        }
        if tactic in DEAD_TACTICS or (milliseconds := number(time)) is None:
            fields["dead"] = True
        else:
            fields["time_ms"] = milliseconds
        return fields

    def _placed(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "node": self._node, "runner": self._runner}

    # The next three are most of a verbose build's lines: no patterns, as those take three times as long.

    def named(self, text: str) -> Found:
        """``NODE Set Tactic Name: NAME Tactic: ID``; its time follows."""
        words = text[text.find(_SET_NAME) + len(_SET_NAME) :].split(" ", 3)
        self._name = words[0]
        self._named_id = words[2] if len(words) > 2 and words[1] == "Tactic:" else ""
        return _NONE

    def formats(self, text: str) -> Found:
        """``*** Autotuning format combination: A -> B ***``."""
        start = text.find(_FORMATS)
        if start >= 0:
            self._formats, self._runner = text[start:].rstrip("* ").partition(":")[2].lstrip(), ""
            self._fastest.clear()
        return _NONE

    def runner(self, text: str) -> Found:
        """``--- Timing Runner: NODE (RUNNER[0x…])``."""
        if text.startswith(_RUNNER):
            node, _, runner = text[len(_RUNNER) :].rpartition(" (")
            self._node, self._runner = node, runner.partition("[")[0].rstrip(")")
            self._name = self._named_id = ""
        return _NONE

    def costs(self, text: str) -> Found:
        """``=== Computing costs for NODE``."""
        if match := _COSTS.match(text):
            self._node, self._formats, self._runner = match[1], "", ""
            self._fastest.clear()
        return _NONE

    def fastest(self, text: str) -> Found:
        """``Fastest Tactic: ID Time: T``."""
        words = text.split(" ")
        return self._profiled(words[2], words[4], {}) if len(words) == 5 and words[3] in _TIME else _NONE

    def profiled(self, text: str) -> Found:
        """``NODE (RUNNER[0x…]) profiling completed in S seconds. Fastest Tactic: ID Time: T``."""
        match = _PROFILED.match(text)
        if not match:
            return []
        self._node, self._runner = match.group(1, 2)
        return self._profiled(match[5], match[6], {"seconds": number(match[4])})

    def _profiled(self, tactic: str, time: str, more: dict[str, Any]) -> Found:
        fields = self._timed(tactic, time)
        fields["fastest_tactic"] = fields.pop("id")
        self._fastest[tactic] = fields["time_ms"]
        return [("tactic_profiled", {**fields, **more})]

    def chosen(self, text: str) -> Found:
        """``>>> Chose Runner Type: RUNNER Tactic: ID``."""
        runner, _, tactic = text.partition(_CHOSEN)[2].rpartition(" Tactic: ")
        if not runner:
            return _NONE
        fields: dict[str, Any] = {"runner": runner, "id": tactic, "node": self._node, "formats": self._formats}
        if (time := self._fastest.get(tactic)) is not None:
            fields["time_ms"] = time
        return [("chosen_tactic", fields)]

    def default_scale(self, text: str) -> Found:
        """``Setting a default quantization params because quantization data is missing for TENSOR``."""
        tensor = text.partition(" is missing for ")[2]
        return [("default_scale", {"tensor": tensor, "node": self._node, "runner": self._runner})]

    def unfit(self, text: str) -> Found:
        """``RUNNER has no valid tactics for this config, skipping``; ``Skipping RUNNER: No valid tactics for NODE``."""
        runner = text.split(" has no valid", 1)[0] if " has no valid" in text else text[9:].split(":", 1)[0]
        return [("runner_skipped", {"runner": runner, "node": self._node})]
