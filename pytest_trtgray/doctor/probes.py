"""What one library says of itself; run as a program, because a broken library may take its process with it.

Each probe has a process of its own: two flavours of TensorRT never meet, and a crash is an answer too.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

Answer = dict[str, Any]
_GPU_PROVIDERS: Mapping[str, str] = {
    "CUDAExecutionProvider": "libonnxruntime_providers_cuda.so",
    "TensorrtExecutionProvider": "libonnxruntime_providers_tensorrt.so",
    "NvTensorRTRTXExecutionProvider": "libonnxruntime_providers_nv_tensorrt_rtx.so",
}
_INFERENCE_LIBRARY = re.compile(r"lib(?:nvinfer|tensorrt_rtx|nvinfer_lean|nvinfer_dispatch)\.so")
_VENDOR_LIBRARY = re.compile(r"/lib(?:nvinfer|tensorrt|nvonnx|cudart|cudnn|cublas|cublasLt|onnxruntime)[^/]*\.so[^/]*$")


def tensorrt(module_name: str) -> Answer:
    """A flavour of TensorRT: the version of its Python module and of the library that it has really loaded."""
    module = importlib.import_module(module_name)
    loaded = list(_loaded_libraries())
    answer: Answer = {"version": str(module.__version__), "file": str(module.__file__), "libraries": loaded}
    for path in loaded:
        if _INFERENCE_LIBRARY.search(path):
            answer["library"] = path
            answer["library_version"] = _library_version(path)
            break
    return answer


def onnxruntime() -> Answer:
    """ONNX Runtime: its providers, and why one for GPUs cannot be loaded."""
    module = importlib.import_module("onnxruntime")
    answer: Answer = {
        "version": str(module.__version__),
        "file": str(module.__file__),
        "providers": list(module.get_available_providers()),
    }
    folder = Path(answer["file"]).parent / "capi"
    with contextlib.suppress(OSError):
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
    if hasattr(module, "preload_dlls"):  # finds the CUDA and cuDNN of pip packages
        with contextlib.suppress(Exception):
            module.preload_dlls()
    for provider in answer["providers"]:
        library = folder / _GPU_PROVIDERS.get(provider, "")
        if library.is_file():
            try:
                ctypes.CDLL(str(library))
            except OSError as error:
                answer.setdefault("broken", {})[provider] = str(error)
    return answer


def gpu() -> Answer:
    """What the driver says, through its C interface."""
    from pytest_trtgray.engines.device import count_gpus, find_gpu, no_gpu_reason

    found = [device for index in range(count_gpus()) if (device := find_gpu(index)) is not None]
    if not found:
        return {"devices": [], "reason": no_gpu_reason()}
    return {
        "devices": [{"name": gpu.name, "sm": gpu.sm, "memory_bytes": gpu.memory_bytes} for gpu in found],
        "cuda_driver_api": found[0].details["cuda_driver_api"],
    }


def cuda() -> Answer:
    """The CUDA runtime that a program finds here by its name, if any."""
    for major in range(14, 10, -1):
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(f"libcudart.so.{major}" if major > 11 else "libcudart.so.11.0")
            version = ctypes.c_int()
            library.cudaRuntimeGetVersion(ctypes.byref(version))
            return {"version": _dotted(version.value, 1000, 10), "libraries": list(_loaded_libraries())}
    return {}


def nvml() -> Answer:
    """NVIDIA's management library: the driver's own version."""
    module = importlib.import_module("pynvml")
    module.nvmlInit()
    try:
        return {"driver": _text(module.nvmlSystemGetDriverVersion()), "nvml": _text(module.nvmlSystemGetNVMLVersion())}
    finally:
        module.nvmlShutdown()


def pycuda() -> Answer:
    """PyCUDA and the CUDA that it was compiled for."""
    module = importlib.import_module("pycuda")
    driver = importlib.import_module("pycuda.driver")
    return {"version": str(module.VERSION_TEXT), "cuda": ".".join(map(str, driver.get_version()[:2]))}


PROBES: Mapping[str, Callable[[], Answer]] = {
    "gpu": gpu,
    "nvml": nvml,
    "cuda": cuda,
    "tensorrt": lambda: tensorrt("tensorrt"),
    "tensorrt_rtx": lambda: tensorrt("tensorrt_rtx"),
    "tensorrt_lean": lambda: tensorrt("tensorrt_lean"),
    "tensorrt_dispatch": lambda: tensorrt("tensorrt_dispatch"),
    "onnxruntime": onnxruntime,
    "pycuda": pycuda,
}
"""By name; those of libraries are called as their module, except ``nvml`` (``pynvml``)."""


def _loaded_libraries() -> Iterator[str]:
    try:
        maps = Path("/proc/self/maps").read_text(errors="replace")
    except OSError:
        return
    yield from sorted({line.split(maxsplit=5)[-1] for line in maps.splitlines() if _VENDOR_LIBRARY.search(line)})


def _library_version(path: str) -> str:
    """``10.13.3`` of a library; it tells its parts since 10, and one number before: 8503 is 8.5.3."""
    library = ctypes.CDLL(path)
    parts = [f"getInferLib{part}Version" for part in ("Major", "Minor", "Patch")]
    if all(hasattr(library, part) for part in parts):
        return ".".join(str(getattr(library, part)()) for part in parts)
    number = int(library.getInferLibVersion())
    return _dotted(number, 10_000, 100) if number >= 100_000 else _dotted(number, 1_000, 100)


def _dotted(number: int, major: int, minor: int) -> str:
    """``12.4`` of CUDA's 12040 (1000 and 10), ``8.5.3`` of TensorRT's 8503 (1000 and 100)."""
    parts = [number // major, number % major // minor]
    return ".".join(map(str, [*parts, number % minor] if minor > 10 else parts))


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def main(name: str) -> None:
    """Print the answer of one probe as the last line."""
    warnings.simplefilter("ignore")
    try:
        answer = PROBES[name]()
    except Exception as error:  # whatever a broken library raises is the answer
        answer = {"error": f"{type(error).__name__}: {error}"}
    print("\n" + json.dumps(answer), flush=True)
    os._exit(0)  # some libraries crash when the interpreter ends; what they had to say is said


if __name__ == "__main__":
    main(sys.argv[1])
