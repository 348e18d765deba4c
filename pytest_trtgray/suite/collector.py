"""Collecting the built-in suite, with readable ids: ``trtgray::layers[resnet50]``."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from pytest_trtgray.suite import builtin

NODEID = "trtgray"


class Suite(pytest.Module):
    """The module :mod:`pytest_trtgray.suite.builtin`, under a short node id."""

    def _getobj(self) -> ModuleType:
        return importlib.import_module(builtin.__name__)

    def funcnamefilter(self, name: str) -> bool:
        """Its tests are not called ``test_…``: their names are what the user selects with ``-k``."""
        return name in builtin.TESTS

    def istestfunction(self, obj: object, name: str) -> bool:
        """As :meth:`funcnamefilter`."""
        return self.funcnamefilter(name)

    def istestclass(self, obj: object, name: str) -> bool:
        """There are none."""
        return False


def collect_suite(session: pytest.Session) -> list[pytest.Item]:
    """All tests of the suite, for every engine, in the suite's order."""
    module = Suite.from_parent(session, path=Path(builtin.__file__), nodeid=NODEID)
    items = list(session.genitems(module))
    for item in items:
        item.is_trt_suite = True  # type: ignore[attr-defined]
    return items
