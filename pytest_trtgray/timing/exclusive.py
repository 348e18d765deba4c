"""One timing test on a GPU at a time, whichever process of this machine it belongs to."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pytest_trtgray.engines.device import pci_bus_id
from pytest_trtgray.engines.model import DeviceInfo
from pytest_trtgray.vendor import quiet_import

PATIENCE_S = 600.0
"""How long to wait for others; a run of the largest models takes a minute."""


@contextlib.contextmanager
def alone_on(device: DeviceInfo | None, patience_s: float = PATIENCE_S) -> Iterator[str]:
    """Wait until no other timing test uses the GPU; gives why that was in vain, empty if it was not.

    On a CPU nothing is waited for: whoever runs tests side by side there is told so by the verdict.
    """
    if device is None or device.kind != "gpu":
        yield ""
        return
    filelock = quiet_import("filelock")
    path = lock_file(device)
    # other users' tests wait for the same file
    lock = filelock.FileLock(str(path), timeout=patience_s, mode=0o666)
    why = ""
    try:
        lock.acquire()
    except filelock.Timeout:
        why = f"another timing test held {device.name} for {patience_s:g} s ({path})"
    except OSError as error:
        why = f"the lock of {device.name} cannot be used: {path}: {error.strerror or error}"
    try:
        yield why  # outside of the except clauses: an error of the body is no consequence of the lock
    finally:
        lock.release()  # does nothing where it is not held


def lock_file(device: DeviceInfo) -> Path:
    """One file a GPU, the same for all processes that see it under whatever number."""
    name = pci_bus_id(device.index).replace(":", "-") or str(device.index)
    return Path(tempfile.gettempdir()) / f"trtgray-gpu-{name}.lock"
