"""Which requests are profiled: rates, and switching between them while requests are served."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

FEW, STRIDE = 0.02, 29
"""At a rate of so few, one in so many unprofiled requests is timed: they are plenty beside the profiled ones. A prime
number, so that clients that ask in turn are all met."""
_64_BITS = 2**64 - 1
_GOLDEN, _SPREAD = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03  # odd: steps from number to number, and from seed to seed
FAULT_HOLD_S = 60.0
"""For so long a fault keeps the rate up."""


@dataclass(frozen=True)
class Policy:
    """How many requests run in the profiled context, and what that may cost.

    Attributes:
        name: for metrics and logs.
        rate: share of the requests (0 to 1).
        max_overhead: what profiling may cost, as a part of the time spent on inference (0.002 is 0.2 %): requests that
            are drawn beyond it run unprofiled. ``None`` for any cost.
    """

    name: str
    rate: float
    max_overhead: float | None = 0.002

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ValueError(f"the rate of policy {self.name!r} must lie between 0 and 1, got {self.rate}")
        if self.max_overhead is not None and not 0 < self.max_overhead <= 1:
            raise ValueError(
                f"max_overhead of policy {self.name!r} must lie between 0 and 1, got {self.max_overhead}; "
                "None allows any cost"
            )


OFF = Policy("off", 0.0)
LEARNING = Policy("learning", 0.01)
"""For every day: enough to learn a baseline and to be held against it."""
FAULT = Policy("fault", 0.1, 0.05)
"""After something went wrong, for :data:`FAULT_HOLD_S`."""
CANARY = Policy("canary", 1.0, None)
"""Every request of a new version that gets few of them."""


def learning(rate: float) -> Policy:
    """:data:`LEARNING` at another rate.

    Args:
        rate: 0.001 to 0.01.

    Raises:
        ValueError: outside of that range.
    """
    if not 0.001 <= rate <= 0.01:
        raise ValueError(f"a baseline is learnt from 0.1 to 1 % of the requests (0.001 to 0.01), not {rate}")
    return Policy("learning", rate)


def _stride(policy: Policy) -> int:
    return STRIDE if policy.rate <= FEW else 1


def _fraction(state: int) -> float:
    """A number from 0 to 1 for each state of a generator, without the ones before it.

    SplitMix64's output function (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
    """
    mixed = state & _64_BITS
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _64_BITS
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _64_BITS
    return (mixed ^ mixed >> 31) / 2**64


class Sampler:
    """Says which requests are to be profiled, and which timed; safe from any thread.

    Requests have numbers, and :meth:`at` says of one which is the next that it has to be asked about. After an
    inference the processor's caches are cold, and each thing that is touched for a request costs ten times what it
    seems to: a comparison is all that most requests pay.

    The n-th draw of a seed is a fixed number: the same requests are drawn again, and those of a low rate are among
    those of a higher one.

    Args:
        policy: to begin with.
        seed: of the draws.
        clock: seconds, for the end of :meth:`fault`.
        on_switch: told the policy in force after each change, by the thread that changed it.
    """

    def __init__(
        self,
        policy: Policy,
        seed: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_switch: Callable[[Policy], None] = lambda policy: None,
    ) -> None:
        self._seed = seed * _SPREAD
        self._lock = threading.Lock()
        self._clock = clock
        self._on_switch = on_switch
        self._chosen = policy
        self._policy = policy
        self._ends: float | None = None

    @property
    def policy(self) -> Policy:
        """The one in force."""
        self.expire()
        return self._policy

    @property
    def stride(self) -> int:
        """How many unprofiled requests one that is timed stands for."""
        return _stride(self._policy)

    def at(self, number: int) -> tuple[bool, bool, int]:
        """What is to be done with the request of this number.

        Returns:
            whether it is to be profiled; whether it is to be timed if it is not; and the next number that has to be
            asked about, unless the policy is switched before.
        """
        policy = self._policy
        stride = _stride(policy)
        timed = number - number % stride + stride
        due = next((later for later in range(number + 1, timed) if self._is_drawn(later, policy)), timed)
        return self._is_drawn(number, policy), number % stride == 0, due

    def _is_drawn(self, number: int, policy: Policy) -> bool:
        return _fraction(self._seed + number * _GOLDEN) < policy.rate

    def expire(self) -> None:
        """Return to the chosen policy if the time of a fault is over."""
        if self._ends is not None and self._clock() >= self._ends:
            self._end_fault()

    def switch(self, policy: Policy) -> None:
        """From the next request on; a fault that is still held is over."""
        with self._lock:
            self._chosen = policy
            self._ends = None
            self._policy = policy
        self._on_switch(policy)

    def fault(self, policy: Policy = FAULT, hold_s: float = FAULT_HOLD_S) -> None:
        """Take ``policy`` for a while, unless what is in force has a higher rate; then return to what was chosen.

        A profiler that is off stays off.
        """
        with self._lock:
            if self._chosen.rate == 0 or policy.rate <= self._chosen.rate:
                return
            self._ends = self._clock() + hold_s
            self._policy = policy
        self._on_switch(policy)

    def _end_fault(self) -> None:
        with self._lock:
            if self._ends is None or self._clock() < self._ends:
                return
            chosen, self._ends = self._chosen, None
            self._policy = chosen
        self._on_switch(chosen)
