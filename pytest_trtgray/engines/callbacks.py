"""What TensorRT calls while it works: a logger, an error recorder, a progress monitor; all feed the log sink.

An exception that leaves one of these methods is swallowed by the bindings together with what was reported, a
Ctrl-C among them: see :func:`deferred_interrupt`.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pytest_trtgray.engines.header import Flavour
from pytest_trtgray.logs.records import LogSeverity
from pytest_trtgray.logs.sink import SINK
from pytest_trtgray.progress import Tell, tell_nobody
from pytest_trtgray.vendor import quiet_import

_MAX_ERRORS_KEPT = 100
_STEP_INTERVAL_S = 1.0
"""A phase may have a thousand steps; one of them a second tells how far it is."""
_SEVERITIES: Mapping[str, LogSeverity] = {
    "INTERNAL_ERROR": "internal_error",
    "ERROR": "error",
    "WARNING": "warning",
    "INFO": "info",
    "VERBOSE": "verbose",
}
_PARSER_FIELDS = ("code", "node", "node_name", "node_operator", "func", "local_function_stack", "file", "line", "desc")


@functools.lru_cache(maxsize=2)
def logger_of(flavour: Flavour) -> Any:
    """The one logger of this process for a flavour; it feeds the sink and never raises."""
    trt = quiet_import(flavour)

    class Bridge(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            SINK.say(_SEVERITIES.get(getattr(severity, "name", ""), "info"), flavour, message)

    return Bridge()


@functools.lru_cache(maxsize=2)
def recorder_of(flavour: Flavour) -> Any:
    """The one error recorder of this process for a flavour.

    An object with a recorder tells its errors to the recorder *instead of* the logger, with a code; this one
    hands them on to the sink. It must outlive every object that it is attached to, and must not be attached to
    a builder before the parser is made (the process then crashes when they are destroyed).
    """
    trt = quiet_import(flavour)

    class Recorder(trt.IErrorRecorder):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IErrorRecorder.__init__(self)
            self._errors: deque[tuple[Any, str]] = deque(maxlen=_MAX_ERRORS_KEPT)
            self._overflowed = False

        def report_error(self, code: Any, description: str) -> bool:
            self._overflowed = self._overflowed or len(self._errors) == _MAX_ERRORS_KEPT
            self._errors.append((code, description))
            SINK.say("error", flavour, description, {"code": _enum_name(code)})
            return True  # the call that failed cannot go on

        def num_errors(self) -> int:
            return len(self._errors)

        def get_error_code(self, index: int) -> Any:
            return self._errors[index][0]

        def get_error_desc(self, index: int) -> str:
            return self._errors[index][1]

        def has_overflowed(self) -> bool:
            return self._overflowed

        def clear(self) -> None:
            self._errors.clear()
            self._overflowed = False

    return Recorder()


class Interrupt:
    """Whether somebody has pressed Ctrl-C since :func:`deferred_interrupt` began."""

    def __init__(self) -> None:
        self.is_pending = False


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Keep a Ctrl-C from being lost in a callback of native code, and raise it at the end of the ``with`` block.

    Python delivers a signal inside of whatever callback comes next, where the bindings print and forget it. Inside
    the block the first Ctrl-C is only noted, for the code in the block to stop early; a second one ends the process
    at once, as it would a program in C.
    """
    interrupt = Interrupt()
    before = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    if not callable(before):  # another thread, which gets no signals; or somebody wants none
        yield interrupt
        return

    def note(number: int, frame: Any) -> None:
        interrupt.is_pending = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
        if interrupt.is_pending:
            before(signal.SIGINT, None)


def monitor_of(flavour: Flavour, should_stop: Callable[[], bool], tell: Tell = tell_nobody) -> Any:
    """A progress monitor: phases become records, and the build is cancelled once ``should_stop`` says so.

    Args:
        flavour: which TensorRT.
        should_stop: asked after every step.
        tell: of the innermost phase under way, how many steps are done; see :mod:`pytest_trtgray.progress`.

    Returns:
        an ``IProgressMonitor``; ``None`` where the flavour has none (before 9.0).
    """
    trt = quiet_import(flavour)
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._phases: dict[str, _Phase] = {}
            self._lock = threading.Lock()  # TensorRT may report from several threads

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with contextlib.suppress(Exception), self._lock:
                phase = self._phases[phase_name] = _Phase(phase_name, parent_phase or "", num_steps)
                phase.say(flavour, f"{num_steps} steps")
                tell(0, num_steps, phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with contextlib.suppress(Exception), self._lock:
                phase = self._phases[phase_name]
                phase.complete(flavour, step)
                tell(phase.done, phase.steps, phase_name)
            return not should_stop()

        def phase_finish(self, phase_name: str) -> None:
            with contextlib.suppress(Exception), self._lock:
                phase = self._phases.pop(phase_name)
                phase.say(flavour, f"{phase.done} of {phase.steps} steps in {phase.seconds():.3f} s")

    return Monitor()


class _Phase:
    """A phase of the optimizer that is under way."""

    def __init__(self, name: str, parent: str, steps: int) -> None:
        self.name, self.parent, self.steps = name, parent, steps
        self.done = 0
        self._started = self._said = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self._started

    def complete(self, flavour: Flavour, step: int) -> None:
        self.done = max(self.done, step + 1)
        if time.monotonic() - self._said >= _STEP_INTERVAL_S:
            self._said = time.monotonic()
            self.say(flavour, f"{self.done} of {self.steps} steps")

    def say(self, flavour: Flavour, what: str) -> None:
        details = {"progress": self.name, "parent": self.parent, "step": self.done, "steps": self.steps}
        SINK.say("verbose", flavour, f"Progress: {self.name}: {what}", details)


def say_parser_errors(flavour: Flavour, parser: Any) -> None:
    """Send a parser's errors to the sink with all that it knows of each.

    The log names only the outermost node of an error inside of a function, a branch or a loop; the parser's own list
    has the node, its operator and the functions around it. What a release does not tell is left out.
    """
    for index in range(parser.num_errors):
        try:
            error = parser.get_error(index)
        except UnicodeDecodeError as undecodable:  # some releases read all of it at once
            SINK.say("error", flavour, _text(undecodable))
            continue
        details = {name: _value(getattr(error, name)) for name in _PARSER_FIELDS if hasattr(error, name)}
        told = {name: value for name, value in details.items() if value not in ("", [])}
        SINK.say("error", flavour, _value(error.__str__), told)


def _value(member: Callable[[], Any]) -> Any:
    """What a method of a parser's error returns, as builtins; names in it need not be UTF-8."""
    try:
        value = member()
    except UnicodeDecodeError as undecodable:
        return _text(undecodable)
    if isinstance(value, list | tuple):
        return [str(item) for item in value]
    return value if isinstance(value, int) and not hasattr(value, "name") else _enum_name(value)


def _text(undecodable: UnicodeDecodeError) -> str:
    return undecodable.object.decode("utf-8", errors="backslashreplace")


def _enum_name(value: Any) -> str:
    return str(getattr(value, "name", value))
