"""Five tests for every ``--trt-engine``, four beside ``--trt-against``; ``-k NAME`` selects one kind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_trtgray.engines.base import Engine
from pytest_trtgray.instruments import (
    Comparer,
    LogReader,
    Profiler,
    QuantisationInspector,
    ShadowFactory,
    StructureOf,
    compare_on,
    default_feed,
)

TESTS = ("layers", "outputs", "structure", "log", "shapes")
AGAINST_TESTS = ("against", "outputs", "log", "shapes")
"""With ``--trt-against``: the other engine takes the place of the stored baselines."""
FUZZ_EXAMPLES = 100
FUZZ_EXAMPLES_STATIC = 10
"""Of a model with one shape only: there the values vary, the shape does not."""
SWEEP_LIMIT = 128
"""A profile with one range of at most so many sizes is tried at every size before anything is drawn at random."""
SCALES_BUDGET_S = 20.0
"""A large model's scales are inspected as far as this goes."""
FUZZ_BUDGET_S = 20.0
"""A slow model gets fewer examples than a fast one; the bounds of the profile are always among them."""


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
    trt_quantisation: QuantisationInspector,
    request: pytest.FixtureRequest,
) -> None:
    """Outputs agree with the FP32 reference; of a Q/DQ model, also how its scales fit."""
    __tracebackhide__ = True
    trt_engine.require_runnable()
    comparison = trt_compare(trt_engine, trt_shadow.current)
    if trt_engine.model is not None and trt_engine.model.is_quantised:
        _look_at_scales(trt_engine, trt_quantisation, request.node, explain=not comparison.ok)
    comparison.check()


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


def structure(trt_engine: Engine, trt_structure: Callable[[Engine], StructureOf]) -> None:
    """Nodes, fusions, precisions, inputs, outputs and memory are as in the baseline."""
    __tracebackhide__ = True
    trt_structure(trt_engine).check()


def log(trt_engine: Engine, trt_log: LogReader, request: pytest.FixtureRequest) -> None:
    """Nothing that the runtime said while it built and loaded the engine is an error."""
    __tracebackhide__ = True
    from pytest_trtgray.errors import NotRunnableError
    from pytest_trtgray.findings import errors
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
    )
    said.check()


def shapes(trt_engine: Engine, trt_shadow: ShadowFactory, request: pytest.FixtureRequest) -> None:
    """At every shape of the profiles, outputs agree with the FP32 reference."""
    __tracebackhide__ = True
    from pytest_trtgray.state import trt_session

    trt_engine.require_runnable()
    shadow = trt_shadow.current
    session = trt_session(request.config)
    fuzz = Fuzz(trt_engine, shadow, session.settings.rtol, session.settings.atol)
    try:
        fuzz.run()
    except AssertionError as error:
        failure = fuzz.describe_failure(str(error))
        session.report(request.node, "shapes", trt_engine, "fail", failure.splitlines()[0])
        raise AssertionError(failure) from None
    session.report(request.node, "shapes", trt_engine, "pass", fuzz.summary())


class Fuzz:
    """Feeds of all shapes through an engine and its reference, until the examples or the time are used up.

    Args:
        engine: under test.
        shadow: its reference.
        rtol: relative tolerance; ``None`` for the default of the engine's precision.
        atol: absolute tolerance.
    """

    def __init__(self, engine: Engine, shadow: Any, rtol: float | None, atol: float | None) -> None:
        self._engine = engine
        self._shadow = shadow
        self._rtol, self._atol = rtol, atol
        self._deadline = time.monotonic() + FUZZ_BUDGET_S
        self._failed: Any = None
        self.tried: set[str] = set()

    def run(self) -> None:
        """Search for a feed that fails, and shrink it.

        Raises:
            AssertionError: the smallest that was found.
        """
        for feed in self._corner_feeds():
            self._check(feed)
        for feed in self._sweep_feeds():
            if time.monotonic() > self._deadline:
                break
            self._check(feed)
        self._search()()

    def summary(self) -> str:
        """What was tried."""
        return f"{len(self.tried)} shapes against the reference"

    def describe_failure(self, message: str) -> str:
        """The failure, the smallest feed that shows it, and code that reproduces it."""
        from pytest_trtgray.engines.model import format_shapes

        feed = self._failed
        shapes = format_shapes(feed.shapes)
        first, *rest = message.splitlines()
        reproduce = f"make_feed(engine.info.inputs, {feed.shapes!r}, seed={feed.seed})"
        return "\n".join([f"at {shapes}: {first}", *rest, f"  reproduce: {reproduce}"])

    def _is_dynamic(self) -> bool:
        profiles = self._engine.info.profiles
        return any(bounds.min != bounds.max for profile in profiles for bounds in profile.values())

    def _corner_feeds(self) -> list[Any]:
        from pytest_trtgray.feeds import make_feed

        found: list[Any] = []
        for profile in self._engine.info.profiles:
            for which in ("min", "opt", "max"):
                shape = {name: getattr(bounds, which) for name, bounds in profile.items()}
                if shape not in [feed.shapes for feed in found]:
                    found.append(make_feed(self._engine.info.inputs, shape))
        return found

    def _sweep_feeds(self) -> Iterator[Any]:
        """Every size of a profile that has few: one dimension, smallest first, so that nothing is left to shrink."""
        from pytest_trtgray.feeds import make_feed

        for profile in self._engine.info.profiles:
            ranges = {
                (low, high)
                for bounds in profile.values()
                for low, high in zip(bounds.min, bounds.max, strict=True)
                if low < high
            }
            if len(ranges) != 1:
                continue
            ((first, last),) = ranges
            for size in range(first, last + 1) if last - first < SWEEP_LIMIT else ():
                shape = {
                    name: tuple(size if low < high else low for low, high in zip(bounds.min, bounds.max, strict=True))
                    for name, bounds in profile.items()
                }
                yield make_feed(self._engine.info.inputs, shape)

    def _search(self) -> Callable[[], None]:
        from hypothesis import HealthCheck, Phase, given, settings

        from pytest_trtgray.fuzz import profile_feeds

        @settings(
            settings.get_profile("default"),
            max_examples=FUZZ_EXAMPLES if self._is_dynamic() else FUZZ_EXAMPLES_STATIC,
            deadline=None,
            database=None,
            derandomize=True,
            print_blob=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(feed=profile_feeds(self._engine))
        def search(feed: Any) -> None:
            # Once something failed the time no longer counts: shrinking must see the same answers.
            if self._failed is None and time.monotonic() > self._deadline:
                return
            self._check(feed)

        return search

    def _check(self, feed: Any) -> None:
        __tracebackhide__ = True
        comparison = compare_on(feed, self._engine, self._shadow, rtol=self._rtol, atol=self._atol)
        self.tried.add(repr(sorted(feed.shapes.items())))
        if not comparison.ok:
            self._failed = feed
            raise AssertionError(comparison.message())
