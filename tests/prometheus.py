"""Real programs of Prometheus for tests: found where they are installed, started on free loopback ports."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = {
    "prometheus": ("prometheus",),
    "promtool": ("promtool",),
    "pushgateway": ("prometheus-pushgateway", "pushgateway"),
    "node_exporter": ("prometheus-node-exporter", "node_exporter"),
}
"""As Debian calls them, and as their authors do."""
# loopback is asked without the proxy that the environment may name
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def program(name: str) -> str:
    """The path of a program; the test is skipped where it is missing."""
    found = next((path for each in NAMES[name] if (path := shutil.which(each))), None)
    if found is None:
        pytest.skip(f"needs {name} (Debian: apt-get install {NAMES[name][0]}); it is not installed")
    return found


def promtool(*arguments: str, given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([program("promtool"), *arguments], input=given, capture_output=True, timeout=60, check=False)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def get(url: str) -> bytes:
    with _opener.open(url, timeout=10) as answer:
        content: bytes = answer.read()
    return content


def query(url: str, expression: str) -> list[dict[str, Any]]:
    """The result of an instant query."""
    text = get(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
    result: list[dict[str, Any]] = json.loads(text)["data"]["result"]
    return result


@contextlib.contextmanager
def running(name: str, folder: Path, *arguments: str, ready: str) -> Iterator[str]:
    """A program that listens; ends with the test. Gives its URL.

    Args:
        name: of the program.
        folder: it runs in, with its log.
        arguments: of the program; ``{listen}`` becomes the address.
        ready: path that answers once it is up.
    """
    path = program(name)
    address = f"127.0.0.1:{free_port()}"
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [path, *(each.replace("{listen}", address) for each in arguments)],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: _answers(f"http://{address}{ready}") or process.poll() is not None)
        if process.poll() is not None:
            pytest.fail(f"{name} ended: {(folder / f'{name}.log').read_text()[-2000:]}")
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


def until(holds: Any, *, seconds: float = 60) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            pytest.fail(f"still not so after {seconds:g} s")
        time.sleep(0.1)


@contextlib.contextmanager
def gateway(folder: Path, *arguments: str) -> Iterator[str]:
    """A push gateway that keeps nothing on disk; Debian's does by default."""
    own = ("--web.listen-address={listen}", "--persistence.file=")
    with running("pushgateway", folder, *own, *arguments, ready="/-/ready") as url:
        yield url


@contextlib.contextmanager
def server(folder: Path, target: str, rules: Path | None = None) -> Iterator[str]:
    """A Prometheus that scrapes ``target`` (``host:port``) every second, at ``/metrics``."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)] if rules else [],
        "scrape_configs": [{"job_name": "trtgray", "honor_labels": True, "static_configs": [{"targets": [target]}]}],
    }
    file = folder / "prometheus.yml"
    file.write_text(json.dumps(config))  # YAML takes JSON
    data = f"--storage.tsdb.path={folder / 'data'}"
    with running(
        "prometheus", folder, f"--config.file={file}", data, "--web.listen-address={listen}", ready="/-/ready"
    ) as url:
        yield url


def _answers(url: str) -> bool:
    try:
        get(url)
    except urllib.error.HTTPError as error:
        return error.code == 401  # it asks for a password
    except OSError:
        return False
    return True
