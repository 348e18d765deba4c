"""What profiling costs a service, and when it has to pause."""

from __future__ import annotations

import threading

MEMORY_US = 60e6
"""A minute of inference: what was spent and served before it counts half, and less and less. Where the next context
costs more than a minute or two can pay for, it is saved up for longer."""


class Budget:
    """Own cost against time spent on inference; both are forgotten at the same pace. Safe from any thread.

    Nothing is spent in advance: a process that has served for 10 s may have spent 20 ms at 0.2 %.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._served_us = 0.0
        self._spent_us = 0.0
        self._memory_us = MEMORY_US

    def serve(self, us: float) -> None:
        """An inference took ``us`` microseconds."""
        with self._lock:
            self._served_us += us
            if self._served_us > 2 * self._memory_us:
                self._served_us /= 2
                self._spent_us /= 2

    def spend(self, us: float) -> None:
        """Profiling cost ``us`` microseconds; less than nothing where a profiled inference happened to be faster."""
        with self._lock:
            self._spent_us += us

    def allows(self, limit: float | None, planned_us: float = 0.0) -> bool:
        """Whether ``planned_us`` more keep the cost below ``limit`` (a part of the time served; ``None``: any).

        What was asked for last is saved up for: nothing is forgotten before it can be paid.
        """
        if limit and planned_us:
            self._memory_us = max(MEMORY_US, planned_us / limit)
        return limit is None or max(self._spent_us, 0.0) + planned_us <= limit * self._served_us

    @property
    def overhead(self) -> float:
        """Cost as a part of the time served, lately; 0 before the first request."""
        return max(self._spent_us, 0.0) / self._served_us if self._served_us else 0.0
