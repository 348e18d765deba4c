from __future__ import annotations

import datetime
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_trtgray.fuzzing import relax_deadlines


class Item:
    """What the plugin reads of a collected test."""

    def __init__(self, obj: Any) -> None:
        self.obj = obj


def relaxed(test: Any, times: int = 1) -> Any:
    relax_deadlines([Item(test)] * times)  # type: ignore[list-item]
    return test._hypothesis_internal_use_settings


def plain() -> Any:
    @given(st.integers())
    def test(number: int) -> None:
        assert number is not None

    return test


@pytest.mark.parametrize("times", [1, 3])
def test_the_default_deadline_is_lifted(times: int) -> None:
    """Of a parametrized test the function is seen once for every item."""
    found = relaxed(plain(), times)

    assert found.deadline is None
    assert HealthCheck.too_slow in found.suppress_health_check


def test_other_settings_are_kept() -> None:
    """A test that only wants more examples has not asked for a deadline."""
    test = settings(max_examples=17, suppress_health_check=[HealthCheck.data_too_large])(plain())
    found = relaxed(test)

    assert (found.max_examples, found.deadline) == (17, None)
    assert {HealthCheck.data_too_large, HealthCheck.too_slow} <= set(found.suppress_health_check)


def test_a_deadline_of_its_own_is_kept() -> None:
    assert relaxed(settings(deadline=500)(plain())).deadline == datetime.timedelta(milliseconds=500)


def test_it_applies() -> None:
    """The first call takes longer than the default allows."""
    pauses = [0.3]

    @settings(max_examples=5, database=None)
    @given(st.integers())
    def test(number: int) -> None:
        if pauses:
            time.sleep(pauses.pop())

    relaxed(test)
    test()


def test_methods_and_ordinary_tests() -> None:
    class Suite:
        @given(st.integers())
        def test(self, number: int) -> None:
            assert number is not None

    def ordinary() -> None:
        """Without Hypothesis."""

    relax_deadlines([Item(Suite().test), Item(ordinary), Item(None)])  # type: ignore[list-item]

    assert Suite.test._hypothesis_internal_use_settings.deadline is None  # type: ignore[attr-defined]
    assert not vars(ordinary)
