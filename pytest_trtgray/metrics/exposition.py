"""Series as text, in the classic format of Prometheus that is OpenMetrics at the same time.

node_exporter's textfile collector reads the classic format only: it refuses OpenMetrics' ``info`` and ``stateset``
types and any time stamp. With gauges and histograms alone, and ``# EOF``, which is a comment there and the end here,
one text is both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pytest_trtgray.metrics.extraction import HistogramValue, series_of
from pytest_trtgray.metrics.families import FAMILIES
from pytest_trtgray.vendor import quiet_import

EOF = b"# EOF\n"


def render_metrics(document: Mapping[str, Any]) -> bytes:
    """The metrics of a run, as a file for the textfile collector.

    Args:
        document: a run, as ``--trt-json`` writes it.

    Raises:
        EngineError: prometheus-client is not installed.
    """
    text: bytes = quiet_import("prometheus_client").generate_latest(registry_of(document))
    return text + EOF


def registry_of(document: Mapping[str, Any]) -> Any:
    """A registry of its own with the series of a run; the process-wide one belongs to the user.

    Raises:
        EngineError: prometheus-client is not installed.
    """
    registry = quiet_import("prometheus_client").CollectorRegistry(auto_describe=False)
    registry.register(_RunCollector(document))
    return registry


class _RunCollector:
    """What ``prometheus_client`` asks for the series of a run."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._series = series_of(document)
        self._core = quiet_import("prometheus_client.core")

    def collect(self) -> Iterator[Any]:
        """The families that have values."""
        for family in FAMILIES:
            values = self._series.values.get(family, {})
            make = "HistogramMetricFamily" if family.kind == "histogram" else "GaugeMetricFamily"
            metric = getattr(self._core, make)(family.name, family.help, labels=family.labels)
            for labels, value in values.items():
                if isinstance(value, HistogramValue):
                    buckets = [(_bound(edge), count) for edge, count in value.buckets]
                    metric.add_metric(labels, buckets, value.sum_seconds)
                else:
                    metric.add_metric(labels, value)
            if values:
                yield metric


def _bound(edge: float) -> str:
    """A bucket's bound; 1.6e-05 and not 1.5999999999999999e-05.

    >>> _bound(16 / 1e6), _bound(1.0), _bound(float("inf"))
    ('1.6e-05', '1.0', '+Inf')
    """
    return "+Inf" if edge == float("inf") else repr(float(f"{edge:.9g}"))
