from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_trtgray.errors import LogError
from pytest_trtgray.logs import redaction
from pytest_trtgray.logs.log import Log
from pytest_trtgray.logs.records import Record
from pytest_trtgray.logs.redaction import Redactor
from pytest_trtgray.logs.ruleset import load_rules

INT64 = "Make sure input ids has Int64 binding."
NO_PROFILE = (
    "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (Network has dynamic or shape inputs, but no "
    "optimization profile has been defined. In validate at /_src/optimizer/api/network.cpp:4023)"
)


def said(severity: Any, message: str, producer: str = "tensorrt_rtx", phase: str = "build") -> Record:
    return Record(severity, producer, message, phase)


def log_of(*records: Record) -> Log:
    return Log.of(records)


class TestSeverities:
    def test_errors_and_warnings(self) -> None:
        records = [said(s, s) for s in ("verbose", "warning", "info", "error", "internal_error")]
        log = log_of(*records)

        assert [record.message for record in log.errors] == ["error", "internal_error"]
        assert [record.message for record in log.warnings] == ["warning"]
        assert list(log.records) == records

    def test_a_quiet_log_passes(self) -> None:
        log = log_of(said("info", "hello"), said("warning", "careful"))
        log.check()

        assert [finding.severity for finding in log.findings] == ["warning"]

    @pytest.mark.parametrize("severity", ["error", "internal_error"])
    def test_an_error_fails(self, severity: str) -> None:
        with pytest.raises(AssertionError) as caught:
            log_of(said(severity, "Mystery happened")).check()

        first = str(caught.value).splitlines()[0]
        assert first == "the log has errors: an error that no rule knows: Mystery happened"


class TestWarningsThatNoRuleKnows:
    def test_messages_that_differ_in_names_and_numbers_are_one_finding(self) -> None:
        log = log_of(
            *(
                said("warning", f"Tensor '{name}' has {count} subnormal values at 0x{count:x}")
                for name, count in (("a", 1), ("b", 25), ("c", 3_000))
            )
        )
        (finding,) = log.findings

        assert finding.what == "tensorrt_rtx: Tensor 'a' has 1 subnormal values at 0x1 (and 2 like it)"
        assert finding.evidence == {"messages": 3, "phase": "build"}
        assert finding.rule == "log.warning"

    def test_other_messages_are_others(self) -> None:
        log = log_of(said("warning", "Tensor 'a' is large"), said("warning", "Tensor 'a' is small"))

        assert len(log.findings) == 2

    def test_errors_come_first(self) -> None:
        log = log_of(said("warning", "careful"), said("error", "broken"), said("warning", "again"))

        assert [finding.rule for finding in log.findings] == ["log.UNDIAGNOSED", "log.warning", "log.warning"]

    @pytest.mark.parametrize(
        ("message", "shown"),
        [
            ("graph.cc:5777 CleanUnusedInitializers] Removing initializer 'w'", "Removing initializer 'w'"),
            ("ModelImporter.cpp:1071: something odd", "something odd"),
            ("plain", "plain"),
        ],
    )
    def test_places_in_foreign_source_code_are_left_out(self, message: str, shown: str) -> None:
        (finding,) = log_of(said("warning", message, "x")).findings

        assert finding.what == f"x: {shown}"

    def test_one_that_a_rule_knows_is_not_listed_twice(self) -> None:
        (finding,) = log_of(said("warning", INT64)).findings

        assert finding.rule == "log.OK_WARN_INT64_IO"

    def test_noise(self) -> None:
        noise = (
            "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at "
            "/_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient for CUDA "
            "runtime version))"
        )

        assert log_of(said("warning", noise)).findings == ()

    def test_an_empty_log(self) -> None:
        log = log_of()
        log.check()
        log.assert_clean()

        assert log.findings == ()
        assert log.diagnosis.code == "OK"


class TestOfRecords:
    def test_who_what_and_how_far(self) -> None:
        log = log_of(
            said("info", "Opset version:    17", phase="parse"),
            said("info", "Engine generation completed in 0.5 seconds.", phase="build"),
            said("info", "hello", "stderr", phase=""),
        )

        assert (log.producer, log.product, log.phase, log.messages) == ("tensorrt_rtx", "TensorRT-RTX", "build", 3)
        assert log.counts["engine_built"] == 1
        assert "engine_built" in {event.kind for event in log.events}

    def test_diagnosis(self) -> None:
        log = log_of(said("error", NO_PROFILE))

        assert log.diagnosis.code == "BUILD_NO_PROFILE"
        assert log.diagnosis.remedy
        assert log.findings[0].rule == "log.BUILD_NO_PROFILE"

    def test_rules_of_the_user(self, tmp_path: Path) -> None:
        rules = tmp_path / "own.toml"
        rules.write_text(
            '[[rule]]\ncode = "OWN_PROBLEM"\nseverity = "error"\ncause = "mine"\nremedy = "mine"\n'
            'match = [{ text = "Mystery happened" }]\n'
        )
        log = Log.of((said("error", "Mystery happened"),), load_rules((rules,)))

        assert log.diagnosis.code == "OWN_PROBLEM"
        assert [finding.rule for finding in log.findings] == ["log.OWN_PROBLEM"]


class TestAssertClean:
    def failure(self, log: Log, *allow: str) -> str:
        with pytest.raises(AssertionError) as caught:
            log.assert_clean(allow=allow)
        return str(caught.value)

    def test_a_warning_fails(self) -> None:
        message = self.failure(log_of(said("info", "hello"), said("warning", "careful")))

        assert message.splitlines()[0] == "the log is not clean: tensorrt_rtx: careful"

    def test_allowed_by_a_pattern(self) -> None:
        log = log_of(said("warning", "careful with 'x'"), said("error", "odd failure"))
        log.assert_clean(allow=["careful with '.'", "odd"])

        assert "careful" in self.failure(log, "odd")
        assert "odd failure" in self.failure(log, "careful")

    def test_a_single_pattern(self) -> None:
        log_of(said("warning", "careful")).assert_clean(allow="careful")

    def test_only_what_matches_is_allowed(self) -> None:
        log = log_of(said("warning", "Tensor 'a' is odd"), said("warning", "Tensor 'b' is odd"))

        assert "Tensor 'b' is odd" in self.failure(log, "Tensor 'a'")

    def test_allowed_by_a_code(self) -> None:
        log = log_of(said("warning", INT64), said("warning", "careful"))

        assert "Int64" not in self.failure(log, "OK_WARN_INT64_IO")
        log_of(said("warning", INT64)).assert_clean(allow=["OK_WARN_INT64_IO"])
        assert "the log is not clean" in self.failure(log_of(said("error", NO_PROFILE)), "OK_WARN_INT64_IO")

    def test_a_pattern_that_is_none(self) -> None:
        with pytest.raises(LogError, match="is no regular expression: missing"):
            log_of().assert_clean(allow=["(careful"])


class TestRedaction:
    PRIVATE = "Failed to open file: /home/alice/secret/weights.data"

    @pytest.mark.parametrize(("enabled", "shown"), [(True, "/home/user/secret"), (False, "/home/alice/secret")])
    def test_what_is_reported(self, enabled: bool, shown: str) -> None:
        log = log_of(said("error", self.PRIVATE), said("warning", "careful at /home/alice/x"))
        with redaction.using(Redactor(enabled=enabled)):
            texts = [finding.what for finding in log.findings]
            evidence = "".join(item.text for item in log.diagnosis.evidence)

        assert shown in texts[0]
        assert texts[1].endswith("/home/user/x" if enabled else "/home/alice/x")
        assert shown in evidence
        assert log.records[0].message == self.PRIVATE
