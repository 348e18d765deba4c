"""Hypothesis tests on engines: deadlines that suit them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def relax_deadlines(items: Iterable[pytest.Item]) -> None:
    """Lift Hypothesis' 200 ms deadline from tests that use engines and say nothing about it themselves.

    The first call of a shape compiles kernels; a deadline would call the engine flaky for that.
    """
    for item in items:
        test = getattr(item, "obj", None)
        if getattr(test, "is_hypothesis_test", False):
            _relax(getattr(test, "__func__", test))


def _relax(test: Any) -> None:
    from hypothesis import settings
    from hypothesis.errors import InvalidArgument

    try:
        settings(settings.default, deadline=None)(test)
    except InvalidArgument:
        return  # the test has settings of its own
