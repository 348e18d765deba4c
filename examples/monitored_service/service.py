"""The engines behind the HTTP service: load and warm, answer, fall back, promote."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.monitored_service.rollout import CANARY, STABLE, Rollout
from pytest_trtgray import Finding, OutputGuard, SamplingProfiler, ServiceBaselines, ServingMetrics
from pytest_trtgray.baselines.store import BaselineStore
from pytest_trtgray.engines.loading import LoadOptions, load_engine
from pytest_trtgray.errors import EngineError, ShapeError
from pytest_trtgray.serving import policy
from pytest_trtgray.serving.buckets import Block
from pytest_trtgray.serving.guard import OutputFault
from pytest_trtgray.serving.online import LiveContest, Side
from pytest_trtgray.serving.requests import RequestMetrics

log = logging.getLogger("monitored_service")

Floats = NDArray[np.float32]
CONTEST = policy.Policy("contest", 0.2, None)
"""Of the stable version while a canary runs: an A/B needs sessions of both, and soon."""


@dataclass(frozen=True)
class Config:
    """What the service serves, and how much it takes.

    Attributes:
        stable: the model of the version in use: FP32 or FP16, it also answers what the new one cannot.
        canary: the model of the new version; ``None`` if there is none.
        share: of the users that get the new version.
        max_faults: unusable answers that take the new version out.
        sampling: share of requests that are profiled from day to day.
        iterations: profiled inferences in a session.
        seed: of the draws.
        baselines: folder of the baselines; ``None`` to learn nothing.
        max_rows: in a request.
        max_waiting: requests that are taken in at a time.
        max_body_bytes: of a request.
        admin_token: for ``/rollout``; empty switches it off.
    """

    stable: Path
    canary: Path | None = None
    share: float = 0.1
    max_faults: int = 5
    sampling: float = 0.01
    iterations: int = 67
    seed: int = 0
    baselines: Path | None = None
    max_rows: int = 32
    max_waiting: int = 64
    max_body_bytes: int = 256 * 1024
    admin_token: str = ""


@dataclass(frozen=True)
class Answer:
    """What a request gets.

    Attributes:
        outputs: rows of logits.
        version: that answered.
        chosen: that the user belongs to.
    """

    outputs: Floats
    version: str
    chosen: str


class Version:
    """An engine in service with the guard of its outputs.

    Args:
        path: of the model.
        name: ``stable`` or ``canary``.
        profiler: that runs it.
    """

    def __init__(self, path: Path, name: str, profiler: SamplingProfiler) -> None:
        self.path = path
        self.name = name
        self.profiler = profiler
        self.guard = OutputGuard.of(profiler.engine)

    async def answer(self, feed: dict[str, Any]) -> tuple[Floats, OutputFault | None]:
        """The logits, and why they must not be given, if so."""
        outputs = await self.profiler.run_async(feed)
        (logits,) = outputs.values()
        return logits, self.guard.check(outputs)


class Service:
    """One or two versions of a model.

    Args:
        config: what to serve.

    Attributes:
        metrics: of this process.
        requests: of the HTTP side, in the same registry.
        rollout: who gets which version.
        is_ready: whether all versions are loaded and warm.
        failure: why they could not be.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.metrics = ServingMetrics()
        self.requests = RequestMetrics(self.metrics, (STABLE, CANARY))
        self.rollout = Rollout(has_canary=config.canary is not None, share=config.share, max_faults=config.max_faults)
        self.is_ready = False
        self.failure = ""
        self._versions: dict[str, Version] = {}
        self._contest = LiveContest()
        self._contest_lock = threading.Lock()
        self.features = 0

    def start(self) -> None:
        """Load the versions and warm them at each number of rows; blocks."""
        try:
            daily = replace(policy.LEARNING, rate=self.config.sampling)
            self._load(STABLE, self.config.stable, CONTEST if self.config.canary else daily)
            if self.config.canary is not None:
                self._load(CANARY, self.config.canary, policy.CANARY)
        except Exception as error:
            self.failure = str(error)
            log.exception("the service cannot start")
            self.close()
            return
        self._publish()
        self.is_ready = True
        log.info("ready: %s", ", ".join(f"{name} {version.path.name}" for name, version in self._versions.items()))

    def close(self) -> None:
        """Free the engines."""
        self.is_ready = False
        for version in self._versions.values():
            version.profiler.close()
            version.profiler.engine.close()

    async def predict(self, user: str, rows: Floats) -> Answer:
        """Answer a user; by the stable version where the new one fails.

        Args:
            user: decides on the version.
            rows: of shape (rows, features).

        Raises:
            ShapeError: of the input.
            EngineError: the stable version cannot answer either.
        """
        feed = {self._input: rows}
        chosen = self.rollout.version_for(user)
        if chosen == CANARY:
            try:
                outputs, fault = await self._versions[CANARY].answer(feed)
            except ShapeError:
                raise
            except EngineError as error:
                self._fault("failed", error.message)
            else:
                if fault is None:
                    return Answer(outputs, CANARY, chosen)
                self._fault(fault.kind, str(fault))
        outputs, fault = await self._versions[STABLE].answer(feed)
        if fault is not None:
            self.requests.fault(STABLE, fault.kind)
            raise EngineError(STABLE, str(fault))
        return Answer(outputs, STABLE, chosen)

    def promote(self, reason: str) -> bool:
        """Give the new version to everybody; it is watched like any other from now on."""
        if not self.rollout.promote(reason):
            return False
        self._settled()
        return True

    def withdraw(self, reason: str) -> bool:
        """Take the new version out."""
        if not self.rollout.withdraw(reason):
            return False
        self._settled()
        return True

    def summary(self) -> dict[str, Any]:
        """For people: the versions, their times against the baseline, and the rollout."""
        return {
            "ready": self.is_ready,
            "failure": self.failure,
            "rollout": {
                "stage": self.rollout.stage,
                "share": self.rollout.share,
                "faults": self.rollout.faults,
                "reason": self.rollout.reason,
            },
            "versions": {name: self._version_summary(version) for name, version in self._versions.items()},
        }

    def _version_summary(self, version: Version) -> dict[str, Any]:
        status = version.profiler.status
        return {
            "model": version.path.name,
            "policy": status.policy.name,
            "served": status.served,
            "profiled": status.profiled,
            "overhead": round(status.overhead, 5),
            "shapes": status.shapes,
            "against_baseline": {
                shape: {
                    "outcome": verdict.outcome,
                    "reason": verdict.reason,
                    "change": round(verdict.engine.change, 4),
                    "interval": [round(verdict.engine.low, 4), round(verdict.engine.high, 4)],
                    "jobs": verdict.baseline_runs,
                }
                for shape, verdict in status.verdicts.items()
            },
        }

    def _load(self, name: str, path: Path, first_policy: policy.Policy) -> None:
        engine = load_engine(path, LoadOptions(), name=name)
        (spec,) = engine.info.inputs
        self._input, self.features = spec.name, int(spec.shape[1])
        warm = {spec.name: np.zeros((1, self.features), np.float32)}
        baselines = self.config.baselines
        profiler = SamplingProfiler(
            engine,
            warm,
            policy=first_policy,
            seed=self.config.seed,
            iterations=self.config.iterations,
            baselines=None if baselines is None else _baselines_of(baselines, path),
            metrics=self.metrics,
            on_anomaly=self._anomaly,
            on_block=lambda shapes, block: self._block("old" if name == STABLE else "new", shapes, block),
        )
        version = self._versions[name] = Version(path, name, profiler)
        # memory of every size is allocated before the first user comes
        with engine.timing_context(warm, profiled=False) as context:
            largest = min(self.config.max_rows, *(each[spec.name].max[0] for each in engine.info.profiles))
            for rows in (1, largest):
                outputs, _ = context.infer({spec.name: np.zeros((rows, self.features), np.float32)})
        if fault := version.guard.check(outputs):
            log.warning("%s: zeros give an unusable answer: %s", name, fault)

    def _fault(self, kind: str, reason: str) -> None:
        self.requests.fault(CANARY, kind)
        self._versions[CANARY].profiler.report_fault()
        if self.rollout.fault(reason):
            log.error("the new version is taken out: %s", self.rollout.reason)
            self._settled()

    def _block(self, side: Side, shapes: str, block: Block) -> None:
        """A session of one version is complete: maybe the A/B has a verdict."""
        if self.rollout.stage != "canary":
            return
        with self._contest_lock:
            verdict = self._contest.add(side, shapes, block.profiled)
        if verdict is None:
            return
        engine = verdict.engine
        text = f"A/B {verdict.outcome}: {engine.change:+.1%} [{engine.low:+.1%}, {engine.high:+.1%}] at {shapes}"
        log.info("%s %s", text, verdict.reason)
        if verdict.outcome in ("pass", "faster"):
            self.promote(text)
        elif verdict.outcome == "slower":
            self.withdraw(text)

    def _settled(self) -> None:
        """The way of the new version is decided."""
        daily = replace(policy.LEARNING, rate=self.config.sampling)
        is_out = self.rollout.stage == "withdrawn"
        self._versions[STABLE].profiler.switch(daily if is_out else policy.OFF)
        self._versions[CANARY].profiler.switch(policy.OFF if is_out else daily)
        self._publish()
        log.info("rollout: %s, %s", self.rollout.stage, self.rollout.reason)

    def _publish(self) -> None:
        self.requests.traffic(CANARY, self.rollout.share)
        self.requests.traffic(STABLE, 1 - self.rollout.share)

    def _anomaly(self, finding: Finding) -> None:
        """Where a pager would be called."""
        log.warning("anomaly %s: %s", finding.rule, finding.what)


def _baselines_of(folder: Path, path: Path) -> ServiceBaselines:
    """A baseline belongs to a model, whichever version it is at the moment."""
    return ServiceBaselines(BaselineStore(folder), f"service[{path.stem}]", record=True)
