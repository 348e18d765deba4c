"""Names of nodes by module, on a model as PyTorch 2.15 exports it."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from pytest_trtgray.engines.model import Layer
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.profiles import resolve_profiles
from pytest_trtgray.engines.scopes import NAME_SCOPES, scope_path, with_scoped_names
from pytest_trtgray.structure import diff
from tests import models, recordings
from tests.unit.helpers import layer, ort_engine


@pytest.fixture(scope="module")
def scoped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recordings.model("torch215_scopes", tmp_path_factory.mktemp("scoped"))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("['', 'blocks.0', 'blocks.0.attn', 'blocks.0.attn.q', 'linear']", "/blocks.0/attn/q"),
        ("['', 'encoder', 'encoder.layer.11', 'add']", "/encoder/layer.11"),
        ("['', 'add']", ""),
        ("['add']", ""),
        ("[]", ""),
        # a module that is used within another one keeps its own name
        ("['', 'decoder', 'shared.embed', 'embedding']", "/decoder/shared.embed"),
        ("['', 'a', 'ab', 'x']", "/a/ab"),
        ("no list", ""),
        ("{'a': 1}", ""),
        ("[1, 2]", ""),
        ("[" * 10_000, ""),
    ],
)
def test_a_path_from_the_metadata(text: str, path: str) -> None:
    assert scope_path(text) == path


class TestOfAnExportedModel:
    def test_names(self, scoped: Path) -> None:
        names = OnnxModel(scoped).scoped_names

        assert names["node_MatMul_1"] == "/blocks.0/attn/q/MatMul"
        assert names["node_linear"] == "/blocks.0/attn/q/Add"
        assert names["node_matmul"] == "/blocks.0/attn/MatMul"
        assert names["node_matmul_1"] == "/blocks.0/attn/MatMul_1"
        assert names["node_layer_norm_1"] == "/blocks.1/norm/LayerNormalization"
        assert names["node_linear_12"] == "/head/Add"
        assert len(set(names.values())) == len(names) == 42

    def test_a_model_with_names_of_its_own(self, encoder: Path) -> None:
        assert OnnxModel(encoder).scoped_names == {}

    def test_layers_and_how_they_are_asked_for(self, scoped: Path) -> None:
        engine = ort_engine(scoped, "x:2x8x16")

        assert {node for each in engine.layers for node in each.onnx_nodes} == set(engine.model.scoped_names.values())
        assert engine.layer("node_MatMul_1") == engine.layer("/blocks.0/attn/q/MatMul")

    def test_layers_of_tensorrt_for_rtx(self, scoped: Path, tmp_path: Path) -> None:
        pytest.importorskip("tensorrt_rtx")
        found = {node for each in rtx_layers(scoped, tmp_path) for node in each.onnx_nodes}

        assert "/blocks.1/attn/q/MatMul" in found
        assert all(node.startswith("/") for node in found)


def test_layers_without_such_names_stay() -> None:
    made = (layer("a", "n1"),)

    assert with_scoped_names(made, {}) == made
    assert with_scoped_names(made, {"n1": "/m/Relu"})[0].onnx_nodes == {"/m/Relu"}
    assert with_scoped_names(made, {"n2": "/m/Relu"}) == made


def rtx_layers(path: Path, cache: Path) -> tuple[Layer, ...]:
    from pytest_trtgray.engines.loading import LoadOptions, load_engine
    from pytest_trtgray.engines.profiles import ShapeRequest, parse_shapes

    shapes = (ShapeRequest(*(parse_shapes("x:2x8x16"),) * 3),)
    resolve_profiles(OnnxModel(path).inputs, shapes)
    return load_engine(path, LoadOptions(runtime="tensorrt_rtx", shapes=shapes, cache_dir=cache)).layers


def with_one_more(source: Path, path: Path) -> Path:
    """What the exporter makes of one more activation in the first block: all numbers after it move on."""
    proto = onnx.load(str(source))
    position = next(i for i, node in enumerate(proto.graph.node) if node.name == "node_gelu")
    node = onnx.helper.make_node("Tanh", [proto.graph.node[position].output[0]], ["tanh"], name="node_tanh")
    node.metadata_props.add(key=NAME_SCOPES, value="['', 'blocks.0', 'blocks.0.mlp', 'blocks.0.mlp.3', 'tanh']")
    reader = proto.graph.node[position + 1]
    reader.input[0] = "tanh"
    proto.graph.node.insert(position + 1, node)
    for later in proto.graph.node[position + 2 :]:
        head, _, number = later.name.rpartition("_")
        later.name = f"{head}_{int(number) + 1}" if number.isdigit() else f"{later.name}_1"
    return models.write(proto, path)


@pytest.mark.parametrize("runtime", ["onnxruntime", "tensorrt_rtx"])
def test_an_inserted_node_does_not_rename_the_others(scoped: Path, tmp_path: Path, runtime: str) -> None:
    longer = with_one_more(scoped, tmp_path / "longer.onnx")
    if runtime == "tensorrt_rtx":
        pytest.importorskip("tensorrt_rtx")
        old, new = rtx_layers(scoped, tmp_path), rtx_layers(longer, tmp_path)
    else:
        old, new = (ort_engine(path, "x:2x8x16").layers for path in (scoped, longer))
    found = diff(old, new)

    assert found.added_nodes == ("/blocks.0/mlp/3/Tanh",)
    assert found.removed_nodes == ()
    assert [finding.rule for finding in found.findings if finding.severity == "error"] == ["structure.node-added"]
