"""The reference's graph as an engine's model sees it, computed in parts.

An engine's model is the reference with casts and Q/DQ pairs in it. Here they are put into the reference as nodes that
do nothing, so that every floating-point tensor of the engine's model has one counterpart, and what reads a quantised
tensor can be told from what reads the tensor before its quantisation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.accuracy.quantisers import QUANTISE, Constants
from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.engines.dtypes import numpy_dtype
from pytest_trtgray.engines.model import TensorSpec
from pytest_trtgray.engines.onnx_model import (
    FLOATS,
    OnnxModel,
    OnnxNode,
    declared,
    held_weights,
    node_name,
    read_names,
)
from pytest_trtgray.engines.onnxruntime import OnnxRuntimeEngine
from pytest_trtgray.errors import ModelError

Arrays = Mapping[str, NDArray[Any]]

SAME_VALUES = ("Cast", "DequantizeLinear", "Identity")
"""Operators that an engine's model may have more of than its reference: they give their input in another type."""
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
_MADE = "/made"


@dataclass(frozen=True)
class Magnitude:
    """How large the values of a tensor are.

    Attributes:
        largest: absolute value.
        smallest: absolute value.
        lowest: value.
        node: that makes it, where it was computed.
    """

    largest: float
    smallest: float
    lowest: float
    node: OnnxNode | None = None


def magnitude_of(values: NDArray[Any]) -> Magnitude:
    """Of an array; zero if it is empty, NaN if it holds one."""
    absolute = np.abs(values.astype(np.float64))
    if not absolute.size:
        return Magnitude(0.0, 0.0, 0.0)
    return Magnitude(float(absolute.max()), float(absolute.min()), float(values.min()))


class ReferenceGraph:
    """The graph of an FP32 model, with the tensors of the model that an engine was made of.

    Args:
        shadow: the FP32 reference.
        tested: the engine's model: the same, or with casts and Q/DQ pairs, or changed.

    Attributes:
        tested: the same.
        tensor_of: this graph's tensor for tensors of the engine's model. Nodes are the same if they have one name
            and type, or else one output and type; other tensors are the same if they have one name.
        outputs: the same for the engine's outputs.
        added: names of the nodes of the engine's model that the reference has not, casts and Q/DQ nodes apart.

    Raises:
        ModelError: the two models have no output in common.
    """

    def __init__(self, shadow: Shadow, tested: OnnxModel) -> None:
        self.tested = tested
        self._shadow = shadow
        reference = self._model = shadow.source
        merged = _Merged(reference, tested)
        self._roots = merged.roots
        self.added = merged.added
        self._inputs = {spec.name for spec in reference.inputs}
        ends = [spec.name for spec in reference.outputs]
        self._nodes = _in_order(merged.nodes, set(reference.initializers), ends)
        self._maker = {name: index for index, node in enumerate(self._nodes) for name in node.output if name}
        there = {*self._maker, *reference.initializers, *self._inputs}
        self.tensor_of = {name: tensor for name, tensor in merged.tensor_of.items() if tensor in there}
        self.outputs = {spec.name: self.tensor_of[spec.name] for spec in tested.outputs if spec.name in self.tensor_of}
        if not self.outputs:
            wanted = ", ".join(spec.name for spec in tested.outputs)
            raise ModelError(
                reference.original,
                f"has none of the outputs of {tested.original.name}: {wanted}",
                "Give the FP32 model that the engine's model was made from, with the same names.",
            )

    @functools.cached_property
    def _held(self) -> dict[str, NDArray[Any]]:
        """Weights that all parts share: to copy those of a large network into a part takes seconds."""
        return held_weights(self._model.proto)

    @functools.cached_property
    def constants(self) -> Constants:
        """The reference's weights."""
        return Constants(self._model)

    def position(self, tensor: str) -> int:
        """Where in the graph's order a tensor is made; -1 for inputs and weights."""
        return self._maker.get(tensor, -1)

    def spec(self, tensor: str) -> TensorSpec | None:
        """Type and shape of a tensor, as far as ONNX's shape inference knows them."""
        return self._model.tensors.get(self._roots.get(tensor, tensor))

    def sources(self, tensors: Iterable[str], cut: Collection[str]) -> list[str]:
        """The tensors in ``cut`` that :meth:`compute` needs for ``tensors``."""
        return list(self._needed(list(tensors), cut).given)

    def compute(
        self, tensors: Iterable[str], feed: Arrays, given: Arrays | None = None, cut: Collection[str] = ()
    ) -> dict[str, NDArray[Any]]:
        """Values of some tensors, from the inputs of the graph or from other values.

        Args:
            tensors: of this graph.
            feed: the graph's inputs.
            given: values of tensors in ``cut``.
            cut: tensors whose readers get what is given instead of what is computed. One that is also in
                ``tensors`` is computed, from what comes before it.

        Raises:
            EngineError: ONNX Runtime fails.
        """
        part = self._part(tensors, cut)
        found = self._run(part, feed, given)
        return {wanted: found[name] for wanted, name in part.shown.items()}

    def floats(self, tensors: Iterable[str], feed: Arrays) -> set[str]:
        """Those of some tensors that hold floating-point numbers.

        ONNX's inference knows no types behind an operator that it does not know; there ONNX Runtime is asked.
        """
        specs = {name: self.spec(name) for name in tensors}
        found = {name for name, spec in specs.items() if spec is not None and spec.dtype in FLOATS}
        unknown = [name for name, spec in specs.items() if spec is None]
        if unknown:
            engine = self._open(self._part(unknown, ()), feed)
            found |= {name for name, dtype in engine.output_dtypes().items() if dtype in FLOATS}
            engine.close()
        return found

    def shapes(self, tensors: Iterable[str], feed: Arrays) -> dict[str, tuple[int, ...]]:
        """Shapes of tensors at a feed, without keeping their values."""
        part = self._part(tensors, ())
        names = list(part.shown.values())
        part.show(part.add("Shape", [name], f"{name}/shape") for name in names)
        found = self._run(part, feed)
        return {name: tuple(int(size) for size in found[f"{name}/shape"]) for name in names}

    def magnitudes(
        self, tensor: str, feed: Arrays, given: Arrays | None = None, cut: Collection[str] = ()
    ) -> dict[str, Magnitude]:
        """How large all floating-point tensors on the way to one are, by name and in order.

        The values themselves are not kept. The arguments are those of :meth:`compute`.
        """
        part = self._part([tensor], cut)
        inner = {
            name: node
            for node in part.nodes
            for name in node.output
            if name and self._is_float(name.removesuffix(_MADE))
        }
        for name in inner:
            part.add("Abs", [name], f"{name}/abs")
        part.show(
            part.add(op, [source], f"{source}/{op}", keepdims=0)
            for name in inner
            for op, source in (("ReduceMax", f"{name}/abs"), ("ReduceMin", f"{name}/abs"), ("ReduceMin", name))
        )
        found = {name: float(value) for name, value in self._run(part, feed, given).items()}
        return {
            name.removesuffix(_MADE): Magnitude(
                found[f"{name}/abs/ReduceMax"],
                found[f"{name}/abs/ReduceMin"],
                found[f"{name}/ReduceMin"],
                OnnxNode(node_name(node), node.op_type, tuple(node.input), tuple(node.output)),
            )
            for name, node in inner.items()
        }

    def _is_float(self, name: str) -> bool:
        return name in self._model.tensors and self._model.tensors[name].dtype in FLOATS

    def _part(self, tensors: Iterable[str], cut: Collection[str]) -> _Part:
        """What has to be computed for ``tensors``, and nothing else."""
        wanted = list(dict.fromkeys(tensors))
        part = self._needed(wanted, cut)
        for index in sorted(part.indices):
            node = _copy(self._nodes[index])
            for place, name in enumerate(node.output):
                if name in cut:
                    node.output[place] = name + _MADE
            part.nodes.append(node)
        part.shown = {name: name + _MADE if name in cut and name in self._maker else name for name in wanted}
        return part

    def _needed(self, wanted: Sequence[str], cut: Collection[str]) -> _Part:
        part = _Part()
        # what is wanted is computed even if it is cut; what it is computed from is taken from the cut
        pending = [(name, True) for name in wanted]
        while pending:
            name, is_wanted = pending.pop()
            if name in cut and not is_wanted:
                part.given.setdefault(name)
            elif name in self._inputs:
                part.inputs.setdefault(name)
            elif name in self._maker:
                index = self._maker[name]
                if index not in part.indices:
                    part.indices.add(index)
                    pending += [(read, False) for read in read_names(self._nodes[index]) if read]
            elif name in self._model.initializers:
                part.weights.setdefault(name)
        return part

    def _run(self, part: _Part, feed: Arrays, given: Arrays | None = None) -> dict[str, NDArray[Any]]:
        taken = {name: array.astype(self._dtype(name), copy=False) for name, array in (given or {}).items()}
        arrays = {**feed, **taken}
        engine = self._open(part, arrays)
        found = engine.run({spec.name: arrays[spec.name] for spec in engine.model.inputs})
        engine.close()
        return found

    def _open(self, part: _Part, arrays: Arrays) -> OnnxRuntimeEngine:
        held = {name: self._held[name] for name in part.weights if name in self._held}
        return self._shadow.open_part(self._model.edited(part.proto(self._model, arrays, held), held))

    def _dtype(self, name: str) -> np.dtype[Any]:
        """Of a floating-point tensor; also of one that passes another one on."""
        spec = self.spec(name)
        return numpy_dtype(spec.dtype) if spec is not None and spec.dtype in FLOATS else np.dtype(np.float32)


@dataclass
class _Part:
    """Some nodes of a graph on their way to become a model; the dicts are ordered sets."""

    indices: set[int] = field(default_factory=set)
    nodes: list[Any] = field(default_factory=list)
    weights: dict[str, None] = field(default_factory=dict)
    inputs: dict[str, None] = field(default_factory=dict)
    given: dict[str, None] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)
    """The part's output for each tensor that is wanted."""

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """One more node; returns its output."""
        self.nodes.append(_node(op, inputs, output, **attributes))
        return output

    def show(self, outputs: Iterable[str]) -> None:
        """Have these outputs instead."""
        self.shown = {name: name for name in outputs}

    def proto(self, model: OnnxModel, feed: Arrays, held: Collection[str]) -> Any:
        """A ModelProto; the types of its inputs are those of ``feed``. Weights in ``held`` are only declared."""
        import onnx

        whole = model.proto
        graph = onnx.GraphProto(name=whole.graph.name or "reference")
        graph.node.extend(self.nodes)
        weights = ((name, model.initializers[name]) for name in self.weights)
        graph.initializer.extend(declared(tensor) if name in held else tensor for name, tensor in weights)
        graph.sparse_initializer.extend(whole.graph.sparse_initializer)
        for name in (*self.inputs, *self.given):
            kind = onnx.helper.np_dtype_to_tensor_dtype(feed[name].dtype)
            shape = [None] * feed[name].ndim
            graph.input.append(onnx.helper.make_tensor_value_info(name, kind, shape))
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.shown.values())
        return onnx.ModelProto(
            ir_version=whole.ir_version, opset_import=whole.opset_import, functions=whole.functions, graph=graph
        )


class _Merged:
    """The reference's nodes, and among them one for every cast and dequantiser that only the engine's model has."""

    def __init__(self, reference: OnnxModel, tested: OnnxModel) -> None:
        self._reference = [_copy(node) for node in reference.proto.graph.node]
        self._tested = tested.nodes
        self._pairs = _pairs(tested.nodes, reference.nodes)
        self._readers: dict[str, list[tuple[int, int]]] = {}
        """By tensor of the engine's model, the nodes that read it and at which place."""
        for index, node in enumerate(tested.nodes):
            for place, name in enumerate(node.inputs):
                self._readers.setdefault(name, []).append((index, place))
        own = {*reference.initializers, *(spec.name for spec in reference.inputs)}
        own |= {name for node in reference.nodes for name in node.outputs}
        self._taken = own
        self._inserted: dict[str, list[Any]] = {}
        """By tensor of the reference, the nodes that pass it on."""
        self.roots: dict[str, str] = {}
        """By output of such a node, the tensor that reaches it unchanged."""
        self.added: set[str] = set()
        quantised: dict[str, str] = {}
        given = (*tested.initializers, *(spec.name for spec in tested.inputs))
        self.tensor_of = {name: name for name in given if name in own}
        for index, node in enumerate(tested.nodes):
            if index in self._pairs:
                counterparts = self._reference[self._pairs[index]].output
                pairs = zip(node.outputs, counterparts, strict=False)
                self.tensor_of.update((mine, theirs) for mine, theirs in pairs if mine and theirs)
                continue
            source = node.inputs[0] if node.inputs else ""
            base = quantised.get(source) or self.tensor_of.get(source)
            if node.op_type == QUANTISE and base:
                quantised[node.outputs[0]] = base
            elif node.op_type in SAME_VALUES and (base := base or self._base_of_readers(node.outputs[0])):
                self.tensor_of[node.outputs[0]] = self._pass_on(base, node.outputs[0])
            else:
                self.tensor_of.update((name, name) for name in node.outputs if name in own)
                self.added.add(node.name)

    @property
    def nodes(self) -> list[Any]:
        """All nodes, each after what it reads wherever the reference's own are."""
        made = {name for node in self._reference for name in node.output}
        first = [name for name in self._inserted if name not in made and name not in self.roots]
        found = [node for name in first for node in self._chain(name)]
        for node in self._reference:
            found.append(node)
            found += [passing for name in node.output for passing in self._chain(name)]
        return found

    def _chain(self, tensor: str) -> Iterator[Any]:
        for node in self._inserted.get(tensor, ()):
            yield node
            yield from self._chain(node.output[0])

    def _base_of_readers(self, name: str) -> str:
        """What the reference reads where the engine's model reads ``name``: a weight that it stores as integers."""
        for index, place in self._readers.get(name, ()):
            if index in self._pairs and place < len(self._reference[self._pairs[index]].input):
                return str(self._reference[self._pairs[index]].input[place])
        return ""

    def _pass_on(self, base: str, name: str) -> str:
        """A tensor of its own for what equals ``base``, read by the same nodes as ``name`` in the engine's model."""
        passed = f"{name}/passed"
        while passed in self._taken:
            passed += "/on"
        self._taken.add(passed)
        self._inserted.setdefault(base, []).append(_node("Identity", [base], passed))
        root = self.roots[passed] = self.roots.get(base, base)
        for index, place in self._readers.get(name, ()):
            reader = self._reference[self._pairs[index]] if index in self._pairs else None
            if reader is not None and place < len(reader.input) and reader.input[place] == root:
                reader.input[place] = passed
        return passed


def _pairs(tested: Sequence[OnnxNode], reference: Sequence[OnnxNode]) -> dict[int, int]:
    """Nodes of two models that are the same, by their positions: by name first, the others by what they make."""
    pairs: dict[int, int] = {}
    keys: tuple[Callable[[OnnxNode], str], ...] = (lambda node: node.name, lambda node: next(iter(node.outputs), ""))
    for key in keys:
        taken = set(pairs.values())
        theirs = _unique((index, key(node)) for index, node in enumerate(reference) if index not in taken)
        mine = _unique((index, key(node)) for index, node in enumerate(tested) if index not in pairs)
        for name, index in mine.items():
            if name in theirs and tested[index].op_type == reference[theirs[name]].op_type:
                pairs[index] = theirs[name]
    return pairs


def _unique(named: Iterable[tuple[int, str]]) -> dict[str, int]:
    found: dict[str, int] = {}
    twice = set()
    for index, name in named:
        if name in found:
            twice.add(name)
        found[name] = index
    return {name: index for name, index in found.items() if name and name not in twice}


def _in_order(nodes: Sequence[Any], weights: set[str], outputs: Sequence[str]) -> list[Any]:
    """Nodes in the same order, but those that depend on weights only right before what reads them first.

    An exporter writes such nodes in front, and what goes wrong in them would come before what they have to do with.
    Those that nothing reads are left out.
    """
    constant = set(weights)
    delayed: dict[str, Any] = {}
    ordered: list[Any] = []
    done: set[int] = set()

    def emit_makers(names: Iterable[str]) -> None:
        for name in names:
            if name in delayed and id(delayed[name]) not in done:
                emit(delayed[name])

    def emit(node: Any) -> None:
        emit_makers(read_names(node))
        done.add(id(node))
        ordered.append(node)

    for node in nodes:
        if node.op_type not in _RANDOM and all(not name or name in constant for name in read_names(node)):
            constant.update(node.output)
            delayed.update(dict.fromkeys(node.output, node))
        else:
            emit(node)
    emit_makers(outputs)
    return ordered


def _node(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> Any:
    import onnx

    return onnx.helper.make_node(op, list(inputs), [output], name=output, **attributes)


def _copy(node: Any) -> Any:
    copied = type(node)()
    copied.CopyFrom(node)
    return copied
