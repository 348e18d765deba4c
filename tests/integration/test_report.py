"""The report from a real run, and in a real browser."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_trtgray.cli import main
from pytest_trtgray.files import dump_json
from pytest_trtgray.reporting.html import render
from tests.documents import document
from tests.integration.conftest import RECORDS, Project, needs_rtx, text

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
  const note = (element, color, ground) => {
    const [a, b] = [light(color), light(ground)], ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${element.outerHTML.slice(0, 200)}`);
  };
  let counted = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.getClientRects().length) continue;
    if (element.closest("script, svg, option")) continue;
    note(element, parse(getComputedStyle(element).color), behind(element));
  }
  // In a chart, the shape that lies under the middle of a text is behind it; else the page.
  for (const element of document.querySelectorAll(".plot svg text")) {
    element.scrollIntoView({ block: "center" });
    const box = element.getBoundingClientRect(), svg = element.closest("svg");
    const under = document.elementsFromPoint(box.x + box.width / 2, box.y + box.height / 2)
      .find((each) => svg.contains(each) && each !== svg && each.tagName !== "text" && each.tagName !== "tspan"
        && parse(getComputedStyle(each).fill).length && parse(getComputedStyle(each).fill)[3] !== 0
        && getComputedStyle(each).fillOpacity !== "0");
    note(element, parse(getComputedStyle(element).fill), under ? parse(getComputedStyle(under).fill) : behind(svg));
    counted += 1;
  }
  return [[...new Set(found)], counted];
}
"""


def test_a_run_leaves_a_report(project: Project) -> None:
    project.mlp(layers=3)
    project.record("--trt-engine=mlp.onnx", *RECORDS)
    result = project.run("--trt-engine=mlp.onnx", "--trt-report=out/report.html")

    result.assert_outcomes(passed=5)
    html = (project.path / "out/report.html").read_text("utf-8")
    assert "<h1>mlp passed</h1>" in html
    for kind in ("timing", "outputs", "structure", "log", "shapes"):
        assert f"<strong>{kind}</strong>" in html
    assert [path.name for path in (project.path / "out").iterdir()] == ["report.html"]


@needs_rtx
def test_a_build_fills_the_chart_of_the_log(project: Project) -> None:
    project.mlp(layers=3)
    run = ("--trt-engine=mlp.onnx", "--trt-runtime=tensorrt_rtx", "-k", "log", "--trt-log-level=verbose")
    project.run(*run, "--trt-json=run.json").assert_outcomes(passed=1)

    (check,) = json.loads((project.path / "run.json").read_text("utf-8"))["checks"]
    found = check["details"]
    names = [span["name"] for span in found["phases"]]
    assert {"parse", "build", "Building engine"} <= set(names)
    building = next(span for span in found["phases"] if span["name"] == "Building engine")
    assert building["parent"] == "build"
    assert 0 < building["seconds"] <= next(span["seconds"] for span in found["phases"] if span["name"] == "build")
    assert len(found["records"]) == found["messages"] - found["left_out"] > 100


def test_a_real_run_fills_the_other_charts(project: Project) -> None:
    project.conv_net()
    project.run("--trt-engine=net.onnx", "-k", "layers or outputs", "--update-baselines", "--trt-json=run.json")
    checks = {check["kind"]: check for check in json.loads((project.path / "run.json").read_text("utf-8"))["checks"]}

    layers = checks["timing"]["details"]["layers"]
    assert any(row.get("flops", 0) > 0 and row["bytes"] > 0 for row in layers)
    assert checks["timing"]["details"]["error"] >= 0
    top = checks["timing"]["top_layers"]
    assert top["by_change"] == []  # it was recorded, not judged
    assert top["by_share"][0]["key"] == max(layers, key=lambda row: row["us"])["key"]
    (output,) = checks["outputs"]["details"]["outputs"]
    assert sum(output["histogram"]["counts"]) == output["elements"]
    assert max(cell for row in output["map"]["cells"] for cell in row) == pytest.approx(output["max_abs"], rel=1e-6)


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


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, found none")
    if CHROMIUM is None:
        pytest.skip("needs Chromium, found none on the PATH")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def browser(chromium: Any) -> Iterator[Any]:
    """The one of this module; each page has a context of its own, which ends with the test."""
    yield chromium
    for context in chromium.contexts:
        context.close()


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
        """As a reader who waits for each chart: they are drawn when they come into view."""
        for figure in self.page.locator("figure:not([hidden])").element_handles():
            figure.scroll_into_view_if_needed()
            self.page.wait_for_function("(figure) => figure.dataset.drawn || figure.hidden", arg=figure)


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
        ("bars", "trend", "modules", "roofline", "errors", "map", "rows", "graph", "log"), "yes"
    )
    labels = opened.page.eval_on_selector_all(".plot", "all => all.map((each) => each.getAttribute('aria-label'))")
    assert labels[0].startswith("The layer that adds most: /encoder/layer.10/attention/part3/MatMul, 8 us to 24 us")
    low, texts = opened.page.evaluate(CONTRAST)
    assert low == []
    assert texts > 100
    assert opened.problems == []


def test_the_keyboard_reaches_everything(browser: Any, report: Path) -> None:
    opened = Opened(browser, report)
    opened.scroll_through()
    page = opened.page
    page.evaluate("scrollTo(0, 0)")
    reachable = "a[href], button:not([disabled]), input, select, summary, [tabindex='0']"
    total = page.locator(reachable).count()
    reached = []
    for _ in range(total + 5):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("(document.activeElement.textContent || document.activeElement.type).trim()"))
    wanted = {"Skip to the results", "Dark colours", "search", "Change", "Share", "Show all rows", "Next rows"}
    assert wanted | {"1 finding", "The numbers of this chart"} <= set(reached)

    page.focus("thead button:text-is('Share')")
    page.keyboard.press("Enter")
    assert page.eval_on_selector("th[aria-sort]", "(head) => [head.textContent, head.ariaSort]") == [
        "Share",
        "descending",
    ]
    page.focus("#theme")
    page.keyboard.press("Space")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_what_changed_is_shown_with_its_neighbours_and_any_module_can_be_asked_for(browser: Any, report: Path) -> None:
    opened = Opened(browser, report)
    opened.scroll_through()
    graph = opened.page.locator("[data-chart=graph]")

    label = graph.locator(".plot").get_attribute("aria-label")
    assert label == "5 of 400 layers, 1 of which changed: /encoder/layer.10/attention/part3/MatMul"
    graph.locator("select").select_option("m:encoder/layer.2")
    assert graph.locator(".plot").get_attribute("aria-label").startswith("12 of 400 layers")
    assert opened.page.evaluate("document.activeElement.tagName") == "SELECT"
    opened.page.locator("[data-chart=modules] select").select_option("encoder/layer.10")
    assert (
        opened.page.locator("[data-chart=modules] .plot")
        .get_attribute("aria-label")
        .endswith("in encoder/layer.10; the table of modules has the numbers")
    )
    assert opened.problems == []


def test_every_chart_says_in_words_what_it_shows(browser: Any, report: Path) -> None:
    opened = Opened(browser, report)
    opened.scroll_through()
    page = opened.page

    plots = page.eval_on_selector_all(".plot", "all => all.map((each) => [each.getAttribute('role'), each.ariaLabel])")
    assert all(role == "img" and len(label) > 20 for role, label in plots)
    assert page.locator("figure:not([hidden]) figcaption").count() == len(plots)
    numbers = page.locator("[data-chart=map] details")
    numbers.locator("summary").click()
    assert numbers.locator("tbody tr").count() == 4
    assert numbers.locator("tbody tr").nth(3).locator("td").last.inner_text() == "2.0e-4"


def test_paper_is_light_and_has_every_chart(browser: Any, report: Path) -> None:
    opened = Opened(browser, report, "dark")
    page = opened.page
    page.evaluate(
        """addEventListener("afterprint", () => { window.printed = window.before; });
        addEventListener("beforeprint", () => { window.before = [
          document.querySelectorAll("figure:not([hidden]):not([data-drawn])").length,
          document.querySelector("[data-chart=bars] text").getAttribute("fill"),
          [...document.querySelectorAll(".plot text")].filter((text) => text.getAttribute("fill-opacity")).length] })"""
    )
    paper = page.pdf(format="A4")

    assert paper.startswith(b"%PDF")
    assert page.evaluate("window.printed") == [0, "#1c2024", 0]
    assert page.evaluate("document.documentElement.dataset.theme") is None
    assert opened.problems == []


def test_a_phone_scrolls_in_one_direction(browser: Any, report: Path) -> None:
    opened = Opened(browser, report)
    opened.page.set_viewport_size({"width": 400, "height": 800})
    opened.scroll_through()

    assert opened.page.evaluate("document.documentElement.scrollWidth") == 400
    assert opened.problems == []


def test_the_layers_of_several_runs_in_one_table(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "two.html"
    path.write_text(render([document(), document(slower=7)], ["old.json", "new.json"]), "utf-8")
    opened = Opened(browser, path)
    opened.scroll_through()
    table = opened.page.locator("[data-compare]")

    assert opened.page.locator("#overview-title").inner_text() == "Side by side"
    heads = [head.split("\u00a0")[0] for head in table.locator("thead th").all_inner_texts()]
    assert heads == ["Layer (ONNX nodes)", "old.json", "new.json", "Last against first", "Module"]
    first = table.locator("tbody tr").first.locator("th, td").all_inner_texts()
    assert first[0] == "/encoder/layer.0/attention/part7/MatMul"
    assert first[1:4] == ["12 us", "36 us", "+24 us (+199.7 %)"]
    assert opened.problems == []


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
    table = opened.page.locator("[data-table=layers]")
    assert table.locator("tbody tr").count() == 200
    assert table.locator("[role=status]").inner_text() == "rows 1 to 200 of 5000"
    assert not table.get_by_role("button", name="Show all rows").is_visible()
    table.get_by_role("button", name="Next rows").click()
    assert table.locator("[role=status]").inner_text() == "rows 201 to 400 of 5000"
    table.locator("input").fill("layer.77/")
    assert table.locator("[role=status]").inner_text() == "12 of 5000 rows shown"
    assert opened.problems == []


def test_the_summary_is_appended(project: Project) -> None:
    project.mlp()
    (project.path / "summary.md").write_text("# Of another step")
    project.run("--trt-engine=mlp.onnx", "-k", "outputs", "--trt-summary=summary.md").assert_outcomes(passed=1)

    lines = (project.path / "summary.md").read_text("utf-8").splitlines()
    assert lines[:2] == ["# Of another step", "## TensorRT engines"]
    assert any(line.startswith("| ✅ pass | outputs |") for line in lines)
