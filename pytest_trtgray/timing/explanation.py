"""Timing findings: what a verdict means, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pytest_trtgray.engines.model import shown_nodes
from pytest_trtgray.findings import Finding, counted, some
from pytest_trtgray.structure.matching import KEY_SEPARATOR
from pytest_trtgray.timing.alignment import GROUP_SEPARATOR
from pytest_trtgray.timing.spread import MIN_RUNS
from pytest_trtgray.timing.verdict import Judgement, Verdict


@dataclass(frozen=True)
class Words:
    """What a report calls the other side, and what it advises.

    Attributes:
        other: what the run was compared with.
        machine: what to look at where everything is slower.
        intended: what to do about a change that is meant to be.
        more: how to learn more.
    """

    other: str
    machine: str
    intended: str
    more: str


BASELINE = Words(
    other="the baseline",
    machine="Compare driver, power limit and other load with the baseline's context.",
    intended="If it is intended: --trt-rebaseline starts anew.",
    more="Record more runs, best from different jobs: --update-baselines appends one.",
)
OTHER_ENGINE = Words(
    other="the other engine",
    machine="Both ran in turn on this machine: it is the engine.",
    intended="",
    more="Measure more pairs, or longer ones: trt_profiler.against(…, pairs=).",
)
OTHER_RUN = Words(
    other="the old run",
    machine="Compare driver, power limit and other load of the two runs.",
    intended="",
    more="Compare with a run that was itself judged against a baseline of three jobs or more: --update-baselines "
    "appends one.",
)
NOTABLE_MACHINE = 0.01
"""A shift of all layers that is worth a line."""
NOTABLE_LAYER = 0.005
"""Part of the layers' time from which on a new layer is worth a line."""
NOTABLE_BLIND_SPOT = 0.001


def findings_of(verdict: Verdict, recorded: int, words: Words = BASELINE) -> Iterator[Finding]:
    """All findings of a verdict, the gravest first.

    Args:
        verdict: without findings.
        recorded: runs in the baseline, of which several may be of one job.
        words: for a baseline, or for an A/B.
    """
    if verdict.engine.outcome == "slower":
        yield _slower(
            verdict.engine,
            "the whole engine",
            "timing.engine-slower",
            _sentences(_clock_text(verdict) if words is BASELINE else "", words.machine, words.intended),
        )
    for module in verdict.modules:
        yield _slower(
            module,
            f"module {module.key}",
            "timing.module-slower",
            _sentences(
                "Several of its layers together; look at what changed in this part of the model.", words.intended
            ),
        )
    for layer in sorted(verdict.layers, key=lambda judged: -judged.change):
        if layer.outcome == "slower" and layer.fused[0] > layer.fused[1]:
            yield _bad_fusion(layer, words)
        elif layer.outcome == "slower":
            yield _slower(
                layer,
                readable(layer.key),
                "timing.layer-slower",
                _sentences(
                    "Look at what changed in these ONNX nodes and at the layer's kernel and precision (the `structure` "
                    "test).",
                    words.intended,
                ),
            )
    yield from _new_layers(verdict, words)
    yield from _doubts(verdict, recorded, words)
    yield from _machine(verdict)
    yield from _faster(verdict, words)


def readable(key: str) -> str:
    """A layer's key as a report shows it."""
    parts = key.split(GROUP_SEPARATOR)
    if len(parts) > 1:
        return f"{readable(parts[0])} and {counted(len(parts) - 1, 'layer')} that share its nodes"
    return shown_nodes(key.split(KEY_SEPARATOR))


def names(keys: Sequence[str]) -> str:
    """Several keys, shortened."""
    return some([readable(key) for key in keys])


def _slower(judgement: Judgement, name: str, rule: str, remedy: str) -> Finding:
    return Finding(
        "error",
        name,
        f"{name}: {judgement.before_us:.1f} -> {judgement.after_us:.1f} us, {judgement.change:+.1%} "
        f"[{judgement.low:+.1%}, {judgement.high:+.1%}]",
        rule,
        {
            "before_us": judgement.before_us,
            "after_us": judgement.after_us,
            "change_percent": round(judgement.change * 100, 2),
            "p_value": judgement.p_value,
        },
        remedy,
    )


def _bad_fusion(layer: Judgement, words: Words) -> Finding:
    """Fewer kernels that take longer than the more that they replace: OPT-23 in ``docs/structure.md``."""
    before, after = layer.fused
    found = _slower(
        layer,
        readable(layer.key),
        "timing.OPT-23",
        _sentences(
            "The fusion costs more than it saves. Report it to NVIDIA; until then break it by making the tensor "
            "between the nodes an output of the network, or stay with the TensorRT that does not fuse them.",
            words.intended,
        ),
    )
    parts = f"; {counted(after, 'kernel')} in place of {before}"
    return replace(
        found, what=found.what + parts, evidence={**found.evidence, "layers_before": before, "layers_after": after}
    )


def _new_layers(verdict: Verdict, words: Words) -> Iterator[Finding]:
    """Layers without a counterpart: nothing to compare with, but part of the engine's time."""
    total = sum(layer.after_us or 0.0 for layer in verdict.layers) or 1.0
    new = [layer for layer in verdict.layers if layer.outcome == "new"]
    notable = [layer for layer in new if (layer.after_us or 0.0) / total >= NOTABLE_LAYER]
    for layer in sorted(notable, key=lambda judged: -(judged.after_us or 0.0)):
        time_us = layer.after_us or 0.0
        yield Finding(
            "warning",
            readable(layer.key),
            f"{readable(layer.key)} is new: {time_us:.1f} us, {time_us / total:.1%} of the layers' time",
            "timing.layer-new",
            {"after_us": layer.after_us},
            _sentences(
                f"{words.other.capitalize()} has none; the `structure` test says where it comes from.", words.intended
            ),
        )


def _doubts(verdict: Verdict, recorded: int, words: Words) -> Iterator[Finding]:
    if verdict.outcome == "inconclusive":
        yield Finding(
            "warning",
            "engine",
            f"timing inconclusive: {verdict.reason}",
            "timing.inconclusive",
            {"change_percent": round(verdict.engine.change * 100, 2)},
            words.more if verdict.reason.startswith(("the spread", "the baseline")) else "Run it on a quiet machine.",
        )
    if verdict.baseline_runs < MIN_RUNS and not verdict.reason.startswith("the baseline"):
        jobs = counted(verdict.baseline_runs, "job")
        what = f"{counted(recorded, 'run')} of {jobs}" if recorded > verdict.baseline_runs else jobs
        yield Finding(
            "advice",
            "engine",
            f"the baseline has {what}, {MIN_RUNS} are needed to know how much runs differ: until then nothing fails "
            "that takes less than twice the time",
            "timing.provisional",
            {"baseline_runs": recorded, "baseline_jobs": verdict.baseline_runs},
            words.more,
        )
    if verdict.baseline_runs < MIN_RUNS:
        return
    hidden = [layer for layer in verdict.layers if layer.outcome == "inconclusive"]
    worst = max(hidden, key=lambda layer: layer.at_risk, default=None)
    if verdict.outcome == "pass" and worst is not None and worst.at_risk >= NOTABLE_BLIND_SPOT:
        yield Finding(
            "advice",
            readable(worst.key),
            f"{counted(len(hidden), 'layer')} of {len(verdict.layers)} vary too much to be judged; what goes unseen "
            f"costs the engine at most {worst.at_risk:.1%} each ({readable(worst.key)}, up to {worst.high:+.0%})",
            "timing.blind-spot",
            {"layers": len(hidden), "at_risk_percent": round(worst.at_risk * 100, 3)},
            words.more,
        )


def _machine(verdict: Verdict) -> Iterator[Finding]:
    """Everything slower, but no fault of the engine: shown, never failing."""
    explained = verdict.machine_explained
    if explained is not None and abs(explained) >= NOTABLE_MACHINE and verdict.engine.outcome != "slower":
        yield Finding(
            "advice",
            "machine",
            f"all layers {verdict.machine:+.1%}, of which the clock explains {explained:+.1%}: the machine, "
            "not the engine",
            "timing.machine",
            {"shift_percent": round(verdict.machine * 100, 2), "explained_percent": round(explained * 100, 2)},
            "Clocks that drift between jobs cost resolution; some runners can lock them.",
        )


def _faster(verdict: Verdict, words: Words) -> Iterator[Finding]:
    faster = [layer for layer in verdict.layers if layer.outcome == "faster"]
    if verdict.engine.outcome != "faster" and not faster:
        return
    engine = verdict.engine
    if engine.outcome == "faster":
        what = f"the engine is {-engine.change:.1%} faster than {words.other}"
    else:
        best = min(faster, key=lambda layer: layer.change)
        count = counted(len(faster), "layer")
        what = f"{count} faster than {words.other}, {readable(best.key)} by {-best.change:.1%}"
    if words is not BASELINE:
        yield Finding("advice", "engine", what, "timing.faster", {"after_us": engine.after_us})
        return
    yield Finding(
        "advice",
        "engine",
        f"{what}, which is stale",
        "timing.stale-baseline",
        {"before_us": engine.before_us, "after_us": engine.after_us},
        "Record it, or a later slowdown back to the old time goes unseen: --trt-rebaseline.",
    )


def _sentences(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _clock_text(verdict: Verdict) -> str:
    if verdict.machine_explained is None:
        return "The clock was not read, so a slower machine looks the same."
    return f"All layers moved by {verdict.machine:+.1%}, of which the clock explains {verdict.machine_explained:+.1%}."
