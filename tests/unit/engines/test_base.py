"""How an engine takes its feed, for runtimes that read a GPU's arrays and for those that do not. No GPU is here:
copying to the host is watched, and done by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from pytest_trtgray.engines import cuda
from pytest_trtgray.engines.base import Engine
from pytest_trtgray.engines.device_arrays import DeviceArray
from pytest_trtgray.engines.model import EngineInfo, ShapeRange, TensorSpec
from pytest_trtgray.errors import EngineError, ShapeError

X = TensorSpec("x", "float32", ("rows", 4))
SIZES = TensorSpec("s", "int64", (2,), is_shape=True)
PROFILE = {"x": ShapeRange((1, 4), (2, 4), (8, 4)), "s": ShapeRange((1, 1), (3, 4), (8, 9))}


class OnHost(Engine):
    """An engine that takes its inputs on the host."""

    def __init__(self, *inputs: TensorSpec) -> None:
        profile = {spec.name: PROFILE[spec.name] for spec in inputs}
        self.info = EngineInfo("net", "", "onnxruntime", "1", inputs, (), (profile,))
        self.records, self.notes, self.blocked, self.model = (), (), "", None

    @property
    def layers(self) -> Any:
        return ()

    @property
    def timing_method(self) -> Mapping[str, str]:
        return {}

    def timing_context(self, feed: Any, *, profiled: bool, options: Any = None) -> Any:
        raise NotImplementedError

    def _infer(self, feed: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return feed


class OnDevice(OnHost):
    """One that reads them where they are."""

    reads_device_arrays: ClassVar[bool] = True


class OnGpu:
    """Host memory that says it is a GPU's."""

    def __init__(self, array: NDArray[Any], **entries: Any) -> None:
        self.array = array
        self.__cuda_array_interface__: dict[str, Any] = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "version": 3,
            "strides": None,
            **entries,
        }


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[DeviceArray]:
    """What was copied to the host."""
    seen: list[DeviceArray] = []

    def to_host(array: DeviceArray) -> NDArray[Any]:
        seen.append(array)
        owner: OnGpu = array.owner
        copy: NDArray[Any] = owner.array.copy()
        return copy

    monkeypatch.setattr(cuda, "to_host", to_host)
    return seen


def rows(count: int, dtype: Any = np.float32) -> NDArray[Any]:
    return np.arange(count * 4, dtype=dtype).reshape(count, 4)


class TestARuntimeOnTheHost:
    def test_gets_a_copy(self, copied: list[DeviceArray]) -> None:
        given = OnGpu(rows(3))
        found = OnHost(X).run({"x": given})["x"]

        assert isinstance(found, np.ndarray)
        np.testing.assert_array_equal(found, given.array)
        (array,) = copied
        assert (array.address, array.shape, array.dtype) == (given.array.ctypes.data, (3, 4), "float32")

    def test_arrays_on_the_host_are_not_copied_from_anywhere(self, copied: list[DeviceArray]) -> None:
        OnHost(X).run({"x": rows(3)})

        assert copied == []

    def test_shapes_and_types_are_those_of_the_array(self, copied: list[DeviceArray]) -> None:
        with pytest.raises(ShapeError, match="input 'x' has shape 9x4"):
            OnHost(X).run({"x": OnGpu(rows(9))})
        with pytest.raises(EngineError, match="input 'x' wants float32, got float64"):
            OnHost(X).run({"x": OnGpu(rows(3, np.float64))})

    def test_one_that_is_not_contiguous_is_refused(self, copied: list[DeviceArray]) -> None:
        with pytest.raises(EngineError, match="input 'x': is not contiguous on the GPU"):
            OnHost(X).run({"x": OnGpu(rows(3), strides=(32, 4))})
        assert copied == []


class TestARuntimeOnTheDevice:
    def test_gets_the_array_itself(self, copied: list[DeviceArray]) -> None:
        given = OnGpu(rows(3))
        found: Any = OnDevice(X).run({"x": given})["x"]

        assert isinstance(found, DeviceArray)
        assert found.address == given.array.ctypes.data
        assert copied == []

    def test_gets_arrays_on_the_host_as_they_are(self, copied: list[DeviceArray]) -> None:
        assert isinstance(OnDevice(X).run({"x": rows(3)})["x"], np.ndarray)
        assert copied == []

    def test_shapes_and_types_are_checked_too(self, copied: list[DeviceArray]) -> None:
        with pytest.raises(ShapeError, match="input 'x' has shape 9x4"):
            OnDevice(X).run({"x": OnGpu(rows(9))})
        with pytest.raises(EngineError, match="input 'x' wants float32, got float64"):
            OnDevice(X).run({"x": OnGpu(rows(3, np.float64))})

    def test_values_that_are_sizes_are_looked_at(self, copied: list[DeviceArray]) -> None:
        """Their array's shape is (2,) whatever they are: it is the values that have to be inside the profile."""
        found = OnDevice(X, SIZES).run({"x": OnGpu(rows(3)), "s": OnGpu(np.array([7, 9]))})

        np.testing.assert_array_equal(found["s"], [7, 9])
        assert [array.dtype for array in copied] == ["int64"]
        with pytest.raises(ShapeError, match="input 's' has shape 7x10"):
            OnDevice(X, SIZES).run({"x": OnGpu(rows(3)), "s": OnGpu(np.array([7, 10]))})


class TestOnTheHost:
    @pytest.mark.parametrize("engine", [OnHost(X), OnDevice(X)])
    def test_arrays_are_made_contiguous(self, engine: Engine) -> None:
        found = engine.run({"x": np.asfortranarray(rows(3))})["x"]

        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, rows(3))

    def test_values_that_are_no_numbers_of_sizes(self) -> None:
        """Whatever is wrong with them, the error is one of ours."""
        engine = OnHost(SIZES)
        for wrong in (np.array([np.nan, 1.0]), np.array(["a", "b"]), np.array([1.5, 2.5]), np.array([None, 1])):
            with pytest.raises(EngineError, match="input 's'"):
                engine.run({"s": wrong})


class TestAFeedLikeAnEarlierOne:
    """What was right once is not looked at again, and only that."""

    GOOD: ClassVar[dict[str, Any]] = {"x": np.ones((2, 4), np.float32)}

    @pytest.mark.parametrize(
        ("feed", "error"),
        [
            ({"x": np.ones((9, 4), np.float32)}, ShapeError),
            ({"x": np.ones((2, 4), np.float16)}, EngineError),
            ({"y": np.ones((2, 4), np.float32)}, ShapeError),
            ({}, ShapeError),
        ],
        ids=["shape", "type", "name", "nothing"],
    )
    def test_another_one_is_refused(self, feed: dict[str, Any], error: type[Exception]) -> None:
        engine = OnHost(X)
        engine.checked(self.GOOD)
        with pytest.raises(error):
            engine.checked(feed)

    def test_it_is_given_as_it_is_each_time(self) -> None:
        engine = OnHost(X)
        for _ in range(2):
            assert np.shares_memory(engine.checked(self.GOOD)["x"], self.GOOD["x"])

    def test_an_array_that_is_not_contiguous_is_copied_each_time(self) -> None:
        engine = OnHost(X)
        engine.checked(self.GOOD)
        for _ in range(2):
            assert engine.checked({"x": np.ones((2, 8), np.float32)[:, ::2]})["x"].flags.c_contiguous

    def test_another_byte_order_is_the_same_numbers(self) -> None:
        engine = OnHost(X)
        for _ in range(2):
            taken = engine.checked({"x": np.full((2, 4), 3, ">f4")})["x"]
            assert taken.dtype.isnative
            assert (taken == 3).all()

    def test_values_that_are_sizes_are_looked_at_each_time(self) -> None:
        engine = OnHost(SIZES)
        engine.checked({"s": np.array([3, 4])})
        with pytest.raises(ShapeError):
            engine.checked({"s": np.array([3, 99])})
