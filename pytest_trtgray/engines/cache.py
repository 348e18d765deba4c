"""Engines that were built once: found again by content, whole or absent, built by one process at a time."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_trtgray.errors import EngineError
from pytest_trtgray.files import dump_json, locked, sha256_file, write_atomically

SCHEMA = 2


@dataclass(frozen=True)
class CachedEngine:
    """An engine and what its build told.

    Attributes:
        path: the engine file.
        manifest: facts kept beside it: layers, memory, log records, the request that made it.
        was_cached: whether it was there already.
    """

    path: Path
    manifest: Mapping[str, Any]
    was_cached: bool


class EngineCache:
    """A folder of engines.

    Args:
        folder: created when first needed, with a ``.gitignore`` of its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(
        self,
        request: Mapping[str, Any],
        build: Callable[[], tuple[bytes, Mapping[str, Any]]],
        suffix: str = ".engine",
    ) -> CachedEngine:
        """The engine for ``request``, built now if it is not there.

        Args:
            request: everything that the engine depends on (model hash, profiles, flags, flavour, version,
                target); builtins only.
            build: returns the engine's bytes and facts to keep beside it; its errors are its own. ``files`` among the
                facts names files that it wrote into the folder and without which the engine is not whole.
            suffix: of the file.

        Raises:
            EngineError: the folder cannot be written.
        """
        path = self.path(request, suffix)
        with contextlib.ExitStack() as stack:
            with self._explained():
                prepare_folder(self.folder)
                stack.enter_context(locked(path.with_suffix(".lock")))
                known = self._read(path)
            if known is not None:
                return CachedEngine(path, known, was_cached=True)
            content, facts = build()
            manifest = {
                **facts,
                "schema": SCHEMA,
                "request": dict(request),
                "sha256": hashlib.sha256(content).hexdigest(),
                "engine_bytes": len(content),
            }
            with self._explained():
                write_atomically(path, content)
                # The manifest comes last: an engine without one counts as not there.
                write_atomically(path.with_suffix(".json"), dump_json(manifest))
        return CachedEngine(path, manifest, was_cached=False)

    def path(self, request: Mapping[str, Any], suffix: str = ".engine") -> Path:
        """Where the engine for ``request`` is kept; files beside it have its stem."""
        key = hashlib.sha256(json.dumps({"schema": SCHEMA, **request}, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{key[:32]}{suffix}"

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise EngineError(
                self.folder,
                f"the engine cache cannot be used: {error.strerror or error}",
                "Set the ini option trt_cache_dir to a folder that can be written and has room.",
            ) from error

    def _read(self, path: Path) -> Mapping[str, Any] | None:
        """The manifest of a whole, unchanged engine; ``None`` for anything else, which is built anew."""
        try:
            manifest = json.loads(path.with_suffix(".json").read_text("utf-8"))
            found = sha256_file(path)
        except (OSError, ValueError):
            return None
        if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
            return None
        is_whole = all((self.folder / name).is_file() for name in manifest.get("files", ()))
        return manifest if is_whole and manifest.get("sha256") == found else None


def prepare_folder(folder: Path) -> None:
    """A folder for what can be made again, which git leaves alone.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        write_atomically(ignore, b"# Made by pytest-trtgray; safe to delete.\n*\n")
