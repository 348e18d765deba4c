"""Over host memory that pretends to be a GPU's: nothing here reads the data, only where and what they are."""

from __future__ import annotations

import ctypes
import gc
import weakref
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pytest_trtgray.engines import device_arrays
from pytest_trtgray.engines.device_arrays import DeviceArray, as_device_array
from pytest_trtgray.engines.dtypes import numpy_dtype
from pytest_trtgray.errors import EngineError

CPU, CUDA, CUDA_HOST, ROCM, MANAGED = 1, 2, 3, 10, 13
NUMPY_EXPORTS_VERSIONED = np.lib.NumpyVersion(np.__version__) >= "2.1.0"
VERSIONED = [False, pytest.param(True, marks=pytest.mark.skipif(not NUMPY_EXPORTS_VERSIONED, reason="NumPy >= 2.1"))]

_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)
# The destructor gets an object that is going away; as a Python object it would be counted, and come back.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class Interface:
    """An array with the CUDA Array Interface alone."""

    def __init__(self, array: NDArray[Any], **entries: Any) -> None:
        self.array = array
        self.__cuda_array_interface__: Mapping[str, Any] = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "version": 3,
            "strides": array.strides,
            **entries,
        }


class Exported:
    """A NumPy array whose real capsule says that it is on a GPU."""

    def __init__(self, array: NDArray[Any], device: int = CUDA, *, versioned: bool = False) -> None:
        self.array = array
        self.device = device
        self.versioned = versioned
        self.streams: list[int] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 3

    def __dlpack__(self, *, stream: int, **options: Any) -> Any:
        if options and not self.versioned:
            raise TypeError("an unexpected keyword argument 'max_version'")
        self.streams.append(stream)
        capsule = self.array.__dlpack__(**options)
        tensor = tensor_of(capsule)
        tensor.device_type, tensor.device_id = self.device, 3
        return capsule


def tensor_of(capsule: Any) -> Any:
    """A view of a capsule's tensor, to change what it says."""
    if "versioned" in repr(capsule):
        return device_arrays._Versioned.from_address(_get_pointer(capsule, b"dltensor_versioned")).tensor
    return device_arrays._Tensor.from_address(_get_pointer(capsule, b"dltensor"))


class ManagedTensor(ctypes.Structure):
    """``DLManagedTensor``."""

    _fields_ = (("tensor", device_arrays._Tensor), ("manager_ctx", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class Maker:
    """Makes capsules as a library does: their destructor calls the deleter unless somebody consumed them."""

    code: ClassVar[list[Maker]] = []  # a library stays loaded: its deleter outlives every capsule

    def __init__(self, **entries: Any) -> None:
        self.code.append(self)
        self.deleted = 0
        self.memory = (ctypes.c_byte * 1024)()
        self.shape = (ctypes.c_int64 * 2)(2, 3)
        self.managed = ManagedTensor()
        tensor = self.managed.tensor
        tensor.data = ctypes.addressof(self.memory)
        tensor.device_type, tensor.device_id = CUDA, 1
        tensor.ndim, tensor.shape = 2, self.shape
        tensor.code, tensor.bits, tensor.lanes = 2, 32, 1
        for name, value in entries.items():
            setattr(tensor, name, value)

        def delete(_: int | None) -> None:
            self.deleted += 1

        def destroy(capsule: int | None) -> None:
            if _is_valid(capsule, b"dltensor"):
                self.deleter(ctypes.addressof(self.managed))

        self.deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(delete)
        self.destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(destroy)
        self.managed.deleter = ctypes.cast(self.deleter, ctypes.c_void_p)

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, 1

    def __dlpack__(self, *, stream: int) -> Any:
        return _new_capsule(
            ctypes.addressof(self.managed), b"dltensor", ctypes.cast(self.destructor, ctypes.c_void_p).value
        )


def taken(value: Any, name: str = "x", **options: Any) -> DeviceArray:
    found = as_device_array(value, name, **options)
    assert found is not None
    return found


def refusal(value: Any) -> EngineError:
    with pytest.raises(EngineError) as caught:
        as_device_array(value, "tokens")
    assert caught.value.thing == "input 'tokens'"
    return caught.value


def content(array: DeviceArray) -> NDArray[Any]:
    """What lies at the address."""
    memory = memoryview((ctypes.c_ubyte * array.nbytes).from_address(array.address)).cast("B")
    return np.frombuffer(memory, dtype=numpy_dtype(array.dtype)).reshape(array.shape)


DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint64", "bool")


class TestHost:
    @pytest.mark.parametrize(
        "value",
        [
            np.zeros(3),
            np.zeros(()),
            np.float32(1),
            [1, 2],
            ((1.0,),),
            1,
            1.5,
            True,
            "text",
            None,
            object(),
            memoryview(b"abc"),
        ],
    )
    def test_is_none(self, value: Any) -> None:
        assert as_device_array(value) is None

    def test_numpy_is_not_asked(self) -> None:
        class Loud(np.ndarray[Any, Any]):
            def __dlpack_device__(self) -> Any:
                raise AssertionError("asked")

        assert as_device_array(np.zeros(3).view(Loud)) is None

    @pytest.mark.parametrize("device", [CPU, CUDA_HOST])
    def test_dlpack_on_the_host(self, device: int) -> None:
        """As a CPU tensor of torch, page-locked or not; it is not exported."""
        value = Exported(np.zeros(3), device)

        assert as_device_array(value) is None
        assert value.streams == []

    def test_a_host_tensor_of_torch(self) -> None:
        """Its interface says that there is none."""

        class Tensor(Exported):
            @property
            def __cuda_array_interface__(self) -> Any:
                raise AttributeError("not a CUDA tensor")

        assert as_device_array(Tensor(np.zeros(3), CPU)) is None

    def test_a_capsule_of_the_host(self) -> None:
        """The capsule knows better than the method."""
        assert as_device_array(Maker(device_type=CPU)) is None


class TestInterface:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_what_it_says(self, dtype: str) -> None:
        array = np.arange(6).reshape(2, 3).astype(dtype)
        value = Interface(array)
        found = taken(value)

        assert (found.address, found.shape, found.dtype) == (array.ctypes.data, (2, 3), dtype)
        assert found.nbytes == array.nbytes
        assert found.owner is value
        assert found.device is None
        assert np.array_equal(content(found), array)

    def test_without_strides(self) -> None:
        array = np.arange(6.0)
        for value in (Interface(array, strides=None), Interface(array)):
            assert taken(value).shape == (6,)

    @pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (1, 5, 1), (2, 1, 3)])
    def test_shapes(self, shape: tuple[int, ...]) -> None:
        array = np.zeros(shape, np.float32)
        found = taken(Interface(array))

        assert found.shape == shape
        assert found.nbytes == array.nbytes

    def test_no_elements_no_address(self) -> None:
        for pointer in (0, None):
            assert taken(Interface(np.zeros((0, 2)), data=(pointer, False))).address == 0

    def test_strides_of_single_elements_mean_nothing(self) -> None:
        assert taken(Interface(np.zeros((1, 3), np.float32), strides=(999, 4))).shape == (1, 3)
        assert taken(Interface(np.zeros((0, 3), np.float32), strides=(1, 1))).shape == (0, 3)

    @pytest.mark.parametrize(
        "array",
        [
            np.zeros((2, 3)).T,
            np.zeros((4, 4))[:, :2],
            np.zeros(6)[::2],
            np.zeros(6)[::-1],
            np.broadcast_to(np.zeros(3), (2, 3)),
        ],
    )
    def test_not_contiguous(self, array: NDArray[Any]) -> None:
        error = refusal(Interface(array))

        assert "not contiguous" in error.reason
        assert ".contiguous()" in error.remedy

    @given(st.lists(st.integers(0, 3), max_size=4), st.permutations(range(4)))
    def test_contiguous_as_numpy_says(self, shape: list[int], order: list[int]) -> None:
        array = np.zeros(shape).transpose([axis for axis in order if axis < len(shape)])
        if array.flags.c_contiguous:
            assert taken(Interface(array)).shape == array.shape
        else:
            assert "not contiguous" in refusal(Interface(array)).reason

    def test_a_mask(self) -> None:
        assert "masked" in refusal(Interface(np.zeros(3), mask=Interface(np.zeros(3, bool)))).reason

    @pytest.mark.parametrize("typestr", [">f4", "<c8", "|V2", "|S4", "<M8[s]", "<f16", "|O8"])
    def test_types_that_no_engine_takes(self, typestr: str) -> None:
        assert typestr in refusal(Interface(np.zeros(3), typestr=typestr)).reason

    @pytest.mark.parametrize("stream", [1, 2, 140_000_000])
    def test_a_stream_to_wait_for(self, stream: int) -> None:
        assert taken(Interface(np.zeros(3), stream=stream)).producer_stream == stream

    def test_no_stream(self) -> None:
        assert taken(Interface(np.zeros(3), stream=None)).producer_stream is None
        assert taken(Interface(np.zeros(3))).producer_stream is None
        assert taken(Interface(np.zeros(3), version=2)).producer_stream is None

    def test_alignment(self) -> None:
        assert taken(Interface(np.zeros(3), data=(512, False))).is_aligned
        assert not taken(Interface(np.zeros(3), data=(516, False))).is_aligned

    def test_read_only(self) -> None:
        assert taken(Interface(np.zeros(3), data=(512, True))).address == 512

    def test_taken_twice(self) -> None:
        found = taken(Interface(np.zeros(3)))

        assert as_device_array(found) is found

    def test_keeps_the_memory(self) -> None:
        value = Interface(np.arange(4.0))
        memory = weakref.ref(value.array)
        found = taken(value)
        del value
        gc.collect()

        assert memory() is not None
        assert content(found).tolist() == [0, 1, 2, 3]
        del found
        gc.collect()
        assert memory() is None


class TestDLPack:
    @pytest.mark.parametrize("versioned", VERSIONED)
    @pytest.mark.parametrize("device", [CUDA, MANAGED])
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_what_it_says(self, dtype: str, device: int, versioned: bool) -> None:
        array = np.arange(6).reshape(2, 3).astype(dtype)
        found = taken(Exported(array, device, versioned=versioned))

        assert (found.address, found.shape, found.dtype) == (array.ctypes.data, (2, 3), dtype)
        assert found.nbytes == array.nbytes
        assert found.device == 3
        assert found.producer_stream is None
        assert np.array_equal(content(found), array)

    @pytest.mark.parametrize(("code", "bits", "dtype"), [(4, 16, "bfloat16"), (10, 8, "fp8")])
    def test_small_floats(self, code: int, bits: int, dtype: str) -> None:
        found = taken(Maker(code=code, bits=bits))

        assert found.dtype == dtype
        assert found.nbytes == 6 * bits // 8

    @pytest.mark.parametrize("versioned", VERSIONED)
    def test_the_maker_is_told_who_reads(self, versioned: bool) -> None:
        value = Exported(np.zeros(3), versioned=versioned)
        taken(value)
        taken(value, stream=1234)

        assert value.streams == [1, 1234]

    def test_byte_offset(self) -> None:
        maker = Maker(byte_offset=64)

        assert taken(maker).address == ctypes.addressof(maker.memory) + 64

    def test_no_strides_is_contiguous(self) -> None:
        maker = Maker()
        assert not maker.managed.tensor.strides

        assert taken(maker).shape == (2, 3)

    @pytest.mark.parametrize("versioned", VERSIONED)
    def test_not_contiguous(self, versioned: bool) -> None:
        for array in (np.zeros((2, 3)).T, np.zeros(6)[::2]):
            error = refusal(Exported(array, versioned=versioned))

            assert "not contiguous" in error.reason
            assert ".contiguous()" in error.remedy

    @pytest.mark.parametrize(
        "entries",
        [{"lanes": 4}, {"code": 3}, {"code": 5, "bits": 64}, {"code": 17, "bits": 4}, {"bits": 128}, {"code": 99}],
    )
    def test_types_that_no_engine_takes(self, entries: dict[str, int]) -> None:
        assert "has a type that is not taken" in refusal(Maker(**entries)).reason

    def test_another_device(self) -> None:
        assert "DLPack type 10" in refusal(Exported(np.zeros(3), ROCM)).reason

    @pytest.mark.skipif(not NUMPY_EXPORTS_VERSIONED, reason="NumPy >= 2.1")
    def test_a_later_version(self) -> None:
        class Later(Exported):
            def __dlpack__(self, **options: Any) -> Any:
                capsule = super().__dlpack__(**options)
                device_arrays._Versioned.from_address(_get_pointer(capsule, b"dltensor_versioned")).major = 2
                return capsule

        assert "DLPack version 2" in refusal(Later(np.zeros(3), versioned=True)).reason

    def test_no_capsule(self) -> None:
        class Wrong(Exported):
            def __dlpack__(self, **options: Any) -> Any:
                return 7

        assert "none at all" in refusal(Wrong(np.zeros(3))).reason

    @pytest.mark.parametrize("versioned", VERSIONED)
    def test_keeps_the_memory(self, versioned: bool) -> None:
        """NumPy's own capsules: the array lives as long as what was taken, and no longer."""
        value = Exported(np.arange(4.0), versioned=versioned)
        memory = weakref.ref(value.array)
        found = taken(value)
        del value
        gc.collect()

        assert memory() is not None
        assert content(found).tolist() == [0, 1, 2, 3]
        del found
        gc.collect()
        assert memory() is None

    def test_deleted_once_and_last(self) -> None:
        maker = Maker()
        found = taken(maker)
        gc.collect()
        assert maker.deleted == 0

        del found
        gc.collect()
        assert maker.deleted == 1

    def test_deleted_after_a_refusal(self) -> None:
        maker = Maker(lanes=4)
        refusal(maker)
        gc.collect()

        assert maker.deleted == 1


class TestBoth:
    """Makers with both protocols, such as torch, CuPy and JAX."""

    @staticmethod
    def both(version: int, **entries: Any) -> Any:
        class Both(Exported, Interface):
            def __init__(self, array: NDArray[Any]) -> None:
                Interface.__init__(self, array, version=version, **entries)
                Exported.__init__(self, array)

        return Both(np.arange(3.0))

    def test_an_interface_with_streams_goes_first(self) -> None:
        value = self.both(3, stream=7)

        assert taken(value).producer_stream == 7
        assert value.streams == []

    def test_dlpack_goes_before_one_without(self) -> None:
        value = self.both(2)

        assert taken(value, stream=5).device == 3
        assert value.streams == [5]

    def test_the_interface_has_no_name_for_the_type(self) -> None:
        assert taken(self.both(3, typestr="<V2")).dtype == "float64"

    def test_dlpack_refuses(self) -> None:
        """Torch exports nothing of another device than its current one; the interface tells."""

        class Elsewhere(Exported, Interface):
            def __init__(self, array: NDArray[Any]) -> None:
                Interface.__init__(self, array, version=2)
                Exported.__init__(self, array)

            def __dlpack__(self, **options: Any) -> Any:
                raise BufferError("a different CUDA device index")

        assert taken(Elsewhere(np.zeros(3))).shape == (3,)

    @pytest.mark.parametrize("error", [RuntimeError, TypeError])
    def test_the_interface_refuses(self, error: type[Exception]) -> None:
        class Tensor(Exported):
            @property
            def __cuda_array_interface__(self) -> Any:
                raise error("no typestr")

        assert taken(Tensor(np.zeros(3))).dtype == "float64"

    def test_both_refuse(self) -> None:
        """A torch tensor that requires grad."""

        class Tensor(Exported):
            @property
            def __cuda_array_interface__(self) -> Any:
                raise RuntimeError("requires grad")

            def __dlpack__(self, **options: Any) -> Any:
                raise BufferError("Can't export tensors that require gradient, use tensor.detach()")

        error = refusal(Tensor(np.zeros(3)))
        assert "require gradient" in error.reason
        assert ".detach()" in error.remedy

    def test_only_an_interface_that_refuses(self) -> None:
        class Tensor:
            @property
            def __cuda_array_interface__(self) -> Any:
                raise RuntimeError("requires grad")

        assert "requires grad" in refusal(Tensor()).reason

    def test_an_input_without_a_name(self) -> None:
        with pytest.raises(EngineError, match=r"^Interface: is a masked array"):
            as_device_array(Interface(np.zeros(3), mask=object()))
