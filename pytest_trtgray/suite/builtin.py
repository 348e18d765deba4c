"""Five tests for every ``--trt-engine``; ``-k NAME`` selects one kind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_trtgray.engines.base import Engine
from pytest_trtgray.instruments import Comparer, Profiler, ShadowFactory, StructureOf
from pytest_trtgray.logs.log import Log

TESTS = ("layers", "outputs", "structure", "log", "shapes")


def layers(trt_engine: Engine, trt_profiler: Profiler) -> None:
    """Layers and the whole engine are as fast as in the baseline."""
    __tracebackhide__ = True
    trt_profiler(trt_engine).check()


def outputs(trt_engine: Engine, trt_shadow: ShadowFactory, trt_compare: Comparer) -> None:
    """Outputs agree with the FP32 reference."""
    __tracebackhide__ = True
    trt_engine.require_runnable()
    trt_compare(trt_engine, trt_shadow.current).check()


def structure(trt_engine: Engine, trt_structure: Callable[[Engine], StructureOf]) -> None:
    """Nodes, fusions, precisions, inputs, outputs and memory are as in the baseline."""
    __tracebackhide__ = True
    trt_structure(trt_engine).check()


def log(trt_engine: Engine, trt_log: Callable[[Engine], Log], request: pytest.FixtureRequest) -> None:
    """The runtime reported no errors while it built and loaded the engine."""
    __tracebackhide__ = True
    from pytest_trtgray.errors import NotRunnableError
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
        "fail" if said.errors else "pass",
        f"{len(said.errors)} errors, {len(said.warnings)} warnings in {len(said.records)} messages",
        said.findings,
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
    )
    findings = search.run()
    outcome = "fail" if findings else "pass"
    session.report(request.node, "shapes", trt_engine, outcome, search.summary(), findings)
    if findings:
        raise AssertionError(failure_message("shapes", findings))
