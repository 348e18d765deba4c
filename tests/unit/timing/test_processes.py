"""Sessions in processes of their own: the same result, and one clear error whatever happens to the process."""

from __future__ import annotations

import importlib
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from onnx import TensorProto

from pytest_trtgray.baselines.identity import timing_key
from pytest_trtgray.engines.base import Engine
from pytest_trtgray.engines.loading import EngineSource, LoadOptions, load_engine
from pytest_trtgray.engines.profiles import ShapeRequest, parse_shapes
from pytest_trtgray.errors import EngineError, ModelError, NotRunnableError, ShapeError
from pytest_trtgray.feeds import make_feed
from pytest_trtgray.timing.processes import measure_in_process
from pytest_trtgray.timing.session import Plan, measure_run, measure_session
from tests import models
from tests.unit.helpers import ort_engine

PLAN = Plan(1, 4, processes=True)


@dataclass(frozen=True)
class Source:
    """An engine source whose other process does something of its own: ``act`` is a function of this module."""

    act: Callable[[], Engine]

    def load(self) -> Engine:
        return self.act()


def exits() -> NoReturn:
    os._exit(3)


def exits_as_if_all_were_well() -> NoReturn:
    os._exit(0)


def is_killed() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def crashes() -> NoReturn:
    os.abort()


def has_a_bug() -> NoReturn:
    raise ZeroDivisionError("in the other process")


class Unportable(Exception):
    """Pickle gives one argument to what wants two."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"of two parts, {first} and {second}")


def has_a_bug_that_cannot_travel() -> NoReturn:
    raise Unportable("a", "b")


def cannot_run() -> NoReturn:
    raise NotRunnableError("net", "needs a GPU", "Get one.")


def ends_while_threads_run() -> NoReturn:
    import threading

    threading.Thread(target=threading.Event().wait, args=(0.2,)).start()
    raise SystemExit(5)


def engine_with(act: Callable[[], Engine], mlp: Path) -> Engine:
    engine = load_engine(mlp, LoadOptions("onnxruntime"))
    engine.source = Source(act)  # type: ignore[assignment]
    return engine


class TestResult:
    def test_the_same_layers_as_in_this_process(self, conv_net: Path) -> None:
        engine = load_engine(conv_net, LoadOptions("onnxruntime"))
        feed = make_feed(engine.info.inputs, {"x": (2, 3, 16, 16)})
        here = measure_session(engine, feed, PLAN)
        there = measure_in_process(engine, feed, PLAN)

        assert there.layers == here.layers
        assert there.session.layers == here.session.layers
        assert there.session.iterations == here.session.iterations == 4
        assert all(math.isfinite(value) for value in (*there.session.log_us, there.session.engine_log_us))
        assert there.samples.layer_us.shape == here.samples.layer_us.shape == (4, len(here.layers))
        assert there.samples.latency_us.shape == (4,)
        assert there.samples.layers == here.layers
        assert there.overheads.cold_start_us > 0
        assert (there.overheads.upload_us, there.overheads.download_us) == (None, None)

    def test_a_session_is_a_process(self, mlp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        started: list[list[str]] = []
        run = subprocess.run

        def counted(command: list[str], **options: Any) -> Any:
            started.append(command)
            return run(command, **options)

        monkeypatch.setattr(subprocess, "run", counted)
        engine = load_engine(mlp, LoadOptions("onnxruntime"))
        feed = make_feed(engine.info.inputs, {"x": (1, 8)})
        measured = measure_run(engine, feed, Plan(3, 2, processes=True), context={"host": "ci"}, disturbed="others")

        assert len(started) == len(measured.run.sessions) == 3
        assert measured.run.disturbed == "others"
        assert set(measured.run.context) == {"host", "cold_start_us"}

    def test_a_baseline_of_its_own(self) -> None:
        method = {"layers": "profiler"}
        keys = {timing_key({"x": (1,)}, {**method, **Plan(processes=processes).method}) for processes in (True, False)}

        assert keys == {"timing x:1 layers=profiler", "timing x:1 layers=profiler,processes=fresh"}

    def test_scalars_and_integers_arrive_as_they_are(self, tmp_path: Path) -> None:
        graph = models.Graph()
        scale = graph.input("scale", [])
        k = graph.input("k", [3], TensorProto.INT32)
        graph.add("Mul", [graph.add("Cast", [k], "/Cast", to=TensorProto.FLOAT), scale], "/Mul", "y")
        graph.output("y", [3])
        engine = load_engine(graph.save(tmp_path / "scalar.onnx"), LoadOptions("onnxruntime"))
        feed = {"scale": np.float32(2), "k": np.array([1, 2, 3], np.int32)}
        result = measure_in_process(engine, feed, PLAN)

        assert {node for layer in result.layers for node in layer.onnx_nodes} == {"/Cast", "/Mul"}

    def test_profiles_and_names_travel_along(self, encoder: Path) -> None:
        shapes = ShapeRequest(*(parse_shapes("ids:2x4,mask:2x1x1x4"),) * 3)
        engine = load_engine(encoder, LoadOptions("onnxruntime", shapes=[shapes]), name="net")
        feed = make_feed(engine.info.inputs, {"ids": (2, 4), "mask": (2, 1, 1, 4)})

        assert measure_in_process(engine, feed, PLAN).layers == measure_session(engine, feed, PLAN).layers

    def test_a_calibrated_engine_is_not_calibrated_again(self, conv_net: Path, tmp_path: Path) -> None:
        cache = tmp_path / "cache"
        calibration = ({"x": np.ones((1, 3, 16, 16), np.float32)},)
        options = LoadOptions("onnxruntime", cache_dir=cache, precision="int8", calibration=calibration)
        engine = load_engine(conv_net, options)
        before = {path: path.stat().st_mtime_ns for path in cache.glob("*.onnx")}
        result = measure_in_process(engine, make_feed(engine.info.inputs, {"x": (1, 3, 16, 16)}), PLAN)

        assert (
            result.layers == measure_session(engine, make_feed(engine.info.inputs, {"x": (1, 3, 16, 16)}), PLAN).layers
        )
        assert {path: path.stat().st_mtime_ns for path in cache.glob("*.onnx")} == before

    def test_what_this_process_can_import_the_other_can(
        self, mlp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A plugin or custom source that pytest found through its own sys.path."""
        (tmp_path / "found_by_pytest.py").write_text(
            "from pytest_trtgray.engines.loading import EngineSource\nclass Source(EngineSource):\n    pass\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        engine = load_engine(mlp, LoadOptions("onnxruntime"))
        engine.source = importlib.import_module("found_by_pytest").Source(mlp, LoadOptions("onnxruntime"), "net")

        assert measure_in_process(engine, make_feed(engine.info.inputs, {"x": (1, 8)}), PLAN).session.iterations == 4

    def test_a_relative_path(self, mlp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(mlp.parent)
        engine = load_engine(Path(mlp.name), LoadOptions("onnxruntime"))

        assert measure_in_process(engine, make_feed(engine.info.inputs, {"x": (1, 8)}), PLAN).session.iterations == 4


class TestFailures:
    @pytest.mark.parametrize(
        ("act", "how"),
        [
            (exits, "exit status 3"),
            (exits_as_if_all_were_well, "exit status 0"),
            (is_killed, "SIGKILL"),
            (crashes, "SIGABRT"),
            (ends_while_threads_run, "exit status 5"),
        ],
    )
    def test_a_process_that_dies(self, act: Callable[[], Engine], how: str, mlp: Path) -> None:
        engine = engine_with(act, mlp)
        with pytest.raises(EngineError) as caught:
            measure_run(engine, make_feed(engine.info.inputs, {"x": (1, 8)}), PLAN, context={})

        assert caught.value.thing == "mlp"
        assert caught.value.reason.startswith(f"the measuring process died ({how})")
        assert "--trt-timing-processes" in caught.value.remedy

    def test_an_error_that_nobody_expected(self, mlp: Path, capfd: pytest.CaptureFixture[str]) -> None:
        engine = engine_with(has_a_bug, mlp)
        with pytest.raises(ZeroDivisionError, match="in the other process"):
            measure_in_process(engine, make_feed(engine.info.inputs, {"x": (1, 8)}), PLAN)

        assert "in has_a_bug" in capfd.readouterr().err

    def test_an_error_that_cannot_travel(self, mlp: Path) -> None:
        engine = engine_with(has_a_bug_that_cannot_travel, mlp)
        with pytest.raises(EngineError, match="Unportable: of two parts, a and b"):
            measure_in_process(engine, make_feed(engine.info.inputs, {"x": (1, 8)}), PLAN)

    def test_what_it_says_of_a_machine_that_cannot_is_what_this_process_says(self, mlp: Path) -> None:
        engine = engine_with(cannot_run, mlp)
        with pytest.raises(NotRunnableError) as caught:
            measure_in_process(engine, make_feed(engine.info.inputs, {"x": (1, 8)}), PLAN)

        assert caught.value.message == "net: needs a GPU\n  Get one."

    def test_a_model_that_was_deleted_meanwhile(self, tmp_path: Path) -> None:
        path = models.mlp(tmp_path / "net.onnx")
        engine = load_engine(path, LoadOptions("onnxruntime"))
        path.unlink()
        with pytest.raises(ModelError, match="no such file") as caught:
            measure_in_process(engine, make_feed(engine.info.inputs, {"x": (1, 8)}), PLAN)

        assert str(path) in str(caught.value)

    def test_a_feed_out_of_the_profile(self, mlp: Path) -> None:
        engine = load_engine(mlp, LoadOptions("onnxruntime"))
        with pytest.raises(ShapeError, match="input 'x' has shape 99x8"):
            measure_in_process(engine, {"x": np.zeros((99, 8), np.float32)}, PLAN)

    def test_an_engine_that_comes_from_no_file(self, mlp: Path) -> None:
        engine = ort_engine(mlp)
        assert engine.source is None
        with pytest.raises(EngineError, match="was not loaded from a file, so no other process can load it"):
            measure_run(engine, make_feed(engine.info.inputs, {"x": (1, 8)}), PLAN, context={})

    def test_nothing_is_left_behind(self, mlp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        engine = engine_with(is_killed, mlp)
        with pytest.raises(EngineError):
            measure_in_process(engine, make_feed(engine.info.inputs, {"x": (1, 8)}), PLAN)

        assert list(tmp_path.iterdir()) == []


def test_the_source_loads_the_same_engine(mlp: Path) -> None:
    engine = load_engine(mlp, LoadOptions("onnxruntime"), name="net")
    assert engine.source == EngineSource(mlp, LoadOptions("onnxruntime"), "net")
    again = engine.source.load()

    assert again is not engine
    assert again.info == engine.info
    assert again.source == engine.source


def test_a_main_script_without_a_guard_is_not_run_again(mlp: Path, tmp_path: Path) -> None:
    """``sys.exit(pytest.main())`` at the top of a script: it must not run once more in every session."""
    script = tmp_path / "measure.py"
    script.write_text(
        "from pathlib import Path\n"
        "from pytest_trtgray.engines.loading import LoadOptions, load_engine\n"
        "from pytest_trtgray.feeds import make_feed\n"
        "from pytest_trtgray.timing.session import Plan, measure_run\n"
        "print('started')\n"
        f"engine = load_engine(Path({str(mlp)!r}), LoadOptions('onnxruntime'))\n"
        "feed = make_feed(engine.info.inputs, {'x': (1, 8)})\n"
        "print(len(measure_run(engine, feed, Plan(2, 3, processes=True), context={}).run.sessions), 'sessions')\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=300)

    assert done.stdout.split("\n") == ["started", "2 sessions", ""], done.stderr
