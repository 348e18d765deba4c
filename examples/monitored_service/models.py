"""Three small classifiers: the stable version, a good candidate, and one whose INT8 outputs saturate.

``python -m examples.monitored_service.models FOLDER`` writes them. All take ``x`` (batch, 64) and give ``logits``
(batch, 10).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from pytest_trtgray.files import write_atomically

FEATURES, CLASSES = 64, 10
STABLE, CANARY, SATURATING = "stable.onnx", "canary.onnx", "saturating.onnx"
WIDTH, NARROW = 8192, 128
LARGEST_LOGIT = 8.0
"""What the INT8 scale of the good candidate reaches to."""


def classifier(path: Path, hidden: int, largest: float | None = None) -> Path:
    """Write a classifier of two layers.

    Args:
        path: of the model.
        hidden: width of the layer between.
        largest: the value that an INT8 output reaches to; ``None`` for an output in FP32.
    """
    generator = np.random.Generator(np.random.PCG64(0))
    nodes, weights = [], []

    def weight(name: str, *shape: int) -> str:
        values = generator.standard_normal(shape) * shape[0] ** -0.5
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def node(op: str, inputs: list[str], output: str) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=f"/{output}/{op}"))
        return output

    hidden_layer = node("Relu", [node("MatMul", ["x", weight("w0", FEATURES, hidden)], "fc0")], "relu0")
    tensor = node("MatMul", [hidden_layer, weight("w1", hidden, CLASSES)], "logits" if largest is None else "fc1")
    if largest is not None:
        weights.append(numpy_helper.from_array(np.float32(largest / 127), "scale"))
        weights.append(numpy_helper.from_array(np.int8(0), "zero"))
        node("DequantizeLinear", [node("QuantizeLinear", [tensor, "scale", "zero"], "q"), "scale", "zero"], "logits")
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    write_atomically(path, model.SerializeToString())
    return path


def write_models(folder: Path) -> None:
    """Write all three."""
    classifier(folder / STABLE, WIDTH)
    classifier(folder / CANARY, NARROW, LARGEST_LOGIT)
    classifier(folder / SATURATING, NARROW, LARGEST_LOGIT / 100)


if __name__ == "__main__":
    write_models(Path(sys.argv[1]))
