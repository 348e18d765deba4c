from __future__ import annotations

import pytest

from pytest_trtgray.engines.kernels import generated_ops, is_matrix_kernel, moves_data, tactic_family
from tests import recordings
from tests.unit.helpers import layer


class TestOfRecordedEngines:
    @pytest.mark.parametrize(
        ("recorded", "products", "copies"),
        [
            # 12 blocks: projections in one product, output, and the two of the feed-forward part; attention in FP16
            ("rtx17_bert_base_fp16", 12 * 5, 2),
            ("rtx17_bert_base", 12 * 6, 12 * 4 + 2),
            ("rtx17_resnet50", 54, 3),
            ("trt85_resnet50_fp16", 54, 97),
        ],
    )
    def test_counts(self, recorded: str, products: int, copies: int) -> None:
        read = recordings.log_layers(recorded)

        assert sum(map(is_matrix_kernel, read)) == products
        assert sum(map(moves_data, read)) == copies

    @pytest.mark.parametrize("recorded", ["rtx15_bert_base", "rtx17_resnet50_int8", "trt85_resnet50_int8"])
    def test_no_layer_is_both(self, recorded: str) -> None:
        assert not any(is_matrix_kernel(each) and moves_data(each) for each in recordings.log_layers(recorded))


class TestKinds:
    @pytest.mark.parametrize(
        ("kind", "name"),
        [
            ("gemm", "/fc/MatMul_myl0_1"),
            ("correlation", "/conv/Conv_myl0_1"),
            ("CaskConvolution", "conv1"),
            ("CaskGemmConvolution", "fc"),
            ("MatrixMultiply", "fc"),
            ("FullyConnected", "fc"),
            ("FusedGemm", "fc"),
            ("FusedConv", "conv"),
            ("runtime_fusion", "__myl_FcAdd_myl0_1"),
            ("kgen", "_gemm_mha_v2_myl1_7"),
            ("kgen", "__myl_FcRelu_myl0_2"),
        ],
    )
    def test_products(self, kind: str, name: str) -> None:
        assert is_matrix_kernel(layer(name, "n", kind=kind))

    @pytest.mark.parametrize(
        ("kind", "name"),
        [
            ("Reformat", "Reformatting CopyNode for Input Tensor 0 to conv1"),
            ("NoOp", "reshape_after_/fc/Gemm"),
            ("ReorderInput", "x"),
            ("kgen", "__myl_MoveReplConc_myl1_4"),
            ("kgen", "__myl_Tran_myl1_12"),
            ("kgen", "__myl_Cast_myl0_0"),
            ("ShapeHostToDevice", "[ShapeHostToDeviceCopy 0]"),
            ("shape_call", "__mye5_myl1_0"),
        ],
    )
    def test_copies(self, kind: str, name: str) -> None:
        assert moves_data(layer(name, kind=kind))

    @pytest.mark.parametrize(
        ("kind", "name"),
        [("kgen", "__myl_AddReshTran_myl1_3"), ("kgen", "__myl_Gath_myl0_1"), ("maxpool", "/pool"), ("Convert", "x")],
    )
    def test_neither(self, kind: str, name: str) -> None:
        made = layer(name, kind=kind)

        assert not is_matrix_kernel(made)
        assert not moves_data(made)


@pytest.mark.parametrize(
    ("name", "ops"),
    [
        ("__myl_AddAddMeanSub_myl1_14", ["Add", "Add", "Mean", "Sub"]),
        ("__myl_CastReshEtc_myl1_7", ["Cast", "Resh", "Etc"]),
        ("[profile 1] __myl_Fc_myl1_7", []),
        ("/encoder/MatMul_myl1_2", []),
        ("", []),
    ],
)
def test_operators_of_a_generated_kernel(name: str, ops: list[str]) -> None:
    assert generated_ops(name) == ops


def test_a_tactic_without_the_hash_of_its_code() -> None:
    assert tactic_family("__myl_Add_0x66260b466eedee0c204a97b7c0cc6fed_vec") == "__myl_Add_vec"
    assert tactic_family("sm80_xmma_gemm_0x1") == "sm80_xmma_gemm_0x1"
