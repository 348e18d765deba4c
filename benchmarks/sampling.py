"""What ``SamplingProfiler`` costs a service: requests with and without it, side by side; prints a table.

Both sides answer the same input in a context of their own. Blocks of requests alternate, each pair in the other order,
so that what the machine does to one it does to the other. *Requests* is the throughput that the path of a request
loses (trimmed mean over the pairs, 95 % bootstrap interval): the draw, book-keeping, and the inferences that ran in the
profiled context. *Beside* is the processor time of opening, warming and reading profiled contexts, as a part of the
time served, as if no other core were there for it. *Lost* is the sum.

    python benchmarks/sampling.py [PAIRS] [REQUESTS]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from scipy import stats

from pytest_trtgray import SamplingProfiler
from pytest_trtgray.engines.base import Engine
from pytest_trtgray.engines.loading import LoadOptions, load_engine
from pytest_trtgray.feeds import Feed, make_feed
from pytest_trtgray.serving.policy import CANARY, FAULT, LEARNING, OFF, Policy
from tests import models

PAIRS, REQUESTS = 300, 100
TARGET_US = 1000.0
CUT = 0.1
"""Of the pairs, at each end: the machine is shared."""
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


def block(request: Callable[[Feed], object], feed: Feed, requests: int) -> float:
    started = time.perf_counter()
    for _ in range(requests):
        request(feed)
    return time.perf_counter() - started


def measure(engine: Engine, feed: Feed, policy: Policy, pairs: int, requests: int) -> str:
    with (
        engine.timing_context(feed, profiled=False) as bare,
        SamplingProfiler(engine, feed, policy=policy) as profiler,
    ):
        block(bare.infer, feed, requests)
        block(profiler.run, feed, requests)
        times = np.zeros((pairs, 2))
        for pair in range(pairs):
            for side in (0, 1) if pair % 2 == 0 else (1, 0):
                times[pair, side] = block((bare.infer, profiler.run)[side], feed, requests)
                profiler.settle()  # what happens beside the requests is charged by its processor time
        status = profiler.status
    lost = 1 - times[:, 0] / times[:, 1]
    generator = np.random.default_rng(0)
    means = [stats.trim_mean(generator.choice(lost, pairs), CUT) for _ in range(2000)]
    low, high = np.quantile(means, (0.025, 0.975))
    beside = status.spent_s / times[:, 1].sum()
    path = float(stats.trim_mean(lost, CUT))
    return (
        f"{policy.name:9} {policy.rate:5.0%} {np.median(times[:, 0]) / requests * 1e3:7.3f} ms"
        f" {status.profiled:6} of {status.served:6} {path:+8.2%} [{low:+.2%}, {high:+.2%}] {beside:8.2%}"
        f" {path + beside:+8.2%} [{low + beside:+.2%}, {high + beside:+.2%}]"
    )


def main() -> None:
    pairs, requests = [int(text) for text in sys.argv[1:]] or (PAIRS, REQUESTS)
    with tempfile.TemporaryDirectory() as folder:
        engine, feed = network(Path(folder))
        print(f"{pairs} pairs of {requests} requests")
        print(
            f"{'policy':9} {'rate':>5} {'request':>10} {'profiled':>16} {'requests':>8} {'':17} {'beside':>8} {'lost':>8}"
        )
        for policy in POLICIES:
            print(measure(engine, feed, policy, pairs, requests), flush=True)


if __name__ == "__main__":
    main()
