"""Properties that outputs have by themselves: checks that need no reference.

====================  ==========================================================================================
determinism           the same input gives the same outputs, also after another input
batch consistency     a row of a batch has the outputs that it has alone
row permutation       exchanging rows of a batch exchanges rows of the outputs and changes nothing else
padding               what a mask hides changes nothing, neither its content nor its length
====================  ==========================================================================================

They find what a comparison with a reference at one shape cannot: kernels that are wrong at some batch sizes, rows that
see each other, buffers that keep what the last input left in them. Testing calls such properties metamorphic relations
(Chen, Cheung and Yiu, *Metamorphic testing: a new approach for generating next test cases*, HKUST-CS98-01, 1998).

An engine of another batch size runs other kernels, whose sums are in another order: rows are equal within rounding,
not bit for bit. The default tolerance is that of the engine's precision (:mod:`pytest_trtgray.accuracy.tolerance`), but
not the wide one of quantised precisions: the scales that cause their error are the same in both runs, and what
differs is at most a rounding here and there. INT8 and INT4 get that of FP16, FP8 and FP4 that of BF16.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.accuracy.chunks import Pair
from pytest_trtgray.accuracy.compare import EXACT, PerOutput, compare
from pytest_trtgray.accuracy.noise import Runnable
from pytest_trtgray.accuracy.scan import root_mean_square
from pytest_trtgray.accuracy.tolerance import Tolerance, default_tolerance, working_precision
from pytest_trtgray.engines.base import Engine, Feed, to_numpy
from pytest_trtgray.engines.dtypes import is_integer
from pytest_trtgray.engines.model import ShapeProfile, TensorSpec
from pytest_trtgray.engines.profiles import requested
from pytest_trtgray.errors import NotApplicableError
from pytest_trtgray.findings import Finding, Severity, errors, failure_message, some

ROWS = 4
"""Rows of a batch that are run alone."""
_CONSISTENT = {"int8": "float16", "int4": "float16", "fp8": "bfloat16", "fp4": "bfloat16"}

Outputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Relation:
    """What became of one check.

    Attributes:
        name: such as ``batch consistency``.
        findings: why it fails, and what is worth knowing.
        outputs: that were looked at.
        inapplicable: why the check makes no sense here; empty where it was made.
    """

    name: str
    findings: tuple[Finding, ...] = ()
    outputs: tuple[str, ...] = ()
    inapplicable: str = ""

    @property
    def ok(self) -> bool:
        """Whether it was made and holds."""
        return not self.inapplicable and not errors(self.findings)

    def check(self) -> None:
        """Fail if the relation does not hold.

        Raises:
            AssertionError: it does not.
            NotApplicableError: it makes no sense for this engine or input; the plugin then skips the test.
        """
        __tracebackhide__ = True
        if self.inapplicable:
            raise NotApplicableError(self.name, self.inapplicable)
        if not self.ok:
            raise AssertionError(self.message())

    def message(self) -> str:
        """The verdict on the first line, then the evidence."""
        failing = errors(self.findings)
        if failing:
            return failure_message(f"no {self.name}", failing)
        return f"{self.name}: {self.inapplicable or 'holds for ' + some(self.outputs)}"


@dataclass(frozen=True)
class Relations:
    """What became of several checks of one engine.

    Attributes:
        relations: one a check.
    """

    relations: tuple[Relation, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of all of them."""
        return tuple(finding for relation in self.relations for finding in relation.findings)

    @property
    def ok(self) -> bool:
        """Whether none fails; those that make no sense here do not count."""
        return not errors(self.findings)

    def check(self) -> None:
        """Fail if a relation does not hold.

        Raises:
            AssertionError: names it and the rows that differ.
            NotApplicableError: none of them makes sense for this engine and input.
        """
        __tracebackhide__ = True
        if not self.ok:
            raise AssertionError(self.message())
        if all(relation.inapplicable for relation in self.relations):
            raise NotApplicableError("relations", self.summary())

    def message(self) -> str:
        """The verdict on the first line, then the evidence."""
        broken = [relation.name for relation in self.relations if errors(relation.findings)]
        return failure_message(f"no {' or '.join(broken)}", errors(self.findings)) if broken else self.summary()

    def summary(self) -> str:
        """One line: what holds, what does not, what was not checked and why."""
        held = [relation.name for relation in self.relations if relation.ok]
        broken = [relation.name for relation in self.relations if errors(relation.findings)]
        parts = [f"no {name}" for name in broken]
        parts += [f"{', '.join(held)} {'hold' if len(held) > 1 else 'holds'}"] if held else []
        reasons: dict[str, list[str]] = {}
        for relation in self.relations:
            if relation.inapplicable:
                reasons.setdefault(relation.inapplicable, []).append(relation.name)
        parts += [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]
        return "; ".join(parts)


@dataclass(frozen=True)
class _Claim:
    """Outputs that have to be equal to others.

    Attributes:
        what: in words.
        got: the outputs.
        wanted: the others.
        scale: outputs whose root mean square scales the tolerance: a single row may be near zero by chance.
    """

    what: str
    got: Outputs
    wanted: Outputs
    scale: Outputs


@dataclass(frozen=True)
class _Kind:
    """One of the relations: how it is called, and how its claims are made from what is run.

    Attributes:
        name: for people.
        rule: of its findings.
        remedy: of its findings.
        claims: runs an engine, and says what has to be equal.
    """

    name: str
    rule: str
    remedy: str
    claims: Callable[..., Iterator[_Claim]]


def check_determinism(
    engine: Engine, feed: Feed, *, runs: int = 2, tolerance: Tolerance | None = None, reference: Runnable | None = None
) -> Relation:
    """Whether the same input gives the same outputs, with another input in between.

    Args:
        engine: runnable on this machine.
        feed: the input.
        runs: how often it is run.
        tolerance: by how much outputs may differ; by default not by one bit.
        reference: where this shows the same difference, the model is made so, and the check makes no sense.
    """
    if runs < 2:
        raise ValueError(f"runs must be at least 2, not {runs!r}")
    return _checked(
        _DETERMINISM, _subject(engine, feed), reference, tolerance or EXACT, runs=runs, bits=tolerance is None
    )


def check_batch_consistency(
    engine: Engine,
    feed: Feed,
    *,
    rows: int = ROWS,
    tolerance: Tolerance | None = None,
    per_output: PerOutput | None = None,
    reference: Runnable | None = None,
) -> Relation:
    """Whether rows of a batch have the outputs that they have alone.

    The batch is the first axis of the inputs whose first dimension is dynamic. A row alone is a batch of the
    smallest size that the profile allows, filled with that row. Outputs without a row for each row of the input are
    left out.

    Args:
        engine: runnable on this machine.
        feed: two rows or more.
        rows: how many rows are run alone; the first and the last are among them.
        tolerance: by default that of the engine's precision.
        per_output: other tolerances for single outputs.
        reference: where this shows the same difference, the model is made so, and the check makes no sense.
    """
    allowed = tolerance or consistency_tolerance(engine)
    return _checked(_BATCH, _subject(engine, feed), reference, allowed, per_output, rows=rows)


def check_row_permutation(
    engine: Engine,
    feed: Feed,
    *,
    seed: int = 0,
    tolerance: Tolerance | None = None,
    per_output: PerOutput | None = None,
    reference: Runnable | None = None,
) -> Relation:
    """Whether exchanging rows of the inputs exchanges rows of the outputs and changes nothing else.

    Args:
        engine: runnable on this machine.
        feed: two rows or more.
        seed: of the order.
        tolerance: by default that of the engine's precision.
        per_output: other tolerances for single outputs.
        reference: where this shows the same difference, the model is made so, and the check makes no sense.
    """
    allowed = tolerance or consistency_tolerance(engine)
    return _checked(_PERMUTATION, _subject(engine, feed), reference, allowed, per_output, seed=seed)


def check_padding(
    engine: Engine,
    feed: Feed,
    *,
    mask: str = "",
    hidden: float = 0,
    tolerance: Tolerance | None = None,
    per_output: PerOutput | None = None,
    reference: Runnable | None = None,
) -> Relation:
    """Whether what a mask hides changes nothing, neither by its content nor by being there.

    The second half of the mask's last axis is hidden. Then the hidden part of the other inputs is filled with other
    values; and, where the profile allows the shorter input, it is cut off. What is compared are the outputs at the
    visible positions, and whole outputs that have no such axis.

    Args:
        engine: runnable on this machine.
        feed: one with a sequence of two or more.
        mask: input that says what counts; by default the one with ``mask`` in its name.
        hidden: its value for what does not count.
        tolerance: by default that of the engine's precision.
        per_output: other tolerances for single outputs.
        reference: where this shows the same difference, the model is made so, and the check makes no sense.
    """
    allowed = tolerance or consistency_tolerance(engine)
    return _checked(_PADDING, _subject(engine, feed), reference, allowed, per_output, mask=mask, hidden=hidden)


def check_relations(
    engine: Engine,
    feed: Feed,
    *,
    rows: int = ROWS,
    tolerance: Tolerance | None = None,
    reference: Runnable | None = None,
    budget_s: float | None = None,
) -> Relations:
    """All four checks.

    Here, outputs that are not the same bit for bit from run to run are a warning as long as they are within the
    tolerance.

    Args:
        engine: runnable on this machine.
        feed: the input.
        rows: of a batch that are run alone.
        tolerance: by default that of the engine's precision.
        reference: where this shows the same difference, the model is made so, and the check makes no sense.
        budget_s: seconds after which no further check is begun.
    """
    started = time.monotonic()
    subject, allowed = _subject(engine, feed), tolerance or consistency_tolerance(engine)
    found: list[Relation] = []
    for kind in (_DETERMINISM, _BATCH, _PERMUTATION, _PADDING):
        if budget_s is not None and time.monotonic() - started > budget_s:
            found.append(Relation(kind.name, inapplicable=f"left out, the checks before took {budget_s:g} s or more"))
            continue
        options: dict[str, Any] = {"rows": rows} if kind is _BATCH else {}
        found.append(_checked(kind, subject, reference, allowed, **options))
    return Relations(tuple(found))


@dataclass(frozen=True)
class _Subject:
    """What is run: the engine, or its reference in its place.

    Attributes:
        run: computes outputs.
        inputs: of the engine.
        outputs: of the engine.
        profiles: of the engine.
        feed: the input, on the host.
    """

    run: Callable[[Feed], Outputs]
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    profiles: Sequence[ShapeProfile]
    feed: Mapping[str, NDArray[Any]]

    @functools.cached_property
    def whole(self) -> dict[str, NDArray[Any]]:
        """The outputs of the whole feed; copies, in case the next run uses their memory."""
        return {name: np.array(value) for name, value in self.run(self.feed).items()}

    def allows(self, feed: Mapping[str, NDArray[Any]]) -> bool:
        """Whether a profile contains the feed."""
        shapes = requested(self.inputs, feed)
        return any(all(profile[name].contains(shape) for name, shape in shapes.items()) for profile in self.profiles)

    def smallest(self, name: str, axis: int) -> int:
        """The smallest size of an input's axis in a profile that contains the feed."""
        shapes = requested(self.inputs, self.feed)
        fitting = [p for p in self.profiles if all(p[other].contains(shape) for other, shape in shapes.items())]
        return min(profile[name].min[axis] for profile in fitting or self.profiles)

    def has_rows(self, name: str, value: NDArray[Any], rows: int) -> bool:
        """Whether an output has a row for each row of the input."""
        spec = next((spec for spec in self.outputs if spec.name == name), None)
        dynamic = spec is None or not spec.shape or isinstance(spec.shape[0], str)
        return dynamic and value.ndim > 0 and value.shape[0] == rows


def _subject(engine: Engine, feed: Feed) -> _Subject:
    engine.require_runnable()
    info = engine.info
    arrays = {name: to_numpy(name, value) for name, value in feed.items()}
    return _Subject(engine.run, info.inputs, info.outputs, info.profiles, arrays)


def _checked(
    kind: _Kind,
    subject: _Subject,
    reference: Runnable | None,
    tolerance: Tolerance,
    per_output: PerOutput | None = None,
    **options: Any,
) -> Relation:
    """Make a check; where it fails, see whether the reference fails it as well."""
    try:
        findings, outputs = _judged(kind, subject, tolerance, per_output, **options)
        if errors(findings) and reference is not None:
            twin = dataclasses.replace(subject, run=reference.run)
            others, _ = _judged(kind, twin, tolerance, per_output, **options)
            excused = {finding.where for finding in errors(others)}
            findings = [finding for finding in findings if finding.where not in excused]
            outputs = [name for name in outputs if name not in excused]
            if not outputs:
                return Relation(kind.name, inapplicable="the reference does not have this property either")
    except NotApplicableError as error:
        return Relation(kind.name, inapplicable=error.reason)
    return Relation(kind.name, tuple(findings), tuple(outputs))


def _judged(
    kind: _Kind,
    subject: _Subject,
    tolerance: Tolerance,
    per_output: PerOutput | None,
    *,
    bits: bool = False,
    **options: Any,
) -> tuple[list[Finding], list[str]]:
    """The findings of a check, and which outputs it looked at.

    Args:
        kind: of check.
        subject: what is run.
        tolerance: of all outputs.
        per_output: of single ones.
        bits: whether outputs of the same input that are not the same bit for bit are an error, not a warning.
        options: of the check.
    """
    findings: list[Finding] = []
    looked_at: dict[str, None] = {}
    for claim in kind.claims(subject, **options):
        names = [name for name, value in claim.wanted.items() if value.size]
        if not names:
            continue
        got, wanted = ({name: side[name] for name in names} for side in (claim.got, claim.wanted))
        looked_at.update(dict.fromkeys(wanted))
        allowed = {name: _scaled((per_output or {}).get(name, tolerance), claim.scale[name]) for name in names}
        comparison = compare(got, wanted, per_output=allowed, equal_nan=True)
        found = errors(comparison.findings)
        differing = {finding.where for finding in found}
        if kind is _DETERMINISM:
            found += [
                _not_bit_for_bit(name, comparison[name].max_abs, "error" if bits else "warning")
                for name in wanted
                if name not in differing and not _same_bits(got[name], wanted[name])
            ]
        findings += [
            dataclasses.replace(finding, what=f"{claim.what}: {finding.what}", rule=kind.rule, remedy=kind.remedy)
            for finding in found
        ]
    if not looked_at:
        raise NotApplicableError(kind.name, "no output has elements that could be compared")
    return findings, list(looked_at)


def consistency_tolerance(engine: Engine) -> Tolerance:
    """By how much two runs of one engine may differ at different batch sizes; see the module's text."""
    precision = working_precision(engine)
    return default_tolerance(_CONSISTENT.get(precision, precision))


def _scaled(tolerance: Any, output: NDArray[Any]) -> Any:
    """A tolerance with the scale of an output; integers keep a scaled one, which is exact for them."""
    if not isinstance(tolerance, Tolerance) or not tolerance.scaled or is_integer(output.dtype):
        return tolerance
    return Tolerance(tolerance.rtol, tolerance.absolute(root_mean_square(Pair(output, output))))


def _same_bits(got: NDArray[Any], wanted: NDArray[Any]) -> bool:
    left, right = (np.ascontiguousarray(side).reshape(-1).view(np.uint8) for side in (got, wanted))
    return np.array_equal(left, right)


def _not_bit_for_bit(name: str, max_abs: float, severity: Severity) -> Finding:
    how = f"by up to {max_abs:.3g}" if max_abs else "only in the sign of zeros or in what a NaN carries"
    return Finding(severity, name, f"output {name!r} is not the same bit for bit, it differs {how}", "")


def _determinism_claims(subject: _Subject, runs: int = 2) -> Iterator[_Claim]:
    values = {spec.name for spec in subject.inputs if not spec.is_shape}
    other = {name: np.flip(array) if name in values else array for name, array in subject.feed.items()}
    first = subject.whole
    for index in range(2, runs + 1):
        subject.run(other)
        yield _Claim(f"run {index} of the same input", subject.run(subject.feed), first, first)


def _batch_claims(subject: _Subject, rows: int = ROWS) -> Iterator[_Claim]:
    names, count = _batched(subject)
    size = max(subject.smallest(name, 0) for name in names)
    whole = subject.whole
    for row in sorted({round(place) for place in np.linspace(0, count - 1, min(max(rows, 1), count))}):
        alone = subject.run(
            {
                name: np.repeat(array[row : row + 1], size, axis=0) if name in names else array
                for name, array in subject.feed.items()
            }
        )
        wanted = {
            name: value
            for name, value in alone.items()
            if subject.has_rows(name, value, size) and subject.has_rows(name, whole[name], count)
        }
        got = {name: np.repeat(whole[name][row : row + 1], size, axis=0) for name in wanted}
        _require_rows(wanted)
        yield _Claim(f"row {row} of a batch of {count}, against the same row alone", got, wanted, whole)


def _permutation_claims(subject: _Subject, seed: int = 0) -> Iterator[_Claim]:
    names, count = _batched(subject)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(count)
    if (order == np.arange(count)).all():
        order = order[::-1]
    whole = subject.whole
    got = subject.run({name: array[order] if name in names else array for name, array in subject.feed.items()})
    wanted = {name: value[order] for name, value in whole.items() if subject.has_rows(name, value, count)}
    _require_rows(wanted)
    yield _Claim(f"{count} rows in the order {_shown_order(order)}", got, wanted, whole)


def _shown_order(order: NDArray[np.intp]) -> str:
    """The first few places of a permutation."""
    return ", ".join(map(str, order[:8])) + (", ..." if order.size > 8 else "")


def _batched(subject: _Subject) -> tuple[set[str], int]:
    """Inputs whose first axis is the batch, and how many rows they have."""
    first = {
        spec.name: spec.shape[0]
        for spec in subject.inputs
        if spec.shape and not spec.is_shape and isinstance(spec.shape[0], str)
    }
    if not first:
        raise NotApplicableError("batch", "no input has a dynamic first dimension")
    # an engine file does not keep symbols
    symbol = next((symbol for symbol in first.values() if symbol != "?"), "?")
    names = {name for name, found in first.items() if found in (symbol, "?")}
    sizes = {subject.feed[name].shape[0] for name in names}
    if len(sizes) != 1:
        raise NotApplicableError("batch", f"the inputs {some(sorted(names))} do not have equally many rows")
    (count,) = sizes
    if count < 2:
        raise NotApplicableError("batch", "the input has one row; two or more are needed")
    return names, count


def _require_rows(outputs: Outputs) -> None:
    if not outputs:
        raise NotApplicableError("batch", "no output has a row for each row of the input")


def _padding_claims(subject: _Subject, mask: str = "", hidden: float = 0) -> Iterator[_Claim]:
    name = _mask_input(subject, mask)
    length = subject.feed[name].shape[-1]
    if length < 2:
        raise NotApplicableError("padding", "the sequence has one position; two or more are needed")
    axes = {spec.name: _same_axes(subject, spec, name, length) for spec in subject.inputs}
    if not any(found for other, found in axes.items() if other != name):
        raise NotApplicableError("padding", f"no other input has the last axis of {name!r}")
    visible = max(length // 2, subject.smallest(name, -1))
    visible = visible if visible < length else length // 2
    masked = dict(subject.feed)
    masked[name] = masked[name].copy()
    masked[name][..., visible:] = hidden
    whole = dataclasses.replace(subject, feed=masked).whole
    shown = {
        spec.name: _cut(whole[spec.name], _output_axes(subject, spec, whole[spec.name], name, length), visible)
        for spec in subject.outputs
    }
    other = {
        key: array if key == name else _refilled(array, axes.get(key, ()), visible) for key, array in masked.items()
    }
    where = f"positions {visible} to {length - 1} of {name!r} hidden"
    if any(not np.array_equal(other[key], array) for key, array in masked.items()):
        changed = subject.run(other)
        cut = {
            spec.name: _cut(changed[spec.name], _output_axes(subject, spec, changed[spec.name], name, length), visible)
            for spec in subject.outputs
        }
        yield _Claim(f"{where}, with other values there", cut, shown, whole)
    short = {key: _cut(array, axes.get(key, ()), visible) for key, array in masked.items()}
    if subject.allows(short):
        wanted = {
            key: value for key, value in subject.run(short).items() if key in shown and value.shape == shown[key].shape
        }
        if wanted:
            yield _Claim(f"{where}, against an input that ends there", shown, wanted, whole)


def _mask_input(subject: _Subject, given: str) -> str:
    names = [spec.name for spec in subject.inputs if not spec.is_shape and subject.feed[spec.name].ndim]
    if given:
        if given not in names:
            raise ValueError(f"mask={given!r} is no input; the inputs are {names}")
        return given
    found = [name for name in names if "mask" in name.lower()]
    if not found:
        raise NotApplicableError("padding", "no input is called a mask")
    if len(found) > 1:
        raise NotApplicableError("padding", f"several inputs are called masks, {some(found)}; name one with mask=")
    return found[0]


def _same_axes(subject: _Subject, spec: TensorSpec, mask: str, length: int) -> tuple[int, ...]:
    """The axes of an input that are the mask's last one: of the same symbol, or without symbols of the same size."""
    if spec.is_shape:
        return ()
    own = next(other.shape[-1] for other in subject.inputs if other.name == mask)
    sizes = subject.feed[spec.name].shape
    return tuple(
        axis
        for axis, dim in enumerate(spec.shape)
        if (dim == own if own != "?" and isinstance(own, str) else axis > 0 and sizes[axis] == length)
        and isinstance(dim, str) == isinstance(own, str)
    )


def _output_axes(subject: _Subject, spec: TensorSpec, value: NDArray[Any], mask: str, length: int) -> tuple[int, ...]:
    """The axes of an output along the sequence; its own symbol may be another one."""
    fixed = {axis for axis, dim in enumerate(spec.shape) if isinstance(dim, int)}
    own = next(other.shape[-1] for other in subject.inputs if other.name == mask)
    return tuple(
        axis
        for axis, size in enumerate(value.shape)
        if axis > 0 and size == length and (axis not in fixed or isinstance(own, int))
    )


def _cut(array: NDArray[Any], axes: Sequence[int], length: int) -> NDArray[Any]:
    part = tuple(slice(length) if axis in axes else slice(None) for axis in range(array.ndim))
    return np.ascontiguousarray(array[part])


def _refilled(array: NDArray[Any], axes: Sequence[int], visible: int) -> NDArray[Any]:
    """Other values of the same kind beyond the visible positions: those of the neighbours."""
    for axis in axes:
        places = np.arange(array.shape[axis]).reshape([-1 if index == axis else 1 for index in range(array.ndim)])
        array = np.where(places < visible, array, np.roll(array, 1, axis)).astype(array.dtype)
    return array


_DETERMINISM = _Kind(
    "determinism",
    "metamorphic.determinism",
    "Look for state that the other input left behind, a buffer that is not initialised, or a kernel that adds in no "
    "fixed order. If a little is fine, say how much: tolerance=.",
    _determinism_claims,
)
_BATCH = _Kind(
    "batch consistency",
    "metamorphic.batch",
    "A row must not depend on those beside it. If the FP32 reference has the same, the model mixes rows (a Reshape or "
    "Softmax over the batch axis, a dynamic scale); else a kernel is wrong at this batch size: try others, and "
    "another version or tactic.",
    _batch_claims,
)
_PERMUTATION = dataclasses.replace(
    _BATCH, name="row permutation", rule="metamorphic.permutation", claims=_permutation_claims
)
_PADDING = _Kind(
    "padding invariance",
    "metamorphic.padding",
    "What the mask hides reaches the outputs: look for a layer that ignores the mask (a pooling or normalisation over "
    "the sequence), or for a mask that this precision overflows or rounds away.",
    _padding_claims,
)
