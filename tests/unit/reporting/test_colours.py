"""The report's colours: text can be read on what is behind it, and shapes can be told from the ground (WCAG 2.2)."""

from __future__ import annotations

import itertools
import re
from importlib.resources import files

import pytest

CSS = files("pytest_trtgray.reporting").joinpath("assets/report.css").read_text("utf-8")
TEXT = [
    *itertools.product(("text", "muted", "bad", "good", "doubt", "link"), ("ground", "panel")),
    *(("text", area) for area in ("area", "area-bad", "area-doubt", "area-good")),
]
SHAPES = ["before", "now", "bad", "good", "doubt", *(f"s{number}" for number in range(1, 7))]


def themes() -> dict[str, dict[str, str]]:
    """Every block of the style sheet that sets the ground, by its selector."""
    found = {}
    for selector, block in re.findall(r"([^{}]+)\{([^{}]*--ground:[^{}]*)\}", CSS):
        found[selector.split("*/")[-1].strip()] = dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})", block))
    return found


def luminance(color: str) -> float:
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_style_sheet_has_a_light_theme_and_one_dark_theme_twice() -> None:
    light, chosen, forced = themes().values()

    assert set(light) == set(chosen) == set(forced)
    assert chosen == forced  # by the system's preference, and by the button
    assert contrast("#ffffff", "#000000") == pytest.approx(21)


@pytest.mark.parametrize("selector", themes())
def test_text_can_be_read(selector: str) -> None:
    colors = themes()[selector]
    low = {pair: contrast(colors[pair[0]], colors[pair[1]]) for pair in TEXT}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("selector", themes())
def test_shapes_can_be_told_from_the_ground(selector: str) -> None:
    colors = themes()[selector]
    assert {name: ratio for name in SHAPES if (ratio := contrast(colors[name], colors["ground"])) < 3} == {}


def test_charts_take_their_colours_from_the_style_sheet() -> None:
    plots = files("pytest_trtgray.reporting").joinpath("assets/plots.js").read_text("utf-8")
    known = set(themes()[":root"])

    assert not re.findall(r"#[0-9a-fA-F]{3,6}\b", plots)
    assert set(re.findall(r'color\("([\w-]+)"\)', plots)) <= known
