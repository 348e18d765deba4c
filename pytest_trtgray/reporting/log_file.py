"""What a log file says, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pytest_trtgray.findings import Finding, counted, errors, listing
from pytest_trtgray.logs.diagnosis import Diagnosis, diagnose, findings_of
from pytest_trtgray.logs.events import Event
from pytest_trtgray.logs.log import Log, read

_WIDTH = 13
_MAX_EVIDENCE, _MAX_CHARACTERS = 5, 300
_MIB = 1 << 20


@dataclass(frozen=True)
class LogReport:
    """A log file with what is behind it.

    Attributes:
        path: of the file.
        log: its messages and events.
        diagnosis: the first cause.
        findings: all that is worth one.
    """

    path: Path
    log: Log
    diagnosis: Diagnosis
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, path: Path) -> LogReport:
        """Read a file.

        Raises:
            LogError: the file cannot be read, or is not text.
        """
        log = read(path)
        return cls(path, log, diagnose(log.records, log.events), findings_of(log.records, log.events))

    @property
    def has_errors(self) -> bool:
        """Whether something failed."""
        return bool(errors(self.findings))

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, fit for JSON."""
        log = self.log
        return {
            "file": str(self.path),
            "producer": log.producer,
            "product": log.product,
            "version": log.version,
            "phase": log.phase,
            "messages": log.messages,
            "counts": dict(log.counts),
            "events": [event.to_dict() for event in log.events],
            "diagnosis": asdict(self.diagnosis),
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def to_text(self) -> str:
        """A page for people: what the log is of, what is behind it, what it says."""
        return "\n".join([self._title(), *self._facts(), *self._verdict(), *self._listing()])

    def _title(self) -> str:
        log = self.log
        product = " ".join(part for part in (log.product or "unknown product", log.version) if part)
        phase = f", up to phase {log.phase!r}" if log.phase else ""
        said = ", ".join(
            [
                counted(log.messages, "message"),
                counted(len(log.errors), "error"),
                counted(len(log.warnings), "warning"),
            ]
        )
        return f"{self.path}: {product}, printed by {log.producer or 'nobody'}{phase}: {said}"

    def _verdict(self) -> Iterator[str]:
        diagnosis = self.diagnosis
        yield ""
        yield diagnosis.code + (f": {diagnosis.cause}" if diagnosis.cause else "")
        if diagnosis.where:
            yield f"  at {diagnosis.where}"
        for evidence in diagnosis.evidence[:_MAX_EVIDENCE]:
            text = evidence.text.strip().replace("\n", "\n    ")
            line = f"line {evidence.line}: " if evidence.line is not None else ""
            yield f"  {line}{text[:_MAX_CHARACTERS]}{'...' if len(text) > _MAX_CHARACTERS else ''}"
        if diagnosis.remedy:
            yield f"  -> {diagnosis.remedy}"

    def _listing(self) -> Iterator[str]:
        if self.findings:
            yield ""
            yield f"{counted(len(self.findings), 'finding')}:"
            yield listing(self.findings, limit=20)

    def _facts(self) -> Iterator[str]:
        """One line for each thing that people look for in a log."""
        by_kind: dict[str, list[Event]] = {}
        for event in self.log.events:
            by_kind.setdefault(event.kind, []).append(event)
        for name, render in _FACTS.items():
            for text in render(by_kind, self.log.counts):
                yield f"  {name:<{_WIDTH}}{text}"


_Events = dict[str, list[Event]]


def _models(events: _Events, _: Any) -> Iterator[str]:
    for header in events.get("onnx_header", [])[:5]:
        fields = header.fields
        parts = [str(fields.get("file", ""))]
        parts += [f"opset {fields['opset']}"] if "opset" in fields else []
        parts += [f"IR {fields['ir_version']}"] if "ir_version" in fields else []
        parts += (
            [f"{fields['producer']} {fields.get('producer_version', '')}".strip()] if fields.get("producer") else []
        )
        yield ", ".join(part for part in parts if part)


def _layers(events: _Events, _: Any) -> Iterator[str]:
    stages = events.get("layer_count", [])
    if stages:
        first, last = stages[0].fields, stages[-1].fields
        yield f"{first['n']} ({first['stage']}) to {last['n']} ({last['stage']})"


def _tuning(events: _Events, counts: Any) -> Iterator[str]:
    timed = counts.get("tactic", 0)
    if timed:
        dead = sum(1 for event in events["tactic"] if event.fields.get("dead"))
        chosen = counts.get("chosen_tactic", 0)
        yield f"{counted(timed, 'tactic')} timed ({dead} dead), {counted(chosen, 'choice')} made"


def _times(events: _Events, _: Any) -> Iterator[str]:
    for kind, what in (("calibration_done", "calibration"), ("engine_built", "build"), ("build_time", "build, all")):
        for event in events.get(kind, [])[:3]:
            yield f"{what}: {event.fields['seconds']} s"


def _memory(events: _Events, _: Any) -> Iterator[str]:
    sizes: dict[str, int] = {}
    for event in events.get("memory", []):
        sizes[str(event.fields["what"])] = max(event.fields["bytes"], sizes.get(str(event.fields["what"]), 0))
    for kind, what in (("engine_size", "engine"), ("engine_loaded", "engine loaded")):
        for event in events.get(kind, [])[-1:]:
            sizes[what] = event.fields["size_bytes"]
    for what, size in sizes.items():
        yield f"{what}: {size / _MIB:.1f} MiB" if size >= _MIB else f"{what}: {size} bytes"


def _performance(events: _Events, _: Any) -> Iterator[str]:
    for event in events.get("perf", []):
        fields = {name: value for name, value in event.fields.items() if name not in ("metric", "unit")}
        values = ", ".join(f"{name} {value}" if name != "value" else str(value) for name, value in fields.items())
        yield f"{event.fields['metric']}: {values} {event.fields.get('unit', '')}".rstrip()


def _left_out(events: _Events, counts: Any) -> Iterator[str]:
    missing = sum(counts.values()) - sum(len(found) for found in events.values())
    if missing:
        yield f"{counted(missing, 'event')} of {sum(counts.values())}: only the first of each kind are kept"


_FACTS = {
    "model": _models,
    "layers": _layers,
    "autotuning": _tuning,
    "time": _times,
    "memory": _memory,
    "performance": _performance,
    "left out": _left_out,
}
