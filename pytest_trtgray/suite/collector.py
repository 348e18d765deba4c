"""Collecting the built-in suite, with readable ids: ``trtgray::layers[resnet50]``."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest

from pytest_trtgray.state import settings_of
from pytest_trtgray.suite import builtin

NODEID = "trtgray"


class Suite(pytest.Module):
    """The module :mod:`pytest_trtgray.suite.builtin`, under a short node id."""

    def _getobj(self) -> ModuleType:
        return importlib.import_module(builtin.__name__)

    def funcnamefilter(self, name: str) -> bool:
        """Its tests are not called ``test_…``: their names are what the user selects with ``-k``."""
        has_other = settings_of(self.config).against is not None
        return name in (builtin.AGAINST_TESTS if has_other else builtin.TESTS)

    def istestfunction(self, obj: object, name: str) -> bool:
        """As :meth:`funcnamefilter`."""
        return self.funcnamefilter(name)

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Mark the tests: their failures speak for themselves, without our source lines."""
        for item in super().collect():
            item.is_trt_suite = True  # type: ignore[union-attr]
            yield item

    def istestclass(self, obj: object, name: str) -> bool:
        """There are none."""
        return False


def collect_suite(session: pytest.Session) -> list[pytest.Item]:
    """All tests of the suite, for every engine, in the suite's order."""
    return list(session.genitems(suite_module(session)))


def suite_module(parent: pytest.Collector) -> Suite:
    """The suite as a collector below ``parent``."""
    module: Suite = Suite.from_parent(parent, path=Path(builtin.__file__), nodeid=NODEID)
    return module
