"""``compare`` beside numpy and Polygraphy: time and memory on large outputs, and what each takes for correct.

    python benchmarks/compare.py [--elements N] [--repetitions N] [--larger-than-memory]

Times: all contenders in turn, several times, in one process; the best of each counts, and the ratio to
``numpy.allclose`` in the same run. Memory: each in a process of its own, the highest resident set over the one with
both arrays in place. The targets for 100 million FP32 elements: at most 2.5 times allclose, a fifth of the time of
Polygraphy's ``SimpleCompareFunc``, less than 64 MiB.

``--larger-than-memory`` compares two files that together exceed this machine's memory (sparse: they need no disk).

Correctness: Polygraphy runs here. trtexec and Model Navigator are written down from their sources: the validators of
samples/common/sampleUtils.cpp with the test of samples/common/sampleInference.cpp (NVIDIA/TensorRT a892d222), and the
loop of model_navigator/commands/correctness/correctness_script.py (triton-inference-server/model_navigator 093f02ea).
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RTOL, ATOL = 1e-3, 1e-3
MIB = 1 << 20


# Time and memory -----------------------------------------------------------------------------------------


def arrays(elements: int) -> tuple[Any, Any]:
    """An output and its reference, a relative 1e-5 apart; in rows of 1000 classes."""
    rng = np.random.default_rng(0)
    wanted = rng.standard_normal((elements // 1000, 1000), dtype=np.float32)
    got = rng.standard_normal(wanted.shape, dtype=np.float32)
    got *= np.float32(1e-5)
    got += np.float32(1)
    got *= wanted
    return got, wanted


def contenders() -> dict[str, Callable[[Any, Any], Any]]:
    from pytest_trtgray import compare

    def ours(got: Any, wanted: Any, **options: Any) -> Any:
        return compare({"y": got}, {"y": wanted}, **options)

    def flat(got: Any, wanted: Any) -> Any:
        return ours(got.reshape(-1), wanted.reshape(-1), rtol=RTOL, atol=ATOL)

    return {
        "numpy.allclose": lambda got, wanted: np.allclose(got, wanted, rtol=RTOL, atol=ATOL),
        "compare": flat,
        "compare, rows of classes (top-k)": lambda got, wanted: ours(got, wanted, rtol=RTOL, atol=ATOL),
        "compare, default tolerance": lambda got, wanted: ours(got, wanted, precision="float16"),
        "compare, 1 % of the elements wrong": lambda got, wanted: ours(got, wanted, rtol=2.6e-5, atol=0),
        "Polygraphy SimpleCompareFunc": polygraphy_simple,
    }


def polygraphy_simple(got: Any, wanted: Any) -> Any:
    from polygraphy.comparator import SimpleCompareFunc

    return SimpleCompareFunc(rtol=RTOL, atol=ATOL)(iteration(got, "engine"), iteration(wanted, "reference"))


def iteration(array: Any, runner: str) -> Any:
    from polygraphy.comparator import IterationResult

    return IterationResult({"y": array} if not isinstance(array, dict) else array, runner_name=runner)


def quiet_polygraphy() -> str:
    import polygraphy
    from polygraphy.logger import G_LOGGER

    G_LOGGER.module_severity = {"": G_LOGGER.CRITICAL}
    return str(polygraphy.__version__)


def extra_memory(name: str, elements: int) -> float:
    """MiB over those of the arrays, in a fresh process."""
    command = [sys.executable, __file__, "--measure-memory", name, "--elements", str(elements)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def measure_memory(name: str, elements: int) -> None:
    function = contenders()[name]
    quiet_polygraphy()
    function(*arrays(10_000))  # imports
    got, wanted = arrays(elements)
    Path("/proc/self/clear_refs").write_text("5")  # the highest resident set begins anew
    before = resident("VmRSS")
    function(got, wanted)
    print((resident("VmHWM") - before) / MIB)


def resident(which: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) * 1024


def speed(elements: int, repetitions: int) -> None:
    version = quiet_polygraphy()
    got, wanted = arrays(elements)
    times: dict[str, list[float]] = {name: [] for name in contenders()}
    for function in contenders().values():
        function(got[:1000], wanted[:1000])  # imports
    for index in range(repetitions):
        for name, function in contenders().items():
            if name.startswith("Polygraphy") and index >= 2:
                continue
            started = time.perf_counter()
            function(got, wanted)
            times[name].append(time.perf_counter() - started)
    best = {name: min(found) for name, found in times.items()}
    base, slow = best["numpy.allclose"], best["Polygraphy SimpleCompareFunc"]
    cores = len(os.sched_getaffinity(0))
    versions = f"numpy {np.__version__}, Polygraphy {version}"
    print(f"{elements / 1e6:g} million FP32 elements, {versions}, {cores} cores, of which one is used")
    print(f"{'':36}{'best s':>8}{'x allclose':>12}{'Polygraphy x':>14}{'extra MiB':>11}")
    for name, seconds in best.items():
        memory = extra_memory(name, elements)
        print(f"{name:36}{seconds:>8.2f}{seconds / base:>12.2f}{slow / seconds:>14.1f}{memory:>11.0f}", flush=True)


def larger_than_memory() -> None:
    """Two outputs on disk that together are larger than memory, different at one place."""
    from pytest_trtgray import compare

    total = int(next(line for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line).split()[1])
    elements = int(total * 1024 * 0.55) // 4
    with tempfile.TemporaryDirectory() as folder:
        got, wanted = (np.memmap(Path(folder) / name, np.float32, "w+", shape=(16, elements // 16)) for name in "ab")
        got[11, 12345] = 3
        started, before = time.perf_counter(), anonymous()
        found = compare({"y": got}, {"y": wanted}, rtol=RTOL, atol=ATOL)
        seconds = time.perf_counter() - started
        size = (got.nbytes + wanted.nbytes) / 1024**3
        print(f"\n{size:.1f} GiB in two files, on a machine with {total / 1024**2:.1f} GiB: {seconds:.0f} s,")
        print(f"{(anonymous() - before) / MIB:.0f} MiB of memory; {found.outputs[0].worst[0]}")


def anonymous() -> int:
    """Memory of this process that is not a file's."""
    return resident("RssAnon")


# Correctness ---------------------------------------------------------------------------------------------


def trtexec(algorithm: str, actual: Any, reference: Any, threshold: float = 1e-3) -> str:
    """What trtexec 11.1 says with ``--accuracyAlgorithm``, computed as its C++ does, comparisons with NaN included."""
    difference = np.abs(actual.astype(np.float64) - reference)
    if algorithm == "l0":
        loss = np.count_nonzero(difference > 1e-5 + 1e-5 * np.abs(reference)) / actual.size
    elif algorithm == "lInf":
        loss = 0.0
        for each in difference:
            loss = each if loss < each else loss  # std::max
    else:
        loss = float(difference.mean())
    return f"{'FAIL' if loss >= threshold else 'pass'} ({algorithm} = {loss:.3g})"


def navigator_rtol(original: Any, exported: Any) -> float:
    """The relative tolerance that Model Navigator stores for an output."""
    stored = 0.0
    relative = np.amax(np.abs(original - exported) / np.abs(exported))
    return float(relative) if relative > stored else stored


def polygraphy_verdict(actual: list[Any], reference: list[Any], function: Any = None) -> str:
    from polygraphy.comparator import Comparator, RunResults
    from polygraphy.exception import PolygraphyException

    results = RunResults()
    for name, runs in (("engine", actual), ("reference", reference)):
        results.append((name, [iteration(run, name) for run in runs]))
    try:
        return "pass" if Comparator.compare_accuracy(results, compare_func=function) else "FAIL"
    except PolygraphyException as error:
        return f"error: {str(error).splitlines()[0][:40]}"


def our_verdict(actual: list[Any], reference: list[Any]) -> str:
    from pytest_trtgray import compare_many

    found = compare_many(actual, reference, rtol=1e-5, atol=1e-5)
    return "pass" if found.ok else f"FAIL ({found.findings[0].rule})"


def single(array: Any, **more: Any) -> list[Any]:
    return [{"y": np.asarray(array, np.float32), **more}]


def correctness() -> None:
    from polygraphy.comparator import CosineSimilarityCompareFunc, PsnrCompareFunc, SnrCompareFunc
    from polygraphy.comparator.compare import LpipsThreshold

    from pytest_trtgray import compare

    one, wrong, nan = (np.array(values, np.float32) for values in ([1, 2, 3], [1, 2, 9], [math.nan] * 3))
    rows: list[tuple[str, str, str]] = []

    def both(what: str, actual: list[Any], reference: list[Any]) -> None:
        rows.append((what, f"Polygraphy: {polygraphy_verdict(actual, reference)}", our_verdict(actual, reference)))

    both("1  an output is missing", single(one), single(one, z=one))
    both("1  2 runs of the reference, 1 of the engine", single(one), [*single(one), *single(wrong)])
    both("1  no runs at all", [], [])
    both("2  'bar' in place of 'foo'", [{"bar": one}], [{"foo": one}])
    for algorithm in ("l0", "lInf", "l1"):
        ours = our_verdict(single(nan), single(one))
        with np.errstate(invalid="ignore"):
            rows.append(("3  all NaN", f"trtexec: {trtexec(algorithm, nan, one)}", ours))
    metrics = [compare({"y": a}, {"y": b})["y"].metrics for a, b in ((one, one * 10), (one * 10, one))]
    snr = [snr_of(SnrCompareFunc, *pair) for pair in ((one, one * 10), (one * 10, one))]
    rows.append(
        (
            "4  SNR of an output a tenth, ten times its reference",
            f"Polygraphy: {snr[0]:.2f}, {snr[1]:.2f} dB",
            f"{metrics[0].snr_db:.2f}, {metrics[1].snr_db:.2f} dB",
        )
    )
    low = -one * 1e-3
    peak = [snr_of(PsnrCompareFunc, low * 2, low), compare({"y": low * 2}, {"y": low})["y"].metrics.psnr_db]
    rows.append(("4  PSNR, twice a reference of small negatives", f"Polygraphy: {peak[0]:.1f} dB", f"{peak[1]:.1f} dB"))
    scaled = single(one * 1000)
    rows.append(
        (
            "4  cosine of an output 1000 times too large",
            f"Polygraphy: {polygraphy_verdict(scaled, single(one), CosineSimilarityCompareFunc())}",
            our_verdict(scaled, single(one)),
        )
    )
    lpips = "pass" if LpipsThreshold(0.1).passed({"lpips": None}) else "FAIL"
    zero = compare({"y": one * 0}, {"y": one * 0})["y"].metrics
    rows.append(("5  a metric that cannot be computed", f"Polygraphy: {lpips} (LPIPS None)", f"{zero.cosine} (cosine)"))
    original, exported = np.array([0, 1], np.float32), np.array([0, 1.5], np.float32)
    with np.errstate(all="ignore"):
        stored = navigator_rtol(original, exported)
    own = compare({"y": exported}, {"y": original})["y"].metrics
    rows.append(
        ("6  relative error where 0 is right", f"Navigator: rtol {stored}", f"largest {own.to_dict()['max_rel']}")
    )
    print(f"\n{'what is wrong':55}{'others':34}ours")
    for what, theirs, ours in rows:
        print(f"{what:55}{theirs:34}{ours}")


def snr_of(function: Any, actual: Any, reference: Any) -> float:
    """What Polygraphy computes for an engine and its reference, in this order."""
    result = function()(iteration(actual, "engine"), iteration(reference, "reference"))
    return float(next(iter(result["y"].metric_values().values())))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--elements", type=int, default=100_000_000)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--larger-than-memory", action="store_true")
    parser.add_argument("--measure-memory", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure_memory:
        measure_memory(options.measure_memory, options.elements)
        return
    if options.larger_than_memory:
        larger_than_memory()
        return
    speed(options.elements, options.repetitions)
    correctness()


if __name__ == "__main__":
    main()
