"""How large the HTML report is, how soon it is open, and how soon a table has answered; prints a table.

Open: from the request to the ``load`` event and the next painted frame, in a fresh tab of headless Chromium. Filter and
sort: from the input event to the next painted frame. Medians, sizes in turn.

    python benchmarks/report.py [LAYERS ...]
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from playwright.sync_api import sync_playwright

from pytest_trtgray.reporting.html import render
from tests.documents import document

SIZES = (60, 400, 5000)
REPEATS = 5
PAINTED = "() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(performance.now()), 0)))"
# Time from an action to the next painted frame, milliseconds.
ACT = """
async (action) => {
  const host = document.querySelector("[data-table=layers]"), start = performance.now();
  if (action === "filter") {
    const input = host.querySelector("input");
    input.value = "layer.3/";
    input.dispatchEvent(new Event("input"));
  } else {
    [...host.querySelectorAll("thead button")].find((button) => button.textContent === "Share").click();
  }
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
  return performance.now() - start;
}
"""


def main(sizes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        reports = {}
        for size in sizes:
            started = time.perf_counter()
            html = render([document(size, slower=size // 2)])
            reports[size] = Path(folder) / f"{size}.html"
            reports[size].write_text(html, "utf-8")
            print(f"{size} layers: rendered in {time.perf_counter() - started:.2f} s", file=sys.stderr)
        found: dict[int, list[tuple[float, float, float]]] = {size: [] for size in sizes}
        for _ in range(REPEATS):
            for size in sizes:
                found[size].append(measured(browser, reports[size]))
        print("| layers | size, MiB | open, s | filter, ms | sort, ms |")
        print("|---:|---:|---:|---:|---:|")
        for size in sizes:
            opened, filtered, sorted_ = (statistics.median(column) for column in zip(*found[size], strict=True))
            mib = reports[size].stat().st_size / (1 << 20)
            print(f"| {size} | {mib:.2f} | {opened:.2f} | {filtered:.0f} | {sorted_:.0f} |")
        browser.close()


def measured(browser: Any, report: Path) -> tuple[float, float, float]:
    """Seconds to open; milliseconds to filter and to sort."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    started = time.perf_counter()
    page.goto(report.as_uri())
    page.evaluate(PAINTED)
    opened = time.perf_counter() - started
    times = page.evaluate(ACT, "filter"), page.evaluate(ACT, "sort")
    page.close()
    return opened, *times


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or list(SIZES))
