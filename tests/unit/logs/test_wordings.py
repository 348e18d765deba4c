"""The same diagnosis from every release's wording and from every producer that repeats it."""

from __future__ import annotations

import io

import pytest

from pytest_trtgray.logs.diagnosis import diagnose
from pytest_trtgray.logs.log import read
from pytest_trtgray.logs.ruleset import builtin_rules
from tests.recordings import DATA

WORDINGS = [
    (code, message.replace("\\n", "\n"))
    for code, message in (
        line.split("\t")
        for line in (DATA / "log_wordings.tsv").read_text("utf-8").splitlines()
        if not line.startswith("#")
    )
]
WARNINGS = ("PREC_", "OK_", "PERF_", "QUANT_MISSING", "ENV_LIB", "DLA_FALLBACK", "PARSE_OLD")
ORT = "2023-02-02 10:00:01.000000000 [{letter}:onnxruntime:Default, tensorrt_execution_provider.h:73 log] "

# How each producer begins TensorRT's message: of an error, of a warning.
PREFIXES = {
    "trt.Logger": ("[11/21/2026-07:33:23] [TRT] [E] ", "[11/21/2026-07:33:23] [TRT] [W] "),
    "trt.Logger 7": ("[TensorRT] ERROR: ", "[TensorRT] WARNING: "),
    "trtexec": ("[11/21/2026-07:33:23] [E] [TRT] ", "[11/21/2026-07:33:23] [W] [TRT] "),
    "polygraphy": ("[E] ", "[W] "),
    "onnxruntime": (
        ORT.format(letter="E") + "[2023-02-02 09:00:01   ERROR] ",
        ORT.format(letter="W") + "[2023-02-02 09:00:01 WARNING] ",
    ),
    "triton": ("E0202 10:00:01.100000 1 logging.cc:43] ", "W0202 10:00:01.100000 1 logging.cc:46] "),
    "deepstream": ("ERROR: [TRT]: ", "WARNING: [TRT]: "),
    "torch_tensorrt": ("ERROR: [Torch-TensorRT] - ", "WARNING: [Torch-TensorRT] - "),
    "tensorrt_llm": ("[TensorRT-LLM][ERROR] ", "[TensorRT-LLM][WARNING] "),
    "jetson": ("[TRT]    ", "[TRT]    "),
}


@pytest.mark.parametrize("producer", PREFIXES)
def test_a_message_is_known_from_every_release_and_producer(producer: str) -> None:
    misses = []
    for code, message in WORDINGS:
        prefix = PREFIXES[producer][code.startswith(WARNINGS)]
        log = read(io.BytesIO(f"{prefix}{message}\n".encode()))
        found = diagnose(log.records, log.events).code
        if found != code:
            misses.append((code, found, message))

    assert misses == []


def test_every_family_of_codes_is_worded() -> None:
    families = {rule.code.split("_")[0] for rule in builtin_rules().rules if rule.code} - {"ACC", "CAPTURE", "TIMING"}
    worded = {code.split("_")[0] for code, _ in WORDINGS}
    assert families - worded == {"PLUGIN"}
