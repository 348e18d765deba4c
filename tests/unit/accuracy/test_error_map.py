"""Where errors are: the right cell, whatever the axes; bounded, whatever the size."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_trtgray.accuracy import error_map as module
from pytest_trtgray.accuracy.compare import compare
from pytest_trtgray.accuracy.error_map import MAX_COLUMNS, MAX_ROWS, error_map


def planted(shape: tuple[int, ...], index: tuple[int, ...], error: float = 2.5) -> tuple[np.ndarray, np.ndarray]:
    wanted = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    got = wanted.copy()
    got[index] = wanted[index] + np.float32(error)
    return got, wanted


@pytest.mark.parametrize(
    ("shape", "index", "cell", "names"),
    [
        ((4, 10), (2, 7), (2, 7), ("axis 0", "axis 1")),
        ((8,), (5,), (0, 5), ("", "axis 0")),
        ((1, 6, 9), (0, 4, 8), (4, 8), ("axis 1", "axis 2")),
        ((3, 5, 7), (2, 1, 6), (11, 6), ("rows of all axes but the last", "axis 2")),
        ((4, 16, 5, 6), (3, 9, 4, 1), (3, 9), ("axis 0", "axis 1")),
        ((1, 16, 5, 6), (0, 9, 4, 1), (9, 4), ("axis 1", "axis 2")),
        ((2, 1, 5, 6), (1, 0, 3, 2), (1, 3), ("axis 0", "axis 2")),
        ((2, 300), (1, 250), (1, 50), ("axis 0", "axis 1")),  # 5 columns a cell
    ],
)
def test_the_cell_of_an_error(
    shape: tuple[int, ...], index: tuple[int, ...], cell: tuple[int, int], names: tuple[str, str]
) -> None:
    found = error_map(*planted(shape, index))

    assert found is not None
    assert (found.rows, found.columns) == names
    cells = np.array(found.cells, float)
    assert np.argwhere(cells > 0).tolist() == [list(cell)]
    assert cells[cell] == pytest.approx(2.5, rel=1e-6)


def test_it_is_bounded_and_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 1000)  # many chunks
    got, wanted = planted((1000, 777), (999, 776), 9.0)
    got += np.float32(1e-3)
    found = error_map(got, wanted)

    assert found is not None
    assert len(found.cells) == len(found.row_starts) <= MAX_ROWS
    assert {len(row) for row in found.cells} == {len(found.column_starts)}
    assert len(found.column_starts) <= MAX_COLUMNS
    assert np.max(np.array(found.cells, float)) == found.cells[-1][-1] == pytest.approx(np.abs(got - wanted).max())
    assert np.min(np.array(found.cells, float)) > 0


def test_what_is_not_finite() -> None:
    wanted = np.array([[1.0, np.nan, np.inf], [1.0, 2.0, 3.0]])
    got = np.array([[1.0, np.nan, np.inf], [np.nan, 2.0, -np.inf]])
    found = error_map(got, wanted)

    assert found is not None
    assert found.cells == ((0.0, 0.0, 0.0), (None, 0.0, None))


def test_nothing_to_place() -> None:
    one = np.ones((1, 1), np.float32)
    assert error_map(one, one) is None
    assert error_map(np.ones((2, 3)), np.ones((3, 2))) is None


def test_only_where_it_is_asked_for() -> None:
    got, wanted = planted((4, 10), (2, 7))
    assert compare({"y": got}, {"y": wanted})["y"].error_map is None
    asked = compare({"y": got}, {"y": wanted}, map_errors=True)["y"].error_map
    assert asked is not None
    assert asked.to_dict()["cells"][2][7] == pytest.approx(2.5, rel=1e-6)
