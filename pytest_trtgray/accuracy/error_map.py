"""Where in an output the errors are, as a map of few cells: rows against channels, or whatever its axes are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_ROWS, MAX_COLUMNS = 32, 64
"""Cells of a map; longer axes are put together in stretches."""
_AT_ONCE = 1 << 22
"""Elements that are held in FP64."""


@dataclass(frozen=True)
class ErrorMap:
    """The largest absolute error in each cell of an output.

    Attributes:
        rows: name of what goes down, such as ``axis 0``.
        columns: name of what goes across.
        row_starts: index at which each row of cells begins.
        column_starts: index at which each column of cells begins.
        cells: largest absolute error, row by row; ``None`` where an element is not finite on one side only.
    """

    rows: str
    columns: str
    row_starts: tuple[int, ...]
    column_starts: tuple[int, ...]
    cells: tuple[tuple[float | None, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """Builtins, fit for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}


def error_map(got: NDArray[Any], wanted: NDArray[Any]) -> ErrorMap | None:
    """The map of one output.

    Of an image-like output (four axes and more) rows are its first axis and columns its channels (for a batch of one:
    channels and the axis after them); of three axes the first two go down together; of two, they are the map.

    Args:
        got: output under test.
        wanted: its reference, of the same shape.

    Returns:
        ``None`` where there is nothing to place: shapes differ, fewer than two elements.
    """
    if got.shape != wanted.shape or got.size < 2 or "c" in (got.dtype.kind, wanted.dtype.kind):
        return None
    shape, names = _as_rows_and_columns(got.shape)
    row_starts, column_starts = _starts(shape[0], MAX_ROWS), _starts(shape[1], MAX_COLUMNS)
    sides = got.reshape(shape), wanted.reshape(shape)
    cells = np.zeros((len(row_starts), len(column_starts)))
    step = max(_AT_ONCE // (shape[1] * shape[2]), 1)
    with np.errstate(all="ignore"):
        for place, (start, stop) in enumerate(zip(row_starts, (*row_starts[1:], shape[0]), strict=True)):
            for low in range(start, stop, step):
                largest = _largest(*(side[low : min(low + step, stop)] for side in sides))
                found = np.maximum.reduceat(largest, column_starts)
                cells[place] = np.maximum(cells[place], found)
    return ErrorMap(
        *names,
        tuple(row_starts),
        tuple(column_starts),
        tuple(tuple(value if math.isfinite(value) else None for value in row) for row in cells.tolist()),
    )


def _largest(got: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.float64]:
    """The largest error of each column; infinite where the sides do not agree on what is not finite."""
    left, right = got.astype(np.float64), wanted.astype(np.float64)
    error = np.abs(left - right)
    odd = np.isnan(error)
    if odd.any():
        same = (left == right) | (np.isnan(left) & np.isnan(right))
        error[odd] = np.where(same[odd], 0.0, np.inf)
    found: NDArray[np.float64] = error.max(axis=(0, 2))
    return found


def _as_rows_and_columns(shape: tuple[int, ...]) -> tuple[tuple[int, int, int], tuple[str, str]]:
    """Rows, columns, and how many elements each of their crossings has; and what the two are called."""
    axes = [axis for axis, size in enumerate(shape) if size > 1]
    if len(shape) >= 4 or len(axes) <= 2:
        rows, columns = (axes[0], axes[1]) if len(axes) > 1 else (-1, axes[0])
        inner = math.prod(shape[columns + 1 :])
        return (shape[rows] if rows >= 0 else 1, shape[columns], inner), (
            f"axis {rows}" if rows >= 0 else "",
            f"axis {columns}",
        )
    *outer, last = shape
    return (math.prod(outer), last, 1), ("rows of all axes but the last", f"axis {len(shape) - 1}")


def _starts(size: int, most: int) -> list[int]:
    """Where stretches begin that are as long as each other, at most ``most`` of them."""
    return list(range(0, size, -(-size // most)))
