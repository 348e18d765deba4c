"""Cold starts and transfers against those of earlier runs: the host's times, few and spread wide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from pytest_trtgray.findings import Finding
from pytest_trtgray.timing.samples import us_text

MIN_EARLIER = 3
OVERHEAD_FACTOR = 1.5
OVERHEAD_NAMES = {"cold_start_us": "cold start", "upload_us": "the upload of inputs", "download_us": "the download"}


def is_unusual(value: float, before: Sequence[float]) -> float | None:
    """By which factor a cost exceeds earlier ones, if that is more than their spread explains; ``None`` if not.

    Host times are few and spread wide, so three conditions must hold: :data:`OVERHEAD_FACTOR` times their median,
    more than any of them, and beyond the upper 99 % prediction limit of a further value, on the logarithm and with
    MAD for the spread (``median + t(n - 1) s sqrt(1 + 1/n)``, s at least 5 %).

    Args:
        value: the new one, positive.
        before: earlier ones; fewer than :data:`MIN_EARLIER` tell nothing.
    """
    known = np.array([each for each in before if math.isfinite(each) and each > 0])
    if len(known) < MIN_EARLIER or not (math.isfinite(value) and value > 0):
        return None
    logs = np.log(known)
    middle = float(np.median(logs))
    spread = max(1.4826 * float(np.median(np.abs(logs - middle))), 0.05)
    count = len(known)
    limit = middle + float(stats.t.ppf(0.99, count - 1)) * spread * math.sqrt(1 + 1 / count)
    factor = value / math.exp(middle)
    return factor if factor >= OVERHEAD_FACTOR and value > known.max() and math.log(value) > limit else None


def find_overhead_anomalies(context: Mapping[str, str], before: Sequence[Mapping[str, str]]) -> tuple[Finding, ...]:
    """Cold start and transfers of a run against those of its baseline.

    Args:
        context: of the run: ``Run.context``, or ``Overheads.context()``.
        before: ``context`` of each run in the baseline; values that are missing or no numbers do not count.
    """
    found = []
    for key, what in OVERHEAD_NAMES.items():
        now = _number(context.get(key))
        earlier = [value for each in before if (value := _number(each.get(key))) is not None]
        if now is not None and (factor := is_unusual(now, earlier)):
            found.append(
                _slower_host(
                    what,
                    f"{what} took {us_text(now)}, {factor:.1f}x the baseline's",
                    "cold-start" if key == "cold_start_us" else "transfers",
                    now,
                    earlier,
                    "Compiled kernels may be missing from the cache, or the machine is busy."
                    if key == "cold_start_us"
                    else "Compare the PCIe link (width, generation) and other work on the machine.",
                )
            )
    return tuple(found)


def _slower_host(where: str, what: str, rule: str, now: float, before: Sequence[float], remedy: str) -> Finding:
    evidence = {"before_us": round(float(np.median(before)), 1), "after_us": round(now, 1), "runs": len(before)}
    return Finding("warning", where, what, f"timing.anomaly.{rule}", evidence, remedy)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
