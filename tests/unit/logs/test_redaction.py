from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.findings import Finding
from pytest_trtgray.logs import redaction
from pytest_trtgray.logs.diagnosis import diagnose, findings_of
from pytest_trtgray.logs.events import events_of
from pytest_trtgray.logs.reader import read_records
from pytest_trtgray.logs.records import Record
from pytest_trtgray.logs.redaction import Redactor, current, redactor_of_this_machine, using
from tests.unit.logs.test_diagnosed_logs import Case, cases

ALICE = Redactor(user="alice", home="/data/people/alice", hosts=("gpu-03.corp.example", "gpu-03", "builder"))
TOKENS = (
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "11ABCDEFG0" * 3,
    "glpat-" + "x9" * 10,
    "hf_" + "AbCd" * 9,
    "nvapi-" + "Zz9-" * 8,
    "xoxb-1234567890-abcdef",
    "sk-proj-" + "abc123" * 5,
    "pypi-" + "AgEI" * 8,
    "AIza" + "b" * 35,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
)


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("/home/bob/models/x.onnx", "/home/user/models/x.onnx"),
        ("Input filename:   /data/people/alice/x.onnx", "Input filename:   /home/user/x.onnx"),
        ("/Users/bob/x and C:\\Users\\Bob Miller\\x", "/Users/user/x and C:\\Users\\user\\x"),
        ("C:\\\\Users\\\\bob\\\\x", "C:\\\\Users\\\\user\\\\x"),
        ("/tmp/pytest-of-bob/pytest-3/x", "/tmp/pytest-of-user/pytest-3/x"),
        ("/mnt/scratch/alice/x /var/alice-build/x", "/mnt/scratch/user/x /var/user-build/x"),
        ("user alice, owner: 'alice', alice@gpu", "user user, owner: 'user', user@gpu"),
        ("ask bob.miller+ci@corp.example.com.", "ask user@example.com."),
        ("on gpu-03 and gpu-03.corp.example:8001", "on host and host:8001"),
        ("host=builder, the builder is done", "host=host, the builder is done"),
        ("http://artifacts/x https://store.corp/x", "http://host/x https://host/x"),
        ("ip-10-0-12-7.ec2.internal said", "host said"),
        ("https://bob:secret@git.example.com/x", "https://user:REDACTED@git.example.com/x"),
        ("connect to 10.0.0.5", "connect to 192.0.2.1"),
        ("10.1.2.3:8001 and 172.16.0.0/16 and 192.168.1.7", "192.0.2.1:8001 and 192.0.2.1/16 and 192.0.2.1"),
        ("--trt 192.168.7.7, version 192.168.7.7", "--trt 192.0.2.1, version 192.0.2.1"),
        ("from 2001:db8:85a3::8a2e:370:7334", "from 2001:db8::1"),
        ("fe80::1 and 2001:0db8:0:0:0:ff00:42:8329", "2001:db8::1 and 2001:db8::1"),
        ("00:1A:2b:3c:4d:5e", "00:00:00:00:00:00"),
        ("password=hunter2 pwd: 'hunter2'", "password=REDACTED pwd: 'REDACTED'"),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG", "AWS_SECRET_ACCESS_KEY=REDACTED"),
        ('"api_key": "abc123xyz", "x": 1', '"api_key": "REDACTED", "x": 1'),
        ("HF_TOKEN=abcdefgh12345678", "HF_TOKEN=REDACTED"),
        ("Authorization: Bearer abcdefghijkl1234", "Authorization: Bearer REDACTED"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----",
         "-----BEGIN RSA PRIVATE KEY-----REDACTED-----END RSA PRIVATE KEY-----"),
    ],
)  # fmt: skip
def test_what_is_private(text: str, redacted: str) -> None:
    assert ALICE(text) == redacted
    assert ALICE(redacted) == redacted


@pytest.mark.parametrize("token", TOKENS)
def test_tokens(token: str) -> None:
    assert ALICE(f"used {token}, failed") == "used REDACTED, failed"


@pytest.mark.parametrize(
    "text",
    [
        "expecting library version 9.2.0.5 got 9.3.0.1, please rebuild",
        "TensorRT 10.13.3.9, cuBLAS 12.4.5.8, cuDNN 8.9.7.29",
        "driver 32.0.15.6094, driver 31.0.15.99, listening on 127.0.0.1:8000 and 0.0.0.0",
        "[ltWrapper.cpp::setupHeuristic::349] Error Code 2: Internal Error (Assertion cublasStatus failed.)",
        "ace::fade and std::bad_alloc and 10:00:00.123456",
        "dims 1:2:3:4:5:6:7:8",
        "cls_token: float32[1,1,768], token_type_ids: (1,128), key: 12345678",
        "Reading Calibration Cache for calibrator: EntropyCalibration2 (alice_net)",
        "/alice/encoder/MatMul + /alice/encoder/Add",
        "https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html",
        "The builder of alice's network: min=(1, 8), max=(32, 8)",
        "basic optimizations, secret sauce",
        "/root/x, root@x",
    ],
)
def test_what_only_looks_like_it(text: str) -> None:
    assert ALICE(text) == text


def test_common_names_are_no_persons() -> None:
    redactor = Redactor(user="root", home="/root", hosts=("localhost",))

    assert redactor("user root in /root/x on localhost: host=localhost") == (
        "user root in /root/x on localhost: host=localhost"
    )


class TestPatterns:
    def test_the_whole_match(self) -> None:
        assert Redactor(patterns=(r"PROJ-\d+",))("see PROJ-12 and PROJ-7.") == "see REDACTED and REDACTED."

    def test_groups_only(self) -> None:
        redactor = Redactor(patterns=(r"customer=(\w+)(?:, plan=(\w+))?",))

        assert redactor("customer=acme, plan=gold; customer=other") == (
            "customer=REDACTED, plan=REDACTED; customer=REDACTED"
        )

    def test_they_come_first(self) -> None:
        assert Redactor(patterns=("/home/bob/secret",))("/home/bob/secret/x") == "REDACTED/x"


class TestParts:
    def test_a_record(self) -> None:
        record = Record("error", "x", "in /home/bob/x", prefix="[gpu-03] ", details={"file": "/home/bob/x", "node": 1})
        redacted = ALICE.record(record)

        assert (redacted.message, redacted.prefix) == ("in /home/user/x", "[host] ")
        assert redacted.details == {"file": "/home/user/x", "node": 1}
        assert redacted.severity == "error"

    def test_a_finding(self) -> None:
        finding = Finding("error", "/home/bob/x", "in /home/bob/x", "r", {"path": "/home/bob", "n": 3}, "ask bob@x.com")
        redacted = ALICE.finding(finding)

        assert "bob" not in json.dumps(redacted.to_dict())
        assert redacted.evidence["n"] == 3

    def test_data(self) -> None:
        data = {"/home/bob": ["/home/bob", ("/home/bob", 1, None)], "x": {"y": "/home/bob/z"}}

        assert ALICE.data(data) == {"/home/bob": ["/home/user", ("/home/user", 1, None)], "x": {"y": "/home/user/z"}}


class TestSwitch:
    def test_off(self) -> None:
        redactor = Redactor(user="alice", patterns=("x",), enabled=False)

        assert redactor("/home/alice/x password=geheim") == "/home/alice/x password=geheim"

    def test_of_a_run(self) -> None:
        outer = current()
        with using(ALICE):
            assert current() is ALICE
            with using(Redactor(enabled=False)) as _:
                assert not current().enabled
            assert current() is ALICE
        assert current() == outer

    def test_this_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        redaction._names_of_this_machine.cache_clear()
        monkeypatch.setenv("LOGNAME", "carol")
        monkeypatch.setenv("HOME", "/srv/people/carol")
        monkeypatch.setattr("socket.gethostname", lambda: "node-17.lab")
        try:
            redactor = redactor_of_this_machine(("odd",))
        finally:
            redaction._names_of_this_machine.cache_clear()

        assert redactor == Redactor(
            user="carol", home="/srv/people/carol", hosts=("node-17.lab", "node-17"), patterns=("odd",)
        )
        assert redactor("/srv/people/carol/x on node-17, odd") == "/home/user/x on host, REDACTED"

    def test_a_machine_that_knows_nothing_of_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown(*_: object) -> str:
            raise OSError("none")

        redaction._names_of_this_machine.cache_clear()
        for name in ("getpass.getuser", "socket.gethostname"):
            monkeypatch.setattr(name, unknown)
        monkeypatch.setattr("os.path.expanduser", unknown)
        try:
            assert redactor_of_this_machine() == Redactor()
        finally:
            redaction._names_of_this_machine.cache_clear()


# -- a redacted log says the same

SECRETS = st.sampled_from(
    [
        *TOKENS,
        "/home/alice/models/net.onnx",
        "/data/people/alice/net.onnx",
        "alice@corp.example",
        "host gpu-03",
        "connection from 10.20.30.40:5123",
        "192.168.7.7",
        "2001:db8:85a3::8a2e:370:7334",
        "password=hunter22",
        "token=abcdefgh12345678",
    ]
)
PRIVATE = re.compile(
    r"alice|gpu-03|10\.20\.30|192\.168|85a3|hunter22|abcdefgh12345678|" + "|".join(map(re.escape, TOKENS))
)


def saved(records: Iterable[Record], path: Path) -> Path:
    """Messages as a log file again, each with its prefix."""
    text = "".join(f"{record.prefix}{record.message}\n" for record in records)
    path.write_text(text, "utf-8", errors="surrogateescape")
    return path


def read(text: str) -> list[Record]:
    return list(read_records(io.BytesIO(text.encode("utf-8", "surrogateescape"))))


def meaning(path: Path) -> tuple[str, list[str], list[object]]:
    """What a reader finds: the diagnosis, the findings, and the kinds of events."""
    records = list(read_records(path))
    events: list[object] = [(event.kind, event.severity) for event in events_of(records)]
    return diagnose(records).code, [finding.rule for finding in findings_of(records)], events


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_a_log_without_anything_private_stays_as_it_is(case: Case) -> None:
    records = read(case.log)

    assert [ALICE.record(record) for record in records] == records


@given(st.data())
def test_a_redacted_log_says_the_same(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Secrets at the ends of messages: none is left, and a reader finds what it found before."""
    folder = tmp_path_factory.mktemp("log")
    records = read(data.draw(st.sampled_from([case for case in cases() if len(case.log) < 3_000])).log)
    places = data.draw(st.lists(st.tuples(st.sampled_from(range(len(records))), SECRETS), min_size=1, max_size=5))
    for index, secret in places:
        records[index] = replace(records[index], message=f"{records[index].message} {secret}")
    planted = saved(records, folder / "planted.log")
    redacted = saved(map(ALICE.record, records), folder / "redacted.log")

    assert PRIVATE.search(planted.read_text("utf-8", errors="surrogateescape"))
    assert not PRIVATE.search(redacted.read_text("utf-8", errors="surrogateescape"))
    assert meaning(redacted) == meaning(planted)
