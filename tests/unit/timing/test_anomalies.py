"""What is odd inside a run: planted in made-up and in recorded sessions, and not found where nothing was planted."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pytest_trtgray.engines.layer_listing import layers_from_json
from pytest_trtgray.engines.model import Layer
from pytest_trtgray.errors import EngineError
from pytest_trtgray.findings import Finding
from pytest_trtgray.timing import anomalies
from pytest_trtgray.timing.anomalies import (
    Samples,
    display_names,
    find_anomalies,
    find_drift,
    find_modes,
    find_odd_iterations,
    find_outliers,
    find_overhead_anomalies,
    find_spread,
    is_unusual,
    modes,
    modes_limit,
    outlier_limit,
    robust_z,
    slowest,
    spreads,
)
from pytest_trtgray.timing.session import Overheads
from tests.recordings import H200, listing
from tests.unit.helpers import layer

Table = NDArray[np.float64]
Change = Callable[[Table, Table, int], None]
TICK = 0.032
ITERATIONS = 67


def nothing(table: Table, latency: Table, session: int) -> None:
    pass


def world(
    change: Change = nothing, *, seed: int = 0, layers: int = 20, sessions: int = 3, iterations: int = ITERATIONS
) -> list[Samples]:
    """Sessions of ticked times with 2 % of noise; ``change(table, latency, session)`` spoils them in place."""
    rng = np.random.Generator(np.random.PCG64(seed))
    base = np.geomspace(3, 60, layers)
    made = []
    for session in range(sessions):
        table = base * np.exp(rng.normal(0, 0.005, layers)) * np.exp(rng.normal(0, 0.02, (iterations, layers)))
        latency = base.sum() * 1.1 * np.exp(rng.normal(0, 0.008, iterations))
        change(table, latency, session)
        made.append(Samples(np.round(table / TICK) * TICK, latency, [f"/l{index}" for index in range(layers)]))
    return made


def rules(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    return [(finding.rule.removeprefix("timing.anomaly."), finding.where) for finding in findings]


def scaled(sessions: Sequence[Samples], factor: float) -> list[Samples]:
    return [Samples(each.layer_us * factor, each.latency_us * factor, each.layers) for each in sessions]


def every(count: int, factor: float, column: int = 7) -> Change:
    """Every ``count``-th iteration of a layer takes longer."""

    def change(table: Table, latency: Table, session: int) -> None:
        table[::count, column] *= factor

    return change


class TestSamples:
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
    def test_what_is_no_time(self, bad: float) -> None:
        table = np.ones((12, 2))
        table[3, 1] = bad
        with pytest.raises(ValueError, match="layer_us has NaN, infinite or negative times"):
            Samples(table, np.ones(12), ["a", "b"])
        with pytest.raises(ValueError, match="latency_us has NaN"):
            Samples(np.ones((12, 2)), [1.0, bad], ["a", "b"])

    @pytest.mark.parametrize(
        ("table", "latency", "reason"),
        [
            (np.ones(3), np.ones(3), r"layer_us must have shape \(iterations, layers\), got \(3,\)"),
            (np.ones((3, 1)), np.ones(3), "layer_us has 1 columns for 2 layers"),
            (np.ones((0, 2)), np.ones(3), "at least one iteration"),
            (np.ones((3, 2)), np.ones((3, 1)), r"latency_us must have shape \(iterations,\)"),
        ],
    )
    def test_shapes(self, table: Table, latency: Table, reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            Samples(table, latency, ["a", "b"])

    def test_the_callers_array_may_change(self) -> None:
        table = np.ones((12, 1))
        samples = Samples(table, None, ["a"])
        table[:] = 5

        assert (samples.layer_us == 1).all()
        assert samples.latency_us.size == 0
        with pytest.raises(ValueError, match="read-only"):
            samples.layer_us[0] = 2

    def test_travels(self) -> None:
        samples = pickle.loads(pickle.dumps(Samples([[1.0], [2.0]], [3.0], [layer("a", "/a")])))

        assert samples.layer_us.tolist() == [[1.0], [2.0]]
        assert samples.layers == (layer("a", "/a"),)

    def test_other_layers(self) -> None:
        short = Samples(np.ones((2, 1)), None, ["b"])
        with pytest.raises(ValueError, match="the same layers"):
            find_anomalies([Samples(np.ones((12, 1)), None, ["a"]), short])


class TestNames:
    def test_onnx_nodes_and_never_a_position(self) -> None:
        layers = [layer("__myl_FcAdd_myl0_7", "/fc/Gemm", "/fc/Add"), layer("__myl_Copy_myl0_8", kind="copy")]

        assert display_names(layers) == ("/fc/Add + /fc/Gemm", "a copy layer without ONNX nodes (number 2 of 2)")
        assert display_names(["__myl_FcAdd_myl0_7", "/a_myl0_3"]) == (
            "a layer without ONNX nodes (number 1 of 2)",
            "/a",
        )

    def test_layers_of_the_same_nodes_are_numbered(self) -> None:
        assert display_names([layer("a", "/x"), layer("b", "/y"), layer("c", "/x")]) == ("/x #1", "/y", "/x #2")


class TestRobustZ:
    def test_by_hand(self) -> None:
        np.testing.assert_allclose(robust_z([1, 2, 3, 4, 100]), np.array([-2, -1, 0, 1, 97]) / 1.4826)

    def test_a_gaussian_has_a_spread_of_one(self) -> None:
        scores = robust_z(np.random.Generator(np.random.PCG64(0)).normal(5, 3, 20_000))

        assert np.std(scores) == pytest.approx(1, abs=0.03)

    def test_half_a_tick_at_least(self) -> None:
        assert robust_z([10.0, 10.0, 10.0, 10.5], tick_us=0.5).tolist() == [0, 0, 0, 2]
        assert robust_z([10.0, 10.0, 10.0, 10.5]).tolist() == [0, 0, 0, np.inf]

    def test_the_limit_is_that_of_the_family(self) -> None:
        """One value: the usual 1 %; and the chance that any of 25,000 Gaussian values lies beyond is 1 %."""
        assert outlier_limit(1) == pytest.approx(2.576, abs=1e-3)
        rng = np.random.Generator(np.random.PCG64(1))
        beyond = sum(np.abs(rng.normal(size=25_000)).max() > outlier_limit(25_000) for _ in range(1000))
        assert beyond <= 22  # binomial, 1,000 x 1 %: more in 1 case of 3,000


class TestOutliers:
    def test_named_counted_and_placed(self) -> None:
        (found,) = find_outliers(world(every(11, 2.1)))

        assert found.where == "/l7"
        assert found.what.startswith("21 of 201 iterations of /l7 took 2.1x its median (")
        assert found.rule == "timing.anomaly.outlier"
        assert (found.evidence["iterations"], found.evidence["of"]) == (21, 201)
        assert found.evidence["times_median"] == pytest.approx(2.1, abs=0.1)
        assert found.evidence["first_iterations"] == "0:0 0:11 0:22 0:33 0:44"
        assert found.remedy

    def test_places_in_later_sessions(self) -> None:
        def change(table: Table, latency: Table, session: int) -> None:
            if session == 2:
                table[[5, 6, 7, 30, 66], 3] *= 3

        (found,) = find_outliers(world(change))
        assert found.evidence["first_iterations"] == "2:5 2:6 2:7 2:30 2:66"

    def test_faster_is_far_out_too(self) -> None:
        assert rules(find_outliers(world(every(11, 0.4)))) == [("outlier", "/l7")]

    def test_rare_or_small_ones_are_normal(self) -> None:
        assert find_outliers(world(every(67, 2.5, column=0))) == ()
        assert find_outliers(world(every(11, 1.3))) == ()

    def test_a_single_one_that_the_engine_feels(self) -> None:
        def change(table: Table, latency: Table, session: int) -> None:
            if session == 1:
                table[40, 19] *= 4

        (found,) = find_outliers(world(change))
        assert (found.where, found.evidence["iterations"], found.evidence["first_iterations"]) == ("/l19", 1, "1:40")
        assert found.severity == "advice"

    def test_what_costs_the_engine_is_a_warning(self) -> None:
        (small,) = find_outliers(world(every(11, 2.1, column=0)))
        (large,) = find_outliers(world(every(11, 2.1, column=19)))

        assert (small.severity, large.severity) == ("advice", "warning")

    def test_all_layers_at_once_are_one_finding(self) -> None:
        def change(table: Table, latency: Table, session: int) -> None:
            table[10:13] *= 1.6

        (found,) = find_outliers(world(change))
        assert rules([found]) == [("all-layers-outlier", "engine")]
        assert "9 of 201 iterations of all layers together took 1.6x their median" in found.what

    def test_the_engine_alone(self) -> None:
        def change(table: Table, latency: Table, session: int) -> None:
            latency[[8, 9]] *= 1.5

        (found,) = find_outliers(world(change))
        assert rules([found]) == [("engine-outlier", "engine")]
        assert "6 of 201 iterations of the whole engine took 1.5x its median" in found.what
        assert found.evidence["first_iterations"] == "0:8 0:9 1:8 1:9 2:8"

    def test_layers_hit_at_random_are_one_finding(self) -> None:
        rng = np.random.Generator(np.random.PCG64(3))

        def change(table: Table, latency: Table, session: int) -> None:
            table[rng.random(table.shape) < 0.06] *= 3

        (found,) = find_outliers(world(change))
        assert rules([found]) == [("scattered-outliers", "engine")]
        assert found.what.startswith("20 of 20 layers have iterations that lie far out")

    def test_a_layer_that_takes_no_time_otherwise(self) -> None:
        def change(table: Table, latency: Table, session: int) -> None:
            table[:, 4] = 0
            table[::10, 4] = 5

        (found,) = find_outliers(world(change))
        assert found.what == "21 of 201 iterations of /l4 took 4.99 us instead of 0 us"
        json.dumps(found.to_dict(), allow_nan=False)


class TestSpread:
    def test_a_layer_unlike_its_like(self) -> None:
        rng = np.random.Generator(np.random.PCG64(4))

        def change(table: Table, latency: Table, session: int) -> None:
            table[:, 12] *= np.exp(rng.normal(0, 0.15, len(table)))

        (found,) = find_spread(world(change))
        assert rules([found]) == [("hyper-variable", "/l12")]
        assert found.evidence["cv_percent"] == pytest.approx(15, abs=3)
        assert found.evidence["usual_cv_percent"] == pytest.approx(2, abs=0.4)

    def test_several_are_one_finding(self) -> None:
        rng = np.random.Generator(np.random.PCG64(4))

        def change(table: Table, latency: Table, session: int) -> None:
            table[:, [3, 12]] *= np.exp(rng.normal(0, 0.15, (len(table), 2)))

        (found,) = find_spread(world(change))
        assert found.where == "/l12"
        assert "(and 1 more layer like it)" in found.what
        assert str(found.evidence["others"]).startswith("/l3: 1")

    def test_short_layers_vary_more_because_of_the_tick(self) -> None:
        """Of a few ticks, a layer varies by more than twice what a long one does, and by no more than it must."""
        rng = np.random.Generator(np.random.PCG64(0))
        base = np.geomspace(3 * TICK, 2000 * TICK, 60)
        made = [np.round(base * np.exp(rng.normal(0, 0.02, (67, 60))) / TICK + rng.uniform(-0.5, 0.5, (67, 60))) * TICK]
        sessions = [Samples(table, None, [f"/l{i}" for i in range(60)]) for table in made]

        assert max(each.cv for each in spreads(sessions)) > 2 * min(each.cv for each in spreads(sessions))
        assert find_spread(sessions) == ()

    def test_an_engine_that_varies_as_a_whole(self) -> None:
        rng = np.random.Generator(np.random.PCG64(4))

        def change(table: Table, latency: Table, session: int) -> None:
            latency *= np.exp(rng.normal(0, 0.2, len(latency)))

        (found,) = find_spread(world(change))
        assert rules([found]) == [("unsteady", "engine")]
        assert found.severity == "warning"

    def test_the_table(self) -> None:
        found = spreads(world())

        assert [each.name for each in found] == [f"/l{index}" for index in range(20)]
        assert sum(each.share for each in found) == pytest.approx(1)
        assert all(each.cv == pytest.approx(0.02, abs=0.01) for each in found)

    def test_few_layers_have_no_trend(self) -> None:
        assert {each.usual_cv for each in spreads(world(layers=9))} == {None}
        assert None not in {each.usual_cv for each in spreads(world(layers=10))}


def ramp_of(size: float) -> Table:
    """From 0 to ``100 * size`` over a session, with a little noise."""
    noise = np.random.Generator(np.random.PCG64(2)).normal(0, 0.2, ITERATIONS)
    return np.asarray(100 * size * np.linspace(0, 1, ITERATIONS) + noise)


def ramp(size: float, column: int | None = None) -> Change:
    """Over each session everything, or one layer, gets slower by ``size``."""

    def change(table: Table, latency: Table, session: int) -> None:
        rise = 1 + size * np.linspace(0, 1, len(table))
        if column is None:
            table *= rise[:, None]
            latency *= rise
        else:
            table[:, column] *= rise

    return change


class TestDrift:
    def test_the_whole_engine_is_named_as_that(self) -> None:
        (found,) = find_drift(world(ramp(0.05)))

        assert rules([found]) == [("engine-drift", "engine")]
        assert found.evidence["change_percent"] == pytest.approx(4.7, abs=0.7)
        assert "slower" in found.what
        assert "thermal" in found.remedy

    def test_getting_faster_is_a_warm_up(self) -> None:
        (found,) = find_drift(world(ramp(-0.05)))

        assert "faster" in found.what
        assert "warm-up" in found.remedy

    def test_a_layer_alone_is_named_as_that(self) -> None:
        (found,) = find_drift(world(ramp(0.1, 7)))

        assert rules([found]) == [("layer-drift", "/l7")]
        assert found.evidence["change_percent"] == pytest.approx(9.4, abs=1.5)

    def test_both(self) -> None:
        def change(table: Table, latency: Table, session: int) -> None:
            ramp(0.05)(table, latency, session)
            ramp(0.2, 7)(table, latency, session)

        assert sorted(rules(find_drift(world(change)))) == [("engine-drift", "engine"), ("layer-drift", "/l7")]

    def test_one_session_is_enough(self) -> None:
        assert rules(find_drift(world(ramp(0.1, 7), sessions=1))) == [("layer-drift", "/l7")]

    def test_small_drift_is_none_of_our_business(self) -> None:
        assert find_drift(world(ramp(0.01))) == ()
        assert find_drift(world(ramp(0.03, 7))) == ()

    def test_a_trend_that_turns_from_session_to_session_is_none(self) -> None:
        def change(table: Table, latency: Table, session: int) -> None:
            ramp((0.1, -0.1)[session % 2], 7)(table, latency, session)

        assert find_drift(world(change, sessions=4)) == ()

    def test_noise_with_a_memory_is_no_trend(self) -> None:
        """AR(1) with 0.9 and a spread of 5 %: runs of slow iterations, no trend."""

        def change(table: Table, latency: Table, session: int) -> None:
            rng = np.random.Generator(np.random.PCG64(session))
            wander = np.zeros(table.shape[1])
            for row in table:
                wander = 0.9 * wander + np.sqrt(1 - 0.81) * rng.normal(0, 0.05, len(wander))
                row *= np.exp(wander)

        assert find_drift(world(change)) == ()

    def test_the_slowest_layers(self) -> None:
        found = slowest(world(ramp(0.1, 19)), 3)

        assert [each.name for each in found] == ["/l19", "/l18", "/l17"]
        assert found[0].change == pytest.approx(0.095, abs=0.02)
        assert found[0].p_value < 0.01 < found[1].p_value
        assert abs(found[1].change) < 0.02


def two(high: float, part: float, column: int = 7) -> Change:
    def change(table: Table, latency: Table, session: int) -> None:
        slow = np.random.Generator(np.random.PCG64(session)).random(len(table)) < part
        table[slow, column] *= high

    return change


class TestModes:
    def test_within_a_session(self) -> None:
        (found,) = modes(world(two(1.3, 0.3)))

        assert (found.name, found.between_sessions) == ("/l7", False)
        assert found.high_us / found.low_us == pytest.approx(1.3, abs=0.03)
        assert found.high_share == pytest.approx(0.3, abs=0.08)

    def test_between_sessions(self) -> None:
        def change(table: Table, latency: Table, session: int) -> None:
            table[:, 7] *= 1.2 if session == 1 else 1

        (found,) = modes(world(change))
        assert (found.name, found.between_sessions) == ("/l7", True)
        assert found.high_share == pytest.approx(1 / 3, abs=0.02)
        (finding,) = find_modes(world(change))
        assert "some sessions are fast and some are slow" in finding.what
        assert finding.evidence["between_sessions"] == "yes"

    def test_the_engine(self) -> None:
        def change(table: Table, latency: Table, session: int) -> None:
            latency[::2] *= 1.1

        (found,) = find_modes(world(change))
        assert rules([found]) == [("two-modes", "engine")]
        assert found.severity == "warning"

    def test_a_slower_machine_is_no_mode_of_its_layers(self) -> None:
        def change(table: Table, latency: Table, session: int) -> None:
            table *= 1.3 if session == 1 else 1

        assert modes(world(change)) == ()

    def test_outliers_do_not_hide_a_mode(self) -> None:
        def change(table: Table, latency: Table, session: int) -> None:
            two(1.3, 0.4)(table, latency, session)
            table[::20, 7] *= 9

        (found,) = modes(world(change))
        assert found.high_us / found.low_us == pytest.approx(1.3, abs=0.05)

    def test_near_ones_and_rare_ones_are_none(self) -> None:
        assert modes(world(two(1.06, 0.4))) == ()
        assert modes(world(two(1.5, 0.04))) == ()

    def test_two_ticks_are_no_modes(self) -> None:
        """A layer of five or six ticks takes one of two times because the clock has no other."""

        def change(table: Table, latency: Table, session: int) -> None:
            table[:, 7] = TICK * np.where(np.arange(len(table)) % 3, 5, 6)

        assert modes(world(change)) == ()

    @pytest.mark.parametrize("shape", ["normal", "uniform", "exponential", "laplace", "ramp"])
    def test_one_mode_of_any_shape(self, shape: str) -> None:
        """The limit allows 1 in 1,000 of a uniform density, the worst of one mode."""
        rng = np.random.Generator(np.random.PCG64(6))
        draws: dict[str, Callable[[], Table]] = {
            "normal": lambda: rng.normal(50, 6, (201, 400)),
            "uniform": lambda: rng.uniform(30, 70, (201, 400)),
            "exponential": lambda: 30 + rng.exponential(8, (201, 400)),
            "laplace": lambda: rng.laplace(50, 4, (201, 400)).clip(1),
            "ramp": lambda: np.linspace(40, 60, 201)[:, None] + rng.normal(0, 0.5, (201, 400)),
        }
        found = modes([Samples(draws[shape](), None, [f"/l{index}" for index in range(400)])])

        assert len(found) <= 2

    def test_the_limit_falls_with_the_number_of_samples(self) -> None:
        assert modes_limit(40) > modes_limit(201) > 3.46  # of a uniform density
        assert len(modes(world(two(1.3, 0.3), sessions=1, iterations=39))) == 0

    def test_is_not_said_again_in_other_words(self) -> None:
        found = find_anomalies(world(two(2.0, 0.45)))

        assert rules(found) == [("two-modes", "/l7")]


class TestOverheads:
    BEFORE = (100e3, 110e3, 95e3, 105e3)

    def contexts(self, *cold: float) -> list[dict[str, str]]:
        return [Overheads(each).context() for each in cold]

    def test_slower_than_ever(self) -> None:
        now = Overheads(250e3, 10.0).context()
        (found,) = find_overhead_anomalies(now, self.contexts(*self.BEFORE))

        assert (found.severity, found.rule) == ("warning", "timing.anomaly.cold-start")
        assert found.what == "cold start took 250 ms, 2.4x the baseline's"
        assert found.evidence == {"before_us": 102500.0, "after_us": 250000.0, "runs": 4}

    def test_transfers(self) -> None:
        before = [Overheads(1e5, 10.0 + run, 20.0).context() for run in range(3)]
        found = find_overhead_anomalies(Overheads(1e5, 40.0, 21.0).context(), before)

        assert [finding.what for finding in found] == ["the upload of inputs took 40 us, 3.6x the baseline's"]

    @pytest.mark.parametrize("now", [50e3, 100e3, 145e3])
    def test_as_before(self, now: float) -> None:
        assert find_overhead_anomalies(Overheads(now).context(), self.contexts(*self.BEFORE)) == ()

    def test_within_a_wide_spread(self) -> None:
        assert is_unusual(500e3, (50e3, 120e3, 300e3)) is None
        assert is_unusual(400e3, (90e3, 100e3, 110e3, 450e3)) is None

    @pytest.mark.parametrize("before", [(), (1e5,), (1e5, 1e5)])
    def test_few_runs_tell_nothing(self, before: tuple[float, ...]) -> None:
        assert is_unusual(1e6, before) is None

    def test_equal_values_still_have_a_spread(self) -> None:
        assert is_unusual(149e3, (1e5,) * 3) is None
        assert is_unusual(200e3, (1e5,) * 3) == pytest.approx(2)

    def test_false_rate(self) -> None:
        """Log-normal cold starts that spread by 30 %: at most 3 % beyond, of five runs."""
        rng = np.random.Generator(np.random.PCG64(0))
        beyond = [is_unusual(float(now), before.tolist()) is not None
                  for now, *rest in np.exp(rng.normal(11, 0.3, (4000, 6))) for before in [np.array(rest)]]  # fmt: skip
        assert np.mean(beyond) < 0.03

    @pytest.mark.parametrize("text", ["", "?", "nan", "inf", "-5"])
    def test_values_that_are_none(self, text: str) -> None:
        assert find_overhead_anomalies({"cold_start_us": text}, self.contexts(*self.BEFORE)) == ()
        assert find_overhead_anomalies({"cold_start_us": "9e9"}, [{"cold_start_us": text}] * 5) == ()
        assert find_overhead_anomalies({}, [{}]) == ()


class TestForest:
    def test_without_scikit_learn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
        with pytest.raises(EngineError, match=r"pip install 'pytest-trtgray\[anomalies\]'"):
            find_odd_iterations(world())

    def test_layers_that_are_odd_together(self) -> None:
        pytest.importorskip("sklearn")

        def change(table: Table, latency: Table, session: int) -> None:
            table[5, :8] *= 1.15
            table[5, 8:] *= 0.87

        (found,) = find_odd_iterations(world(change))
        assert found.evidence["first_iterations"] == "0:5 1:5 2:5"
        assert found.severity == "advice"

    def test_a_clean_run_has_none(self) -> None:
        pytest.importorskip("sklearn")

        assert find_odd_iterations(world()) == ()
        assert find_odd_iterations(world(iterations=12)) == ()


class TestEverything:
    def test_nothing_planted_nothing_found(self) -> None:
        """80 clean runs of 20 layers: the family-wise rates of four kinds, 1 % each, allow 3."""
        assert sum(len(find_anomalies(world(seed=seed))) for seed in range(80)) <= 3

    def test_none_is_an_error_and_all_travel_as_json(self) -> None:
        def change(table: Table, latency: Table, session: int) -> None:
            for spoil in (every(14, 3.0, 3), ramp(0.06), two(1.5, 0.4, 9), ramp(0.3, 12)):
                spoil(table, latency, session)

        found = find_anomalies(world(change))
        assert {rule for rule, _ in rules(found)} >= {"outlier", "engine-drift", "layer-drift", "two-modes"}
        assert {finding.severity for finding in found} <= {"warning", "advice"}
        costs = [float(finding.evidence["engine_percent"] or 0) for finding in found if finding.severity == "warning"]
        assert costs == sorted(costs, reverse=True)
        for finding in found:
            assert finding.remedy
            assert Finding.from_dict(json.loads(json.dumps(finding.to_dict(), allow_nan=False))) == finding

    def test_no_sessions_and_short_ones(self) -> None:
        assert find_anomalies([]) == ()
        assert find_anomalies(world(every(2, 9.0), iterations=9)) == ()
        assert (spreads([]), slowest([]), modes([])) == ((), (), ())

    def test_a_short_session_among_others_is_left_out(self) -> None:
        made = world(every(11, 3.0))
        short = Samples(made[0].layer_us[:5], None, made[0].layers)

        assert find_anomalies([short, *made]) == find_anomalies(made)

    def test_sessions_of_different_length(self) -> None:
        made = world(every(14, 2.1))
        cut = [Samples(each.layer_us[: 40 + 9 * k], each.latency_us[:12], each.layers) for k, each in enumerate(made)]

        assert ("outlier", "/l7") in rules(find_anomalies(cut))

    @pytest.mark.parametrize("layers", [1, 2])
    def test_few_layers(self, layers: int) -> None:
        found = find_anomalies(world(ramp(0.1), layers=layers))

        assert ("engine-drift", "engine") in rules(found)

    def test_no_layers(self) -> None:
        """An engine whose profiler names none still has latencies."""
        latency = 100 + ramp_of(0.2)
        found = find_anomalies([Samples(np.ones((ITERATIONS, 0)), latency, ())] * 2)

        assert rules(found) == [("engine-drift", "engine")]

    def test_one_layer_that_is_far_out(self) -> None:
        assert ("outlier", "/l0") in rules(find_anomalies(world(every(14, 2.1, 0), layers=1)))

    def test_without_latencies(self) -> None:
        made = [Samples(each.layer_us, None, each.layers) for each in world(ramp(0.05))]

        assert rules(find_anomalies(made)) == [("engine-drift", "engine")]


TIMES = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 24), st.integers(1, 12)),
    elements=st.one_of(st.just(0.0), st.integers(1, 40).map(lambda ticks: ticks * TICK), st.floats(0.01, 1e4)),
)


def of(table: Table, **options: Any) -> list[Samples]:
    return [Samples(table, table.sum(axis=1), [f"/l{index}" for index in range(table.shape[1])], **options)] * 2


class TestProperties:
    @given(TIMES)
    def test_whatever_the_times_no_error_and_no_warning(self, table: Table) -> None:
        for finding in find_anomalies(of(table)):
            json.dumps(finding.to_dict(), allow_nan=False)
            assert finding.severity in ("warning", "advice")

    @given(TIMES, st.sampled_from([2.0**-10, 0.5, 4.0, 1024.0]))
    def test_the_unit_of_time_does_not_matter(self, table: Table, factor: float) -> None:
        made = of(table)

        assert rules(find_anomalies(scaled(made, factor))) == rules(find_anomalies(made))

    @given(TIMES, st.randoms(use_true_random=False))
    def test_the_order_of_layers_does_not_matter(self, table: Table, random: Any) -> None:
        order = list(range(table.shape[1]))
        random.shuffle(order)
        names = [f"/l{index}" for index in range(table.shape[1])]
        mixed = [Samples(table[:, order], table.sum(axis=1), [names[index] for index in order])] * 2

        assert sorted(rules(find_anomalies(mixed))) == sorted(rules(find_anomalies(of(table))))

    @given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.integers(1, 80))
    def test_constant_layers_have_nothing_to_tell(self, times: list[float], iterations: int) -> None:
        assert find_anomalies(of(np.tile(times, (iterations, 1)))) == ()

    @given(st.integers(0, 19), st.sampled_from([0.25, 3.0, 10.0]))
    @settings(max_examples=20, deadline=None)
    def test_wherever_outliers_are_planted_they_are_named(self, column: int, factor: float) -> None:
        assert rules(find_outliers(world(every(11, factor, column)))) == [("outlier", f"/l{column}")]


@cache
def recorded() -> tuple[H200, tuple[Layer, ...]]:
    by_name = {each.name: each for each in layers_from_json(listing("rtx15_bert_base_fp16"))}
    recording = H200()
    return recording, tuple(by_name[name] for name in recording.layer_names)


def sessions_of(machine: str, *, change: Change = nothing, chosen: Sequence[int] = ()) -> list[Samples]:
    recording, layers = recorded()
    made = []
    for session in chosen or range(len(recording.layer_us[machine])):
        table = recording.layer_us[machine][session].astype(np.float64).copy()
        latency = recording.latency_us[machine][session].astype(np.float64).copy()
        change(table, latency, session)
        made.append(Samples(table, latency, layers))
    return made


class TestRecorded:
    """BERT-base on an H200: 125 layers, 40 iterations of each of 12 and 10 processes."""

    def test_names(self) -> None:
        names = display_names(recorded()[1])

        assert len(set(names)) == 125
        assert not [name for name in names if name.startswith("__my") or "_myl" in name]

    @pytest.mark.parametrize("machine", ["a", "b"])
    def test_clean_runs_have_one_or_two_advices_and_no_warning(self, machine: str) -> None:
        """What is found is there: the first layers wait for the host, ShapeHostToDeviceCopy first of all."""
        counts = []
        for start in range(10):
            found = find_anomalies(sessions_of(machine, chosen=[(start + step) % 10 for step in range(3)]))
            assert {finding.severity for finding in found} <= {"advice"}
            assert {rule for rule, _ in rules(found)} <= {"hyper-variable", "outlier", "two-modes"}
            counts.append(len(found))

        assert max(counts) <= 2
        assert np.mean(counts) <= 1.5
        assert len(find_anomalies(sessions_of(machine))) <= 4

    def test_outliers(self) -> None:
        found = find_anomalies(sessions_of("a", change=every(14, 2.1, 60), chosen=[0, 4, 8]))

        assert ("outlier", display_names(recorded()[1])[60]) in rules(found)

    def test_a_thermal_ramp(self) -> None:
        found = find_anomalies(sessions_of("a", change=ramp(0.04), chosen=[0, 4, 8]))

        assert rules(found)[0] == ("engine-drift", "engine")
        assert not [rule for rule, _ in rules(found) if rule == "layer-drift"]

    def test_drift_of_a_layer(self) -> None:
        found = find_anomalies(sessions_of("b", change=ramp(0.12, 60), chosen=[0, 4, 8]))

        assert ("layer-drift", display_names(recorded()[1])[60]) in rules(found)

    def test_a_second_mode(self) -> None:
        found = find_anomalies(sessions_of("b", change=two(1.3, 0.4, 60), chosen=[0, 4, 8]))

        assert ("two-modes", display_names(recorded()[1])[60]) in rules(found)

    def test_a_hyper_variable_layer(self) -> None:
        rng = np.random.Generator(np.random.PCG64(9))

        def change(table: Table, latency: Table, session: int) -> None:
            table[:, 60] *= np.exp(rng.normal(0, 0.25, len(table)))

        (found,) = (each for each in find_anomalies(sessions_of("a", change=change)) if "hyper" in each.rule)
        name = display_names(recorded()[1])[60]
        assert found.where == name or name in str(found.evidence["others"])


def test_everything_public_says_what_it_does() -> None:
    for name in anomalies.__all__:
        assert getattr(anomalies, name).__doc__, name
