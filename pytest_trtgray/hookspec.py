"""Hooks that a ``conftest.py`` may implement.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_trtgray.engines.base import Engine
    from pytest_trtgray.engines.model import EngineInfo, Layer
    from pytest_trtgray.findings import Finding


@pytest.hookspec(firstresult=True)
def pytest_trt_identity(
    config: pytest.Config, engine: Engine, kind: str, identity: Mapping[str, str]
) -> Mapping[str, str] | None:
    """Replace the identity that decides which baseline is used.

    Args:
        config: pytest's.
        engine: under test.
        kind: ``timing`` or ``structure``.
        identity: what would be used: ``device``, ``sm``, ``runtime``, ``version``, ``precision``.

    Returns:
        another mapping of strings, or ``None`` to keep it::

            def pytest_trt_identity(identity):
                return {**identity, "device": "ci-pool-a"}
    """


@pytest.hookspec(firstresult=True)
def pytest_trt_layer_group(layer: Layer, engine: EngineInfo) -> str | None:
    """Say which module a layer belongs to, where its ONNX names do not.

    Args:
        layer: see :class:`~pytest_trtgray.engines.model.Layer`.
        engine: that it is part of; names such as ``n4`` mean nothing without it.

    Returns:
        a module path such as ``encoder/layer.0/attention``, or ``None`` for what the names say::

            def pytest_trt_layer_group(layer):
                return "postprocessing" if layer.kind == "nms" else None
    """


@pytest.hookspec
def pytest_trt_finding(item: pytest.Item, finding: Finding) -> None:
    """Take every finding of a test, as it is made.

    For example::

        def pytest_trt_finding(item, finding):
            print(item.nodeid, finding.rule, finding.what)
    """


@pytest.hookspec
def pytest_trt_update_json(config: pytest.Config, data: dict[str, Any]) -> None:
    """Amend what ``--trt-json`` writes, in place.

    For example::

        def pytest_trt_update_json(data):
            data["build_number"] = os.environ["BUILD_NUMBER"]
    """
