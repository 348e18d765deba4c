"""A load on the service, bounded in requests and time: ``python -m examples.monitored_service.load URL``.

Every request is counted once: answered (by which version, how fast), refused for want of room (503), refused after the
process was told to stop, or failed. Only a failure is a fault of the service: exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
import numpy as np

FEATURES = 64
TIMEOUT_S = 30.0


@dataclass
class Report:
    """What came of the requests.

    Attributes:
        sent: all of them.
        answered: of these, with an answer.
        fallbacks: answers by another version than the user's.
        busy: refused for want of room (503 with Retry-After), before the stop.
        refused_after_stop: sent after the stop, and refused in whatever way.
        failed: everything else, with the reasons.
        versions: answers by version.
        reasons: of failures.
        seconds: from the first request to the last answer.
        latencies_s: of the answers.
    """

    sent: int = 0
    answered: int = 0
    fallbacks: int = 0
    busy: int = 0
    refused_after_stop: int = 0
    failed: int = 0
    versions: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list, repr=False)

    def summary(self) -> dict[str, object]:
        """For JSON, with mean, P95, P99 (milliseconds) and throughput (a second) in place of each latency."""
        found = dict(vars(self))
        times = np.array(found.pop("latencies_s") or [float("nan")]) * 1e3
        mean, p95, p99 = times.mean(), *np.percentile(times, (95, 99))
        latency = {"mean_ms": mean, "p95_ms": p95, "p99_ms": p99}
        if not self.answered:
            latency = dict.fromkeys(latency, None)
        return {**found, **latency, "throughput_per_s": self.answered / self.seconds if self.seconds else 0.0}


async def run_load(
    url: str,
    *,
    requests: int = 1000,
    seconds: float = 30.0,
    concurrency: int = 8,
    rows: int = 1,
    seed: int = 0,
    stop_pid: int = 0,
    stop_after: int = 0,
    watch: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Send requests, each of another user, until one of the two limits is reached.

    Args:
        url: of the service.
        requests: at most.
        seconds: at most, to send them in.
        concurrency: at a time.
        rows: in a request.
        seed: of the inputs and users.
        stop_pid: process that gets SIGTERM; 0 for none.
        stop_after: so many requests were sent.
        watch: called after each request.
    """
    report = Report()
    generator = random.Random(seed)
    started = time.perf_counter()
    stopped_at: float | None = None

    def next_body() -> dict[str, object]:
        values = [[generator.gauss(0, 1) for _ in range(FEATURES)] for _ in range(rows)]
        return {"user_id": f"user-{generator.randrange(10**9)}", "rows": values}

    async def client_loop(client: httpx.AsyncClient) -> None:
        nonlocal stopped_at
        while report.sent < requests and time.perf_counter() - started < seconds:
            body = next_body()
            report.sent += 1
            if stop_pid and stopped_at is None and report.sent > stop_after:
                os.kill(stop_pid, signal.SIGTERM)
                stopped_at = time.perf_counter()
            sent_at = time.perf_counter()
            is_after_stop = stopped_at is not None and sent_at >= stopped_at
            try:
                response = await client.post("/predict", json=body)
            except httpx.HTTPError as error:
                _count_refusal(report, is_after_stop, f"{type(error).__name__}: {error}")
                await asyncio.sleep(0.01)
            else:
                _count(report, response, is_after_stop, time.perf_counter() - sent_at)
                if response.status_code == 503:
                    await asyncio.sleep(0.05)
            watch(report)

    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    # trust_env: a proxy has no business on loopback
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, limits=limits, trust_env=False) as client:
        await asyncio.gather(*(client_loop(client) for _ in range(concurrency)))
    report.seconds = time.perf_counter() - started
    return report


def _count(report: Report, response: httpx.Response, is_after_stop: bool, took_s: float) -> None:
    if response.status_code == 200:
        answer = response.json()
        report.answered += 1
        report.fallbacks += answer["fallback"]
        report.versions[answer["version"]] += 1
        report.latencies_s.append(took_s)
    elif response.status_code == 503 and "retry-after" in response.headers and not is_after_stop:
        report.busy += 1
    else:
        _count_refusal(report, is_after_stop, f"HTTP {response.status_code}")


def _count_refusal(report: Report, is_after_stop: bool, reason: str) -> None:
    if is_after_stop:
        report.refused_after_stop += 1
    else:
        report.failed += 1
        report.reasons[reason] += 1


def main() -> int:
    """Send the load, print the report as JSON."""
    parser = argparse.ArgumentParser(prog="python -m examples.monitored_service.load", description=__doc__)
    parser.add_argument("url", help="of the service, such as http://127.0.0.1:8000")
    parser.add_argument("--requests", type=int, default=1000, help="at most")
    parser.add_argument("--seconds", type=float, default=30.0, help="at most, to send them in")
    parser.add_argument("--concurrency", type=int, default=8, help="requests at a time")
    parser.add_argument("--rows", type=int, default=1, help="in a request")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stop-pid", type=int, default=0, help="process that gets SIGTERM on the way")
    parser.add_argument("--stop-after", type=int, default=0, help="after so many requests")
    options = vars(parser.parse_args())
    report = asyncio.run(run_load(options.pop("url"), **options))
    print(json.dumps(report.summary(), indent=2))
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
