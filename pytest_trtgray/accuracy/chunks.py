"""An output and its reference, read side by side in chunks that fit into a processor's cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK_ELEMENTS = 1 << 17
"""Of one read: the half dozen arrays of this length stay in the cache; shorter ones cost more in calls."""
MAX_ROWS = 4096
"""A batch of more rows has no statistics by row: memory stays constant."""
_LONG_INTEGERS = (np.dtype(np.int64), np.dtype(np.uint64))

Array = NDArray[Any]


class Pair:
    """Two arrays of one shape that are compared element by element.

    Nothing is copied but the chunk that is read: the arrays may be memory-mapped and larger than memory.
    Complex numbers are read as pairs of real ones, with one axis more.

    Args:
        got: under test.
        wanted: its reference, of the same shape; both real or both complex.
        classes: length of the last axis, if a chunk must not cut it.

    Attributes:
        shape: of both, with the axis of real and imaginary part.
        size: number of elements.
        row_size: elements of a row of the first axis; 0 where rows are not told apart.
        working: ``float32`` where that holds every value of both arrays exactly, else ``float64``.
        integers: whether both are integers that ``float64`` does not hold exactly.
    """

    def __init__(self, got: Array, wanted: Array, classes: int = 0) -> None:
        self._parts = 2 if got.dtype.kind == "c" else 1
        self._got, self._wanted = _flat(got), _flat(wanted)
        self.got_dtype, self.wanted_dtype = _real(got.dtype), _real(wanted.dtype)
        self.shape = (*got.shape, 2) if self._parts == 2 else got.shape
        self.size = got.size * self._parts
        self.classes = classes
        rows = self.shape[0] if len(self.shape) > 1 else 0
        self.row_size = self.size // rows if 2 <= rows <= MAX_ROWS else 0
        narrow = all(np.can_cast(dtype, np.float32) for dtype in (self.got_dtype, self.wanted_dtype))
        self.working: np.dtype[Any] = np.dtype(np.float32 if narrow else np.float64)
        self.integers = self.got_dtype == self.wanted_dtype and self.got_dtype in _LONG_INTEGERS

    @property
    def chunk(self) -> int:
        """Largest number of elements of one read."""
        unit = max(self.classes, self._parts)
        return min(max(CHUNK_ELEMENTS // unit, 1) * unit, self.size)

    def read(self, start: int, stop: int) -> tuple[Array, Array]:
        """Elements ``start`` to ``stop`` of both in C order, in their own dtypes."""
        part = slice(start // self._parts, stop // self._parts)
        got, wanted = self._got[part], self._wanted[part]
        return (got, wanted) if self._parts == 1 else (got.view(self.got_dtype), wanted.view(self.wanted_dtype))

    def spans(self) -> Iterator[tuple[int, int]]:
        """Where the chunks begin and end: a chunk is some whole rows, or a part of one."""
        block = max(self.row_size, self.chunk // self.row_size * self.row_size) if self.row_size else self.size
        for first in range(0, self.size, block):
            last = min(first + block, self.size)
            for start in range(first, last, self.chunk):
                yield start, min(start + self.chunk, last)


def _real(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"f{dtype.itemsize // 2}") if dtype.kind == "c" else dtype


def _flat(array: Array) -> Any:
    """Something whose slices are one-dimensional arrays in C order."""
    # of an array that is not contiguous, reshape() would copy everything
    return array.reshape(-1) if array.flags.c_contiguous else array.flat
