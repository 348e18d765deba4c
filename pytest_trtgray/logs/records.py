"""One message of a runtime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

LogSeverity = Literal["internal_error", "error", "warning", "info", "verbose"]
SEVERITIES: tuple[LogSeverity, ...] = ("internal_error", "error", "warning", "info", "verbose")


@dataclass(frozen=True)
class Record:
    """One whole message; it may have many lines.

    Attributes:
        severity: see :data:`SEVERITIES`.
        producer: ``tensorrt``, ``tensorrt_rtx``, ``onnxruntime``, ``polygraphy``, ``stderr``.
        message: the text, as said.
        phase: ``parse``, ``build``, ``load``, ``run``.
        time_s: seconds since the epoch.
        thread: identifier of the thread that said it.
        monotonic_s: when it was said, by a clock that never jumps; only differences mean something. 0 if unknown.
        details: what came beside the text, by name: of TensorRT's parser ``code``, ``node``, ``node_name``, …;
            of its error recorder ``code``; of a progress monitor ``step``, ``steps``.
    """

    severity: LogSeverity
    producer: str
    message: str
    phase: str = ""
    time_s: float = 0.0
    thread: int = 0
    monotonic_s: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, fit for JSON Lines."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """The inverse of :meth:`to_dict`."""
        return cls(**{key: data[key] for key in cls.__dataclass_fields__ if key in data})


def errors_of(records: Iterable[Record]) -> list[Record]:
    """Errors, in order."""
    return [record for record in records if record.severity in ("internal_error", "error")]


def at_least(records: Iterable[Record], severity: LogSeverity) -> list[Record]:
    """Records that are as severe or more, in order."""
    wanted = frozenset(SEVERITIES[: SEVERITIES.index(severity) + 1])
    return [record for record in records if record.severity in wanted]
