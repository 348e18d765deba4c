"""The plugin's entry point: options, markers, fixtures. Everything else is loaded where it is used.

It is part of every run of pytest, so it imports the standard library and pytest only, and little of that.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

UNUSED: tuple[Any, ...] = (None, [], False, 0, "auto", "gate", "info")
"""Values of our options that ask for nothing."""
FIXTURES = frozenset(
    f"trt_{name}"
    for name in ("against", "build", "compare", "device", "engine", "log", "profiler", "shadow", "structure")
)
RUNNING = "trtgray-running"


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks of :mod:`pytest_trtgray.hookspec`."""
    from pytest_trtgray import hookspec

    pluginmanager.add_hookspecs(hookspec)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare options and ini values."""
    from pytest_trtgray.options import add_ini, add_options

    add_options(parser)
    add_ini(parser)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser) -> Generator[None, Any, Any]:
    """Take the short name ``--update-baselines``, unless the user's conftest has taken it."""
    from pytest_trtgray.options import add_update_alias

    result = yield
    add_update_alias(parser)
    return result


def pytest_configure(config: pytest.Config) -> None:
    """Register markers and fixtures; check the settings if there are any."""
    from pytest_trtgray import fixtures
    from pytest_trtgray.options import MARKERS

    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    config.pluginmanager.register(fixtures, "trtgray-fixtures")
    if is_configured(config):
        from pytest_trtgray import running
        from pytest_trtgray.parallel import check_parallel

        check_parallel(config)
        config.pluginmanager.register(running, RUNNING)
    if getattr(config.option, "numprocesses", None):
        from pytest_trtgray import parallel

        config.pluginmanager.register(parallel, "trtgray-parallel")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Load the rest where a test needs it."""
    if not config.pluginmanager.hasplugin(RUNNING):
        if not any(_uses_plugin(item) for item in items):
            return
        from pytest_trtgray import running

        config.pluginmanager.register(running, RUNNING)
    from pytest_trtgray.running import prepare

    prepare(session, items)


def is_configured(config: pytest.Config) -> bool:
    """Whether an option or an ini value says anything to this plugin."""
    from pytest_trtgray.options import INI

    given = any(name.startswith("trt_") and value not in UNUSED for name, value in vars(config.option).items())
    return given or any(config.getini(name) != default for name, _, default, _ in INI)


def uses_fixtures(item: pytest.Item) -> bool:
    """Whether a test asks for one of our fixtures."""
    return not FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))


def _uses_plugin(item: pytest.Item) -> bool:
    # a Hypothesis test may draw from profile_feeds("model.onnx") without any fixture
    return (
        uses_fixtures(item)
        or any(marker.name.startswith("trt_") for marker in item.iter_markers())
        or getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
    )
