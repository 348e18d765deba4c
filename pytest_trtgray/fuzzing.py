"""Hypothesis tests on engines: deadlines and health checks that suit them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def relax_deadlines(items: Iterable[pytest.Item]) -> None:
    """Lift Hypothesis' default deadline of 200 ms from tests that use engines.

    The first call of a shape compiles kernels; a deadline would call the engine flaky for that. A test with a deadline
    of its own keeps it. Large inputs take their time, too: they do not fail the health check for slow data.
    """
    for item in items:
        test = getattr(item, "obj", None)
        if getattr(test, "is_hypothesis_test", False):
            _relax(getattr(test, "__func__", test))


def _relax(test: Any) -> None:
    from hypothesis import HealthCheck, settings

    # Hypothesis tells no other way what a decorated test is set to; its decorator refuses a second time.
    default: Any = settings.default
    own = getattr(test, "_hypothesis_internal_use_settings", default)
    has_deadline = own.deadline != default.deadline
    test._hypothesis_internal_use_settings = settings(
        own,
        deadline=own.deadline if has_deadline else None,
        suppress_health_check={*own.suppress_health_check, HealthCheck.too_slow},
    )
