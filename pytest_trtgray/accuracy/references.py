"""Outputs of FP32 references, kept from run to run: the reference of the same model and input is always the same."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.engines.cache import prepare_folder
from pytest_trtgray.files import write_atomically

MAX_ENTRY_BYTES = 64 << 20
MAX_BYTES = 1 << 30
"""Of all entries together; the ones that were not used for the longest time go first."""

Outputs = dict[str, NDArray[Any]]


class ReferenceCache:
    """A folder of outputs, each found by what it was computed from.

    It saves time and nothing else: an entry that cannot be read or written is computed.

    Args:
        folder: created when first needed.
        max_bytes: of all entries together.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self._max_bytes = max_bytes

    def get(self, key: str, compute: Callable[[], Outputs]) -> Outputs:
        """The outputs for ``key``, computed if they are not there.

        Args:
            key: hexadecimal digest of everything that the outputs depend on.
            compute: its errors are its own.
        """
        path = self.folder / f"{key}.npz"
        found = _read(path)
        if found is None:
            found = compute()
            self._keep(path, found)
        return found

    def _keep(self, path: Path, outputs: Mapping[str, NDArray[Any]]) -> None:
        size = sum(array.nbytes for array in outputs.values())
        # types that numpy's format does not know would be pickled
        if size > min(MAX_ENTRY_BYTES, self._max_bytes) or any(array.dtype.kind in "OV" for array in outputs.values()):
            return
        with contextlib.suppress(OSError):
            prepare_folder(self.folder)
            buffer = io.BytesIO()
            # a number before each name: it then collides with none of savez' own arguments
            numbered: dict[str, Any] = {f"{index}:{name}": outputs[name] for index, name in enumerate(outputs)}
            np.savez(buffer, **numbered)
            # the archive has checksums; to wait for the disk takes longer than most models
            write_atomically(path, buffer.getvalue(), durable=False)
            self._trim()

    def _trim(self) -> None:
        entries = []
        for path in self.folder.glob("*.npz"):
            with contextlib.suppress(OSError):  # another worker trims too
                state = path.stat()
                entries.append((state.st_mtime_ns, state.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self._max_bytes:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size


def _read(path: Path) -> Outputs | None:
    try:
        # numpy leaves a damaged file open that it opened itself
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            found = {name.partition(":")[2]: stored[name] for name in stored.files}
        os.utime(path)
    except Exception:  # numpy and zipfile raise a dozen kinds of errors on a damaged file
        return None
    return found
