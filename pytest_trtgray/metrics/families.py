"""The metric families of a run: names, labels and help texts, by Prometheus' naming conventions.

A run leaves one value a series, so all but the latency histogram are gauges. Base units only: seconds, bytes, hertz,
watts, ratios of 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFIX = "trtgray_run_"
ENGINE_LABELS = ("engine", "runtime", "device")
"""Of every series: files of several projects in one folder of the textfile collector must not have equal ones."""
CHECK_LABELS = (*ENGINE_LABELS, "test", "kind")
"""Of every series that belongs to one check."""


@dataclass(frozen=True)
class Family:
    """One metric.

    Attributes:
        name: with the prefix and the unit.
        help: in one line, without quotation marks.
        labels: in the order of the values of a series.
        kind: histograms have ``_bucket``, ``_sum`` and ``_count`` series.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    kind: Literal["gauge", "histogram"] = "gauge"


def _family(name: str, text: str, *labels: str, kind: Literal["gauge", "histogram"] = "gauge") -> Family:
    return Family(PREFIX + name, text, (*CHECK_LABELS, *labels), kind)


INFO = Family(PREFIX + "info", "The run: always 1.", (*ENGINE_LABELS, "version", "python", "commit"))
TIMESTAMP = Family(PREFIX + "timestamp_seconds", "When the run ended, in seconds since 1970.", ENGINE_LABELS)
CHECKS = Family(PREFIX + "checks", "Checks of the run by outcome.", (*ENGINE_LABELS, "outcome"))
LEFT_OUT = Family(
    PREFIX + "left_out_checks",
    "Checks without series of their own: same labels as a worse one, or beyond the bound.",
    ENGINE_LABELS,
)

FAILED = _family("check_failed", "1 if the check failed, else 0.")
OUTCOME = _family("check_outcome_info", "The outcome of the check as a label: always 1.", "outcome")
FINDINGS = _family("check_findings", "Findings of the check by severity.", "severity")

LATENCY = _family(
    "latency_seconds", "Time of one inference over all measured iterations of the last run.", kind="histogram"
)
LATENCY_PERCENTILES = _family(
    "latency_percentiles_seconds", "Exact percentiles of the measured iterations of the last run.", "percentile"
)
INFERENCE = _family("inference_seconds", "Time of one inference, as the verdict takes it.")
BASELINE = _family("inference_baseline_seconds", "Time of one inference in the baseline.")
CHANGE = _family("change_ratio", "Relative change against the baseline: 0.1 is 10 % slower.")
CHANGE_LOW = _family("change_lower_ratio", "Lower end of the 95 % confidence interval of the change.")
CHANGE_HIGH = _family("change_upper_ratio", "Upper end of the 95 % confidence interval of the change.")
DISTURBED = _family("disturbed", "1 if the machine was disturbed while it was measured, else 0.")
LAYER = _family(
    "layer_seconds", "Time of the layers that take longest, and of all others together.", "layer", "precision"
)
MODULE = _family("module_seconds", "Time of the modules that take longest; outer modules include inner ones.", "module")
COLD_START = _family("cold_start_seconds", "From the creation of an execution context to its first result.")
TRANSFER = _family("transfer_seconds", "All inputs to the device, or all outputs back.", "direction")
CREATION = _family("context_creation_seconds", "Creation of a fresh execution context.")
FIRST_CALL = _family("first_call_seconds", "Longest first inference at any of the shapes.")

RELATIVE_L2 = _family("relative_l2_ratio", "L2 norm of the error over that of the reference.", "output")
WRONG = _family("wrong_elements_ratio", "Share of elements beyond their tolerance.", "output")
SATURATED = _family(
    "saturated_ratio", "Share of values that the quantised type cuts off, of the worst tensors.", "tensor"
)

MEMORY = _family("memory_bytes", "Memory of the engine by use.", "use")
LAYERS = _family("layers", "Layers of the engine.")

GPU_CLOCK = _family("gpu_clock_hertz", "Clock of the GPU while it was measured.", "domain")
GPU_TEMPERATURE = _family("gpu_temperature_celsius", "Temperature of the GPU.")
GPU_POWER = _family("gpu_power_watts", "Power drawn by the GPU.")
GPU_POWER_LIMIT = _family("gpu_power_limit_watts", "Enforced power limit of the GPU.")
GPU_UTILIZATION = _family("gpu_utilization_ratio", "Part of the last second in which the GPU computed anything.")

FAMILIES: tuple[Family, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Family))
"""All of them, in the order in which they are written."""
