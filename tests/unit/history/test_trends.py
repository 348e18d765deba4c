from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pytest_trtgray.errors import NotApplicableError
from pytest_trtgray.history.rows import rows_of
from pytest_trtgray.history.store import History, Series
from pytest_trtgray.history.trends import Shift, find_shifts, trends_of
from tests.run_series import Step, World, layer_key


def fill(history: History, *worlds: World) -> list[Series]:
    for world in worlds:
        for document in world.documents():
            history.add(rows_of(document))
    return history.series()


def shifts_of(history: History, world: World) -> list[Shift]:
    (series,) = fill(history, world)
    return find_shifts(trends_of(history, series))


class TestShifts:
    def test_a_layer_that_got_slower_and_the_commits(self, sqlite: History) -> None:
        world = World(jobs=40, steps=(Step(28, 3, 0.05),))
        (shift,) = shifts_of(sqlite, world)

        assert shift.trend.layer == layer_key(3)
        assert shift.change == pytest.approx(0.05, abs=0.01)
        assert (shift.good, shift.bad) == (world.commit(27), world.commit(28))
        finding = shift.to_finding()
        assert (finding.severity, finding.rule) == ("warning", "history.slower")
        assert f"git bisect start {shift.bad} {shift.good}" in finding.remedy
        assert finding.evidence["jobs_before"] == 28

    def test_of_the_whole_engine_are_said_once(self, sqlite: History) -> None:
        world = World(jobs=40, steps=(Step(20, None, -0.06),), clock_noise=0.03)
        (shift,) = shifts_of(sqlite, world)

        assert shift.trend.layer == ""
        assert shift.change == pytest.approx(-0.06, abs=0.015)
        assert shift.to_finding().severity == "advice"

    def test_runs_of_one_job_are_one_measurement(self, sqlite: History) -> None:
        """Forty runs, but five jobs: too few to know how much jobs differ."""
        (series,) = fill(sqlite, World(jobs=5, runs_per_job=8, job_noise=0.05))
        trends = trends_of(sqlite, series)

        assert {len(trend.jobs) for trend in trends} == {5}
        assert find_shifts(trends) == []

    def test_quiet_engines_have_none(self, sqlite: History) -> None:
        assert shifts_of(sqlite, World(layers=50, jobs=60, drift=0.5, seed=3)) == []

    def test_other_devices_are_never_joined(self, sqlite: History) -> None:
        """A device that is 20 % faster takes over in the middle."""
        old = World(jobs=20, names={"device": "NVIDIA L4"})
        new = World(jobs=40, steps=(Step(20, None, -0.2),), names={"device": "NVIDIA L40S"}, seed=0)
        for number, document in enumerate(new.documents()):
            if number >= 20:
                sqlite.add(rows_of(document))
        series = fill(sqlite, old)

        assert sorted(each.device for each in series) == ["NVIDIA L4", "NVIDIA L40S"]
        for each in series:
            trends = trends_of(sqlite, each)
            assert len(trends[0].jobs) == 20
            assert find_shifts(trends) == []

    def test_what_else_changed_there_is_said(self, sqlite: History) -> None:
        world = World(jobs=30, steps=(Step(15, 2, 0.1),))
        for number, document in enumerate(world.documents()):
            if number >= 15:
                document["checks"][0]["details"]["context"]["driver"] = "590.2"
            document["run"]["commit"] = "same"
            sqlite.add(rows_of(document))
        (shift,) = find_shifts(trends_of(sqlite, sqlite.series()[0]))

        assert shift.beside == ("commit same is on both sides, so it may not be the code", "driver 580.1 -> 590.2")
        assert shift.to_finding().remedy == ""

    def test_layers_that_come_and_go(self, sqlite: History) -> None:
        for number, document in enumerate(World(jobs=30, steps=(Step(20, 1, 0.2),)).documents()):
            layers = document["checks"][0]["details"]["layers"]
            if number % 3 == 0:
                del layers[0]
            sqlite.add(rows_of(document))
        (shift,) = find_shifts(trends_of(sqlite, sqlite.series()[0]))

        assert shift.trend.layer == layer_key(1)
        (first,) = (trend for trend in trends_of(sqlite, sqlite.series()[0]) if trend.layer == layer_key(0))
        assert len(first.jobs) == 20


class TestTrends:
    def test_of_one_layer_are_as_of_all(self, sqlite: History) -> None:
        (series,) = fill(sqlite, World(jobs=12))
        (layer,) = (trend for trend in trends_of(sqlite, series) if trend.layer == layer_key(4))
        _, alone = trends_of(sqlite, series, layer="layer.0/attention/part4/")

        assert np.array_equal(alone.us, layer.us)
        assert alone.residuals == pytest.approx(layer.residuals, abs=0.004)  # of fewer others

    @pytest.mark.parametrize(("part", "count"), [("part", 20), ("nothing", 0)])
    def test_a_layer_must_be_one(self, sqlite: History, part: str, count: int) -> None:
        (series,) = fill(sqlite, World(jobs=1))
        with pytest.raises(NotApplicableError, match=f"{count} layers of the newest run"):
            trends_of(sqlite, series, layer=part)

    def test_a_branch(self, sqlite: History) -> None:
        (series,) = fill(sqlite, World(jobs=3))
        with pytest.raises(NotApplicableError, match="has no undisturbed run on branch mine"):
            trends_of(sqlite, replace(series), branch="mine")
