"""Ending a test from our own code, so that the report points at the test and not at us."""

from __future__ import annotations

from typing import NoReturn

import pytest


def skip_test(reason: str) -> NoReturn:
    """Skip the running test; ``-rs`` shows the test's own line."""
    skipped = pytest.skip.Exception(reason)
    skipped._use_item_location = True
    raise skipped from None


def fail_test(message: str) -> NoReturn:
    """Fail the running test with a message and no traceback."""
    raise pytest.fail.Exception(message, pytrace=False) from None
