from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.engines.layer_listing import layers_from_json
from pytest_trtgray.timing.grouping import critical, matches, module_of, module_shares, modules, segments, share_of
from tests import recordings
from tests.unit.helpers import layer

PARTS = st.lists(st.text("abcxyz_019", min_size=1, max_size=5), min_size=1, max_size=6)


class TestMatches:
    @pytest.mark.parametrize(
        ("pattern", "path", "expected"),
        [
            ("encoder.layer.*/attention", "/encoder/layer.0/attention/query/MatMul", True),
            ("encoder/layer/0", "/encoder/layer.0/attention/query/MatMul", True),
            ("layer.*.attention", "/m/encoder/layer.11/attention/self/MatMul", True),
            ("attention", "/m/encoder/layer.11/attention/self/MatMul", True),
            ("encoder.layer.1/attention", "/encoder/layer.11/attention/MatMul", False),
            ("attention", "/cross_attention/MatMul", False),
            ("*attention", "/cross_attention/MatMul", True),
            ("layer.[01]", "/encoder/layer.1/x", True),
            ("layer.?", "/encoder/layer.12/x", False),
            ("Encoder", "/encoder/layer.0", False),
            ("a/b", "/b/a", False),
            ("a/b/c", "/a/b", False),
            ("MatMul", "/a/MatMul", True),
        ],
    )
    def test_patterns(self, pattern: str, path: str, expected: bool) -> None:
        assert matches(pattern, path) is expected

    @given(PARTS, st.data())
    def test_every_run_of_parts_matches(self, parts: list[str], data: st.DataObject) -> None:
        start = data.draw(st.integers(0, len(parts) - 1))
        end = data.draw(st.integers(start + 1, len(parts)))

        assert matches(".".join(parts[start:end]), "/" + "/".join(parts))
        assert matches("/".join("*" * (end - start)), "/".join(parts))

    @given(PARTS)
    def test_both_separators(self, parts: list[str]) -> None:
        assert segments("/".join(parts)) == segments(".".join(parts)) == parts

    @pytest.mark.parametrize("pattern", ["", "/", "."])
    def test_the_root_is_everything(self, pattern: str) -> None:
        assert matches(pattern, "/encoder/layer.0")


class TestShare:
    def test_by_the_number_of_nodes(self) -> None:
        fused = layer("l", "/a/x", "/a/y", "/b/z", "/c/w")

        assert share_of("a", fused) == 0.5
        assert share_of("b", fused) == 0.25
        assert share_of("d", fused) == 0.0

    def test_a_layer_without_nodes(self) -> None:
        assert share_of("a", layer("a")) == 0.0

    def test_a_users_grouping_comes_first(self) -> None:
        fused = layer("l", "/a/x", "/b/y")

        assert share_of("mine", fused, lambda _: "mine/own") == 1.0
        assert share_of("a", fused, lambda _: "mine/own") == 0.0
        assert share_of("a", fused, lambda _: None) == 0.5

    @given(st.lists(st.sampled_from(["/a/x", "/a/y", "/b/x", "/b/y", "/c/x"]), min_size=1, unique=True))
    def test_modules_that_do_not_overlap_add_up(self, nodes: list[str]) -> None:
        fused = layer("l", *nodes)

        assert sum(share_of(module, fused) for module in "abc") == pytest.approx(1)


class TestModules:
    @pytest.mark.parametrize(
        ("nodes", "module"),
        [
            (["/encoder/layer.0/attention/query/MatMul"], "encoder/layer.0/attention/query"),
            (["/a/b/x", "/a/b/y"], "a/b"),
            (["/a/b/x", "/a/c/y"], "a"),
            (["/a/x", "/b/y"], ""),
            (["MatMul_3"], ""),
            ([], ""),
        ],
    )
    def test_the_innermost_that_holds_all(self, nodes: list[str], module: str) -> None:
        assert module_of(layer("l", *nodes)) == module

    def test_in_order_and_once(self) -> None:
        made = [layer("1", "/b/x"), layer("2", "/a/x"), layer("3", "/b/y"), layer("4")]

        assert modules(made) == ["b", "a"]

    def test_of_a_recorded_encoder(self) -> None:
        read = layers_from_json(recordings.listing("rtx15_bert_base_fp16"))
        per_block = [sum(share_of(f"encoder.layer.{index}", each) for each in read) for index in range(12)]

        assert all(share > 5 for share in per_block)
        assert sum(share_of("encoder.layer.*", each) for each in read) == pytest.approx(sum(per_block))
        assert sum(share_of("encoder.layer.*/attention", each) for each in read) < sum(per_block)


class TestShares:
    def test_outer_modules_hold_inner_ones(self) -> None:
        made = [layer("1", "/a/b/x", "/a/c/x"), layer("2", "/a/b/y"), layer("3", "/d/x"), layer("4")]

        assert module_shares(made) == {
            "a": {0: 1.0, 1: 1.0},
            "a/b": {0: 0.5, 1: 1.0},
            "a/c": {0: 0.5},
            "d": {2: 1.0},
        }

    def test_blocks_are_put_together(self) -> None:
        made = [layer(str(i), f"/encoder/layer.{i}/attention/MatMul") for i in range(12)]
        shares = module_shares(made)

        assert list(shares) == ["encoder", "encoder/layer.*", "encoder/layer.*/attention"]
        assert len(shares["encoder/layer.*"]) == 12
        assert len(module_shares(made, repeated=False)) == 1 + 12 * 2

    @pytest.mark.parametrize(
        ("node", "module"),
        [
            ("/layer1/layer1.0/conv1/Conv", "layer1/layer1.*/conv1"),
            ("/blocks.3/mlp/0/MatMul", "blocks.*/mlp/*"),
            ("/h.0.attn/x", "h.*.attn"),
            ("/conv2d_12/x", "conv2d_12"),
        ],
    )
    def test_only_whole_numbers_are_those_of_blocks(self, node: str, module: str) -> None:
        assert list(module_shares([layer("l", node)]))[-1] == module

    def test_a_pattern_means_the_same_modules(self) -> None:
        made = [layer(str(i), f"/encoder/layer.{i}/attention/MatMul", f"/encoder/layer.{i}/Add") for i in range(3)]

        for pattern, parts in module_shares(made).items():
            assert {i: share_of(pattern, each) for i, each in enumerate(made)} == pytest.approx(parts)

    def test_a_users_grouping_comes_first(self) -> None:
        assert module_shares([layer("l", "/a/x")], lambda _: "mine/own") == {"mine": {0: 1.0}, "mine/own": {0: 1.0}}

    @given(st.lists(st.sampled_from(["/a/x", "/a/b/y", "/b/x", "x"]), min_size=1, unique=True))
    def test_no_layer_counts_twice(self, nodes: list[str]) -> None:
        shares = module_shares([layer("l", *nodes)])

        assert sum(parts[0] for name, parts in shares.items() if "/" not in name) <= 1 + 1e-9


class TestCritical:
    @pytest.mark.parametrize(
        ("shares", "expected"),
        [
            ({"a": 1.0, "a/b": 0.7, "a/b/c": 0.65, "a/d": 0.3}, ["a/b/c", "a/d"]),
            ({"a": 0.5, "a/b": 0.05, "a/c": 0.05, "d": 0.5}, ["a", "d"]),
            ({"a": 0.05}, []),
            ({}, []),
            ({"ab": 0.5, "a": 0.4}, ["ab", "a"]),
        ],
    )
    def test_the_innermost_that_matter(self, shares: dict[str, float], expected: list[str]) -> None:
        assert critical(shares, 0.1) == expected
