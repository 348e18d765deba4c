"""The search behind the built-in test ``shapes``: a plan, Hypothesis, refusals and switches within a time budget."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hypothesis
import numpy as np
from hypothesis.errors import Flaky

from pytest_trtgray.engines.base import Engine
from pytest_trtgray.engines.model import format_shapes
from pytest_trtgray.errors import EngineError, NotRunnableError, ShapeError
from pytest_trtgray.feeds import PADDINGS, Feed, Shapes, has_floats, has_masks, make_feed
from pytest_trtgray.findings import Finding, counted
from pytest_trtgray.fuzz import SEEDS, Drawing, Drawn, Planned, planned_rows, precision_of, usual_values
from pytest_trtgray.instruments import Reference, compare_on
from pytest_trtgray.logs.capture import native_stderr
from pytest_trtgray.progress import PROGRESS, Tell, tell_nobody
from pytest_trtgray.shape_space import Dimension, outside, shape_spaces
from pytest_trtgray.shape_switches import SWITCH_FEEDS, SWITCH_STEPS, ShapeSwitches, SwitchLog, switch_feeds

EXAMPLES = 200
"""Inputs, where the model is fast enough for them."""
EXAMPLES_OF_FEW = 20
"""Inputs of a model with few shapes, and two more for each of them: there the values vary more than the shapes."""
PLANNED = 160
SWITCH_SHARE = 0.2
"""Of the budget, for shapes in changing order."""
SWITCH_RUNS = 10
SHRINK_EXAMPLES = 30
_NOT_FAIR = ("zeros",)
"""Normalisations divide rounding errors by next to nothing there; healthy engines differ."""


@dataclass(frozen=True)
class _Wrong:
    """Why a feed fails."""

    rule: str
    message: str


class _Held:
    """Answers of the reference that are there already."""

    def __init__(self, answers: Mapping[str, Any], reference: object) -> None:
        self._answers = answers
        self._reference = reference

    def __repr__(self) -> str:
        return repr(self._reference)

    def run(self, feed: Any) -> Mapping[str, Any]:
        return self._answers


class ShapeSearch:
    """Feeds of all shapes through an engine and its reference, until the examples or the time are used up.

    Args:
        engine: under test.
        reference: knows the right answers.
        budget_s: seconds for everything but the shrinking, which may take as long again.
        rtol: relative tolerance; without ``rtol`` and ``atol`` the default of the engine's precision.
        atol: absolute tolerance.
        seed: of what is random; without one, every run is the same.
        examples: how many feeds at most.

    Attributes:
        examples: how many feeds were compared.
        found_after: how many it took until one failed; 0 if none did.
    """

    def __init__(
        self,
        engine: Engine,
        reference: Reference,
        *,
        budget_s: float,
        rtol: float | None = None,
        atol: float | None = None,
        seed: int | str | None = None,
        examples: int = EXAMPLES,
    ) -> None:
        self._engine = engine
        self._reference = reference
        self._rtol, self._atol = rtol, atol
        self._seed = seed
        self._budget_s = budget_s
        inputs = engine.info.inputs
        self._spaces = shape_spaces(inputs, engine.info.profiles)
        self._limit = min(examples, EXAMPLES_OF_FEW + 2 * sum(space.count for space in self._spaces))
        usual = usual_values(inputs, precision_of(engine))
        self._values = tuple(name for name in usual if name not in _NOT_FAIR or not has_floats(inputs))
        self._padding = PADDINGS if has_masks(inputs) else PADDINGS[:1]
        self._until = 0.0
        self._outcomes: dict[str, _Wrong | None] = {}
        self._right: list[Drawn] = []
        self._seconds: list[tuple[int, float]] = []
        self._failure: tuple[Drawn, _Wrong] | None = None
        self._tried: dict[str, Shapes] = {}
        self._unfit = 0
        self._is_short_of_time = False
        self._refused = 0
        self._switches = SwitchLog()
        self._tell: Tell = tell_nobody
        self.examples = 0
        self.found_after = 0

    def run(self) -> tuple[Finding, ...]:
        """Search, and shrink what is found.

        Returns:
            why the test fails; nothing if it passes.

        Raises:
            NotRunnableError: this machine cannot run the engine.
        """
        self._engine.require_runnable()
        with PROGRESS.work(f"shapes of {self._engine.info.name}") as self._tell:
            return self._search()

    def _search(self) -> tuple[Finding, ...]:
        end = time.monotonic() + self._budget_s
        self._until = end - SWITCH_SHARE * self._budget_s
        planned = planned_rows(self._spaces, min(PLANNED, self._limit), self._values, self._padding, self._seed or 0)
        ends = [row for row in planned if self._is_end(row)]
        self._try_planned(ends, must=True)
        findings = [] if self._failure else self._check_refusals()
        if not self._failure:
            self._try_planned([row for row in planned if row not in ends])
        if not self._failure and self.examples < self._limit and time.monotonic() < self._until:
            self._draw((), self._limit - self.examples)
        if self._failure:
            return self._difference(), *findings
        if not self._tried:
            return self._nothing_compared(), *findings
        findings += self._check_switches(end)
        return tuple(findings)

    def summary(self) -> str:
        """What was tried."""
        coverage = self._coverage()
        wrong = format_shapes(self._failure[0].shapes) if self._failure else ""
        parts = [
            f"wrong at {wrong} (input {self.found_after})" if wrong else "",
            f"{counted(len(self._tried), 'shape')} against the reference{f' ({coverage})' if coverage else ''}",
            "" if coverage else counted(self.examples, "input"),
            f"{self._refused} outside refused" if self._refused else "",
            f"{self._switches.inferences} in changing order" if self._switches.inferences else "",
            f"{counted(self._unfit, 'input')} that the model itself does not take" if self._unfit else "",
            f"no time for {self._limit - self.examples} more in {self._budget_s:g} s" if self._is_short_of_time else "",
        ]
        return ", ".join(filter(None, parts))

    # feeds ---------------------------------------------------------------------------------------------

    def _is_end(self, planned: Planned) -> bool:
        """Whether the profile ends, or is best, at these sizes; with plain values."""
        space = self._spaces[planned.row.space]
        ends = (space.at("low"), space.at("best"), space.at("high"))
        return planned.row.sizes in ends and not planned.values

    def _drawn(self, planned: Planned) -> Drawn:
        shapes = self._spaces[planned.row.space].shapes(planned.row.sizes)
        assert shapes is not None  # a plan has shapes of the space only
        return Drawn(shapes, planned.seed, self._values[planned.values], self._padding[planned.padding])

    def _try_planned(self, rows: Sequence[Planned], *, must: bool = False) -> None:
        """One planned feed after the other, until one fails; that one is shrunk."""
        for row in rows:
            try:
                self._try(self._drawn(row), must=must)
            except AssertionError:
                # many of one row: Hypothesis then draws it soon, to shrink it
                self._draw([row] * 9, SHRINK_EXAMPLES)
                return

    def _draw(self, rows: Sequence[Planned], examples: int) -> None:
        """Let Hypothesis search among ``rows`` and everything else, and shrink what fails."""

        @self._settings(examples)
        @hypothesis.given(drawn=Drawing(self._spaces, rows, self._values, self._padding, SEEDS))
        def search(drawn: Drawn) -> None:
            self._try(drawn)

        seeded = search if self._seed is None else hypothesis.seed(self._seed)(search)
        try:
            seeded()
        except AssertionError:
            return

    def _settings(self, examples: int) -> hypothesis.settings:
        return hypothesis.settings(
            hypothesis.settings.get_profile("default"),  # whatever profile the user has loaded
            max_examples=examples,
            stateful_step_count=SWITCH_STEPS,
            deadline=None,
            database=None,
            derandomize=self._seed is None,
            print_blob=False,
            report_multiple_bugs=False,
            phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
            suppress_health_check=list(hypothesis.HealthCheck),
        )

    def _try(self, drawn: Drawn, *, must: bool = False) -> None:
        """Compare the answers to one feed; the same feed always has the same outcome.

        Raises:
            AssertionError: they differ.
        """
        key = repr(drawn)
        if key not in self._outcomes:
            if not must and not self._has_time_for(drawn.shapes):
                self._is_short_of_time |= self._failure is None
                return
            self._outcomes[key] = self._judge(drawn)
        wrong = self._outcomes[key]
        if wrong is None:
            return
        if self._failure is None:
            self.found_after = self.examples
            self._until = time.monotonic() + self._budget_s  # for shrinking
        self._failure = drawn, wrong
        raise AssertionError(wrong.message)

    def _has_time_for(self, shapes: Shapes) -> bool:
        """Whether a feed of these shapes, which takes no longer than a larger one did, ends within the time."""
        size = _size(shapes)
        seconds = min((taken for other, taken in self._seconds if other >= size), default=0.0)
        return time.monotonic() + seconds <= self._until

    def _judge(self, drawn: Drawn) -> _Wrong | None:
        started = time.monotonic()
        if self._failure is None:
            self._tell(self.examples + 1, self._limit, "input")
        else:
            self._tell(part="shrinking")
        feed = self._feed(drawn)
        try:
            wanted = self._wanted(feed)
        except NotRunnableError:
            raise
        except EngineError:
            # such as an image whose sides have to be multiples of 32: nothing that a profile can say
            self._unfit += 1
            return None
        wrong = self._compared(feed, wanted)
        if wrong is not None and drawn.values != "normal" and not _is_finite(wanted):
            self._unfit += 1
            return None
        self.examples += 1
        self._tried.setdefault(format_shapes(drawn.shapes), drawn.shapes)
        self._seconds.append((_size(drawn.shapes), time.monotonic() - started))
        if wrong is None:
            self._right.append(drawn)
        return wrong

    def _wanted(self, feed: Feed) -> Mapping[str, Any]:
        """The right answers; what native code prints about a shape that it does not take is of no interest."""
        with native_stderr():
            return self._reference.run(feed)

    def _feed(self, drawn: Drawn) -> Feed:
        return make_feed(self._engine, drawn.shapes, drawn.seed, values=drawn.values, padding=drawn.padding)

    def _compared(self, feed: Feed, wanted: Mapping[str, Any]) -> _Wrong | None:
        try:
            comparison = compare_on(
                feed, self._engine, _Held(wanted, self._reference), rtol=self._rtol, atol=self._atol
            )
        except NotRunnableError:
            raise
        except EngineError as error:
            return _Wrong("shapes.error", f"the engine fails where its reference does not: {error.message}")
        return None if comparison.ok else _Wrong("shapes.difference", comparison.message())

    # findings ------------------------------------------------------------------------------------------

    def _difference(self) -> Finding:
        """The smallest feed that fails; if it fails only after others, their order."""
        assert self._failure is not None
        drawn, wrong = self._failure
        feed = self._feed(drawn)
        self._engine.renew()
        if self._compared(feed, self._wanted(feed)) is None:
            return self._order_behind(feed, wrong)
        evidence: dict[str, int | str] = {
            "shapes": format_shapes(drawn.shapes),
            "seed": drawn.seed,
            "values": drawn.values,
            "padding": drawn.padding,
            "examples": self.found_after,
        }
        return Finding(
            "error",
            format_shapes(drawn.shapes),
            f"at {format_shapes(drawn.shapes)}: {wrong.message}",
            wrong.rule,
            evidence,
            _see_again(
                "def test_it(trt_engine, trt_shadow, trt_compare): from pytest_trtgray import make_feed; "
                f"trt_compare(trt_engine, trt_shadow, feed={_on_fixture(feed)}).check()"
            ),
        )

    def _order_behind(self, feed: Feed, wrong: _Wrong) -> Finding:
        """What made a feed fail that is right in a fresh context."""
        before = [self._feed(drawn) for drawn in self._right[-(SWITCH_FEEDS - 1) :]]
        finding = self._switch([feed, *before], time.monotonic() + self._budget_s)
        return finding or Finding(
            "error",
            format_shapes(feed.shapes),
            f"at {format_shapes(feed.shapes)}: {wrong.message}\nIn a fresh execution context it was right, so the "
            "answer depends on what ran before, or changes by itself.",
            "shapes.order",
            remedy="Run the test again; ShapeSwitches.check(engine, reference) looks for the order.",
        )

    def _nothing_compared(self) -> Finding:
        return Finding(
            "error",
            self._engine.info.name,
            f"nothing was compared: the model itself takes none of {self._unfit} inputs inside of its profiles",
            "shapes.nothing-compared",
            remedy="Check the profiles against what the model's reshapes and concatenations allow.",
        )

    def _check_refusals(self) -> list[Finding]:
        """Shapes outside of all profiles must be refused, and leave the engine as it was."""
        specs = {spec.name: spec for spec in self._engine.info.inputs}
        problems: dict[str, str] = {}
        for space in self._spaces:
            base = space.shapes(space.at("low"))
            if base is None or not base:
                continue
            kept = make_feed(self._engine, base, values="zeros")
            for shapes in outside(self._spaces, space, base):
                changed = {name: shape for name, shape in shapes.items() if shape != base[name]}
                edited = make_feed([specs[name] for name in changed], changed, values="zeros")
                problem = self._refusal_problem({**kept, **edited})
                if problem:
                    problems[format_shapes(shapes)] = problem
        findings = [
            Finding(
                "error",
                shapes,
                f"{shapes} lies outside of every profile and {problem}",
                "shapes.not-refused",
                remedy="An engine has to refuse what it was not built for with a ShapeError: it answers nonsense, or "
                "dies, where it computes on.",
            )
            for shapes, problem in problems.items()
        ]
        return [*findings, *self._right_afterwards()]

    def _refusal_problem(self, feed: dict[str, Any]) -> str:
        try:
            self._engine.run(feed)
        except ShapeError:
            self._refused += 1
            return ""
        except NotRunnableError:
            raise
        except Exception as error:  # whatever a runtime raises: it is not the refusal that callers can rely on
            return f"ends in {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        return "is computed all the same"

    def _right_afterwards(self) -> list[Finding]:
        """What was right before the refusals is so afterwards."""
        if not self._right or not self._refused:
            return []
        feed = self._feed(self._right[0])
        wrong = self._compared(feed, self._wanted(feed))
        if wrong is None:
            return []
        shapes = format_shapes(feed.shapes)
        return [Finding("error", shapes, f"after shapes were refused: {wrong.message}", "shapes.after-refusal")]

    def _check_switches(self, end: float) -> list[Finding]:
        """The ends of the profiles and shapes between, in changing order."""
        self._until = time.monotonic() + max(end - time.monotonic(), 0) / 4
        feeds = [feed for feed in switch_feeds(self._engine) if self._has_time_for(feed.shapes) and self._is_fit(feed)]
        if len(feeds) < 2:
            return []
        found = self._switch(feeds, end)
        return [found] if found else []

    def _is_fit(self, feed: Feed) -> bool:
        """Whether the model itself takes a feed."""
        try:
            self._wanted(feed)
        except NotRunnableError:
            raise
        except EngineError:
            return False
        return True

    def _switch(self, feeds: Sequence[Feed], deadline: float) -> Finding | None:
        """Feeds in changing order, each time in a fresh context."""
        log = self._switches
        log.deadline = deadline
        try:
            ShapeSwitches.check(
                self._engine,
                self._reference,
                feeds=feeds,
                rtol=self._rtol,
                atol=self._atol,
                log=log,
                settings=self._settings(SWITCH_RUNS),
            )
        except (AssertionError, Flaky):
            orders = ", ".join(dict.fromkeys(_on_fixture(feed) for feed in log.failure))
            return Finding(
                "error",
                format_shapes(log.failure[-1].shapes),
                log.message,
                "shapes.order",
                {"order": " ".join(format_shapes(feed.shapes) for feed in log.failure)},
                _see_again(
                    "def test_it(trt_engine, trt_shadow): from pytest_trtgray import ShapeSwitches, make_feed; "
                    f"ShapeSwitches.check(trt_engine, trt_shadow, feeds=[{orders}])"
                ),
            )
        return None

    def _coverage(self) -> str:
        """How many sizes of each dimension were tried."""
        parts = []
        names = dict.fromkeys(dim.name for space in self._spaces for dim in space.dimensions if dim.count > 1)
        for name in names:
            dimensions = [dim for space in self._spaces for dim in space.dimensions if dim.name == name]
            sizes = {
                shapes[given][axis]
                for shapes in self._tried.values()
                for space in self._spaces
                for given, places in space.places.items()
                for axis, place in enumerate(places)
                if place == name
            }
            title = name.partition(",")[0]
            parts.append(f"{title} {len(sizes)} of {_count(dimensions)}")
        return ", ".join(parts)


def _count(dimensions: Sequence[Dimension]) -> int:
    """How many different sizes several ranges have together."""
    total, end = 0, min(dim.low for dim in dimensions) - 1
    for low, high in sorted((dim.low, dim.high) for dim in dimensions):
        total += max(high - max(low - 1, end), 0)
        end = max(end, high)
    return total


def _size(shapes: Shapes) -> int:
    return sum(int(np.prod([max(size, 1) for size in shape], dtype=np.float64)) for shape in shapes.values())


def _is_finite(answers: Mapping[str, Any]) -> bool:
    arrays = map(np.asarray, answers.values())
    return all(np.isfinite(array).all() for array in arrays if array.dtype.kind in "fc")


def _see_again(line: str) -> str:
    return f"To see it again, put this line into a test module:\n     {line}"


def _on_fixture(feed: Feed) -> str:
    """The call that makes a feed, in a test with ``trt_engine``."""
    return f"make_feed(trt_engine{feed.call.removeprefix('make_feed(engine')}"
