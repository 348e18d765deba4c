"""The command ``trtgray``: what a test sees, without a test.

Exit codes of every subcommand: 0 fine (``diff``: the same engine), 1 differences or damage found, 2 something could not
be read or built.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trtgray.errors import TrtGrayError
from pytest_trtgray.history.command import add_to as add_history
from pytest_trtgray.interchange.commands import add_commands, add_document_options, are_documents, diff_documents

if TYPE_CHECKING:
    from pytest_trtgray.feeds import Feed
    from pytest_trtgray.findings import Finding
    from pytest_trtgray.logs.redaction import Redactor
    from pytest_trtgray.structure.snapshot import Snapshot

OK, DIFFERENT, USAGE = 0, 1, 2
_EXIT_CODES = "exit codes: 0 {fine}, 1 {different}, 2 something cannot be read or built (the reason is on stderr)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 fine, 1 differences or faults found, 2 unusable input."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # layer names need not be UTF-8
    parser = _parser()
    arguments = parser.parse_args(argv)
    action: Callable[[argparse.Namespace], int] = arguments.action
    try:
        return action(arguments)
    except TrtGrayError as error:
        print(f"trtgray: {error.message}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:  # `trtgray layers … | head`
        return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trtgray", description="Look at TensorRT engines and baselines.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    doctor = commands.add_parser("doctor", help="what this machine has, what does not go together, and the way out")
    doctor.add_argument("--json", action="store_true", help="print it as JSON")
    doctor.set_defaults(action=_doctor)

    layers = commands.add_parser(
        "layers",
        help="the fused layers of an engine, model, or layer listing",
        epilog=_EXIT_CODES.format(fine="listed", different="is not used"),
    )
    layers.add_argument("source", metavar="ENGINE|ONNX|JSON|LOG", help="a listing may be of TensorRT 8 to 11 or RTX")
    _add_build_options(layers)
    layers.set_defaults(action=_layers)

    diff = commands.add_parser(
        "diff",
        help="what changed between two engines, models, or listings",
        description="Layers are matched by the ONNX nodes fused into them. Nodes, fusions, precisions, copies, inputs, "
        "outputs and memory make another engine; tactics, formats and what has no ONNX node are advice. Of two run "
        "documents all checks are compared, times too.",
        epilog=_EXIT_CODES.format(fine="the same engine (there may be advice)", different="another engine"),
    )
    diff.add_argument("old", metavar="OLD", help="engine, ONNX model, listing (JSON or log), baseline, or run document")
    diff.add_argument("new", metavar="NEW")
    _add_build_options(diff)
    add_document_options(diff)
    diff.set_defaults(action=_diff)
    add_commands(commands)

    log = commands.add_parser("log", help="what a log of TensorRT and what runs it says, and what is behind its errors")
    log.add_argument("files", nargs="+", metavar="FILE", help="text of any producer, plain or gzipped")
    how = log.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="events, diagnosis and findings; a list for several files")
    how.add_argument("--jsonl", action="store_true", help="all messages with what they state, one a line")
    log.set_defaults(action=_log)
    for command in (doctor, log):
        command.add_argument(
            "--no-redaction", action="store_true", help="leave user names, folders, hosts, addresses and secrets"
        )
    scales = commands.add_parser("quantisation", help="what the scales of a Q/DQ model do to real values")
    scales.add_argument("--calibration", nargs="+", default=[], metavar="NPZ", help="inputs the scales were taken from")
    scales.add_argument("--reference", metavar="ONNX", help="the FP32 model that was quantised")
    scales.set_defaults(action=_quantisation)
    fp16 = commands.add_parser("fp16", help="which values of a model do not fit into FP16")
    fp16.set_defaults(action=_fp16)
    calibrations = commands.add_parser("calibrations", help="which calibration method suits an FP32 model")
    calibrations.add_argument("--test", nargs="+", default=[], metavar="NPZ", help="inputs to measure with")
    calibrations.add_argument("--precision", choices=("int8", "fp8"), default="int8")
    calibrations.set_defaults(action=_calibrations)
    for command in (scales, fp16, calibrations):
        command.add_argument("model", metavar="ONNX")
        needed = command is calibrations
        command.add_argument("--feeds", nargs="+", default=[], metavar="NPZ", required=needed, help="real inputs")
        command.add_argument("--limit", type=int, default=20, metavar="N", help="tensors to show. Default: 20")
        command.add_argument("--cache-dir", default=".trtgray_cache", help="folder of derived models")

    baseline = commands.add_parser("baseline", help="list or show stored baselines")
    actions = baseline.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="all baselines, with their runs")
    show = actions.add_parser("show", help="one baseline")
    show.add_argument("file")
    for command, action in ((listing, _baseline_list), (show, _baseline_show)):
        command.set_defaults(action=action)
    listing.add_argument("--dir", default="baselines", help="folder of baselines. Default: baselines")

    report = commands.add_parser("report", help="an HTML report of what --trt-json has written")
    report.add_argument("files", nargs="+", metavar="RUN.json", help="several are shown side by side")
    report.add_argument("-o", "--output", default="report.html", metavar="FILE.html", help="default: report.html")
    report.set_defaults(action=_report)
    add_history(commands)

    metrics = commands.add_parser(
        "metrics",
        help="Prometheus metrics of what --trt-json has written; a dashboard and alerts for them",
        description="Without -o and --push, metrics go to standard output.",
    )
    metrics.add_argument("file", nargs="?", metavar="RUN.json")
    metrics.add_argument("-o", "--output", metavar="FILE.prom", help="for node_exporter's textfile collector")
    metrics.add_argument("--push", metavar="URL", help="of a push gateway, such as http://HOST:9091")
    for name, text in (("dashboard", "a dashboard for Grafana"), ("alerts", "alert rules for Prometheus")):
        metrics.add_argument(f"--{name}", action="store_true", help=f"print {text}")
    metrics.set_defaults(action=_metrics)
    return parser


def _add_build_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="JSON to standard output")
    parser.add_argument(
        "--onnx", metavar="MODEL", help="the model behind engines and listings: module names, nodes without a layer"
    )
    parser.add_argument(
        "--runtime",
        choices=("auto", "tensorrt", "tensorrt_rtx", "onnxruntime"),
        default="auto",
        help="what builds ONNX models",
    )
    parser.add_argument("--cache-dir", default=".trtgray_cache", help="folder of built engines")
    parser.add_argument(
        "--dir", default="baselines", help="folder of baselines, whose engines.sha256 lists the engines"
    )
    parser.add_argument("--allow-unlisted", action="store_true", help="load engine files that are not listed")


def _report(arguments: argparse.Namespace) -> int:
    from pytest_trtgray.files import write_output
    from pytest_trtgray.reporting.html import render_files

    target = Path(arguments.output)
    html = render_files([Path(name) for name in arguments.files])
    write_output(target, html.encode("utf-8"))
    print(target)
    return OK


def _metrics(arguments: argparse.Namespace) -> int:
    from pytest_trtgray.files import write_output
    from pytest_trtgray.metrics.exposition import render_metrics
    from pytest_trtgray.metrics.gateway import parse_gateway, push
    from pytest_trtgray.metrics.monitoring import ALERTS, DASHBOARD
    from pytest_trtgray.reporting.document import read_document

    wanted = [path for path, asked in ((DASHBOARD, arguments.dashboard), (ALERTS, arguments.alerts)) if asked]
    if len(wanted) + (arguments.file is not None) != 1:
        raise TrtGrayError("metrics", "needs one of RUN.json, --dashboard and --alerts", "See `trtgray metrics -h`.")
    if wanted:
        print(wanted[0].read_text("utf-8"), end="")
        return OK
    gateway = parse_gateway(arguments.push) if arguments.push else None
    document = read_document(Path(arguments.file))
    text = render_metrics(document)
    if arguments.output:
        write_output(arguments.output, text)
        print(arguments.output)
    elif gateway is None:
        print(text.decode(), end="")
    if gateway is not None:
        push(document, gateway)
        print(gateway.url)
    return OK


def _doctor(arguments: argparse.Namespace) -> int:
    from pytest_trtgray.doctor.checkup import examine
    from pytest_trtgray.doctor.incompatibilities import findings_of
    from pytest_trtgray.doctor.rendering import lines_of
    from pytest_trtgray.findings import errors

    facts = examine()
    findings = findings_of(facts)
    redact = _redactor(arguments)
    if arguments.json:
        data = {"format": "trtgray-doctor", "schema": 1, "facts": facts.to_dict()}
        data["findings"] = [finding.to_dict() for finding in findings]
        print(json.dumps(redact.data(data), indent=2))
    else:
        print("\n".join(map(redact, lines_of(facts, findings))))
    return DIFFERENT if errors(findings) else OK


def _layers(arguments: argparse.Namespace) -> int:
    from pytest_trtgray.reporting.layers import layer_table, layers_json

    snapshot = _read(arguments.source, arguments)
    if arguments.json:
        _print_json(layers_json(arguments.source, snapshot))
        return OK
    for line in layer_table(snapshot.layers):
        print(line)
    return OK


def _diff(arguments: argparse.Namespace) -> int:
    from pytest_trtgray.findings import errors, listing
    from pytest_trtgray.structure.snapshot import compare_snapshots, diff_snapshots

    if are_documents((arguments.old, arguments.new)):
        return diff_documents(arguments)
    old, new = _read(arguments.old, arguments), _read(arguments.new, arguments)
    found, findings = diff_snapshots(old, new), compare_snapshots(old, new)
    if arguments.json:
        _print_json(
            {
                "format": "trtgray-diff",
                "schema": 1,
                "old": arguments.old,
                "new": arguments.new,
                "same": not errors(findings),
                "summary": found.summary,
                "findings": [finding.to_dict() for finding in findings],
            }
        )
    else:
        print(found.summary)
        if findings:
            print(listing(findings, limit=50))
    return DIFFERENT if errors(findings) else OK


def _print_json(data: Any) -> None:
    from pytest_trtgray.files import dump_json

    print(dump_json(data).decode(), end="")


def _log(arguments: argparse.Namespace) -> int:
    from pytest_trtgray.reporting.log_file import LogReport

    code, reports, redact = OK, [], _redactor(arguments)
    for name in arguments.files:
        path = Path(name)
        try:
            if arguments.jsonl:
                _print_messages(path, redact)
                continue
            report = LogReport.of(path)
        except TrtGrayError as error:
            print(f"trtgray: {error.message}", file=sys.stderr)
            code = USAGE
            continue
        code = max(code, DIFFERENT) if report.has_errors else code
        reports.append(report)
    if arguments.json and reports:
        data = [redact.data(report.to_dict()) for report in reports]
        print(json.dumps(data if len(arguments.files) > 1 else data[0], indent=2, default=str))
    elif reports:
        print("\n\n".join(redact(report.to_text()) for report in reports))
    return code


def _redactor(arguments: argparse.Namespace) -> Redactor:
    from pytest_trtgray.logs import redaction

    return redaction.Redactor(enabled=False) if arguments.no_redaction else redaction.current()


def _print_messages(path: Path, redact: Redactor) -> None:
    from pytest_trtgray.logs.reader import read_records
    from pytest_trtgray.logs.storage import json_lines

    for line in json_lines(map(redact.record, read_records(path)), file=str(path)):
        sys.stdout.write(line.decode("ascii"))


def _quantisation(arguments: argparse.Namespace) -> int:
    from pytest_trtgray.accuracy.quantisation import inspect_quantisation
    from pytest_trtgray.reporting.tables import quantisation_table

    found = inspect_quantisation(
        arguments.model,
        _feeds(arguments.feeds),
        calibration=_feeds(arguments.calibration),
        reference=arguments.reference,
        cache_dir=Path(arguments.cache_dir),
    )
    print(quantisation_table(found, arguments.limit))
    return _conclude(found.findings, found.ok)


def _fp16(arguments: argparse.Namespace) -> int:
    from pytest_trtgray.accuracy.fp16 import fp16_ranges
    from pytest_trtgray.reporting.tables import fp16_table

    found = fp16_ranges(arguments.model, _feeds(arguments.feeds), cache_dir=Path(arguments.cache_dir))
    print(fp16_table(found, arguments.limit))
    return _conclude(found.findings, found.ok)


def _calibrations(arguments: argparse.Namespace) -> int:
    from pytest_trtgray.accuracy.calibrations import compare_calibrations
    from pytest_trtgray.reporting.tables import calibration_table

    found = compare_calibrations(
        arguments.model,
        _feeds(arguments.feeds),
        test_feeds=_feeds(arguments.test),
        precision=arguments.precision,
        cache_dir=Path(arguments.cache_dir),
    )
    print(calibration_table(found, arguments.limit))
    print(f"take {found.reason}")
    return _conclude(found.findings, ok=True)


def _feeds(paths: Sequence[str]) -> list[Feed]:
    from pytest_trtgray.feeds import load_feed

    return [load_feed(Path(path)) for path in paths]


def _conclude(findings: Sequence[Finding], ok: bool) -> int:
    from pytest_trtgray.findings import listing

    if findings:
        print(listing(findings, limit=50))
    return OK if ok else DIFFERENT


def _baseline_list(arguments: argparse.Namespace) -> int:
    from pytest_trtgray.baselines.store import BaselineStore, read_file

    broken = False
    for path in BaselineStore(Path(arguments.dir)).files():
        try:
            file = read_file(path)
        except TrtGrayError as error:
            broken = True
            print(f"{path}: {error.reason}")
            continue
        parts = [
            key.split()[0] + (f" ({len(entry['runs'])} runs)" if "runs" in entry else "")
            for key, entry in sorted(file.entries.items())
        ]
        print(f"{path.parent.name}  {file.test}  {', '.join(parts)}")
    return DIFFERENT if broken else OK


def _baseline_show(arguments: argparse.Namespace) -> int:
    from pytest_trtgray.baselines.store import read_file

    file = read_file(Path(arguments.file))
    print(f"test      {file.test}")
    for name, value in file.identity.items():
        print(f"{name:<9} {value}")
    for key, entry in sorted(file.entries.items()):
        print(f"\n{key}")
        try:
            lines = _entry_lines(entry)
        except (KeyError, TypeError, ValueError, AttributeError):
            lines = ["cannot be read by this version"]
        for line in lines:
            print(f"  {line}")
    return OK


def _entry_lines(entry: Mapping[str, Any]) -> list[str]:
    """What a baseline entry holds, a line a run; raises what a damaged one makes it."""
    from pytest_trtgray.timing.first_calls import FirstCallsBaseline
    from pytest_trtgray.timing.gate import Baseline

    if "calls" in entry:
        return [
            f"{_recorded(run.context)}  first calls {', '.join(f'{us:.1f}' for us in run.first_us)} us, "
            f"context {run.creation_us:.1f} us"
            for run in FirstCallsBaseline.from_dict(entry).runs
        ]
    if "runs" in entry:
        return [
            f"{_recorded(run.context)}  {math.exp(run.engine_log_us):10.1f} us, {run.sessions} sessions"
            for run in Baseline.from_dict(entry).runs
        ]
    return [f"{len(entry['layers'])} layers"]


def _recorded(context: Mapping[str, str]) -> str:
    return f"{context.get('time_utc', '')} {context.get('commit', '')}"


def _read(source: str, arguments: argparse.Namespace) -> Snapshot:
    from pytest_trtgray.engines.loading import LoadOptions, is_engine_file, load_engine
    from pytest_trtgray.engines.onnx_model import open_model
    from pytest_trtgray.structure.reading import read_snapshot
    from pytest_trtgray.structure.snapshot import snapshot_of, with_model

    path, onnx = Path(source), Path(arguments.onnx) if arguments.onnx else None
    if path.suffix.lower() != ".onnx" and not is_engine_file(path):
        found = read_snapshot(path)
        return with_model(found, open_model(onnx)) if onnx else found
    if is_engine_file(path) and path.exists() and not arguments.allow_unlisted:
        _require_listed(path, Path(arguments.dir))
    options = LoadOptions(runtime=arguments.runtime, cache_dir=Path(arguments.cache_dir))
    return snapshot_of(load_engine(path, options, onnx=onnx))


def _require_listed(path: Path, folder: Path) -> None:
    from pytest_trtgray.baselines.engine_list import EngineList
    from pytest_trtgray.engines.loading import check_file
    from pytest_trtgray.errors import EngineError

    check_file(path)
    try:
        EngineList(folder).require(path)
    except EngineError as error:
        raise EngineError(
            error.thing, error.reason, "If you trust where it comes from: --allow-unlisted (or --dir BASELINES)."
        ) from None


if __name__ == "__main__":
    sys.exit(main())
