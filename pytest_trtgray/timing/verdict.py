"""What a timing verdict is made of, and the limits that it was made with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pytest_trtgray.findings import Finding

Outcome = Literal["pass", "slower", "faster", "inconclusive", "new", "gone"]

MUST_DETECT_LAYER = 0.10
"""A layer passes if a slowdown of this much is excluded (95 %)."""
MUST_DETECT_ENGINE = 0.05
MATTERS = 0.005
"""A layer whose possible slowdown costs the engine less than this is an advisory, not an *inconclusive* run.

On an NVIDIA H200 four in five runs of BERT-base have a layer that varies too much to be judged, mostly a copy of a
few microseconds; none of them could cost the engine half a percent. What is hidden so is said (``timing.blind-spot``).
"""
AGREEING = 2 / 3
"""Of the sessions have to show half the tolerance, so that one odd process cannot fail a run."""
MIN_CHANGE_US = 0.05
"""Less than one or two ticks of the profiler's clock is no slowdown that anyone could want to hear of."""


@dataclass(frozen=True)
class Judgement:
    """The verdict on one layer, on a module, or on the engine.

    Attributes:
        key: of the layer; a module's path; ``engine``.
        outcome: see :data:`Outcome`.
        before_us: baseline, microseconds; ``None`` for a new layer.
        after_us: now.
        change: relative, after the shift that all layers share was taken out (0.1 is 10 % slower).
        low: lower end of the 95 % confidence interval of ``change``.
        high: upper end.
        p_value: of "not slower", corrected for the number of layers.
        at_risk: part of the engine's time that a slowdown of this layer, not excluded, could cost.
        fused: from how many layers to how many, where a fusion changed; ``(1, 1)`` otherwise.
    """

    key: str
    outcome: Outcome
    before_us: float | None
    after_us: float | None
    change: float = 0.0
    low: float = 0.0
    high: float = 0.0
    p_value: float = 1.0
    at_risk: float = 0.0
    fused: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Verdict:
    """The verdict on a run.

    Attributes:
        outcome: ``slower`` if the engine, a module or a layer is; ``inconclusive`` if something that matters is.
        engine: the whole engine.
        layers: in the order of the new run, then those that are gone.
        sessions: spent on the new run, second look included.
        baseline_runs: how many jobs it was judged against (pairs, in an A/B).
        reason: for *inconclusive*, why.
        findings: what a report shows.
        modules: those that are slower as a whole.
        machine: shift that all layers share, relative; ``machine_explained``: the part that the clock explains.
        machine_explained: ``None`` where the clock was not read.
        resolution: slowdown of a usual layer that is found in nine runs of ten.
    """

    outcome: Outcome
    engine: Judgement
    layers: tuple[Judgement, ...]
    sessions: int
    baseline_runs: int
    reason: str
    findings: tuple[Finding, ...]
    modules: tuple[Judgement, ...] = ()
    machine: float = 0.0
    machine_explained: float | None = None
    resolution: float = 0.0


@dataclass(frozen=True)
class Limits:
    """What may fail, and how sure that has to be.

    Attributes:
        alpha: chance of a false alarm, for the layers and for the engine each.
        layer: tolerance of a layer (0.03 is 3 %).
        engine: tolerance of the engine.
    """

    alpha: float
    layer: float
    engine: float
