"""How much of a log is read, and how fast.

``python benchmarks/logs.py CORPUS``: facts found by kind, and message boundaries, over a folder of ``X.log`` (or
``.gz``) with ``X.json`` and, for boundaries, ``X.messages.jsonl``; ``tests/log_corpus.py`` describes them.

``python benchmarks/logs.py CORPUS --speed [--megabytes N]``: the verbose logs of the corpus, repeated to N MB (1024)
in a temporary file, read with all events in one pass; each stage in a process of its own, side by side.
"""

from __future__ import annotations

import argparse
import gzip
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from pytest_trtgray.logs.events import EventReader
from pytest_trtgray.logs.log import read
from pytest_trtgray.logs.reader import batches, read_records
from tests.log_corpus import boundaries, missing, pairs

GOAL_MB_S, GOAL_MB = 40, 200
MIN_VERBOSE = 100_000  # bytes; shorter logs are mostly their ends
STAGES = ("messages", "read", "all events", "all records")


def facts(corpus: Path) -> int:
    found: Counter[str] = Counter()
    total: Counter[str] = Counter()
    right = messages = logs = with_messages = 0
    for pair in pairs(corpus):
        logs += 1
        lacking = missing(pair)
        total.update(fact["event"] for fact in pair.facts)
        found.update(fact["event"] for fact in pair.facts if fact not in lacking)
        for fact in lacking:
            print(f"missing in {pair.log.name}: {str(fact)[:200]}")
        if pair.messages is not None:
            good, count = boundaries(pair)
            with_messages, right, messages = with_messages + 1, right + good, messages + count
            if good < count:
                print(f"boundaries in {pair.log.name}: {good} of {count}")
    print(f"\n{logs} logs\n{'fact':<30}{'found':>8}{'of':>8}")
    for kind, count in total.most_common():
        print(f"{kind:<30}{found[kind]:>8}{count:>8}")
    print(f"{'all':<30}{sum(found.values()):>8}{sum(total.values()):>8}")
    if messages:
        print(f"\nmessage boundaries: {right} of {messages} ({right / messages:.2%}) in {with_messages} logs")
    return 0 if found == total and right == messages else 1


def speed(corpus: Path, megabytes: int) -> int:
    texts = [gzip.decompress(p.read_bytes()) if p.suffix == ".gz" else p.read_bytes() for p in _logs(corpus)]
    verbose = b"".join(
        text for text in texts if len(text) >= MIN_VERBOSE and text.count(b"[V] ") > text.count(b"\n") // 2
    )
    if not verbose:
        print(f"{corpus} has no verbose log of {MIN_VERBOSE} bytes")
        return 2
    handle, name = tempfile.mkstemp(suffix=".log")
    try:
        with os.fdopen(handle, "wb") as file:
            size = 0
            while size < megabytes * 1_000_000:
                size += file.write(verbose)
        lines = verbose.count(b"\n") * (size // len(verbose))
        print(f"{size / 1e6:.0f} MB, {lines} lines, load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores")
        print(f"{'stage':<14}{'MB/s':>8}{'MB/s of CPU':>14}{'peak MB':>10}  result")
        fine = True
        for stage in STAGES:
            done = subprocess.run(
                [sys.executable, __file__, name, "--stage", stage], capture_output=True, text=True, check=True
            )
            wall, cpu, peak, result = done.stdout.split(maxsplit=3)
            print(
                f"{stage:<14}{size / 1e6 / float(wall):>8.1f}{size / 1e6 / float(cpu):>14.1f}{peak:>10}  "
                f"{result.strip()}"
            )
            fine &= stage != "read" or (size / 1e6 / float(cpu) >= GOAL_MB_S and float(peak) < GOAL_MB)
        return 0 if fine else 1
    finally:
        Path(name).unlink()


def _logs(corpus: Path) -> list[Path]:
    return sorted([*corpus.rglob("*.log"), *corpus.rglob("*.log.gz")])


def run_stage(path: Path, stage: str) -> int:
    started, started_cpu = time.perf_counter(), time.process_time()
    if stage == "messages":
        result = f"{sum(len(texts) for _, _, texts in batches(path))} messages"
    elif stage == "read":
        log = read(path)
        result = (
            f"{log.messages} messages, {sum(log.counts.values())} events; kept {len(log.records)}, {len(log.events)}"
        )
    elif stage == "all events":
        reader, count = EventReader(), 0
        for header, line, texts in batches(path):
            count += sum(1 for _ in reader.read_all(texts, header.severity, line))
        result = f"{count} events"
    else:
        result = f"{sum(1 for _ in read_records(path))} records"
    cpu, wall = time.process_time() - started_cpu, time.perf_counter() - started
    print(wall, cpu, round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024), result)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        return run_stage(arguments.corpus, arguments.stage)
    return speed(arguments.corpus, arguments.megabytes) if arguments.speed else facts(arguments.corpus)


if __name__ == "__main__":
    sys.exit(main())
