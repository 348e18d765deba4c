"""Everything that the probes and the package metadata say, as one value."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from pytest_trtgray.vendor import is_installed

PROBE_TIMEOUT_S = 120
_PROBES_AT_ONCE = 4
_PROGRAM = Path(__file__).with_name("probes.py")
_MODULES: Mapping[str, str] = {
    "gpu": "",
    "cuda": "",
    "nvml": "pynvml",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt_rtx",
    "tensorrt_lean": "tensorrt_lean",
    "tensorrt_dispatch": "tensorrt_dispatch",
    "onnxruntime": "onnxruntime",
    "pycuda": "pycuda",
}
"""Probes, and the module without which one is not worth a process."""
_PACKAGE = re.compile(
    r"pytest-trtgray|onnxruntime.*|ort-.*|tensorrt.*|nvidia-(?:tensorrt|cuda-runtime|cudnn|cublas).*|nvidia-ml-py|pynvml"
    r"|polygraphy|pycuda|numpy|onnx|ml-dtypes|protobuf|scipy|hypothesis|pytest|filelock|cupy.*|torch"
)


@dataclass(frozen=True)
class Facts:
    """What there is.

    Attributes:
        machine: ``python``, ``platform``, ``cpu``, ``cores``, ``library_path``.
        packages: installed distributions that matter here, with their versions.
        probes: answers of :mod:`~pytest_trtgray.doctor.probes`, of those whose module can be found; ``error`` where
            one failed, crashed or did not answer.
    """

    machine: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    probes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, fit for JSON."""
        return asdict(self)

    @property
    def gpus(self) -> Sequence[Mapping[str, Any]]:
        """``name``, ``sm`` and ``memory_bytes`` of each."""
        found: Sequence[Mapping[str, Any]] = self.probes.get("gpu", {}).get("devices", ())
        return found

    def version(self, probe: str) -> Version | None:
        """The version that a module says, where it could be loaded."""
        return _version(self.probes.get(probe, {}).get("version", ""))

    def package(self, name: str) -> Version | None:
        """The version of a distribution, where it is installed."""
        return _version(self.packages.get(name, ""))


def examine() -> Facts:
    """Look at this machine; takes a few seconds, and loads nothing here."""
    from pytest_trtgray.engines.device import find_cpu

    names = [name for name, module in _MODULES.items() if not module or is_installed(module)]
    with ThreadPoolExecutor(_PROBES_AT_ONCE) as pool:
        answers = dict(zip(names, pool.map(probe, names), strict=True))
    cpu = find_cpu()
    machine = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu.name,
        "cores": cpu.details["cores"],
        "library_path": os.environ.get("LD_LIBRARY_PATH", ""),
    }
    return Facts(machine, _packages(), {name: answer for name, answer in answers.items() if answer})


def probe(name: str) -> dict[str, Any]:
    """The answer of one probe from a process of its own; ``error`` says why there is none."""
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            [sys.executable, str(_PROGRAM), name],
            capture_output=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {PROBE_TIMEOUT_S} s"}
    except OSError as error:
        return {"error": f"cannot be tried: {error.strerror or error}"}
    lines = done.stdout.decode(errors="replace").strip().split("\n")
    try:
        answer = json.loads(lines[-1])
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        return answer
    return {"error": _end(done.returncode, done.stderr.decode(errors="replace"))}


def _end(code: int, said: str) -> str:
    """How a process without an answer ended."""
    how = f"exit code {code}"
    if code < 0:
        known = {number.value: number.name for number in signal.Signals}
        how = f"the process was killed by {known.get(-code, f'signal {-code}')} while it was loaded"
    last = next((line.strip() for line in reversed(said.split("\n")) if line.strip()), "")
    return f"{how} ({last[:300]})" if last else how


def _packages() -> dict[str, str]:
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", (distribution.metadata["Name"] or "")).lower()  # api: metadata
        if _PACKAGE.fullmatch(name):
            found.setdefault(name, distribution.version)
    return dict(sorted(found.items()))


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None
