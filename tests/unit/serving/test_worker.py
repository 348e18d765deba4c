"""The thread beside the requests."""

from __future__ import annotations

import logging
import threading

import pytest

from pytest_trtgray.serving.worker import Worker


def test_jobs_run_in_order_in_another_thread() -> None:
    done: list[tuple[int, str]] = []
    worker = Worker("beside", 10)
    for number in range(5):
        assert worker.submit(lambda number=number: done.append((number, threading.current_thread().name)))  # type: ignore[misc]
    assert worker.close(10)
    assert done == [(number, "beside") for number in range(5)]


def test_a_job_that_raises_is_logged_and_the_next_one_runs(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    worker = Worker("beside", 10, lambda: told.append("error"))
    with caplog.at_level(logging.ERROR):
        worker.submit(lambda: 1 / 0)  # type: ignore[arg-type]
        worker.submit(lambda: told.append("next"))
        assert worker.close(10)
    assert told == ["error", "next"]
    assert "beside failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_without_room_a_job_is_refused_at_once() -> None:
    begun, end = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        end.wait(30)

    worker = Worker("beside", 1)
    assert worker.submit(wait)
    assert begun.wait(30)
    assert worker.submit(lambda: None)
    assert not worker.submit(lambda: None)
    end.set()
    assert worker.close(30)
    assert not worker.submit(lambda: None)


def test_no_thread_before_the_first_job() -> None:
    before = threading.active_count()
    assert Worker("beside", 1).close(1)
    assert threading.active_count() == before
