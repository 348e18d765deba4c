from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.engines.model import Memory, TensorSpec
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.files import dump_json
from pytest_trtgray.structure.snapshot import Snapshot, compare_snapshots, snapshot_of, with_model
from tests import models, recordings
from tests.unit.helpers import layer, ort_engine
from tests.unit.strategies import layers

SPECS = st.lists(
    st.builds(
        TensorSpec,
        st.text(min_size=1),
        st.sampled_from(["float32", "float16", "int64"]),
        st.lists(st.integers(0, 99) | st.sampled_from(["batch", "?"]), max_size=4).map(tuple),
    ),
    max_size=3,
    unique_by=lambda spec: spec.name,
).map(tuple)
BYTES = st.none() | st.integers(0, 10**12)
SNAPSHOTS = st.builds(
    Snapshot,
    st.lists(layers(), max_size=5).map(tuple),
    SPECS,
    SPECS,
    st.builds(Memory, BYTES, BYTES, BYTES),
    st.lists(st.text(), max_size=3).map(tuple),
)

NET = Snapshot(
    (layer("a", "x"), layer("b", "y")),
    (TensorSpec("x", "float32", ("batch", 8)),),
    (TensorSpec("y", "float32", ("batch", 8)),),
    Memory(weights_bytes=1000, activations_bytes=2000, scratch_bytes=3000),
)


@given(SNAPSHOTS)
def test_round_trip(snapshot: Snapshot) -> None:
    stored = json.loads(dump_json(snapshot.to_dict()))

    assert Snapshot.from_dict(stored) == snapshot


@given(SNAPSHOTS)
def test_nothing_changed(snapshot: Snapshot) -> None:
    assert compare_snapshots(snapshot, snapshot) == ()


def test_precision() -> None:
    assert NET.precision == "float32"
    assert replace(NET, layers=(*NET.layers, layer("c", "z", dtype="int8"))).precision == "int8"
    assert replace(NET, layers=()).precision == ""


@pytest.mark.parametrize("role", ["input", "output"])
@pytest.mark.parametrize(
    ("now", "words"),
    [
        ((), " is gone"),
        ((TensorSpec("NAME", "float16", ("batch", 8)),), "is now NAME:batchx8 float16"),
        ((TensorSpec("NAME", "float32", ("batch", 9)),), "is now NAME:batchx9 float32"),
        ((TensorSpec("NAME", "float32", (1, 8)),), "is now NAME:1x8 float32"),
        ((TensorSpec("NAME", "float32", ("batch", 8)), TensorSpec("z", "int8", ())), "z: int8 is new"),
    ],
)
def test_inputs_and_outputs(role: str, now: tuple[TensorSpec, ...], words: str) -> None:
    name = {"input": "x", "output": "y"}[role]
    specs = tuple(replace(spec, name=name) if spec.name == "NAME" else spec for spec in now)
    (finding,) = compare_snapshots(NET, replace(NET, **{f"{role}s": specs}))  # type: ignore[arg-type]

    assert finding.severity == "error"
    assert finding.rule == f"structure.{role}-changed"
    assert words.replace("NAME", name) in finding.what
    assert finding.what.startswith(role)


def test_a_renamed_output() -> None:
    renamed = replace(NET, outputs=(TensorSpec("z", "float32", ("batch", 8)),))

    assert [finding.what for finding in compare_snapshots(NET, renamed)] == [
        "output y:batchx8 float32 is gone",
        "output z:batchx8 float32 is new",
    ]


@pytest.mark.parametrize(
    ("before", "after", "grown"),
    [
        (Memory(weights_bytes=1000), Memory(weights_bytes=1049), False),
        (Memory(weights_bytes=1000), Memory(weights_bytes=1051), True),
        (Memory(activations_bytes=1000), Memory(activations_bytes=2000), True),
        (Memory(scratch_bytes=1000), Memory(scratch_bytes=9000), False),
        (Memory(weights_bytes=1000), Memory(weights_bytes=10), False),
        (Memory(weights_bytes=None), Memory(weights_bytes=10), False),
        (Memory(weights_bytes=1000), Memory(weights_bytes=None), False),
        (Memory(weights_bytes=0), Memory(weights_bytes=10), False),
    ],
)
def test_memory(before: Memory, after: Memory, grown: bool) -> None:
    findings = compare_snapshots(replace(NET, memory=before), replace(NET, memory=after))

    assert [finding.rule for finding in findings] == ["structure.memory-grew"] * grown
    assert all(finding.severity == "error" for finding in findings)


def test_memory_in_words() -> None:
    (finding,) = compare_snapshots(NET, replace(NET, memory=replace(NET.memory, weights_bytes=2_000_000)))

    assert finding.what == "weights grew by 199900%: 1,000 -> 2,000,000 bytes"
    assert finding.evidence == {"before_bytes": 1000, "after_bytes": 2_000_000}


def test_memory_of_an_added_node_is_no_second_change() -> None:
    grown = replace(NET, layers=(*NET.layers, layer("c", "z")), memory=replace(NET.memory, weights_bytes=9000))
    severities = {finding.rule: finding.severity for finding in compare_snapshots(NET, grown)}

    assert severities == {"structure.node-added": "error", "structure.memory-grew": "advice"}


def test_what_a_listing_does_not_tell_is_no_change() -> None:
    """A log has no inputs, outputs or memory."""
    assert compare_snapshots(NET, Snapshot(NET.layers)) == compare_snapshots(Snapshot(NET.layers), NET) == ()


class TestFolded:
    """ONNX nodes that no layer lists."""

    def test_of_an_engine(self, encoder: Path) -> None:
        engine = ort_engine(encoder, "ids:2x8,mask:2x1x1x8")
        found = snapshot_of(engine)
        listed = {node for each in engine.layers for node in each.onnx_nodes}

        assert listed | set(found.folded) == set(engine.model.computed_nodes)
        assert not listed & set(found.folded)

    def test_arithmetic_on_weights_is_none(self, tmp_path: Path) -> None:
        model = OnnxModel(models.qdq(tmp_path / "qdq.onnx", axis=1))

        assert model.computed_nodes == ("/x/Q", "/x/DQ", "/MatMul")

    def test_of_a_log_and_a_model(self, tmp_path: Path) -> None:
        model = OnnxModel(recordings.model("bert_base", tmp_path))
        found = with_model(Snapshot(tuple(recordings.log_layers("rtx17_bert_base"))), model)

        assert len(found.folded) == 258
        assert "/bert/encoder/layer.0/attention/self/Concat" in found.folded

    def test_a_baseline_of_an_earlier_version_has_none(self) -> None:
        assert "folded" not in NET.to_dict()
        assert Snapshot.from_dict(NET.to_dict()) == NET


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"layers": []},
        {"layers": [], "inputs": [], "outputs": []},
        {"layers": [{}], "inputs": [], "outputs": [], "memory": {}},
        {"layers": [], "inputs": [["x"]], "outputs": [], "memory": {}},
        {"layers": [], "inputs": [], "outputs": [], "memory": {"weights_bytes": "many"}},
        {"layers": [], "inputs": [], "outputs": [], "memory": {"other_bytes": 1}},
    ],
)
def test_what_is_no_snapshot(stored: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Snapshot.from_dict(stored)
