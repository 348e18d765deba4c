"""What happens once, at the end of a run: obsolete baselines, the JSON report."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trtgray.errors import TrtGrayError

if TYPE_CHECKING:
    from pytest_trtgray.session import TrtSession
    from pytest_trtgray.settings import Settings

final_key = pytest.StashKey["FinalState"]()


class FinalState:
    """What the terminal section shows besides the checks."""

    def __init__(self) -> None:
        self.obsolete: list[Path] = []
        self.pruned: list[Path] = []
        self.written: list[str] = []
        self.remarks: list[str] = []
        self.problems: list[str] = []


def finish(config: pytest.Config) -> None:
    """Do it, in the process that reports to the user; never raises."""
    from pytest_trtgray.state import session_key, settings_of

    session = config.stash.get(session_key, None)
    if hasattr(config, "workerinput"):
        from pytest_trtgray.parallel import send_to_controller

        send_to_controller(config, session)
        return
    state = FinalState()
    config.stash[final_key] = state
    settings = settings_of(config)
    if session is not None:
        state.written = list(session.written)
        state.remarks = list(session.remarks)
        _sort_out_obsolete(config, session, state)
        session.close()
    if settings.wants_details:
        _write_reports(config, settings, state)


def _write_reports(config: pytest.Config, settings: Settings, state: FinalState) -> None:
    """Write what was asked for; one that fails leaves the others alone."""
    from pytest_trtgray import provenance
    from pytest_trtgray.files import dump_json, write_atomically
    from pytest_trtgray.reporting.document import make_document
    from pytest_trtgray.reporting.html import render
    from pytest_trtgray.reporting.logs import log_path, write_log
    from pytest_trtgray.reporting.markdown import render_markdown
    from pytest_trtgray.reporting.results import all_results

    data = make_document(all_results(config))
    data["run"] = provenance.run_facts(config.rootpath, hashed=settings.redaction)
    if settings.json_path is not None:
        beside = log_path(settings.json_path)
        try:
            data["log"] = write_log(config, beside)
        except OSError as error:
            state.problems.append(f"{beside}: the log cannot be written: {error}")
    config.hook.pytest_trt_update_json(config=config, data=data)
    if settings.history:
        _record_history(config, settings, state, data)
    writers: tuple[tuple[Path | None, str, Callable[[Path], bytes]], ...] = (
        (settings.json_path, "JSON report", lambda _: dump_json(data)),
        (settings.report_path, "HTML report", lambda _: render([data]).encode("utf-8")),
        (settings.summary_path, "step summary", lambda path: _appended(path, render_markdown(data))),
    )
    for path, what, content in writers:
        if path is None:
            continue
        try:
            write_atomically(path, content(path))
        except (OSError, ValueError) as error:
            state.problems.append(f"{path}: the {what} cannot be written: {error}")
    if settings.metrics_path or settings.push_gateway:
        _publish_metrics(data, settings, state)


def _publish_metrics(data: Mapping[str, Any], settings: Settings, state: FinalState) -> None:
    """Write and push the run's metrics; a run without checks leaves those of the last one, which grow old."""
    from pytest_trtgray.files import write_atomically
    from pytest_trtgray.metrics.exposition import render_metrics
    from pytest_trtgray.metrics.gateway import push

    if not data.get("checks"):
        state.remarks.append("no check was made, so the metrics of the run before stay as they are")
        return
    try:
        if settings.metrics_path is not None:
            write_atomically(settings.metrics_path, render_metrics(data))
    except OSError as error:
        state.problems.append(f"{settings.metrics_path}: the metrics cannot be written: {error}")
    try:
        if settings.push_gateway is not None:
            push(data, settings.push_gateway)
    except TrtGrayError as error:
        state.problems.append(f"warning: {error.message}")


def _record_history(config: pytest.Config, settings: Settings, state: FinalState, data: dict[str, Any]) -> None:
    from pytest_trtgray.history.recording import record
    from pytest_trtgray.reporting.logs import recorded

    said = [(test.nodeid, each) for test in recorded(config) for each in test.records]
    outcome = record(settings.history, data, said, cache=settings.cache_dir, level=settings.history_log_level)
    state.remarks += outcome.remarks
    state.problems += outcome.problems


def _appended(path: Path, text: str) -> bytes:
    """The step summary so far and ours: other steps and plugins write into the same file."""
    before = path.read_bytes() if path.exists() else b""
    return before + (b"\n" if before and not before.endswith(b"\n") else b"") + text.encode("utf-8")


def find_obsolete(session: TrtSession, *, narrowed: bool) -> list[Path]:
    """Baselines of the hardware in use whose test is gone from a module that was collected.

    Args:
        session: knows what was collected.
        narrowed: whether tests were left out (``-k``, ``--lf``, single node ids): then nothing is known.
    """
    from pytest_trtgray.baselines.store import read_file

    if narrowed or not session.collected:
        return []
    modules = {test.partition("::")[0] for test in session.collected}
    functions = {_without_parameters(test) for test in session.collected}
    engines = {engine.name for engine in session.settings.engines}
    found = []
    for path in session.store.files():
        if path.parent.name not in session.used_folders:
            continue
        try:
            file = read_file(path)
        except TrtGrayError:
            continue  # said where it is used; never deleted
        if file.test.partition("::")[0] not in modules or file.test in session.collected:
            continue
        # Another engine's parameter is not obsolete, only not asked for this time.
        if _without_parameters(file.test) not in functions or file.engine in engines:
            found.append(path)
    return found


def _sort_out_obsolete(config: pytest.Config, session: TrtSession, state: FinalState) -> None:
    try:
        obsolete = find_obsolete(session, narrowed=is_narrowed(config))
    except OSError as error:
        state.problems.append(f"{session.store.root}: cannot be searched for obsolete baselines: {error}")
        return
    for path in obsolete:
        if not session.settings.prune:
            state.obsolete.append(path)
            continue
        try:
            session.store.delete(path)
            state.pruned.append(path)
        except TrtGrayError as error:
            state.problems.append(error.message)


def is_narrowed(config: pytest.Config) -> bool:
    """Whether the command line left tests out."""
    option = config.option
    chosen = any("::" in str(arg) for arg in config.args)
    flags = ("keyword", "markexpr", "deselect", "lf", "failedfirst", "stepwise", "maxfail", "collectonly")
    return chosen or any(getattr(option, flag, None) for flag in flags)


def _without_parameters(test: str) -> str:
    return re.sub(r"\[.*\]$", "", test)
