"""Sessions in fresh processes: what a process decides once (addresses, clocks of kernels, tactics) varies too."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
from typing import TYPE_CHECKING

from pytest_trtgray.engines.base import Engine, Feed, to_numpy
from pytest_trtgray.errors import EngineError

if TYPE_CHECKING:
    from pytest_trtgray.engines.loading import EngineSource
    from pytest_trtgray.timing.session import Plan, SessionResult


def measure_in_process(engine: Engine, feed: Feed, plan: Plan, *, disturbed: str = "") -> SessionResult:
    """One session of an engine in a process of its own, which loads the engine again.

    Raises:
        EngineError: the engine was not loaded from a file, the runtime failed, or the process died.
    """
    if engine.source is None:
        raise EngineError(
            engine.info.name,
            "was not loaded from a file, so no other process can load it",
            "Measure it without --trt-timing-processes.",
        )
    arrays = {name: to_numpy(name, value) for name, value in feed.items()}
    # A forked child of a process that uses CUDA cannot use CUDA.
    spawning = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawning) as pool:
        try:
            return pool.submit(_measure, engine.source, arrays, plan, disturbed).result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise EngineError(
                engine.info.name,
                "the measuring process died: it was killed, or native code crashed",
                "Look for the out-of-memory killer (dmesg); without --trt-timing-processes the crash is in pytest "
                "itself, where --forked or faulthandler shows more.",
            ) from error


def _measure(source: EngineSource, feed: Feed, plan: Plan, disturbed: str) -> SessionResult:
    from pytest_trtgray.timing.session import measure_session

    engine = source.load()
    try:
        # the process that waits has a context on the GPU too
        return measure_session(engine, feed, plan, disturbed=disturbed, family=2)
    finally:
        engine.close()
