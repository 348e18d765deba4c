from __future__ import annotations

import io

from pytest_trtgray.logs.comparison import compare_logs, tactic_findings, tactics_of
from pytest_trtgray.logs.log import Log, read

STAMP = "[02/02/2025-10:00:00] "


def of(*lines: str) -> Log:
    return read(io.BytesIO("".join(f"{line}\n" for line in lines).encode()))


def trtexec(version: str, median: float) -> Log:
    return of(
        f"&&&& RUNNING TensorRT.trtexec [TensorRT v{version}] # trtexec --onnx=m.onnx",
        f"{STAMP}[I] GPU Compute Time: min = 1 ms, max = 9 ms, mean = 2 ms, median = {median} ms, percentile(99%) = 9",
    )


def tuned(conv: str, relu: str = "0x9") -> Log:
    return of(
        f"{STAMP}[TRT] [V] Engine Layer Information:",
        f"Layer(CaskConvolution): /a/Conv, Tactic: {conv}, x[Half(1,3)] -> a[Half(1,3)]",
        f"Layer(PointWise): /a/Relu, Tactic: {relu}, a[Half(1,3)] -> y[Half(1,3)]",
    )


class TestTactics:
    def test_the_same_kernels_are_no_finding(self) -> None:
        assert compare_logs(tuned("0x1"), tuned("0x1")) == ()

    def test_another_kernel_is_named(self) -> None:
        (found,) = compare_logs(tuned("0x1"), tuned("0x2"))

        assert (found.rule, found.severity, found.where) == ("log.OPT-15", "advice", "/a/Conv")
        assert "1 of 2 layers" in found.what
        assert "0x1 -> 0x2" in found.what

    def test_without_a_list_of_layers_the_choices_count(self) -> None:
        log = of(
            f"{STAMP}[TRT] [V] =============== Computing costs for /a/Conv",
            f"{STAMP}[TRT] [V] *************** Autotuning format combination: Half(9,3) -> Half(9,3) ***************",
            f"{STAMP}[TRT] [V] >>>>>>>>>>>>>>> Chose Runner Type: CaskConvolution Tactic: 0x17bd",
        )
        assert tactics_of(log.events) == {"/a/Conv (Half(9,3) -> Half(9,3))": "CaskConvolution 0x17bd"}

    def test_layers_that_only_one_has_are_no_change_of_kernel(self) -> None:
        assert tactic_findings({"a": "1", "b": "2"}, {"a": "1", "c": "3"}) == ()


class TestUpgrade:
    def test_slower_with_another_version(self) -> None:
        (found,) = compare_logs(trtexec("8503", 1.0), trtexec("8601", 1.2))

        assert (found.rule, found.severity) == ("log.OPT-24", "warning")
        assert "20% slower" in found.what
        assert "8.6.1" in found.what

    def test_faster_or_the_same_version_is_none(self) -> None:
        assert compare_logs(trtexec("8503", 1.0), trtexec("8601", 1.04)) == ()
        assert compare_logs(trtexec("8503", 1.0), trtexec("8503", 2.0)) == ()


def test_more_layers_that_leave_the_dla() -> None:
    line = STAMP + "[W] [TRT] Layer '/n{}' (SHUFFLE): Unsupported on DLA. Switching this layer's device type to GPU."
    one, two = of(line.format(1)), of(line.format(1), line.format(2))

    assert compare_logs(two, one) == ()
    (found,) = compare_logs(one, two)
    assert found.rule == "log.OPT-27"
    assert "2 layers left the DLA for the GPU, 1 before" in found.what
