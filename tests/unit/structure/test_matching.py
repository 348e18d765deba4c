from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.engines.layer_listing import layers_from_json
from pytest_trtgray.engines.model import Layer, LayerTensor, is_conversion
from pytest_trtgray.structure.matching import Matching, layer_keys, match_layers
from tests import recordings
from tests.unit.helpers import layer
from tests.unit.strategies import engines, layers


def renumbered(chain: list[Layer], by: int) -> list[Layer]:
    """Another build of the same graph: every positional name moves."""
    return [replace(each, name=f"{each.name.rpartition('_')[0]}_{index + by}") for index, each in enumerate(chain)]


def everything(matching: Matching, side: int) -> list[Layer]:
    """All layers of one side, wherever they ended up."""
    alone = (matching.removed, matching.added)[side]
    extra = (matching.extra_old, matching.extra_new)[side]
    blank = (matching.unlabelled_removed, matching.unlabelled_added)[side]
    return [
        *(pair[side] for pair in matching.pairs),
        *(each for group in matching.groups for each in group[side]),
        *(pair[side] for pair in matching.relabelled),
        *alone,
        *extra,
        *(pair[side] for pair in matching.unlabelled_pairs),
        *blank,
    ]


def left_over(matching: Matching) -> list[object]:
    """Everything that is no pair."""
    return [
        *matching.groups,
        *matching.removed,
        *matching.added,
        *matching.extra_old,
        *matching.extra_new,
        *matching.relabelled,
        *matching.unlabelled_removed,
        *matching.unlabelled_added,
    ]


class TestTheSame:
    @given(st.lists(layers(), max_size=8))
    def test_an_engine_matches_itself(self, made: list[Layer]) -> None:
        matching = match_layers(made, made)

        assert all(old is new or old == new for old, new in (*matching.pairs, *matching.unlabelled_pairs))
        assert len(matching.pairs) + len(matching.unlabelled_pairs) == len(made)
        assert left_over(matching) == []

    @given(st.lists(layers(), max_size=8), st.randoms(use_true_random=False))
    def test_the_order_of_layers_does_not_matter(self, made: list[Layer], random: object) -> None:
        shuffled = list(made)
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        matching = match_layers(made, shuffled)

        assert len(matching.pairs) + len(matching.unlabelled_pairs) == len(made)
        assert all(old.onnx_nodes == new.onnx_nodes for old, new in matching.pairs)

    @given(engines(), st.integers(1, 9))
    def test_positional_names_do_not_matter(self, chain: list[Layer], by: int) -> None:
        matching = match_layers(chain, renumbered(chain, by))

        assert [(old.onnx_nodes, new.onnx_nodes) for old, new in matching.pairs] == [
            (each.onnx_nodes, each.onnx_nodes) for each in chain
        ]

    def test_recorded_engines_match_themselves(self) -> None:
        for recorded in ("rtx15_bert_base_fp16", "trt85_resnet50_int8"):
            read = layers_from_json(recordings.listing(recorded))
            matching = match_layers(read, read)

            assert all(old is new for old, new in (*matching.pairs, *matching.unlabelled_pairs))
            assert len(matching.pairs) + len(matching.unlabelled_pairs) == len(read)


class TestNothingIsLost:
    @given(st.lists(layers(), max_size=8), st.lists(layers(), max_size=8))
    def test_every_layer_is_somewhere_once(self, old: list[Layer], new: list[Layer]) -> None:
        matching = match_layers(old, new)

        for side, made in ((0, old), (1, new)):
            assert Counter(each.name for each in everything(matching, side)) == Counter(each.name for each in made)

    @given(st.lists(layers(), max_size=8), st.lists(layers(), max_size=8))
    def test_both_directions_agree(self, old: list[Layer], new: list[Layer]) -> None:
        there, back = match_layers(old, new), match_layers(new, old)

        assert len(there.pairs) == len(back.pairs)
        assert len(there.groups) == len(back.groups)
        assert len(there.removed) == len(back.added)
        assert len(there.extra_old) == len(back.extra_new)
        assert len(there.relabelled) == len(back.relabelled)
        assert len(there.unlabelled_pairs) == len(back.unlabelled_pairs)

    @given(st.lists(layers(), max_size=8), st.lists(layers(), max_size=8))
    def test_profiles_are_never_mixed(self, old: list[Layer], new: list[Layer]) -> None:
        matching = match_layers(old, new)

        together = (*matching.pairs, *matching.unlabelled_pairs, *matching.relabelled)
        assert all(a.profile == b.profile for a, b in together)
        assert all(len({each.profile for side in group for each in side}) == 1 for group in matching.groups)


class TestChanges:
    @given(engines(min_layers=2), st.data())
    def test_an_inserted_node_is_found(self, chain: list[Layer], data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(chain)))
        inserted = layer("__myl_Fc_myl0_99", "/inserted/MatMul", kind="gemm")
        matching = match_layers(chain, renumbered([*chain[:place], inserted, *chain[place:]], 1))

        assert [each.onnx_nodes for each in matching.added] == [{"/inserted/MatMul"}]
        assert len(matching.pairs) == len(chain)
        assert [*matching.groups, *matching.removed] == []

    @given(engines(min_layers=2), st.data())
    def test_a_removed_layer_is_found(self, chain: list[Layer], data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(chain))
        matching = match_layers(chain, renumbered([each for each in chain if each is not gone], 1))

        assert [each.onnx_nodes for each in matching.removed] == [gone.onnx_nodes]
        assert len(matching.pairs) == len(chain) - 1
        assert [*matching.groups, *matching.added] == []

    @given(engines(min_layers=2), st.data())
    def test_two_layers_that_were_fused_are_a_group(self, chain: list[Layer], data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(chain) - 2))
        first, second = chain[place : place + 2]
        fused = replace(first, onnx_nodes=first.onnx_nodes | second.onnx_nodes)
        new = [*chain[:place], fused, *chain[place + 2 :]]
        (group,) = match_layers(chain, new).groups
        (reverse,) = match_layers(new, chain).groups

        assert group == ((first, second), (fused,))
        assert reverse == ((fused,), (first, second))

    def test_a_node_that_moved_to_its_neighbour(self) -> None:
        old = [layer("a", "conv", "relu"), layer("b", "pool")]
        new = [layer("a", "conv"), layer("b", "relu", "pool")]
        matching = match_layers(old, new)

        assert matching.groups == ((tuple(old), tuple(new)),)

    def test_nothing_at_all(self) -> None:
        assert match_layers([], []) == Matching()
        assert match_layers([layer("a", "x")], []).removed == (layer("a", "x"),)


class TestSeveralLayersOfOneNode:
    def test_told_apart_by_kind(self) -> None:
        old = [layer("a_myl0_1", "q", kind="kgen"), layer("b_myl0_2", "q", kind="gemm")]
        new = [layer("b_myl0_1", "q", kind="gemm"), layer("a_myl0_2", "q", kind="kgen")]

        assert {(a.kind, b.kind) for a, b in match_layers(old, new).pairs} == {("kgen", "kgen"), ("gemm", "gemm")}

    def test_told_apart_by_order(self) -> None:
        old = [layer("a_myl0_1", "q"), layer("a_myl0_2", "q")]
        new = [layer("a_myl0_5", "q"), layer("a_myl0_6", "q")]

        assert [(a.name, b.name) for a, b in match_layers(old, new).pairs] == [
            ("a_myl0_1", "a_myl0_5"),
            ("a_myl0_2", "a_myl0_6"),
        ]

    def test_one_of_two_is_gone(self) -> None:
        """Both worked for the node: it is computed in one kernel now."""
        old, new = [layer("a", "q"), layer("b", "q")], [layer("b", "q")]

        assert match_layers(old, new).groups == ((tuple(old), tuple(new)),)
        assert match_layers(old, new).pairs == ()

    def test_a_copy_of_two_is_gone(self) -> None:
        matching = match_layers([layer("__myl_Move_myl0_1", "q"), layer("b", "q")], [layer("b", "q")])

        assert [(a.name, b.name) for a, b in matching.pairs] == [("b", "b")]
        assert [each.name for each in matching.extra_old] == ["__myl_Move_myl0_1"]
        assert matching.removed == ()

    def test_a_copy_is_no_partner_of_a_product(self) -> None:
        """Both list the product's node; a kernel that fuses more into the product is still the product."""
        copy, product = layer("__myl_MoveRepl_myl0_1", "q"), layer("q_myl0_2", "q", kind="gemm")
        fused = layer("__myl_FcRelu_myl0_1", "q", kind="runtime_fusion")
        matching = match_layers([copy, product], [fused])

        assert matching.pairs == ((product, fused),)
        assert matching.extra_old == (copy,)


class TestConversions:
    """Q/DQ nodes and casts that only one of two models has are no part of a layer's identity."""

    def test_casts_of_an_fp16_model(self) -> None:
        old = [layer("a", "conv"), layer("b", "norm")]
        new = [layer("a", "conv", "graph_input_cast0"), layer("b", "norm", "/norm/Cast_1")]

        assert len(match_layers(old, new).pairs) == 2

    def test_quantisers(self) -> None:
        old = [layer("a", "fc")]
        new = [layer("q", "x_QuantizeLinear"), layer("a", "x_DequantizeLinear", "w_DequantizeLinear", "fc")]
        matching = match_layers(old, new)

        assert matching.pairs == ((old[0], new[1]),)
        assert matching.added == (new[0],)

    def test_what_both_have_counts(self) -> None:
        old = [layer("a", "conv", "/m/Cast")]
        new = [layer("a", "conv"), layer("b", "/m/Cast")]

        assert match_layers(old, new).groups == ((tuple(old), tuple(new)),)

    @pytest.mark.parametrize(
        "node",
        [
            "x_QuantizeLinear",
            "x_DequantizeLinear",
            "/conv1/input_quantizer/QuantizeLinear",
            "/conv1/_weight_quantizer/DequantizeLinear_1",
            "graph_input_cast0",
            "graph_output_cast_1",
            "/encoder/Cast",
            "/encoder/Cast_12",
            "/x/Q",
            "/x/DQ",
            "InsertedPrecisionFreeCast_y",
        ],
    )
    def test_their_names(self, node: str) -> None:
        assert is_conversion(node)

    @pytest.mark.parametrize("node", ["/broadcast", "Conv_0", "/Q/MatMul", "/attn/q/MatMul", "forecast", "/DQN/Conv"])
    def test_other_names(self, node: str) -> None:
        assert not is_conversion(node)


class TestUnlabelled:
    """The fourth step: nothing is certain, and nothing of it fails a test."""

    def test_copies_pair_up_behind_the_same_layer(self) -> None:
        old = [layer("a", "a"), layer("c_myl0_1", kind="copy"), layer("b", "b"), layer("c_myl0_3", kind="copy")]
        new = [layer("a", "a"), layer("b", "b"), layer("c_myl0_2", kind="copy")]
        matching = match_layers(old, new)

        assert matching.unlabelled_pairs == ((old[3], new[2]),)
        assert matching.unlabelled_removed == (old[1],)

    def test_then_anywhere(self) -> None:
        old = [layer("a", "a"), layer("c_myl0_1", kind="copy"), layer("b", "b")]
        new = [layer("a", "a"), layer("b", "b"), layer("c_myl0_2", kind="copy")]

        assert match_layers(old, new).unlabelled_pairs == ((old[1], new[2]),)

    def test_other_kernels_do_not(self) -> None:
        matching = match_layers([layer("__myl_Tran_myl0_1")], [layer("__myl_MoveResh_myl0_1")])

        assert matching.unlabelled_pairs == ()

    def test_a_layer_that_only_one_engine_labels(self) -> None:
        old = [layer("a", "a"), layer("__myl_Tran_myl1_12")]
        new = [layer("a", "a"), layer("__myl_Tran_myl1_11", "/t/Transpose_3")]

        for first, second in ((old, new), (new, old)):
            matching = match_layers(first, second)
            assert matching.relabelled == ((first[1], second[1]),)
            assert (matching.added, matching.removed) == ((), ())

    def test_a_new_layer_elsewhere_is_new(self) -> None:
        old = [layer("a", "a"), layer("__myl_Tran_myl1_12"), layer("b", "b")]
        new = [layer("a", "a"), layer("b", "b"), layer("__myl_Tran_myl1_11", "/t/Transpose_3")]

        assert match_layers(old, new).added == (new[2],)


class TestUnnamedNodes:
    @staticmethod
    def product(node: str, weight: str, name: str = "fc_myl0_1") -> Layer:
        return layer(name, node, kind="gemm", constants=(LayerTensor(weight, "float32"),))

    def test_recognised_by_their_weights(self) -> None:
        """A node without a name is called after its output, which an insertion renames."""
        old = [self.product("node_of_7", "w1_constantFloat_myl0"), self.product("node_of_9", "w2_constantFloat_myl0")]
        new = [self.product("node_of_8", "w1_constantFloat_myl0"), self.product("node_of_11", "w2_constantFloat_myl1")]
        matching = match_layers(old, new)

        assert [sorted(a.onnx_nodes | b.onnx_nodes) for a, b in matching.pairs] == [["node_of_8"], ["node_of_11"]]

    def test_not_when_the_weights_are_ambiguous(self) -> None:
        old = [self.product("node_of_7", "w"), self.product("node_of_8", "w")]
        new = [self.product("node_of_9", "w"), self.product("node_of_10", "w")]

        assert match_layers(old, new).pairs == ()

    def test_not_when_the_names_of_weights_are_positional(self) -> None:
        old = [self.product("node_of_7", "__mye2206dconst_myl0")]
        new = [self.product("node_of_9", "__mye2206dconst_myl0")]

        assert match_layers(old, new).pairs == ()

    def test_nodes_with_names_are_not_renamed(self) -> None:
        matching = match_layers([self.product("/fc1/MatMul", "w")], [self.product("/fc2/MatMul", "w")])

        assert matching.pairs == ()
        assert matching.removed[0].onnx_nodes == {"/fc1/MatMul"}

    def test_a_node_that_took_the_old_name_of_another(self) -> None:
        """After an insertion ``node_of_8`` is a new product, and what was called so is ``node_of_9``."""
        old = [self.product("node_of_8", "w1")]
        new = [self.product("node_of_8", "inserted"), self.product("node_of_9", "w1")]
        matching = match_layers(old, new)

        assert [b.constants[0].name for _, b in matching.pairs] == ["w1"]
        assert [each.constants[0].name for each in matching.added] == ["inserted"]


class TestKeys:
    @given(st.lists(layers(), max_size=10))
    def test_unique(self, made: list[Layer]) -> None:
        keys = layer_keys(made)

        assert len(set(keys)) == len(made)

    @given(engines(), st.integers(1, 9))
    def test_the_same_after_another_build(self, chain: list[Layer], by: int) -> None:
        assert layer_keys(chain) == layer_keys(renumbered(chain, by))

    @given(engines(min_layers=2), st.data())
    def test_an_insertion_leaves_the_others_alone(self, chain: list[Layer], data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(chain)))
        longer = [*chain[:place], layer("__myl_Fc_myl0_9", "/inserted"), *chain[place:]]

        assert [key for key in layer_keys(renumbered(longer, 0)) if key != "/inserted"] == layer_keys(chain)

    def test_nodes_kind_profile_and_ordinal(self) -> None:
        made = [
            layer("a_myl0_1", "n2", "n1"),
            layer("b_myl0_2", "n3", kind="gemm"),
            layer("c_myl0_3", "n3", kind="kgen"),
            layer("d_myl0_4", "n3", kind="kgen"),
            layer("e_myl1_5", "n3", kind="kgen", profile=1),
            layer("__myl_Move_myl0_6"),
            layer("__myl_Move_myl0_7"),
        ]

        assert layer_keys(made) == [
            "n1 + n2",
            "n3 (gemm)",
            "n3 (kgen)",
            "n3 (kgen) #2",
            "n3 [profile 1]",
            "__myl_Move (kgen)",
            "__myl_Move (kgen) #2",
        ]

    def test_node_names_that_look_like_keys(self) -> None:
        made = [layer("a", "n", kind="k"), layer("b", "n", kind="k"), layer("c", "n (k) #2", kind="k")]

        assert len(set(layer_keys(made))) == 3

    def test_of_recorded_engines(self) -> None:
        for recorded in ("rtx15_bert_base_fp16", "rtx15_bert_base_fp32", "trt85_resnet50_int8"):
            read = layers_from_json(recordings.listing(recorded))

            assert len(set(layer_keys(read))) == len(read)
