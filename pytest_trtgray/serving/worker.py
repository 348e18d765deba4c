"""A thread beside the requests: takes jobs while there is room, survives every one of them."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

Job = Callable[[], None]


class Worker:
    """Runs jobs one after the other in a daemon thread, which starts with the first.

    Args:
        name: of the thread, and for the log.
        room: jobs that may wait; more are refused.
        on_error: told after a job has raised; the exception is logged already.
    """

    def __init__(self, name: str, room: int, on_error: Callable[[], None] = lambda: None) -> None:
        self._name = name
        self._jobs: queue.Queue[Job | None] = queue.Queue(room)
        self._on_error = on_error
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, job: Job, timeout_s: float = 0.0) -> bool:
        """Have a job run; ``False`` if there is no room for it, also after ``timeout_s``."""
        with self._lock:
            if self._closed:
                return False
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
        try:
            self._jobs.put(job, block=timeout_s > 0, timeout=timeout_s)
        except queue.Full:
            return False
        return True

    def close(self, timeout_s: float) -> bool:
        """Take no more jobs and wait for those that are there; whether all were done in time."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is None:
            return True
        try:
            self._jobs.put(None, timeout=timeout_s)
        except queue.Full:
            return False
        thread.join(timeout_s)
        return not thread.is_alive()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:
                log.exception("%s failed", self._name)
                self._on_error()
