"""The text of a JSON file that somebody's tool wrote: any Unicode encoding, plain or gzipped, or standard input."""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pytest_trtgray.errors import InterchangeError

MAX_BYTES = 1 << 31
"""Of the text, unpacked; parsing takes a few times as much memory."""
STDIN = "-"
AGAIN = "Export it again, and wait until the program has ended."

# what C++ prints for numbers that JSON does not have, on Linux and on Windows; strings first, to leave them alone
_NO_NUMBER = re.compile(
    r'"(?:[^"\\]|\\.)*"|(?<![\w.])[-+]?(?:nan(?:\([a-z]*\))?|inf(?:inity)?|1\.#\w+)(?![\w.])', re.IGNORECASE | re.DOTALL
)


def read_text(path: Path) -> str:
    """A file's text; ``-`` is standard input. Bytes that are no UTF-8 become surrogate escapes.

    Raises:
        InterchangeError: it cannot be read, is no text, is damaged, or is larger than :data:`MAX_BYTES`.
    """
    try:
        data = _unpacked(sys.stdin.buffer if str(path) == STDIN else io.BytesIO(path.read_bytes()))
    except OSError as error:  # gzip's own errors are among them
        raise InterchangeError(path, error.strerror or str(error), "Give a file that can be read.") from error
    except (EOFError, zlib.error) as error:
        raise InterchangeError(path, "is a damaged or cut off gzip file", AGAIN) from error
    if len(data) > MAX_BYTES:
        raise InterchangeError(path, f"is larger than {MAX_BYTES:,} bytes", "Export fewer iterations.")
    encoding = json.detect_encoding(data)
    try:
        # names of layers are bytes to TensorRT, and need not be UTF-8
        text = data.decode(encoding, "surrogateescape" if encoding.startswith("utf-8") else "strict")
    except UnicodeDecodeError as error:
        raise InterchangeError(path, f"looks like {encoding} and is not: {error.reason}", AGAIN) from error
    if not text.strip():
        raise InterchangeError(path, "is empty", AGAIN)
    if "\0" in text[:4096]:
        raise InterchangeError(path, "is no text", "Engines, models and archives cannot be imported, only exports.")
    return text


def parse_json(path: Path, text: str) -> Any:
    """JSON, where ``nan`` and ``inf`` in C++'s spelling are ``None`` and control characters may stand in names.

    Raises:
        InterchangeError: it is no JSON; says where it ends to be, and whether it is cut off.
    """
    try:
        return _loaded(text)
    except ValueError:
        pass
    except RecursionError as error:
        raise InterchangeError(path, "is nested too deeply", AGAIN) from error
    try:
        return _loaded(_NO_NUMBER.sub(lambda found: found[0] if found[0][0] == '"' else "null", text))
    except ValueError as error:
        raise broken_json(path, text, error) from error


def broken_json(path: Path, text: str, error: ValueError) -> InterchangeError:
    """Why a file is no JSON."""
    if is_cut_off(text):
        return InterchangeError(path, "is cut off: its last bracket is missing", AGAIN)
    return InterchangeError(path, f"is no valid JSON: {error}", AGAIN)


def is_cut_off(text: str) -> bool:
    """Whether the bracket that a JSON text begins with is not closed by its last character."""
    plain = text.strip("\ufeff \t\r\n")
    return {"[": "]", "{": "}"}.get(plain[:1], "") != plain[-1:]


def dict_rows(path: Path, data: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The objects of a list, numbered from 1.

    Raises:
        InterchangeError: it is no list, or an entry is no object.
    """
    if not isinstance(data, list):
        raise InterchangeError(path, f"is a JSON {_called(data)}, wanted a list", AGAIN)
    for number, row in enumerate(data, start=1):
        if not isinstance(row, Mapping):
            raise InterchangeError(
                path, f"entry {number} is a {_called(row)}, wanted an object: {str(row)[:60]!r}", AGAIN
            )
        yield number, row


def number_in(row: Mapping[str, Any], key: str, wrong: Callable[[str], InterchangeError]) -> float | None:
    """A number of an entry that is not negative; ``None`` where there is none, or NaN.

    Args:
        row: of a list.
        key: of the number, which may stand there as text.
        wrong: makes the error from what is wrong.

    Raises:
        InterchangeError: it is no number, infinite or negative.
    """
    value = row.get(key)
    if value is None:
        return None
    try:
        number = float(str(value) if isinstance(value, bool) else value)
    except (TypeError, ValueError, OverflowError):
        raise wrong(f"{key} is {str(value)[:40]!r}, which is no number") from None
    if number != number:
        return None
    if number < 0 or number == float("inf"):
        raise wrong(f"{key} is {number:g}")
    return number


def _unpacked(stream: Any) -> bytes:
    buffered = io.BufferedReader(stream)
    packed = buffered.peek(2)[:2] == b"\x1f\x8b"
    source: Any = gzip.GzipFile(fileobj=buffered) if packed else buffered
    found: bytes = source.read(MAX_BYTES + 1)
    return found


def _loaded(text: str) -> Any:
    # NaN and Infinity, in the spelling of Python and of Polygraphy
    return json.loads(text, strict=False, parse_constant=lambda _: None)


def _called(value: Any) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "truth value", type(None): "null"}
    return names.get(type(value), "number")
