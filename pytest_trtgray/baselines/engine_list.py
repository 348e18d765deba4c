"""Which engine files may be loaded: ``engines.sha256`` beside the baselines, in the format of ``sha256sum``.

An engine is an executable artefact, and TensorRT's own checks are no protection against one that was tampered
with. So an engine that was not built here is loaded only if its hash was listed before; the list is checked in
and reviewed with the baselines.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_trtgray.errors import BaselineError, EngineError
from pytest_trtgray.files import lock_for, locked, sha256_file, write_atomically

FILE_NAME = "engines.sha256"
_LINE = re.compile(r"(?P<escaped>\\?)(?P<digest>[0-9A-Fa-f]{64}) [ *](?P<path>.+)")
_ESCAPES = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}
_SHOWN = 12  # hexadecimal digits that a message shows of a hash
_NEAR = 3  # folders up, at most, for a relative path; further away it would differ between checkouts
_HEADING = b"# Engines that may be loaded. `sha256sum -c engines.sha256` in this folder checks those that lie here.\n"


@dataclass(frozen=True)
class EngineList:
    """The list of one baseline folder.

    Attributes:
        folder: where ``engines.sha256`` lies, or will lie with the first engine that is added.
    """

    folder: Path

    @property
    def file(self) -> Path:
        """The list, whether it exists or not."""
        return self.folder / FILE_NAME

    def is_listed(self, path: Path) -> bool:
        """Whether an engine's content is listed, under any name: engines get moved.

        Raises:
            EngineError: the engine cannot be read.
            BaselineError: the list cannot be read.
        """
        return _hash(path) in self._read().values()

    def require(self, path: Path) -> None:
        """Refuse an engine that nobody has listed.

        Raises:
            EngineError: it is not listed, has changed since, or cannot be read.
            BaselineError: the list cannot be read.
        """
        listed = self._read()
        now = _hash(path)
        if now in listed.values():
            return
        then = listed.get(self._name(path))
        if then is None and not (self.folder / path.name).exists():
            then = listed.get(path.name)  # the plain name of one that lay far away
        raise EngineError(
            path,
            f"has changed since it was listed in {self.file} (sha256 {now[:_SHOWN]}… now, {then[:_SHOWN]}… then)"
            if then
            else f"is not listed in {self.file}, and an engine is executable code",
            "If you trust where it comes from, record it with --update-baselines, "
            "or run once with --trt-allow-unlisted.",
        )

    def add(self, path: Path) -> bool:
        """List an engine as it is now, instead of what was listed under its name.

        Comments stay, above the engines. Two processes may add at the same time.

        Returns:
            whether the list changed.

        Raises:
            EngineError: the engine cannot be read.
            BaselineError: the list cannot be read or written.
        """
        digest, name = _hash(path), self._name(path)
        try:
            with locked(lock_for(self.file.resolve())):
                listed = self._read()
                if listed.get(name) == digest:
                    return False
                write_atomically(self.file, self._encode({**listed, name: digest}))
        except OSError as error:
            raise BaselineError(
                self.file,
                f"the engine list cannot be written: {error.strerror or error}",
                "Make the folder writable, free some space, or choose another with --trt-baseline-dir.",
            ) from error
        return True

    def _name(self, path: Path) -> str:
        """The path as the list has it: relative to its folder with ``/``, or the file's name if it is far away."""
        try:
            # the name that the user gave, also of a link: what it points to may be named by its hash
            relative = os.path.relpath(path.parent.resolve() / path.name, self.folder.resolve())
        except ValueError:  # another drive
            return path.name
        parts = Path(relative).parts
        return "/".join(parts) if parts.count(os.pardir) <= _NEAR else path.name

    def _lines(self) -> list[str]:
        try:
            text = self.file.read_bytes().decode("utf-8-sig", "surrogateescape")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BaselineError(self.file, f"the engine list cannot be read: {error.strerror}") from error
        # no splitlines(): it also breaks at characters that a file's name may contain
        return [line.removesuffix("\r") for line in text.split("\n")]

    def _read(self) -> dict[str, str]:
        """Hashes by path; the last line wins where a path has two."""
        listed = {}
        for number, line in enumerate(self._lines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            match = _LINE.fullmatch(line)
            if match is None:
                reason = f"line {number} of the engine list is damaged: {line[:40]!r}"
                if re.match(r"[<=>|]{7}", line):
                    reason = f"the engine list has unresolved merge conflicts (line {number})"
                raise BaselineError(
                    self.file,
                    reason,
                    f"Restore it (git checkout -- {FILE_NAME}), or delete that line; "
                    "a line is 64 hexadecimal digits, two spaces, and a path.",
                )
            name = _unescape(match["path"]) if match["escaped"] else match["path"]
            listed[name] = match["digest"].lower()
        return listed

    def _encode(self, listed: Mapping[str, str]) -> bytes:
        comments = [line for line in self._lines() if line.startswith("#")]
        heading = "".join(f"{line}\n" for line in comments).encode("utf-8", "surrogateescape") or _HEADING
        lines = "".join(_line(name, digest) for name, digest in sorted(listed.items()))
        return heading + lines.encode("utf-8", "surrogateescape")


def _line(name: str, digest: str) -> str:
    # as sha256sum does it: a name that would break the line is escaped, and the line says so
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n"


def _unescape(name: str) -> str:
    return re.sub(r"\\.", lambda match: _ESCAPES.get(match[0], match[0]), name)


def _hash(path: Path) -> str:
    """Hash of a file; taken once a process as long as the file looks the same."""
    try:
        facts = path.stat()
        return _hash_once(path.resolve(), facts.st_size, facts.st_mtime_ns)
    except OSError as error:
        raise EngineError(path, f"the engine file cannot be read: {error.strerror or error}") from error


@functools.lru_cache(maxsize=256)
def _hash_once(path: Path, size: int, mtime_ns: int) -> str:
    return sha256_file(path)
