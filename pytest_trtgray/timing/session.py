"""The measuring loop: sessions in fresh contexts, layers and engine apart, warm-up until steady."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pytest_trtgray.engines.base import Engine, Feed, TimingContext
from pytest_trtgray.engines.model import Layer
from pytest_trtgray.timing import telemetry
from pytest_trtgray.timing.gate import Run, Session

WARMUP_MIN_RUNS = 3
WARMUP_BLOCK = 5
WARMUP_STEADY = 0.02
"""Warm-up ends when the medians of two blocks in a row differ by less."""
WARMUP_MAX_S = 2.0
SESSION_BUDGET_S = 2.0
"""A slow model gets fewer iterations than a fast one, so that a session lasts about this long."""
MIN_ITERATIONS = 10


@dataclass(frozen=True)
class Plan:
    """How much to measure.

    Attributes:
        sessions: fresh contexts of each kind.
        iterations: per session; ``None`` for 67, or fewer if the model is slow (at least 10).
    """

    sessions: int = 3
    iterations: int | None = None

    def __post_init__(self) -> None:
        if self.sessions < 1 or (self.iterations is not None and self.iterations < 1):
            raise ValueError("sessions and iterations must be at least 1")


DEFAULT_ITERATIONS = 67
"""Kalibera and Jones' optimum for iterations of 5 ms and 5 s of start-up lies at 141, of 50 ms at 44."""


def measure_run(
    engine: Engine, feed: Feed, plan: Plan, *, context: dict[str, str], disturbed: str = ""
) -> tuple[Run, tuple[Layer, ...]]:
    """Measure one run.

    Args:
        engine: runnable here.
        feed: the input of every inference.
        plan: how much.
        context: recorded with the run.
        disturbed: why the machine is not to be trusted, if that is known beforehand.

    Returns:
        the run, and the layer behind each of its columns.

    Raises:
        NotRunnableError: this machine cannot run the engine.
    """
    sessions = []
    layers: tuple[Layer, ...] = ()
    for _ in range(plan.sessions):
        session, layers = measure_session(engine, feed, plan.iterations, disturbed=disturbed)
        sessions.append(session)
    state = telemetry.read(engine.info.device)
    return Run(sessions, {**context, **(state.context() if state else {})}), layers


def measure_session(
    engine: Engine, feed: Feed, iterations: int | None, *, disturbed: str = ""
) -> tuple[Session, tuple[Layer, ...]]:
    """One session: the engine in one fresh context, its layers in another."""
    engine.require_runnable()
    device = engine.info.device
    before = telemetry.read(device)
    with engine.timing_context(feed, profiled=False) as plain:
        steady_us = _warm_up(plain)
        count = iterations or _affordable(steady_us)
        latency = [plain.run() for _ in range(count)]
        busy = telemetry.read(device)
    with engine.timing_context(feed, profiled=True) as profiled:
        _warm_up(profiled)
        for _ in range(count):
            profiled.run()
        times = profiled.layer_times()[-count:]
    layers, table = _tabulate(engine.layers, times)
    session = Session.from_samples(
        table,
        latency,
        layers=layers,
        clock_mhz=busy.sm_mhz if busy else None,
        disturbed=disturbed or telemetry.first_disturbance((before, busy, telemetry.read(device))),
    )
    return session, layers


def _warm_up(context: TimingContext) -> float:
    """Run until two blocks in a row agree; returns the median of the last block, microseconds."""
    started = time.perf_counter()
    context.run()  # allocations, just-in-time compilation: says nothing about the steady state
    previous = float("inf")
    runs = 1
    while True:
        block: list[float] = []
        while len(block) < WARMUP_BLOCK and (
            not block or runs < WARMUP_MIN_RUNS or time.perf_counter() - started < WARMUP_MAX_S
        ):
            block.append(context.run())
            runs += 1
        median = float(np.median(block))
        steady = abs(median - previous) <= WARMUP_STEADY * previous
        if steady or time.perf_counter() - started >= WARMUP_MAX_S:
            return median
        previous = median


def _affordable(steady_us: float) -> int:
    fitting = int(SESSION_BUDGET_S * 1e6 / max(steady_us, 1.0))
    return max(MIN_ITERATIONS, min(DEFAULT_ITERATIONS, fitting))


def _tabulate(layers: Sequence[Layer], times: Sequence[dict[str, float]]) -> tuple[tuple[Layer, ...], np.ndarray]:
    """Times in the engine's layer order, shape (iterations, layers).

    Layers that the profiler never names (folded away, or shape arithmetic on the host) get no column;
    names that the engine does not list get a layer of their own, so that no time is lost.
    """
    seen = {name for iteration in times for name in iteration}
    listed: dict[str, Layer] = {}
    for layer in layers:
        if layer.name in seen:
            listed.setdefault(layer.name, layer)
    for name in sorted(seen - set(listed)):
        listed[name] = Layer(name=name, kind="unlisted")
    table = np.array([[iteration.get(name, 0.0) for name in listed] for iteration in times])
    return tuple(listed.values()), table
