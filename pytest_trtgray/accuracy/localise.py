"""Which node makes an engine's outputs wrong.

Every tensor that the engine shows is compared with the FP32 reference, in topological order. That tells the first one
that is wrong, but not what made it wrong: in FP16 everything is a little wrong, and errors grow. So each tensor is also
compared with what FP32 computes from the engine's *own* values before it (:mod:`~pytest_trtgray.accuracy.tracing`).
The nodes that made the largest errors of this kind are then tried one at a time: the error that a node made is put
into the otherwise exact reference, and what that does to the outputs is its *share* in their error. A node with most of
it is the culprit. If none has, there is none: the error has many makers, which is the normal state of a precision.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.accuracy.causes import Cause, why_not_finite, why_wrong
from pytest_trtgray.accuracy.compare import compare
from pytest_trtgray.accuracy.reference_graph import ReferenceGraph
from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.accuracy.tolerance import Tolerance, default_tolerance, working_precision
from pytest_trtgray.accuracy.tracing import Measured, Segment, Trace
from pytest_trtgray.engines.base import Engine, Feed, to_numpy
from pytest_trtgray.engines.intermediates import BUDGET_BYTES
from pytest_trtgray.engines.model import shown_nodes
from pytest_trtgray.engines.taps import Taps
from pytest_trtgray.errors import EngineError
from pytest_trtgray.findings import Evidence, Finding, counted, errors, failure_message, listing

Arrays = Mapping[str, NDArray[Any]]

CACHE = Path(".trtgray_cache")
"""Where a derived reference is kept for an engine that was not loaded from a cache."""
MAIN_SHARE = 0.5
"""From this part of the outputs' error on, the node that made it is the culprit."""
OUTLIER_SHARE = 0.1
OUTLIER = 5.0
"""A node that makes an error so many times as large as nearly all others is the culprit from a smaller part on."""
_NEARLY_ALL = 0.95
GARBLED = 0.3
"""A node that reads values of this relative error may do something else with them than it is meant to."""
_TRIED = 4
"""Nodes that made the largest errors, whose shares are measured; each takes two inferences of the reference."""
_SHOWN_DEPTHS = 8
_SAME_OUTPUT = 0.1
"""The engine that shows its values may differ from the one under test by this part of the error."""


@dataclass(frozen=True)
class TensorError:
    """One tensor of the engine against the reference.

    Attributes:
        tensor: its name in the engine's model.
        node: the ONNX node that a report names for it: the heavy one of ``nodes``, else the last.
        op: its operator.
        nodes: all ONNX nodes between this tensor and those before it that the engine shows.
        sources: those tensors.
        elements: how many.
        relative_l2: ``|engine - reference| / |reference|`` in the L2 norm, over finite elements.
        made_here: the part of it that ``nodes`` made: the same, against what FP32 computes from the engine's own
            values of ``sources``.
        max_abs: largest absolute difference.
        non_finite: elements that are NaN or infinite in one of the two only.
        reference_non_finite: elements that are NaN or infinite in the reference.
        is_origin_of_infinity: whether it has NaN or infinities and ``sources`` have none.
        is_wrong: whether an element is over the tolerance.
        reaches_output: whether there is a path of wrong tensors from here to an output.
        share: part of the outputs' error that comes from what ``nodes`` did wrong here: near 1 for a single fault.
            ``None`` where it was not measured.
    """

    tensor: str
    node: str
    op: str
    nodes: tuple[str, ...]
    sources: tuple[str, ...]
    elements: int
    relative_l2: float
    made_here: float
    max_abs: float
    non_finite: int
    reference_non_finite: int
    is_origin_of_infinity: bool
    is_wrong: bool
    reaches_output: bool
    share: float | None = None

    def __str__(self) -> str:
        others = f" (with {shown_nodes([name for name in self.nodes if name != self.node])})"
        return f"{self.op} {self.node!r}{others if len(self.nodes) > 1 else ''}"


@dataclass(frozen=True)
class Localisation:
    """Where an engine's error comes from.

    Attributes:
        engine: its name.
        tensors: what could be compared, in topological order: the profile of the error along the depth.
        first: the first wrong tensor whose error reaches the outputs.
        culprit: the tensor whose nodes made most of the outputs' error, or the first NaN; ``None`` if nothing is
            wrong, or if no node made most of it.
        cause: why, where models and magnitudes tell.
        how: how the engine's values were taken.
        fusions: ``untouched``, ``changed`` or ``unknown``: whether the engine that shows its values has the layers of
            the engine under test.
        reproduced: whether its outputs are those of the engine under test.
        complete: whether all tensors were looked at.
        passes: inferences of the engine that it took.
        peak_bytes: of values that were held at a time.
        findings: the verdict and what belongs to it; an error if an output is wrong.
    """

    engine: str
    tensors: tuple[TensorError, ...]
    first: TensorError | None
    culprit: TensorError | None
    cause: str
    how: str
    fusions: str
    reproduced: bool
    complete: bool
    passes: int
    peak_bytes: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether the outputs are within the tolerance."""
        return not errors(self.findings)

    def check(self) -> None:
        """Fail if an output is wrong.

        Raises:
            AssertionError: the first line names the node.
        """
        __tracebackhide__ = True
        if not self.ok:
            raise AssertionError(self.message())

    def message(self) -> str:
        """The verdict on the first line, then the evidence."""
        if self.ok:
            return "outputs agree"
        failing = errors(self.findings)
        others = [finding for finding in self.findings if finding not in failing]
        verdict = failure_message("localised" if self.culprit else "not localised", failing)
        return "\n".join([verdict, *([listing(others)] if others else [])])

    @property
    def summary(self) -> str:
        """In one line."""
        looked_at = f"{counted(len(self.tensors), 'tensor')}, fusions {self.fusions}"
        if self.ok:
            return f"the outputs are right; {looked_at}"
        return f"{self.culprit or 'no single node'} makes them wrong; {looked_at}"

    def table(self, rows: int = 40) -> str:
        """The largest errors made, and the error along the depth, as text."""
        made = sorted(self.tensors, key=lambda error: -error.made_here)[: rows // 2]
        step = max(1, math.ceil(len(self.tensors) / max(1, rows - len(made))))
        kept = {error.tensor for error in (*made, *self.tensors[::step], *self.tensors[-1:])}
        lines = [f"{'error':>9} {'made here':>9}  tensor"]
        lines += [
            f"{error.relative_l2:9.2g} {error.made_here:9.2g}  {error.tensor}{'  wrong' if error.is_wrong else ''}"
            for error in self.tensors
            if error.tensor in kept
        ]
        return "\n".join(lines)


def localise(
    engine: Engine,
    reference: Shadow | Path | str,
    feed: Feed,
    *,
    tolerance: Tolerance | None = None,
    budget_bytes: int = BUDGET_BYTES,
    time_limit_s: float | None = None,
) -> Localisation:
    """Find the ONNX node that makes an engine's outputs wrong.

    Args:
        engine: under test; its ONNX model has to be known.
        reference: an FP32 shadow, or the path of the model to make one of.
        feed: one array an input.
        tolerance: of every tensor; by default that of the engine's precision.
        budget_bytes: of values that are held at a time; more of them take more inferences.
        time_limit_s: stop looking after so many seconds, and say so. The first tensors are looked at in any case.

    Raises:
        NotRunnableError: this machine cannot run the engine.
        EngineError: the engine shows no values, or its model is not known.
        ModelError: the reference is the model of something else.
    """
    deadline = math.inf if time_limit_s is None else time.monotonic() + time_limit_s
    engine.require_runnable()
    if engine.model is None:
        raise EngineError(
            engine.info.name,
            "its ONNX model is not known, so nobody knows which nodes it has",
            "Give the model too (--trt-onnx=PATH), or give the .onnx instead of the engine.",
        )
    shadow = reference if isinstance(reference, Shadow) else Shadow(Path(reference), _cache_dir(engine))
    graph = ReferenceGraph(shadow, engine.model)
    arrays = {name: to_numpy(name, value) for name, value in engine.checked(feed).items()}
    converted = shadow.converted(feed)
    used = tolerance or default_tolerance(working_precision(engine))
    with engine.taps(arrays) as taps:
        trace = Trace(engine.model, graph, taps, converted, tolerance=used, budget_bytes=budget_bytes)
        return _Search(engine, taps, graph, trace, arrays).result(deadline)


def _cache_dir(engine: Engine) -> Path:
    return engine.source.options.cache_dir if engine.source is not None else CACHE


class _Search:
    """One engine against its reference: what is measured, and what it says."""

    def __init__(self, engine: Engine, taps: Taps, graph: ReferenceGraph, trace: Trace, feed: Arrays) -> None:
        self._engine = engine
        self._taps = taps
        self._graph = graph
        self._trace = trace
        self._feed = trace.reference_feed
        self._outputs = engine.run(feed)
        # of a model whose outputs are whole numbers, the error is looked at where they are made from
        ends = [name for name in graph.outputs if name in trace.names]
        ends = ends or [name for name in trace.names if not trace.readers[name]]
        self._shown = trace.values(ends)
        self._ends = {name: graph.tensor_of[name] for name in ends}
        wanted = graph.compute({*graph.outputs.values(), *self._ends.values()}, self._feed)
        self._wanted = {name: wanted[tensor] for name, tensor in {**graph.outputs, **self._ends}.items()}
        self._measured: dict[str, Measured] = {}
        self._shares: dict[str, float] = {}

    def result(self, deadline: float) -> Localisation:
        """The verdict; looks at no further tensors once the deadline is over."""
        for measured in self._trace.measure():
            self._measured.update((each.name, each) for each in measured)
            if time.monotonic() > deadline:
                break
        complete = len(self._measured) == len(self._trace.names)
        reaching = self._reaching(lambda measured: measured.is_wrong)
        broken = self._reaching(lambda measured: measured.non_finite > 0)
        undefined = self._reaching(lambda measured: measured.reference_non_finite > 0)
        first = next((name for name in self._measured if name in reaching), None)
        culprit = next((name for name in self._measured if name in (undefined or broken)), None)
        if culprit is None and complete and reaching:
            culprit = self._main_maker()
        cause = self._cause(culprit) if culprit else Cause()
        rows = {name: self._row(name, name in reaching) for name in self._measured}
        if culprit and cause.node:
            rows[culprit] = replace(rows[culprit], node=cause.node.name, op=cause.node.op_type)
        found = Localisation(
            engine=self._engine.info.name,
            tensors=tuple(rows.values()),
            first=rows[first] if first else None,
            culprit=rows[culprit] if culprit else None,
            cause=cause.what,
            how=self._taps.how,
            fusions=self._taps.fusions,
            reproduced=self._is_reproduced(),
            complete=complete,
            passes=self._trace.passes,
            peak_bytes=self._trace.peak_bytes,
            findings=(),
        )
        return replace(found, findings=tuple(_findings(found, self._is_wrong(), cause, self._trace.left_out)))

    def _reaching(self, is_bad: Callable[[Measured], bool]) -> set[str]:
        """Bad tensors from which bad tensors lead to an output, or to where the search ended."""
        reaching: set[str] = set()
        for name in reversed(self._measured):
            readers = self._trace.readers[name]
            leads = name in self._ends or any(other in reaching or other not in self._measured for other in readers)
            if is_bad(self._measured[name]) and leads:
                reaching.add(name)
        return reaching

    def _main_maker(self) -> str | None:
        """The tensor whose nodes made most of the outputs' error, if there is one."""
        for name in self._suspects():
            share = self._share(name)
            if share is not None:
                self._shares[name] = share
                if share > MAIN_SHARE and self._before(name) < GARBLED:
                    return name
        made = [measured.made_here for measured in self._measured.values() if measured.made_here > 0]
        unusual = OUTLIER * float(np.quantile(made, _NEARLY_ALL)) if made else 0.0
        strange = [name for name in self._measured if self._measured[name].made_here > unusual]
        makers = [
            name for name, share in self._shares.items() if share > (OUTLIER_SHARE if name in strange else MAIN_SHARE)
        ]
        # in topological order: what is wrong in a node that reads nonsense is the fault of what made the nonsense
        makers.sort(key=self._trace.names.index)
        while len(makers) > 1 and self._before(makers[-1]) > GARBLED:
            makers.pop()
        return max(makers, key=self._shares.__getitem__, default=None)

    def _suspects(self) -> list[str]:
        """Where the first infinities are made, which may be harmless, and the largest errors."""
        origins = [name for name in self._measured if self._is_origin_of_infinity(name)]
        largest = sorted(self._measured, key=self._weight, reverse=True)
        return list(dict.fromkeys((*origins[: _TRIED // 2], *largest[:_TRIED])))

    def _is_origin_of_infinity(self, name: str) -> bool:
        """Whether a tensor has NaN or infinities and what it is made from has none."""
        sources = [self._measured[source] for source in self._trace.segments[name].sources if source in self._measured]
        first, *others = (each.non_finite or each.reference_non_finite for each in (self._measured[name], *sources))
        return bool(first) and not any(others)

    def _before(self, name: str) -> float:
        """The largest error in what a tensor is made from."""
        sources = [self._measured[source] for source in self._trace.segments[name].sources if source in self._measured]
        return max((source.relative_l2 for source in sources), default=0.0)

    def _weight(self, name: str) -> float:
        """How large an error is that was made here, is here, and is still there in what reads it.

        A mean of values around zero has a large relative error that no reader notices.
        """
        measured = self._measured[name]
        later = [self._measured[other].relative_l2 for other in self._trace.readers[name]]
        return min(measured.made_here, measured.relative_l2, max(later, default=math.inf))

    def _share(self, name: str) -> float | None:
        """What one tensor's error does to the exact outputs, along their real error: 1 if it is all of it."""
        tensor = self._graph.tensor_of[name]
        got, made = self._trace.made_of(name)
        wanted = self._graph.compute([tensor], self._feed)[tensor]
        with np.errstate(invalid="ignore", over="ignore"):
            given = {tensor: np.where(np.isfinite(got - made), wanted + (got - made), got)}
        disturbed = {**self._graph.compute(self._ends.values(), self._feed, given, [tensor]), **given}
        along = square = 0.0
        for end, at in self._ends.items():
            wanted = self._wanted[end].astype(np.float64)
            real = self._shown[end] - wanted
            scale = float(np.sum(wanted**2))
            if not scale or not np.isfinite(real).all():
                continue
            along += float(np.sum((disturbed[at] - wanted) * real)) / scale
            square += float(np.sum(real**2)) / scale
        return along / square if square and math.isfinite(along) else None

    def _cause(self, name: str) -> Cause:
        measured, segment, model = self._measured[name], self._trace.segments[name], self._graph.tested
        made = [output for node in segment.nodes for output in node.outputs if output in model.tensors]
        dtypes = [model.tensors[output].dtype for output in made]
        if self._is_origin_of_infinity(name):
            return why_not_finite(self._trace, measured, dtypes)
        cause = why_wrong(self._trace, measured, dtypes, self._graph)
        return cause if cause.what else Cause(self._how_computed(segment))

    def _how_computed(self, segment: Segment) -> str:
        """The precision of the layer that computes a segment, for want of a better reason."""
        try:
            layer = self._engine.layer(segment.main.name)
        except (KeyError, EngineError):
            return ""
        return f"is computed in {layer.precision} ({layer.kind})" if layer.precision else ""

    def _is_wrong(self) -> bool:
        """Whether the engine under test gives wrong outputs."""
        wanted = {name: self._wanted[name] for name in self._graph.outputs}
        got = {name: self._outputs[name].astype(array.dtype) for name, array in wanted.items()}
        return not compare(got, wanted, per_output=dict.fromkeys(wanted, self._trace.tolerance)).ok

    def _is_reproduced(self) -> bool:
        """Whether the engine that shows its values makes the same error in the outputs."""
        for name in set(self._ends) & set(self._outputs):
            shown, got, wanted = self._shown[name], self._outputs[name], self._wanted[name]
            if not np.array_equal(np.isfinite(shown), np.isfinite(got)):
                return False
            kept = np.isfinite(got) & np.isfinite(wanted)
            apart = np.linalg.norm((shown[kept] - got[kept]).astype(np.float64))
            if apart > _SAME_OUTPUT * np.linalg.norm((got[kept] - wanted[kept]).astype(np.float64)):
                return False
        return True

    def _row(self, name: str, reaches_output: bool) -> TensorError:
        measured, segment = self._measured[name], self._trace.segments[name]
        return TensorError(
            tensor=name,
            node=segment.main.name,
            op=segment.main.op_type,
            nodes=tuple(node.name for node in segment.nodes),
            sources=segment.sources,
            elements=measured.elements,
            relative_l2=measured.relative_l2,
            made_here=measured.made_here,
            max_abs=measured.max_abs,
            non_finite=measured.non_finite,
            reference_non_finite=measured.reference_non_finite,
            is_origin_of_infinity=self._is_origin_of_infinity(name),
            is_wrong=measured.is_wrong,
            reaches_output=reaches_output,
            share=self._shares.get(name),
        )


def _findings(found: Localisation, is_wrong: bool, cause: Cause, left_out: int) -> Iterator[Finding]:
    """The verdict first, then what limits it."""
    if is_wrong:
        yield _verdict(found, cause)
    yield from _limits(found, left_out)


def _verdict(found: Localisation, cause: Cause) -> Finding:
    culprit = found.culprit
    if culprit is None:
        return _spread(found)
    lines = []
    if culprit.is_origin_of_infinity and culprit.reference_non_finite:
        rule = "accuracy.reference-non-finite"
        lines.append(f"the FP32 reference is not finite either: {culprit} {cause.what}")
    elif culprit.is_origin_of_infinity:
        rule = "accuracy.first-non-finite"
        lines.append(f"{culprit} {cause.what}")
        lines.append(f"{culprit.non_finite} of {culprit.elements} elements of {culprit.tensor!r} are NaN or infinite")
    else:
        rule = "accuracy.culprit"
        share = min(culprit.share or 0.0, 1.0)
        lines.append(
            f"{culprit} makes the outputs wrong: it adds a relative L2 error of {culprit.made_here:.2g} to "
            f"{culprit.tensor!r}{_before(found, culprit)}"
        )
        lines.append(f"this alone makes {share:.0%} of the outputs' error")
        if cause.what:
            lines.append(f"it {cause.what}")
    if found.first and found.tensors.index(found.first) < found.tensors.index(culprit):
        lines.append(f"the first tensor over the tolerance is {found.first.tensor!r}, {_size(found.first)}")
    lines.append(_profile(found.tensors))
    remedy = (
        cause.remedy
        or "Keep this node in a finer precision, or compare its weights and its scales with the reference's."
    )
    evidence: Evidence = {
        "tensor": culprit.tensor,
        "made_here": culprit.made_here,
        "relative_l2": culprit.relative_l2,
        "share": culprit.share,
        "non_finite": culprit.non_finite,
    }
    return Finding("error", culprit.node, "\n".join(lines), rule, evidence, remedy)


def _size(error: TensorError) -> str:
    return "which is not finite" if error.non_finite else f"with an error of {error.relative_l2:.2g}"


def _before(found: Localisation, error: TensorError) -> str:
    before = [other.relative_l2 for other in found.tensors if other.tensor in error.sources]
    return f"; what it reads has {max(before):.2g}" if before else ""


def _spread(found: Localisation) -> Finding:
    """The outputs are wrong, and no single node is the reason."""
    tried = sorted((error for error in found.tensors if error.share is not None), key=lambda e: -(e.share or 0.0))
    if not found.complete:
        what = "the outputs are wrong; the search ended before it reached them"
    elif found.first is None:
        what = "the outputs are wrong, and no tensor that can be compared leads there"
    else:
        what = "no single node makes the outputs wrong: the error has many makers"
    lines = [what]
    if tried:
        shares = ", ".join(f"{error.op} {error.node!r} {max(error.share or 0.0, 0.0):.0%}" for error in tried)
        lines.append(f"the largest shares: {shares}")
    if found.first:
        lines.append(f"the first tensor over the tolerance is {found.first.tensor!r}, {_size(found.first)}")
    if found.tensors:
        lines.append(_profile(found.tensors))
    where = found.first.node if found.first else found.engine
    remedy = "If this much is what the precision costs, allow it (rtol, atol); else build in a finer precision."
    return Finding("error", where, "\n".join(lines), "accuracy.many-makers", {"looked_at": len(found.tensors)}, remedy)


def _profile(tensors: Sequence[TensorError]) -> str:
    """The error at some depths, from the first tensor to the last."""
    places = np.unique(np.linspace(0, len(tensors) - 1, _SHOWN_DEPTHS).round().astype(int))
    shown = ("NaN" if tensors[place].non_finite else f"{tensors[place].relative_l2:.1e}" for place in places)
    return f"relative L2 error along the depth: {', '.join(shown)}"


def _limits(found: Localisation, left_out: int) -> Iterator[Finding]:
    if not found.reproduced:
        yield Finding(
            "warning",
            found.engine,
            "the engine that shows its values gives other outputs than the engine under test: what is wrong may lie in "
            "a fusion that it does not have",
            "accuracy.not-reproduced",
            remedy="Compare the layers of the two; look at what the nodes near the culprit are fused with.",
        )
    if found.fusions == "changed":
        yield Finding(
            "advice",
            found.engine,
            f"values were taken {found.how}, which changes fusions",
            "accuracy.fusions-changed",
        )
    if not found.complete:
        last = found.tensors[-1].node if found.tensors else found.engine
        yield Finding(
            "warning",
            last,
            f"time was up after {len(found.tensors)} tensors, at {last!r}",
            "accuracy.not-finished",
            remedy="Call trt_compare.localise(engine, reference), which has no limit, or give a smaller input.",
        )
    if left_out:
        yield Finding(
            "advice",
            found.engine,
            f"{counted(left_out, 'tensor')} that the engine shows could not be compared with one of the reference",
            "accuracy.left-out",
        )
