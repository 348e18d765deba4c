"""Which part of its work a runtime is at, by what it says."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pytest_trtgray.logs.records import LogSeverity

_KEY = 8  # characters by which a message is looked up
_STARTS: Mapping[str, tuple[str, ...]] = {
    "parse": (
        "Input filename:",
        "ONNX IR version:",
        "Opset version:",
        "Adding network input",
        "Importing initializer",
        "Static check for parsing",
        "Parsing node:",
        "Searching for input:",
        "Registering layer:",
        "Registering tensor:",
        "Start parsing network",
        "ModelImporter.cpp",
        "onnx2trt_utils",
        "WeightsContext.cpp",
    ),
    "build": (
        "Original: ",
        "Applying generic optimizations",
        "Graph construction",
        "Graph optimization",
        "Local timing cache",
        "Global timing cache",
        "Timing cache disabled",
        "Could not read timing cache",
        "Deleting timing cache",
        "Building engine with",
        "Configuring with profiles",
        "=============== Computing",
        "*************** Autotuning",
        "--------------- Timing",
        ">>>>>>>>>>>>>>> Chose",
        "Starting Calibration",
        "  Calibrated batch",
        "Constructing optimization profile",
        "Constructing calibration profile",
        "Compiler backend is used during engine build",
        "Engine generation completed",
        "Engine built in",
        "Tactic: ",
        "Tactic Name:",
        "Fastest Tactic",
        "Layers:\n",
        "Engine Layer Information",
        "Total Host Persistent",
        "Total Activation Memory",
    ),
    "load": (
        "Loaded engine size",
        "Deserialization required",
        "Deserialize engine",
        "Engine deserialized",
        "The engine plan file",
        "The engine header does not",
    ),
    "run": (
        "=== Performance summary",
        "=== Profile (",
        "Throughput: ",
        "Average on ",
        "Host Latency",
        "Host latency",
        "Starting inference",
        "Warmup completed",
        "Capturing CUDA graph",
        "Using random values for input",
        "Streaming iteration",
        "Accuracy Comparison",
        "Accuracy Summary",
        "Running engine with multi stream",
    ),
}
_BY_KEY = {start[:_KEY]: (start, phase) for phase, starts in _STARTS.items() for start in starts}
_PROBLEMS: Mapping[str, tuple[str, ...]] = {
    "parse": (
        r"ModelImporter",
        r"While parsing node",
        r"In node -?\d+ with name",
        r"\bonnx\w*\.[ch]pp",
        r"\(parseFromFile\)",
        r"\(deserializeOnnxModel\)",
        r"Load model from .{0,300} failed",
        r"arsing model failed",
        r"Could not parse ONNX",
    ),
    "build": (
        r"IBuilder::build",
        r"[bB]uilder\.cpp",
        r"buildSerializedNetwork",
        r"buildEngine",
        r"optimizer\.cpp",
        r"tacticSupply",
        r"acticOptimizer",
        r"IBuilderConfig",
        r"IOptimizationProfile",
        r"INetworkDefinition",
        r"INetworkLayer",
        r"getBestTactic",
        r"Skipping tactic",
        r"any implementation for node",
        r"Missing scale and zero-point",
        r"weights are affected by",
        r"requested constraints",
        r"issues when converted to FP16",
        r"nsupported on DLA",
        r"falling back to GPU",
        r"iming cache",
        r"quantization\.cpp",
        r"weightConvertors",
        r"Calibration failure",
    ),
    "load": (
        r"deserializeCudaEngine",
        r"IRuntime::",
        r"plan file",
        r"getPluginCreator",
        r"parsePlan",
        r"failed to load '",
    ),
    "run": (
        r"IExecutionContext",
        r"[eE]xecutionContext\.cpp",
        r"enqueue",
        r"while running \S+ node",
        r"Got invalid dimensions for input",
        r"FAILED \| Output",
    ),
}
_OF_PROBLEM = re.compile("|".join(f"(?P<{phase}>{'|'.join(signs)})" for phase, signs in _PROBLEMS.items()))
_MAX_SEARCHED = 2000


def phase_of(text: str, severity: LogSeverity, phase: str) -> str:
    """The phase after a message: ``parse``, ``build``, ``load``, ``run``; the one before if it tells none."""
    found = _BY_KEY.get(text[:_KEY])
    if found is not None and text.startswith(found[0]):
        return found[1]
    if severity in ("error", "internal_error", "warning"):
        match = _OF_PROBLEM.search(text, 0, _MAX_SEARCHED)
        if match and match.lastgroup:
            return match.lastgroup
    return phase
