"""The workflows in docs are what they say: YAML that parses, with options that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pytest_trtgray.options import add_options, add_update_alias

DOCS = Path(__file__).parents[3] / "docs"


def known_options() -> set[str]:
    parser = pytest.Parser(_ispytest=True)
    add_options(parser)
    add_update_alias(parser)
    return {
        name for group in [parser._anonymous, *parser._groups] for option in group.options for name in option.names()
    }


@pytest.mark.parametrize("name", ["ci.md", "reports.md"])
def test_options_exist(name: str) -> None:
    used = set(re.findall(r"--(?:trt-[a-z-]+|update-baselines)", (DOCS / name).read_text("utf-8")))
    assert used
    assert used <= known_options()


def test_workflows_are_yaml() -> None:
    yaml: Any = pytest.importorskip("yaml", reason="needs PyYAML, found none")
    github, gitlab = (
        yaml.safe_load(text)
        for text in re.findall(r"```yaml\n(.*?)```", (DOCS / "ci.md").read_text("utf-8"), re.DOTALL)
    )

    steps = github["jobs"]["record"]["steps"]
    assert [step["uses"].partition("@")[0] for step in steps if "uses" in step][-2:] == [
        "peter-evans/create-pull-request",
        "actions/upload-artifact",
    ]
    assert gitlab["record-baselines"]["extends"] in gitlab
