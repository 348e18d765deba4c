from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.logs.records import SEVERITIES, Record, at_least, errors_of

RECORDS = st.builds(
    Record,
    st.sampled_from(SEVERITIES),
    st.text(),
    st.text(),
    st.text(),
    st.floats(0, 2e9),
    st.integers(0, 2**63),
    monotonic_s=st.floats(0, 2e9),
    details=st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.text())),
)


class TestRecord:
    @given(RECORDS)
    def test_round_trip_through_json(self, record: Record) -> None:
        assert Record.from_dict(json.loads(json.dumps(record.to_dict()))) == record

    def test_fields_of_a_later_version_are_left_out(self) -> None:
        stored = {**Record("info", "x", "y").to_dict(), "channel": 7}

        assert Record.from_dict(stored) == Record("info", "x", "y")

    def test_errors_in_order(self) -> None:
        said = [
            Record(severity, "x", severity) for severity in ("info", "warning", "verbose", "error", "internal_error")
        ]

        assert [record.message for record in errors_of(said)] == ["error", "internal_error"]

    def test_those_of_a_severity_and_worse(self) -> None:
        said = [Record(severity, "x", severity) for severity in reversed(SEVERITIES)]

        assert [record.message for record in at_least(said, "warning")] == ["warning", "error", "internal_error"]
        assert at_least(said, "verbose") == said
