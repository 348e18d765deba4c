"""One message of a runtime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

LogSeverity = Literal["internal_error", "error", "warning", "info", "verbose"]
SEVERITIES: tuple[LogSeverity, ...] = ("internal_error", "error", "warning", "info", "verbose")
PROBLEMS: tuple[LogSeverity, ...] = ("internal_error", "error", "warning")


@dataclass(frozen=True)
class Record:
    """One whole message; it may have many lines. Live messages and those read from files are the same type.

    Attributes:
        severity: see :data:`SEVERITIES`.
        producer: who printed it: ``tensorrt``, ``tensorrt_rtx``, ``trtexec``, ``polygraphy``, ``onnxruntime``,
            ``triton``, ``deepstream``, ``torch_tensorrt``, ``tensorrt_llm``, ``tensorflow``, ``jetson``, ``other``
            (an application); ``stderr`` for a line that passed by every logger.
        message: the text, as printed; without prefix and colours.
        phase: ``parse``, ``build``, ``load``, ``run``; empty before the first.
        time_s: seconds since the epoch; of a file, its clock read as UTC, 0 where a format has none.
        thread: identifier of the thread that said it; 0 if unknown.
        line: number of its first line in the file, from 1; None for a live message.
        source: ``file:line`` of the C++ source that said it, or empty.
        function: the C++ function that said it, or empty.
        tag: what a format says beside the severity: ``TRT`` for TensorRT's own messages in another's log.
        prefix: what stood before the message in the file, verbatim.
        monotonic_s: when it was said, by a clock that never jumps; only differences mean something. 0 if unknown.
        details: what came beside the text of a live message, by name: of TensorRT's parser ``code``, ``node``,
            ``node_name``, …; of its error recorder ``code``; of a progress monitor ``progress``, ``step``, ``steps``.
    """

    severity: LogSeverity
    producer: str
    message: str
    phase: str = ""
    time_s: float = 0.0
    thread: int = 0
    line: int | None = None
    source: str = ""
    function: str = ""
    tag: str = ""
    prefix: str = ""
    monotonic_s: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, fit for JSON Lines; ``time_s`` is ``time`` there."""
        # not asdict, which takes as long as all else that becomes of a message
        data = dict(vars(self))
        data["details"] = dict(self.details)
        data["time"] = data.pop("time_s")
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """The inverse of :meth:`to_dict`."""
        known = {key: data[key] for key in cls.__dataclass_fields__ if key in data}
        return cls(**{"time_s": data.get("time", 0.0), **known})


def errors_of(records: Iterable[Record]) -> list[Record]:
    """Errors, in order."""
    return [record for record in records if record.severity in ("internal_error", "error")]


def at_least(records: Iterable[Record], severity: LogSeverity) -> list[Record]:
    """Records that are as severe or more, in order."""
    wanted = frozenset(SEVERITIES[: SEVERITIES.index(severity) + 1])
    return [record for record in records if record.severity in wanted]
