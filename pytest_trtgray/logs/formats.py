"""How each producer prefixes a line of its log, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_trtgray.logs.records import LogSeverity

# One letter per severity: TensorRT's loggers and samples, ONNX Runtime, glog (Triton), Polygraphy. Polygraphy says
# TensorRT's INFO as V and VERBOSE as X; F is TensorRT's INTERNAL_ERROR, others' fatal; ! is Polygraphy's critical.
_LETTERS: Mapping[bytes, LogSeverity] = {
    b"F": "internal_error",
    b"E": "error",
    b"W": "warning",
    b"I": "info",
    b"V": "verbose",
}
_POLYGRAPHY: Mapping[bytes, LogSeverity] = {
    **_LETTERS,
    b"!": "error",
    b"V": "info",
    b"X": "verbose",
    b"S": "verbose",
    b"U": "verbose",
}
_WORDS: Mapping[bytes, LogSeverity] = {
    b"INTERNAL ERROR": "internal_error",
    b"INTERNAL_ERROR": "internal_error",
    b"BUG": "internal_error",
    b"FATAL": "internal_error",
    b"CRITICAL": "error",
    b"ERROR": "error",
    b"ERR": "error",
    b"WARNING": "warning",
    b"WARN": "warning",
    b"INFO": "info",
    b"FIXME": "info",
    b"DEBUG": "verbose",
    b"VERBOSE": "verbose",
    b"TRACE": "verbose",
    b"LOG": "verbose",
    b"GRAPH": "verbose",
    b"UNKNOWN": "verbose",
}
_WORD = rb"INTERNAL[ _]ERROR|ERROR|WARNING|WARN|INFO|DEBUG|VERBOSE|TRACE|FATAL|CRITICAL"
_ANSI = rb"(?:\x1b\[[0-9;]*m)?"
_SLASHED = rb"\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d"
_ISO = rb"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?Z?"


@dataclass(frozen=True)
class Format:
    """One way to begin a message.

    Attributes:
        name: of the format.
        producer: who prints it; see :class:`Record`.
        first: the bytes with which such a line may begin, a prefilter.
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
    first: bytes
    pattern: bytes
    severities: Mapping[bytes, LogSeverity]
    default: LogSeverity = "info"
    tag: str = ""
    indented: bool = False
    whole: bool = False


FORMATS: tuple[Format, ...] = (
    Format(
        "trt.Logger",
        "tensorrt",
        b"[",
        rb"\[(?P<time>" + _SLASHED + rb")\] \[(?P<tag>TRT|TRT-LLM|TRT_LLM)\] (?:\[RANK \d+\] )?\[(?P<sev>[FEWIV])\] ",
        _LETTERS,
    ),
    Format(
        "samples, TensorRT",
        "trtexec",
        b"[",
        rb"(?:\[(?P<time>" + _SLASHED + rb")\] )?\[(?P<sev>[FEWIV])\] \[(?P<tag>TRT)\] ",
        _LETTERS,
    ),
    Format("samples", "trtexec", b"[", rb"\[(?P<time>" + _SLASHED + rb")\] \[(?P<sev>[FEWIV])\] ", _LETTERS),
    Format(
        "trt.Logger up to 8.0",
        "tensorrt",
        b"[",
        rb"\[(?P<tag>TensorRT)\] (?P<sev>INTERNAL ERROR|ERROR|WARNING|INFO|VERBOSE): ",
        _WORDS,
        tag="TRT",
    ),
    Format(
        "banner",
        "trtexec",
        b"&",
        rb"&&&& (?=(?:RUNNING|PASSED|FAILED|WAIVED|TASK_\w+)\b)",
        {},
        whole=True,
    ),
    Format(
        "TensorRT-LLM",
        "tensorrt_llm",
        b"[",
        rb"\[TensorRT-LLM\](?:\[\d+\])?\[(?P<sev>" + _WORD + rb")\](?:\[\d+\])? ",
        _WORDS,
    ),
    Format(
        "Polygraphy",
        "polygraphy",
        b"[\x1b",
        _ANSI
        + rb"\[(?P<sev>[XVIWESUF!])\] (?:\((?P<time>\d\d:\d\d:\d\d(?: [AP]M)?)\) )?(?:\[(?P<src>[^\]\n]+\.py:\d+)\] )?",
        _POLYGRAPHY,
        indented=True,
    ),
    Format(
        "ONNX Runtime",
        "onnxruntime",
        b"0123456789\x1b",
        _ANSI
        + rb"(?P<time>"
        + _ISO
        + rb") \[(?P<sev>[VIWEF]):(?P<tag>onnxruntime):[^,\]\n]*, (?P<src>[^\] \n]+:\d+) (?P<func>[^\n]*?)\] "
        + rb"(?:\["
        + _ISO
        + rb" +(?P<inner>BUG|ERROR|WARNING|INFO|UNKNOWN)\] )?",
        {**_LETTERS, **_WORDS},
    ),
    Format(
        "glog",
        "triton",
        b"IWEFV",
        rb"(?P<sev>[VIWEF])(?P<time>\d{4} \d\d:\d\d:\d\d\.\d+) +(?P<thread>\d+) (?P<src>[^\] \n]+:\d+)\] ",
        _LETTERS,
    ),
    Format(
        "TensorFlow",
        "tensorflow",
        b"0123456789",
        rb"(?P<time>" + _ISO + rb"): (?P<sev>[VIWEF]) (?P<src>[^\] \n]+:\d+)\] ",
        _LETTERS,
    ),
    Format("DeepStream, TensorRT", "deepstream", b"EWIVD", rb"(?P<sev>" + _WORD + rb"): \[(?P<tag>TRT)\]: ?", _WORDS),
    Format(
        "GStreamer",
        "deepstream",
        b"0123456789",
        rb"(?P<time>\d+:\d\d:\d\d\.\d+) +(?P<thread>\d+) +0x[0-9a-f]+ +(?P<sev>ERROR|WARN|INFO|DEBUG|LOG|FIXME|TRACE) +"
        rb"(?P<tag>\S+) (?P<src>[^ :\n]+:\d+):(?P<func>[^:\n]*):(?:<[^>\n]*>)? ?",
        _WORDS,
    ),
    Format(
        "Torch-TensorRT",
        "torch_tensorrt",
        b"EWIDG",
        rb"(?P<sev>" + _WORD + rb"|GRAPH): \[(?P<tag>(?:Torch-)?TensorRT[^\]\n]*|Torch-TensorRT[^\]\n]*)\] - ",
        _WORDS,
    ),
    Format(
        "Python logging of Torch-TensorRT",
        "torch_tensorrt",
        b"EWIDC",
        rb"(?P<sev>" + _WORD + rb"):(?P<tag>torch_tensorrt[\w.]*(?: \[[^\]\n]*\])?):",
        _WORDS,
    ),
    Format("Jetson", "jetson", b"[ ", rb" ?\[(?P<tag>TRT)\] +(?:(?P<sev>" + _WORD + rb"):? +)?", _WORDS),
    Format(
        "a user's own logger, time first",
        "tensorrt",
        b"[0123456789",
        rb"\[?(?P<time>"
        + _ISO
        + rb")\]? ?(?:-|\|)? ?\[?(?P<sev>(?i:"
        + _WORD
        + rb"))\]? ?\[?(?P<tag>TRT|TensorRT)\]?:? ?(?:-|\|)? ?",
        _WORDS,
    ),
    Format(
        "a user's own logger",
        "tensorrt",
        b"EWIVDFTP[",
        rb"(?:\[?(?P<sev>" + _WORD + rb")\]?:? \[?(?P<tag>TRT|TensorRT)\]?: ?"
        rb"|PY Severity\.(?P<inner>INTERNAL_ERROR|ERROR|WARNING|INFO|VERBOSE) )",
        _WORDS,
    ),
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
    pattern: bytes
    bypasses: bool = False


BARE: tuple[Bare, ...] = (
    Bare("stderr", "error", rb"ERROR: Graph contains a cycle|Internal Error: Myelin", bypasses=True),
    Bare("stderr", "warning", rb"Unsupported ONNX data type: ", bypasses=True),
    Bare("stderr", "error", rb"\[libprotobuf (?:ERROR|FATAL)", bypasses=True),
    Bare("stderr", "warning", rb"\[libprotobuf WARNING", bypasses=True),
    Bare("stderr", "error", rb"\[ERROR\] Exception caught in ", bypasses=True),
    Bare("stderr", "warning", rb"\S+\.py:\d+: (?:\w+\.)*\w*Warning: ", bypasses=True),
    Bare("stderr", "warning", rb"<string>:\d+: \w*Warning: ", bypasses=True),
    Bare("stderr", "error", rb"Traceback \(most recent call last\):", bypasses=True),
    Bare("stderr", "error", rb"(?:Segmentation fault|Aborted|Killed|Bus error)\b", bypasses=True),
    Bare("stderr", "error", rb"terminate called |free\(\): |double free |malloc\(\): ", bypasses=True),
    Bare("onnxruntime", "error", rb"onnxruntime\.capi\.", bypasses=True),
    Bare("onnxruntime", "error", rb".{0,400}?\[ONNXRuntimeError\] : [1-9]\d* : "),
    Bare("onnxruntime", "error", rb"\[ErrorCode:\w+\] |\*{10,} ?EP Error|EP Error ", bypasses=True),
    Bare(
        "tensorrt",
        "error",
        rb"(?:\d+: )?\[[\w./\\-]+\.(?:cpp|h|hpp|cu|cc)::[^\]\n]*::\d+\] Error Code:? \d+|[\w:~<>`' -]+::\w+: Error Code:? \d+",
    ),
    Bare("deepstream", "error", rb"(?:\*\* )?ERROR: "),
    Bare("deepstream", "warning", rb"(?:\*\* )?WARNING: "),
    Bare("triton", "error", rb"(?:UNAVAILABLE|INTERNAL|INVALID_ARGUMENT|NOT_FOUND): |error: creating server"),
    Bare("stderr", "error", rb"(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception|Fail)\b(?:: |$)"),
)

# Messages with a name in them that may hold newlines: what a whole one has. A line that follows an unfinished one
# belongs to it, even if the name goes on with what looks like a prefix.
WHOLE: tuple[tuple[bytes, bytes], ...] = (
    (b"Static check for parsing node: ", rb"\[[^\[\]\n]*\]$"),
    (b"Parsing node: ", rb"\[[^\[\]\n]*\]$"),
    (b"Registering layer: ", rb" (?:for ONNX node: |required by )"),
    (b"Registering tensor: ", rb" for ONNX tensor: "),
)
