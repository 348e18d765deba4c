"""What verbose messages state is found, though most of them are passed over at a glance."""

from __future__ import annotations

import pytest

from pytest_trtgray.logs.statements import VERBOSE_STATEMENTS, may_state


@pytest.mark.parametrize("needle", sorted({statement.needle for statement in VERBOSE_STATEMENTS}))
def test_no_statement_is_passed_over(needle: str) -> None:
    assert may_state(f"a{needle}b")


def test_the_name_of_a_layer_states_nothing() -> None:
    assert not may_state("/encoder/layer.0/attention/self/q/MatMul [MatMul] outputs: [a -> (-1, 128)[FLOAT]], ")
