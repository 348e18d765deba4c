"""What a history costs and finds: inserting, asking for change points, false alarms; prints tables.

    python benchmarks/history.py [RUNS [LAYERS]]

By default 10,000 runs of 200 layers go into a SQLite file in a temporary folder, and 1,000 into a PostgreSQL server
that is started for it, where Debian's packages are installed.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from pytest_trtgray.history.database import Database
from pytest_trtgray.history.rows import rows_of
from pytest_trtgray.history.store import History
from pytest_trtgray.history.trends import find_shifts, trends_of
from tests import postgres
from tests.run_series import Step, World, layer_key

WRITERS = 8
QUIET_ENGINES, QUIET_LAYERS, PLANTED = 10, 20, 20
WORLDS = {
    "t4 noise 0.7 %": {},
    "t4 noise 2.8 %": {"job_noise": 0.028},
    "3 runs a job": {"runs_per_job": 3},
    "days alike (0.5)": {"drift": 0.5},
    "days alike (0.8)": {"drift": 0.8},
    "clock +-3 %": {"clock_noise": 0.03},
}


def main() -> None:
    given = [int(word) for word in sys.argv[1:]]
    runs, layers = [*given, *(10_000, 200)[len(given) :]]
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/history.db"
        costs("SQLite", url, runs, layers)
        print(f"file: {(Path(folder) / 'history.db').stat().st_size / 2**20:.0f} MiB")
    if postgres.missing():
        print(f"PostgreSQL: {postgres.missing()}")
    else:
        with postgres.server() as url:
            costs("PostgreSQL", url, min(runs, 1000), layers)
    alarms()


def costs(name: str, url: str, runs: int, layers: int) -> None:
    world = World(layers=layers, jobs=runs, steps=(Step(runs - 40, 7, 0.05),))
    history, took, cpu = History(Database(url)), [], []
    for document in world.documents():
        start, start_cpu = time.perf_counter(), time.process_time()
        history.add(rows_of(document))
        took.append((time.perf_counter() - start) * 1e3)
        cpu.append((time.process_time() - start_cpu) * 1e3)
    took.sort()
    print(f"\n{name}: {runs} runs of {layers} layers")
    print(
        f"  insert a run               median {statistics.median(took):6.1f} ms, mean {statistics.mean(took):6.1f}, "
        f"p99 {took[int(0.99 * runs)]:6.1f}; CPU {statistics.mean(cpu):.1f}; "
        f"{os.getloadavg()[0]:.0f} processes ran on {os.cpu_count()} cores"
    )
    (series,) = history.series()
    for what, ask in (
        ("changes, last 300 runs", lambda: find_shifts(trends_of(history, series, last=300))),
        ("changes of a layer, all", lambda: find_shifts(trends_of(history, series, layer=layer_key(7)))),
        ("newest 20 runs", lambda: history.runs()),
    ):
        seconds, cpu_s, found = timed(ask)
        print(f"  {what:<26} {seconds:6.2f} s, CPU {cpu_s:5.2f} s, {len(found)} found", flush=True)
    writers(name, url)


def timed(ask: Callable[[], Any]) -> tuple[float, float, Any]:
    best, found = (float("inf"), float("inf")), None
    for _ in range(3):
        start, start_cpu = time.perf_counter(), time.process_time()
        found = ask()
        best = min(best, (time.perf_counter() - start, time.process_time() - start_cpu))
    return *best, found


def writers(name: str, url: str) -> None:
    each = 25
    before = len(History(Database(url)).runs(limit=10**9))
    start = time.perf_counter()
    with ProcessPoolExecutor(WRITERS) as pool:
        added = sum(pool.map(write_some, [(url, number, each) for number in range(WRITERS)]))
    seconds = time.perf_counter() - start
    now = len(History(Database(url)).runs(limit=10**9))
    print(
        f"  {WRITERS} writers at once         {WRITERS * each} runs, {added} added, {now - before} there, "
        f"{seconds:.1f} s"
    )


def write_some(job: tuple[str, int, int]) -> int:
    url, number, each = job
    world = World(layers=200, jobs=each, seed=1000 + number)
    return sum(History(Database(url)).add(rows_of(document)) for document in world.documents())


def alarms() -> None:
    print(f"\n{'noise':<18} {'jobs':>4}  quiet layers, and engines, with a change  |  +5 % in one layer: ", end="")
    print("found, in its range, commits of the range, others found")
    for name, world in WORLDS.items():
        for jobs in (40, 100):
            quiet = [looked_at(World(QUIET_LAYERS, jobs, seed=number, **world)) for number in range(QUIET_ENGINES)]
            layers = {(number, shift.trend.layer) for number, found in enumerate(quiet) for shift in found}
            engines = sum(not layer for _, layer in layers)
            found = right = width = more = 0
            for number in range(PLANTED):
                planted = World(QUIET_LAYERS, jobs, steps=(Step(jobs - 12, 3, 0.05),), seed=5000 + number, **world)
                shifts = looked_at(planted)
                hits = [shift for shift in shifts if shift.trend.layer == layer_key(3)]
                found += bool(hits)
                ranges = [commit_range(planted, shift) for shift in hits]
                right += any(good < jobs - 12 <= bad for good, bad in ranges)
                width += sum(bad - good for good, bad in ranges)
                more += len(shifts) - len(hits)
            print(
                f"{name:<18} {jobs:>4}  {len(layers) - engines:>3} of {QUIET_ENGINES * QUIET_LAYERS}, "
                f"{engines:>2} of {QUIET_ENGINES}  |  {found:>2} of {PLANTED}, {right:>2}, "
                f"{width / max(found, 1):>4.1f}, {more:>2}"
            )


def commit_range(world: World, shift: Any) -> tuple[int, int]:
    """The numbers of the last good and the first bad commit."""
    commits = [world.commit(each) for each in range(world.jobs)]
    return commits.index(shift.good), commits.index(shift.bad)


def looked_at(world: World) -> list[Any]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        history = History(Database(f"sqlite:///{folder}/history.db"))
        for document in world.documents():
            history.add(rows_of(document))
        (series,) = history.series()
        return find_shifts(trends_of(history, series))


if __name__ == "__main__":
    main()
