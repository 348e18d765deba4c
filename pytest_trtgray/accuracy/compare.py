"""Outputs against a reference: every difference counts, none is averaged away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.accuracy.tolerance import Tolerance, make_tolerance
from pytest_trtgray.engines.dtypes import dtype_name
from pytest_trtgray.engines.model import format_shape
from pytest_trtgray.findings import Finding, errors, failure_message

CHUNK_ELEMENTS = 1 << 20
WORST_SHOWN = 3
EXACT = Tolerance(0.0, 0.0)
MIN_INFORMATIVE = 8
"""Below this many elements, equal values are no sign of anything."""

Arrays = Mapping[str, NDArray[Any]]
PerOutput = Mapping[str, "Tolerance | Mapping[str, float] | tuple[float, float]"]


@dataclass(frozen=True)
class WorstElement:
    """An element over its tolerance; ``excess`` is its error as a multiple of what was allowed."""

    index: tuple[int, ...]
    got: float
    wanted: float
    allowed: float

    @property
    def excess(self) -> float:
        """Error over allowed error; infinite for NaN, infinities and where nothing was allowed."""
        error = abs(self.got - self.wanted)
        return error / self.allowed if np.isfinite(error) and self.allowed > 0 else float("inf")


@dataclass(frozen=True)
class OutputComparison:
    """One output against its reference.

    Attributes:
        name: of the output.
        elements: how many were compared.
        wrong: how many are over the tolerance.
        nan: how many are NaN or infinite in one of the two.
        max_abs: largest absolute difference, over finite elements.
        rms_wanted: root mean square of the reference.
        relative_l2: ``|got - wanted| / |wanted|`` over finite elements, in the L2 norm.
        tolerance: that was applied.
        worst: the worst elements, worst first.
        findings: why it fails, and what is worth knowing.
    """

    name: str
    elements: int
    wrong: int
    nan: int
    max_abs: float
    rms_wanted: float
    relative_l2: float
    tolerance: Tolerance
    worst: tuple[WorstElement, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether this output passes."""
        return not errors(self.findings)


@dataclass(frozen=True)
class Comparison:
    """All outputs against their references.

    Attributes:
        outputs: one a common output.
        findings: of all outputs, and for outputs that are missing or extra.
    """

    outputs: tuple[OutputComparison, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether everything is within tolerance."""
        return not errors(self.findings)

    def check(self) -> None:
        """Fail if an output differs.

        Raises:
            AssertionError: names the outputs and their worst elements.
        """
        __tracebackhide__ = True
        if not self.ok:
            raise AssertionError(self.message())

    def message(self) -> str:
        """The verdict on the first line, then the evidence."""
        failing = errors(self.findings)
        return failure_message("outputs differ", failing) if failing else "outputs agree"


def compare(
    actual: Arrays,
    reference: Arrays,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    per_output: PerOutput | None = None,
    equal_nan: bool = False,
    dtypes: Mapping[str, str] | None = None,
    precision: str = "float32",
) -> Comparison:
    """Compare named arrays with their reference.

    An element passes if ``|got - wanted| <= atol + rtol * |wanted|``. Missing, extra and renamed outputs,
    other shapes and other dtypes fail always. NaN and infinities fail, unless both sides agree on them and
    ``equal_nan`` asks for it.

    Args:
        actual: outputs under test, by name.
        reference: what they should be, by the same names.
        rtol: relative tolerance; without ``rtol`` and ``atol`` the default of ``precision`` applies
            (:mod:`pytest_trtgray.accuracy.tolerance`).
        atol: absolute tolerance.
        per_output: other tolerances for single outputs: a :class:`Tolerance`, ``{"rtol": …, "atol": …}``,
            or ``(rtol, atol)``.
        equal_nan: accept NaN and infinities where both have the same.
        dtypes: dtype that each output must have; by default the reference's.
        precision: of the engine, for the default tolerance.

    Raises:
        ValueError: there is nothing to compare, or ``per_output`` names an output that does not exist.
    """
    if not reference:
        raise ValueError("nothing to compare: the reference has no outputs")
    unknown = set(per_output or ()) - set(reference)
    if unknown:
        raise ValueError(f"per_output names {sorted(unknown)}, the outputs are {sorted(reference)}")
    findings = _name_findings(actual, reference)
    default = make_tolerance(rtol, atol, precision)
    outputs = []
    for name, wanted in reference.items():
        if name not in actual:
            continue
        tolerance = _tolerance((per_output or {}).get(name), default)
        dtype = (dtypes or {}).get(name) or dtype_name(np.asarray(wanted).dtype)
        outputs.append(
            _compare_output(name, np.asarray(actual[name]), np.asarray(wanted), tolerance, dtype, equal_nan=equal_nan)
        )
    findings.extend(finding for output in outputs for finding in output.findings)
    return Comparison(tuple(outputs), tuple(findings))


def _tolerance(given: Any, default: Tolerance) -> Tolerance:
    if given is None:
        return default
    if isinstance(given, Tolerance):
        return given
    if isinstance(given, Mapping):
        extra = set(given) - {"rtol", "atol"}
        if extra:
            raise ValueError(f"per_output: unknown {sorted(extra)}; known are rtol and atol")
        return Tolerance(float(given.get("rtol", 0.0)), float(given.get("atol", 0.0)))
    rtol, atol = given
    return Tolerance(float(rtol), float(atol))


def _name_findings(actual: Arrays, reference: Arrays) -> list[Finding]:
    missing = [name for name in reference if name not in actual]
    extra = [name for name in actual if name not in reference]
    remedy = "Outputs are matched by name only; rename them in the export, or compare a subset explicitly."
    return [
        *(
            Finding("error", name, f"output {name!r} is missing; there are {sorted(actual)}",
                    "accuracy.output-missing", remedy=remedy)
            for name in missing
        ),
        *(
            Finding("error", name, f"output {name!r} is not in the reference, which has {sorted(reference)}",
                    "accuracy.output-extra", remedy=remedy)
            for name in extra
        ),
    ]  # fmt: skip


def _compare_output(
    name: str,
    got: NDArray[Any],
    wanted: NDArray[Any],
    tolerance: Tolerance,
    dtype: str,
    *,
    equal_nan: bool,
) -> OutputComparison:
    problem = _form_problem(name, got, wanted, dtype)
    if problem is not None:
        return OutputComparison(name, 0, 0, 0, 0.0, 0.0, 0.0, tolerance, (), (problem,))
    if got.dtype.kind == "c":
        # real and imaginary parts are compared apart
        got, wanted = (np.stack([part.real, part.imag], axis=-1) for part in (got, wanted))
    if tolerance.scaled and wanted.dtype.kind in "biu":
        tolerance = EXACT  # the next class or token is another one, however large its number
    rms, constant = _scale(wanted)
    allowed_abs = tolerance.absolute(rms)
    wrong = nan = 0
    max_abs = 0.0
    error_square = wanted_square = np.longdouble(0)
    worst: list[WorstElement] = []
    for offset, got_part, wanted_part in _chunks(got, wanted):
        finite = np.isfinite(got_part) & np.isfinite(wanted_part)
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.abs(got_part - wanted_part)
            allowed = allowed_abs + tolerance.rtol * np.abs(wanted_part)
            bad = ~(error <= allowed)
        if not finite.all():
            # inf - inf is NaN; the same infinity, or NaN on both sides, is agreement where it is asked for
            agree = (got_part == wanted_part) | (np.isnan(got_part) & np.isnan(wanted_part))
            bad = np.where(finite, bad, ~agree if equal_nan else True)
            nan += int(np.count_nonzero(~finite & bad))
        kept = error[finite]
        max_abs = max(max_abs, float(kept.max(initial=0.0)))
        error_square += _square(kept)
        wanted_square += _square(wanted_part[finite])
        count = int(np.count_nonzero(bad))
        if count:
            wrong += count
            worst = _merge_worst(worst, offset, got_part, wanted_part, allowed, bad, got.shape)
    with np.errstate(invalid="ignore"):
        relative_l2 = (
            float(np.sqrt(np.divide(error_square, wanted_square))) if wanted_square else float(error_square > 0)
        )
    findings = []
    if wrong:
        findings.append(_difference(name, got, tolerance, wrong, nan, relative_l2, worst))
    else:
        findings.extend(_blindness(name, wanted, constant=constant))
    return OutputComparison(
        name, int(got.size), wrong, nan, max_abs, rms, relative_l2, tolerance, tuple(worst), tuple(findings)
    )


def _form_problem(name: str, got: NDArray[Any], wanted: NDArray[Any], dtype: str) -> Finding | None:
    if got.shape != wanted.shape:
        return Finding(
            "error",
            name,
            f"output {name!r} has shape {format_shape(got.shape)}, wanted {format_shape(wanted.shape)}",
            "accuracy.shape",
        )
    if dtype_name(got.dtype) != dtype:
        return Finding("error", name, f"output {name!r} is {dtype_name(got.dtype)}, wanted {dtype}", "accuracy.dtype")
    if got.size == 0:
        return Finding(
            "error",
            name,
            f"output {name!r} is empty (shape {format_shape(got.shape)}): nothing was compared",
            "accuracy.empty",
            remedy="Feed an input for which the output has elements.",
        )
    return None


def _square(values: NDArray[Any]) -> Any:
    """Sum of squares, as a number that does not overflow where float64 would."""
    with np.errstate(over="ignore"):
        total = np.dot(values, values)
    return np.longdouble(total) if np.isfinite(total) else np.sum(np.square(values.astype(np.longdouble)))


def _chunks(got: NDArray[Any], wanted: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.float64], NDArray[np.float64]]]:
    flat_got, flat_wanted = got.reshape(-1), wanted.reshape(-1)
    # 64-bit integers do not fit into float64
    exact = got.dtype.kind in "iu" and got.dtype.itemsize == 8
    working: Any = np.longdouble if exact else np.float64
    for offset in range(0, flat_got.size, CHUNK_ELEMENTS):
        part = slice(offset, offset + CHUNK_ELEMENTS)
        yield offset, flat_got[part].astype(working), flat_wanted[part].astype(working)


def _scale(wanted: NDArray[Any]) -> tuple[float, bool]:
    """Root mean square over finite elements, and whether all elements are one number."""
    square, count, low, high = np.longdouble(0), 0, np.inf, -np.inf
    for _, part, _ in _chunks(wanted, wanted):
        kept = part[np.isfinite(part)]
        square += _square(kept)
        count += kept.size
        low, high = min(low, kept.min(initial=np.inf)), max(high, kept.max(initial=-np.inf))
    return float(np.sqrt(square / count)) if count else 0.0, bool(low == high)


def _blindness(name: str, wanted: NDArray[Any], *, constant: bool) -> list[Finding]:
    """Agreement on a reference that carries no information proves little, and a report should say so."""
    if wanted.dtype.kind in "biu" or wanted.size < MIN_INFORMATIVE:
        return []
    if constant:
        what = f"is the same number everywhere ({float(wanted.flat[0]):.6g})"
    elif np.unique(wanted.reshape(-1)[:CHUNK_ELEMENTS].astype(np.float32)).size <= 2:
        what = "has only two different values, like a saturated softmax or sigmoid"
    else:
        return []
    return [
        Finding(
            "warning",
            name,
            f"the reference of output {name!r} {what}: agreement with it says little",
            "accuracy.blind-reference",
            remedy="Check that the model has trained weights and that the input is realistic; compare the tensor "
            "before the last activation if that is what saturates.",
        )
    ]


def _merge_worst(
    worst: list[WorstElement],
    offset: int,
    got: NDArray[np.float64],
    wanted: NDArray[np.float64],
    allowed: NDArray[np.float64],
    bad: NDArray[np.bool_],
    shape: tuple[int, ...],
) -> list[WorstElement]:
    where = np.flatnonzero(bad)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        excess = np.abs(got[where] - wanted[where]) / allowed[where]
    # NaN sorts last, so it counts as the largest
    order = np.argsort(np.nan_to_num(excess, nan=np.inf), kind="stable")[::-1][:WORST_SHOWN]
    found = [
        WorstElement(
            tuple(int(axis) for axis in np.unravel_index(int(where[i]) + offset, shape)),
            float(got[where[i]]),
            float(wanted[where[i]]),
            float(allowed[where[i]]),
        )
        for i in order
    ]
    return sorted([*worst, *found], key=lambda element: -element.excess)[:WORST_SHOWN]


def _difference(
    name: str,
    got: NDArray[Any],
    tolerance: Tolerance,
    wrong: int,
    nan: int,
    relative_l2: float,
    worst: list[WorstElement],
) -> Finding:
    top = worst[0]
    lines = [
        f"output {name!r}: {wrong} of {got.size} elements differ; "
        f"worst at {list(top.index)}: got {top.got:.6g}, wanted {top.wanted:.6g} (+-{top.allowed:.3g})"
    ]
    lines += [
        f"at {list(element.index)}: got {element.got:.6g}, wanted {element.wanted:.6g} (+-{element.allowed:.3g})"
        for element in worst[1:]
    ]
    if nan:
        lines.append(f"{nan} of them are NaN or infinite")
    lines.append(f"relative L2 error {relative_l2:.3g}; allowed per element: {tolerance}")
    remedy = (
        "Look for the first layer that overflows or divides by zero; FP16 ends at 65504."
        if nan
        else "If this much is fine for the model, say so: rtol= and atol= in the test, or trt_rtol and "
        "trt_atol in the ini file."
    )
    return Finding(
        severity="error",
        where=name,
        what="\n".join(lines),
        rule="accuracy.non-finite" if nan else "accuracy.difference",
        evidence={
            "wrong": wrong,
            "elements": int(got.size),
            "got": repr(top.got),
            "wanted": repr(top.wanted),
            "index": str(list(top.index)),
            "relative_l2": relative_l2,
        },
        remedy=remedy,
    )
