"""Which requests are drawn, and switching between policies."""

from __future__ import annotations

import pytest

from pytest_trtgray.serving.policy import CANARY, FAULT, LEARNING, OFF, STRIDE, Policy, Sampler, learning


class Requests:
    """Numbers a sampler's requests, and asks it as :class:`SamplingProfiler` does."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self.number = 0
        self.due = 0
        self.asked = 0

    def is_drawn(self) -> bool:
        number, self.number = self.number, self.number + 1
        if number < self.due:
            return False
        self.asked += 1
        drawn, _, self.due = self.sampler.at(number)
        return drawn


def drawn(policy: Policy, seed: int, count: int = 20_000) -> set[int]:
    requests = Requests(Sampler(policy, seed))
    return {number for number in range(count) if requests.is_drawn()}


class TestDraws:
    @pytest.mark.parametrize("policy", [learning(0.001), LEARNING, FAULT, Policy("half", 0.5)], ids=lambda p: p.name)
    def test_the_rate_is_kept(self, policy: Policy) -> None:
        expected = 20_000 * policy.rate
        assert abs(len(drawn(policy, 0)) - expected) < 5 * expected**0.5

    def test_off_is_none_and_a_canary_all(self) -> None:
        assert drawn(OFF, 0, 1000) == set()
        assert drawn(CANARY, 0, 1000) == set(range(1000))

    def test_a_seed_draws_the_same_requests_again(self) -> None:
        assert drawn(LEARNING, 3) == drawn(LEARNING, 3) != drawn(LEARNING, 4)

    def test_those_of_a_low_rate_are_among_those_of_a_higher_one(self) -> None:
        assert drawn(LEARNING, 3) < drawn(FAULT, 3)

    def test_nothing_is_missed_by_asking_only_when_due(self) -> None:
        sampler = Sampler(LEARNING, 3)
        assert drawn(LEARNING, 3) == {number for number in range(20_000) if sampler.at(number)[0]}

    def test_most_requests_need_no_question(self) -> None:
        requests = Requests(Sampler(LEARNING))
        count = sum(requests.is_drawn() for _ in range(2900))
        assert requests.asked <= count + 2900 // STRIDE

    def test_what_is_timed_stands_for_the_others(self) -> None:
        assert [Sampler(OFF).at(number)[1] for number in (0, 1, STRIDE, 2 * STRIDE)] == [True, False, True, True]
        assert Sampler(FAULT).at(1)[1]


class TestSwitching:
    def test_from_the_next_request_on(self) -> None:
        told: list[str] = []
        sampler = Sampler(OFF, on_switch=lambda policy: told.append(policy.name))
        before = [sampler.at(number)[0] for number in range(50)]
        sampler.switch(CANARY)
        after = [sampler.at(number)[0] for number in range(50, 100)]

        assert (any(before), all(after)) == (False, True)
        assert told == ["canary"]

    def test_a_fault_raises_the_rate_for_a_while(self) -> None:
        now = 0.0
        told: list[str] = []
        sampler = Sampler(LEARNING, clock=lambda: now, on_switch=lambda policy: told.append(policy.name))
        sampler.fault(hold_s=60)
        now = 59.0
        held = sampler.policy
        now = 60.0

        assert (held, sampler.policy) == (FAULT, LEARNING)
        assert told == ["fault", "learning"]

    @pytest.mark.parametrize("policy", [OFF, CANARY], ids=lambda policy: policy.name)
    def test_a_fault_lowers_nothing_and_switches_nothing_on(self, policy: Policy) -> None:
        sampler = Sampler(policy)
        sampler.fault()
        assert sampler.policy == policy

    def test_who_chooses_ends_the_fault(self) -> None:
        sampler = Sampler(LEARNING)
        sampler.fault()
        sampler.switch(OFF)
        assert sampler.policy == OFF


class TestRefused:
    @pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
    def test_a_rate_that_is_none(self, rate: float) -> None:
        with pytest.raises(ValueError, match="rate of policy 'odd'"):
            Policy("odd", rate)

    @pytest.mark.parametrize("limit", [0.0, -1.0, 2.0])
    def test_a_limit_that_is_none(self, limit: float) -> None:
        with pytest.raises(ValueError, match="max_overhead"):
            Policy("odd", 0.5, limit)

    @pytest.mark.parametrize("rate", [0.0005, 0.02])
    def test_learning_at_another_rate(self, rate: float) -> None:
        with pytest.raises(ValueError, match=r"0\.1 to 1 %"):
            learning(rate)
