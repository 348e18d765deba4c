"""Device memory, streams and events through PyCUDA, in the device's primary context.

The primary context is the one that ONNX Runtime and torch use too. It is pushed for the length of a call and
popped again, so that nothing of ours is current when somebody else's code runs, and the process can end.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.engines.device import find_gpu, no_gpu_reason
from pytest_trtgray.errors import EngineError, NotRunnableError
from pytest_trtgray.vendor import quiet_import

GROWTH = 1.25
"""A buffer that has to grow takes a quarter more, so that rising shapes do not allocate at every step."""


class Cuda:
    """One device. Get it from :func:`cuda`.

    Args:
        index: CUDA device index.
    """

    def __init__(self, index: int) -> None:
        # Under Python 3.10, ml_dtypes after pycuda.driver is a segmentation fault.
        quiet_import("ml_dtypes")
        self.driver = quiet_import("pycuda.driver")
        self.driver.init()
        self._context = self.driver.Device(index).retain_primary_context()
        self._lock = threading.RLock()

    @contextlib.contextmanager
    def current(self) -> Iterator[Any]:
        """Make the primary context current; gives PyCUDA's driver module.

        Raises:
            EngineError: CUDA reported an error, with its name and what usually causes it.
        """
        with self._lock:
            self._context.push()
            try:
                yield self.driver
            except self.driver.Error as error:
                raise EngineError("CUDA", str(error), _remedy(error, self.driver)) from error
            finally:
                with contextlib.suppress(self.driver.Error):
                    self._context.pop()


@functools.lru_cache(maxsize=8)
def cuda(index: int = 0) -> Cuda:
    """The device ``index``.

    Raises:
        NotRunnableError: there is no GPU or no driver.
        EngineError: PyCUDA is missing.
    """
    if find_gpu(index) is None:
        raise NotRunnableError("CUDA", no_gpu_reason(index))
    return Cuda(index)


class HostBuffer:
    """Page-locked host memory that grows and is used again; transfers from it do not wait for a copy."""

    def __init__(self, device: Cuda) -> None:
        self._device = device
        self._bytes: NDArray[np.uint8] | None = None

    def view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array over the buffer's start."""
        count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if self._bytes is None or self._bytes.size < count:
            with self._device.current() as driver:
                self._bytes = driver.pagelocked_empty(max(int(count * GROWTH), 16), np.uint8)
        assert self._bytes is not None
        return self._bytes[:count].view(dtype).reshape(shape)

    def free(self) -> None:
        """Give the memory back."""
        with self._device.current():
            self._bytes = None


class DeviceBuffer:
    """Device memory that grows and is used again."""

    def __init__(self, device: Cuda) -> None:
        self._device = device
        self._allocation: Any = None
        self._size = 0

    def reserve(self, count: int) -> int:
        """The address of at least ``count`` bytes; an earlier address is invalid once the buffer grew."""
        if self._size < count or self._allocation is None:
            size = max(int(count * GROWTH), 256)
            with self._device.current() as driver:
                self._allocation = None  # first give back, then take: twice the size may not fit
                self._allocation = driver.mem_alloc(size)
            self._size = size
        return int(self._allocation)

    def free(self) -> None:
        """Give the memory back."""
        with self._device.current():
            self._allocation = None
        self._size = 0


def _remedy(error: Exception, driver: Any) -> str:
    if isinstance(error, driver.MemoryError):
        return "The GPU is full: look for other processes (nvidia-smi), or test smaller shapes."
    if "illegal" in str(error):
        return "Everything after an illegal access fails too; run the test alone, in a fresh process."
    return "See nvidia-smi and dmesg."
