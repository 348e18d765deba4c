"""Pushing: to a real gateway, to none, to one that never answers; credentials stay unsaid."""

from __future__ import annotations

import contextlib
import http.server
import re
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_trtgray.metrics.gateway import Gateway, GatewayError, parse_gateway, push
from tests import prometheus
from tests.documents import document

SECRET = "pass-me-not"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@contextlib.contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does with each connection what it is told."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as kept:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection = kept.enter_context(listener.accept()[0])
                    answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("text", "url", "job", "grouping"),
    [
        ("http://gw:9091", "http://gw:9091", "trtgray", {}),
        ("gw:9091", "http://gw:9091", "trtgray", {}),
        ("http://[::1]:9091/", "http://[::1]:9091", "trtgray", {}),
        ("https://gw/prefix", "https://gw/prefix", "trtgray", {}),
        ("https://gw/p/metrics/job/nightly", "https://gw/p", "nightly", {}),
        ("http://gw/metrics/job/a%20b/instance/h100-3/team/x", "http://gw", "a b", {"instance": "h100-3", "team": "x"}),
    ],
)
def test_a_url_may_name_a_group_as_the_gateway_does(text: str, url: str, job: str, grouping: dict[str, str]) -> None:
    assert parse_gateway(text) == Gateway(url, job, grouping)


def test_credentials_are_taken_out_of_the_url_and_out_of_repr() -> None:
    gateway = parse_gateway(f"https://ci%40x:{SECRET}%2F@gw:9091/metrics/job/n")
    assert (gateway.user, gateway.password, gateway.url) == ("ci@x", f"{SECRET}/", "https://gw:9091")
    assert SECRET not in repr(gateway)


@pytest.mark.parametrize(
    "text",
    [
        f"ftp://u:{SECRET}@gw",
        f"http://u:{SECRET}@gw:port",
        f"http://u:{SECRET}@",
        f"http://u:{SECRET}/more@gw",
        f"http://u:12/{SECRET}@gw",
        f"http://u:12#{SECRET}@gw",
        f"http://u:12?{SECRET}@gw",
        f"http://u:{SECRET}@gw?token={SECRET}",
        f"http://u:{SECRET}@gw/metrics/job/a/instance",
        f"http://u:{SECRET}@gw/metrics/job/a/not-a-label/b",
        f"http://u:{SECRET}@gw/metrics/job/a/b/1/b/2",
        f"http://u:{SECRET}@gw/metrics/job//instance/b",
        f"http://u:{SECRET}@[::1/metrics",
    ],
)
def test_an_unusable_url_is_refused_without_its_credentials(text: str) -> None:
    with pytest.raises(GatewayError) as raised:
        parse_gateway(text)
    assert SECRET not in "".join(traceback.format_exception(raised.value)).replace(text, "")
    assert SECRET not in raised.value.message
    assert "http://HOST:9091" in raised.value.message


def test_a_real_gateway_holds_what_was_pushed_and_a_second_push_replaces_it(tmp_path: Path) -> None:
    with prometheus.gateway(tmp_path) as url:
        push(document(slower=3), parse_gateway(f"{url}/metrics/job/nightly/instance/h100-3"))
        first = prometheus.get(f"{url}/metrics").decode()
        push(document(engine="vit"), parse_gateway(f"{url}/metrics/job/nightly/instance/h100-3"))
        push(document(), parse_gateway(url))
        second = prometheus.get(f"{url}/metrics").decode()
    slower = r'trtgray_run_checks\{.*instance="h100-3",job="nightly",outcome="slower",.*\} '
    assert re.search(f"{slower}1", first)
    assert re.search(f"{slower}0", second)
    assert not re.search(f"{slower}1", second)
    lines = [line for line in second.splitlines() if line.startswith("trtgray_run_check_failed")]
    assert len([line for line in lines if 'engine="vit"' in line and 'job="nightly"' in line]) == len(
        document()["checks"]
    )
    assert len([line for line in lines if 'engine="bert"' in line]) == len([x for x in lines if 'job="trtgray"' in x])


def test_a_gateway_behind_basic_authentication_gets_user_and_password(tmp_path: Path) -> None:
    config = tmp_path / "web.json"  # bcrypt of "secret" with the lowest cost
    config.write_text('{"basic_auth_users": {"ci": "$2b$04$8lT2cLmuL1EWwWpyB8dTh.weNUcjkeEdLCXjL9n/0JItqbV3s8Yp6"}}')
    with prometheus.gateway(tmp_path, f"--web.config.file={config}") as url:
        with pytest.raises(GatewayError, match="HTTP 401"):
            push(document(), parse_gateway(url))
        with pytest.raises(GatewayError, match="HTTP 401") as raised:
            push(document(), parse_gateway(url.replace("//", f"//ci:{SECRET}@")))
        assert SECRET not in "".join(traceback.format_exception(raised.value))
        push(document(), parse_gateway(url.replace("//", "//ci:secret@")))


def test_a_gateway_that_is_down_is_one_message() -> None:
    gateway = parse_gateway(f"http://ci:{SECRET}@127.0.0.1:{prometheus.free_port()}")
    with pytest.raises(GatewayError, match="did not take the metrics: connection refused") as raised:
        push(document(), gateway)
    assert SECRET not in "".join(traceback.format_exception(raised.value))
    assert gateway.url in raised.value.message


def test_a_gateway_that_never_answers_is_given_up() -> None:
    with listening(lambda connection: None) as address, pytest.raises(GatewayError, match=r"within 0\.5 s|timed out"):
        push(document(), parse_gateway(address), timeout_s=0.5)


def test_a_gateway_that_answers_a_byte_at_a_time_is_given_up_too() -> None:
    """Each byte starts a socket's timeout anew: only the whole push can be bounded."""
    stop = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not stop.wait(0.1):
            connection.sendall(b"x")

    with listening(drip) as address:
        with pytest.raises(GatewayError, match=r"no answer within 0\.5 s"):
            push(document(), parse_gateway(address), timeout_s=0.5)
        stop.set()


def test_what_is_no_gateway_says_so(tmp_path: Path) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(GatewayError, match="HTTP 501"):
            push(document(), parse_gateway(f"127.0.0.1:{server.server_port}"))
    finally:
        server.shutdown()
        server.server_close()
