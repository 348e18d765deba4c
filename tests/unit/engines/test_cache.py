from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_trtgray.engines.cache import CachedEngine, EngineCache
from pytest_trtgray.errors import EngineError

REQUEST = {"model_sha256": "ab" * 32, "flavour": "tensorrt_rtx", "profiles": [{"x": [[1], [2], [3]]}]}
FACTS = {"layers": [{"name": "a", "kind": "gemm"}], "build_s": 0.5}


class Builder:
    """Counts its calls; each engine differs."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> tuple[bytes, dict[str, Any]]:
        self.calls += 1
        return f"engine {self.calls}".encode(), FACTS


def forget_manifest(found: CachedEngine) -> None:
    found.path.with_suffix(".json").unlink()


def cut_manifest(found: CachedEngine) -> None:
    path = found.path.with_suffix(".json")
    path.write_bytes(path.read_bytes()[:20])


def damage_engine(found: CachedEngine) -> None:
    found.path.write_bytes(b"engine x")


def remove_engine(found: CachedEngine) -> None:
    found.path.unlink()


def change_schema(found: CachedEngine) -> None:
    path = found.path.with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))


def list_as_manifest(found: CachedEngine) -> None:
    found.path.with_suffix(".json").write_text("[]")


def binary_manifest(found: CachedEngine) -> None:
    found.path.with_suffix(".json").write_bytes(b"\xff\xfe\x00")


def build_beside_others(folder: Path, log: Path, start: Any) -> None:
    """In a process of its own: ask for the engine, and note if it had to be built."""

    def build() -> tuple[bytes, dict[str, Any]]:
        with log.open("a") as file:
            file.write("built\n")
        return b"engine", FACTS

    start.wait()
    EngineCache(folder).get(REQUEST, build)


def test_built_once(tmp_path: Path) -> None:
    cache, build = EngineCache(tmp_path / "cache"), Builder()
    first, second = cache.get(REQUEST, build), cache.get(REQUEST, build)

    assert build.calls == 1
    assert (first.was_cached, second.was_cached) == (False, True)
    assert first.path == second.path
    assert second.path.read_bytes() == b"engine 1"
    assert second.manifest["layers"] == FACTS["layers"]
    assert second.manifest["engine_bytes"] == 8
    assert second.manifest["request"] == REQUEST


def test_another_object_of_the_cache_finds_it(tmp_path: Path) -> None:
    build = Builder()
    EngineCache(tmp_path).get(REQUEST, build)
    reordered = dict(reversed(REQUEST.items()))

    assert EngineCache(tmp_path).get(reordered, build).was_cached


@pytest.mark.parametrize("change", [{"model_sha256": "cd" * 32}, {"flavour": "tensorrt"}, {"profiles": []}, {"new": 1}])
def test_another_request_is_another_engine(tmp_path: Path, change: dict[str, Any]) -> None:
    cache, build = EngineCache(tmp_path), Builder()
    first, second = cache.get(REQUEST, build), cache.get({**REQUEST, **change}, build)

    assert build.calls == 2
    assert first.path != second.path
    assert first.path.read_bytes() == b"engine 1"


@pytest.mark.parametrize(
    "damage",
    [forget_manifest, cut_manifest, damage_engine, remove_engine, change_schema, list_as_manifest, binary_manifest],
)
def test_a_damaged_entry_is_built_anew(tmp_path: Path, damage: Callable[[CachedEngine], None]) -> None:
    cache, build = EngineCache(tmp_path), Builder()
    damage(cache.get(REQUEST, build))
    again = cache.get(REQUEST, build)

    assert not again.was_cached
    assert again.path.read_bytes() == b"engine 2"
    assert cache.get(REQUEST, build).was_cached


def test_a_failing_build_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> tuple[bytes, dict[str, Any]]:
        raise EngineError("net.onnx", "does not parse")

    cache, build = EngineCache(tmp_path), Builder()
    with pytest.raises(EngineError, match="does not parse"):
        cache.get(REQUEST, fail)

    assert not [path for path in tmp_path.iterdir() if path.suffix in (".engine", ".json", ".tmp")]
    assert not cache.get(REQUEST, build).was_cached


def test_facts_that_are_no_json_leave_no_half_entry(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        cache.get(REQUEST, lambda: (b"engine", {"build_s": float("nan")}))

    assert not cache.get(REQUEST, Builder()).was_cached


def test_the_folder_ignores_itself_in_git(tmp_path: Path) -> None:
    EngineCache(tmp_path / "cache").get(REQUEST, Builder())

    assert "*" in (tmp_path / "cache" / ".gitignore").read_text().splitlines()


def test_a_users_gitignore_stays(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("mine\n")
    EngineCache(tmp_path).get(REQUEST, Builder())

    assert (tmp_path / ".gitignore").read_text() == "mine\n"


def test_an_unusable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    build = Builder()

    with pytest.raises(EngineError, match="the engine cache cannot be used") as caught:
        EngineCache(tmp_path / "file" / "cache").get(REQUEST, build)
    assert "trt_cache_dir" in caught.value.remedy
    assert build.calls == 0


def test_an_error_of_the_system_in_the_build_is_not_blamed_on_the_cache(tmp_path: Path) -> None:
    def fail() -> tuple[bytes, dict[str, Any]]:
        raise FileNotFoundError(2, "No such file or directory", "plugin.so")

    with pytest.raises(OSError, match=r"plugin\.so"):
        EngineCache(tmp_path).get(REQUEST, fail)


def test_processes_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log.txt"
    count = 3
    start = context.Barrier(count)
    workers = [context.Process(target=build_beside_others, args=(tmp_path / "cache", log, start)) for _ in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)

    assert [worker.exitcode for worker in workers] == [0] * count
    assert log.read_text().splitlines() == ["built"]
    assert EngineCache(tmp_path / "cache").get(REQUEST, Builder()).was_cached
