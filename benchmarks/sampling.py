"""What ``SamplingProfiler`` costs a service: requests with and without it, side by side; prints a table.

Both sides answer the same input in the same unprofiled context (two contexts differ by some percent, for where their
weights lie), in turn, request by request, and each pair in the other order, so that what the machine does to one it
does to the other; a block is so many pairs. The process has one core,
and what counts is processor time of its threads: a service that is at its limit answers so many requests a second of
it, and neighbours take none away. *Requests* is the throughput that the path of a request loses (trimmed mean over the
blocks, 95 % bootstrap interval): the draw, book-keeping, and the inferences that ran in the profiled context. *Beside*
is the processor time of opening, warming and reading profiled contexts, as a part of the time served. *Lost* is the
sum.

    python benchmarks/sampling.py [BLOCKS] [PAIRS]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from scipy import stats

from pytest_trtgray import SamplingProfiler
from pytest_trtgray.engines.base import Engine, TimingContext
from pytest_trtgray.engines.loading import LoadOptions, load_engine
from pytest_trtgray.feeds import Feed, make_feed
from pytest_trtgray.serving.policy import CANARY, FAULT, LEARNING, OFF, Policy
from tests import models

BLOCKS, PAIRS = 200, 100
TARGET_US = 1000.0
CUT = 0.1
"""Of the blocks, at each end: the machine is shared."""
POLICIES = (OFF, LEARNING, FAULT, CANARY)


def network(folder: Path) -> tuple[Engine, Feed]:
    """An engine that takes about a millisecond here, and its input."""
    for hidden in (256, 512, 768, 1024, 1536, 2048):
        path = models.mlp(folder / f"mlp{hidden}.onnx", features=256, hidden=hidden, layers=4)
        engine = load_engine(path, LoadOptions(runtime="onnxruntime"))
        feed = make_feed(engine.info.inputs, {"x": (8, 256)}, 0)
        with engine.timing_context(feed, profiled=False) as context:
            took = [context.run() for _ in range(100)]
        if np.median(took) >= TARGET_US:
            break
    return engine, feed


def block(sides: Sequence[Callable[[Feed], object]], feed: Feed, pairs: int) -> list[float]:
    """Seconds of processor time of each side."""
    spent = [0.0, 0.0]
    for pair in range(pairs):
        for side in (0, 1) if pair % 2 == 0 else (1, 0):
            started = time.thread_time()
            sides[side](feed)
            spent[side] += time.thread_time() - started
    return spent


@contextmanager
def contexts_of(engine: Engine) -> Iterator[list[TimingContext]]:
    """The contexts that are opened from now on, the profiler's unprofiled one first."""
    opened: list[TimingContext] = []
    original = engine.timing_context

    @contextmanager
    def noting(feed: Feed, *, profiled: bool) -> Iterator[TimingContext]:
        with original(feed, profiled=profiled) as context:
            opened.append(context)
            yield context

    engine.timing_context = noting  # type: ignore[method-assign, assignment]
    try:
        yield opened
    finally:
        engine.timing_context = original  # type: ignore[method-assign]


def measure(engine: Engine, feed: Feed, policy: Policy, blocks: int, pairs: int) -> str:
    with contexts_of(engine) as opened, SamplingProfiler(engine, feed, policy=policy) as profiler:
        sides = opened[0].infer, profiler.run
        block(sides, feed, pairs)
        found = []
        for _ in range(blocks):
            found.append(block(sides, feed, pairs))
            profiler.settle()
        status = profiler.status
    times = np.array(found)
    lost = 1 - times[:, 0] / times[:, 1]
    generator = np.random.default_rng(0)
    means = [stats.trim_mean(generator.choice(lost, blocks), CUT) for _ in range(2000)]
    low, high = np.quantile(means, (0.025, 0.975))
    beside = status.spent_s / times[:, 1].sum()
    path = float(stats.trim_mean(lost, CUT))
    return (
        f"{policy.name:9} {policy.rate:5.0%} {np.median(times[:, 0]) / pairs * 1e3:7.3f} ms"
        f" {status.profiled:6} of {status.served:6} {path:+8.2%} [{low:+.2%}, {high:+.2%}] {beside:8.2%}"
        f" {path + beside:+8.2%} [{low + beside:+.2%}, {high + beside:+.2%}]"
    )


def main() -> None:
    if hasattr(os, "sched_setaffinity"):  # before ONNX Runtime counts the cores
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    blocks, pairs = [int(text) for text in sys.argv[1:]] or (BLOCKS, PAIRS)
    with tempfile.TemporaryDirectory() as folder:
        engine, feed = network(Path(folder))
        print(f"{blocks} blocks of {pairs} pairs")
        print(f"{'policy':9} {'rate':>5} {'request':>10} {'profiled':>16} {'requests':>8}{'beside':>27} {'lost':>8}")
        for policy in POLICIES:
            print(measure(engine, feed, policy, blocks, pairs), flush=True)


if __name__ == "__main__":
    main()
