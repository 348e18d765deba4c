"""Silence is not health: what to look at after a parse or a build that reported nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_trtgray.findings import Finding, counted, some


@dataclass(frozen=True)
class BuildFacts:
    """What is known of a model, a parse and a build; what is left out is not known and not judged.

    Attributes:
        network_layers: layers of the network after parsing.
        engine_layers: layers of the built engine.
        ir_version: of the ONNX file; 0 is what a parser finds in a file that is no model.
        opset: of ONNX's own domain; 0 if the file names none.
        nan_weights: how many values of a weight are NaN, by its name.
        infinite_weights: how many values are infinite, by its name.
        precision: that was asked for: ``fp32``, ``fp16``, ``bf16``, ``int8``, ``fp8``.
        beyond_precision: how many values of a weight the precision cannot hold, by its name.
        computed_in: layers by the precision that they compute in, of those that do the work.
        wanted_provider: ONNX Runtime's execution provider that was asked for.
        providers: those that the session uses, the first first.
    """

    network_layers: int | None = None
    engine_layers: int | None = None
    ir_version: int | None = None
    opset: int | None = None
    nan_weights: Mapping[str, int] = field(default_factory=dict)
    infinite_weights: Mapping[str, int] = field(default_factory=dict)
    precision: str = ""
    beyond_precision: Mapping[str, int] = field(default_factory=dict)
    computed_in: Mapping[str, int] = field(default_factory=dict)
    wanted_provider: str = ""
    providers: Sequence[str] = ()


def silent_findings(facts: BuildFacts) -> tuple[Finding, ...]:
    """What is wrong although no error was reported.

    Args:
        facts: of a parse or a build that the API called a success.

    Returns:
        ``silent.no-layers`` and ``silent.no-opset`` (errors: the file is no model), ``silent.nan-weights`` and
        ``silent.beyond-precision`` (warnings), ``silent.infinite-weights`` (advice: masks have them),
        ``silent.precision`` (warning: nothing computes in the precision that was asked for) and
        ``silent.provider-fallback`` (error).
    """
    found = [*_no_model(facts), *_weights(facts)]
    if facts.precision and facts.computed_in and not facts.computed_in.get(facts.precision):
        used = ", ".join(f"{name}: {counted(count, 'layer')}" for name, count in sorted(facts.computed_in.items()))
        found.append(
            Finding(
                "warning",
                f"precision={facts.precision}",
                f"{facts.precision} was asked for, and no layer computes in it ({used})",
                "silent.precision",
                dict(facts.computed_in),
                "Convert the model: from TensorRT 11 on there is no flag for a precision, and code that asks for one "
                "only where it exists builds FP32.",
            )
        )
    if facts.wanted_provider and facts.providers and facts.providers[0] != facts.wanted_provider:
        found.append(
            Finding(
                "error",
                facts.wanted_provider,
                f"{facts.wanted_provider} was asked for, and the session runs on {facts.providers[0]}",
                "silent.provider-fallback",
                {"providers": ", ".join(facts.providers)},
                "Install what that provider needs; ONNX Runtime goes on without it and raises nothing.",
            )
        )
    return tuple(found)


def _no_model(facts: BuildFacts) -> list[Finding]:
    found = []
    for count, what, severity in (
        (facts.network_layers, "network", "error"),
        (facts.engine_layers, "engine", "warning"),  # a network that only renames tensors needs none
    ):
        if count == 0:
            found.append(
                Finding(
                    severity,  # type: ignore[arg-type]
                    what,
                    f"the {what} has no layers, although nothing was reported",
                    "silent.no-layers",
                    remedy="Look at the model file: TensorRT's parser takes empty and foreign files without an error.",
                )
            )
    if facts.ir_version == 0 or facts.opset == 0:
        found.append(
            Finding(
                "error" if facts.ir_version == 0 else "warning",
                "model",
                f"the model has IR version {facts.ir_version} and opset {facts.opset}",
                "silent.no-opset",
                {"ir_version": facts.ir_version, "opset": facts.opset},
                "An exporter writes both: the file is damaged or no ONNX model.",
            )
        )
    return found


def _weights(facts: BuildFacts) -> list[Finding]:
    found = []
    for names, severity, what, rule, remedy in (
        (facts.nan_weights, "warning", "with NaN", "nan-weights", "Look at the checkpoint: the outputs will be NaN."),
        (
            facts.beyond_precision,
            "warning",
            f"with values beyond the range of {facts.precision}",
            "beyond-precision",
            "Keep these layers in FP32 or use BF16, and compare outputs with the FP32 reference.",
        ),
        (
            facts.infinite_weights,
            "advice",
            "with infinite values",
            "infinite-weights",
            "Masks do; anything else is damaged.",
        ),
    ):
        if names:
            found.append(
                Finding(
                    severity,  # type: ignore[arg-type]
                    some(list(names)),
                    f"{counted(len(names), 'weight')} {what}: {some(list(names))}",
                    f"silent.{rule}",
                    {"weights": len(names), "values": sum(names.values())},
                    remedy,
                )
            )
    return found
