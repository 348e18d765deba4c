"""The fixture ``trt_log``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trtgray.errors import TrtGrayError

if TYPE_CHECKING:
    from pytest_trtgray.engines.base import Engine
    from pytest_trtgray.logs.log import Log
    from pytest_trtgray.logs.records import LogSeverity
    from pytest_trtgray.session import TrtSession


LOG_LEVELS: tuple[LogSeverity, ...] = ("warning", "info", "verbose")


class LogReader:
    """What the fixture ``trt_log`` gives."""

    def __init__(self, session: TrtSession) -> None:
        self._session = session

    def __call__(self, engine: Engine, level: str = "") -> Log:
        """What the runtime said while it built and loaded an engine.

        Args:
            engine: of ``trt_engine`` or ``trt_build``.
            level: the least severity: ``warning``, ``info`` or ``verbose``; all that was kept by default. An engine
                whose chatter was not kept is built once more for ``verbose``; the cache keeps that one too.
        """
        from pytest_trtgray.logs.log import Log

        records = self._session.log_of(engine, log_level(level)) if level else engine.records
        return Log.of(records, self._session.rules)


def log_level(text: str) -> LogSeverity:
    """The severity that a test has named.

    Raises:
        TrtGrayError: there is none of this name.
    """
    for level in LOG_LEVELS:
        if text == level:
            return level
    raise TrtGrayError("log", f"has no level {text!r}", f"Choose one of {', '.join(LOG_LEVELS)}.")
