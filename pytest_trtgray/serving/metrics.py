"""The service's metrics for Prometheus: one registry of its own, base units, labels that are only a few.

Families (all begin with ``trtgray_``); ``engine`` is the engine's name, ``shape`` that of a bucket:

========================================== ========= =====================================================
``inference_duration_seconds``             histogram ``engine``, ``context``: ``plain`` (of those timed), ``profiled``
``sampled_requests_total``                 counter   ``engine``, ``outcome``: see :data:`OUTCOMES`
``sampling_rate_ratio``                    gauge     ``engine``: of the policy in force, 0 to 1
``sampling_policy_switches_total``         counter   ``engine``, ``policy``
``sampling_overhead_ratio``                gauge     ``engine``: cost of profiling against time of inference
``sampling_buckets``                       gauge     ``engine``: shapes with a bucket of their own
``layer_duration_seconds``                 gauge     ``engine``, ``layer``: the largest, and ``other``
``engine_duration_seconds``                gauge     ``engine``, ``shape``: unprofiled, of the last session
``baseline_duration_seconds``              gauge     ``engine``, ``shape``
``baseline_change_ratio``                  gauge     ``engine``, ``shape``, ``bound``: ``estimate``, ``low``, ``high``
``verdicts_total``                         counter   ``engine``, ``outcome``: pass, slower, faster, inconclusive
``anomalies_total``                        counter   ``engine``, ``rule``: of the findings handed to the callback
``profiler_errors_total``                  counter   ``engine``, ``stage``: see :data:`STAGES`
========================================== ========= =====================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytest_trtgray.serving.policy import Policy
from pytest_trtgray.timing.verdict import Judgement, Verdict
from pytest_trtgray.vendor import quiet_import

OUTCOMES = ("profiled", "not_ready", "over_budget", "failed")
"""Of a request that was drawn: it was profiled; no profiled context was open; the budget was spent; the profiled
context failed. All but the first ran unprofiled."""
STAGES = ("open", "infer", "read", "judge", "record", "callback", "metrics")
"""Where profiling, never a request, can fail."""
MAX_LAYERS = 20
"""Layers that are named; the rest is ``other``."""
MAX_RULES = 50
REST = "other"
BUCKETS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


class ServingMetrics:
    """The families of one process, in a registry of their own.

    Args:
        registry: a ``prometheus_client.CollectorRegistry`` to add them to; by default a new one.

    Raises:
        EngineError: prometheus_client is missing; says how to install it.
    """

    def __init__(self, registry: Any = None) -> None:
        prometheus = quiet_import("prometheus_client")
        self.registry = prometheus.CollectorRegistry() if registry is None else registry

        def family(kind: str, name: str, text: str, *labels: str, **options: Any) -> Any:
            return getattr(prometheus, kind)(f"trtgray_{name}", text, labels, registry=self.registry, **options)

        self._durations = family(
            "Histogram",
            "inference_duration_seconds",
            "Time of one inference",
            *("engine", "context"),
            buckets=BUCKETS_S,
        )
        self._sampled = family(
            "Counter", "sampled_requests", "Requests drawn for profiling, by what came of it", "engine", "outcome"
        )
        self._rate = family("Gauge", "sampling_rate_ratio", "Share of requests that the policy draws", "engine")
        self._switches = family(
            "Counter", "sampling_policy_switches", "Times that a policy was taken", "engine", "policy"
        )
        self._overhead = family(
            "Gauge", "sampling_overhead_ratio", "Cost of profiling against time of inference, lately", "engine"
        )
        self._buckets = family("Gauge", "sampling_buckets", "Shapes with times of their own", "engine")
        self._layers = family(
            "Gauge", "layer_duration_seconds", "Time of a layer in the last session", "engine", "layer"
        )
        self._engine = family(
            "Gauge", "engine_duration_seconds", "Unprofiled inference in the last session", "engine", "shape"
        )
        self._baseline = family("Gauge", "baseline_duration_seconds", "Inference in the baseline", "engine", "shape")
        self._change = family(
            "Gauge",
            "baseline_change_ratio",
            "Change against the baseline with its 95 % confidence interval; 0.1 is 10 % slower",
            *("engine", "shape", "bound"),
        )
        self._verdicts = family("Counter", "verdicts", "Verdicts against the baseline", "engine", "outcome")
        self._anomalies = family("Counter", "anomalies", "Findings handed to the callback", "engine", "rule")
        self._errors = family("Counter", "profiler_errors", "Failures of profiling", "engine", "stage")
        self._rules: set[str] = set()
        self._refresh: dict[str, Callable[[], None]] = {}

    def of(self, engine: str, refresh: Callable[[], None] = lambda: None) -> EngineMetrics:
        """The metrics of one engine.

        Args:
            engine: its name.
            refresh: called before each :meth:`text`, to count what was not counted yet.
        """
        self._refresh[engine] = refresh
        return EngineMetrics(self, engine)

    def text(self) -> bytes:
        """Prometheus' exposition format, for a ``/metrics`` endpoint of type :attr:`content_type`."""
        for refresh in list(self._refresh.values()):
            refresh()
        return bytes(quiet_import("prometheus_client").generate_latest(self.registry))

    @property
    def content_type(self) -> str:
        """Of :meth:`text`."""
        return str(quiet_import("prometheus_client").CONTENT_TYPE_LATEST)


class EngineMetrics:
    """The families with the label ``engine`` set; labels of the request path are looked up once."""

    def __init__(self, metrics: ServingMetrics, engine: str) -> None:
        self._all = metrics
        self._name = engine
        self._plain = metrics._durations.labels(engine, "plain").observe
        self._profiled = metrics._durations.labels(engine, "profiled").observe
        self._outcomes = {outcome: metrics._sampled.labels(engine, outcome).inc for outcome in OUTCOMES}
        self._named: set[str] = set()
        for stage in STAGES:
            metrics._errors.labels(engine, stage)  # a counter that appears with its first event hides that event

    def infer(self, us: float, *, profiled: bool) -> None:
        """One inference."""
        (self._profiled if profiled else self._plain)(us / 1e6)

    def drawn(self, outcome: str) -> None:
        """One request that was drawn; one of :data:`OUTCOMES`."""
        self._outcomes[outcome]()

    def policy(self, policy: Policy) -> None:
        """The policy that is in force from now on."""
        self._all._rate.labels(self._name).set(policy.rate)
        self._all._switches.labels(self._name, policy.name).inc()

    def cost(self, overhead: float, buckets: int) -> None:
        """What profiling costs, and how many shapes it knows."""
        self._all._overhead.labels(self._name).set(overhead)
        self._all._buckets.labels(self._name).set(buckets)

    def session(self, shape: str, engine_us: float | None, layers: Sequence[tuple[str, float]]) -> None:
        """A session of a shape: the engine's time if it is known, and each layer's."""
        if engine_us is not None:
            self._all._engine.labels(self._name, shape).set(engine_us / 1e6)
        rest = 0.0
        for name, us in sorted(layers, key=lambda row: -row[1]):
            if name in self._named or len(self._named) < MAX_LAYERS:
                self._named.add(name)
                self._all._layers.labels(self._name, name).set(us / 1e6)
            else:
                rest += us
        self._all._layers.labels(self._name, REST).set(rest / 1e6)

    def verdict(self, shape: str, verdict: Verdict) -> None:
        """A verdict on a shape."""
        self._all._verdicts.labels(self._name, verdict.outcome).inc()
        engine: Judgement = verdict.engine
        if engine.before_us is not None:
            self._all._baseline.labels(self._name, shape).set(engine.before_us / 1e6)
        ends: Mapping[str, float] = {"estimate": engine.change, "low": engine.low, "high": engine.high}
        for bound, value in ends.items():
            self._all._change.labels(self._name, shape, bound).set(value)

    def anomaly(self, rule: str) -> None:
        """A finding for the callback."""
        rules = self._all._rules
        if rule not in rules and len(rules) >= MAX_RULES:
            rule = REST
        rules.add(rule)
        self._all._anomalies.labels(self._name, rule).inc()

    def error(self, stage: str) -> None:
        """Profiling failed at one of :data:`STAGES`."""
        self._all._errors.labels(self._name, stage).inc()
