from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pytest_trtgray.doctor.checkup import Facts
from pytest_trtgray.doctor.incompatibilities import KNOWN, findings_of
from pytest_trtgray.doctor.rendering import lines_of

H200 = {"name": "NVIDIA H200", "sm": "sm_90", "memory_bytes": 150_000_000_000}
V100 = {"name": "Tesla V100", "sm": "sm_70", "memory_bytes": 16_000_000_000}
L4 = {"name": "NVIDIA L4", "sm": "sm_89", "memory_bytes": 24_000_000_000}
MACHINE = {"python": "3.12.1", "platform": "Linux", "cpu": "CPU", "cores": "8", "library_path": ""}


def trt(version: str, library: str = "") -> dict[str, Any]:
    answer: dict[str, Any] = {"version": version, "file": "/site/tensorrt/__init__.py"}
    if library:
        answer |= {"library": "/opt/libnvinfer.so.10", "library_version": library}
    return answer


ORT = {"version": "1.31.1", "file": "/site/onnxruntime/__init__.py", "providers": ["CPUExecutionProvider"]}
ORT_GPU = {**ORT, "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]}


def facts(*gpus: dict[str, Any], packages: Any = (), machine: Any = (), driver: str = "13.0", **probes: Any) -> Facts:
    gpu = {"devices": list(gpus), "cuda_driver_api": driver} if gpus else {"devices": [], "reason": "no driver"}
    return Facts({**MACHINE, **dict(machine)}, dict(packages), {"gpu": gpu, "onnxruntime": ORT_GPU, **probes})


def rules(found: Facts) -> dict[str, str]:
    return {finding.rule.removeprefix("doctor."): finding.what for finding in findings_of(found)}


NVML = {"driver": "580.159.04", "nvml": "13.580"}
PYCUDA = {"version": "2026.1", "cuda": "12.9"}
HEALTHY = facts(H200, tensorrt=trt("10.13.3.9", "10.13.3"), pycuda=PYCUDA, nvml=NVML)


@pytest.mark.parametrize("found", [HEALTHY, facts(), facts(tensorrt_rtx=trt("1.7.1.116", "1.7.1"))])
def test_nothing_is_wrong(found: Facts) -> None:
    assert rules(found) == {}


@pytest.mark.parametrize(
    ("found", "rule", "text"),
    [
        (facts(tensorrt={"error": "killed by SIGSEGV"}), "broken", "tensorrt cannot be loaded: killed by SIGSEGV"),
        (facts(L4, pycuda={"error": "x"}, nvml=NVML), "broken", "pycuda cannot be loaded: x"),
        (
            facts(packages={"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.30.0"}),
            "same-module-twice",
            "onnxruntime 1.31.1 and onnxruntime-gpu 1.30.0 are both the module onnxruntime",
        ),
        (
            facts(packages={"tensorrt-cu12-bindings": "10.9.0", "tensorrt-cu13-bindings": "10.13.3"}),
            "same-module-twice",
            "tensorrt-cu12-bindings 10.9.0 and tensorrt-cu13-bindings 10.13.3",
        ),
        (
            facts(tensorrt=trt("9.3.0.post12.dev1", "8.6.1"), machine={"library_path": "/opt/trt8/lib"}),
            "library-of-another-version",
            "the module is 9.3.0.post12.dev1, but it has loaded /opt/libnvinfer.so.10, which is 8.6.1; "
            "LD_LIBRARY_PATH is /opt/trt8/lib",
        ),
        (
            facts(H200, tensorrt_rtx=trt("1.7.1.116"), pycuda=PYCUDA, nvml=NVML),
            "rtx-compute-capability",
            "TensorRT for RTX 1.7.1.116 does not run on NVIDIA H200 (compute capability 9.0)",
        ),
        (facts(V100, tensorrt_rtx=trt("1.5.0.114"), pycuda=PYCUDA, nvml=NVML), "gpu-too-old", "on Tesla V100 (sm_70)"),
        (facts(V100, tensorrt=trt("10.5.0"), pycuda=PYCUDA, nvml=NVML), "gpu-too-old", "TensorRT 10.5.0 does not run"),
        (facts(tensorrt=trt("8.5.3.1"), packages={"numpy": "1.26.4"}), "numpy-1.24", "np.bool"),
        (facts(tensorrt=trt("8.5.3.1"), packages={"numpy": "2.1.0"}), "numpy-2", "NumPy 2.1.0 is installed"),
        (
            facts(L4, driver="12.4", nvml=NVML, packages={"tensorrt-rtx-cu13": "1.7.1.116"}),
            "driver-too-old",
            "tensorrt-rtx-cu13 needs CUDA 13, driver 580.65.06 or newer; the driver is for CUDA 12.4",
        ),
        (
            facts(L4, nvml=NVML, onnxruntime={**ORT_GPU, "broken": {"CUDAExecutionProvider": "libcudnn.so.9: none"}}),
            "provider-broken",
            "ONNX Runtime's CUDAExecutionProvider cannot be loaded: libcudnn.so.9: none",
        ),
        (facts(tensorrt=trt("10.3.0"), tensorrt_rtx=trt("1.7.1.116")), "two-flavours", "only use one of them"),
        (facts(tensorrt_lean=trt("10.16.0")), "lean-without-driver", "a Runtime of tensorrt_lean crashes"),
        (facts(L4, machine={"python": "3.10.9"}, pycuda=PYCUDA, nvml=NVML), "import-order", "after pycuda.driver"),
        (facts(packages={"polygraphy": "0.49.9"}), "polygraphy", "Polygraphy 0.49.9 is installed"),
        (facts(L4, tensorrt=trt("10.3.0"), nvml=NVML), "no-pycuda", "PyCUDA is not installed"),
        (facts(L4), "no-nvml", "NVML's Python package is not installed"),
        (facts(L4, nvml=NVML, onnxruntime=ORT), "no-cuda-provider", "has no CUDAExecutionProvider"),
        (Facts(MACHINE, {}, {"gpu": {"devices": []}}), "no-runtime", "no runtime is installed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_known(found: Facts, rule: str, text: str) -> None:
    what = rules(found)

    assert list(what) == [rule]
    assert text in what[rule]


@pytest.mark.parametrize(
    "found",
    [
        facts(nvml={"error": "no library"}, pycuda={"error": "libcuda.so.1"}),  # as it has to be without a driver
        facts(packages={"onnxruntime": "1.31.1", "onnxruntime-extensions": "0.13", "onnxruntime-tools": "1.7"}),
        facts(packages={"tensorrt": "10.3", "tensorrt-cu12": "10.3", "tensorrt-cu12-bindings": "10.3"}),
        facts(H200, tensorrt_rtx=trt("1.5.0.114"), pycuda=PYCUDA, nvml=NVML),
        facts(V100, tensorrt=trt("8.6.1"), pycuda=PYCUDA, nvml=NVML),
        facts(tensorrt=trt("8.6.1"), packages={"numpy": "1.26.4"}),
        facts(tensorrt=trt("10.3.0"), packages={"numpy": "2.1.0"}),
        facts(L4, driver="13.0", nvml=NVML, packages={"nvidia-cuda-runtime-cu12": "12.4"}),
        facts(onnxruntime={**ORT_GPU, "broken": {"CUDAExecutionProvider": "libcuda.so.1"}}),
    ],
)
def test_what_is_fine(found: Facts) -> None:
    assert rules(found) == {}


class TestLibraryPath:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "libnvinfer.so.8").write_bytes(b"")
        return tmp_path

    def test_another_library(self, folder: Path) -> None:
        found = facts(tensorrt=trt("10.3.0", "10.3.0"), machine={"library_path": f"/none::{folder}"})

        assert f"leads to another libnvinfer.so.8 in {folder}" in rules(found)["library-path"]

    def test_the_librarys_own_folder(self, folder: Path) -> None:
        answer = {**trt("8.6.1", "8.6.1"), "library": str(folder / "libnvinfer.so.8")}

        assert rules(facts(tensorrt=answer, machine={"library_path": str(folder)})) == {}

    def test_of_a_package_that_is_not_there(self, folder: Path) -> None:
        assert rules(facts(machine={"library_path": str(folder)})) == {}


def test_every_entry_says_where_it_was_found_and_what_to_do() -> None:
    for known in KNOWN:
        assert known.source
        assert known.remedy.endswith("."), known.rule
    assert {rule for rule, count in Counter(known.rule for known in KNOWN).items() if count > 1} == {"gpu-too-old"}


def test_errors_come_first() -> None:
    found = facts(L4, tensorrt=trt("8.5.3.1"), tensorrt_rtx=trt("1.7.1"), packages={"numpy": "2.1.0"})

    severities = [finding.severity for finding in findings_of(found)]
    assert severities == sorted(severities, key=("error", "warning", "advice").index)
    assert len(set(severities)) == 3


class TestRendering:
    def test_a_gpu_machine(self) -> None:
        text = "\n".join(lines_of(HEALTHY, findings_of(HEALTHY)))

        assert "gpu               NVIDIA H200 (sm_90), 150 GB" in text
        assert "driver            580.159.04, for CUDA 13.0" in text
        assert "tensorrt          10.13.3.9\n" in text
        assert "pycuda            2026.1; compiled for CUDA 12.9" in text
        assert "tensorrt_rtx      not installed (builds engines anywhere" in text

    def test_findings_have_their_remedy_and_source(self) -> None:
        found = facts(packages={"polygraphy": "0.49.9"}, tensorrt=trt("9.3.0", "8.6.1"), machine={"library_path": "/x"})
        text = "\n".join(lines_of(found, findings_of(found)))

        assert "tensorrt          9.3.0; library 8.6.1" in text
        assert "LD_LIBRARY_PATH   /x" in text
        assert "error: Polygraphy 0.49.9 is installed" in text
        assert "  -> pip install 'polygraphy>=0.53.6,<0.60'." in text
        assert "     https://github.com/NVIDIA/TensorRT/issues/3741" in text

    def test_a_broken_library(self) -> None:
        found = facts(tensorrt={"error": "killed by SIGSEGV"})

        assert "tensorrt          cannot be used: killed by SIGSEGV" in list(lines_of(found, ()))
