"""What the measuring loop adds on a GPU: a bare loop, the plugin's, and Polygraphy's runner, in one run.

The same engine, shapes and context for the bare loop and the plugin's; times are wall-clock per iteration.
Targets: at most 1.02 (latency) and 1.05 (layers, over a bare loop with a profiler).
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from pytest_trtgray.engines.base import DEFAULT_TIMING
from pytest_trtgray.engines.building import polygraphy_of
from pytest_trtgray.engines.loading import LoadOptions, load_engine
from pytest_trtgray.engines.profiles import opt_shapes
from pytest_trtgray.engines.tensorrt import TensorRTEngine, _layer_clock
from pytest_trtgray.feeds import make_feed
from pytest_trtgray.vendor import quiet_import
from tests import models

ROUNDS, ITERATIONS = 15, 100


def per_iteration(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    for _ in range(ITERATIONS):
        step()
    return (time.perf_counter() - started) / ITERATIONS * 1e6


def compare(name: str, loops: dict[str, Callable[[], object]]) -> None:
    times: dict[str, list[float]] = {key: [] for key in loops}
    for step in loops.values():
        per_iteration(step)
    for _ in range(ROUNDS):
        for key, step in loops.items():
            times[key].append(per_iteration(step))
    base = next(iter(times))
    for key, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(values, times[base], strict=True))
        print(f"{name:<28}{key:<34}{statistics.median(values):>10.1f}{ratio:>8.3f}")


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as folder:
        model = path or models.conv_net(Path(folder) / "net.onnx", channels=64, blocks=8)
        runtime = sys.argv[2] if len(sys.argv) > 2 else "tensorrt_rtx"
        tactics = tuple(sys.argv[3].split(",")) if len(sys.argv) > 3 else ()
        cache = Path(folder) / "cache"
        options = LoadOptions(runtime=runtime, cache_dir=cache, tactic_sources=tactics)  # type: ignore[arg-type]
        engine = load_engine(model, options)
        assert isinstance(engine, TensorRTEngine)
        feed = engine.checked(make_feed(engine.info.inputs, opt_shapes(engine.info.profiles[0])))
        print(f"{'':<28}{'loop':<34}{'us':>10}{'ratio':>8}")
        plain = engine._new_execution(None, DEFAULT_TIMING)
        plain.bind(feed, 0)
        driver = quiet_import("pycuda.driver")
        with plain._device.current():
            start, stop = driver.Event(), driver.Event()
            stream, context = plain._stream, plain.context

            def bare() -> float:
                start.record(stream)
                context.execute_async_v3(stream.handle)
                stop.record(stream)
                stop.synchronize()
                return float(stop.time_since(start))

            runner = polygraphy_of(engine.flavour).trt.TrtRunner(engine._engine, name="runner")
            with runner:
                loops = {"bare": bare, "plugin": plain.timed, "Polygraphy TrtRunner.infer": lambda: runner.infer(feed)}
                compare("engine", loops)
        clock = _layer_clock(quiet_import(engine.flavour))()
        profiled = engine._new_execution(clock, DEFAULT_TIMING)
        profiled.bind(feed, 0)
        with profiled._device.current():
            stream, profiled_context = profiled._stream, profiled.context

            def bare_profiled() -> None:
                clock.times.append({})
                profiled_context.execute_async_v3(stream.handle)
                stream.synchronize()
                profiled_context.report_to_profiler()

            def plugin_profiled() -> None:
                clock.times.append({})
                profiled.profiled()

            compare("layers", {"bare, with a profiler": bare_profiled, "plugin": plugin_profiled})
        plain.close()
        profiled.close()
        engine.close()


if __name__ == "__main__":
    main()
