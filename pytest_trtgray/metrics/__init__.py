"""A run as Prometheus metrics: a file for the textfile collector, a push to a gateway, a dashboard and alerts."""
