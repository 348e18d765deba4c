from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.baselines.identity import (
    FIELDS,
    first_calls_key,
    identity_of,
    run_context,
    select,
    slug,
    timing_key,
)
from pytest_trtgray.engines.device import find_cpu, find_gpu
from pytest_trtgray.engines.loading import LoadOptions, load_engine
from tests import models
from tests.unit.helpers import ort_engine

FULL = {"device": "NVIDIA H200", "sm": "sm_90", "runtime": "tensorrt_rtx", "version": "1.5.0", "precision": "float16"}


class TestOfAnEngine:
    def test_timing_belongs_to_the_device(self, mlp: Path) -> None:
        engine = ort_engine(mlp)
        identity = identity_of(engine, "timing")

        assert tuple(identity) == FIELDS
        assert identity["device"] == find_cpu().name
        assert (identity["runtime"], identity["precision"]) == ("onnxruntime", "float32")
        assert identity["version"] == engine.info.version

    def test_structure_belongs_to_the_target(self, mlp: Path) -> None:
        engine = ort_engine(mlp)

        assert identity_of(engine, "structure")["device"] == engine.info.targets != find_cpu().name

    def test_precision(self, mlp: Path, tmp_path: Path) -> None:
        engine = ort_engine(models.to_fp16(mlp, tmp_path / "half.onnx"))

        assert identity_of(engine, "timing")["precision"] == "float16"

    @pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")
    def test_a_structure_baseline_of_a_laptop_holds_on_the_gpu_runner(self, mlp: Path, tmp_path: Path) -> None:
        pytest.importorskip("tensorrt_rtx")
        engine = load_engine(mlp, LoadOptions("tensorrt_rtx", cache_dir=tmp_path))
        identity = identity_of(engine, "structure")

        assert (identity["device"], identity["sm"]) == ("portable", "")


class TestSelect:
    def test_all_of_them(self) -> None:
        assert select(FULL, ()) == FULL

    def test_some(self) -> None:
        assert select(FULL, ("sm", "runtime")) == {"sm": "sm_90", "runtime": "tensorrt_rtx"}

    def test_the_result_is_a_copy(self) -> None:
        select(FULL, ())["device"] = "other"

        assert FULL["device"] == "NVIDIA H200"


class TestSlug:
    @pytest.mark.parametrize(
        ("identity", "folder"),
        [
            (FULL, "nvidia-h200_sm90_tensorrt-rtx-1.5.0_float16"),
            ({"sm": "sm_90", "runtime": "tensorrt"}, "sm90_tensorrt"),
            ({"version": "10.3.0"}, "10.3.0"),
            ({"device": "Intel(R) Xeon(R) CPU @ 2.20GHz"}, "intel-r-xeon-r-cpu-2.20ghz"),
            ({"team": "Vision", "device": "L4"}, "l4_vision"),
            ({}, "any"),
            ({"device": ""}, "any"),
            ({"device": "///"}, "any"),
            ({"device": "../../etc"}, "etc"),
        ],
    )
    def test_examples(self, identity: dict[str, str], folder: str) -> None:
        assert slug(identity) == folder

    @given(st.dictionaries(st.sampled_from([*FIELDS, "team"]), st.text()))
    def test_always_one_safe_folder_name(self, identity: dict[str, str]) -> None:
        folder = slug(identity)

        assert re.fullmatch(r"[a-z0-9._-]+", folder)
        assert folder not in (".", "..")

    @pytest.mark.parametrize("device", [".", "..", "...", ". ."])
    def test_never_a_folder_above(self, device: str) -> None:
        assert slug({"device": device}).strip(".")

    def test_the_order_of_fields_does_not_matter(self) -> None:
        assert slug(dict(reversed(FULL.items()))) == slug(FULL)

    @pytest.mark.parametrize("field", FIELDS)
    def test_every_field_counts(self, field: str) -> None:
        assert slug({**FULL, field: "other"}) != slug(FULL)


class TestTimingKey:
    def test_shapes_and_method(self) -> None:
        method = {"layers": "profiler", "engine": "wall-clock"}

        assert timing_key({"x": (8, 3), "a": (1,)}, method) == "timing a:1,x:8x3 engine=wall-clock,layers=profiler"

    def test_the_order_does_not_matter(self) -> None:
        assert timing_key({"x": (8,), "y": (1,)}, {"a": "1", "b": "2"}) == timing_key(
            {"y": (1,), "x": (8,)}, {"b": "2", "a": "1"}
        )

    def test_other_shapes_and_methods_are_other_keys(self) -> None:
        keys = {
            timing_key({"x": (8,)}, {"a": "1"}),
            timing_key({"x": (1,)}, {"a": "1"}),
            timing_key({"x": (8,)}, {"a": "2"}),
            timing_key({"x": ()}, {"a": "1"}),
        }

        assert len(keys) == 4


class TestFirstCallsKey:
    def test_shapes_in_their_order_and_method(self) -> None:
        key = first_calls_key(["x:1x8", "x:32x8", "x:1x8 #2"], {"kept_kernels": "yes", "clock": "host"})

        assert key == "first-calls x:1x8 -> x:32x8 -> x:1x8 #2 clock=host,kept_kernels=yes"

    def test_other_shapes_orders_and_methods_are_other_keys(self) -> None:
        keys = {
            first_calls_key(["x:1", "x:2"], {"a": "1"}),
            first_calls_key(["x:2", "x:1"], {"a": "1"}),
            first_calls_key(["x:1"], {"a": "1"}),
            first_calls_key(["x:1", "x:2"], {"a": "2"}),
            timing_key({"x": (1,)}, {"a": "1"}),
        }

        assert len(keys) == 5


class TestContext:
    def test_the_commit_of_the_ci_system(self, mlp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GITHUB_SHA", "0123456789abcdef0123")
        context = run_context(ort_engine(mlp))

        assert context["commit"] == "0123456789ab"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", context["time_utc"])
        assert context["cores"] == find_cpu().details["cores"]

    def test_outside_of_a_repository(self, mlp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for variable in ("GITHUB_SHA", "CI_COMMIT_SHA", "BUILD_VCS_NUMBER"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        monkeypatch.chdir(tmp_path)

        assert "commit" not in run_context(ort_engine(mlp))

    def test_without_git(self, mlp: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for variable in ("GITHUB_SHA", "CI_COMMIT_SHA", "BUILD_VCS_NUMBER"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))

        assert "commit" not in run_context(ort_engine(mlp))
