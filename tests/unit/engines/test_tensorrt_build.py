"""The builder of TensorRT for RTX: it runs without a GPU, so these are real engines on any machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from pytest_trtgray.engines.cache import EngineCache
from pytest_trtgray.engines.device import find_gpu
from pytest_trtgray.engines.header import read_header
from pytest_trtgray.engines.layer_listing import layers_from_log, layers_from_rows, memory_from_log
from pytest_trtgray.engines.loading import LoadOptions, load_engine
from pytest_trtgray.engines.model import Layer, Memory
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.profiles import ShapeRequest, parse_shapes, resolve_profiles
from pytest_trtgray.errors import EngineError, NotRunnableError
from pytest_trtgray.files import dump_json
from pytest_trtgray.logs.sink import SINK
from tests import models

pytest.importorskip("tensorrt_rtx")

from pytest_trtgray.engines.building import BuildRequest, build
from pytest_trtgray.engines.flavour import version_of
from pytest_trtgray.engines.tensorrt import TensorRTEngine

Built = tuple[bytes, dict[str, Any]]
needs_no_gpu = pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")


def build_model(path: Path, *shapes: str, tf32: bool = True) -> Built:
    model = OnnxModel(path)
    requests = [ShapeRequest(*(parse_shapes(shape),) * 3) for shape in shapes]
    profiles, _ = resolve_profiles(model.inputs, requests)
    return build(model, BuildRequest("tensorrt_rtx", profiles, tf32=tf32))


def layers_of(built: Built) -> list[Layer]:
    return layers_from_rows(built[1]["layers"])


def refusal(path: Path, *shapes: str) -> str:
    with pytest.raises(EngineError) as caught:
        build_model(path, *shapes)
    assert caught.value.thing == str(path)
    assert f"TensorRT for RTX {version_of('tensorrt_rtx')} cannot build it: " in caught.value.reason
    return caught.value.reason


class TestFacts:
    def test_layers_are_those_of_the_log(self, mlp: Path) -> None:
        with SINK.collect("test") as records:
            built = build_model(mlp)
        messages = [record.message for record in records]

        assert layers_of(built) == layers_from_log(messages)
        assert Memory(**built[1]["memory"]) == memory_from_log(messages)

    def test_every_node_is_in_a_layer(self, built: Built, mlp: Path) -> None:
        assert {node for layer in layers_of(built) for node in layer.onnx_nodes} == {
            node.name for node in OnnxModel(mlp).nodes
        }

    def test_memory(self, built: Built) -> None:
        memory = Memory(**built[1]["memory"])

        assert memory.weights_bytes is not None
        assert memory.weights_bytes >= 4 * (8 * 16 + 16 * 8)
        assert memory.activations_bytes is not None

    def test_records_are_kept_without_the_verbose_ones(self, built: Built) -> None:
        severities = {record["severity"] for record in built[1]["records"]}

        assert "info" in severities
        assert "verbose" not in severities
        assert {record["phase"] for record in built[1]["records"]} == {"parse", "build"}

    def test_facts_are_data(self, built: Built) -> None:
        assert json.loads(dump_json(built[1])) == built[1]

    def test_nothing_is_printed(self, mlp: Path, capfd: pytest.CaptureFixture[str]) -> None:
        assert layers_of(build_model(mlp))
        assert capfd.readouterr() == ("", "")


class TestLayers:
    @pytest.mark.parametrize(
        ("make", "precision"),
        [
            (lambda folder, mlp: mlp, "float32"),
            (lambda folder, mlp: models.to_fp16(mlp, folder / "half.onnx"), "float16"),
            (lambda folder, mlp: models.qdq(folder / "qdq.onnx"), "int8"),
        ],
        ids=["fp32", "fp16", "int8"],
    )
    def test_precision(self, make: Any, precision: str, mlp: Path, tmp_path: Path) -> None:
        path = make(tmp_path, mlp)
        products = [layer for layer in layers_of(build_model(path)) if any("MatMul" in n for n in layer.onnx_nodes)]

        assert precision in {layer.precision for layer in products}

    def test_fusions_of_a_residual_network(self, conv_net: Path) -> None:
        layers = layers_of(build_model(conv_net))
        skip = next(layer for layer in layers if "/layer0/Add" in layer.onnx_nodes)

        assert {"/layer0/Add", "/layer0/Relu"} <= skip.onnx_nodes
        assert "/stem/Conv" in {node for layer in layers for node in layer.onnx_nodes}

    def test_nodes_without_names(self, mlp: Path, tmp_path: Path) -> None:
        path = models.unnamed(mlp, tmp_path / "unnamed.onnx")

        assert {node for layer in layers_of(build_model(path)) for node in layer.onnx_nodes} == {
            node.name for node in OnnxModel(path).nodes
        }

    def test_external_weights(self, mlp: Path, tmp_path: Path, built: Built) -> None:
        path = models.external(mlp, tmp_path / "external.onnx")

        assert [layer.onnx_nodes for layer in layers_of(build_model(path))] == [
            layer.onnx_nodes for layer in layers_of(built)
        ]

    @pytest.mark.parametrize(
        "name", ["a]b", "a, LayerType: x", "a\nb", "{q}", "é", "a'\"b", "], Outputs: [", "Layers:\n", "[ONNX Layer: z]"]
    )
    def test_names_that_look_like_the_listing(self, mlp: Path, tmp_path: Path, name: str) -> None:
        proto = onnx.load(str(mlp))
        for node in proto.graph.node:
            node.name = name + node.name
        path = models.write(proto, tmp_path / "odd.onnx")

        assert {node for layer in layers_of(build_model(path)) for node in layer.onnx_nodes} == {
            node.name for node in OnnxModel(path).nodes
        }

    def test_two_profiles_make_two_sets_of_layers(self, mlp: Path) -> None:
        layers = layers_of(build_model(mlp, "x:1x8", "x:16x8"))
        nodes = {node.name for node in OnnxModel(mlp).nodes}

        for profile in (0, 1):
            assert {n for layer in layers if layer.profile == profile for n in layer.onnx_nodes} == nodes


class TestFailures:
    def test_an_operator_that_nobody_has(self, tmp_path: Path) -> None:
        reason = refusal(models.unary(tmp_path / "custom.onnx", "Mystery", domain="acme"))

        assert "Mystery" in reason

    def test_the_first_cause_and_not_the_last_consequence(self, tmp_path: Path) -> None:
        graph = models.Graph()
        x = graph.input("x", ["batch", 4])
        graph.add("MatMul", [x, graph.weight("w", 5, 3)], "/wrong/MatMul", "y")
        graph.output("y", ["batch", 3])
        reason = refusal(graph.save(tmp_path / "mismatch.onnx"))

        assert "/wrong/MatMul" in reason
        assert "failed to parse" not in reason.lower().partition("cannot build it:")[2][:30]

    def test_a_failed_build_does_not_spoil_the_next(self, tmp_path: Path, mlp: Path) -> None:
        refusal(models.unary(tmp_path / "custom.onnx", "Mystery", domain="acme"))

        assert layers_of(build_model(mlp))

    @needs_no_gpu
    def test_full_tensorrt_needs_a_gpu_to_build(self, mlp: Path) -> None:
        model = OnnxModel(mlp)
        profiles, _ = resolve_profiles(model.inputs, ())
        with pytest.raises(NotRunnableError, match="no NVIDIA driver") as caught:
            build(model, BuildRequest("tensorrt", profiles))
        assert "--trt-runtime=tensorrt_rtx" in caught.value.remedy


class TestLoading:
    def test_from_the_cache_the_second_time(self, mlp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        options = LoadOptions("tensorrt_rtx", cache_dir=tmp_path / "cache")
        first = load_engine(mlp, options, name="net")
        monkeypatch.setattr("pytest_trtgray.engines.building.build", lambda *_: pytest.fail("built again"))
        second = load_engine(mlp, options)

        assert (first.info.name, second.info.name) == ("net", "mlp")
        assert first.info.path == second.info.path
        assert Path(first.info.path).parent == tmp_path / "cache"
        assert first.layers == second.layers
        assert first.info.memory == second.info.memory
        assert [record.message for record in second.records] == [record.message for record in first.records]

    def test_other_profiles_are_another_engine(self, mlp: Path, tmp_path: Path) -> None:
        cache = tmp_path / "cache"
        wide = ShapeRequest(*(parse_shapes(text) for text in ("x:1x8", "x:2x8", "x:4x8")))
        default = load_engine(mlp, LoadOptions("tensorrt_rtx", cache_dir=cache))
        other = load_engine(mlp, LoadOptions("tensorrt_rtx", cache_dir=cache, shapes=[wide]))

        assert default.info.path != other.info.path
        assert other.info.profiles[0]["x"].max == (4, 8)
        assert default.notes
        assert other.notes == ()

    def test_what_is_known_without_a_gpu(self, mlp: Path, tmp_path: Path) -> None:
        engine = load_engine(mlp, LoadOptions("tensorrt_rtx", cache_dir=tmp_path))

        assert engine.info.runtime == "tensorrt_rtx"
        assert engine.info.version == read_header(Path(engine.info.path)).version
        assert [spec.name for spec in engine.info.inputs] == ["x"]
        assert [spec.name for spec in engine.info.outputs] == ["y"]
        assert engine.info.targets == "portable"
        assert engine.precision == "float32"
        assert "/fc0/MatMul" in engine.layer("/fc0/MatMul").onnx_nodes

    @needs_no_gpu
    def test_running_without_a_gpu_says_why(self, mlp: Path, tmp_path: Path) -> None:
        engine = load_engine(mlp, LoadOptions("tensorrt_rtx", cache_dir=tmp_path))

        assert engine.blocked.startswith("running a TensorRT for RTX engine needs a GPU: no NVIDIA driver")
        with pytest.raises(NotRunnableError, match="needs a GPU"):
            engine.run({"x": np.ones((8, 8), np.float32)})
        with (
            pytest.raises(NotRunnableError, match="needs a GPU"),
            engine.timing_context({"x": np.ones((8, 8), np.float32)}, profiled=True),
        ):
            pytest.fail("entered")

    @needs_no_gpu
    def test_an_engine_file_without_a_gpu(self, engine_file: Path, mlp: Path) -> None:
        engine = load_engine(engine_file, LoadOptions(), onnx=mlp)

        assert engine.info.runtime == "tensorrt_rtx"
        assert [spec.name for spec in engine.info.inputs] == ["x"]
        assert engine.precision == ""
        with pytest.raises(NotRunnableError, match="only shown on a GPU") as caught:
            len(engine.layers)
        assert "Give the .onnx" in caught.value.remedy

    def test_closing_twice(self, mlp: Path, tmp_path: Path) -> None:
        engine = load_engine(mlp, LoadOptions("tensorrt_rtx", cache_dir=tmp_path))
        engine.close()
        engine.close()

        assert engine.info.name == "mlp"

    def test_an_engine_of_another_version_is_not_loaded(self, engine_file: Path) -> None:
        content = bytearray(engine_file.read_bytes())
        content[25] += 1
        engine_file.write_bytes(content)

        with pytest.raises(EngineError, match="was built by TensorRT for RTX"):
            TensorRTEngine(engine_file, name="old")

    def test_the_cache_holds_the_builds_facts(self, mlp: Path, tmp_path: Path) -> None:
        engine = load_engine(mlp, LoadOptions("tensorrt_rtx", cache_dir=tmp_path))
        manifest = json.loads(Path(engine.info.path).with_suffix(".json").read_text())

        assert layers_from_rows(manifest["layers"]) == list(engine.layers)
        assert manifest["request"]["version"] == version_of("tensorrt_rtx")
        assert EngineCache(tmp_path).get(manifest["request"], lambda: pytest.fail("built again")).was_cached
