"""What a fresh context and each change of shape cost: as it was measured, and as a baseline keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from pytest_trtgray.engines.model import format_shapes
from pytest_trtgray.errors import TrtGrayError
from pytest_trtgray.timing.summary import MAX_RUNS, by_job, finite_numbers

if TYPE_CHECKING:
    from pytest_trtgray.timing.jitter import FirstCallsVerdict


@dataclass(frozen=True)
class FirstCall:
    """The first inference at a shape, against those that follow.

    Attributes:
        shapes: of the inputs.
        first_us: from the new input to the result, by the host's clock: a shape switch may allocate and compile.
        steady_us: the same, once the shape is known (median).
    """

    shapes: dict[str, tuple[int, ...]]
    first_us: float
    steady_us: float


@dataclass(frozen=True)
class FirstCallRun:
    """The first calls of one fresh context, as a baseline keeps and the verdict judges them.

    Attributes:
        creation_us: from asking for the context until its first input is in place, by the host's clock.
        first_us: of each call, in their order.
        steady_us: the same, once the shape is known.
        context: recorded and shown, never judged, except that ``job`` tells which runs belong to one job.
        disturbed: why the run must not be trusted, empty if it may; such a run is kept in no baseline.
    """

    creation_us: float
    first_us: tuple[float, ...]
    steady_us: tuple[float, ...]
    context: Mapping[str, str] = field(default_factory=dict)
    disturbed: str = ""


@dataclass(frozen=True, eq=False)
class FirstCalls(Sequence[FirstCall]):
    """The first call at each shape, in the order in which one fresh context saw them; equal to a tuple of the same.

    Attributes:
        calls: one a shape.
        run: the same numbers, as the verdict judges them.
        method: how times were taken.
        checker: compares with the baseline; given by the fixture.
    """

    calls: tuple[FirstCall, ...]
    run: FirstCallRun
    method: Mapping[str, str] = field(default_factory=dict)
    checker: Callable[[FirstCalls], FirstCallsVerdict | None] | None = None

    @property
    def creation_us(self) -> float:
        """From asking for the context until its first input is in place, microseconds of the host's clock."""
        return self.run.creation_us

    @property
    def cold_start_us(self) -> float:
        """From asking for the context to its first result, microseconds of the host's clock."""
        return self.run.creation_us + (self.calls[0].first_us if self.calls else 0.0)

    @property
    def names(self) -> tuple[str, ...]:
        """What reports and baselines call each call; see :func:`call_names`."""
        return call_names([call.shapes for call in self.calls])

    def check(self) -> FirstCallsVerdict | None:
        """Compare with this hardware's baseline: the fresh context, and the first call at each shape.

        Returns:
            the verdict; ``None`` when a baseline was just recorded.

        Raises:
            AssertionError: a first call is far slower, or there is no baseline; the first line is the verdict.
            TrtGrayError: no shapes were given.
        """
        __tracebackhide__ = True
        if not self.calls:
            raise TrtGrayError(
                "first_calls", "was given no shapes, so there is nothing to compare", "Give it one shape or more."
            )
        if self.checker is None:
            raise RuntimeError("these calls were not measured by the trt_profiler fixture; they have no baseline")
        return self.checker(self)

    def __len__(self) -> int:
        return len(self.calls)

    @overload
    def __getitem__(self, index: int) -> FirstCall: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[FirstCall, ...]: ...

    def __getitem__(self, index: int | slice) -> FirstCall | tuple[FirstCall, ...]:
        return self.calls[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (FirstCalls, tuple)):
            return self.calls == tuple(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # the shapes are dictionaries


@dataclass(frozen=True)
class FirstCallsBaseline:
    """First calls of earlier runs over the same shapes in the same order, oldest first; at most ``MAX_RUNS``.

    Attributes:
        names: of the calls; see :func:`call_names`.
        runs: what is kept of each run.
    """

    names: tuple[str, ...]
    runs: tuple[FirstCallRun, ...]

    def __init__(self, names: Sequence[str], runs: Iterable[FirstCallRun]) -> None:
        kept = tuple(runs)[-MAX_RUNS:]
        if not kept:
            raise ValueError("a baseline needs at least one run")
        if any(not len(names) == len(run.first_us) == len(run.steady_us) for run in kept):
            raise ValueError(f"the runs of a baseline must have one time for each of its {len(names)} calls")
        object.__setattr__(self, "names", tuple(names))
        object.__setattr__(self, "runs", kept)

    def with_run(self, run: FirstCallRun) -> FirstCallsBaseline:
        """This baseline and one run more."""
        return FirstCallsBaseline(self.names, (*self.runs, run))

    def jobs(self) -> list[list[FirstCallRun]]:
        """The runs by job; see :func:`~pytest_trtgray.timing.summary.by_job`."""
        return by_job(self.runs)

    def to_dict(self) -> dict[str, Any]:
        """Builtins for JSON."""
        return {
            "calls": list(self.names),
            "runs": [
                {
                    "creation_us": round(run.creation_us, 1),
                    "first_us": [round(value, 1) for value in run.first_us],
                    "steady_us": [round(value, 1) for value in run.steady_us],
                    "context": dict(run.context),
                }
                for run in self.runs
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FirstCallsBaseline:
        """The inverse of :meth:`to_dict`.

        Raises:
            KeyError, TypeError, ValueError: not what :meth:`to_dict` writes.
        """
        names = tuple(str(name) for name in data["calls"])
        return cls(
            names,
            [
                FirstCallRun(
                    creation_us=_positive([run["creation_us"]], 1)[0],
                    first_us=_positive(run["first_us"], len(names)),
                    steady_us=_positive(run["steady_us"], len(names)),
                    context={str(key): str(value) for key, value in dict(run["context"]).items()},
                )
                for run in data["runs"]
            ],
        )


def call_names(shapes: Sequence[Mapping[str, tuple[int, ...]]]) -> tuple[str, ...]:
    """A name for each call; the same shapes may come back, and the second time is another cost.

    >>> call_names([{"x": (1, 8)}, {"x": (32, 8)}, {"x": (1, 8)}])
    ('x:1x8', 'x:32x8', 'x:1x8 #2')
    """
    texts = [format_shapes(dict(sorted(each.items()))) for each in shapes]
    counts = [texts[: index + 1].count(text) for index, text in enumerate(texts)]
    return tuple(text if nth == 1 else f"{text} #{nth}" for text, nth in zip(texts, counts, strict=True))


def fastest(runs: Sequence[FirstCallRun]) -> FirstCallRun:
    """The least that each cost took in any of several contexts: what disturbs a call only ever adds to it."""
    return FirstCallRun(
        creation_us=min(run.creation_us for run in runs),
        first_us=tuple(min(times) for times in zip(*(run.first_us for run in runs), strict=True)),
        steady_us=tuple(min(times) for times in zip(*(run.steady_us for run in runs), strict=True)),
        context=runs[0].context,
        disturbed=next((run.disturbed for run in runs if run.disturbed), ""),
    )


def _positive(values: Sequence[Any], count: int) -> tuple[float, ...]:
    numbers = finite_numbers(values, count)
    if any(value <= 0 for value in numbers):
        raise ValueError("times must be positive")
    return numbers
