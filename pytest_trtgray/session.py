"""The state of one run of pytest: engines built once, checks of every test, baselines to be written."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trtgray.baselines.identity import identity_of, run_context, select, slug, timing_key
from pytest_trtgray.baselines.store import BaselineFile, BaselineStore
from pytest_trtgray.engines.loading import LoadOptions, is_engine_file, load_engine
from pytest_trtgray.errors import BaselineError, MissingBaselineError, ModelError, NotRunnableError
from pytest_trtgray.findings import Finding, errors, listing
from pytest_trtgray.outcomes import skip_test
from pytest_trtgray.reporting.command import record_command
from pytest_trtgray.settings import EngineRequest, Settings
from pytest_trtgray.structure.diff import describe
from pytest_trtgray.structure.snapshot import Snapshot, compare_snapshots
from pytest_trtgray.timing.gate import Baseline, Verdict, judge
from pytest_trtgray.timing.session import Plan, measure_session

if TYPE_CHECKING:
    from pytest_trtgray.accuracy.shadow import Shadow
    from pytest_trtgray.engines.base import Engine, Feed
    from pytest_trtgray.timing.profile import Profile

PROPERTY = "trtgray"
STRUCTURE = "structure"


@dataclass(frozen=True)
class PendingBaseline:
    """A baseline entry that is written once its test has passed."""

    identity: Mapping[str, str]
    engine: str
    key: str
    change: Callable[[Mapping[str, Any] | None], Mapping[str, Any]]


@dataclass
class TestRecord:
    """What one test found; ``checks`` are plain builtins, they travel between xdist processes."""

    __test__ = False

    checks: list[dict[str, Any]] = field(default_factory=list)
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
        self._engines: dict[tuple[str, str, str], Engine] = {}
        self._shadows: dict[Path, Shadow] = {}
        self._records: dict[str, TestRecord] = {}

    # engines -----------------------------------------------------------------------------------------

    def engine_of(self, request: EngineRequest) -> Engine:
        """The engine of one ``--trt-engine``."""
        return self.load(request.path, name=request.name, shapes=self.settings.shapes)

    def load(self, path: Path, *, name: str = "", runtime: str = "", shapes: Sequence[Any] = ()) -> Engine:
        """Build or load an engine, once a run."""
        name = name or path.stem
        runtime = runtime or ("auto" if is_engine_file(path) else self.settings.runtime)
        key = (str(path), name, f"{runtime} {shapes!r}")
        if key not in self._engines:
            options = LoadOptions(
                runtime=runtime,  # type: ignore[arg-type]
                device=self.settings.device,
                shapes=tuple(shapes),
                cache_dir=self.settings.cache_dir,
            )
            self._engines[key] = load_engine(path, options, name=name, onnx=self.settings.onnx)
        return self._engines[key]

    def shadow_of(self, path: Path) -> Shadow:
        """The FP32 reference of a model, loaded once a run."""
        from pytest_trtgray.accuracy.shadow import Shadow

        path = path.resolve()
        if path not in self._shadows:
            self._shadows[path] = Shadow(path, self.settings.cache_dir)
        return self._shadows[path]

    def model_behind(self, engine: Engine) -> Path:
        """The ONNX model whose FP32 outputs an engine should reproduce.

        Raises:
            NotRunnableError: it is not known; a test that needs it is skipped.
        """
        if self.settings.onnx is not None:
            return self.settings.onnx
        model = getattr(engine, "model", None)
        source = model.path if model is not None else self._source_of(engine)
        if source is None:
            raise NotRunnableError(
                engine.info.name,
                "its ONNX model is not known, so there is no FP32 reference; add --trt-onnx=PATH",
            )
        return Path(source)

    def _source_of(self, engine: Engine) -> Path | None:
        for (path, _, _), known in self._engines.items():
            if known is engine and not is_engine_file(Path(path)):
                return Path(path)
        return None

    def close(self) -> None:
        """Release all engines."""
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()
        self._shadows.clear()

    # tests -------------------------------------------------------------------------------------------

    def note_collected(self, items: Sequence[pytest.Item]) -> None:
        """Remember all tests, to know later which baselines have none."""
        self.collected = [item.nodeid for item in items]

    def record(self, item: pytest.Item) -> TestRecord:
        """What a test has found so far."""
        return self._records.setdefault(item.nodeid, TestRecord())

    def report(self, item: pytest.Item, kind: str, engine: Engine | None, outcome: str, summary: str,
               findings: Sequence[Finding] = (), **numbers: Any) -> None:  # fmt: skip
        """Add one check to a test's record."""
        for finding in findings:
            self.config.hook.pytest_trt_finding(item=item, finding=finding)
        info = engine.info if engine else None
        self.record(item).checks.append(
            {
                "kind": kind,
                "engine": info.name if info else "",
                "runtime": f"{info.runtime} {info.version}" if info else "",
                "device": info.device.name if info and info.device else "",
                "outcome": outcome,
                "summary": summary,
                "findings": [finding.to_dict() for finding in findings],
                "notes": list(engine.notes) if engine else [],
                **numbers,
            }
        )

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
        """Put a test's checks where reports, JUnit and xdist carry them."""
        record = self._records.pop(item.nodeid, None)
        if record is not None and record.checks:
            item.user_properties.append((PROPERTY, json.dumps(record.checks, separators=(",", ":"))))

    # baselines ---------------------------------------------------------------------------------------

    def identity(self, engine: Engine, kind: str) -> dict[str, str]:
        """The identity of an engine's baselines, after the user's hook and ini option."""
        found = identity_of(engine, "timing" if kind == "timing" else "structure")
        replaced = self.config.hook.pytest_trt_identity(config=self.config, engine=engine, kind=kind, identity=found)
        identity = select(dict(replaced or found), self.settings.identity)
        self.used_folders.add(slug(identity))
        return identity

    def entry(self, item: pytest.Item, identity: Mapping[str, str], key: str) -> Mapping[str, Any] | None:
        """A stored baseline entry, or ``None``.

        Raises:
            BaselineError: the file cannot be used.
        """
        file = self.store.load(identity, item.nodeid)
        return file.entries.get(key) if file else None

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

    def missing(self, item: pytest.Item, identity: Mapping[str, str], what: str) -> MissingBaselineError:
        """The error for a baseline that is not there, with the command that records it."""
        path = self.store.path(identity, item.nodeid)
        others = self.store.others(item.nodeid, identity)
        elsewhere = f"\n  There is one for other hardware or versions: {', '.join(others)}." if others else ""
        return MissingBaselineError(
            _relative(path),
            f"missing baseline: no {what} baseline for {item.nodeid} on this hardware",
            f"To record it:  {record_command(self.config, item)}{elsewhere}",
        )

    # checks ------------------------------------------------------------------------------------------

    def check_timing(self, item: pytest.Item, engine: Engine, profile: Profile, feed: Feed, plan: Plan,
                     tolerance: float | None) -> Verdict | None:  # fmt: skip
        """Compare a profile with its baseline, or record it."""
        __tracebackhide__ = True
        identity = self.identity(engine, "timing")
        key = timing_key(profile.shapes, profile.method)
        stored = self.entry(item, identity, key)
        if self.settings.update or (stored is None and self.settings.on_missing == "record"):
            self._record_timing(item, engine, identity, key, profile)
            return None
        if stored is None:
            self._missing(item, engine, "timing", identity)
        assert stored is not None
        baseline = self._baseline(item, identity, stored)
        verdict = judge(
            baseline,
            profile.run,
            false_alarm_rate=self.settings.false_alarm_rate,
            layer_tolerance=self.settings.layer_tolerance if tolerance is None else tolerance,
            engine_tolerance=self.settings.engine_tolerance,
            more=lambda: [
                measure_session(engine, feed, plan.iterations, disturbed=profile.run.disturbed)[0]
                for _ in range(plan.sessions)
            ],
        )
        self._conclude_timing(item, engine, profile, verdict)
        return verdict

    def check_structure(self, item: pytest.Item, engine: Engine, snapshot: Snapshot) -> tuple[Finding, ...]:
        """Compare an engine's structure with its baseline, or record it."""
        __tracebackhide__ = True
        identity = self.identity(engine, STRUCTURE)
        stored = self.entry(item, identity, STRUCTURE)
        layers = f"{len(snapshot.layers)} layers, {snapshot.precision or 'precision unknown'}"
        if self.settings.update or (stored is None and self.settings.on_missing == "record"):
            self.propose(item, engine, identity, STRUCTURE, lambda _: snapshot.to_dict())
            self.report(item, STRUCTURE, engine, "recorded", layers)
            return ()
        if stored is None:
            self._missing(item, engine, STRUCTURE, identity)
        assert stored is not None
        try:
            old = Snapshot.from_dict(stored)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._damaged(item, identity, error) from error
        findings = compare_snapshots(old, snapshot)
        failed = bool(errors(findings))
        summary = f"{layers}; {len(errors(findings))} changes" if failed else f"{layers}, as the baseline"
        self.report(item, STRUCTURE, engine, "changed" if failed else "pass", summary, findings)
        if failed:
            raise AssertionError(describe(findings))
        return findings

    def _record_timing(
        self, item: pytest.Item, engine: Engine, identity: Mapping[str, str], key: str, profile: Profile
    ) -> None:
        def change(stored: Mapping[str, Any] | None) -> Mapping[str, Any]:
            fresh = Baseline([profile.run])
            merged = self._baseline(item, identity, stored).with_run(profile.run) if stored else fresh
            return merged.to_dict()

        self.propose(item, engine, identity, key, change)
        self.report(item, "timing", engine, "recorded", _milliseconds(profile.total_us),
                    total_us=profile.total_us)  # fmt: skip

    def _conclude_timing(self, item: pytest.Item, engine: Engine, profile: Profile, verdict: Verdict) -> None:
        __tracebackhide__ = True
        change = verdict.engine.change
        runs = f"{verdict.baseline_runs} run{'s' if verdict.baseline_runs > 1 else ''}"
        summary = f"{_milliseconds(profile.total_us)}, {change:+.1%} against {runs}, {verdict.sessions} sessions"
        if verdict.outcome == "inconclusive":
            summary += f"; {verdict.reason}"
        findings = verdict.findings
        reporting = self.settings.timing == "report"
        if reporting:
            findings = tuple(_as_warning(finding) for finding in findings)
        self.report(
            item, "timing", engine, verdict.outcome, summary, findings,
            total_us=profile.total_us, change=change, low=verdict.engine.low, high=verdict.engine.high,
        )  # fmt: skip
        if reporting:
            return
        if verdict.outcome == "slower":
            raise AssertionError(_slower_message(engine, verdict))
        if verdict.outcome == "inconclusive" and self.settings.inconclusive != "warn":
            if self.settings.inconclusive == "skip":
                skip_test(f"timing inconclusive: {verdict.reason}")
            raise AssertionError(f"timing inconclusive: {verdict.reason}\n{listing(verdict.findings)}")

    def _missing(self, item: pytest.Item, engine: Engine, kind: str, identity: Mapping[str, str]) -> None:
        __tracebackhide__ = True
        error = self.missing(item, identity, kind)
        if self.settings.on_missing == "skip":
            self.report(item, kind, engine, "missing", "no baseline")
            skip_test(error.message)
        finding = Finding("error", item.nodeid, error.reason, "baseline.missing", remedy=error.remedy)
        self.report(item, kind, engine, "missing", "no baseline", [finding])
        raise AssertionError(error.message)

    def _baseline(self, item: pytest.Item, identity: Mapping[str, str], stored: Mapping[str, Any]) -> Baseline:
        try:
            return Baseline.from_dict(stored)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._damaged(item, identity, error) from error

    def _damaged(self, item: pytest.Item, identity: Mapping[str, str], error: Exception) -> BaselineError:
        path = self.store.path(identity, item.nodeid)
        return BaselineError(
            path,
            f"the baseline is damaged: {error!r}",
            f"Restore it (git checkout -- {path.name}), or delete it and record it again with --update-baselines.",
        )


def snapshot_of(engine: Engine) -> Snapshot:
    """What an engine shows of itself.

    Raises:
        NotRunnableError: its layers are shown only on a GPU.
    """
    return Snapshot(engine.layers, engine.info.inputs, engine.info.outputs, engine.info.memory)


def context_of(engine: Engine) -> dict[str, str]:
    """What a timing run records about where it was taken."""
    return run_context(engine)


def require_model(path: Path) -> Path:
    """The path of a model that exists.

    Raises:
        ModelError: it does not.
    """
    if not path.exists():
        raise ModelError(path, "no such file")
    return path


def _slower_message(engine: Engine, verdict: Verdict) -> str:
    failing = errors(verdict.findings)
    slow = sum(layer.outcome == "slower" for layer in verdict.layers)
    total = sum(layer.outcome not in ("gone",) for layer in verdict.layers)
    what = f"{slow} of {total} layers slower" if slow else f"engine slower by {verdict.engine.change:.1%}"
    device = engine.info.device
    where = f"{device.name} ({engine.info.runtime} {engine.info.version})" if device else engine.info.runtime
    return f"{what} on {where}\n{listing(failing)}"


def _as_warning(finding: Finding) -> Finding:
    if finding.severity != "error":
        return finding
    return Finding(**{**vars(finding), "severity": "warning"})


def _milliseconds(us: float) -> str:
    return f"{us / 1e3:.3g} ms" if math.isfinite(us) else "? ms"


def _relative(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
