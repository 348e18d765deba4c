"""What is made of NVML's answers; NVML itself is asked in tests/gpu."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from pytest_trtgray.engines.device import find_cpu
from pytest_trtgray.timing.telemetry import Reading, _others, first_disturbance, read


def processes(*pids: int) -> list[SimpleNamespace]:
    return [SimpleNamespace(pid=pid) for pid in pids]


def test_a_processor_has_no_reading() -> None:
    assert read(find_cpu()) is None
    assert read(None) is None


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        (Reading(), ""),
        (Reading(sm_mhz=1980, power_w=300), ""),
        (Reading(slowdowns=("hardware slowdown", "hardware power brake")), "hardware slowdown, hardware power brake"),
        (Reading(others=1), "1 other process used the GPU"),
        (Reading(others=3), "3 other processes used the GPU"),
    ],
)
def test_what_disturbs(reading: Reading, reason: str) -> None:
    assert reading.disturbed.endswith(reason)
    assert bool(reading.disturbed) == bool(reason)


def test_the_first_disturbance_counts() -> None:
    assert first_disturbance((None, Reading(), Reading(others=1), Reading(others=2))).startswith("1 other")
    assert first_disturbance((None, Reading())) == ""


def test_this_process_is_no_other() -> None:
    assert _others(processes(os.getpid())) == 0
    assert _others(processes(os.getpid(), 1, 2)) == 2
    assert _others([]) == 0


def test_in_a_container_one_of_the_hosts_numbers_is_this_process() -> None:
    assert _others(processes(4_000_000)) == 0
    assert _others(processes(4_000_000, 4_000_001)) == 1


def test_context_has_units_and_only_what_is_known() -> None:
    assert Reading(sm_mhz=1980, power_limit_w=700.0, driver="580.1").context() == {
        "sm_mhz": "1980",
        "power_limit_w": "700",
        "driver": "580.1",
    }
    assert Reading().context() == {}
