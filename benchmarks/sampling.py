"""What ``SamplingProfiler`` costs a service: requests with and without it, side by side; prints a table.

Both sides answer the same input in the same unprofiled context (two contexts differ by some percent, for where their
weights lie), in turn, request by request, and each pair in the other order, so that what the machine does to one it
does to the other. The process has one core, and what counts is processor time of its threads: a service that is at its
limit answers so many requests a second of it, and neighbours take none away.

*Path* is what a request that is not profiled takes longer: the draw and book-keeping (median over the pairs).
*Profiled* is what the profiled ones take longer, as a part of all (trimmed mean over them, times their share). *Beside*
is the processor time of opening, warming and reading profiled contexts. *Lost* is the sum, with a 95 % bootstrap
interval.

On a GPU the time of a request counts instead, transfers included; the model has to be given.

    python benchmarks/sampling.py [PAIRS [POLICY ...]] [--engine MODEL --runtime RUNTIME --precision PRECISION]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from scipy import stats

from pytest_trtgray import SamplingProfiler
from pytest_trtgray.engines.base import Engine, TimingContext
from pytest_trtgray.engines.loading import LoadOptions, load_engine
from pytest_trtgray.engines.profiles import opt_shapes
from pytest_trtgray.feeds import Feed, make_feed
from pytest_trtgray.serving.policy import CANARY, FAULT, LEARNING, OFF, Policy
from tests import models

PAIRS = 10_000
BLOCK = 100
"""Pairs between two rests, in which what was begun beside the requests is finished."""
CUT = 0.1
"""Of the profiled pairs, at each end: the machine is shared."""
RESAMPLES = 500
TARGET_S = 1e-3
POLICIES = {policy.name: policy for policy in (OFF, LEARNING, FAULT, CANARY)}


def given(options: argparse.Namespace) -> tuple[Engine, Feed]:
    """The engine that was asked for, and an input of its optimal shapes."""
    engine = load_engine(options.engine, LoadOptions(runtime=options.runtime, precision=options.precision))
    return engine, make_feed(engine.info.inputs, opt_shapes(engine.info.profiles[0]), 0)


def network(folder: Path) -> tuple[Engine, Feed]:
    """An engine that takes about a millisecond here, and its input."""
    for hidden in (256, 512, 768, 1024, 1536, 2048):
        path = models.mlp(folder / f"mlp{hidden}.onnx", features=256, hidden=hidden, layers=4)
        engine = load_engine(path, LoadOptions(runtime="onnxruntime"))
        feed = make_feed(engine.info.inputs, {"x": (8, 256)}, 0)
        with engine.timing_context(feed, profiled=False) as context:
            context.run()
            started = time.thread_time()
            for _ in range(200):
                context.run()
        if time.thread_time() - started >= 200 * TARGET_S:
            break
    return engine, feed


@contextmanager
def contexts_of(engine: Engine) -> Iterator[tuple[list[TimingContext], list[int]]]:
    """The contexts that are opened from now on, the profiler's unprofiled one first, and a mark a profiled request."""
    opened: list[TimingContext] = []
    marks: list[int] = []
    original = engine.timing_context

    @contextmanager
    def noting(feed: Feed, *, profiled: bool) -> Iterator[TimingContext]:
        with original(feed, profiled=profiled) as context:
            opened.append(context)
            if profiled:
                infer = context.infer
                context.infer = lambda feed: (marks.append(1), infer(feed))[1]  # type: ignore[method-assign]
            yield context

    engine.timing_context = noting  # type: ignore[method-assign, assignment]
    try:
        yield opened, marks
    finally:
        engine.timing_context = original  # type: ignore[method-assign]


def measure(engine: Engine, feed: Feed, policy: Policy, pairs: int) -> str:
    """One row of the table."""
    device = engine.info.device
    # a thread that waits for a GPU takes no processor time, but its request takes as long
    clock = time.perf_counter if device is not None and device.kind == "gpu" else time.thread_time
    times = np.zeros((pairs, 2))
    profiled = np.zeros(pairs, bool)
    with contexts_of(engine) as (opened, marks), SamplingProfiler(engine, feed, policy=policy) as profiler:
        sides = opened[0].infer, profiler.run
        for pair in range(-BLOCK, pairs):  # the first ones warm up
            for side in (0, 1) if pair % 2 == 0 else (1, 0):
                before = len(marks)
                started = clock()
                sides[side](feed)
                times[pair, side] = clock() - started
                profiled[pair] |= len(marks) > before
            if pair % BLOCK == 0:
                profiler.settle()
        status = profiler.status
    longer = times[:, 1] / times[:, 0] - 1
    beside = status.spent_s / times[:, 1].sum()
    generator = np.random.default_rng(0)
    found = [parts(longer, profiled)]
    for _ in range(RESAMPLES):
        chosen = generator.integers(0, pairs, pairs)
        found.append(parts(longer[chosen], profiled[chosen]))
    path, extra = found[0]
    low, high = np.quantile(np.sum(found, axis=1), (0.025, 0.975)) + beside
    return (
        f"{policy.name:9} {policy.rate:5.0%} {np.median(times[:, 0]) * 1e3:7.3f} ms {profiled.sum():6} of {pairs:6}"
        f" {path:8.2%} {extra:8.2%} {beside:8.2%} {path + extra + beside:8.2%} [{low:+.2%}, {high:+.2%}]"
    )


def parts(longer: np.ndarray, profiled: np.ndarray) -> tuple[float, float]:
    """What the path costs, and the inferences in a profiled context, each as a part of the time of all requests."""
    plain = longer[~profiled]
    path = float(np.median(plain)) * len(plain) / len(longer) if len(plain) else 0.0
    extra = float(stats.trim_mean(longer[profiled], CUT)) * profiled.mean() if profiled.any() else 0.0
    return path, float(extra)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pairs", nargs="?", type=int, default=PAIRS)
    parser.add_argument("policies", nargs="*", metavar="POLICY", help=f"of {', '.join(POLICIES)}; all by default")
    parser.add_argument("--engine", type=Path)
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--precision", default="")
    options = parser.parse_args()
    if options.runtime == "onnxruntime" and hasattr(os, "sched_setaffinity"):  # before it counts the cores
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        engine, feed = given(options) if options.engine else network(Path(folder))
        print(f"{options.pairs} pairs")
        columns = ("path", "profiled", "beside", "lost")
        print(f"{'policy':9} {'rate':>5} {'request':>10} {'profiled':>16}" + "".join(f" {name:>8}" for name in columns))
        for name in options.policies or POLICIES:
            print(measure(engine, feed, POLICIES[name], options.pairs), flush=True)


if __name__ == "__main__":
    main()
