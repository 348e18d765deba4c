from __future__ import annotations

from typing import Any

import pytest

from pytest_trtgray.history import rows
from pytest_trtgray.history.rows import rows_of
from pytest_trtgray.logs.records import Record
from pytest_trtgray.reporting.document import DocumentError
from tests.documents import document


def test_a_document_without_an_id_has_that_of_its_content() -> None:
    first, again, other = document(4), document(4), document(4, slower=1)

    assert rows_of(first).run["uid"] == rows_of(again).run["uid"] != rows_of(other).run["uid"]
    assert rows_of(first).run["commit"] == "beef00"  # of the engine's context


def test_layers_that_are_gone_have_no_time() -> None:
    data = document(4)
    data["checks"][0]["details"]["layers"][1].update(us=None, outcome="gone")

    assert [layer.us for layer in rows_of(data).checks[0].layers] == pytest.approx([5.005, 7.007, 8.008])


def test_other_numbers_of_a_check_are_kept() -> None:
    data = document(2)
    data["checks"][0] |= {"calls": [{"first_us": 3.0}], "total_us": 12.5}
    check = rows_of(data).checks[0].check

    assert check["numbers"] == {"calls": [{"first_us": 3.0}]}
    assert check["total_us"] == 12.5


def test_a_total_that_stands_in_the_details_only() -> None:
    assert rows_of(document(2)).checks[0].check["total_us"] == pytest.approx(11 * 1.001)


def test_what_no_database_stores_is_escaped() -> None:
    data = document(2)
    data["checks"][0]["summary"] = "nul \0, no UTF-8 \udcff, ümlaut"

    assert rows_of(data).checks[0].check["summary"] == "nul \\x00, no UTF-8 \\udcff, ümlaut"


@pytest.mark.parametrize(
    ("level", "kept"), [("error", ["E"]), ("warning", ["E", "W"]), ("info", ["E", "W", "I"])]
)  # fmt: skip
def test_the_log_by_level(level: Any, kept: list[str]) -> None:
    said = [("t", Record(severity, "tensorrt", severity[0].upper())) for severity in ("error", "warning", "info")]

    assert [row["message"] for row in rows_of(document(1), said, level=level).log] == kept


def test_the_log_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_LOG_RECORDS", 3)
    said = [("t", Record("error", "tensorrt", f"{number} {'x' * 9000}")) for number in range(5)]
    found = rows_of(document(1), said)

    assert [row["message"][0] for row in found.log] == ["0", "1", "2"]
    assert {len(row["message"]) for row in found.log} == {rows.MAX_MESSAGE}
    assert found.run["log_left_out"] == 2


@pytest.mark.parametrize(
    "damage",
    [
        {"checks": [{}]},
        {"checks": None},
        {"time_utc": "yesterday"},
        {"checks": [{**document(2)["checks"][0], "details": {"layers": [{"key": "a", "us": "fast"}]}}]},
        {"checks": [{**document(2)["checks"][0], "details": {"layers": [{"key": "a", "us": 1}] * 2}}]},
    ],
)
def test_damaged_documents_are_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(DocumentError, match="is damaged"):
        rows_of({**document(2), **damage})
