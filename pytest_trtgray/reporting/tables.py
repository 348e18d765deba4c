"""Tables of numbers by tensor or module, for the command line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pytest_trtgray.accuracy.calibrations import Calibrations
    from pytest_trtgray.accuracy.fp16 import Fp16Ranges
    from pytest_trtgray.accuracy.quantisation import Quantisation
    from pytest_trtgray.timing.beside import Beside


def quantisation_table(found: Quantisation, limit: int) -> str:
    """The tensors with the worst signal to noise, a line each."""
    header = ("SNR dB", "clipped", "range", "bits", "type", "scales", "tensor", "read by")
    rows = [
        (
            _decibels(tensor.snr_db),
            f"{tensor.clipped:.2%}",
            _range(tensor.used),
            f"{tensor.bits:.1f}",
            tensor.dtype,
            tensor.granularity,
            tensor.tensor,
            ", ".join(reader.node for reader in tensor.readers) or "(an output)",
        )
        for tensor in found.sorted()[:limit]
    ]
    return _table(header, rows, right=4) + _more(len(found.tensors), limit)


def fp16_table(found: Fp16Ranges, limit: int) -> str:
    """The tensors that fit worst, a line each: what overflows, then the lowest signal to noise."""
    header = ("overflow", "subnormal", "to zero", "SNR dB", "smallest", "largest", "tensor", "node")
    worst = sorted(
        found.tensors, key=lambda tensor: (-tensor.overflow, math.inf if math.isnan(tensor.snr_db) else tensor.snr_db)
    )
    rows = [
        (
            f"{tensor.overflow:.2%}",
            f"{tensor.subnormal:.2%}",
            f"{tensor.flushed:.2%}",
            _decibels(tensor.snr_db),
            f"{tensor.low:.3g}",
            f"{tensor.high:.3g}",
            tensor.name,
            tensor.node or "(an input)",
        )
        for tensor in worst[:limit]
    ]
    return _table(header, rows, right=6) + _more(len(worst), limit)


def calibration_table(found: Calibrations, limit: int) -> str:
    """The methods as columns: the outputs' error, then each activation's scale, clipped share and signal to noise."""
    names = [method.name for method in found.methods]
    rows = [("(relative L2 error of the outputs)", *(f"{method.output_error:.3g}" for method in found.methods))]
    tensors = found.methods[0].tensors

    def spread(tensor: str) -> float:
        ratios = [method.tensors[tensor].snr_db for method in found.methods]
        return -(max(ratios) - min(ratios)) if all(map(math.isfinite, ratios)) else 0.0

    for tensor in sorted(tensors, key=spread)[:limit]:
        cells = [method.tensors[tensor] for method in found.methods]
        rows.append((tensor, *(f"{cell.scale:.3g}  {cell.clipped:.2%}  {_decibels(cell.snr_db)} dB" for cell in cells)))
    return _table(("scale, clipped, SNR", *names), rows) + _more(len(tensors), limit)


def beside_table(found: Beside, limit: int = 20, *, repeated: bool = True) -> str:
    """A PyTorch model's modules beside the engine's, a line each, those that take longest in either.

    Args:
        found: from ``trt_profiler.beside``.
        limit: lines at most.
        repeated: put the blocks of a network together.
    """
    header = ("torch us", "engine us", "gain", "coverage", "calls", "module")
    rows = _beside(found, repeated)
    cells = [
        (f"{row.torch_us:.1f}", _us(row.engine_us), _times(row), row.coverage, str(row.calls), row.name)
        for row in rows[:limit]
    ]
    return _table(header, cells, right=5) + (f"\n... and {len(rows) - limit} more" if len(rows) > limit else "")


def beside_rows(found: Beside, limit: int = 5) -> list[str]:
    """The same in words, for the end of a run: only what holds no other module, so that nothing counts twice."""
    return [
        f"{row.name}: {row.torch_us:.0f} us in PyTorch, {_us(row.engine_us)} us as engine, gain {_times(row)}"
        for row in [row for row in _beside(found, repeated=True) if row.is_innermost][:limit]
    ]


class _Beside(NamedTuple):
    """One line: a module, or what its own ``forward`` computes outside of inner modules."""

    name: str
    calls: int
    torch_us: float
    engine_us: float | None
    coverage: str
    is_innermost: bool


def _beside(found: Beside, repeated: bool) -> list[_Beside]:
    rows = []
    for row in found.repeated() if repeated else found.modules:
        name = row.module or "(model)"
        coverage = f"{row.coverage:.0%}" if row.engine_us else "-"
        rows.append(_Beside(name, row.calls, row.torch_us, row.engine_us, coverage, not row.has_inner))
        if row.has_inner:
            functions = f"{name} (functions)"
            rows.append(_Beside(functions, row.calls, row.torch_own_us, row.engine_own_us, "-", True))
    return sorted(rows, key=lambda row: -max(row.torch_us, row.engine_us or 0.0))


def _us(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _times(row: _Beside) -> str:
    return f"{row.torch_us / row.engine_us:.2f}" if row.engine_us else "-"


def _decibels(value: float) -> str:
    return "-" if math.isnan(value) else "exact" if math.isinf(value) else f"{value:.1f}"


def _range(used: tuple[float, float]) -> str:
    low, high = (f"{part:.0%}" for part in used)
    return low if low == high else f"{low}..{high}"


def _more(count: int, limit: int) -> str:
    return f"\n... and {count - limit} more (--limit)" if count > limit else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], right: int = 0) -> str:
    """Aligned columns; the first ``right`` to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def cells(row: Sequence[str]) -> Iterator[str]:
        for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
            yield cell.rjust(width) if index < right else cell.ljust(width)

    return "\n".join("  ".join(cells(row)).rstrip() for row in (header, *rows))
