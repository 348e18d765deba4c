"""What a test gets from ``trt_profiler``: times by layer and module, and a check against the baseline."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_trtgray.engines.costs import model_costs
from pytest_trtgray.engines.model import EngineInfo, Layer
from pytest_trtgray.engines.peaks import peak_of
from pytest_trtgray.findings import Finding
from pytest_trtgray.timing.anomalies import Samples, find_anomalies
from pytest_trtgray.timing.gate import Run, Verdict
from pytest_trtgray.timing.grouping import LayerGroup, critical, module_shares, modules, share_of
from pytest_trtgray.timing.optimisation import advice_on_profile
from pytest_trtgray.timing.roofline import Bound, Roofline, bound_of, rooflines

if TYPE_CHECKING:
    from pytest_trtgray.engines.onnx_model import OnnxModel
    from pytest_trtgray.timing.session import Overheads


@dataclass(frozen=True)
class LayerTime:
    """One layer's time.

    Attributes:
        layer: see :class:`~pytest_trtgray.engines.model.Layer`.
        us: microseconds, over all sessions.
        share: of the sum of all layers (0 to 1).
    """

    layer: Layer
    us: float
    share: float


@dataclass(frozen=True)
class ModuleTime:
    """The time of the modules that a pattern names.

    A kernel that spans modules counts for each in proportion to its nodes. What is not known is ``None``: where the
    ONNX model is missing, or shape inference does not tell.

    Attributes:
        pattern: as asked for, or the module's path with ``*`` for the numbers of blocks.
        layers: whose ONNX nodes it matches.
        us: microseconds.
        share: of the sum of all layers (0 to 1).
        weights_bytes: of the layers that are known.
        activations_bytes: written by the layers that are known.
        flops: operations of the layers that are known.
        bound: what bounds most of its time: ``compute``, ``memory``, or ``unknown``.
    """

    pattern: str
    layers: tuple[Layer, ...]
    us: float
    share: float
    weights_bytes: int | None = None
    activations_bytes: int | None = None
    flops: int | None = None
    bound: Bound = "unknown"


@dataclass(frozen=True)
class Profile:
    """Times of one engine at one shape.

    Attributes:
        engine: what was measured.
        shapes: of the inputs.
        run: the sessions, as the gate judges them.
        layers: in execution order.
        method: how times were taken.
        checker: compares with the baseline; given by the fixture.
        group_of: a user's own grouping (hook ``pytest_trt_layer_group``).
        overheads: cold start and transfers, measured apart; ``None`` where a profile was made by hand.
        samples: every iteration of each session; empty where a profile was made by hand.
        model: the ONNX model behind the engine, where it is known: for operations, bytes and memory.
    """

    engine: EngineInfo
    shapes: Mapping[str, tuple[int, ...]]
    run: Run
    layers: tuple[LayerTime, ...]
    method: Mapping[str, str]
    checker: Callable[[Profile], Verdict | None] | None = None
    group_of: LayerGroup | None = None
    overheads: Overheads | None = None
    samples: tuple[Samples, ...] = field(default=(), repr=False)
    model: OnnxModel | None = field(default=None, repr=False, compare=False)

    @cached_property
    def anomalies(self) -> tuple[Finding, ...]:
        """What is odd about the iterations: outliers, drift, two-mode and hyper-variable layers, the costliest first.

        Diagnoses of severity ``warning`` or ``advice``; they fail no test.
        """
        return find_anomalies(self.samples)

    @cached_property
    def advice(self) -> tuple[Finding, ...]:
        """Where the time goes and what may be lost: critical modules, then the optimisation rules that need times."""
        return advice_on_profile(self)

    @property
    def total_us(self) -> float:
        """Time of one inference, measured without a profiler, microseconds."""
        return math.exp(self.run.engine())

    @property
    def total_ms(self) -> float:
        """The same in milliseconds."""
        return self.total_us / 1e3

    def layer(self, onnx_node: str) -> LayerTime:
        """The time of the layer that computes an ONNX node.

        Raises:
            KeyError: no layer does.
        """
        node = self.model.scoped_names.get(onnx_node, onnx_node) if self.model else onnx_node
        for timed in self.layers:
            if node in timed.layer.onnx_nodes or timed.layer.name == onnx_node:
                return timed
        raise KeyError(f"no layer of {self.engine.name} computes the ONNX node {onnx_node!r}")

    def group(self, pattern: str) -> ModuleTime:
        """The time of all modules that match ``pattern``.

        Args:
            pattern: parts of a module path, each a shell pattern, such as ``encoder.layer.*/attention``;
                ``/`` and ``.`` both separate. It may match anywhere in a node's path.

        Raises:
            KeyError: it matches nothing, which would make every budget pass; names the modules there are.
        """
        parts = {
            index: part
            for index, timed in enumerate(self.layers)
            if (part := share_of(pattern, timed.layer, self.group_of)) > 0
        }
        if not parts:
            there = modules(timed.layer for timed in self.layers)
            known = f"modules: {', '.join(there[:8])}" if there else "the ONNX nodes have no module paths"
            raise KeyError(f"{pattern!r} matches no layer of {self.engine.name}; {known}")
        return self._module(pattern, parts)

    def modules(self, *, repeated: bool = True) -> tuple[ModuleTime, ...]:
        """All modules that the names of ONNX nodes tell, outer ones too, the one that takes longest first.

        Args:
            repeated: put the blocks of a network together, ``encoder/layer.*`` for ``layer.0`` to ``layer.11``; each
                pattern can be given to :meth:`group`.
        """
        shares = module_shares([timed.layer for timed in self.layers], self.group_of, repeated=repeated)
        found = [self._module(name, parts) for name, parts in shares.items()]
        return tuple(sorted(found, key=lambda module: -module.us))

    def critical_modules(self, least: float = 0.1, *, repeated: bool = True) -> tuple[ModuleTime, ...]:
        """The innermost modules that take at least ``least`` of the time, the one that takes longest first.

        Args:
            least: part of the sum of all layers (0 to 1).
            repeated: as for :meth:`modules`.
        """
        found = {module.pattern: module for module in self.modules(repeated=repeated)}
        names = critical({name: module.share for name, module in found.items()}, least)
        return tuple(found[name] for name in names)

    def top(self, count: int = 10) -> tuple[tuple[LayerTime, Roofline], ...]:
        """The layers that take longest, each with its roofline."""
        rows = sorted(zip(self.layers, self.rooflines, strict=True), key=lambda row: -row[0].us)
        return tuple(rows[:count])

    @cached_property
    def rooflines(self) -> tuple[Roofline, ...]:
        """Of each layer: operations, bytes, and which of the two bounds it on this device, as far as is known."""
        device = self.engine.device
        return rooflines(
            [timed.layer for timed in self.layers],
            model_costs(self.model, self.shapes) if self.model else None,
            peak_of(device.name) if device else None,
            device=device.name if device else "",
            # on by default, and TensorRT for RTX takes no notice of the flag
            tf32=self.engine.runtime != "onnxruntime",
        )

    def _module(self, pattern: str, parts: Mapping[int, float]) -> ModuleTime:
        def total(name: str) -> int | None:
            known = [
                value * part for i, part in parts.items() if (value := getattr(self.rooflines[i], name)) is not None
            ]
            return round(sum(known)) if known else None

        return ModuleTime(
            pattern,
            tuple(self.layers[i].layer for i in parts),
            sum(self.layers[i].us * part for i, part in parts.items()),
            sum(self.layers[i].share * part for i, part in parts.items()),
            weights_bytes=total("weights_bytes"),
            activations_bytes=total("written_bytes"),
            flops=total("flops"),
            bound=bound_of((self.rooflines[i], self.layers[i].us * part) for i, part in parts.items()),
        )

    def check(self) -> Verdict | None:
        """Compare with this hardware's baseline.

        Returns:
            the verdict; ``None`` when a baseline was just recorded.

        Raises:
            AssertionError: something is slower, or there is no baseline; the first line is the verdict.
        """
        __tracebackhide__ = True
        if self.checker is None:
            raise RuntimeError("this profile was not made by the trt_profiler fixture; it has no baseline")
        return self.checker(self)


def layer_times(run: Run, layers: tuple[Layer, ...]) -> tuple[LayerTime, ...]:
    """Times by layer from a run's columns."""
    times = [math.exp(value) for value in run.location()]
    total = sum(times) or 1.0
    return tuple(LayerTime(layer, us, us / total) for layer, us in zip(layers, times, strict=True))
