"""Whether an answer depends on the shapes that an execution context has seen before: a Hypothesis state machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from pytest_trtgray.engines.base import Engine
from pytest_trtgray.engines.model import format_shapes
from pytest_trtgray.errors import EngineError, NotRunnableError
from pytest_trtgray.feeds import Feed, make_feed
from pytest_trtgray.instruments import Reference, compare_on
from pytest_trtgray.shape_space import plan, shape_spaces

SWITCH_FEEDS = 8
SWITCH_EXAMPLES = 25
SWITCH_STEPS = 12


@dataclass
class SwitchLog:
    """What the runs of one :meth:`ShapeSwitches.check` share.

    Attributes:
        deadline: of ``time.monotonic()``; afterwards nothing new is tried, but what failed is still shrunk.
        inferences: that were checked.
        failure: the feeds that ended in a wrong answer, the shortest known.
        message: what was wrong then.
    """

    deadline: float = float("inf")
    inferences: int = 0
    failure: list[Feed] = field(default_factory=list)
    message: str = ""


class ShapeSwitches(RuleBasedStateMachine):
    """Inferences at different shapes and profiles, in any order in one execution context, each compared.

    Every run starts in a fresh context. A class of your own may add rules, which find ``engine`` and ``feeds``::

        class WithReload(ShapeSwitches):
            @rule()
            def renew(self):
                self.engine.renew()


        def test_order(trt_engine):
            WithReload.check(trt_engine)

    Args:
        engine: runnable on this machine.
        feeds: among which is chosen, simplest first.
        reference: knows the right answers; by default each is what a fresh context gives for the feed alone.
        rtol: relative tolerance; without ``rtol`` and ``atol`` the default of the engine's precision.
        atol: absolute tolerance.
        log: shared by all runs of one check.
    """

    def __init__(
        self,
        engine: Engine,
        feeds: Sequence[Feed] = (),
        reference: Reference | None = None,
        *,
        rtol: float | None = None,
        atol: float | None = None,
        log: SwitchLog | None = None,
    ) -> None:
        super().__init__()
        self.engine = engine
        self.feeds = tuple(feeds) or switch_feeds(engine)
        self.log = log or SwitchLog()
        self._reference = reference or Alone(engine, self.feeds)
        self._rtol, self._atol = rtol, atol
        self._history: list[Feed] = []

    @classmethod
    def check(
        cls,
        engine: Engine,
        reference: Reference | None = None,
        *,
        feeds: Sequence[Feed] = (),
        rtol: float | None = None,
        atol: float | None = None,
        log: SwitchLog | None = None,
        settings: hypothesis.settings | None = None,
    ) -> None:
        """Run the machine as a test.

        Args:
            engine: see the class.
            reference: see the class.
            feeds: by default the ends of all profiles and some shapes between.
            rtol: see the class.
            atol: see the class.
            log: to look at afterwards.
            settings: by default 25 runs of up to 12 inferences, without a deadline.

        Raises:
            AssertionError: an answer is another one after other shapes; names the shortest order that shows it.
            NotRunnableError: this machine cannot run the engine.
        """
        engine.require_runnable()
        chosen = tuple(feeds) or switch_feeds(engine)
        known = reference or Alone(engine, chosen)
        shared = log or SwitchLog()
        run_state_machine_as_test(
            lambda: cls(engine, chosen, known, rtol=rtol, atol=atol, log=shared),  # type: ignore[arg-type]
            settings=settings or _default_settings(),
        )

    @rule(feed=st.runner().flatmap(lambda machine: st.sampled_from(machine.feeds)))
    def infer(self, feed: Feed) -> None:
        """Infer once and compare."""
        __tracebackhide__ = True
        if time.monotonic() > self.log.deadline and not self.log.failure:
            return
        if not self._history:
            self.engine.renew()
        self._history.append(feed)
        problem = self._problem(feed)
        self.log.inferences += 1
        if problem:
            self.log.failure = list(self._history)
            self.log.message = describe_order(self._history, problem)
            feeds = ", ".join(dict.fromkeys(map(repr, self._history)))
            raise AssertionError(
                f"{self.log.message}\n  -> To see it again: {type(self).__name__}.check(engine, feeds=[{feeds}])"
            )

    def _problem(self, feed: Feed) -> str:
        try:
            comparison = compare_on(feed, self.engine, self._reference, rtol=self._rtol, atol=self._atol)
        except NotRunnableError:
            raise
        except EngineError as error:
            return error.message
        return "" if comparison.ok else comparison.message()


def _default_settings() -> hypothesis.settings:
    # an explanation would name lines of this package
    phases = [phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.explain]
    return hypothesis.settings(
        max_examples=SWITCH_EXAMPLES,
        stateful_step_count=SWITCH_STEPS,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=phases,
    )


class Alone:
    """The answer that an engine gives to a feed alone, as the first one in a fresh context."""

    def __init__(self, engine: Engine, feeds: Sequence[Feed]) -> None:
        self._answers = {}
        for feed in feeds:
            engine.renew()
            self._answers[id(feed)] = engine.run(feed)

    def run(self, feed: Feed) -> dict[str, Any]:
        """One of the feeds."""
        return self._answers[id(feed)]


def switch_feeds(engine: Engine, count: int = SWITCH_FEEDS) -> tuple[Feed, ...]:
    """The ends of every profile and some shapes between, small ones first."""
    spaces = shape_spaces(engine.info.inputs, engine.info.profiles)
    shapes = [spaces[row.space].shapes(row.sizes) for row in plan(spaces, max(count, 3 * len(spaces)))]
    feeds = [make_feed(engine, each, seed) for seed, each in enumerate(shapes) if each is not None]
    return tuple(sorted(feeds, key=lambda feed: sum(array.size for array in feed.values())))


def describe_order(history: Sequence[Feed], message: str) -> str:
    """A wrong answer to the last of several feeds."""
    *before, last = history
    after = f"after {', '.join(format_shapes(feed.shapes) for feed in before)}" if before else "in a fresh context"
    return f"at {format_shapes(last.shapes)}, {after}: {message}"
