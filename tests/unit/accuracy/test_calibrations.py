from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_trtgray.accuracy.calibrations import CalibrationMethod, compare_calibrations, recommend
from pytest_trtgray.accuracy.quantisation import inspect_quantisation
from pytest_trtgray.engines.loading import LoadOptions, load_engine
from pytest_trtgray.engines.precision import convert
from pytest_trtgray.engines.profiles import request_shapes
from pytest_trtgray.errors import EngineError, ModelError
from tests import models, quantised


def with_outliers(path: Path, factor: float) -> tuple[Path, list[Any], list[Any]]:
    """A network and inputs of which one value in ten thousand is far out, and means nothing."""
    graph = models.Graph()
    x = graph.input("x", ["batch", 256])
    hidden = graph.add("Tanh", [graph.add("MatMul", [x, graph.weight("a", 256, 64)], "/a/MatMul")], "/Tanh")
    graph.add("MatMul", [hidden, graph.weight("b", 64, 8)], "/b/MatMul", "y")
    graph.output("y", ["batch", 8])
    rng = np.random.default_rng(9)

    def feed(outliers: int) -> Any:
        values = rng.standard_normal((64, 256)).astype(np.float32)
        rows = rng.integers(0, 64, outliers)
        values[rows, rng.integers(0, 256, outliers)] *= factor
        return {"x": values}

    return graph.save(path), [feed(1) for _ in range(8)], [feed(0) for _ in range(8)]


class TestComparison:
    def test_every_number_is_that_of_the_converted_model(self, conv_net: Path, tmp_path: Path) -> None:
        feeds = quantised.feeds_for(conv_net, 3)
        found = compare_calibrations(conv_net, feeds, cache_dir=tmp_path)

        assert [method.name for method in found.methods] == ["minmax", "entropy", "percentile"]
        for method in found.methods:
            path = tmp_path / f"{method.name}.onnx"
            path.write_bytes(convert(conv_net, "int8", feeds, method.name))
            rows = inspect_quantisation(path, feeds, reference=conv_net, cache_dir=tmp_path).tensors
            activations = {row.tensor: row for row in rows if row.role == "activation"}
            assert set(method.tensors) == set(activations)
            for name, tensor in method.tensors.items():
                assert (tensor.scale, tensor.clipped, tensor.snr_db) == (
                    activations[name].scale[0],
                    activations[name].clipped,
                    activations[name].snr_db,
                )
            assert len(method.output_errors) == len(feeds)
            assert 0 < method.output_error < 0.2
        assert found.method("minmax").tensors["x"].clipped == 0
        assert found.samples == 12

    def test_outliers_that_mean_nothing_are_better_cut_off(self, tmp_path: Path) -> None:
        path, feeds, test_feeds = with_outliers(tmp_path / "net.onnx", 100.0)
        found = compare_calibrations(path, feeds, test_feeds=test_feeds, cache_dir=tmp_path)

        assert found.recommended in ("percentile", "entropy")
        assert found.reason.startswith(f"{found.recommended}: the outputs' relative L2 error is")
        assert found.method(found.recommended).output_error < 0.3 * found.method("minmax").output_error
        assert found.method("minmax").tensors["x"].snr_db < 25

    def test_without_outliers_the_simplest_stays(self, tmp_path: Path) -> None:
        path, feeds, test_feeds = with_outliers(tmp_path / "net.onnx", 1.0)
        found = compare_calibrations(
            path, feeds, test_feeds=test_feeds, methods=["minmax", "percentile"], cache_dir=tmp_path
        )

        assert found.recommended == "minmax"
        assert "no other is clearly better (percentile" in found.reason

    def test_fp8(self, tmp_path: Path, conv_net: Path) -> None:
        source = tmp_path / "source.onnx"
        quantised.quantised(conv_net, tmp_path / "q.onnx", "fp8")
        source = tmp_path / "q.opset19.onnx"
        found = compare_calibrations(source, quantised.feeds_for(source, 2), precision="fp8", cache_dir=tmp_path)

        assert [method.name for method in found.methods] == ["minmax", "percentile"]
        assert found.precision == "fp8"

    def test_an_engine_is_compared_by_its_original(self, conv_net: Path, tmp_path: Path) -> None:
        feeds = quantised.feeds_for(conv_net, 2)
        options = LoadOptions(
            runtime="onnxruntime", cache_dir=tmp_path, precision="int8", calibration=tuple(feeds),
            shapes=(request_shapes("x:1x3x16x16", "x:2x3x16x16", "x:2x3x16x16"),),
        )  # fmt: skip
        engine = load_engine(conv_net, options)
        found = compare_calibrations(engine, feeds, methods=["minmax"], cache_dir=tmp_path)
        (outside,) = (each for each in found.findings if each.rule == "calibration.shapes")

        assert found.model == "conv_net.onnx"
        assert "feed 0 (x 4x3x16x16), feed 1 (x 4x3x16x16) outside of every optimization profile" in outside.what
        assert outside.severity == "warning"


class TestAdvice:
    def test_few_samples(self, mlp: Path, tmp_path: Path) -> None:
        few = compare_calibrations(mlp, quantised.feeds_for(mlp, 2), methods=["minmax"], cache_dir=tmp_path)
        (advice,) = few.findings

        assert (advice.rule, advice.severity) == ("calibration.few-samples", "advice")
        assert "ranges from 32 samples" in advice.what
        many = compare_calibrations(mlp, quantised.feeds_for(mlp, 32), methods=["minmax"], cache_dir=tmp_path)
        assert many.samples == 512
        assert many.findings == ()

    def test_a_method_that_does_not_exist(self, mlp: Path, tmp_path: Path) -> None:
        feeds = quantised.feeds_for(mlp, 1)
        with pytest.raises(EngineError, match="calibration_method='max': is not known"):
            compare_calibrations(mlp, feeds, methods=["max"], cache_dir=tmp_path)
        with pytest.raises(EngineError, match="levels of INT8"):
            compare_calibrations(mlp, feeds, methods=["entropy"], precision="fp8", cache_dir=tmp_path)
        with pytest.raises(EngineError, match="is not calibrated"):
            compare_calibrations(mlp, feeds, precision="fp16", cache_dir=tmp_path)

    def test_no_inputs_or_no_fp32_model(self, mlp: Path, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match="none were given"):
            compare_calibrations(mlp, [], cache_dir=tmp_path)
        path = quantised.quantised(mlp, tmp_path / "q.onnx")
        with pytest.raises(ModelError, match="is quantised already"):
            compare_calibrations(path, quantised.feeds_for(path, 1), cache_dir=tmp_path)


class TestRecommendation:
    @staticmethod
    def method(name: str, *errors: float) -> CalibrationMethod:
        return CalibrationMethod(name, errors, {})

    @pytest.mark.parametrize(
        ("errors", "wanted"),
        [
            ((0.5, 0.5, 0.5, 0.5), "percentile"),  # half the error on every input
            ((0.95, 0.95, 0.95, 0.95), "minmax"),  # not worth it
            ((0.1, 1.05, 1.05, 1.05), "minmax"),  # on one input only
            ((2.0, 2.0, 2.0, 2.0), "minmax"),
            ((float("inf"),) * 4, "minmax"),
        ],
    )
    def test_another_method_has_to_be_clearly_better(self, errors: tuple[float, ...], wanted: str) -> None:
        name, reason = recommend([self.method("minmax", 1, 1, 1, 1), self.method("percentile", *errors)])

        assert name == wanted
        assert reason.startswith(f"{wanted}: ")

    def test_the_best_of_several(self) -> None:
        methods = [self.method("minmax", 1, 1), self.method("entropy", 0.5, 0.5), self.method("percentile", 0.2, 0.3)]

        assert recommend(methods)[0] == "percentile"
        assert recommend(methods[:1])[0] == "minmax"
