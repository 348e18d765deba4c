"""Real runs and real exports, through the commands a user types."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.comparator import Comparator, DataLoader

from pytest_trtgray.cli import main
from tests import models
from tests.integration.conftest import RECORDS, Project
from tests.unit.interchange.test_exports import require_trace
from tests.unit.interchange.test_onnxruntime_profile import profiled

SCHEMA = json.loads(files("pytest_trtgray.reporting").joinpath("run.schema.json").read_text("utf-8"))


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project.path)
    return project.path


def test_two_runs_of_a_project(project: Project, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same model twice, then with a layer more: structure says so; one job does not tell what times are."""
    project.mlp(layers=3)
    project.record("--trt-engine=mlp.onnx", *RECORDS)
    for name in ("old", "again"):
        project.run("--trt-engine=mlp.onnx", "-k", "not shapes", f"--trt-json={name}.json")
    document = json.loads(Path("old.json").read_text("utf-8"))
    jsonschema.validate(document, SCHEMA)
    timing = next(check for check in document["checks"] if check["kind"] == "timing")
    assert len(timing["measured"]["run"]["sessions"]) == timing["details"]["sessions"]
    assert len(timing["measured"]["baseline"]["runs"]) == 1
    assert "measured" not in timing["details"]  # a report does not carry it

    capsys.readouterr()
    code = main(["diff", "old.json", "again.json"])
    out = capsys.readouterr().out
    assert (code == 1) == (" worse " in out)  # this machine may be busy; then nothing is said for certain either
    for kind in ("outputs", "structure", "log"):
        assert any(line.split()[1:3] == [kind, "same"] for line in out.splitlines() if line.startswith("mlp")), out

    models.mlp(Path("mlp.onnx"), layers=4)
    project.run("--trt-engine=mlp.onnx", "-k", "not shapes", "--trt-json=new.json")
    capsys.readouterr()
    assert main(["diff", "old.json", "new.json", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {check["kind"] for check in found["checks"] if check["outcome"] == "worse"} >= {"structure"}

    assert main(["export", "old.json", "--trace=trace.json", "--csv=layers.csv"]) == 0
    require_trace(json.loads(Path("trace.json").read_text("utf-8")))
    assert len(Path("layers.csv").read_text("utf-8").splitlines()) == 1 + len(timing["details"]["layers"])


def test_what_polygraphy_and_onnx_runtime_leave(project: Project, here: Path) -> None:
    """One engine that is right and one that is not, saved by Polygraphy's comparator; a profile; all in one run."""
    right, wrong = models.mlp(Path("mlp.onnx")), models.mlp(Path("wrong.onnx"), seed=1)
    runners = [
        OnnxrtRunner(SessionFromOnnx(str(path)), name=name) for name, path in (("trt", wrong), ("onnxrt", right))
    ]
    Comparator.run(runners, data_loader=DataLoader(seed=1, iterations=3)).save("results.json")
    profile = profiled(right, Path.cwd()).rename("mlp.profile.json")

    command = [sys.executable, "-m", "pytest_trtgray.cli", "import", "results.json", str(profile), "--onnx=mlp.onnx"]
    done = subprocess.run([*command, "--engine=mlp"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "outputs differ" in done.stdout or "differ" in done.stdout

    document = json.loads(Path("run.json").read_text("utf-8"))
    jsonschema.validate(document, SCHEMA)
    outputs = next(check for check in document["checks"] if check["kind"] == "outputs")
    assert (outputs["outcome"], len(outputs["details"]["outputs"])) == ("differs", 3)
    kinds = sorted((check["kind"], check["engine"]) for check in document["checks"])
    assert kinds == [("outputs", "mlp"), ("timing", "mlp"), ("timing", "mlp"), ("timing", "onnxrt")]
    layers = next(check["details"]["layers"] for check in document["checks"] if check["details"].get("layers"))
    assert all(row["nodes"] for row in layers if row["kind"] in ("Gemm", "FusedGemm", "MatMul"))
    assert np.isfinite([row["us"] for row in layers]).all()
    assert main(["report", "run.json", "-o", "page.html"]) == 0
    assert main(["diff", "run.json", "run.json"]) == 0
