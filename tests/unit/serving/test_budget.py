"""What profiling may cost."""

from __future__ import annotations

import pytest

from pytest_trtgray.serving.budget import MEMORY_US, Budget


def test_nothing_is_spent_in_advance() -> None:
    budget = Budget()
    assert not budget.allows(0.005, 20_000)
    budget.serve(3.9e6)
    assert not budget.allows(0.005, 20_000)
    budget.serve(0.2e6)
    assert budget.allows(0.005, 20_000)


def test_beyond_the_limit_it_pauses_until_enough_was_served() -> None:
    budget = Budget()
    budget.serve(1e6)
    budget.spend(20_000)
    assert (budget.allows(0.01), budget.overhead) == (False, 0.02)
    budget.serve(1e6)
    assert (budget.allows(0.01), budget.overhead) == (True, 0.01)


def test_without_a_limit_any_cost_will_do() -> None:
    budget = Budget()
    budget.spend(1e9)
    assert budget.allows(None, 1e9)


def test_a_profiled_inference_that_was_faster_gives_no_credit() -> None:
    budget = Budget()
    budget.serve(1e6)
    budget.spend(-50_000)
    assert budget.overhead == 0
    assert not budget.allows(0.01, 10_001)


def test_what_was_long_ago_counts_little() -> None:
    budget = Budget()
    budget.spend(MEMORY_US)
    for _ in range(2000):
        budget.serve(MEMORY_US / 100)
    assert budget.overhead < 0.01


@pytest.mark.parametrize("cost_us", [50_000.0, 2e6, 30e6])
def test_what_is_dear_is_saved_up_for(cost_us: float) -> None:
    """A network whose context takes seconds to open is profiled seldom, not never; and no more than is allowed."""
    budget, bought, served_us = Budget(), 0, 0.0
    while bought < 20 and served_us < 100 * cost_us / 0.002:
        budget.serve(1e5)
        served_us += 1e5
        if budget.allows(0.002, cost_us):
            budget.spend(cost_us)
            bought += 1
    assert bought == 20
    assert bought * cost_us <= 0.002 * served_us
