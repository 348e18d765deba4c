"""The gate in a service: windows, baselines, A against B."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pytest_trtgray import ServiceBaselines
from pytest_trtgray.baselines.identity import identity_of, timing_key
from pytest_trtgray.baselines.store import BaselineStore, read_file
from pytest_trtgray.errors import BaselineError
from pytest_trtgray.serving.online import Limits, LiveContest, OnlineGate
from pytest_trtgray.timing.gate import Baseline, Run, Session
from tests.unit.helpers import ort_engine

LAYERS = tuple(f"/layer{number}/MatMul" for number in range(12))
SHAPES = (("x", (2, 8)),)


def session(seed: int, factor: float = 1.0, noise: float = 0.005) -> Session:
    """Twelve layers; layer 3 and with it the engine ``factor`` times as slow."""
    generator = np.random.default_rng(seed)
    usual = np.linspace(20, 90, len(LAYERS))
    usual[3] *= factor
    table = usual * (1 + noise * generator.standard_normal((60, len(LAYERS))))
    latency = usual.sum() * (1 + noise * generator.standard_normal(60))
    return Session.from_samples(table, latency, layers=LAYERS)


def baseline(jobs: int = 5) -> Baseline:
    return Baseline(Run([session(10 * job + s) for s in range(3)], {"job": str(job)}) for job in range(jobs))


class TestOnlineGate:
    def test_three_sessions_make_a_verdict(self) -> None:
        gate = Watched()
        assert gate.feed([session(100), session(101)]) == []
        assert gate.feed([session(102)]) == [("pass", 3)]
        assert gate.feed([session(number) for number in range(103, 106)]) == [("pass", 3)]

    def test_slower_needs_two_windows(self) -> None:
        gate = Watched()
        assert gate.feed([session(number, 1.6) for number in range(100, 105)]) == []
        assert gate.feed([session(105, 1.6)]) == [("slower", 6)]

    def test_one_slow_window_is_not_slower(self) -> None:
        gate = Watched()
        slow, usual = [session(s, 1.3) for s in range(100, 103)], [session(s) for s in range(103, 106)]
        ((outcome, _),) = gate.feed([*slow, *usual])
        assert outcome != "slower"

    def test_without_a_baseline_a_run_is_complete_and_not_judged(self) -> None:
        gate = Watched(None)
        assert gate.feed([session(number) for number in range(3)]) == [(None, 3)]

    def test_one_job_proves_nothing(self) -> None:
        gate = Watched(baseline(1))
        assert gate.feed([session(number, 1.6) for number in range(100, 106)]) == [("inconclusive", 6)]

    def test_other_layers_begin_anew(self) -> None:
        gate = Watched()
        other = Session.from_samples(np.ones((20, 1)), layers=["/other"])
        assert gate.feed([session(100), session(101), other, session(102), session(103)]) == []
        assert gate.feed([session(104)]) == [("pass", 3)]


class Watched:
    """A gate with its baseline: outcome and number of sessions of what it says."""

    def __init__(self, known: Baseline | str | None = "") -> None:
        self.gate = OnlineGate(Limits())
        self.known = baseline() if isinstance(known, str) else known

    def feed(self, sessions: list[Session]) -> list[tuple[str | None, int]]:
        complete = [found for each in sessions if (found := self.gate.add(each, self.known))]
        return [(verdict.outcome if verdict else None, len(run.sessions)) for run, verdict in complete]


class TestLiveContest:
    @staticmethod
    def play(factor: float, rounds: int = 8, noise: float = 0.005) -> list[str]:
        contest, said = LiveContest(), []
        for number in range(rounds):
            for side, by in (("old", 1.0), ("new", factor)):
                verdict = contest.add(side, "x:2x8", session(7 * number + len(side + side), by, noise))  # type: ignore[arg-type]
                said += [(number, verdict.outcome)] if verdict else []
        return [f"{number + 1} {outcome}" for number, outcome in said]

    def test_the_same_passes_after_four_pairs(self) -> None:
        assert self.play(1.0) == ["4 pass", "8 pass"]

    def test_slower_needs_as_many_again(self) -> None:
        assert self.play(1.5) == ["8 slower"]

    def test_faster(self) -> None:
        assert self.play(0.5)[0] == "4 faster"

    def test_one_side_alone_says_nothing(self) -> None:
        contest = LiveContest()
        assert [contest.add("new", "x:2x8", session(number)) for number in range(50)] == [None] * 50

    def test_shapes_are_not_mixed(self) -> None:
        contest = LiveContest()
        for number in range(20):
            assert contest.add("old", "x:2x8", session(number)) is None
            assert contest.add("new", "x:4x8", session(number)) is None


class TestServiceBaselines:
    def test_what_a_test_recorded_holds_until_the_service_has_learnt(self, mlp: Path, tmp_path: Path) -> None:
        engine, store = ort_engine(mlp), BaselineStore(tmp_path)
        key = timing_key(dict(SHAPES), engine.timing_method)
        recorded = baseline()
        store.update(
            identity_of(engine, "timing"), "test_layers[mlp]", "mlp", lambda f: f.with_entry(key, recorded.to_dict())
        )
        baselines = ServiceBaselines(store, "test_layers[mlp]", record=True)
        assert len(baselines.load(engine)[SHAPES].runs) == 5

        learnt = baselines.record(engine, SHAPES, Run([session(1)], {"job": "7"}))
        assert learnt is not None
        assert len(baselines.load(engine)[SHAPES].runs) == 1
        kept = store.load(identity_of(engine, "timing"), "test_layers[mlp]")
        assert kept is not None
        assert kept.entries[key] == recorded.to_dict()
        assert baselines.record(engine, SHAPES, Run([session(2)], {"job": "7"})) is None

    def test_there_may_be_none(self, mlp: Path, tmp_path: Path) -> None:
        assert ServiceBaselines(BaselineStore(tmp_path), "service").load(ort_engine(mlp)) == {}

    def test_a_damaged_file_is_refused(self, mlp: Path, tmp_path: Path) -> None:
        engine, store = ort_engine(mlp), BaselineStore(tmp_path)
        baselines = ServiceBaselines(store, "service", record=True)
        baselines.record(engine, SHAPES, Run([session(1)]))
        path = store.path(identity_of(engine, "timing"), "service")
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(BaselineError, match="not valid JSON"):
            baselines.load(engine)
        with pytest.raises(BaselineError, match="not valid JSON"):
            baselines.record(engine, SHAPES, Run([session(1)]))

    @pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
    def test_a_process_that_is_killed_leaves_whole_files(self, mlp: Path, tmp_path: Path) -> None:
        code = (
            "import itertools, sys; from pathlib import Path;"
            "from tests.unit.serving.test_online import *;"
            f"engine = ort_engine(Path({str(mlp)!r}));"
            f"baselines = ServiceBaselines(BaselineStore(Path({str(tmp_path)!r})), 'service', record=True);"
            "[(baselines.record(engine, SHAPES, Run([session(1)], {'job': str(n)})), print(n, flush=True))"
            " for n in itertools.count(int(sys.argv[1]))]"
        )
        project = Path(__file__).parents[3]
        for attempt in range(3):
            child = subprocess.Popen(
                [sys.executable, "-c", code, str(1000 * attempt)], stdout=subprocess.PIPE, cwd=project
            )
            assert child.stdout is not None
            child.stdout.readline()  # it writes
            time.sleep(0.017 * attempt)
            child.send_signal(signal.SIGKILL)
            child.communicate()
            files = list(BaselineStore(tmp_path).files())
            assert [len(read_file(path).entries) for path in files] == [1]
