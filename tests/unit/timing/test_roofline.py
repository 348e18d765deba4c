from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pytest_trtgray.engines.costs import ModelCosts, model_costs
from pytest_trtgray.engines.model import Layer, LayerTensor
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.peaks import DevicePeak, peak_of
from pytest_trtgray.timing.roofline import Roofline, bound_of, rooflines
from tests import models, recordings
from tests.unit.helpers import layer

PEAK = DevicePeak(1e12, 10e12, {"tf32": 40e12, "float16": 100e12}, "made up")
"""A ridge at 100 operations a byte in FP16, 40 in TF32, 10 outside of tensor cores."""


@pytest.fixture
def costs(tmp_path: Path) -> ModelCosts:
    """``y = relu(x @ w)`` over (batch, 256) and 256 x 512, at batch 64."""
    graph = models.Graph()
    x = graph.input("x", ["batch", 256])
    product = graph.add("MatMul", [x, graph.weight("w", 256, 512)], "/fc/MatMul")
    graph.add("Relu", [product], "/fc/Relu", "y")
    graph.output("y", ["batch", 512])
    return model_costs(OnnxModel(graph.save(tmp_path / "fc.onnx")), {"x": (64, 256)})


def of(
    layers: list[Layer], costs: ModelCosts | None, peak: DevicePeak | None = PEAK, **options: bool
) -> list[Roofline]:
    return list(rooflines(layers, costs, peak, device="a GPU", **{"tf32": True, **options}))


def half(made: Layer) -> Layer:
    """The same layer on FP16 operands."""
    return replace(made, constants=(LayerTensor("w", "float16"),))


class TestOneLayer:
    def test_a_fused_product(self, costs: ModelCosts) -> None:
        (found,) = of([layer("fc", "/fc/MatMul", "/fc/Relu", kind="gemm", dtype="float32")], costs)
        product, moved = 2 * 64 * 256 * 512 + 64 * 512, 4 * (64 * 256 + 256 * 512 + 64 * 512)

        assert (found.flops, found.bytes_moved) == (product, moved)
        assert (found.weights_bytes, found.written_bytes) == (4 * 256 * 512, 4 * 64 * 512)
        assert found.intensity == pytest.approx(product / moved)
        assert found.bound == "memory"  # 23 operations a byte, the ridge of TF32 is at 40
        assert found.roof_us == pytest.approx(moved / 1e12 * 1e6)

    def test_bytes_are_those_of_the_engines_types(self, costs: ModelCosts) -> None:
        """The model is FP32 and the engine was built in FP16."""
        (found,) = of([half(layer("fc", "/fc/MatMul", "/fc/Relu", kind="gemm", dtype="float16"))], costs)

        assert found.bytes_moved == 2 * (64 * 256 + 256 * 512 + 64 * 512)

    def test_without_tf32(self, costs: ModelCosts) -> None:
        made = [layer("fc", "/fc/MatMul", "/fc/Relu", kind="gemm", dtype="float32")]

        assert of(made, costs, tf32=False)[0].bound == "compute"

    def test_a_pointwise_layer(self, costs: ModelCosts) -> None:
        first, second = of([layer("fc", "/fc/MatMul", kind="gemm"), layer("__myl_Relu_myl0_1", "/fc/Relu")], costs)

        assert first.written_bytes == 4 * 64 * 512
        assert (second.flops, second.bytes_moved) == (64 * 512, 2 * 4 * 64 * 512)
        assert second.bound == "memory"

    def test_a_product_counts_in_its_own_kernel(self, costs: ModelCosts) -> None:
        """Copies of its operands and the kernel that reads it list the node too."""
        made = [
            layer("__myl_MoveRepl_myl0_0", "/fc/MatMul"),
            layer("__myl_AddRelu_myl0_2", "/fc/MatMul", "/fc/Relu"),
            layer("/fc/MatMul_myl0_1", "/fc/MatMul", kind="gemm"),
        ]
        copy, pointwise, product = of(made, costs)

        assert product.flops == 2 * 64 * 256 * 512
        assert pointwise.flops == 64 * 512
        assert copy == Roofline(reason="it works for nodes that are counted in another layer")

    def test_an_embedding_reads_rows_not_the_table(self, tmp_path: Path) -> None:
        model = OnnxModel(models.encoder(tmp_path / "encoder.onnx", vocabulary=10_000))
        costs = model_costs(model, {"ids": (2, 8), "mask": (2, 1, 1, 8)})
        (found,) = of([layer("gather", "/embeddings/Gather")], costs)

        assert found.weights_bytes == found.written_bytes == 2 * 8 * 16 * 4


class TestUnknown:
    @pytest.mark.parametrize(
        ("made", "reason"),
        [
            (layer("copy", kind="Reformat"), "it has no ONNX node"),
            (layer("x", "/other"), "the model has no node '/other'"),
            (layer("fc", "/fc/MatMul", kind="gemm", dtype="int8"), "no published rate of a GPU for int8"),
        ],
    )
    def test_reasons(self, costs: ModelCosts, made: Layer, reason: str) -> None:
        (found,) = of([made], costs)

        assert (found.bound, found.reason) == ("unknown", reason)

    def test_without_a_model(self) -> None:
        (found,) = of([layer("x", "x")], None)

        assert (found.bound, found.reason) == ("unknown", "the ONNX model is not known")

    def test_of_a_device_that_is_not_listed(self, costs: ModelCosts) -> None:
        """Operations and bytes are those of the model, wherever it runs."""
        (found,) = of([layer("fc", "/fc/MatMul", kind="gemm")], costs, None)

        assert (found.bound, found.roof_us) == ("unknown", None)
        assert found.reason == "the peaks of a GPU are not known"
        assert found.flops == 2 * 64 * 256 * 512

    def test_of_shapes_that_are_not_known(self, tmp_path: Path) -> None:
        costs = model_costs(OnnxModel(models.unary(tmp_path / "relu.onnx", "Relu")), {})
        (found,) = of([layer("relu", "/Relu")], costs)

        assert (found.bound, found.reason) == ("unknown", "the shapes of /Relu are not known")

    def test_a_cast_of_the_converter_does_not_matter(self, costs: ModelCosts) -> None:
        (found,) = of([layer("fc", "/fc/MatMul", "graph_input_cast0", kind="gemm")], costs)

        assert found.bound == "memory"


def test_what_bounds_several_layers() -> None:
    compute, memory, unknown = (Roofline(bound) for bound in ("compute", "memory", "unknown"))

    assert bound_of([(compute, 3.0), (memory, 2.0)]) == "compute"
    assert bound_of([(compute, 1.0), (memory, 2.0), (unknown, 2.0)]) == "memory"
    assert bound_of([(compute, 1.0), (unknown, 2.0)]) == "unknown"
    assert bound_of([]) == "unknown"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Layer, Roofline, float]]:
    model = OnnxModel(recordings.model("bert_base", tmp_path_factory.mktemp("bert")))
    times = recordings.H200()
    us = np.median(np.concatenate(list(times.layer_us["a"])), axis=0)
    layers = recordings.bert_layers()
    costs = model_costs(model, {"ids": (8, 128), "mask": (8, 128)})
    lines = rooflines(layers, costs, peak_of("NVIDIA H200"), device="NVIDIA H200", tf32=True)
    return list(zip(layers, lines, us.tolist(), strict=True))


class TestBertBaseOnAnH200:
    """A recorded run: FP16, batch 8, 128 tokens, TensorRT for RTX 1.5."""

    def test_everything_with_a_node_is_known(self, found: list[tuple[Layer, Roofline, float]]) -> None:
        reasons = Counter(line.reason for _, line, _ in found)

        assert reasons == {"": 122, "it has no ONNX node": 2, "it works for nodes that are counted in another layer": 1}

    def test_the_model_is_counted_once(self, found: list[tuple[Layer, Roofline, float]]) -> None:
        assert sum(line.flops or 0 for _, line, _ in found) / 1e9 == pytest.approx(179.4, abs=0.1)
        # the engine itself reports 217,558,272 bytes of weights; of its tables it reads some rows
        tables, rows = 2 * 768 * (30522 + 512 + 2), 2 * 768 * (8 * 128 + 128)
        weights = sum(line.weights_bytes or 0 for _, line, _ in found)
        assert weights == pytest.approx(217_558_272 - tables + rows, rel=0.005)

    def test_products_are_bound_by_arithmetic(self, found: list[tuple[Layer, Roofline, float]]) -> None:
        of_kind = {
            kind: {line.bound for each, line, _ in found if each.kind == kind and line.reason == ""}
            for kind in ("gemm", "runtime_fusion", "kgen")
        }

        assert of_kind == {"gemm": {"compute"}, "runtime_fusion": {"compute"}, "kgen": {"memory"}}

    def test_no_layer_is_faster_than_its_roof(self, found: list[tuple[Layer, Roofline, float]]) -> None:
        assert all(line.roof_us <= us for _, line, us in found if line.roof_us is not None)
