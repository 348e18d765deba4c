from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.baselines.store import SCHEMA, BaselineFile, BaselineStore, encode, file_stem, read_file
from pytest_trtgray.errors import BaselineError
from pytest_trtgray.files import dump_json

H200 = {"device": "NVIDIA H200", "sm": "sm_90", "runtime": "tensorrt_rtx", "version": "1.7.1", "precision": "float16"}
L4 = {**H200, "device": "NVIDIA L4", "sm": "sm_89"}
TEST = "tests/test_net.py::test_layers[resnet50]"

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)
ENTRIES = st.dictionaries(st.text(), st.dictionaries(st.text(), JSON, max_size=4), max_size=3)


def put(store: BaselineStore, key: str = "structure", value: Mapping[str, Any] | None = None, **more: Any) -> Path:
    identity, test = more.get("identity", H200), more.get("test", TEST)
    return store.update(identity, test, "net", lambda file: file.with_entry(key, value or {"layers": []}))


def refusal(path: Path, content: bytes) -> BaselineError:
    """A file that cannot be used: refused by reading and by updating, and left as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(BaselineError) as caught:
        read_file(path)
    assert path.read_bytes() == content
    assert caught.value.thing == str(path)
    assert caught.value.remedy
    return caught.value


def add_entries(root: Path, start: Any, worker: int, count: int) -> None:
    """In a process of its own: add entries, and runs to a shared entry."""
    store = BaselineStore(root)
    start.wait()
    for index in range(count):
        put(store, f"timing {worker}.{index}")
        store.update(
            H200,
            TEST,
            "net",
            lambda file: file.with_entry("shared", {"runs": [*file.entries.get("shared", {}).get("runs", []), worker]}),
        )


class TestUpdate:
    def test_what_was_written_is_read(self, tmp_path: Path) -> None:
        store = BaselineStore(tmp_path)
        path = put(store, value={"layers": [1]})
        file = store.load(H200, TEST)

        assert path == store.path(H200, TEST)
        assert path.relative_to(tmp_path) == Path(
            "nvidia-h200_sm90_tensorrt-rtx-1.7.1_float16/tests.test_net.test_layers-resnet50.json"
        )
        assert file == BaselineFile(TEST, "net", H200, {"structure": {"layers": [1]}})

    def test_none_where_there_is_none(self, tmp_path: Path) -> None:
        store = BaselineStore(tmp_path / "not yet")

        assert store.load(H200, TEST) is None
        assert list(store.files()) == []
        assert not (tmp_path / "not yet").exists()

    def test_other_entries_stay(self, tmp_path: Path) -> None:
        store = BaselineStore(tmp_path)
        for key in ("structure", "timing x:1", "timing x:8"):
            put(store, key)
        put(store, "structure", {"layers": [2]})
        file = store.load(H200, TEST)

        assert file is not None
        assert sorted(file.entries) == ["structure", "timing x:1", "timing x:8"]
        assert file.entries["structure"] == {"layers": [2]}

    def test_other_hardware_is_another_file(self, tmp_path: Path) -> None:
        store = BaselineStore(tmp_path)
        put(store)

        assert store.load(L4, TEST) is None
        assert store.others(TEST, L4) == ["nvidia-h200_sm90_tensorrt-rtx-1.7.1_float16"]
        assert store.others(TEST, H200) == []
        assert store.others("tests/other.py::test", L4) == []

    def test_a_failing_change_leaves_the_old_file(self, tmp_path: Path) -> None:
        store = BaselineStore(tmp_path)
        before = put(store).read_bytes()

        def fail(file: BaselineFile) -> BaselineFile:
            raise RuntimeError("half way")

        with pytest.raises(RuntimeError, match="half way"):
            store.update(H200, TEST, "net", fail)
        assert [path.read_bytes() for path in store.files()] == [before]

    def test_what_cannot_be_stored_leaves_the_old_file(self, tmp_path: Path) -> None:
        store = BaselineStore(tmp_path)
        path = put(store)
        before = path.read_bytes()
        for value in ({"us": float("nan")}, {"us": float("inf")}, {"us": object()}):
            with pytest.raises((ValueError, TypeError)):
                put(store, value=value)

        assert path.read_bytes() == before
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]

    def test_a_full_disk_leaves_the_old_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = BaselineStore(tmp_path)
        path = put(store)
        before = path.read_bytes()

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(BaselineError, match="cannot be written: No space left on device") as caught:
            put(store, value={"layers": [2]})
        assert "--trt-baseline-dir" in caught.value.remedy
        assert path.read_bytes() == before
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]

    def test_a_folder_that_cannot_be_used(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(BaselineError, match="cannot be written"):
            put(BaselineStore(tmp_path / "file"))

    def test_locks_are_not_left_in_the_folder(self, tmp_path: Path) -> None:
        path = put(BaselineStore(tmp_path))

        assert sorted(tmp_path.rglob("*")) == sorted([path.parent, path])

    def test_processes_lose_nothing(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        workers, count = 3, 10
        start = context.Barrier(workers)
        processes = [
            context.Process(target=add_entries, args=(tmp_path, start, number, count)) for number in range(workers)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=60)
        file = BaselineStore(tmp_path).load(H200, TEST)

        assert [process.exitcode for process in processes] == [0] * workers
        assert file is not None
        assert {f"timing {w}.{i}" for w in range(workers) for i in range(count)} <= set(file.entries)
        assert sorted(file.entries["shared"]["runs"]) == sorted(list(range(workers)) * count)


class TestEncoding:
    @given(ENTRIES, st.text(), st.text())
    def test_round_trip(self, folder: Path, entries: dict[str, Any], test: str, engine: str) -> None:
        path = folder / "round_trip.json"
        file = BaselineFile(test, engine, H200, entries)
        path.write_bytes(encode(file))

        assert read_file(path) == file

    def test_the_same_content_gives_the_same_bytes(self) -> None:
        first = BaselineFile(TEST, "net", {"device": "a", "sm": "b"}, {"x": {"p": 1, "q": 2}, "y": {}})
        second = BaselineFile(TEST, "net", {"sm": "b", "device": "a"}, {"y": {}, "x": {"q": 2, "p": 1}})

        assert encode(first) == encode(second)

    def test_it_is_reviewable_text(self) -> None:
        text = encode(BaselineFile("prüfung.py::test", "net", H200, {"t": {"log_us": [1.5, 2.25, 3.0]}})).decode()

        assert '"log_us": [1.5, 2.25, 3.0]' in text
        assert "prüfung.py" in text
        assert text.endswith("}\n")
        assert json.loads(text)["schema"] == SCHEMA


class TestDamage:
    def test_a_merge_conflict(self, tmp_path: Path) -> None:
        text = put(BaselineStore(tmp_path)).read_text()
        conflict = text.replace('  "entries"', '<<<<<<< HEAD\n  "entries"', 1).replace(
            '  "format"', '=======\n>>>>>>> other-branch\n  "format"', 1
        )
        error = refusal(tmp_path / "x.json", conflict.encode())

        assert "unresolved merge conflicts" in error.reason
        assert "git checkout --ours or --theirs" in error.remedy

    def test_a_newer_schema(self, tmp_path: Path) -> None:
        data = json.loads(put(BaselineStore(tmp_path)).read_text())
        error = refusal(tmp_path / "x.json", json.dumps({**data, "schema": SCHEMA + 1}).encode())

        assert f"has schema {SCHEMA + 1}" in error.reason
        assert "pip install -U" in error.remedy

    def test_a_number_changed_by_hand(self, tmp_path: Path) -> None:
        text = put(BaselineStore(tmp_path), value={"limit_us": 10.5}).read_text()
        error = refusal(tmp_path / "x.json", text.replace("10.5", "99.5").encode())

        assert "changed by hand" in error.reason
        assert "trt_timing" in error.remedy

    def test_a_checksum_that_is_gone(self, tmp_path: Path) -> None:
        data = json.loads(put(BaselineStore(tmp_path)).read_text())
        del data["sha256"]

        assert "changed by hand" in refusal(tmp_path / "x.json", json.dumps(data).encode()).reason

    def test_another_layout_of_the_same_content_is_fine(self, tmp_path: Path) -> None:
        """Formatters run over checked-in JSON; windows line ends come from git."""
        path = put(BaselineStore(tmp_path), value={"limit_us": 10.5})
        expected = read_file(path)
        for content in (json.dumps(json.loads(path.read_text())), path.read_text().replace("\n", "\r\n")):
            path.write_bytes(content.encode())

            assert read_file(path) == expected

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "not valid JSON"),
            (b"{", "not valid JSON"),
            (b"hello", "not valid JSON"),
            (b"\xff\xfe", "not text"),
            (b"[]", "not a baseline"),
            (b"null", "not a baseline"),
            (b"{}", "not a baseline"),
            (b'{"format": "pytest-benchmark"}', "not a baseline"),
            (b'{"format": "trtgray-baseline", "schema": 1}', "damaged"),
            (b'{"format": "trtgray-baseline"}', "damaged"),
            (b'{"format": "trtgray-baseline", "test": "a", "engine": "", "identity": [], "entries": {}}', ""),
            (b'{"format": "trtgray-baseline", "test": "a", "engine": "", "identity": {}, "entries": 5}', ""),
            (b'{"format": "trtgray-baseline", "schema": "x"}', ""),
            (b'{"format": "trtgray-baseline", "schema": 1, "x": NaN}', ""),
        ],
    )
    def test_other_content(self, tmp_path: Path, content: bytes, words: str) -> None:
        assert words in refusal(tmp_path / "x.json", content).reason

    @given(st.binary(max_size=200))
    def test_any_bytes(self, folder: Path, content: bytes) -> None:
        assert refusal(folder / "any.json", content).reason

    @pytest.mark.parametrize("content", [b"<<<<<<< HEAD\n", b"{", b'{"format": "trtgray-baseline", "schema": 99}'])
    def test_an_update_does_not_touch_it(self, tmp_path: Path, content: bytes) -> None:
        store = BaselineStore(tmp_path)
        path = put(store)
        path.write_bytes(content)
        with pytest.raises(BaselineError):
            put(store)

        assert path.read_bytes() == content
        assert list(store.files()) == [path]


class TestCollisions:
    FIRST, SECOND = "tests/a.b.py::test", "tests/a/b.py::test"

    def test_two_tests_of_one_name(self, tmp_path: Path) -> None:
        store = BaselineStore(tmp_path)
        for test in (self.FIRST, self.SECOND):
            put(store, value={"layers": [test]}, test=test)

        assert file_stem(self.FIRST) == file_stem(self.SECOND)
        assert len(list(store.files())) == 2
        for test in (self.FIRST, self.SECOND):
            file = store.load(H200, test)
            assert file is not None
            assert (file.test, file.entries["structure"]) == (test, {"layers": [test]})

    def test_updating_both_again_keeps_them_apart(self, tmp_path: Path) -> None:
        store = BaselineStore(tmp_path)
        paths = [put(store, test=test) for test in (self.FIRST, self.SECOND) * 3]

        assert len(set(paths)) == 2

    def test_the_second_survives_the_first(self, tmp_path: Path) -> None:
        store = BaselineStore(tmp_path)
        first, second = (put(store, test=test) for test in (self.FIRST, self.SECOND))
        store.delete(first)
        found = store.load(H200, self.SECOND)

        assert second.exists()
        assert found is not None
        assert found.test == self.SECOND

    def test_a_baseline_of_other_hardware_is_the_tests_own(self, tmp_path: Path) -> None:
        """The hint about other hardware must look for the test, not for its file's name."""
        store = BaselineStore(tmp_path)
        put(store, test=self.FIRST)

        assert store.others(self.SECOND, L4) == []
        assert len(store.others(self.FIRST, L4)) == 1


class TestFileStem:
    @pytest.mark.parametrize(
        ("test", "stem"),
        [
            ("tests/test_net.py::TestFast::test_layers[resnet50]", "tests.test_net.TestFast.test_layers-resnet50"),
            ("test_net.py::test", "test_net.test"),
            ("--trt-engine::net::layers", "trt-engine.net.layers"),
            ("a.py::test[x=1, y/z]", "a.test-x-1-y.z"),
            ("..::..", "test"),
            ("", "test"),
        ],
    )
    def test_examples(self, test: str, stem: str) -> None:
        assert file_stem(test) == stem

    @given(st.text(max_size=400))
    def test_always_a_safe_file_name(self, test: str) -> None:
        stem = file_stem(test)

        assert re.fullmatch(r"[A-Za-z0-9._-]{1,159}", stem)
        assert not stem.startswith((".", "-"))
        assert ".." not in stem.strip(".") or "/" not in stem

    @given(st.text(min_size=200, max_size=300), st.text(min_size=1, max_size=5))
    def test_long_names_stay_apart(self, test: str, more: str) -> None:
        """What is cut off is hashed."""
        stems = {file_stem("a" * 200 + test), file_stem("a" * 200 + test + more)}

        assert len(stems) == 2

    def test_the_hash_is_of_the_whole_id(self) -> None:
        test = "tests/test_net.py::test[" + "x" * 300 + "]"

        assert file_stem(test).endswith(hashlib.sha256(test.encode()).hexdigest()[:8])

    def test_windows_names(self) -> None:
        """Parameters may hold what no file system takes."""
        assert file_stem('t.py::test[a:b*c?"d"<e>|f\\g]') == "t.test-a-b-c-d-e-f-g"


class TestFolder:
    def test_all_files_in_order(self, tmp_path: Path) -> None:
        store = BaselineStore(tmp_path)
        paths = [put(store, identity=who, test=test) for who in (L4, H200) for test in ("b.py::t", "a.py::t")]

        assert list(store.files()) == sorted(paths)

    def test_other_files_are_left_out(self, tmp_path: Path) -> None:
        store = BaselineStore(tmp_path)
        path = put(store)
        (tmp_path / "README.md").write_text("")
        (path.parent / "notes.txt").write_text("")

        assert list(store.files()) == [path]

    def test_deleting_the_last_removes_the_folder(self, tmp_path: Path) -> None:
        store = BaselineStore(tmp_path)
        first, second = (put(store, test=test) for test in ("a.py::t", "b.py::t"))
        store.delete(first)
        assert second.parent.is_dir()
        store.delete(second)

        assert list(tmp_path.iterdir()) == []

    def test_deleting_what_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(BaselineError, match="cannot be removed: No such file"):
            BaselineStore(tmp_path).delete(tmp_path / "none.json")

    def test_a_folder_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")

        assert list(BaselineStore(tmp_path / "file").files()) == []

    def test_bytes_are_those_of_dump_json(self, tmp_path: Path) -> None:
        path = put(BaselineStore(tmp_path))

        assert path.read_bytes() == dump_json(json.loads(path.read_text()))
