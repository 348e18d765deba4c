from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.engines.layer_listing import layers_from_json, layers_from_rows
from pytest_trtgray.engines.model import Layer, LayerTensor
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.profiles import ShapeRequest, parse_shapes, resolve_profiles
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

        assert errors(diff(old, new)) == ["structure.node-added", "structure.fusion-changed"]

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

        assert errors(diff(chain, new)) == errors(diff(new, chain)) == ["structure.fusion-changed"]


class TestPrecision:
    @given(engines(), st.data())
    def test_of_one_layer(self, chain: list[Layer], data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(chain) - 1))
        inputs = tuple(replace(tensor, dtype="float32") for tensor in chain[place].inputs)
        changed = replace(chain[place], inputs=inputs)
        (finding,) = diff(chain, [*chain[:place], changed, *chain[place + 1 :]]).findings

        assert finding.rule == "structure.precision-changed"
        assert (finding.evidence["before"], finding.evidence["after"]) == ("float16", "float32")
        assert finding.where == changed.title

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
        changed = [finding for finding in found.findings if finding.rule == "structure.precision-changed"]

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

    def test_more_copies(self) -> None:
        copies = [layer(f"copy_myl0_{index}", kind="Reformat") for index in range(3)]
        found = diff([layer("a", "x"), copies[0]], [layer("a", "x"), *copies])

        assert found.ok
        assert rules(found) == ["structure.copies-added"]
        assert found.findings[0].evidence == {"layers": 2}

    def test_fewer_copies_are_nothing(self) -> None:
        copies = [layer(f"copy_myl0_{index}", kind="Reformat") for index in range(3)]

        assert diff([layer("a", "x"), *copies], [layer("a", "x")]).findings == ()


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
