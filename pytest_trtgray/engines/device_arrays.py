"""Arrays that live on the GPU already (torch, CuPy, Numba, JAX), taken by their address and without a copy.

Two protocols tell where an array lies: the CUDA Array Interface
(https://nvidia.github.io/numba-cuda/user/cuda_array_interface.html) and DLPack
(https://dmlc.github.io/dlpack/latest/c_api.html). Neither needs the library that made the array, nor CUDA.

Who waits for whom: work that fills the array may still be under way on a stream of its maker.

* DLPack is told the stream that will read (``stream``), and its maker lets that stream wait.
* The interface's version 3 names the maker's stream (:attr:`DeviceArray.producer_stream`); the reader has to wait
  for it, by an event or by synchronizing it. ``None`` says that there is nothing to wait for.
* Version 2 (torch) says nothing about streams. So an array that has both goes through DLPack; only one that has
  nothing else, or that DLPack refuses, is taken as it is, and then its owner has to synchronize first.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pytest_trtgray.engines.dtypes import dtype_name
from pytest_trtgray.engines.model import DTYPE_BITS
from pytest_trtgray.errors import EngineError

LEGACY_STREAM = 1
"""CUDA's default stream, as both protocols number it; 0 would be ambiguous and is not allowed."""
ALIGNMENT_BYTES = 256
"""TensorRT wants addresses of tensors at multiples of this (``IExecutionContext::setTensorAddress``)."""

_HOST_DEVICES = (1, 3)  # kDLCPU, kDLCUDAHost: page-locked memory is read by numpy, and over the bus by a GPU
_CUDA_DEVICES = (2, 13)  # kDLCUDA, kDLCUDAManaged
_DTYPES: Mapping[tuple[int, int], str] = {
    **{(0, bits): f"int{bits}" for bits in (8, 16, 32, 64)},
    **{(1, bits): f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{(2, bits): f"float{bits}" for bits in (16, 32, 64)},
    (4, 16): "bfloat16",
    (6, 8): "bool",
    (10, 8): "fp8",  # kDLFloat8_e4m3fn, the FP8 of TensorRT
}
_NO_ARRAYS = (np.ndarray, np.generic, int, float, complex, str, bytes, list, tuple, dict)


@dataclass(frozen=True)
class DeviceArray:
    """A contiguous array in a GPU's memory.

    Attributes:
        address: of the first element; 0 for an array without elements.
        shape: sizes.
        dtype: as in :class:`~pytest_trtgray.engines.model.TensorSpec`.
        device: CUDA device index; ``None`` where the maker does not tell.
        owner: keeps the memory alive for as long as this object lives.
        producer_stream: the stream to wait for before reading, if any; 1 and 2 are CUDA's legacy and per-thread
            default streams.
    """

    address: int
    shape: tuple[int, ...]
    dtype: str
    device: int | None
    owner: Any = field(repr=False, compare=False)
    producer_stream: int | None = None

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        bits = DTYPE_BITS[self.dtype] if self.dtype in DTYPE_BITS else np.dtype(self.dtype).itemsize * 8
        return math.prod(self.shape) * bits // 8

    @property
    def is_aligned(self) -> bool:
        """Whether TensorRT takes the address; a slice of a larger array often lies elsewhere."""
        return self.address % ALIGNMENT_BYTES == 0


def as_device_array(value: Any, name: str = "", stream: int = LEGACY_STREAM) -> DeviceArray | None:
    """An array on a GPU, without touching its data.

    Args:
        value: anything that may be fed.
        name: of the input, for messages.
        stream: CUDA's handle of the stream that will read the data (1 for the legacy default stream). What was
            taken through DLPack is complete for this stream; see the module's docstring for the rest.

    Returns:
        ``None`` for anything on the host, also page-locked: numpy reads it.

    Raises:
        EngineError: it lies on a GPU and cannot be taken as it is: not contiguous, masked, of another type than
            whole numbers, floats, bfloat16, FP8 and bool, or its maker refuses (a torch tensor that requires grad).
    """
    if isinstance(value, DeviceArray):
        return value
    if isinstance(value, _NO_ARRAYS):
        return None
    thing = f"input {name!r}" if name else type(value).__name__
    interface, refusal = _interface(value)
    has_dlpack = hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__")
    if interface is not None and (_is_ordered(interface) or not has_dlpack) and not _is_void(interface):
        return _from_interface(interface, value, thing)
    if has_dlpack:
        try:
            kind = int(value.__dlpack_device__()[0])
            if kind in _HOST_DEVICES:
                return None
            if kind in _CUDA_DEVICES:
                return _from_capsule(_export(value, stream), thing)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            refusal = error
        else:
            raise EngineError(
                thing, f"lies on a device that is no CUDA GPU (DLPack type {kind})", "Copy it to the host."
            )
    if interface is not None:
        return _from_interface(interface, value, thing)
    if refusal is not None:
        raise EngineError(
            thing, f"lies on a GPU, and its maker does not share it: {refusal}", "Give its .detach(), or a host copy."
        ) from refusal
    return None


def _interface(value: Any) -> tuple[Mapping[str, Any] | None, Exception | None]:
    """The CUDA Array Interface, or why there is none."""
    try:
        found = getattr(value, "__cuda_array_interface__", None)
    except (RuntimeError, TypeError, ValueError) as error:  # torch: requires grad, sparse, bfloat16 in old versions
        return None, error
    return (found if isinstance(found, Mapping) else None), None


def _is_ordered(interface: Mapping[str, Any]) -> bool:
    return int(interface.get("version", 0)) >= 3


def _is_void(interface: Mapping[str, Any]) -> bool:
    """Two bytes of anything: how bfloat16 looks to an interface that has no name for it."""
    return str(interface["typestr"])[1:2] == "V"


def _from_interface(interface: Mapping[str, Any], owner: Any, thing: str) -> DeviceArray:
    typestr = str(interface["typestr"])
    dtype = np.dtype(typestr)
    shape = tuple(int(size) for size in interface["shape"])
    if dtype.kind not in "biuf" or not dtype.isnative or dtype.itemsize > 8:
        raise _unknown_dtype(thing, typestr)
    if interface.get("mask") is not None:
        raise EngineError(thing, "is a masked array", "Fill the mask before you feed it.")
    strides = interface.get("strides")
    if strides is not None:
        _require_contiguous(shape, [int(stride) for stride in strides], dtype.itemsize, thing)
    producer = interface.get("stream")
    return DeviceArray(
        address=int(interface["data"][0] or 0),
        shape=shape,
        dtype=dtype_name(dtype),
        device=None,
        owner=owner,
        producer_stream=None if producer is None else int(producer),
    )


class _Tensor(ctypes.Structure):
    """``DLTensor``."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Versioned(ctypes.Structure):
    """``DLManagedTensorVersioned``; the older ``DLManagedTensor`` begins with its tensor."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager_ctx", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


# Prototypes of our own: the attributes of ctypes.pythonapi are shared with everybody in the process.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _export(value: Any, stream: int) -> Any:
    """The array's capsule; makers of before DLPack 1.0 do not know ``max_version``."""
    try:
        return value.__dlpack__(stream=stream, max_version=(1, 0))
    except TypeError:
        return value.__dlpack__(stream=stream)


def _from_capsule(capsule: Any, thing: str) -> DeviceArray | None:
    """What a capsule describes.

    The capsule is not consumed. It becomes the owner: while it is called ``dltensor`` it belongs to nobody else,
    and its own destructor calls the maker's deleter, once, when the last reference is gone.
    """
    if _is_valid(capsule, b"dltensor_versioned"):
        managed = _Versioned.from_address(_get_pointer(capsule, b"dltensor_versioned"))
        if managed.major != 1:  # where the tensor begins is only known for this one
            raise EngineError(thing, f"comes in DLPack version {managed.major}, which is not known here")
        tensor = managed.tensor
    elif _is_valid(capsule, b"dltensor"):
        tensor = _Tensor.from_address(_get_pointer(capsule, b"dltensor"))
    else:
        raise EngineError(thing, "comes in a DLPack capsule that is used up or none at all")
    if tensor.device_type in _HOST_DEVICES:
        return None
    dtype = _DTYPES.get((tensor.code, tensor.bits))
    if dtype is None or tensor.lanes != 1:
        raise _unknown_dtype(thing, f"DLPack code {tensor.code}, {tensor.bits} bits, {tensor.lanes} lanes")
    shape = tuple(tensor.shape[index] for index in range(tensor.ndim))
    if tensor.strides:
        _require_contiguous(shape, [tensor.strides[index] for index in range(tensor.ndim)], 1, thing)
    return DeviceArray(
        address=(tensor.data or 0) + tensor.byte_offset,
        shape=shape,
        dtype=dtype,
        device=tensor.device_id,
        owner=capsule,
    )


def _require_contiguous(shape: Sequence[int], strides: Sequence[int], step: int, thing: str) -> None:
    if 0 in shape:
        return
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != step:
            raise EngineError(thing, "is not contiguous on the GPU", "Give its .contiguous() (torch) or a copy.")
        step *= size


def _unknown_dtype(thing: str, found: str) -> EngineError:
    return EngineError(
        thing,
        f"has a type that is not taken from a GPU: {found}",
        "Convert it there to the type that the engine declares.",
    )
