"""Phases of a build from its messages' times."""

from __future__ import annotations

from typing import Any

from pytest_trtgray.logs.records import Record
from pytest_trtgray.logs.spans import MAX_SPANS, Span, spans_of


def said(time_s: float, phase: str, **details: Any) -> Record:
    return Record("info", "tensorrt", "text", phase, time_s=time_s, details=details)


def test_a_phase_lasts_until_the_next_begins() -> None:
    records = [said(10.0, ""), said(10.5, "parse"), said(11.0, "parse"), said(12.0, "build"), said(15.0, "build")]
    assert spans_of(records) == (Span("parse", "", 10.5, 1.5), Span("build", "", 12.0, 3.0))


def test_a_phase_that_comes_back_is_another_span() -> None:
    names = [span.name for span in spans_of([said(1, "load"), said(2, "run"), said(3, "load"), said(4, "load")])]
    assert names == ["load", "run", "load"]


def test_what_a_progress_monitor_told() -> None:
    records = [
        said(1.0, "build"),
        said(2.0, "build", progress="Building engine", parent=""),
        said(3.0, "build", progress="Timing tactics", parent="Building engine"),
        said(6.0, "build", progress="Timing tactics", parent="Building engine"),
        said(7.0, "build", progress="Building engine", parent=""),
    ]
    assert spans_of(records) == (
        Span("build", "", 1.0, 6.0),
        Span("Building engine", "build", 2.0, 5.0),
        Span("Timing tactics", "Building engine", 3.0, 3.0),
    )


def test_messages_without_times_and_many_phases() -> None:
    assert spans_of([said(0.0, "parse"), said(0.0, "build")]) == ()
    many = [said(float(number), "build", progress=f"part {number // 2}") for number in range(1, 400)]
    found = spans_of(many)
    assert len(found) == MAX_SPANS
    assert found[0].name == "build"
