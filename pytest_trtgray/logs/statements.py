"""Messages that are whole facts by themselves, as data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_trtgray.logs.numbers import mebibytes, number, whole


def _shape(text: str) -> list[int]:
    return [whole(part) for part in re.findall(r"-?\d+", text)]


@dataclass(frozen=True)
class Statement:
    """One kind of message.

    Attributes:
        kind: of the event.
        needle: a literal that every such message holds; sought before the pattern.
        pattern: groups are fields of the event; a group ``*_mib`` becomes ``*_bytes``.
        convert: what a group's text becomes, where it is no text.
        constant: fields that the message implies.
    """

    kind: str
    needle: str
    pattern: re.Pattern[str]
    convert: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    constant: Mapping[str, Any] = field(default_factory=dict)

    def read(self, text: str) -> dict[str, Any] | None:
        """The fields, or None if the message is of another kind."""
        match = self.pattern.search(text)
        if match is None:
            return None
        fields = dict(self.constant)
        for name, value in match.groupdict().items():
            if value is None:
                continue
            if name.endswith("_mib"):
                fields[name[:-4] + "_bytes"] = mebibytes(value)
            elif name.endswith("_bytes"):
                fields[name] = whole(value)
            else:
                convert = self.convert.get(name) or _BY_NAME.get(name)
                fields[name] = convert(value) if convert else value
        return fields


# Groups whose name says what they are.
_BY_NAME: Mapping[str, Callable[[str], Any]] = {
    "seconds": number,
    "bytes": whole,
    "requested": whole,
    "layers": whole,
    "n": whole,
    "entries": whole,
    "hits": whole,
    "cuda_code": whole,
    "code": whole,
    "build": whole,
    "shape": _shape,
    "index": whole,
    "value": number,
}


def _s(
    kind: str,
    needle: str,
    pattern: str,
    convert: Mapping[str, Callable[[str], Any]] | None = None,
    /,
    **constant: Any,
) -> Statement:
    return Statement(kind, needle, re.compile(pattern), convert or {}, constant)


def _warning(what: str, needle: str, pattern: str = "") -> Statement:
    return _s("warning", needle, pattern or re.escape(needle), kind=what)


STATEMENTS: tuple[Statement, ...] = (
    # --- the graph
    _s("layer_count", " layers", r"^(?P<stage>Original|After [^:\n]+): (?P<n>\d+) layers$"),
    _s("fusion", "Fusing ", r"^(?:(?P<kind>\w+): )?Fusing (?P<a>.+?) with (?P<b>.+)$"),
    _s(
        "layer_converted",
        "layer type of ",
        r"^(?:Swap the|Convert) layer type of (?P<name>.+) from (?P<old>\w+) to (?P<new>\w+)$",
    ),
    _s(
        "network_io",
        "network tensors",
        r"Detected (?P<inputs>\d+) inputs? and (?P<outputs>\d+) output",
        {"inputs": whole, "outputs": whole},
    ),
    _s("unused_input", "nused", r"Unused Input: (?P<tensor>.+)|Input Tensor (?P<name>.+) is unused"),
    _s(
        "profile_shapes",
        "optimization profile",
        r"Set shape of input tensor (?P<tensor>.+) for optimization profile (?P<index>\d+) to: MIN="
        r"(?P<min>\S+) OPT=(?P<opt>\S+) MAX=(?P<max>\S+)",
    ),
    _s("dynamic_input", "minShape is not the same", r"In input \((?P<tensor>.*)\), minShape"),
    # --- how long
    _s("engine_built", "Engine generation completed in", r"completed in (?P<seconds>\S+) seconds"),
    _s("engine_built", "Finished engine building in", r"building in (?P<seconds>\S+) seconds"),
    _s("build_time", "Engine built in", r"built in (?P<seconds>\S+) sec"),
    _s("stage_time", "Parse time:", r"(?P<stage>Finish(?:ed)? parsing network model)\. Parse time: (?P<seconds>\S+)"),
    _s(
        "stage_time",
        "econds",
        r"^\s*(?P<stage>Graph construction and optimization|Graph construction|Formats and tactics selection|"
        r"Subgraph compilation|Post Processing Calibration data) (?:completed )?in (?P<seconds>\S+) seconds",
    ),
    _s("stage_time", "Graph optimization time", r"^(?P<stage>Graph optimization) time: (?P<seconds>\S+) seconds"),
    _s(
        "stage_time",
        "Deserialization required",
        r"(?P<stage>Deserialization) required (?P<seconds>\d+) microseconds",
        {"seconds": lambda text: whole(text) / 1e6},
    ),
    _s("stage_time", "sec", r"^(?P<stage>Engine (?:deserialized|loaded)) in (?P<seconds>\S+) sec"),
    # --- memory
    _s(
        "mem_usage",
        "[MemUsageChange]",
        r"\[MemUsageChange\] (?P<what>.+): CPU (?P<cpu_delta_mib>[+-]?\d+), GPU (?P<gpu_delta_mib>[+-]?\d+), "
        r"now: CPU (?P<cpu_now_mib>\d+), GPU (?P<gpu_now_mib>\d+) \(MiB\)",
    ),
    _s(
        "mem_usage",
        "[MemUsageSnapshot]",
        r"\[MemUsageSnapshot\] (?P<what>.+): CPU (?P<cpu_now_mib>\d+) MiB, GPU (?P<gpu_now_mib>\d+) MiB",
    ),
    _s(
        "mem_peak",
        "[MemUsageStats]",
        r"\[MemUsageStats\] Peak memory usage (?:of|during) (?P<what>[^:]+): CPU:? (?P<cpu_mib>\d+) MiB(?:, "
        r"GPU:? (?P<gpu_mib>\d+) MiB)?",
    ),
    _s("memory", " Memory: ", r"^\s*(?P<what>(?:Total|Max) [\w ]*Memory): (?P<bytes>\d+)"),
    _s("memory", " memory ", r"(?P<what>Total per-runner \w+ persistent memory) is (?P<bytes>\d+)"),
    _s("memory", " memory of size ", r"Allocated (?P<what>[\w ]+ memory) of size (?P<bytes>\d+)"),
    _s("memory", "Runner scratch", r"(?P<what>Runner scratch): (?P<bytes>\d+) bytes"),
    _s(
        "layer_memory",
        "ersistent: ",
        r"^Layer: (?P<layer>.+?)(?: Weights: (?P<weights_bytes>\d+))? Host ?Persistent: (?P<host_bytes>\d+)(?: bytes)? "
        r"Device ?Persistent: (?P<device_bytes>\d+)(?: bytes)?(?: Scratch Memory: (?P<scratch_bytes>\d+))?",
    ),
    _s("engine_loaded", "Loaded engine size", r"Loaded engine size: (?P<size_mib>[\d.]+) MiB"),
    _s("engine_size", "Created engine with size", r"with size: (?P<size_mib>[\d.]+) MiB"),
    _s(
        "allocation_failed",
        "could not be allocated",
        r"Requested amount of (?P<what>GPU|CPU|host|device)? ?memory \((?P<bytes>\d+) bytes\)",
    ),
    _s(
        "allocation_failed",
        "GPU memory allocation error",
        r"GPU memory allocation error(?: during (?P<what>[^:\n]+))?(?:: (?P<node>.+))?",
    ),
    _s("allocation_failed", "enough memory", r"(?P<what>not enough memory[^\n]{0,200})"),
    _s("allocation_failed", "ut of memory", r"(?P<what>[Oo]ut of memory)"),
    _s("allocation_failed", "OutOfMemory", r"(?P<what>OutOfMemory)"),
    _s("workspace_short", "sufficient workspace memory", r"Requested size was (?P<bytes>\d+)|sufficient workspace"),
    # --- tactics
    _s(
        "tactic_skipped_memory",
        "Skipping tactic",
        r"Skipping tactic (?P<id>\S+) due to insuff?icient memory on requested size of (?P<requested>\d+)(?: "
        r"detected for tactic (?P<tactic>[^.\s]+))?",
    ),
    _s(
        "tactic_skipped_memory",
        "Skipping tactic",
        r"Skipping tactic (?P<id>\S+) due to (?P<reason>(?:oom|out of memory|OOM|kernel memory)[^\n]*)",
    ),
    _s(
        "tactic_skipped_exception",
        "Skipping tactic",
        r"(?:Error Code:? (?P<code>\d+): )?Skipping tactic (?P<id>\S+) due to exception:? (?P<reason>[^\n]*)",
    ),
    _s(
        "tactic_skipped_exception",
        "Skipping tactic",
        r"Skipping tactic (?P<id>\S+) due to (?P<reason>Myelin error|CUDA error|[^\n]*error)[:\s]",
    ),
    _s(
        "tactic_device_request",
        "Tactic Device request",
        r"request: (?P<request_mib>\d+) ?M?i?B Available: (?P<available_mib>\d+) ?M?i?B",
    ),
    # --- the timing cache
    _s(
        "timing_cache_deleted",
        "Deleting timing cache",
        r"cache: (?P<entries>\d+) entries, (?:served )?(?P<hits>\d+) hits",
    ),
    _s("timing_cache", "uilder timing cache", r"created (?P<entries>\d+) entries, (?P<hits>\d+) hit", use="local"),
    _s("timing_cache", "Local timing cache in use", "Local", use="local"),
    _s("timing_cache", "Global timing cache in use", "Global", use="global"),
    _s("timing_cache", "Timing cache disabled", "disabled", use="disabled"),
    _s("timing_cache", "Could not read timing cache from", r"from: (?P<file>.+?)\. A new", use="new"),
    _s(
        "timing_cache",
        "of timing cache ",
        r"(?P<action>Loaded|Saved) (?P<bytes>\d+) bytes of timing cache (?:from|to) (?P<file>\S+)",
        use="file",
    ),
    _s("timing_cache_invalid", "invalid timing cache", "invalid"),
    _s("timing_cache_invalid", "timing cache will not be used", "timing cache"),
    # --- precision
    _s(
        "precision_constraint_ignored",
        "No implementation of layer",
        r"layer (?P<layer>.+?) obeys the requested constraints",
    ),
    _s("reformatting", "reformatting-free", r"at least (?P<n>\d+) reformatting nodes"),
    _s(
        "type_mismatch",
        "first input has type",
        r"\b(?P<layer>\w{1,80}) with inputs (?P<a>.+) and (?P<b>.+): first input has type (?P<type_a>\w+) but second "
        r"input has type (?P<type_b>\w+)",
    ),
    _s(
        "type_mismatch",
        "must have same input types",
        r"\((?P<layer>[^\n]{1,500}?): (?P<operation>\w+ \w+) must have same input types\. "
        r"But they are of types (?P<type_a>\w+) and (?P<type_b>\w+)",
    ),
    _s("int64_binding", "Make sure", r"Make sure (?P<io>input|output) (?P<tensor>.+) has Int64 binding"),
    _s(
        "overridden_scale",
        "Overriding tensor scales",
        r"scales: (?P<tensor>.+?) \[Quantization\(scale: \{(?P<old>[^,}]+).*?using (?P<like>.+?) "
        r"\[Quantization\(scale: \{(?P<new>[^,}]+)",
        {"old": number, "new": number},
    ),
    _warning(
        "layernorm_fp16_overflow",
        "layernorm",
        r"(?i)layernorm (?:after self-attention )?.{0,20}\bFP16|layernorm nodes in FP16",
    ),
    _warning("cross_device_plan", "Using an engine plan file across different models of devices"),
    _warning("int64_cast", "Attempting to cast down to INT32"),
    _warning("weights_clamped", "clamped", r"was clamped|Clamping to"),
    _warning("no_calibrator", "Calibrator is not being used"),
    _warning("lazy_loading_off", "CUDA lazy loading is not enabled"),
    _warning("profiling_verbosity_names_only", "kLAYER_NAMES_ONLY"),
    _warning("old_opset", "Models using older opsets are not guaranteed"),
    _warning("duplicate_name", "A node named"),
    _warning("deprecated", "eprecat"),
    # --- calibration
    _s("calibration_start", "Starting Calibration", "Starting"),
    _s("calibration_batch", "Calibrated batch", r"batch (?P<index>\d+) in (?P<seconds>\S+) seconds"),
    _s("calibration_done", "Calibration completed in", r"completed in (?P<seconds>\S+) seconds"),
    _s(
        "calibration_cache",
        "Calibration Cache for calibrator",
        r"(?P<action>Reading|Writing) Calibration Cache for calibrator: (?P<calibrator>\S+)",
    ),
    _s(
        "calibration_failure",
        "no scaling factors detected",
        r"(?:\[[\w./]+::(?P<func>[^\]:]+)::\d+\] |: )?Error Code:? (?P<code>\d+)|no scaling factors",
    ),
    _s(
        "missing_scale",
        "expect fall back to non-int8",
        r"Missing (?:scale and zero-point|dynamic range) for tensor (?P<tensor>.+?), expect fall back",
    ),
    _s(
        "tensor_scale",
        "Inference Tensor scales",
        r"zero-points: (?P<tensor>.+) scale and zero-point Quantization\(scale: \{"
        r"(?P<scale>[^,}]+).*?zero-point: \{(?P<zero_point>[^,}]+)",
        {"scale": number, "zero_point": whole},
    ),
    # --- DLA
    _s("dla_fallback", "nsupported on DLA", r"Layer '(?P<layer>.+)' \((?P<type>\w+)\): Unsupported on DLA"),
    _s("dla_fallback", "not supported on DLA", r"but layer (?P<layer>.+) is not supported on DLA"),
    _s("dla_fallback", "device type to GPU", r"DLA only supports .*?Switching (?P<layer>.+) device type to GPU"),
    _s("dla_unused", "no layer in the network can run on DLA", "no layer"),
    # --- errors
    _s(
        "no_implementation",
        "ould not find any implementation for node",
        r"(?:Error Code:? (?P<code>\d+): [^\n(]*\()?[^\n]{0,10}[Cc]ould not find any implementation for node "
        r"(?P<node>.+?)(?:, try increasing|\.?(?:$|\)| In ))",
    ),
    _s(
        "no_implementation",
        "No supported formats for",
        r"Error Code:? (?P<code>\d+).*No supported formats for (?P<node>.+?)\)",
    ),
    _s(
        "no_implementation",
        "has no runners that implement it",
        r"Error Code:? (?P<code>\d+).*?failed\. (?P<node>.+) has no runners",
    ),
    _s(
        "plugin_missing",
        "could not find plugin",
        r"could not find plugin:? (?P<plugin>\S+) version:? (?P<version>\S+)(?: namespace:? ?(?P<namespace>\S*))?",
    ),
    _s("plugin_missing", "Plugin not found", "Plugin not found"),
    _s(
        "plugin_missing",
        "Cannot find plugin",
        r"Cannot find plugin:? (?P<plugin>[^\s,]+),? version:? (?P<version>[^\s,]+)",
    ),
    _s("plugin_missing", "IPluginCreator not found", "IPluginCreator not found"),
    _s(
        "serialization_mismatch",
        "Serialized Engine Version",
        r"Current Version: (?P<current>\d+), Serialized Engine Version: (?P<engine>\d+)",
        {"current": whole, "engine": whole},
    ),
    _s(
        "version_mismatch",
        "expecting library version",
        r"expecting library version (?P<expected>[\d.]*\d) got (?P<got>[\d.]*\d)",
    ),
    _s(
        "compute_mismatch",
        "expecting compute",
        r"expecting compute (?P<expected>[\d.]*\d) got compute (?P<got>[\d.]*\d)",
    ),
    _s(
        "static_dim_mismatch",
        "Static dimension mismatch",
        r"(?:\[[\w./]+::(?P<func>[^\]:]+)::\d+\] .*|^(?:.*::)?(?P<api>\w+): Error.*|)Static dimension mismatch",
    ),
    _s(
        "shape_out_of_profile",
        "Supplied binding dimension",
        r"Supplied binding dimension \[(?P<shape>[^\]]*)\] for bindings\[(?P<index>\d+)\] exceed",
    ),
    _s("shape_out_of_profile", "satisfyProfile", r"satisfyProfile(?P<text>[^\n]*)"),
    _s(
        "shape_out_of_profile",
        "set binding dimension",
        r"set binding dimension to \[(?P<shape>[^\]]*)\] for input '(?P<input>[^']*)'",
    ),
    _s("shape_out_of_profile", "Got invalid dimensions for input", r"for input: (?P<input>\S+)"),
    _s("cuda_error", "uda Error in", r"Cuda Error in (?P<func>[^\n]+): (?P<cuda_code>\d+) \((?P<text>[^\n]*)\)"),
    _s(
        "cuda_error",
        "CUDA initialization failure",
        r"with error:? (?P<cuda_code>\d+)",
        text="CUDA initialization failure",
    ),
    _s("cuda_error", "cudaError", r"\(cudaError (?P<cuda_code>\d+): (?P<text>[^\n]*?)\)+(?:$|\n)"),
    _s("cuda_error", "Cuda Runtime (", r"Cuda Runtime \((?P<text>(?!In )[^\n]*)\)$"),
    _s("cuda_error", "Cuda failure", r"Cuda failure:? (?P<cuda_code>\d+)"),
    _s(
        "lib_mismatch",
        "was linked against",
        r"linked against (?P<lib>.+) (?P<linked>[\d.]+) but loaded (?P=lib) (?P<loaded>[\d.]+)",
    ),
    _s("aux_streams", "Number of aux streams", r"aux streams is (?P<n>\d+)"),
    # --- who runs TensorRT
    _s(
        "ort_error",
        "[ONNXRuntimeError]",
        r"\[ONNXRuntimeError\] : (?P<code>\d+) : (?P<name>\w+) : (?P<message>(?:[^\n]|\n )*?(?:fused node: "
        r"(?P<fused_node>\S+)|\Z|\n(?! )))",
    ),
    _s("ort_error", "[ErrorCode:", r"\[ErrorCode:(?P<name>\w+)\] .*?(?:Status Message: )(?P<message>[^\n]*)"),
    _s("ep_fallback", "Failed to create ", r"Failed to create (?P<provider>\w+ExecutionProvider)"),
    _s(
        "ep_fallback",
        "is not in available provider names",
        r"Specified provider '(?P<provider>\w+)' is not in available",
    ),
    _s("ep_fallback", "EP Error", r"EP Error (?P<text>[^\n]*)"),
    _s("ep_fallback", "Falling back to", r"Falling back to (?P<providers>\[[^\]]*\])"),
    _s(
        "triton_load_failed",
        "failed to load '",
        r"failed to load '(?P<model>[^']*)' version (?P<version>\d+): (?P<reason>[^\n]*)",
        {"version": whole},
    ),
    _s(
        "deepstream_error",
        "NvDsInferContext",
        r"Error in NvDsInferContextImpl::(?P<func>\w+)\(\)(?: <(?P<source>[^>]*)>)?(?: \[UID = "
        r"(?P<uid>\d+)\])?: (?P<text>[^\n]*)",
        {"uid": whole},
    ),
    _s(
        "compare_failed",
        "FAILED | Output:",
        r"FAILED \| Output: ['`](?P<output>[^'`]*)['`] \| (?P<reason>[^\n(]*(?:\(rel=(?P<rtol>[^,\n]+), abs="
        r"(?P<atol>[^)\n]+)\))?[^\n]*)",
        {"rtol": number, "atol": number},
    ),
    _s(
        "accuracy_summary",
        "Accuracy Summary |",
        r"Summary \| (?P<a>.+) vs\. (?P<b>.+?) \| Passed: (?P<passed>\d+)/(?P<total>\d+) iterations",
        {"passed": whole, "total": whole},
    ),
    _s("values_not_finite", "Detected | One or more", r"(?P<what>NaN|Inf) Detected"),
    _s("command_failed", "FAILED | Runtime:", r"Runtime: (?P<seconds>[\d.]+)s \| Command: (?P<command>[^\n]*)"),
    _s(
        "api_result",
        "ailed",
        r"^(?P<text>Failed to parse onnx file|Parsing model failed|Engine could not be created from network|"
        r"Building engine failed|Failed to create engine from model(?: or file)?|Engine set up failed|Could "
        r"not parse ONNX correctly|Invalid Engine[^\n]*|Deserialize engine failed from file[^\n]*)",
        result=False,
    ),
    _s("api_result", "Could not parse ONNX correctly", "(?P<text>Could not parse ONNX correctly)", result=False),
    _s("api_result", "result None", r"^(?P<text>\w+) result None$", result=False),
    _s(
        "api_result",
        "parse ",
        r"^(?P<text>parse) (?P<result>True|False) parser errors (?P<errors>\d+)$",
        {"result": lambda text: text == "True", "errors": whole},
    ),
    # --- versions
    _s("version", "Loaded Module:", r"Loaded Module: (?P<module>tensorrt\w*) \| Version: (?P<version>[\d.]+\d)"),
    _s("version", "TensorRT version:", r"TensorRT version: (?P<version>[\d.]*\d)", product="TensorRT"),
    _s("version", "libnvinfer", r"libnvinfer\w*\.so\.(?P<version>\d+\.\d+[\d.]*\d)", product="TensorRT"),
    _s("version", "libtensorrt_rtx", r"libtensorrt_rtx\w*\.so\.(?P<version>\d+\.\d+[\d.]*\d)", product="TensorRT-RTX"),
    _s("version", "TensorRT-", r"\bTensorRT-(?P<version>\d+\.\d+[\d.]*\d)", product="TensorRT"),
    _s(
        "version", "ExecutionProvider'", r"^(?P<version>\d+\.\d+\.\d+) \['\w+ExecutionProvider'", product="ONNX Runtime"
    ),
    _s(
        "version",
        "TensorRT ",
        r"(?:with|version|TensorRT version:?) TensorRT (?P<version>\d+\.\d+\.\d+[\d.]*\b)",
        product="TensorRT",
    ),
    _s("version", "TensorRT version ", r"TensorRT version (?P<version>\d+\.\d+[\d.]*\d)", product="TensorRT"),
    # TensorRT for RTX alone builds for GPUs that are not there.
    _s("product", "compute capabilities", r"^Number of target compute capabilities", product="TensorRT-RTX"),
    _s("product", "legacy CPU-only mode", "legacy", product="TensorRT-RTX"),
    _s("product", "TensorRT-RTX", "TensorRT-RTX", product="TensorRT-RTX"),
    # --- trtexec
    _s("device", "Selected Device:", r"Selected Device: (?P<name>[^\n]+)"),
    _s("device", "Compute Capability:", r"^Compute Capability: (?P<compute_capability>\d+\.\d+)"),
    _s("trace", "Timing trace has", r"trace has (?P<queries>\d+) queries over (?P<seconds>\S+) s", {"queries": whole}),
    _s(
        "trace",
        "Warmup completed",
        r"completed (?P<warmup_queries>\d+) queries over (?P<warmup_ms>\S+) ms",
        {"warmup_queries": whole, "warmup_ms": number},
    ),
    _s(
        "perf_average",
        "Average on",
        r"Average on (?P<runs>\d+) runs - GPU latency: (?P<gpu_ms>\S+) ms(?: - Host latency: (?P<host_ms>\S+) "
        r"ms)?(?: \((?:end to end (?P<end_to_end_ms>\S+) ms, )?enqueue (?P<enqueue_ms>\S+) ms\))?",
        {"runs": whole, "gpu_ms": number, "host_ms": number, "end_to_end_ms": number, "enqueue_ms": number},
    ),
    _s(
        "perf_average",
        "Average over",
        r"Average over (?P<runs>\d+) runs is (?P<gpu_ms>\S+) ms(?: \(host walltime is (?P<host_ms>\S+) ms(?:, "
        r"(?P<percentile>\d+)% percentile time is (?P<percentile_ms>[\d.]*\d))?)?",
        {"runs": whole, "gpu_ms": number, "host_ms": number, "percentile": whole, "percentile_ms": number},
    ),
    _s("perf_warning", "hroughput may be bound by Enqueue", "Enqueue", kind="enqueue_bound"),
    _s("perf_warning", "hroughput may be bound by host-to-device", "host", kind="h2d_bound"),
    _s("perf_warning", "hroughput may be bound by device-to-host", "host", kind="d2h_bound"),
    _s("perf_warning", "coefficient of variance", r"variance = (?P<cv>[\d.]+)%", {"cv": number}, kind="unstable"),
    _s("perf_warning", "Multiple inference streams are used", "Multiple", kind="multi_stream"),
)
"""All kinds, sought in this order."""

_OF_VERBOSE = frozenset(
    (
        "layer_count",
        "fusion",
        "layer_converted",
        "stage_time",
        "mem_usage",
        "memory",
        "layer_memory",
        "tactic_skipped_memory",
        "tactic_skipped_exception",
        "workspace_short",
        "timing_cache",
        "timing_cache_deleted",
        "overridden_scale",
        "tensor_scale",
        "missing_scale",
        "no_implementation",
        "plugin_missing",
        "version",
        "product",
        "warning",
        "profile_shapes",
    )
)
VERBOSE_STATEMENTS = tuple(statement for statement in STATEMENTS if statement.kind in _OF_VERBOSE)
"""Those that builders make in verbose messages, which are so many that the others are not sought in them."""
_SIGNS = (
    *(
        " layers",
        "Fusing ",
        "layer type of ",
        "optimization profile",
        "Parse time:",
        "sec",
        "econds",
        "Graph optimization time",
    ),
    *("Deserialization required", "[MemUsage", "emory", "Runner scratch", "ersistent: ", "Skipping tactic"),
    *("iming cache", "ensor scales", "layernorm", "engine plan file", "cast down to", "clamped", "Calibrator is"),
    *("CUDA lazy", "kLAYER_NAMES_ONLY", "older opsets", "A node named", "eprecat", "fall back to", "TensorRT"),
    *("any implementation", "No supported formats", "has no runners", "lugin", "Loaded Module:", "libnvinfer"),
    *("libtensorrt_rtx", "ExecutionProvider'", "compute capabilities", "legacy CPU-only mode"),
)


def may_state(verbose: str) -> bool:
    """Whether a verbose message may state anything: most do not, and are told by fewer signs than statements."""
    for sign in _SIGNS:  # noqa: SIM110 - any() takes twice as long, for most of the lines of a log
        if sign in verbose:
            return True
    return False
