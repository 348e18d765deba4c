from __future__ import annotations

from typing import Any

import pytest

from pytest_trtgray.logs.log import Log
from pytest_trtgray.logs.records import Record


def said(severity: Any, message: str, producer: str = "tensorrt_rtx") -> Record:
    return Record(severity, producer, message, "build")


class TestSeverities:
    def test_errors_and_warnings(self) -> None:
        records = [said(s, s) for s in ("verbose", "warning", "info", "error", "internal_error")]
        log = Log(tuple(records))

        assert [record.message for record in log.errors] == ["error", "internal_error"]
        assert [record.message for record in log.warnings] == ["warning"]
        assert log.records == tuple(records)

    def test_a_quiet_log_passes(self) -> None:
        log = Log((said("info", "hello"), said("warning", "careful")))
        log.check()

        assert [finding.severity for finding in log.findings] == ["warning"]

    @pytest.mark.parametrize("severity", ["error", "internal_error"])
    def test_an_error_fails(self, severity: str) -> None:
        with pytest.raises(AssertionError) as caught:
            Log((said(severity, "No importer registered for op: Mystery"),)).check()

        assert str(caught.value).splitlines()[0] == (
            "the log has errors: tensorrt_rtx: No importer registered for op: Mystery"
        )


class TestGroups:
    def test_messages_that_differ_in_names_and_numbers_are_one_finding(self) -> None:
        log = Log(
            tuple(
                said("warning", f"Tensor '{name}' has {count} subnormal values at 0x{count:x}")
                for name, count in (("a", 1), ("b", 25), ("c", 3_000))
            )
        )
        (finding,) = log.findings

        assert finding.what == "tensorrt_rtx: Tensor 'a' has 1 subnormal values at 0x1 (and 2 like it)"
        assert finding.evidence == {"messages": 3, "phase": "build"}
        assert finding.rule == "log.warning"

    def test_other_messages_are_others(self) -> None:
        log = Log((said("warning", "Tensor 'a' is large"), said("warning", "Tensor 'a' is small")))

        assert len(log.findings) == 2

    def test_errors_come_first(self) -> None:
        log = Log((said("warning", "careful"), said("error", "broken"), said("warning", "again")))

        assert [finding.rule for finding in log.findings] == ["log.error", "log.warning", "log.warning"]

    @pytest.mark.parametrize(
        ("message", "shown"),
        [
            ("graph.cc:5777 CleanUnusedInitializers] Removing initializer 'w'", "Removing initializer 'w'"),
            ("ModelImporter.cpp:1071: Failed to parse", "Failed to parse"),
            ("plain", "plain"),
        ],
    )
    def test_places_in_foreign_source_code_are_left_out(self, message: str, shown: str) -> None:
        (finding,) = Log((said("error", message, "x"),)).findings

        assert finding.what == f"x: {shown}"

    def test_an_empty_log(self) -> None:
        log = Log(())
        log.check()

        assert log.findings == ()
