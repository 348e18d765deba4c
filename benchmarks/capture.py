"""What it costs to capture a build's log, against TensorRT's own logger that prints to a file.

    python -m benchmarks.capture [MODEL.onnx] [--pairs N]

Without a model, an encoder of 12 layers that is small, so that the log weighs more than in a real one: it says as
much as BERT-base and builds in a third of the time. Empty large weights (a "stripped" model) are filled at random.
A pair is two builds by TensorRT for RTX one after the other, in turn first; the median of the pairs' ratios counts.
``verbose, kept`` redacts, compresses and writes everything, as ``log="verbose"`` does. Target: 1.05 at most.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx

from pytest_trtgray.engines import building
from pytest_trtgray.engines.building import BuildRequest
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.profiles import ShapeRequest, parse_shapes, resolve_profiles
from pytest_trtgray.vendor import quiet_import
from tests import models

FLAVOUR = "tensorrt_rtx"
TARGET = 1.05


@contextlib.contextmanager
def stdout_in(path: Path) -> Iterator[None]:
    """File descriptor 1, to which TensorRT's logger prints, as a file."""
    sys.stdout.flush()
    saved = os.dup(1)
    with path.open("wb") as file:
        os.dup2(file.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(saved, 1)
            os.close(saved)


class Builds:
    """The same build in several ways; each leaves its log in a folder."""

    def __init__(self, model: OnnxModel, shapes: ShapeRequest, folder: Path) -> None:
        self.model = model
        self.profiles, _ = resolve_profiles(model.inputs, [shapes])
        self.folder = folder
        self.trt = quiet_import(FLAVOUR)
        self.loggers = {level: self.trt.Logger(getattr(self.trt.Logger, level)) for level in ("INFO", "VERBOSE")}

    def printed(self, level: str) -> int:
        """By TensorRT's own logger, into a file."""
        path, trt = self.folder / f"{level}.log", self.trt
        with stdout_in(path):
            builder = trt.Builder(self.loggers[level])
            network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
            trt.init_libnvinfer_plugins(self.loggers[level], "")
            parser = trt.OnnxParser(network, self.loggers[level])
            assert parser.parse_from_file(str(self.model.path))
            config = builder.create_builder_config()
            config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
            for wanted in self.profiles:
                profile = builder.create_optimization_profile()
                for name, bounds in wanted.items():
                    profile.set_shape(name, bounds.min, bounds.opt, bounds.max)
                config.add_optimization_profile(profile)
            assert bytes(builder.build_serialized_network(network, config))
        return path.stat().st_size

    def captured(self, kept: str) -> int:
        """By this package; returns how many messages there were."""
        engine, records = building._attempt(self.model, BuildRequest(FLAVOUR, self.profiles))
        assert engine
        if kept == "info":
            assert [building._kept(record) for record in records if record.severity != "verbose"]
        elif kept == "everything":
            building._keep_all(records, self.folder / "kept.log.jsonl.gz")
        return len(records)


def filled(path: Path, folder: Path) -> Path:
    """The model with random values in the place of large weights that somebody has taken out."""
    proto = onnx.load(str(path), load_external_data=False)
    random = np.random.default_rng(0)
    count = 0
    for tensor in proto.graph.initializer:
        is_empty = not any((tensor.raw_data, tensor.float_data, tensor.int64_data, tensor.int32_data))
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.data_location != 1 and is_empty:
            values = random.standard_normal(tuple(tensor.dims), np.float32) * np.float32(0.02)
            tensor.raw_data = values.tobytes()
            count += 1
    if not count:
        return path
    target = folder / "filled.onnx"
    onnx.save(proto, str(target))
    return target


def shapes_of(model: OnnxModel) -> ShapeRequest:
    """1 to 8 in the first dimension, 1 to 128 in every other symbolic one."""

    def shape(spec: object, first: int, other: int) -> str:
        dims = [d if isinstance(d, int) else (first if i == 0 else other) for i, d in enumerate(spec.shape)]  # type: ignore[attr-defined]
        return f"{spec.name}:{'x'.join(map(str, dims))}"  # type: ignore[attr-defined]

    texts = (",".join(shape(spec, *sizes) for spec in model.inputs) for sizes in ((1, 1), (4, 64), (8, 128)))
    return ShapeRequest(*map(parse_shapes, texts))


def timed(work: Callable[[], int]) -> tuple[float, float, int]:
    wall, cpu = time.perf_counter(), time.process_time()
    size = work()
    return time.perf_counter() - wall, time.process_time() - cpu, size


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("model", nargs="?", type=Path)
    arguments.add_argument("--pairs", type=int, default=15)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = filled(given.model, folder) if given.model else models.encoder(folder / "encoder.onnx", layers=12)
        model = OnnxModel(path)
        builds = Builds(model, shapes_of(model), folder)
        rows = (
            ("info", "INFO", lambda: builds.captured("info")),
            ("verbose", "VERBOSE", lambda: builds.captured("")),
            ("verbose, kept", "VERBOSE", lambda: builds.captured("everything")),
        )
        builds.printed("VERBOSE"), builds.captured("")  # load and compile what is needed
        print(f"{model.path.name}: {len(model.nodes)} nodes, {builds.trt.__version__}, {given.pairs} pairs a row")
        titles = ("messages", "printed kB", "build s", "ratio, wall time", "ratio, CPU time")
        print(f"| captured | {' | '.join(titles)} |")
        print("|---|---|---|---|---|---|", flush=True)
        worst = 0.0
        for title, level, capture in rows:
            walls, cpus, printed = [], [], []
            messages = size = 0
            for number in range(given.pairs):
                if number % 2:
                    ours, theirs = timed(capture), timed(lambda level=level: builds.printed(level))  # type: ignore[misc]
                else:
                    theirs, ours = timed(lambda level=level: builds.printed(level)), timed(capture)  # type: ignore[misc]
                walls.append(ours[0] / theirs[0])
                cpus.append(ours[1] / theirs[1])
                printed.append(theirs[0])
                messages, size = ours[2], theirs[2]
            ratio = statistics.median(walls)
            worst = max(worst, ratio)
            low, _, high = statistics.quantiles(walls, n=4)
            print(
                f"| {title} | {messages} | {size / 1e3:.0f} | {statistics.median(printed):.2f} "
                f"| {ratio:.3f} ({low:.3f} to {high:.3f}) | {statistics.median(cpus):.3f} |",
                flush=True,
            )
        print(f"the worst median is {worst:.3f}, the target {TARGET}: {'OK' if worst <= TARGET else 'MISSED'}")
        sys.exit(worst > TARGET)


if __name__ == "__main__":
    main()
