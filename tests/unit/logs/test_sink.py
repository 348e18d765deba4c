from __future__ import annotations

import os
import threading

import pytest

from pytest_trtgray.logs.records import SEVERITIES
from pytest_trtgray.logs.sink import SINK, LogSink


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
        assert record.details == {}

    def test_details_and_a_clock_that_never_jumps(self) -> None:
        sink = LogSink()
        with sink.collect("build") as records:
            sink.say("error", "x", "y", {"code": "INVALID_NODE"})
            sink.say("error", "x", "z")

        first, second = records
        assert (first.details, second.details) == ({"code": "INVALID_NODE"}, {})
        assert 0 < first.monotonic_s <= second.monotonic_s

    def test_a_collector_that_wants_no_chatter(self) -> None:
        sink = LogSink()
        with sink.collect("run", level="warning") as few, sink.collect(None) as all_of_it:
            for severity in SEVERITIES:
                sink.say(severity, "x", severity)

        assert [record.message for record in few] == ["internal_error", "error", "warning"]
        assert [record.message for record in all_of_it] == list(SEVERITIES)
        assert {record.phase for record in all_of_it} == {"run"}

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
        with sink.collect("run") as broken, sink.collect("run") as records:
            broken.append = None  # type: ignore[assignment]
            sink.say(None, None, None)  # type: ignore[arg-type]
            sink.say("info", "x", "y")

        assert [record.message for record in records] == ["y"]
        with sink.collect("run") as later:
            sink.say("info", "x", "the lock is free")
        assert len(later) == 1

    def test_collected_records_are_in_order(self) -> None:
        sink = LogSink()
        with sink.collect("run") as records:
            for index in range(100):
                sink.say("info", "x", str(index))

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

    @pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
    def test_a_child_process_does_not_wait_for_a_lock_of_its_parent(self) -> None:
        """Another thread may hold it while the process forks."""
        with SINK.collect("run") as records:
            with SINK._lock:
                child = os.fork()
                if child == 0:  # pragma: no cover
                    SINK.say("info", "x", "of the child")
                    os._exit(0 if [record.message for record in records] == ["of the child"] else 1)
            _, status = os.waitpid(child, 0)
            SINK.say("info", "x", "of the parent")

        assert os.waitstatus_to_exitcode(status) == 0
        assert [record.message for record in records] == ["of the parent"]
