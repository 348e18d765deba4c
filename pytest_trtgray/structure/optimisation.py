"""What the layers of a TensorRT engine say about speed that was left lying: advice, never a failure.

The numbers of the rules (``OPT-10`` …) are those of ``docs/structure.md``, which has the sources. Nothing here promises
an effect: what a change brings is for a measurement to say.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from pytest_trtgray.engines.kernels import generated_ops, is_matrix_kernel, moves_data
from pytest_trtgray.engines.model import PRECISION_ORDER, QUANTISED, EngineInfo, Layer, coarsest
from pytest_trtgray.findings import Finding, counted, some

_FLOATS = ("float32", "float16", "bfloat16")
_NAMED = {"fp16": "float16", "half": "float16", "f16": "float16", "bf16": "bfloat16", "fp8": "fp8", "int8": "int8",
          "fp4": "fp4", "int4": "int4"}  # fmt: skip
_ADD = re.compile(r"^add(_?\d+)?$", re.IGNORECASE)
_SOFTMAX = re.compile(r"^softmax(_?\d+)?$", re.IGNORECASE)
_PRODUCT = re.compile(r"^(matmul|gemm)(_?\d+)?$", re.IGNORECASE)
_STEPS_OF_SOFTMAX = ["Maxr", "Sub", "Exp", "Sum", "Div"]


def advice_on_layers(layers: Sequence[Layer], info: EngineInfo) -> tuple[Finding, ...]:
    """Everything that the layers alone tell.

    Args:
        layers: of the engine, in order of execution.
        info: of the engine; nothing is said of another runtime than TensorRT.
    """
    if info.runtime == "onnxruntime" or not layers:
        return ()
    if not any(layer.kind for layer in layers):
        return (_no_details(len(layers)),)
    return tuple(
        finding
        for rule in (_unquantised_residuals, _unfused_attention, _unfused_projections)
        for finding in rule(layers)
    ) + tuple(_precision_by_name(layers, info))


def _no_details(count: int) -> Finding:
    return Finding(
        "advice",
        "engine",
        f"the engine tells the names of its {counted(count, 'layer')} only: no types, precisions or tactics",
        "structure.OPT-30",
        {"layers": count},
        "Build it with detailed profiling verbosity (ProfilingVerbosity.DETAILED, trtexec "
        "--profilingVerbosity=detailed); this does not change the kernels.",
    )


def _precision_by_name(layers: Sequence[Layer], info: EngineInfo) -> Iterator[Finding]:
    """An engine that is called after a precision which no layer has: a flag that nobody honoured."""
    built = coarsest(layer.precision for layer in layers)
    words = set(re.split(r"[^a-z0-9]+", info.name.lower()))
    wanted = [dtype for word, dtype in _NAMED.items() if word in words]
    if not built or len(set(wanted)) != 1:
        return
    if PRECISION_ORDER.index(built) < PRECISION_ORDER.index(wanted[0]):
        yield Finding(
            "advice",
            "engine",
            f"the engine is called {info.name}, and no layer computes in {wanted[0]}: the coarsest type is {built}",
            "structure.OPT-32",
            {"wanted": wanted[0], "built": built},
            "TensorRT 11 and TensorRT for RTX have no precision flags any more, and code that asks for them with "
            "hasattr builds FP32 without a word: convert the ONNX model (trt_build(precision=...)), or its exporter.",
        )


def _unquantised_residuals(layers: Sequence[Layer]) -> Iterator[Finding]:
    """Convolutions that read INT8 and write floats because the other branch of an addition is not quantised."""
    makers = {tensor.name: layer for layer in layers for tensor in layer.outputs if layer.kind != "Constant"}
    readers = _readers(layers)

    def adds_floats(layer: Layer, own: Collection[str]) -> bool:
        """Whether it adds a branch that is not quantised to what is its own; a bias is no branch."""
        return _lists(layer, _ADD) and any(
            tensor.dtype in _FLOATS and tensor.name in makers and tensor.name not in own for tensor in layer.inputs
        )

    found = []
    for layer in layers:
        if _is_convolution(layer) and any(tensor.dtype in QUANTISED for tensor in layer.inputs):
            written = {tensor.name for tensor in layer.outputs if tensor.dtype in _FLOATS}
            following = [reader for name in written for reader in readers.get(name, ())]
            if adds_floats(layer, ()) or any(adds_floats(reader, written) for reader in following):
                found.append(layer.title)
    if found:
        yield Finding(
            "advice",
            found[0],
            f"{counted(len(found), 'quantised convolution')} before an addition whose other branch is not quantised, "
            f"so that floats are written: {some(found)}",
            "structure.OPT-10",
            {"layers": len(found)},
            "Put a Q/DQ pair on the residual branch too, so that the addition is fused and the output stays quantised.",
        )


def _unfused_attention(layers: Sequence[Layer]) -> Iterator[Finding]:
    readers = _readers(layers)
    found = [
        layer.title
        for layer in layers
        if not is_matrix_kernel(layer) and _is_softmax(layer) and _feeds_a_product(layer, readers)
    ]
    if found:
        yield Finding(
            "advice",
            found[0],
            f"attention is not fused: between two products {counted(len(found), 'kernel')} for softmax alone, "
            f"such as {found[0]}",
            "structure.OPT-20",
            {"layers": len(found)},
            "Attention is fused in FP16 and BF16 where its pattern is recognised: try those, leave scale and mask "
            "between the two products as the exporter writes them, or use opset 23's Attention or a plugin.",
        )


def _unfused_projections(layers: Sequence[Layer]) -> Iterator[Finding]:
    """Query, key and value as three products of one input."""
    products: defaultdict[tuple[int, str], list[Layer]] = defaultdict(list)
    for layer in layers:
        is_plain = is_matrix_kernel(layer) and layer.constants and len(layer.inputs) == 1
        if is_plain and sum(_last(node, _PRODUCT) for node in layer.onnx_nodes) == 1:
            products[layer.profile, layer.inputs[0].name].append(layer)
    groups = [members for members in products.values() if len(members) >= 3]
    if groups:
        first = groups[0]
        yield Finding(
            "advice",
            first[0].title,
            f"{counted(len(groups), 'time')} three or more products of one input run as kernels of their own, such as "
            f"{' | '.join(layer.title for layer in first[:3])}",
            "structure.OPT-20",
            {"groups": len(groups)},
            "Query, key and value of an attention can be one product: concatenate their weights in the model, or look "
            "for what makes the three different (a cast, a bias, a shape).",
        )


def _readers(layers: Sequence[Layer]) -> Mapping[str, list[Layer]]:
    readers: defaultdict[str, list[Layer]] = defaultdict(list)
    for layer in layers:
        for tensor in layer.inputs:
            readers[tensor.name].append(layer)
    return readers


def _feeds_a_product(layer: Layer, readers: Mapping[str, list[Layer]]) -> bool:
    """Whether a product reads what a layer writes, directly or through copies."""
    pending, seen = [layer], set()
    while pending:
        for tensor in pending.pop().outputs:
            for reader in readers.get(tensor.name, ()):
                if is_matrix_kernel(reader):
                    return True
                if moves_data(reader) and reader.name not in seen:
                    seen.add(reader.name)
                    pending.append(reader)
    return False


def _is_softmax(layer: Layer) -> bool:
    ops = generated_ops(layer.name)
    if ops:  # the product before it lists the softmax's node as well
        places = [ops.index(step) if step in ops else -1 for step in _STEPS_OF_SOFTMAX]
        is_cut = ops[-1] == "Etc" and _lists(layer, _SOFTMAX)
        return is_cut or (-1 not in places and places == sorted(places))
    return _lists(layer, _SOFTMAX) or "softmax" in layer.kind.lower()


def _is_convolution(layer: Layer) -> bool:
    return is_matrix_kernel(layer) and ("conv" in layer.kind.lower() or layer.kind.lower() == "correlation")


def _lists(layer: Layer, operator: re.Pattern[str]) -> bool:
    return any(_last(node, operator) for node in layer.onnx_nodes)


def _last(node: str, operator: re.Pattern[str]) -> bool:
    """Whether a node is named after an operator, as exporters do."""
    return operator.match(re.split(r"[/.]", node)[-1]) is not None
