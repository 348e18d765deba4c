"""How far long work is: told by whoever does it, shown by whoever has a place to show it, otherwise nowhere."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

INTERVAL_S = 0.1
"""Between two looks of a reader; work may have thousands of steps a second."""

Tell = Callable[..., None]


class Display(Protocol):
    """Where progress is shown."""

    def show(self, text: str) -> None:
        """Show this instead of what is there."""

    def clear(self) -> None:
        """Leave the place as it was found."""


class Progress:
    """Work under way in this process; safe to call from any thread, and from callbacks: it never raises."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._display: Display | None = None
        self._next_s = 0.0

    @contextlib.contextmanager
    def shown_on(self, display: Display) -> Iterator[None]:
        """Show inside the ``with`` block what is told."""
        before, self._display = self._display, display
        try:
            yield
        finally:
            self._clear()
            self._display = before

    @contextlib.contextmanager
    def work(self, what: str) -> Iterator[Tell]:
        """A piece of long work; gives the function that tells how far it is.

        That function takes how many steps are done, how many there are (0 if nobody knows), and which part of the
        work this is.

        Args:
            what: the work in a few words, such as ``building resnet50``.
        """
        self._tell(what, 0, 0, "", at_once=True)
        try:
            yield lambda done=0, steps=0, part="": self._tell(what, done, steps, part)
        finally:
            self._clear()

    def _tell(self, what: str, done: int, steps: int, part: str, *, at_once: bool = False) -> None:
        display = self._display
        if display is None:
            return
        with contextlib.suppress(Exception), self._lock:
            now = time.monotonic()
            if not at_once and now < self._next_s:
                return
            if not at_once:
                self._next_s = now + INTERVAL_S
            where = " ".join(filter(None, (part, f"{done} of {steps}" if steps else "")))
            display.show(f"{what}: {where}" if where else what)

    def _clear(self) -> None:
        display = self._display
        if display is not None:
            with contextlib.suppress(Exception), self._lock:
                display.clear()
                self._next_s = 0.0


def tell_nobody(done: int = 0, steps: int = 0, part: str = "") -> None:
    """A :data:`Tell` for work that nobody follows."""


PROGRESS = Progress()
"""The work of this process."""
