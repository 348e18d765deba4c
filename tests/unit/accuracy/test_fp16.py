from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper
from onnx.reference import ReferenceEvaluator

from pytest_trtgray.accuracy.fp16 import OVERFLOWS_FROM, Fp16Ranges, _Range, fp16_ranges
from pytest_trtgray.engines.precision import convert
from tests import models, quantised

RNG = np.random.default_rng(8)


def rules(found: Fp16Ranges, severity: str = "warning") -> list[tuple[str, str]]:
    return [(each.where, each.rule) for each in found.findings if each.severity == severity]


class TestHealthy:
    @pytest.mark.parametrize("name", ["mlp", "conv_net", "encoder"])
    @pytest.mark.parametrize("half", [False, True])
    def test_nothing_is_wrong(self, name: str, half: bool, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        path: Path = request.getfixturevalue(name)
        feeds = quantised.feeds_for(path, 2)
        if half:
            path = models.to_fp16(path, tmp_path / "half.onnx")
        found = fp16_ranges(path, feeds, cache_dir=tmp_path)

        assert found.findings == ()
        assert found.ok
        found.check()
        assert {tensor.role for tensor in found.tensors} == {"weight", "activation"}
        assert all(tensor.overflow == 0 for tensor in found.tensors)

    def test_a_norm_that_is_spelled_out(self, tmp_path: Path) -> None:
        """Its epsilon is subnormal, and survives."""
        path = models.encoder(tmp_path / "net.onnx", fused_norm=False)
        found = fp16_ranges(path, quantised.feeds_for(path, 2), cache_dir=tmp_path)

        assert found.findings == ()
        assert {"ReduceMean", "Softmax"} <= {each.op_type for each in found.accumulations}


class TestNumbers:
    @given(values=hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(width=32, allow_nan=False)))
    def test_the_shares_are_those_of_the_conversion(self, values: Any) -> None:
        found = _Range()
        found.add(values)
        row = found.row("t", "n", "Op", "activation")
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        finite = np.isfinite(values)
        small = (values != 0) & (np.abs(values) < 2.0**-14)
        vanish = (values != 0) & (half == 0) & (np.abs(values) != 2.0**-25)

        assert row.overflow == np.mean(finite & ~np.isfinite(half))
        assert row.subnormal == pytest.approx(
            np.mean(small & (np.abs(values) >= 2.0**-129)), abs=1.0 / len(values)
        ) or (row.subnormal == np.mean(small))
        assert row.flushed == pytest.approx(np.mean(vanish), abs=np.mean(np.abs(values) < 2.0**-126))
        assert (row.low, row.high) == ((values[finite].min(), values[finite].max()) if finite.any() else (0, 0))

    @pytest.mark.parametrize("factor", [1.0, 1e3, 1e-3, 1e-5, 1e-6, 3e-7])
    def test_the_signal_to_noise_is_that_of_the_conversion(self, factor: float) -> None:
        values = (RNG.standard_normal(50_000) * factor).astype(np.float32)
        found = _Range()
        found.add(values)
        errors = values.astype(np.float64) - values.astype(np.float16).astype(np.float64)
        ratio = 10 * np.log10(np.sum(values.astype(np.float64) ** 2) / np.sum(errors**2))

        assert found.row("t", "n", "Op", "weight").snr_db == pytest.approx(ratio, abs=1.0)


class TestFaults:
    def test_an_activation_that_overflows_is_named_once(self, tmp_path: Path) -> None:
        """And in FP16 it really becomes infinite."""
        graph = models.Graph()
        x = graph.input("x", [4, 16])
        large = graph.add("Mul", [x, graph.constant("thousand", np.float32(1e3))], "/Mul")
        larger = graph.add("Mul", [large, graph.constant("hundred", np.float32(100))], "/Mul_1")
        relu = graph.add("Relu", [larger], "/Relu")
        graph.add("MatMul", [relu, graph.weight("w", 16, 4, scale=1e-6)], "/MatMul", "y")
        graph.output("y", [4, 4])
        path = graph.save(tmp_path / "net.onnx")
        feed = {"x": RNG.standard_normal((4, 16)).astype(np.float32)}
        found = fp16_ranges(path, [feed], cache_dir=tmp_path)

        assert ("/Mul_1", "fp16.overflow") in rules(found)
        (finding,) = (each for each in found.findings if each.rule == "fp16.overflow")
        assert "/Mul_1 (Mul) gives '/Mul_1_output'" in finding.what
        assert "1 tensor after it overflow too" in finding.what
        assert "BF16" in finding.remedy
        with pytest.raises(AssertionError, match=r"net.onnx in FP16"):
            found.check()
        half = tmp_path / "half.onnx"
        half.write_bytes(convert(path, "fp16"))
        with np.errstate(all="ignore"):  # ONNX Runtime has no FP16 kernels for the CPU, ONNX's own evaluator has
            (y,) = ReferenceEvaluator(str(half)).run(None, feed)
        assert not np.isfinite(y).all()

    @pytest.mark.parametrize(("factor", "warns"), [(1.0, False), (30.0, False), (300.0, True)])
    def test_a_layer_norm_whose_squares_overflow(self, factor: float, warns: bool, tmp_path: Path) -> None:
        path = norm(tmp_path / "net.onnx", "LayerNormalization")
        feed = {"x": (factor * RNG.standard_normal((2, 8, 64))).astype(np.float32)}
        found = fp16_ranges(path, [feed], cache_dir=tmp_path)
        (inside,) = found.accumulations
        centred = feed["x"].astype(np.float64) - feed["x"].astype(np.float64).mean(-1, keepdims=True)

        assert rules(found) == ([("/Norm", "fp16.accumulation")] if warns else [])
        assert inside.largest_term == pytest.approx((centred**2).max())
        assert inside.largest_sum == pytest.approx((centred**2).sum(-1).max())
        # many terms that fit, and a sum that does not, is worth knowing
        summed = not warns and inside.largest_sum > 65504
        assert rules(found, "advice") == ([("/Norm", "fp16.accumulation")] if summed else [])

    def test_a_layer_norm_that_is_spelled_out(self, tmp_path: Path) -> None:
        source = models.encoder(tmp_path / "source.onnx", fused_norm=False, layers=1)
        path = models.scale_weight(source, tmp_path / "net.onnx", "embeddings.weight", 400.0)
        found = fp16_ranges(path, quantised.feeds_for(path, 1), cache_dir=tmp_path)

        assert ("/embeddings/LayerNorm/Square", "fp16.overflow") in rules(found)

    @pytest.mark.parametrize("op", ["InstanceNormalization", "GroupNormalization", "ReduceL2", "GlobalAveragePool"])
    def test_other_sums(self, op: str, tmp_path: Path) -> None:
        path = norm(tmp_path / "net.onnx", op)
        quiet = {"x": RNG.standard_normal((2, 8, 64)).astype(np.float32)}
        loud = {"x": np.abs(quiet["x"]) * np.float32(1500)}

        assert fp16_ranges(path, [quiet], cache_dir=tmp_path).findings == ()
        severity = "advice" if op == "GlobalAveragePool" else "warning"
        assert rules(fp16_ranges(path, [loud], cache_dir=tmp_path), severity)[0] == ("/Norm", "fp16.accumulation")

    @pytest.mark.parametrize("axes", [[0], [-1], [0, 2], None])
    def test_a_sum_over_any_axes(self, axes: Any, tmp_path: Path) -> None:
        graph = models.Graph()
        inputs = [graph.input("x", [3, 4, 5])]
        inputs += [graph.constant("axes", np.array(axes, np.int64))] if axes is not None else []
        graph.add("ReduceSum", inputs, "/Sum", "y", keepdims=1)
        graph.output("y", [None] * 3)  # type: ignore[list-item]
        x = RNG.standard_normal((3, 4, 5)).astype(np.float32)
        found = fp16_ranges(graph.save(tmp_path / "net.onnx"), [{"x": x}], cache_dir=tmp_path)

        wanted = np.abs(x.astype(np.float64)).sum(axis=None if axes is None else tuple(axes)).max()
        assert found.accumulations[0].largest_sum == pytest.approx(wanted)

    @pytest.mark.parametrize(("factor", "warns"), [(1.0, False), (1e-3, False), (1e-6, True), (1e-9, True)])
    def test_subnormal_weights(self, factor: float, warns: bool, mlp: Path, tmp_path: Path) -> None:
        path = models.scale_weight(mlp, tmp_path / "net.onnx", "fc0.weight", factor)
        found = fp16_ranges(path, cache_dir=tmp_path)

        assert rules(found) == ([("/fc0/MatMul", "fp16.subnormal")] if warns else [])
        assert "weight 'fc0.weight' of /fc0/MatMul" in found.findings[0].what if warns else not found.findings

    def test_weights_that_overflow(self, mlp: Path, tmp_path: Path) -> None:
        found = fp16_ranges(models.scale_weight(mlp, tmp_path / "net.onnx", "fc1.weight", 1e6), cache_dir=tmp_path)

        assert rules(found) == [("/fc1/MatMul", "fp16.weights")]

    def test_an_epsilon_that_vanishes_is_advice(self, tmp_path: Path) -> None:
        path = models.encoder(tmp_path / "source.onnx", fused_norm=False)
        for name in ("embeddings.LayerNorm.eps", "encoder.layer.0.output.LayerNorm.eps"):
            path = models.scale_weight(path, tmp_path / "net.onnx", name, 1e-7)
        found = fp16_ranges(path, quantised.feeds_for(path, 1), cache_dir=tmp_path)

        assert rules(found) == []
        assert rules(found, "advice") == [("/embeddings/LayerNorm/Add", "fp16.constant")]
        assert "2 constants such as 1e-12" in found.findings[0].what

    def test_many_are_a_bounded_number(self, encoder: Path, tmp_path: Path) -> None:
        path = encoder
        for tensor in onnx.load(str(encoder)).graph.initializer:
            if tensor.name.endswith("weight"):
                path = models.scale_weight(path, tmp_path / "net.onnx", tensor.name, 1e-7)
        found = fp16_ranges(path, cache_dir=tmp_path)

        assert len(found.findings) == 13
        assert found.findings[-1].rule == "fp16.more"


class TestMasks:
    """Large negative numbers before a Softmax are meant to vanish."""

    @pytest.mark.parametrize("low", [-1e4, -1e9, -3.4e38])
    def test_some_tokens(self, low: float, tmp_path: Path) -> None:
        path = masked(tmp_path / "net.onnx", low)
        (feed,) = quantised.feeds_for(path, 1)
        feed["mask"][:, :, :, 6:] = 0
        found = fp16_ranges(path, [feed], cache_dir=tmp_path)

        assert rules(found) == []
        assert [rule for _, rule in rules(found, "advice")] == (["fp16.mask"] if low < -OVERFLOWS_FROM else [])

    def test_all_tokens_of_a_row_give_nan(self, tmp_path: Path) -> None:
        path = masked(tmp_path / "net.onnx", -1e9)
        (feed,) = quantised.feeds_for(path, 1)
        feed["mask"][1] = 0
        found = fp16_ranges(path, [feed], cache_dir=tmp_path)

        assert [rule for _, rule in rules(found)] == ["fp16.softmax"] * 2
        assert found.findings[0].evidence["rows"] == 2 * 12  # of the two heads

    def test_a_mask_that_does_something_else_too(self, tmp_path: Path) -> None:
        graph = models.Graph()
        x = graph.input("x", [2, 4])
        mask = graph.add("Mul", [x, graph.constant("low", np.float32(-1e9))], "/Mul")
        graph.add("Softmax", [mask], "/Softmax", "y")
        graph.add("Exp", [mask], "/Exp", "z")
        graph.output("y", [2, 4])
        graph.output("z", [2, 4])
        feed = {"x": np.array([[0, 1, 0, 1], [0, 0, 1, 1]], np.float32)}
        found = fp16_ranges(graph.save(tmp_path / "net.onnx"), [feed], cache_dir=tmp_path)

        assert ("/Mul", "fp16.overflow") in rules(found)


def test_without_inputs_only_weights(mlp: Path, tmp_path: Path) -> None:
    assert {tensor.role for tensor in fp16_ranges(mlp, cache_dir=tmp_path).tensors} == {"weight"}


def test_infinity_in_fp32_is_no_matter_of_fp16(tmp_path: Path) -> None:
    graph = models.Graph()
    x = graph.input("x", [2, 4])
    graph.add("Add", [x, graph.constant("low", np.float32(-np.inf))], "/Add", "y")
    graph.output("y", [2, 4])
    found = fp16_ranges(graph.save(tmp_path / "net.onnx"), [{"x": np.ones((2, 4), np.float32)}], cache_dir=tmp_path)

    assert found.findings == ()


def masked(path: Path, low: float) -> Path:
    """The encoder with another number for masked tokens."""
    source = models.encoder(path.with_suffix(".source.onnx"))
    return models.scale_weight(source, path, "low", low / -1e4)


def norm(path: Path, op: str) -> Path:
    """``x`` (2, 8, 64) through one node, ``/Norm``."""
    graph = models.Graph()
    x = graph.input("x", [2, 8, 64])
    ones, zeros = np.ones, np.zeros
    size = {"LayerNormalization": 64, "InstanceNormalization": 8, "GroupNormalization": 8}.get(op, 0)
    inputs = [x]
    if size:
        inputs += [
            graph.constant("scale", ones(size, np.float32)),
            graph.constant("bias", zeros(size, np.float32)),
        ]
    attributes: dict[str, Any] = {"num_groups": 4} if op == "GroupNormalization" else {}
    graph.add(op, inputs, "/Norm", "y", **attributes)
    graph.outputs.append(helper.make_empty_tensor_value_info("y"))
    return graph.save(path, 21, 10)
