"""The models of this suite, written on first use: real topologies with seeded weights.

``python models.py`` writes them too. The ONNX package ships the graphs of well-known networks without their
weights; here they get random ones, scaled like trained ones. A suite of your own has models that were exported
from somewhere else, and needs nothing of this file.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from math import log2, prod, sqrt
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import onnx
from filelock import FileLock
from numpy.typing import NDArray
from onnx import helper, numpy_helper

FOLDER = Path(__file__).parent / ".models"
CLASSIFIERS = ("resnet50", "squeezenet", "densenet121", "shufflenet")
VOCABULARY = 512
HIDDEN = 64
HEADS = 4
ENCODER_LAYERS = 3
MAX_SEQUENCE = 64


class Shapes(TypedDict):
    """An optimization profile in trtexec's notation."""

    min_shapes: str
    opt_shapes: str
    max_shapes: str


ENCODER_SHAPES: Shapes = {
    "min_shapes": "ids:1x1,mask:1x1",
    "opt_shapes": "ids:4x32,mask:4x32",
    "max_shapes": "ids:8x64,mask:8x64",
}
"""The optimization profile of the encoder, for ``trt_build``: batches up to 8, sequences up to 64."""
IR_VERSION, OPSET = 8, 17
"""LayerNormalization is one node from opset 17 on; versions that every runtime of the last years reads."""

Array = NDArray[Any]


def ensure_models(folder: Path = FOLDER) -> None:
    """Write all models, unless this version of this file has already written them.

    Args:
        folder: made when needed; git ignores it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stamp = folder / "stamp"
    # A hash of the recipe: nobody has to remember to raise a number when they change it.
    version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    # The workers of pytest-xdist start at the same moment.
    with FileLock(folder / "lock"):
        if stamp.exists() and stamp.read_text() == version:
            return
        (folder / ".gitignore").write_text("*\n")
        stamp.unlink(missing_ok=True)
        for name, model in all_models(folder):
            save(model, folder / f"{name}.onnx")
        stamp.write_text(version)


def all_models(folder: Path) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Every model with its name; those that are made from others read these from ``folder``."""
    for name in CLASSIFIERS:
        yield name, classifier(name)
    yield "resnet20", resnet20()
    yield "resnet20_int8", quantised(folder / "resnet20.onnx", image_batches())
    yield "encoder", encoder()
    yield "encoder_fp16", half(folder / "encoder.onnx")
    yield "encoder_int8", quantised(folder / "encoder.onnx", token_batches(), keep=attention_products())


def save(model: onnx.ModelProto, path: Path) -> None:
    """Check a model and write it; readers see the old file or the new one, never half of it."""
    onnx.checker.check_model(model)
    part = path.with_suffix(".part")
    part.write_bytes(model.SerializeToString())
    part.replace(path)


def image_batches(count: int = 4) -> list[dict[str, Array]]:
    """Calibration data of ``resnet20``; of a real model it would be real images."""
    rng = np.random.default_rng(20)
    return [{"image": rng.standard_normal((8, 3, 32, 32), dtype=np.float32)} for _ in range(count)]


def token_batches(count: int = 4) -> list[dict[str, Array]]:
    """Calibration data of ``encoder``."""
    rng = np.random.default_rng(21)
    mask = np.ones((4, 32), np.int64)
    return [{"ids": rng.integers(0, VOCABULARY, mask.shape), "mask": mask} for _ in range(count)]


# Variants, made with ONNX Runtime's own tools ------------------------------------------------------------


def half(path: Path) -> onnx.ModelProto:
    """The FP16 variant of a model; its inputs and outputs stay FP32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(onnx.load(str(path)), keep_io_types=True)


def quantised(path: Path, feeds: Sequence[Mapping[str, Array]], keep: Sequence[str] = ()) -> onnx.ModelProto:
    """The INT8 variant of a model, with the Q/DQ nodes that TensorRT reads.

    Args:
        path: of the FP32 model.
        feeds: calibration data.
        keep: names of nodes that stay in FP32.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quant_pre_process, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds = iter(feeds)

        def get_next(self) -> Mapping[str, Array] | None:
            return next(self._feeds, None)

    with tempfile.TemporaryDirectory(prefix="models-") as folder:
        prepared, result = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(str(path), str(prepared), skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(result),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul"],
            nodes_to_exclude=list(keep),
            per_channel=True,
            # TensorRT takes symmetric scales only, no INT32 bias, and weights as Q/DQ pairs.
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "AddQDQPairToWeight": True,
            },
        )
        return onnx.load(str(result))


# Classifiers that the ONNX package ships -----------------------------------------------------------------


def classifier(name: str) -> onnx.ModelProto:
    """One of the ONNX package's ``light`` models, with weights.

    Args:
        name: such as ``resnet50``; images are 1x3x224x224.
    """
    source = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"
    model = onnx.load(str(source))
    model.ir_version = IR_VERSION
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "ConstantOfShape":  # stands for a weight
            constants[node.output[0]] = np.zeros(constants[node.input[0]], np.float32)
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    rng = np.random.default_rng(CLASSIFIERS.index(name))
    weights = {}
    for tensor, (op_type, index) in _roles(nodes).items():
        if tensor in constants:
            value = constants[tensor]
            is_weight = value.dtype == np.float32
            weights[tensor] = _initial(op_type, index, value.shape, rng) if is_weight else value
    _name(nodes, weights)
    inputs = [value for value in graph.input if value.name not in constants]
    del graph.node[:], graph.initializer[:], graph.input[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(value, tensor) for tensor, value in weights.items())
    graph.input.extend(inputs)
    _spread_logits(model)
    return model


def _roles(nodes: Sequence[onnx.NodeProto]) -> dict[str, tuple[str, int]]:
    """For every tensor the operator that reads it, and as which input."""
    roles: dict[str, tuple[str, int]] = {}
    for node in reversed(nodes):
        for index, tensor in enumerate(node.input):
            # DenseNet's scales and shifts take a way round through Unsqueeze.
            roles[tensor] = roles[node.output[0]] if node.op_type == "Unsqueeze" else (node.op_type, index)
    return roles


def _initial(op_type: str, index: int, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Values that keep the signal's size from layer to layer, as trained weights do."""
    if op_type in ("Conv", "Gemm") and index == 1:
        return np.asarray(rng.standard_normal(shape) * sqrt(2 / prod(shape[1:])), np.float32)
    is_factor = op_type == "Mul" or (op_type == "BatchNormalization" and index in (1, 4))
    if is_factor:
        return np.asarray(rng.uniform(0.8, 1.2, shape), np.float32)
    return np.asarray(rng.standard_normal(shape) * 0.05, np.float32)


def _name(nodes: Sequence[onnx.NodeProto], weights: Mapping[str, Array]) -> None:
    """Name nodes ``n0``, ``n1``, ... after the weights that they or the nodes before them read."""
    module_of: dict[str, str] = {}
    taken: dict[str, int] = {}
    for node in nodes:
        own = [re.sub(r"(_bn)?_[a-z]+_0$", "", tensor) for tensor in node.input if tensor in weights]
        inherited = [module_of[tensor] for tensor in node.input if tensor in module_of]
        module = (own or inherited)[0].removeprefix("gpu_0/")
        module_of.update(dict.fromkeys(node.output, module))
        name = f"/{module}/{node.op_type}"
        taken[name] = taken.get(name, 0) + 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name] - 1}"


def _spread_logits(model: onnx.ModelProto) -> None:
    """Scale the last weights so that the logits' standard deviation is about 1.

    A softmax of larger logits is 1 at one place and 0 elsewhere, whatever the layers before it compute:
    no comparison of outputs would notice an error.
    """
    import onnxruntime

    graph = model.graph
    softmax = next((node for node in graph.node if node.op_type == "Softmax"), None)
    logits = softmax.input[0] if softmax is not None else graph.output[0].name
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.append(helper.make_tensor_value_info(logits, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32)
    (found,) = session.run([logits], {session.get_inputs()[0].name: image})
    # A power of two: the weights' last bits do not depend on the machine that computed the logits.
    factor = np.float32(2.0 ** -round(log2(float(found.std()))))
    last = [node for node in graph.node if node.op_type in ("Conv", "Gemm")][-1]
    for tensor in graph.initializer:
        if tensor.name in last.input[1:]:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * factor, tensor.name))


# Networks written here -----------------------------------------------------------------------------------


class Graph:
    """A graph that grows node by node, with seeded weights.

    Args:
        seed: of the weights.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def node(self, op_type: str, module: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node, named as PyTorch's exporter names it; returns the name of its output."""
        name = f"{module}/{op_type}"
        same = sum(node.name == name or node.name.startswith(f"{name}_") for node in self._nodes)
        name = f"{name}_{same}" if same else name
        output = output or f"{name}_output_0"
        self._nodes.append(helper.make_node(op_type, inputs, [output], name, **attributes))
        return output

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        """Add a constant; returns its name."""
        self._weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def weight(self, name: str, shape: Sequence[int], size: float) -> str:
        """Add a random weight with standard deviation ``size``; returns its name."""
        return self.constant(name, self._rng.standard_normal(shape) * size)

    def linear(self, name: str, x: str, inputs: int, outputs: int) -> str:
        """A dense layer as PyTorch exports it: MatMul, then Add."""
        product = self.node("MatMul", name, x, self.weight(f"{name}.weight", (inputs, outputs), sqrt(1 / inputs)))
        return self.node("Add", name, self.weight(f"{name}.bias", (outputs,), 0.05), product)

    def model(self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
        """The finished model."""
        graph = helper.make_graph(self._nodes, "main", inputs, outputs, self._weights)
        return helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)])


def resnet20() -> onnx.ModelProto:
    """ResNet-20 for images of 32x32 (He et al., 2015), any batch.

    Its convolutions have no bias: ONNX Runtime computes a convolution in INT8 only if its bias is INT32, and
    TensorRT reads a Q/DQ model only if it is not.
    """
    graph = Graph(seed=11)

    def conv(name: str, x: str, inputs: int, outputs: int, *, size: int = 3, stride: int = 1) -> str:
        weight = graph.weight(f"{name}.weight", (outputs, inputs, size, size), sqrt(2 / (inputs * size * size)))
        pads = [size // 2] * 4
        return graph.node("Conv", name, x, weight, strides=[stride, stride], pads=pads, kernel_shape=[size, size])

    x = graph.node("Relu", "/stem", conv("/stem/conv", "image", 3, 16))
    width = 16
    for stage, outputs in enumerate((16, 32, 64), start=1):
        for block in range(3):
            name = f"/layer{stage}/layer{stage}.{block}"
            stride = outputs // width
            y = graph.node("Relu", f"{name}/relu1", conv(f"{name}/conv1", x, width, outputs, stride=stride))
            y = conv(f"{name}/conv2", y, outputs, outputs)
            if stride != 1:
                x = conv(f"{name}/downsample", x, width, outputs, size=1, stride=stride)
            x = graph.node("Relu", f"{name}/relu2", graph.node("Add", name, y, x))
            width = outputs
    pooled = graph.node("Flatten", "/head", graph.node("GlobalAveragePool", "/head", x))
    graph.node("MatMul", "/head/fc", pooled, graph.weight("/head/fc.weight", (64, 10), 0.05), output="logits")
    return graph.model(
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 10])],
    )


def encoder() -> onnx.ModelProto:
    """A transformer encoder as in BERT, small: any batch, sequences of up to 64 tokens."""
    graph = Graph(seed=12)
    x = _embedding(graph)
    bias = _attention_bias(graph)
    for index in range(ENCODER_LAYERS):
        name = f"/encoder/layer.{index}"
        x = _norm(graph, f"{name}/attention/output", x, _attention(graph, f"{name}/attention", x, bias))
        last = index == ENCODER_LAYERS - 1
        x = _norm(graph, f"{name}/output", x, _feed_forward(graph, name, x), output="hidden" if last else "")
    first = graph.node("Gather", "/pooler", x, graph.constant("zero", 0, np.int64), axis=1)
    graph.node("Tanh", "/pooler", graph.linear("/pooler/dense", first, HIDDEN, HIDDEN), output="pooled")
    tokens = ["batch", "sequence"]
    return graph.model(
        [helper.make_tensor_value_info(name, onnx.TensorProto.INT64, tokens) for name in ("ids", "mask")],
        [
            helper.make_tensor_value_info("hidden", onnx.TensorProto.FLOAT, [*tokens, HIDDEN]),
            helper.make_tensor_value_info("pooled", onnx.TensorProto.FLOAT, ["batch", HIDDEN]),
        ],
    )


def attention_products() -> list[str]:
    """The nodes of ``encoder`` that multiply activations with each other: the first to suffer in INT8."""
    return [
        f"/encoder/layer.{i}/attention/self/{node}" for i in range(ENCODER_LAYERS) for node in ("MatMul", "MatMul_1")
    ]


def _embedding(graph: Graph) -> str:
    name = "/embeddings"
    words = graph.node("Gather", name, graph.weight(f"{name}/word.weight", (VOCABULARY, HIDDEN), 1.0), "ids")
    table = graph.weight(f"{name}/position.weight", (MAX_SEQUENCE, HIDDEN), 0.5)
    start, one = graph.constant("start", [0], np.int64), graph.constant("one", [1], np.int64)
    length = graph.node("Slice", name, graph.node("Shape", name, "ids"), one, graph.constant("two", [2], np.int64))
    return _norm(graph, name, words, graph.node("Slice", name, table, start, length, start))


def _attention_bias(graph: Graph) -> str:
    """0 for tokens, a large negative number for padding: shape (batch, 1, 1, sequence)."""
    name = "/mask"
    mask = graph.node("Cast", name, "mask", to=onnx.TensorProto.FLOAT)
    mask = graph.node("Unsqueeze", name, mask, graph.constant("heads_and_rows", [1, 2], np.int64))
    # -1e4 and not -inf: it has to fit into FP16.
    padding = graph.node("Sub", name, graph.constant("unmasked", 1.0), mask)
    return graph.node("Mul", name, padding, graph.constant("masked", -1e4))


def _attention(graph: Graph, name: str, x: str, bias: str) -> str:
    size = HIDDEN // HEADS
    split = graph.constant(f"{name}/split", [0, 0, HEADS, size], np.int64)
    merge = graph.constant(f"{name}/merge", [0, 0, HIDDEN], np.int64)

    def heads(role: str, order: Sequence[int]) -> str:
        module = f"{name}/self/{role}"
        projected = graph.linear(module, x, HIDDEN, HIDDEN)
        return graph.node("Transpose", module, graph.node("Reshape", module, projected, split), perm=order)

    query, key, value = heads("query", (0, 2, 1, 3)), heads("key", (0, 2, 3, 1)), heads("value", (0, 2, 1, 3))
    inner = f"{name}/self"
    scores = graph.node("MatMul", inner, query, key)
    scores = graph.node("Div", inner, scores, graph.constant(f"{inner}/scale", sqrt(size)))
    weights = graph.node("Softmax", inner, graph.node("Add", inner, scores, bias), axis=-1)
    context = graph.node("Transpose", inner, graph.node("MatMul", inner, weights, value), perm=(0, 2, 1, 3))
    return graph.linear(f"{name}/output/dense", graph.node("Reshape", inner, context, merge), HIDDEN, HIDDEN)


def _feed_forward(graph: Graph, name: str, x: str) -> str:
    module = f"{name}/intermediate"
    wide = graph.linear(f"{module}/dense", x, HIDDEN, 4 * HIDDEN)
    return graph.linear(f"{name}/output/dense", _gelu(graph, f"{module}/act", wide), 4 * HIDDEN, HIDDEN)


def _gelu(graph: Graph, name: str, x: str) -> str:
    """With Erf, as exporters write it before opset 20."""
    erf = graph.node("Erf", name, graph.node("Div", name, x, graph.constant(f"{name}/sqrt2", sqrt(2))))
    sum_ = graph.node("Add", name, erf, graph.constant(f"{name}/one", 1.0))
    return graph.node("Mul", name, graph.node("Mul", name, x, sum_), graph.constant(f"{name}/half", 0.5))


def _norm(graph: Graph, name: str, x: str, residual: str, output: str = "") -> str:
    """Residual connection and layer normalisation."""
    scale = graph.constant(f"{name}/LayerNorm.weight", np.linspace(0.8, 1.2, HIDDEN))
    bias = graph.weight(f"{name}/LayerNorm.bias", (HIDDEN,), 0.05)
    total = graph.node("Add", name, residual, x)
    return graph.node(
        "LayerNormalization", f"{name}/LayerNorm", total, scale, bias, output=output, axis=-1, epsilon=1e-5
    )


if __name__ == "__main__":
    ensure_models()
