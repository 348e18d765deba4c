"""The verdict on cold starts and shape switches; its world of machines is that of ``benchmarks/first_calls.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from benchmarks.first_calls import PLANTED, WORLDS, trial
from pytest_trtgray.findings import Finding
from pytest_trtgray.timing.first_calls import FirstCallRun, FirstCallsBaseline
from pytest_trtgray.timing.jitter import (
    AGAIN,
    CONTEXT,
    FirstCallsVerdict,
    judge_first_calls,
    remedy_for,
    repeats_compiling,
)

LUCK = 0.001
"""A verdict that just meets the bar misses a loosened limit this often."""
NAMES = ("x:1x8", "x:32x8", "x:1x8 #2")


def run(*first_us: float, creation_us: float = 50e3, steady_us: float = 200.0, **more: str) -> FirstCallRun:
    first = first_us or (7000.0, 43e3, 250.0)
    return FirstCallRun(creation_us, first, (steady_us,) * len(first), {"job": more.get("job", "now")})


def baseline(jobs: int = 5, spread: float = 0.1) -> FirstCallsBaseline:
    """Jobs that differ a little, alternately."""
    wobble = [1 + spread * (number % 2) for number in range(jobs)]
    return FirstCallsBaseline(
        NAMES,
        [
            run(7000.0 * by, 43e3 * by, 250.0 * by, creation_us=50e3 * by, job=f"job {number}")
            for number, by in enumerate(wobble)
        ],
    )


def again(*runs: FirstCallRun) -> Callable[[], Sequence[FirstCallRun]]:
    return lambda: runs


def outcomes(verdict: FirstCallsVerdict) -> list[str]:
    return [verdict.context.outcome, *(call.outcome for call in verdict.calls)]


def rules(verdict: FirstCallsVerdict) -> list[tuple[str, str, str]]:
    return [(finding.severity, finding.rule, finding.where) for finding in verdict.findings]


class TestSlower:
    SLOW = run(7000.0, 430e3, 250.0)

    def test_as_before(self) -> None:
        verdict = judge_first_calls(baseline(), run())

        assert verdict.outcome == "pass"
        assert outcomes(verdict) == ["pass"] * 4
        assert (verdict.looks, verdict.baseline_jobs, verdict.reason, verdict.findings) == (1, 5, "", ())

    def test_a_first_call_that_is_slow_in_every_context(self) -> None:
        verdict = judge_first_calls(baseline(), self.SLOW, remedy="Look.", more=again(self.SLOW, self.SLOW))

        assert verdict.outcome == "slower"
        assert outcomes(verdict) == ["pass", "pass", "slower", "pass"]
        assert verdict.looks == 1 + AGAIN
        (found,) = verdict.findings
        assert rules(verdict) == [("error", "timing.first-call-slower", "x:32x8")]
        assert found.what == "the first call at x:32x8: 43 ms -> 430 ms, 10x"
        assert found.evidence["before_us"] == 43000.0
        assert found.evidence["after_us"] == 430000.0
        assert found.remedy == "Look. If it is intended: --trt-rebaseline starts anew."

    def test_without_a_second_look_the_first_one_decides(self) -> None:
        assert judge_first_calls(baseline(), self.SLOW).outcome == "slower"

    def test_a_slow_context(self) -> None:
        slow = run(creation_us=800e3)
        verdict = judge_first_calls(baseline(), slow, more=again(slow, slow))

        assert rules(verdict) == [("error", "timing.context-slower", CONTEXT)]
        assert verdict.findings[0].what == "a fresh context: 50 ms -> 800 ms, 16x"

    def test_the_slowest_comes_first(self) -> None:
        slow = run(70e3, 4300e3, 250.0)
        verdict = judge_first_calls(baseline(), slow, more=again(slow, slow))

        assert [finding.where for finding in verdict.findings] == ["x:32x8", "x:1x8"]

    @pytest.mark.parametrize("first_us", [(7000.0, 43e3, 1000.0), (7000.0, 100e3, 250.0)])
    def test_less_than_a_millisecond_or_than_far(self, first_us: tuple[float, ...]) -> None:
        """Four times 250 us, and 2.3 times 43 ms: nothing that a test should fail for."""
        assert judge_first_calls(baseline(12), run(*first_us)).outcome == "pass"

    def test_shapes_that_come_back_are_other_costs(self) -> None:
        """7 ms are usual when the shape is new, and not when it comes back."""
        back = run(7000.0, 43e3, 7000.0)
        verdict = judge_first_calls(baseline(), back, more=again(back, back))

        assert outcomes(verdict) == ["pass", "pass", "pass", "slower"]
        assert verdict.findings[0].where == "x:1x8 #2"


class TestInconclusive:
    SLOW = TestSlower.SLOW

    @pytest.mark.parametrize("jobs", [1, 2])
    def test_few_jobs(self, jobs: int) -> None:
        def never() -> Sequence[FirstCallRun]:
            raise AssertionError("a second look cannot help")

        for now in (run(), self.SLOW):
            verdict = judge_first_calls(baseline(jobs), now, more=never)
            assert verdict.outcome == "inconclusive"
            assert verdict.reason == f"the baseline has {jobs} job{'s' if jobs > 1 else ''}, a verdict needs 3"
            assert rules(verdict) == [("warning", "timing.inconclusive", "first calls")]
            assert "--update-baselines" in verdict.findings[0].remedy

    def test_many_runs_of_one_job_are_one(self) -> None:
        same = FirstCallsBaseline(NAMES, [run(job="1")] * 10)

        assert judge_first_calls(same, self.SLOW).reason == "the baseline has 1 job, a verdict needs 3"

    def test_a_disturbed_machine(self) -> None:
        disturbed = replace(self.SLOW, disturbed="1 other process used the GPU")
        verdict = judge_first_calls(baseline(), disturbed)

        assert (verdict.outcome, verdict.reason) == ("inconclusive", "1 other process used the GPU")

    def test_a_machine_that_was_disturbed_at_the_second_look(self) -> None:
        disturbed = replace(self.SLOW, disturbed="1 other process used the GPU")
        verdict = judge_first_calls(baseline(), self.SLOW, more=again(self.SLOW, disturbed))

        assert (verdict.outcome, verdict.looks) == ("inconclusive", 3)

    def test_what_does_not_come_back_passes(self) -> None:
        verdict = judge_first_calls(baseline(), self.SLOW, more=again(self.SLOW, run()))

        assert verdict.outcome == "pass"
        assert rules(verdict) == [("advice", "timing.first-call-once", "first calls")]
        assert verdict.findings[0].what == "x:32x8 took 430 ms, usually 43 ms, but 43 ms in another context"

    def test_what_cannot_come_back_is_not_known(self) -> None:
        """Kernels that were compiled in one context are there for the next one of the process."""
        verdict = judge_first_calls(baseline(), self.SLOW, repeats_all=False, more=again(run(), run()))

        assert verdict.outcome == "inconclusive"
        assert "in another context" in verdict.reason
        assert "kernel cache was cold" in verdict.findings[0].remedy

    def test_what_the_machine_explains(self) -> None:
        """Steady inferences that take four times as long: a busy host, or an engine that the timing test knows."""
        slow = run(28e3, 200e3, 1000.0, creation_us=200e3, steady_us=800.0)
        verdict = judge_first_calls(baseline(), slow, more=again(slow, slow))

        assert verdict.outcome == "inconclusive"
        assert "but the steady inferences took 4.0x as long too" in verdict.reason

    def test_what_is_slower_than_the_machine_explains(self) -> None:
        slow = run(7000.0, 4300e3, 250.0, steady_us=800.0)

        assert judge_first_calls(baseline(), slow).outcome == "slower"

    def test_a_faster_machine_excuses_and_accuses_nothing(self) -> None:
        assert judge_first_calls(baseline(), run(steady_us=20.0)).outcome == "pass"

    def test_what_one_recorded_job_took_as_well(self) -> None:
        """A cold cache among the recordings does not spoil them, and is no news either."""
        cold = baseline(7).with_run(run(7000.0, 500e3, 250.0, job="cold"))
        verdict = judge_first_calls(cold, self.SLOW, more=again(self.SLOW, self.SLOW))

        assert verdict.outcome == "inconclusive"
        assert verdict.reason == "x:32x8 took 430 ms, usually 45.1 ms, but 500 ms in one recorded job"
        slower = run(7000.0, 900e3, 250.0)
        assert judge_first_calls(cold, slower, more=again(slower, slower)).outcome == "slower"

    def test_a_spread_that_hides_everything(self) -> None:
        wild = FirstCallsBaseline(NAMES, [run(7000.0, us, 250.0, job=str(us)) for us in (1e3, 2e4, 4e5, 8e6)])
        verdict = judge_first_calls(wild, run(7000.0, 4e5, 250.0))

        assert verdict.outcome == "inconclusive"
        assert verdict.reason == "the spread between jobs is too large for x:32x8"
        assert outcomes(verdict) == ["pass", "pass", "inconclusive", "pass"]


class TestFaster:
    def test_a_baseline_of_a_cold_cache_is_stale(self) -> None:
        verdict = judge_first_calls(baseline(), run(7000.0, 300.0, 250.0))

        assert verdict.outcome == "faster"
        assert rules(verdict) == [("advice", "timing.stale-baseline", "x:32x8")]
        assert "43 ms -> 300 us" in verdict.findings[0].what
        assert "--trt-rebaseline" in verdict.findings[0].remedy

    def test_as_one_recorded_job_it_is_not(self) -> None:
        warm = baseline(7).with_run(run(7000.0, 200.0, 250.0, job="warm"))

        assert judge_first_calls(warm, run(7000.0, 300.0, 250.0)).outcome == "pass"


class TestArguments:
    def test_other_calls(self) -> None:
        with pytest.raises(ValueError, match="the baseline has 3 calls, the run 1"):
            judge_first_calls(baseline(), run(1.0))

    @pytest.mark.parametrize("rate", [0.0, 1.0, -1.0])
    def test_rates(self, rate: float) -> None:
        with pytest.raises(ValueError, match="false_alarm_rate"):
            judge_first_calls(baseline(), run(), false_alarm_rate=rate)

    @pytest.mark.parametrize("runtime", ["tensorrt_rtx", "tensorrt", "onnxruntime"])
    def test_remedies_are_sentences(self, runtime: str) -> None:
        assert all(remedy_for(runtime, kept_kernels=kept).endswith(".") for kept in (True, False))

    def test_only_a_kept_cache_can_be_lost(self) -> None:
        assert "trt_cache_dir" in remedy_for("tensorrt_rtx", kept_kernels=True)
        assert "trt_cache_dir" not in remedy_for("tensorrt_rtx", kept_kernels=False)

    @pytest.mark.parametrize(
        ("runtime", "kept", "repeats"),
        [
            ("tensorrt_rtx", True, False),
            ("tensorrt_rtx", False, True),
            ("tensorrt", True, True),
            ("onnxruntime", True, True),
        ],
    )
    def test_what_a_further_context_repeats(self, runtime: str, kept: bool, repeats: bool) -> None:
        assert repeats_compiling(runtime, kept_kernels=kept) is repeats

    def test_findings_travel_as_builtins(self) -> None:
        slow = TestSlower.SLOW
        for finding in judge_first_calls(baseline(), slow).findings:
            assert Finding.from_dict(finding.to_dict()) == finding
            assert all(type(value) in (int, float, str) for value in finding.evidence.values())


class TestHowOften:
    """Many simulated runs, with a fixed seed."""

    @pytest.mark.parametrize(
        ("name", "false_alarms", "inconclusive"), [("quiet", 0.0005, 0.005), ("gpu", 0.001, 0.05), ("cpu", 0.001, 0.09)]
    )
    def test_unchanged_runs_do_not_fail(self, name: str, false_alarms: float, inconclusive: float) -> None:
        rng = np.random.default_rng(5)
        found = [trial(WORLDS[name], 5, rng).outcome for _ in range(1000)]

        assert found.count("slower") <= stats.binom.isf(LUCK, len(found), false_alarms)
        assert found.count("inconclusive") <= stats.binom.isf(LUCK, len(found), inconclusive)

    @pytest.mark.parametrize(
        ("name", "factor", "rate"), [("quiet", 10.0, 0.95), ("gpu", 10.0, 0.8), ("gpu", 30.0, 0.9)]
    )
    def test_far_slower_first_calls_are_found(self, name: str, factor: float, rate: float) -> None:
        rng = np.random.default_rng(6)
        found = [trial(WORLDS[name], 5, rng, factor) for _ in range(150)]

        hits = [verdict.calls[PLANTED].outcome == "slower" for verdict in found]
        assert sum(hits) >= stats.binom.ppf(LUCK, len(hits), rate)
        # and no other cost is blamed
        others = [call for verdict in found for i, call in enumerate(verdict.calls) if i != PLANTED]
        assert sum(call.outcome == "slower" for call in others) <= 2
