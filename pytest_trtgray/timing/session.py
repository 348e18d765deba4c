"""The measuring loop: sessions in fresh contexts, layers and engine apart, warm-up until steady."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from pytest_trtgray.engines.base import DEFAULT_TIMING, Engine, Feed, TimingContext, TimingOptions
from pytest_trtgray.engines.model import Layer
from pytest_trtgray.engines.profiles import requested
from pytest_trtgray.progress import PROGRESS
from pytest_trtgray.timing import telemetry
from pytest_trtgray.timing.anomalies import Samples
from pytest_trtgray.timing.exclusive import alone_on
from pytest_trtgray.timing.first_calls import FirstCall, FirstCallRun, FirstCalls
from pytest_trtgray.timing.gate import Run, Session

WARMUP_MIN_RUNS = 3
WARMUP_BLOCK = 5
WARMUP_STEADY = 0.02
"""Warm-up ends when the medians of two blocks in a row differ by less."""
WARMUP_MAX_S = 2.0
SESSION_BUDGET_S = 2.0
"""A slow model gets fewer iterations than a fast one, so that a session lasts about this long."""
MIN_ITERATIONS = 10
TRANSFERS = 10
"""Transfers of inputs and outputs in a session; they repeat better than kernels do."""


@dataclass(frozen=True)
class Plan:
    """How much to measure, and how.

    Attributes:
        sessions: fresh contexts of each kind.
        iterations: per session; ``None`` for 67, or fewer if the model is slow (at least 10).
        processes: whether each session is a fresh process.
        options: how the engine is run.
    """

    sessions: int = 3
    iterations: int | None = None
    processes: bool = False
    options: TimingOptions = field(default=DEFAULT_TIMING)

    def __post_init__(self) -> None:
        if self.sessions < 1 or (self.iterations is not None and self.iterations < 1):
            raise ValueError("sessions and iterations must be at least 1")

    @property
    def method(self) -> dict[str, str]:
        """What of this changes the times, and so belongs to the identity of a baseline."""
        return {
            **({"processes": "fresh"} if self.processes else {}),
            **({"cuda_graph": "yes"} if self.options.cuda_graph else {}),
        }


@dataclass(frozen=True)
class Overheads:
    """What an inference costs beside the steady execution, microseconds; not part of any verdict.

    Attributes:
        cold_start_us: from the creation of a context to its first result, by the host's clock.
        upload_us: all inputs from page-locked memory to the device; ``None`` where nothing is copied.
        download_us: all outputs back.
    """

    cold_start_us: float
    upload_us: float | None = None
    download_us: float | None = None

    def context(self) -> dict[str, str]:
        """What a baseline records beside a run, with units."""
        return {name: f"{value:.1f}" for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class SessionResult:
    """One session: summarised times, the layer behind each column, what else was seen, and every iteration."""

    session: Session
    layers: tuple[Layer, ...]
    overheads: Overheads
    samples: Samples


@dataclass(frozen=True)
class Measurement:
    """One run: its sessions, the layer behind each column, and what else was seen (medians over the sessions).

    ``samples`` are the iterations of each session; they are for diagnoses and kept in no file.
    """

    run: Run
    layers: tuple[Layer, ...]
    overheads: Overheads
    samples: tuple[Samples, ...] = ()


DEFAULT_ITERATIONS = 67
"""Kalibera and Jones' optimum for iterations of 5 ms and 5 s of start-up lies at 141, of 50 ms at 44."""


def measure_run(engine: Engine, feed: Feed, plan: Plan, *, context: dict[str, str], disturbed: str = "") -> Measurement:
    """Measure one run.

    Args:
        engine: runnable here.
        feed: the input of every inference.
        plan: how much.
        context: recorded with the run.
        disturbed: why the machine is not to be trusted, if that is known beforehand.

    Raises:
        NotRunnableError: this machine cannot run the engine.
        EngineError: the runtime failed, or cannot do what the plan says.
    """
    results = measure_sessions(engine, feed, plan, disturbed=disturbed)
    state = telemetry.read(engine.info.device)
    overheads = _median_of([result.overheads for result in results])
    run = Run(
        [result.session for result in results],
        {**context, **overheads.context(), **(state.context() if state else {})},
    )
    return Measurement(run, results[0].layers, overheads, tuple(result.samples for result in results))


def measure_sessions(engine: Engine, feed: Feed, plan: Plan, *, disturbed: str = "") -> list[SessionResult]:
    """The sessions of a plan, one after the other, while no other timing test uses the device."""
    engine.require_runnable()
    results = []
    with PROGRESS.work(f"timing {engine.info.name}") as tell, alone_on(engine.info.device) as waited_in_vain:
        why = disturbed or waited_in_vain
        for number in range(plan.sessions):
            tell(number + 1, plan.sessions, "session")  # before it: nothing is written while a session measures
            results.append(_one_session(engine, feed, plan, why))
    return results


def measure_pairs(
    old: Engine, new: Engine, feed: Feed, plan: Plan, pairs: int, *, disturbed: str = ""
) -> tuple[list[SessionResult], list[SessionResult]]:
    """Sessions of two engines in turn, each pair in the other order: what drifts does not favour one of them.

    Args:
        old: one engine.
        new: the other.
        feed: the input of every inference of both.
        plan: how much a session is; its number of sessions does not matter here.
        pairs: of sessions.
        disturbed: why the machine is not to be trusted, if that is known beforehand.

    Returns:
        the sessions of each engine, pair by pair.
    """
    one = replace(plan, sessions=1)
    results: dict[int, list[SessionResult]] = {0: [], 1: []}
    work = PROGRESS.work(f"timing {new.info.name} against {old.info.name}")
    with work as tell, alone_on(new.info.device) as waited_in_vain:
        for pair in range(pairs):
            tell(pair + 1, pairs, "pair")
            for which in (0, 1) if pair % 2 == 0 else (1, 0):
                why = disturbed or waited_in_vain
                results[which].append(_one_session((old, new)[which], feed, one, why))
    return results[0], results[1]


def measure_session(engine: Engine, feed: Feed, plan: Plan, *, disturbed: str = "", family: int = 1) -> SessionResult:
    """One session: the engine in one fresh context, its layers in another.

    Args:
        engine: runnable here.
        feed: the input of every inference.
        plan: how much; its number of sessions does not matter here.
        disturbed: why the machine is not to be trusted, if that is known beforehand.
        family: see :func:`pytest_trtgray.timing.telemetry.read`.
    """
    engine.require_runnable()
    device = engine.info.device
    before = telemetry.read(device, family=family)
    started = time.perf_counter()
    with engine.timing_context(feed, profiled=False, options=plan.options) as plain:
        plain.run()
        cold_start_us = (time.perf_counter() - started) * 1e6
        steady_us = warm_up(plain)
        count = plan.iterations or affordable(steady_us)
        latency = [plain.run() for _ in range(count)]
        busy = telemetry.read(device, family=family)
        transfers = [moved for _ in range(TRANSFERS) if (moved := plain.transfers()) is not None]
    with engine.timing_context(feed, profiled=True, options=plan.options) as profiled:
        profiled.run()
        warm_up(profiled)
        for _ in range(count):
            profiled.run()
        times = profiled.layer_times()[-count:]
    layers, table = _tabulate(engine.layers, times)
    after = telemetry.read(device, family=family)
    session = Session.from_samples(
        table,
        latency,
        layers=layers,
        clock_mhz=busy.sm_mhz if busy else None,
        disturbed=disturbed or telemetry.first_disturbance((before, busy, after)),
    )
    upload, download = np.median(transfers, axis=0) if transfers else (None, None)
    overheads = Overheads(cold_start_us, _number(upload), _number(download))
    return SessionResult(session, layers, overheads, Samples(table, latency, layers))


def _one_session(engine: Engine, feed: Feed, plan: Plan, disturbed: str) -> SessionResult:
    if plan.processes:
        from pytest_trtgray.timing.processes import measure_in_process

        return measure_in_process(engine, feed, plan, disturbed=disturbed)
    return measure_session(engine, feed, plan, disturbed=disturbed)


def first_calls(
    engine: Engine,
    feeds: Sequence[Feed],
    options: TimingOptions = DEFAULT_TIMING,
    *,
    context: Mapping[str, str] | None = None,
    disturbed: str = "",
) -> FirstCalls:
    """What a change of shape costs: each feed in turn, in one fresh context.

    Args:
        engine: runnable here.
        feeds: in the order in which the shapes change.
        options: ``kept_kernels=False`` for a machine that has never seen the engine.
        context: recorded with the calls.
        disturbed: why the machine is not to be trusted, if that is known beforehand.

    Raises:
        NotRunnableError: this machine cannot run the engine.
    """
    engine.require_runnable()
    method = first_call_method(engine, options)
    if not feeds:
        return FirstCalls((), FirstCallRun(0.0, (), ()), method)
    device = engine.info.device
    found = []
    with PROGRESS.work(f"first calls of {engine.info.name}"), alone_on(device) as waited_in_vain:
        before = telemetry.read(device)
        started = time.perf_counter()
        with engine.timing_context(feeds[0], profiled=False, options=options) as switched:
            creation_us = (time.perf_counter() - started) * 1e6
            for feed in feeds:
                first = _bind_and_run(switched, feed)
                steady = float(np.median([_bind_and_run(switched, feed) for _ in range(WARMUP_BLOCK)]))
                found.append(FirstCall(requested(engine.info.inputs, engine.checked(feed)), first, steady))
            after = telemetry.read(device)  # while the context exists: this process is among those on the GPU
    run = FirstCallRun(
        creation_us=creation_us,
        first_us=tuple(call.first_us for call in found),
        steady_us=tuple(call.steady_us for call in found),
        context={**(context or {}), **(after.context() if after else {})},
        disturbed=disturbed or waited_in_vain or telemetry.first_disturbance((before, after)),
    )
    return FirstCalls(tuple(found), run, method)


def first_call_method(engine: Engine, options: TimingOptions) -> dict[str, str]:
    """What changes the times of first calls, and so belongs to the identity of their baseline.

    They are taken by the host's clock, whatever times layers and engine.
    """
    unrelated = ("layers", "engine", "transfers")
    how = {name: value for name, value in engine.timing_method.items() if name not in unrelated}
    return {**how, "clock": "host", "kept_kernels": "yes" if options.kept_kernels else "no"}


def _bind_and_run(context: TimingContext, feed: Feed) -> float:
    started = time.perf_counter()
    context.bind(feed)
    context.run()
    return (time.perf_counter() - started) * 1e6


class Repeatable(Protocol):
    """What can be run again and again; each run gives its time in microseconds."""

    def run(self) -> float:
        """Once."""
        ...


def warm_up(context: Repeatable) -> float:
    """Run until two blocks in a row agree; returns the median of the last block, microseconds."""
    started = time.perf_counter()
    previous = float("inf")
    runs = 1  # the first one, before this, allocated and compiled
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


def affordable(steady_us: float) -> int:
    """Iterations of a session, from the time of one in microseconds."""
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


def _median_of(overheads: Sequence[Overheads]) -> Overheads:
    def median(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.median(known)) if known else None

    return Overheads(
        median([each.cold_start_us for each in overheads]) or 0.0,
        median([each.upload_us for each in overheads]),
        median([each.download_us for each in overheads]),
    )


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)
