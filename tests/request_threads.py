"""Requests to a profiler from several threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pytest_trtgray import SamplingProfiler
from pytest_trtgray.serving.policy import CANARY, OFF, Policy

THREADS, REQUESTS, MAX_ROWS = 4, 60, 5
POLICIES = (CANARY, OFF, Policy("half", 0.5, None))


def ask_while_policies_change(profiler: SamplingProfiler, ask: Callable[[int], None]) -> list[Exception]:
    """What was raised by ``ask(rows)``, which sends a request of 1 to 5 rows and looks at the answer; 240 times."""
    raised: list[Exception] = []

    def ask_often(thread: int) -> None:
        for number in range(REQUESTS):
            try:
                ask((number + thread) % MAX_ROWS + 1)
            except Exception as error:
                raised.append(error)

    threads = [threading.Thread(target=ask_often, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for number in range(30):
        profiler.switch(POLICIES[number % len(POLICIES)])
        profiler.report_fault()
    for thread in threads:
        thread.join()
    return raised
