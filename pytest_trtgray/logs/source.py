"""The text of a log file: plain, gzip or UTF-16, in blocks of whole lines."""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pytest_trtgray.errors import LogError

BLOCK_BYTES = 1 << 18
MAX_LINE_BYTES = 1 << 22
"""Of a longer line only the number of the other bytes is kept."""

_NOT_A_LOG = {
    b"ftrt": "a TensorRT engine",
    b"ptrt": "a TensorRT engine",
    b"vtrt": "an engine of TensorRT for RTX",
    b"PK\x03\x04": "a zip archive",
    b"\x7fELF": "a library or a program",
    b"\x89PNG": "a picture",
}
_REMEDY = "Give a log: the text that a build or a run printed, plain or gzipped."


def text_blocks(source: str | Path | BinaryIO) -> Iterator[str]:
    """Whole lines without the last line break, bytes that are no UTF-8 as surrogate escapes.

    A damaged end of a gzip file is the end.

    Raises:
        LogError: the file cannot be read, or is not text.
    """
    if isinstance(source, (str, Path)):
        try:
            with Path(source).open("rb") as stream:
                yield from _text(stream, source)
        except OSError as error:
            raise LogError(source, error.strerror or str(error), "Give the path of a log file.") from error
    else:
        yield from _text(source, getattr(source, "name", "stream"))


def _text(stream: BinaryIO, name: object) -> Iterator[str]:
    chunks = _plain(stream)
    chunk = next(chunks, b"")
    _require_text(name, chunk)
    rest, dropped = b"", 0
    while chunk:
        cut = chunk.rfind(b"\n")
        if dropped or (cut < 0 and len(rest) >= MAX_LINE_BYTES):
            end = chunk.find(b"\n")
            dropped += len(chunk) if end < 0 else end
            if end >= 0:
                yield _cut_line(rest, dropped)
                rest, dropped = b"", 0
                chunk = chunk[end + 1 :] or next(chunks, b"")
                continue
        elif cut < 0:
            rest += chunk
        else:
            yield (rest + chunk[:cut]).decode("utf-8", "surrogateescape")
            rest = chunk[cut + 1 :]
        chunk = next(chunks, b"")
    if rest:
        yield _cut_line(rest, dropped)


def _cut_line(line: bytes, dropped: int) -> str:
    text = line.decode("utf-8", "surrogateescape")
    return f"{text}... ({dropped} more bytes)" if dropped else text


def _plain(stream: BinaryIO) -> Iterator[bytes]:
    """The bytes of the text, in UTF-8 or what the log holds instead."""
    chunks = iter(lambda: stream.read(BLOCK_BYTES), b"")
    first = next(chunks, b"")
    chunks = _with(first, chunks)
    if first[:2] == b"\x1f\x8b":
        chunks = _unzipped(chunks)
        first = next(chunks, b"")
        chunks = _with(first, chunks)
    if first[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):  # PowerShell redirects like this
        return _from_utf16(chunks)
    if first[:3] == codecs.BOM_UTF8:
        next(chunks)
        return _with(first[3:], chunks)
    return chunks


def _with(first: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from chunks


def _unzipped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    unzip = zlib.decompressobj(wbits=31)
    try:
        for chunk in chunks:
            while chunk:
                if unzip.eof:  # files that were appended to each other
                    unzip = zlib.decompressobj(wbits=31)
                if plain := unzip.decompress(chunk, BLOCK_BYTES):
                    yield plain
                chunk = unzip.unused_data if unzip.eof else unzip.unconsumed_tail
    except zlib.error:
        return


def _from_utf16(chunks: Iterator[bytes]) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder("utf-16")("replace")
    for chunk in chunks:
        if plain := decoder.decode(chunk).encode("utf-8", "replace"):
            yield plain


def _require_text(name: object, sample: bytes) -> None:
    for magic, what in _NOT_A_LOG.items():
        if sample.startswith(magic):
            raise LogError(name, f"is {what}, not a log", _REMEDY)
    sample = sample[:65_536]
    control = len(sample) - len(sample.translate(None, bytes((*range(7), *range(14, 27), 28, 29))))
    if control > len(sample) // 10:
        raise LogError(name, "is not text", _REMEDY)
