"""The gate of the tests, fed by a service: sessions of sampled requests against a stored baseline, or A against B."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from pytest_trtgray.baselines.identity import Identity, identity_of, run_context, timing_key
from pytest_trtgray.baselines.store import BaselineFile, BaselineStore, damaged
from pytest_trtgray.engines.base import Engine
from pytest_trtgray.engines.profiles import parse_shapes
from pytest_trtgray.errors import ShapeError
from pytest_trtgray.serving.buckets import Shapes
from pytest_trtgray.timing.contest import PAIRS
from pytest_trtgray.timing.gate import Baseline, Run, Session, Verdict, compare, judge
from pytest_trtgray.timing.session import Plan

SESSIONS = Plan().sessions
"""Sessions in a run, as in a test."""


@dataclass(frozen=True)
class Limits:
    """What the gate is told; see :func:`pytest_trtgray.timing.gate.judge`.

    Attributes:
        false_alarm_rate: of one verdict. A service that is judged each minute hears of its first false alarm sooner
            than a test does.
        layer_tolerance: a layer may be slower by this much (0.03 is 3 %).
        engine_tolerance: the engine may be slower by this much.
    """

    false_alarm_rate: float = 0.001
    layer_tolerance: float = 0.03
    engine_tolerance: float = 0.02


class ServiceBaselines:
    """The baselines that a service is held against and adds to: one file of a store, an entry a shape.

    Times under load are not those of an idle machine, so what a service learns has entries of its own
    (``load=service``). Where there is none, the service is held against what the test of that name recorded.

    Args:
        store: the folder of baselines.
        test: node id of the test that recorded them, or any name for a service that only learns.
        identity: of the hardware and runtime; by default that of the engine.
        record: whether to add a run an hour (the unit that counts as one job) and shape to what is learnt.
    """

    def __init__(
        self, store: BaselineStore, test: str, *, identity: Identity | None = None, record: bool = False
    ) -> None:
        self._store = store
        self._test = test
        self._identity = identity
        self.is_recording = record

    def load(self, engine: Engine) -> dict[Shapes, Baseline]:
        """What is known of an engine, by shape.

        Raises:
            BaselineError: the file cannot be used; says why and what to do.
        """
        identity = self._identity_of(engine)
        file = self._store.load(identity, self._test)
        if file is None:
            return {}
        found: dict[Shapes, Baseline] = {}
        # what the service has learnt replaces what a test has recorded
        for method in (dict(engine.timing_method), _service_method(engine)):
            for key, entry in file.entries.items():
                kind, _, rest = key.partition(" ")
                shapes = rest.partition(" ")[0]
                if kind != "timing" or key != timing_key(_parsed(shapes), method):
                    continue
                try:
                    found[_frozen(shapes)] = Baseline.from_dict(entry)
                except (KeyError, TypeError, ValueError) as error:
                    raise damaged(self._store.path(identity, self._test), error) from error
        return found

    def record(self, engine: Engine, shapes: Shapes, run: Run) -> Baseline | None:
        """Add a run of this hour to what is learnt of a shape; the baseline then, ``None`` if this hour has a run.

        Raises:
            BaselineError: the file cannot be read or written.
        """
        identity = self._identity_of(engine)
        key = timing_key(dict(shapes), _service_method(engine))
        run = Run(run.sessions, {**run_context(engine), **run.context})
        made: list[Baseline] = []

        def change(file: BaselineFile) -> BaselineFile:
            entry = file.entries.get(key)
            baseline = Baseline.from_dict(entry) if entry else None
            if baseline and any(kept.context.get("job") == run.context.get("job") for kept in baseline.runs):
                return file
            made.append(baseline.with_run(run) if baseline else Baseline([run]))
            return file.with_entry(key, made[-1].to_dict())

        self._store.update(identity, self._test, engine.info.name, change)
        return made[-1] if made else None

    def _identity_of(self, engine: Engine) -> Identity:
        return identity_of(engine, "timing") if self._identity is None else self._identity


class OnlineGate:
    """Collects the sessions of one shape and judges every :data:`SESSIONS` of them.

    A window that looks slower, or tells nothing, is judged once more together with the next one, as a test measures
    again: a failure needs both looks.

    Args:
        limits: of the gate.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._sessions: list[Session] = []

    def add(self, session: Session, baseline: Baseline | None) -> tuple[Run, Verdict | None] | None:
        """Take one more session.

        Args:
            session: of this shape.
            baseline: to be held against; ``None`` while there is none.

        Returns:
            the run that is complete now and the verdict on it (``None`` without a baseline); ``None`` while the run
            is not complete, or has to be looked at once more.
        """
        if self._sessions and session.layers != self._sessions[0].layers:
            self._sessions = []  # not comparable any more: another profile of the same engine has other layers
        self._sessions.append(session)
        count = len(self._sessions)
        if count < SESSIONS or (count > SESSIONS and count < 2 * SESSIONS):
            return None
        first, second = self._sessions[:SESSIONS], self._sessions[SESSIONS:]
        run = Run(self._sessions)
        verdict = None
        if baseline is not None:
            verdict = judge(
                baseline,
                Run(first),
                false_alarm_rate=self._limits.false_alarm_rate,
                layer_tolerance=self._limits.layer_tolerance,
                engine_tolerance=self._limits.engine_tolerance,
                more=(lambda: second) if second else None,
            )
            if not second and verdict.outcome in ("slower", "inconclusive"):
                return None
        self._sessions = []
        return run, verdict


Side = Literal["old", "new"]


class LiveContest:
    """An A/B of two versions that serve side by side; users, not a clock, decide in turn which one answers.

    A pair is the latest session of each version on the same shapes. Both sides are taken from the profiled contexts:
    what the profiler costs, it costs both. Not safe from several threads by itself.

    Args:
        pairs: before the first verdict; as many again if that one is not a pass.
        limits: of the gate.
    """

    def __init__(self, pairs: int = PAIRS, limits: Limits | None = None) -> None:
        self._wanted = pairs
        self._limits = Limits(false_alarm_rate=0.01) if limits is None else limits
        self._waiting: dict[str, dict[Side, Session]] = {}
        self._pairs: dict[str, list[tuple[Session, Session]]] = {}

    def add(self, side: Side, shapes: str, session: Session) -> Verdict | None:
        """Take one session of a version.

        Args:
            side: whose it is.
            shapes: name of its bucket.
            session: its times in the profiled context.

        Returns:
            the verdict on the new version, once there are pairs enough; the contest then begins anew.
        """
        waiting = self._waiting.setdefault(shapes, {})
        waiting[side] = session
        if len(waiting) < 2:
            return None
        pairs = self._pairs.setdefault(shapes, [])
        pair = waiting.pop("old"), waiting.pop("new")
        if pairs and [each.layers for each in pair] != [each.layers for each in pairs[0]]:
            pairs.clear()  # columns that cannot be compared
        pairs.append(pair)
        if len(pairs) not in (self._wanted, 2 * self._wanted):
            return None
        verdict = self._verdict(pairs)
        if len(pairs) == self._wanted and verdict.outcome not in ("pass", "faster"):
            return None
        self._waiting.clear()
        self._pairs.clear()
        return verdict

    def _verdict(self, pairs: list[tuple[Session, Session]]) -> Verdict:
        def runs(which: list[tuple[Session, Session]]) -> tuple[list[Run], list[Run]]:
            return [Run([old]) for old, _ in which], [Run([new]) for _, new in which]

        first, second = pairs[: self._wanted], pairs[self._wanted :]
        more: Callable[[], tuple[list[Run], list[Run]]] | None = (lambda: runs(second)) if second else None
        old, new = runs(first)
        return compare(
            old,
            new,
            false_alarm_rate=self._limits.false_alarm_rate,
            layer_tolerance=self._limits.layer_tolerance,
            engine_tolerance=self._limits.engine_tolerance,
            more=more,
        )


def _service_method(engine: Engine) -> Mapping[str, str]:
    return {**engine.timing_method, "load": "service"}


def _frozen(shapes: str) -> Shapes:
    return tuple(sorted(_parsed(shapes).items()))


def _parsed(shapes: str) -> dict[str, tuple[int, ...]]:
    try:
        return parse_shapes(shapes)
    except ShapeError:  # another kind of entry
        return {}
