"""What is known not to go together: as data, each with where it was found and the way out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from pytest_trtgray.doctor.checkup import Facts
from pytest_trtgray.findings import Finding, Severity

Observation = tuple[str, str]
"""Where, and what."""

_RTX_MATRIX = "https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/getting-started/support-matrix.html"
_MEASURED_RTX = "measured on an H200: 1.4.0 and 1.5.0 build and run, 1.7.1 builds and refuses to deserialize"
_FLAVOURS = ("tensorrt", "tensorrt_rtx")
_MINIMUM_DRIVER = {"11": "450.80.02", "12": "525.60.13", "13": "580.65.06"}
_SAME_MODULE = (
    ("onnxruntime", r"onnxruntime(?!-(?:extensions|tools|genai|training-))(?:-[\w-]+)?|ort-(?:nightly|gpu-nightly)"),
    ("tensorrt", r"tensorrt(?:-cu\d+)?-bindings|nvidia-tensorrt"),
    ("tensorrt_rtx", r"tensorrt-rtx(?:-cu\d+)?-bindings"),
    ("pynvml", r"nvidia-ml-py|pynvml(?:-.*)?"),
)
_SHIPPED = {
    "tensorrt": r"libnvinfer(?:_plugin)?\.so\b",
    "tensorrt_rtx": r"libtensorrt_rtx\.so\b",
    "onnxruntime": r"libonnxruntime\.so\b",
}
"""Libraries that a package brings along, and another folder may have too."""
_EXPECTED_WITHOUT_DRIVER = ("nvml", "pycuda")
_OURS = "pyproject.toml of pytest-trtgray"


@dataclass(frozen=True)
class Incompatibility:
    """Something that does not work.

    Attributes:
        rule: identifier, after ``doctor.``.
        severity: ``error`` if tests will fail or lie, ``warning`` if they may, ``advice`` if something is missing.
        find: what of it is here; nothing if all is well.
        remedy: what to do.
        source: where it is documented, reported or was measured.
    """

    rule: str
    severity: Severity
    find: Callable[[Facts], Iterator[Observation]]
    remedy: str
    source: str


def findings_of(facts: Facts) -> list[Finding]:
    """What does not go together on a machine, the worst first."""
    order: tuple[Severity, ...] = ("error", "warning", "advice")
    found = [
        Finding(known.severity, where, what, f"doctor.{known.rule}", {"source": known.source}, known.remedy)
        for known in KNOWN
        for where, what in known.find(facts)
    ]
    return sorted(found, key=lambda finding: order.index(finding.severity))


def _broken(facts: Facts) -> Iterator[Observation]:
    for name, answer in facts.probes.items():
        if "error" in answer and (facts.gpus or name not in _EXPECTED_WITHOUT_DRIVER):
            yield name, f"{name} cannot be loaded: {answer['error']}"


def _twice(facts: Facts) -> Iterator[Observation]:
    for module, pattern in _SAME_MODULE:
        here = [f"{name} {version}" for name, version in facts.packages.items() if re.fullmatch(pattern, name)]
        if len(here) > 1:
            yield module, f"{' and '.join(here)} are both the module {module}: each has overwritten files of the other"


def _other_library(facts: Facts) -> Iterator[Observation]:
    for flavour in _FLAVOURS:
        answer, module = facts.probes.get(flavour, {}), facts.version(flavour)
        if module is None or not answer.get("library_version"):
            continue
        library = Version(answer["library_version"])
        if module.release[:3] != library.release[:3]:
            path = f"LD_LIBRARY_PATH is {facts.machine.get('library_path') or 'not set'}"
            yield flavour, f"the module is {module}, but it has loaded {answer['library']}, which is {library}; {path}"


def _library_path(facts: Facts) -> Iterator[Observation]:
    folders = [Path(part) for part in facts.machine.get("library_path", "").split(":") if part]
    for module, pattern in _SHIPPED.items():
        if facts.version(module) is None:
            continue
        answer = facts.probes[module]
        own = {Path(answer[name]).parent for name in ("library", "file") if name in answer}
        for folder in folders:
            if folder in own or folder.parent in own:
                continue
            try:
                found = sorted(entry.name for entry in folder.iterdir() if re.match(pattern, entry.name))
            except OSError:
                continue
            if found:
                yield module, f"LD_LIBRARY_PATH leads to another {found[0]} in {folder} besides that of {module}"


def _rtx_on_hopper(facts: Facts) -> Iterator[Observation]:
    version = facts.version("tensorrt_rtx")
    for gpu in facts.gpus:
        if version is not None and version >= Version("1.7") and gpu["sm"] == "sm_90":
            yield gpu["name"], f"TensorRT for RTX {version} does not run on {gpu['name']} (compute capability 9.0)"


def _old_gpu(first: str, product: str, probe: str) -> Callable[[Facts], Iterator[Observation]]:
    def find(facts: Facts) -> Iterator[Observation]:
        version = facts.version(probe)
        for gpu in facts.gpus:
            if version is not None and version >= Version(first) and _capability(gpu["sm"]) < 75:
                yield gpu["name"], f"{product} {version} does not run on {gpu['name']} ({gpu['sm']})"

    return find


def _numpy_1_24(facts: Facts) -> Iterator[Observation]:
    tensorrt, numpy = facts.version("tensorrt"), facts.package("numpy")
    if tensorrt and numpy and tensorrt < Version("8.6") and Version("1.24") <= numpy < Version("2"):
        yield "numpy", f"tensorrt.nptype of TensorRT {tensorrt} needs np.bool, which NumPy {numpy} does not have"


def _numpy_2(facts: Facts) -> Iterator[Observation]:
    tensorrt, numpy = facts.version("tensorrt"), facts.package("numpy")
    if tensorrt and numpy and tensorrt < Version("10") and numpy >= Version("2"):
        yield "numpy", f"the bindings of TensorRT {tensorrt} were made for NumPy 1, NumPy {numpy} is installed"


def _old_driver(facts: Facts) -> Iterator[Observation]:
    supported = facts.probes.get("gpu", {}).get("cuda_driver_api")
    if not supported:
        return
    for name in facts.packages:
        needed = re.fullmatch(r"(?:tensorrt|tensorrt-rtx|nvidia-cuda-runtime)-cu(\d+)(?:-libs)?", name)
        if needed and int(needed[1]) > int(supported.split(".")[0]):
            driver = _MINIMUM_DRIVER.get(needed[1], "")
            newer = f", driver {driver} or newer" if driver else ""
            yield name, f"{name} needs CUDA {needed[1]}{newer}; the driver is for CUDA {supported}"


def _broken_provider(facts: Facts) -> Iterator[Observation]:
    if facts.gpus:
        for provider, error in facts.probes.get("onnxruntime", {}).get("broken", {}).items():
            yield provider, f"ONNX Runtime's {provider} cannot be loaded: {error}"


def _two_flavours(facts: Facts) -> Iterator[Observation]:
    if all(facts.version(flavour) for flavour in _FLAVOURS):
        yield "tensorrt", "TensorRT and TensorRT for RTX are both installed; one process can only use one of them"


def _lean_without_driver(facts: Facts) -> Iterator[Observation]:
    for module in ("tensorrt_lean", "tensorrt_dispatch"):
        if facts.version(module) and not facts.gpus:
            yield module, f"without a driver, a Runtime of {module} crashes the process as soon as it is looked at"


def _import_order(facts: Facts) -> Iterator[Observation]:
    if facts.version("pycuda") and facts.machine.get("python", "").startswith("3.10."):
        yield "pycuda", "in Python 3.10, importing onnx or ml_dtypes after pycuda.driver crashes the process"


def _old_polygraphy(facts: Facts) -> Iterator[Observation]:
    version = facts.package("polygraphy")
    if version is not None and not Version("0.53.6") <= version < Version("0.60"):
        yield "polygraphy", f"Polygraphy {version} is installed; this package builds engines with 0.53.6 to 0.59"


def _no_pycuda(facts: Facts) -> Iterator[Observation]:
    if facts.gpus and any(facts.version(flavour) for flavour in _FLAVOURS) and "pycuda" not in facts.probes:
        yield "pycuda", "engines can be built here and not run: PyCUDA is not installed"


def _no_nvml(facts: Facts) -> Iterator[Observation]:
    if facts.gpus and "nvml" not in facts.probes:
        yield "nvml", "timing cannot see clocks and other users of the GPU: NVML's Python package is not installed"


def _no_cuda_provider(facts: Facts) -> Iterator[Observation]:
    answer = facts.probes.get("onnxruntime", {})
    if facts.gpus and "providers" in answer and "CUDAExecutionProvider" not in answer["providers"]:
        yield "onnxruntime", "FP32 references are computed on the CPU: this ONNX Runtime has no CUDAExecutionProvider"


def _nothing_to_build_with(facts: Facts) -> Iterator[Observation]:
    if not any(facts.version(name) for name in (*_FLAVOURS, "onnxruntime")):
        yield "runtimes", "no runtime is installed: neither ONNX Runtime nor any TensorRT"


def _capability(sm: str) -> int:
    digits = re.sub(r"\D", "", sm)
    return int(digits or 0)


KNOWN: tuple[Incompatibility, ...] = (
    Incompatibility(
        "broken",
        "error",
        _broken,
        "Install it again for this Python and this CUDA, or uninstall it; ldd shows which library is missing.",
        "tried in a process of its own",
    ),
    Incompatibility(
        "same-module-twice",
        "error",
        _twice,
        "pip uninstall all of them, then install the one that you want.",
        "https://github.com/microsoft/onnxruntime/issues/26996, https://github.com/microsoft/onnxruntime/issues/10685",
    ),
    Incompatibility(
        "library-of-another-version",
        "error",
        _other_library,
        "Take the folder of the other TensorRT out of LD_LIBRARY_PATH and /etc/ld.so.conf.d, or install the module of "
        "that version.",
        "https://github.com/NVIDIA/TensorRT/issues/3741",
    ),
    Incompatibility(
        "library-path",
        "warning",
        _library_path,
        "Unset LD_LIBRARY_PATH for the tests, or uninstall the package: which one is loaded is a matter of order.",
        "https://github.com/NVIDIA/TensorRT/issues/3741, https://github.com/NVIDIA/TensorRT/issues/2580",
    ),
    Incompatibility(
        "rtx-compute-capability",
        "error",
        _rtx_on_hopper,
        "Install tensorrt-rtx-cu13==1.5.* there, or TensorRT; structure and log tests still run with this one.",
        f"{_RTX_MATRIX}; {_MEASURED_RTX}",
    ),
    Incompatibility(
        "gpu-too-old",
        "error",
        _old_gpu("1.0", "TensorRT for RTX", "tensorrt_rtx"),
        "Use a GPU of the Turing generation or newer, or TensorRT 8.",
        _RTX_MATRIX,
    ),
    Incompatibility(
        "gpu-too-old",
        "error",
        _old_gpu("10.5", "TensorRT", "tensorrt"),
        "Install TensorRT 8.6 for a Pascal or Volta GPU, up to 10.4 for Volta.",
        "https://docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/release-notes-10/10.5.0.html",
    ),
    Incompatibility(
        "numpy-1.24",
        "warning",
        _numpy_1_24,
        "pip install 'numpy<1.24', or do not call nptype: this package does not.",
        "https://github.com/NVIDIA/TensorRT/issues/2557",
    ),
    Incompatibility(
        "numpy-2",
        "error",
        _numpy_2,
        "pip install 'numpy<2' (for TensorRT 8.5 'numpy<1.24').",
        "https://github.com/pybind/pybind11/releases/tag/v2.12.0 (the first to support NumPy 2)",
    ),
    Incompatibility(
        "driver-too-old",
        "error",
        _old_driver,
        "Update the driver, or install the package for its CUDA (the name ends in -cu12 instead of -cu13).",
        "https://docs.nvidia.com/deploy/cuda-compatibility/",
    ),
    Incompatibility(
        "provider-broken",
        "error",
        _broken_provider,
        "Install the CUDA and cuDNN that it names, such as with pip install 'onnxruntime-gpu[cuda,cudnn]'.",
        "https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#requirements",
    ),
    Incompatibility(
        "two-flavours",
        "advice",
        _two_flavours,
        "Test them in two runs of pytest; --trt-runtime selects one.",
        "Polygraphy decides for one when it is imported (POLYGRAPHY_USE_TENSORRT_RTX)",
    ),
    Incompatibility(
        "lean-without-driver",
        "warning",
        _lean_without_driver,
        "Do not make a Runtime of it on this machine.",
        "measured with the lean runtimes 10.16 and 11.4",
    ),
    Incompatibility(
        "import-order",
        "advice",
        _import_order,
        "Import onnx first, as this package does.",
        "measured with PyCUDA 2026.1 and ml_dtypes in Python 3.10; in 3.12 the order did not matter",
    ),
    Incompatibility("polygraphy", "error", _old_polygraphy, "pip install 'polygraphy>=0.53.6,<0.60'.", _OURS),
    Incompatibility("no-pycuda", "warning", _no_pycuda, "pip install 'pytest-trtgray[gpu]'.", _OURS),
    Incompatibility("no-nvml", "warning", _no_nvml, "pip install 'pytest-trtgray[gpu]'.", _OURS),
    Incompatibility(
        "no-cuda-provider",
        "advice",
        _no_cuda_provider,
        "pip uninstall onnxruntime, then pip install 'pytest-trtgray[gpu]'; the CPU is right too, and slower.",
        "https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html",
    ),
    Incompatibility(
        "no-runtime",
        "error",
        _nothing_to_build_with,
        "pip install 'pytest-trtgray[cpu]' for ONNX Runtime, [rtx] for TensorRT for RTX, [tensorrt] for TensorRT.",
        _OURS,
    ),
)
"""Everything that is looked for."""
