"""Does the gate find slowdowns, and nothing else? A part of ``benchmarks/gate.py``, with fixed seeds.

The limits are the benchmark's bar, loosened by what luck does to so few runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
from scipy import stats

from benchmarks.gate import AB, Draw, Figures, Recorded, Setting, Trial, day, recordings, suite
from benchmarks.gate_world import WORLDS, Conditions, WorldName, noise

LUCK = 0.001
"""A gate that just meets the bar misses a loosened limit this often."""
DRAWS = 20


def hits_at_most(hits: Sequence[bool], rate: float) -> None:
    assert len(hits) > 0
    assert sum(hits) <= stats.binom.isf(LUCK, len(hits), rate)


def hits_at_least(hits: Sequence[bool], rate: float) -> None:
    assert len(hits) > 0
    assert sum(hits) >= stats.binom.ppf(LUCK, len(hits), rate)


def tried(setting: Setting) -> list[Trial]:
    """Trials of all suites; the seed is the suite's number."""
    return [trial for number in range(setting.suites) for trial in suite((setting, (8, number)))]


def found(figures: Figures, kind: str, effect: float) -> list[bool]:
    return [(trial.engine if kind == "all" else trial.layer) == "slower" for trial in figures.by_kind[kind, effect]]


@cache
def recorded() -> list[Draw]:
    """Draws from the sessions that were recorded on an NVIDIA H200, two days, BERT-base."""
    (recording,) = recordings(None)
    sessions = Recorded(recording)
    return [draw for number in range(DRAWS) for draw in sessions.drawn((8, number))[0]]


@pytest.mark.parametrize(("world", "suites"), [("drifting", 40), ("measured", 20)])
def test_unchanged_runs_neither_fail_nor_stay_inconclusive(world: WorldName, suites: int) -> None:
    figures = Figures(tried(Setting("unchanged", world, suites=suites, nulls=6, changes=())))

    hits_at_most([trial.outcome == "slower" for trial in figures.null], 0.01)
    hits_at_most([trial.outcome == "inconclusive" for trial in figures.null], 0.02)


def test_slower_layers_and_engines_are_found_and_told_apart() -> None:
    changes = (("one", 0.05), ("one", 0.10), ("one", 0.20), ("all", 0.03), ("all", 0.05))

    figures = Figures(tried(Setting("changed", "drifting", suites=40, nulls=0, changes=changes, repeats=1)))

    for kind, effect, rate in (
        ("one", 0.05, 0.75),
        ("one", 0.10, 0.97),
        ("one", 0.20, 0.99),
        ("all", 0.03, 0.97),
        ("all", 0.05, 0.99),
    ):
        hits_at_least(found(figures, kind, effect), rate)
    hits_at_most([trial.layer == "pass" for trial in figures.by_kind["one", 0.10]], 0.01)
    hits_at_least([trial.engine != "slower" for trial in figures.by_kind["one", 0.10]], 0.97)
    hits_at_least([trial.slower_layers == 0 for trial in figures.by_kind["all", 0.05]], 0.97)


def test_with_the_noise_of_a_real_gpu() -> None:
    changes = (("one", 0.10), ("one", 0.20), ("all", 0.03))

    figures = Figures(tried(Setting("changed", "measured", suites=20, nulls=0, changes=changes, repeats=2)))

    hits_at_least(found(figures, "one", 0.10), 0.85)
    hits_at_least(found(figures, "one", 0.20), 0.95)
    hits_at_least(found(figures, "all", 0.03), 0.97)
    hits_at_most([trial.layer == "pass" for trial in figures.by_kind["one", 0.10]], 0.01)


@pytest.mark.parametrize("noticed", [True, False])
@pytest.mark.parametrize("world", WORLDS)
def test_a_disturbed_machine_fails_nothing(world: WorldName, noticed: bool) -> None:
    changes = (("one", 0.20),)
    setting = Setting("disturbed", world, Conditions(disturbed=True), suites=4, nulls=6, changes=changes, repeats=1)

    figures = Figures(tried(replace(setting, noticed=noticed)))

    assert [trial for trial in figures.null if trial.outcome == "slower"] == []
    hits_at_least([trial.outcome == "inconclusive" for trial in figures.null], 0.95)
    assert not any(found(figures, "one", 0.20))


@pytest.mark.parametrize("world", WORLDS)
def test_pairs_need_no_baseline_and_survive_a_disturbed_machine(world: WorldName) -> None:
    changes = (("one", 0.20), ("all", 0.05))
    setting = Setting("pairs", world, suites=8, nulls=4, changes=changes, repeats=1, pairs=True)

    trials = tried(setting)
    quiet = Figures([trial for trial in trials if trial.rule == AB])

    hits_at_most([trial.outcome == "slower" for trial in trials if trial.kind == "null"], 0.005)
    hits_at_least(found(quiet, "one", 0.20), 0.95)
    hits_at_least(found(quiet, "all", 0.05), 0.97)


def test_recorded_sessions_raise_no_false_alarm() -> None:
    null = [draw for draw in recorded() if draw.kind == "null"]

    assert [draw for draw in null if draw.outcome == "slower"] == []
    hits_at_most([draw.outcome == "inconclusive" for draw in null], 0.10)


@pytest.mark.parametrize(("effect", "rate"), [(0.10, 0.85), (0.20, 0.95)])
def test_a_slower_layer_in_recorded_sessions_is_found(effect: float, rate: float) -> None:
    hits_at_least([draw.named == "slower" for draw in recorded() if draw.kind == "one" and draw.effect == effect], rate)


@pytest.mark.parametrize("effect", [0.05, 0.10, 0.20])
def test_a_slower_large_layer_in_recorded_sessions_is_found(effect: float) -> None:
    hits_at_least(
        [draw.named == "slower" for draw in recorded() if draw.kind == "large" and draw.effect == effect], 0.9
    )


def test_a_slower_engine_in_recorded_sessions_is_found() -> None:
    hits_at_least([draw.engine == "slower" for draw in recorded() if draw.kind == "all"], 0.97)


def test_the_measured_world_is_as_noisy_as_the_measurements() -> None:
    (recording,) = recordings(None)
    real = [noise(sessions) for sessions in recording.days.values()]
    made = [day((8, number)) for number in range(5)]

    for name in ("tick_us", "iteration_cv_median", "deviation_median", "deviation_p90", "deviation_p99", "latency_sd"):
        of_real, of_made = (
            math.exp(sum(math.log(getattr(one, name)) for one in group) / len(group)) for group in (real, made)
        )
        assert 1 / 1.5 < of_made / of_real < 1.5, name
