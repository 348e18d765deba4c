from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from pytest_trtgray.errors import TrtGrayError
from pytest_trtgray.timing.first_calls import (
    FirstCall,
    FirstCallRun,
    FirstCalls,
    FirstCallsBaseline,
    call_names,
    fastest,
)
from pytest_trtgray.timing.summary import MAX_RUNS

NAMES = ("x:1x8", "x:32x8")
CALLS = (FirstCall({"x": (1, 8)}, 900.0, 20.0), FirstCall({"x": (32, 8)}, 7000.0, 30.0))
RUN = FirstCallRun(5000.0, (900.0, 7000.0), (20.0, 30.0), {"job": "1"})


class TestSequence:
    def test_is_one_of_its_calls(self) -> None:
        calls = FirstCalls(CALLS, RUN)

        assert isinstance(calls, Sequence)
        assert (len(calls), calls[1], calls[-1], calls[:1]) == (2, CALLS[1], CALLS[1], CALLS[:1])
        assert list(calls) == list(CALLS)
        assert CALLS[0] in calls

    def test_equals_a_tuple_of_them(self) -> None:
        assert FirstCalls(CALLS, RUN) == CALLS
        assert FirstCalls(CALLS, RUN) == FirstCalls(CALLS, RUN)
        assert FirstCalls(CALLS, RUN) != CALLS[:1]
        assert FirstCalls(CALLS, RUN) != 2

    def test_cold_start(self) -> None:
        calls = FirstCalls(CALLS, RUN)

        assert (calls.creation_us, calls.cold_start_us) == (5000.0, 5900.0)

    def test_without_shapes_there_is_nothing_to_check(self) -> None:
        with pytest.raises(TrtGrayError, match="was given no shapes"):
            FirstCalls((), FirstCallRun(0.0, (), ())).check()

    def test_made_by_hand(self) -> None:
        with pytest.raises(RuntimeError, match="trt_profiler"):
            FirstCalls(CALLS, RUN).check()

    def test_check_asks_the_checker(self) -> None:
        asked: list[FirstCalls] = []
        calls = FirstCalls(CALLS, RUN, checker=asked.append)
        calls.check()

        assert asked == [calls]


class TestNames:
    def test_the_order_of_inputs_does_not_matter(self) -> None:
        assert call_names([{"b": (2,), "a": (1,)}]) == call_names([{"a": (1,), "b": (2,)}]) == ("a:1,b:2",)

    def test_shapes_that_come_back(self) -> None:
        assert call_names([{"x": (1,)}] * 3) == ("x:1", "x:1 #2", "x:1 #3")


class TestFastest:
    def test_the_least_of_each(self) -> None:
        other = FirstCallRun(4000.0, (950.0, 6000.0), (25.0, 25.0), {"job": "2"}, disturbed="noise")

        assert fastest([RUN, other]) == FirstCallRun(4000.0, (900.0, 6000.0), (20.0, 25.0), {"job": "1"}, "noise")
        assert fastest([RUN]) == RUN


class TestBaseline:
    def test_round_trip(self) -> None:
        baseline = FirstCallsBaseline(NAMES, [RUN, RUN])

        assert FirstCallsBaseline.from_dict(baseline.to_dict()) == baseline

    def test_units_and_no_samples(self) -> None:
        entry = FirstCallsBaseline(NAMES, [RUN]).to_dict()

        assert entry == {
            "calls": ["x:1x8", "x:32x8"],
            "runs": [
                {
                    "creation_us": 5000.0,
                    "first_us": [900.0, 7000.0],
                    "steady_us": [20.0, 30.0],
                    "context": {"job": "1"},
                }
            ],
        }

    def test_keeps_the_latest(self) -> None:
        baseline = FirstCallsBaseline(NAMES, [RUN])
        for number in range(MAX_RUNS):
            baseline = baseline.with_run(FirstCallRun(1.0 + number, (1.0, 1.0), (1.0, 1.0)))

        assert len(baseline.runs) == MAX_RUNS
        assert [baseline.runs[0].creation_us, baseline.runs[-1].creation_us] == [1.0, float(MAX_RUNS)]

    def test_jobs(self) -> None:
        other = FirstCallRun(1.0, (1.0, 1.0), (1.0, 1.0))
        found = FirstCallsBaseline(NAMES, [RUN, other, RUN, other]).jobs()

        assert [len(job) for job in found] == [2, 1, 1]

    @pytest.mark.parametrize(
        ("names", "runs"), [((), ()), (NAMES, ()), (("x:1x8",), (RUN,)), ((*NAMES, "x:2x8"), (RUN,))]
    )
    def test_runs_that_do_not_fit(self, names: tuple[str, ...], runs: tuple[FirstCallRun, ...]) -> None:
        with pytest.raises(ValueError, match="run"):
            FirstCallsBaseline(names, runs)

    @pytest.mark.parametrize(
        "damage",
        [
            {"first_us": [1.0]},
            {"first_us": [1.0, 0.0]},
            {"first_us": [1.0, -2.0]},
            {"steady_us": [1.0, float("nan")]},
            {"steady_us": None},
            {"creation_us": "fast"},
            {"creation_us": float("inf")},
            {"context": 3},
        ],
    )
    def test_what_makes_no_sense(self, damage: dict[str, Any]) -> None:
        entry = FirstCallsBaseline(NAMES, [RUN]).to_dict()
        entry["runs"][0].update(damage)

        with pytest.raises((KeyError, TypeError, ValueError)):
            FirstCallsBaseline.from_dict(entry)
