"""Baseline files: ``<folder>/<identity>/<test>.json``, one a test, data only, written atomically.

A file is never deleted or replaced unless that was asked for, and a file that cannot be understood is never
touched: it may be a merge conflict, a newer format, or somebody's only copy.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_trtgray.baselines.identity import Identity, slug
from pytest_trtgray.errors import BaselineError
from pytest_trtgray.files import dump_json, lock_for, locked, write_atomically

FORMAT = "trtgray-baseline"
SCHEMA = 1
_MAX_NAME = 150


@dataclass(frozen=True)
class BaselineFile:
    """The content of one file.

    Attributes:
        test: the test's node id.
        engine: name of the engine it was recorded with (of ``--trt-engine``), empty if none.
        identity: the hardware and runtime that it belongs to.
        entries: by kind: ``structure``, ``timing <shapes> <method>``, ``first-calls <shapes> -> … <method>``.
    """

    test: str
    engine: str
    identity: Identity
    entries: Mapping[str, Any] = field(default_factory=dict)

    def with_entry(self, key: str, value: Mapping[str, Any]) -> BaselineFile:
        """A copy with one entry replaced or added."""
        return replace(self, entries={**self.entries, key: value})


class BaselineStore:
    """A folder of baselines.

    Args:
        root: the folder; created with the first baseline.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, identity: Identity, test: str) -> Path:
        """Where the baseline of a test lies, whether it exists or not."""
        return self._path_in(self.root / slug(identity), test)

    def load(self, identity: Identity, test: str) -> BaselineFile | None:
        """The baseline of a test, ``None`` if there is none.

        Raises:
            BaselineError: it exists and cannot be used; says why and what to do.
        """
        path = self.path(identity, test)
        return read_file(path) if path.exists() else None

    def update(
        self, identity: Identity, test: str, engine: str, change: Callable[[BaselineFile], BaselineFile]
    ) -> Path:
        """Change a test's baseline under a lock, so that two processes lose nothing.

        Args:
            identity: of the baseline.
            test: node id.
            engine: name of the engine.
            change: receives what is there (or an empty file) and returns what shall be.

        Raises:
            BaselineError: what is there cannot be understood, or the folder cannot be written.
        """
        # tests with one file name share a lock
        lock = lock_for(f"{self.root.resolve()}/{slug(identity)}/{file_stem(test)}")
        path = self.root / slug(identity)
        try:
            with locked(lock):
                path = self.path(identity, test)
                old = read_file(path) if path.exists() else None
                new = change(old or BaselineFile(test, engine, dict(identity)))
                write_atomically(path, encode(new))
        except OSError as error:
            raise BaselineError(
                path,
                f"the baseline cannot be written: {error.strerror or error}",
                "Make the folder writable, free some space, or choose another with --trt-baseline-dir.",
            ) from error
        return path

    def others(self, test: str, identity: Identity) -> list[str]:
        """Names of other identities that have a baseline for this test."""
        return sorted(
            folder.name
            for folder in self._folders()
            if folder.name != slug(identity) and _peek_test(self._path_in(folder, test)) == test
        )

    def files(self) -> Iterator[Path]:
        """All baseline files."""
        for folder in self._folders():
            yield from sorted(folder.glob("*.json"))

    def delete(self, path: Path) -> None:
        """Remove one baseline, and its folder if that was the last.

        Raises:
            BaselineError: it cannot be removed.
        """
        try:
            path.unlink()
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
        except OSError as error:
            raise BaselineError(path, f"cannot be removed: {error.strerror or error}") from error

    def _path_in(self, folder: Path, test: str) -> Path:
        # Two node ids may make the same name (a.b and a/b); the second to come got a hash, and keeps it.
        hashed = folder / f"{file_stem(test)}-{hashlib.sha256(test.encode()).hexdigest()[:8]}.json"
        if hashed.exists():
            return hashed
        plain = folder / f"{file_stem(test)}.json"
        return hashed if plain.exists() and _peek_test(plain) not in (None, test) else plain

    def _folders(self) -> list[Path]:
        return sorted(folder for folder in self.root.iterdir() if folder.is_dir()) if self.root.is_dir() else []


def encode(file: BaselineFile) -> bytes:
    """The file's bytes; ``sha256`` covers everything else in it."""
    content = {
        "format": FORMAT,
        "schema": SCHEMA,
        "test": file.test,
        "engine": file.engine,
        "identity": dict(file.identity),
        "entries": dict(file.entries),
    }
    return dump_json({**content, "sha256": hashlib.sha256(dump_json(content)).hexdigest()})


def read_file(path: Path) -> BaselineFile:
    """Read and check one baseline file.

    Raises:
        BaselineError: unreadable, no JSON, a merge conflict, another or newer format, or changed by hand.
    """
    restore = _restore(path)
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise BaselineError(path, "the baseline is not text", restore) from error
    except OSError as error:
        raise BaselineError(path, f"the baseline cannot be read: {error.strerror}") from error
    if re.search(r"^(<{7}|>{7}) ", text, re.MULTILINE):
        raise BaselineError(
            path,
            "the baseline has unresolved merge conflicts",
            "Take one side (git checkout --ours or --theirs), then run the test; do not mix runs by hand.",
        )
    try:
        data = json.loads(text)
    except ValueError as error:
        raise BaselineError(path, f"the baseline is not valid JSON: {error}", restore) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BaselineError(path, "is not a baseline of pytest-trtgray", restore)
    schema = data.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise BaselineError(
            path,
            f"the baseline has schema {schema}; this version of pytest-trtgray reads up to {SCHEMA}",
            "Upgrade: pip install -U pytest-trtgray.",
        )
    stored = data.pop("sha256", None)
    try:
        actual = hashlib.sha256(dump_json(data)).hexdigest()
        file = BaselineFile(
            test=str(data["test"]),
            engine=str(data["engine"]),
            identity={str(key): str(value) for key, value in data["identity"].items()},
            entries=dict(data["entries"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(path, error) from error
    if stored != actual:
        raise BaselineError(
            path,
            "the baseline was changed by hand: its checksum does not fit",
            restore + " Limits belong in the test (trt_timing) or the ini file, not in the baseline.",
        )
    return file


def damaged(path: Path, error: Exception) -> BaselineError:
    """What to raise where a file was read and its content makes no sense."""
    return BaselineError(path, f"the baseline is damaged: {error!r}", _restore(path))


def _restore(path: Path) -> str:
    return f"Restore it (git checkout -- {path.name}), or delete it and record it again with --update-baselines."


def file_stem(test: str) -> str:
    """A file name for a node id.

    >>> file_stem("tests/test_net.py::TestFast::test_layers[resnet50]")
    'tests.test_net.TestFast.test_layers-resnet50'
    """
    text = re.sub(r"\.py(?=::|$)", "", test)
    text = text.replace("::", ".").replace("/", ".").replace("[", "-").rstrip("]")
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
    if len(stem) > _MAX_NAME:
        stem = f"{stem[:_MAX_NAME]}-{hashlib.sha256(test.encode()).hexdigest()[:8]}"
    return stem or "test"


def _peek_test(path: Path) -> str | None:
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return data.get("test") if isinstance(data, dict) else None
