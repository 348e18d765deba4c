"""The machine's GPU and CPU, asked without loading TensorRT.

The driver is probed through ``ctypes``: constructing a TensorRT runtime on a machine without a driver can
crash the process, so nobody may find out by trying.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
from pathlib import Path

from pytest_trtgray.engines.model import DeviceInfo

_ATTRIBUTE_MAJOR, _ATTRIBUTE_MINOR = 75, 76


@functools.lru_cache(maxsize=8)
def find_gpu(index: int = 0) -> DeviceInfo | None:
    """The CUDA device ``index`` as the driver counts (``CUDA_VISIBLE_DEVICES`` applies), or ``None``."""
    driver = load_driver()
    if driver is None:
        return None
    device = ctypes.c_int()
    if driver.cuDeviceGet(ctypes.byref(device), index) != 0:
        return None
    name = ctypes.create_string_buffer(128)
    driver.cuDeviceGetName(name, len(name), device)
    memory = ctypes.c_size_t()
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    major, minor, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(major), _ATTRIBUTE_MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _ATTRIBUTE_MINOR, device)
    driver.cuDriverGetVersion(ctypes.byref(version))
    return DeviceInfo(
        name=name.value.decode(errors="replace"),
        kind="gpu",
        sm=f"sm_{major.value}{minor.value}",
        memory_bytes=memory.value,
        index=index,
        details={"cuda_driver_api": f"{version.value // 1000}.{version.value % 1000 // 10}"},
    )


@functools.lru_cache(maxsize=1)
def find_cpu() -> DeviceInfo:
    """This machine's processor."""
    return DeviceInfo(
        name=_cpu_name(),
        kind="cpu",
        memory_bytes=_memory_bytes(),
        details={"architecture": platform.machine(), "cores": str(available_cores())},
    )


def no_gpu_reason(index: int = 0) -> str:
    """Why :func:`find_gpu` returned ``None``, in words for a skip reason."""
    driver = load_driver()
    if driver is None:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        if _has_library() and hidden is not None:
            return f"no CUDA device is visible (CUDA_VISIBLE_DEVICES={hidden!r})"
        return "the NVIDIA driver finds no GPU" if _has_library() else "no NVIDIA driver on this machine"
    return f"no CUDA device {index} ({count_gpus()} visible)"


def pci_bus_id(index: int = 0) -> str:
    """PCI bus id of a CUDA device, which tools that count differently understand; ``""`` if there is none."""
    driver = load_driver()
    device = ctypes.c_int()
    if driver is None or driver.cuDeviceGet(ctypes.byref(device), index) != 0:
        return ""
    text = ctypes.create_string_buffer(32)
    return text.value.decode() if driver.cuDeviceGetPCIBusId(text, len(text), device) == 0 else ""


def count_gpus() -> int:
    """How many CUDA devices this process sees (``CUDA_VISIBLE_DEVICES`` applies)."""
    driver = load_driver()
    count = ctypes.c_int()
    return count.value if driver is not None and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def available_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        return os.cpu_count() or 1


@functools.lru_cache(maxsize=1)
def load_driver() -> ctypes.CDLL | None:
    """The CUDA driver's library, if it is there and finds a device."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return driver if driver.cuInit(0) == 0 else None


def _has_library() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
