"""What a check has found in full, as builtins: the rows behind tables and charts of reports.

A summary travels with every test (:mod:`pytest_trtgray.reporting.results`). Details may be megabytes, so they are made
only where a report asks for them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_trtgray.engines.peaks import peak_of
from pytest_trtgray.logs import redaction
from pytest_trtgray.logs.records import PROBLEMS
from pytest_trtgray.logs.spans import spans_of
from pytest_trtgray.reporting.headline import changed_layers, largest_layers
from pytest_trtgray.timing.alignment import GROUP_SEPARATOR
from pytest_trtgray.timing.grouping import module_of
from pytest_trtgray.timing.latency import Latency
from pytest_trtgray.timing.summary import Run

if TYPE_CHECKING:
    from pytest_trtgray.accuracy.compare import Comparison, OutputComparison
    from pytest_trtgray.accuracy.localise import Localisation
    from pytest_trtgray.accuracy.quantisation import Quantisation
    from pytest_trtgray.accuracy.quantised_tensor import QuantisedTensor
    from pytest_trtgray.engines.model import Layer
    from pytest_trtgray.logs.log import Log
    from pytest_trtgray.structure.snapshot import Snapshot
    from pytest_trtgray.timing.beside import Beside
    from pytest_trtgray.timing.gate import Baseline, Session, Verdict
    from pytest_trtgray.timing.profile import ModuleTime, Profile
    from pytest_trtgray.timing.roofline import Roofline
    from pytest_trtgray.timing.verdict import Judgement

MAX_MODULES = 100
"""Rows of modules, those that take longest."""
MEASURED = "measured"
"""Among the details of times: the sessions, and the runs that they were judged against, for what judges again."""
TOP_LAYERS = 5
"""Layers that a summary names."""
MAX_MESSAGES = 1500
"""Of a log; a report is to stay small."""
MAX_CHARACTERS = 400
"""Of one message."""
DECADES = [0.0, *(10.0**exponent for exponent in range(-12, 5))]
"""Absolute errors from each of these to the next are one bar of a report's chart, the same for all outputs."""


def timing_details(
    profile: Profile,
    verdict: Verdict | None = None,
    baseline: Baseline | None = None,
    further: Sequence[Session] = (),
) -> dict[str, Any]:
    """Every layer's time, the verdict on it, and the runs it was judged against; times in microseconds.

    Args:
        profile: what was measured.
        verdict: on it; ``None`` for a run that was recorded.
        baseline: that it was judged against.
        further: sessions of a second look.
    """
    run = profile.run
    latency = Latency.of(profile.samples)
    whole = Run((*run.sessions, *further), run.context)
    return {
        "shapes": {name: list(shape) for name, shape in profile.shapes.items()},
        "method": dict(profile.method),
        "sessions": verdict.sessions if verdict else len(run.sessions),
        "iterations": run.iterations,
        "disturbed": run.disturbed,
        "context": dict(run.context),
        "clock_mhz": run.clock_mhz(),
        "latency": latency.to_dict() if latency else None,
        "error": run.engine_error(),
        "engine": judgement_row(verdict.engine) if verdict else {"us": profile.total_us},
        "layers": _timed_layers(profile, verdict),
        "modules": [judgement_row(module) for module in verdict.modules] if verdict else [],
        "module_times": [_module_row(module) for module in profile.modules()[:MAX_MODULES]],
        "peak": _peak_row(profile),
        "machine": verdict.machine if verdict else None,
        "machine_explained": verdict.machine_explained if verdict else None,
        "reason": verdict.reason if verdict else "",
        "overheads": profile.overheads.context() if profile.overheads else {},
        "history": [
            {
                "us": math.exp(kept.engine_log_us),
                "error": kept.engine_log_se,
                "sessions": kept.sessions,
                "clock_mhz": kept.clock_mhz,
                "context": dict(kept.context),
            }
            for kept in (baseline.runs if baseline else ())
        ],
        MEASURED: {"run": whole.to_dict(), "baseline": baseline.to_dict() if baseline else None},
    }


def top_layers(profile: Profile, verdict: Verdict | None = None) -> dict[str, list[dict[str, Any]]]:
    """The few layers that a summary names: those that changed most, and those that take longest.

    Args:
        profile: what was measured.
        verdict: on it; without one nothing has changed.
    """
    fields = ("key", "module", "kind", "outcome", "before_us", "us", "change", "share")
    layers = {"layers": _named_layers(profile, verdict)}
    return {
        name: [{field: row[field] for field in fields if field in row} for row in rows[:TOP_LAYERS]]
        for name, rows in (("by_change", changed_layers(layers)), ("by_share", largest_layers(layers)))
    }


def _peak_row(profile: Profile) -> dict[str, Any] | None:
    """What the device can do at most, for the roofs of the roofline chart; ``None`` where that is not known."""
    peak = peak_of(profile.engine.device.name) if profile.engine.device else None
    if peak is None:
        return None
    return {"bytes_per_s": peak.bandwidth, "flops_per_s": {"vector": peak.vector, **peak.tensor}, "source": peak.source}


def _module_row(module: ModuleTime) -> dict[str, Any]:
    return {
        "module": module.pattern,
        "us": module.us,
        "share": module.share,
        "layers": len(module.layers),
        "weights_bytes": module.weights_bytes,
        "activations_bytes": module.activations_bytes,
        "flops": module.flops,
        "bound": module.bound,
    }


def beside_details(found: Beside) -> dict[str, Any]:
    """Every module's time in PyTorch and in the engine, microseconds."""
    return {
        "torch_us": found.torch.total_us,
        "engine_us": found.engine_us,
        "gain": found.gain,
        "matched": found.matched,
        "unnamed_us": found.unnamed_us,
        "unknown": list(found.unknown),
        "hooks": found.torch.hooks,
        "device": found.torch.device,
        "iterations": found.torch.iterations,
        "modules": [{**vars(row), "gain": row.gain, "own_gain": row.own_gain} for row in found.modules],
    }


def structure_details(snapshot: Snapshot) -> dict[str, Any]:
    """Layers with their tensors, inputs, outputs and memory."""
    return snapshot.to_dict()


def outputs_details(comparison: Comparison) -> dict[str, Any]:
    """Every output's errors."""
    return {"outputs": [_output_row(output) for output in comparison.outputs]}


def log_details(log: Log) -> dict[str, Any]:
    """The messages of a build, and the phases it went through; without what is private.

    Of a long log all problems are kept (up to :data:`MAX_MESSAGES`), then as many of the other messages as there is
    room for, evenly from the first to the last.
    """
    redact = redaction.current()
    problems = [index for index, record in enumerate(log.records) if record.severity in PROBLEMS][:MAX_MESSAGES]
    others = [index for index, record in enumerate(log.records) if record.severity not in PROBLEMS]
    step = -(-len(others) // max(MAX_MESSAGES - len(problems), 1))
    kept = sorted((*problems, *(others[::step] if len(problems) < MAX_MESSAGES else ())))
    records = [redact.record(log.records[index]) for index in kept]
    return {
        "producer": log.producer,
        "messages": log.messages,
        "left_out": len(log.records) - len(records),
        "phases": [vars(span) for span in spans_of(log.records)],
        "records": [
            {
                "severity": record.severity,
                "phase": record.phase,
                "time_s": record.time_s,
                "message": _shortened(record.message),
            }
            for record in records
        ],
    }


def _shortened(message: str) -> str:
    text = message.strip()
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}..."


def scales_details(found: Quantisation) -> dict[str, Any]:
    """Every quantised tensor's numbers; what is not known or infinite is left out of its row."""
    return {
        "samples": found.samples,
        "left_out": dict(found.left_out),
        "tensors": [_tensor_row(tensor) for tensor in found.tensors],
    }


def _tensor_row(tensor: QuantisedTensor) -> dict[str, Any]:
    row = {**vars(tensor), "readers": [reader.node for reader in tensor.readers]}
    row["drift"] = _finite(vars(tensor.drift)) if tensor.drift else None
    return _finite(row)


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not isinstance(value, float) or math.isfinite(value)}


def localisation_details(found: Localisation) -> dict[str, Any]:
    """The error of every tensor that could be compared, along the depth, and how the values were taken."""
    rows = [{**vars(error), "nodes": list(error.nodes), "sources": list(error.sources)} for error in found.tensors]
    return {
        "tensors": rows,
        "first": found.first.tensor if found.first else None,
        "culprit": found.culprit.tensor if found.culprit else None,
        "cause": found.cause,
        "how": found.how,
        "fusions": found.fusions,
        "reproduced": found.reproduced,
        "complete": found.complete,
    }


def _timed_layers(profile: Profile, verdict: Verdict | None) -> list[dict[str, Any]]:
    """The rows of :func:`_named_layers` with what their layers compute and move."""
    roofs = dict(zip(profile.run.layers, profile.rooflines, strict=True))
    return [
        {**row, **_roof_row([roofs[key] for key in _keys_of(row["key"], roofs)])}
        for row in _named_layers(profile, verdict)
    ]


def _keys_of(key: str, known: Mapping[str, Any]) -> list[str]:
    """The layers behind a unit of the verdict."""
    return [each for each in ([key] if key in known else key.split(GROUP_SEPARATOR)) if each in known]


def _named_layers(profile: Profile, verdict: Verdict | None) -> list[dict[str, Any]]:
    """One row a unit of the verdict: a layer, or layers that are fused differently than in the baseline."""
    timed = dict(zip(profile.run.layers, profile.layers, strict=True))
    if verdict is None:
        return [
            {"key": key, "us": layer.us, "share": layer.share, **_layer_row([layer.layer])}
            for key, layer in timed.items()
        ]
    total = sum(judgement.after_us or 0.0 for judgement in verdict.layers) or 1.0  # a second look measures more
    rows = []
    for judgement in verdict.layers:
        members = [timed[key].layer for key in _keys_of(judgement.key, timed)]
        share = (judgement.after_us or 0.0) / total
        rows.append({**judgement_row(judgement), "share": share, **_layer_row(members)})
    return rows


def _roof_row(roofs: Sequence[Roofline]) -> dict[str, Any]:
    """Operations and bytes of a row's layers together; what is not known of one of them is left out."""
    sums: Mapping[str, Sequence[float | None]] = {
        "flops": [roof.flops for roof in roofs],
        "bytes": [roof.bytes_moved for roof in roofs],
        "roof_us": [roof.roof_us for roof in roofs],
    }
    row: dict[str, Any] = {
        name: sum(value for value in values if value is not None)
        for name, values in sums.items()
        if values and None not in values
    }
    bounds = {roof.bound for roof in roofs}
    return row | ({"bound": bounds.pop()} if len(bounds) == 1 and bounds != {"unknown"} else {})


def _layer_row(layers: Sequence[Layer]) -> dict[str, Any]:
    return {
        "names": [layer.name for layer in layers],
        "nodes": sorted({node for layer in layers for node in layer.onnx_nodes}),
        "kind": " + ".join(dict.fromkeys(layer.kind for layer in layers)),
        "precision": " + ".join(dict.fromkeys(layer.precision for layer in layers if layer.precision)),
        "module": module_of(layers[0]) if layers else "",
    }


def judgement_row(judgement: Judgement) -> dict[str, Any]:
    """A verdict on a layer, a module or the engine."""
    return {
        "key": judgement.key,
        "outcome": judgement.outcome,
        "before_us": judgement.before_us,
        "us": judgement.after_us,
        "change": judgement.change,
        "low": judgement.low,
        "high": judgement.high,
        "p_value": judgement.p_value,
        "at_risk": judgement.at_risk,
    }


def _output_row(output: OutputComparison) -> Mapping[str, Any]:
    metrics = output.metrics
    return {
        "name": output.name,
        "elements": output.elements,
        "wrong": output.wrong,
        "non_finite": output.nan,
        "tolerance": str(output.tolerance),
        "max_abs": None,
        "rms_wanted": None,
        "relative_l2": None,
        **(metrics.to_dict() if metrics else {}),
        "rows": [dataclasses.asdict(row) for row in metrics.rows] if metrics else [],
        "histogram": {"edges": DECADES, "counts": metrics.abs_errors.between(DECADES)} if metrics else None,
        "map": output.error_map.to_dict() if output.error_map else None,
        "worst": [
            {
                "index": list(worst.index),
                "got": _value(worst.got),
                "wanted": _value(worst.wanted),
                "allowed": worst.allowed,
            }
            for worst in output.worst
        ],
    }


def _value(number: float) -> float | str:
    """A value as it is; JSON has no NaN and no infinities."""
    return number if math.isfinite(number) else repr(number)
