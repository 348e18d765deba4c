from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.errors import (
    BaselineError,
    EngineError,
    ModelError,
    NotRunnableError,
    ShapeError,
    TrtGrayError,
)
from pytest_trtgray.findings import Finding, counted, errors, failure_message, listing
from pytest_trtgray.settings import OptionError

FINDINGS = st.builds(
    Finding,
    st.sampled_from(["error", "warning", "advice"]),
    st.text(),
    st.text(),
    st.text(),
    st.dictionaries(
        st.text(), st.none() | st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    ),
    st.text(),
)


def finding(what: str, severity: Any = "error", remedy: str = "") -> Finding:
    return Finding(severity, "x", what, "rule.x", remedy=remedy)


class TestFinding:
    @given(FINDINGS)
    def test_round_trip_through_json(self, made: Finding) -> None:
        assert Finding.from_dict(json.loads(json.dumps(made.to_dict()))) == made

    def test_an_unknown_severity(self) -> None:
        with pytest.raises(ValueError, match="severity must be one of"):
            finding("x", "fatal")

    def test_what_is_optional(self) -> None:
        made = Finding.from_dict({"severity": "error", "where": "a", "what": "b", "rule": "c"})

        assert (made.evidence, made.remedy) == ({}, "")

    def test_errors_are_what_fails(self) -> None:
        made = [finding("a"), finding("b", "warning"), finding("c", "advice"), finding("d")]

        assert [each.what for each in errors(made)] == ["a", "d"]

    @pytest.mark.parametrize(("count", "text"), [(0, "0 layers"), (1, "1 layer"), (2, "2 layers")])
    def test_counted(self, count: int, text: str) -> None:
        assert counted(count, "layer") == text


class TestListing:
    def test_lines(self) -> None:
        text = listing(
            [finding("a\nmore", remedy="do it"), finding("b", remedy="do it"), finding("c", remedy="or that")]
        )

        assert text == "  a\n    more\n  b\n  c\n  -> do it\n  -> or that"

    @given(st.lists(FINDINGS, max_size=20), st.integers(1, 30))
    def test_never_more_than_asked_for(self, made: list[Finding], limit: int) -> None:
        lines = listing(made, limit).split("\n") if made else []
        hidden = max(0, len(made) - limit)

        assert (f"  ... and {hidden} more" in lines) == bool(hidden) or not hidden
        assert len([line for line in lines if line.startswith("  ... and ")]) >= bool(hidden)

    def test_nothing(self) -> None:
        assert listing([]) == ""


class TestFailureMessage:
    def test_the_first_line_says_it_all(self) -> None:
        text = failure_message(
            "outputs differ", [finding("a is wrong\nby 5"), finding("b"), finding("c", remedy="fix")]
        )

        assert text == "outputs differ: a is wrong (and 2 more)\n    by 5\n  b\n  c\n  -> fix"

    def test_one(self) -> None:
        assert failure_message("v", [finding("a", remedy="r")]) == "v: a\n  -> r"

    @pytest.mark.parametrize(("count", "hidden"), [(11, 0), (12, 0), (13, 1), (30, 18)])
    def test_many(self, count: int, hidden: int) -> None:
        text = failure_message("v", [finding(f"f{index}") for index in range(count)])
        shown = [line for line in text.splitlines() if line.startswith("  f")]

        assert len(shown) == min(count, 12) - 1
        assert (f"... and {hidden} more" in text) == bool(hidden)
        assert ("... and" in text) == bool(hidden)

    def test_a_finding_without_words(self) -> None:
        assert failure_message("v", [finding("")]).startswith("v: ")


class TestErrors:
    @pytest.mark.parametrize(
        "kind",
        [
            TrtGrayError,
            ModelError,
            EngineError,
            NotRunnableError,
            ShapeError,
            BaselineError,
            OptionError,
        ],
    )
    def test_travel_between_processes(self, kind: type[TrtGrayError]) -> None:
        error = kind("net.onnx", "is empty", "Export it again.")
        copy = pickle.loads(pickle.dumps(error))

        assert type(copy) is kind
        assert str(copy) == str(error)
        assert (copy.thing, copy.reason, copy.remedy) == ("net.onnx", "is empty", "Export it again.")

    def test_the_thing_the_reason_and_the_way_out(self) -> None:
        assert str(ModelError("net.onnx", "is empty", "Export it again.")) == "net.onnx: is empty\n  Export it again."

    def test_of_a_baseline_the_reason_comes_first(self) -> None:
        """A test's summary line has no room for a path."""
        assert str(BaselineError("a/b.json", "is damaged", "Restore it.")) == "is damaged\n  a/b.json\n  Restore it."
        assert str(BaselineError("a/b.json", "is damaged")) == "is damaged\n  a/b.json"

    def test_without_a_remedy(self) -> None:
        assert str(TrtGrayError("x", "is bad")) == "x: is bad"

    def test_families(self) -> None:
        assert issubclass(NotRunnableError, EngineError)
        assert issubclass(ShapeError, EngineError)
        assert not issubclass(ModelError, EngineError)
