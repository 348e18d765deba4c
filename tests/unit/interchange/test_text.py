"""Whatever a tool, a shell or an editor made of a file's bytes."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.errors import InterchangeError
from pytest_trtgray.interchange import text as module
from pytest_trtgray.interchange.recognition import CALLED, kind_of
from pytest_trtgray.interchange.text import parse_json, read_text

TEXT = '[{"name": "größe", "averageMs": 1}]'
HERE = Path("x.json")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("packed", [False, True])
def test_encodings(tmp_path: Path, encoding: str, packed: bool) -> None:
    data = TEXT.encode(encoding)
    path = tmp_path / "x.json"
    path.write_bytes(gzip.compress(data) if packed else data)
    assert read_text(path).lstrip("\ufeff") == TEXT


def test_bytes_that_are_no_utf8_survive(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(TEXT.encode("latin-1"))
    assert read_text(path).encode("utf-8", "surrogateescape") == TEXT.encode("latin-1")


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(TEXT.encode()))))
    assert read_text(Path("-")) == TEXT


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (gzip.compress(TEXT.encode(), mtime=0)[:-9], "damaged or cut off gzip"),
        (b"\x1f\x8bnot gzip", "cannot|Unknown|damaged|gzip"),
        (b"\xff\xfe[\x00\x00\xd8", "looks like utf-16 and is not"),
        (b"ftrt" + bytes(60), "is no text"),
    ],
)
def test_refusals(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(InterchangeError, match=reason):
        read_text(path)
    with pytest.raises(InterchangeError, match="No such file"):
        read_text(tmp_path / "gone.json")


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    path = tmp_path / "x.json"
    path.write_bytes(gzip.compress(b" " * 100_000))
    with pytest.raises(InterchangeError, match="is larger than 1,000 bytes"):
        read_text(path)


@pytest.mark.parametrize("number", ["nan", "-nan", "NaN", "inf", "-inf", "Infinity", "-nan(ind)", "1.#INF", "-1.#IND"])
def test_numbers_that_json_does_not_have(number: str) -> None:
    assert parse_json(HERE, f'[{{"a" : {number}, "b": "x: nan, y"}}, {number}]') == [
        {"a": None, "b": "x: nan, y"},
        None,
    ]


@given(st.text(max_size=40) | st.binary(max_size=40).map(lambda data: data.decode("utf-8", "surrogateescape")))
def test_any_text_is_something_or_refused(text: str) -> None:
    with contextlib.suppress(InterchangeError):
        assert kind_of(HERE, text) in CALLED


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('[\n  { "count" : 2 }\n, { "name" : "Layers"', "profile"),
        ('[{"averageMs": 1}]', "profile"),
        ('[{ "startEnqMs" : 1', "times"),
        ('[{"name": "y", "dimensions": "1x3", "values": [1]}]', "outputs"),
        ('{"Layers": ["a", "b"]}', "layers"),
        ('{"Bindings": ["x"], "Layers": []}', "layers"),
        ('{"format": "trtgray-layers", "layers": []}', "layers"),
        ("[V] [TRT] Engine Layer Information:\nLayer(Caskn): conv1, Tactic: 1, x -> y", "layers"),
        ('[{"cat" : "Session","pid" :1,"ph" : "X"}]', "onnxruntime"),
        ('{"lst": [], "polygraphy_class": "RunResults"}', "polygraphy"),
        ('{"checks": [], "format": "trtgray-run"}', "document"),
    ],
)
def test_kinds(text: str, kind: str) -> None:
    assert kind_of(HERE, text) == kind


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "holds an empty list"),
        ("[\n]\n", "holds an empty list"),
        ("{}", "is nothing that is known"),
        (json.dumps({"a": 1}), "is nothing that is known"),
        ("&&&& PASSED TensorRT.trtexec", "is nothing that is known"),
    ],
)
def test_what_cannot_be_imported(text: str, reason: str) -> None:
    with pytest.raises(InterchangeError, match=reason):
        kind_of(HERE, text)
