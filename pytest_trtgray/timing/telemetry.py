"""The state of the GPU while it is measured, through NVML: clocks, heat, power, and who else is there.

A reading never fails a run: without NVML there are no readings, and nothing is known to be disturbed.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pytest_trtgray.engines.device import pci_bus_id
from pytest_trtgray.engines.model import DeviceInfo
from pytest_trtgray.vendor import is_installed, quiet_import

# Bits of nvmlDeviceGetCurrentClocksEventReasons that make times worthless. A power cap (0x4) and idling (0x1)
# are everyday states of a healthy GPU.
_SLOWDOWNS = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
_SM, _MEMORY, _CELSIUS = 1, 2, 0  # NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU


@dataclass(frozen=True)
class Reading:
    """One look at a GPU; ``None`` is what this GPU or driver does not tell.

    Attributes:
        sm_mhz: clock of the multiprocessors.
        memory_mhz: clock of the memory.
        temperature_c: of the chip.
        power_w: drawn now.
        power_limit_w: enforced limit.
        utilisation_percent: part of the last second or so in which the GPU computed anything.
        slowdowns: reasons for reduced clocks that make times worthless.
        others: processes on the GPU besides this one.
        driver: version of the driver.
    """

    sm_mhz: float | None = None
    memory_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    utilisation_percent: float | None = None
    slowdowns: tuple[str, ...] = ()
    others: int = 0
    driver: str = ""

    @property
    def disturbed(self) -> str:
        """Why times taken now are not to be trusted; empty if they are."""
        if self.slowdowns:
            return f"the GPU reported {', '.join(self.slowdowns)}"
        if self.others:
            return f"{self.others} other process{'es' if self.others > 1 else ''} used the GPU"
        return ""

    def context(self) -> dict[str, str]:
        """What a baseline records beside a run, with units."""
        found = {
            "sm_mhz": self.sm_mhz,
            "memory_mhz": self.memory_mhz,
            "temperature_c": self.temperature_c,
            "power_w": self.power_w,
            "power_limit_w": self.power_limit_w,
            "utilisation_percent": self.utilisation_percent,
        }
        return {
            **{name: f"{value:g}" for name, value in found.items() if value is not None},
            **({"driver": self.driver} if self.driver else {}),
        }


def read(device: DeviceInfo | None, *, family: int = 1) -> Reading | None:
    """Look at a GPU; ``None`` for a CPU, and where NVML or its Python package is missing.

    Args:
        device: to look at.
        family: how many processes on the GPU belong to this measurement: this one, and a parent that waits.
    """
    if device is None or device.kind != "gpu" or not is_installed("pynvml"):
        return None
    nvml = quiet_import("pynvml")
    handle = _handle(device.index)
    if handle is None:
        return None

    def ask(name: str, *arguments: Any) -> Any:
        with contextlib.suppress(nvml.NVMLError, AttributeError):
            return getattr(nvml, name)(handle, *arguments)
        return None

    milliwatts, limit = ask("nvmlDeviceGetPowerUsage"), ask("nvmlDeviceGetEnforcedPowerLimit")
    reasons = ask("nvmlDeviceGetCurrentClocksEventReasons")
    if reasons is None:  # the name before driver 535
        reasons = ask("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
    return Reading(
        sm_mhz=ask("nvmlDeviceGetClockInfo", _SM),
        memory_mhz=ask("nvmlDeviceGetClockInfo", _MEMORY),
        temperature_c=ask("nvmlDeviceGetTemperature", _CELSIUS),
        power_w=None if milliwatts is None else round(milliwatts / 1e3, 1),
        power_limit_w=None if limit is None else round(limit / 1e3, 1),
        slowdowns=tuple(text for bit, text in _SLOWDOWNS.items() if reasons & bit),
        utilisation_percent=getattr(ask("nvmlDeviceGetUtilizationRates"), "gpu", None),
        others=_others(ask("nvmlDeviceGetComputeRunningProcesses") or (), family),
        driver=_driver(nvml),
    )


def first_disturbance(readings: Iterable[Reading | None]) -> str:
    """The first reason in several readings, ``""`` if there is none."""
    return next((reading.disturbed for reading in readings if reading and reading.disturbed), "")


@functools.lru_cache(maxsize=8)
def _handle(index: int) -> Any:
    nvml = quiet_import("pynvml")
    bus = pci_bus_id(index)  # NVML counts all GPUs, CUDA only the visible ones
    try:
        nvml.nvmlInit()
        return nvml.nvmlDeviceGetHandleByPciBusId(bus.encode()) if bus else nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError:
        return None


def _others(processes: Any, family: int = 1) -> int:
    """Processes that do not belong to this measurement.

    In a container NVML reports the host's process numbers, so ours cannot be told from the others; they are
    among them, because their contexts exist while something is measured.
    """
    pids = {process.pid for process in processes}
    ours = {os.getpid(), os.getppid()} if family > 1 else {os.getpid()}
    return len(pids - ours) if os.getpid() in pids else max(len(pids) - family, 0)


def _driver(nvml: Any) -> str:
    with contextlib.suppress(nvml.NVMLError):
        version = nvml.nvmlSystemGetDriverVersion()
        return version.decode() if isinstance(version, bytes) else str(version)
    return ""
