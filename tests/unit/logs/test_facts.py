from __future__ import annotations

import io

import pytest

from pytest_trtgray.logs.diagnosis import diagnose, findings_of
from pytest_trtgray.logs.log import read

STAMP = "[02/02/2025-10:00:00] "
SUMMARY = """[I] === Performance summary ===
[I] Enqueue Time: min = 0.1 ms, max = 2 ms, mean = {enqueue} ms, median = {enqueue} ms, percentile(99%) = 2 ms
[I] H2D Latency: min = 0.1 ms, max = 2 ms, mean = {copy} ms, median = {copy} ms, percentile(99%) = 2 ms
[I] GPU Compute Time: min = 1 ms, max = 1 ms, mean = 1 ms, median = 1 ms, percentile(99%) = 1 ms
"""
MISSING = (
    "[TRT] [W] Missing scale and zero-point for tensor {}, expect fall back to non-int8 implementation for any layer"
)
LAYERS = """[TRT] [V] Engine Layer Information:
Layer(CaskConvolution): /a/Conv, Tactic: 0x1, x[Int8(1,3,8,8)] -> /a/Conv_output_0[Int8(1,3,8,8)]
Layer(CaskConvolution): /b/Conv, Tactic: 0x2, /a/Conv_output_0[Int8(1,3,8,8)] -> b[Half(1,3,8,8)]
Layer(Shuffle): /c/Reshape, Tactic: 0x3, b[Half(1,3,8,8)] -> y[Half(1,192)]
"""
WIDE = (
    "[I] Set shape of input tensor ids for optimization profile 0 to: MIN=1x{low} OPT=8x128 MAX={batch}x{high}\n"
    "[I] Set shape of input tensor mask for optimization profile 0 to: MIN=1x8 OPT=1x8 MAX=1x8\n"
)


def rules_of(text: str) -> list[str]:
    stamped = "".join(STAMP + line if line.startswith("[") else line for line in text.splitlines(keepends=True))
    log = read(io.BytesIO(stamped.encode()))
    return [finding.rule for finding in findings_of(log.records, log.events)]


@pytest.mark.parametrize(
    ("enqueue", "copy", "expected"),
    [
        (0.81, 0.5, ["log.PERF_ENQUEUE_BOUND"]),
        (0.80, 0.5, []),
        (0.2, 1.0, ["log.OPT-02"]),
        (0.2, 0.99, []),
    ],
)
def test_trtexecs_medians_tell_without_its_warnings(enqueue: float, copy: float, expected: list[str]) -> None:
    assert rules_of(SUMMARY.format(enqueue=enqueue, copy=copy)) == expected


class TestMissingScales:
    def test_a_share_of_the_convolutions(self) -> None:
        rules = rules_of(MISSING.format("/a/Conv_output_0") + "\n" + LAYERS)
        assert rules == ["log.QUANT_MISSING_SCALE_FALLBACK", "log.OPT-07"]

    def test_tensors_of_other_layers_do_not_count(self) -> None:
        assert rules_of(MISSING.format("y") + "\n" + LAYERS) == ["log.QUANT_MISSING_SCALE_FALLBACK"]

    def test_without_a_list_of_layers_there_is_no_share(self) -> None:
        assert rules_of(MISSING.format("/a/Conv_output_0") + "\n") == ["log.QUANT_MISSING_SCALE_FALLBACK"]


class TestProfiles:
    def test_a_wide_one(self) -> None:
        assert rules_of(WIDE.format(low=1, high=512, batch=64)) == ["log.OPT-17"]
        assert rules_of(WIDE.format(low=128, high=128, batch=64)) == []

    def test_the_input_is_named_and_an_empty_shape_is_none(self) -> None:
        text = WIDE.format(low=0, high=512, batch=64) + WIDE.format(low=2, high=2048, batch=1)
        stamped = "".join(STAMP + line for line in text.splitlines(keepends=True)).encode()
        log = read(io.BytesIO(stamped))
        (found,) = findings_of(log.records, log.events)

        assert found.where == "ids"
        assert found.evidence["messages"] == 1

    def test_also_from_the_list_of_inputs_at_the_end_of_a_build(self) -> None:
        listed = (
            "[TRT] [V] Layers:\nName: r, LayerType: kgen, Inputs: []\n\nI/O Tensors:\n"
            " Name: ids, IOMode: Input, DataType: Int64, Dimensions: [-1,-1], ProfileInfo: [ { MinShape: [1,1], "
            "OptShape: [4,64], MaxShape: [8,128], Format: x }]\n"
        )
        assert rules_of(listed) == ["log.OPT-17"]


class TestInterleaving:
    PARSE = "[TRT] [I] Input filename:   {}.onnx\n[TRT] [V] Parsing node: /a [Relu]\n"
    MORE = "[TRT] [V] Parsing node: /b [Relu]\n"
    BUILT = "[TRT] [I] Engine generation completed in 1.0 seconds.\n"

    def code(self, text: str) -> str:
        stamped = "".join(STAMP + line for line in text.splitlines(keepends=True))
        log = read(io.BytesIO(stamped.encode()))
        return diagnose(log.records, log.events).code

    def test_a_parse_that_goes_on_after_a_build_is_another_threads(self) -> None:
        text = self.PARSE.format("m") + self.PARSE.format("n") + self.BUILT + self.MORE + self.BUILT
        assert self.code(text) == "OK_INTERLEAVED"

    def test_one_build_after_the_other_is_in_order(self) -> None:
        text = (self.PARSE.format("m") + self.MORE + self.BUILT) * 3
        assert self.code(text) == "OK"

    def test_torn_lines(self) -> None:
        torn = "[02/02/2025-10:[02/02/2025-10:00:00] [TRT] [I] a\n" + STAMP + self.BUILT + "00:00] b\n"
        log = read(io.BytesIO(torn.encode()))
        assert diagnose(log.records, log.events).code in ("OK", "OK_INTERLEAVED")  # put together again, or seen as torn
