"""What the fixtures give: things that build, measure, compare and inspect engines within a test."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from pytest_trtgray.errors import TrtGrayError
from pytest_trtgray.settings import active

if TYPE_CHECKING:
    import torch

    from pytest_trtgray.accuracy.compare import Comparison, PerOutput
    from pytest_trtgray.accuracy.localise import Localisation
    from pytest_trtgray.accuracy.metamorphic import Relations
    from pytest_trtgray.accuracy.quantisation import Quantisation
    from pytest_trtgray.accuracy.shadow import Shadow
    from pytest_trtgray.accuracy.tolerance import Tolerance
    from pytest_trtgray.engines.base import Engine, Feed
    from pytest_trtgray.engines.model import Layer
    from pytest_trtgray.findings import Finding
    from pytest_trtgray.logs.log import Log
    from pytest_trtgray.logs.records import LogSeverity
    from pytest_trtgray.session import TrtSession
    from pytest_trtgray.structure.snapshot import Snapshot
    from pytest_trtgray.timing.beside import Beside
    from pytest_trtgray.timing.contest import Contest
    from pytest_trtgray.timing.first_calls import FirstCalls
    from pytest_trtgray.timing.profile import Profile
    from pytest_trtgray.timing.session import Plan, SessionResult

Shapes = Mapping[str, tuple[int, ...]]
LOG_LEVELS: tuple[LogSeverity, ...] = ("warning", "info", "verbose")
RANDOM_CALIBRATION = 4
"""Seeded inputs for a calibration to which the test gives none."""


class Reference(Protocol):
    """Whatever knows the right answers: an FP32 shadow, another engine."""

    def run(self, feed: Any) -> Mapping[str, Any]:
        """One array an output, by name."""


class EngineFactory:
    """What the fixture ``trt_build`` gives."""

    def __init__(self, session: TrtSession) -> None:
        self._session = session

    def __call__(
        self,
        path: str | Path,
        *,
        name: str = "",
        runtime: str = "",
        precision: str = "",
        calibration: Sequence[Feed] = (),
        calibration_method: str = "",
        min_shapes: str = "",
        opt_shapes: str = "",
        max_shapes: str = "",
        log: str = "",
    ) -> Engine:
        """Build or load an engine; the same arguments give the same engine within a run.

        Args:
            path: ``.onnx``, ``.engine`` or ``.plan``; looked for beside the test, in the root folder, and in
                the current folder.
            name: for reports; the file's stem by default.
            runtime: ``onnxruntime``, ``tensorrt`` or ``tensorrt_rtx``; as ``--trt-runtime`` by default.
            precision: ``fp32``, ``fp16``, ``bf16``, ``int8`` or ``fp8``, made from an FP32 model: by a flag of the
                builder where TensorRT has one (8.5 to 10), else by converting the model. What was really built is
                read back from the layers; a precision that no layer, or not every heavy one, computes in is a
                finding of every test of the engine.
            calibration: inputs from which ``int8`` and ``fp8`` take their ranges, at the optimal shapes; a few
                hundred real ones for a real accuracy. Without, four seeded random ones.
            calibration_method: ``minmax``, ``entropy`` (INT8 only) or ``percentile``; the model is then converted on
                every runtime. :func:`~pytest_trtgray.compare_calibrations` tells which suits. By default ``minmax``,
                and a TensorRT that calibrates itself (up to 10) does so, by entropy.
            min_shapes: smallest shapes in trtexec's notation, ``x:1x3x224x224``.
            opt_shapes: optimal shapes.
            max_shapes: largest shapes. Without the three, those of the command line if they are for this
                model's inputs.
            log: what is kept of the log for ``trt_log``: ``warning``, ``info`` or ``verbose``; as
                ``--trt-log-level`` by default.

        Raises:
            TrtGrayError: it cannot be built or loaded; says why and what to do.
        """
        from pytest_trtgray.engines.base import to_numpy
        from pytest_trtgray.engines.calibration import check_method
        from pytest_trtgray.engines.precision import CALIBRATED, check_precision
        from pytest_trtgray.engines.profiles import request_shapes

        given = (min_shapes, opt_shapes, max_shapes)
        file = active().find_file(path)
        shapes = (request_shapes(*given),) if any(given) else self._fitting_shapes(file)
        if precision:
            check_precision(precision)
            _check_not_built(file, precision)
        check_method(calibration_method, precision)
        if (calibration or calibration_method) and precision not in CALIBRATED:
            raise TrtGrayError(
                "calibration" if calibration else "calibration_method",
                f"is only used by precision={' or '.join(map(repr, CALIBRATED))}, not by {precision!r}",
                "Drop it, or name the precision.",
            )
        feeds: tuple[Feed, ...] = tuple(
            {input_name: to_numpy(input_name, value) for input_name, value in feed.items()} for feed in calibration
        )
        feeds = feeds or (_random_feeds(file, shapes) if precision in CALIBRATED else ())
        return self._session.load(
            file,
            name=name,
            runtime=runtime,
            shapes=shapes,
            precision=precision,
            calibration=feeds,
            log_level=_log_level(log) if log else None,
            calibration_method=calibration_method,
        )

    def _fitting_shapes(self, file: Path) -> tuple[Any, ...]:
        from pytest_trtgray.engines.loading import is_engine_file
        from pytest_trtgray.engines.onnx_model import open_model
        from pytest_trtgray.engines.profiles import fitting_requests

        requests = self._session.settings.shapes
        if not requests or is_engine_file(file):
            return ()
        return fitting_requests(open_model(file).inputs, requests)


class LogReader:
    """What the fixture ``trt_log`` gives."""

    def __init__(self, session: TrtSession) -> None:
        self._session = session

    def __call__(self, engine: Engine, level: str = "") -> Log:
        """What the runtime said while it built and loaded an engine.

        Args:
            engine: of ``trt_engine`` or ``trt_build``.
            level: the least severity: ``warning``, ``info`` or ``verbose``; all that was kept by default. An engine
                whose chatter was not kept is built once more for ``verbose``; the cache keeps that one too.
        """
        from pytest_trtgray.logs.log import Log

        records = self._session.log_of(engine, _log_level(level)) if level else engine.records
        return Log.of(records, self._session.rules)


class ShadowFactory:
    """What the fixture ``trt_shadow`` gives: the reference of ``trt_engine``'s model, or of any other."""

    def __init__(self, session: TrtSession) -> None:
        self._session = session

    def __call__(self, path: str | Path, *, on: str = "") -> Shadow:
        """The FP32 reference of an ONNX model.

        Args:
            path: looked for as by ``trt_build``.
            on: ``cpu`` or ``cuda`` (ONNX Runtime), ``tensorrt`` (without TF32); as ``--trt-shadow`` by default.

        Raises:
            ModelError: the model cannot be used.
            EngineError: it cannot be computed there.
        """
        return self._session.shadow_of(active().find_file(path), on=on)

    @property
    def current(self) -> Shadow:
        """The reference of ``trt_engine``'s model (of ``--trt-onnx``, if that is given)."""
        engine = self._session.current
        if engine is None:
            raise RuntimeError(
                "trt_shadow.run needs trt_engine in the same test; without it, call trt_shadow('model.onnx')"
            )
        return self._session.shadow_of(self._session.model_behind(engine))

    def run(self, feed: Feed) -> dict[str, Any]:
        """Infer once in FP32: one array an output, by name."""
        return self.current.run(feed)


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
        marks = _marked(self._item, "trt_timing")
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
        marks = _marked(self._item, "trt_timing")
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


class Comparer:
    """What the fixture ``trt_compare`` gives."""

    def __init__(self, session: TrtSession, item: pytest.Item) -> None:
        self._session = session
        self._item = item

    def __call__(
        self,
        engine: Engine,
        reference: Engine | Shadow | ShadowFactory,
        *,
        feed: Feed | None = None,
        shapes: Shapes | None = None,
        rtol: float | None = None,
        atol: float | None = None,
        tolerance: Tolerance | None = None,
        per_output: PerOutput | None = None,
        equal_nan: bool = False,
        precision: str = "",
        classifiers: Collection[str] | None = None,
    ) -> Comparison:
        """Run both on the same input and compare their outputs.

        Args:
            engine: under test.
            reference: an FP32 shadow (``trt_shadow``, ``trt_shadow("model.onnx")``), or another engine.
            feed: the input; made from ``shapes`` with a fixed seed by default.
            shapes: the marker ``trt_shapes`` or the profile's optimal shapes by default.
            rtol: relative tolerance; the ini options, then the default of the engine's precision.
            atol: absolute tolerance.
            tolerance: instead of the two.
            per_output: tolerances of single outputs; ``noise_floor`` measures them.
            equal_nan: accept NaN and infinities where both have the same.
            precision: whose default tolerance applies; the engine's own by default.
            classifiers: outputs whose last axis is one score a class, for ``metrics.top_k``; those of two axes by
                default.

        Returns:
            the comparison; nothing fails before ``.check()``.
        """
        from pytest_trtgray.accuracy.metrics import finite
        from pytest_trtgray.findings import counted
        from pytest_trtgray.reporting.details import outputs_details

        settings = self._session.settings
        if rtol is None and atol is None and tolerance is None and not precision:
            rtol, atol = settings.rtol, settings.atol
        used = feed if feed is not None else default_feed(self._item, engine, shapes)
        comparison = compare_on(
            used,
            engine,
            reference,
            rtol=rtol,
            atol=atol,
            tolerance=tolerance,
            per_output=per_output,
            equal_nan=equal_nan,
            **({"precision": precision} if precision else {}),
            classifiers=classifiers,
        )
        worst = max((output.relative_l2 for output in comparison.outputs), default=0.0)
        self._session.report(
            self._item,
            "outputs",
            engine,
            "pass" if comparison.ok else "differs",
            f"{counted(len(comparison.outputs), 'output')} against {_called(reference)}, "
            f"relative L2 error at most {worst:.2g}",
            comparison.findings,
            details=lambda: outputs_details(comparison),
            relative_l2=finite(worst),
        )
        return comparison

    def localise(
        self,
        engine: Engine,
        reference: Shadow | ShadowFactory | str | Path,
        *,
        feed: Feed | None = None,
        shapes: Shapes | None = None,
        rtol: float | None = None,
        atol: float | None = None,
        budget_bytes: int | None = None,
        time_limit_s: float | None = None,
    ) -> Localisation:
        """Find the ONNX node that makes an engine's outputs wrong, from the values of the tensors inside.

        Args:
            engine: under test.
            reference: an FP32 shadow, or the path of the model to make one of, looked for as by ``trt_build``.
            feed: the input; made from ``shapes`` with a fixed seed by default.
            shapes: the marker ``trt_shapes`` or the profile's optimal shapes by default.
            rtol: relative tolerance of every tensor; the ini options, then the default of the engine's precision.
            atol: absolute tolerance.
            budget_bytes: of values that are held at a time; more of them take more inferences.
            time_limit_s: stop looking after so many seconds, and say so.

        Returns:
            errors by tensor, ``.first``, ``.culprit``; nothing fails before ``.check()``.

        Raises:
            EngineError: the engine shows no values, or its model is not known.
            ModelError: the reference is the model of something else.
        """
        from pytest_trtgray.accuracy.localise import localise
        from pytest_trtgray.accuracy.tolerance import make_tolerance, working_precision
        from pytest_trtgray.engines.base import Engine
        from pytest_trtgray.engines.intermediates import BUDGET_BYTES
        from pytest_trtgray.reporting.details import localisation_details

        if isinstance(reference, Engine):
            raise TrtGrayError(
                reference.info.name,
                "is an engine, and errors are localised against the FP32 reference",
                "Give trt_shadow, or the path of the FP32 model.",
            )
        if isinstance(reference, ShadowFactory):
            reference = reference.current
        elif isinstance(reference, str | Path):
            reference = self._session.shadow_of(active().find_file(reference))
        settings = self._session.settings
        if rtol is None and atol is None:
            rtol, atol = settings.rtol, settings.atol
        found = localise(
            engine,
            reference,
            feed if feed is not None else default_feed(self._item, engine, shapes),
            tolerance=make_tolerance(rtol, atol, working_precision(engine)),
            budget_bytes=budget_bytes or BUDGET_BYTES,
            time_limit_s=time_limit_s,
        )
        outcome = "pass" if found.ok else "localised" if found.culprit else "spread"
        self._session.report(
            self._item,
            "origin",
            engine,
            outcome,
            found.summary,
            found.findings,
            details=lambda: localisation_details(found),
        )
        return found


class Metamorphic:
    """What the fixture ``trt_metamorphic`` gives."""

    def __init__(self, session: TrtSession, item: pytest.Item) -> None:
        self._session = session
        self._item = item

    def __call__(
        self,
        engine: Engine,
        *,
        reference: Engine | Shadow | ShadowFactory | None = None,
        feed: Feed | None = None,
        shapes: Shapes | None = None,
        tolerance: Tolerance | None = None,
        rows: int = 4,
        budget_s: float | None = None,
    ) -> Relations:
        """Check an engine against itself: determinism, batch consistency, row permutation, padding.

        Args:
            engine: runnable on this machine; the test is skipped where it is not.
            reference: where this fails a check as well, the check makes no sense for the model and is left out;
                ``trt_shadow`` is a good one. It is only run where the engine fails.
            feed: the input; made from ``shapes`` with a fixed seed by default.
            shapes: the marker ``trt_shapes`` or the profile's optimal shapes by default.
            tolerance: by default that of the engine's precision (:mod:`pytest_trtgray.accuracy.metamorphic`).
            rows: of a batch that are run alone.
            budget_s: seconds after which no further check is begun.

        Returns:
            what became of each check; nothing fails before ``.check()``.
        """
        from pytest_trtgray.accuracy.metamorphic import check_relations

        used = feed if feed is not None else default_feed(self._item, engine, shapes)
        relations = check_relations(
            engine,
            used,
            rows=rows,
            tolerance=tolerance,
            reference=reference.current if isinstance(reference, ShadowFactory) else reference,
            budget_s=budget_s,
        )
        self._session.report(
            self._item,
            "relations",
            engine,
            "pass" if relations.ok else "fail",
            relations.summary(),
            relations.findings,
        )
        return relations


def _called(reference: Engine | Shadow | ShadowFactory) -> str:
    from pytest_trtgray.engines.base import Engine

    return reference.info.name if isinstance(reference, Engine) else "the reference"


class QuantisationInspector:
    """What the fixture ``trt_quantisation`` gives."""

    def __init__(self, session: TrtSession, item: pytest.Item) -> None:
        self._session = session
        self._item = item

    def __call__(
        self,
        model: Engine | str | Path,
        feeds: Sequence[Feed] = (),
        *,
        calibration: Sequence[Feed] = (),
        reference: str | Path | Shadow | None = None,
        representative: bool = True,
        time_limit_s: float | None = None,
    ) -> Quantisation:
        """Hold the scales of a Q/DQ model against the values that FP32 computes.

        Args:
            model: an engine, or a model that is looked for as by ``trt_build``. The engine need not run here.
            feeds: real inputs; without, only weights and scales are inspected.
            calibration: inputs that the scales were taken from, to see whether they are like ``feeds``.
            reference: the FP32 model that was quantised; by default ``--trt-onnx`` for an engine, what
                ``trt_build(precision=...)`` converted, or the model without its Q/DQ nodes.
            representative: false for inputs that are not like those of production.
            time_limit_s: tensors that are not reached by then are left out, and said so.

        Returns:
            numbers by tensor; nothing fails before ``.check()``.

        Raises:
            ModelError: the model has no Q/DQ nodes, or is not known.
        """
        from pytest_trtgray.accuracy.quantisation import inspect_quantisation
        from pytest_trtgray.accuracy.shadow import Shadow
        from pytest_trtgray.engines.base import Engine

        target: Engine | Path = model if isinstance(model, Engine) else active().find_file(model)
        if isinstance(reference, str | Path):
            reference = active().find_file(reference)
        elif reference is None:
            reference = self._session.model_behind(target) if isinstance(target, Engine) else target
        shadow = reference if isinstance(reference, Shadow) else self._session.shadow_of(reference)
        found = inspect_quantisation(
            target,
            feeds,
            calibration=calibration,
            reference=shadow,
            representative=representative,
            time_limit_s=time_limit_s,
        )
        self._report(target if isinstance(target, Engine) else None, found)
        return found

    def _report(self, engine: Engine | None, found: Quantisation) -> None:
        from pytest_trtgray.findings import counted
        from pytest_trtgray.reporting.details import scales_details

        known = [tensor for tensor in found.sorted() if tensor.snr_db == tensor.snr_db]
        worst = f", SNR at least {known[0].snr_db:.0f} dB ({known[0].tensor})" if known else ""
        types = "/".join(sorted({tensor.dtype for tensor in found.tensors}))
        outcome = "pass" if found.ok else "suspect"
        where = "" if engine else f"{found.model}: "
        summary = f"{where}{counted(len(found.tensors), 'tensor')} in {types or 'unknown types'}{worst}"
        self._session.report(
            self._item,
            "scales",
            engine,
            outcome,
            summary,
            found.findings,
            details=lambda: scales_details(found),
        )


class StructureOf:
    """What the fixture ``trt_structure`` gives for an engine."""

    def __init__(self, session: TrtSession, item: pytest.Item, engine: Engine) -> None:
        self._session = session
        self._item = item
        self.engine = engine

    @property
    def layers(self) -> Sequence[Layer]:
        """The engine's fused layers."""
        return self.engine.layers

    @property
    def snapshot(self) -> Snapshot:
        """Layers, inputs, outputs and memory."""
        from pytest_trtgray.structure.snapshot import snapshot_of

        return snapshot_of(self.engine)

    @property
    def advice(self) -> tuple[Finding, ...]:
        """What the layers say about speed that may be lost; see ``docs/structure.md``."""
        from pytest_trtgray.structure.optimisation import advice_on_layers

        return advice_on_layers(self.layers, self.engine.info)

    def check(self) -> tuple[Finding, ...]:
        """Compare with the baseline of this target.

        Returns:
            what is worth knowing although the engine is still the same.

        Raises:
            AssertionError: a node, fusion, precision, input or output changed, memory grew, or there is no
                baseline; the first line is the verdict.
        """
        __tracebackhide__ = True
        from pytest_trtgray.checks import BaselineCheck

        return BaselineCheck(self._session, self._item, self.engine).structure(self.snapshot)


def _log_level(text: str) -> LogSeverity:
    for level in LOG_LEVELS:
        if text == level:
            return level
    raise TrtGrayError("log", f"has no level {text!r}", f"Choose one of {', '.join(LOG_LEVELS)}.")


def _check_not_built(file: Path, precision: str) -> None:
    from pytest_trtgray.engines.loading import is_engine_file

    if is_engine_file(file):
        raise TrtGrayError(
            str(file), f"is built already, and not in precision={precision!r} again", "Give the .onnx instead."
        )


def _random_feeds(file: Path, shapes: Sequence[Any]) -> tuple[Feed, ...]:
    """Inputs to calibrate with where the test gives none; none for a model that is quantised already."""
    from pytest_trtgray.engines.onnx_model import open_model
    from pytest_trtgray.engines.profiles import opt_shapes, resolve_profiles
    from pytest_trtgray.feeds import make_feed

    model = open_model(file)
    if model.is_quantised:
        return ()
    profiles, _ = resolve_profiles(model.inputs, tuple(shapes))
    return tuple(make_feed(model.inputs, opt_shapes(profiles[-1]), seed) for seed in range(RANDOM_CALIBRATION))


def default_feed(item: pytest.Item, engine: Engine, shapes: Shapes | None) -> Feed:
    """Seeded inputs: of the given shapes, the marker's, or the optimum of the first profile."""
    from pytest_trtgray.engines.profiles import opt_shapes
    from pytest_trtgray.feeds import make_feed

    wanted = shapes or _marked(item, "trt_shapes")
    base = opt_shapes(engine.info.profiles[0]) if engine.info.profiles else {}
    unknown = set(wanted) - set(base)
    if unknown:
        raise TrtGrayError(
            engine.info.name, f"has no input {sorted(unknown)[0]!r}", f"Its inputs are: {', '.join(base)}."
        )
    merged = {**base, **{name: tuple(shape) for name, shape in wanted.items()}}
    return make_feed(engine.info.inputs, merged)


def compare_on(feed: Feed, engine: Engine, reference: Reference, **options: Any) -> Comparison:
    """Run an engine and its reference on one input and compare.

    The engine must give the dtypes that it declares; the FP32 reference of an FP16 output is FP32.

    Args:
        feed: the input.
        engine: under test.
        reference: what it is compared with.
        options: of :func:`~pytest_trtgray.accuracy.compare.compare`; the precision is the engine's by default.
    """
    from pytest_trtgray.accuracy.compare import compare
    from pytest_trtgray.accuracy.tolerance import working_precision

    reference = reference.current if isinstance(reference, ShadowFactory) else reference
    return compare(
        engine.run(feed),
        reference.run(feed),
        dtypes={spec.name: spec.dtype for spec in engine.info.outputs},
        reference_name=repr(reference).strip("<>"),
        **{"precision": working_precision(engine), **options},
    )


def _marked(item: pytest.Item, name: str) -> dict[str, Any]:
    """Keyword arguments of all markers of a name; the closest one wins."""
    merged: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers(name))):
        merged.update(marker.kwargs)
    return merged
