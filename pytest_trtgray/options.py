"""Options, ini values and markers, with help that a newcomer understands.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from typing import Any, Literal

import pytest

IniType = Literal["string", "float", "int", "args", "linelist", "bool"]

MARKERS = (
    "trt_arch(*names, min=None, max=None): run only on these GPU architectures, such as 'sm_89'; "
    "min and max are inclusive",
    "trt_requires(tensorrt=None, tensorrt_rtx=None, memory_gb=None, precision=None, runtime=None): run only "
    "where these are there: versions such as '>=10.3', GPU memory, a precision that the GPU has, the runtime "
    "in use",
    "trt_timing(tolerance=None, sessions=None, iterations=None, processes=None, cuda_graph=None): limits, effort "
    "and method of this test's timing checks; tolerance=0.1 accepts layers 10 % slower",
    "trt_shapes(**shapes): input shapes of this test, such as x=(8, 3, 224, 224)",
)


INI: tuple[tuple[str, IniType, Any, str], ...] = (
    ("trt_baseline_dir", "string", "baselines", "Folder of baselines, relative to the ini file"),
    ("trt_on_missing", "string", "fail", "What a missing baseline does: fail (default), skip, or record"),
    (
        "trt_inconclusive",
        "string",
        "warn",
        "What an inconclusive timing verdict does: warn (default; shown at the end), skip, or fail",
    ),
    ("trt_false_alarm_rate", "float", 0.01, "Chance that a run without any change fails on timing"),
    ("trt_layer_tolerance", "float", 0.03, "A layer may be slower by this part"),
    ("trt_engine_tolerance", "float", 0.02, "An engine may be slower by this part"),
    ("trt_sessions", "int", 3, "Fresh execution contexts a timing run"),
    ("trt_iterations", "int", 0, "Inferences a session; 0: as many as are worth it"),
    ("trt_rtol", "float", None, "Relative tolerance of outputs; default: by precision"),
    ("trt_atol", "float", None, "Absolute tolerance of outputs; default: by precision"),
    (
        "trt_localise",
        "float",
        30.0,
        "Seconds that a failed `outputs` test may spend on finding the node that is wrong; 0: none",
    ),
    ("trt_cache_dir", "string", ".trtgray_cache", "Folder of built engines, relative to the ini file"),
    (
        "trt_tactic_sources",
        "args",
        [],
        "Names of TensorRT's TacticSource that builds may use, such as JIT_CONVOLUTIONS (default: TensorRT's own)",
    ),
    (
        "trt_redact",
        "linelist",
        [],
        "Regular expressions, one a line: what they match in a log becomes REDACTED; with groups, only the groups",
    ),
    (
        "trt_rules",
        "args",
        [],
        "TOML files with your own rules for logs, relative to the ini file; asked before the built-in ones "
        "(docs/log-rules.md)",
    ),
    (
        "trt_history_log_level",
        "string",
        "warning",
        "What --trt-history keeps of the runtimes' logs: error, warning (default), info, or verbose",
    ),
    (
        "trt_advice",
        "bool",
        True,
        "Whether tests on layers and times also say what may be faster (default: true); never a failure",
    ),
    (
        "trt_identity",
        "args",
        [],
        "Fields that decide which baseline is used: device sm runtime version precision (default: all)",
    ),
)
"""Name, type, default and help of every ini value."""


def add_options(parser: pytest.Parser) -> None:
    """Declare everything on the command line."""
    group = parser.getgroup("trtgray", "TensorRT engines (pytest-trtgray)")
    add = group.addoption
    add(
        "--trt-engine",
        action="append",
        default=[],
        metavar="[NAME=]PATH",
        help="Engine to test: .engine or .plan, or .onnx to be built. Repeatable; tests that use trt_engine run "
        "once for each. Without tests of your own, a built-in suite runs",
    )
    add(
        "--trt-onnx",
        metavar="PATH",
        help="The ONNX model behind the engine: names its layers and is the FP32 reference for its outputs",
    )
    add(
        "--trt-against",
        metavar="[NAME=]PATH",
        help="A second engine (or model), measured in turn with each --trt-engine: an A/B that needs no baseline. The "
        "built-in suite then has the test `against` in place of `layers` and `structure`",
    )
    for which in ("min", "opt", "max"):
        add(
            f"--trt-{which}-shapes",
            action="append",
            default=[],
            metavar="NAME:1x3x224x224[,...]",
            help=f"{which.capitalize()} shape of every dynamic input, in trtexec's notation. Repeat all three for "
            "a further optimization profile",
        )
    add(
        "--trt-runtime",
        choices=("auto", "tensorrt", "tensorrt_rtx", "onnxruntime"),
        default="auto",
        help="What builds and runs ONNX models. auto (default): TensorRT where there is a GPU, else ONNX Runtime",
    )
    add(
        "--trt-device",
        type=int,
        metavar="N",
        help="CUDA device. Default: 0; with pytest-xdist each worker takes another one",
    )
    add(
        "--trt-shadow",
        choices=("auto", "cpu", "cuda", "tensorrt"),
        default="auto",
        help="What computes the FP32 reference: ONNX Runtime on the CPU or on the GPU (cuda), or TensorRT in FP32 "
        "without TF32. auto (default): cuda where onnxruntime-gpu and a GPU are there, else cpu",
    )
    add(
        "--trt-allow-unlisted",
        action="store_true",
        help="Load engine files that engines.sha256 beside the baselines does not list. Engines are executable code",
    )
    add(
        "--trt-update-baselines",
        action="store_true",
        help="Record baselines instead of comparing: adds a run to timing baselines, replaces structure "
        "baselines. Alias: --update-baselines",
    )
    add(
        "--trt-rebaseline",
        action="store_true",
        help="Record baselines after an intended change: as --trt-update-baselines, but timing baselines start anew "
        "with this run",
    )
    add(
        "--trt-prune-baselines",
        action="store_true",
        help="Delete the baselines that the report calls obsolete",
    )
    add(
        "--trt-baseline-dir",
        metavar="DIR",
        help="Folder of baselines. Default: ini trt_baseline_dir, or 'baselines'",
    )
    add(
        "--trt-timing",
        choices=("gate", "report", "off"),
        default="gate",
        help="gate (default): slower fails; report: slower is only shown; off: tests that measure are skipped",
    )
    add(
        "--trt-timing-processes",
        action="store_true",
        help="Measure every timing session in a fresh process",
    )
    add(
        "--trt-cuda-graph",
        action="store_true",
        help="Time the whole engine launched as a CUDA graph (layers are measured without)",
    )
    add("--trt-require-gpu", action="store_true", help="Fail instead of skipping where a GPU is missing")
    add(
        "--trt-report",
        metavar="FILE.html",
        help="Write a report in one HTML file, readable offline: layers against the baseline, outputs, structure, log",
    )
    add(
        "--trt-summary",
        metavar="FILE.md",
        help="Append a summary in Markdown; in GitHub Actions: --trt-summary=$GITHUB_STEP_SUMMARY",
    )
    add(
        "--trt-json",
        metavar="FILE",
        help="Write all verdicts and findings as JSON, and what the runtimes said beside it as JSON Lines",
    )
    add(
        "--trt-metrics",
        metavar="FILE.prom",
        help="Write the run as Prometheus metrics, for node_exporter's textfile collector",
    )
    add(
        "--trt-push-gateway",
        metavar="URL",
        help="Push the run's metrics to a Prometheus push gateway; one that is down is a warning. A group of its own: "
        "http://HOST:9091/metrics/job/JOB/LABEL/VALUE",
    )
    add(
        "--trt-log-level",
        choices=("warning", "info", "verbose"),
        default="info",
        help="What is kept of the runtimes' logs. Default: info; verbose builds engines anew, once",
    )
    add(
        "--trt-no-redaction",
        action="store_true",
        help="Leave user names, home folders, hosts, addresses and secrets in what is reported of logs",
    )
    add(
        "--trt-history",
        metavar="URL",
        help="Keep every run in a database, such as sqlite:///history.db or postgresql://USER:PASSWORD@HOST/NAME; "
        "'trtgray history' reads it. A run that cannot be stored waits in the cache folder for the next one",
    )


def add_ini(parser: pytest.Parser) -> None:
    """Declare everything in the ini file."""
    for name, kind, default, text in INI:
        parser.addini(name, text, type=kind, default=default)


def add_update_alias(parser: pytest.Parser) -> None:
    """``--update-baselines``, where nobody else has it: several projects' conftest files do."""
    name = "--update-baselines"
    if _is_free(parser, name):
        parser.getgroup("trtgray").addoption(
            name, action="store_true", dest="trt_update_baselines", help="Short for --trt-update-baselines"
        )


def _is_free(parser: pytest.Parser, name: str) -> bool:
    # pytest only notices a name that is taken twice when it builds the parser, and then stops.
    try:
        _, unknown = parser.parse_known_and_unknown_args([name])
    except (pytest.UsageError, SystemExit):
        return False  # taken, and it wants a value
    return name in unknown
