"""A/B: two engines measured in turn."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_trtgray.timing.gate import Run, Session, compare

LAYERS = [f"/block{i // 5}/layer{i}/Conv" for i in range(30)]
BASE = np.geomspace(2, 100, 30)


def pairs(
    factor: np.ndarray | float = 1.0, *, count: int = 4, seed: int = 0, wobble: float = 0.1
) -> tuple[list[Run], list[Run]]:
    """Interleaved sessions on a machine whose speed changes by ``wobble`` from pair to pair."""
    rng = np.random.Generator(np.random.PCG64(seed))
    runs: tuple[list[Run], list[Run]] = ([], [])
    for _ in range(count):
        machine = np.exp(rng.normal(0, wobble))
        for side, change in enumerate((1.0, factor)):
            process = np.exp(rng.normal(0, 0.004, 30))
            samples = BASE * change * machine * process * np.exp(rng.normal(0, 0.02, (40, 30)))
            runs[side].append(Run([Session.from_samples(samples, layers=LAYERS)]))
    return runs


def one(column: int, factor: float) -> np.ndarray:
    change = np.ones(30)
    change[column] = factor
    return change


def test_the_same_engine_passes_on_a_machine_that_wobbles() -> None:
    outcomes = [compare(*pairs(seed=seed)).outcome for seed in range(30)]

    assert outcomes.count("slower") == 0
    assert outcomes.count("pass") >= 27


def test_one_layer_is_named() -> None:
    found = [compare(*pairs(one(12, 1.1), seed=seed)) for seed in range(20)]
    named = [[layer.key for layer in verdict.layers if layer.outcome == "slower"] for verdict in found]

    assert named.count([LAYERS[12]]) >= 19
    assert all(verdict.engine.outcome != "slower" for verdict in found)


def test_the_whole_engine() -> None:
    verdict = compare(*pairs(1.05, wobble=0.0))

    assert verdict.engine.outcome == "slower"
    assert [layer.key for layer in verdict.layers if layer.outcome == "slower"] == []
    assert verdict.findings[0].rule == "timing.engine-slower"
    assert (verdict.baseline_runs, verdict.sessions) == (4, 8)


def test_faster_is_said() -> None:
    assert compare(*pairs(one(20, 0.7), wobble=0.0)).outcome == "faster"


def test_another_fusion_is_compared_by_its_sum() -> None:
    a_runs, b_runs = pairs(wobble=0.0)
    fused = []
    for run in b_runs:
        times = np.exp(run.location())[np.newaxis].repeat(10, axis=0)
        times = np.column_stack([times[:, :28], times[:, 28] + times[:, 29]])
        fused.append(Run([Session.from_samples(times, layers=[*LAYERS[:28], f"{LAYERS[28]} + {LAYERS[29]}"])]))
    verdict = compare(a_runs, fused)

    assert verdict.outcome == "pass"
    assert len(verdict.layers) == 29


def test_a_fusion_that_costs_more_than_its_parts() -> None:
    a_runs, b_runs = pairs(wobble=0.0)
    fused = []
    for run in b_runs:
        times = np.exp(run.location())[np.newaxis].repeat(10, axis=0)
        times = np.column_stack([times[:, :28], 2 * (times[:, 28] + times[:, 29])])
        fused.append(Run([Session.from_samples(times, layers=[*LAYERS[:28], f"{LAYERS[28]} + {LAYERS[29]}"])]))
    verdict = compare(a_runs, fused)
    (finding,) = (finding for finding in verdict.findings if finding.rule == "timing.OPT-23")

    assert verdict.outcome == "slower"
    assert finding.what.endswith("; 1 kernel in place of 2")
    assert (finding.evidence["layers_before"], finding.evidence["layers_after"]) == (2, 1)
    assert "output of the network" in finding.remedy
    assert not any(each.rule == "timing.layer-slower" for each in verdict.findings)


@pytest.mark.parametrize(("a", "b"), [(2, 2), (4, 3), (0, 0)])
def test_too_few_or_unequal(a: int, b: int) -> None:
    runs = pairs()[0]
    with pytest.raises(ValueError, match="an A/B needs at least 3 pairs"):
        compare(runs[:a], runs[:b])
