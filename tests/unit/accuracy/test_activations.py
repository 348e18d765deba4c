from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_trtgray.accuracy.activations import activations, streamed
from pytest_trtgray.accuracy.shadow import Shadow, fp32_names
from pytest_trtgray.engines.onnxruntime import OnnxRuntimeEngine
from pytest_trtgray.errors import ModelError
from pytest_trtgray.feeds import make_feed
from tests import models

SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "mlp": {"x": (4, 8)},
    "conv_net": {"x": (2, 3, 16, 16)},
    "encoder": {"ids": (2, 5), "mask": (2, 1, 1, 5)},
}


def shadow_of(path: Path, folder: Path) -> Shadow:
    return Shadow(path, folder, on="cpu")


def computed(shadow: Shadow) -> list[str]:
    return [name for node in shadow.source.nodes for name in node.outputs]


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_every_tensor_is_what_the_reference_computes(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    shadow = shadow_of(request.getfixturevalue(name), tmp_path)
    feed = make_feed(shadow.inputs, SHAPES[name])
    found = dict(activations(shadow, feed, computed(shadow)))

    assert list(found) == computed(shadow)
    for output, values in shadow.run(feed).items():
        np.testing.assert_array_equal(found[output], values)


def test_a_budget_changes_nothing_but_how_much_is_computed_at_once(
    conv_net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow = shadow_of(conv_net, tmp_path)
    feed, names = make_feed(shadow.inputs, SHAPES["conv_net"]), computed(shadow)
    whole = dict(activations(shadow, feed, names))
    held: list[int] = []
    infer = OnnxRuntimeEngine._infer

    def watched(engine: OnnxRuntimeEngine, arrays: dict[str, Any]) -> dict[str, Any]:
        found = infer(engine, arrays)
        held.append(sum(array.nbytes for array in found.values()))
        return found

    monkeypatch.setattr(OnnxRuntimeEngine, "_infer", watched)
    budget = 2 * max(array.nbytes for array in whole.values())
    parts = dict(activations(shadow, feed, names, budget))

    assert list(parts) == list(whole)
    for name in names:
        np.testing.assert_array_equal(parts[name], whole[name])
    assert len(held) > 3
    assert max(held) <= budget < sum(array.nbytes for array in whole.values())


def test_a_tensor_above_the_budget_is_a_chunk_of_its_own(mlp: Path, tmp_path: Path) -> None:
    shadow = shadow_of(mlp, tmp_path)
    feed = make_feed(shadow.inputs, SHAPES["mlp"])

    assert list(dict(activations(shadow, feed, computed(shadow), budget_bytes=1))) == computed(shadow)


def test_feeds_of_several_shapes(mlp: Path, tmp_path: Path) -> None:
    shadow = shadow_of(mlp, tmp_path)
    feeds = [make_feed(shadow.inputs, {"x": (batch, 8)}, seed=batch) for batch in (1, 5)]
    found = {(index, name): values for index, name, values in streamed(shadow, feeds, ["x", "/fc0/Relu_output", "y"])}

    assert {key: values.shape for key, values in found.items()} == {
        (index, name): (batch, 16 if name == "/fc0/Relu_output" else 8)
        for index, batch in enumerate((1, 5))
        for name in ("x", "/fc0/Relu_output", "y")
    }
    for index, feed in enumerate(feeds):
        np.testing.assert_array_equal(found[index, "x"], feed["x"])
        np.testing.assert_array_equal(found[index, "y"], shadow.run(feed)["y"])


def test_what_was_dequantised_goes_by_what_was_quantised(tmp_path: Path) -> None:
    shadow = shadow_of(models.qdq(tmp_path / "qdq.onnx"), tmp_path)
    feed = make_feed(shadow.inputs, {"x": (3, 8)})
    names = fp32_names(shadow.model)

    assert names == {"/x/DQ_output": "x", "/w/DQ_output": "w"}
    ((name, values),) = activations(shadow, feed, [names["/x/DQ_output"]])
    assert name == "x"
    np.testing.assert_array_equal(values, feed["x"])


def test_inner_graphs_and_external_weights(mlp: Path, tmp_path: Path) -> None:
    with_if = shadow_of(models.with_if(tmp_path / "if.onnx"), tmp_path)
    feed = make_feed(with_if.inputs, {"x": (2, 4)})
    np.testing.assert_array_equal(dict(activations(with_if, feed, ["y"]))["y"], with_if.run(feed)["y"])

    external = shadow_of(models.external(mlp, tmp_path / "external.onnx"), tmp_path)
    feed = make_feed(external.inputs, {"x": (2, 8)})
    np.testing.assert_array_equal(
        dict(activations(external, feed, computed(external)))["y"], shadow_of(mlp, tmp_path).run(feed)["y"]
    )


def test_a_tensor_that_is_not_computed(mlp: Path, tmp_path: Path) -> None:
    shadow = shadow_of(mlp, tmp_path)
    with pytest.raises(ModelError, match=r"no node of its main graph computes '/fc0/Rely_output'") as caught:
        list(activations(shadow, make_feed(shadow.inputs, SHAPES["mlp"]), ["/fc0/Rely_output"]))
    assert "/fc0/Relu_output" in caught.value.remedy
