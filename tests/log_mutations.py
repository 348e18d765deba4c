"""The same log of another model, machine and release: other names, numbers, places in the source, producers."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

_SOURCE_LINE = re.compile(r"(?<=\.cpp:)\d+|(?<=\.hpp:)\d+|(?<=\.h:)\d+|(?<=\.cc:)\d+|(?<=::)\d+(?=\])")
_HEX = re.compile(r"0x[0-9a-f]{4,}")
_LONG_NUMBER = re.compile(r"(?<![\w.#/:-])\d{3,}(?![\w.:/-])")
_NAME = re.compile(r"(?<![\w./:])/?(?:[A-Za-z_][\w.]*/)+[A-Za-z_][\w.]*")
_FILE = re.compile(r"(?<![\w./])[\w./-]+\.(?:onnx|engine|bin|plan)\b")
_KEPT_NAME = re.compile(
    r"^/_src/|^(?:CPU/GPU|QuantizeLinear/Deq|cuBLAS/|offset/length|Format/Data|I/O|and/or|then/else|N/A|function/op)"
)
_CLOCK = re.compile(r"\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\]")
_WORDS = ("tower", "head_2", "proj", "stem", "blk7", "m", "encoder.3", "Mixer", "out_fc", "gate")

_LINE = re.compile(r"^\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\] \[TRT\] \[(?P<letter>[FEWIV])\] ", re.MULTILINE)
_WORD = {"F": "INTERNAL ERROR", "E": "ERROR", "W": "WARNING", "I": "INFO", "V": "VERBOSE"}

PRODUCERS: dict[str, Callable[[str], str]] = {
    "trtexec": lambda letter: f"[02/02/2025-10:00:00] [{letter}] [TRT] ",
    "old trt.Logger": lambda letter: f"[TensorRT] {_WORD[letter]}: ",
    "triton": lambda letter: f"{'E' if letter == 'F' else letter}0202 10:00:01.100000 1 logging.cc:43] ",
    "deepstream": lambda letter: f"{_WORD[letter].replace('VERBOSE', 'DEBUG')}: [TRT]: ",
}


def renamed(text: str, seed: int) -> str:
    """Other names of nodes and files, consistently; other numbers, tactics, clocks and places in the source."""
    rng = random.Random(seed)
    names: dict[str, str] = {}

    def other_name(match: re.Match[str]) -> str:
        name = match[0]
        if _KEPT_NAME.match(name):
            return name
        if name not in names:
            parts = [rng.choice(_WORDS) for _ in range(rng.randint(1, 4))]
            names[name] = ("/" if name.startswith("/") else "") + "/".join([*parts, f"n{len(names)}"])
        return names[name]

    def other_file(match: re.Match[str]) -> str:
        suffix = match[0].rsplit(".", 1)[1]
        return f"/srv/{rng.choice(_WORDS)}/net_{rng.randint(0, 99)}.{suffix}"

    text = _CLOCK.sub("[02/29/2028-23:59:59]", text)
    text = _FILE.sub(other_file, text)
    text = _NAME.sub(other_name, text)
    text = _SOURCE_LINE.sub(lambda match: str(rng.randint(1, 9999)), text)
    text = _HEX.sub(lambda match: f"0x{rng.getrandbits(64):016x}", text)
    return _LONG_NUMBER.sub(lambda match: str(rng.randint(10 ** (len(match[0]) - 1), 10 ** len(match[0]) - 1)), text)


def from_another(text: str, producer: str) -> str:
    """A log of ``trt.Logger`` as another producer prints the same messages; unchanged if it is of another."""
    return _LINE.sub(lambda match: PRODUCERS[producer](match["letter"]), text)
