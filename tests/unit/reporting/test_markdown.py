"""The step summary: verdicts in a table, what failed with its remedy, the layers that changed most."""

from __future__ import annotations

import pytest

from pytest_trtgray.reporting.markdown import MAX_BYTES, escaped, render_markdown
from tests.documents import document


def test_a_failure_with_its_remedy_and_since_when() -> None:
    text = render_markdown(document(slower=7))

    assert "| ❌ slower | timing | " in text
    assert (
        "**timing slower** (against 3 recorded runs, the newest of 2026-11-12 09:30 UTC; commits c0ffee2..beef00)"
        in (text)
    )
    assert "- /encoder/layer.0/attention/part7/MatMul: 12.0 -\\> 36.0 us, +200.0%\n  <br>→ Look." in text
    assert "| /encoder/layer.0/attention/part7/MatMul | 12 us | 36 us | +200.0% | +180.0% to +220.0% | slower |" in text


def test_a_pass_is_a_table_only() -> None:
    text = render_markdown(document())

    assert text.count("✅ pass") == 4
    assert "<details>" not in text
    assert "**" not in text


def test_a_run_without_details() -> None:
    run = document(slower=1)
    for check in run["checks"]:
        del check["details"]

    assert "❌ slower" in render_markdown(run)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", r"a\|b"),
        ("<script>", r"\<script\>"),
        ("x\n\n# y", r"x \# y"),
        ("[l](u)", r"\[l\](u)"),
        ("`c`", r"\`c\`"),
    ],
)
def test_names_stay_text(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_it_stays_below_what_github_takes() -> None:
    run = document(slower=1)
    run["checks"] = [{**run["checks"][0], "engine": f"engine {n}", "summary": "s" * 5000} for n in range(500)]
    text = render_markdown(run)

    assert len(text.encode()) < MAX_BYTES + 200
    assert text.endswith("cut; --trt-report has everything\n")


def test_any_name_is_one_cell_where_markdown_is_rendered() -> None:
    """By a renderer of the same dialect that GitHub and GitLab use."""
    renderer = pytest.importorskip("markdown_it", reason="needs markdown-it-py, found none").MarkdownIt("gfm-like")
    evil = "a|b<img src=x onerror=alert(1)>`c`*d*\\|_e_ https://x.example [l](u)\n| new | row |"
    run = document(slower=7)
    run["checks"][0]["details"]["layers"][7]["key"] = evil
    run["checks"][0]["summary"] = evil
    run["checks"][0]["findings"][0].update(what=evil, remedy=evil)
    html = renderer.render(render_markdown(run))

    assert "<img" not in html
    rows = [row.count("<td") for row in html.split("<tr>")[1:] if "<td" in row]
    assert rows == [3] * 4 + [6] * 5
    assert html.count("<em>") == html.count("<code>") == 0
    assert 'href="u"' not in html
    assert html.count("a|b&lt;img src=x onerror=alert(1)&gt;`c`*d*\\|_e_") == 4
