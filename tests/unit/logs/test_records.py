from __future__ import annotations

import json
import threading
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.logs import records as module
from pytest_trtgray.logs.records import SEVERITIES, LogSink, Record, errors_of

RECORDS = st.builds(
    Record,
    st.sampled_from(SEVERITIES),
    st.text(),
    st.text(),
    st.text(),
    st.floats(0, 2e9),
    st.integers(0, 2**63),
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


class TestSink:
    def test_what_is_said_inside_is_collected(self) -> None:
        sink = LogSink()
        sink.say("error", "x", "before")
        with sink.collect("build") as records:
            sink.say("warning", "x", "inside\nwith two lines")
        sink.say("error", "x", "after")

        (record,) = records
        assert (record.severity, record.producer, record.message) == ("warning", "x", "inside\nwith two lines")
        assert record.phase == "build"
        assert record.thread == threading.get_ident()
        assert record.time_s > 0

    def test_the_outer_collector_hears_the_inner_one(self) -> None:
        sink = LogSink()
        with sink.collect("build") as outer:
            sink.say("info", "x", "1")
            with sink.collect("parse") as inner:
                sink.say("info", "x", "2")
            sink.say("info", "x", "3")

        assert [(record.message, record.phase) for record in outer] == [("1", "build"), ("2", "parse"), ("3", "build")]
        assert [record.message for record in inner] == ["2"]

    def test_an_empty_collector_inside_of_an_empty_one(self) -> None:
        """Two empty deques are equal; the wrong one must not be taken away."""
        sink = LogSink()
        with sink.collect("a") as outer:
            with sink.collect("b"):
                pass
            sink.say("info", "x", "heard")

        assert [record.message for record in outer] == ["heard"]

    def test_a_phase(self) -> None:
        sink = LogSink()
        with sink.collect("build") as records:
            with sink.phase("parse"):
                sink.say("info", "x", "1")
            sink.say("info", "x", "2")

        assert [record.phase for record in records] == ["parse", "build"]

    def test_after_an_error_everything_is_as_before(self) -> None:
        sink = LogSink()
        with pytest.raises(RuntimeError, match="inside"), sink.collect("build") as records, sink.phase("parse"):
            raise RuntimeError("inside")
        sink.say("info", "x", "later")
        with sink.collect("") as later:
            sink.say("info", "x", "again")

        assert list(records) == []
        assert [record.phase for record in later] == [""]

    def test_from_many_threads(self) -> None:
        sink, together = LogSink(), threading.Barrier(8)

        def talk(number: int) -> None:
            together.wait()
            for index in range(200):
                sink.say("info", "x", f"{number}.{index}")
            together.wait()

        with sink.collect("run") as records:
            threads = [threading.Thread(target=talk, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        assert {record.message for record in records} == {f"{n}.{i}" for n in range(8) for i in range(200)}
        assert len({record.thread for record in records}) == 8

    def test_never_raises(self) -> None:
        """It is called from C++, where an exception would end the process."""
        sink = LogSink()
        with sink.collect("run") as records:
            sink.say(None, None, None)  # type: ignore[arg-type]
            sink._collectors.insert(0, None)  # type: ignore[arg-type]
            sink.say("info", "x", "y")
            sink._collectors.remove(None)  # type: ignore[arg-type]

        assert records[-1].message == "y"

    def test_a_flood_keeps_what_matters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of too many messages the oldest chatter goes, never an error."""
        monkeypatch.setattr(module, "MAX_RECORDS", 50)
        sink = LogSink()
        with sink.collect("build") as records:
            sink.say("error", "x", "the first cause")
            for index in range(200):
                sink.say("verbose", "x", str(index))

        assert len(records) <= 51
        assert records[-1].message == "199"
        assert "the first cause" in {record.message for record in records}

    def test_collected_records_are_in_order(self) -> None:
        sink = LogSink()
        with sink.collect("run") as records:
            for index in range(100):
                sink.say("info", "x", str(index))

        assert isinstance(records, deque)
        assert [record.message for record in records] == [str(index) for index in range(100)]


class TestApart:
    def test_those_around_it_miss_what_is_tried(self) -> None:
        sink = LogSink()
        with sink.collect("build") as outer, sink.collect("build") as middle:
            sink.say("info", "x", "before")
            with sink.collect("try", apart=True) as tried:
                sink.say("error", "x", "tried")
            sink.say("info", "x", "after")

        assert [record.message for record in tried] == ["tried"]
        assert [(record.message, record.phase) for record in outer] == [("before", "build"), ("after", "build")]
        assert list(middle) == list(outer)

    def test_those_inside_of_it_hear_everything(self) -> None:
        sink = LogSink()
        with sink.collect("a") as outer, sink.collect("b", apart=True) as tried, sink.collect("c") as inner:
            sink.say("error", "x", "said")

        assert [[record.message for record in heard] for heard in (outer, tried, inner)] == [[], ["said"], ["said"]]

    def test_one_inside_of_another(self) -> None:
        sink = LogSink()
        with sink.collect("a") as outer, sink.collect("b", apart=True) as first:
            sink.say("info", "x", "1")
            with sink.collect("c", apart=True) as second:
                sink.say("info", "x", "2")
            sink.say("info", "x", "3")

        assert list(outer) == []
        assert [record.message for record in first] == ["1", "3"]
        assert [record.message for record in second] == ["2"]

    def test_after_an_error_all_hear_again(self) -> None:
        sink = LogSink()
        with sink.collect("build") as outer:
            with pytest.raises(RuntimeError, match="inside"), sink.collect("try", apart=True):
                raise RuntimeError("inside")
            sink.say("info", "x", "after")

        assert [record.message for record in outer] == ["after"]

    def test_threads_that_do_not_leave_in_the_order_in_which_they_came(self) -> None:
        """One comes while another tries something, and stays longer: nobody may go on missing messages."""
        sink, inside, gone = LogSink(), threading.Event(), threading.Event()
        heard: list[str] = []

        def stay() -> None:
            with sink.collect("run") as records:
                inside.set()
                assert gone.wait(60)
                sink.say("info", "x", "alone")
            heard.extend(record.message for record in records)

        with sink.collect("build") as outer:
            thread = threading.Thread(target=stay)
            with sink.collect("try", apart=True) as tried:
                thread.start()
                assert inside.wait(60)
                sink.say("info", "x", "tried")
            gone.set()
            thread.join(60)
            sink.say("info", "x", "later")

        assert [record.message for record in tried] == ["tried"]
        assert heard == ["tried", "alone"]
        assert [record.message for record in outer] == ["alone", "later"]

    def test_what_other_threads_say_meanwhile(self) -> None:
        sink = LogSink()
        with sink.collect("build") as outer, sink.collect("try", apart=True) as tried:
            thread = threading.Thread(target=sink.say, args=("error", "x", "of a thread"))
            thread.start()
            thread.join(60)

        assert [record.message for record in tried] == ["of a thread"]
        assert list(outer) == []
