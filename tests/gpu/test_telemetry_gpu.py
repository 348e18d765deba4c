"""NVML on a real GPU."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from pytest_trtgray.engines.base import Engine
from pytest_trtgray.engines.cuda import cuda
from pytest_trtgray.engines.device import find_gpu, pci_bus_id
from pytest_trtgray.feeds import make_feed
from pytest_trtgray.timing import telemetry
from pytest_trtgray.timing.session import Plan, measure_run

pytest.importorskip("pynvml")
OTHER = """
import time
from pytest_trtgray.engines.cuda import cuda
with cuda().current() as driver:
    memory = driver.mem_alloc(1 << 20)
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_reading_is_plausible() -> None:
    reading = telemetry.read(find_gpu())
    assert reading is not None
    assert reading.sm_mhz is not None
    assert 100 < reading.sm_mhz < 5000
    assert reading.temperature_c is not None
    assert 0 < reading.temperature_c < 120
    assert reading.driver
    assert pci_bus_id().count(":") == 2


def test_a_run_knows_its_clock_and_is_not_disturbed(net: Engine) -> None:
    engine = net
    feed = make_feed(engine.info.inputs, {"x": (8, 3, 16, 16)})
    run = measure_run(engine, feed, Plan(sessions=1, iterations=20), context={}).run
    assert run.disturbed == ""
    assert run.sessions[0].clock_mhz
    assert {"sm_mhz", "power_limit_w", "driver"} <= set(run.context)


def test_another_process_on_the_gpu_is_noticed() -> None:
    with cuda().current() as driver:
        kept = driver.mem_alloc(1 << 20)
        with subprocess.Popen([sys.executable, "-c", OTHER], stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            other.stdout.readline()
            time.sleep(0.5)
            reading = telemetry.read(find_gpu())
            other.kill()
        kept.free()
    assert reading is not None
    assert reading.disturbed == "1 other process used the GPU"
