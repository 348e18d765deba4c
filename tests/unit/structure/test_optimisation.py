from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_trtgray.engines.layer_listing import layers_from_json
from pytest_trtgray.engines.model import EngineInfo, Layer, LayerTensor
from pytest_trtgray.findings import Finding
from pytest_trtgray.structure.optimisation import advice_on_layers
from tests import recordings
from tests.unit.helpers import layer

INFO = EngineInfo("net", "", "tensorrt", "10.3", (), (), ())


def advice(layers: list[Layer], **info: str) -> dict[str, Finding]:
    found = advice_on_layers(layers, replace(INFO, **info))  # type: ignore[arg-type]

    assert all(finding.severity == "advice" and finding.remedy for finding in found)
    return {finding.rule: finding for finding in found}


def tensors(*pairs: tuple[str, str]) -> tuple[LayerTensor, ...]:
    return tuple(LayerTensor(name, dtype) for name, dtype in pairs)


class TestRecordedEngines:
    @pytest.mark.parametrize("name", ["rtx17_bert_base_fp16", "rtx17_resnet50", "rtx17_resnet50_fp16",
                                      "trt85_resnet50_fp16", "trt85_resnet50_int8"])  # fmt: skip
    def test_nothing_to_say(self, name: str) -> None:
        assert advice(recordings.log_layers(name)) == {}

    @pytest.mark.parametrize("name", ["rtx15_bert_base", "rtx17_bert_base"])
    def test_attention_in_fp32(self, name: str) -> None:
        """TensorRT for RTX fuses it in FP16 only."""
        found = advice(recordings.log_layers(name))

        assert set(found) == {"structure.OPT-20"}
        assert found["structure.OPT-20"].evidence == {"layers": 12}
        assert "FP16" in found["structure.OPT-20"].remedy

    def test_a_quantised_resnet(self) -> None:
        """Four stages begin with a block whose two branches both end in a convolution that writes FP32."""
        found = advice(recordings.log_layers("rtx17_resnet50_int8"))

        assert set(found) == {"structure.OPT-10"}
        assert found["structure.OPT-10"].evidence == {"layers": 8}

    def test_another_runtime(self) -> None:
        assert advice(recordings.log_layers("rtx17_bert_base"), runtime="onnxruntime") == {}


class TestDetails:
    def test_an_engine_that_tells_names_only(self) -> None:
        listing = recordings.listing("trt85_resnet50_fp16")
        found = advice(layers_from_json({"Layers": [entry["Name"] for entry in listing["Layers"]]}))

        assert set(found) == {"structure.OPT-30"}
        assert found["structure.OPT-30"].evidence == {"layers": 153}

    def test_no_layers(self) -> None:
        assert advice([]) == {}


class TestPrecisionByName:
    @pytest.mark.parametrize(
        ("name", "dtype", "wanted"),
        [
            ("model_fp16", "float32", "float16"),
            ("rf-detr.FP16.b1", "float32", "float16"),
            ("resnet50-int8", "float16", "int8"),
            ("net_bf16", "float32", "bfloat16"),
        ],
    )
    def test_a_flag_that_nobody_honoured(self, name: str, dtype: str, wanted: str) -> None:
        finding = advice([layer("a", "conv", dtype=dtype)], name=name)["structure.OPT-32"]

        assert finding.evidence == {"wanted": wanted, "built": dtype}
        assert name in finding.what

    @pytest.mark.parametrize(
        ("name", "dtype"),
        [
            ("model_fp16", "float16"),
            ("model_fp16", "int8"),
            ("model_int8_fp16", "float32"),
            ("model", "float32"),
            ("fp16x", "float32"),
            ("model_fp16", ""),
        ],
    )
    def test_nothing_to_say(self, name: str, dtype: str) -> None:
        assert "structure.OPT-32" not in advice([layer("a", "conv", dtype=dtype)], name=name)


class TestResiduals:
    CONV = layer(
        "conv",
        "/b/Conv",
        kind="CaskConvolution",
        inputs=tensors(("x", "int8")),
        constants=tensors(("w", "int8")),
        outputs=tensors(("c", "float16")),
    )
    OTHER = layer("other", "/a/Relu", inputs=tensors(("x0", "float16")), outputs=tensors(("skip", "float16")))

    @staticmethod
    def add(*inputs: tuple[str, str]) -> Layer:
        return layer("add", "/b/Add", inputs=tensors(*inputs), outputs=tensors(("y", "float16")))

    def test_beside_an_addition(self) -> None:
        found = advice([self.OTHER, self.CONV, self.add(("c", "float16"), ("skip", "float16"))])

        assert found["structure.OPT-10"].where == "/b/Conv"

    def test_with_the_addition_fused(self) -> None:
        fused = replace(
            self.CONV,
            onnx_nodes=frozenset({"/b/Conv", "/b/Add"}),
            inputs=tensors(("x", "int8"), ("skip", "float16")),
        )

        assert set(advice([self.OTHER, fused])) == {"structure.OPT-10"}

    def test_a_bias_is_no_branch(self) -> None:
        bias = layer("bias", kind="Constant", outputs=tensors(("skip", "float16")), inputs=())

        assert advice([bias, self.CONV, self.add(("c", "float16"), ("skip", "float16"))]) == {}

    def test_a_quantised_branch(self) -> None:
        quantised = replace(self.OTHER, outputs=tensors(("skip", "int8")))

        assert advice([quantised, self.CONV, self.add(("c", "float16"), ("skip", "int8"))]) == {}

    def test_a_convolution_in_fp16(self) -> None:
        plain = replace(self.CONV, inputs=tensors(("x", "float16")))

        assert advice([self.OTHER, plain, self.add(("c", "float16"), ("skip", "float16"))]) == {}


class TestAttention:
    @staticmethod
    def block(softmax: Layer, *between: Layer) -> list[Layer]:
        first = layer("qk", "/a/MatMul", kind="gemm", outputs=tensors(("scores", "float32")))
        last = layer("av", "/a/MatMul_1", kind="gemm", inputs=tensors(("weights", "float32"), ("v", "float32")))
        return [first, softmax, *between, last]

    def test_a_softmax_between_two_products(self) -> None:
        softmax = layer(
            "s", "/a/Softmax", inputs=tensors(("scores", "float32")), outputs=tensors(("weights", "float32"))
        )

        assert set(advice(self.block(softmax))) == {"structure.OPT-20"}

    def test_with_a_copy_on_the_way(self) -> None:
        softmax = layer("s", "/a/Softmax", inputs=tensors(("scores", "float32")), outputs=tensors(("s", "float32")))
        copy = layer("__myl_Move_myl0_1", inputs=tensors(("s", "float32")), outputs=tensors(("weights", "float32")))

        assert set(advice(self.block(softmax, copy))) == {"structure.OPT-20"}

    def test_at_the_end_of_a_classifier(self) -> None:
        softmax = layer("s", "/a/Softmax", inputs=tensors(("scores", "float32")), outputs=tensors(("y", "float32")))

        assert advice(self.block(softmax)) == {}

    def test_projections_apart(self) -> None:
        made = [
            layer(
                part,
                f"/a/{part}/MatMul",
                f"/a/{part}/Add",
                kind="gemm",
                inputs=tensors(("x", "float16")),
                constants=tensors((f"w{part}", "float16")),
            )
            for part in ("query", "key", "value")
        ]

        assert "three or more products of one input" in advice(made)["structure.OPT-20"].what
        assert advice(made[:2]) == {}
