"""Outputs against a reference: every difference counts, none is averaged away."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.accuracy.chunks import Pair
from pytest_trtgray.accuracy.differences import blindness, difference
from pytest_trtgray.accuracy.error_map import ErrorMap, error_map
from pytest_trtgray.accuracy.metrics import Metrics, WorstElement
from pytest_trtgray.accuracy.scan import root_mean_square, scan, summarise
from pytest_trtgray.accuracy.tolerance import Tolerance, make_tolerance
from pytest_trtgray.engines.dtypes import dtype_name, is_integer
from pytest_trtgray.engines.model import format_shape
from pytest_trtgray.findings import Finding, counted, errors, failure_message

EXACT = Tolerance(0.0, 0.0)
MAX_CLASSES = 1 << 19
"""Longer rows are not read as scores of classes: a chunk holds a whole row."""

Arrays = Mapping[str, NDArray[Any]]
PerOutput = Mapping[str, "Tolerance | Mapping[str, float] | tuple[float, float]"]


@dataclass(frozen=True)
class OutputComparison:
    """One output against its reference.

    Attributes:
        name: of the output.
        elements: how many were compared; 0 where shapes or dtypes differ.
        wrong: how many are over the tolerance.
        nan: how many of them are NaN or infinite on one side.
        tolerance: that was applied.
        worst: the worst elements, worst first.
        findings: why it fails, and what is worth knowing.
        metrics: how far it is from the reference; ``None`` where shapes or dtypes differ.
        error_map: where the errors are; ``None`` unless it was asked for.
    """

    name: str
    elements: int
    wrong: int
    nan: int
    tolerance: Tolerance
    worst: tuple[WorstElement, ...]
    findings: tuple[Finding, ...]
    metrics: Metrics | None
    error_map: ErrorMap | None = None

    @property
    def ok(self) -> bool:
        """Whether this output passes."""
        return not errors(self.findings)

    @property
    def relative_l2(self) -> float:
        """``|got - wanted| / |wanted|`` in the L2 norm; infinite where nothing could be compared."""
        found = self.metrics.relative_l2 if self.metrics else None
        return float("inf") if found is None else found

    @property
    def max_abs(self) -> float:
        """Largest absolute difference; infinite where nothing could be compared."""
        return float(self.metrics.max_abs.error) if self.metrics and self.metrics.max_abs else float("inf")


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

    def __getitem__(self, name: str) -> OutputComparison:
        """The comparison of one output: ``compare(...)["logits"].metrics.cosine``.

        Raises:
            KeyError: no such output on both sides.
        """
        found = next((output for output in self.outputs if output.name == name), None)
        if found is None:
            raise KeyError(f"no output {name!r} was compared; there are {[output.name for output in self.outputs]}")
        return found

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


@dataclass(frozen=True)
class ComparisonSeries:
    """Outputs of several runs, each against its reference.

    Attributes:
        runs: one comparison a run.
        findings: of all runs, each with its number; and for a side that has fewer runs, or none.
    """

    runs: tuple[Comparison, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether there are runs and everything is within tolerance."""
        return not errors(self.findings)

    def check(self) -> None:
        """Fail if an output of any run differs.

        Raises:
            AssertionError: names the runs, their outputs and their worst elements.
        """
        __tracebackhide__ = True
        if not self.ok:
            raise AssertionError(self.message())

    def message(self) -> str:
        """The verdict on the first line, then the evidence."""
        failing = errors(self.findings)
        return (
            failure_message("outputs differ", failing)
            if failing
            else f"outputs of {counted(len(self.runs), 'run')} agree"
        )


def compare(
    actual: Arrays,
    reference: Arrays,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    tolerance: Tolerance | None = None,
    per_output: PerOutput | None = None,
    equal_nan: bool = False,
    dtypes: Mapping[str, str] | None = None,
    precision: str = "float32",
    classifiers: Collection[str] | None = None,
    reference_name: str = "",
    map_errors: bool = False,
) -> Comparison:
    """Compare named arrays with their reference.

    An element passes if ``|got - wanted| <= atol + rtol * |wanted|``, in FP64 (that is ``numpy.isclose`` of the
    arrays as FP64; differences of 64-bit integers are exact). Missing, extra and renamed outputs, other shapes and
    other dtypes fail always. NaN and infinities fail, unless both sides agree on them and ``equal_nan`` asks for it.

    Both sides are read once and in chunks, so that they may be memory-mapped and larger than memory; where the
    tolerance depends on the reference's root mean square, as the default does, the reference is read once before.

    Args:
        actual: outputs under test, by name.
        reference: what they should be, by the same names.
        rtol: relative tolerance; without ``rtol``, ``atol`` and ``tolerance`` the default of ``precision`` applies
            (:mod:`pytest_trtgray.accuracy.tolerance`).
        atol: absolute tolerance.
        tolerance: instead of ``rtol`` and ``atol``.
        per_output: other tolerances for single outputs: a :class:`Tolerance`, ``{"rtol": …, "atol": …}``,
            or ``(rtol, atol)``; :func:`~pytest_trtgray.accuracy.noise.noise_floor` measures them.
        equal_nan: accept NaN and infinities where both have the same.
        dtypes: dtype that each output must have; by default the reference's.
        precision: of the engine, for the default tolerance.
        classifiers: outputs whose last axis is one score a class, for :meth:`Metrics.top_k`; by default those of
            two axes.
        reference_name: what the reference is, for messages.
        map_errors: whether to tell where the errors are (:attr:`OutputComparison.error_map`); reads both once more.

    Raises:
        ValueError: there is nothing to compare, ``tolerance`` comes with ``rtol`` or ``atol``, or ``per_output`` or
            ``classifiers`` names an output that does not exist.
    """
    if not reference:
        raise ValueError("nothing to compare: the reference has no outputs")
    for option, names in (("per_output", per_output), ("classifiers", classifiers)):
        unknown = set(names or ()) - set(reference)
        if unknown:
            raise ValueError(f"{option} names {sorted(unknown)}, the outputs are {sorted(reference)}")
    if tolerance is not None and (rtol is not None or atol is not None):
        raise ValueError("give tolerance, or rtol and atol, not both")
    default = make_tolerance(rtol, atol, precision) if tolerance is None else tolerance
    outputs = []
    for name, wanted in reference.items():
        if name not in actual:
            continue
        pair = np.asarray(actual[name]), np.asarray(wanted)
        outputs.append(
            _compare_output(
                name,
                *pair,
                _tolerance((per_output or {}).get(name), default),
                (dtypes or {}).get(name) or dtype_name(pair[1].dtype),
                equal_nan=equal_nan,
                classifier=pair[1].ndim == 2 if classifiers is None else name in classifiers,
                reference_name=reference_name,
                map_errors=map_errors,
            )
        )
    findings = [*_name_findings(actual, reference), *(finding for output in outputs for finding in output.findings)]
    return Comparison(tuple(outputs), tuple(findings))


def compare_many(actual: Iterable[Arrays], reference: Iterable[Arrays], **options: Any) -> ComparisonSeries:
    """Compare the outputs of several runs, such as one an input, with their references.

    Fails where there are no runs, and where one side has fewer than the other. Both may be generators; one run of
    each is held at a time.

    Args:
        actual: outputs under test, run by run.
        reference: what they should be, run by run.
        options: as of :func:`compare`, for every run.

    Raises:
        ValueError: as of :func:`compare`.
    """
    runs: list[Comparison] = []
    findings: list[Finding] = []
    ended = object()
    for got, wanted in itertools.zip_longest(actual, reference, fillvalue=ended):
        if got is ended or wanted is ended:
            short = "outputs under test end" if got is ended else "reference ends"
            what = f"the {short} after {counted(len(runs), 'run')}, the other side goes on"
            findings.append(Finding("error", "runs", what, "accuracy.run-count", remedy="Run both on the same inputs."))
            break
        comparison = compare(got, wanted, **options)  # type: ignore[arg-type]
        findings += [
            dataclasses.replace(finding, what=f"run {len(runs)}: {finding.what}") for finding in comparison.findings
        ]
        runs.append(comparison)
    if not runs and not findings:
        findings.append(
            Finding(
                "error",
                "runs",
                "nothing was compared: there are no runs",
                "accuracy.no-runs",
                remedy="A generator gives its runs only once; a list can be read again.",
            )
        )
    return ComparisonSeries(tuple(runs), tuple(findings))


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
    classifier: bool,
    reference_name: str,
    map_errors: bool,
) -> OutputComparison:
    problem = _form_problem(name, got, wanted, dtype)
    if problem is not None:
        return OutputComparison(name, 0, 0, 0, tolerance, (), (problem,), None)
    if tolerance.scaled and is_integer(wanted.dtype):
        tolerance = EXACT  # the next class or token is another one, however large its number
    scores = classifier and wanted.ndim > 0 and 2 <= wanted.shape[-1] <= MAX_CLASSES
    scores = scores and wanted.dtype.kind != "c" and not is_integer(wanted.dtype)
    pair = Pair(got, wanted, wanted.shape[-1] if scores else 0)
    applied = Tolerance(tolerance.rtol, tolerance.absolute(root_mean_square(pair) if tolerance.scaled else 0.0))
    totals = scan(pair, applied, equal_nan=equal_nan)
    metrics = summarise(totals, pair)
    if totals.wrong:
        findings = [difference(name, pair, totals, metrics, tolerance, reference_name)]
    else:
        findings = blindness(name, pair, totals)
    return OutputComparison(
        name=name,
        elements=pair.size,
        wrong=totals.wrong,
        nan=totals.nonfinite,
        tolerance=tolerance,
        worst=tuple(totals.worst),
        findings=tuple(findings),
        metrics=metrics,
        error_map=error_map(got, wanted) if map_errors else None,
    )


def _form_problem(name: str, got: NDArray[Any], wanted: NDArray[Any], dtype: str) -> Finding | None:
    if got.shape != wanted.shape:
        what = f"output {name!r} has shape {format_shape(got.shape)}, wanted {format_shape(wanted.shape)}"
        turned = sorted(got.shape) == sorted(wanted.shape)
        remedy = "The axes are in another order: look for a Transpose, or NHWC in place of NCHW." if turned else ""
        return Finding("error", name, what, "accuracy.shape", remedy=remedy)
    found = dtype_name(got.dtype)
    if found != dtype:
        return Finding("error", name, f"output {name!r} is {found}, wanted {dtype}", "accuracy.dtype")
    if not (_is_number(got) and _is_number(wanted)) or (got.dtype.kind == "c") != (wanted.dtype.kind == "c"):
        what = f"output {name!r} is {found}, its reference {dtype_name(wanted.dtype)}: there are no numbers to compare"
        return Finding("error", name, what, "accuracy.dtype")
    if got.size == 0:
        return Finding(
            "error",
            name,
            f"output {name!r} is empty (shape {format_shape(got.shape)}): nothing was compared",
            "accuracy.empty",
            remedy="Feed an input for which the output has elements.",
        )
    return None


def _is_number(array: NDArray[Any]) -> bool:
    return array.dtype.kind in "fc" or np.can_cast(array.dtype, np.float64)
