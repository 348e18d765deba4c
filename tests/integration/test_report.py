"""The report from a real run, and in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_trtgray.cli import main
from pytest_trtgray.files import dump_json
from pytest_trtgray.reporting.html import render
from tests.documents import document
from tests.integration.conftest import Project, text

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Contrast of every visible text against what is behind it, as WCAG 2.2 defines it.
CONTRAST = """
() => {
  const parse = (value) => (value.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const color = parse(getComputedStyle(element).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.getClientRects().length) continue;
    if (element.closest("script, svg")) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${element.tagName}.${element.className}`);
  }
  return [...new Set(found)];
}
"""


def test_a_run_leaves_a_report(project: Project) -> None:
    project.mlp(layers=3)
    project.record("--trt-engine=mlp.onnx")
    result = project.run("--trt-engine=mlp.onnx", "--trt-report=out/report.html")

    result.assert_outcomes(passed=5)
    html = (project.path / "out/report.html").read_text("utf-8")
    assert "<h1>mlp passed</h1>" in html
    for kind in ("timing", "outputs", "structure", "log", "shapes"):
        assert f"<strong>{kind}</strong>" in html
    assert [path.name for path in (project.path / "out").iterdir()] == ["report.html"]


def test_a_report_that_cannot_be_written_is_one_line(project: Project) -> None:
    project.mlp()
    (project.path / "file").write_text("")
    result = project.run("--trt-engine=mlp.onnx", "-k", "outputs", "--trt-report=file/r.html", "--trt-json=run.json")

    result.assert_outcomes(passed=1)
    assert "the HTML report cannot be written" in text(result)
    assert (project.path / "run.json").exists()


def test_the_command_renders_what_json_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").write_bytes(dump_json(document()))
    (tmp_path / "b.json").write_bytes(dump_json(document(slower=3)))

    assert main(["report", "a.json", "b.json"]) == 0
    assert "1 of 2 engines failed" in (tmp_path / "report.html").read_text("utf-8")
    assert main(["report", "gone.json", "-o", "x.html"]) == 2
    assert main(["report", "a.json", "-o", "a.json/x.html"]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()


@pytest.fixture
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, found none")
    if CHROMIUM is None:
        pytest.skip("needs Chromium, found none on the PATH")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Opened:
    """A report in a tab that notes every error and every request."""

    def __init__(self, browser: Any, path: Path, scheme: str = "light") -> None:
        self.problems: list[str] = []
        self.page = browser.new_page(color_scheme=scheme, viewport={"width": 1200, "height": 900})
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url, path))
        self.page.goto(path.as_uri())

    def _note(self, url: str, path: Path) -> None:
        if url != path.as_uri():
            self.problems.append(f"request: {url}")

    def scroll_through(self) -> None:
        height = self.page.evaluate("document.documentElement.scrollHeight")
        for place in range(0, height + 900, 450):
            self.page.evaluate(f"scrollTo(0, {place})")
            self.page.wait_for_timeout(30)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    path.write_text(render([document(400, slower=123)]), "utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_is_drawn_in_colours_that_can_be_read(browser: Any, report: Path, scheme: str) -> None:
    opened = Opened(browser, report, scheme)
    opened.scroll_through()

    drawn = opened.page.eval_on_selector_all("figure:not([hidden])", "all => all.map((each) => each.dataset)")
    assert {each["chart"]: each.get("drawn") for each in drawn} == dict.fromkeys(
        ("bars", "modules", "trend", "graph"), "yes"
    )
    labels = opened.page.eval_on_selector_all(".plot", "all => all.map((each) => each.getAttribute('aria-label'))")
    assert labels[0].startswith("The layer that adds most: /encoder/layer.10/attention/part3/MatMul, 8 us to 24 us")
    assert opened.page.evaluate(CONTRAST) == []
    assert opened.problems == []


def test_the_keyboard_reaches_everything(browser: Any, report: Path) -> None:
    page = Opened(browser, report).page
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("(document.activeElement.textContent || document.activeElement.type).trim()"))
    wanted = {"Skip to the results", "Dark colours", "search", "Change", "Share", "Show all rows", "1 finding"}
    assert wanted <= set(reached)

    page.focus("thead button:text('Share')")
    page.keyboard.press("Enter")
    assert page.eval_on_selector("th[aria-sort]", "(head) => [head.textContent, head.ariaSort]") == [
        "Share",
        "descending",
    ]
    page.focus("#theme")
    page.keyboard.press("Space")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_a_table_is_searched_filtered_and_sorted(browser: Any, report: Path) -> None:
    page = Opened(browser, report).page
    table = page.locator("[data-table=layers]")

    assert table.locator("tbody tr").count() == 200
    assert table.locator("tbody tr").first.inner_text().startswith("/encoder/layer.10/attention/part3/MatMul\tslower")
    table.locator("select").select_option("slower")
    assert table.locator("tbody tr").count() == 1
    table.locator("select").select_option("")
    table.locator("input").fill("layer.7/")
    assert table.locator("[role=status]").inner_text() == "12 of 400 rows shown"
    table.locator("input").fill("")
    table.get_by_role("button", name="Show all rows").click()
    assert table.locator("tbody tr").count() == 400


def test_five_thousand_layers(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "large.html"
    path.write_text(render([document(5000, slower=4321)]), "utf-8")
    opened = Opened(browser, path)
    opened.scroll_through()

    assert opened.page.locator("[data-chart=graph][data-drawn]").count() == 1
    assert opened.page.locator("[data-table=layers] tbody tr").count() == 200
    assert opened.problems == []


def test_the_summary_is_appended(project: Project) -> None:
    project.mlp()
    (project.path / "summary.md").write_text("# Of another step")
    project.run("--trt-engine=mlp.onnx", "-k", "outputs", "--trt-summary=summary.md").assert_outcomes(passed=1)

    lines = (project.path / "summary.md").read_text("utf-8").splitlines()
    assert lines[:2] == ["# Of another step", "## TensorRT engines"]
    assert any(line.startswith("| ✅ pass | outputs |") for line in lines)
