"""A real PostgreSQL server in a folder of its own, from the distribution's packages."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

USER = "trtgray"


def missing() -> str:
    """Why there can be no server here; empty if there can."""
    if _program("initdb") is None or _program("postgres") is None:
        return "needs PostgreSQL (apt-get install postgresql), found no initdb"
    if os.geteuid() == 0 and _account() is None:
        return "PostgreSQL does not run as root, and there is neither an account postgres nor nobody"
    return ""


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Start one that listens on a socket in a temporary folder only.

    Yields:
        the URL of its database.
    """
    initdb, postgres = _program("initdb"), _program("postgres")
    assert initdb is not None
    assert postgres is not None
    # not pytest's folder: the path of a socket has at most 107 characters, and others may not look into it
    folder = Path(tempfile.mkdtemp(prefix="trtgray-pg-"))
    account = _account() if os.geteuid() == 0 else None
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)
    data = folder / "data"
    who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account is not None else {}
    try:
        subprocess.run(
            [initdb, "-D", data, "-U", USER, "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"],
            check=True,
            capture_output=True,
            cwd=folder,
            **who,  # type: ignore[call-overload]
        )
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [postgres, "-D", data, "-k", folder, "-c", "listen_addresses="],
                stdout=log,
                stderr=log,
                cwd=folder,
                **who,  # type: ignore[call-overload]
            )
        try:
            _wait(folder / ".s.PGSQL.5432", process, folder / "log")
            yield f"postgresql://{USER}@/postgres?host={quote(str(folder))}"
        finally:
            process.terminate()  # smart shutdown would wait for clients
            process.send_signal(2)
            process.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(socket: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    ready = _program("pg_isready")
    for _ in range(600):
        if process.poll() is not None:
            break
        if socket.exists() and (ready is None or subprocess.run([ready, "-q", "-h", socket.parent]).returncode == 0):
            return
        time.sleep(0.05)
    raise RuntimeError(f"PostgreSQL does not start: {log.read_text(errors='replace')}")


def _program(name: str) -> str | None:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name, reverse=True)
    return shutil.which(name, path=os.pathsep.join([*map(str, versions), os.environ.get("PATH", "")]))


def _account() -> pwd.struct_passwd | None:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None
