"""The values of an engine's tensors beside those of its reference, a few at a time.

Two errors of each tensor are measured. The *error* is the difference from the reference, which a tensor mostly
inherits. The error *made here* is the difference from what the reference computes **from the engine's own values** of
the tensors before it: it says what the nodes in between did wrong, and nothing of what was wrong before. It is what
tells a planted fault from the rounding that it is followed by, and from operators that enlarge a relative error without
making one, such as a mean of values around zero.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.accuracy.compare import compare
from pytest_trtgray.accuracy.reference_graph import Magnitude, ReferenceGraph, magnitude_of
from pytest_trtgray.accuracy.tolerance import Tolerance
from pytest_trtgray.engines.dtypes import dtype_name
from pytest_trtgray.engines.model import DTYPE_BITS, format_shape
from pytest_trtgray.engines.onnx_model import OnnxModel, OnnxNode
from pytest_trtgray.engines.taps import Tap, Taps
from pytest_trtgray.errors import EngineError

Arrays = Mapping[str, NDArray[Any]]

COPIES = 3
"""Of each value: the engine's, the reference's, and what the reference makes of the engine's."""
_ITEM_BYTES = 4
_SAMPLES = 4096
_ALIKE = 0.5
"""Relative error up to which values tell which tensor they are, and in which order its axes lie."""
_CLEARER = 0.5
"""An order of axes other than the usual one has at most this part of its error: else it is a coincidence."""
_MAX_PERMUTED = 5
HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Attention", "LSTM", "GRU")


@dataclass(frozen=True)
class Segment:
    """What lies between a tensor that an engine shows and those before it.

    Attributes:
        nodes: of the engine's model, in order.
        sources: names of the tensors before it.
    """

    nodes: tuple[OnnxNode, ...]
    sources: tuple[str, ...]

    @property
    def main(self) -> OnnxNode:
        """The node that a report names: the one heavy operator if there is one, else the last."""
        heavy = [node for node in self.nodes if node.op_type in HEAVY]
        return heavy[0] if len(heavy) == 1 else self.nodes[-1]


@dataclass(frozen=True)
class Measured:
    """One tensor of an engine against its reference.

    Attributes:
        name: of the tensor in the engine's model.
        dtype: of the engine's values.
        elements: how many.
        relative_l2: the error, in the L2 norm over finite elements.
        made_here: the error that the nodes of its segment made, likewise.
        max_abs: largest absolute error.
        non_finite: elements that are NaN or infinite where the reference is not, or the other way round.
        reference_non_finite: elements that are NaN or infinite in the reference.
        is_wrong: whether an element is over the tolerance.
    """

    name: str
    dtype: str
    elements: int
    relative_l2: float
    made_here: float
    max_abs: float
    non_finite: int
    reference_non_finite: int
    is_wrong: bool


@dataclass(frozen=True, order=True)
class _Layout:
    """How a tensor lies in memory.

    Attributes:
        sizes: of its axes; those that lie apart from each other are split.
        order: the axes in the order in which they lie in memory.
    """

    sizes: tuple[int, ...]
    order: tuple[int, ...]

    def arranged(self, values: NDArray[Any]) -> NDArray[Any]:
        """A view of what lies in memory, with the axes where they belong."""
        memory = values.reshape([self.sizes[axis] for axis in self.order])
        ordered: NDArray[Any] = memory.transpose(np.argsort(self.order))
        return ordered


@dataclass(frozen=True)
class _Shown:
    """A tensor that an engine shows: the tap, and how its values become the tensor's.

    Attributes:
        tap: its name.
        tensor: of the reference's graph.
        shape: of the tensor.
        layout: in memory, where the engine does not tell.
    """

    tap: str
    tensor: str
    shape: tuple[int, ...]
    layout: _Layout | None = None

    def arranged(self, values: NDArray[Any]) -> NDArray[Any]:
        """The tensor itself."""
        return values if self.layout is None else self.layout.arranged(values).reshape(self.shape)


class Trace:
    """The tensors of an engine beside those of its reference, at one feed.

    Args:
        model: the engine's.
        graph: its reference.
        taps: what shows the engine's values.
        reference_feed: the taps' feed in the reference's types.
        tolerance: for every tensor.
        budget_bytes: of values that are held at a time. One tensor alone may take more.

    Attributes:
        names: tensors of the engine's model that can be compared, in topological order.
        left_out: how many tensors the engine shows that are none of its model's.
        passes: how often the engine has run.
        peak_bytes: of values that were held at a time, by their shapes.
    """

    def __init__(
        self,
        model: OnnxModel,
        graph: ReferenceGraph,
        taps: Taps,
        reference_feed: Arrays,
        *,
        tolerance: Tolerance,
        budget_bytes: int,
    ) -> None:
        self._model = model
        self._graph = graph
        self._taps = taps
        self.reference_feed = reference_feed
        self.tolerance = tolerance
        self._budget_bytes = budget_bytes
        self.passes = 0
        self.peak_bytes = 0
        known = {name for tap in taps.taps for name in tap.tensors if self._is_comparable(name)}
        floats = graph.floats({graph.tensor_of[name] for name in known}, reference_feed)
        known = {name for name in known if graph.tensor_of[name] in floats}
        shapes = graph.shapes(floats, reference_feed)
        self._shapes = {name: shapes[graph.tensor_of[name]] for name in known}
        taps.expect(
            {
                tap.name: max(self._size_bytes(name) for name in near)
                for tap in taps.taps
                if (near := known & {*tap.tensors})
            }
        )
        self._shown: dict[str, _Shown] = {}
        for tap in taps.taps:
            if tap.exact and tap.tensors[0] in known:
                self._add(tap.tensors[0], tap.name, None)
        self._identify([tap for tap in taps.taps if not tap.exact])
        self.names = self._sorted(self._shown)
        self.left_out = len(taps.taps) - len(self._shown)
        self.segments = segments(model, self.names)
        self.readers: dict[str, tuple[str, ...]] = {
            name: tuple(other for other in self.names if name in self.segments[other].sources) for name in self.names
        }
        self._cut = {shown.tensor: name for name, shown in self._shown.items()}

    def measure(self) -> Iterator[list[Measured]]:
        """All tensors in topological order, as many at a time as the budget holds."""
        for names in self._windows():
            got = self.values({*names, *self._sources(names)})
            made = self._graph.compute(self._tensors(names), self.reference_feed, self._given(got), self._cut)
            wanted = self._graph.compute(self._tensors(names), self.reference_feed)
            measured = []
            for name in names:
                tensor = self._shown[name].tensor
                measured.append(self._measured(name, got.pop(name), wanted.pop(tensor), made.pop(tensor)))
            yield measured

    def values(self, names: Collection[str]) -> dict[str, NDArray[Any]]:
        """The engine's values of tensors, from one inference.

        Raises:
            EngineError: a tensor has another shape than in the reference.
        """
        self.passes += 1
        found = self._taps.read([self._shown[name].tap for name in names])
        values = {}
        for name in names:
            shown, array = self._shown[name], found[self._shown[name].tap]
            if shown.layout is None and array.shape != shown.shape:
                raise EngineError(
                    f"tensor {name!r}",
                    f"is {format_shape(array.shape)} in the engine and {format_shape(shown.shape)} in the reference",
                    "Give the FP32 model that the engine's model was made from.",
                )
            values[name] = shown.arranged(array)
        return values

    def made_of(self, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """A tensor of the engine, and what the reference makes of the engine's values before it."""
        got = self.values({name, *self._sources([name])})
        tensor = self._shown[name].tensor
        made = self._graph.compute([tensor], self.reference_feed, self._given(got), self._cut)[tensor]
        return got[name].astype(made.dtype), made

    def magnitudes(self, name: str) -> dict[str, Magnitude]:
        """How large tensors get in a segment if the reference computes it from the engine's values before it.

        Returns:
            by tensor of the reference's graph, in order: what the segment reads of the engine, then what it makes.
        """
        given = self._given(self.values(self._sources([name])))
        read = {tensor: magnitude_of(array) for tensor, array in given.items()}
        inner = self._graph.magnitudes(self._shown[name].tensor, self.reference_feed, given, self._cut)
        return {**read, **inner}

    def _is_comparable(self, name: str) -> bool:
        """Whether a tensor has a counterpart that the reference makes, of a shape that may be the same."""
        tensor = self._graph.tensor_of.get(name, "")
        mine, theirs = self._model.tensors.get(name), self._graph.spec(tensor)
        if self._graph.position(tensor) < 0:
            return False
        if mine is None or theirs is None or not mine.shape or not theirs.shape:
            return True
        return len(mine.shape) == len(theirs.shape) and all(
            a == b or isinstance(a, str) or isinstance(b, str) for a, b in zip(mine.shape, theirs.shape, strict=True)
        )

    def _add(self, name: str, tap: str, layout: _Layout | None) -> None:
        tensor = self._graph.tensor_of[name]
        if 0 not in self._shapes[name] and tensor not in {shown.tensor for shown in self._shown.values()}:
            self._shown[name] = _Shown(tap, tensor, self._shapes[name], layout)

    def _sorted(self, names: Iterable[str]) -> list[str]:
        return sorted(names, key=lambda name: self._graph.position(self._graph.tensor_of[name]))

    def _tensors(self, names: Iterable[str]) -> list[str]:
        return [self._shown[name].tensor for name in names]

    def _sources(self, names: Iterable[str]) -> set[str]:
        return {self._cut[tensor] for tensor in self._graph.sources(self._tensors(names), self._cut)}

    def _given(self, got: Arrays) -> dict[str, NDArray[Any]]:
        return {self._shown[name].tensor: array for name, array in got.items()}

    def _windows(self) -> Iterator[list[str]]:
        """Names in order, so many at a time that their values, and those that they are made from, fit the budget."""
        window: list[str] = []
        held: dict[str, int] = {}
        for name in self.names:
            before = {source: self._size_bytes(source) for source in self._sources([name])}
            own = {name: COPIES * self._size_bytes(name)}
            if window and sum({**before, **held, **own}.values()) > self._budget_bytes:
                yield window
                window, held = [], {}
            window.append(name)
            held = {**before, **held, **own}
            self.peak_bytes = max(self.peak_bytes, sum(held.values()))
        if window:
            yield window

    def _size_bytes(self, name: str) -> int:
        """Of one copy of a tensor."""
        return math.prod(self._shapes[name]) * _ITEM_BYTES

    def _measured(
        self, name: str, got: NDArray[Any], wanted: NDArray[Any], made: NDArray[Any]
    ) -> Measured:  # fmt: skip
        values = {name: got.astype(wanted.dtype, copy=False)}
        (total,) = compare(values, {name: wanted}, per_output={name: self.tolerance}, equal_nan=True).outputs
        (own,) = compare(values, {name: made}, per_output={name: self.tolerance}, equal_nan=True).outputs
        return Measured(
            name,
            dtype_name(got.dtype),
            total.elements,
            total.relative_l2,
            own.relative_l2,
            total.max_abs,
            total.nan,
            int(np.count_nonzero(~np.isfinite(wanted))),
            not total.ok,
        )

    def _identify(self, taps: Sequence[Tap]) -> None:
        """Find out which tensor each tap is, and how its axes lie, by its values.

        A tensor that is wrong is like none; then the tap has to be it if there is no other that it can be.
        """
        likenesses: list[tuple[float, str, str, _Layout]] = []
        names = self._sorted({name for tap in taps for name in tap.tensors if name in self._shapes})
        for window in self._split(names):
            near = [tap for tap in taps if set(window) & set(tap.tensors)]
            self.passes += 1
            found = self._taps.read([tap.name for tap in near])
            wanted = self._graph.compute([self._graph.tensor_of[name] for name in window], self.reference_feed)
            for tap in near:
                for name in set(window) & set(tap.tensors):
                    target = wanted[self._graph.tensor_of[name]]
                    if tap.name in found and found[tap.name].size == target.size:
                        error, layout = _most_alike(found[tap.name], target)
                        likenesses.append((error, tap.name, name, layout))
        choices = Counter(tap for _, tap, _, _ in likenesses)
        taken: set[str] = set()
        for error, tap_name, name, layout in sorted(likenesses):
            if tap_name not in taken and name not in self._shown and (error <= _ALIKE or choices[tap_name] == 1):
                taken.add(tap_name)
                self._add(name, tap_name, layout)

    def _split(self, names: Sequence[str]) -> Iterator[list[str]]:
        window: list[str] = []
        size = 0
        for name in names:
            more = 2 * self._size_bytes(name)
            if window and size + more > self._budget_bytes:
                yield window
                window, size = [], 0
            window, size = [*window, name], size + more
            self.peak_bytes = max(self.peak_bytes, size)
        if window:
            yield window


def segments(model: OnnxModel, names: Sequence[str]) -> dict[str, Segment]:
    """What lies between tensors of a model, by the tensor at the end.

    The way back does not follow whole numbers and truth values: what computes shapes and masks has no error.
    """
    shown = set(names)
    maker = {output: index for index, node in enumerate(model.nodes) for output in node.outputs if output}
    found = {}
    for name in names:
        nodes: set[int] = set()
        sources: dict[str, None] = {}
        pending = [maker[name]] if name in maker else []
        while pending:
            index = pending.pop()
            if index in nodes:
                continue
            nodes.add(index)
            for read in model.nodes[index].inputs:
                if read in shown:
                    sources.setdefault(read)
                elif read in maker and _carries_values(model, read):
                    pending.append(maker[read])
        found[name] = Segment(tuple(model.nodes[index] for index in sorted(nodes)), tuple(sources))
    return found


def _carries_values(model: OnnxModel, name: str) -> bool:
    spec = model.tensors.get(name)
    return spec is None or spec.dtype in DTYPE_BITS


def _most_alike(shown: NDArray[Any], wanted: NDArray[Any]) -> tuple[float, _Layout]:
    """The smallest relative error over a sample, among all orders in which the axes can lie in memory."""
    rng = np.random.Generator(np.random.PCG64(0))
    flat = np.arange(wanted.size) if wanted.size <= _SAMPLES else rng.integers(0, wanted.size, _SAMPLES)
    target = wanted.reshape(-1)[flat].astype(np.float64)
    usual, *others = _layouts(shown.shape, wanted.shape)
    first = (_unlike(shown, usual, target, flat), usual)
    best = min(((_unlike(shown, layout, target, flat), layout) for layout in others), default=first)
    return best if best[0] < _CLEARER * first[0] else first


def _unlike(shown: NDArray[Any], layout: _Layout, target: NDArray[Any], flat: NDArray[Any]) -> float:
    """Relative error of some elements in one layout."""
    values = layout.arranged(shown)[np.unravel_index(flat, layout.sizes)].astype(np.float64)
    kept = np.isfinite(values) & np.isfinite(target)
    scale = float(np.linalg.norm(target[kept]))
    return float(np.linalg.norm(values[kept] - target[kept])) / scale if scale else math.inf


def _layouts(shown: tuple[int, ...], wanted: tuple[int, ...]) -> Iterator[_Layout]:
    """Ways in which a tensor of one shape can lie in memory that an engine shows in another; the usual one first.

    Myelin merges the batch and the sequence of a transformer to the rows of a matrix, in either order.
    """
    sizes = _split_alike(shown, wanted)
    if len(sizes) > _MAX_PERMUTED:
        sizes = tuple(size for size in wanted if size > 1)
    axes = tuple(range(len(sizes)))
    orders = itertools.permutations(axes) if len(axes) <= _MAX_PERMUTED else iter([axes, (0, *axes[2:], 1)])
    return (_Layout(sizes, order) for order in orders)


def _split_alike(shown: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Axes that both shapes are made of; those of the shown one where there are none."""
    ends = sorted({*itertools.accumulate(shown, operator.mul), *itertools.accumulate(wanted, operator.mul)} - {1})
    pairs = list(itertools.pairwise([1, *ends]))
    if any(end % start for start, end in pairs):
        return tuple(size for size in shown if size > 1)
    return tuple(end // start for start, end in pairs)
