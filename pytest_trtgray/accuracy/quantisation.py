"""What the scales of a Q/DQ model do to the values that the FP32 reference really computes."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pytest_trtgray.accuracy.activations import streamed
from pytest_trtgray.accuracy.drift import Drift, Samples, Side
from pytest_trtgray.accuracy.quantisation_findings import findings_of, over_limits
from pytest_trtgray.accuracy.quantised_tensor import QuantisedTensor, activation_row, stored_row, weight_row
from pytest_trtgray.accuracy.quantisers import Constants, Quantiser, Reader, find_quantisers
from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.accuracy.tally import Tally, snr
from pytest_trtgray.engines.base import Engine, Feed
from pytest_trtgray.engines.intermediates import BUDGET_BYTES
from pytest_trtgray.engines.onnx_model import OnnxModel, open_model
from pytest_trtgray.errors import ModelError
from pytest_trtgray.findings import Finding, failure_message

CACHE = Path(".trtgray_cache")
_TOO_LATE = "the time limit was reached before"


@dataclass(frozen=True)
class QuantisedLayer:
    """A node that reads quantised operands.

    Attributes:
        node: name of the ONNX node.
        op_type: its operator.
        snr_db: of a product of operands with independent errors: the noise shares of its operands added up. An
            estimate of what quantisation does to this layer alone, before errors of other layers come in.
        operands: the quantised tensors that it reads.
    """

    node: str
    op_type: str
    snr_db: float
    operands: tuple[str, ...]


@dataclass(frozen=True)
class Quantisation:
    """The quantised tensors of a model and what is wrong with them.

    Attributes:
        model: file name.
        tensors: in the order in which the model computes; weights where they are read.
        findings: the worst first, of a bounded number.
        samples: how many inputs (rows of the first axis) were looked at.
        left_out: names of Q/DQ nodes that were not inspected, each with the reason.
    """

    model: str
    tensors: tuple[QuantisedTensor, ...]
    findings: tuple[Finding, ...]
    samples: int = 0
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; advice is no fault."""
        return all(finding.severity == "advice" for finding in self.findings)

    @property
    def layers(self) -> tuple[QuantisedLayer, ...]:
        """The nodes that read quantised operands, in order."""
        operands: dict[Reader, list[QuantisedTensor]] = {}
        nodes: dict[str, Reader] = {}
        for tensor in self.tensors:
            for reader in tensor.readers:
                first = nodes.setdefault(reader.node, reader)
                operands.setdefault(first, []).append(tensor)
        found = []
        for reader, tensors in operands.items():
            noise = [10 ** (-tensor.snr_db / 10) for tensor in tensors if not math.isnan(tensor.snr_db)]
            names = tuple(tensor.tensor for tensor in tensors)
            found.append(QuantisedLayer(reader.node, reader.op_type, snr(1.0, sum(noise)), names))
        return tuple(found)

    def tensor(self, name: str) -> QuantisedTensor:
        """The row of a tensor, or of the Q/DQ node, with this name.

        Raises:
            KeyError: there is none.
        """
        for tensor in self.tensors:
            if name in (tensor.tensor, tensor.node):
                return tensor
        known = ", ".join(tensor.tensor for tensor in self.tensors[:8])
        raise KeyError(f"{self.model} has no quantised tensor {name!r} (there are: {known}, ...)")

    def sorted(self, key: str = "snr_db", *, reverse: bool = False) -> tuple[QuantisedTensor, ...]:
        """The rows by one of their attributes, smallest first; those that do not have it (NaN) last."""

        def order(tensor: QuantisedTensor) -> Any:
            value = getattr(tensor, key)
            return math.inf if isinstance(value, float) and math.isnan(value) else -value if reverse else value

        return tuple(sorted(self.tensors, key=order))

    def check(self, *, max_clipped: float | None = None, min_snr_db: float | None = None) -> None:
        """Fail if something is wrong with the quantisation.

        Args:
            max_clipped: largest share of the values of a tensor that may be cut off.
            min_snr_db: smallest signal to noise of a tensor.

        Raises:
            AssertionError: warnings, and what is over these limits.
        """
        __tracebackhide__ = True
        found = [*over_limits(self.tensors, max_clipped, min_snr_db)]
        found += [finding for finding in self.findings if finding.severity != "advice"]
        if found:
            raise AssertionError(failure_message(f"quantisation of {self.model}", found))


def inspect_quantisation(
    model: str | Path | Engine,
    feeds: Sequence[Feed] = (),
    *,
    calibration: Sequence[Feed] = (),
    reference: str | Path | Shadow | None = None,
    representative: bool = True,
    budget_bytes: int = BUDGET_BYTES,
    time_limit_s: float | None = None,
    cache_dir: Path = CACHE,
) -> Quantisation:
    """Hold the scales of a Q/DQ model (INT8, FP8 E4M3, INT4, FP4) against the values that FP32 computes.

    Args:
        model: with Q/DQ nodes, or an engine that was built from one (also by ``trt_build(precision="int8")``).
        feeds: real inputs. Without, only weights and scales are inspected.
        calibration: the inputs from which the scales were taken, to see whether they are like ``feeds``.
        reference: the FP32 model that was quantised, or its shadow. By default the engine's origin, else the model
            without its Q/DQ nodes; from weights that are stored quantised the original cannot be had back.
        representative: whether ``feeds`` are like the inputs of production. What others, such as random ones, say of
            activations is advice only.
        budget_bytes: of intermediate tensors that are held at once.
        time_limit_s: tensors that are not reached by then are left out, and said so.
        cache_dir: where a derived model is kept.

    Raises:
        ModelError: the model is unusable, has no Q/DQ nodes, or is not known.
        ShapeError, EngineError: a feed does not fit, or the reference cannot be computed.
    """
    deadline = math.inf if time_limit_s is None else time.monotonic() + time_limit_s
    quantised, origin = _model_of(model)
    quantisers, dynamic = find_quantisers(quantised)
    if not quantisers and not dynamic:
        raise ModelError(
            quantised.called,
            "has no Q/DQ nodes in its main graph",
            "Give the quantised model; trt_build(..., precision='int8') makes one from FP32.",
        )
    given = reference if reference is not None else origin
    shadow = given if isinstance(given, Shadow) else Shadow(Path(given or quantised.path), cache_dir)
    inspection = _Inspection(quantised, shadow, quantisers)
    left_out = dict.fromkeys(dynamic, "the model computes its scales")
    try:
        inspection.look_at_weights(deadline)
        inspection.look_at_activations(feeds, calibration, budget_bytes, deadline)
    finally:
        if shadow is not given:
            shadow.close()
    left_out |= inspection.left_out
    tensors = inspection.rows
    findings = findings_of(
        tensors, quantisers, left_out, inspection.input_drift, has_feeds=bool(feeds), representative=representative
    )
    return Quantisation(quantised.original.name, tensors, findings, samples(feeds), left_out)


def samples(feeds: Iterable[Feed]) -> int:
    """How many inputs feeds hold: the sizes of their first axes; a feed of scalars is one."""
    shapes = [[getattr(array, "shape", None) or np.shape(array) for array in feed.values()] for feed in feeds]
    return sum(max((int(shape[0]) for shape in several if len(shape)), default=1) for several in shapes)


def _model_of(model: str | Path | Engine) -> tuple[OnnxModel, Path | None]:
    if not isinstance(model, Engine):
        return open_model(Path(model)), None
    if model.model is None:
        raise ModelError(
            model.info.path,
            "its ONNX model is not known, and an engine does not tell its scales",
            "Give the ONNX model with the Q/DQ nodes (--trt-onnx).",
        )
    return model.model, model.origin.path if model.origin is not None else None


class _Inspection:
    """The walk over a model's quantisers.

    Attributes:
        rows: of what was inspected so far, in the order of the quantisers.
        left_out: names of the nodes that could not be, and why.
        input_drift: of the inputs of the model.
    """

    def __init__(self, model: OnnxModel, shadow: Shadow, quantisers: Sequence[Quantiser]) -> None:
        self._model = model
        self._shadow = shadow
        self._is_original = shadow.model.sha256 != model.sha256
        self._quantisers = quantisers
        self._rows: dict[int, QuantisedTensor] = {}
        self.left_out: dict[str, str] = {}
        self.input_drift: dict[str, Drift] = {}

    @property
    def rows(self) -> tuple[QuantisedTensor, ...]:
        return tuple(self._rows[index] for index in sorted(self._rows))

    def look_at_weights(self, deadline: float) -> None:
        """All weights, those that are stored quantised against the original's where that is known."""
        originals = Constants(self._shadow.source)
        for index, quantiser in enumerate(self._quantisers):
            if quantiser.role != "weight" or not self._is_known(quantiser):
                continue
            if time.monotonic() > deadline:
                self.left_out[quantiser.node] = _TOO_LATE
                continue
            name = self._name_in_reference(quantiser) if self._is_original else None
            if not quantiser.is_stored:
                self._rows[index] = weight_row(quantiser, quantiser.weight)
            elif name is not None and name in originals and originals.shape(name) == quantiser.shape:
                self._rows[index] = weight_row(quantiser, originals[name].astype(np.float32))
            else:
                self._rows[index] = stored_row(quantiser)

    def look_at_activations(
        self, feeds: Sequence[Feed], calibration: Sequence[Feed], budget_bytes: int, deadline: float
    ) -> None:
        """All activations that the reference computes from the feeds, one chunk of tensors after the other."""
        if not feeds:
            return
        wanted: dict[str, list[int]] = {}
        for index, quantiser in enumerate(self._quantisers):
            if quantiser.role == "activation" and self._is_known(quantiser):
                name = self._name_in_reference(quantiser)
                if name is None:
                    self.left_out[quantiser.node] = f"the FP32 reference has no tensor {quantiser.tensor!r}"
                else:
                    wanted.setdefault(name, []).append(index)
        inputs = [spec.name for spec in self._shadow.source.inputs if spec.dtype == "float32"] if calibration else []
        feeds_of_both = [*feeds, *calibration]
        counts: Mapping[Side, int] = {"test": len(feeds), "calibration": len(calibration)}
        seen: dict[str, int] = {}
        tallies: dict[str, list[Tally]] = {}
        drifts: dict[str, Samples] = {}
        for index, name, values in streamed(
            self._shadow, feeds_of_both, list(dict.fromkeys([*inputs, *wanted])), budget_bytes
        ):
            if time.monotonic() > deadline:
                break
            side: Side = "test" if index < len(feeds) else "calibration"
            if calibration:
                drifts.setdefault(name, Samples(counts)).add(side, values)
            if side == "test":
                fresh = [Tally(self._quantisers[number]) for number in wanted.get(name, ())]
                for tally in tallies.setdefault(name, fresh):
                    tally.add(values)
            seen[name] = seen.get(name, 0) + 1
            if seen[name] == len(feeds_of_both):  # nothing more comes: keep numbers only
                drift = drifts.pop(name).drift() if calibration else None
                if name in inputs and drift is not None:
                    self.input_drift[name] = drift
                for number, tally in zip(wanted.get(name, ()), tallies.pop(name), strict=True):
                    self._rows[number] = activation_row(tally, drift)
        for numbers in wanted.values():
            for number in numbers:
                if number not in self._rows:
                    self.left_out[self._quantisers[number].node] = _TOO_LATE

    def _is_known(self, quantiser: Quantiser) -> bool:
        """Whether scales and type can be computed with; what cannot is left out."""
        if quantiser.levels is None:
            self.left_out[quantiser.node] = f"{quantiser.dtype} (ONNX type {quantiser.onnx_type}) is not known here"
        elif not (np.isfinite(quantiser.scale).all() and (quantiser.scale > 0).all()):
            self.left_out[quantiser.node] = "its scale is not a positive number"
        else:
            return True
        return False

    def _name_in_reference(self, quantiser: Quantiser) -> str | None:
        """What the FP32 reference calls a tensor: in an original, what the same node reads or writes at its place."""
        if not self._is_original:
            return quantiser.tensor
        places = [(reader.node, reader.op_type, "reads", reader.operand) for reader in quantiser.readers]
        places += [self._writers[quantiser.tensor]] if quantiser.tensor in self._writers else []
        known = self._places_in_reference
        found = next((known[place] for place in places if place in known), quantiser.tensor)
        return found if found in known.values() else None

    @functools.cached_property
    def _writers(self) -> Mapping[str, Place]:
        return {name: place for place, name in _places(self._model).items() if place[2] == "writes"}

    @functools.cached_property
    def _places_in_reference(self) -> Mapping[Place, str]:
        return _places(self._shadow.source)


Place = tuple[str, str, str, int]
"""Name and operator of a node, ``reads`` or ``writes``, and which operand."""


def _places(model: OnnxModel) -> dict[Place, str]:
    """The tensor at every place of the main graph."""
    return {
        (node.name, node.op_type, verb, index): name
        for node in model.nodes
        for verb, names in (("reads", node.inputs), ("writes", node.outputs))
        for index, name in enumerate(names)
        if name
    }
