from __future__ import annotations

import pytest

from pytest_trtgray.logs.silence import BuildFacts, silent_findings


def test_what_is_not_known_is_not_judged() -> None:
    assert silent_findings(BuildFacts()) == ()


def test_a_healthy_build() -> None:
    facts = BuildFacts(
        network_layers=3,
        engine_layers=1,
        ir_version=9,
        opset=17,
        precision="fp16",
        computed_in={"fp16": 1, "fp32": 8},
        wanted_provider="CUDAExecutionProvider",
        providers=("CUDAExecutionProvider", "CPUExecutionProvider"),
    )
    assert silent_findings(facts) == ()


@pytest.mark.parametrize(
    ("facts", "rule", "severity", "said"),
    [
        (BuildFacts(network_layers=0), "no-layers", "error", "the network has no layers"),
        (BuildFacts(engine_layers=0), "no-layers", "warning", "the engine has no layers"),
        (BuildFacts(ir_version=0, opset=0), "no-opset", "error", "IR version 0"),
        (BuildFacts(ir_version=9, opset=0), "no-opset", "warning", "opset 0"),
        (BuildFacts(nan_weights={"w": 3}), "nan-weights", "warning", "1 weight with NaN: w"),
        (BuildFacts(infinite_weights={"mask": 3}), "infinite-weights", "advice", "mask"),
        (
            BuildFacts(precision="fp16", beyond_precision={"a": 1, "b": 2}),
            "beyond-precision",
            "warning",
            "2 weights with values beyond the range of fp16: a, b",
        ),
        (
            BuildFacts(precision="fp16", computed_in={"fp32": 12}),
            "precision",
            "warning",
            "fp16 was asked for, and no layer computes in it (fp32: 12 layers)",
        ),
        (
            BuildFacts(wanted_provider="TensorrtExecutionProvider", providers=("CPUExecutionProvider",)),
            "provider-fallback",
            "error",
            "runs on CPUExecutionProvider",
        ),
    ],
)
def test_a_silent_fault_is_found(facts: BuildFacts, rule: str, severity: str, said: str) -> None:
    (found,) = silent_findings(facts)

    assert (found.rule, found.severity) == (f"silent.{rule}", severity)
    assert said in found.what
    assert found.remedy
