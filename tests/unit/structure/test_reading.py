from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_trtgray.baselines.store import BaselineFile, encode
from pytest_trtgray.engines.layer_listing import layers_from_json, layers_from_log, layers_to_rows
from pytest_trtgray.errors import ModelError
from pytest_trtgray.structure import read_layers, read_snapshot
from tests import recordings


@pytest.mark.parametrize("name", ["rtx15_bert_base_fp16", "trt85_resnet50_int8"])
def test_an_inspectors_json(name: str, tmp_path: Path) -> None:
    path = recordings.unpacked(f"{name}.layers.json", tmp_path)
    expected = layers_from_json(recordings.listing(name))

    assert read_layers(path) == read_layers(str(path)) == expected
    assert read_layers(recordings.listing(name)) == expected


def test_a_build_log(tmp_path: Path) -> None:
    path = recordings.unpacked("rtx14_mlp.log", tmp_path)

    assert read_layers(path) == layers_from_log(recordings.messages("rtx14_mlp"))


def test_a_baseline_of_this_package(tmp_path: Path) -> None:
    made = layers_from_json(recordings.listing("trt85_resnet50_int8"))
    file = BaselineFile("t.py::test", "net", {}, {"structure": {"layers": layers_to_rows(made)}})
    path = tmp_path / "baseline.json"
    path.write_bytes(encode(file))

    assert read_layers(path) == made


@pytest.mark.parametrize("name", ["rtx17_bert_base", "trt85_resnet50_int8"])
def test_a_log_tells_memory_too(name: str, tmp_path: Path) -> None:
    found = read_snapshot(recordings.unpacked(f"{name}.log", tmp_path))

    assert list(found.layers) == recordings.log_layers(name)
    assert (
        found.memory.activations_bytes == {"rtx17_bert_base": 1_098_711_552, "trt85_resnet50_int8": 128_499_712}[name]
    )


def test_json_of_tensorrt_11_tells_inputs_and_outputs() -> None:
    found = read_snapshot(recordings.listing("rtx15_bert_base_fp16"))

    assert [spec.name for spec in found.inputs] == ["ids", "mask"]
    assert [spec.name for spec in found.outputs] == ["h"]


def test_a_log_of_windows(tmp_path: Path) -> None:
    path = tmp_path / "build.log"
    path.write_bytes(b"\xef\xbb\xbf" + recordings.text("rtx17_bert_base_fp16.log").replace("\n", "\r\n").encode())

    assert read_layers(path) == recordings.log_layers("rtx17_bert_base_fp16")


def test_names_with_control_characters(tmp_path: Path) -> None:
    """TensorRT writes separators and newlines into JSON texts as they are."""
    path = tmp_path / "raw.json"
    metadata = "[ONNX Layer: a\nb]\x1f[ONNX Layer: c]"
    path.write_text(f'{{"Layers": [{{"Name": "l", "LayerType": "gemm", "Metadata": "{metadata}"}}]}}')

    assert read_layers(path)[0].onnx_nodes == {"a\nb", "c"}


def test_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.json"
    path.write_bytes(b'{"Layers": ["caf\xe9"]}')

    assert read_layers(path)[0].name.startswith("caf")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has no list of layers"),
        (b"hello", "has no list of layers"),
        (b"Layers:\n", "has no list of layers"),
        (b'{"Layers": ', "not valid JSON"),
        (b"{}", "has no list of layers"),
        (b'{"entries": {"timing": {}}}', "has no list of layers"),
    ],
)
def test_files_without_layers(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=words) as caught:
        read_layers(path)
    assert caught.value.thing == str(path)
    assert "trtexec" in caught.value.remedy


@pytest.mark.parametrize(
    "content",
    [
        '{"Layers": 5}',
        '{"Layers": [5]}',
        '{"Layers": [{"Name": "a", "Inputs": 5}]}',
        '{"entries": {"structure": {}}}',
        '{"entries": {"structure": {"layers": [{"kind": "gemm"}]}}}',
        '{"entries": []}',
        '{"entries": 5}',
    ],
)
def test_json_of_another_form(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(ModelError) as caught:
        read_layers(path)
    assert caught.value.reason


def test_a_list_instead_of_an_object(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"Name": "a"}]))
    with pytest.raises(ModelError, match="has no list of layers"):
        read_layers(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file") as caught:
        read_layers(tmp_path / "none.json")
    assert "trtexec" in caught.value.remedy


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="directory"):
        read_layers(tmp_path)
