"""Pushing to a Prometheus push gateway: bounded in time, and silent about credentials."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit

from pytest_trtgray.errors import TrtGrayError
from pytest_trtgray.metrics.exposition import registry_of
from pytest_trtgray.vendor import quiet_import

DEFAULT_JOB = "trtgray"
TIMEOUT_S = 10.0
"""Of a whole push: name resolution, connection and answer."""
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class GatewayError(TrtGrayError):
    """The URL of a push gateway cannot be used, or the gateway does not take what it is given."""


@dataclass(frozen=True)
class Gateway:
    """Where metrics are pushed to, and into which group; what is there in the same group is replaced.

    Attributes:
        url: without credentials, fit to be printed.
        job: of the group.
        grouping: its further labels.
        user: for basic authentication; empty for none.
        password: likewise.
    """

    url: str
    job: str = DEFAULT_JOB
    grouping: Mapping[str, str] = field(default_factory=dict)
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)


def parse_gateway(text: str) -> Gateway:
    """A gateway from its URL.

    Args:
        text: ``http://host:9091``, or with the path of a group, as the gateway has it:
            ``https://user:password@host/prefix/metrics/job/nightly/instance/h100-3``.

    Raises:
        GatewayError: it is no URL of http or https, or has a query; never prints credentials.
    """
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _unusable("the URL of the push gateway", "is no URL") from None
    if "@" in parts.path + parts.query + parts.fragment:  # a part of a password may stand before it
        raise _unusable("the URL of the push gateway", "has an @ beyond its host; write %40, / as %2F and # as %23")
    if ":" in host:
        host = f"[{host}]"
    shown = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
    if parts.scheme not in ("http", "https") or not host:
        raise _unusable(shown, "is no URL of http or https")
    if parts.query or parts.fragment:
        raise _unusable(shown, "a push gateway's URL has no query and no fragment")
    prefix, marker, group = parts.path.rstrip("/").partition("/metrics/job/")
    job, *labels = [unquote(part) for part in group.split("/")] if marker else [DEFAULT_JOB]
    names = labels[::2]
    if not job or len(labels) % 2 or not all(_LABEL.fullmatch(name) for name in names) or len(set(names)) < len(names):
        raise _unusable(shown, "the path of the group is not /metrics/job/JOB/LABEL/VALUE")
    return Gateway(
        shown + prefix,
        job,
        dict(zip(names, labels[1::2], strict=True)),
        unquote(parts.username or ""),
        unquote(parts.password or ""),
    )


def push(document: Mapping[str, Any], gateway: Gateway, *, timeout_s: float = TIMEOUT_S) -> None:
    """Replace the group's metrics by those of a run.

    Args:
        document: a run, as ``--trt-json`` writes it.
        gateway: that takes them.
        timeout_s: after which the gateway is given up.

    Raises:
        GatewayError: it cannot be reached, does not answer in time, or refuses.
        EngineError: prometheus-client is not installed.
    """
    client, exposition = quiet_import("prometheus_client"), quiet_import("prometheus_client.exposition")

    def signed(**request: Any) -> Callable[[], None]:
        send: Callable[[], None] = exposition.basic_auth_handler(
            **request, username=gateway.user, password=gateway.password
        )
        return send

    registry = registry_of(document)
    failure = _within(
        timeout_s,
        lambda: client.push_to_gateway(
            gateway.url,
            job=gateway.job,
            registry=registry,
            grouping_key=dict(gateway.grouping),
            timeout=timeout_s,
            handler=signed if gateway.user or gateway.password else exposition.default_handler,
        ),
    )
    if failure is not None:
        raise GatewayError(
            f"push gateway {gateway.url}",
            f"did not take the metrics: {_reason(failure)}",
            "Check the URL and that the gateway runs; `trtgray metrics RUN.json --push URL` pushes the run later.",
        )


def _within(timeout_s: float, action: Callable[[], Any]) -> BaseException | None:
    """Do something in a thread that is left behind after the time: sockets' timeouts start anew with every byte."""
    outcome: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            action()
        except Exception as error:  # whatever a library raises is said by the thread that waits
            outcome.put(error)
        else:
            outcome.put(None)

    threading.Thread(target=run, name="trtgray-push", daemon=True).start()
    try:
        return outcome.get(timeout=timeout_s)
    except queue.Empty:
        return TimeoutError(f"no answer within {timeout_s:g} s")


def _reason(error: BaseException) -> str:
    """What went wrong in a few words."""
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, URLError):
        error = error.reason if isinstance(error.reason, BaseException) else error
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def _unusable(shown: str, why: str) -> GatewayError:
    return GatewayError(
        shown, why, "Write http://HOST:9091, or http://HOST:9091/metrics/job/JOB/LABEL/VALUE for a group of your own."
    )
