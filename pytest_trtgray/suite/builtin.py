"""Five tests for every ``--trt-engine``, four beside ``--trt-against``; ``-k NAME`` selects one kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pytest_trtgray.engines.base import Engine
from pytest_trtgray.errors import TrtGrayError
from pytest_trtgray.findings import listing
from pytest_trtgray.instruments import (
    Comparer,
    LogReader,
    Metamorphic,
    Profiler,
    QuantisationInspector,
    ShadowFactory,
    StructureOf,
    default_feed,
)

if TYPE_CHECKING:
    from pytest_trtgray.accuracy.shadow import Shadow

TESTS = ("layers", "outputs", "structure", "log", "shapes")
AGAINST_TESTS = ("against", "outputs", "log", "shapes")
"""With ``--trt-against``: the other engine takes the place of the stored baselines."""
SCALES_BUDGET_S = 20.0
"""A large model's scales are inspected as far as this goes."""
RELATIONS_BUDGET_S = 10.0
"""Four inferences at the optimal shapes, three more with a mask, four of one row; a slow model gets fewer checks."""
FUZZ_BUDGET_S = 20.0
"""A slow model gets fewer inputs than a fast one; the bounds of every profile are always among them. What fails may
take as long again to be shrunk."""


def layers(trt_engine: Engine, trt_profiler: Profiler) -> None:
    """Layers and the whole engine are as fast as in the baseline."""
    __tracebackhide__ = True
    trt_profiler(trt_engine).check()


def against(trt_engine: Engine, trt_against: Engine, trt_profiler: Profiler, trt_compare: Comparer) -> None:
    """Outputs agree with the other engine's, and neither a layer nor the whole engine is slower."""
    __tracebackhide__ = True
    trt_engine.require_runnable()
    trt_compare(trt_engine, trt_against).check()
    trt_profiler.against(trt_engine, trt_against).check()


def outputs(
    trt_engine: Engine,
    trt_shadow: ShadowFactory,
    trt_compare: Comparer,
    trt_metamorphic: Metamorphic,
    trt_quantisation: QuantisationInspector,
    request: pytest.FixtureRequest,
) -> None:
    """Outputs agree with the FP32 reference, and with those of the same rows run again, alone or in another order.

    If they do not, the node that makes them wrong is named; of a Q/DQ model, how its scales fit.
    """
    __tracebackhide__ = True
    from pytest_trtgray.state import trt_session

    trt_engine.require_runnable()
    shadow = trt_shadow.current
    comparison = trt_compare(trt_engine, shadow)
    relations = trt_metamorphic(trt_engine, reference=shadow, budget_s=RELATIONS_BUDGET_S)
    if trt_engine.model is not None and trt_engine.model.is_quantised:
        _look_at_scales(trt_engine, trt_quantisation, request.node, explain=not comparison.ok)
    failures = [found.message() for found in (comparison, relations) if not found.ok]
    limit_s = trt_session(request.config).settings.localise_s
    if not comparison.ok and limit_s:
        failures.insert(1, describe_origin(trt_engine, shadow, trt_compare, limit_s))
    if failures:
        raise AssertionError("\n".join(failures).rstrip())


def _look_at_scales(engine: Engine, inspect: QuantisationInspector, item: pytest.Item, *, explain: bool) -> None:
    """Report how the scales fit: weights always, activations where there is a difference to explain.

    The input is random, so what it says of activations is no fault by itself.
    """
    from pytest_trtgray.errors import TrtGrayError
    from pytest_trtgray.state import trt_session

    feeds = [default_feed(item, engine, None)] if explain else []
    try:
        inspect(engine, feeds, representative=False, time_limit_s=SCALES_BUDGET_S)
    except TrtGrayError as error:  # the outputs have their verdict; this is beside it
        trt_session(item.config).report(item, "scales", engine, "skipped", f"not inspected: {error.reason}")


def describe_origin(engine: Engine, shadow: Shadow, compare: Comparer, limit_s: float) -> str:
    """Where wrong outputs come from, or why that is not said.

    Args:
        engine: whose outputs are wrong.
        shadow: its reference.
        compare: of the test.
        limit_s: seconds that it may take.
    """
    if engine.rebuild_s > limit_s:
        seconds = "an unknown time" if math.isinf(engine.rebuild_s) else f"{engine.rebuild_s:.0f} s"
        return (
            f"  not localised: it takes another build of the engine, {seconds}, and trt_localise allows {limit_s:g} s\n"
            "  -> Call trt_compare.localise(engine, reference) in a test, or set trt_localise in the ini file."
        )
    try:
        found = compare.localise(engine, shadow, time_limit_s=limit_s)
    except TrtGrayError as error:
        return f"  not localised: {error.thing}: {error.reason}"
    except Exception as error:  # whatever goes wrong here, the verdict on the outputs stands
        return f"  not localised: {error!r}"
    return listing(found.findings)


def structure(trt_engine: Engine, trt_structure: Callable[[Engine], StructureOf]) -> None:
    """Nodes, fusions, precisions, inputs, outputs and memory are as in the baseline."""
    __tracebackhide__ = True
    trt_structure(trt_engine).check()


def log(trt_engine: Engine, trt_log: LogReader, request: pytest.FixtureRequest) -> None:
    """Nothing that the runtime said while it built and loaded the engine is an error."""
    __tracebackhide__ = True
    from pytest_trtgray.errors import NotRunnableError
    from pytest_trtgray.findings import errors
    from pytest_trtgray.reporting.details import log_details
    from pytest_trtgray.state import trt_session

    said = trt_log(trt_engine)
    if not said.records and trt_engine.blocked:
        raise NotRunnableError(
            trt_engine.info.name, f"an engine file says something only when loaded; {trt_engine.blocked}"
        )
    trt_session(request.config).report(
        request.node,
        "log",
        trt_engine,
        "fail" if errors(said.findings) else "pass",
        f"{len(said.errors)} errors, {len(said.warnings)} warnings in {len(said.records)} messages",
        said.findings,
        details=lambda: log_details(said),
    )
    said.check()


def shapes(trt_engine: Engine, trt_shadow: ShadowFactory, request: pytest.FixtureRequest) -> None:
    """At every shape of the profiles, in any order, outputs agree with the FP32 reference; other shapes are refused."""
    __tracebackhide__ = True
    from pytest_trtgray.findings import failure_message
    from pytest_trtgray.state import trt_session
    from pytest_trtgray.suite.shape_search import ShapeSearch

    trt_engine.require_runnable()
    session = trt_session(request.config)
    search = ShapeSearch(
        trt_engine,
        trt_shadow.current,
        rtol=session.settings.rtol,
        atol=session.settings.atol,
        seed=request.config.getoption("hypothesis_seed", None),
        budget_s=FUZZ_BUDGET_S,
    )
    findings = search.run()
    outcome = "fail" if findings else "pass"
    session.report(request.node, "shapes", trt_engine, outcome, search.summary(), findings)
    if findings:
        raise AssertionError(failure_message("shapes", findings))
