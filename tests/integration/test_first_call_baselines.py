"""First calls against their baseline: recorded, judged, reported; the clock is scripted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_trtgray.baselines.store import encode, read_file
from tests.integration.conftest import Project, printed_command, text
from tests.integration.test_bad_days import KILLED_BEFORE_RENAMING

USUAL = (50e3, 7e3, 43e3, 250.0)
"""Microseconds: a fresh context, and the first calls at 1x8, at 32x8, and at 1x8 again."""
SLOW = (50e3, 7e3, 900e3, 250.0)
CLOCK = """
import itertools
import types

import pytest

@pytest.fixture(autouse=True)
def scripted_clock(monkeypatch):
    from pytest_trtgray.timing import session

    def readings():
        now = 0.0
        for context in itertools.chain({contexts!r}, itertools.repeat({contexts!r}[-1])):
            creation, *first = context
            for us in (creation, *(us for each in first for us in (each, *(200.0,) * session.WARMUP_BLOCK))):
                yield now
                now += us / 1e6
                yield now

    ticks = readings()
    monkeypatch.setattr(session, "time", types.SimpleNamespace(perf_counter=lambda: next(ticks)))
"""
TEST = """
def test_switches(trt_build, trt_profiler):
    engine = trt_build("mlp.onnx")
    calls = trt_profiler.first_calls(engine, [{"x": (1, 8)}, {"x": (32, 8)}, {"x": (1, 8)}])
    assert len(calls) == 3
    calls.check()
"""
KEY = "first-calls x:1x8 -> x:32x8 -> x:1x8 #2 "


@pytest.fixture
def jobs(project: Project, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    project.mlp()
    project.pytester.makepyfile(test_it=TEST)
    return Jobs(project, monkeypatch)


class Jobs:
    """Runs of pytest, each a CI job of its own, on a machine whose times are given."""

    def __init__(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        self.project, self._monkeypatch = project, monkeypatch
        self._number = 0

    def run(self, *args: str, contexts: Sequence[Sequence[float]] = (USUAL,)) -> pytest.RunResult:
        self._number += 1
        self._monkeypatch.setenv("GITHUB_RUN_ID", str(self._number))
        self._monkeypatch.setenv("GITHUB_SHA", "0123456789abcdef")
        (self.project.path / "conftest.py").write_text(CLOCK.format(contexts=[tuple(each) for each in contexts]))
        return self.project.run(*args)

    def record(self, count: int = 1) -> None:
        for _ in range(count):
            result = self.run("--update-baselines", contexts=[[us * (1 + 0.05 * (self._number % 3)) for us in USUAL]])
            result.assert_outcomes(passed=1)

    @property
    def file(self) -> Path:
        return self.project.baseline("test_switches")

    @property
    def entry(self) -> dict[str, Any]:
        ((key, entry),) = read_file(self.file).entries.items()
        assert key.startswith(KEY)
        return dict(entry)


def check_of(project: Project) -> dict[str, Any]:
    (check,) = json.loads((project.path / "run.json").read_text())["checks"]
    return dict(check)


class TestRecording:
    def test_a_run_is_kept_with_its_job_and_units(self, jobs: Jobs) -> None:
        result = jobs.run("--update-baselines")
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(["  first-calls recorded     3 shapes, x:32x8 took longest (43 ms)"])
        assert jobs.entry["calls"] == ["x:1x8", "x:32x8", "x:1x8 #2"]
        (run,) = jobs.entry["runs"]
        assert set(run) == {"creation_us", "first_us", "steady_us", "context"}
        assert (run["creation_us"], run["first_us"], run["steady_us"]) == (50e3, [7e3, 43e3, 250.0], [200.0] * 3)
        assert run["context"]["job"] == "1-"
        assert {"time_utc", "cores", "commit"} <= set(run["context"])

    def test_appends_up_to_the_cap(self, jobs: Jobs) -> None:
        jobs.record(2)
        assert [run["context"]["job"] for run in jobs.entry["runs"]] == ["1-", "2-"]
        file = read_file(jobs.file)
        ((key, entry),) = file.entries.items()
        jobs.file.write_bytes(encode(file.with_entry(key, {**entry, "runs": entry["runs"] * 10})))
        jobs.record()
        assert len(jobs.entry["runs"]) == 20
        assert jobs.entry["runs"][-1]["context"]["job"] == "3-"

    def test_starts_anew_where_that_is_asked_for(self, jobs: Jobs) -> None:
        jobs.record(3)
        jobs.run("--trt-rebaseline", contexts=[SLOW]).assert_outcomes(passed=1)
        assert [run["first_us"][1] for run in jobs.entry["runs"]] == [900e3]

    def test_a_failing_test_records_nothing(self, jobs: Jobs) -> None:
        jobs.project.pytester.makepyfile(test_it=TEST + "    assert False\n")
        jobs.run("--update-baselines").assert_outcomes(failed=1)
        assert jobs.project.baselines() == []

    def test_beside_the_times_of_the_same_test(self, jobs: Jobs) -> None:
        """One file a test; each kind has entries of its own, and starts anew by itself."""
        jobs.project.pytester.makepyfile(test_it=TEST + "    trt_profiler(engine).check()\n")
        (jobs.project.path / "conftest.py").touch()
        for expected in (1, 2):
            jobs.project.record()
            entries = read_file(jobs.file).entries
            assert {key.split()[0]: len(entry["runs"]) for key, entry in entries.items()} == {
                "first-calls": expected,
                "timing": expected,
            }
        jobs.project.run("--trt-rebaseline").assert_outcomes(passed=1)
        assert [len(entry["runs"]) for entry in read_file(jobs.file).entries.values()] == [1, 1]

    def test_beside_other_workers_it_is_refused(self, jobs: Jobs) -> None:
        result = jobs.run("-n2", "--update-baselines")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert "times taken beside other workers are no baseline" in text(result)
        result = jobs.run("-n2", "-o", "trt_on_missing=record")
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(["  first-calls not recorded other pytest-xdist workers ran at the same time"])
        assert jobs.project.baselines() == []

    def test_what_was_measured_is_not_recorded_twice(self, jobs: Jobs) -> None:
        """Two checks of one order of shapes are two runs, also when they start anew; another order is another entry."""
        jobs.project.pytester.makepyfile(
            test_it="def test_switches(trt_build, trt_profiler):\n"
            "    for rows in ((1, 2), (1, 2), (2, 1)):\n"
            "        shapes = [{'x': (each, 8)} for each in rows]\n"
            "        trt_profiler.first_calls(trt_build('mlp.onnx'), shapes).check()\n"
        )
        for flag, expected in (("--update-baselines", [2, 1]), ("--trt-rebaseline", [2, 1])):
            jobs.run(flag, contexts=[USUAL[:3]]).assert_outcomes(passed=1)
            assert [len(entry["runs"]) for entry in read_file(jobs.file).entries.values()] == expected


class TestMissing:
    def test_fails_and_prints_the_command_that_records(self, jobs: Jobs) -> None:
        result = jobs.run("--junitxml=junit.xml")
        result.assert_outcomes(failed=1)
        assert "missing baseline: no first-calls baseline for test_it.py::test_switches on this hardware" in text(
            result
        )
        assert 'failures="1"' in (jobs.project.path / "junit.xml").read_text()
        assert jobs.project.baselines() == []
        jobs.run(*printed_command(result)).assert_outcomes(passed=1)
        assert len(jobs.entry["runs"]) == 1

    def test_skips_or_records_where_that_is_asked_for(self, jobs: Jobs) -> None:
        jobs.run("-o", "trt_on_missing=skip").assert_outcomes(skipped=1)
        assert jobs.project.baselines() == []
        jobs.run("-o", "trt_on_missing=record").assert_outcomes(passed=1)
        jobs.run("-o", "trt_on_missing=record").assert_outcomes(passed=1)
        assert len(jobs.entry["runs"]) == 1

    @pytest.mark.parametrize(
        ("before", "after"),
        [("(1, 8)}, {", "(2, 8)}, {"), ("}])", "}], kept_kernels=False)"), (', {"x": (1, 8)}]', "]")],
    )
    def test_other_shapes_and_methods_have_none(self, jobs: Jobs, before: str, after: str) -> None:
        jobs.record()
        jobs.project.pytester.makepyfile(test_it=TEST.replace(before, after).replace("assert len", "len"))
        result = jobs.run()
        result.assert_outcomes(failed=1)
        assert "missing baseline" in text(result)


class TestVerdict:
    def test_as_before(self, jobs: Jobs) -> None:
        jobs.record(3)
        result = jobs.run("--trt-json=run.json")
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(
            ["  first-calls pass         3 shapes, x:32x8 took longest (43 ms) against 3 jobs, 1 context"]
        )
        check = check_of(jobs.project)
        assert (check["kind"], check["outcome"], check["findings"]) == ("first-calls", "pass", [])
        assert check["creation_us"] == pytest.approx(50e3)
        assert [call["shapes"] for call in check["calls"]] == ["x:1x8", "x:32x8", "x:1x8 #2"]
        assert [call["first_us"] for call in check["calls"]] == pytest.approx([7e3, 43e3, 250.0])
        assert len(jobs.entry["runs"]) == 3

    def test_a_planted_slow_first_call_fails_by_the_name_of_its_shape(self, jobs: Jobs) -> None:
        jobs.record(3)
        result = jobs.run("--trt-json=run.json", "--junitxml=junit.xml", contexts=[SLOW])
        result.assert_outcomes(failed=1)
        result.stdout.re_match_lines(
            [r".*first calls slower on .* \(onnxruntime .*\): the first call at x:32x8: 45\.1 ms -> 900 ms, 19\.9x"]
        )
        assert "If it is intended:  pytest --trt-json=run.json --junitxml=junit.xml" in text(result)
        assert "--trt-rebaseline" in text(result)
        junit = (jobs.project.path / "junit.xml").read_text()
        assert 'failures="1"' in junit
        assert "the first call at x:32x8" in junit
        check = check_of(jobs.project)
        assert check["outcome"] == "slower"
        (found,) = check["findings"]
        assert (found["severity"], found["rule"], found["where"]) == ("error", "timing.first-call-slower", "x:32x8")
        assert found["remedy"]

    def test_a_report_fails_nothing(self, jobs: Jobs) -> None:
        jobs.record(3)
        result = jobs.run("--trt-timing=report", "--trt-json=run.json", contexts=[SLOW])
        result.assert_outcomes(passed=1)
        assert [found["severity"] for found in check_of(jobs.project)["findings"]] == ["warning"]
        assert "warning: the first call at x:32x8: 45.1 ms -> 900 ms, 19.9x" in text(result)
        jobs.run("--trt-timing=off", contexts=[SLOW]).assert_outcomes(skipped=1)

    def test_what_does_not_come_back_passes_with_a_remark(self, jobs: Jobs) -> None:
        jobs.record(3)
        result = jobs.run(contexts=[SLOW, USUAL])
        result.assert_outcomes(passed=1)
        assert "advice: x:32x8 took 900 ms, usually 45.1 ms, but 43 ms in another context" in text(result)

    def test_few_jobs_are_warned_of_skipped_or_failed(self, jobs: Jobs) -> None:
        jobs.record(2)
        reason = "first calls inconclusive: the baseline has 2 jobs, a verdict needs 3"
        for contexts in ([USUAL], [SLOW]):
            warned = jobs.run(contexts=contexts)
            warned.assert_outcomes(passed=1)
            assert f"warning: {reason}" in text(warned)
        jobs.run("-o", "trt_inconclusive=skip").assert_outcomes(skipped=1)
        failed = jobs.run("-o", "trt_inconclusive=fail")
        failed.assert_outcomes(failed=1)
        assert reason in text(failed)

    def test_beside_other_workers_nothing_is_judged(self, jobs: Jobs) -> None:
        jobs.record(3)
        result = jobs.run("-n2", contexts=[SLOW])
        result.assert_outcomes(passed=1)
        assert "first calls inconclusive: other pytest-xdist workers ran at the same time" in text(result)

    def test_without_shapes(self, jobs: Jobs) -> None:
        jobs.project.pytester.makepyfile(
            test_it="def test_switches(trt_build, trt_profiler):\n"
            "    trt_profiler.first_calls(trt_build('mlp.onnx'), []).check()\n"
        )
        result = jobs.run("--update-baselines")
        result.assert_outcomes(failed=1)
        assert "first_calls: was given no shapes" in text(result)


class TestDamage:
    @pytest.mark.parametrize("update", [False, True])
    @pytest.mark.parametrize(
        ("old", "new", "reason"),
        [
            ("43000.0", "4300000.0", "the baseline was changed by hand"),
            ('"runs"', "", "the baseline is not valid JSON"),
        ],
    )
    def test_an_unusable_file_is_said_and_left_alone(
        self, jobs: Jobs, old: str, new: str, reason: str, update: bool
    ) -> None:
        jobs.run("--update-baselines").assert_outcomes(passed=1)
        jobs.file.write_text(jobs.file.read_text().replace(old, new))
        before = jobs.file.read_bytes()
        result = jobs.run(*(["--update-baselines"] if update else []))
        result.assert_outcomes(failed=1)
        assert reason in text(result)
        assert jobs.file.read_bytes() == before

    @pytest.mark.parametrize(
        "damage", [{"calls": ["x:1x8"]}, {"calls": ["a", "b", "c"]}, {"runs": []}, {"runs": [{"first_us": [1, 2, 3]}]}]
    )
    def test_an_entry_that_makes_no_sense(self, jobs: Jobs, damage: dict[str, Any]) -> None:
        jobs.record()
        file = read_file(jobs.file)
        ((key, entry),) = file.entries.items()
        jobs.file.write_bytes(encode(file.with_entry(key, {**entry, **damage})))
        for args in ([], ["--update-baselines"]):
            result = jobs.run(*args)
            result.assert_outcomes(failed=1)
            assert "the baseline is damaged" in text(result)
        jobs.run("--trt-rebaseline").assert_outcomes(passed=1)
        assert len(jobs.entry["runs"]) == 1

    def test_killed_while_writing(self, jobs: Jobs) -> None:
        jobs.record()
        before = jobs.file.read_bytes()
        command = [sys.executable, "-c", KILLED_BEFORE_RENAMING, "--update-baselines", "-p", "no:randomly"]
        killed = subprocess.run(command, cwd=jobs.project.path, capture_output=True, timeout=120, check=False)
        assert killed.returncode == -signal.SIGKILL
        assert jobs.file.read_bytes() == before
        jobs.record()
        assert len(jobs.entry["runs"]) == 2
