from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.timing.alignment import align, modules_of, nodes_of, summed


class TestAlign:
    def test_the_same_layers(self) -> None:
        found = align(["a", "b"], ["b", "a"])

        assert found.keys == ("b", "a")
        assert found.old == ((1,), (0,))
        assert found.new == ((0,), (1,))
        assert (found.added, found.removed) == ((), ())

    def test_two_layers_became_one(self) -> None:
        found = align(["/a/Conv", "/a/Relu", "/b/Conv"], ["/a/Conv + /a/Relu", "/b/Conv"])

        assert found.keys == ("/b/Conv", "/a/Conv + /a/Relu")
        assert found.old == ((2,), (0, 1))
        assert found.new == ((1,), (0,))

    def test_one_became_two(self) -> None:
        found = align(["/a/Conv + /a/Relu"], ["/a/Conv", "/a/Relu"])

        assert found.keys == ("/a/Conv | /a/Relu",)
        assert found.new_keys == (("/a/Conv", "/a/Relu"),)

    def test_a_chain_of_shared_nodes_is_one_group(self) -> None:
        found = align(["a + b", "c + d"], ["a", "b + c", "d"])

        assert found.old == ((0, 1),)
        assert found.new == ((0, 1, 2),)

    def test_what_only_one_side_has(self) -> None:
        found = align(["a", "old"], ["a", "new"])

        assert found.added == (("new", 1),)
        assert found.removed == (("old", 1),)

    def test_kinds_and_ordinals_do_not_hide_a_node(self) -> None:
        assert nodes_of("/m/MatMul (gemm) #2") == ("/m/MatMul",)
        assert nodes_of("/a/Conv + /b/Relu [profile 1]") == ("/a/Conv", "/b/Relu")
        found = align(["/m/MatMul"], ["/m/MatMul (copy)", "/m/MatMul (gemm)"])
        assert found.old == ((0,),)
        assert found.new == ((0, 1),)

    @given(st.lists(st.integers(0, 8), unique=True), st.lists(st.integers(0, 8), unique=True))
    def test_every_layer_is_somewhere_once(self, old: list[int], new: list[int]) -> None:
        olds, news = ([f"n{i} + n{i + 1}" for i in numbers] for numbers in (old, new))
        found = align(olds, news)

        assert sorted([c for unit in found.old for c in unit] + [c for _, c in found.removed]) == list(range(len(olds)))
        assert sorted([c for unit in found.new for c in unit] + [c for _, c in found.added]) == list(range(len(news)))


class TestSummed:
    def test_by_hand(self) -> None:
        times, errors = np.log([2.0, 3.0, 5.0]), np.array([0.1, 0.2, 0.0])
        values, spread = summed(times, errors, [(2,), (0, 1)])

        np.testing.assert_allclose(np.exp(values), [5.0, 5.0])
        np.testing.assert_allclose(spread, [0.0, np.hypot(0.2, 0.6) / 5])


class TestModules:
    def test_paths_that_hold_several_layers(self) -> None:
        keys = ["/enc/layer.0/att/q/MatMul", "/enc/layer.0/att/k/MatMul", "/enc/layer.1/att/q/MatMul", "/pool/Tanh"]
        found = {name: columns.tolist() for name, columns in modules_of(keys).items()}

        assert found == {"enc": [0, 1, 2], "enc/layer.0/att": [0, 1]}

    def test_a_fused_layer_belongs_to_what_its_nodes_share(self) -> None:
        keys = ["/a/x/Conv + /a/y/Relu", "/a/x/Conv_1", "plain"]

        assert {name: columns.tolist() for name, columns in modules_of(keys).items()} == {"a": [0, 1]}

    @pytest.mark.parametrize("keys", [[], ["a", "b"], ["/a/Conv"]])
    def test_none(self, keys: list[str]) -> None:
        assert modules_of(keys) == {}
