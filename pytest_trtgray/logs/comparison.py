"""Two logs of one model, before and after: kernels that changed, an upgrade that made it slower, layers off the DLA."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pytest_trtgray.findings import Finding, counted, some
from pytest_trtgray.logs.events import Event
from pytest_trtgray.logs.log import Log

SLOWDOWN = 0.05
"""An upgrade that makes the GPU's time longer by more is worth a word; a choice, no source gives a limit."""

_COMPUTE = ("GPU Compute Time", "GPU Compute")


def tactics_of(events: Iterable[Event]) -> dict[str, str]:
    """The kernel of each layer, by the layer's name.

    From the list of layers that a build prints at its end; without one, from the choices of the autotuning, where a
    layer has one for each combination of formats.
    """
    listed: dict[str, str] = {}
    chosen: dict[str, str] = {}
    for event in events:
        fields = event.fields
        if event.kind == "layer_info":
            tactic = fields.get("tactic_name") or fields.get("tactic")
            if tactic:
                listed[str(fields["name"])] = str(tactic)
        elif event.kind == "chosen_tactic" and fields.get("node"):
            chosen[f"{fields['node']} ({fields.get('formats', '')})"] = f"{fields['runner']} {fields['id']}"
    return listed or chosen


def tactic_findings(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Finding, ...]:
    """Kernels that differ between two builds of one model (optimisation rule OPT-15).

    Args:
        before: the kernel of each layer, from :func:`tactics_of` or a structure snapshot.
        after: the same of the later build.

    Returns:
        one finding, ``log.OPT-15``, or nothing. Layers that only one of the builds has are no change of kernel.
    """
    common = [layer for layer in before if layer in after]
    changed = [layer for layer in common if before[layer] != after[layer]]
    if not changed:
        return ()
    shown = "; ".join(f"{layer}: {before[layer]} -> {after[layer]}" for layer in changed[:3])
    return (
        Finding(
            "advice",
            some(changed),
            f"{len(changed)} of {counted(len(common), 'layer')} run another kernel than in the build before: {shown}",
            "log.OPT-15",
            {
                "changed": len(changed),
                "compared": len(common),
                "sources": "NVIDIA/TensorRT#4730; NVIDIA/TensorRT#4798; NVIDIA-AI-IOT/torch2trt#832",
            },
            "Autotuning measures, and noise decides between kernels that are equally fast. Keep a timing cache, raise "
            "avg_timing_iterations, fix the optimisation level; outputs are still not equal bit by bit.",
        ),
    )


def compare_logs(before: Log, after: Log) -> tuple[Finding, ...]:
    """What changed from one log of a model to a later one.

    Returns:
        ``log.OPT-15`` (kernels), ``log.OPT-24`` (slower with another version of TensorRT, from trtexec's summaries) and
        ``log.OPT-27`` (more layers left the DLA), as far as the logs tell.
    """
    return (
        *tactic_findings(tactics_of(before.events), tactics_of(after.events)),
        *_slower(before, after),
        *_off_the_dla(before, after),
    )


def _slower(before: Log, after: Log) -> tuple[Finding, ...]:
    was, now = _compute_ms(before.events), _compute_ms(after.events)
    if not (was and now and before.version and after.version) or before.version == after.version:
        return ()
    change = now / was - 1
    if change <= SLOWDOWN:
        return ()
    return (
        Finding(
            "warning",
            "GPU Compute Time",
            f"{change:.0%} slower with {after.product} {after.version} than with {before.version}: "
            f"median {was:g} ms -> {now:g} ms",
            "log.OPT-24",
            {
                "before_ms": was,
                "after_ms": now,
                "change_percent": round(100 * change, 2),
                "sources": "NVIDIA/TensorRT#3896; NVIDIA/TensorRT#3529; NVIDIA/TensorRT#3269",
            },
            "Measure both on this GPU in one sitting. Older GPUs have lost speed with upgrades: pin the version for a "
            "generation of GPUs, and report it with both verbose logs.",
        ),
    )


def _compute_ms(events: Iterable[Event]) -> float | None:
    for event in events:
        if event.kind == "perf" and event.fields.get("metric") in _COMPUTE and event.fields.get("median"):
            return float(event.fields["median"])
    return None


def _off_the_dla(before: Log, after: Log) -> tuple[Finding, ...]:
    was, now = (sum(event.kind == "dla_fallback" for event in log.events) for log in (before, after))
    if now <= was:
        return ()
    return (
        Finding(
            "warning",
            "DLA",
            f"{counted(now, 'layer')} left the DLA for the GPU, {was} before",
            "log.OPT-27",
            {"before": was, "after": now, "sources": "NVIDIA-AI-IOT/jetson_dla_tutorial#3; NVIDIA/TensorRT#2318"},
            "Rewrite the new ones: every hop costs copies.",
        ),
    )
