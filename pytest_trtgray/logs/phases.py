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
_OF_PROBLEM = re.compile(
    r"(?P<parse>ModelImporter|While parsing node|In node -?\d+ with name|\bonnx\w*\.[ch]pp|\(parseFromFile\)|"
    r"\(deserializeOnnxModel\)|Load model from .{0,300} failed|arsing model failed|Could not parse ONNX)"
    r"|(?P<build>IBuilder::build|builder\.cpp|Builder\.cpp|buildSerializedNetwork|buildEngine|optimizer\.cpp|"
    r"tacticSupply|acticOptimizer|IBuilderConfig|IOptimizationProfile|INetworkDefinition|INetworkLayer|getBestTactic|"
    r"Skipping tactic|any implementation for node|Missing scale and zero-point|weights are affected by)"
    r"|(?P<load>deserializeCudaEngine|IRuntime::|plan file|getPluginCreator|parsePlan|failed to load '|"
    r"Unable to load plan)"
    r"|(?P<run>IExecutionContext|executionContext\.cpp|ExecutionContext\.cpp|enqueue|while running \S+ node|"
    r"Got invalid dimensions for input|FAILED \| Output)"
)
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
