"""Device memory, streams and events through PyCUDA, in the device's primary context.

The primary context is the one that ONNX Runtime and torch use too. It is pushed for the length of a call and
popped again, so that nothing of ours is current when somebody else's code runs, and the process can end.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.engines.device import find_gpu, load_driver, no_gpu_reason
from pytest_trtgray.engines.device_arrays import DeviceArray
from pytest_trtgray.engines.dtypes import numpy_dtype
from pytest_trtgray.errors import EngineError, NotRunnableError
from pytest_trtgray.vendor import quiet_import

GROWTH = 1.25
"""A buffer that has to grow takes a quarter more, so that rising shapes do not allocate at every step."""


class Cuda:
    """One device. Get it from :func:`cuda`.

    Args:
        index: CUDA device index.

    Attributes:
        index: the same.
        driver: PyCUDA's driver module.
    """

    def __init__(self, index: int) -> None:
        # Under Python 3.10, ml_dtypes after pycuda.driver is a segmentation fault.
        quiet_import("ml_dtypes")
        self.index = index
        self.driver = quiet_import("pycuda.driver")
        self.driver.init()
        self._context = self.driver.Device(index).retain_primary_context()
        self._lock = threading.RLock()

    @contextlib.contextmanager
    def current(self) -> Iterator[Any]:
        """Make the primary context current, for one thread at a time; gives PyCUDA's driver module.

        Every call into TensorRT belongs into it: two threads at once in an engine crashed TensorRT for RTX 1.5. So does
        the end of every object of PyCUDA: one that ends while its context is not current, in another thread than the
        context was made in, stays on the device.

        Raises:
            EngineError: CUDA reported an error, with its name and what usually causes it.
        """
        with self._lock, self.waiting() as driver:
            yield driver

    @contextlib.contextmanager
    def waiting(self) -> Iterator[Any]:
        """Like :meth:`current`, beside other threads: to wait for what was enqueued, and for nothing else.

        Raises:
            EngineError: see :meth:`current`.
        """
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


class CudaGraph:
    """Work captured from a stream once, launched many times. PyCUDA has no graphs, so this asks the driver.

    Args:
        stream: PyCUDA's stream.
        graph: handle of a ``CUgraph``; becomes this object's.
        executable: handle of the ``CUgraphExec`` made of it.
    """

    _THREAD_LOCAL = 1
    """CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile does not end the capture."""

    def __init__(self, stream: Any, graph: ctypes.c_void_p, executable: ctypes.c_void_p) -> None:
        self._stream = stream
        self._graph = graph
        self._executable = executable

    @classmethod
    def capture(cls, stream: Any, work: Callable[[], None]) -> CudaGraph:
        """Everything that ``work`` enqueues on the stream.

        Raises:
            EngineError: something in it cannot be captured.
        """
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        _call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream.handle), cls._THREAD_LOCAL)
        try:
            work()
        finally:
            # the stream stays unusable until the capture has ended, however it went
            failed = _status("cuStreamEndCapture", ctypes.c_void_p(stream.handle), ctypes.byref(graph))
        if failed or not graph:
            raise EngineError(
                "CUDA graph", f"the inference cannot be captured ({failed})", "Measure it without a CUDA graph."
            )
        _call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        return cls(stream, graph, executable)

    def launch(self) -> None:
        """Enqueue the graph on the stream it was captured from."""
        _call("cuGraphLaunch", self._executable, ctypes.c_void_p(self._stream.handle))

    def close(self) -> None:
        """Free it."""
        _status("cuGraphExecDestroy", self._executable)
        _status("cuGraphDestroy", self._graph)


def to_host(array: DeviceArray) -> NDArray[Any]:
    """A copy on the host, after everything on the device has finished."""
    dtype = numpy_dtype(array.dtype)
    copied = np.empty(array.shape, dtype)
    with cuda(array.device or 0).current() as driver:
        driver.Context.synchronize()
        if copied.nbytes:
            driver.memcpy_dtoh(copied.reshape(-1).view(np.uint8), array.address)
    return copied


def _call(function: str, *arguments: Any) -> None:
    error = _status(function, *arguments)
    if error:
        raise EngineError("CUDA graph", f"{function} failed: {error}", "Measure it without a CUDA graph.")


def _status(function: str, *arguments: Any) -> str:
    """Call the driver; the name of the error, empty if there was none."""
    driver = load_driver()
    if driver is None:
        return "no driver"
    result = getattr(driver, function)(*arguments)
    if result == 0:
        return ""
    text = ctypes.c_char_p()
    driver.cuGetErrorName(result, ctypes.byref(text))
    return (text.value or b"").decode() or str(result)


def _remedy(error: Exception, driver: Any) -> str:
    if isinstance(error, driver.MemoryError):
        return "The GPU is full: look for other processes (nvidia-smi), or test smaller shapes."
    if "illegal" in str(error):
        return "Everything after an illegal access fails too; run the test alone, in a fresh process."
    return "See nvidia-smi and dmesg."
