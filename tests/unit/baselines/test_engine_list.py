from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_trtgray.baselines.engine_list import FILE_NAME, EngineList
from pytest_trtgray.errors import BaselineError, EngineError
from pytest_trtgray.files import sha256_file

ENGINE = b"ftrt" + bytes(100)
OTHER = b"ftrt" + bytes(99) + b"\x01"

coreutils = pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum on this machine")


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def entries(listing: EngineList) -> list[str]:
    return [line for line in listing.file.read_text("utf-8").split("\n") if line and not line.startswith("#")]


def refusal(listing: EngineList, path: Path) -> EngineError:
    assert not listing.is_listed(path)
    with pytest.raises(EngineError) as caught:
        listing.require(path)
    assert caught.value.thing == str(path)
    assert "--update-baselines" in caught.value.remedy
    assert "--trt-allow-unlisted" in caught.value.remedy
    return caught.value


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    """What coreutils say of the list."""
    return subprocess.run(
        ["sha256sum", "--strict", "-c", FILE_NAME],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )


def add_engines(folder: Path, engines: Path, start: Any, worker: int, count: int) -> None:
    """In a process of its own: list engines."""
    listing = EngineList(folder)
    start.wait()
    for index in range(count):
        path = engines / f"{worker}.{index}.engine"
        path.write_bytes(path.name.encode())
        listing.add(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "baselines"


@pytest.fixture
def listing(folder: Path) -> EngineList:
    return EngineList(folder)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "net.engine"
    path.write_bytes(ENGINE)
    return path


class TestRequire:
    def test_nothing_is_listed_without_a_list(self, listing: EngineList, engine: Path) -> None:
        assert "is not listed in" in refusal(listing, engine).reason
        assert not listing.folder.exists()

    def test_what_was_added_is_listed(self, listing: EngineList, engine: Path) -> None:
        listing.add(engine)

        assert listing.is_listed(engine)
        listing.require(engine)

    def test_another_engine_is_not(self, listing: EngineList, engine: Path, tmp_path: Path) -> None:
        listing.add(engine)
        other = tmp_path / "other.engine"
        other.write_bytes(OTHER)

        assert "is not listed in" in refusal(listing, other).reason

    def test_a_moved_engine_is(self, listing: EngineList, engine: Path, tmp_path: Path) -> None:
        listing.add(engine)
        (tmp_path / "elsewhere").mkdir()
        moved = engine.rename(tmp_path / "elsewhere" / "renamed.plan")

        listing.require(moved)

    def test_a_changed_engine(self, listing: EngineList, engine: Path) -> None:
        listing.add(engine)
        engine.write_bytes(OTHER + b"longer")

        error = refusal(listing, engine)
        assert error.reason == (
            f"has changed since it was listed in {listing.file} "
            f"(sha256 {sha(OTHER + b'longer')[:12]}… now, {sha(ENGINE)[:12]}… then)"
        )

    def test_a_changed_engine_that_was_moved(self, listing: EngineList, tmp_path: Path) -> None:
        """Listed by another checkout, under the plain name."""
        listing.folder.mkdir()
        listing.file.write_text(f"{sha(ENGINE)}  net.engine\n")
        path = tmp_path / "store" / "net.engine"
        path.parent.mkdir()
        path.write_bytes(OTHER)

        assert "has changed" in refusal(listing, path).reason

    def test_swapped_for_one_of_the_same_size(self, listing: EngineList, engine: Path) -> None:
        listing.add(engine)
        before = engine.stat().st_mtime_ns
        engine.write_bytes(OTHER)
        os.utime(engine, ns=(before + 1, before + 1))

        assert "has changed" in refusal(listing, engine).reason

    def test_a_namesake(self, listing: EngineList, engine: Path) -> None:
        """Another engine of that name lies beside the list: this one was never listed."""
        listing.folder.mkdir()
        (listing.folder / engine.name).write_bytes(OTHER)
        listing.add(listing.folder / engine.name)

        assert "is not listed in" in refusal(listing, engine).reason

    def test_through_a_link(self, listing: EngineList, engine: Path, tmp_path: Path) -> None:
        link = tmp_path / "link.engine"
        link.symlink_to(engine)
        listing.add(link)
        assert entries(listing) == [f"{sha(ENGINE)}  ../link.engine"]
        engine.write_bytes(OTHER + b"longer")

        assert "has changed" in refusal(listing, link).reason

    def test_a_missing_engine(self, listing: EngineList, tmp_path: Path) -> None:
        for ask in (listing.require, listing.is_listed, listing.add):
            with pytest.raises(EngineError, match="No such file"):
                ask(tmp_path / "missing.engine")

    def test_is_hashed_once(self, listing: EngineList, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hashed = []

        def count(path: Path) -> str:
            hashed.append(path)
            return sha256_file(path)

        monkeypatch.setattr("pytest_trtgray.baselines.engine_list.sha256_file", count)
        listing.add(engine)
        listing.require(engine)
        listing.is_listed(engine)
        engine.write_bytes(OTHER + b"longer")
        refusal(listing, engine)

        assert hashed == [engine, engine]


class TestAdd:
    def test_says_whether_the_list_changed(self, listing: EngineList, engine: Path) -> None:
        assert listing.add(engine)
        content = listing.file.read_bytes()
        assert not listing.add(engine)
        assert listing.file.read_bytes() == content

        engine.write_bytes(OTHER + b"longer")
        assert listing.add(engine)
        assert entries(listing) == [f"{sha(OTHER + b'longer')}  ../net.engine"]

    def test_sorted_by_path(self, listing: EngineList, folder: Path) -> None:
        folder.mkdir()
        for name in ("b", "c", "a"):
            path = folder / f"{name}.engine"
            path.write_bytes(name.encode())
            listing.add(path)

        assert entries(listing) == [f"{sha(name.encode())}  {name}.engine" for name in ("a", "b", "c")]

    def test_same_content_under_two_names(self, listing: EngineList, folder: Path) -> None:
        folder.mkdir()
        for name in ("a.engine", "b.engine"):
            (folder / name).write_bytes(ENGINE)
            assert listing.add(folder / name)

        assert len(entries(listing)) == 2

    def test_paths_are_relative_to_the_list(self, folder: Path, listing: EngineList, tmp_path: Path) -> None:
        below, beside = folder / "engines" / "a.engine", tmp_path / "models" / "b.engine"
        for path in (below, beside):
            path.parent.mkdir(parents=True)
            path.write_bytes(path.name.encode())
            listing.add(path)

        assert [line.split("  ")[1] for line in entries(listing)] == ["../models/b.engine", "engines/a.engine"]

    def test_far_away_only_the_name_counts(self, tmp_path: Path, engine: Path) -> None:
        listing = EngineList(tmp_path / "a" / "b" / "c" / "d" / "baselines")
        listing.add(engine)

        assert entries(listing) == [f"{sha(ENGINE)}  net.engine"]
        listing.require(engine)
        engine.write_bytes(OTHER + b"longer")
        assert "has changed" in refusal(listing, engine).reason

    def test_relative_paths(self, tmp_path: Path, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        listing = EngineList(Path("baselines"))
        listing.add(Path("net.engine"))

        assert entries(listing) == [f"{sha(ENGINE)}  ../net.engine"]
        assert not EngineList(tmp_path / "baselines").add(engine)

    def test_comments_stay(self, listing: EngineList, engine: Path) -> None:
        listing.folder.mkdir()
        listing.file.write_text(f"# from the release store\n\n{sha(OTHER)}  z.engine\n# second\n")
        listing.add(engine)

        assert listing.file.read_text() == (
            f"# from the release store\n# second\n{sha(ENGINE)}  ../net.engine\n{sha(OTHER)}  z.engine\n"
        )

    def test_a_new_list_says_what_it_is(self, listing: EngineList, engine: Path) -> None:
        listing.add(engine)
        first, second, last = listing.file.read_bytes().split(b"\n")

        assert first.startswith(b"# ")
        assert second == f"{sha(ENGINE)}  ../net.engine".encode()
        assert last == b""

    def test_processes_lose_nothing(self, folder: Path, tmp_path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        start = context.Event()
        workers = [
            context.Process(target=add_engines, args=(folder, tmp_path, start, worker, 8)) for worker in range(3)
        ]
        for process in workers:
            process.start()
        start.set()
        for process in workers:
            process.join()

        assert [process.exitcode for process in workers] == [0, 0, 0]
        assert len(entries(EngineList(folder))) == 24

    def test_a_folder_that_cannot_be_made(self, engine: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(BaselineError, match="cannot be"):
            EngineList(tmp_path / "file" / "baselines").add(engine)


class TestFormat:
    @pytest.mark.parametrize(
        "line",
        [
            "{sha}  net.engine\n",
            "{sha} *net.engine\n",
            "{sha}  net.engine\r\n",
            "{sha}  net.engine",
            "{SHA}  net.engine\n",
            "\ufeff{sha}  net.engine\n",
            "# a comment\n\n{sha}  with spaces in it.engine\n\n",
            "\\{sha}  with\\nnewline.engine\n",
            "\\{sha}  with\\\\backslash\\q.engine\n",
            "{sha}  größe.engine\n",
            "{sha}  line\u2028separator\x1e.engine\n",
        ],
    )
    def test_what_other_tools_write(self, listing: EngineList, engine: Path, line: str) -> None:
        listing.folder.mkdir()
        listing.file.write_bytes(line.format(sha=sha(ENGINE), SHA=sha(ENGINE).upper()).encode())

        listing.require(engine)

    def test_line_ends_are_no_part_of_a_path(self, listing: EngineList, engine: Path) -> None:
        listing.folder.mkdir()
        listing.file.write_bytes(f"# by hand\r\n{sha(OTHER)}  ../net.engine\r\n".encode())

        assert "has changed" in refusal(listing, engine).reason
        assert listing.add(engine)
        assert listing.file.read_bytes() == f"# by hand\n{sha(ENGINE)}  ../net.engine\n".encode()

    def test_a_path_that_is_no_utf8(self, listing: EngineList, engine: Path) -> None:
        listing.folder.mkdir()
        line = sha(OTHER).encode() + b"  caf\xe9.engine\n"
        listing.file.write_bytes(line)
        listing.add(engine)

        assert line in listing.file.read_bytes()

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("damaged", "line 2 of the engine list is damaged: 'damaged'"),
            (sha(ENGINE), "line 2"),
            (f"{sha(ENGINE)} net.engine", "line 2"),
            (f"{sha(ENGINE)[1:]}  net.engine", "line 2"),
            (f"{sha(ENGINE)}0  net.engine", "line 2"),
            (f"{'g' * 64}  net.engine", "line 2"),
            (f" {sha(ENGINE)}  net.engine", "line 2"),
            (f"SHA256 (net.engine) = {sha(ENGINE)}", "line 2"),
            ("<<<<<<< HEAD", "merge conflicts (line 2)"),
            ("=======", "merge conflicts (line 2)"),
        ],
    )
    def test_a_damaged_line_is_named_and_left(self, listing: EngineList, engine: Path, line: str, reason: str) -> None:
        """An engine that is listed on another line is refused too: what the damaged line said is unknown."""
        listing.folder.mkdir()
        content = f"{sha(ENGINE)}  net.engine\n{line}\n".encode()
        listing.file.write_bytes(content)

        for ask in (listing.require, listing.is_listed, listing.add):
            with pytest.raises(BaselineError) as caught:
                ask(engine)
            assert reason in caught.value.reason
            assert caught.value.thing == str(listing.file)
            assert caught.value.remedy
        assert listing.file.read_bytes() == content

    def test_a_list_that_cannot_be_read(self, listing: EngineList, engine: Path) -> None:
        listing.file.mkdir(parents=True)
        with pytest.raises(BaselineError, match="cannot be read"):
            listing.require(engine)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.dictionaries(
            st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1),
            st.binary(max_size=4).map(sha),
            max_size=4,
        )
    )
    def test_round_trip(self, listing: EngineList, listed: dict[str, str]) -> None:
        listing.folder.mkdir(exist_ok=True)
        listing.file.write_bytes(listing._encode(listed))
        read = listing._read()
        listing.file.unlink()

        assert read == listed


@coreutils
class TestCoreutils:
    NAMES = ("plain.engine", "with space.engine", "größe.engine", "new\nline.engine", "back\\slash.engine", "#a.engine")

    def test_sha256sum_reads_ours(self, listing: EngineList, folder: Path, engine: Path) -> None:
        folder.mkdir()
        for name in self.NAMES:
            (folder / name).write_bytes(name.encode())
            listing.add(folder / name)
        listing.add(engine)
        done = check(folder)

        assert done.returncode == 0, done.stderr
        assert done.stdout.count(": OK") == len(self.NAMES) + 1
        (folder / self.NAMES[0]).write_bytes(OTHER)
        assert check(folder).returncode == 1

    @pytest.mark.parametrize("mode", ["--text", "--binary"])
    def test_we_read_theirs(self, listing: EngineList, folder: Path, mode: str) -> None:
        folder.mkdir()
        for name in self.NAMES:
            (folder / name).write_bytes(name.encode())
        done = subprocess.run(["sha256sum", mode, *self.NAMES], cwd=folder, capture_output=True, check=True)
        listing.file.write_bytes(done.stdout)

        for name in self.NAMES:
            listing.require(folder / name)
            assert not listing.add(folder / name)
            (folder / name).write_bytes(OTHER)
            assert "has changed" in refusal(listing, folder / name).reason
