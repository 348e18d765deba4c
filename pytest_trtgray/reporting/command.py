"""Command lines for a reader to copy."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

import pytest

from pytest_trtgray.history.database import without_password

WORKER_KEY = "trtgray_command"
REBASELINE = "--trt-rebaseline"
PUSH = "--trt-push-gateway"


def record_command(config: pytest.Config, item: pytest.Item | None = None, *, anew: bool = False) -> str:
    """The command that records the missing baselines of this run, or (``anew``) accepts an intended change.

    The user's own command line with the update flag, without parallel workers; narrowed to the test where
    pytest can select it by its id.
    """
    worker = getattr(config, "workerinput", None)
    args = list(worker[WORKER_KEY]) if worker else original_args(config)
    update = update_flag(config)
    flags = (update, "--trt-update-baselines", REBASELINE)
    if item is not None and not getattr(item, "is_trt_suite", False):
        args = [*_without_paths(args, config), _node_id_from_here(item)]
    shown = (without_password(arg) for arg in args if arg not in flags)
    return shlex.join(["pytest", *shown, REBASELINE if anew else update])


def original_args(config: pytest.Config) -> list[str]:
    """The arguments of the command line, without those of xdist and without URLs, which may hold credentials."""
    args: list[str] = []
    skip = False
    for arg in map(str, config.invocation_params.args):
        if skip:
            skip = False
        elif arg in ("-n", "--numprocesses", "--dist", PUSH):
            skip = True
        elif not arg.startswith(("-n", "--numprocesses=", "--dist=", f"{PUSH}=")):
            args.append(arg)
    return args


def update_flag(config: pytest.Config) -> str:
    """The short name, where it is ours."""
    taken_by_user = getattr(config.option, "update_baselines", None) is not None
    return "--trt-update-baselines" if taken_by_user else "--update-baselines"


def _node_id_from_here(item: pytest.Item) -> str:
    """The node id as the invocation's folder needs it; pytest's own are relative to the root folder."""
    _, separator, names = item.nodeid.partition("::")
    here = item.config.invocation_params.dir
    return f"{os.path.relpath(item.path, here)}{separator}{names}"


def _without_paths(args: Sequence[str], config: pytest.Config) -> list[str]:
    """Options only; ``config.args`` are what pytest took for files and node ids."""
    given = set(map(str, config.args))
    return [arg for arg in args if arg not in given]
