"""What the times of a TensorRT engine's layers say about speed that was left lying: advice, never a failure.

The numbers of the rules (``OPT-08`` …) are those of ``docs/structure.md``, which has the sources. Limits are defaults
to tune; no source gives them. Nothing here promises an effect: what a change brings is for a measurement to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pytest_trtgray.engines.kernels import is_matrix_kernel, moves_data
from pytest_trtgray.engines.model import QUANTISED
from pytest_trtgray.findings import Finding, counted, some

if TYPE_CHECKING:
    from pytest_trtgray.timing.profile import LayerTime, ModuleTime, Profile

REFORMAT_SHARE = 0.05
"""OPT-09: copies and reformats take more of the layers' time."""
FLOAT_SHARE = 0.05
"""OPT-08: FP32 layers of a quantised engine take more."""
OTHER_SHARE = 0.5
"""OPT-18: what is neither a product nor a convolution takes more."""
HOT_SHARE = 0.05
"""OPT-19, OPT-22: a layer that takes more is worth a word."""
SMALL_SHARE, SMALL_LAYERS, SMALL_US = 0.05, 100, 10.0
"""OPT-21: no layer takes more than that part, there are more than so many, and the usual one is shorter."""
SUM_RATIO = 1.1
"""OPT-29: the layers' times add up to this many times the engine's."""
CRITICAL_SHARE = 0.1
"""A module is critical if it takes this part of the layers' time."""
MAX_CRITICAL = 4

_CUDA_CORES = re.compile(r"ffma|gemvx?_|scudnn|sgemm|simt", re.IGNORECASE)
"""In the names of kernels that use no tensor cores; that a name has no such mark means nothing."""


def advice_on_profile(profile: Profile) -> tuple[Finding, ...]:
    """Everything that the times tell, the critical modules first; nothing of another runtime than TensorRT."""
    if profile.engine.runtime == "onnxruntime" or not profile.layers:
        return ()
    rules = (_critical, _reformats, _floats, _small_layers, _no_tensor_cores, _access, _other_work, _streams)
    return tuple(finding for rule in rules for finding in rule(profile))


def _critical(profile: Profile) -> Iterator[Finding]:
    modules = profile.critical_modules(CRITICAL_SHARE)
    if not modules:
        return
    shown = ", ".join(_module_text(module) for module in modules[:MAX_CRITICAL])
    yield Finding(
        "advice",
        modules[0].pattern,
        f"{sum(module.share for module in modules):.0%} of the layers' time is in {shown}",
        "timing.critical-modules",
        {module.pattern: round(module.share, 4) for module in modules},
        "A budget for a module: profile.group('PATTERN').share; the layers in it: profile.top().",
    )


def _module_text(module: ModuleTime) -> str:
    bound = f", {module.bound}-bound" if module.bound != "unknown" else ""
    return f"{module.pattern} ({module.share:.0%}{bound})"


def _reformats(profile: Profile) -> Iterator[Finding]:
    copies = [timed for timed in profile.layers if moves_data(timed.layer) and timed.us > 0]
    share = _share(copies)
    if share > REFORMAT_SHARE:
        yield _advice(
            "OPT-09",
            copies,
            f"{counted(len(copies), 'layer')} that only copy or convert take {share:.1%} of the layers' time: "
            f"{_longest(copies)}",
            "Look for types and layouts that change back and forth: move or remove Q/DQ nodes and casts, choose the "
            "formats of inputs and outputs, quantise the residual branches too.",
        )


def _floats(profile: Profile) -> Iterator[Finding]:
    """INT8 without permission for FP16: the rest of the network runs in FP32."""
    precisions = {timed.layer.precision for timed in profile.layers}
    if not precisions & set(QUANTISED) or precisions & {"float16", "bfloat16"}:
        return
    floats = [timed for timed in profile.layers if timed.layer.precision == "float32" and not moves_data(timed.layer)]
    share = _share(floats)
    if share > FLOAT_SHARE:
        yield _advice(
            "OPT-08",
            floats,
            f"what is not quantised runs in FP32, not FP16, and takes {share:.1%} of the layers' time: "
            f"{_longest(floats)}",
            "TensorRT 8 to 10: allow FP16 beside INT8 (--int8 --fp16). TensorRT 11 and RTX: convert the rest of the "
            "graph to FP16.",
        )


def _other_work(profile: Profile) -> Iterator[Finding]:
    if not any(is_matrix_kernel(timed.layer) for timed in profile.layers):
        return
    others = [timed for timed in profile.layers if not is_matrix_kernel(timed.layer)]
    share = _share(others)
    if share > OTHER_SHARE:
        yield _advice(
            "OPT-18",
            others,
            f"{share:.0%} of the layers' time is outside of products and convolutions: {_longest(others)}",
            "Look for fusions that were missed, arithmetic on shapes that static dimensions would fold, and casts that "
            "are not needed.",
        )


def _access(profile: Profile) -> Iterator[Finding]:
    """Memory that is read across its order: Gather on another axis than the first, Reduce not over the last ones."""
    slow = _slow_access(profile)
    hot = [timed for timed in profile.layers if timed.share > HOT_SHARE and timed.layer.onnx_nodes & slow]
    if hot:
        nodes = sorted({node for timed in hot for node in timed.layer.onnx_nodes & slow})
        yield _advice(
            "OPT-19",
            hot,
            f"{counted(len(hot), 'hot layer')} ({_share(hot):.1%} of the layers' time) read memory across its order: "
            f"{some(nodes)}",
            "Transpose the data once, so that Gather picks along the first axis and Reduce sums over the last ones.",
        )


def _slow_access(profile: Profile) -> set[str]:
    """Nodes of the model that gather along another axis than the first, or reduce other axes than the last."""
    model = profile.model
    if model is None:
        return set()
    found = set()
    for node, proto in zip(model.nodes, model.proto.graph.node, strict=True):
        rank = len(model.tensors[proto.input[0]].shape) if proto.input and proto.input[0] in model.tensors else 0
        if proto.op_type == "Gather" and proto.input[0] not in model.initializers:
            axis = next((each.i for each in proto.attribute if each.name == "axis"), 0)
            is_slow = axis % rank != 0 if rank else False
        elif proto.op_type.startswith("Reduce") and rank:
            axes = {axis % rank for axis in _axes(proto, model.initializers)}
            is_slow = bool(axes) and axes != set(range(rank - len(axes), rank))
        else:
            continue
        if is_slow:
            found.add(model.scoped_names.get(node.name, node.name))
    return found


def _axes(node: Any, initializers: Any) -> Sequence[int]:
    """Axes of a reduction: an attribute, or from opset 18 (ReduceSum: 13) on an input."""
    from pytest_trtgray.vendor import quiet_import

    attribute = next((tuple(each.ints) for each in node.attribute if each.name == "axes"), ())
    if attribute or len(node.input) < 2 or node.input[1] not in initializers:
        return attribute
    return [int(axis) for axis in quiet_import("onnx").numpy_helper.to_array(initializers[node.input[1]]).ravel()]


def _small_layers(profile: Profile) -> Iterator[Finding]:
    timed = [each for each in profile.layers if each.us > 0]
    largest = max((each.share for each in timed), default=1.0)
    usual = sorted(each.us for each in timed)[len(timed) // 2] if timed else 0.0
    is_graph = profile.method.get("cuda_graph") == "yes"
    if largest <= SMALL_SHARE and len(timed) > SMALL_LAYERS and usual < SMALL_US and not is_graph:
        yield _advice(
            "OPT-21",
            timed,
            f"{len(timed)} layers, none above {largest:.1%} of the time and half of them below {usual:.1f} us: "
            "launching them may take as long as running them",
            "Compare with --trt-cuda-graph; a larger batch and fewer, larger kernels help too.",
        )


def _no_tensor_cores(profile: Profile) -> Iterator[Finding]:
    hot = [
        timed
        for timed in profile.layers
        if timed.share > HOT_SHARE and is_matrix_kernel(timed.layer) and _CUDA_CORES.search(timed.layer.tactic)
    ]
    if hot:
        yield _advice(
            "OPT-22",
            hot,
            f"{counted(len(hot), 'hot product or convolution')} without tensor cores ({_share(hot):.1%} of the layers' "
            f"time): {_longest(hot)}, {hot[0].layer.tactic}",
            "FP16, TF32 or INT8 where the accuracy allows it, channels that are multiples of 8 (INT8: 16), and a batch "
            "above 1.",
        )


def _streams(profile: Profile) -> Iterator[Finding]:
    """Times of layers that do not add up to the engine's."""
    total = sum(timed.us for timed in profile.layers)
    ratio = total / profile.total_us if profile.total_us > 0 else 0.0
    streams = len({timed.layer.stream for timed in profile.layers})
    if streams > 1:
        what = f"layers run on {streams} streams at once; their times add up to {ratio:.2f} times the engine's"
        remedy = (
            "Shares of layers are no shares of the engine's time. Build with max_aux_streams = 0 to compare layers."
        )
    elif ratio > SUM_RATIO:
        what = (
            f"the times of the layers add up to {ratio:.2f} times the engine's: the profiler serialises their launches"
        )
        remedy = "Compare layers with each other, not with the engine's time; a larger batch brings the two together."
    else:
        return
    yield Finding(
        "advice",
        "engine",
        what,
        "timing.OPT-29",
        {"layers_us": round(total, 3), "engine_us": round(profile.total_us, 3), "streams": streams},
        remedy,
    )


def _advice(rule: str, layers: Sequence[LayerTime], what: str, remedy: str) -> Finding:
    worst = max(layers, key=lambda timed: timed.us)
    return Finding(
        "advice",
        worst.layer.title,
        what,
        f"timing.{rule}",
        {
            "layers": len(layers),
            "share_percent": round(100 * _share(layers), 2),
            "us": round(sum(timed.us for timed in layers), 3),
        },
        remedy,
    )


def _share(layers: Sequence[LayerTime]) -> float:
    return sum(timed.share for timed in layers)


def _longest(layers: Sequence[LayerTime]) -> str:
    ordered = sorted(layers, key=lambda timed: -timed.us)
    return some([f"{timed.layer.title} ({timed.us:.1f} us)" for timed in ordered], limit=2)
