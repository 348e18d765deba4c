"""Traces and tables of run documents, held against the formats' own rules."""

from __future__ import annotations

import csv
import io
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.errors import InterchangeError
from pytest_trtgray.interchange.importing import Labels, import_files
from pytest_trtgray.interchange.spreadsheet import COLUMNS, layers_csv
from pytest_trtgray.interchange.trace_events import trace_of
from tests import documents
from tests.unit.interchange.conftest import Write


def require_trace(trace: dict[str, Any]) -> None:
    """The rules of the Trace Event Format for the events that are used here, and what viewers make of them.

    Complete events have name, categories, ``ts`` and ``dur`` in microseconds, ``pid`` and ``tid``; metadata events
    name and order processes and threads. Perfetto keeps whole nanoseconds; slices of a thread follow each other.
    """
    assert json.loads(json.dumps(trace, allow_nan=False)) == trace
    assert trace["displayTimeUnit"] in ("ms", "ns")
    named: set[tuple[int, int]] = set()
    slices: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for event in trace["traceEvents"]:
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["name"], str)
        assert isinstance(event["cat"], str)
        assert isinstance(event["args"], dict)
        assert isinstance(event["ts"], (int, float))
        if event["ph"] == "M":
            wanted = {"process_name": "name", "thread_name": "name"}.get(event["name"], "sort_index")
            assert list(event["args"]) == [wanted]
            named.add((event["pid"], event["tid"]) if event["name"].startswith("thread") else (event["pid"], 0))
        else:
            assert event["ph"] == "X"
            assert event["dur"] >= 0
            assert all(isinstance(value, (str, int, float)) for value in event["args"].values())
            slices.setdefault((event["pid"], event["tid"]), []).append(event)
    assert len({tid for _, tid in slices}) == len(slices)
    for place, events in slices.items():
        assert place in named
        assert (place[0], 0) in named
        ends = [(round(event["ts"] * 1000), round((event["ts"] + event["dur"]) * 1000)) for event in events]
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(ends))


def slices_of(trace: dict[str, Any], thread: str) -> list[dict[str, Any]]:
    """The slices of all threads whose names begin so."""
    events = trace["traceEvents"]
    found = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"].startswith(thread)
    }
    return [event for event in events if event["ph"] == "X" and (event["pid"], event["tid"]) in found]


class TestTrace:
    def test_layers_in_turn(self) -> None:
        document = documents.document(24, slower=3)
        trace = trace_of(document, "run.json")
        require_trace(trace)
        rows = document["checks"][0]["details"]["layers"]
        layers = [event for event in slices_of(trace, "layers") if event["args"].get("us")]
        now = [event for event in layers if event["dur"] == pytest.approx(event["args"]["us"], abs=1e-3)]
        assert [event["name"] for event in now[:24]] == [row["key"] for row in rows]
        slow = now[3]["args"]
        assert slow["onnx_nodes"] == rows[3]["key"]
        assert slow["module"] == rows[3]["module"]
        assert (slow["precision"], slow["outcome"], slow["change_percent"]) == ("float16", "slower", 200.0)
        baseline = slices_of(trace, "layers of the baseline")
        assert sum(event["dur"] for event in baseline) == pytest.approx(sum(row["before_us"] for row in rows), abs=0.1)

    def test_engines_are_processes_and_checks_are_threads(self) -> None:
        document = documents.document(4, engine="a")
        document["checks"] += documents.document(4, engine="b")["checks"]
        document["checks"].append({**document["checks"][0], "test": "another"})
        trace = trace_of(document)
        require_trace(trace)
        names = [event["args"]["name"] for event in trace["traceEvents"] if event["name"] == "process_name"]
        assert names == [f"{name} (tensorrt_rtx 1.5.0.114 on NVIDIA H200)" for name in "ab"]
        threads = [event["args"]["name"] for event in trace["traceEvents"] if event["name"] == "thread_name"]
        assert "layers: another" in threads

    def test_imported(self, exports: Write) -> None:
        trace = trace_of(import_files(exports(0), Labels()))
        require_trace(trace)
        assert len(slices_of(trace, "layers")) == 125
        (engine,) = slices_of(trace, "engine")
        assert engine["args"]["method.layers"] == "trtexec --exportProfile"

    @given(st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 10**9), max_size=20))
    def test_any_time(self, times: list[float | None]) -> None:
        document = documents.document(1)
        row = document["checks"][0]["details"]["layers"][0]
        document["checks"][0]["details"]["layers"] = [{**row, "us": us, "before_us": us} for us in times]
        document["checks"][0]["total_us"] = 1.0
        require_trace(trace_of(document))

    def test_nothing_to_show(self) -> None:
        document = documents.document(2)
        document["checks"] = document["checks"][1:]
        with pytest.raises(InterchangeError, match=r"run.json: holds no times"):
            trace_of(document, "run.json")


FULL_WIDTH = "\uff1d\uff0b\uff0d\uff20"


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


class TestCsv:
    def test_a_row_a_layer(self) -> None:
        document = documents.document(24, slower=3)
        rows = table(layers_csv(document))
        assert [row["position"] for row in rows] == [str(number) for number in range(1, 25)]
        slow = rows[3]
        assert (slow["engine"], slow["outcome"], float(slow["change_percent"])) == ("bert", "slower", 200.0)
        assert float(slow["us"]) == pytest.approx(3 * float(slow["baseline_us"]))
        assert (float(slow["low_percent"]), float(slow["high_percent"])) == (180.0, 220.0)
        assert set(slow) == set(COLUMNS)

    def test_a_new_layer_has_no_change(self) -> None:
        document = documents.document(2)
        document["checks"][0]["details"]["layers"][1].update(outcome="new", before_us=None, change=0.0)
        row = table(layers_csv(document))[1]
        assert (row["outcome"], row["baseline_us"], row["change_percent"]) == ("new", "", "")

    def test_structure_where_there_are_no_times(self, exports: Write) -> None:
        *_, listing = exports(0)
        rows = table(layers_csv(import_files([listing], Labels())))
        assert len(rows) == 125
        assert {row["us"] for row in rows} == {""}
        assert "float16" in {row["precision"] for row in rows}

    @given(
        st.text(max_size=12)
        | st.sampled_from(["=1+1", " =cmd|' /C calc'!A0", "@SUM(A1)", "+1", "\t=1", "-2", FULL_WIDTH[0]])
    )
    def test_no_cell_is_a_formula(self, name: str) -> None:
        document = documents.document(1)
        layer = document["checks"][0]["details"]["layers"][0]
        layer.update(key=name, nodes=[name], names=[name], module=name, kind=name)
        document["checks"] = [{**document["checks"][0], "engine": name}]
        (row,) = table(layers_csv(document))
        for column in ("layer", "onnx_nodes", "engine_names", "module", "type", "engine"):
            # what a spreadsheet sees once it has thrown away what it does not show
            seen = row[column].lstrip(" \t\r\n\x00\xa0")
            assert not seen.startswith(("=", "+", "-", "@", "|", "%", *FULL_WIDTH))

    def test_numbers_below_zero_stay_numbers(self) -> None:
        document = documents.document(1)
        document["checks"][0]["details"]["layers"][0].update(change=-0.5)
        assert table(layers_csv(document))[0]["change_percent"] == "-50.0"

    def test_control_characters_are_spelt_out(self) -> None:
        document = documents.document(1)
        document["checks"][0]["details"]["layers"][0].update(key="a\x1eb\x00")
        assert table(layers_csv(document))[0]["layer"] == r"a\x1eb\x00"

    def test_nothing_to_show(self) -> None:
        document = {**documents.document(1), "checks": []}
        with pytest.raises(InterchangeError, match="holds no layers"):
            layers_csv(document, "run.json")
