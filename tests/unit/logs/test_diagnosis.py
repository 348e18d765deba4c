from __future__ import annotations

import io

import pytest

from pytest_trtgray.findings import Finding
from pytest_trtgray.logs.diagnosis import UNDIAGNOSED, ApiResult, Diagnosis, diagnose, findings_of
from pytest_trtgray.logs.log import read
from pytest_trtgray.logs.records import LogSeverity, Record

NO_DRIVER = (
    "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at /_src/checkMacros.cpp:250 "
    "(cudaError 35: CUDA driver version is insufficient for CUDA runtime version))"
)
NO_DRIVER_14 = (
    "[checkMacros.cpp::catchCudaError::229] Error Code 1: Cuda Runtime (In catchCudaError at "
    "/_src/common/dispatch/checkMacros.cpp:229)"
)
INVALID_PROFILE = (
    "IOptimizationProfile::isValid: Error Code 4: API Usage Error (Invalid optimization profiles for input tensors x, "
    "please ensure that the optimization profiles satisfy MIN<=OPT<=MAX. In isValid at /_src/a/b.cpp:367)"
)
NO_PROFILE = (
    "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (Network has dynamic or shape inputs, but no "
    "optimization profile has been defined. In validate at /_src/optimizer/api/network.cpp:4023)"
)
NO_OUTPUT = "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (Network must have at least one output.)"
SKIPPED = "Error Code: 9: Skipping tactic 0x89c2d153627e52ba due to exception Assertion x failed: out of memory"
TRUNCATED = (
    "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion cursor < blobSize failed.)"
)
NO_BROADCAST = (
    "ITensor::getDimensions: Error Code 4: Shape Error (broadcast dimensions must be conformable In op at /_src/a.c:26)"
)
IN_PARSER = "ModelImporter.cpp:151: ERROR: ModelImporter.cpp:489 In function parseNode:\n[6] Invalid Node - "
MAGIC = (
    "1: [stdArchiveReader.cpp::Init::36] Error Code 1: Serialization (Serialization assertion "
    "magicTagRead == kMAGIC_TAG failed.Magic tag does not match)"
)
INT32_BIAS = (
    "ITensor::getDimensions: Error Code 4: API Usage Error (a.bias_DequantizeLinear: input has type Int32 but must "
    "have type FP8, FP4, Int4, or Int8.)"
)
COMPLETED = "Engine generation completed in 8.62539 seconds."


def said(*lines: tuple[str, str] | str) -> bytes:
    """A log of ``trt.Logger``: errors, or ``(letter, message)``."""
    pairs = [("E", line) if isinstance(line, str) else line for line in lines]
    return "".join(f"[11/21/2026-07:33:23] [TRT] [{letter}] {text}\n" for letter, text in pairs).encode()


def of(text: bytes, *api: ApiResult) -> Diagnosis:
    log = read(io.BytesIO(text))
    return diagnose(log.records, log.events, api)


def findings(text: bytes, *api: ApiResult) -> tuple[Finding, ...]:
    log = read(io.BytesIO(text))
    return findings_of(log.records, log.events, api)


def rules_of(found: tuple[Finding, ...]) -> list[str]:
    return [finding.rule for finding in found]


class TestFirstCause:
    def test_the_first_error_of_a_cascade_counts(self) -> None:
        diagnosis = of(said(INVALID_PROFILE, NO_PROFILE))

        assert diagnosis.code == "BUILD_PROFILE_INVALID"
        assert diagnosis.severity == "error"
        assert diagnosis.evidence[0].line == 1
        assert "MIN<=OPT<=MAX" in diagnosis.evidence[0].text

    def test_what_follows_from_it_is_no_finding(self) -> None:
        assert rules_of(findings(said(INVALID_PROFILE, NO_PROFILE))) == ["log.BUILD_PROFILE_INVALID"]

    def test_a_consequence_counts_where_no_cause_is_known(self) -> None:
        failed = ("E", "TensorRT EP failed to create engine from network.")
        assert of(said(failed)).code == "BUILD_FAILED_IN_EP"
        assert of(said(failed, NO_PROFILE)).code == "BUILD_NO_PROFILE"

    def test_a_special_rule_outranks_a_general_one_for_one_message(self) -> None:
        text = (
            "IExecutionContext::setInputShape: Error Code 3: API Usage Error (Parameter check failed, condition: "
            "engineDims.d[i] == dims.d[i]. Static dimension mismatch while setting input shape for images.)"
        )
        assert of(said(text)).code == "RT_STATIC_DIM_MISMATCH"

    @pytest.mark.parametrize("noise", [NO_DRIVER, NO_DRIVER_14])
    def test_a_machine_without_a_driver_adds_noise_to_every_error(self, noise: str) -> None:
        assert of(said(noise, TRUNCATED, noise)).code == "RT_ENGINE_TRUNCATED"
        assert rules_of(findings(said(noise, TRUNCATED, noise))) == ["log.RT_ENGINE_TRUNCATED"]

    def test_noise_inside_of_a_parser_error_is_noise_too(self) -> None:
        assert of(said(f"{IN_PARSER}/a/T\n{NO_DRIVER}")).code == "PARSE_INVALID_GRAPH"

    def test_without_a_driver_an_engine_cannot_be_loaded(self) -> None:
        text = "IRuntime::deserializeCudaEngine: Error Code 1: Cuda Runtime (In ScopedCudaStream at /_src/a.cpp:25)"
        assert of(said(text, NO_DRIVER_14)).code == "ENV_NO_CUDA_DRIVER"

    def test_it_names_the_node_that_the_parser_was_at(self) -> None:
        text = said(
            NO_BROADCAST,
            'ModelImporter.cpp:140: While parsing node number 3 [Add -> "y"]:',
            "ModelImporter.cpp:142: --- Begin node ---\nNode name: /blk/Add",
            "ModelImporter.cpp:143: --- End node ---",
            f"{IN_PARSER}/blk/Add\n{NO_BROADCAST}",
        )

        assert (of(text).code, of(text).where) == ("SHAPE_BROADCAST", "/blk/Add")
        assert [finding.where for finding in findings(text)] == ["/blk/Add"]

    def test_a_name_that_is_no_utf8_can_be_printed(self) -> None:
        text = said("WeightsContext.cpp:203: Failed to open file: poids_é.bin").decode().encode("latin-1")
        diagnosis = of(text)

        assert diagnosis.where == "poids_\\xe9.bin"
        assert "\\xe9" in findings(text)[0].what


class TestErrorsThatAreNone:
    def test_a_skipped_tactic_is_no_failure(self) -> None:
        assert of(said(SKIPPED)).code == "OK"
        assert findings(said(SKIPPED)) == ()

    def test_memory_that_a_tactic_did_not_get_is_a_warning_once_the_build_completes(self) -> None:
        oom = "2: [virtualMemoryBuffer.cpp::resizePhysical::145] Error Code 2: OutOfMemory (no further information)"

        assert of(said(oom)).code == "BUILD_OUT_OF_MEMORY"
        assert of(said(oom, ("I", COMPLETED))).code == "PERF_TACTIC_SKIPPED_MEMORY"
        assert of(said(oom), ApiResult("build_serialized_network", "<IHostMemory>")).severity == "error"

    def test_a_timing_cache_that_cannot_be_used_stops_nothing(self) -> None:
        diagnosis = of(said(MAGIC, "4: The timing cache will not be used!"))
        assert (diagnosis.code, diagnosis.severity) == ("TIMING_CACHE_INVALID", "warning")
        assert of(said(MAGIC)).code == "RT_NOT_AN_ENGINE"

    def test_an_error_before_a_completed_build_is_a_finding_and_no_failure(self) -> None:
        text = said("something new went wrong", ("I", COMPLETED))

        assert of(text).code == "OK"
        assert rules_of(findings(text)) == [f"log.{UNDIAGNOSED}"]


class TestUndiagnosed:
    def test_an_error_that_no_rule_knows_is_said_to_be_one(self) -> None:
        diagnosis = of(
            said("4: [runtime.cpp::f::50] Error Code 4: Internal Error (Engine deserialization failed.)", "a new one")
        )

        assert diagnosis.code == UNDIAGNOSED
        assert diagnosis.evidence[0].text == "a new one"
        assert not diagnosis.is_ok

    def test_also_if_the_log_only_says_that_something_failed(self) -> None:
        assert of(said("Engine deserialization failed")).code == UNDIAGNOSED

    def test_a_call_that_failed_without_a_word_is_no_success(self) -> None:
        diagnosis = of(said(("I", "hello")), ApiResult("build_serialized_network", "None"))

        assert diagnosis.code == UNDIAGNOSED
        assert "build_serialized_network" in diagnosis.evidence[0].text

    def test_lines_that_only_say_that_it_failed_are_no_findings_beside_the_cause(self) -> None:
        text = said(NO_PROFILE, "Engine could not be created from network", "Building engine failed")
        assert rules_of(findings(text)) == ["log.BUILD_NO_PROFILE"]

    def test_unknown_errors_beside_a_cause_are_one_finding(self) -> None:
        found = findings(said(NO_PROFILE, "unheard of", "never seen"))

        assert rules_of(found) == ["log.BUILD_NO_PROFILE", f"log.{UNDIAGNOSED}"]
        assert found[1].evidence["messages"] == 2
        assert "unheard of" in found[1].what
        assert "(and 1 more)" in found[1].what


class TestWithoutErrors:
    def test_nothing_said_is_ok(self) -> None:
        assert of(b"") == Diagnosis("OK", cause="nothing that a rule knows")
        assert of(b"").is_ok

    def test_a_completed_build_is_well_in_spite_of_benign_warnings(self) -> None:
        warning = ("W", "- 54 weights are affected by this issue: Detected subnormal FP16 values.")

        assert of(said(warning)).code == "PREC_FP16_SUBNORMAL"
        assert of(said(warning, ("I", COMPLETED))).code == "OK"
        assert rules_of(findings(said(warning, ("I", COMPLETED)))) == ["log.PREC_FP16_SUBNORMAL"]

    def test_a_warning_outranks_advice_that_came_first(self) -> None:
        text = said(
            ("W", "Unused Input: mask"), ("W", "* GPU compute time is unstable, with coefficient of variance = 3.1%.")
        )
        assert of(text).code == "PERF_UNSTABLE"

    def test_a_file_that_is_no_model_gives_an_empty_network(self) -> None:
        empty = said(("I", "ONNX IR version:  0.0.0"), ("I", "Opset version:    0"))

        assert of(empty).code == "PARSE_NOT_AN_ONNX_FILE"
        assert of(empty + said(NO_OUTPUT)).code == "PARSE_NOT_AN_ONNX_FILE"
        assert of(said(NO_OUTPUT)).code == "BUILD_NO_OUTPUT"

    def test_a_model_without_an_opset_is_suspicious(self) -> None:
        diagnosis = of(said(("I", "ONNX IR version:  0.0.9"), ("I", "Opset version:    0"), ("I", COMPLETED)))
        assert (diagnosis.code, diagnosis.is_ok) == ("OK_SUSPICIOUS", True)


class TestTheLogItself:
    def test_what_the_log_lacks_comes_before_what_it_says(self) -> None:
        text = said(NO_PROFILE) + b"[ERROR] Exception caught in log(): ValueError: boom\n"

        assert of(text).code == "CAPTURE_LOGGER_EXCEPTION"
        assert set(rules_of(findings(text))) == {"log.CAPTURE_LOGGER_EXCEPTION", "log.BUILD_NO_PROFILE"}

    def test_errors_that_only_the_recorder_has(self) -> None:
        assert of(f"REC ('ErrorCodeTRT.INVALID_CONFIG', 4, '{NO_PROFILE}')\n".encode()).code == "CAPTURE_ERROR_RECORDER"


class TestApiResults:
    def test_a_parser_error_is_known_from_the_api_alone(self) -> None:
        error = {"code": 8, "desc": "false", "func": "checkDet", "node_name": "/head/Det", "node_operator": "Det"}
        diagnosis = of(b"", ApiResult("parser.parse", "False", [error]))

        assert (diagnosis.code, diagnosis.where) == ("PARSE_UNSUPPORTED_OP", "/head/Det")

    def test_the_api_knows_more_than_the_text(self) -> None:
        text = said(("F", "Error reading CUDA GPU properties: In getCurrentCC at /_src/a.cpp:1 (cudaError 35: x)"))

        assert of(text).code == "ENV_NO_CUDA_DRIVER"
        validity = ApiResult("get_engine_validity(file)", "(<EngineValidity.INVALID: 2>, 32)")
        assert of(text, validity).code == "RT_NOT_AN_ENGINE"

    def test_a_core_error_inside_of_a_parser_error(self) -> None:
        desc = f"Invalid Node - a.bias_DequantizeLinear\n{INT32_BIAS}\n{NO_DRIVER}"
        diagnosis = of(b"", ApiResult("parser.parse", "False", [{"code": 6, "desc": desc, "func": "parseNode"}]))

        assert (diagnosis.code, diagnosis.where) == ("QUANT_INT32_BIAS_DQ", "a.bias_DequantizeLinear")


class TestOperators:
    @pytest.mark.parametrize(
        ("operator", "code"),
        [
            ("LayerNormalization", "PARSE_OPSET_OP_TOO_NEW"),
            ("EfficientNMS_TRT", "PARSE_PLUGIN_NOT_FOUND"),
            ("QLinearConv", "QUANT_QOPERATOR_FORMAT"),
        ],
    )
    def test_the_operator_decides_what_a_missing_plugin_means(self, operator: str, code: str) -> None:
        text = said(
            f'ModelImporter.cpp:726: While parsing node number 7 [{operator} -> "y"]:',
            "ModelImporter.cpp:731: ERROR: builtin_op_importers.cpp:5428 In function importFallbackPluginImporter:\n"
            '[8] Assertion failed: creator && "Plugin not found, are the plugin name, version, and namespace correct?"',
        )
        assert of(text).code == code


class TestLiveRecords:
    """Messages of this process have no line in a file."""

    @staticmethod
    def record(message: str, severity: LogSeverity = "error", phase: str = "") -> Record:
        return Record(severity, "tensorrt", message, phase)

    def test_they_are_diagnosed_in_their_order(self) -> None:
        records = [self.record(INVALID_PROFILE), self.record(NO_PROFILE)]
        diagnosis = diagnose(records)

        assert diagnosis.code == "BUILD_PROFILE_INVALID"
        assert diagnosis.evidence[0].line is None

    def test_findings_say_log_where_there_is_no_line(self) -> None:
        assert [finding.where for finding in findings_of([self.record(NO_PROFILE)])] == ["log"]


class TestFindings:
    def test_one_for_a_rule_with_all_names(self) -> None:
        line = "Missing scale and zero-point for tensor {}, expect fall back to non-int8 implementation for any layer"
        found = findings(said(*[("W", line.format(name)) for name in "abcde"]))

        assert rules_of(found) == ["log.QUANT_MISSING_SCALE_FALLBACK"]
        assert found[0].evidence["messages"] == 5
        assert "a, b, c and 2 more" in found[0].what
        assert found[0].evidence["line"] == 1

    def test_an_optimisation_rule_carries_its_number_and_source(self) -> None:
        found = findings(said(("W", "* Throughput may be bound by Enqueue Time rather than GPU Compute")))

        assert found[0].evidence["optimisation"] == "OPT-01"
        assert "sampleReporting.cpp" in str(found[0].evidence["sources"])
        assert "graph" in found[0].remedy

    def test_an_effect_is_promised_only_with_a_number(self) -> None:
        text = said(("I", "Local timing cache in use."), ("I", "Engine generation completed in 86.1 seconds."))
        found = findings(text)

        assert rules_of(found) == ["log.OPT-14"]
        assert "34.6 s -> 7.7 s" in found[0].remedy
        assert rules_of(findings(said(("I", "Local timing cache in use."), ("I", COMPLETED)))) == []

    def test_errors_come_first(self) -> None:
        text = said(("W", "Unused Input: mask"), ("W", "values which would overflow in FP16"), NO_PROFILE)
        assert [finding.severity for finding in findings(text)] == ["error", "warning", "advice"]
