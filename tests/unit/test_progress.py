"""Progress: what is shown, how often, and that nobody is disturbed by it."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from pytest_trtgray import progress
from pytest_trtgray.progress import PROGRESS, Progress


class Screen:
    def __init__(self) -> None:
        self.shown: list[str | None] = []

    def show(self, text: str) -> None:
        self.shown.append(text)

    def clear(self) -> None:
        self.shown.append(None)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL_S", 0.0)


@pytest.mark.usefixtures("always")
def test_work_its_steps_and_its_end() -> None:
    screen, hub = Screen(), Progress()
    with hub.shown_on(screen), hub.work("building net") as tell:
        tell(part="Cloning")
        tell(2, 5, "Timing tactics")
        tell(3, 5)

    assert screen.shown[:4] == [
        "building net",
        "building net: Cloning",
        "building net: Timing tactics 2 of 5",
        "building net: 3 of 5",
    ]
    assert set(screen.shown[4:]) == {None}


def test_steps_that_come_fast_are_not_all_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    screen, hub = Screen(), Progress()
    with hub.shown_on(screen), hub.work("timing") as tell:
        for step in range(1000):
            now[0] += 0.001
            tell(step, 1000)

    assert 10 <= len([text for text in screen.shown if text]) <= 12
    assert screen.shown[1] == "timing: 0 of 1000"


def test_nobody_looks() -> None:
    with PROGRESS.work("building") as tell:
        tell(1, 2)  # as in a program that uses the package without pytest


@pytest.mark.usefixtures("always")
def test_a_display_that_fails_disturbs_no_work() -> None:
    class Broken(Screen):
        def show(self, text: str) -> None:
            raise OSError("the terminal is gone")

        def clear(self) -> None:
            raise OSError("the terminal is gone")

    hub = Progress()
    with hub.shown_on(Broken()), hub.work("building") as tell:
        tell(1, 2)


@pytest.mark.usefixtures("always")
def test_threads_tell_at_once() -> None:
    screen, hub = Screen(), Progress()
    with hub.shown_on(screen), hub.work("w") as tell:
        threads = [threading.Thread(target=lambda: [tell(step, 50) for step in range(50)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    shown: list[Any] = [text for text in screen.shown if text]
    assert len(shown) == 201
