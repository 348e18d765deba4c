"""Hooks of a run that uses the plugin; registered where an option, an ini value or a test asks for it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trtgray.errors import NotApplicableError, NotRunnableError, TrtGrayError
from pytest_trtgray.logs import redaction
from pytest_trtgray.logs.buffer import RecordBuffer
from pytest_trtgray.logs.sink import SINK
from pytest_trtgray.outcomes import fail_test, skip_test
from pytest_trtgray.plugin import uses_fixtures
from pytest_trtgray.progress import PROGRESS
from pytest_trtgray.reporting.results import DETAILS, details_key
from pytest_trtgray.settings import ActiveTest, activated
from pytest_trtgray.state import session_key, settings_of, trt_session

if TYPE_CHECKING:
    from pytest_trtgray.reporting.progress_line import ProgressLine

BUILTIN = Path(__file__).parent / "suite" / "builtin.py"
said_key = pytest.StashKey[RecordBuffer]()
progress_key: pytest.StashKey[ProgressLine | None] = pytest.StashKey()
redactor_key = pytest.StashKey[redaction.Redactor]()


def pytest_report_header(config: pytest.Config) -> str | None:
    """One line, only if the plugin is used."""
    settings = settings_of(config)
    if not settings.is_used:
        return None
    from pytest_trtgray.reporting.terminal import header

    return header(settings)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Refuse unusable files and a missing GPU before anything runs."""
    if hasattr(session.config, "workerinput"):
        return  # the controller has looked
    from pytest_trtgray.preflight import check_everything

    try:
        check_everything(settings_of(session.config))
    except TrtGrayError as error:
        raise pytest.UsageError(error.message) from None


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect the built-in suite where it is named: ``--pyargs pytest_trtgray.suite.builtin``."""
    if file_path != BUILTIN:
        return None
    from pytest_trtgray.suite.collector import suite_module

    return suite_module(parent)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that use ``trt_engine`` once for every ``--trt-engine``."""
    if "trt_engine" not in metafunc.fixturenames:
        return
    engines = settings_of(metafunc.config).engines
    if engines:
        metafunc.parametrize(
            "trt_engine", engines, ids=[engine.name for engine in engines], indirect=True, scope="session"
        )


def prepare(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Add the built-in suite where the user has no tests; gate on markers; note what was collected."""
    config = session.config
    settings = settings_of(config)
    if settings.engines and not items and not session.testsfailed:
        from pytest_trtgray.suite.collector import collect_suite

        items[:] = collect_suite(session)
    if any(marker.name.startswith("trt_") for item in items for marker in item.iter_markers()):
        from pytest_trtgray.gating import gate

        try:
            gate(items, settings)
        except TrtGrayError as error:
            raise pytest.UsageError(error.message) from None
    users = [item for item in items if uses_fixtures(item)]
    if users:
        from pytest_trtgray.fuzzing import relax_deadlines

        relax_deadlines(users)
        trt_session(config).note_collected(items)
    if settings.engines and not any("trt_engine" in getattr(item, "fixturenames", ()) for item in items):
        trt_session(config).remarks.append(
            "no collected test uses trt_engine, so --trt-engine had no effect; the built-in suite runs beside other "
            "tests with --pyargs pytest_trtgray.suite.builtin"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Files that a test names are looked for beside it first; what the runtimes say in it is its log."""
    config, settings = item.config, settings_of(item.config)
    folders = (item.path.parent, config.rootpath, config.invocation_params.dir)
    with (
        activated(ActiveTest(folders, settings.shapes)),
        SINK.collect(None, level=settings.log_level) as item.stash[said_key],
        redaction.using(_redactor(config)),
        _progress_shown(config),
    ):
        return (yield)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give the terminal back."""
    line = config.stash.get(progress_key, None)
    if line is not None:
        line.close()


def _progress_shown(config: pytest.Config) -> contextlib.AbstractContextManager[None]:
    """How far long work is, on a terminal that somebody looks at; nothing is captured while this is called."""
    if progress_key not in config.stash:
        from pytest_trtgray.reporting.progress_line import progress_line

        config.stash[progress_key] = progress_line(config)
    line = config.stash[progress_key]
    return PROGRESS.shown_on(line) if line is not None else contextlib.nullcontext()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Details and the log of a test travel with its report, also from a worker of pytest-xdist."""
    report = yield
    if call.when == "call" and details_key in item.stash:
        setattr(report, DETAILS, item.stash[details_key])
        del item.stash[details_key]
    if call.when == "call" or (call.when == "setup" and not report.passed):
        said = item.stash.get(said_key, ())
        if said:
            from pytest_trtgray.reporting.logs import attach

            settings = settings_of(item.config)
            attach(report, said, whole=bool(settings.json_path or settings.history))
    return report


def _redactor(config: pytest.Config) -> redaction.Redactor:
    if redactor_key not in config.stash:
        settings = settings_of(config)
        config.stash[redactor_key] = (
            redaction.redactor_of_this_machine(settings.redact)
            if settings.redaction
            else redaction.Redactor(enabled=False)
        )
    return config.stash[redactor_key]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """An engine that this machine cannot run skips the test; any other refusal is one clear message."""
    with _as_outcome(item, keep_traceback=False):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """As above; and baselines are written only after the whole test has passed."""
    session = item.config.stash.get(session_key, None)
    try:
        with (
            _as_outcome(item, keep_traceback=not getattr(item, "is_trt_suite", False)),
            _without_source(item),
        ):
            result = yield
            if session is not None:
                session.commit(item)
            return result
    finally:
        if session is not None:
            session.attach_properties(item)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Find obsolete baselines; write the JSON report."""
    if _has_results(session.config):
        from pytest_trtgray.reporting.final import finish

        finish(session.config)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One short section at the end."""
    if _has_results(config):
        from pytest_trtgray.reporting.terminal import write_summary

        write_summary(terminalreporter, config)


def _has_results(config: pytest.Config) -> bool:
    """Whether any test used the plugin, or a report was asked for."""
    return session_key in config.stash or settings_of(config).wants_details


@contextlib.contextmanager
def _as_outcome(item: pytest.Item, *, keep_traceback: bool) -> Generator[None, None, None]:
    try:
        yield
    except NotRunnableError as error:
        if settings_of(item.config).require_gpu:
            fail_test(error.message)
        skip_test(f"{error.thing}: {error.reason}")
    except NotApplicableError as error:
        skip_test(error.message)
    except TrtGrayError as error:
        if keep_traceback:
            raise
        fail_test(error.message)


@contextlib.contextmanager
def _without_source(item: pytest.Item) -> Generator[None, None, None]:
    """Show what a built-in test found, not the lines of the built-in test."""
    try:
        yield
    except AssertionError as error:
        if not getattr(item, "is_trt_suite", False):
            raise
        fail_test(str(error))
