"""Files that are whole or absent: atomic writes, content hashes, locks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_trtgray.errors import TrtGrayError

LOCK_TIMEOUT_S = 3600.0
"""A large engine builds for tens of minutes; a second process waits that long for the first."""


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write ``content`` so that readers see the old file or the new one, never a part.

    A temporary file in the same folder is written, flushed to the disk and renamed; on any failure it is
    removed and the old file stays.

    Args:
        path: its folder is created if needed.
        content: of the file.
        durable: wait for the disk. Without, a machine that loses power may keep a damaged file, which only suits a
            cache that notices damage.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        # mkstemp makes files private; a baseline is as readable as any other file of the checkout.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        _sync_folder(path.parent)


def write_output(path: Path | str, content: bytes) -> None:
    """Write the file that a command was asked for, whole or not at all.

    Raises:
        TrtGrayError: it cannot be written.
    """
    try:
        write_atomically(Path(path), content)
    except OSError as error:
        raise TrtGrayError(
            path, f"cannot be written: {error.strerror or error}", "Choose another file, or free some room."
        ) from error


def dump_json(data: Any) -> bytes:
    """UTF-8 JSON with sorted keys and a final newline; rejects NaN and infinities.

    Lists of plain numbers and strings stay on one line: a baseline is read and reviewed as a diff.
    """
    return (_render(data, 0) + "\n").encode()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file ``path``, which is created and left in place."""
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(path), timeout=LOCK_TIMEOUT_S):
        yield


def lock_for(place: Path | str) -> Path:
    """A lock file for a file or folder that is checked in, where a lock has no business: outside of it."""
    token = hashlib.sha256(str(place).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / "trtgray-locks" / f"{token}.lock"


def from_here(path: Path) -> Path:
    """The path as a reader in the current folder writes it: relative, where it lies below."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def _umask() -> int:
    # The umask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can open a folder
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _render(data: Any, depth: int) -> str:
    if isinstance(data, dict) and data:
        pad = "  " * (depth + 1)
        items = ",\n".join(
            f"{pad}{_render_flat(str(key))}: {_render(data[key], depth + 1)}" for key in sorted(data, key=str)
        )
        return "{\n" + items + "\n" + "  " * depth + "}"
    if isinstance(data, list | tuple) and any(isinstance(item, dict | list | tuple) for item in data):
        pad = "  " * (depth + 1)
        flat = all(_is_flat(item) for item in data)
        render = _render_flat if flat else (lambda item: _render(item, depth + 1))
        return "[\n" + ",\n".join(f"{pad}{render(item)}" for item in data) + "\n" + "  " * depth + "]"
    return _render_flat(data)


def _render_flat(data: Any) -> str:
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a name that was no UTF-8; as an escape it can be read back
        text = json.dumps(data, sort_keys=True, allow_nan=False)
    return text


def _is_flat(item: Any) -> bool:
    """A table row: a small object of scalars and lists of scalars, kept on one line."""
    if isinstance(item, dict):
        return all(not isinstance(value, dict) for value in item.values())
    return True
