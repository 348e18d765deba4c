"""One execution context of TensorRT with its buffers: bind a feed, enqueue, fetch, take times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.engines.cuda import Cuda, CudaGraph, DeviceBuffer, HostBuffer, to_host
from pytest_trtgray.engines.device_arrays import DeviceArray
from pytest_trtgray.engines.dtypes import numpy_dtype
from pytest_trtgray.engines.layer_listing import datatype
from pytest_trtgray.engines.model import TensorSpec, format_shape
from pytest_trtgray.errors import EngineError

Arrays = Mapping[str, "NDArray[Any] | DeviceArray"]


class Execution:
    """An execution context on a stream of its own.

    Buffers are kept and used again when shapes change. A false from TensorRT becomes an error.

    Args:
        trt: the TensorRT module.
        engine: an ``ICudaEngine``.
        context: an ``IExecutionContext`` of it, of which this becomes the only user.
        device: the GPU.
        inputs: of the engine.
        outputs: of the engine.
        name: for messages.
    """

    def __init__(
        self,
        trt: Any,
        engine: Any,
        context: Any,
        device: Cuda,
        *,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        name: str,
    ) -> None:
        self._trt = trt
        self._engine = engine
        self.context = context
        self._device = device
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self._name = name
        specs = (*inputs, *outputs)
        with device.current() as driver:
            self._stream = driver.Stream()
            self._start, self._stop = driver.Event(), driver.Event()
        self._host = {spec.name: HostBuffer(device) for spec in specs}
        self._memory = {spec.name: DeviceBuffer(device) for spec in specs}
        self._on_host = {spec.name for spec in specs if engine.get_tensor_location(spec.name).name == "HOST"}
        # TensorRT before 10 knows no INT64: what the model calls so is INT32 in the engine.
        self._dtypes = {spec.name: numpy_dtype(datatype(engine.get_tensor_dtype(spec.name).name)) for spec in specs}
        self._staged: dict[str, NDArray[Any]] = {}
        self._borrowed: list[DeviceArray] = []
        self._allocators: dict[str, Any] = {}
        self._graph: CudaGraph | None = None
        self._profile = 0

    def bind(self, feed: Arrays, profile: int) -> None:
        """Copy a feed to the device and set every shape and address.

        An array that is on this device already is read where it is.

        Args:
            feed: contiguous arrays of the declared dtypes, inside the profile.
            profile: index of the optimization profile that contains their shapes.

        Raises:
            EngineError: TensorRT refuses a shape or an address.
        """
        with self._device.current():
            self._drop_graph()
            self._choose(profile)
            self._staged.clear()
            self._borrowed.clear()
            for spec in self._inputs:
                self._bind_input(spec, feed[spec.name])
            self._upload()
            missing = list(self.context.infer_shapes())
            self._require(not missing, f"the shapes of {missing} are not determined")
            for spec in self._outputs:
                self._bind_output(spec)
        self.synchronize()

    def enqueue(self) -> None:
        """Start one inference on the stream; does not wait."""
        with self._device.current():
            self._enqueue()

    def _enqueue(self) -> None:
        if self._graph is not None:
            self._graph.launch()
        elif not self.context.execute_async_v3(self._stream.handle):
            self._require(False, "the inference was refused")

    def synchronize(self) -> None:
        """Wait for everything that was enqueued; other threads go on meanwhile."""
        with self._device.waiting():
            self._stream.synchronize()

    def fetch(self) -> dict[str, NDArray[Any]]:
        """Outputs of the last inference, copied to fresh arrays of the declared dtypes."""
        with self._device.current():
            found = self._download()
        self.synchronize()
        return {spec.name: found[spec.name].astype(numpy_dtype(spec.dtype), copy=True) for spec in self._outputs}

    def timed(self) -> float:
        """One inference between two CUDA events, without transfers; microseconds."""
        with self._device.current():
            self._start.record(self._stream)
            self._enqueue()
            self._stop.record(self._stream)
        with self._device.waiting():
            self._stop.synchronize()
            return float(self._stop.time_since(self._start)) * 1e3

    def timed_transfers(self) -> tuple[float, float]:
        """All inputs to the device, all outputs back, between page-locked memory and CUDA events; microseconds."""
        times = []
        with self._device.current():
            for transfer in (self._upload, self._download):
                self._start.record(self._stream)
                transfer()
                self._stop.record(self._stream)
                self._stop.synchronize()
                times.append(float(self._stop.time_since(self._start)) * 1e3)
        return times[0], times[1]

    def profiled(self) -> None:
        """One inference whose layer times go to the context's profiler."""
        with self._device.current():
            self._enqueue()
            self._stream.synchronize()
            if not self.context.enqueue_emits_profile and not self.context.report_to_profiler():
                self._require(False, "the profiler has nothing to report")

    def watched(self, listener: Any) -> None:
        """One inference whose debug tensors go to a listener.

        Args:
            listener: an ``IDebugListener``; it has to live as long as this object.

        Raises:
            EngineError: this TensorRT, or this engine, shows none.
        """
        with self._device.current():
            if not hasattr(self.context, "unfused_tensors_debug_state"):
                raise EngineError(self._name, "this TensorRT shows no debug tensors")
            self._require(self.context.set_debug_listener(listener), "the debug listener was refused")
            self.context.unfused_tensors_debug_state = True
            self._enqueue()
            self._stream.synchronize()

    def capture(self) -> None:
        """Make a CUDA graph of one inference at the bound shapes; :meth:`enqueue` launches it from now on.

        Raises:
            EngineError: the engine cannot be captured (outputs whose shape depends on the data, loops).
        """
        with self._device.current():
            self._enqueue()  # what is set up at the first inference cannot be captured
            self._stream.synchronize()
            self._graph = CudaGraph.capture(self._stream, self._enqueue)

    def close(self) -> None:
        """Free the context and all buffers."""
        with self._device.current():
            self._stream.synchronize()
            self._drop_graph()
            self.context = None
            self._allocators.clear()
            self._borrowed.clear()
            self._staged.clear()
            for host in self._host.values():
                host.free()
            for memory in self._memory.values():
                memory.free()
            # while the context is current: see Cuda.current
            self._stream = self._start = self._stop = None

    def _choose(self, profile: int) -> None:
        if profile == self._profile:
            return
        self._require(
            self.context.set_optimization_profile_async(profile, self._stream.handle),
            f"optimization profile {profile} cannot be chosen",
        )
        self._stream.synchronize()
        self._profile = profile

    def _bind_input(self, spec: TensorSpec, value: NDArray[Any] | DeviceArray) -> None:
        name, shape = spec.name, tuple(value.shape)
        self._require(
            self.context.set_input_shape(name, shape), f"input {name!r} cannot have shape {format_shape(shape)}"
        )
        dtype = self._dtypes[name]
        if isinstance(value, DeviceArray):
            if name not in self._on_host and numpy_dtype(value.dtype) == dtype:
                self._address(name, self._borrow(name, value))
                return
            value = to_host(value)
        staged = self._host[name].view(shape, dtype)
        np.copyto(staged, value, casting="same_kind")
        self._require(
            staged.dtype == value.dtype or np.array_equal(staged, value),
            f"input {name!r} has values that {dtype} cannot hold; the engine was built with {dtype}",
        )
        self._staged[name] = staged
        # a shape tensor is read by the host; its page-locked copy stays where it is
        on_host = name in self._on_host
        self._address(name, staged.ctypes.data if on_host else self._memory[name].reserve(max(staged.nbytes, 1)))

    def _borrow(self, name: str, array: DeviceArray) -> int:
        """The address of an array on this device; of a copy there where TensorRT cannot read it in place."""
        device = array.device
        self._require(
            device in (None, self._device.index),
            f"input {name!r} is on CUDA device {device}, the engine runs on {self._device.index}",
        )
        if array.producer_stream is not None:
            self._device.driver.Context.synchronize()
        self._borrowed.append(array)
        if array.is_aligned and array.address:
            return array.address
        own = self._memory[name].reserve(max(array.nbytes, 1))
        if array.nbytes:
            self._device.driver.memcpy_dtod_async(own, array.address, array.nbytes, self._stream)
        return own

    def _upload(self) -> None:
        for name, staged in self._staged.items():
            if name not in self._on_host and staged.nbytes:
                self._device.driver.memcpy_htod_async(
                    self._memory[name].reserve(staged.nbytes), staged.reshape(-1).view(np.uint8), self._stream
                )

    def _download(self) -> dict[str, NDArray[Any]]:
        found = {}
        for spec in self._outputs:
            staged = self._host[spec.name].view(self._output_shape(spec.name), self._dtypes[spec.name])
            if spec.name not in self._on_host and staged.nbytes:
                allocator = self._allocators.get(spec.name)
                address = allocator.address if allocator else self._memory[spec.name].reserve(staged.nbytes)
                self._device.driver.memcpy_dtoh_async(staged.reshape(-1).view(np.uint8), address, self._stream)
            found[spec.name] = staged
        return found

    def _bind_output(self, spec: TensorSpec) -> None:
        shape = tuple(self.context.get_tensor_shape(spec.name))
        dtype = self._dtypes[spec.name]
        if spec.name in self._on_host:
            self._address(spec.name, self._host[spec.name].view(_upper(shape), dtype).ctypes.data)
        elif any(size < 0 for size in shape):
            # The shape depends on the data: TensorRT asks for memory while it runs.
            allocator = self._allocators.setdefault(spec.name, _output_allocator(self._trt)(self._memory[spec.name]))
            self._require(
                self.context.set_output_allocator(spec.name, allocator),
                f"output {spec.name!r} takes no allocator",
            )
        else:
            count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            self._address(spec.name, self._memory[spec.name].reserve(max(count, 1)))

    def _output_shape(self, name: str) -> tuple[int, ...]:
        allocator = self._allocators.get(name)
        return allocator.shape if allocator else tuple(self.context.get_tensor_shape(name))

    def _drop_graph(self) -> None:
        """A graph holds the addresses and shapes of one binding."""
        if self._graph is not None:
            self._graph.close()
            self._graph = None

    def _address(self, name: str, address: int) -> None:
        self._require(self.context.set_tensor_address(name, address), f"tensor {name!r} takes no address")

    def _require(self, ok: Any, what: str) -> None:
        if not ok:
            raise EngineError(self._name, what)


def _upper(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(size, 1) for size in shape)


def _output_allocator(trt: Any) -> Any:
    """An output allocator class over a :class:`DeviceBuffer`; its callbacks never raise."""

    class OutputAllocator(trt.IOutputAllocator):  # type: ignore[misc]
        def __init__(self, memory: DeviceBuffer) -> None:
            trt.IOutputAllocator.__init__(self)
            self._memory = memory
            self.address = 0
            self.shape: tuple[int, ...] = ()

        def reallocate_output(self, tensor_name: str, memory: int, size: int, alignment: int) -> int:
            try:
                self.address = self._memory.reserve(max(size, 1))
            except EngineError:
                return 0  # TensorRT then fails with an error of its own
            return self.address

        def reallocate_output_async(self, tensor_name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            return self.reallocate_output(tensor_name, memory, size, alignment)

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            self.shape = tuple(shape)

    return OutputAllocator
