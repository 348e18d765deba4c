"""Trends as lines: of characters in a terminal, of SVG in one HTML file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from pytest_trtgray.history.changes import Floats
from pytest_trtgray.history.trends import Shift, Trend
from pytest_trtgray.vendor import quiet_import

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 60
MAX_NAME = 48
_SVG_WIDTH, _SVG_HEIGHT = 900, 120
_MAX_DOTS = 2000


def sparkline(values: Sequence[float] | Floats, width: int = WIDTH) -> str:
    """A line of bars from the smallest value to the largest, at most ``width``; a bar is the mean of its neighbours.

    >>> sparkline([1, 2, 3, 8])
    '▁▂▃█'
    """
    series = np.asarray(values, np.float64)
    if not len(series):
        return ""
    means = np.array([part.mean() for part in np.array_split(series, min(width, len(series)))])
    low, high = float(means.min()), float(means.max())
    steps = np.zeros(len(means)) if high <= low else (means - low) / (high - low) * (len(BARS) - 1)
    return "".join(BARS[round(float(step))] for step in steps)


def marks(length: int, indices: Sequence[int], width: int = WIDTH) -> str:
    """The line below a sparkline: ``^`` where the series changes."""
    columns = np.array_split(np.arange(length), min(width, length)) if length else []
    return "".join("^" if set(column.tolist()) & set(indices) else " " for column in columns).rstrip()


def trend_lines(trend: Trend, shifts: Sequence[Shift]) -> list[str]:
    """A trend for a terminal: a line, and marks below it if it changed."""
    name = trend.layer or "(engine)"
    name = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 3]}..."
    low, last, high = float(trend.us.min()), float(trend.us[-1]), float(trend.us.max())
    lines = [f"{name:<{MAX_NAME}}  {sparkline(trend.us):<{WIDTH}}  {low:.1f} .. {high:.1f} us, last {last:.1f}"]
    if shifts:
        changes = ", ".join(f"{shift.change:+.1%} {shift.commits}" for shift in shifts)
        below = marks(len(trend.jobs), [shift.index for shift in shifts])
        lines.append(f"{'':<{MAX_NAME}}  {below:<{WIDTH}}  {changes}")
    return lines


def render_html(title: str, trends: Sequence[Trend], shifts: Sequence[Shift]) -> str:
    """Trends and their changes in one HTML file without scripts, readable offline."""
    jinja2 = quiet_import("jinja2")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = (files("pytest_trtgray.history") / "trends.html.j2").read_text("utf-8")
    charts = [_chart(trend, [shift for shift in shifts if shift.trend is trend]) for trend in trends]
    return str(environment.from_string(template).render(title=title, charts=charts, changed=len(shifts)))


def _chart(trend: Trend, shifts: Sequence[Shift]) -> Mapping[str, Any]:
    low, high = float(trend.us.min()), float(trend.us.max())
    span = (high - low) or max(abs(high), 1.0)
    size = len(trend.us)
    step = max(math.ceil(size / _MAX_DOTS), 1)

    def x(index: float) -> float:
        return round(_SVG_WIDTH * (index + 0.5) / size, 1)

    def y(us: float) -> float:
        return round(_SVG_HEIGHT * (0.95 - 0.9 * (us - low) / span), 1)

    return {
        "name": trend.layer or trend.series.engine,
        "width": _SVG_WIDTH,
        "height": _SVG_HEIGHT,
        "low": low,
        "high": high,
        "first": trend.jobs[0].time_utc,
        "last": trend.jobs[-1].time_utc,
        "jobs": size,
        "dots": [
            (x(index), y(float(trend.us[index])), f"{trend.us[index]:.2f} us, {_where(trend, index)}")
            for index in range(0, size, step)
        ],
        "shifts": [(x(shift.index - 0.5), shift.to_finding().what, shift.change > 0) for shift in shifts],
    }


def _where(trend: Trend, index: int) -> str:
    job = trend.jobs[index]
    return " ".join([f"{job.time_utc:%Y-%m-%d %H:%M}", *job.commits])
