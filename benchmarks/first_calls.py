"""How good is the verdict on cold starts and shape switches? Simulated machines, with and without a slower first call.

    python benchmarks/first_calls.py              everything, two minutes
    python benchmarks/first_calls.py --runs 200   a smoke run

Prints Markdown. The worlds: what ONNX Runtime showed on a shared machine (``cpu``: time slices are lost, the host is
busy for whole jobs), what TensorRT for RTX showed on an H200 (``gpu``), a quiet one, and one whose jobs differ in
heavy-tailed ways, which is worse than anything seen.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.timing.first_calls import FirstCallRun, FirstCallsBaseline
from pytest_trtgray.timing.jitter import AGAIN, FirstCallsVerdict, judge_first_calls

SHAPES = 6
STEADY_US = 200.0
PLANTED = 3
"""Index of the first call that becomes slower."""
FACTORS = (3.0, 5.0, 10.0, 30.0)
JOBS = (3, 5, 12)


@dataclass(frozen=True)
class World:
    """A machine.

    Attributes:
        range_us: of the costs, drawn for each baseline.
        between: spread of a cost's logarithm between jobs; ``within``: between contexts of one job.
        within: see ``between``.
        tail_df: degrees of freedom of Student's t for ``between``; infinite is a Gaussian.
        stalls: share of the calls that lose 1 to 20 ms to something else.
        busy: share of the jobs in which everything takes 1 to 4 times as long.
    """

    range_us: tuple[float, float] = (200.0, 43_000.0)
    between: float = 0.25
    within: float = 0.15
    tail_df: float = np.inf
    stalls: float = 0.02
    busy: float = 0.05


WORLDS = {
    "quiet": World(between=0.2, within=0.1, stalls=0.0, busy=0.0),
    "gpu": World(),
    "cpu": World(range_us=(30.0, 500.0), between=0.3, within=0.2, stalls=0.03, busy=0.1),
    "heavy": World(within=0.1, tail_df=3.0),
}


class Machine:
    """One engine on one machine.

    Args:
        world: what the machine is like.
        rng: all luck.
    """

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self._world, self._rng = world, rng
        low, high = np.log(world.range_us)
        self._usual = np.exp(rng.uniform(low, high, SHAPES + 1))

    def job(self, name: str, factor: float = 1.0) -> Iterator[FirstCallRun]:
        """Contexts of one job, as many as are asked for, with one first call that takes ``factor`` times as long."""
        world, rng = self._world, self._rng
        drawn = rng.standard_t(world.tail_df, SHAPES + 1) if np.isfinite(world.tail_df) else rng.normal(size=SHAPES + 1)
        level = self._usual * np.exp(world.between * drawn)
        level[1 + PLANTED] *= factor
        busy = rng.uniform(1, 4) if rng.random() < world.busy else 1.0
        while True:
            costs = busy * level * np.exp(rng.normal(0, world.within, SHAPES + 1)) + self._stalls()
            steady = busy * STEADY_US * np.exp(rng.normal(0, 0.1, SHAPES))
            yield FirstCallRun(float(costs[0]), tuple(costs[1:].tolist()), tuple(steady.tolist()), {"job": name})

    def _stalls(self) -> NDArray[np.float64]:
        lost = self._rng.random(SHAPES + 1) < self._world.stalls
        return np.where(lost, self._rng.uniform(1e3, 2e4, SHAPES + 1), 0.0)


def trial(world: World, jobs: int, rng: np.random.Generator, factor: float = 1.0) -> FirstCallsVerdict:
    """One run judged against a baseline of ``jobs`` jobs."""
    machine = Machine(world, rng)
    names = [f"x:{index}" for index in range(SHAPES)]
    baseline = FirstCallsBaseline(names, [next(machine.job(f"job {number}")) for number in range(jobs)])
    contexts = machine.job("now", factor)
    return judge_first_calls(baseline, next(contexts), more=lambda: [next(contexts) for _ in range(AGAIN)])


def row(name: str, jobs: int, runs: int, seed: int = 0) -> str:
    """One line of the table, percent."""
    rng = np.random.default_rng([seed, jobs])
    outcomes = [trial(WORLDS[name], jobs, rng).outcome for _ in range(runs)]
    rates = [f"{100 * outcomes.count(outcome) / runs:.2g}" for outcome in ("slower", "inconclusive", "faster")]
    found = [
        100 * np.mean([trial(WORLDS[name], jobs, rng, factor).calls[PLANTED].outcome == "slower" for _ in range(part)])
        for factor in FACTORS
        for part in [max(runs // 5, 1)]
    ]
    return f"| {name} | {jobs} | {' | '.join(rates)} | {' / '.join(f'{rate:.0f}' for rate in found)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=4000, help="without a change, a row. Default: 4000")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    factors = " / ".join(f"{factor:g}x" for factor in FACTORS)
    print(f"| machine | jobs | false alarms | inconclusive | faster | {factors} found |")
    print("|---|---|---|---|---|---|")
    for name in WORLDS:
        for jobs in JOBS:
            print(row(name, jobs, arguments.runs, arguments.seed), flush=True)


if __name__ == "__main__":
    main()
