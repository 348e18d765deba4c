"""Label values: bounded, different where their texts are, and the same in every run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.metrics.labels import MAX_LENGTH, bounded, label_of_test


@given(st.text(st.characters(exclude_categories=()), max_size=300))
def test_any_text_becomes_a_bounded_value_that_utf8_holds(text: str) -> None:
    value = bounded(text)
    assert len(value) <= MAX_LENGTH
    value.encode("utf-8")  # raises for what UTF-8 does not hold
    assert bounded(text) == value


def test_long_texts_with_one_beginning_stay_different() -> None:
    values = {bounded(f"{'/encoder' * 30}/MatMul_{index}") for index in range(500)}
    assert len(values) == 500
    assert all(value.startswith("/encoder/encoder") for value in values)


def test_a_test_is_called_without_its_parameters() -> None:
    assert label_of_test("tests/test_a.py::TestNet::test_layers[a[0]-x\n]") == "tests/test_a.py::TestNet::test_layers"
    assert label_of_test("trtgray::layers[resnet50]") == "trtgray::layers"
    assert label_of_test("tests/test_a.py::test_plain") == "tests/test_a.py::test_plain"
