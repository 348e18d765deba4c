"""The fixture ``trt_profiler``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trtgray.instruments.inputs import default_feed, marked

if TYPE_CHECKING:
    import torch

    from pytest_trtgray.engines.base import Engine, Feed
    from pytest_trtgray.engines.model import Layer
    from pytest_trtgray.engines.profiles import Shapes
    from pytest_trtgray.session import TrtSession
    from pytest_trtgray.timing.beside import Beside
    from pytest_trtgray.timing.contest import Contest
    from pytest_trtgray.timing.first_calls import FirstCalls
    from pytest_trtgray.timing.profile import Profile
    from pytest_trtgray.timing.session import Plan, SessionResult


class Profiler:
    """What the fixture ``trt_profiler`` gives."""

    def __init__(self, session: TrtSession, item: pytest.Item) -> None:
        self._session = session
        self._item = item

    def __call__(
        self,
        engine: Engine,
        shapes: Shapes | None = None,
        *,
        feed: Feed | None = None,
        sessions: int | None = None,
        iterations: int | None = None,
    ) -> Profile:
        """Measure an engine in fresh contexts.

        Args:
            engine: runnable on this machine; the test is skipped where it is not.
            shapes: of the inputs; the marker ``trt_shapes`` or the profile's optimal shapes by default.
            feed: the input; made from ``shapes`` with a fixed seed by default.
            sessions: fresh contexts; the marker ``trt_timing`` or the ini option by default.
            iterations: inferences a session; as many as are worth it by default.

        Returns:
            times by layer and module; ``.check()`` compares with the baseline.

        Raises:
            ShapeError: a shape is outside the profile.
        """
        from pytest_trtgray.baselines.identity import run_context
        from pytest_trtgray.checks import BaselineCheck
        from pytest_trtgray.engines.profiles import requested
        from pytest_trtgray.parallel import crowd
        from pytest_trtgray.timing.profile import Profile, layer_times
        from pytest_trtgray.timing.session import measure_run

        engine.require_runnable()
        used = feed if feed is not None else default_feed(self._item, engine, shapes)
        marks = marked(self._item, "trt_timing")
        plan = self._plan(marks, sessions, iterations)
        crowded = crowd(self._item.config, engine.info.device)
        measured = measure_run(engine, used, plan, context=run_context(engine), disturbed=crowded)

        def check(profile: Profile) -> Any:
            __tracebackhide__ = True
            check = BaselineCheck(self._session, self._item, engine)
            return check.timing(profile, used, plan, marks.get("tolerance"))

        def group_of(layer: Layer) -> str | None:
            named = self._item.config.hook.pytest_trt_layer_group(layer=layer, engine=engine.info)
            return None if named is None else str(named)

        return Profile(
            engine=engine.info,
            shapes=requested(engine.info.inputs, engine.checked(used)),
            run=measured.run,
            layers=layer_times(measured.run, measured.layers),
            method={**engine.timing_method, **plan.method},
            overheads=measured.overheads,
            samples=measured.samples,
            checker=check,
            group_of=group_of,
            model=engine.model,
        )

    def first_calls(self, engine: Engine, shapes: Sequence[Shapes], *, kept_kernels: bool = True) -> FirstCalls:
        """What a fresh context and the first inference at each shape cost: cold start and shape-switch jitter.

        Args:
            engine: runnable on this machine; the test is skipped where it is not.
            shapes: in the order in which a fresh context sees them.
            kept_kernels: whether kernels compiled by an earlier process may be used; without them, the times are
                those of a machine that has never seen the engine.

        Returns:
            a sequence of calls, one a shape; ``.check()`` compares with the baseline.

        Raises:
            ShapeError: a shape is outside the profile.
        """
        from pytest_trtgray.baselines.identity import run_context
        from pytest_trtgray.checks import BaselineCheck
        from pytest_trtgray.engines.base import TimingOptions
        from pytest_trtgray.parallel import crowd
        from pytest_trtgray.timing.session import first_calls

        engine.require_runnable()
        feeds = [default_feed(self._item, engine, each) for each in shapes]
        options = TimingOptions(kept_kernels=kept_kernels)
        crowded = crowd(self._item.config, engine.info.device)
        measured = first_calls(engine, feeds, options, context=run_context(engine), disturbed=crowded)

        def check(calls: FirstCalls) -> Any:
            __tracebackhide__ = True
            return BaselineCheck(self._session, self._item, engine).first_calls(calls, feeds, options)

        return replace(measured, checker=check)

    def against(
        self,
        engine: Engine,
        other: Engine,
        shapes: Shapes | None = None,
        *,
        feed: Feed | None = None,
        pairs: int | None = None,
        iterations: int | None = None,
    ) -> Contest:
        """Measure two engines in turn, pair by pair: an A/B that needs no baseline and survives a busy machine.

        Args:
            engine: under test; runnable on this machine, as is the other: the test is skipped where one is not.
            other: that it is compared with.
            shapes: of the inputs of both; as for a profile by default.
            feed: the input of both; made from ``shapes`` with a fixed seed by default.
            pairs: of sessions; 4 by default, and as many again before anything fails.
            iterations: inferences a session; as many as are worth it by default.

        Returns:
            both profiles and the verdict; nothing fails before ``.check()``.

        Raises:
            ValueError: fewer than three pairs.
        """
        from pytest_trtgray.baselines.identity import run_context
        from pytest_trtgray.checks import BaselineCheck
        from pytest_trtgray.parallel import crowd
        from pytest_trtgray.timing.contest import PAIRS, Contest
        from pytest_trtgray.timing.gate import Run, compare
        from pytest_trtgray.timing.session import measure_pairs

        for each in (engine, other):
            each.require_runnable()
        used = feed if feed is not None else default_feed(self._item, engine, shapes)
        marks = marked(self._item, "trt_timing")
        plan, settings = self._plan(marks, None, iterations), self._session.settings
        crowded = crowd(self._item.config, engine.info.device)
        context = run_context(engine)
        measured: tuple[list[SessionResult], list[SessionResult]] = ([], [])

        def measure() -> tuple[list[Run], list[Run]]:
            both = measure_pairs(other, engine, used, plan, pairs or PAIRS, disturbed=crowded)
            for kept, results in zip(measured, both, strict=True):
                kept.extend(results)
            old, new = ([Run([result.session], context) for result in results] for results in both)
            return old, new

        tolerance = marks.get("tolerance")
        verdict = compare(
            *measure(),
            false_alarm_rate=settings.false_alarm_rate,
            layer_tolerance=settings.layer_tolerance if tolerance is None else tolerance,
            engine_tolerance=settings.engine_tolerance,
            more=measure,
        )
        old, new = (
            self._profile_of(each, used, plan, results, context)
            for each, results in zip((other, engine), measured, strict=True)
        )
        return Contest(old, new, verdict, BaselineCheck(self._session, self._item, engine).against)

    def beside(
        self,
        engine: Engine,
        module: torch.nn.Module,
        inputs: Any,
        *,
        feed: Feed | None = None,
        scope: str = "",
        iterations: int | None = None,
    ) -> Beside:
        """Put the times of a PyTorch model's modules beside those of the engine that was built from it.

        Nothing is judged: the table is part of the reports, as a check of kind ``torch``.

        Args:
            engine: runnable on this machine; the test is skipped where it is not.
            module: that the engine's ONNX model was exported from; it is measured where it is, in eager mode.
            inputs: of its ``forward``: a mapping for keywords, a tuple or list for positions, or the only one.
            feed: of the engine; the tensors of ``inputs`` by default, by name or else by position.
            scope: path of ``module`` in the exported model, where a wrapper around it was exported.
            iterations: inferences of both; as many as are worth it by default.

        Raises:
            EngineError: PyTorch is not installed, or cannot be measured where the module is.
            ShapeError: a shape is outside the engine's profile.
            ValueError: the tensors of ``inputs`` do not fit the engine's inputs; no layer is within ``scope``.
        """
        from pytest_trtgray.reporting.details import beside_details
        from pytest_trtgray.reporting.tables import beside_rows
        from pytest_trtgray.timing.beside import beside
        from pytest_trtgray.timing.exclusive import alone_on
        from pytest_trtgray.timing.torch_modules import feed_of

        engine.require_runnable()
        if feed is None:
            feed = feed_of(inputs, [spec.name for spec in engine.info.inputs])
        profile = self(engine, feed=feed, iterations=iterations)
        with alone_on(engine.info.device):
            found = beside(profile, module, inputs, scope=scope, iterations=iterations)
        self._session.report(
            self._item,
            "torch",
            engine,
            "measured",
            found.summary,
            found.findings,
            details=lambda: beside_details(found),
            rows=beside_rows(found),
            total_us=profile.total_us,
        )
        return found

    def _profile_of(
        self, engine: Engine, feed: Feed, plan: Plan, results: Sequence[SessionResult], context: Mapping[str, str]
    ) -> Profile:
        from pytest_trtgray.engines.profiles import requested
        from pytest_trtgray.timing.gate import Run
        from pytest_trtgray.timing.profile import Profile, layer_times

        run = Run([result.session for result in results], context)
        return Profile(
            engine=engine.info,
            shapes=requested(engine.info.inputs, engine.checked(feed)),
            run=run,
            layers=layer_times(run, results[0].layers),
            method={**engine.timing_method, **plan.method},
            samples=tuple(result.samples for result in results),
            model=engine.model,
        )

    def _plan(self, marks: Mapping[str, Any], sessions: int | None, iterations: int | None) -> Plan:
        """What the call says, else the marker, else the command line and the ini file."""
        from pytest_trtgray.engines.base import TimingOptions
        from pytest_trtgray.timing.session import Plan

        settings = self._session.settings
        graph, processes = marks.get("cuda_graph"), marks.get("processes")
        return Plan(
            sessions or int(marks.get("sessions") or settings.sessions),
            iterations or marks.get("iterations") or settings.iterations,
            processes=settings.timing_processes if processes is None else bool(processes),
            options=TimingOptions(cuda_graph=settings.cuda_graph if graph is None else bool(graph)),
        )
