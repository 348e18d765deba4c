"""Checks without a reference: on real models that have the properties, and with faults planted into each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from pytest_trtgray.accuracy.metamorphic import (
    Relation,
    check_batch_consistency,
    check_determinism,
    check_padding,
    check_relations,
    check_row_permutation,
    consistency_tolerance,
)
from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.accuracy.tolerance import Tolerance
from pytest_trtgray.engines.base import Engine
from pytest_trtgray.engines.model import EngineInfo, ShapeRange, TensorSpec
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.onnxruntime import OnnxRuntimeEngine
from pytest_trtgray.engines.profiles import request_shapes, resolve_profiles
from pytest_trtgray.errors import NotApplicableError, NotRunnableError
from pytest_trtgray.feeds import make_feed
from tests import models, planted
from tests.models import Graph
from tests.unit.helpers import layer, ort_engine

Array = NDArray[Any]
ENCODER = "ids:1x1,mask:1x1x1x1", "ids:4x8,mask:4x1x1x8", "ids:8x16,mask:8x1x1x16"
TOKENS: dict[str, tuple[int, ...]] = {"ids": (4, 8), "mask": (4, 1, 1, 8)}


class Computed(Engine):
    """An engine that is a function: for faults that no real runtime here has."""

    def __init__(self, compute: Callable[[Array], Any], *, low: int = 1, dtype: str = "float32") -> None:
        profile = {"x": ShapeRange((low, 4), (8, 4), (32, 4))}
        inputs, outputs = ((TensorSpec(name, dtype, ("batch", 4)),) for name in "xy")
        self.info = EngineInfo("net", "", "onnxruntime", "1", inputs, outputs, (profile,))
        self.records, self.notes, self.blocked, self.model = (), (), "", None
        self.compute = compute
        self.batches: list[Array] = []

    @property
    def layers(self) -> Any:
        return (layer("one", "n"),)

    @property
    def timing_method(self) -> Mapping[str, str]:
        return {}

    def timing_context(self, feed: Any, *, profiled: bool, options: Any = None) -> Any:
        raise NotImplementedError

    def _infer(self, feed: dict[str, Array]) -> dict[str, Array]:
        self.batches.append(feed["x"])
        found = self.compute(feed["x"])
        return found if isinstance(found, dict) else {"y": found}


def rows(count: int = 8, seed: int = 0) -> dict[str, Array]:
    return {"x": np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)}


def encoder_engine(path: Path) -> OnnxRuntimeEngine:
    model = OnnxModel(path)
    profiles, _ = resolve_profiles(model.inputs, [request_shapes(*ENCODER)])
    return OnnxRuntimeEngine(model, name=path.stem, profiles=profiles)


def single_node(path: Path, op: str, dims: tuple[Any, ...] = ("batch", 4), **attributes: Any) -> Path:
    """``y = op(x)`` over (batch, 4)."""
    graph = Graph()
    graph.add(op, [graph.input("x", ["batch", 4])], f"/{op}", "y", **attributes)
    graph.output("y", list(dims))
    return graph.save(path)


def only(relation: Relation) -> str:
    """The rule of a check that fails."""
    assert not relation.ok
    (rule,) = {finding.rule for finding in relation.findings}
    with pytest.raises(AssertionError, match=f"no {relation.name}: "):
        relation.check()
    return rule


class TestSoundModels:
    @pytest.mark.parametrize("check", [check_determinism, check_batch_consistency, check_row_permutation])
    def test_a_network_of_images(self, conv_net: Path, check: Any) -> None:
        engine = ort_engine(conv_net)
        relation = check(engine, make_feed(engine.info.inputs, {"x": (5, 3, 16, 16)}))
        relation.check()

        assert relation.ok
        assert relation.outputs == ("logits",)
        assert relation.message() == f"{relation.name}: holds for logits"

    def test_an_encoder_in_everything(self, encoder: Path) -> None:
        engine = encoder_engine(encoder)
        relations = check_relations(engine, make_feed(engine.info.inputs, TOKENS))
        relations.check()

        assert [relation.ok for relation in relations.relations] == [True] * 4
        assert relations.message() == relations.summary()
        assert relations.summary() == "determinism, batch consistency, row permutation, padding invariance hold"

    @given(st.integers(2, 9), st.integers(1, 12), st.integers(0, 20))
    def test_any_number_of_rows(self, count: int, picked: int, seed: int) -> None:
        engine = Computed(lambda x: np.tanh(x) * 3)

        assert check_batch_consistency(engine, rows(count), rows=picked).ok
        assert len(engine.batches) == 1 + min(picked, count)
        assert check_row_permutation(engine, rows(count), seed=seed).ok
        assert not np.array_equal(engine.batches[-1], rows(count)["x"])


class TestDeterminism:
    def test_random_numbers_in_the_model(self, tmp_path: Path) -> None:
        engine = ort_engine(single_node(tmp_path / "net.onnx", "RandomNormalLike"))

        assert only(check_determinism(engine, rows())) == "metamorphic.determinism"

    def test_what_another_input_left_behind(self) -> None:
        """Seen only because another input is run in between."""
        seen: list[Array] = []

        def stale(x: Array) -> Array:
            seen.append(x)
            return np.where(np.arange(4) == 3, seen[-2] if len(seen) > 1 else x, x)

        relation = check_determinism(Computed(stale), rows())
        assert only(relation) == "metamorphic.determinism"
        assert "run 2 of the same input: output 'y'" in relation.message()
        assert "in column 3 of 4" in relation.message()
        assert "state that the other input left behind" in relation.message()

    def test_outputs_in_one_buffer(self) -> None:
        """The second run overwrites what the first returned."""
        buffer = np.zeros((8, 4), np.float32)
        noise = iter(range(9))

        def into_buffer(x: Array) -> Array:
            buffer[:] = x + next(noise)
            return buffer

        assert not check_determinism(Computed(into_buffer), rows()).ok

    def test_one_bit(self) -> None:
        steps = iter(range(100))

        def last_bit(x: Array) -> Array:
            moved: Array = x.view(np.int32) + np.int32(next(steps) % 3)
            return moved.view(np.float32)

        assert "differ; worst" in check_determinism(Computed(last_bit), rows()).message()
        assert check_determinism(Computed(last_bit), rows(), tolerance=Tolerance(1e-6, 0)).ok
        relations = check_relations(Computed(last_bit), rows())
        relations.check()
        (warning,) = relations.relations[0].findings
        assert warning.severity == "warning"
        assert "not the same bit for bit, it differs by up to" in warning.what

    def test_the_sign_of_zero_and_what_nan_carries(self) -> None:
        signs = iter([1.0, 1.0, -1.0])
        relation = check_determinism(Computed(lambda x: x * 0 * np.float32(next(signs))), {"x": np.ones((2, 4), "f")})
        assert "only in the sign of zeros" in relation.message()

        steady = check_determinism(Computed(lambda x: x * np.float32("nan")), rows())
        assert steady.ok

    def test_more_runs(self) -> None:
        engine = Computed(lambda x: x)
        check_determinism(engine, rows(), runs=4).check()
        assert len(engine.batches) == 7
        with pytest.raises(ValueError, match="runs must be at least 2, not 1"):
            check_determinism(engine, rows(), runs=1)


class TestBatchConsistency:
    def test_a_fault_at_one_batch_size(self, tmp_path: Path) -> None:
        engine = ort_engine(planted.scaled_at_batch(tmp_path / "net.onnx", batch=6, factor=1.01))
        relation = check_batch_consistency(engine, rows(6))

        assert only(relation) == "metamorphic.batch"
        assert " of a batch of 6, against the same row alone: output 'y': " in relation.message()
        assert check_batch_consistency(engine, rows(5)).ok
        assert check_batch_consistency(engine, rows(6), tolerance=Tolerance(0.02, 0)).ok
        assert check_batch_consistency(engine, rows(6), per_output={"y": (0.02, 0.0)}).ok

    @pytest.mark.parametrize("row", [0, 7])
    def test_one_row_is_wrong(self, row: int) -> None:
        """The first and the last are always looked at: that is where kernels handle the rest of a tile."""

        def wrong(x: Array) -> Array:
            y = x * 2
            if len(x) == 8:
                y[row] += 1
            return y

        relation = check_batch_consistency(Computed(wrong), rows(8), rows=2)
        assert [finding.what.partition(":")[0] for finding in relation.findings] == [
            f"row {row} of a batch of 8, against the same row alone"
        ]

    def test_equal_rows_that_get_different_results(self) -> None:
        """A row alone is several equal rows, where the engine takes no fewer."""
        engine = Computed(lambda x: x + (np.arange(len(x)) == 1)[:, None], low=3)
        relation = check_batch_consistency(engine, rows(8))

        assert {len(batch) for batch in engine.batches} == {8, 3}
        assert only(relation) == "metamorphic.batch"

    def test_a_model_that_mixes_rows(self, tmp_path: Path) -> None:
        path = single_node(tmp_path / "net.onnx", "Softmax", axis=0)
        engine, shadow = ort_engine(path), Shadow(path, tmp_path)

        assert only(check_batch_consistency(engine, rows())) == "metamorphic.batch"
        relation = check_batch_consistency(engine, rows(), reference=shadow)
        assert relation.inapplicable == "the reference does not have this property either"
        with pytest.raises(NotApplicableError, match="batch consistency: the reference does not have"):
            relation.check()

    def test_the_reference_excuses_only_what_it_shows_itself(self, tmp_path: Path) -> None:
        def two(factor: float) -> Computed:
            def compute(x: Array) -> dict[str, Array]:
                return {"mixed": x - x.mean(axis=0), "own": x * (factor if len(x) == 8 else 1)}

            return Computed(compute)

        relation = check_batch_consistency(two(2), rows(8), reference=two(1))
        assert {finding.where for finding in relation.findings} == {"own"}
        assert relation.outputs == ("own",)

    def test_nan_on_both_sides_is_consistent(self) -> None:
        assert check_batch_consistency(Computed(lambda x: x * np.float32("nan")), rows()).ok

    def test_nan_in_the_batch_only(self) -> None:
        engine = Computed(lambda x: x if len(x) == 1 else x * np.float32("nan"))
        assert "4 of them are NaN or infinite" in check_batch_consistency(engine, rows()).message()

    def test_a_row_near_zero_has_the_tolerance_of_the_others(self) -> None:
        """One score a row, and one of them next to zero: its rounding is that of the terms that cancelled."""
        engine = Computed(lambda x: x[:, :1] + np.float32(1e-5) * (len(x) > 1))
        feed = {"x": np.array([[1e-6], [1], [-2], [3]], np.float32).repeat(4, axis=1)}

        assert check_batch_consistency(engine, feed).ok
        assert not check_batch_consistency(engine, {"x": feed["x"] / 100}).ok


class TestRowPermutation:
    def test_a_row_that_depends_on_its_place(self) -> None:
        engine = Computed(lambda x: x + (np.arange(len(x)) == 5)[:, None] * np.float32(0.1))
        relation = check_row_permutation(engine, rows(8))

        assert only(relation) == "metamorphic.permutation"
        assert "8 rows in the order " in relation.message()
        assert "all in row" in relation.message() or "all in rows" in relation.message()

    def test_two_rows_are_always_exchanged(self) -> None:
        engine = Computed(lambda x: x + np.arange(len(x), dtype=np.float32)[:, None])
        assert all(not check_row_permutation(engine, rows(2), seed=seed).ok for seed in range(8))


class TestWhereTheyMakeNoSense:
    def test_one_row(self, mlp: Path) -> None:
        engine = ort_engine(mlp)
        feed = make_feed(engine.info.inputs, {"x": (1, 8)})

        for check in (check_batch_consistency, check_row_permutation):
            relation = check(engine, feed)
            assert not relation.ok
            assert "one row; two or more are needed" in relation.inapplicable
            with pytest.raises(NotApplicableError, match="one row"):
                relation.check()

    def test_a_static_batch(self, tmp_path: Path) -> None:
        engine = ort_engine(models.mlp(tmp_path / "mlp.onnx", batch=4))
        feed = make_feed(engine.info.inputs, {"x": (4, 8)})

        assert "no input has a dynamic first dimension" in check_batch_consistency(engine, feed).inapplicable
        relations = check_relations(engine, feed)
        relations.check()
        assert [relation.ok for relation in relations.relations] == [True, False, False, False]

    def test_outputs_without_rows(self, tmp_path: Path) -> None:
        path = single_node(tmp_path / "net.onnx", "ReduceSum", (1, 1))
        engine = ort_engine(path)

        for check in (check_batch_consistency, check_row_permutation):
            assert "no output has a row for each row" in check(engine, rows()).inapplicable

    def test_inputs_of_different_length(self, tmp_path: Path) -> None:
        graph = Graph()
        graph.add("MatMul", [graph.input("a", ["?", 4]), graph.input("b", ["?", 4, 4])], "/MatMul", "y")
        graph.output("y", ["n", "m", 4])
        engine = ort_engine(graph.save(tmp_path / "net.onnx"), "a:3x4,b:2x4x4")
        feed = make_feed(engine.info.inputs, {"a": (3, 4), "b": (2, 4, 4)})

        assert "do not have equally many rows" in check_batch_consistency(engine, feed).inapplicable

    def test_no_mask(self, mlp: Path) -> None:
        engine = ort_engine(mlp)
        assert check_padding(engine, make_feed(engine.info.inputs, {"x": (2, 8)})).inapplicable == (
            "no input is called a mask"
        )

    def test_a_mask_of_nothing(self, tmp_path: Path) -> None:
        """An image with a mask of which no other input has the width is left alone, as is one of several masks."""
        graph = Graph()
        x, mask = graph.input("x", ["batch", 4]), graph.input("mask", ["batch", "width"])
        graph.add("Add", [x, graph.add("ReduceSum", [mask], "/Sum", keepdims=1)], "/Add", "y")
        graph.output("y", ["batch", 4])
        engine = ort_engine(graph.save(tmp_path / "net.onnx"), "x:2x4,mask:2x6")
        relation = check_padding(engine, make_feed(engine.info.inputs, {"x": (2, 4), "mask": (2, 6)}))
        assert "no other input has the last axis of 'mask'" in relation.inapplicable

        several = Computed(lambda x: x)
        several.info = EngineInfo(
            "net", "", "onnxruntime", "1",
            tuple(TensorSpec(name, "float32", ("batch", "length")) for name in ("x", "mask", "image_mask")), (),
            ({name: ShapeRange((1, 1), (2, 4), (8, 8)) for name in ("x", "mask", "image_mask")},),
        )  # fmt: skip
        feed = {name: np.ones((2, 4), np.float32) for name in ("x", "mask", "image_mask")}
        assert "several inputs are called masks, mask, image_mask" in check_padding(several, feed).inapplicable
        with pytest.raises(ValueError, match="mask='typing' is no input"):
            check_padding(several, feed, mask="typing")

    def test_everything(self) -> None:
        engine = Computed(lambda x: np.zeros((0, 4), np.float32))
        relations = check_relations(engine, rows())
        with pytest.raises(NotApplicableError, match="determinism: no output has elements"):
            relations.check()

    def test_an_engine_that_does_not_run_here(self) -> None:
        engine = Computed(lambda x: x)
        engine.blocked = "needs a GPU"
        with pytest.raises(NotRunnableError, match="needs a GPU"):
            check_determinism(engine, rows())

    def test_without_time(self) -> None:
        engine = Computed(lambda x: x)
        relations = check_relations(engine, rows(), budget_s=-1.0)
        assert engine.batches == []
        assert all("left out" in relation.inapplicable for relation in relations.relations)


def without_mask(source: Path, path: Path) -> Path:
    """The encoder, as if its mask did nothing."""
    proto = onnx.load(str(source))
    for tensor in proto.graph.initializer:
        if tensor.name == "low":
            tensor.CopyFrom(numpy_helper.from_array(np.float32(0), "low"))
    return models.write(proto, path)


class TestPadding:
    def test_both_ways(self, encoder: Path) -> None:
        """Other content in what is hidden, and an input that ends where it begins."""
        engine = encoder_engine(encoder)
        seen: list[dict[str, Array]] = []
        infer = engine._infer

        def watched(feed: dict[str, Array]) -> dict[str, Array]:
            seen.append(feed)
            return infer(feed)

        engine._infer = watched  # type: ignore[method-assign]
        check_padding(engine, make_feed(engine.info.inputs, TOKENS)).check()
        whole, changed, short = seen

        assert (whole["mask"][..., 4:] == 0).all()
        assert (whole["mask"][..., :4] == 1).all()
        assert (changed["ids"][:, :4] == whole["ids"][:, :4]).all()
        assert (changed["ids"][:, 4:] != whole["ids"][:, 4:]).any()
        assert short["ids"].shape == (4, 4)
        assert short["mask"].shape == (4, 1, 1, 4)

    def test_a_mask_that_is_ignored(self, encoder: Path, tmp_path: Path) -> None:
        engine = encoder_engine(without_mask(encoder, tmp_path / "faulty.onnx"))
        feed = make_feed(engine.info.inputs, TOKENS)
        relation = check_padding(engine, feed, reference=Shadow(encoder, tmp_path))

        assert only(relation) == "metamorphic.padding"
        assert "positions 4 to 7 of 'mask' hidden, with other values there: output" in relation.message()
        assert "positions 4 to 7 of 'mask' hidden, against an input that ends there: output" in relation.message()
        twin = Shadow(tmp_path / "faulty.onnx", tmp_path)
        assert "the reference does not have" in check_padding(engine, feed, reference=twin).inapplicable

    def test_the_other_convention(self, encoder: Path) -> None:
        """Some masks are 1 where nothing is."""
        engine = encoder_engine(encoder)
        assert not check_padding(engine, make_feed(engine.info.inputs, TOKENS), hidden=1).ok

    def test_a_pooled_output_is_compared_whole(self, tmp_path: Path) -> None:
        graph = Graph()
        ids, mask = (graph.input(name, ["batch", "length"]) for name in ("ids", "attention_mask"))
        graph.add(
            "ReduceSum", [graph.add("Mul", [ids, mask], "/Mul"), graph.constant("one", np.array([1]))], "/Sum", "p"
        )
        graph.add("ReduceMax", [ids], "/Max", "q", axes=[1])
        graph.output("p", ["batch", 1])
        graph.output("q", ["batch", 1])
        engine = ort_engine(graph.save(tmp_path / "net.onnx"), "ids:3x8,attention_mask:3x8")
        feed = {"ids": np.arange(24, dtype=np.float32).reshape(3, 8), "attention_mask": np.ones((3, 8), np.float32)}
        relation = check_padding(engine, feed)

        assert relation.outputs == ("p", "q")
        assert {finding.where for finding in relation.findings} == {"q"}

    def test_one_position(self, encoder: Path) -> None:
        engine = encoder_engine(encoder)
        feed = make_feed(engine.info.inputs, {"ids": (4, 1), "mask": (4, 1, 1, 1)})
        assert "two or more are needed" in check_padding(engine, feed).inapplicable

    def test_an_engine_file_keeps_no_symbols(self, encoder: Path) -> None:
        """The mask's axis is then found by its size, and axes of fixed size are not taken for it."""
        engine = encoder_engine(encoder)
        nameless = tuple(
            TensorSpec(spec.name, spec.dtype, tuple("?" if isinstance(dim, str) else dim for dim in spec.shape))
            for spec in engine.info.inputs
        )
        engine.info = EngineInfo(**{**vars(engine.info), "inputs": nameless})
        feed = make_feed(engine.info.inputs, TOKENS)
        feed["mask"][:] = 1
        feed["ids"] = np.arange(32).reshape(4, 8)

        assert [relation.ok for relation in check_relations(engine, feed).relations] == [True] * 4


class TestTolerance:
    @pytest.mark.parametrize(
        ("dtype", "expected"),
        [("float32", 1e-4), ("float16", 1.6e-2), ("bfloat16", 6e-2), ("int8", 1.6e-2), ("fp8", 6e-2), ("int4", 1.6e-2)],
    )
    def test_of_a_precision(self, dtype: str, expected: float) -> None:
        """Both runs round alike where they quantise."""

        class Layered(Computed):
            @property
            def layers(self) -> Any:
                return (layer("one", "n", kind="gemm", dtype=dtype),)

        assert consistency_tolerance(Layered(lambda x: x)).rtol == expected

    def test_int8_in_onnx_runtime(self, tmp_path: Path) -> None:
        _, path = planted.int8_pair(tmp_path)
        engine = ort_engine(path)
        relations = check_relations(engine, make_feed(engine.info.inputs, {"x": (4, 3, 8, 8)}))
        relations.check()

        assert relations.relations[1].ok

    def test_integers_are_exact(self, tmp_path: Path) -> None:
        graph = Graph()
        graph.add("ArgMax", [graph.input("x", ["batch", 4])], "/ArgMax", "y", axis=1, keepdims=0)
        graph.output("y", ["batch"], TensorProto.INT64)
        engine = ort_engine(graph.save(tmp_path / "net.onnx"))
        check_batch_consistency(engine, rows()).check()

        shifted = Computed(lambda x: x.argmax(axis=1) + (len(x) == 8))
        assert not check_batch_consistency(shifted, rows()).ok
