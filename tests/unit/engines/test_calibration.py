from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pytest_trtgray.engines import calibration
from pytest_trtgray.engines.calibration import METHODS, check_method, largest_values
from pytest_trtgray.engines.loading import LoadOptions, load_engine
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.onnxruntime import OnnxRuntimeEngine
from pytest_trtgray.engines.precision import activation_scales, convert
from pytest_trtgray.errors import EngineError, ShapeError
from tests import quantised

RNG = np.random.default_rng(10)


def scales(content: bytes) -> dict[str, float]:
    proto = onnx.load_from_string(content)
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    return {name: float(numpy_helper.to_array(weights[scale])) for name, scale in activation_scales(proto).items()}


def wide(count: int, outlier: float) -> list[Any]:
    feeds = [{"x": RNG.standard_normal((64, 8)).astype(np.float32)} for _ in range(count)]
    feeds[-1]["x"][0, 0] = outlier
    return feeds


class TestRanges:
    def test_minmax_is_the_largest_value(self, mlp: Path) -> None:
        feeds = wide(4, 50.0)

        assert scales(convert(mlp, "int8", feeds))["x"] == pytest.approx(50 / 127)
        assert convert(mlp, "int8", feeds, "minmax") == convert(mlp, "int8", feeds)

    def test_a_percentile_is_numpys(self, mlp: Path) -> None:
        feeds = wide(40, 50.0)
        values = np.abs(np.concatenate([feed["x"] for feed in feeds]))
        found = scales(convert(mlp, "int8", feeds, "percentile"))["x"] * 127

        # to a bin of the histogram, which the outlier makes wide
        assert found == pytest.approx(np.percentile(values, calibration.PERCENTILE), abs=2 * 50 / 1024)

    def test_entropy_cuts_an_outlier_off(self, mlp: Path) -> None:
        feeds = wide(40, 50.0)
        entropy, minmax = (scales(convert(mlp, "int8", feeds, method)) for method in ("entropy", "minmax"))

        assert set(entropy) == set(minmax)
        assert entropy["x"] < 0.3 * minmax["x"]

    @pytest.mark.parametrize("method", METHODS)
    def test_feeds_in_another_order_or_in_smaller_parts_give_the_same(self, method: str, mlp: Path) -> None:
        feeds = wide(4, 5.0)
        halves = [{"x": part} for feed in reversed(feeds) for part in np.array_split(feed["x"], 2)]
        once, again = (scales(convert(mlp, "int8", each, method)) for each in (feeds, halves))

        assert once == pytest.approx(again, rel=0.02)

    @pytest.mark.parametrize("method", ["entropy", "percentile"])
    def test_a_first_feed_that_is_tiny_makes_no_giant_histogram(self, method: str, mlp: Path) -> None:
        """ONNX Runtime keeps the width of the first bins and adds more."""
        feeds = [{"x": feed["x"] * np.float32(1e-8 if index == 0 else 1)} for index, feed in enumerate(wide(3, 4.0))]

        assert 0.01 < scales(convert(mlp, "int8", feeds, method))["x"] < 0.05

    @pytest.mark.parametrize("method", METHODS)
    def test_an_activation_that_is_always_zero(self, method: str, mlp: Path) -> None:
        found = scales(convert(mlp, "int8", [{"x": np.zeros((4, 8), np.float32)}], method))

        assert all(scale > 0 for scale in found.values())

    def test_fp8_takes_the_same_range(self, conv_net: Path, tmp_path: Path) -> None:
        quantised.quantised(conv_net, tmp_path / "q.onnx", "fp8")
        source, feeds = tmp_path / "q.opset19.onnx", quantised.feeds_for(conv_net, 3)
        int8, fp8 = (scales(convert(source, precision, feeds, "percentile")) for precision in ("int8", "fp8"))

        assert {name: scale * 448 for name, scale in fp8.items()} == pytest.approx(
            {name: scale * 127 for name, scale in int8.items()}
        )

    def test_no_more_than_a_chunk_of_activations_is_held(self, conv_net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(calibration, "BUDGET_BYTES", 40_000)
        held: list[int] = []
        infer = OnnxRuntimeEngine._infer

        def watched(engine: OnnxRuntimeEngine, arrays: dict[str, Any]) -> dict[str, Any]:
            outputs = infer(engine, arrays)
            held.append(sum(array.nbytes for array in outputs.values()))
            return outputs

        monkeypatch.setattr(OnnxRuntimeEngine, "_infer", watched)
        convert(conv_net, "int8", quantised.feeds_for(conv_net, 3), "percentile")

        assert 0 < max(held) <= 40_000

    def test_nothing_is_printed(self, mlp: Path, capfd: pytest.CaptureFixture[str]) -> None:
        convert(mlp, "int8", wide(2, 4.0), "entropy")

        assert capfd.readouterr() == ("", "")


class TestRefusals:
    def test_methods(self) -> None:
        for method in ("", *METHODS):
            check_method(method, "int8")
        with pytest.raises(EngineError, match=re.escape("Choose one of minmax, entropy, percentile")):
            check_method("kl", "int8")
        with pytest.raises(EngineError, match="FP8 has others"):
            check_method("entropy", "fp8")

    def test_feeds_are_checked(self, mlp: Path) -> None:
        with pytest.raises(ShapeError, match="the model wants batchx8"):
            largest_values(OnnxModel(mlp), [{"x": np.ones((2, 9), np.float32)}], {"x": 1.0}, "entropy")


def test_another_method_is_another_engine(conv_net: Path, tmp_path: Path) -> None:
    feeds = tuple(quantised.feeds_for(conv_net, 3))

    def precise(method: str) -> Any:
        options = LoadOptions(
            runtime="onnxruntime", cache_dir=tmp_path, precision="int8", calibration=feeds, calibration_method=method
        )
        engine = load_engine(conv_net, options)
        assert engine.model is not None
        return engine.model.path

    assert len({precise(method) for method in METHODS}) == 3
    assert precise("entropy") == precise("entropy")
