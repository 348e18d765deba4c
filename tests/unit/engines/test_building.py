"""What of building needs no GPU: refusals, keys, and errors that reach the log of the process."""

from __future__ import annotations

import enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pytest_trtgray.engines import building
from pytest_trtgray.engines.building import (
    BuildRequest,
    build,
    is_weakly_typed,
    shown_profiles,
    timing_cache_path,
)
from pytest_trtgray.engines.device import find_gpu
from pytest_trtgray.engines.layer_listing import layers_from_rows
from pytest_trtgray.engines.model import DeviceInfo, ShapeRange
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.profiles import ShapeRequest, parse_shapes, resolve_profiles
from pytest_trtgray.errors import EngineError
from pytest_trtgray.logs.log import Log
from pytest_trtgray.logs.records import Record
from pytest_trtgray.logs.sink import SINK
from pytest_trtgray.vendor import is_installed, quiet_import
from tests import shape_inputs

needs_rtx = pytest.mark.skipif(not is_installed("tensorrt_rtx"), reason="needs tensorrt_rtx")
needs_no_gpu = pytest.mark.skipif(find_gpu() is not None, reason="needs a machine without a GPU")
SMALL, LARGE = {"x": ShapeRange((1, 8), (2, 8), (4, 8))}, {"x": ShapeRange((4, 8), (8, 8), (16, 8))}


def calibrated(*shapes: tuple[int, ...], profiles: Any = (SMALL, LARGE), name: str = "x") -> BuildRequest:
    feeds = tuple({name: np.zeros(shape, np.float32)} for shape in shapes)
    return BuildRequest("tensorrt", profiles, precision="int8", calibration=feeds)


class TestCalibration:
    def test_at_the_optimum_of_the_last_profile(self, mlp: Path) -> None:
        building._check_calibration(OnnxModel(mlp), calibrated((8, 8), (8, 8)))
        with pytest.raises(EngineError, match="calibration feed 0 gives 2x8 for input 'x'"):
            building._check_calibration(OnnxModel(mlp), calibrated((2, 8)))

    def test_none_at_all(self, mlp: Path) -> None:
        with pytest.raises(EngineError, match="INT8 needs inputs to calibrate with") as caught:
            building._check_calibration(OnnxModel(mlp), calibrated())
        assert caught.value.thing == str(mlp)
        assert "calibration=[feed, ...]" in caught.value.remedy

    def test_the_feed_that_does_not_fit_is_named(self, mlp: Path) -> None:
        with pytest.raises(EngineError) as caught:
            building._check_calibration(OnnxModel(mlp), calibrated((8, 8), (8, 8), (7, 8)))
        assert "calibration feed 2 gives 7x8 for input 'x'" in caught.value.reason
        assert "the last profile, 8x8" in caught.value.reason

    def test_an_input_that_is_missing(self, mlp: Path) -> None:
        with pytest.raises(EngineError, match="calibration feed 0 gives nothing for input 'x'"):
            building._check_calibration(OnnxModel(mlp), calibrated((8, 8), name="z"))

    def test_scalars(self, mlp: Path) -> None:
        scalar = ({"x": ShapeRange((), (), ())},)
        building._check_calibration(OnnxModel(mlp), calibrated((), profiles=scalar))
        with pytest.raises(EngineError, match=r"gives 1 for input 'x'.* scalar"):
            building._check_calibration(OnnxModel(mlp), calibrated((1,), profiles=scalar))


class TestTacticSources:
    class Module:
        __version__ = "9.9"

        class TacticSource(enum.Enum):
            CUBLAS = 0
            JIT_CONVOLUTIONS = 4

    def sources(self, *names: str, trt: Any = Module) -> list[Any]:
        return building._tactic_sources(trt, BuildRequest("tensorrt_rtx", (), tactic_sources=names))

    def test_by_name(self) -> None:
        assert self.sources("JIT_CONVOLUTIONS", "CUBLAS") == [
            self.Module.TacticSource.JIT_CONVOLUTIONS,
            self.Module.TacticSource.CUBLAS,
        ]

    @needs_rtx
    @pytest.mark.parametrize("name", ["jit_convolutions", "CUDNN_V9", "__members__x", ""])
    def test_one_that_is_not_there(self, name: str) -> None:
        trt = quiet_import("tensorrt_rtx")
        with pytest.raises(EngineError, match=f"has no tactic source '{name}'") as caught:
            self.sources("JIT_CONVOLUTIONS", name, trt=trt)
        assert caught.value.thing == "TensorRT for RTX"
        assert trt.__version__ in caught.value.reason
        for known in trt.TacticSource.__members__:
            assert known in caught.value.remedy
        assert "trt_tactic_sources" in caught.value.remedy

    @needs_rtx
    def test_those_of_the_installed_one(self) -> None:
        trt = quiet_import("tensorrt_rtx")
        names = tuple(trt.TacticSource.__members__)

        assert self.sources(*names, trt=trt) == list(trt.TacticSource.__members__.values())


class TestKeys:
    def test_profiles_in_the_order_of_their_names(self) -> None:
        a, b = ShapeRange((1,), (2,), (3,)), ShapeRange((), (), ())

        assert shown_profiles([{"b": b, "a": a}]) == shown_profiles([{"a": a, "b": b}])
        assert list(shown_profiles([{"b": b, "a": a}])[0]) == ["a", "b"]
        assert shown_profiles([{"a": a}]) == [{"a": [(1,), (2,), (3,)]}]

    def test_the_order_of_profiles_counts(self) -> None:
        assert shown_profiles([SMALL, LARGE]) != shown_profiles([LARGE, SMALL])

    @needs_no_gpu
    @pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt_rtx"])
    def test_no_timings_without_a_gpu(self, flavour: Any, tmp_path: Path) -> None:
        assert timing_cache_path(tmp_path, flavour, 0) is None

    @needs_rtx
    def test_one_file_of_timings_for_each_kind_of_gpu(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        gpus = [DeviceInfo("NVIDIA H200", "gpu", "sm_90"), DeviceInfo("NVIDIA RTX / 6000", "gpu", "sm_120", index=1)]
        monkeypatch.setattr(building, "find_gpu", lambda index: gpus[index])
        first, second = (timing_cache_path(tmp_path, "tensorrt_rtx", index) for index in (0, 1))
        version = quiet_import("tensorrt_rtx").__version__

        assert first == tmp_path / f"tensorrt_rtx-{version}.nvidia-h200.sm_90.timings"
        assert second == tmp_path / f"tensorrt_rtx-{version}.nvidia-rtx---6000.sm_120.timings"


class TestTyping:
    @needs_rtx
    def test_tensorrt_for_rtx_is_strongly_typed(self) -> None:
        assert not is_weakly_typed("tensorrt_rtx")

    @pytest.mark.parametrize(("flags", "weak"), [(("FP16", "TF32"), True), (("TF32",), False)])
    def test_full_tensorrt_by_its_flags(
        self, flags: tuple[str, ...], weak: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module = SimpleNamespace(BuilderFlag=SimpleNamespace(**dict.fromkeys(flags, 0)))
        monkeypatch.setattr(building, "quiet_import", lambda name: module)

        assert is_weakly_typed("tensorrt") is weak
        assert not is_weakly_typed("tensorrt_rtx")


@needs_rtx
class TestErrorsOfTheBuilder:
    """Of the builder itself, not of the parser: sizes that its profile does not allow."""

    def refused(self, folder: Path) -> tuple[EngineError, list[Record]]:
        # 12 values a row cannot become 3 x 5
        path = shape_inputs.save(shape_inputs.reshape, folder / "impossible.onnx")
        model = OnnxModel(path)
        shapes = [ShapeRequest(*(parse_shapes("x:1x12,s:3x5"),) * 3)]
        profiles, _ = resolve_profiles(model.inputs, shapes)
        with SINK.collect("test") as records, pytest.raises(EngineError) as caught:
            build(model, BuildRequest("tensorrt_rtx", profiles))
        return caught.value, list(records)

    def test_the_first_cause_is_in_the_error_and_in_the_log(self, tmp_path: Path) -> None:
        error, records = self.refused(tmp_path)
        errors = [record for record in records if record.severity in ("error", "internal_error")]

        assert errors
        assert [(record.producer, record.phase) for record in errors[:-1]] == [("tensorrt_rtx", "build")] * (
            len(errors) - 1
        )
        assert errors[0].details["code"]  # of the error recorder
        assert (errors[-1].producer, errors[-1].message) == (
            "polygraphy",
            "Invalid Engine. Please ensure the engine was built correctly",
        )
        assert " ".join(errors[0].message.split())[:60] in " ".join(error.reason.split())
        assert "Log" not in error.reason
        assert Log(tuple(records)).errors

    def test_the_builder_works_afterwards(self, tmp_path: Path, mlp: Path) -> None:
        self.refused(tmp_path)
        model = OnnxModel(mlp)
        profiles, _ = resolve_profiles(model.inputs, ())
        engine, facts = build(model, BuildRequest("tensorrt_rtx", profiles))

        assert engine[:4] == b"vtrt"
        assert facts["layers"]
        assert not [record for record in facts["records"] if record["severity"] in ("error", "internal_error")]

    def test_the_recorder_is_one_and_can_be_emptied(self, tmp_path: Path) -> None:
        from pytest_trtgray.engines.callbacks import recorder_of

        recorder = recorder_of("tensorrt_rtx")
        recorder.clear()
        with SINK.collect("test") as records:
            for number in range(101):
                assert recorder.report_error("code", f"error {number}")

        assert recorder_of("tensorrt_rtx") is recorder
        assert (recorder.num_errors(), recorder.has_overflowed()) == (100, True)
        assert (recorder.get_error_code(0), recorder.get_error_desc(0)) == ("code", "error 1")
        assert [record.message for record in records] == [f"error {number}" for number in range(101)]
        recorder.clear()
        assert (recorder.num_errors(), recorder.has_overflowed()) == (0, False)

    @pytest.mark.parametrize(
        ("make", "texts"),
        [
            (shape_inputs.expanding, ("s:1x4", "s:3x4", "s:8x4")),
            (shape_inputs.counting, ("x:1x1,n:1", "x:2x1,n:5", "x:4x1,n:9")),
        ],
    )
    def test_sizes_as_inputs_are_built(self, make: Any, texts: tuple[str, str, str], tmp_path: Path) -> None:
        model = OnnxModel(make(tmp_path / "m.onnx"))
        profiles, _ = resolve_profiles(model.inputs, [ShapeRequest(*map(parse_shapes, texts))])
        _, facts = build(model, BuildRequest("tensorrt_rtx", profiles))
        built = {node for layer in layers_from_rows(facts["layers"]) for node in layer.onnx_nodes}

        assert built & {node.name for node in model.nodes}
