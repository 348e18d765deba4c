"""What a test gets from ``trt_profiler``: times by layer and module, and a check against the baseline."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_trtgray.engines.model import EngineInfo, Layer
from pytest_trtgray.findings import Finding
from pytest_trtgray.timing.anomalies import Samples, find_anomalies
from pytest_trtgray.timing.gate import Run, Verdict
from pytest_trtgray.timing.grouping import LayerGroup, modules, share_of

if TYPE_CHECKING:
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

    Attributes:
        pattern: as asked for.
        layers: whose ONNX nodes it matches.
        us: microseconds; a kernel that spans modules counts in proportion to its nodes.
        share: of the sum of all layers (0 to 1).
    """

    pattern: str
    layers: tuple[Layer, ...]
    us: float
    share: float


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

    @cached_property
    def anomalies(self) -> tuple[Finding, ...]:
        """What is odd about the iterations: outliers, drift, two-mode and hyper-variable layers, the costliest first.

        Diagnoses of severity ``warning`` or ``advice``; they fail no test.
        """
        return find_anomalies(self.samples)

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
        for timed in self.layers:
            if onnx_node in timed.layer.onnx_nodes or timed.layer.name == onnx_node:
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
        parts = [(timed, share_of(pattern, timed.layer, self.group_of)) for timed in self.layers]
        found = [(timed, part) for timed, part in parts if part > 0]
        if not found:
            there = modules(timed.layer for timed in self.layers)
            known = f"modules: {', '.join(there[:8])}" if there else "the ONNX nodes have no module paths"
            raise KeyError(f"{pattern!r} matches no layer of {self.engine.name}; {known}")
        return ModuleTime(
            pattern,
            tuple(timed.layer for timed, _ in found),
            sum(timed.us * part for timed, part in found),
            sum(timed.share * part for timed, part in found),
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
