"""Where a run comes from: commit, branch, CI job, machine."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

HASH_LENGTH = 12
_BRANCH_VARIABLES = (
    "GITHUB_HEAD_REF",  # of a pull request; GITHUB_REF_NAME is then a number
    "GITHUB_REF_NAME",
    "CI_COMMIT_REF_NAME",
    "CHANGE_BRANCH",
    "BRANCH_NAME",
    "BUILDKITE_BRANCH",
    "CIRCLE_BRANCH",
    "BUILD_SOURCEBRANCHNAME",
)


def run_facts(folder: Path, *, hashed: bool = True) -> dict[str, Any]:
    """What a run document says of its run; what is not known is left out.

    Args:
        folder: inside the checkout.
        hashed: the machine by a hash of its name, as everywhere where names are redacted.

    Returns:
        ``id`` (made up, unique), ``commit``, ``branch``, ``dirty`` (tracked files differ from the commit), ``job``,
        ``host``.
    """
    facts: dict[str, Any] = {
        "id": uuid.uuid4().hex,
        "commit": commit(folder),
        "branch": branch(folder),
        "dirty": is_dirty(folder),
        "job": job(),
        "host": host(hashed=hashed),
    }
    return {name: value for name, value in facts.items() if value not in ("", None)}


def commit(folder: Path | None = None) -> str:
    """Twelve digits of the commit under test, by the CI service or git; empty if neither knows."""
    for variable in ("GITHUB_SHA", "CI_COMMIT_SHA", "BUILD_VCS_NUMBER"):
        if value := os.environ.get(variable):
            return value[:HASH_LENGTH]
    return _git(folder, "rev-parse", f"--short={HASH_LENGTH}", "HEAD") or ""


def branch(folder: Path | None = None) -> str:
    """The branch, by the CI service (which checks out no branch) or git; empty if neither knows."""
    for variable in _BRANCH_VARIABLES:
        if value := os.environ.get(variable):
            return value
    found = _git(folder, "rev-parse", "--abbrev-ref", "HEAD") or ""
    return "" if found == "HEAD" else found


def is_dirty(folder: Path | None = None) -> bool | None:
    """Whether tracked files differ from the commit; ``None`` outside of a checkout."""
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return None if changed is None else bool(changed)


def host(*, hashed: bool = True) -> str:
    """This machine: the same text on each of its runs, which does not say its name if ``hashed``."""
    try:
        name = socket.gethostname()
    except OSError:
        return ""
    return hashlib.sha256(f"host {name}".encode()).hexdigest()[:HASH_LENGTH] if hashed else name


def job() -> str:
    """What tells runs of one job from runs of several: what differs between jobs does not average out within one.

    The run of a CI service, where there is one; else this boot of the machine and the hour.
    """
    for variables in (
        ("GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT"),
        ("CI_PIPELINE_ID",),
        ("BUILD_TAG",),
        ("BUILD_BUILDID",),
        ("BUILDKITE_BUILD_ID",),
        ("CIRCLE_WORKFLOW_ID",),
    ):
        if os.environ.get(variables[0]):
            return "-".join(os.environ.get(name, "") for name in variables)
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        boot = platform.node()
    return f"{boot}-{int(time.time() // 3600)}"


def _git(folder: Path | None, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, errors="replace", timeout=5, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
