"""Two engines measured in turn: what ``trt_profiler.against`` gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytest_trtgray.timing.gate import Verdict
from pytest_trtgray.timing.profile import Profile

PAIRS = 4
"""Sessions of each engine; as many again on suspicion. Three are the least that tell a spread."""


@dataclass(frozen=True)
class Contest:
    """An A/B of two engines on one input, without any stored baseline.

    Attributes:
        old: times of the engine that is compared with.
        new: times of the engine under test.
        verdict: on the new one; ``sessions`` counts those of both.
        checker: reports, and fails where the verdict says so; given by the fixture.
    """

    old: Profile
    new: Profile
    verdict: Verdict
    checker: Callable[[Contest], None]

    def check(self) -> Verdict:
        """Fail if the new engine, a module or a layer of it is slower.

        Raises:
            AssertionError: names what is slower; the first line is the verdict.
        """
        __tracebackhide__ = True
        self.checker(self)
        return self.verdict
