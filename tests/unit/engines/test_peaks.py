from __future__ import annotations

import pytest

from pytest_trtgray.engines.peaks import PEAKS, DevicePeak, peak_of


@pytest.mark.parametrize("name", sorted(PEAKS))
def test_every_entry_is_plausible(name: str) -> None:
    """Orders of magnitude: a slip of a factor 1000, or a rate with sparsity, would show."""
    peak = PEAKS[name]

    assert 200e9 <= peak.bandwidth <= 10e12
    assert 5e12 <= peak.vector <= 150e12
    assert peak.vector <= peak.tensor.get("tf32", peak.vector) <= peak.tensor["float16"] / 1.9
    for narrow in ("int8", "fp8"):
        assert peak.tensor.get(narrow, 2 * peak.tensor["float16"]) == pytest.approx(
            2 * peak.tensor["float16"], rel=0.02
        )
    assert set(peak.tensor) <= {"tf32", "float16", "int8", "fp8", "fp4"}
    assert "NVIDIA" in peak.source


def test_numbers_of_a_data_sheet() -> None:
    h200 = peak_of("NVIDIA H200")

    assert h200 is not None
    assert (h200.bandwidth, h200.vector, h200.tensor["float16"]) == (4.8e12, 67e12, 989.4e12)


@pytest.mark.parametrize(
    "name",
    ["", "NVIDIA H300", "NVIDIA H200 MIG 1g.18gb", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 D",
     "nvidia h200", "Intel(R) Xeon(R)"],
)  # fmt: skip
def test_nothing_is_guessed_from_a_name_that_looks_alike(name: str) -> None:
    assert peak_of(name) is None


class TestRate:
    PEAK = DevicePeak(1e12, 10e12, {"tf32": 80e12, "float16": 160e12, "int8": 320e12}, "made up")

    @pytest.mark.parametrize(
        ("precision", "is_matrix", "tf32", "expected"),
        [
            ("float16", True, True, 160e12),
            ("bfloat16", True, True, 160e12),
            ("int8", True, True, 320e12),
            ("uint8", True, True, 320e12),
            ("float32", True, True, 80e12),
            ("float32", True, False, 10e12),
            ("float16", False, True, 10e12),
            ("", False, True, 10e12),
            ("fp8", True, True, None),
            ("", True, True, None),
        ],
    )
    def test_by_type(self, precision: str, is_matrix: bool, tf32: bool, expected: float | None) -> None:
        assert self.PEAK.rate(precision, is_matrix=is_matrix, tf32=tf32) == expected

    def test_a_gpu_without_tf32(self) -> None:
        turing = peak_of("Tesla T4")

        assert turing is not None
        assert turing.rate("float32", is_matrix=True, tf32=True) == turing.vector
