"""Requests of a service as metrics: counts, latency, throughput, versions; names as in :mod:`.metrics`.

========================================== ========= =====================================================
``requests_total``                         counter   ``version``, ``outcome``: see :data:`OUTCOMES`
``request_duration_seconds``               histogram ``version``
``request_latency_seconds``                gauge     ``version``, ``statistic``: ``mean``, ``p95``, ``p99``
``request_throughput_per_second``          gauge     answered in the last minute
``requests_waiting``                       gauge     taken in and not answered
``output_faults_total``                    counter   ``version``, ``kind``: non_finite, saturated, failed
``version_traffic_ratio``                  gauge     ``version``: share of the users that it answers
========================================== ========= =====================================================

The histogram is what a server aggregates over processes and time; mean, P95 and P99 of the last :data:`WINDOW` requests
are there to be read as they are.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from pytest_trtgray.serving.metrics import BUCKETS_S, ServingMetrics
from pytest_trtgray.vendor import quiet_import

OUTCOMES = ("ok", "fallback", "refused", "invalid", "failed")
"""Answered; answered by another version than the user's; no room (503); a bad request (4xx); an error (5xx)."""
FAULTS = ("non_finite", "saturated", "failed")
STATISTICS = ("mean", "p95", "p99")
WINDOW = 1000
RATE_WINDOW_S = 60


class RequestMetrics:
    """The families of the requests of one process, and the usual ones of the process itself (memory, CPU, files).

    Args:
        metrics: whose registry they go to.
        versions: names of the versions that may answer.
        clock: seconds.
    """

    def __init__(
        self, metrics: ServingMetrics, versions: tuple[str, ...], clock: Callable[[], float] = time.monotonic
    ) -> None:
        prometheus = quiet_import("prometheus_client")
        registry = metrics.registry
        prometheus.ProcessCollector(registry=registry)
        self._clock = clock
        self._lock = threading.Lock()
        self._started = clock()
        self._durations: dict[str, deque[float]] = {version: deque(maxlen=WINDOW) for version in versions}
        self._answered: deque[tuple[int, int]] = deque(maxlen=RATE_WINDOW_S)

        def family(kind: str, name: str, text: str, *labels: str, **options: Any) -> Any:
            return getattr(prometheus, kind)(f"trtgray_{name}", text, labels, registry=registry, **options)

        self._requests = family("Counter", "requests", "Requests by what came of them", "version", "outcome")
        self._histogram = family(
            "Histogram", "request_duration_seconds", "Time of an answered request", "version", buckets=BUCKETS_S
        )
        self._latency = family(
            "Gauge", "request_latency_seconds", f"Of the last {WINDOW} requests", "version", "statistic"
        )
        throughput = family("Gauge", "request_throughput_per_second", "Requests answered in the last minute")
        throughput.set_function(self.throughput)
        self._waiting = family("Gauge", "requests_waiting", "Requests taken in and not answered")
        self._faults = family("Counter", "output_faults", "Answers that were not given", "version", "kind")
        self._traffic = family("Gauge", "version_traffic_ratio", "Share of the users", "version")
        for version in versions:
            for outcome in OUTCOMES:
                self._requests.labels(version, outcome)
            for kind in FAULTS:
                self._faults.labels(version, kind)
            for statistic in STATISTICS:
                self._latency.labels(version, statistic).set_function(
                    lambda version=version, statistic=statistic: self.latency(version, statistic)
                )

    def answered(self, version: str, outcome: str, seconds: float) -> None:
        """A request got its answer."""
        self._requests.labels(version, outcome).inc()
        self._histogram.labels(version).observe(seconds)
        second = int(self._clock())
        with self._lock:
            self._durations[version].append(seconds)
            count = self._answered.pop()[1] if self._answered and self._answered[-1][0] == second else 0
            self._answered.append((second, count + 1))

    def rejected(self, version: str, outcome: str) -> None:
        """A request got none; one of :data:`OUTCOMES`."""
        self._requests.labels(version, outcome).inc()

    def waiting(self, count: int) -> None:
        """So many requests are taken in."""
        self._waiting.set(count)

    def fault(self, version: str, kind: str) -> None:
        """An answer must not be given; one of :data:`FAULTS`."""
        self._faults.labels(version, kind).inc()

    def traffic(self, version: str, share: float) -> None:
        """A version answers this share of the users (0 to 1)."""
        self._traffic.labels(version).set(share)

    def latency(self, version: str, statistic: str) -> float:
        """Seconds; NaN before the first request."""
        with self._lock:
            values = list(self._durations[version])
        if not values:
            return float("nan")
        return float(np.mean(values) if statistic == "mean" else np.percentile(values, int(statistic[1:])))

    def throughput(self) -> float:
        """Requests answered a second, over the last :data:`RATE_WINDOW_S`, or since the start if that is later."""
        now = self._clock()
        with self._lock:
            count = sum(number for second, number in self._answered if second > now - RATE_WINDOW_S)
        return count / min(RATE_WINDOW_S, max(now - self._started, 1.0))
