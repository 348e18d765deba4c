"""ResNet-50 and BERT-base with seeded random weights, for tests and benchmarks on a GPU.

    python benchmarks/networks.py FOLDER

needs torch, torchvision and transformers, which the project itself does not. Batch (and sequence) are dynamic.
``resnet50_slow.onnx`` computes what ``resnet50.onnx`` does, with one 1x1 convolution blown up to 3x3; the files
``…_reordered.onnx`` have the same nodes in another order, under which most layers get other names.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

SLOWED = "/layer3/layer3.2/conv1/Conv"


def resnet50(path: Path) -> Path:
    """Input ``x`` (batch, 3, 224, 224), output ``logits``."""
    import torch
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None).eval()
    for module in model.modules():  # a fresh BatchNorm computes nothing
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.normal_(module.bias, 0, 0.1)
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    with torch.no_grad():
        torch.onnx.export(
            model, (torch.randn(2, 3, 224, 224),), str(path), input_names=["x"], output_names=["logits"],
            dynamic_axes={"x": {0: "batch"}, "logits": {0: "batch"}}, opset_version=17, dynamo=False,
        )  # fmt: skip
    return path


def bert_base(path: Path) -> Path:
    """Inputs ``ids`` and ``mask`` (batch, sequence), output ``hidden``."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(attn_implementation="eager", num_hidden_layers=12)

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = transformers.BertModel(config, add_pooling_layer=False).eval()

        def forward(self, ids: Any, mask: Any) -> Any:
            return self.bert(input_ids=ids, attention_mask=mask).last_hidden_state

    ids = torch.randint(0, 1000, (2, 16))
    axes = {name: {0: "batch", 1: "sequence"} for name in ("ids", "mask", "hidden")}
    with torch.no_grad():
        torch.onnx.export(
            Encoder().eval(), (ids, torch.ones_like(ids)), str(path), input_names=["ids", "mask"],
            output_names=["hidden"], dynamic_axes=axes, opset_version=17, dynamo=False,
        )  # fmt: skip
    return path


def widened(source: Path, target: Path, node_name: str = SLOWED) -> Path:
    """A copy in which one 1x1 convolution has become 3x3 with a ring of zeros: the same function, slower."""
    proto = onnx.load(str(source))
    (node,) = (node for node in proto.graph.node if node.name == node_name)
    weights = next(tensor for tensor in proto.graph.initializer if tensor.name == node.input[1])
    small = numpy_helper.to_array(weights)
    if small.shape[2:] != (1, 1):
        raise ValueError(f"{node_name} is no 1x1 convolution: {small.shape}")
    large = np.zeros((*small.shape[:2], 3, 3), small.dtype)
    large[:, :, 1:2, 1:2] = small
    weights.CopyFrom(numpy_helper.from_array(large, weights.name))
    for attribute in node.attribute:
        if attribute.name == "kernel_shape":
            attribute.ints[:] = [3, 3]
        if attribute.name == "pads":
            attribute.ints[:] = [1, 1, 1, 1]
    onnx.save(proto, str(target))
    return target


def reordered(source: Path, target: Path) -> Path:
    """A copy whose nodes stand in another order, as another exporter writes them.

    TensorRT for RTX numbers its layers in the order in which it meets them: most names change, and nothing else.
    """
    proto = onnx.load(str(source))
    nodes = list(proto.graph.node)
    maker = {output: index for index, node in enumerate(nodes) for output in node.output}
    order: list[int] = []
    waiting = [maker[output.name] for output in proto.graph.output]
    while waiting:  # depth first from the outputs, the last input first
        index = waiting[-1]
        missing = [maker[name] for name in nodes[index].input if name in maker and maker[name] not in order]
        if missing:
            waiting.append(missing[-1])
        else:
            waiting.pop()
            if index not in order:
                order.append(index)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes[index] for index in order)
    onnx.save(proto, str(target))
    return target


def half(source: Path, target: Path) -> Path:
    """The model in FP16, with FP32 inputs and outputs."""
    from pytest_trtgray.engines.precision import convert

    target.write_bytes(convert(source, "fp16"))
    return target


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(Path(__file__).parent.parent))
    original = resnet50(folder / "resnet50.onnx")
    reordered(widened(original, folder / "resnet50_slow.onnx"), folder / "resnet50_slow_reordered.onnx")
    reordered(original, folder / "resnet50_reordered.onnx")
    half(original, folder / "resnet50_fp16.onnx")
    half(bert_base(folder / "bert_base.onnx"), folder / "bert_base_fp16.onnx")
    for path in sorted(folder.glob("*.onnx")):
        print(f"{path}  {path.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
