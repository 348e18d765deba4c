"""Run documents of one engine over many CI jobs, with the noise of GPU runners and planted changes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np

START = datetime(2026, 1, 1)


@dataclass(frozen=True)
class Step:
    """A layer (or all of them: ``None``) that takes longer from one job on; ``by`` is relative."""

    job: int
    layer: int | None
    by: float


@dataclass(frozen=True)
class World:
    """Runners whose layers vary as on real ones: between jobs with a heavy tail, within a job less, with the clock.

    Attributes:
        layers: of the engine.
        jobs: one a commit.
        runs_per_job: their noise is shared for the most part.
        steps: planted.
        job_noise: relative, of a layer from job to job (Student's t, 4 degrees of freedom).
        run_noise: relative, within a job.
        clock_noise: relative, of the GPU's clock from job to job, which layers follow by 30 to 100 %.
        drift: how much a job resembles the one before (0: not at all).
    """

    layers: int = 20
    jobs: int = 40
    runs_per_job: int = 1
    steps: tuple[Step, ...] = ()
    job_noise: float = 0.007
    run_noise: float = 0.003
    clock_noise: float = 0.01
    drift: float = 0.0
    seed: int = 0
    names: dict[str, str] = field(default_factory=dict)

    def documents(self) -> Iterator[dict[str, Any]]:
        """The run documents, the oldest first."""
        random = np.random.default_rng(self.seed)
        usual = 2.0 * np.exp(random.uniform(0, math.log(50), self.layers))
        follows = random.uniform(0.3, 1.0, self.layers)
        noise = np.zeros(self.layers)
        for job in range(self.jobs):
            fresh = self.job_noise * random.standard_t(4, self.layers) / math.sqrt(2)
            noise = self.drift * noise + math.sqrt(1 - self.drift**2) * fresh
            clock = 1980.0 * math.exp(self.clock_noise * random.standard_normal())
            stepped = sum((self._stepped(step) for step in self.steps if job >= step.job), np.zeros(self.layers))
            for run in range(self.runs_per_job):
                within = self.run_noise * random.standard_normal(self.layers)
                us = usual * np.exp(noise + within + stepped - follows * math.log(clock / 1980.0))
                yield self._document(job, run, us, clock)

    def commit(self, job: int) -> str:
        """Of a job."""
        return f"{self.seed % 4096:03x}{job:09x}"

    def _stepped(self, step: Step) -> np.ndarray[Any, np.dtype[np.float64]]:
        moved = np.zeros(self.layers)
        moved[slice(None) if step.layer is None else step.layer] = math.log1p(step.by)
        return moved

    def _document(self, job: int, run: int, us: np.ndarray[Any, Any], clock: float) -> dict[str, Any]:
        total = float(us.sum())
        names = {"engine": "bert", "runtime": "tensorrt_rtx 1.5.0.114", "device": "NVIDIA H200", **self.names}
        when = START + timedelta(hours=3 * job, minutes=run)
        check = {
            **names,
            "test": f"trtgray::layers[{names['engine']}]",
            "kind": "timing",
            "outcome": "pass",
            "summary": f"{total / 1e3:.3g} ms",
            "findings": [],
            "notes": [],
            "total_us": total,
            "change": 0.0,
            "low": -0.01,
            "high": 0.01,
            "details": {
                "shapes": {"ids": [8, 128]},
                "method": {"layers": "tensorrt-profiler"},
                "identity": {"device": names["device"], "precision": "float16"},
                "disturbed": "",
                "clock_mhz": clock,
                "context": {"driver": "580.1", "time_utc": f"{when:%Y-%m-%dT%H:%M:%SZ}"},
                "layers": [
                    {"key": layer_key(index), "us": float(value), "outcome": "pass"} for index, value in enumerate(us)
                ],
            },
        }
        return {
            "format": "trtgray-run",
            "schema": 1,
            "pytest_trtgray": "0.1.0",
            "python": "3.12.0",
            "time_utc": f"{when:%Y-%m-%dT%H:%M:%SZ}",
            "run": {
                "id": f"{self.seed}-{names['device']}-{names['engine']}-{job}-{run}",
                "commit": self.commit(job),
                "branch": "main",
                "job": f"ci-{job}",
                "host": f"runner{job % 3}",
            },
            "checks": [check],
        }


def layer_key(index: int) -> str:
    """The key of a layer of a world."""
    return f"/encoder/layer.{index // 12}/attention/part{index % 12}/MatMul"
