"""Which version answers which user, and when a new version is promoted or taken out."""

from __future__ import annotations

import hashlib
import threading
from typing import Literal

Stage = Literal["none", "canary", "promoted", "withdrawn"]
STABLE, CANARY = "stable", "canary"


class Rollout:
    """The way of one new version: from a few users to all, or to none. Safe from any thread.

    Args:
        has_canary: whether there is a new version at all.
        share: of the users that it gets (0 to 1).
        max_faults: answers of it that may be unusable; the last of them takes it out.
    """

    def __init__(self, *, has_canary: bool, share: float = 0.1, max_faults: int = 5) -> None:
        if not 0 <= share <= 1 or max_faults < 1:
            raise ValueError(f"share must lie between 0 and 1 and max_faults be at least 1, got {share}, {max_faults}")
        self._lock = threading.Lock()
        self._share = share
        self._max_faults = max_faults
        self.stage: Stage = "canary" if has_canary else "none"
        self.reason = ""
        self.faults = 0

    @property
    def share(self) -> float:
        """Of the users that the new version answers."""
        return {"none": 0.0, "canary": self._share, "promoted": 1.0, "withdrawn": 0.0}[self.stage]

    def version_for(self, user: str) -> str:
        """The same version for a user in every process and after every restart, while the share is the same."""
        place = int.from_bytes(hashlib.sha256(user.encode()).digest()[:8], "big") / 2**64
        return CANARY if place < self.share else STABLE

    def fault(self, reason: str) -> bool:
        """The new version gave an answer that cannot be used; whether that takes it out."""
        with self._lock:
            self.faults += 1
            if self.faults < self._max_faults or self.stage not in ("canary", "promoted"):
                return False
            self.stage, self.reason = "withdrawn", f"{self.faults} unusable answers, the last one: {reason}"
            return True

    def promote(self, reason: str) -> bool:
        """Give the new version to all users; whether it was a canary until now."""
        return self._move("promoted", reason)

    def withdraw(self, reason: str) -> bool:
        """Give it to nobody; whether it was a canary until now."""
        return self._move("withdrawn", reason)

    def _move(self, stage: Stage, reason: str) -> bool:
        with self._lock:
            if self.stage != "canary":
                return False
            self.stage, self.reason = stage, reason
            return True
