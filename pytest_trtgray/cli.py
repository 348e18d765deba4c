"""The command ``trtgray``: what a test sees, without a test."""

from __future__ import annotations

import argparse
import io
import json
import math
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pytest_trtgray.engines.model import Layer
from pytest_trtgray.errors import TrtGrayError

OK, DIFFERENT, USAGE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 fine, 1 differences found, 2 unusable input."""
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

    doctor = commands.add_parser("doctor", help="what this machine can do, and what is missing")
    doctor.set_defaults(action=_doctor)

    layers = commands.add_parser("layers", help="the fused layers of an engine, model, or layer listing")
    layers.add_argument("source", metavar="ENGINE|ONNX|JSON|LOG")
    _add_build_options(layers)
    layers.set_defaults(action=_layers)

    diff = commands.add_parser("diff", help="what changed between two engines, models, or listings")
    diff.add_argument("old")
    diff.add_argument("new")
    _add_build_options(diff)
    diff.set_defaults(action=_diff)

    log = commands.add_parser("log", help="what a log of TensorRT and what runs it says, and what is behind its errors")
    log.add_argument("files", nargs="+", metavar="FILE", help="text of any producer, plain or gzipped")
    how = log.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="events, diagnosis and findings; a list for several files")
    how.add_argument("--jsonl", action="store_true", help="all messages with what they state, one a line")
    log.set_defaults(action=_log)

    baseline = commands.add_parser("baseline", help="list or show stored baselines")
    actions = baseline.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="all baselines, with their runs")
    show = actions.add_parser("show", help="one baseline")
    show.add_argument("file")
    for command, action in ((listing, _baseline_list), (show, _baseline_show)):
        command.set_defaults(action=action)
    listing.add_argument("--dir", default="baselines", help="folder of baselines. Default: baselines")
    return parser


def _add_build_options(parser: argparse.ArgumentParser) -> None:
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


def _doctor(arguments: argparse.Namespace) -> int:
    from importlib.metadata import PackageNotFoundError, version

    from pytest_trtgray.engines.device import find_cpu, find_gpu, no_gpu_reason

    gpu, cpu = find_gpu(), find_cpu()
    print(f"python        {platform.python_version()} on {platform.platform()}")
    print(f"cpu           {cpu.name}, {cpu.details['cores']} cores")
    print(f"gpu           {f'{gpu.name} ({gpu.sm})' if gpu else no_gpu_reason()}")
    packages = {
        "pytest-trtgray": "",
        "onnxruntime": "runs models on the CPU: pip install 'pytest-trtgray[cpu]'",
        "onnxruntime-gpu": "runs models on the GPU: pip install 'pytest-trtgray[gpu]'",
        "tensorrt": "builds and runs engines on a GPU: pip install 'pytest-trtgray[tensorrt]'",
        "tensorrt-rtx-cu13": "builds engines anywhere: pip install 'pytest-trtgray[rtx]'",
        "polygraphy": "",
        "pycuda": "times engines on a GPU: pip install 'pytest-trtgray[gpu]'",
    }
    for package, use in packages.items():
        try:
            print(f"{package:<18}{version(package)}")
        except PackageNotFoundError:
            print(f"{package:<18}not installed ({use})")
    return OK


def _layers(arguments: argparse.Namespace) -> int:
    layers = _read(arguments.source, arguments)
    width = max((len(layer.kind) for layer in layers), default=0)
    for layer in layers:
        print(f"{layer.kind:<{width}}  {layer.precision or '-':<9} {layer.title}")
    print(f"{len(layers)} layers")
    return OK


def _diff(arguments: argparse.Namespace) -> int:
    from pytest_trtgray.findings import listing
    from pytest_trtgray.structure import diff

    found = diff(_read(arguments.old, arguments), _read(arguments.new, arguments))
    matching = found.matching
    print(
        f"{len(matching.pairs)} layers alike, {len(matching.groups)} fused differently, "
        f"{len(found.added_nodes)} ONNX nodes added, {len(found.removed_nodes)} removed"
    )
    if found.findings:
        print(listing(found.findings, limit=50))
    return OK if found.ok else DIFFERENT


def _log(arguments: argparse.Namespace) -> int:
    from pytest_trtgray.reporting.log_file import LogReport

    code, reports = OK, []
    for name in arguments.files:
        path = Path(name)
        try:
            if arguments.jsonl:
                _print_messages(path)
                continue
            report = LogReport.of(path)
        except TrtGrayError as error:
            print(f"trtgray: {error.message}", file=sys.stderr)
            code = USAGE
            continue
        code = max(code, DIFFERENT) if report.has_errors else code
        reports.append(report)
    if arguments.json and reports:
        data = [report.to_dict() for report in reports]
        print(json.dumps(data if len(arguments.files) > 1 else data[0], indent=2, default=str))
    elif reports:
        print("\n\n".join(report.to_text() for report in reports))
    return code


def _print_messages(path: Path) -> None:
    from pytest_trtgray.logs.reader import read_records
    from pytest_trtgray.logs.storage import json_lines

    for line in json_lines(read_records(path), file=str(path)):
        sys.stdout.write(line.decode("ascii"))


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
    from pytest_trtgray.timing.gate import Baseline

    file = read_file(Path(arguments.file))
    print(f"test      {file.test}")
    for name, value in file.identity.items():
        print(f"{name:<9} {value}")
    for key, entry in sorted(file.entries.items()):
        print(f"\n{key}")
        try:
            runs = Baseline.from_dict(entry).runs if "runs" in entry else ()
            layers = len(entry["layers"])
        except (KeyError, TypeError, ValueError, AttributeError):
            print("  cannot be read by this version")
            continue
        if not runs:
            print(f"  {layers} layers")
        for run in runs:
            when = run.context.get("time_utc", "")
            commit = run.context.get("commit", "")
            print(f"  {when} {commit}  {math.exp(run.engine_log_us):10.1f} us, {run.sessions} sessions")
    return OK


def _read(source: str, arguments: argparse.Namespace) -> list[Layer]:
    from pytest_trtgray.engines.loading import LoadOptions, is_engine_file, load_engine
    from pytest_trtgray.structure import read_layers

    path = Path(source)
    if path.suffix.lower() != ".onnx" and not is_engine_file(path):
        return read_layers(path)
    if is_engine_file(path) and path.exists() and not arguments.allow_unlisted:
        _require_listed(path, Path(arguments.dir))
    options = LoadOptions(runtime=arguments.runtime, cache_dir=Path(arguments.cache_dir))
    return list(load_engine(path, options).layers)


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
