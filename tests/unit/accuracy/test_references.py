from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_trtgray.accuracy.references import ReferenceCache
from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.engines.onnxruntime import OnnxRuntimeEngine
from pytest_trtgray.feeds import make_feed
from tests import models


def never() -> dict[str, Any]:
    raise AssertionError("computed again")


OUTPUTS: dict[str, Any] = {
    "y": np.arange(6, dtype=np.float32).reshape(2, 3),
    "file": np.array(3, np.int64),
    "a/b:c": np.ones((0, 2)),
}


class TestTheFolder:
    def test_what_was_computed_is_found_again(self, tmp_path: Path) -> None:
        ReferenceCache(tmp_path).get("ab", lambda: dict(OUTPUTS))
        found = ReferenceCache(tmp_path).get("ab", never)

        assert list(found) == list(OUTPUTS)
        for name, wanted in OUTPUTS.items():
            assert found[name].dtype == wanted.dtype
            np.testing.assert_array_equal(found[name], wanted)

    @pytest.mark.parametrize("content", [b"", b"damaged", b"PK\x03\x04damaged"])
    def test_a_damaged_entry_is_computed_and_replaced(self, tmp_path: Path, content: bytes) -> None:
        cache = ReferenceCache(tmp_path)
        cache.get("ab", lambda: dict(OUTPUTS))
        (tmp_path / "ab.npz").write_bytes(content)

        np.testing.assert_array_equal(cache.get("ab", lambda: dict(OUTPUTS))["y"], OUTPUTS["y"])
        assert cache.get("ab", never)

    def test_a_pickle_is_not_read(self, tmp_path: Path) -> None:
        stored: dict[str, Any] = {"0:y": np.array([{"a": 1}], dtype=object)}
        np.savez(tmp_path / "ab.npz", **stored)

        assert ReferenceCache(tmp_path).get("ab", lambda: {"y": np.zeros(1)})["y"].dtype == np.float64

    def test_what_cannot_be_written_is_computed(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        cache = ReferenceCache(tmp_path / "file")

        assert cache.get("ab", lambda: dict(OUTPUTS)).keys() == OUTPUTS.keys()

    def test_an_error_leaves_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(AssertionError, match="computed again"):
            ReferenceCache(tmp_path / "r").get("ab", never)

        assert not (tmp_path / "r").exists()

    def test_what_was_not_used_for_longest_goes_first(self, tmp_path: Path) -> None:
        cache = ReferenceCache(tmp_path, max_bytes=30_000)
        for age, key in enumerate(("a", "b", "c")):
            cache.get(key, lambda: {"y": np.zeros(2_000, np.float32)})
            os.utime(tmp_path / f"{key}.npz", ns=(age * 10**9, age * 10**9))
        cache.get("a", never)
        cache.get("d", lambda: {"y": np.zeros(2_000, np.float32)})

        assert sorted(path.stem for path in tmp_path.glob("*.npz")) == ["a", "c", "d"]

    def test_what_is_too_large_or_would_be_pickled_is_not_kept(self, tmp_path: Path) -> None:
        cache = ReferenceCache(tmp_path, max_bytes=1_000)
        cache.get("large", lambda: {"y": np.zeros(10_000)})
        cache.get("text", lambda: {"y": np.array(["a", None], dtype=object)})

        assert list(tmp_path.glob("*.npz")) == []

    def test_git_leaves_it_alone(self, tmp_path: Path) -> None:
        ReferenceCache(tmp_path / "r").get("ab", lambda: dict(OUTPUTS))

        assert "*" in (tmp_path / "r" / ".gitignore").read_text().splitlines()


class TestTheShadow:
    @pytest.fixture
    def runs(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        counted: list[int] = []
        run = OnnxRuntimeEngine.run

        def counting(self: OnnxRuntimeEngine, feed: Any) -> Any:
            counted.append(1)
            return run(self, feed)

        monkeypatch.setattr(OnnxRuntimeEngine, "run", counting)
        return counted

    def test_the_same_input_is_computed_once(self, tmp_path: Path, runs: list[int]) -> None:
        path = models.mlp(tmp_path / "mlp.onnx")
        shadow = Shadow(path, tmp_path / "cache")
        feeds = [make_feed(shadow.inputs, {"x": (2, 8)}, seed) for seed in (0, 1, 0)]
        first = [shadow.run(feed)["y"] for feed in feeds]
        again = [Shadow(path, tmp_path / "cache").run(feed)["y"] for feed in feeds]

        assert len(runs) == 2
        np.testing.assert_array_equal(first, again)

    def test_another_model_has_references_of_its_own(self, tmp_path: Path, runs: list[int]) -> None:
        one = models.mlp(tmp_path / "mlp.onnx", seed=0)
        feed = make_feed(Shadow(one, tmp_path / "cache").inputs, {"x": (2, 8)})
        before = Shadow(one, tmp_path / "cache").run(feed)["y"]
        models.mlp(one, seed=1)
        os.utime(one, ns=(1, 1))

        assert not np.array_equal(Shadow(one, tmp_path / "cache").run(feed)["y"], before)
        assert len(runs) == 2
