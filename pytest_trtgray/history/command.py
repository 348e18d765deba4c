"""``trtgray history``: what a database of runs says."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trtgray.errors import NotApplicableError, TrtGrayError
from pytest_trtgray.findings import counted

if TYPE_CHECKING:
    from pytest_trtgray.history.store import History, Series
    from pytest_trtgray.history.trends import Shift, Trend

URL_VARIABLE = "TRTGRAY_HISTORY"
DEFAULT_URL = "sqlite:///history.db"
LAST_RUNS = 300
"""Runs that are looked at by default: more are rarely of interest, and of 200 layers take seconds."""
_SHOWN_LAYERS = 10
_FOUND, _FINE, _UNUSABLE = 1, 0, 2


def add_to(commands: Any) -> None:
    """Declare the command on the subparsers of ``trtgray``."""
    history = commands.add_parser(
        "history",
        help="runs kept with --trt-history: list, plot, find since when something is slower",
        epilog="exit codes: 0 fine, 1 changes gives at least one slower layer or engine, 2 something cannot be read",
    )
    actions = history.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="the newest runs")
    listing.add_argument("--limit", type=_positive, default=20, metavar="N", help="default: 20")
    listing.set_defaults(action=_list)
    add = actions.add_parser("add", help="add runs that --trt-json has written; those that are there are left alone")
    add.add_argument("files", nargs="+", metavar="RUN.json")
    add.add_argument(
        "--log-level", choices=("error", "warning", "info", "verbose"), default="warning", help="kept of the logs"
    )
    add.set_defaults(action=_add)
    plot = actions.add_parser("plot", help="times over runs, with change points")
    changes = actions.add_parser("changes", help="since which commits engines and layers are slower or faster")
    for command, action in ((plot, _plot), (changes, _changes)):
        command.add_argument(
            "--layer", default="", metavar="PART", help="one layer, by a part of its name, over all runs"
        )
        command.add_argument(
            "--last", type=_not_negative, metavar="N", help=f"newest runs; 0: all. Default: {LAST_RUNS}; of a layer all"
        )
        command.add_argument("--layer-change", type=float, default=0.03, metavar="PART", help="least. Default: 0.03")
        command.add_argument("--engine-change", type=float, default=0.02, metavar="PART", help="least. Default: 0.02")
        command.set_defaults(action=action)
    plot.add_argument("-o", "--output", metavar="FILE.html", help="an HTML file instead of text")
    plot.add_argument("--all-layers", action="store_true", help=f"not only those that changed, or {_SHOWN_LAYERS}")
    changes.add_argument("--json", action="store_true", help="findings as JSON")
    prune = actions.add_parser("prune", help="delete old runs")
    prune.add_argument("--keep-days", type=_not_negative, metavar="N", help="keep runs of the last N days")
    prune.add_argument("--keep-runs", type=_not_negative, metavar="N", help="keep the newest N runs")
    prune.add_argument("--dry-run", action="store_true", help="only say how many")
    prune.set_defaults(action=_prune)
    for command in (listing, add, plot, changes, prune):
        command.add_argument(
            "--db",
            default=os.environ.get(URL_VARIABLE) or DEFAULT_URL,
            metavar="URL",
            help=f"the database. Default: ${URL_VARIABLE}, or {DEFAULT_URL}",
        )
    for command in (listing, plot, changes):
        command.add_argument("--engine", default="", metavar="NAME", help="only this engine")
        command.add_argument("--branch", metavar="NAME", help="only this branch")
    for command in (plot, changes):
        command.add_argument("--all-branches", action="store_true", help="default: the branch with most runs")


def _list(arguments: argparse.Namespace) -> int:
    history = _opened(arguments)
    found = history.runs(engine=arguments.engine, branch=arguments.branch or "", limit=arguments.limit)
    for run in found:
        commit = (run.commit or "-") + ("+" if run.dirty else "")
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in run.outcomes.items())
        engines = ", ".join(name for name in run.engines if name)
        print(f"{run.time_utc:%Y-%m-%d %H:%M:%S}  {commit:<13}  {run.branch or '-':<20}  {engines}: {outcomes}")
    print(f"{counted(len(found), 'run')}; + after a commit: there were changes beside it")
    return _FINE


def _add(arguments: argparse.Namespace) -> int:
    from pytest_trtgray.history.database import HistoryError
    from pytest_trtgray.history.spool import add_file

    history, code, added = _opened(arguments, make=True), _FINE, 0
    for name in arguments.files:
        try:
            added += add_file(Path(name), history, level=arguments.log_level)
        except HistoryError:
            raise
        except TrtGrayError as error:
            print(f"trtgray: {name}: {error.reason}", file=sys.stderr)
            code = _UNUSABLE
    print(f"{counted(added, 'run')} added, {len(arguments.files) - added} known already or unreadable")
    return code


def _plot(arguments: argparse.Namespace) -> int:
    from pytest_trtgray.history.plots import render_html, trend_lines

    history = _opened(arguments)
    kept: list[tuple[list[Trend], list[Shift]]] = []
    for trends, shifts in _looked_at(history, arguments):
        shown = _worth_showing(trends, shifts, all_layers=arguments.all_layers or bool(arguments.layer))
        kept.append((shown, shifts))
    if arguments.output:
        trends = [trend for shown, _ in kept for trend in shown]
        changes = [shift for _, shifts in kept for shift in shifts]
        names = dict.fromkeys(trend.series.engine for trend in trends)
        _write(Path(arguments.output), render_html(", ".join(names), trends, changes))
        return _FINE
    for shown, shifts in kept:
        print(_title(shown[0].series))
        for trend in shown:
            print("\n".join(trend_lines(trend, [shift for shift in shifts if shift.trend is trend])))
    return _FINE


def _changes(arguments: argparse.Namespace) -> int:
    history = _opened(arguments)
    found: list[Shift] = []
    for trends, shifts in _looked_at(history, arguments):
        found += shifts
        if not arguments.json:
            _print_changes(trends, shifts)
    if arguments.json:
        from pytest_trtgray.files import dump_json

        data = {"format": "trtgray-changes", "schema": 1, "findings": [shift.to_finding().to_dict() for shift in found]}
        print(dump_json(data).decode(), end="")
    return _FOUND if any(shift.change > 0 for shift in found) else _FINE


def _print_changes(trends: Sequence[Trend], shifts: Sequence[Shift]) -> None:
    from pytest_trtgray.history.changes import MIN_SIDE

    jobs = len(trends[0].jobs)
    print(_title(trends[0].series))
    looked_at = f"{counted(jobs, 'job')}, {counted(len(trends) - 1, 'layer')}"
    if jobs < 2 * MIN_SIDE:
        print(f"  {looked_at}: too few to say anything; {2 * MIN_SIDE} jobs are needed")
        return
    if not shifts:
        print(f"  {looked_at}: no change")
    by_place: dict[str, list[Shift]] = {}
    for shift in sorted(shifts, key=lambda shift: (shift.since, shift.commits)):
        by_place.setdefault(shift.commits, []).append(shift)
    for commits, together in by_place.items():
        print(f"  {commits}  (since {together[0].since:%Y-%m-%d %H:%M} UTC)")
        for shift in sorted(
            together, key=lambda shift: (bool(shift.trend.layer), -abs(shift.after_us - shift.before_us))
        ):
            name = shift.trend.layer or "(engine)"
            print(f"    {shift.change:+7.1%}  {shift.before_us:.1f} -> {shift.after_us:.1f} us  {name}")
        for said in dict.fromkeys(said for shift in together for said in shift.beside):
            print(f"    beside it: {said}")


def _prune(arguments: argparse.Namespace) -> int:
    if arguments.keep_days is None and arguments.keep_runs is None:
        raise NotApplicableError("prune", "nothing says what to keep", "Give --keep-days=N, --keep-runs=N, or both.")
    history = _opened(arguments)
    gone = history.prune(
        keep_days=arguments.keep_days,
        keep_runs=arguments.keep_runs,
        now=datetime.now(timezone.utc).replace(tzinfo=None),
        dry_run=arguments.dry_run,
    )
    print(f"{counted(gone, 'run')} {'would be ' if arguments.dry_run else ''}deleted")
    return _FINE


def _looked_at(history: History, arguments: argparse.Namespace) -> Iterator[tuple[list[Trend], list[Shift]]]:
    """The trends of each engine asked for, and their changes."""
    from pytest_trtgray.history.trends import find_shifts, trends_of

    branch = _branch(history, arguments)
    last = arguments.last if arguments.last is not None else 0 if arguments.layer else LAST_RUNS
    looked_at = 0
    refused: list[NotApplicableError] = []
    for series in history.series(engine=arguments.engine):
        try:
            trends = trends_of(history, series, branch=branch, last=last, layer=arguments.layer)
        except NotApplicableError as error:  # another branch's, or an engine without that layer
            refused.append(error)
            continue
        looked_at += 1
        changes = {"layer_change": arguments.layer_change, "engine_change": arguments.engine_change}
        yield trends, find_shifts(trends, **changes)
    if not looked_at:
        if refused:
            raise refused[0]
        what = f"engine {arguments.engine}" if arguments.engine else "the database"
        raise NotApplicableError(what, "has no run with times", "trtgray history list shows what is there.")


def _branch(history: History, arguments: argparse.Namespace) -> str | None:
    if arguments.branch is not None or arguments.all_branches:
        return None if arguments.all_branches else str(arguments.branch)
    branches = history.branches()
    if len(branches) < 2:
        return None
    branch, count = next(iter(branches.items()))
    print(
        f"trtgray: branch {branch or '(unknown)'}, {count} of {sum(branches.values())} runs; "
        "see --branch, --all-branches",
        file=sys.stderr,
    )
    return branch


def _opened(arguments: argparse.Namespace, *, make: bool = False) -> History:
    from pytest_trtgray.history.database import Database
    from pytest_trtgray.history.store import History

    database = Database(arguments.db)
    if not make:
        database.require_file()
    return History(database)


def _worth_showing(trends: Sequence[Trend], shifts: Sequence[Shift], *, all_layers: bool) -> list[Trend]:
    """The engine, the layers that changed, and the longest of the others."""
    if all_layers:
        return list(trends)
    changed = {id(shift.trend) for shift in shifts}
    engine, *layers = trends
    first = [trend for trend in layers if id(trend) in changed]
    others = [trend for trend in layers if id(trend) not in changed]
    return [engine, *first, *others[: max(_SHOWN_LAYERS - len(first), 0)]]


def _title(series: Series) -> str:
    shapes = ", ".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in series.shapes.items())
    identity = [series.runtime, series.device, series.identity.get("precision", ""), shapes, series.test]
    return f"{series.engine}  {', '.join(part for part in identity if part)}, {counted(series.runs, 'run')}"


def _write(path: Path, text: str) -> None:
    from pytest_trtgray.files import write_output

    write_output(path, text.encode("utf-8"))
    print(path)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def _not_negative(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative: {value}")
    return value
