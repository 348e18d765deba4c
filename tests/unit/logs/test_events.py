"""What single messages state. Their wording is TensorRT's and trtexec's own, of the release that is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_trtgray.logs.events import Event, EventReader, events_of
from pytest_trtgray.logs.records import LogSeverity, Record
from tests.recordings import DATA


def events(*messages: str, severity: LogSeverity = "info") -> list[Event]:
    return list(events_of(Record(severity, "tensorrt", message, line=line) for line, message in enumerate(messages, 1)))


def fields(message: str, kind: str, severity: LogSeverity = "info") -> dict[str, Any]:
    (event,) = [event for event in events(message, severity=severity) if event.kind == kind]
    return dict(event.fields)


STATEMENTS = [line.split("\t") for line in (DATA / "log_statements.tsv").read_text("utf-8").splitlines()[1:]]


@pytest.mark.parametrize(("kind", "severity", "stated", "message"), STATEMENTS)
def test_messages_that_are_facts_by_themselves(kind: str, severity: LogSeverity, stated: str, message: str) -> None:
    expected = json.loads(stated)

    assert fields(message, kind, severity).items() >= expected.items()
    assert fields(message, kind, "info").items() >= expected.items()  # loggers that tell no severity


class TestErrors:
    def test_of_ten(self) -> None:
        message = (
            "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion plan.header.size == "
            "blobSize failed. In parsePlan at /_src/runtime/dispatch/runtime.cpp:634)"
        )
        text = "Serialization assertion plan.header.size == blobSize failed."
        assert fields(message, "core_error", "error") == {
            "api": "IRuntime::deserializeCudaEngine",
            "code": 1,
            "category": "Serialization",
            "message": f"{text} In parsePlan at /_src/runtime/dispatch/runtime.cpp:634",
            "text": text,
            "file": "runtime.cpp",
            "func": "parsePlan",
            "line": 634,
        }

    def test_of_eight(self) -> None:
        message = (
            "2: [weightConvertors.cpp::quantizeBiasCommon::310] Error Code 2: Internal Error (Assertion "
            "getter(i) != 0 failed. )"
        )
        assert fields(message, "core_error", "error") == {
            "code": 2,
            "category": "Internal Error",
            "message": "Assertion getter(i) != 0 failed. ",
            "text": "Assertion getter(i) != 0 failed. ",
            "file": "weightConvertors.cpp",
            "func": "quantizeBiasCommon",
            "line": 310,
        }

    def test_of_seven(self) -> None:
        message = (
            r"C:\source\rtSafe\safeRuntime.cpp (25) - Cuda Error in "
            r"nvinfer1::internal::DefaultAllocator::allocate: 2 (out of memory)"
        )
        found = fields(message, "core_error", "error")
        assert (found["file"], found["line"], found["category"], found["code"]) == ("safeRuntime.cpp", 25, "Cuda", 2)
        assert (found["func"], found["text"]) == ("nvinfer1::internal::DefaultAllocator::allocate", "out of memory")
        assert fields(message, "cuda_error", "error")["cuda_code"] == 2

    def test_of_seven_by_its_name(self) -> None:
        found = fields(
            "INVALID_CONFIG: The engine plan file is not compatible, expecting library version 7.1.3 got "
            "7.0.0, please rebuild.",
            "core_error",
            "error",
        )
        assert (found["code"], found["category"]) == (4, "INVALID_CONFIG")

    def test_parentheses_that_do_not_match(self) -> None:
        message = (
            "INetworkDefinition::addTopK: Error Code 3: API Usage Error (Parameter check failed, condition: "
            "(0) <= (k). "
            "Valid range is [0, 3841). In setKInternal at /_src/optimizer/api/layers/topKLayer.cpp:96)"
        )
        found = fields(message, "core_error", "error")
        assert found["text"].endswith("Valid range is [0, 3841).")
        assert found["file"] == "topKLayer.cpp"
        assert fields(message, "param_check_failed", "error")["condition"].startswith("(0) <= (k)")

    def test_no_driver(self) -> None:
        message = (
            "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at "
            "/_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient "
            "for CUDA runtime version))"
        )
        found = fields(message, "core_error", "error")
        assert (found["cuda_code"], found["text"]) == (35, "")
        assert found["cuda_text"] == "CUDA driver version is insufficient for CUDA runtime version"

    def test_several_in_one_message(self) -> None:
        message = (
            "ModelImporter.cpp:151: ERROR: ModelImporter.cpp:489 In function parseNode:\n[6] Invalid Node - /blk/Add\n"
            "ITensor::getDimensions: Error Code 4: API Usage Error (/blk/Add: must have same input types.)\n"
            "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (no)"
        )
        found = events(message, severity="error")
        assert [event.kind for event in found[:3]] == ["core_error", "core_error", "parser_error"]
        assert found[0].fields["message"] == "/blk/Add: must have same input types."


class TestParser:
    HEAD = 'ModelImporter.cpp:140: While parsing node number 1 [{operator} -> "y"]:'
    TAIL = "ModelImporter.cpp:151: ERROR: onnxOpCheckers.cpp:1130 In function checkDet:\n[8] false"

    def block(self, operator: str, *dump: str) -> list[str]:
        return [self.HEAD.format(operator=operator), *dump, "ModelImporter.cpp:143: --- End node ---", self.TAIL]

    def test_of_ten(self) -> None:
        (event,) = events(
            *self.block("Det", "ModelImporter.cpp:142: --- Begin node ---\nNode name: /head\nDet"), severity="error"
        )

        assert event.kind == "parser_error"
        assert event.fields == {
            "code": 8,
            "code_name": "UNSUPPORTED_NODE",
            "node": 1,
            "node_name": "/head\nDet",
            "node_operator": "Det",
            "func": "checkDet",
            "desc": "false",
            "file": "onnxOpCheckers.cpp",
            "line": 1130,
        }

    def test_of_eight_with_the_whole_node(self) -> None:
        dump = 'input: "1055"\nname: "Range_271"\nop_type: "Range"\nattribute {\n  name: "table"\n}\n'
        apart = events(*self.block("Range", "m.cpp:749: --- Begin node ---", f"m.cpp:750: {dump}"), severity="error")
        together = events(*self.block("Range", f"m.cpp:749: --- Begin node ---\n{dump}"), severity="error")

        assert apart[0].fields["node_name"] == together[0].fields["node_name"] == "Range_271"

    def test_printed_by_polygraphy(self) -> None:
        tail = self.TAIL.replace("\n", "\n    ") + "\n    more"
        (event,) = events(self.HEAD.format(operator="Det"), tail, severity="error")

        assert event.fields["desc"] == "false\nmore"

    def test_inside_of_a_loop_the_inner_node_is_named(self) -> None:
        (event,) = events(
            "Static check for parsing node: /Loop [Loop]",
            "Static check for parsing node: body_cond [Identity]",
            *self.block("Loop", "ModelImporter.cpp:142: --- Begin node ---\nNode name: /Loop"),
        )
        named = {name: event.fields[name] for name in ("node_name", "node_operator", "outer")}
        assert named == {"node_name": "body_cond", "node_operator": "Identity", "outer": "/Loop (Loop)"}

    def test_as_the_api_says_it(self) -> None:
        text = "In node 1 with name: /head/Det and operator: Det (checkDet): UNSUPPORTED_NODE: false"
        found = fields(text, "parser_error", "error")
        assert (found["code"], found["node"], found["node_name"]) == (8, 1, "/head/Det")

    def test_without_a_node(self) -> None:
        text = (
            "(deserializeOnnxModel): MODEL_DESERIALIZE_FAILED: Assertion failed: "
            "model->ParseFromCodedStream(&codedInput)"
        )
        found = fields(text, "parser_error", "error")
        assert (found["code"], found["node"], found["node_name"], found["func"]) == (3, -1, "", "deserializeOnnxModel")


class TestTuning:
    def test_of_ten(self) -> None:
        found = events(
            "=============== Computing costs for /Conv + /Relu",
            "*************** Autotuning format combination: Float(1,2) -> Half(1,2) ***************",
            "--------------- Timing Runner: /Conv + /Relu (CaskConvolution[0x80000009])",
            "Tactic Name: ampere_scudnn Tactic: 0x5deb29b7a8e275f7 Time: 0.0521752",
            "/Conv + /Relu (CaskConvolution[0x80000009]) profiling completed in 0.08 seconds. Fastest "
            "Tactic: 0x5deb29b7a8e275f7 Time: 0.0521752",
            "Skipping CaskFlattenConvolution: No valid tactics for /Conv + /Relu",
            ">>>>>>>>>>>>>>> Chose Runner Type: CaskConvolution Tactic: 0x5deb29b7a8e275f7",
            severity="verbose",
        )
        tactic, profiled, skipped, chosen = found
        place = {"node": "/Conv + /Relu", "formats": "Float(1,2) -> Half(1,2)"}
        timed = {"id": "0x5deb29b7a8e275f7", "time_ms": 0.0521752, "runner": "CaskConvolution", **place}
        assert (tactic.kind, tactic.fields, tactic.line) == ("tactic", {**timed, "name": "ampere_scudnn"}, 4)
        assert (profiled.kind, profiled.fields["seconds"]) == ("tactic_profiled", 0.08)
        assert skipped.fields == {"runner": "CaskFlattenConvolution", "node": "/Conv + /Relu"}
        assert (chosen.kind, chosen.fields) == ("chosen_tactic", timed)

    def test_of_eight_with_the_name_before(self) -> None:
        (tactic, other) = events(
            "--------------- Timing Runner: fc (CaskConvolution)",
            "fc Set Tactic Name: turing_h1688 Tactic: 0xdc1c841ef1cd3e8e",
            "Tactic: 0xdc1c841ef1cd3e8e Time: 0.0422516",
            "Tactic: 0x0000000000000001 Time: 0.05",
            severity="verbose",
        )
        assert (tactic.fields["name"], tactic.fields["node"]) == ("turing_h1688", "fc")
        assert "name" not in other.fields

    def test_of_seven_with_decimal_numbers(self) -> None:
        (tactic,) = events(
            "a (scudnn) Set Tactic Name: volta", "Tactic: -9147980667639709536 time 0.389856", severity="verbose"
        )

        assert (tactic.fields["id"], tactic.fields["name"], tactic.fields["time_ms"]) == (
            "-9147980667639709536",
            "volta",
            0.389856,
        )

    @pytest.mark.parametrize(
        "message", ["Tactic: 0xd15ea5edd15ea5ed Time: inf", "Tactic: -3360065831133338131 time 0.1"]
    )
    def test_a_tactic_that_failed(self, message: str) -> None:
        found = fields(message, "tactic", "verbose")
        assert (found["dead"], found["time_ms"]) == (True, None)


class TestSeveralMessages:
    def test_the_header_of_a_model_is_one_event(self) -> None:
        found = events(
            "-" * 64,
            "Input filename:   a.onnx",
            "ONNX IR version:  0.0.9",
            "Opset version:    17",
            "Producer name:    pytorch",
            "Producer version: 2.1",
            "Doc string:       ",
            "-" * 64,
        )

        assert [(event.kind, event.line) for event in found] == [("onnx_header", 2)]
        assert found[0].fields == {
            "file": "a.onnx",
            "ir_version": "0.0.9",
            "opset": 17,
            "producer": "pytorch",
            "producer_version": "2.1",
            "doc": "",
        }

    def test_two_models_are_two(self) -> None:
        assert [event.fields["opset"] for event in events("Opset version:    17", "Opset version:    11")] == [17, 11]

    def test_the_end_completes(self) -> None:
        reader = EventReader()
        assert not reader.feed(Record("info", "tensorrt", "Opset version:    17"))
        assert [event.fields for event in reader.close()] == [{"opset": 17}]

    def test_weights_that_fp16_cannot_hold(self) -> None:
        found = events(
            "- 131 weights are affected by this issue: Detected subnormal FP16 values.",
            "- 46 weights are affected by this issue: Detected values less than smallest positive FP16 "
            "subnormal value and converted them",
            "- 1 weights are affected by this issue: Detected finite FP32 values which would overflow in "
            "FP16 and converted them",
        )
        assert [event.fields for event in found] == [{"subnormal": 131, "underflow": 46, "overflow": 1}]

    def test_weights_one_by_one_of_8_4(self) -> None:
        found = events(
            "Weights [name=a + b.weight] had the following issues when converted to FP16:",
            " - Subnormal FP16 values detected. ",
        )

        assert [event.fields for event in found] == [{"weights": "a + b.weight", "issue": "subnormal"}]

    def test_the_summary_of_trtexec_7(self) -> None:
        found = events(
            "Host Latency",
            "min: 638.401 ms (end to end 640.1 ms)",
            "mean: 643.169 ms (end to end 643.169 ms)",
            "percentile: 646.9 ms at 99% (end to end 646.9 ms at 99%)",
            "throughput: 0 qps",
            "walltime: 5.67147 s",
            "Enqueue Time",
            "min: 1.9541 ms",
        )

        assert [event.fields["metric"] for event in found] == ["Host Latency", "Enqueue Time"]
        assert found[0].fields["mean"] == 643.169
        assert (found[0].fields["p99"], found[0].fields["end_to_end_min"], found[0].fields["walltime_s"]) == (
            646.9,
            640.1,
            5.67147,
        )


class TestProfileTable:
    ROWS = "       16.15       0.0077       0.0075       0.5   Reformatting + {a, 1.0 2}"

    def test_name_last_of_8_6(self) -> None:
        layer, total = events(
            "=== Profile (2094 iterations ) ===",
            "   Time(ms)     Avg.(ms)   Median(ms)   Time(%)   Layer",
            self.ROWS,
            "     3028.00       1.4460       1.4431     100.0   Total",
        )

        assert layer.fields == {
            "layer": "Reformatting + {a, 1.0 2}",
            "total_ms": 16.15,
            "avg_ms": 0.0077,
            "median_ms": 0.0075,
            "pct": 0.5,
        }
        assert (total.kind, total.fields["iterations"], total.fields["total_ms"]) == ("layer_time_total", 2094, 3028.0)

    def test_name_first_with_median_of_8_4(self) -> None:
        (layer,) = events(
            "=== Profile (20 iterations ) ===",
            "  Layer   Time (ms)   Avg. Time (ms)   Median Time (ms)   Time %",
            "  conv 3.14 1.0    443.04          40.2766       40.1000     5.3",
        )

        assert (
            layer.fields == {"layer": "conv 3.14 1.0", "total_ms": 443.04, "avg_ms": 40.2766, "pct": 5.3}
            or layer.fields["layer"] == "conv 3.14 1.0"
        )

    def test_name_first_of_7(self) -> None:
        (layer,) = events(" Conv_38 + Add_39 + Relu_40       99.77           9.0698      1.2")

        assert layer.fields == {"layer": "Conv_38 + Add_39 + Relu_40", "total_ms": 99.77, "avg_ms": 9.0698, "pct": 1.2}


class TestLayers:
    def test_with_hexadecimal_tactics(self) -> None:
        first, last = events(
            "Engine Layer Information:\nLayer(CaskConvolution): a + PWN(b, c), Tactic: 0x02d9f5211e4d2d82, "
            "x[Int8(1,3)] -> y[Int8(1,32)]\nLayer(Myelin): {ForeignNode[a...b]}, Tactic: 0x0, x (Half[1]) "
            "-> y (Float[1])",
            severity="verbose",
        )

        assert first.fields == {
            "layer_type": "CaskConvolution",
            "name": "a + PWN(b, c)",
            "tactic": "0x02d9f5211e4d2d82",
            "inputs": "x[Int8(1,3)]",
            "outputs": "y[Int8(1,32)]",
        }
        assert last.fields["name"] == "{ForeignNode[a...b]}"

    def test_detailed(self) -> None:
        text = (
            "Layers:\nName: a, LayerType: gemm, Inputs: [], Outputs: [], TacticName: sm80_x, TacticValue: "
            "0x17, StreamId: 0, "
            "Metadata: [ONNX Layer: n1]\x1f[ONNX Layer: n[2]]\nName: b\nc, LayerType: kgen, Metadata: \n\nBindings:\nx"
        )
        first, last = events(text, severity="verbose")

        assert first.fields == {
            "name": "a",
            "layer_type": "gemm",
            "tactic_name": "sm80_x",
            "tactic": "0x17",
            "onnx": ["n1", "n[2]"],
            "onnx_layers": 2,
        }
        assert (last.fields["name"], last.fields["onnx"]) == ("b\nc", [])


@pytest.mark.parametrize(
    ("banner", "expected"),
    [
        (
            "PASSED TensorRT.trtexec [TensorRT v8502] # trtexec --onnx=a",
            {"version": "8.5.2", "result": "PASSED", "command": "trtexec --onnx=a"},
        ),
        (
            "FAILED TensorRT.trtexec [TensorRT v101300] [b35] # x",
            {"version": "10.13.0", "build": 35, "result": "FAILED"},
        ),
        ("PASSED TensorRT.trtexec [TensorRT v11.1.0.106] # x", {"version": "11.1.0.106"}),
    ],
)
def test_the_banner_of_trtexec(banner: str, expected: dict[str, Any]) -> None:
    assert fields(banner, "trtexec_result").items() >= expected.items()


def test_numbers_that_are_none() -> None:
    found = events(
        "Created engine with size: 1.2.3 MiB", "Total Activation Memory: " + "9" * 5000, "Engine built in nan sec."
    )

    assert [dict(event.fields) for event in found] == [
        {"size_bytes": None},
        {"what": "Total Activation Memory", "bytes": 0},
        {"seconds": None},
    ]
