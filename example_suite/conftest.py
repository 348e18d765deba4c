"""What is common to the example tests: their models, settings of Hypothesis, and three hooks of the plugin."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping

import pytest
from hypothesis import settings

from pytest_trtgray import Finding, Layer

from .models import ensure_models

log = logging.getLogger("findings")
LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "advice": logging.INFO}

# Engines are slower than what Hypothesis expects: fewer examples, and no limit on the time of one.
settings.register_profile("engines", max_examples=20, deadline=None)
settings.load_profile("engines")


def pytest_sessionstart() -> None:
    # Before collection: --trt-engine may name one of the models.
    try:
        ensure_models()
    except ImportError as error:
        raise pytest.UsageError(
            f"the models of this suite are made with ONNX Runtime: {error}\n  pip install 'pytest-trtgray[cpu]'"
        ) from error


def pytest_trt_layer_group(layer: Layer) -> str | None:
    # ResNet-50 comes with flat names (/res4_2_branch2b/Conv); as paths (res4/2/branch2b) they make groups.
    # Any other layer keeps what its ONNX nodes say.
    for node in sorted(layer.onnx_nodes):
        if found := re.match(r"/res(\d)_(\d+)_(branch\w+)/", node):
            return "res{}/{}/{}".format(*found.groups())
    return None


def pytest_trt_identity(kind: str, identity: Mapping[str, str]) -> Mapping[str, str] | None:
    # Cloud runners of one pool report processors whose names differ and whose speed does not. Where the
    # variable is set, they share the baselines of times; elsewhere nothing changes.
    pool = os.environ.get("RUNNER_POOL")
    return {**identity, "device": pool} if pool and kind == "timing" else None


def pytest_trt_finding(item: pytest.Item, finding: Finding) -> None:
    # pytest shows it with a failing test (--log-cli-level=INFO: at once); a handler could send it anywhere.
    log.log(LEVELS[finding.severity], "%s: %s: %s", item.nodeid, finding.rule, finding.what)
