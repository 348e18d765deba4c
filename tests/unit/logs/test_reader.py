from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.errors import LogError
from pytest_trtgray.logs import reader as module
from pytest_trtgray.logs import source
from pytest_trtgray.logs.events import events_of
from pytest_trtgray.logs.log import read
from pytest_trtgray.logs.reader import read_records
from pytest_trtgray.logs.records import Record
from tests.recordings import DATA

AT = "[05/13/2024-10:11:12] [TRT] "
LOGS = sorted((DATA / "logs").glob("*.log*"))


def records(text: str | bytes) -> list[Record]:
    return list(read_records(io.BytesIO(text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text)))


def said(text: str | bytes) -> list[tuple[str, str]]:
    return [(record.severity, record.message) for record in records(text)]


AT_ORT = "2024-02-02 10:00:00.048705396"
EP = "tensorrt_execution_provider.h:75 log"
PREFIXES = [
    ("[05/13/2024-10:11:12] [TRT] [F] ", "tensorrt", "internal_error", "TRT"),
    ("[05/13/2024-10:11:12] [TRT] [V] ", "tensorrt", "verbose", "TRT"),
    ("[TensorRT] INTERNAL ERROR: ", "tensorrt", "internal_error", "TRT"),
    ("[TensorRT] WARNING: ", "tensorrt", "warning", "TRT"),
    ("[2024-02-02 10:00:00][Error][TRT] ", "tensorrt", "error", "TRT"),
    ("[05/13/2024-10:11:12] [E] [TRT] ", "trtexec", "error", "TRT"),
    ("[05/13/2024-10:11:12] [I] ", "trtexec", "info", ""),
    ("[W] [TRT] ", "trtexec", "warning", "TRT"),
    ("[I] ", "polygraphy", "info", ""),
    ("[V] ", "polygraphy", "info", ""),
    ("[X] ", "polygraphy", "verbose", ""),
    ("[!] ", "polygraphy", "error", ""),
    ("[E] (07:40:43) [backend/trt/util.py:72] ", "polygraphy", "error", ""),
    (f"{AT_ORT} [W:onnxruntime:Default, a.cc:28 f()] ", "onnxruntime", "warning", "onnxruntime"),
    (f"{AT_ORT} [W:onnxruntime:, {EP}] [2024-02-02 09:00:00   ERROR] ", "onnxruntime", "error", "TRT"),
    (f"{AT_ORT} [W:onnxruntime:, {EP}] [2024-02-02 09:00:00     BUG] ", "onnxruntime", "internal_error", "TRT"),
    ("E0202 10:00:00.123456 1 logging.cc:43] ", "triton", "error", ""),
    ("2024-01-01 10:00:00.123456: W tensorflow/compiler/a.cc:268] ", "tensorflow", "warning", ""),
    ("ERROR: [TRT]: ", "deepstream", "error", "TRT"),
    ("0:00:02.01 168 0xc7 WARN nvinfer gstnvinfer.cpp:635:gst_logger:<gie> ", "deepstream", "warning", "nvinfer"),
    ("WARNING: [Torch-TensorRT] - ", "torch_tensorrt", "warning", "Torch-TensorRT"),
    ("INFO:torch_tensorrt.dynamo._compiler:", "torch_tensorrt", "info", "torch_tensorrt.dynamo._compiler"),
    ("[TensorRT-LLM][ERROR] ", "tensorrt_llm", "error", ""),
    ("[05/13/2024-10:11:12] [TRT-LLM] [RANK 0] [W] ", "tensorrt_llm", "warning", "TRT-LLM"),
    ("[TRT]    ", "jetson", "info", "TRT"),
    ("2024-02-02 10:00:00,123 - app.engine - WARNING - ", "other", "warning", "app.engine"),
    ("[2024-02-02 10:00:00.123] [mmdeploy] [error] [net.cpp:54] ", "other", "error", "mmdeploy"),
    ("", "stderr", "info", ""),
]


@pytest.mark.parametrize(("prefix", "producer", "severity", "tag"), PREFIXES)
def test_a_message_of_each_producer(prefix: str, producer: str, severity: str, tag: str) -> None:
    (record,) = records(f"{prefix}some text\n")

    assert (record.producer, record.severity, record.tag) == (producer, severity, tag)
    assert (record.line, record.prefix, record.message) == (1, prefix, "some text")


@pytest.mark.parametrize(("prefix", "producer"), [("[TRT]    ", "jetson"), ("", "tensorrt")])
def test_an_error_that_no_prefix_calls_one(prefix: str, producer: str) -> None:
    (record,) = records(f"{prefix}1: [a.cpp::f::2] Error Code 1: Myelin (x)\n")

    assert (record.severity, record.producer) == ("error", producer)


def test_a_space_that_was_cut_from_the_end_of_a_line() -> None:
    assert said("[05/13/2024-10:11:12] [TRT] [V]\n[I]\n") == [("verbose", ""), ("info", "")]


def test_the_banner_of_trtexec() -> None:
    record, _ = records("&&&& PASSED TensorRT.trtexec [TensorRT v8601] # trtexec\nnext\n")

    assert (record.producer, record.message) == ("trtexec", "PASSED TensorRT.trtexec [TensorRT v8601] # trtexec")


def test_times_are_those_of_the_log_read_as_utc() -> None:
    first, second, third = records(
        f"{AT}[I] a\n2024-05-13 10:11:12.500000 [W:onnxruntime:Default, a.cc:28 f()] b\nE0513 10:11:12.5 1 a.cc:4] c\n"
    )

    assert (first.time_s, second.time_s) == (1715595072.0, 1715595072.5)
    assert third.time_s == 0.0  # says no year


SAID_BY = [
    ("ModelImporter.cpp:140: While parsing node number 1", "ModelImporter.cpp:140", ""),
    ("ModelImporter.cpp:151: ERROR: checkers.cpp:1130 In function checkDet:\n[8] x", "checkers.cpp:1130", "checkDet"),
    ("IRuntime::f: Error Code 1: Myelin (x. In parse at /_src/a/b.cpp:6)", "/_src/a/b.cpp:6", "parse"),
    ("2: [builder.cpp::build::751] Error Code 2: Internal Error (x)", "builder.cpp:751", "build"),
    ("Adding network input: a.h", "", ""),
]


@pytest.mark.parametrize(("message", "source", "function"), SAID_BY)
def test_who_in_tensorrt_said_it(message: str, source: str, function: str) -> None:
    (record,) = records(f"{AT}[E] {message}\n")

    assert (record.source, record.function) == (source, function)


class TestManyLines:
    def test_lines_without_prefix_go_on_with_a_message(self) -> None:
        assert said(f"{AT}[V] Layers:\nName: a\n\nEngine:\n{AT}[I] next\n") == [
            ("verbose", "Layers:\nName: a\n\nEngine:"),
            ("info", "next"),
        ]

    def test_polygraphys_are_indented(self) -> None:
        assert said("[I] Building:\n    Flags | [TF32]\nprinted by the script\n[E] FAILED\n") == [
            ("info", "Building:\n    Flags | [TF32]"),
            ("info", "printed by the script"),
            ("error", "FAILED"),
        ]

    def test_what_passes_by_the_logger_is_apart(self) -> None:
        assert said(
            f"{AT}[I] a\nUnsupported ONNX data type: STRING (8)\n{AT}[V] b\nERROR: Graph contains a cycle\n"
        ) == [
            ("info", "a"),
            ("warning", "Unsupported ONNX data type: STRING (8)"),
            ("verbose", "b"),
            ("error", "ERROR: Graph contains a cycle"),
        ]

    def test_a_parser_of_seven_has_no_logger(self) -> None:
        text = (
            "[05/13/2024-10:11:12] [I] Building\n"
            'While parsing node number 12 [Pad -> "2"]:\n'
            "ERROR: a.cpp:26 In function importPad:\n"
            "[8] Assertion failed: x\n"
        )
        assert said(text)[1:] == [
            ("error", 'While parsing node number 12 [Pad -> "2"]:'),
            ("error", "ERROR: a.cpp:26 In function importPad:\n[8] Assertion failed: x"),
        ]

    def test_a_node_may_be_called_like_a_prefix(self) -> None:
        text = f"{AT}[V] Parsing node: bad\n[01/01/2020-00:00:00] [TRT] [E] forged\nname [Det]\n{AT}[E] next\n"
        assert said(text) == [
            ("verbose", "Parsing node: bad\n[01/01/2020-00:00:00] [TRT] [E] forged\nname [Det]"),
            ("error", "next"),
        ]

    def test_two_logs_in_one_file_are_no_names(self) -> None:
        older = "[01/01/2020-00:00:00] [TRT] [E] old\n[01/01/2020-00:00:01] [TRT] [I] older\n"
        assert said(f"{AT}[V] new\n{older}") == [("verbose", "new"), ("error", "old"), ("info", "older")]

    def test_two_programs_in_two_time_zones_are_no_names(self) -> None:
        other = "[05/13/2024-17:11:12] [TRT] [E] there"
        assert said(f"{AT}[V] here\n{other}\n{AT}[V] here\n") == [
            ("verbose", "here"),
            ("error", "there"),
            ("verbose", "here"),
        ]

    def test_numbers_are_those_of_first_lines(self) -> None:
        text = f"{AT}[V] a\n{AT}[V] b\nb\n{AT}[V] c\n{AT}[I] d\n\n{AT}[V] e\n"
        assert [record.line for record in records(text)] == [1, 2, 4, 5, 7]

    def test_messages_that_were_glued_together(self) -> None:
        text = (
            "expecting compute 8.6 got compute 7.5, please rebuild.4: [r.cpp::f::50] Error Code 4: Internal Error (x)\n"
        )
        assert [message for _, message in said(text)] == [
            "expecting compute 8.6 got compute 7.5, please rebuild.",
            "4: [r.cpp::f::50] Error Code 4: Internal Error (x)",
        ]

    def test_a_progress_bar_before_a_message(self) -> None:
        assert said(f"{AT}[V] a\ncalibrating 1/2\rcalibrating 2/2\r{AT}[E] b\n")[-1] == ("error", "b")


class TestThreads:
    def test_a_head_inside_of_a_head(self) -> None:
        text = f"{AT}[V] a\n[05/13/2024-10:{AT}[V] of one thread\n11:12] [TRT] [I] of the other\n"
        assert said(text) == [("verbose", "a"), ("verbose", "of one thread"), ("info", "of the other")]

    def test_a_head_whose_message_comes_later(self) -> None:
        text = f"{AT}[V] a\n{AT}[V] {AT}[I] of one thread\nof the other\n"
        assert said(text) == [("verbose", "a"), ("info", "of one thread"), ("verbose", "of the other")]

    def test_a_head_at_the_end_of_a_message(self) -> None:
        text = f"{AT}[V] a\n{AT}[V] of one thread[05/13/2024-\n10:11:12] [TRT] [I] of the other\n"
        assert said(text) == [("verbose", "a"), ("verbose", "of one thread"), ("info", "of the other")]

    def test_a_head_that_nothing_follows(self) -> None:
        assert said(f"{AT}[V] a\n{AT}[V] {AT}[I] b\n") == [("verbose", "a"), ("info", "b"), ("verbose", "")]


class TestText:
    def test_colours_and_carriage_returns(self) -> None:
        text = '\x1b[38;5;9m[E] While parsing [Det -> "y"]:\r\n    Node: a\x1b[0m\r\nplain\r\n\x1b[38;5;14m[I] b\x1b[0m'
        assert said(text) == [("error", 'While parsing [Det -> "y"]:\n    Node: a'), ("info", "plain"), ("info", "b")]

    def test_onnxruntimes_colours_end_a_message(self) -> None:
        text = "\x1b[1;31m2024-02-02 10:00:00.1 [E:onnxruntime:Default, a.cc:2 f] failed\n\x1b[m\nprinted\n"
        assert said(text) == [("error", "failed"), ("info", "printed")]

    def test_separators_of_tensorrt_are_no_line_ends(self) -> None:
        message = "Metadata: [ONNX Layer: a]\x1e[ONNX Layer: b]\x1f[ONNX Layer: c]\x0c\x85\u2028"
        assert said(f"{AT}[V] {message}\n{AT}[V] b\n") == [("verbose", message), ("verbose", "b")]

    def test_names_that_are_no_utf8_survive(self) -> None:
        (record,) = records(AT.encode() + b"[V] Parsing node: det\xe9\xff [Det]\n")

        assert record.message.encode("utf-8", "surrogateescape") == b"Parsing node: det\xe9\xff [Det]"
        assert Record.from_dict(json.loads(json.dumps(record.to_dict()))) == record

    def test_what_a_service_puts_before_every_line(self) -> None:
        text = "".join(
            f"2024-02-02T10:00:0{n}.1234567Z {AT}[V] {n}\n2024-02-02T10:00:00.1234567Z more\n" for n in range(5)
        )
        assert said(text) == [("verbose", f"{n}\nmore") for n in range(5)]

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
    def test_what_windows_writes(self, encoding: str) -> None:
        assert said(f"{AT}[V] Größe\r\n{AT}[E] b\r\n".encode(encoding)) == [("verbose", "Größe"), ("error", "b")]

    def test_gzip(self, tmp_path: Path) -> None:
        path = tmp_path / "log.gz"
        path.write_bytes(gzip.compress(f"{AT}[V] a\n".encode()) + gzip.compress(f"{AT}[E] b\n".encode()))

        assert [record.message for record in read_records(path)] == ["a", "b"]

    def test_a_damaged_end_is_the_end(self) -> None:
        packed = gzip.compress("".join(f"{AT}[V] {number}\n" for number in range(9999)).encode())

        found = records(packed[: len(packed) // 2])

        assert [record.message for record in found[:3]] == ["0", "1", "2"]
        assert 3 < len(found) < 9999

    def test_a_file_without_messages(self) -> None:
        assert records("") == records("\n\n  \n") == []


class TestHugeText:
    def test_a_line_is_cut(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(source, "BLOCK_BYTES", 64)
        monkeypatch.setattr(source, "MAX_LINE_BYTES", 256)
        first, second = records(f"{AT}[V] {'a' * 5000}\n{AT}[E] b\n")

        assert 200 < len(first.message) < 500
        assert first.message.endswith(" more bytes)")
        assert (second.message, second.line) == ("b", 2)

    def test_a_message_is_cut(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_MESSAGE", 100)
        first, second = records(f"{AT}[V] a\n" + "more\n" * 1000 + f"{AT}[E] b\n")

        assert first.message.startswith("a\nmore\nmore")
        assert first.message.endswith("(4901 more characters)")
        assert (second.message, second.line) == ("b", 1002)

    @given(st.integers(1, 300), st.integers(2, 64))
    def test_how_it_is_cut_into_blocks_does_not_matter(self, block: int, window: int) -> None:
        text = f"{AT}[V] a\n{AT}[V] b\nb2\n{AT}[I] c\n{AT}[V] d é\n[05/13/2024-10:11:13] [TRT] [V] e\n" * 3
        expected = records(text)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(source, "BLOCK_BYTES", block)
            patch.setattr(module, "_MIN_WINDOW", window)
            patch.setattr(module, "_MAX_WINDOW", 2 * window)
            assert records(text) == expected


class TestUnreadable:
    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(LogError, match=r"no\.log: No such file"):
            list(read_records(tmp_path / "no.log"))

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(LogError, match="Is a directory"):
            list(read_records(tmp_path))

    @pytest.mark.parametrize(
        "content", [b"ftrt" + bytes(100), b"\x7fELF" + bytes(100), bytes(range(32)) * 40, bytes(50)]
    )
    def test_no_text(self, content: bytes) -> None:
        with pytest.raises(LogError, match="not"):
            records(content)

    def test_a_little_binary_is_no_reason(self) -> None:
        assert said(f"{AT}[V] a\n".encode() * 9 + b"\x00\x01\x02\n" + f"{AT}[E] b\n".encode())[-1] == ("error", "b")


def check(content: bytes) -> None:
    """Whatever it is: no error but that it is no text, and no more than there was."""
    try:
        log = read(io.BytesIO(content))
    except LogError:
        return
    text = content.decode("utf-8", "surrogateescape")
    assert log.messages == len(log.records)
    assert [record.line for record in log.records] == sorted(
        record.line or 0 for record in log.records
    ) or "[TRT]" in text
    json.dumps([event.to_dict() for event in log.events], allow_nan=False)
    assert [event.to_dict() for event in events_of(log.records)] == [event.to_dict() for event in log.events]


@given(st.binary(max_size=400))
def test_any_bytes(content: bytes) -> None:
    check(content)


PIECES = st.sampled_from(
    [
        *(prefix for prefix, *_ in PREFIXES),
        *("[TRT] [V] ", "[05/13/", "2024-10:11:12] ", "&&&& PASSED ", "    ", "\n", "\r", "\x1b[0m", "\udce9"),
        *(
            "Error Code 4: Internal Error (",
            ")",
            "ERROR: a.cpp:1 In function f:\n[8] ",
            "While parsing node number 1 [",
        ),
        *("--- Begin node ---", "Opset version: ", "Layers:\nName: ", ", LayerType: ", "Chose Runner Type: "),
        *("=== Profile (1 iterations ) ===", " 1.00 0.1000 5.0 a", "Latency: min = 1 ms", "Host Latency", "min: 1 ms"),
        *("Tactic: 0x1 Time: 0.1", "Tactic: ", " Time: ", "inf", "99999999999999999999", "- 1 weights are affected by"),
    ]
)


@given(st.lists(PIECES | st.text(max_size=8), max_size=40).map("".join))
def test_any_text_with_the_words_of_logs(text: str) -> None:
    check(text.encode("utf-8", "surrogatepass"))


@given(st.data())
def test_real_logs_that_were_damaged(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(LOGS))
    stored = path.read_bytes()
    content = bytearray((gzip.decompress(stored) if path.suffix == ".gz" else stored)[:20_000])
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(start + 200, len(content))))
        content[start:end] = data.draw(st.binary(max_size=20) | st.just(bytes(content[start:end]) * 2))
    check(bytes(content))
