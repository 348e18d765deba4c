"""``SamplingProfiler``: an engine in service, a few of whose inferences are profiled and judged."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from pytest_trtgray.engines.base import Engine, Feed, TimingContext
from pytest_trtgray.engines.model import Layer
from pytest_trtgray.engines.profiles import requested
from pytest_trtgray.errors import BaselineError, EngineError
from pytest_trtgray.findings import Finding
from pytest_trtgray.serving.buckets import Block, Bucket, Sample, ShapeBuckets, Shapes, block_of
from pytest_trtgray.serving.budget import Budget
from pytest_trtgray.serving.metrics import EngineMetrics, ServingMetrics
from pytest_trtgray.serving.online import Limits, OnlineGate, ServiceBaselines
from pytest_trtgray.serving.policy import FAULT, FAULT_HOLD_S, LEARNING, Policy, Sampler
from pytest_trtgray.serving.worker import Worker
from pytest_trtgray.timing import telemetry
from pytest_trtgray.timing.session import DEFAULT_ITERATIONS, WARMUP_MIN_RUNS
from pytest_trtgray.timing.verdict import Verdict

log = logging.getLogger(__name__)

Outputs = dict[str, NDArray[Any]]

PAUSE_S = 0.001
"""Slept now and then while a profile is read: a request never waits for the interpreter's lock for longer than a
tenth of a millisecond because of it."""
PROFILES, CONTEXTS, CALLS = 2, 64, 64
"""What may wait: profiles to be read (each holds a context), contexts to be opened or closed, findings for the
callback."""
NOTES = 8
"""Times that are put away at once."""
CLOSING_S = 10.0
_NUMBERS = 1 << 40  # requests of one slot


@dataclass(frozen=True)
class SamplingStatus:
    """What a profiler did so far.

    Attributes:
        policy: in force.
        served: requests.
        profiled: of these, in the profiled context.
        overhead: cost of profiling as a part of the time of inference, lately.
        spent_s: what profiling cost beside the requests, seconds of processor time.
        shapes: inferences that were timed, by bucket; up to a rate of 2 % that is one in 29, and the profiled ones.
        verdicts: the last one of each bucket that has one.
    """

    policy: Policy
    served: int
    profiled: int
    overhead: float
    spent_s: float
    shapes: dict[str, int]
    verdicts: dict[str, Verdict]


class SamplingProfiler:
    """An engine in service: answers every request, and profiles a few of them.

    There are two contexts side by side, because TensorRT's profiler slows down the context that it is attached to:
    most requests run in the plain one; those that the policy draws run in the profiled one and are answered from
    there, so that nothing is computed twice. A profiled context is opened, warmed, read and closed by a thread beside
    the requests, and replaced after ``iterations`` inferences: ONNX Runtime tells a profile only when it ends.

    Of each shape, ``iterations`` profiled inferences and the unprofiled ones of the same period make a session; three
    sessions make a run, which the gate of the tests judges against the baseline. *Inconclusive* is an answer: at a
    rate of 100 % there are no unprofiled inferences, and no verdict.

    Memory is bounded by ``contexts``, ``max_buckets`` and ``iterations``. Safe from any thread. What goes wrong
    beside the inference itself is logged and counted, and never raised into a request.

    Args:
        engine: runnable here; used by nobody else.
        feed: an input that the engine takes, to open and warm contexts with; it has to stay unchanged.
        policy: which requests are profiled.
        seed: of the draws.
        contexts: inferences at the same time; each has a plain and, while profiling, a profiled context.
        iterations: profiled inferences in a session.
        max_buckets: shapes that have times of their own.
        baselines: to be held against and to add to.
        limits: of the gate.
        metrics: where to count; the same for all engines of a process.
        on_anomaly: told each finding of a verdict that says *slower*, in a thread of its own; what it raises is logged.
        on_block: told the bucket's name and each session, by the thread that reads profiles; for an A/B
            (:class:`~pytest_trtgray.serving.online.LiveContest`).

    Raises:
        NotRunnableError: this machine cannot run the engine.
        BaselineError: a baseline file is there and cannot be used.
        EngineError: no context can be opened.
    """

    # What a request touches lies in the object itself: a dictionary of so many attributes is two cache misses more.
    __slots__ = ("__dict__", "__weakref__", "_slots")

    def __init__(
        self,
        engine: Engine,
        feed: Feed,
        *,
        policy: Policy = LEARNING,
        seed: int = 0,
        contexts: int = 1,
        iterations: int = DEFAULT_ITERATIONS,
        max_buckets: int = 16,
        baselines: ServiceBaselines | None = None,
        limits: Limits | None = None,
        metrics: ServingMetrics | None = None,
        on_anomaly: Callable[[Finding], None] | None = None,
        on_block: Callable[[str, Block], None] | None = None,
    ) -> None:
        if contexts < 1 or iterations < 1:
            raise ValueError(f"contexts and iterations must be at least 1, got {contexts} and {iterations}")
        engine.require_runnable()
        self.engine = engine
        self._feed = feed
        self._iterations = iterations
        self._store = baselines
        self._limits = Limits() if limits is None else limits
        self._metrics: EngineMetrics | None = None if metrics is None else metrics.of(engine.info.name, self._book)
        self._on_anomaly = on_anomaly
        self._on_block = on_block
        self._baselines = {} if baselines is None else baselines.load(engine)
        self._buckets = ShapeBuckets(max_buckets, iterations, self._baselines)
        self._budget = Budget()
        self._notes: deque[tuple[Shapes, float, int, bool]] = deque()
        self._inputs = sorted(spec.name for spec in engine.info.inputs)
        self._has_sizes = any(spec.is_shape for spec in engine.info.inputs)
        self._beside_us = 0.0
        self._lock = threading.Lock()
        self._gates: dict[str, OnlineGate] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._layers: tuple[Layer, ...] = engine.layers
        self._reader = Worker("trtgray-profiles", PROFILES, lambda: self._count_error("read"))
        self._opener = Worker("trtgray-contexts", CONTEXTS, lambda: self._count_error("open"))
        self._caller = Worker("trtgray-anomalies", CALLS, lambda: self._count_error("callback"))
        self._executor: ThreadPoolExecutor | None = None
        self._sampler = Sampler(policy, seed, on_switch=self._switched)
        self._slots = _Slots()
        self._count = contexts
        self._draining = threading.Lock()
        self._closed = False
        opened: list[_Slot] = []
        try:
            for index in range(contexts):
                started = time.thread_time()
                plain = _Context(engine, feed, profiled=False)
                opened.append(_Slot(plain, plain.context.infer, index * _NUMBERS))
                self._opening_us = (time.thread_time() - started) * 1e6
        except BaseException:
            for slot in opened:
                if slot.plain is not None:
                    slot.plain.close()
            raise
        for slot in opened:
            self._slots.put(slot)
        self._all_slots = tuple(opened)
        self._reading_us = self._opening_us
        if self._metrics is not None:
            self._metrics.policy(policy)

    def run(self, feed: Feed) -> Outputs:
        """Answer one request; waits for a free context.

        Args:
            feed: one array an input, as for :meth:`Engine.run`.

        Returns:
            one array an output, by name.

        Raises:
            ShapeError: an input is missing or unknown, or its shape is outside every profile.
            EngineError: a dtype differs, the runtime failed, or the profiler is closed.
        """
        slots = self._slots  # get() and put() are spelt out: see Sampler
        try:
            slot = slots.free.pop()
        except IndexError:
            slot = slots.wait()
        try:
            served = slot.served
            if served >= slot.due:
                return self._drawn_or_timed(slot, feed)
            outputs, _ = slot.infer(feed)
            slot.served = served + 1
            return outputs
        finally:
            slots.free.append(slot)
            if slots.waiting:
                slots.notify()

    async def run_async(self, feed: Feed) -> Outputs:
        """:meth:`run` in a thread of this profiler's own, so that the event loop goes on.

        Who is cancelled while waiting does not get the answer; the inference ends all the same.
        """
        with self._lock:
            if self._closed:
                raise self._closed_error()
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._count, f"trtgray-{self.engine.info.name}")
            executor = self._executor
        return await asyncio.get_running_loop().run_in_executor(executor, self.run, feed)

    def switch(self, policy: Policy) -> None:
        """Take another policy, from the next request on; from any thread."""
        self._sampler.switch(policy)

    def report_fault(self, policy: Policy = FAULT, hold_s: float = FAULT_HOLD_S) -> None:
        """Something went wrong: profile more for a while. Does nothing where profiling is off."""
        self._sampler.fault(policy, hold_s)

    @property
    def status(self) -> SamplingStatus:
        """What was done so far."""
        self._book()
        with self._lock:
            buckets = list(self._buckets)
            return SamplingStatus(
                policy=self._sampler.policy,
                served=sum(slot.served for slot in self._all_slots),
                profiled=sum(bucket.sampled for bucket in buckets),
                overhead=self._budget.overhead,
                spent_s=self._beside_us / 1e6,
                shapes={bucket.name: bucket.timed for bucket in buckets},
                verdicts=dict(self._verdicts),
            )

    def flush(self, timeout_s: float = CLOSING_S) -> bool:
        """Read what the profiled contexts hold, and wait for it; whether that was done in time."""
        self._retire()
        return self.settle(timeout_s)

    def settle(self, timeout_s: float = CLOSING_S) -> bool:
        """Wait until what was begun beside the requests is done; whether that was in time."""
        for worker in (self._opener, self._reader):
            done = threading.Event()
            if not (worker.submit(done.set, timeout_s) and done.wait(timeout_s)):
                return False
        return True

    def close(self, timeout_s: float = CLOSING_S) -> None:
        """Wait for requests that run, read what is there, free the contexts; a second time does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            executor = self._executor
        if executor is not None:
            executor.shutdown(wait=True)
        with self._draining:
            slots = [self._slots.get() for _ in range(self._count)]
            self._slots.put(_Slot(None, self._refuse, 0))
        for slot in slots:
            for profiled in slot.take():
                self._have_read(profiled, timeout_s)
            if slot.plain is not None:
                slot.plain.close()
        self._reader.close(timeout_s)
        self._opener.close(timeout_s)
        for slot in slots:
            for profiled in slot.take():  # opened meanwhile
                profiled.close()
        self._caller.close(timeout_s)

    def __enter__(self) -> SamplingProfiler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # The path of a request.

    def _drawn_or_timed(self, slot: _Slot, feed: Feed) -> Outputs:
        is_drawn, is_timed, due = self._sampler.at(slot.first + slot.served)
        slot.due = due - slot.first
        if is_drawn and slot.plain is not None:
            answer = self._profiled(slot, feed)
            if answer is not None:
                return answer
        outputs, us = slot.infer(feed)
        slot.served += 1
        if is_timed:
            self._note(feed, us, disturbed=slot.is_opening)
        return outputs

    def _profiled(self, slot: _Slot, feed: Feed) -> Outputs | None:
        """The answer of the profiled context; ``None`` if the plain one has to give it."""
        if slot.profiled is None:
            slot.profiled, slot.spare = slot.spare, None
        profiled, limit = slot.profiled, self._sampler.policy.max_overhead
        if profiled is None:
            affordable = self._budget.allows(limit, self._opening_us + self._reading_us)
            if affordable:
                self._order(slot)
            self._drawn("not_ready" if affordable else "over_budget")
            return None
        if not self._budget.allows(limit):
            self._drawn("over_budget")
            return None
        try:
            outputs, us = profiled.context.infer(feed)
        except Exception:
            # a bad input fails in the plain context too, and there it is the caller's
            self._throw_away(slot)
            self._drawn("failed")
            return None
        slot.served += 1
        try:
            self._sampled(profiled, feed, us)
            if len(profiled.buckets) >= self._iterations:
                slot.profiled, slot.spare = slot.spare, None
                self._have_read(profiled)
            elif limit is None and 2 * len(profiled.buckets) >= self._iterations and slot.spare is None:
                self._order(slot)  # every request is wanted: the next context has to be there when this one is full
        except Exception:
            log.exception("a sample of %s was lost", self.engine.info.name)
            self._count_error("infer")
            self._throw_away(slot)
        self._drawn("profiled")
        return outputs

    def _sampled(self, profiled: _Profiled, feed: Feed, us: float) -> None:
        shapes = self._shapes(feed)
        self._book()
        with self._lock:
            bucket = self._buckets.of(shapes)
            bucket.timed += 1
            bucket.sampled += 1
            usual = bucket.usual_us
        # the first inference of a shape in a context is not like the others
        profiled.buckets.append((shapes, us, shapes in profiled.seen))
        profiled.seen.add(shapes)
        if len(profiled.seen) > self._iterations:
            profiled.seen.clear()
        self._budget.serve(us if usual is None else usual)
        self._budget.spend(0.0 if usual is None else us - usual)
        if self._metrics is not None:
            self._metrics.infer(us, profiled=True)

    def _note(self, feed: Feed, us: float, *, disturbed: bool) -> None:
        """Note an unprofiled inference; nothing that fails here reaches the caller, who has an answer."""
        try:
            self._notes.append((self._shapes(feed), us, self._sampler.stride, disturbed))
            if len(self._notes) >= NOTES:
                self._book()
        except Exception:
            log.exception("a time of %s was lost", self.engine.info.name)
            self._count_error("metrics")

    def _book(self) -> None:
        """Put what was noted where it belongs."""
        self._sampler.expire()
        with self._lock:
            while self._notes:
                shapes, us, stands_for, disturbed = self._notes.popleft()
                self._budget.serve(us * stands_for)
                bucket = self._buckets.of(shapes)
                bucket.timed += 1
                if not disturbed:  # no context was being opened beside it
                    bucket.time(us)
                if self._metrics is not None:
                    self._metrics.infer(us, profiled=False)

    def _shapes(self, feed: Feed) -> Shapes:
        if self._has_sizes:
            return tuple(sorted(requested(self.engine.info.inputs, feed).items()))
        return tuple([(name, tuple(feed[name].shape)) for name in self._inputs])

    def _drawn(self, outcome: str) -> None:
        if self._metrics is not None:
            with contextlib.suppress(Exception):
                self._metrics.drawn(outcome)

    def _order(self, slot: _Slot) -> None:
        """Have a profiled context opened for a slot."""
        if not slot.is_opening:
            slot.is_opening = self._opener.submit(functools.partial(self._open, slot))

    def _have_read(self, profiled: _Profiled, timeout_s: float = 0.0) -> None:
        """Have a context read that no slot has any more; thrown away if too many wait for that."""
        if not profiled.buckets or not self._reader.submit(functools.partial(self._read, profiled), timeout_s):
            self._opener.submit(profiled.close)

    def _throw_away(self, slot: _Slot) -> None:
        self._count_error("infer")
        for profiled in slot.take():
            self._opener.submit(profiled.close)

    def _retire(self) -> None:
        """Have all profiled contexts read, also those that are not full; waits for requests that run."""
        with self._draining:  # two that hold half of the slots each would wait for ever
            if self._closed:
                return
            slots = [self._slots.get() for _ in range(self._count)]
            for slot in slots:
                for profiled in slot.take():
                    self._have_read(profiled, CLOSING_S)
                self._slots.put(slot)

    # Beside the requests, in the worker's thread.

    def _open(self, slot: _Slot) -> None:
        started = time.thread_time()
        profiled = None
        try:
            profiled = _Profiled(self.engine, self._feed)
        except Exception:
            log.exception("no profiled context of %s can be opened; its requests run unprofiled", self.engine.info.name)
            self._count_error("open")
            # not at once again: half of what may be spent would go into attempts
            self._opening_us *= 2
        finally:
            cost_us = self._spend_beside(started)
            if profiled is not None:
                self._opening_us = cost_us
            if slot.profiled is None:
                slot.profiled = profiled
            else:
                slot.spare = profiled
            slot.is_opening = False

    def _spend_beside(self, started: float) -> float:
        """Charge what this thread computed since; microseconds."""
        us = (time.thread_time() - started) * 1e6
        self._budget.spend(us)
        with self._lock:
            self._beside_us += us
        return us

    def _read(self, profiled: _Profiled) -> None:
        started = time.thread_time()
        try:
            self._take_in(profiled)
        finally:
            profiled.close()
            self._reading_us = self._spend_beside(started)
            if self._metrics is not None:
                self._metrics.cost(self._budget.overhead, len(self._buckets))

    def _take_in(self, profiled: _Profiled) -> None:
        times = profiled.context.layer_times(pause_s=PAUSE_S)[profiled.warmed :]
        if len(times) != len(profiled.buckets):
            log.warning(
                "%s: the profile has %d inferences of %d; it is not used",
                *(self.engine.info.name, len(times), len(profiled.buckets)),
            )
            self._count_error("read")
            return
        reading = telemetry.read(self.engine.info.device)
        self._book()
        full = []
        with self._lock:
            for layers, (shapes, us, is_steady) in zip(times, profiled.buckets, strict=True):
                bucket = self._buckets.of(shapes)
                if is_steady and (samples := bucket.add(Sample(layers, us))):
                    full.append((shapes, bucket, samples, tuple(bucket.plain_us)))
                    bucket.plain_us.clear()
        for shapes, bucket, samples, plain_us in full:
            block = block_of(
                samples,
                plain_us,
                self._layers,
                clock_mhz=reading.sm_mhz if reading else None,
                disturbed=telemetry.first_disturbance((reading,)),
            )
            self._conclude(shapes, bucket, block)

    def _conclude(self, shapes: Shapes, bucket: Bucket, block: Block) -> None:
        """Hand a session on, and judge the run that it completes."""
        session = block.session
        if self._metrics is not None:
            times = zip(block.profiled.layers, block.profiled.log_us, strict=True)
            layers = [(key, math.exp(log_us)) for key, log_us in times]
            self._metrics.session(bucket.name, math.exp(session.engine_log_us) if session else None, layers)
        if self._on_block is not None:
            try:
                self._on_block(bucket.name, block)
            except Exception:
                log.exception("on_block of %s failed", self.engine.info.name)
                self._count_error("callback")
        if session is None:
            return
        try:
            gate = self._gates.setdefault(bucket.name, OnlineGate(self._limits))
            complete = gate.add(session, self._baselines.get(shapes))
        except Exception:
            log.exception("a session of %s cannot be judged", self.engine.info.name)
            self._count_error("judge")
            self._gates.pop(bucket.name, None)
            return
        if complete is None:
            return
        run, verdict = complete
        if verdict is not None:
            self._announce(bucket.name, verdict)
        # what is slower than what was learnt must not become what is learnt
        is_good = not run.disturbed and (verdict is None or verdict.outcome != "slower")
        if self._store is not None and self._store.is_recording and is_good:
            self._learn(self._store, shapes, run)

    def _announce(self, name: str, verdict: Verdict) -> None:
        with self._lock:
            self._verdicts[name] = verdict
        if self._metrics is not None:
            self._metrics.verdict(name, verdict)
        if verdict.outcome != "slower":
            return
        for finding in verdict.findings:
            if finding.severity == "error":
                log.warning("%s: %s", self.engine.info.name, finding.what)
                if self._metrics is not None:
                    self._metrics.anomaly(finding.rule)
                tell = self._on_anomaly
                if tell is not None and not self._caller.submit(functools.partial(tell, finding)):
                    self._count_error("callback")

    def _learn(self, store: ServiceBaselines, shapes: Shapes, run: Any) -> None:
        try:
            learnt = store.record(self.engine, shapes, run)
        except (BaselineError, OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s: the baseline is not recorded: %s", self.engine.info.name, error)
            self._count_error("record")
            return
        if learnt is not None:
            self._baselines[shapes] = learnt

    def _switched(self, policy: Policy) -> None:
        for slot in self._all_slots:
            slot.due = 0
        if self._metrics is not None:
            self._metrics.policy(policy)
        if policy.rate == 0:
            self._opener.submit(self._retire)

    def _count_error(self, stage: str) -> None:
        if self._metrics is not None:
            self._metrics.error(stage)

    def _refuse(self, feed: Feed) -> tuple[Outputs, float]:
        raise self._closed_error()

    def _closed_error(self) -> EngineError:
        return EngineError(self.engine.info.name, "its profiler is closed", "Make a new one to go on.")


class _Context:
    """A timing context that is entered in one thread and left in another."""

    def __init__(self, engine: Engine, feed: Feed, *, profiled: bool) -> None:
        self._held = contextlib.ExitStack()
        self.context: TimingContext = self._held.enter_context(engine.timing_context(feed, profiled=profiled))
        self.warmed = WARMUP_MIN_RUNS
        try:
            for _ in range(self.warmed):
                self.context.run()
        except BaseException:
            self._held.close()
            raise

    def close(self) -> None:
        self._held.close()


class _Profiled(_Context):
    """A profiled context: the shapes and times of what it inferred, in order."""

    def __init__(self, engine: Engine, feed: Feed) -> None:
        super().__init__(engine, feed, profiled=True)
        self.buckets: list[tuple[Shapes, float, bool]] = []
        self.seen: set[Shapes] = set()


class _Slot:
    """What one inference needs at a time; its holder is its only user. Without contexts, it says that all is over."""

    __slots__ = ("due", "first", "infer", "is_opening", "plain", "profiled", "served", "spare")

    def __init__(self, plain: _Context | None, infer: Callable[[Feed], tuple[Outputs, float]], first: int) -> None:
        self.plain = plain
        self.infer = infer
        self.first = first  # of the numbers of its requests, so that each slot has draws of its own
        self.served = 0
        self.due = 0  # requests served before one has to be looked at
        self.profiled: _Profiled | None = None
        self.spare: _Profiled | None = None
        self.is_opening = False

    def take(self) -> list[_Profiled]:
        """The profiled contexts, which are the caller's then."""
        taken = [each for each in (self.profiled, self.spare) if each is not None]
        self.profiled = self.spare = None
        return taken


class _Slots:
    """Those that nobody holds. The last one put is the next one taken: its contexts are warm.

    Attributes:
        free: in order.
        waiting: how many wait for one; whoever puts one back tells them.
    """

    __slots__ = ("_returned", "free", "waiting")

    def __init__(self) -> None:
        self.free: list[_Slot] = []
        self.waiting = 0
        self._returned = threading.Condition()

    def get(self) -> _Slot:
        """A slot; waits until there is one."""
        try:
            return self.free.pop()
        except IndexError:
            return self.wait()

    def wait(self) -> _Slot:
        """:meth:`get`, where none was free."""
        with self._returned:
            self.waiting += 1  # before looking again: who puts one back looks at it afterwards
            try:
                while True:
                    with contextlib.suppress(IndexError):  # who does not wait may be faster
                        return self.free.pop()
                    self._returned.wait()
            finally:
                self.waiting -= 1

    def put(self, slot: _Slot) -> None:
        """Give a slot back."""
        self.free.append(slot)
        if self.waiting:
            self.notify()

    def notify(self) -> None:
        """Tell one of those that wait."""
        with self._returned:
            self._returned.notify()
