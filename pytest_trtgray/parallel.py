"""With pytest-xdist: what the controller and its workers tell each other. Registered only where it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_trtgray.reporting.command import WORKER_KEY, original_args
from pytest_trtgray.state import settings_of

if TYPE_CHECKING:
    from pytest_trtgray.engines.model import DeviceInfo
    from pytest_trtgray.session import TrtSession

OUTPUT_KEY = "trtgray"


def pytest_configure_node(node: Any) -> None:
    """Give a worker the user's command line: its own is xdist's."""
    node.workerinput[WORKER_KEY] = original_args(node.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a worker has seen; a worker that crashed has left nothing."""
    seen = getattr(node, "workeroutput", {}).get(OUTPUT_KEY)
    if seen is None:
        return
    from pytest_trtgray.state import trt_session

    session = trt_session(node.config)
    session.collected = seen["collected"]
    session.used_folders.update(seen["folders"])
    session.written.extend(path for path in seen["written"] if path not in session.written)
    session.remarks.extend(remark for remark in seen["remarks"] if remark not in session.remarks)


def check_parallel(config: pytest.Config) -> None:
    """Refuse to record beside other workers.

    Raises:
        pytest.UsageError: ``-n`` and an option that writes or deletes baselines.
    """
    settings = settings_of(config)
    workers = getattr(config.option, "numprocesses", None) or 0
    if workers > 1 and (settings.update or settings.prune):
        raise pytest.UsageError(
            "--update-baselines, --trt-rebaseline and --trt-prune-baselines do not go with -n: times taken beside "
            "other workers are no baseline.\n  Record without -n (or with -n0)."
        )


def send_to_controller(config: pytest.Config, session: TrtSession | None) -> None:
    """Leave builtins only: anything else kills the worker."""
    if session is None:
        return
    output: dict[str, Any] = getattr(config, "workeroutput", {})
    output[OUTPUT_KEY] = {
        "collected": list(session.collected),
        "folders": sorted(session.used_folders),
        "written": list(session.written),
        "remarks": list(session.remarks),
    }
    session.close()


def device_of_worker(config: pytest.Config) -> int:
    """The CUDA device of this worker; 0 without pytest-xdist.

    Workers take turns over the devices that the caller's ``CUDA_VISIBLE_DEVICES`` leaves visible. The variable
    itself stays as it is: other tests in this process may want all GPUs.
    """
    worker = getattr(config, "workerinput", None)
    if worker is None:
        return 0
    from pytest_trtgray.engines.device import count_gpus

    number = "".join(char for char in worker["workerid"] if char.isdigit())
    return int(number or 0) % max(count_gpus(), 1)


def crowd(config: pytest.Config, device: DeviceInfo | None) -> str:
    """Why times are not to be trusted beside other workers; empty if they are.

    Workers on GPUs of their own do not disturb each other; workers that share one, or the processor, do.
    """
    worker = getattr(config, "workerinput", None)
    workers = int(worker.get("workercount", 1)) if worker is not None else 1
    if workers == 1:
        return ""
    if device is None or device.kind != "gpu":
        return "other pytest-xdist workers ran at the same time"
    from pytest_trtgray.engines.device import count_gpus

    given = settings_of(config).device_given
    gpus = 1 if given else count_gpus()
    return f"{workers} pytest-xdist workers shared {gpus} GPU{'s' if gpus > 1 else ''}" if workers > gpus else ""
