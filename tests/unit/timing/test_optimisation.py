from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_trtgray.engines.model import DeviceInfo, EngineInfo, Layer
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.findings import Finding
from pytest_trtgray.timing.gate import Run, Session
from pytest_trtgray.timing.optimisation import CRITICAL_SHARE, SMALL_LAYERS
from pytest_trtgray.timing.profile import Profile, layer_times
from tests import models, recordings
from tests.unit.helpers import layer

H200 = DeviceInfo("NVIDIA H200", "gpu", "sm_90")
INFO = EngineInfo("net", "", "tensorrt", "10.3", (), (), ({},), device=H200)


def measured(layers: Sequence[Layer], us: Sequence[float], *, engine_us: float = 0.0, **more: Any) -> Profile:
    table = np.tile(list(us), (10, 1))
    run = Run([Session.from_samples(table, np.full(10, engine_us or sum(us)), layers=layers)])
    options = {"engine": INFO, "shapes": {}, "method": {}, **more}
    return Profile(run=run, layers=layer_times(run, tuple(layers)), **options)


def advice(profile: Profile) -> dict[str, Finding]:
    found = profile.advice

    assert all(finding.severity == "advice" for finding in found)
    assert all(finding.remedy for finding in found)
    return {finding.rule.removeprefix("timing."): finding for finding in found}


def gemm(name: str, **more: Any) -> Layer:
    return layer(name, f"/{name}/MatMul", kind="gemm", **more)


def copy(name: str) -> Layer:
    return layer(name, kind="Reformat")


class TestReformats:
    """OPT-09."""

    def test_above_the_limit(self) -> None:
        found = advice(measured([gemm("a"), copy("c1"), copy("c2")], [80.0, 15.0, 5.0]))["OPT-09"]

        assert found.evidence == {"layers": 2, "share_percent": 20.0, "us": 20.0}
        assert found.where == "c1"
        assert "take 20.0% of the layers' time: c1 (15.0 us), c2 (5.0 us)" in found.what

    def test_below_it(self) -> None:
        assert "OPT-09" not in advice(measured([gemm("a"), copy("c")], [96.0, 4.0]))


class TestFloatsInInt8:
    """OPT-08."""

    def test_the_rest_in_fp32(self) -> None:
        found = advice(measured([gemm("a", dtype="int8"), layer("p", "/p/Erf")], [60.0, 40.0]))["OPT-08"]

        assert found.evidence["share_percent"] == 40.0

    @pytest.mark.parametrize(
        ("others", "times"), [(["float16", "float32"], [60.0, 20.0, 20.0]), (["float32"], [99.0, 1.0])]
    )
    def test_nothing_to_say(self, others: list[str], times: list[float]) -> None:
        made = [gemm("a", dtype="int8"), *(layer(dtype, f"/{dtype}/Erf", dtype=dtype) for dtype in others)]

        assert "OPT-08" not in advice(measured(made, times))

    def test_an_fp32_engine(self) -> None:
        assert "OPT-08" not in advice(measured([gemm("a"), layer("p", "/p/Erf")], [60.0, 40.0]))


class TestOtherWork:
    """OPT-18."""

    def test_more_than_half(self) -> None:
        found = advice(measured([gemm("a"), layer("p", "/p/Erf")], [40.0, 60.0]))["OPT-18"]

        assert "60% of the layers' time is outside of products" in found.what

    def test_a_model_without_products(self) -> None:
        assert "OPT-18" not in advice(measured([layer("p", "/p/Erf")], [60.0]))


class TestAccess:
    """OPT-19, which needs the model."""

    @staticmethod
    def model(tmp_path: Path, op: str, **attributes: Any) -> OnnxModel:
        graph = models.Graph()
        x = graph.input("x", [4, 8, 16])
        inputs = [x]
        if op == "Gather":
            inputs.append(graph.constant("rows", np.array([1, 3], np.int64)))
        if op == "ReduceSum":
            inputs.append(graph.constant("axes", np.array(attributes.pop("over"), np.int64)))
        graph.add(op, inputs, "/m/Op", "y", **attributes)
        graph.output("y", [None] if op == "Gather" else [4])  # type: ignore[list-item]
        path = graph.save(tmp_path / "net.onnx")
        return OnnxModel(path)

    @pytest.mark.parametrize(
        ("op", "attributes"),
        [
            ("Gather", {"axis": 2}),
            ("Gather", {"axis": -1}),
            ("ReduceMean", {"axes": [1], "keepdims": 0}),
            ("ReduceSum", {"over": [0, 2], "keepdims": 0}),
        ],
    )
    def test_across_the_order(self, tmp_path: Path, op: str, attributes: dict[str, Any]) -> None:
        found = advice(measured([layer("l", "/m/Op")], [10.0], model=self.model(tmp_path, op, **attributes)))

        assert "/m/Op" in found["OPT-19"].what

    @pytest.mark.parametrize(
        ("op", "attributes"),
        [
            ("Gather", {"axis": 0}),
            ("ReduceMean", {"axes": [1, 2], "keepdims": 0}),
            ("ReduceMean", {"axes": [-1], "keepdims": 0}),
            ("ReduceSum", {"over": [2, 1], "keepdims": 0}),
            ("ReduceMax", {"keepdims": 0}),
        ],
    )
    def test_along_it(self, tmp_path: Path, op: str, attributes: dict[str, Any]) -> None:
        found = advice(measured([layer("l", "/m/Op")], [10.0], model=self.model(tmp_path, op, **attributes)))

        assert "OPT-19" not in found

    def test_a_cold_layer(self, tmp_path: Path) -> None:
        model = self.model(tmp_path, "Gather", axis=2)

        assert "OPT-19" not in advice(measured([layer("l", "/m/Op"), gemm("a")], [1.0, 99.0], model=model))


class TestSmallLayers:
    """OPT-21."""

    MANY = tuple(layer(f"l{i}", f"/l{i}/Relu") for i in range(SMALL_LAYERS + 1))

    def test_many_of_them(self) -> None:
        found = advice(measured(self.MANY, [5.0] * len(self.MANY)))

        assert "--trt-cuda-graph" in found["OPT-21"].remedy

    @pytest.mark.parametrize(
        ("count", "us", "method"),
        [(SMALL_LAYERS, 5.0, {}), (SMALL_LAYERS + 1, 50.0, {}), (SMALL_LAYERS + 1, 5.0, {"cuda_graph": "yes"})],
    )
    def test_nothing_to_say(self, count: int, us: float, method: dict[str, str]) -> None:
        assert "OPT-21" not in advice(measured(self.MANY[:count], [us] * count, method=method))

    def test_one_layer_that_takes_most(self) -> None:
        assert "OPT-21" not in advice(measured(self.MANY, [500.0] + [5.0] * SMALL_LAYERS))


class TestTensorCores:
    """OPT-22."""

    @pytest.mark.parametrize("tactic", ["ampere_sgemm_128x64_tn", "sm80_xmma_gemm_f32_ffma_aligna4", "gemvx_kernel",
                                        "ampere_scudnn_128x128_relu_medium_nn_v1"])  # fmt: skip
    def test_a_kernel_without(self, tactic: str) -> None:
        assert tactic in advice(measured([gemm("a", tactic=tactic)], [10.0]))["OPT-22"].what

    @pytest.mark.parametrize(
        "tactic",
        [
            "sm80_xmma_gemm_f16f16_f16f16_f16_tn_n_tilesize64x64_tensor16x8x16",
            "__myelin_CASK_STUB",
            "",
            "0x1a",
            "sm90_x",
        ],
    )
    def test_a_name_without_that_mark_says_nothing(self, tactic: str) -> None:
        assert "OPT-22" not in advice(measured([gemm("a", tactic=tactic)], [10.0]))

    def test_no_kernel_of_the_recorded_engine_is_suspected(self) -> None:
        listing = [each for each in recordings.log_layers("rtx17_resnet50") if each.kind]

        assert "OPT-22" not in advice(measured(listing, [1.0] * len(listing)))


class TestStreams:
    """OPT-29."""

    def test_layers_that_overlap(self) -> None:
        made = [gemm("a"), gemm("b", stream=1)]
        found = advice(measured(made, [10.0, 10.0], engine_us=11.0))["OPT-29"]

        assert found.what == "layers run on 2 streams at once; their times add up to 1.82 times the engine's"
        assert "max_aux_streams = 0" in found.remedy

    def test_a_profiler_that_serialises(self) -> None:
        found = advice(measured([gemm("a"), gemm("b")], [10.0, 10.0], engine_us=11.0))["OPT-29"]

        assert "the profiler serialises their launches" in found.what

    def test_times_that_add_up(self) -> None:
        assert "OPT-29" not in advice(measured([gemm("a"), gemm("b")], [10.0, 10.0], engine_us=19.0))


class TestCriticalModules:
    def test_with_what_bounds_them(self, tmp_path: Path) -> None:
        """BERT-base as recorded on an H200."""
        times, layers = recordings.H200(), recordings.bert_layers()
        us = np.median(np.concatenate(list(times.layer_us["a"])), axis=0)
        profile = measured(
            layers,
            us.tolist(),
            engine_us=1706.0,
            shapes={"ids": (8, 128), "mask": (8, 128)},
            model=OnnxModel(recordings.model("bert_base", tmp_path)),
        )
        found = advice(profile)["critical-modules"]

        assert found.what.startswith(
            "87% of the layers' time is in bert/encoder/layer.*/attention/self (32%, memory-bound), "
            "bert/encoder/layer.*/output/dense (30%, compute-bound), "
        )
        assert set(advice(profile)) == {"critical-modules", "OPT-21"}
        assert all(float(share or 0) >= CRITICAL_SHARE for share in found.evidence.values())

    def test_names_without_modules(self) -> None:
        assert "critical-modules" not in advice(measured([layer("a", "MatMul_3")], [10.0]))


def test_another_runtime() -> None:
    profile = measured([gemm("a"), copy("c")], [50.0, 50.0], engine=replace(INFO, runtime="onnxruntime"))

    assert profile.advice == ()
