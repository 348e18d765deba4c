from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.engines.layer_listing import layers_from_json, layers_from_rows
from pytest_trtgray.engines.model import Layer, LayerTensor
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.profiles import ShapeRequest, parse_shapes, resolve_profiles
from pytest_trtgray.structure.changes import MAX_EACH, MAX_NODES
from pytest_trtgray.structure.diff import StructureDiff, diff
from tests import models, recordings
from tests.unit.helpers import layer, ort_engine
from tests.unit.strategies import engines, layers

SHAPES = "ids:2x8,mask:2x1x1x8"
Builder = Callable[[Path, str], list[Layer]]


def rules(found: StructureDiff) -> list[str]:
    return [finding.rule for finding in found.findings]


def errors(found: StructureDiff) -> list[str]:
    return [finding.rule for finding in found.findings if finding.severity == "error"]


def ort_layers(path: Path, shapes: str = "") -> list[Layer]:
    return list(ort_engine(path, shapes).layers)


def rtx_layers(path: Path, shapes: str = "") -> list[Layer]:
    pytest.importorskip("tensorrt_rtx")
    from pytest_trtgray.engines.building import BuildRequest, build

    model = OnnxModel(path)
    requests = [ShapeRequest(*(parse_shapes(shapes),) * 3)] if shapes else []
    profiles, _ = resolve_profiles(model.inputs, requests)
    return layers_from_rows(build(model, BuildRequest("tensorrt_rtx", profiles))[1]["layers"])


class TestTheSame:
    @given(st.lists(layers(), max_size=8))
    def test_an_engine_and_itself(self, made: list[Layer]) -> None:
        found = diff(made, made)

        assert found.ok
        assert found.findings == ()
        assert found.added_nodes == found.removed_nodes == ()
        found.check()

    @given(engines(), st.integers(1, 5))
    def test_positional_names(self, chain: list[Layer], by: int) -> None:
        moved = [replace(each, name=f"{each.name[:-1]}{index + by}") for index, each in enumerate(chain)]

        assert diff(chain, moved).findings == ()

    @pytest.mark.parametrize("build", [ort_layers, rtx_layers])
    def test_two_builds_of_one_model(self, build: Builder, conv_net: Path, encoder: Path) -> None:
        assert diff(build(conv_net, ""), build(conv_net, "")).findings == ()
        assert diff(build(encoder, SHAPES), build(encoder, SHAPES)).findings == ()

    @pytest.mark.parametrize("build", [ort_layers, rtx_layers])
    def test_retrained_weights(self, build: Builder, mlp: Path, tmp_path: Path) -> None:
        other = models.scale_weight(mlp, tmp_path / "retrained.onnx", "fc0.weight", 1.5)

        assert diff(build(mlp, ""), build(other, "")).findings == ()


class TestInsertedNodes:
    @pytest.mark.parametrize("build", [ort_layers, rtx_layers])
    @pytest.mark.parametrize(
        "before",
        [
            "/encoder/layer.0/attention/query/MatMul",
            "/encoder/layer.0/attention/output/MatMul",
            "/encoder/layer.0/intermediate/MatMul",
            "/encoder/layer.1/output/MatMul",
        ],
    )
    def test_into_an_encoder(self, build: Builder, before: str, encoder: Path, tmp_path: Path) -> None:
        longer = models.insert_matmul(encoder, tmp_path / "longer.onnx", before=before)
        old, new = build(encoder, SHAPES), build(longer, SHAPES)
        there, back = diff(old, new), diff(new, old)

        assert there.added_nodes == ("/inserted/MatMul",)
        assert there.removed_nodes == ()
        assert errors(there) == ["structure.node-added"]
        assert back.removed_nodes == ("/inserted/MatMul",)
        assert errors(back) == ["structure.node-removed"]

    @pytest.mark.parametrize("build", [ort_layers, rtx_layers])
    @pytest.mark.parametrize("before", ["/fc0/MatMul", "/fc1/MatMul", "/fc2/MatMul"])
    def test_into_a_network_without_names(self, build: Builder, before: str, tmp_path: Path) -> None:
        """Names come from outputs, which stay here; only the inserted node is new."""
        plain = models.mlp(tmp_path / "mlp.onnx", layers=3)
        longer = models.insert_matmul(plain, tmp_path / "longer.onnx", before=before)
        old, new = (models.unnamed(path, tmp_path / f"u_{path.name}") for path in (plain, longer))
        found = diff(build(old, ""), build(new, ""))

        assert found.added_nodes == ("node_of_/inserted/MatMul_output",)
        assert errors(found) == ["structure.node-added"]

    @given(engines(min_layers=1), st.data())
    def test_into_a_chain(self, chain: list[Layer], data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(chain)))
        inserted = layer("__myl_Fc_myl0_99", "/inserted/MatMul", kind="gemm", dtype="float16")
        found = diff(chain, [*chain[:place], inserted, *chain[place:]])

        assert [(finding.rule, finding.where) for finding in found.findings] == [
            ("structure.node-added", "/inserted/MatMul")
        ]
        assert not found.ok

    def test_a_fusion_that_broke_because_of_it_is_no_second_change(self) -> None:
        old = [layer("a", "conv", "relu"), layer("b", "pool")]
        new = [layer("a", "conv"), layer("x", "inserted"), layer("b", "relu"), layer("c", "pool")]

        assert errors(diff(old, new)) == ["structure.node-added"]

    def test_a_fusion_far_away_is_one(self) -> None:
        rest = [layer(f"r{index}", f"r{index}") for index in range(4)]
        old = [layer("b", "pool"), *rest, layer("a", "conv", "relu")]
        new = [layer("x", "inserted"), layer("b", "pool"), *rest, layer("a", "conv"), layer("c", "relu")]

        assert errors(diff(old, new)) == ["structure.node-added", "structure.fusion-lost"]

    def test_another_model_is_told_shortly(self) -> None:
        old, new = ([layer(f"{side}{i}", f"/{side}/n{i:03}") for i in range(200)] for side in "ab")
        found = diff(old, new)

        assert rules(found) == ["structure.node-added"] * (MAX_NODES + 1) + ["structure.node-removed"] * (MAX_NODES + 1)
        assert found.findings[MAX_NODES].what == "175 more ONNX nodes are new: /b/n025, /b/n026, /b/n027 and 172 more"
        assert len(found.added_nodes) == len(found.removed_nodes) == 200

    def test_the_finding_names_what_it_is_fused_with(self) -> None:
        (finding,) = diff([layer("a", "conv")], [layer("a", "conv", "inserted", kind="gemm")]).findings

        assert finding.what == "ONNX node 'inserted' is new (gemm float32, fused with conv)"
        assert finding.evidence == {"layer": "a", "kind": "gemm", "precision": "float32"}
        assert "--update-baselines" in finding.remedy


class TestFusions:
    def test_two_layers_became_one(self) -> None:
        old = [layer("a", "conv"), layer("b", "relu"), layer("z", "pool")]
        new = [layer("a", "conv", "relu"), layer("z", "pool")]
        (finding,) = diff(old, new).findings

        assert finding.rule == "structure.fusion-changed"
        assert finding.what == "fusion changed: 2 -> 1 layers\nbefore: conv | relu\nafter:  conv + relu"
        assert finding.evidence == {"layers_before": 2, "layers_after": 1}

    @given(engines(min_layers=2), st.data())
    def test_any_two_neighbours(self, chain: list[Layer], data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(chain) - 2))
        first, second = chain[place : place + 2]
        fused = replace(first, onnx_nodes=first.onnx_nodes | second.onnx_nodes)
        new = [*chain[:place], fused, *chain[place + 2 :]]

        assert errors(diff(chain, new)) == ["structure.fusion-changed"]
        assert errors(diff(new, chain)) == ["structure.fusion-lost"]

    def test_a_lost_fusion(self) -> None:
        (finding,) = diff([layer("a", "conv", "relu")], [layer("a", "conv"), layer("b", "relu")]).findings

        assert finding.rule == "structure.fusion-lost"
        assert finding.what == "fusion lost: 1 -> 2 layers\nbefore: conv + relu\nafter:  conv | relu"
        assert finding.severity == "error"
        assert "cast or Q/DQ node" in finding.remedy

    def test_a_part_that_was_split_off(self) -> None:
        """The norm is listed by both halves; the first one has the same nodes as before."""
        old = [layer("a_myl0_1", "add", "norm")]
        new = [layer("a_myl0_1", "add", "norm"), layer("__myl_DivMul_myl0_2", "norm")]
        (lost,), (fused,) = (diff(*sides).findings for sides in ((old, new), (new, old)))

        assert lost.rule == "structure.fusion-lost"
        assert lost.what == "fusion lost: 1 -> 2 layers\nbefore: add + norm\nafter:  add + norm | norm"
        assert fused.rule == "structure.fusion-changed"

    def test_many_are_told_shortly(self) -> None:
        names = [chr(ord("a") + i) for i in range(20)]
        old = [layer(f"{i}", f"{i}/conv", f"{i}/relu") for i in names]
        new = [each for i in names for each in (layer(f"{i}", f"{i}/conv"), layer(f"{i}{i}", f"{i}/relu"))]
        found = diff(old, new)

        assert rules(found) == ["structure.fusion-lost"] * (MAX_EACH + 1)
        assert found.findings[-1].what == "8 more findings of this kind: m/conv, n/conv, o/conv and 5 more"
        assert found.findings[-1].evidence == {"layers_before": 1, "layers_after": 2, "times": 8}

    def test_the_blocks_of_a_network_are_told_once(self) -> None:
        old = [layer(f"a{i}", f"/block.{i}/conv", f"/block.{i}/relu") for i in range(12)]
        new = [
            each for i in range(12) for each in (layer(f"a{i}", f"/block.{i}/conv"), layer(f"b{i}", f"/block.{i}/relu"))
        ]
        (finding,) = diff(old, new).findings

        assert finding.what == (
            "fusion lost: 1 -> 2 layers; 11 more like it\n"
            "before: /block.0/conv + /block.0/relu\nafter:  /block.0/conv | /block.0/relu"
        )
        assert finding.evidence == {"layers_before": 1, "layers_after": 2, "times": 12}

    def test_a_node_that_was_folded_is_not_new(self) -> None:
        """Where the model is known: it had the node all the time, and no layer for it."""
        old = [layer("a", "gemm")]
        new = [layer("a", "gemm"), layer("__myl_Sigm_myl0_1", "sigmoid"), layer("__myl_Tran_myl0_2", "transpose")]
        there = diff(old, new, old_folded=["sigmoid", "transpose"])
        back = diff(new, old, new_folded=["sigmoid", "transpose"])

        assert there.added_nodes == back.removed_nodes == ()
        assert rules(there) == ["structure.fusion-lost", "structure.reformat-added"]
        assert there.findings[0].what.endswith("before: part of its neighbours\nafter:  sigmoid")
        assert rules(back) == ["structure.fusion-changed"]
        assert (back.copies_removed, there.copies_added) == (1, 1)


class TestPrecision:
    @given(engines(), st.data())
    def test_of_one_layer(self, chain: list[Layer], data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(chain) - 1))
        inputs = tuple(replace(tensor, dtype="float32") for tensor in chain[place].inputs)
        changed = replace(chain[place], inputs=inputs)
        (finding,) = diff(chain, [*chain[:place], changed, *chain[place + 1 :]]).findings

        assert finding.rule == "structure.precision-fallback"
        assert (finding.evidence["before"], finding.evidence["after"]) == ("float16", "float32")
        assert finding.where == changed.title

    @pytest.mark.parametrize(
        ("before", "after", "rule"),
        [
            ("float32", "float16", "changed"),
            ("float16", "int8", "changed"),
            ("int8", "float16", "fallback"),
            ("float16", "float32", "fallback"),
            ("fp8", "bfloat16", "fallback"),
            ("bfloat16", "float16", "changed"),
        ],
    )
    def test_a_fallback_goes_to_a_finer_type(self, before: str, after: str, rule: str) -> None:
        (finding,) = diff([layer("a", "x", dtype=before)], [layer("a", "x", dtype=after)]).findings

        assert finding.rule == f"structure.precision-{rule}"
        assert finding.severity == "error"

    def test_a_schema_without_constants(self) -> None:
        """TensorRT 10 and RTX 1.4 do not list weights: what is known of both decides."""
        old = layer("norm", "/norm", kind="gemm")
        half, eight = (replace(old, constants=(LayerTensor("scale", dtype),)) for dtype in ("float16", "int8"))

        assert diff([old], [half]).findings == diff([half], [old]).findings == ()
        assert errors(diff([half], [eight])) == ["structure.precision-changed"]

    def test_a_fallback_inside_of_a_changed_fusion(self) -> None:
        old = [layer("a", "conv", dtype="int8"), layer("b", "relu", dtype="int8")]
        new = [layer("a", "conv", "relu", dtype="float32")]

        assert errors(diff(old, new)) == ["structure.precision-fallback", "structure.fusion-changed"]

    def test_casts_belong_to_another_precision(self) -> None:
        old = [layer("a", "conv")]
        new = [layer("a", "conv", "graph_input_cast0", dtype="float16")]
        found = diff(old, new)

        assert errors(found) == ["structure.precision-changed"]
        assert rules(found) == ["structure.precision-changed", "structure.conversions-changed"]
        assert found.added_nodes == ()

    def test_a_cast_alone_is_a_change(self) -> None:
        old, new = [layer("a", "conv")], [layer("a", "conv"), layer("c", "/m/Cast", kind="cast")]

        assert errors(diff(old, new)) == errors(diff(new, old)) == ["structure.conversions-changed"]

    def test_an_unknown_precision_is_no_change(self) -> None:
        """TensorRT 8 cannot tell the types of an engine with dynamic shapes."""
        assert diff([layer("a", "x", dtype="")], [layer("a", "x", dtype="float16")]).findings == ()

    def test_of_a_whole_model(self, mlp: Path, tmp_path: Path) -> None:
        found = diff(rtx_layers(mlp), rtx_layers(models.to_fp16(mlp, tmp_path / "half.onnx")))

        assert errors(found) == ["structure.precision-changed"] * 2
        assert [finding.where for finding in found.findings] == [
            "/fc0/Add + /fc0/MatMul + /fc0/Relu",
            "/fc1/Add + /fc1/MatMul",
        ]

    def test_bert_in_fp16_and_fp32(self) -> None:
        half, full = (
            layers_from_json(recordings.listing(f"rtx15_bert_base_{precision}")) for precision in ("fp16", "fp32")
        )
        found = diff(half, full)
        changed = [finding for finding in found.findings if finding.rule == "structure.precision-fallback"]

        assert changed
        assert {(finding.evidence["before"], finding.evidence["after"]) for finding in changed} == {
            ("float16", "float32")
        }


class TestAdvice:
    def test_another_kernel_type(self) -> None:
        found = diff([layer("a", "x", kind="gemm"), layer("b", "y", kind="gemm")], [layer("a", "x"), layer("b", "y")])

        assert found.ok
        assert rules(found) == ["structure.kind-changed"]
        assert found.findings[0].what == "2 layers changed the kind from gemm to kgen"

    def test_a_neighbour_of_an_inserted_node_is_no_change(self) -> None:
        """That it takes its bias in, or not, is part of the insertion."""
        old = [layer("a", "far"), layer("b", "x", kind="gemm"), layer("c", "end")]
        new = [layer("a", "far"), layer("b", "x", kind="fusion"), layer("new", "inserted"), layer("c", "end")]

        assert rules(diff(old, new)) == ["structure.node-added"]

    def test_another_memory_format(self) -> None:
        old, new = ([layer("a", "x", outputs=(LayerTensor("t", "float16", text),))] for text in ("(Linear)", "(NHWC)"))
        found = diff(old, new)

        assert found.ok
        assert rules(found) == ["structure.format-changed"]

    @pytest.mark.parametrize(
        ("before", "after", "expected"),
        [
            ("linear", "vectors of 8", ["structure.format-changed"]),
            ("linear", "Row major linear FP16 format", []),
            ("Channel major FP16 format where channel % 8 == 0", "vectors of 8", []),
        ],
    )
    def test_the_log_and_the_inspector_have_other_words_for_a_format(
        self, before: str, after: str, expected: list[str]
    ) -> None:
        """TensorRT 8: what was built here is listed by the log, an engine file by the inspector."""
        old, new = ([layer("a", "x", outputs=(LayerTensor("t", "float16", text),))] for text in (before, after))
        assert rules(diff(old, new)) == expected

    @pytest.mark.parametrize("precision", ["fp16", "int8"])
    def test_the_log_and_the_inspector_of_one_build(self, precision: str) -> None:
        logged = recordings.log_layers(f"trt85_resnet50_{precision}")
        shown = layers_from_json(recordings.listing(f"trt85_resnet50_{precision}"))
        assert rules(diff(logged, shown)) == []

    def test_more_copies(self) -> None:
        copies = [layer(f"copy_myl0_{index}", kind="Reformat") for index in range(3)]
        found = diff([layer("a", "x"), copies[0]], [layer("a", "x"), *copies])

        assert found.ok
        assert rules(found) == ["structure.reformat-added"]
        assert found.findings[0].evidence == {"layers": 2}
        assert found.copies_added == 2
        assert found.summary == "2 layers matched, 0 fused differently, 0 ONNX nodes added, 0 removed, 2 copies more"

    def test_a_copy_with_a_label_is_certain(self) -> None:
        product = layer("q_myl0_2", "q", kind="gemm")
        found = diff([product], [layer("__myl_MoveRepl_myl0_1", "q"), product])

        assert errors(found) == ["structure.reformat-added"]
        assert found.findings[0].where == "q"
        assert diff([layer("__myl_MoveRepl_myl0_1", "q"), product], [product]).findings == ()

    def test_unlabelled_work_that_nothing_explains(self) -> None:
        """A ForeignNode of TensorRT 8 does not tell what it computes."""
        old, new = ([layer(f"{{ForeignNode[a...{end}]}}", kind="Myelin")] for end in "bc")
        found = diff(old, new)

        assert found.ok
        assert rules(found) == ["structure.unlabelled-changed"]
        assert found.unexplained == (*old, *new)

    def test_labels_of_one_engine_only(self) -> None:
        old = [layer("a", "a"), layer("__myl_Tran_myl1_12")]
        found = diff(old, [layer("a", "a"), layer("__myl_Tran_myl1_11", "/t/Transpose_3")])

        assert found.ok
        assert found.added_nodes == ()
        assert rules(found) == ["structure.labels-changed"]

    def test_fewer_copies_are_nothing(self) -> None:
        copies = [layer(f"copy_myl0_{index}", kind="Reformat") for index in range(3)]

        assert diff([layer("a", "x"), *copies], [layer("a", "x")]).findings == ()


class TestTactics:
    """Kernel churn between two builds of one model."""

    @staticmethod
    def tuned(*tactics: str, **more: Any) -> list[Layer]:
        return [layer(f"l{i}", f"conv{i}", tactic=tactic, **more) for i, tactic in enumerate(tactics)]

    def test_other_kernels_for_the_same_work(self) -> None:
        found = diff(self.tuned("sm80_a", "sm80_b", "sm80_c", ""), self.tuned("sm80_a", "sm80_x", "sm80_c", "sm80_d"))

        assert found.ok
        (finding,) = found.findings
        assert finding.rule == "structure.tactics-changed"
        assert finding.what == ("1 of 3 layers have another tactic, such as conv1\nbefore: sm80_b\nafter:  sm80_x")
        assert finding.evidence == {"layers": 1, "compared": 3, "churn_percent": 33.3}
        assert "timing cache" in finding.remedy

    def test_names_and_numbers_are_not_compared(self) -> None:
        """The inspector tells names, TensorRT 8's short listing in the log tells numbers."""
        assert diff(self.tuned("sm80_a"), self.tuned("0x361d222e42fcb76c")).findings == ()
        assert rules(diff(self.tuned("0x1d"), self.tuned("0x2d"))) == ["structure.tactics-changed"]

    def test_another_precision_has_other_kernels(self) -> None:
        found = diff(self.tuned("f32"), self.tuned("f16", dtype="float16"))

        assert rules(found) == ["structure.precision-changed"]

    def test_two_recorded_builds(self) -> None:
        """FP16 and INT8 (which is FP16 nearly everywhere) of ResNet-50 by TensorRT 8.5."""
        half, mixed = (recordings.log_layers(f"trt85_resnet50_{name}") for name in ("fp16", "int8"))
        (finding,) = (f for f in diff(half, mixed).findings if f.rule == "structure.tactics-changed")

        assert finding.evidence["layers"] == sum(
            old.tactic != new.tactic and old.precision == new.precision
            for old, new in diff(half, mixed).matching.pairs
            if old.tactic and new.tactic
        )


class TestLabels:
    """TensorRT for RTX lists no node for some kernels, and not all nodes for others."""

    def test_a_kernel_whose_name_tells_more(self) -> None:
        """As 1.7 does in FP16: the kernel is ``FcAddRelu``, and only the convolution is listed."""
        old = [layer("/a/Conv_myl0_1", "/a/Conv", "/a/Relu", kind="correlation")]
        new = [layer("__myl_FcAddRelu_myl0_1", "/a/Conv", kind="runtime_fusion")]
        found = diff(old, new)

        assert found.ok
        assert rules(found) == ["structure.labels-changed"]
        assert (found.removed_nodes, found.regrouped) == ((), 0)
        assert rules(diff(new, old)) == ["structure.labels-changed"]

    def test_a_kernel_whose_name_does_not(self) -> None:
        old = [layer("/a/Conv_myl0_1", "/a/Conv", "/a/Relu", kind="correlation")]
        new = [layer("/a/Conv_myl0_1", "/a/Conv", kind="correlation")]

        assert errors(diff(old, new)) == ["structure.node-removed"]
        assert rules(diff(old, new, new_folded=["/a/Relu"])) == ["structure.labels-changed"]

    def test_work_without_a_label_between_the_same_two(self) -> None:
        """A 1x1 convolution that became a product without any label."""
        around = [layer("a", "/a/Conv"), layer("c", "/c/Conv")]
        old = [around[0], layer("/b/Conv_myl0_1", "/b/Conv", kind="correlation"), around[1]]
        new = [around[0], layer("__myl_FcAdd_myl0_1", kind="runtime_fusion"), around[1]]
        found = diff(old, new)

        assert rules(found) == ["structure.labels-changed"]
        assert found.matching.relabelled == ((old[1], new[1]),)
        assert found.unexplained == ()

    def test_a_model_that_does_not_have_the_node_decides(self) -> None:
        """The kernel looks alike and the node is new all the same."""
        old = [layer("a", "/a/Conv"), layer("__myl_Tran_myl0_1")]
        new = [layer("a", "/a/Conv"), layer("__myl_Tran_myl0_1", "/inserted/Transpose")]

        assert diff(old, new).ok
        assert errors(diff(old, new, old_folded=["/other"])) == ["structure.node-added"]
        assert diff(old, new, old_folded=["/inserted/Transpose"]).ok

    def test_a_product_is_not_taken_for_pointwise_work(self) -> None:
        around = [layer("a", "/a/Conv"), layer("c", "/c/Conv")]
        old = [around[0], layer("/b/Conv_myl0_1", "/b/Conv", kind="correlation"), around[1]]
        new = [around[0], layer("__myl_SigmMul_myl0_1"), around[1]]

        assert errors(diff(old, new)) == ["structure.node-removed"]

    def test_models_without_anything_in_common(self) -> None:
        found = diff([layer("__myl_Erf_myl0_1")], [layer("b", "/b/Relu")])

        assert errors(found) == ["structure.node-added"]

    def test_two_of_them_are_not_told_apart(self) -> None:
        around = [layer("a", "/a/Conv"), layer("c", "/c/Conv")]
        old = [around[0], layer("/b/Conv_myl0_1", "/b/Conv", kind="correlation"), around[1]]
        new = [around[0], *(layer(f"__myl_FcAdd_myl0_{i}", kind="runtime_fusion") for i in (1, 2)), around[1]]

        assert len(diff(old, new).unexplained) == 1

    def test_resnet_in_fp32_and_fp16(self) -> None:
        """59 layers each; eleven 1x1 convolutions became products (``__gemm_from_conv1x1`` behind their names)."""
        found = diff(recordings.log_layers("rtx17_resnet50"), recordings.log_layers("rtx17_resnet50_fp16"))

        assert (found.added_nodes, found.removed_nodes, found.unexplained, found.regrouped) == ((), (), (), 0)
        assert set(rules(found)) == {
            "structure.precision-changed",
            "structure.reformat-added",
            "structure.conversions-changed",
            "structure.kind-changed",
        }


class TestInt8:
    def test_a_quantised_resnet(self) -> None:
        """Each convolution became a product and a kernel that scales, adds and quantises: one group each."""
        found = diff(recordings.log_layers("rtx17_resnet50"), recordings.log_layers("rtx17_resnet50_int8"))
        changed = [f for f in found.findings if f.rule == "structure.precision-changed"]

        assert (found.added_nodes, found.removed_nodes, found.unexplained) == ((), (), ())
        assert {(f.evidence["before"], f.evidence["after"]) for f in changed} == {("float32", "int8")}
        assert sum(int(f.evidence.get("times") or 1) for f in changed) == 55  # 53 convolutions, pooling, the classifier
        assert all("QuantizeLinear" not in f.what.partition(" + ")[0] for f in changed)


class TestProfiles:
    def test_one_more(self) -> None:
        old = [layer("a_myl0_1", "x")]
        found = diff(old, [*old, layer("a_myl1_1", "x", profile=1)])

        assert rules(found) == ["structure.profiles-changed"]
        assert found.findings[0].what == "2 optimization profiles with layers of their own, 1 before"
        assert found.added_nodes == ()


class TestBertBase:
    """What the matching of layers is for, on real builds of BERT-base."""

    def test_two_versions_of_tensorrt(self) -> None:
        """Every labelled layer finds its partner, none a wrong one, though 1.5 labels less and copies more."""
        old, new = recordings.log_layers("rtx15_bert_base"), recordings.log_layers("rtx17_bert_base")
        found = diff(old, new)
        matching = found.matching
        labelled = sum(bool(layer.onnx_nodes) for layer in old)
        matched = len(matching.pairs) + sum(len(olds) for olds, _ in matching.groups)

        assert (len(old), len(new), labelled) == (207, 195, 182)
        assert matched == labelled
        assert all(a.onnx_nodes == b.onnx_nodes for a, b in matching.pairs)
        assert (found.added_nodes, found.removed_nodes) == ((), ())
        assert errors(found) == ["structure.fusion-changed"]  # the last norm, in two kernels by 1.5
        assert found.copies_removed == 11
        assert found.unexplained == ()

    def test_an_inserted_node(self) -> None:
        found = diff(recordings.log_layers("rtx17_bert_base"), recordings.log_layers("rtx17_bert_base_inserted"))

        assert [(finding.rule, finding.where) for finding in found.findings] == [
            ("structure.node-added", "/inserted/MatMul")
        ]

    def test_fp32_and_fp16_with_the_model(self, tmp_path: Path) -> None:
        """Every layer of both engines is accounted for."""
        old, new = recordings.log_layers("rtx17_bert_base"), recordings.log_layers("rtx17_bert_base_fp16")
        computed = OnnxModel(recordings.model("bert_base", tmp_path)).computed_nodes
        folded = [
            [node for node in computed if node not in {n for layer in side for n in layer.onnx_nodes}]
            for side in (old, new)
        ]
        found = diff(old, new, old_folded=folded[0], new_folded=folded[1])
        matching = found.matching

        assert found.unexplained == ()
        assert (found.added_nodes, found.removed_nodes) == ((), ())
        assert set(rules(found)) == {
            "structure.precision-changed",
            "structure.fusion-changed",
            "structure.fusion-lost",
            "structure.conversions-changed",
        }
        assert {f.evidence["after"] for f in found.findings if "precision" in f.rule} == {"float16"}
        assert found.regrouped == 13  # attention in one kernel, the last norm in two
        assert [layer.title for layer in matching.removed] == [
            f"/bert/encoder/layer.{i}/attention/self/Transpose_3" for i in range(12)
        ]
        assert found.copies_removed == 12
        assert (matching.added, matching.unlabelled_added, matching.unlabelled_removed) == ((), (), ())

    def test_fp32_and_fp16_without_it(self) -> None:
        """A transpose that lost its kernel cannot be told from one that is gone."""
        old, new = recordings.log_layers("rtx17_bert_base"), recordings.log_layers("rtx17_bert_base_fp16")
        found = diff(old, new)
        gone = [finding for finding in found.findings if finding.rule == "structure.node-removed"]

        assert len(gone) == 12
        assert gone[0].what == (
            "ONNX node '/bert/encoder/layer.0/attention/self/Transpose_3' has no layer any more (kgen float32, which "
            "only moved data): it is gone, or part of its neighbours"
        )


class TestCheck:
    def test_the_first_line_is_the_verdict(self) -> None:
        found = diff([layer("a", "x")], [layer("a", "x"), layer("b", "y"), layer("c", "z")])
        with pytest.raises(AssertionError) as caught:
            found.check()
        first, second, *_ = str(caught.value).splitlines()

        assert first == "structure changed: ONNX node 'y' is new (kgen float32) (and 1 more)"
        assert "'z' is new" in second

    def test_advice_does_not_fail(self) -> None:
        found = diff([layer("a", "x", kind="gemm")], [layer("a", "x", kind="kgen")])
        found.check()

        assert found.findings

    def test_everything_was_replaced(self) -> None:
        found = diff([layer("a", "x")], [layer("a", "y")])

        assert (found.added_nodes, found.removed_nodes) == (("y",), ("x",))

    def test_an_engine_without_layers(self) -> None:
        assert errors(diff([layer("a", "x")], [])) == ["structure.node-removed"]
        assert diff([], []).ok
