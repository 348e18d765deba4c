"""The report: says first what failed, keeps to itself, and survives any name."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from pytest_trtgray.reporting.headline import since, slower_facts
from pytest_trtgray.reporting.html import render, sections_of
from pytest_trtgray.reporting.markdown import render_markdown
from tests.documents import document

MIB = 1 << 20


def embedded(html: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    data: dict[str, Any] = json.loads(text)
    return data


def body(html: str) -> str:
    return html.partition("</style>")[2].partition('<script type="application/json"')[0]


def test_what_failed_by_how_much_and_since_when_stands_first() -> None:
    top = body(render([document(slower=7)])).partition('<main id="main">')[0]

    assert "bert failed" in top
    assert "Slower: /encoder/layer.0/attention/part7/MatMul (float16 gemm)" in top
    assert "12 us -&gt; 36 us, +200.0%" in top
    assert "after 2026-11-12 09:30 UTC, the newest of 3 recorded runs; between commits c0ffee2 and beef00" in top
    assert (
        "between +180.0% and +220.0% with 95 % confidence; chance of seeing this without any change: less than 1 in a "
        "million; from 3 recorded runs and 3 sessions now"
    ) in top


def test_a_failure_that_is_no_slowdown_says_what_and_what_to_do() -> None:
    run = document()
    finding = {"severity": "error", "where": "hidden", "what": "output 'hidden': 3 of 1000 elements differ\nworst"}
    run["checks"][1].update(
        outcome="differs", findings=[{**finding, "rule": "accuracy", "evidence": {}, "remedy": "Look at it."}]
    )
    top = body(render([run])).partition('<main id="main">')[0]

    assert "outputs differs: output &#39;hidden&#39;: 3 of 1000 elements differ</p>" in top
    assert '<p class="remedy">Look at it.</p>' in top
    assert "How sure" not in top


def localised(outcome: str = "differs") -> dict[str, Any]:
    """A run in which it was looked for what makes the outputs wrong."""
    run = document()
    outputs = run["checks"][1]
    wrong = {"severity": "error", "where": "hidden", "rule": "accuracy", "evidence": {}}
    outputs.update(outcome=outcome, findings=[{**wrong, "what": "outputs differ", "remedy": "Allow it."}])
    what = "MatMul '/layer.6/MatMul' makes the outputs wrong: it adds 0.05\nthis alone makes 93 %"
    findings = [{**wrong, "what": what, "remedy": "Export both from one checkpoint."}]
    details = {"cause": "has a weight that is 1.05 times the reference's"}
    run["checks"].append(
        {**outputs, "kind": "origin", "outcome": "localised", "findings": findings, "details": details}
    )
    return run


def test_wrong_outputs_say_where_they_come_from() -> None:
    run = localised()
    text = body(render([run]))
    top = text.partition('<main id="main">')[0]

    assert (
        "<dt>Where it comes from</dt><dd>MatMul &#39;/layer.6/MatMul&#39; makes the outputs wrong: it adds 0.05</dd>"
        in top
    )
    assert "<dt>Why</dt><dd>it has a weight that is 1.05 times the reference&#39;s</dd>" in top
    assert '<p class="remedy">Export both from one checkpoint.</p>' in top
    assert [line.kind for line in sections_of(run)[0].headlines][:2] == ["outputs", "origin"]
    assert text.index("<strong>origin</strong>") < text.index("<strong>timing</strong>")
    assert "**origin localised**" in render_markdown(run)


def test_what_was_looked_for_without_a_failure_is_none() -> None:
    (section,) = sections_of(localised("pass"))

    assert not section.is_bad
    assert section.facts == ()


def test_what_explains_another_failure_is_not_the_first_thing_said() -> None:
    run = localised("pass")
    run["checks"].append({**document(slower=7)["checks"][0], "test": "test_other"})
    (section,) = sections_of(run)

    assert section.verdict.startswith("Slower: ")
    assert "Where it comes from" not in dict(section.facts)


def slower_check(**changes: Any) -> dict[str, Any]:
    check: dict[str, Any] = document(slower=7)["checks"][0]
    check["details"].update(changes)
    return check


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        (
            {"machine": -0.2},
            "All layers alike",
            "-20.0%: the machine itself, which is taken out of the change of a layer",
        ),
        ({"history": [{"context": {}}]}, "Since when", "after the only recorded run"),
        ({"against": "old"}, "Since when", "against old, measured in turn with it in this run"),
        (
            {"context": {"commit": "c0ffee2"}},
            "Since when",
            "after 2026-11-12 09:30 UTC, the newest of 3 recorded runs, which was of the same commit c0ffee2",
        ),
    ],
)
def test_facts_of_a_slowdown(changes: dict[str, Any], name: str, value: str) -> None:
    assert dict(slower_facts(slower_check(**changes)))[name] == value


def test_facts_where_only_the_whole_engine_is_slower() -> None:
    check = document()["checks"][0]
    engine = {**check["details"]["engine"], "outcome": "slower", "before_us": 100.0, "us": 150.0, "change": 0.5}
    check.update(outcome="slower", details={**check["details"], "engine": {**engine, "p_value": 0.004}})
    facts = dict(slower_facts(check))

    assert facts["What got slower"] == "the whole engine"
    assert facts["By how much"] == "100 us -> 150 us, +50.0%"
    assert "1 in 250" in facts["How sure"]
    assert "One inference" not in facts


def test_layers_that_a_finding_names_are_marked_as_changed() -> None:
    (section,) = sections_of(document(slower=7))
    assert section.data["structure"]["changed"] == [7]

    run = document(slower=7)
    run["checks"][2]["findings"][0]["rule"] = "structure.OPT-10"  # advice on what could be faster
    assert sections_of(run)[0].data["structure"]["changed"] == []


def test_a_run_without_faults() -> None:
    html = body(render([document()]))

    assert "<h1>bert passed</h1>" in html
    assert 'class="verdict"' not in html


def test_several_runs_stand_side_by_side_failures_first() -> None:
    html = render([document(), document(slower=1)], ["old.json", "new.json"])

    assert "<h1>1 of 2 engines failed</h1>" in html
    overview = html.partition("Side by side")[2].partition("</table>")[0]
    assert re.findall(r'class="(\w+)">([\w ]+)</a> ([\d.]+ us|[\d.]+ ms)(?: \(([^)]*)\))?', overview) == [
        ("good", "passed", "396 us", ""),
        ("bad", "timing slower", "408 us", "+3.0%"),
    ]
    titles = re.findall(r"<h2[^>]*>(bert in \w+\.json)", html)
    assert titles == ["bert in new.json", "bert in old.json"]
    assert len(embedded(html)) == 2


def test_nothing_was_tested() -> None:
    assert "<h1>No engine was tested</h1>" in render([{**document(), "checks": []}])


def test_no_name_becomes_markup() -> None:
    evil = "</script><img src=x onerror=alert(1)>\u2028{{ 7 * 7 }}"
    run = document(slower=0, engine=evil)
    run["checks"][0]["details"]["layers"][0]["key"] = evil
    run["checks"][0]["details"]["context"]["host"] = evil
    run["checks"][0]["findings"][0]["what"] = evil
    html = render([run])

    assert "<img" not in html
    assert "{{ 7 * 7 }}" in html
    assert embedded(html)["r0e0"]["timing"]["layers"][0]["key"] == evil


def test_numbers_that_json_does_not_have() -> None:
    run = document()
    run["checks"][0]["details"]["layers"][0]["high"] = float("inf")
    run["checks"][1]["details"]["outputs"][0].update(max_abs=float("nan"), relative_l2=None)

    assert embedded(render([run]))["r0e0"]["timing"]["layers"][0]["high"] is None


def test_nothing_is_loaded_from_elsewhere() -> None:
    html = render([document()])

    assert "default-src 'none'" in html
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", html)
    style = html.partition("<style>")[2].partition("</style>")[0]
    assert not re.findall(r"@import|url\(", style)


@pytest.mark.parametrize(("layers", "limit"), [(400, 3 * MIB), (5000, 8 * MIB)])
def test_size(layers: int, limit: int) -> None:
    assert len(render([document(layers, slower=3)]).encode()) < limit


def test_the_gravest_check_of_a_kind_is_drawn() -> None:
    good, bad = document(), document(slower=2)
    good["checks"] += bad["checks"]
    (section,) = sections_of(good)

    assert section.data["timing"]["outcome"] == "slower"
    assert [line.rank for line in section.headlines] == sorted(line.rank for line in section.headlines)


@pytest.mark.parametrize(
    ("details", "text"),
    [
        ({}, ""),
        ({"against": "old", "history": [{"context": {}}]}, "against old, measured in turn with it in this run"),
        ({"history": [{"context": {}}]}, "against 1 recorded run"),
        (
            {"history": [{"context": {"commit": "a"}}], "context": {"commit": "a"}},
            "against 1 recorded run, of the same commit a",
        ),
    ],
)
def test_since(details: dict[str, Any], text: str) -> None:
    assert since(details) == text
