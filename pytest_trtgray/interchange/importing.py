"""Files of other tools, put together into a run document as ``--trt-json`` writes it.

All files of one call are of one engine. Several of one kind are sessions of one run: trtexec started three times is
three sessions. What a file does not tell stays unknown: a profile of trtexec has no spread, so its layers have no
error, and nothing that compares documents will call one of them slower.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.accuracy.compare import Comparison, compare_many
from pytest_trtgray.accuracy.metrics import finite as finite_or_none
from pytest_trtgray.engines.layer_listing import as_listed, layers_from_json
from pytest_trtgray.engines.loading import LoadOptions, load_engine
from pytest_trtgray.engines.model import DeviceInfo, EngineInfo, Layer
from pytest_trtgray.engines.onnx_model import open_model
from pytest_trtgray.errors import InterchangeError
from pytest_trtgray.findings import Finding, counted, errors, some
from pytest_trtgray.interchange.onnxruntime_profile import OnnxRuntimeProfile, read_onnxruntime_profile
from pytest_trtgray.interchange.polygraphy_results import RunnerResults, read_run_results
from pytest_trtgray.interchange.recognition import Kind, kind_of
from pytest_trtgray.interchange.text import read_text
from pytest_trtgray.interchange.trtexec import ProfileExport, TimesExport, read_outputs, read_profile, read_times
from pytest_trtgray.reporting.details import outputs_details, structure_details, timing_details
from pytest_trtgray.reporting.document import make_document
from pytest_trtgray.reporting.results import CheckResult
from pytest_trtgray.structure.matching import layer_keys
from pytest_trtgray.structure.reading import snapshot_in
from pytest_trtgray.structure.snapshot import Snapshot, with_model
from pytest_trtgray.timing.profile import Profile, layer_times
from pytest_trtgray.timing.samples import us_text
from pytest_trtgray.timing.summary import FLOOR_US, Run, Session

TRTEXEC = "trtexec"
REFERENCE_RUNNER = "onnxrt"
"""Polygraphy's runner of ONNX Runtime: what outputs are held against where nothing else is said."""
_TOOLS = re.compile(
    r"([._-](engine|plan|onnx|profile|profiling|times?|timing|trace|layers?|layer_?info|graph|outputs?|results?|json|gz"
    r"|txt|log)\d*)+$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Labels:
    """What the files do not tell.

    Attributes:
        engine: its name; by default what the files' names begin with.
        runtime: with its version, such as ``tensorrt 10.13``.
        device: the GPU.
        clock_mhz: the SM clock, where it was locked: without it nobody can say that a machine was not slower.
        onnx: the model behind the engine.
        reference: part of the name of the Polygraphy runner that is right.
        rtol: tolerance of outputs; without ``rtol`` and ``atol``, that of the engine's precision.
        atol: absolute tolerance.
        method: how times were taken, such as ``cuda_graph: yes``; times of other methods are not compared.
        context: shown with the run, such as ``commit``.
    """

    engine: str = ""
    runtime: str = ""
    device: str = ""
    clock_mhz: float | None = None
    onnx: Path | None = None
    reference: str = ""
    rtol: float | None = None
    atol: float | None = None
    method: Mapping[str, str] = field(default_factory=dict)
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Parts:
    """What was found in the files."""

    profiles: list[ProfileExport] = field(default_factory=list)
    times: list[TimesExport] = field(default_factory=list)
    kernels: list[OnnxRuntimeProfile] = field(default_factory=list)
    runners: list[RunnerResults] = field(default_factory=list)
    snapshot: Snapshot | None = None
    files: list[dict[str, Any]] = field(default_factory=list)


def import_files(paths: Sequence[Path], labels: Labels) -> dict[str, Any]:
    """A run document of one engine.

    Args:
        paths: in any order; what each is, its content tells. ``-`` is standard input.
        labels: what they do not tell.

    Raises:
        InterchangeError: a file cannot be read, or they do not go together.
        ModelError: a list of layers, or the model, cannot be read.
    """
    parts = _Parts()
    for path in paths:
        _read(path, parts)
    labels = replace(labels, engine=labels.engine or _engine_name(paths))
    if parts.snapshot and labels.onnx:
        parts.snapshot = with_model(parts.snapshot, open_model(labels.onnx))
    checks = [
        *_trtexec_timing(parts, labels),
        *_onnxruntime_timing(parts, labels),
        *_polygraphy(parts, labels),
        *_structure(parts, labels),
    ]
    return {**make_document(checks), "imported": parts.files}


def _read(path: Path, parts: _Parts) -> None:
    text = read_text(path)
    kind = kind_of(path, text)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    if any(known["sha256"] == digest for known in parts.files):
        raise InterchangeError(path, "is given twice", "One session counts once.")
    parts.files.append({"file": path.name, "kind": kind, "sha256": digest})
    _take(path, kind, text, parts)


def _take(path: Path, kind: Kind, text: str, parts: _Parts) -> None:
    if kind == "profile":
        parts.profiles.append(read_profile(path, text))
    elif kind == "times":
        parts.times.append(read_times(path, text))
    elif kind == "outputs":
        parts.runners.append(RunnerResults(TRTEXEC, (read_outputs(path, text),), (None,)))
    elif kind == "onnxruntime":
        parts.kernels.append(read_onnxruntime_profile(path, text))
    elif kind == "polygraphy":
        parts.runners += read_run_results(path, text)
    elif kind == "layers":
        if parts.snapshot is not None:
            raise InterchangeError(path, "is a second list of layers", "Import the files of one engine at a time.")
        parts.snapshot = snapshot_in(path, text)
    else:
        raise InterchangeError(path, "is a run document already", "trtgray report, export and diff take it as it is.")


def _engine_name(paths: Sequence[Path]) -> str:
    """What the first file's name begins with."""
    name = paths[0].name
    return _TOOLS.sub("", name) or name.partition(".")[0] or "engine"


# trtexec ------------------------------------------------------------------------------------------------------------


def _trtexec_timing(parts: _Parts, labels: Labels) -> list[CheckResult]:
    if not parts.profiles and not parts.times:
        return []
    profiles, times = parts.profiles, parts.times
    if len(profiles) > 1 and len(times) > 1 and len(profiles) != len(times):
        raise InterchangeError(
            labels.engine,
            f"{len(profiles)} profiles and {len(times)} exports of times do not make pairs",
            "Give one of each for every time that trtexec was started, or only one profile.",
        )
    layers, findings = _layers(profiles, parts.snapshot, labels)
    keys = tuple(layer_keys(layers))
    sessions = _sessions(profiles, times, keys, labels)
    method = {
        **({"layers": "trtexec --exportProfile"} if profiles else {}),
        "engine": "trtexec --exportTimes" if times else "sum of layers",
        **labels.method,
    }
    findings += [finding for profile in profiles for finding in profile.findings]
    findings += [finding for each in times for finding in each.findings]
    row = _timing(labels, "tensorrt", Run(sessions, _context(parts, labels)), layers, method, findings)
    medians = dict(zip(keys, (layer.median_ms for layer in profiles[0].layers), strict=True)) if profiles else {}
    for layer in row.details["layers"]:
        median = medians.get(layer["key"]) if len(profiles) == 1 else None
        layer["median_us"] = None if median is None else median * 1e3
    row.details["overheads"] = _overheads(times)
    return [row]


def _layers(
    profiles: Sequence[ProfileExport], snapshot: Snapshot | None, labels: Labels
) -> tuple[tuple[Layer, ...], list[Finding]]:
    """The layer behind each entry of a profile: the first of a name in the profile is the first in the list."""
    if not profiles:
        return (), []
    names = [layer.name for layer in profiles[0].layers]
    if any([layer.name for layer in profile.layers] != names for profile in profiles):
        raise InterchangeError(labels.engine, "the profiles list different layers", "Import one engine at a time.")
    listed: dict[str, list[Layer]] = defaultdict(list)
    for layer in snapshot.layers if snapshot else ():
        listed[layer.name].append(layer)
    found = [_taken(listed, name) for name in names]
    unlisted = [name for name, layer in zip(names, found, strict=True) if layer is None]
    if snapshot and len(unlisted) == len(names):
        raise InterchangeError(
            labels.engine,
            "no layer of the profile is in the list of layers",
            "Import the files of one engine at a time.",
        )
    findings = []
    if snapshot and unlisted:
        what = f"{counted(len(unlisted), 'layer')} of the profile are not in the list of layers: {some(unlisted)}"
        remedy = "Export both with one start of trtexec."
        findings.append(Finding("warning", labels.engine, what, "interchange.unlisted", remedy=remedy))
    if all(name.isdecimal() for name in names):
        findings.append(
            Finding(
                "warning",
                labels.engine,
                "the layers have numbers for names: they cannot be told from those of another engine",
                "interchange.no-names",
                remedy="Build with --profilingVerbosity=detailed.",
            )
        )
    by_name = layers_from_json({"Layers": names})
    return tuple(layer or plain for layer, plain in zip(found, by_name, strict=True)), findings


def _taken(listed: Mapping[str, list[Layer]], name: str) -> Layer | None:
    waiting = listed.get(name) or listed.get(as_listed(name))
    return waiting.pop(0) if waiting else None


def _sessions(
    profiles: Sequence[ProfileExport], times: Sequence[TimesExport], keys: tuple[str, ...], labels: Labels
) -> list[Session]:
    location = np.array([[_log_us(layer.mean_ms) for layer in profile.layers] for profile in profiles])
    # one start of trtexec says nothing of the next; several do
    error = location.std(axis=0, ddof=1) if len(profiles) > 1 else np.full(len(keys), math.nan)
    sums = np.array([_log_sum(row) for row in location])
    sum_error = float(sums.std(ddof=1)) if len(profiles) > 1 else math.nan
    sessions = []
    for turn in range(max(len(profiles), len(times))):
        row = location[min(turn, len(profiles) - 1)] if profiles else np.empty(0)
        whole = _engine_session(times[turn if len(times) > 1 else 0]) if times else None
        sessions.append(
            Session(
                layers=keys,
                log_us=tuple(row.tolist()),
                log_se=tuple(error.tolist()),
                engine_log_us=whole.engine_log_us if whole else float(sums[turn]),
                engine_log_se=whole.engine_log_se if whole else sum_error,
                iterations=whole.iterations if whole else profiles[turn].count or 1,
                clock_mhz=labels.clock_mhz,
                disturbed=whole.disturbed if whole else "",
            )
        )
    return sessions


def _engine_session(times: TimesExport) -> Session:
    no_layers = np.empty((len(times.compute_us), 0))
    return Session.from_samples(no_layers, times.compute_us, layers=(), disturbed=times.disturbed)


def _log_us(milliseconds: float | None) -> float:
    return math.nan if milliseconds is None else math.log(max(milliseconds * 1e3, FLOOR_US))


def _log_sum(log_us: NDArray[np.float64]) -> float:
    return float(np.log(np.exp(log_us).sum()))


def _overheads(times: Sequence[TimesExport]) -> dict[str, str]:
    """Medians over all inferences, as the house writes what is not part of any verdict."""
    found = {}
    for name in ("upload_us", "download_us", "enqueue_us"):
        values = np.concatenate([getattr(each, name) for each in times]) if times else np.empty(0)
        if values.size:
            found[name] = f"{np.median(values):.1f}"
    return found


# ONNX Runtime -------------------------------------------------------------------------------------------------------


def _onnxruntime_timing(parts: _Parts, labels: Labels) -> list[CheckResult]:
    if not parts.kernels:
        return []
    first = parts.kernels[0]
    names = [layer.name for layer in first.layers]
    if any([layer.name for layer in each.layers] != names for each in parts.kernels):
        raise InterchangeError(labels.engine, "the profiles list different nodes", "Import one model at a time.")
    layers, findings = first.layers, []
    if labels.onnx:
        known = {layer.name: layer for layer in load_engine(labels.onnx, LoadOptions(runtime="onnxruntime")).layers}
        unknown = [name for name in names if name not in known]
        layers = tuple(known.get(layer.name, layer) for layer in layers)
        if unknown:
            what = f"{counted(len(unknown), 'node')} of the profile are not in the optimised model: {some(unknown)}"
            remedy = "Give the model that was profiled, and the ONNX Runtime that profiled it."
            findings.append(Finding("warning", labels.engine, what, "interchange.unlisted", remedy=remedy))
    sessions = [
        replace(Session.from_samples(each.layer_us, each.latency_us, layers=layers), clock_mhz=labels.clock_mhz)
        for each in parts.kernels
    ]
    method = {
        "layers": "onnxruntime-profiler",
        "engine": "onnxruntime-profiler model_run",
        "provider": first.provider,
        **labels.method,
    }
    return [_timing(labels, "onnxruntime", Run(sessions, _context(parts, labels)), layers, method, findings)]


# Polygraphy ---------------------------------------------------------------------------------------------------------


def _polygraphy(parts: _Parts, labels: Labels) -> list[CheckResult]:
    runners = parts.runners
    reference = _reference(runners, labels)
    tested = [runner for runner in runners if runner is not reference]
    rows = []
    for runner in runners:
        name = labels.engine if len(tested) == 1 and runner is tested[0] else runner.name
        called = replace(labels, engine=name)
        rows += _runner_timing(runner, parts, called)
        if reference is None:
            rows.append(_values(runner, called))
        elif runner is not reference:
            rows.append(_outputs(runner, reference, parts, called))
    return rows


def _reference(runners: Sequence[RunnerResults], labels: Labels) -> RunnerResults | None:
    if labels.reference:
        found = [runner for runner in runners if labels.reference in runner.name]
        if len(found) != 1:
            there = ", ".join(runner.name for runner in runners) or "none"
            what = f"{counted(len(found), 'runner')} are called so; there are: {there}"
            raise InterchangeError(f"--reference {labels.reference}", what, "Name one of them.")
        return found[0]
    found = [runner for runner in runners if runner.name.startswith(REFERENCE_RUNNER)]
    return found[0] if len(found) == 1 and len(runners) > 1 else None


def _runner_timing(runner: RunnerResults, parts: _Parts, labels: Labels) -> list[CheckResult]:
    known = np.array([us for us in runner.runtime_us if us is not None])
    known = known[1:] if known.size > 1 else known  # the first iteration warms up
    if not known.size:
        return []
    session = Session.from_samples(np.empty((len(known), 0)), known, layers=())
    run = Run([replace(session, clock_mhz=labels.clock_mhz)], _context(parts, labels))
    method = {"engine": "polygraphy, host clock with copies", **labels.method}
    return [_timing(labels, _runtime_of(runner), run, (), method, [])]


def _runtime_of(runner: RunnerResults) -> str:
    return "onnxruntime" if runner.name.startswith(REFERENCE_RUNNER) else "tensorrt"


def _outputs(runner: RunnerResults, reference: RunnerResults, parts: _Parts, labels: Labels) -> CheckResult:
    actual: Sequence[Mapping[str, NDArray[Any]]] = runner.outputs
    if runner.name == TRTEXEC:
        actual = [_typed(outputs, reference.outputs[0]) for outputs in actual]
    try:
        series = compare_many(
            actual,
            reference.outputs,
            rtol=labels.rtol,
            atol=labels.atol,
            precision=parts.snapshot.precision if parts.snapshot else "",
            reference_name=reference.name,
        )
    except ValueError as error:
        raise InterchangeError(reference.name, str(error), "Save the outputs of both runners.") from error
    worst = max((output.relative_l2 for run in series.runs for output in run.outputs), default=0.0)
    rows = [row for number, run in enumerate(series.runs) for row in _output_rows(run, number, len(series.runs))]
    return _check(
        labels,
        _runtime_of(runner),
        "outputs",
        "pass" if series.ok else "differs",
        f"{counted(len(rows), 'output')} of {runner.name} against {reference.name}, "
        f"relative L2 error at most {worst:.2g}",
        series.findings,
        {"outputs": rows},
        relative_l2=finite_or_none(worst),
    )


def _typed(outputs: Mapping[str, NDArray[Any]], wanted: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """What trtexec wrote, which tells no types, in the reference's."""
    return {
        name: array.astype(wanted[name].dtype) if name in wanted and np.isfinite(array).all() else array
        for name, array in outputs.items()
    }


def _output_rows(comparison: Comparison, number: int, count: int) -> list[dict[str, Any]]:
    rows = [dict(row) for row in outputs_details(comparison)["outputs"]]
    for row in rows if count > 1 else ():
        row["name"] = f"{row['name']} (iteration {number})"
    return rows


def _values(runner: RunnerResults, labels: Labels) -> CheckResult:
    """What outputs look like that nothing was held against: enough to tell whether another run has the same."""
    rows = [
        {"name": name if len(runner.outputs) == 1 else f"{name} (iteration {number})", **_described(array)}
        for number, outputs in enumerate(runner.outputs)
        for name, array in outputs.items()
    ]
    findings = [
        Finding(
            "error",
            row["name"],
            f"output {row['name']!r}: {row['non_finite']} of {row['elements']} elements are NaN or infinite",
            "accuracy.non-finite",
            {"non_finite": row["non_finite"], "elements": row["elements"]},
            "Look for overflow in FP16: trtgray fp16 MODEL.onnx.",
        )
        for row in rows
        if row["non_finite"]
    ]
    summary = f"{counted(len(rows), 'output')} of {runner.name}, held against nothing"
    outcome = "fail" if errors(findings) else "recorded"
    return _check(labels, _runtime_of(runner), "values", outcome, summary, findings, {"values": rows})


def _described(array: NDArray[Any]) -> dict[str, Any]:
    is_number = array.dtype.kind in "biuf"
    known = array[np.isfinite(array)].astype(np.float64) if is_number else np.empty(0)
    return {
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "elements": int(array.size),
        "non_finite": int(array.size - known.size) if is_number else 0,
        "min": float(known.min()) if known.size else None,
        "max": float(known.max()) if known.size else None,
        "mean": float(known.mean()) if known.size else None,
        "sha256": hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest(),
    }


# rows of the document -----------------------------------------------------------------------------------------------


def _structure(parts: _Parts, labels: Labels) -> list[CheckResult]:
    snapshot = parts.snapshot
    if snapshot is None:
        return []
    summary = f"{counted(len(snapshot.layers), 'layer')}, {snapshot.precision or 'precision unknown'}"
    return [_check(labels, "tensorrt", "structure", "recorded", summary, (), structure_details(snapshot))]


def _timing(
    labels: Labels,
    runtime: str,
    run: Run,
    layers: tuple[Layer, ...],
    method: Mapping[str, str],
    findings: Sequence[Finding],
) -> CheckResult:
    called, _, version = (labels.runtime or runtime).partition(" ")
    device = DeviceInfo(labels.device, "gpu") if labels.device else None
    info = EngineInfo(labels.engine, "", called, version, (), (), (), device)
    profile = Profile(info, {}, run, layer_times(run, layers), method)
    whole = us_text(profile.total_us) if math.isfinite(profile.total_us) else "time unknown"
    summary = f"{whole}, {counted(len(layers), 'layer')}, {counted(run.iterations, 'inference')}, "
    summary += counted(len(run.sessions), "session")
    if run.disturbed:
        summary += f"; {run.disturbed}"
    details = timing_details(profile)
    return _check(labels, runtime, "timing", "recorded", summary, findings, details, total_us=profile.total_us)


def _check(
    labels: Labels,
    runtime: str,
    kind: str,
    outcome: str,
    summary: str,
    findings: Sequence[Finding],
    details: dict[str, Any],
    **numbers: Any,
) -> CheckResult:
    check = {
        "kind": kind,
        "engine": labels.engine,
        "runtime": labels.runtime or runtime,
        "device": labels.device,
        "outcome": outcome,
        "summary": summary,
        "findings": [finding.to_dict() for finding in findings],
        "notes": [],
        **numbers,
    }
    return CheckResult(f"import::{kind}[{labels.engine}]", check, details)


def _context(parts: _Parts, labels: Labels) -> dict[str, str]:
    counts = [str(profile.count) for profile in parts.profiles if profile.count]
    return {
        "imported": ", ".join(str(each["file"]) for each in parts.files),
        **({"profiled_inferences": " + ".join(counts)} if counts else {}),
        **labels.context,
    }
