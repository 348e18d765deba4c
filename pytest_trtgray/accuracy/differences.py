"""What a difference looks like: where it clusters, what explains it, what to try."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.accuracy.chunks import Pair
from pytest_trtgray.accuracy.metrics import Metrics, Number, WorstElement, finite
from pytest_trtgray.accuracy.scan import Totals, stretch
from pytest_trtgray.accuracy.tolerance import Tolerance
from pytest_trtgray.engines.dtypes import is_integer
from pytest_trtgray.findings import Finding, counted

MIN_INFORMATIVE = 8
"""Below this many elements, equal values are no sign of anything."""
CHANCE = 1e-3
"""Wrong elements are said to cluster where scattered ones would do so less often than this, along one axis."""
WIDEST = 0.75
"""Part of an axis above which a stretch of it is no cluster."""
MOST = 0.75
"""Share of the wrong elements at one place that is told rather than the stretch that holds them all."""
EXPLAINED = 0.9
"""Share of the squared error from which on one factor or offset is its explanation."""
CLOSE = 4.0
"""Times the tolerance up to which the worst element is close to it."""
_AXES = {2: ("row", "column"), 4: ("row", "channel", "line", "column")}


def difference(
    name: str, pair: Pair, totals: Totals, metrics: Metrics, tolerance: Tolerance, reference_name: str
) -> Finding:
    """The finding of an output with elements over their tolerance.

    Args:
        name: of the output.
        pair: that was read.
        totals: at least one element is wrong.
        metrics: of the same.
        tolerance: as the user knows it, still scaled.
        reference_name: what was compared with; may be empty.
    """
    top, *others = totals.worst
    where = clusters(totals.axes, pair.shape, totals.wrong)
    lines = [f"output {name!r}: {totals.wrong} of {pair.size} elements differ; worst {_element(top)}"]
    lines += [_element(element) for element in others]
    if where:
        lines.append("; ".join(where))
    if totals.nonfinite:
        lines.append(f"{totals.nonfinite} of them are NaN or infinite")
    lines.append(_measured(metrics))
    lines.append(f"allowed per element: {tolerance}")
    if reference_name:
        lines.append(f"reference: {reference_name}")
    return Finding(
        severity="error",
        where=name,
        what="\n".join(lines),
        rule="accuracy.non-finite" if totals.nonfinite else "accuracy.difference",
        evidence={
            "wrong": totals.wrong,
            "elements": pair.size,
            "got": repr(top.got),
            "wanted": repr(top.wanted),
            "index": str(list(top.index)),
            "clusters": "; ".join(where),
            "reference": reference_name,
            "relative_l2": finite(metrics.relative_l2),
            "cosine": metrics.cosine,
            "gain": metrics.gain,
        },
        remedy=_remedy(pair, totals, metrics, where),
    )


def blindness(name: str, pair: Pair, totals: Totals) -> list[Finding]:
    """Agreement on a reference that carries no information proves little, and a report should say so."""
    if is_integer(pair.wanted_dtype) or pair.size < MIN_INFORMATIVE:
        return []
    if totals.low == totals.high:
        what = f"is the same number everywhere ({totals.low:.6g})"
    elif totals.two_values:
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


def clusters(axes: Sequence[NDArray[np.int64]], shape: Sequence[int], wrong: int) -> list[str]:
    """Where along the axes wrong elements gather, in words; nothing where chance could have put them there.

    >>> clusters([np.array([0, 0, 0, 5]), np.array([1, 1, 1, 1, 1])], (4, 5), 5)
    ['all in row 3 of 4']

    Args:
        axes: for each axis, how many wrong elements are at each place (in stretches of
            :func:`~pytest_trtgray.accuracy.scan.stretch` places).
        shape: of the output.
        wrong: how many there are.
    """
    names = _AXES.get(len(shape), ("row",) if len(shape) > 1 else ())
    found = []
    for axis, (counts, size) in enumerate(zip(axes, shape, strict=True)):
        said = _along(counts, size, wrong)
        if not said:
            continue
        share, places, several = said
        noun = ("in " + names[axis] if axis < len(names) else "at place") + ("s" if several else "")
        found.append(f"{share} {noun} {places} of {size}" + ("" if axis < len(names) else f" along axis {axis}"))
    return found


def _along(counts: NDArray[np.int64], size: int, wrong: int) -> tuple[str, str, bool] | None:
    """How many of the wrong elements gather where along one axis, and whether that is several places."""
    bins, width = counts.size, stretch(size)
    if bins < 2:
        return None
    hit = np.flatnonzero(counts)
    first, last = int(hit[0]), int(hit[-1])
    length = last - first + 1
    top = int(counts.argmax())
    share = float(counts[top] / wrong) if width == 1 and _is_unlikely(int(counts[top]), wrong, bins) else 0.0
    mostly = f"{math.floor(100 * share)} %", str(top), False
    if length > 1 and share >= MOST:
        return mostly
    if length <= WIDEST * bins and bins * (length / bins) ** wrong < CHANCE:
        low, high = first * width, min((last + 1) * width, size) - 1
        return ("all", f"{low} to {high}", True) if high > low else ("all", str(low), False)
    step = int(np.gcd.reduce(np.diff(hit))) if hit.size > 2 else 1
    if width == 1 and step > 1 and step * step ** -float(min(wrong, 1000)) < CHANCE:
        return "all", f"{first % step}, {first % step + step}, {first % step + 2 * step}, ...", True
    return mostly if share >= 0.5 else None


def _is_unlikely(count: int, wrong: int, bins: int) -> bool:
    """Whether so many of the wrong elements would hardly be at one of the places by chance (Chernoff's bound)."""
    share, even = count / wrong, 1 / bins
    if share <= even:
        return False
    rest = (1 - share) * math.log((1 - share) / (1 - even)) if share < 1 else 0.0
    return bins * math.exp(-wrong * (share * math.log(share / even) + rest)) < CHANCE


def _element(element: WorstElement) -> str:
    got, wanted = _shown(element.got), _shown(element.wanted)
    return f"at {list(element.index)}: got {got}, wanted {wanted} (+-{element.allowed:.3g})"


def _shown(value: Number) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _measured(metrics: Metrics) -> str:
    """The numbers that tell one kind of difference from another."""
    parts = [] if metrics.relative_l2 is None else [f"relative L2 error {metrics.relative_l2:.3g}"]
    if metrics.cosine is not None and metrics.gain is not None:
        parts.append(f"cosine {metrics.cosine:.6g} at {metrics.gain:.4g} times the reference")
    median = metrics.abs_errors.quantile(0.5)
    if median is not None and metrics.max_abs is not None:
        parts.append(f"absolute error: median {median:.3g}, largest {_shown(metrics.max_abs.error)}")
    if metrics.wrong_zeros:
        parts.append(f"{counted(metrics.wrong_zeros, 'element')} should be 0")
    agreement = metrics.top_k()
    if agreement is not None and agreement < 1:
        parts.append(f"the largest of a row is in its place in {100 * agreement:.4g} % of {sum(metrics.ranks)} rows")
    return "; ".join(parts) or "no element is finite on both sides"


def _remedy(pair: Pair, totals: Totals, metrics: Metrics, where: Sequence[str]) -> str:
    if totals.nonfinite:
        return "Look for the first layer that overflows or divides by zero; FP16 ends at 65504."
    if is_integer(pair.wanted_dtype):
        return "Indices change where scores tie: compare the scores that they are taken from as well."
    if cause := _cause(metrics):
        return cause
    if any(" in row" in said for said in where):
        return (
            "Rows of a batch should not depend on each other: check_batch_consistency runs them alone, without a "
            "reference."
        )
    if metrics.cosine is not None and metrics.cosine < 0.5 and metrics.compared >= MIN_INFORMATIVE:
        return (
            "The output has little in common with the reference: look for other weights, another layout or "
            "preprocessing of the input, or outputs that were exchanged."
        )
    own = "say so: tolerance=, or rtol= and atol= in the test, or trt_rtol and trt_atol in the ini file."
    if totals.worst[0].excess <= CLOSE:
        return f"This is close to the tolerance. noise_floor() measures what rounding alone does; if it is fine, {own}"
    return f"If this much is fine for the model, {own}"


def _cause(metrics: Metrics) -> str:
    """One factor or one offset that explains nearly all of the error."""
    if metrics.compared < MIN_INFORMATIVE or not metrics.l2 or not metrics.relative_l2:
        return ""
    gain, bias = (1.0 if metrics.gain is None else metrics.gain), metrics.bias or 0.0
    by_gain = ((gain - 1) / metrics.relative_l2) ** 2
    by_bias = metrics.compared * (bias / metrics.l2) ** 2
    if max(by_gain, by_bias) < EXPLAINED:
        return ""
    if by_gain >= by_bias:
        return (
            f"The output is {gain:.4g} times the reference and otherwise much the same: look for a scale that "
            "is missing or applied twice (normalisation of the input, dequantisation)."
        )
    return (
        f"The output is the reference with {bias:+.4g} everywhere: look for a bias, a mean or a zero point "
        "that is missing or applied twice."
    )
