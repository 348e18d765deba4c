"""A checkup as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pytest_trtgray.doctor.checkup import Facts
from pytest_trtgray.findings import Finding

_WIDTH = 18
_USES = {
    "onnxruntime": "runs models on the CPU: pip install 'pytest-trtgray[cpu]'",
    "tensorrt": "builds and runs engines on a GPU: pip install 'pytest-trtgray[tensorrt]'",
    "tensorrt_rtx": "builds engines anywhere: pip install 'pytest-trtgray[rtx]'",
    "pycuda": "runs and times engines on a GPU: pip install 'pytest-trtgray[gpu]'",
    "nvml": "watches clocks and other users of the GPU: pip install 'pytest-trtgray[gpu]'",
}
"""What is missed where it is not there."""
_SHOWN_PACKAGES = ("pytest-trtgray", "polygraphy", "onnx", "numpy", "ml-dtypes", "pytest", "hypothesis")


def lines_of(facts: Facts, findings: Sequence[Finding]) -> Iterator[str]:
    """What there is, a line each, then what does not go together."""
    machine = facts.machine
    yield _line("python", f"{machine['python']} on {machine['platform']}")
    yield _line("cpu", f"{machine['cpu']}, {machine['cores']} cores")
    gpu = facts.probes.get("gpu", {})
    for device in facts.gpus:
        yield _line("gpu", f"{device['name']} ({device['sm']}), {device['memory_bytes'] / 1e9:.0f} GB")
    if not facts.gpus:
        yield _line("gpu", gpu.get("reason") or gpu.get("error", "unknown"))
    if facts.gpus:
        driver = facts.probes.get("nvml", {}).get("driver", "version unknown without NVML")
        yield _line("driver", f"{driver}, for CUDA {gpu.get('cuda_driver_api', '?')}")
    yield _line("cuda runtime", _cuda(facts))
    for name, use in _USES.items():
        yield _line(name, _answer(facts.probes[name]) if name in facts.probes else f"not installed ({use})")
    for name in _SHOWN_PACKAGES:
        if name in facts.packages:
            yield _line(name, facts.packages[name])
    if machine["library_path"]:
        yield _line("LD_LIBRARY_PATH", machine["library_path"])
    for finding in findings:
        yield ""
        yield f"{finding.severity}: {finding.what}"
        yield f"  -> {finding.remedy}"
        yield f"     {finding.evidence['source']}"


def _line(name: str, text: str) -> str:
    return f"{name:<{_WIDTH}}{text}"


def _cuda(facts: Facts) -> str:
    answer = facts.probes.get("cuda", {})
    return f"{answer['version']}, {answer['libraries'][0]}" if answer.get("libraries") else "none found by its name"


def _answer(answer: Any) -> str:
    if "error" in answer:
        return f"cannot be used: {answer['error']}"
    parts = [answer.get("version") or answer.get("nvml", "")]
    if "library_version" in answer and not parts[0].startswith(answer["library_version"]):
        parts.append(f"library {answer['library_version']}")
    if "providers" in answer:
        parts.append(", ".join(answer["providers"]))
    if "cuda" in answer:
        parts.append(f"compiled for CUDA {answer['cuda']}")
    return "; ".join(parts)
