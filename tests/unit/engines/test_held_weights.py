"""Parts of a model that only declare their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_trtgray.engines.onnx_model import OnnxModel, declared, held_weights
from pytest_trtgray.engines.onnxruntime import open_reference
from tests import models

WEIGHT = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)


def branching(path: Path) -> OnnxModel:
    """``x @ w`` or ``x + w``, by the sign of the sum: the weight is read inside of branches, from outside."""
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op, ["x", "w"], [f"{name}_y"], name=name)],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, [32, 32])],
        )
        for name, op in (("then", "MatMul"), ("else", "Add"))
    }
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0, name="sum"),
        helper.make_node("Greater", ["total", "zero"], ["positive"], name="greater"),
        helper.make_node("If", ["positive"], ["y"], name="if", **branches),
    ]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [32, 32])] for name in "xy"]
    weights = [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(np.float32(0), "zero")]
    graph = helper.make_graph(nodes, "branching", *ends, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return OnnxModel(path)


def without_values(model: OnnxModel) -> tuple[Any, dict[str, np.ndarray]]:
    held = held_weights(model.proto)
    proto = type(model.proto)()
    proto.CopyFrom(model.proto)
    del proto.graph.initializer[:]
    stored = model.proto.graph.initializer
    proto.graph.initializer.extend(declared(tensor) if tensor.name in held else tensor for tensor in stored)
    return proto, held


@pytest.mark.parametrize("sign", [1, -1])
def test_a_part_computes_with_what_it_is_given(sign: int, tmp_path: Path) -> None:
    model = branching(tmp_path / "model.onnx")
    x = sign * np.abs(np.random.default_rng(1).standard_normal((32, 32))).astype(np.float32)
    wanted = open_reference(model).run({"x": x})["y"]
    proto, held = without_values(model)
    np.testing.assert_array_equal(open_reference(model.edited(proto, held)).run({"x": x})["y"], wanted)
    doubled = open_reference(model.edited(proto, {"w": 2 * held["w"]})).run({"x": x})["y"]
    np.testing.assert_allclose(doubled, x @ (2 * WEIGHT) if sign > 0 else x + 2 * WEIGHT, rtol=1e-4, atol=1e-4)


def test_a_part_is_small_and_says_how_large_its_weights_are(tmp_path: Path) -> None:
    model = OnnxModel(models.mlp(tmp_path / "mlp.onnx", hidden=512))
    proto, held = without_values(model)
    assert proto.ByteSize() < model.proto.ByteSize() / 4
    part = model.edited(proto, held)
    assert open_reference(part).info.memory == open_reference(model).info.memory


def test_small_external_and_other_weights_stay_where_they_are(tmp_path: Path) -> None:
    arrays = {
        "large": WEIGHT,
        "small": WEIGHT[:2],
        "whole": np.arange(1024),
        "half": WEIGHT.astype(np.float16),
        "apart": WEIGHT,
    }
    proto = onnx.ModelProto()
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    proto.graph.initializer[-1].data_location = TensorProto.EXTERNAL
    assert list(held_weights(proto)) == ["large"]
    np.testing.assert_array_equal(held_weights(proto)["large"], WEIGHT)
