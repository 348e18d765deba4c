from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.files import dump_json, from_here, lock_for, locked, sha256_file, write_atomically

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


class TestWriteAtomically:
    def test_writes_and_replaces(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "b" / "file.bin"
        for content in (b"first", b"", b"second"):
            write_atomically(path, content)

            assert path.read_bytes() == content
        assert list(path.parent.iterdir()) == [path]

    @pytest.mark.parametrize("failing", ["fsync", "fdopen"])
    def test_a_failure_leaves_the_old_file_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
    ) -> None:
        path = tmp_path / "file.bin"
        write_atomically(path, b"old")

        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, failing, fail)
        with pytest.raises(OSError, match="No space"):
            write_atomically(path, b"new")
        monkeypatch.undo()

        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_an_interrupt_leaves_the_old_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "file.bin"
        write_atomically(path, b"old")

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(Path, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_atomically(path, b"new")
        monkeypatch.undo()

        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
    def test_as_readable_as_any_other_file(self, tmp_path: Path, umask: int, mode: int) -> None:
        before = os.umask(umask)
        try:
            write_atomically(tmp_path / "file.bin", b"")
            after = os.umask(umask)
        finally:
            os.umask(before)

        assert stat.S_IMODE((tmp_path / "file.bin").stat().st_mode) == mode
        assert after == umask

    def test_readers_never_see_a_part(self, tmp_path: Path) -> None:
        path = tmp_path / "file.bin"
        contents = [bytes([65 + index]) * 300_000 for index in range(4)]
        write_atomically(path, contents[0])
        done = threading.Event()
        seen = set()

        def read() -> None:
            while not done.is_set():
                seen.add(path.read_bytes())

        reader = threading.Thread(target=read)
        reader.start()
        for content in contents * 10:
            write_atomically(path, content)
        done.set()
        reader.join()

        assert seen
        assert seen <= set(contents)

    def test_a_long_name(self, tmp_path: Path) -> None:
        path = tmp_path / ("x" * 250 + ".json")
        write_atomically(path, b"long")

        assert path.read_bytes() == b"long"

    def test_below_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match=r"file|directory"):
            write_atomically(tmp_path / "file" / "x", b"")


class TestDumpJson:
    @given(JSON)
    def test_round_trip(self, data: Any) -> None:
        assert json.loads(dump_json(data)) == data

    @given(st.dictionaries(st.text(), JSON, max_size=6), st.randoms(use_true_random=False))
    def test_the_order_of_keys_does_not_matter(self, data: dict[str, Any], random: Any) -> None:
        items = list(data.items())
        random.shuffle(items)

        assert dump_json(dict(items)) == dump_json(data)

    @given(JSON)
    def test_one_final_newline(self, data: Any) -> None:
        content = dump_json(data)

        assert content.endswith(b"\n")
        assert not content.endswith(b"\n\n")

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_numbers_that_json_does_not_have(self, value: float) -> None:
        for data in (value, [value], {"a": value}, {"a": [[value]]}, [{"a": value}]):
            with pytest.raises(ValueError, match="JSON"):
                dump_json(data)

    @pytest.mark.parametrize("value", [object(), {1, 2}, b"x", Path("x")])
    def test_what_is_no_builtin(self, value: object) -> None:
        with pytest.raises(TypeError):
            dump_json({"a": value})

    def test_tables_stay_on_one_line_a_row(self) -> None:
        text = dump_json(
            {"layers": [{"name": "a", "kind": "gemm"}, {"name": "b", "kind": "kgen"}], "n": [1, 2]}
        ).decode()

        assert text == (
            "{\n"
            '  "layers": [\n'
            '    {"kind": "gemm", "name": "a"},\n'
            '    {"kind": "kgen", "name": "b"}\n'
            "  ],\n"
            '  "n": [1, 2]\n'
            "}\n"
        )

    def test_utf8(self) -> None:
        assert "größe\u2028".encode() in dump_json({"x": "größe\u2028"})

    def test_text_that_is_no_utf8(self) -> None:
        """Names read from damaged files hold surrogates; a report with one must still be written."""
        assert json.loads(dump_json({"name": "caf\udce9"})) == {"name": "caf\udce9"}


class TestHash:
    @given(st.binary(max_size=3000))
    def test_as_hashlib(self, folder: Path, content: bytes) -> None:
        path = folder / "hash.bin"
        path.write_bytes(content)

        assert sha256_file(path) == hashlib.sha256(content).hexdigest()


class TestLock:
    def test_one_at_a_time(self, tmp_path: Path) -> None:
        path = tmp_path / "locks" / "x.lock"
        inside = []

        def work() -> None:
            for _ in range(20):
                with locked(path):
                    inside.append(1)
                    assert sum(inside) == 1
                    inside.pop()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert inside == []

    def test_released_after_an_error(self, tmp_path: Path) -> None:
        path = tmp_path / "x.lock"
        with pytest.raises(RuntimeError, match="inside"), locked(path):
            raise RuntimeError("inside")
        with locked(path):
            entered = True

        assert entered

    def test_a_lock_lies_outside_of_what_it_guards(self, tmp_path: Path) -> None:
        places = [tmp_path / "a", tmp_path / "b", tmp_path / "no-utf8-\udcff"]
        locks = [lock_for(place) for place in places]

        assert len(set(locks)) == 3
        assert lock_for(str(places[0])) == locks[0]
        assert not any(lock.is_relative_to(tmp_path) for lock in locks)


def test_paths_are_shown_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert from_here(tmp_path / "a" / "b.json") == Path("a/b.json")
    assert from_here(tmp_path.parent / "b.json") == tmp_path.parent / "b.json"
    assert from_here(Path("b.json")) == Path("b.json")
