from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_trtgray.errors import ModelError, ShapeError, TrtGrayError
from pytest_trtgray.settings import ActiveTest, EngineRequest, OptionError, Settings, activated, active, read_settings

OPTIONS: dict[str, Any] = {
    "trt_engine": [],
    "trt_onnx": None,
    "trt_against": None,
    "trt_report": None,
    "trt_summary": None,
    "trt_metrics": None,
    "trt_push_gateway": None,
    "trt_min_shapes": [],
    "trt_opt_shapes": [],
    "trt_max_shapes": [],
    "trt_runtime": "auto",
    "trt_device": None,
    "trt_shadow": "auto",
    "trt_allow_unlisted": False,
    "trt_timing_processes": False,
    "trt_cuda_graph": False,
    "trt_update_baselines": False,
    "trt_rebaseline": False,
    "trt_prune_baselines": False,
    "trt_baseline_dir": None,
    "trt_timing": "gate",
    "trt_require_gpu": False,
    "trt_json": None,
    "trt_history": None,
    "trt_log_level": "info",
    "trt_no_redaction": False,
}
INI: dict[str, Any] = {
    "trt_baseline_dir": "baselines",
    "trt_on_missing": "fail",
    "trt_inconclusive": "warn",
    "trt_false_alarm_rate": 0.01,
    "trt_layer_tolerance": 0.03,
    "trt_engine_tolerance": 0.02,
    "trt_sessions": 3,
    "trt_iterations": 0,
    "trt_rtol": None,
    "trt_atol": None,
    "trt_localise": 30.0,
    "trt_cache_dir": ".trtgray_cache",
    "trt_tactic_sources": [],
    "trt_advice": True,
    "trt_identity": [],
    "trt_redact": [],
    "trt_rules": [],
    "trt_history_log_level": "warning",
}


def read(folder: Path, *, ini: dict[str, Any] | None = None, **options: Any) -> Settings:
    """Settings of a command in ``folder/here`` of a project whose ini file lies in ``folder``."""
    (folder / "here").mkdir(exist_ok=True)
    config = SimpleNamespace(
        invocation_params=SimpleNamespace(dir=folder / "here"),
        getoption={**OPTIONS, **options}.__getitem__,
        getini={**INI, **(ini or {})}.__getitem__,
        inipath=folder / "pytest.ini",
        rootpath=folder,
    )
    return read_settings(cast("pytest.Config", config))


class TestDefaults:
    def test_nothing_is_asked_for(self, tmp_path: Path) -> None:
        settings = read(tmp_path)

        assert not settings.is_used
        assert (settings.engines, settings.onnx, settings.shapes, settings.json_path) == ((), None, (), None)
        assert (settings.rtol, settings.atol, settings.iterations) == (None, None, None)

    @pytest.mark.parametrize(
        "options",
        [
            {"trt_engine": ["a.onnx"]},
            {"trt_update_baselines": True},
            {"trt_rebaseline": True},
            {"trt_prune_baselines": True},
            {"trt_json": "r.json"},
            {"trt_require_gpu": True},
        ],
    )
    def test_something_is(self, tmp_path: Path, options: dict[str, Any]) -> None:
        assert read(tmp_path, **options).is_used


class TestRecording:
    @pytest.mark.parametrize(
        ("options", "update", "rebaseline"),
        [
            ({}, False, False),
            ({"trt_update_baselines": True}, True, False),
            ({"trt_rebaseline": True}, True, True),
            ({"trt_update_baselines": True, "trt_rebaseline": True}, True, True),
        ],
    )
    def test_starting_anew_is_recording(
        self, tmp_path: Path, options: dict[str, Any], update: bool, rebaseline: bool
    ) -> None:
        settings = read(tmp_path, **options)

        assert (settings.update, settings.rebaseline) == (update, rebaseline)


class TestPaths:
    def test_of_the_command_line_are_relative_to_where_it_was_typed(self, tmp_path: Path) -> None:
        settings = read(tmp_path, trt_engine=["m.onnx"], trt_onnx="o.onnx", trt_json="r.json", trt_baseline_dir="b")
        here = tmp_path / "here"

        assert settings.engines == (EngineRequest("m", here / "m.onnx"),)
        assert (settings.onnx, settings.json_path, settings.baseline_dir) == (
            here / "o.onnx",
            here / "r.json",
            here / "b",
        )

    def test_of_the_ini_file_are_relative_to_it(self, tmp_path: Path) -> None:
        settings = read(tmp_path, ini={"trt_baseline_dir": "tests/b", "trt_cache_dir": "c"})

        assert settings.baseline_dir == tmp_path / "tests" / "b"
        assert settings.cache_dir == tmp_path / "c"

    def test_absolute_ones_stay(self, tmp_path: Path) -> None:
        settings = read(tmp_path, trt_engine=["/m.onnx"], trt_baseline_dir="/b", ini={"trt_cache_dir": "/c"})

        assert settings.engines[0].path == Path("/m.onnx")
        assert (settings.baseline_dir, settings.cache_dir) == (Path("/b"), Path("/c"))

    def test_detours_are_taken_out(self, tmp_path: Path) -> None:
        settings = read(tmp_path, trt_engine=["../m.onnx"], trt_baseline_dir="../b")

        assert settings.engines[0].path == tmp_path / "m.onnx"
        assert settings.baseline_dir == tmp_path / "b"


class TestEngines:
    @pytest.mark.parametrize(
        ("text", "name", "path"),
        [
            ("model.onnx", "model", "model.onnx"),
            ("net=model.onnx", "net", "model.onnx"),
            ("resnet50-fp16=a/b.plan", "resnet50-fp16", "a/b.plan"),
            ("a/b=c.onnx", "b=c", "a/b=c.onnx"),
            ("v1.2=c.onnx", "v1.2=c", "v1.2=c.onnx"),
            ("net=a=b.onnx", "net", "a=b.onnx"),
        ],
    )
    def test_names_and_paths(self, tmp_path: Path, text: str, name: str, path: str) -> None:
        (request,) = read(tmp_path, trt_engine=[text]).engines

        assert (request.name, request.path) == (name, tmp_path / "here" / path)

    def test_a_file_that_looks_like_a_name_and_a_path(self, tmp_path: Path) -> None:
        (tmp_path / "here").mkdir()
        (tmp_path / "here" / "a=b.onnx").touch()
        (request,) = read(tmp_path, trt_engine=["a=b.onnx"]).engines

        assert (request.name, request.path.name) == ("a=b", "a=b.onnx")

    @pytest.mark.parametrize("text", ["", "=model.onnx", "net="])
    def test_what_cannot_be_read(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(OptionError, match="Write PATH or NAME=PATH"):
            read(tmp_path, trt_engine=[text])

    def test_two_of_one_name(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match="two engines are called 'm'") as caught:
            read(tmp_path, trt_engine=["a/m.onnx", "b/m.plan"])
        assert "--trt-engine=old=" in caught.value.remedy


class TestShapes:
    def test_one_profile_for_each_three(self, tmp_path: Path) -> None:
        settings = read(
            tmp_path,
            trt_min_shapes=["x:1x3", "x:9x3"],
            trt_opt_shapes=["x:2x3", "x:10x3"],
            trt_max_shapes=["x:4x3", "x:16x3"],
        )
        first, second = settings.shapes

        assert (first.min, first.opt, first.max) == ({"x": (1, 3)}, {"x": (2, 3)}, {"x": (4, 3)})
        assert second.max == {"x": (16, 3)}

    @pytest.mark.parametrize("missing", ["trt_min_shapes", "trt_opt_shapes", "trt_max_shapes"])
    def test_all_three_are_needed(self, tmp_path: Path, missing: str) -> None:
        given: dict[str, Any] = {
            name: ["x:1"] for name in ("trt_min_shapes", "trt_opt_shapes", "trt_max_shapes") if name != missing
        }
        with pytest.raises(OptionError, match="Give all three"):
            read(tmp_path, **given)

    def test_what_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(ShapeError, match="cannot be read as a shape"):
            read(tmp_path, trt_min_shapes=["x"], trt_opt_shapes=["x:1"], trt_max_shapes=["x:1"])


class TestValues:
    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("trt_on_missing", "ignore", "must be one of fail, skip, record"),
            ("trt_inconclusive", "pass", "must be one of warn, skip, fail"),
            ("trt_false_alarm_rate", 0.0, "must lie between 0 and 1"),
            ("trt_false_alarm_rate", 1.0, "must lie between 0 and 1"),
            ("trt_false_alarm_rate", float("nan"), "must lie between 0 and 1"),
            ("trt_layer_tolerance", -0.1, "must lie between 0 and 10"),
            ("trt_engine_tolerance", 11.0, "must lie between 0 and 10"),
            ("trt_sessions", 0, "must be at least 1"),
            ("trt_iterations", -1, "must be at least 0"),
            ("trt_rtol", -1.0, "not below 0"),
            ("trt_atol", float("inf"), "finite"),
            ("trt_rtol", float("nan"), "finite"),
            ("trt_localise", -1.0, "not below 0"),
            ("trt_identity", ["device", "colour"], "unknown ['colour']"),
        ],
    )
    def test_refusals_name_the_value(self, tmp_path: Path, name: str, value: Any, words: str) -> None:
        with pytest.raises(OptionError) as caught:
            read(tmp_path, ini={name: value})
        assert caught.value.thing.startswith(name)
        assert words in caught.value.message

    def test_a_device_below_zero(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match="--trt-device = -1: must be at least 0"):
            read(tmp_path, trt_device=-1)

    def test_what_is_taken_over(self, tmp_path: Path) -> None:
        settings = read(
            tmp_path,
            trt_device=2,
            trt_timing="report",
            ini={
                "trt_rtol": 0.0,
                "trt_atol": 1e-3,
                "trt_iterations": 50,
                "trt_identity": ["sm", "runtime"],
                "trt_on_missing": "record",
                "trt_localise": 0.0,
            },
        )

        assert (settings.device, settings.timing, settings.on_missing) == (2, "report", "record")
        assert (settings.rtol, settings.atol, settings.iterations) == (0.0, 1e-3, 50)
        assert settings.identity == ("sm", "runtime")
        assert settings.localise_s == 0


class TestActive:
    def test_the_innermost_test_counts(self, tmp_path: Path) -> None:
        outside = active()
        first, second = ActiveTest((tmp_path,)), ActiveTest(())
        with activated(first):
            assert active() is first
            with activated(second):
                assert active() is second
            assert active() is first

        assert active() is outside

    def test_after_an_error(self) -> None:
        outside = active()
        with pytest.raises(RuntimeError, match="inside"), activated(ActiveTest(())):
            raise RuntimeError("inside")

        assert active() is outside

    def test_files_are_looked_for_in_order(self, tmp_path: Path) -> None:
        folders = (tmp_path / "a", tmp_path / "b")
        for folder in folders:
            folder.mkdir()
        (tmp_path / "b" / "m.onnx").touch()
        test = ActiveTest(folders)

        assert test.find_file("m.onnx") == tmp_path / "b" / "m.onnx"
        (tmp_path / "a" / "m.onnx").touch()
        assert test.find_file("m.onnx") == tmp_path / "a" / "m.onnx"
        assert test.find_file(tmp_path / "b" / "m.onnx") == tmp_path / "b" / "m.onnx"

    def test_a_file_that_is_nowhere(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError) as caught:
            ActiveTest((tmp_path / "a", tmp_path / "b")).find_file("m.onnx")
        assert str(tmp_path / "a") in caught.value.reason
        assert str(tmp_path / "b") in caught.value.reason
        with pytest.raises(TrtGrayError, match="no such file"):
            ActiveTest(()).find_file("/none/m.onnx")


class TestLogs:
    def test_defaults(self, tmp_path: Path) -> None:
        settings = read(tmp_path)

        assert (settings.log_level, settings.redaction, settings.redact) == ("info", True, ())

    def test_as_given(self, tmp_path: Path) -> None:
        settings = read(tmp_path, ini={"trt_redact": [r"A-\d+", "(b)"]}, trt_log_level="verbose", trt_no_redaction=True)

        assert (settings.log_level, settings.redaction) == ("verbose", False)
        assert settings.redact == (r"A-\d+", "(b)")

    @pytest.mark.parametrize(("pattern", "reason"), [("(a", "is no regular expression"), ("a*", "matches the empty")])
    def test_a_pattern_that_is_none(self, tmp_path: Path, pattern: str, reason: str) -> None:
        with pytest.raises(OptionError, match=reason) as caught:
            read(tmp_path, ini={"trt_redact": ["fine", pattern]})

        assert caught.value.thing == f"trt_redact = {pattern}"


class TestHistory:
    @pytest.mark.parametrize(
        ("given", "meant"),
        [
            (None, ""),
            ("sqlite:///h.db", "sqlite:///{here}/h.db"),
            ("sqlite:////data/h.db", "sqlite:////data/h.db"),
            ("sqlite:///file:h.db?mode=ro&uri=true", "sqlite:///file:h.db?mode=ro&uri=true"),
            ("postgresql://ci:secret@db/h", "postgresql://ci:secret@db/h"),
        ],
    )
    def test_a_file_lies_where_pytest_was_started(self, tmp_path: Path, given: str | None, meant: str) -> None:
        assert read(tmp_path, trt_history=given).history == meant.format(here=tmp_path / "here")

    def test_what_is_no_url_is_refused_without_being_shown(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match="is no database URL") as caught:
            read(tmp_path, trt_history="ci:secret@db")
        assert "secret" not in caught.value.message
