from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.engines.layer_listing import (
    datatype,
    layers_from_json,
    layers_from_log,
    layers_from_rows,
    layers_to_rows,
    listing_in,
    memory_from_log,
    onnx_nodes,
    parse_listing,
    specs_from_json,
)
from pytest_trtgray.engines.model import Layer, LayerTensor, Memory
from tests import recordings
from tests.unit.strategies import layers

ENCODER_LAYERS = 12


class TestInspectorOfRtx15:
    def test_every_layer_is_there_in_order(self) -> None:
        read = layers_from_json(recordings.listing("rtx15_bert_base_fp16"))

        assert [layer.name for layer in read] == recordings.H200().layer_names
        assert read[1].kind == "shape_call"
        assert read[3].kind == "gemm"

    def test_the_nodes_of_every_attention_block_are_found(self) -> None:
        read = layers_from_json(recordings.listing("rtx15_bert_base_fp16"))
        nodes = {node for layer in read for node in layer.onnx_nodes}

        for index in range(ENCODER_LAYERS):
            for part in ("query", "key", "value"):
                assert f"/m/encoder/layer.{index}/attention/self/{part}/MatMul" in nodes
        assert len(nodes) > 300

    @pytest.mark.parametrize(("recorded", "precision"), [("fp16", "float16"), ("fp32", "float32")])
    def test_precision(self, recorded: str, precision: str) -> None:
        read = layers_from_json(recordings.listing(f"rtx15_bert_base_{recorded}"))
        found = Counter(layer.precision for layer in read)

        assert set(found) == {precision, ""}
        assert found[""] == 2  # shapes on the host

    def test_inputs_constants_and_outputs_are_apart(self) -> None:
        read = layers_from_json(recordings.listing("rtx15_bert_base_fp16"))
        embedding = read[2]

        assert [(tensor.name, tensor.dtype) for tensor in embedding.inputs] == [("ids", "int64")]
        assert "m.embeddings.word_embeddings.weight_constantHalf_myl1" in {t.name for t in embedding.constants}
        assert embedding.outputs[0].dtype == "float16"
        assert embedding.outputs[0].format == "(Linear) Row major linear format"
        assert embedding.tactic.startswith("__myl_CastGath")


class TestInspectorOf85:
    def test_names_are_split_into_nodes(self) -> None:
        read = {layer.name: layer for layer in layers_from_json(recordings.listing("trt85_resnet50_int8"))}
        fused = read["/conv1/Conv + /relu/Relu + /maxpool/MaxPool"]

        assert fused.onnx_nodes == {"/conv1/Conv", "/relu/Relu", "/maxpool/MaxPool"}
        assert fused.kind == "CaskConvActPool"

    @pytest.mark.parametrize("recorded", ["trt85_resnet50_fp16", "trt85_resnet50_int8"])
    def test_every_convolution_is_in_one_layer(self, recorded: str) -> None:
        read = layers_from_json(recordings.listing(recorded))
        found = Counter(node for layer in read for node in layer.onnx_nodes)

        assert sum(node.endswith("/Conv") for node in found) == 53
        assert set(found.values()) == {1}
        assert all(node.startswith("/") for node in found)

    def test_constants_and_copies_have_no_nodes(self) -> None:
        read = layers_from_json(recordings.listing("trt85_resnet50_fp16"))
        blank = [layer for layer in read if layer.kind in ("Constant", "Reformat", "NoOp")]

        assert len(blank) > 90
        assert all(not layer.onnx_nodes for layer in blank)

    def test_a_type_that_depends_on_the_shape_is_unknown(self) -> None:
        read = layers_from_json(recordings.listing("trt85_resnet50_fp16"))

        assert read[0].outputs[0].format == ""
        assert {tensor.dtype for layer in read for tensor in layer.inputs} == {""}

    @pytest.mark.parametrize(
        ("name", "nodes"),
        [
            ("Conv_0 + PWN(Clip_3)", {"Conv_0", "Clip_3"}),
            ("Conv_620 + PWN(PWN(Sigmoid_621), Mul_622)", {"Conv_620", "Sigmoid_621", "Mul_622"}),
            ("PWN(/relu/Relu)", {"/relu/Relu"}),
        ],
    )
    def test_point_wise_fusions_in_a_name(self, name: str, nodes: set[str]) -> None:
        """Such names are in public logs of TensorRT 8.4 and 8.5."""
        (layer,) = layers_from_json({"Layers": [{"Name": name, "LayerType": "CaskConvolution"}]})

        assert layer.onnx_nodes == nodes

    @pytest.mark.parametrize(
        "name",
        [
            "{ForeignNode[fc.weight...output]}",
            "{ForeignNode[318...(Unnamed Layer* 4183) [Shuffle]]}",
            "{ForeignNode[(Unnamed Layer* 1247) [Shuffle].../layers.7/Transpose_2 + /layers.7/Reshape_4]}",
            "(Unnamed Layer* 0) [Shuffle]",
            "(Unnamed Layer* 3) [Fully Connected] + (Unnamed Layer* 4) [Activation]",
        ],
    )
    def test_what_a_name_does_not_tell_is_not_made_up(self, name: str) -> None:
        """A ForeignNode names only the first and last of what it holds."""
        (layer,) = layers_from_json({"Layers": [{"Name": name, "LayerType": "Myelin"}]})

        assert layer.onnx_nodes == frozenset()

    def test_what_was_made_of_a_node_is_no_part_of_its_name(self) -> None:
        """As TensorRT for RTX 1.5 lists a 1x1 convolution; a name may end like this itself."""
        text = "[ONNX Layer: /conv1/Conv]\x1f[ONNX Layer: /relu/Relu]__gemm_from_conv1x1"

        assert onnx_nodes(text) == {"/conv1/Conv", "/relu/Relu"}
        assert onnx_nodes("[ONNX Layer: a]__b]\x1f[ONNX Layer: c__d]") == {"a]__b", "c__d"}

    def test_a_profile_in_the_name(self) -> None:
        entry = {"Name": "/conv1/Conv + /relu/Relu [profile 2]", "LayerType": "CaskConvolution"}
        (layer,) = layers_from_json({"Layers": [entry]})

        assert layer.profile == 2
        assert layer.onnx_nodes == {"/conv1/Conv", "/relu/Relu"}

    def test_old_datatypes(self) -> None:
        tensor = {"Name": "x", "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}
        entry = {"Name": "/conv1/Conv", "LayerType": "CaskConvolution", "Inputs": [tensor]}
        (layer,) = layers_from_json({"Layers": [entry]})

        assert layer.precision == "float16"


class TestBareNames:
    """What trtexec exports by default: an engine without detailed verbosity."""

    @pytest.mark.parametrize(
        ("name", "nodes"),
        [
            ("/conv1/Conv + /relu/Relu", {"/conv1/Conv", "/relu/Relu"}),
            ("Conv_0 + PWN(PWN(Sigmoid_1), Mul_2) [profile 1]", {"Conv_0", "Sigmoid_1", "Mul_2"}),
            ("/a/value/MatMul+/a/key/MatMul_myl1_2", {"/a/value/MatMul", "/a/key/MatMul"}),
            ("/a/conv+bn/Conv", {"/a/conv+bn/Conv"}),
            ("__myl_AddReshTran_myl1_3", set()),
            ("_gemm_mha_v2_myl1_7", set()),
            ("copy_d2h___mye2321_myl1_9", set()),
            ("{ForeignNode[a...b]}", set()),
            ("[ShapeHostToDeviceCopy 0]", set()),
            ("Reformatting CopyNode for Input Tensor 0 to /conv1/Conv + /relu/Relu", set()),
            ("onnx::Conv_633_clone_1", set()),
            ("reshape_after_/fc/Gemm", set()),
        ],
    )
    def test_nodes_in_a_name(self, name: str, nodes: set[str]) -> None:
        (read,) = layers_from_json({"Layers": [name]})

        assert read.onnx_nodes == nodes
        assert read.profile == int("[profile 1]" in name)

    @pytest.mark.parametrize("recorded", ["rtx15_bert_base_fp32", "trt85_resnet50_int8"])
    def test_they_never_contradict_the_details(self, recorded: str) -> None:
        """The same engine with and without: a name tells all nodes of a layer, or none."""
        detailed = layers_from_json(recordings.listing(recorded))
        bare = layers_from_json({"Layers": [each.name for each in detailed]})

        assert [each.name for each in bare] == [each.name for each in detailed]
        wrong = [
            (each.name, other.onnx_nodes)
            for each, other in zip(detailed, bare, strict=True)
            if other.onnx_nodes and other.onnx_nodes != each.onnx_nodes and each.kind != "Reformat"
        ]
        assert wrong == []

    def test_an_engine_without_details_has_names_only(self) -> None:
        read = layers_from_json({"Layers": ["conv1", "fc [profile 1]"], "Bindings": ["x"]})

        assert [layer.name for layer in read] == ["conv1", "fc [profile 1]"]
        assert {layer.precision for layer in read} == {""}

    def test_tensors_may_be_bare_names_too(self) -> None:
        entry = {"Name": "a", "LayerType": "gemm", "Inputs": ["x"], "Outputs": ["y"], "Metadata": ""}
        (layer,) = layers_from_json({"Layers": [entry]})

        assert (layer.inputs[0].name, layer.inputs[0].dtype) == ("x", "")

    def test_no_layers(self) -> None:
        assert layers_from_json({}) == []
        assert layers_from_log([]) == []
        assert layers_from_log(["Layers:\n", "something else"]) == []


class TestLog:
    def test_the_old_schema(self) -> None:
        read = layers_from_log(recordings.messages("rtx14_mlp"))

        assert len(read) == 9
        assert read[1].onnx_nodes == {"block0/fc/MatMul"}
        assert read[2].onnx_nodes == {"block0/Softmax", "block0/act/Relu", "block0/fc/Add"}
        assert read[2].tactic == "__myl_AddReluMaxrSubExpSumDivMul_0x0601625e868ba8d57b15d2592dcd1274_vec"
        assert {layer.precision for layer in read} == {"float32", ""}

    def test_a_whole_log_ends_the_listing_where_it_ends(self) -> None:
        text = recordings.text("rtx14_mlp.log")

        assert layers_from_log([text[text.rindex("Layers:\n") :]]) == layers_from_log(recordings.messages("rtx14_mlp"))

    def test_the_new_schema(self) -> None:
        read = layers_from_log(recordings.messages("rtx17_resnet18"))

        assert len(read) == 26
        stem = read[2]
        assert stem.kind == "correlation"
        assert stem.onnx_nodes == {"/conv1/Conv", "/conv1/Relu"}
        assert stem.inputs[0].format == "(NHWC) Channel major format"
        assert len(stem.constants) == 4
        assert read[-1].onnx_nodes == {"/fc/Gemm"}
        assert [tensor.name for tensor in read[-1].outputs] == ["output"]

    @pytest.mark.parametrize(("recorded", "precision"), [("rtx17_int8_qdq", "int8"), ("rtx17_fp8_qdq", "fp8")])
    def test_a_quantised_product(self, recorded: str, precision: str) -> None:
        read = layers_from_log(recordings.messages(recorded))
        (product,) = (layer for layer in read if layer.kind == "gemm")

        assert product.precision == precision

    def test_a_layer_that_only_quantises_computes_in_what_it_reads(self) -> None:
        read = layers_from_log(recordings.messages("rtx17_int8_qdq"))
        quantise = next(layer for layer in read if layer.onnx_nodes == {"act_QuantizeLinear"})

        assert quantise.outputs[0].dtype == "int8"
        assert quantise.precision == "float32"

    def test_unnamed_nodes_are_called_after_their_output(self) -> None:
        read = layers_from_log(recordings.messages("rtx17_noname_nodes"))

        assert read[1].onnx_nodes == {"node_of_a", "node_of_b", "node_of_y"}

    def test_layers_of_two_profiles_are_apart(self) -> None:
        """Only products carry ``[profile 1]``; kernels of the same graph belong to it all the same."""
        read = layers_from_log(recordings.messages("rtx17_two_profiles"))
        of_profile = {index: [layer for layer in read if layer.profile == index] for index in (0, 1)}

        for profile in of_profile.values():
            nodes = [node for layer in profile for node in layer.onnx_nodes]
            assert len(nodes) == len(set(nodes)) == 16
        assert all("_myl1_" in layer.name for layer in of_profile[1])

    def test_the_inspector_tells_profiles_apart_as_the_log_does(self) -> None:
        """The same layers under the same names, in JSON."""
        logged = layers_from_log(recordings.messages("rtx17_two_profiles"))
        entries = [
            {
                "Name": layer.name,
                "LayerType": layer.kind,
                "Inputs": [{"Name": tensor.name} for tensor in layer.inputs],
                "Outputs": [{"Name": tensor.name} for tensor in layer.outputs],
                "Metadata": "\x1f".join(f"[ONNX Layer: {node}]" for node in sorted(layer.onnx_nodes)),
            }
            for layer in logged
        ]

        assert [layer.profile for layer in layers_from_json({"Layers": entries})] == [0] * 8 + [1] * 9

    def test_the_last_listing_counts(self) -> None:
        one, two = (f"Layers:\nName: {name}, LayerType: gemm, Inputs: [], Outputs: [], TacticName: t" for name in "ab")

        assert [layer.name for layer in layers_from_log([one, "between", two])] == ["b"]

    def test_names_with_brackets_commas_quotes_and_newlines(self) -> None:
        node = "a], Outputs: [\"b', {c}\nd"
        listing = (
            f"Layers:\nName: {node}_myl0_0, LayerType: gemm, Inputs: [ {{ Name: x, Dimensions: [1,2], "
            "Datatype: Half, Format: (Linear) Row major }], Constants: [], Outputs: [ { Name: y[0], Dimensions: [1], "
            f"Datatype: Float, Format: (NHWC) major }}], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: {node}]\n"
            "Name: next, LayerType: kgen, Inputs: [], Outputs: [], TacticName: , StreamId: 0, Metadata: \n\n"
            "I/O Tensors:\n Name: x, IOMode: Input"
        )
        first, second = layers_from_log([listing])

        assert first.onnx_nodes == {node}
        assert [(tensor.name, tensor.dtype) for tensor in first.inputs] == [("x", "float16")]
        assert [(tensor.name, tensor.dtype, tensor.format) for tensor in first.outputs] == [
            ("y[0]", "float32", "(NHWC) major")
        ]
        assert (second.name, second.onnx_nodes) == ("next", frozenset())


class TestShortListing:
    """One line a layer, as TensorRT up to 10 logs it without detailed verbosity."""

    @pytest.mark.parametrize("precision", ["fp16", "int8"])
    def test_it_is_the_inspectors_listing(self, precision: str) -> None:
        logged = recordings.log_layers(f"trt85_resnet50_{precision}")
        inspected = layers_from_json(recordings.listing(f"trt85_resnet50_{precision}"))

        assert [(each.name, each.kind, each.onnx_nodes) for each in logged] == [
            (each.name, each.kind, each.onnx_nodes) for each in inspected
        ]

    def test_types_that_the_inspector_does_not_know(self) -> None:
        """With dynamic shapes the inspector tells the types of weights only."""
        found = Counter(each.precision for each in recordings.log_layers("trt85_resnet50_int8"))

        assert found == {"float16": 151, "int8": 2, "float32": 1}

    def test_formats_and_tactics(self) -> None:
        stem = next(each for each in recordings.log_layers("trt85_resnet50_fp16") if "/conv1/Conv" in each.onnx_nodes)

        assert (stem.inputs[0].format, stem.outputs[0].format) == ("vectors of 4", "vectors of 8")
        assert stem.tactic.startswith("0x")

    def test_before_8_5(self) -> None:
        """Tensors were ``name[Type(dims)]``, tactics decimal."""
        listing = (
            "Engine Layer Information:\n"
            "Layer(Reformat): Reformatting CopyNode for Input Tensor 0 to Conv_0 + PWN(Clip_3), Tactic: 1002, "
            "in put[Float(1,3,512,768)] -> Reformatted Input Tensor 0 to Conv_0 + PWN(Clip_3)[Int8(1,3:4,512,768)]\n"
            "Layer(CaskConvolution): Conv_0 + PWN(Clip_3), Tactic: -37215280111360163, "
            "Reformatted Input Tensor 0 to Conv_0 + PWN(Clip_3)[Int8(1,3:4,512,768)] -> 395[Int8(1,32:32,256,384)]\n"
        )
        reformat, conv = layers_from_log([listing])

        assert [(tensor.name, tensor.dtype, tensor.format) for tensor in reformat.inputs] == [
            ("in put", "float32", "linear")
        ]
        assert (conv.kind, sorted(conv.onnx_nodes)) == ("CaskConvolution", ["Clip_3", "Conv_0"])
        assert conv.outputs[0] == LayerTensor("395", "int8", "vectors of 32")
        assert conv.tactic == "-37215280111360163"


class TestWholeLogs:
    @pytest.mark.parametrize(
        "following",
        [
            "[02/02/2025-10:00:11] [I] Engine built in 8.69986 sec.",
            "[11/21/2026-07:32:29] [TRT] [V] Adding 1 engine(s) to plan file.",
            "[V] Finished engine building in 0.1 seconds",
            "2026-11-21 07:32:29.123 [I:onnxruntime:Default] done",
            "I0202 10:00:00.123456 1 logging.cc:43] done",
            "&&&& PASSED TensorRT.trtexec [TensorRT v8502]",
        ],
    )
    def test_the_listing_ends_where_the_next_message_begins(self, following: str) -> None:
        """Or the label of the last layer would take in what follows."""
        text = (
            "[02/02/2025-10:00:10] [V] [TRT] Layers:\n"
            "Name: a_myl0_0, LayerType: gemm, Inputs: [], Outputs: [], TacticName: t, StreamId: 2, Metadata: "
            f"[ONNX Layer: a]\n{following}\n"
        )
        (read,) = layers_from_log([listing_in(text)])

        assert (sorted(read.onnx_nodes), read.tactic, read.stream) == (["a"], "t", 2)

    def test_of_polygraphy_which_indents(self) -> None:
        text = (
            "[X] Layers:\n    Name: a, LayerType: kgen, Inputs: [], Outputs: [], TacticName: t, Metadata: "
            "[ONNX Layer: a]\n    Name: b, LayerType: kgen, Inputs: [], Outputs: [], TacticName: , Metadata: \n"
            "    \n    I/O Tensors:\n     Name: x, IOMode: Input\n[V] done\n"
        )

        first, second = layers_from_log([listing_in(text)])

        assert (first.name, sorted(first.onnx_nodes)) == ("a", ["a"])
        assert (second.name, sorted(second.onnx_nodes)) == ("b", [])

    def test_the_last_of_several_engines(self) -> None:
        lines = [
            "[V] Layers:\nName: a, LayerType: gemm, Inputs: [], Outputs: [], TacticName: t",
            "[V] Engine Layer Information:\nLayer(gemm): b, Tactic: 0x1, x (Half[1]) -> y (Half[1])",
        ]
        for order in (lines, lines[::-1]):
            read = layers_from_log([listing_in("\n".join(order))])
            assert [each.name for each in read] == ["b" if order is lines else "a"]

    def test_a_log_without_one(self) -> None:
        assert listing_in("[02/02/2025-10:00:10] [I] nothing here") == ""


class TestJson:
    @pytest.mark.parametrize(
        "text",
        [
            '{"Layers": [{"Name": "/a/"q" b", "LayerType": "gemm"}]}',
            '{"Layers": [{"Name": "C:\\models\\x", "LayerType": "gemm", "Metadata": "[ONNX Layer: /a/"q"]"}]}',
            '{"Layers": ["say "hi"", "b"]}',
        ],
    )
    def test_names_that_were_not_escaped(self, text: str) -> None:
        """As TensorRT writes them into its JSON."""
        assert len(parse_listing(text)["Layers"]) >= 1

    def test_what_they_mean(self) -> None:
        data = parse_listing('{"Layers": [{"Name": "a"b", "LayerType": "gemm", "Metadata": "[ONNX Layer: /a/"q"]"}]}')

        assert layers_from_json(data)[0].onnx_nodes == {'/a/"q"'}
        assert parse_listing('{"Layers": ["C:\\dir"]}')["Layers"] == ["C:\\dir"]

    @pytest.mark.parametrize("text", ['{"Layers": ["a"', "{", '{"Layers": [{"Name": "a", ]}'])
    def test_what_is_no_json(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"line 1"):
            parse_listing(text)

    def test_a_value_where_a_tactic_has_no_name(self) -> None:
        entries = [
            {"Name": "a", "LayerType": "Reformat", "TacticValue": "0x00000000000003e8"},
            {"Name": "b", "LayerType": "NoOp", "TacticValue": "0x0000000000000000"},
            {"Name": "c", "LayerType": "conv", "TacticName": "sm80_x", "TacticValue": "0x1"},
        ]

        assert [each.tactic for each in layers_from_json({"Layers": entries})] == ["0x00000000000003e8", "", "sm80_x"]

    def test_inputs_and_outputs(self) -> None:
        inputs, outputs = specs_from_json(recordings.listing("rtx15_bert_base_fp16"))

        assert [str(spec) for spec in inputs] == ["ids:?x? int64", "mask:?x? int64"]
        assert [str(spec) for spec in outputs] == ["h:?x?x768 float32"]
        assert specs_from_json(recordings.listing("trt85_resnet50_fp16")) == ((), ())


class TestMemory:
    def test_of_a_recorded_build(self) -> None:
        found = memory_from_log(recordings.messages("rtx17_resnet18"))

        assert found == Memory(weights_bytes=46723840, activations_bytes=85262336, scratch_bytes=85262336)

    def test_unknown_is_not_zero(self) -> None:
        assert memory_from_log(["Total Weights Memory: 0 bytes"]) == Memory(weights_bytes=0)
        assert memory_from_log(["nothing of the kind"]) == Memory()


class TestMetadata:
    @given(st.lists(st.text(st.characters(exclude_characters="\x1e\x1f"), min_size=1, max_size=20), max_size=6))
    def test_any_names(self, names: list[str]) -> None:
        joined = "\x1f".join(f"[ONNX Layer: {name}]" for name in names)

        assert onnx_nodes(joined) == set(names)

    def test_entries_of_other_kinds_are_left_out(self) -> None:
        assert onnx_nodes("[ONNX Layer: a]\x1e[ONNX Layer: b]\x1f[PyTorch: c]\x1f") == {"a", "b"}
        assert onnx_nodes("") == frozenset()

    def test_a_log_that_lost_its_control_characters(self) -> None:
        """As logs do that were pasted into an issue."""
        assert onnx_nodes("[ONNX Layer: /a/Conv][ONNX Layer: /b/Relu]") == {"/a/Conv", "/b/Relu"}


class TestDatatype:
    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("Float", "float32"),
            ("FLOAT", "float32"),
            ("Half", "float16"),
            ("BFloat16", "bfloat16"),
            ("BF16", "bfloat16"),
            ("Int8", "int8"),
            ("UInt8", "uint8"),
            ("FP8", "fp8"),
            ("FP8_E4M3", "fp8"),
            ("fp8e4m3", "fp8"),
            ("Int4", "int4"),
            ("FP4", "fp4"),
            ("Int64", "int64"),
            ("Bool", "bool"),
            ("Row major linear FP16 format", "float16"),
            ("Two wide channel vectorized row major FP16 format", "float16"),
            ("Four wide channel vectorized row major Int8 format", "int8"),
            ("Row major linear BFloat16 format (kLINEAR)", "bfloat16"),
            ("Channel major FP32 format", "float32"),
            ("Row major Int8 format", "int8"),
            ("N/A due to dynamic shapes", ""),
            ("Format not available due to dynamic shapes", ""),
            ("", ""),
        ],
    )
    def test_spellings(self, text: str, name: str) -> None:
        assert datatype(text) == name


class TestRows:
    @given(st.lists(layers(), max_size=5))
    def test_round_trip_through_json(self, made: list[Layer]) -> None:
        assert layers_from_rows(json.loads(json.dumps(layers_to_rows(made)))) == made

    @pytest.mark.parametrize("recorded", ["rtx15_bert_base_fp16", "trt85_resnet50_int8"])
    def test_recorded_engines_survive(self, recorded: str) -> None:
        read = layers_from_json(recordings.listing(recorded))

        assert layers_from_rows(json.loads(json.dumps(layers_to_rows(read)))) == read
