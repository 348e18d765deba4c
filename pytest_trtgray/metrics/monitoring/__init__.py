"""What shows the metrics and watches them: a Grafana dashboard and Prometheus alert rules, printed by ``trtgray metrics``."""

from __future__ import annotations

from pathlib import Path

DASHBOARD = Path(__file__).parent / "dashboard.json"
ALERTS = Path(__file__).parent / "alerts.yml"
