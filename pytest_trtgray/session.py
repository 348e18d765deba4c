"""One run of pytest: engines built once, what every test found, baselines to be written."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trtgray.baselines.identity import identity_of, select, slug
from pytest_trtgray.baselines.store import BaselineFile, BaselineStore
from pytest_trtgray.engines.loading import LoadOptions, is_engine_file, load_engine
from pytest_trtgray.engines.precision import calibration_digest
from pytest_trtgray.errors import NotRunnableError
from pytest_trtgray.findings import Finding
from pytest_trtgray.logs import redaction
from pytest_trtgray.logs.records import SEVERITIES, LogSeverity, Record, at_least
from pytest_trtgray.logs.ruleset import RuleSet, load_rules
from pytest_trtgray.preflight import admit
from pytest_trtgray.reporting.results import PROPERTY, details_key, readable_properties
from pytest_trtgray.settings import EngineRequest, Settings

if TYPE_CHECKING:
    from pytest_trtgray.accuracy.shadow import Shadow
    from pytest_trtgray.engines.base import Engine, Feed


Details = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True)
class PendingBaseline:
    """A baseline entry that is written once its test has passed."""

    identity: Mapping[str, str]
    engine: str
    key: str
    change: Callable[[Mapping[str, Any] | None], Mapping[str, Any]]


@dataclass
class TestRecord:
    """What one test found, as plain builtins that travel between xdist processes; ``details`` has a row a check."""

    __test__ = False

    checks: list[dict[str, Any]] = field(default_factory=list)
    details: list[dict[str, Any]] = field(default_factory=list)
    pending: list[PendingBaseline] = field(default_factory=list)


class TrtSession:
    """One run of pytest.

    Args:
        config: pytest's.
        settings: read from it.
    """

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        self.store = BaselineStore(settings.baseline_dir)
        self.current: Engine | None = None
        self.collected: list[str] = []
        self.used_folders: set[str] = set()
        self.written: list[str] = []
        self.remarks: list[str] = []
        self._begun: set[tuple[str, str, str]] = set()
        self._engines: dict[tuple[str, str, str], Engine] = {}
        self._shadows: dict[tuple[Path, str, str], Shadow] = {}
        self._records: dict[str, TestRecord] = {}

    # engines -----------------------------------------------------------------------------------------

    def engine_of(self, request: EngineRequest) -> Engine:
        """The engine of one ``--trt-engine``."""
        return self.load(request.path, name=request.name, shapes=self.settings.shapes)

    def load(
        self,
        path: Path,
        *,
        name: str = "",
        runtime: str = "",
        shapes: Sequence[Any] = (),
        precision: str = "",
        calibration: Sequence[Feed] = (),
        log_level: LogSeverity | None = None,
        calibration_method: str = "",
    ) -> Engine:
        """Build or load an engine, once a run.

        Raises:
            EngineError: it cannot be built or loaded, or is a file that ``engines.sha256`` does not list.
        """
        name = name or path.stem
        runtime = runtime or ("auto" if is_engine_file(path) else self.settings.runtime)
        options = LoadOptions(
            runtime=runtime,  # type: ignore[arg-type]
            device=self.settings.device,
            shapes=tuple(shapes),
            cache_dir=self.settings.cache_dir,
            precision=precision,
            calibration=tuple(calibration),
            calibration_method=calibration_method,
            tactic_sources=self.settings.tactic_sources,
            log_level=log_level or self.settings.log_level,
        )
        how = f"{precision} {calibration_method} {calibration_digest(calibration)} {options.log_level}"
        key = (str(path), name, f"{runtime} {shapes!r} {how}")
        if key not in self._engines:
            if is_engine_file(path) and (written := admit(path, self.settings)) is not None:
                self.written.append(str(written))
            self._engines[key] = load_engine(path, options, name=name, onnx=self.settings.onnx)
        return self._engines[key]

    def log_of(self, engine: Engine, level: LogSeverity) -> Sequence[Record]:
        """What was said while an engine was built and loaded; it is built once more if less than that was kept.

        Raises:
            TrtGrayError: more is asked for than was kept, and nobody knows what the engine was made from.
        """
        if engine.source is None or SEVERITIES.index(level) <= SEVERITIES.index(engine.source.options.log_level):
            return at_least(engine.records, level)
        source = engine.source
        key = (str(source.path), source.name, f"{source.options!r} {level}")
        if key not in self._engines:
            options = replace(source.options, log_level=level)
            self._engines[key] = load_engine(source.path, options, name=source.name, onnx=source.onnx)
        return self._engines[key].records

    def shadow_of(self, path: Path, *, on: str = "", shapes: Sequence[Any] = ()) -> Shadow:
        """The FP32 reference of a model, loaded once a run.

        Args:
            path: of the ONNX model.
            on: what computes it; as ``--trt-shadow`` by default.
            shapes: profiles, which only TensorRT needs; those of the command line by default.
        """
        from pytest_trtgray.accuracy.shadow import Shadow

        on = on or self.settings.shadow
        shapes = tuple(shapes or self.settings.shapes)
        key = (path.resolve(), on, repr(shapes) if on == "tensorrt" else "")
        if key not in self._shadows:
            self._shadows[key] = Shadow(
                key[0],
                self.settings.cache_dir,
                on=on,
                device=self.settings.device,
                shapes=shapes,
                tactic_sources=self.settings.tactic_sources,
            )
        return self._shadows[key]

    def model_behind(self, engine: Engine) -> Path:
        """The ONNX model whose FP32 outputs an engine should reproduce.

        Raises:
            NotRunnableError: it is not known; a test that needs it is skipped.
        """
        if self.settings.onnx is not None:
            return self.settings.onnx
        model = engine.origin or engine.model
        if model is None:
            raise NotRunnableError(
                engine.info.name,
                "its ONNX model is not known, so there is no FP32 reference; add --trt-onnx=PATH",
            )
        return model.path

    @functools.cached_property
    def rules(self) -> RuleSet:
        """What logs are diagnosed by: the rules of ini option ``trt_rules``, then the built-in ones."""
        return load_rules(self.settings.rules)

    def close(self) -> None:
        """Release all engines."""
        for engine in self._engines.values():
            engine.close()
        for shadow in self._shadows.values():
            shadow.close()
        self._engines.clear()
        self._shadows.clear()

    # tests -------------------------------------------------------------------------------------------

    def note_collected(self, items: Sequence[pytest.Item]) -> None:
        """Remember all tests, to know later which baselines have none."""
        self.collected = [item.nodeid for item in items]

    def record(self, item: pytest.Item) -> TestRecord:
        """What a test has found so far."""
        return self._records.setdefault(item.nodeid, TestRecord())

    def report(
        self,
        item: pytest.Item,
        kind: str,
        engine: Engine | None,
        outcome: str,
        summary: str,
        findings: Sequence[Finding] = (),
        *,
        details: Details | None = None,
        **numbers: Any,
    ) -> None:
        """Add one check to a test's record.

        Args:
            item: the test.
            kind: of the check, such as ``timing``.
            engine: under test.
            outcome: in one word.
            summary: in one line.
            findings: on this check.
            details: makes the rows behind a report's tables; called only if a report is asked for.
            numbers: for the JSON report.
        """
        info = engine.info if engine else None
        redact = redaction.current()
        findings = [redact.finding(finding) for finding in (*findings, *(engine.findings if engine else ()))]
        for finding in findings:
            self.config.hook.pytest_trt_finding(item=item, finding=finding)
        self.record(item).checks.append(
            {
                "kind": kind,
                "engine": info.name if info else "",
                "runtime": f"{info.runtime} {info.version}" if info else "",
                "device": info.device.name if info and info.device else "",
                "outcome": outcome,
                "summary": redact(summary),
                "findings": [finding.to_dict() for finding in findings],
                "notes": list(engine.notes) if engine else [],
                **numbers,
            }
        )
        self.record(item).details.append(dict(details()) if details and self.settings.wants_details else {})

    def commit(self, item: pytest.Item) -> None:
        """Write the baselines of a test that has passed."""
        record = self._records.get(item.nodeid)
        if record is None:
            return
        pending, record.pending = record.pending, []
        for entry in pending:

            def change(file: BaselineFile, entry: PendingBaseline = entry) -> BaselineFile:
                return file.with_entry(entry.key, entry.change(file.entries.get(entry.key)))

            path = self.store.update(entry.identity, item.nodeid, entry.engine, change)
            if str(path) not in self.written:
                self.written.append(str(path))

    def attach_properties(self, item: pytest.Item) -> None:
        """Put a test's checks where reports, JUnit and xdist carry them; details go past JUnit."""
        record = self._records.pop(item.nodeid, None)
        if record is not None and record.checks:
            item.user_properties += readable_properties(record.checks)
            item.user_properties.append((PROPERTY, json.dumps(record.checks, separators=(",", ":"))))
            if any(record.details):
                item.stash[details_key] = json.dumps(record.details, separators=(",", ":"))

    # baselines ---------------------------------------------------------------------------------------

    def identity(self, engine: Engine, kind: str) -> dict[str, str]:
        """The identity of an engine's baselines, after the user's hook and ini option."""
        found = identity_of(engine, "timing" if kind == "timing" else "structure")
        replaced = self.config.hook.pytest_trt_identity(config=self.config, engine=engine, kind=kind, identity=found)
        identity = select(dict(replaced or found), self.settings.identity)
        self.used_folders.add(slug(identity))
        return identity

    def begin_anew(self, item: pytest.Item, identity: Mapping[str, str], key: str) -> bool:
        """Whether ``--trt-rebaseline`` is to drop what is stored: once a run, a second check of one key appends."""
        entry = (slug(identity), item.nodeid, key)
        first = self.settings.rebaseline and entry not in self._begun
        self._begun.add(entry)
        return first

    def propose(
        self,
        item: pytest.Item,
        engine: Engine,
        identity: Mapping[str, str],
        key: str,
        change: Callable[[Mapping[str, Any] | None], Mapping[str, Any]],
    ) -> None:
        """Record a baseline entry as soon as the test has passed."""
        self.record(item).pending.append(PendingBaseline(identity, engine.info.name, key, change))
