"""What can go wrong, each with the thing, the reason and the way out in one message."""

from __future__ import annotations


class TrtGrayError(Exception):
    """Base of everything this package raises on purpose.

    Args:
        thing: what the error is about: a file, an engine, an option.
        reason: what is wrong with it.
        remedy: what to do next; may span several lines.
    """

    def __init__(self, thing: object, reason: str, remedy: str = "") -> None:
        self.thing = str(thing)
        self.reason = reason
        self.remedy = remedy
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The whole message: thing, reason, and the remedy on a line of its own."""
        text = f"{self.thing}: {self.reason}"
        return f"{text}\n  {self.remedy}" if self.remedy else text

    def __reduce__(self) -> tuple[type[TrtGrayError], tuple[str, str, str]]:
        # Exceptions travel between pytest-xdist processes; the default protocol would pass one argument.
        return type(self), (self.thing, self.reason, self.remedy)


class ModelError(TrtGrayError):
    """An ONNX model cannot be read, or lacks something that was asked of it."""


class EngineError(TrtGrayError):
    """An engine cannot be built, loaded or run."""


class NotRunnableError(EngineError):
    """The engine exists, but this machine cannot execute it (no GPU, no driver, no runtime)."""


class NotApplicableError(TrtGrayError):
    """A check does not make sense for this engine or input; the test is skipped with the reason."""


class ShapeError(EngineError):
    """A shape is missing, malformed, or outside the optimization profile."""


class BaselineError(TrtGrayError):
    """A baseline file cannot be read or written."""

    @property
    def message(self) -> str:
        """The reason first: a test's summary line has no room for a path before it."""
        return "\n  ".join(part for part in (self.reason, self.thing, self.remedy) if part)


class LogError(TrtGrayError):
    """A log cannot be read."""


class InterchangeError(TrtGrayError):
    """What another tool has written cannot be read, or does not go together."""
