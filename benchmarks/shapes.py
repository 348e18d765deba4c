"""How many inputs does it take to find a fault that one shape has? Planted faults in ONNX Runtime, three searches.

    python benchmarks/shapes.py              20 seeds, ten minutes
    python benchmarks/shapes.py --seeds 3    a smoke run

Prints Markdown. The searches: the built-in test ``shapes`` (200 inputs); ``@given(feed=profile_feeds(engine))`` with
Hypothesis' default of 100; and what one writes by hand, ``st.integers(low, high)`` for each dimension, with 100 too.
A fault counts as found if the test fails, and as shrunk if it ends at the smallest shape that has the fault.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import hypothesis
import numpy as np
from hypothesis import strategies as st
from onnx import TensorProto, helper

from pytest_trtgray import Feed, assert_outputs_close, make_feed, profile_feeds
from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.onnxruntime import OnnxRuntimeEngine
from pytest_trtgray.engines.profiles import ShapeRequest, parse_shapes, resolve_profiles
from pytest_trtgray.suite.shape_search import ShapeSearch
from tests.models import Graph

PROFILES = {"1..32 x 1..512": ("1x1", "8x128", "32x512"), "1..512 x 1..512": ("1x1", "8x128", "512x512")}
FACTOR = 1.1


@dataclass(frozen=True)
class Fault:
    """Sizes at which a model is wrong; 0 stands for any.

    Attributes:
        batch: the only batch size.
        remainder: of the sequence by 64.
        sequence: the only length.
    """

    batch: int = 0
    remainder: int = 0
    sequence: int = 0

    @property
    def smallest(self) -> tuple[int, int]:
        """The smallest shape that has it."""
        return self.batch or 1, self.sequence or self.remainder or 1


FAULTS: Mapping[str, Callable[[random.Random, int], Fault]] = {
    "batch 13": lambda rng, high: Fault(batch=13),
    "sequence % 64 = 63": lambda rng, high: Fault(remainder=63),
    "batch 13 and sequence % 64 = 63": lambda rng, high: Fault(batch=13, remainder=63),
    "any one batch": lambda rng, high: Fault(batch=rng.randint(1, high)),
    "any one sequence": lambda rng, high: Fault(sequence=rng.randint(1, 512)),
}


def model(path: Path, fault: Fault, factor: float) -> Path:
    """``y = relu(2 x + 1)`` over (batch, sequence), multiplied by ``factor`` where the fault is."""
    graph = Graph()
    x = graph.input("x", ["batch", "sequence"])
    doubled = graph.add("Mul", [x, graph.constant("two", np.float32(2))])
    y = graph.add("Relu", [graph.add("Add", [doubled, graph.constant("one", np.float32(1))])])
    shape = graph.add("Shape", [x])
    sequence = graph.add("Gather", [shape, graph.constant("first", np.int64(1))])
    sizes = {
        "batch": graph.add("Gather", [shape, graph.constant("zeroth", np.int64(0))]),
        "sequence": sequence,
        "remainder": graph.add("Mod", [sequence, graph.constant("tile", np.int64(64))]),
    }
    hit = graph.constant("always", np.array(True))
    for name, size in sizes.items():
        if getattr(fault, name):
            wanted = graph.constant(f"{name}_wanted", np.int64(getattr(fault, name)))
            hit = graph.add("And", [hit, graph.add("Equal", [size, wanted])])
    graph.constant("factor", np.float32(factor))

    def branch(name: str, op: str, *operands: str) -> Any:
        out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, ["batch", "sequence"])
        return helper.make_graph([helper.make_node(op, [y, *operands], [f"{name}_y"])], name, [], [out])

    branches = {"then_branch": branch("wrong", "Mul", "factor"), "else_branch": branch("right", "Identity")}
    graph.add("If", [hit], "", "y", **branches)
    graph.output("y", ["batch", "sequence"])
    return graph.save(path)


@dataclass(frozen=True)
class Found:
    """How many inputs it took, 0 for not found; and where the search ended."""

    after: int
    shape: tuple[int, ...] = ()


def built_in(engine: OnnxRuntimeEngine, reference: Shadow, seed: int) -> Found:
    search = ShapeSearch(engine, reference, seed=seed, budget_s=600.0)
    findings = search.run()
    if not findings:
        return Found(0)
    batch, sequence = findings[0].where.removeprefix("x:").split("x")
    return Found(search.found_after, (int(batch), int(sequence)))


def given_test(strategy: st.SearchStrategy[Feed], engine: OnnxRuntimeEngine, reference: Shadow, seed: int) -> Found:
    count, first, last = 0, 0, ()

    @hypothesis.seed(seed)
    @hypothesis.settings(database=None, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(feed=strategy)
    def test(feed: Feed) -> None:
        nonlocal count, first, last
        count += 1
        try:
            assert_outputs_close(engine.run(feed), reference.run(feed))
        except AssertionError:
            first, last = first or count, feed["x"].shape
            raise

    try:
        test()
    except AssertionError:
        return Found(first, last)
    return Found(0)


def profile_feeds_test(engine: OnnxRuntimeEngine, reference: Shadow, seed: int) -> Found:
    return given_test(profile_feeds(engine), engine, reference, seed)


def by_hand(engine: OnnxRuntimeEngine, reference: Shadow, seed: int) -> Found:
    bounds = engine.info.profiles[0]["x"]
    sizes = [st.integers(low, high) for low, high in zip(bounds.min, bounds.max, strict=True)]
    feeds = st.builds(
        lambda shape, seed: make_feed(engine, {"x": shape}, seed), st.tuples(*sizes), st.integers(0, 9999)
    )
    return given_test(feeds, engine, reference, seed)


SEARCHES = {"built-in": built_in, "profile_feeds": profile_feeds_test, "by hand": by_hand}


def measure(folder: Path, search: str, fault: str, profile: str, seeds: int) -> list[str]:
    ends = [parse_shapes(f"x:{shape}") for shape in PROFILES[profile]]
    found, shrunk = [], 0
    for seed in range(seeds):
        planted = FAULTS[fault](random.Random(seed), ends[2]["x"][0])
        net = OnnxModel(model(folder / "net.onnx", planted, FACTOR))
        profiles, _ = resolve_profiles(net.inputs, [ShapeRequest(*ends)])
        engine = OnnxRuntimeEngine(net, name="net", profiles=profiles)
        reference = Shadow(model(folder / "reference.onnx", planted, 1.0), folder)
        result = SEARCHES[search](engine, reference, seed)
        if result.after:
            found.append(result.after)
            shrunk += result.shape == planted.smallest
    middle = f"{statistics.median(found):g}" if found else ""
    return [fault, profile, search, f"{len(found)} of {seeds}", middle, str(max(found, default="")), f"{shrunk}"]


def table(rows: Sequence[Sequence[str]]) -> None:
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    head = ["fault", "batch x sequence", "search", "found", "inputs: median", "max", "shrunk to the smallest"]
    table([head, ["---"] * len(head)])
    with tempfile.TemporaryDirectory() as folder:
        for fault in FAULTS:
            for profile in PROFILES:
                for search in SEARCHES:
                    table([measure(Path(folder), search, fault, profile, seeds)])


if __name__ == "__main__":
    main()
