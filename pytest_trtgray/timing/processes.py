"""Sessions in fresh processes: what a process decides once (addresses, clocks of kernels, tactics) varies too."""

from __future__ import annotations

import contextlib
import pickle
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trtgray.engines.base import Engine, Feed, to_numpy
from pytest_trtgray.errors import EngineError, TrtGrayError

if TYPE_CHECKING:
    from pytest_trtgray.timing.session import Plan, SessionResult

_PROGRAM = "import sys; sys.path[:] = {path!r}; from {module} import answer; answer({request!r}, {reply!r})"


def measure_in_process(engine: Engine, feed: Feed, plan: Plan, *, disturbed: str = "") -> SessionResult:
    """One session of an engine in a process of its own, which loads the engine again.

    The process is a plain Python: a forked child of a process that uses CUDA cannot use CUDA, and what
    multiprocessing spawns runs the main script again, which may be the one that runs pytest.

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
    with tempfile.TemporaryDirectory(prefix="trtgray-") as folder:
        request, reply = Path(folder) / "request", Path(folder) / "reply"
        request.write_bytes(pickle.dumps((engine.source, arrays, plan, disturbed)))
        program = _PROGRAM.format(path=sys.path, module=__name__, request=str(request), reply=str(reply))
        done = subprocess.run([sys.executable, "-c", program], stdin=subprocess.DEVNULL, check=False)
        if done.returncode or not reply.exists():
            raise EngineError(
                engine.info.name,
                f"the measuring process died ({_how(done.returncode)}): it was killed, or native code crashed",
                "Look for the out-of-memory killer (dmesg); without --trt-timing-processes the crash is in pytest "
                "itself, where --forked or faulthandler shows more.",
            )
        result = pickle.loads(reply.read_bytes())
    if isinstance(result, Exception):
        raise result
    measured: SessionResult = result
    return measured


def answer(request: str, reply: str) -> None:
    """What the other process does: measure, and leave the result or the error in a file."""
    source, feed, plan, disturbed = pickle.loads(Path(request).read_bytes())
    try:
        content = pickle.dumps(_measure(source, feed, plan, disturbed))
    except Exception as error:
        if not isinstance(error, TrtGrayError):
            traceback.print_exc()
        content = _portable(error)
    Path(reply).write_bytes(content)


def _portable(error: Exception) -> bytes:
    """An error as a pickle that can be read again; what cannot travel becomes its text."""
    with contextlib.suppress(Exception):
        content = pickle.dumps(error)
        pickle.loads(content)
        return content
    return pickle.dumps(EngineError("the measuring process", f"failed with {type(error).__name__}: {error}"))


def _measure(source: Any, feed: Feed, plan: Plan, disturbed: str) -> SessionResult:
    from pytest_trtgray.timing.session import measure_session

    engine = source.load()
    try:
        # the process that waits has a context on the GPU too
        return measure_session(engine, feed, plan, disturbed=disturbed, family=2)
    finally:
        engine.close()


def _how(returncode: int) -> str:
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:  # real-time signals have no names
        return f"signal {-returncode}"
