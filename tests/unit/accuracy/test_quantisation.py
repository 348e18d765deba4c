"""Faults planted into the scales of networks that ONNX Runtime quantised, and networks without any."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_trtgray.accuracy.quantisation import Quantisation, inspect_quantisation
from pytest_trtgray.accuracy.quantisation_findings import MAX_FINDINGS
from pytest_trtgray.accuracy.rounding import quantise
from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.engines.loading import LoadOptions, load_engine
from pytest_trtgray.engines.onnxruntime import OnnxRuntimeEngine
from pytest_trtgray.errors import EngineError, ModelError, ShapeError
from pytest_trtgray.vendor import is_installed
from tests import models, quantised

NETWORKS = ("conv_net", "encoder", "mlp")


@pytest.fixture(scope="module")
def nets(folder: Path) -> dict[str, Path]:
    """The networks in FP32 and INT8, by name."""
    made = {
        "mlp": models.mlp(folder / "q_mlp.onnx"),
        "conv_net": models.conv_net(folder / "q_conv_net.onnx", blocks=2),
        "encoder": models.encoder(folder / "q_encoder.onnx"),
    }
    for name, source in list(made.items()):
        for precision in ("int8", "fp8"):
            target = folder / f"q_{name}_{precision}.onnx"
            made[f"{name}_{precision}"] = quantised.quantised(source, target, precision)
    return made


def look(path: Path, folder: Path, count: int = 3, **options: Any) -> Quantisation:
    """Inspected with inputs that the calibration has not seen."""
    return inspect_quantisation(path, quantised.feeds_for(path, count, first=100), cache_dir=folder, **options)


def faults(found: Quantisation) -> list[tuple[str, str]]:
    """Where and what, without advice."""
    return [(each.where, each.rule) for each in found.findings if each.severity != "advice"]


class TestHealthy:
    @pytest.mark.parametrize("name", NETWORKS)
    @pytest.mark.parametrize("precision", ["int8", "fp8"])
    def test_nothing_is_wrong(self, name: str, precision: str, nets: dict[str, Path], tmp_path: Path) -> None:
        path = nets[f"{name}_{precision}"]
        found = look(path, tmp_path, calibration=quantised.feeds_for(path, 4), reference=nets[name])

        assert faults(found) == []
        assert found.left_out == {}
        assert [tensor.node for tensor in found.tensors] == quantised.quantisers(path)
        assert all(tensor.snr_db > 25 for tensor in found.tensors)
        found.check()

    @pytest.mark.parametrize("method", ["percentile", "minmax"])
    def test_whichever_way_it_was_calibrated(self, method: str, nets: dict[str, Path], tmp_path: Path) -> None:
        path = quantised.quantised(nets["conv_net"], tmp_path / "q.onnx", method=method)

        assert faults(look(path, tmp_path)) == []

    def test_onnxruntimes_own_defaults(self, nets: dict[str, Path], tmp_path: Path) -> None:
        """Stored weights and outputs that are quantised too; TensorRT refuses its biases, its INT8 itself is fine."""
        path = by_default(nets["conv_net"], tmp_path / "q.onnx", symmetric=True)
        found = look(path, tmp_path, reference=nets["conv_net"])

        assert {rule for _, rule in faults(found)} == {"quantisation.bias"}
        assert found.left_out.keys() == {where for where in found.left_out if "bias" in where}
        assert (
            found.tensor("/layer1/conv1/BatchNormalization_output").low == 0
        )  # all that its only reader, a Relu, sees
        assert any(tensor.role == "weight" and math.isfinite(tensor.snr_db) for tensor in found.tensors)

    @pytest.mark.parametrize("block", [0, 4, 16])
    def test_int4_weights_in_blocks(self, block: int, tmp_path: Path) -> None:
        path = int4(tmp_path / "q.onnx", block=block)
        found = inspect_quantisation(path, [{"x": np.ones((2, 32), np.float32)}], cache_dir=tmp_path)

        assert faults(found) == []
        (weight,) = found.tensors
        assert (weight.dtype, weight.role) == ("int4", "weight")
        assert weight.granularity == (f"blocks of {block} on axis 0" if block else "axis 1")
        assert math.isnan(weight.snr_db)

    def test_an_int8_transformer_of_a_new_opset_with_static_shapes(self, nets: dict[str, Path], tmp_path: Path) -> None:
        """ONNX Runtime 1.31 cannot load one with its optimisations."""
        source = models.encoder(tmp_path / "source.onnx", batch=4, length=12)
        proto = onnx.version_converter.convert_version(onnx.load(str(source)), 21)
        proto.ir_version = 10
        path = quantised.quantised(models.write(proto, tmp_path / "new.onnx"), tmp_path / "q.onnx")

        assert faults(look(path, tmp_path)) == []


class TestScales:
    @pytest.mark.parametrize(
        ("factor", "rule"), [(1 / 4, "clipped"), (1 / 16, "clipped"), (64, "range-unused"), (1000, "range-unused")]
    )
    @pytest.mark.parametrize("name", NETWORKS)
    def test_one_that_is_wrong_is_the_only_one_found(
        self, name: str, factor: float, rule: str, nets: dict[str, Path], tmp_path: Path
    ) -> None:
        path = nets[f"{name}_int8"]
        for node in every(quantised.quantisers(path), 5):
            bad = quantised.rescale(path, tmp_path / "bad.onnx", node, factor)

            assert faults(look(bad, tmp_path)) == [(node, f"quantisation.{rule}")]

    def test_the_finding_names_the_layer_and_what_to_do(self, nets: dict[str, Path], tmp_path: Path) -> None:
        node = "/layer0/conv1/Relu_output_QuantizeLinear"
        found = look(quantised.rescale(nets["conv_net_int8"], tmp_path / "bad.onnx", node, 1 / 4), tmp_path)
        (finding,) = (each for each in found.findings if each.severity == "warning")
        tensor = found.tensor(node)

        assert "activation '/layer0/conv1/Relu_output' of /layer0/conv2/Conv" in finding.what
        assert f"with a scale {tensor.best_factor:.2g} times as large" in finding.what
        assert "minmax, entropy and percentile" in finding.remedy
        assert "FP16" in finding.remedy
        assert finding.evidence["clipped_percent"] == pytest.approx(100 * tensor.clipped, abs=1e-3)
        assert tensor.best_factor == pytest.approx(4, rel=0.3)
        with pytest.raises(AssertionError, match=r"quantisation of bad.onnx: activation '/layer0/conv1/Relu_output'"):
            found.check()

    def test_one_channel_of_a_weight(self, nets: dict[str, Path], tmp_path: Path) -> None:
        node = "layer1.conv1.weight_QuantizeLinear"
        for factor in (1 / 8, 500):
            path = quantised.rescale(nets["conv_net_int8"], tmp_path / "bad.onnx", node, factor, channel=3)
            assert [where for where, _ in faults(look(path, tmp_path))] == [node]

    @pytest.mark.parametrize("value", [0.0, -0.1, math.nan, math.inf])
    def test_no_number_that_divides(self, value: float, nets: dict[str, Path], tmp_path: Path) -> None:
        node = "/stem/Relu_output_QuantizeLinear"
        found = look(quantised.rescale(nets["conv_net_int8"], tmp_path / "bad.onnx", node, value), tmp_path)

        assert faults(found) == [(node, "quantisation.scale")]
        assert node in found.left_out
        assert len(found.tensors) == len(quantised.quantisers(nets["conv_net_int8"])) - 1

    def test_fp8_is_floating_point_and_bears_a_scale_that_is_too_large(
        self, nets: dict[str, Path], tmp_path: Path
    ) -> None:
        path = nets["conv_net_fp8"]
        node = quantised.quantisers(path)[0]
        for factor, expected in ((8, []), (1 / 8, [(node, "quantisation.clipped")])):
            assert faults(look(quantised.rescale(path, tmp_path / "bad.onnx", node, factor), tmp_path)) == expected

    def test_a_weight_that_is_stored_clipped(self, tmp_path: Path) -> None:
        """Its FP32 values are gone, but they pile up at the last level."""
        found = inspect_quantisation(int4(tmp_path / "bad.onnx", factor=0.3), cache_dir=tmp_path)
        assert [rule for _, rule in faults(found)] == ["quantisation.clipped"]

        found = inspect_quantisation(int4(tmp_path / "bad.onnx", factor=20, dtype="int8"), cache_dir=tmp_path)
        assert [rule for _, rule in faults(found)] == ["quantisation.range-unused"]

    def test_many_are_a_bounded_number_with_the_worst_first(self, nets: dict[str, Path], tmp_path: Path) -> None:
        path = nets["encoder_int8"]
        nodes = quantised.quantisers(path)
        for node in nodes:
            path = quantised.rescale(path, tmp_path / "bad.onnx", node, 1 / 16 if node == nodes[5] else 1 / 6)
        found = look(path, tmp_path)

        assert len(found.findings) == MAX_FINDINGS + 1
        assert found.findings[-1].rule == "quantisation.more"
        assert f"{len(nodes) - MAX_FINDINGS} more" in found.findings[-1].what
        gains = [float(finding.evidence["gain_db"] or 0) for finding in found.findings[:-1]]
        assert gains == sorted(gains, reverse=True)
        assert min(gains) >= max(
            tensor.gain_db for tensor in found.tensors if tensor.node not in {f.where for f in found.findings}
        )


class TestNumbers:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_they_are_those_of_the_formulas(self, name: str, nets: dict[str, Path], tmp_path: Path) -> None:
        """Against the values of the reference, computed in one piece."""
        path = nets[f"{name}_int8"]
        feeds = quantised.feeds_for(path, 3, first=100)
        found = inspect_quantisation(path, feeds, cache_dir=tmp_path, budget_bytes=20_000)
        shadow = Shadow(path, tmp_path)
        weights = {tensor.name: tensor for tensor in onnx.load(str(path)).graph.initializer}
        for tensor in found.tensors:
            if tensor.granularity != "tensor":
                continue
            if tensor.role == "weight":
                values = numpy_helper.to_array(weights[tensor.tensor])
            else:
                values = np.concatenate([one(shadow, feed, tensor.tensor).ravel() for feed in feeds])
            values = values.astype(np.float64)
            back = quantise(values.astype(np.float32), np.float32(tensor.scale[0]), 0.0, "int8").values
            ratio = np.sum(values**2) / np.sum((values - back) ** 2)

            assert tensor.snr_db == pytest.approx(10 * np.log10(ratio), abs=1e-6)
            assert tensor.elements == values.size
            assert tensor.clipped == pytest.approx(np.mean(np.abs(np.rint(values / tensor.scale[0]) + 0.5) > 128))
            assert tensor.used[0] == pytest.approx(
                max(values.max() / 127, -values.min() / 128) / tensor.scale[0], rel=1e-5
            )

    def test_the_best_scale_is_that_of_a_search(self, nets: dict[str, Path], tmp_path: Path) -> None:
        node = "/stem/Relu_output_QuantizeLinear"
        path = quantised.rescale(nets["conv_net_int8"], tmp_path / "bad.onnx", node, 10)
        tensor = look(path, tmp_path).tensor(node)
        factors = 2 ** np.linspace(-6, 2, 33)
        tried = [
            look(quantised.rescale(path, tmp_path / "tried.onnx", node, factor), tmp_path).tensor(node).snr_db
            for factor in factors
        ]

        assert tensor.snr_db + tensor.gain_db == pytest.approx(max(tried), abs=0.5)
        assert tensor.best_factor == pytest.approx(factors[int(np.argmax(tried))], rel=0.35)

    def test_layers_add_up_the_noise_of_their_operands(self, nets: dict[str, Path], tmp_path: Path) -> None:
        found = look(nets["conv_net_int8"], tmp_path)
        layers = {layer.node: layer for layer in found.layers}
        layer = layers["/layer0/conv2/Conv"]
        noise = sum(10 ** (-found.tensor(name).snr_db / 10) for name in layer.operands)

        assert layer.operands == ("/layer0/conv1/Relu_output", "layer0.conv2.weight") or set(layer.operands) == {
            "/layer0/conv1/Relu_output",
            "layer0.conv2.weight",
        }
        assert layer.snr_db == pytest.approx(-10 * np.log10(noise))
        assert {"/stem/Conv", "/head/Gemm"} <= set(layers)

    def test_sorting(self, nets: dict[str, Path], tmp_path: Path) -> None:
        found = look(nets["conv_net_int8"], tmp_path)

        ratios = [tensor.snr_db for tensor in found.sorted()]
        assert ratios == sorted(ratios)
        clipped = [tensor.clipped for tensor in found.sorted("clipped", reverse=True)]
        assert clipped == sorted(clipped, reverse=True)
        with pytest.raises(KeyError, match="no quantised tensor 'z'"):
            found.tensor("z")

    def test_limits_of_a_test(self, nets: dict[str, Path], tmp_path: Path) -> None:
        found = look(nets["conv_net_int8"], tmp_path)
        worst = found.sorted()[0]

        found.check(min_snr_db=worst.snr_db - 0.1, max_clipped=0.01)
        with pytest.raises(AssertionError, match=worst.tensor):
            found.check(min_snr_db=worst.snr_db + 0.1)
        with pytest.raises(AssertionError, match="are clipped, allowed -1"):
            found.check(max_clipped=-1)

    def test_the_rows_are_values(self, nets: dict[str, Path], tmp_path: Path) -> None:
        row = look(nets["mlp_int8"], tmp_path).tensors[0]

        assert row == dataclasses.replace(row)
        with pytest.raises(dataclasses.FrozenInstanceError):
            row.scale = (1, 1)  # type: ignore[misc]


class TestChannels:
    def test_a_dead_channel(self, nets: dict[str, Path], tmp_path: Path) -> None:
        path = quantised.scale_channel(nets["conv_net_int8"], tmp_path / "bad.onnx", "layer0.conv2.weight", 2, 0.0)
        found = look(path, tmp_path)
        advice = [each for each in found.findings if each.rule == "quantisation.dead-channels"]

        assert faults(found) == []
        assert [each.where for each in advice if "weight" in each.what] == ["layer0.conv2.weight_QuantizeLinear"]
        assert "1 of 8 channels are always zero" in advice[0].what
        assert found.tensor("layer0.conv2.weight").dead_channels == 1

    def test_an_outlier_channel_of_a_weight_with_one_scale(self, nets: dict[str, Path], tmp_path: Path) -> None:
        source = quantised.scale_channel(nets["conv_net"], tmp_path / "source.onnx", "layer0.conv2.weight", 5, 200.0)
        per_channel = quantised.quantised(source, tmp_path / "channels.onnx")
        per_tensor = by_default(source, tmp_path / "tensor.onnx", symmetric=True, pairs=True)

        assert "layer0.conv2.weight_QuantizeLinear" not in [where for where, _ in faults(look(per_channel, tmp_path))]
        found = look(per_tensor, tmp_path)
        assert ("layer0.conv2.weight_QuantizeLinear", "quantisation.channel-outlier") in faults(found)
        weight = found.tensor("layer0.conv2.weight")
        assert weight.channel_spread > 100
        assert weight.snr_db > 30 > weight.channel_snr_db

    def test_an_outlier_channel_of_an_activation(self, nets: dict[str, Path], tmp_path: Path) -> None:
        """The channel that only quantisation hears of: what it feeds takes it back."""
        source = quantised.scale_channel(nets["mlp"], tmp_path / "a.onnx", "fc0.weight", 3, 300.0, axis=1)
        source = quantised.scale_channel(source, tmp_path / "b.onnx", "fc1.weight", 3, 1 / 300, axis=0)
        found = look(quantised.quantised(source, tmp_path / "q.onnx", count=40), tmp_path)

        assert ("/fc0/Relu_output_QuantizeLinear", "quantisation.channel-outlier") in faults(found)
        (finding,) = (each for each in found.findings if each.where == "/fc0/Relu_output_QuantizeLinear")
        assert "SmoothQuant" in finding.remedy

    def test_a_tensor_that_is_always_zero(self, tmp_path: Path) -> None:
        path = one_product(tmp_path / "q.onnx")
        found = inspect_quantisation(path, [{"x": np.zeros((2, 64), np.float32)}], cache_dir=tmp_path)

        assert faults(found) == [("/x/Q", "quantisation.dead")]
        assert found.tensor("x").is_constant

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_reference_that_is_no_number(self, value: float, tmp_path: Path) -> None:
        feed = {"x": np.full((2, 64), value, np.float32)}
        found = inspect_quantisation(one_product(tmp_path / "q.onnx"), [feed], cache_dir=tmp_path)

        assert faults(found) == [("/x/Q", "quantisation.not-finite")]


class TestDrift:
    @pytest.mark.parametrize("name", ["conv_net", "mlp"])
    def test_data_of_another_kind_are_one_finding_at_the_input(
        self, name: str, nets: dict[str, Path], tmp_path: Path
    ) -> None:
        path = nets[f"{name}_int8"]
        feeds = [{"x": 3 * feed["x"] + 1} for feed in quantised.feeds_for(path, 4, first=100)]
        found = inspect_quantisation(path, feeds, calibration=quantised.feeds_for(path, 4), cache_dir=tmp_path)
        drifts = [each for each in found.findings if each.rule == "quantisation.drift"]

        assert len(drifts) == 1
        assert drifts[0].where == "x"
        assert "from input 'x' on" in drifts[0].what
        assert "preprocessed in the same way" in drifts[0].remedy
        assert found.samples == 4 * len(feeds[0]["x"])

    def test_within_the_network(self, nets: dict[str, Path], tmp_path: Path) -> None:
        """Other words: the inputs are integers, and only what is looked up differs."""
        path = nets["encoder_int8"]
        feeds = quantised.feeds_for(path, 4, first=100)
        few = [{**feed, "ids": feed["ids"] % 2} for feed in feeds]
        found = inspect_quantisation(path, few, calibration=quantised.feeds_for(path, 4), cache_dir=tmp_path)

        assert "quantisation.drift" in {each.rule for each in found.findings}

    def test_without_calibration_data_nothing_is_said(self, nets: dict[str, Path], tmp_path: Path) -> None:
        found = look(nets["mlp_int8"], tmp_path)

        assert all(tensor.drift is None for tensor in found.tensors)


TENSORRT: dict[str, tuple[dict[str, Any], str]] = {
    "INT8": ({}, ""),
    "a zero point": ({"zero": 3}, "zero-point"),
    "UINT8 around 128": ({"dtype": "uint8", "zero": 128}, "zero-point"),
    "INT16": ({"dtype": "int16"}, "type"),
    "E4M3": ({"dtype": "fp8", "weight": "fp8"}, ""),
    "E5M2": ({"dtype": "e5m2", "weight": "e5m2"}, "type"),
    "a zero point of a weight": ({"weight_zero": 2}, "zero-point"),
    "UINT4 weights": ({"activation": False, "weight": "uint4"}, "type"),
    "INT4 weights": ({"activation": False, "weight": "int4"}, ""),
    "an INT32 bias": ({"bias": True}, "bias"),
}


class TestTensorRT:
    """What is said of TensorRT, against the parser and builder of TensorRT for RTX."""

    @pytest.mark.skipif(not is_installed("tensorrt_rtx"), reason="needs tensorrt_rtx")
    @pytest.mark.parametrize("case", sorted(TENSORRT))
    def test_what_it_refuses_is_said_before(self, case: str, tmp_path: Path) -> None:
        options, rule = TENSORRT[case]
        path = one_product(tmp_path / "q.onnx", **options)
        found = inspect_quantisation(path, cache_dir=tmp_path)
        said = {finding.rule for finding in found.findings if finding.severity == "warning"}

        assert said == ({f"quantisation.{rule}"} if rule else set())
        request = LoadOptions(runtime="tensorrt_rtx", cache_dir=tmp_path / "engines")
        if rule:
            with pytest.raises(EngineError, match="cannot build it"):
                load_engine(path, request)
        else:
            assert load_engine(path, request).layers

    @pytest.mark.skipif(not is_installed("tensorrt_rtx"), reason="needs tensorrt_rtx")
    def test_uint8_without_a_zero_point_is_read_as_int8(self, tmp_path: Path) -> None:
        path = one_product(tmp_path / "q.onnx", dtype="uint8", weight="uint8")
        feed = {"x": np.linspace(0, 0.03 * 250, 128, dtype=np.float32).reshape(2, 64)}
        found = inspect_quantisation(path, [feed], cache_dir=tmp_path)
        (said,) = (each for each in found.findings if "UINT8" in each.what)
        engine = load_engine(path, LoadOptions(runtime="tensorrt_rtx", cache_dir=tmp_path / "engines"))

        assert "clips at half of this range, and values reach 98% of it" in said.what
        assert any("Defaulting to INT8" in record.message for record in engine.records)

    @pytest.mark.skipif(not is_installed("tensorrt_rtx"), reason="needs tensorrt_rtx")
    @pytest.mark.parametrize(("axis", "across"), [(0, True), (1, False)])
    def test_scales_along_another_axis_than_the_outputs(self, axis: int, across: bool, tmp_path: Path) -> None:
        path = one_product(tmp_path / "q.onnx", weight_axis=axis)
        found = inspect_quantisation(path, cache_dir=tmp_path)
        engine = load_engine(path, LoadOptions(runtime="tensorrt_rtx", cache_dir=tmp_path / "engines"))

        assert ("quantisation.axis" in {each.rule for each in found.findings}) == across
        assert (engine.layer("/MatMul").kind == "gemm") == (not across)


class TestModels:
    def test_an_engine_that_was_converted_knows_its_original(self, nets: dict[str, Path], tmp_path: Path) -> None:
        feeds = quantised.feeds_for(nets["conv_net"], 2)
        options = LoadOptions(runtime="onnxruntime", cache_dir=tmp_path, precision="int8", calibration=tuple(feeds))
        engine = load_engine(nets["conv_net"], options)
        found = inspect_quantisation(engine, feeds, cache_dir=tmp_path)

        assert faults(found) == []
        assert found.model == "q_conv_net.onnx"
        assert found.left_out == {}

    def test_stored_weights_against_the_original(self, nets: dict[str, Path], tmp_path: Path) -> None:
        path = by_default(nets["mlp"], tmp_path / "q.onnx", symmetric=True)
        alone, beside = look(path, tmp_path), look(path, tmp_path, reference=nets["mlp"])

        for tensor in alone.tensors:
            if tensor.role == "weight":
                assert math.isnan(tensor.snr_db)
                assert 35 < beside.tensor(tensor.node).snr_db < 60

    def test_external_weights(self, nets: dict[str, Path], tmp_path: Path) -> None:
        path = models.external(nets["mlp_int8"], tmp_path / "external.onnx")

        assert [tensor.snr_db for tensor in look(path, tmp_path).tensors] == [
            tensor.snr_db for tensor in look(nets["mlp_int8"], tmp_path).tensors
        ]

    def test_without_inputs_only_weights(self, nets: dict[str, Path], tmp_path: Path) -> None:
        found = inspect_quantisation(nets["conv_net_int8"], cache_dir=tmp_path)

        assert {tensor.role for tensor in found.tensors} == {"weight"}
        assert [each.rule for each in found.findings] == ["quantisation.no-inputs"]
        found.check()

    def test_inputs_that_need_not_be_typical(self, nets: dict[str, Path], tmp_path: Path) -> None:
        path = nets["conv_net_int8"]
        for node in ("/stem/Relu_output_QuantizeLinear", "layer0.conv1.weight_QuantizeLinear"):
            path = quantised.rescale(path, tmp_path / "bad.onnx", node, 1 / 8)
        found = look(path, tmp_path, representative=False)

        assert faults(found) == [("layer0.conv1.weight_QuantizeLinear", "quantisation.clipped")]
        assert "/stem/Relu_output_QuantizeLinear" in [each.where for each in found.findings]

    def test_no_more_time(self, nets: dict[str, Path], tmp_path: Path) -> None:
        found = look(nets["conv_net_int8"], tmp_path, time_limit_s=0.0)

        assert found.tensors == ()
        assert set(found.left_out) == set(quantised.quantisers(nets["conv_net_int8"]))
        assert "12 Q/DQ nodes not inspected" in found.findings[0].what

    def test_no_more_than_the_budget_is_held(
        self, nets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        held: list[int] = []
        infer = OnnxRuntimeEngine._infer

        def watched(engine: OnnxRuntimeEngine, arrays: dict[str, Any]) -> dict[str, Any]:
            outputs = infer(engine, arrays)
            held.append(sum(array.nbytes for array in outputs.values()))
            return outputs

        monkeypatch.setattr(OnnxRuntimeEngine, "_infer", watched)
        whole = look(nets["conv_net_int8"], tmp_path, count=1)
        most, held[:] = max(held), []
        parts = look(nets["conv_net_int8"], tmp_path, count=1, budget_bytes=40_000)

        assert parts == whole
        assert max(held) <= 40_000 < most

    def test_a_model_without_qdq_nodes(self, nets: dict[str, Path], tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="has no Q/DQ nodes") as caught:
            inspect_quantisation(nets["mlp"], cache_dir=tmp_path)
        assert "precision='int8'" in caught.value.remedy

    def test_an_input_that_does_not_fit(self, nets: dict[str, Path], tmp_path: Path) -> None:
        with pytest.raises(ShapeError):
            inspect_quantisation(nets["mlp_int8"], [{"x": np.ones((2, 9), np.float32)}], cache_dir=tmp_path)
        with pytest.raises(ShapeError, match=r"no input \['z'\]"):
            inspect_quantisation(nets["mlp_int8"], [{"z": np.ones((2, 8), np.float32)}], cache_dir=tmp_path)

    def test_scales_that_the_model_computes(self, tmp_path: Path) -> None:
        graph = models.Graph()
        x = graph.input("x", [2, 8])
        scale = graph.add("ReduceMax", [x], "/ReduceMax", keepdims=0)
        zero = graph.constant("zero", np.int8(0))
        quantised_x = graph.add("QuantizeLinear", [x, scale, zero], "/Q")
        x = graph.add("DequantizeLinear", [quantised_x, scale, zero], "/DQ")
        graph.add("MatMul", [x, graph.weight("w", 8, 4)], "/MatMul", "y")
        graph.output("y", [2, 4])
        found = inspect_quantisation(
            graph.save(tmp_path / "q.onnx"), [{"x": np.ones((2, 8), np.float32)}], cache_dir=tmp_path
        )

        assert found.tensors == ()
        assert found.left_out == {"/Q": "the model computes its scales"}
        assert faults(found) == []


def every(names: Sequence[str], count: int) -> list[str]:
    """``count`` of the names, from the first to the last."""
    return [names[index * (len(names) - 1) // (count - 1)] for index in range(min(count, len(names)))]


def one(shadow: Shadow, feed: Any, name: str) -> Any:
    from pytest_trtgray.accuracy.activations import activations

    ((_, values),) = activations(shadow, feed, [name])
    return values


def by_default(source: Path, path: Path, *, symmetric: bool = False, pairs: bool = False) -> Path:
    """Quantised with ONNX Runtime's defaults: one scale a tensor, stored weights, INT32 biases.

    Args:
        source: the FP32 model.
        path: of the quantised one.
        symmetric: activations too.
        pairs: weights in FP32 with a Q/DQ pair.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    feeds = iter(quantised.feeds_for(source, 4))

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Any:
            feed = next(feeds, None)
            return None if feed is None else dict(feed)

    options = {"ActivationSymmetric": symmetric, "AddQDQPairToWeight": pairs}
    quantize_static(str(source), str(path), Reader(), quant_format=QuantFormat.QDQ, extra_options=options)
    return path


def int4(path: Path, *, block: int = 0, factor: float = 1.0, dtype: str = "int4") -> Path:
    """``y = x @ w`` (32 to 16) with weights stored in INT4 (or INT8), per channel or in blocks of rows.

    ``factor`` is on the scales.
    """
    values = np.random.default_rng(1).standard_normal((32, 16)).astype(np.float32)
    largest = 7 if dtype == "int4" else 127
    peaks = np.abs(values).reshape(-1, block or 32, 16).max(axis=1)
    scale = (factor * peaks / largest).astype(np.float32)
    codes = np.clip(np.rint(values / np.repeat(scale, block or 32, axis=0)), -largest - 1, largest)
    kind = TensorProto.INT4 if dtype == "int4" else TensorProto.INT8
    graph = models.Graph()
    x = graph.input("x", ["batch", 32])
    graph.weights.append(helper.make_tensor("w_q", kind, values.shape, codes.astype(int).ravel().tolist()))
    scales = graph.constant("w_scale", scale if block else scale[0])
    attributes: dict[str, Any] = {"axis": 0, "block_size": block} if block else {"axis": 1}
    weight = graph.add("DequantizeLinear", ["w_q", scales], "/w/DQ", **attributes)
    graph.add("MatMul", [x, weight], "/MatMul", "y")
    graph.output("y", ["batch", 16])
    return graph.save(path, models.BLOCKED_OPSET, models.BLOCKED_IR)


KINDS = {
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "int16": TensorProto.INT16,
    "uint4": TensorProto.UINT4,
    "int4": TensorProto.INT4,
    "fp8": TensorProto.FLOAT8E4M3FN,
    "e5m2": TensorProto.FLOAT8E5M2,
}


def one_product(
    path: Path,
    *,
    activation: bool = True,
    dtype: str = "int8",
    zero: int = 0,
    weight: str = "int8",
    weight_zero: int = 0,
    weight_axis: int | None = None,
    bias: bool = False,
) -> Path:
    """``y = x @ w`` over (2, 64), both quantised; a convolution with ``bias``, which then is INT32."""
    graph = models.Graph()
    x = graph.input("x", [2, 16, 8, 8] if bias else [2, 64])

    def pair(tensor: str, kind: str, zero: int, scale: Any, axis: int | None = None) -> str:
        name = graph.constant(f"{tensor}_scale", np.asarray(scale, np.float32))
        size = np.size(scale)
        zeros = helper.make_tensor(f"{tensor}_zero", KINDS[kind], np.shape(scale), [zero] * size)
        graph.weights.append(zeros)
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        codes = graph.add("QuantizeLinear", [tensor, name, f"{tensor}_zero"], f"/{tensor}/Q", **attributes)
        return graph.add("DequantizeLinear", [codes, name, f"{tensor}_zero"], f"/{tensor}/DQ", **attributes)

    values = graph.rng.standard_normal((16, 16, 3, 3) if bias else (64, 64)).astype(np.float32)
    values = np.abs(values) if weight.startswith("u") else values
    largest = {"uint4": 15, "int4": 7}.get(weight, 127)
    scale = np.abs(values).max() / largest
    scales: Any = scale if weight_axis is None else np.full(64, scale)
    w = pair(graph.constant("w", values), weight, weight_zero, scales, weight_axis)
    x = pair(x, dtype, zero, 0.03) if activation else x
    if bias:
        graph.weights.append(helper.make_tensor("b", TensorProto.INT32, [16], [0] * 16))
        graph.weights.append(helper.make_tensor("b_zero", TensorProto.INT32, [16], [0] * 16))
        scale_name = graph.constant("b_scale", np.full(16, 0.01, np.float32))
        b = graph.add("DequantizeLinear", ["b", scale_name, "b_zero"], "/b/DQ", axis=0)
        graph.add("Conv", [x, w, b], "/Conv", "y", pads=[1, 1, 1, 1])
    else:
        graph.add("MatMul", [x, w], "/MatMul", "y")
    graph.output("y", [2, 16, 8, 8] if bias else [2, 64])
    return graph.save(path, models.BLOCKED_OPSET, models.BLOCKED_IR)
