"""The example service as a process of its own, under load on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="pip install -r examples/monitored_service/requirements.txt")
pytest.importorskip("uvicorn", reason="pip install -r examples/monitored_service/requirements.txt")
pytest.importorskip("httpx", reason="pip install -r examples/monitored_service/requirements.txt")
pytest.importorskip("prometheus_client", reason="pip install -r examples/monitored_service/requirements.txt")

import httpx

from examples.monitored_service.load import Report, run_load
from examples.monitored_service.models import CANARY, SATURATING, STABLE, write_models
from examples.monitored_service.rollout import Rollout
from pytest_trtgray.baselines.store import BaselineStore, read_file
from pytest_trtgray.serving.policy import STRIDE

PROJECT = Path(__file__).parents[2]
TOKEN = "of the operator"
START_S, WAIT_S = 120.0, 60.0

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the service is told to stop by SIGTERM")


class Process:
    """The service, ready."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._log = (folder / "service.log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "examples.monitored_service", "--port=0", f"--stable={folder / STABLE}", *arguments],
            cwd=PROJECT,
            env={**os.environ, "TRTGRAY_ADMIN_TOKEN": TOKEN},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self.pid = self._process.pid
        self.url = self._until(lambda: re.search(r"running on (http://[\d.:]+)", self.log), START_S)[1]
        self.client = httpx.Client(base_url=self.url, timeout=30, trust_env=False)
        self._until(self._is_settled, START_S)

    @property
    def log(self) -> str:
        return Path(self._log.name).read_text()

    def _is_settled(self) -> bool:
        """Ready, or never to be."""
        ready, live = (self.client.get(f"/health/{what}").status_code for what in ("ready", "live"))
        return ready == 200 or live != 200

    def _until(self, condition: Callable[[], Any], limit_s: float) -> Any:
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            if found := condition():
                return found
            assert self._process.poll() is None, self.log
            time.sleep(0.05)
        raise AssertionError(f"not within {limit_s} s:\n{self.log}")

    def load(self, requests: int, **options: Any) -> Report:
        return asyncio.run(run_load(self.url, requests=requests, seconds=WAIT_S, concurrency=4, **options))

    def health(self) -> dict[str, Any]:
        return dict(self.client.get("/health").json())

    def metrics(self) -> dict[str, float]:
        rows = [line.rpartition(" ") for line in self.client.get("/metrics").text.splitlines() if line[:1] != "#"]
        return {name: float(value) for name, _, value in rows}

    def ends(self) -> int:
        return self._process.wait(WAIT_S)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(WAIT_S)

    def close(self) -> None:
        self.client.close()
        if self._process.poll() is None:
            self.kill()
        self._log.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    write_models(tmp_path)
    started: list[Process] = []

    def begin(*arguments: str) -> Process:
        started.append(Process(tmp_path, *arguments))
        return started[-1]

    yield begin
    for process in started:
        process.close()


def test_a_canary_is_promoted_under_load(start: Callable[..., Process], tmp_path: Path) -> None:
    """By an operator: the verdict of an A/B belongs to the clock, which no test may depend on."""
    service = start(f"--canary={tmp_path / CANARY}", "--share=0.3", "--iterations=10")
    stages: set[str] = set()

    def order(report: Report) -> None:
        if report.sent == 150:
            answer = service.client.post(
                "/rollout", json={"action": "promote"}, headers={"Authorization": f"Bearer {TOKEN}"}
            )
            stages.add(answer.json().get("rollout", {}).get("stage", "promoted already"))

    report = service.load(400, watch=order)
    assert (report.answered, report.failed, report.busy) == (400, 0, 0)
    assert stages <= {"promoted", "promoted already"}
    # the A/B may have taken it out, where this machine made it slow
    stage = service.health()["rollout"]["stage"]
    assert stage in ("promoted", "withdrawn")
    assert report.versions["stable"] > 50
    assert report.versions["canary"] > 20
    after = service.load(50, seed=1)
    assert after.versions == {"canary" if stage == "promoted" else "stable": 50}


def test_a_canary_that_saturates_is_taken_out_under_load(start: Callable[..., Process], tmp_path: Path) -> None:
    service = start(f"--canary={tmp_path / SATURATING}", "--share=0.5", "--max-faults=5")
    report = service.load(300)

    assert (report.answered, report.failed, report.busy) == (300, 0, 0)
    assert report.versions == {"stable": 300}
    assert 5 <= report.fallbacks <= 5 + 4  # those that were asked already when it was taken out
    rollout = service.health()["rollout"]
    assert rollout["stage"] == "withdrawn"
    assert "at the end of what it can hold" in rollout["reason"]
    metrics = service.metrics()
    assert metrics['trtgray_output_faults_total{kind="saturated",version="canary"}'] == report.fallbacks
    assert metrics['trtgray_version_traffic_ratio{version="canary"}'] == 0


def test_who_is_connected_when_it_stops_is_answered(start: Callable[..., Process], tmp_path: Path) -> None:
    service = start()
    report = service.load(300, stop_pid=service.pid, stop_after=100)

    assert report.failed == 0, report.reasons
    assert report.answered >= 100
    assert report.answered + report.refused_after_stop == 300
    assert service.ends() == 0
    assert "Application shutdown complete" in service.log
    assert "Traceback" not in service.log


def test_what_it_shows(start: Callable[..., Process], tmp_path: Path) -> None:
    baselines = tmp_path / "baselines"
    service = start(f"--baselines={baselines}", "--sampling=0.01")
    report = service.load(120)
    metrics = service.metrics()
    timed = 120 // STRIDE - 1  # of each context the requests after its last full stride are not timed yet

    assert report.answered == 120
    assert metrics['trtgray_requests_total{outcome="ok",version="stable"}'] == 120
    for statistic in ("mean", "p95", "p99"):
        assert metrics[f'trtgray_request_latency_seconds{{statistic="{statistic}",version="stable"}}'] > 0
    assert metrics["trtgray_request_throughput_per_second"] > 0
    assert metrics["process_resident_memory_bytes"] > 1e6
    assert metrics['trtgray_inference_duration_seconds_count{context="plain",engine="stable"}'] >= timed
    assert service.client.get("/health/live").json()["live"] is True
    stable = service.health()["versions"]["stable"]
    assert stable["served"] == 120
    assert stable["shapes"]["x:1x64"] >= timed


def test_bad_requests_are_refused(start: Callable[..., Process], tmp_path: Path) -> None:
    service = start()
    row = [0.0] * 64

    def status(content: Any, **headers: str) -> int:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return service.client.post(
            "/predict", content=body, headers={"Content-Type": "application/json", **headers}
        ).status_code

    good = {"user_id": "a", "rows": [row]}
    assert status(good) == 200
    assert status({**good, "rows": [row] * 33}) == 422
    assert status({**good, "rows": [row[:-1]]}) == 422
    assert status({**good, "rows": []}) == 422
    assert status({**good, "user_id": ""}) == 422
    assert status({**good, "more": 1}) == 422
    assert status(b'{"user_id": "a", "rows": [[' + b",".join([b"1e400"] * 64) + b"]]}") == 422
    assert status(b'{"user_id": "a", "rows": [[' + b",".join([b"1e300"] * 64) + b"]]}") == 422
    assert status(b'{"user_id": "a", "rows": [[NaN' + b",0" * 63 + b"]]}") == 422
    assert status(b"not JSON") == 422
    assert status(b"[" * 300_000) == 413
    chunks = (b"[" * 10_000 for _ in range(30))
    assert service.client.post("/predict", content=chunks).status_code == 413
    refused = service.client.post("/rollout", json={"action": "promote"}, headers={"Authorization": "Bearer other"})
    assert refused.status_code == 403
    # none of this has hurt it
    assert status(good) == 200
    assert "Traceback" not in service.log


def test_more_than_it_takes_is_refused_with_a_time_to_come_back(start: Callable[..., Process], tmp_path: Path) -> None:
    service = start("--max-waiting=1")
    report = service.load(200, rows=32)

    assert report.failed == 0, report.reasons
    assert report.answered + report.busy == 200
    assert report.answered > 0
    assert report.busy > 0
    refused = service.metrics()['trtgray_requests_total{outcome="refused",version="stable"}']
    assert refused == report.busy


def test_a_model_that_cannot_be_loaded_is_said(start: Callable[..., Process], tmp_path: Path) -> None:
    (tmp_path / STABLE).write_bytes(b"no model")
    service = start()

    answer = service.client.get("/health/live")
    assert answer.status_code == 503
    assert "stable.onnx" in answer.json()["reason"]
    assert service.client.get("/health/ready").status_code == 503
    assert service.client.post("/predict", json={"user_id": "a", "rows": [[0.0]]}).status_code == 503


def test_a_service_that_is_killed_leaves_whole_baselines(start: Callable[..., Process], tmp_path: Path) -> None:
    baselines = tmp_path / "baselines"
    for _ in range(2):
        service = start(f"--canary={tmp_path / CANARY}", "--share=0.5", "--iterations=10", f"--baselines={baselines}")
        service.load(150)
        service.kill()
        for path in BaselineStore(baselines).files():
            assert read_file(path).entries


class TestRollout:
    def test_a_user_stays_with_a_version(self) -> None:
        first, second = (Rollout(has_canary=True, share=0.1) for _ in range(2))
        users = [f"user-{number}" for number in range(5000)]
        versions = [first.version_for(user) for user in users]
        assert versions == [second.version_for(user) for user in users]
        assert 400 < versions.count("canary") < 600

    def test_a_larger_share_takes_nobody_back(self) -> None:
        users = [f"user-{number}" for number in range(2000)]
        few, many = (
            {user for user in users if Rollout(has_canary=True, share=share).version_for(user) == "canary"}
            for share in (0.1, 0.3)
        )
        assert few < many

    def test_its_stages(self) -> None:
        rollout = Rollout(has_canary=True, share=0.1, max_faults=2)
        assert rollout.promote("as good")
        assert not rollout.withdraw("too late")
        assert rollout.version_for("anybody") == "canary"
        assert [rollout.fault("nan"), rollout.fault("nan"), rollout.fault("nan")] == [False, True, False]
        assert (rollout.stage, rollout.version_for("anybody")) == ("withdrawn", "stable")
        assert not rollout.promote("again")

    def test_without_a_canary(self) -> None:
        rollout = Rollout(has_canary=False)
        assert {rollout.version_for(f"user-{number}") for number in range(500)} == {"stable"}
