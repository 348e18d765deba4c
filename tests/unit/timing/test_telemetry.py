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


def test_utilisation_is_recorded_and_disturbs_nothing() -> None:
    """It covers the second before, in which the engine under test itself was running."""
    reading = Reading(utilisation_percent=100)

    assert reading.context() == {"utilisation_percent": "100"}
    assert Reading(utilisation_percent=0).context() == {"utilisation_percent": "0"}
    assert reading.disturbed == ""


class TestFamily:
    """A session in a process of its own, and the parent that waits with a context on the same GPU."""

    def test_the_parent_is_no_other(self) -> None:
        assert _others(processes(os.getpid(), os.getppid()), family=2) == 0
        assert _others(processes(os.getpid(), os.getppid())) == 1

    def test_a_parent_that_is_not_on_the_gpu(self) -> None:
        assert _others(processes(os.getpid()), family=2) == 0
        assert _others(processes(os.getpid(), 1_000_000_001), family=2) == 1

    def test_others_beside_both(self) -> None:
        pids = (os.getpid(), os.getppid(), 1_000_000_001, 1_000_000_002)

        assert _others(processes(*pids), family=2) == 2

    def test_a_process_with_two_entries_counts_once(self) -> None:
        assert _others(processes(os.getpid(), os.getpid(), 1_000_000_001, 1_000_000_001)) == 1
        assert _others(processes(1_000_000_001, 1_000_000_001), family=1) == 0

    @pytest.mark.parametrize(("count", "others"), [(0, 0), (1, 0), (2, 0), (3, 1), (5, 3)])
    def test_in_a_container_as_many_as_the_family_has(self, count: int, others: int) -> None:
        assert _others(processes(*range(1_000_000_000, 1_000_000_000 + count)), family=2) == others
