"""How each producer prefixes a line of its log, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_trtgray.logs.records import LogSeverity

# One letter per severity: TensorRT's loggers and samples, ONNX Runtime, glog (Triton), Polygraphy. Polygraphy says
# TensorRT's INFO as V and VERBOSE as X; F is TensorRT's INTERNAL_ERROR, others' fatal; ! is Polygraphy's critical.
_LETTERS: Mapping[str, LogSeverity] = {
    "F": "internal_error",
    "E": "error",
    "W": "warning",
    "I": "info",
    "V": "verbose",
}
_POLYGRAPHY: Mapping[str, LogSeverity] = {
    **_LETTERS,
    "!": "error",
    "V": "info",
    "X": "verbose",
    "S": "verbose",
    "U": "verbose",
}
_WORDS: Mapping[str, LogSeverity] = {
    "INTERNAL ERROR": "internal_error",
    "INTERNAL_ERROR": "internal_error",
    "BUG": "internal_error",
    "FATAL": "internal_error",
    "CRITICAL": "error",
    "ERROR": "error",
    "ERR": "error",
    "WARNING": "warning",
    "WARN": "warning",
    "INFO": "info",
    "FIXME": "info",
    "DEBUG": "verbose",
    "VERBOSE": "verbose",
    "TRACE": "verbose",
    "LOG": "verbose",
    "GRAPH": "verbose",
    "UNKNOWN": "verbose",
}
_WORD = r"INTERNAL[ _]ERROR|ERROR|WARNING|WARN|INFO|DEBUG|VERBOSE|TRACE|FATAL|CRITICAL"
_SPACE = r"(?: |$)"  # editors and services cut spaces from the ends of lines
_ANSI = r"(?:\x1b\[[0-9;]*m)?"
_SLASHED = r"\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d"
_ISO = r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?Z?"


@dataclass(frozen=True)
class Format:
    """One way to begin a message.

    Attributes:
        name: of the format.
        producer: who prints it; see :class:`Record`. ``other``: an application.
        first: the characters with which such a line may begin, a prefilter.
        pattern: the whole prefix, anchored by the caller. Groups: ``sev`` (severity), ``time``, ``tag``, ``inner``
            (the severity that an outer logger wraps), ``src`` (file:line), ``func``, ``thread``.
        severities: what ``sev`` and ``inner`` mean.
        default: the severity of a format that says none.
        tag: what the format says in all its lines.
        indented: whether lines that continue a message are indented, so that others do not belong to it.
        whole: whether a message is always one line.
    """

    name: str
    producer: str
    first: str
    pattern: str
    severities: Mapping[str, LogSeverity]
    default: LogSeverity = "info"
    tag: str = ""
    indented: bool = False
    whole: bool = False


FORMATS: tuple[Format, ...] = (
    Format(
        "trt.Logger",
        "tensorrt",
        "[",
        r"\[(?P<time>" + _SLASHED + r")\] \[(?P<tag>TRT)\] \[(?P<sev>[FEWIV])\]" + _SPACE,
        _LETTERS,
    ),
    Format(
        "Python's logger of TensorRT-LLM",
        "tensorrt_llm",
        "[",
        r"\[(?P<time>" + _SLASHED + r")\] \[(?P<tag>TRT-LLM)\] (?:\[RANK \d+\] )?\[(?P<sev>[FEWIV])\]" + _SPACE,
        _LETTERS,
    ),
    Format(
        "samples, TensorRT",
        "trtexec",
        "[",
        r"(?:\[(?P<time>" + _SLASHED + r")\] )?\[(?P<sev>[FEWIV])\] \[(?P<tag>TRT)\]" + _SPACE,
        _LETTERS,
    ),
    Format("samples", "trtexec", "[", r"\[(?P<time>" + _SLASHED + r")\] \[(?P<sev>[FEWIV])\]" + _SPACE, _LETTERS),
    Format(
        "trt.Logger up to 8.0",
        "tensorrt",
        "[",
        r"\[(?P<tag>TensorRT)\] (?P<sev>INTERNAL ERROR|ERROR|WARNING|INFO|VERBOSE):" + _SPACE,
        _WORDS,
        tag="TRT",
    ),
    Format(
        "banner",
        "trtexec",
        "&",
        r"&&&& (?=(?:RUNNING|PASSED|FAILED|WAIVED|TASK_\w+)\b)",
        {},
        whole=True,
    ),
    Format(
        "TensorRT-LLM",
        "tensorrt_llm",
        "[",
        r"\[TensorRT-LLM\](?:\[\d+\])?\[(?P<sev>" + _WORD + r")\](?:\[\d+\])? ",
        _WORDS,
    ),
    Format(
        "Polygraphy",
        "polygraphy",
        "[\x1b",
        _ANSI
        + r"\[(?P<sev>[XVIWESUF!])\]"
        + _SPACE
        + r"(?:\((?P<time>\d\d:\d\d:\d\d(?: [AP]M)?)\) )?(?:\[(?P<src>[^\]\n]+\.py:\d+)\] )?",
        _POLYGRAPHY,
        indented=True,
    ),
    Format(
        "ONNX Runtime",
        "onnxruntime",
        "0123456789\x1b",
        _ANSI
        + r"(?P<time>"
        + _ISO
        + r") \[(?P<sev>[VIWEF]):(?P<tag>onnxruntime):[^,\]\n]*, (?P<src>[^\] \n]+:\d+) (?P<func>[^\n]*?)\] "
        + r"(?:\["
        + _ISO
        + r" +(?P<inner>BUG|ERROR|WARNING|INFO|UNKNOWN)\] )?",
        {**_LETTERS, **_WORDS},
    ),
    Format(
        "glog",
        "triton",
        "IWEFV",
        r"(?P<sev>[VIWEF])(?P<time>\d{4} \d\d:\d\d:\d\d\.\d+) +(?P<thread>\d+) (?P<src>[^\] \n]+:\d+)\] ",
        _LETTERS,
    ),
    Format(
        "TensorFlow",
        "tensorflow",
        "0123456789",
        r"(?P<time>" + _ISO + r"): (?P<sev>[VIWEF]) (?P<src>[^\] \n]+:\d+)\] ",
        _LETTERS,
    ),
    Format("DeepStream, TensorRT", "deepstream", "EWIVD", r"(?P<sev>" + _WORD + r"): \[(?P<tag>TRT)\]: ?", _WORDS),
    Format(
        "GStreamer",
        "deepstream",
        "0123456789",
        r"(?P<time>\d+:\d\d:\d\d\.\d+) +(?P<thread>\d+) +0x[0-9a-f]+ +(?P<sev>ERROR|WARN|INFO|DEBUG|LOG|FIXME|TRACE) +"
        r"(?P<tag>\S+) (?P<src>[^ :\n]+:\d+):(?P<func>[^:\n]*):(?:<[^>\n]*>)? ?",
        _WORDS,
    ),
    Format(
        "Torch-TensorRT",
        "torch_tensorrt",
        "EWIDG",
        r"(?P<sev>" + _WORD + r"|GRAPH): \[(?P<tag>(?:Torch-)?TensorRT[^\]\n]*|Torch-TensorRT[^\]\n]*)\] - ",
        _WORDS,
    ),
    Format(
        "Python logging of Torch-TensorRT",
        "torch_tensorrt",
        "EWIDC",
        r"(?P<sev>" + _WORD + r"):(?P<tag>torch_tensorrt[\w.]*(?: \[[^\]\n]*\])?):",
        _WORDS,
    ),
    Format("Jetson", "jetson", "[ ", r" ?\[(?P<tag>TRT)\] +(?!\[[FEWIV]\] )(?:(?P<sev>" + _WORD + r"):? +)?", _WORDS),
    Format(
        "a user's own logger, time first",
        "tensorrt",
        "[0123456789",
        r"\[?(?P<time>"
        + _ISO
        + r")\]? ?(?:-|\|)? ?\[?(?P<sev>(?i:"
        + _WORD
        + r"))\]? ?\[?(?P<tag>TRT|TensorRT)\]?:? ?(?:-|\|)? ?",
        _WORDS,
    ),
    Format(
        "a user's own logger",
        "tensorrt",
        "EWIVDFTP[",
        r"(?:\[?(?P<sev>" + _WORD + r")\]?:? \[?(?P<tag>TRT|TensorRT)\]?: ?"
        r"|PY Severity\.(?P<inner>INTERNAL_ERROR|ERROR|WARNING|INFO|VERBOSE) )",
        _WORDS,
    ),
    Format(
        "spdlog",
        "other",
        "[",
        r"\[(?P<time>"
        + _ISO
        + r")\] (?:\[(?P<tag>[^\]\n]+)\] )?\[(?P<sev>(?i:"
        + _WORD
        + r"|CRITICAL))\] (?:\[(?P<src>[^\]\n]+:\d+)\] )?",
        _WORDS,
    ),
    Format(
        "Python's logging",
        "other",
        "0123456789[",
        r"\[?(?P<time>"
        + _ISO
        + r")\]?(?: -| \|)? +(?:(?P<tag>[A-Za-z_][\w.]*) +(?:- )?)?\[?(?P<sev>"
        + _WORD
        + r")\]?(?: +-| +\||:)? +",
        _WORDS,
    ),
    Format(
        "Python's logging without time", "other", "EWIDC", r"(?P<sev>" + _WORD + r"):(?P<tag>[A-Za-z_][\w.]*):", _WORDS
    ),
)

# What services put before every line, and ``docker compose``, ``journalctl``.
AROUND: tuple[str, ...] = (
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6,9}(?:Z|[+-]\d\d:\d\d) ",
    r"[A-Za-z][\w.-]*(?:[-_]\d+)? +\| ",
    r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d [\w.-]+ [\w./@-]+(?:\[\d+\])?: ",
)


@dataclass(frozen=True)
class Bare:
    """A message without prefix.

    Attributes:
        producer: who says it.
        severity: of the message; no logger said it.
        pattern: how it begins; a group ``sev`` overrides the severity.
        bypasses: whether it is known to pass by the loggers, so that it does not continue the message before it.
    """

    producer: str
    severity: LogSeverity
    pattern: str
    bypasses: bool = False


BARE: tuple[Bare, ...] = (
    Bare("stderr", "error", r"ERROR: Graph contains a cycle|Internal Error: Myelin", bypasses=True),
    # the ONNX parser up to 8.0
    Bare(
        "stderr",
        "error",
        r"ERROR: [\w./]+\.(?:cpp|hpp|h):\d+ In function |While parsing node number \d+ \[",
        bypasses=True,
    ),
    Bare("stderr", "warning", r"Unsupported ONNX data type: ", bypasses=True),
    Bare("stderr", "error", r"\[libprotobuf (?:ERROR|FATAL)", bypasses=True),
    Bare("stderr", "warning", r"\[libprotobuf WARNING", bypasses=True),
    Bare("stderr", "error", r"\[ERROR\] Exception caught in ", bypasses=True),
    Bare("stderr", "warning", r"\S+\.py:\d+: (?:\w+\.)*\w*Warning: ", bypasses=True),
    Bare("stderr", "warning", r"<string>:\d+: \w*Warning: ", bypasses=True),
    Bare("stderr", "error", r"Traceback \(most recent call last\):", bypasses=True),
    Bare("stderr", "error", r"(?:Segmentation fault|Aborted|Killed|Bus error)\b", bypasses=True),
    Bare("stderr", "error", r"terminate called |free\(\): |double free |malloc\(\): ", bypasses=True),
    Bare("onnxruntime", "error", r"onnxruntime\.capi\.", bypasses=True),
    Bare("onnxruntime", "error", r".{0,400}?\[ONNXRuntimeError\] : [1-9]\d* : "),
    Bare("onnxruntime", "error", r"\[ErrorCode:\w+\] |\*{10,} ?EP Error|EP Error ", bypasses=True),
    Bare(
        "tensorrt",
        "error",
        r"(?:\d+: )?\[[\w./\\-]+\.(?:cpp|h|hpp|cu|cc)::[^\]\n]*::\d+\] Error Code:? \d+|[\w:~<>`' -]+::\w+: "
        r"Error Code:? \d+",
    ),
    Bare("deepstream", "error", r"(?:\*\* )?ERROR: "),
    Bare("deepstream", "warning", r"(?:\*\* )?WARNING: "),
    Bare("triton", "error", r"(?:UNAVAILABLE|INTERNAL|INVALID_ARGUMENT|NOT_FOUND): |error: creating server"),
    Bare("stderr", "error", r"(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception|Fail)\b(?:: |$)"),
)
