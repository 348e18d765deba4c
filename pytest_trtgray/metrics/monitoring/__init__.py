"""Files that show and watch the metrics: a Grafana dashboard, Prometheus alert rules."""

from __future__ import annotations

from pathlib import Path

DASHBOARD = Path(__file__).parent / "dashboard.json"
ALERTS = Path(__file__).parent / "alerts.yml"
