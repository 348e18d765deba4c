"""The subcommands ``trtgray import`` and ``trtgray export``, and ``trtgray diff`` of run documents."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trtgray.errors import InterchangeError, TrtGrayError

if TYPE_CHECKING:
    from pytest_trtgray.interchange.importing import Labels

SAME, WORSE, UNUSABLE = 0, 1, 2
_STDIN = "-"
_MEMBERS = (
    *((member, str) for member in ("test", "kind", "engine", "runtime", "device", "outcome", "summary")),
    ("findings", list),
    ("details", dict),
)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``import`` and ``export`` to the command line."""
    _add_import(commands)
    _add_export(commands)


def _add_import(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    taken = commands.add_parser(
        "import",
        help="files of trtexec, Polygraphy or ONNX Runtime as a run document",
        description="What each file is, its content tells. All files of one call are of one engine; several of a kind "
        "are sessions of one run.",
        epilog="exit codes: 0 imported, 2 a file cannot be read (the reason is on stderr)",
    )
    taken.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="trtexec --exportProfile, --exportTimes, --exportLayerInfo, --exportOutput; Polygraphy's RunResults "
        "(--save-outputs); ONNX Runtime's profile; - for standard input",
    )
    taken.add_argument("-o", "--output", default="run.json", metavar="RUN.json", help="default: run.json; - prints it")
    taken.add_argument("--engine", default="", metavar="NAME", help="default: what the files' names begin with")
    taken.add_argument("--runtime", default="", metavar="'NAME VERSION'", help="such as 'tensorrt 10.13.3'")
    taken.add_argument("--device", default="", metavar="NAME", help="the GPU: times of two are not compared")
    taken.add_argument("--clock-mhz", type=float, metavar="MHZ", help="the SM clock, where it was locked")
    taken.add_argument("--onnx", metavar="MODEL", help="the model behind the engine: its nodes and modules")
    taken.add_argument("--reference", default="", metavar="RUNNER", help="which of Polygraphy's runners is right")
    taken.add_argument("--rtol", type=float, help="tolerance of outputs; default: that of the engine's precision")
    taken.add_argument("--atol", type=float)
    for name, what in (
        ("method", "how times were taken: times of other methods are not compared"),
        ("context", "shown"),
    ):
        taken.add_argument(f"--{name}", action="append", default=[], metavar="KEY=VALUE", help=f"{what}; repeatable")
    taken.set_defaults(action=_import)


def _add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    given = commands.add_parser(
        "export",
        help="a run document as a trace (Perfetto, chrome://tracing) or as CSV",
        epilog="exit codes: 0 written, 2 the document cannot be read or holds no layers",
    )
    given.add_argument("file", metavar="RUN.json", help="of --trt-json or trtgray import; - for standard input")
    given.add_argument("--trace", metavar="FILE.json", help="Trace Event Format; - prints it")
    given.add_argument("--csv", metavar="FILE.csv", help="a row a layer; - prints it")
    given.set_defaults(action=_export)


def add_document_options(diff: argparse.ArgumentParser) -> None:
    """Add to ``diff`` what only two run documents need."""
    group = diff.add_argument_group(
        "two run documents (--trt-json, trtgray import)",
        "Every check against the same check of the older run; - is standard input. Exit codes: 0 nothing is worse, "
        "1 something is, 2 nothing could be compared or read.",
    )
    group.add_argument("--markdown", action="store_true", help="Markdown to standard output")
    group.add_argument("--strict", action="store_true", help="exit code 1 also for what is inconclusive, or gone")
    group.add_argument("--layer-tolerance", type=_part, default=0.03, metavar="PART", help="default: 0.03")
    group.add_argument("--engine-tolerance", type=_part, default=0.02, metavar="PART", help="default: 0.02")
    group.add_argument("--limit", type=int, default=10, metavar="N", help="layers and findings to show. Default: 10")


def are_documents(names: Sequence[str]) -> bool:
    """Whether these files are run documents.

    Raises:
        InterchangeError: one is, another is not.
    """
    found = [_is_document(Path(name)) for name in names]
    if any(found) and not all(found):
        other = names[found.index(False)]
        raise InterchangeError(other, "is no run document, the other file is", "Compare two of a kind.")
    return all(found)


def _is_document(path: Path) -> bool:
    from pytest_trtgray.interchange.text import read_text
    from pytest_trtgray.reporting.document import FORMAT

    if str(path) == _STDIN:
        return True  # nothing else is read from there
    if not path.name.lower().endswith((".json", ".json.gz")):
        return False
    try:
        return f'"{FORMAT}"' in read_text(path)
    except InterchangeError:
        return False  # what reads listings says what is wrong


def diff_documents(arguments: argparse.Namespace) -> int:
    """Compare two run documents; returns the exit code."""
    from pytest_trtgray.files import dump_json
    from pytest_trtgray.interchange.comparison import Tolerances, compare_documents
    from pytest_trtgray.interchange.rendering import comparison_data, comparison_lines, comparison_markdown

    old, new = arguments.old, arguments.new
    if old == new == _STDIN:
        raise InterchangeError(_STDIN, "is both documents", "Give a file for one of them.")
    tolerances = Tolerances(arguments.layer_tolerance, arguments.engine_tolerance)
    found = compare_documents(_document(old), _document(new), tolerances)
    if arguments.json:
        print(dump_json(comparison_data(found, old, new)).decode(), end="")
    elif arguments.markdown:
        print(comparison_markdown(found, old, new, arguments.limit))
    else:
        print("\n".join(comparison_lines(found, arguments.limit)))
    if found.is_worse:
        return WORSE
    if not found.is_comparable:
        print("trtgray: nothing of the two runs could be compared", file=sys.stderr)
        return UNUSABLE
    return WORSE if arguments.strict and found.is_open else SAME


def _import(arguments: argparse.Namespace) -> int:
    from pytest_trtgray.files import dump_json
    from pytest_trtgray.findings import Finding, listing
    from pytest_trtgray.interchange.importing import import_files

    document = import_files([Path(name) for name in arguments.files], _labels(arguments))
    _write(arguments.output, dump_json(document))
    if arguments.output == _STDIN:
        return SAME
    for check in document["checks"]:
        print(f"{check['engine']}  {check['kind']:<9}  {check['summary']}")
        if check["findings"]:
            print(listing(Finding.from_dict(row) for row in check["findings"]))
    print(arguments.output)
    return SAME


def _labels(arguments: argparse.Namespace) -> Labels:
    from pytest_trtgray.interchange.importing import Labels

    clock = arguments.clock_mhz
    if clock is not None and not 0 < clock < float("inf"):
        raise TrtGrayError("--clock-mhz", f"{clock:g} is no clock", "Give MHz, such as 1980.")
    return Labels(
        engine=arguments.engine,
        runtime=arguments.runtime,
        device=arguments.device,
        clock_mhz=clock,
        onnx=Path(arguments.onnx) if arguments.onnx else None,
        reference=arguments.reference,
        rtol=arguments.rtol,
        atol=arguments.atol,
        method=_members("--method", arguments.method),
        context=_members("--context", arguments.context),
    )


def _members(option: str, given: Sequence[str]) -> dict[str, str]:
    wrong = [each for each in given if not each.partition("=")[0] or "=" not in each]
    if wrong:
        raise TrtGrayError(option, f"{wrong[0]!r} is no KEY=VALUE", f"Such as {option} cuda_graph=yes.")
    return {key: value for key, _, value in (each.partition("=") for each in given)}


def _export(arguments: argparse.Namespace) -> int:
    import json

    from pytest_trtgray.interchange.spreadsheet import layers_csv
    from pytest_trtgray.interchange.trace_events import trace_of
    from pytest_trtgray.reporting.document import finite

    if not arguments.trace and not arguments.csv:
        raise TrtGrayError("trtgray export", "nothing to write", "Give --trace FILE.json, --csv FILE.csv, or both.")
    if arguments.trace == arguments.csv == _STDIN:
        raise TrtGrayError("trtgray export", "--trace and --csv both print", "Give one of them a file.")
    document = _document(arguments.file)
    # both are made before any is written
    made: list[tuple[str, bytes]] = []
    if arguments.trace:
        trace = json.dumps(finite(trace_of(document, arguments.file)), separators=(",", ":"), allow_nan=False)
        made.append((arguments.trace, f"{trace}\n".encode("ascii")))
    if arguments.csv:
        made.append((arguments.csv, layers_csv(document, arguments.file).encode("utf-8", "backslashreplace")))
    for name, content in made:
        _write(name, content)
        if name != _STDIN:
            print(name)
    return SAME


def _document(name: str) -> dict[str, Any]:
    from pytest_trtgray.interchange.text import read_text
    from pytest_trtgray.reporting.document import parse_document

    document = parse_document(Path(name), read_text(Path(name)))
    for number, check in enumerate(document["checks"], start=1):
        if not isinstance(check, dict) or any(not isinstance(check.get(member), kind) for member, kind in _MEMBERS):
            raise InterchangeError(name, f"check {number} lacks what every check has", "Give it as trtgray wrote it.")
    return document


def _write(name: str, content: bytes) -> None:
    from pytest_trtgray.files import write_output

    if name == _STDIN:
        sys.stdout.write(content.decode("utf-8"))
        return
    write_output(name, content)


def _part(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no part such as 0.03")
    return value
