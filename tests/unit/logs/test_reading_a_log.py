"""``read``: what a whole log is of."""

from __future__ import annotations

import io
import tracemalloc

import pytest

from pytest_trtgray.logs import log as module
from pytest_trtgray.logs.log import Log, read
from tests.recordings import DATA

AT = "[05/13/2024-10:11:12] [TRT] "
LOGS = DATA / "logs"


def of(text: str) -> Log:
    return read(io.BytesIO(text.encode()))


@pytest.mark.parametrize(
    ("name", "producer", "product", "version", "phase"),
    [
        ("trtexec1013_missing_file.log", "trtexec", "TensorRT", "10.13.0", "parse"),
        ("trtexec111_summary_warnings.log", "trtexec", "TensorRT", "11.1.0", "run"),
        ("trt85_resnet50_int8_no_calibrator.log.gz", "tensorrt", "TensorRT", "8.5.3", "build"),
        ("trt9_library_version_two_copies.log", "tensorrt_llm", "TensorRT-LLM", "9.2.0.5", "load"),
        ("poly_logfmt.log", "polygraphy", "TensorRT-RTX", "1.7.1.116", "parse"),
        ("rtx17_b_fp16_overflow.log", "tensorrt", "TensorRT-RTX", "", "build"),
        ("ort_cpu_bad_shape.log", "onnxruntime", "ONNX Runtime", "1.31.1", "run"),
        ("triton_tensorrt_backend.log", "triton", "Triton", "", "load"),
        ("deepstream_plugin_missing.log", "deepstream", "DeepStream", "", "load"),
        ("trt82_tactics_jetson.log", "jetson", "TensorRT", "", "build"),
    ],
)
def test_what_it_is_of(name: str, producer: str, product: str, version: str, phase: str) -> None:
    log = read(LOGS / name)

    assert (log.producer, log.product, log.version, log.phase) == (producer, product, version, phase)


def test_an_empty_file_says_nothing() -> None:
    log = of("")

    assert (log.records, log.events, log.messages, log.producer, log.product) == ((), (), 0, "", "")


def test_phases_of_a_run() -> None:
    log = of(
        f"{AT}[I] hello\n{AT}[I] Input filename:   a.onnx\n{AT}[V] Original: 3 layers\n"
        f"{AT}[I] Loaded engine size: 1 MiB\n"
        f"{AT}[E] IExecutionContext::enqueueV3: Error Code 1: Myelin (x)\n"
    )

    assert [record.phase for record in log.records] == ["", "parse", "build", "load", "run"]
    assert log.phase == "run"


class TestHugeLogs:
    def text(self, count: int) -> str:
        tactic = f"{AT}[V] Tactic: 0x1 Time: 0.5\n"
        return f"{AT}[V] first\n{tactic * count}{AT}[W] Unused Input: x\n{tactic * count}{AT}[E] last\n"

    def test_problems_stay_of_the_others_the_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_KEPT_RECORDS", 10)
        monkeypatch.setattr(module, "MAX_KEPT_EVENTS", 5)

        log = of(self.text(100))

        assert [record.message for record in log.records[-2:]] == ["Unused Input: x", "last"]
        assert len(log.records) == 12
        assert log.messages == 203
        assert log.counts == {"tactic": 200, "unused_input": 1}
        assert [event.kind for event in log.events] == ["tactic"] * 5 + ["unused_input"]

    def test_long_messages_count_by_their_length(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_KEPT_BYTES", 1000)

        log = of("".join(f"{AT}[V] Layers:\n{'x' * 300}\n" for _ in range(20)) + f"{AT}[E] last\n")

        assert len(log.records) == 4
        assert log.messages == 21

    def test_memory_does_not_grow_with_the_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_KEPT_RECORDS", 10)

        def peak(count: int) -> int:
            class Repeated(io.RawIOBase):
                left = count

                def read(self, size: int = -1) -> bytes:
                    self.left -= 1
                    return block if self.left >= 0 else b""

            tracemalloc.start()
            try:
                assert read(Repeated()).messages == count * 500  # type: ignore[arg-type]
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

        block = "".join(f"{AT}[V] Node {number} of 1000 has nothing to say\n" for number in range(500)).encode()
        assert peak(16) < 1.3 * peak(4)
