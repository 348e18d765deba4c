from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from pytest_trtgray.engines.model import TensorSpec
from pytest_trtgray.engines.onnx_model import OnnxModel, dtype_name, external_files
from pytest_trtgray.errors import ModelError
from tests import models


def refusal(path: Path, content: bytes | None = None) -> ModelError:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        OnnxModel(path)
    assert str(path) in caught.value.message
    return caught.value


class TestContent:
    def test_nodes_in_order(self, mlp: Path) -> None:
        nodes = OnnxModel(mlp).nodes

        assert [node.name for node in nodes] == ["/fc0/MatMul", "/fc0/Add", "/fc0/Relu", "/fc1/MatMul", "/fc1/Add"]
        assert nodes[0].inputs == ("x", "fc0.weight")
        assert nodes[-1].outputs == ("y",)

    def test_inputs_and_outputs(self, mlp: Path) -> None:
        model = OnnxModel(mlp)

        assert model.inputs == (TensorSpec("x", "float32", ("batch", 8)),)
        assert model.outputs == (TensorSpec("y", "float32", ("batch", 8)),)

    def test_unnamed_nodes_get_tensorrts_names(self, mlp: Path, tmp_path: Path) -> None:
        nodes = OnnxModel(models.unnamed(mlp, tmp_path / "unnamed.onnx")).nodes

        assert nodes[0].name == "node_of_/fc0/MatMul_output"
        assert nodes[-1].name == "node_of_y"
        assert len({node.name for node in nodes}) == len(nodes)

    def test_a_weight_that_is_declared_as_input_is_none(self, mlp: Path, tmp_path: Path) -> None:
        """Exporters before IR 4 list every weight as an input."""
        proto = onnx.load(str(mlp))
        for tensor in proto.graph.initializer:
            value = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            proto.graph.input.append(value)

        assert [spec.name for spec in OnnxModel(models.write(proto, tmp_path / "old.onnx")).inputs] == ["x"]

    def test_dimensions_without_a_name(self, tmp_path: Path) -> None:
        path = models.unary(tmp_path / "unnamed_dim.onnx", "Relu")
        proto = onnx.load(str(path))
        proto.graph.input[0].type.tensor_type.shape.dim[0].ClearField("dim_param")
        (spec,) = OnnxModel(models.write(proto, path)).inputs

        assert spec.shape == ("?", 4)
        assert spec.is_dynamic

    def test_a_scalar_input(self, tmp_path: Path) -> None:
        graph = models.Graph()
        graph.input("x", [])
        graph.add("Relu", ["x"], "/Relu", "y")
        graph.output("y", [])
        (spec,) = OnnxModel(graph.save(tmp_path / "scalar.onnx")).inputs

        assert spec.shape == ()
        assert not spec.is_dynamic

    def test_types_of_tensors_in_between(self, mlp: Path, tmp_path: Path) -> None:
        assert OnnxModel(mlp).tensors["/fc0/Relu_output"] == TensorSpec("/fc0/Relu_output", "float32", ("batch", 16))
        half = OnnxModel(models.to_fp16(mlp, tmp_path / "half.onnx"))
        assert half.tensors["/fc0/Relu_output"].dtype == "float16"
        assert half.tensors["fc0.weight"] == TensorSpec("fc0.weight", "float16", (8, 16))

    def test_types_are_known_behind_large_weights(self, tmp_path: Path) -> None:
        model = OnnxModel(models.mlp(tmp_path / "wide.onnx", hidden=512))

        assert model.tensors["/fc0/Relu_output"].shape == ("batch", 512)

    def test_a_custom_operator_does_not_hide_the_rest(self, tmp_path: Path) -> None:
        model = OnnxModel(models.unary(tmp_path / "custom.onnx", "Mystery", domain="acme"))

        assert model.tensors["x"].shape == ("batch", 4)
        assert model.nodes[0].op_type == "Mystery"

    def test_a_quantised_model(self, tmp_path: Path) -> None:
        model = OnnxModel(models.qdq(tmp_path / "qdq.onnx", stored="int"))

        assert model.tensors["w_quantised"].dtype == "int8"

    def test_bytes_of_the_weights(self, mlp: Path, tmp_path: Path) -> None:
        expected = 4 * (8 * 16 + 16 + 16 * 8 + 8)

        assert OnnxModel(mlp).weights_bytes == expected
        assert OnnxModel(models.external(mlp, tmp_path / "external.onnx")).weights_bytes == expected
        assert OnnxModel(models.to_fp16(mlp, tmp_path / "half.onnx")).weights_bytes == expected // 2

    def test_bytes_of_weights_that_are_not_raw(self, tmp_path: Path) -> None:
        """``make_tensor`` writes a typed list; its size is what the values take, not their encoding."""
        graph = models.Graph()
        x = graph.input("x", ["batch", 4])
        graph.weights.append(helper.make_tensor("w", TensorProto.FLOAT, [4], [1.0, 2.0, 3.0, 4.0]))
        graph.add("Add", [x, "w"], "/Add", "y")
        graph.output("y", ["batch", 4])

        assert OnnxModel(graph.save(tmp_path / "typed.onnx")).weights_bytes == 16

    @pytest.mark.parametrize(
        ("onnx_dtype", "name"),
        [(1, "float32"), (10, "float16"), (16, "bfloat16"), (17, "fp8"), (3, "int8"), (7, "int64"), (99, "unknown")],
    )
    def test_names_of_types(self, onnx_dtype: int, name: str) -> None:
        assert dtype_name(onnx_dtype) == name


class TestLimits:
    def test_token_ids_stay_below_the_length_of_their_table(self, encoder: Path) -> None:
        ids, mask = OnnxModel(encoder).inputs

        assert ids.limits == (0.0, 49.0)
        assert mask.limits == (1.0, 1.0)

    def test_through_casts_and_reshapes(self, tmp_path: Path) -> None:
        graph = models.Graph()
        ids = graph.input("ids", ["batch"], TensorProto.INT32)
        cast = graph.add("Cast", [ids], "/Cast", to=TensorProto.INT64)
        shaped = graph.add("Unsqueeze", [cast, graph.constant("one", [1])], "/Unsqueeze")
        graph.add("Gather", [graph.weight("table", 7, 3), shaped], "/Gather", "y")
        graph.output("y", ["batch", 1, 3])

        assert OnnxModel(graph.save(tmp_path / "cast.onnx")).inputs[0].limits == (0.0, 6.0)

    def test_along_another_axis(self, tmp_path: Path) -> None:
        graph = models.Graph()
        ids = graph.input("ids", ["batch"], TensorProto.INT64)
        graph.add("Gather", [graph.weight("table", 7, 3), ids], "/Gather", "y", axis=1)
        graph.output("y", [7, "batch"])

        assert OnnxModel(graph.save(tmp_path / "axis.onnx")).inputs[0].limits == (0.0, 2.0)

    def test_none_where_the_graph_does_not_tell(self, mlp: Path) -> None:
        assert OnnxModel(mlp).inputs[0].limits is None


class TestHash:
    def test_the_same_content_elsewhere(self, mlp: Path, tmp_path: Path) -> None:
        copy = tmp_path / "copy.onnx"
        copy.write_bytes(mlp.read_bytes())

        assert OnnxModel(copy).sha256 == OnnxModel(mlp).sha256

    def test_other_weights(self, mlp: Path, tmp_path: Path) -> None:
        other = models.scale_weight(mlp, tmp_path / "other.onnx", "fc0.weight", 1.001)

        assert OnnxModel(other).sha256 != OnnxModel(mlp).sha256

    def test_other_external_weights(self, mlp: Path, tmp_path: Path) -> None:
        path = models.external(mlp, tmp_path / "external.onnx")
        before = OnnxModel(path).sha256
        weights = tmp_path / "weights.bin"
        content = bytearray(weights.read_bytes())
        content[5] ^= 1
        weights.write_bytes(content)

        assert OnnxModel(path).sha256 != before


class TestRefusals:
    def test_missing(self, tmp_path: Path) -> None:
        assert refusal(tmp_path / "none.onnx").reason == "no such file"

    def test_a_folder(self, tmp_path: Path) -> None:
        assert refusal(tmp_path).reason == "is not a file"

    def test_empty(self, tmp_path: Path) -> None:
        assert "is empty" in refusal(tmp_path / "empty.onnx", b"").reason

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "web page"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 44260\n", "git lfs pull"),
            (b"PK\x03\x04" + b"\x00" * 60, "ZIP archive"),
            (b"\x1f\x8b\x08\x00" + b"\x00" * 60, "unpack it"),
            (b'{"model": "bert"}', "JSON"),
        ],
    )
    def test_other_files(self, tmp_path: Path, content: bytes, words: str) -> None:
        error = refusal(tmp_path / "x.onnx", content)

        assert "not a readable ONNX model" in error.reason
        assert words in error.reason

    def test_cut_in_the_middle(self, mlp: Path, tmp_path: Path) -> None:
        content = mlp.read_bytes()

        assert "probably cut off" in refusal(tmp_path / "cut.onnx", content[: len(content) // 2]).reason

    @given(st.data())
    def test_cut_off_anywhere(self, mlp: Path, folder: Path, data: st.DataObject) -> None:
        content = mlp.read_bytes()
        # the last bytes are the opset imports: protocol buffers do not miss them
        length = data.draw(st.integers(0, len(content) - 1) | st.integers(len(content) - 8, len(content) - 1))

        assert refusal(folder / "cut.onnx", content[:length]).reason

    @given(st.binary(max_size=100))
    def test_any_bytes(self, folder: Path, content: bytes) -> None:
        assert refusal(folder / "any.onnx", content).reason

    def test_no_nodes(self, tmp_path: Path) -> None:
        proto = helper.make_model(helper.make_graph([], "empty", [], []))

        assert refusal(tmp_path / "no_nodes.onnx", proto.SerializeToString()).reason == "has no nodes"


class TestExternalData:
    @pytest.fixture
    def model(self, mlp: Path, tmp_path: Path) -> Path:
        return models.external(mlp, tmp_path / "external.onnx")

    def test_a_whole_model(self, model: Path) -> None:
        assert external_files(model, OnnxModel(model).proto) == {model.parent / "weights.bin"}

    def test_missing(self, model: Path) -> None:
        (model.parent / "weights.bin").unlink()
        error = refusal(model)

        assert "weights.bin is missing (weight 'fc0.weight')" in error.reason
        assert "beside external.onnx" in error.remedy

    def test_cut_off(self, model: Path) -> None:
        weights = model.parent / "weights.bin"
        size = weights.stat().st_size
        weights.write_bytes(weights.read_bytes()[:-1])

        reason = refusal(model).reason
        assert f"cut off: {size - 1:,} bytes" in reason
        assert f"ends at {size:,}" in reason

    def test_missing_inside_of_a_branch(self, tmp_path: Path) -> None:
        proto = onnx.load(str(models.with_if(tmp_path / "if.onnx")))
        (weight, *_) = (a.g.initializer[0] for a in proto.graph.node[-1].attribute if a.g.initializer)
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="weights.bin")
        path = tmp_path / "external.onnx"
        path.write_bytes(proto.SerializeToString())

        assert f"weights.bin is missing (weight {weight.name!r})" in refusal(path).reason

    @pytest.mark.parametrize("location", ["../outside.bin", "sub/../../outside.bin"])
    def test_outside_of_the_folder(self, model: Path, location: str) -> None:
        (model.parent / "sub").mkdir()
        moved = model.parent / "sub" / model.name if location.startswith("..") else model
        self._point_to(model, moved, location)
        (moved.parent / location).write_bytes((model.parent / "weights.bin").read_bytes())

        assert "outside the model's folder" in refusal(moved).reason

    def test_an_absolute_path(self, model: Path) -> None:
        self._point_to(model, model, str(model.parent.parent / "weights.bin"))

        assert "outside the model's folder" in refusal(model).reason

    def test_a_link_to_the_outside(self, model: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        elsewhere = tmp_path_factory.mktemp("elsewhere") / "weights.bin"
        weights = model.parent / "weights.bin"
        elsewhere.write_bytes(weights.read_bytes())
        weights.unlink()
        weights.symlink_to(elsewhere)

        assert "outside the model's folder" in refusal(model).reason

    def test_a_folder_beside_with_a_longer_name(self, model: Path) -> None:
        """``/models-old`` is not inside ``/models``."""
        inner = model.parent / "models"
        beside = model.parent / "models-old"
        inner.mkdir()
        beside.mkdir()
        moved = inner / model.name
        self._point_to(model, moved, "../models-old/weights.bin")
        (beside / "weights.bin").write_bytes((model.parent / "weights.bin").read_bytes())

        assert "outside the model's folder" in refusal(moved).reason

    def test_in_a_folder_below(self, model: Path) -> None:
        below = model.parent / "data"
        below.mkdir()
        (model.parent / "weights.bin").rename(below / "weights.bin")
        self._point_to(model, model, "data/weights.bin")

        assert OnnxModel(model).weights_bytes > 0

    def test_a_model_behind_a_link(self, model: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        """The folder itself may be reached by a link."""
        link = tmp_path_factory.mktemp("links") / "models"
        link.symlink_to(model.parent, target_is_directory=True)

        assert OnnxModel(link / model.name).inputs[0].name == "x"

    @staticmethod
    def _point_to(source: Path, target: Path, location: str) -> None:
        proto = onnx.load(str(source), load_external_data=False)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        models.write(proto, target)
