from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_trtgray.baselines.engine_list import EngineList
from pytest_trtgray.baselines.store import BaselineStore
from pytest_trtgray.cli import DIFFERENT, OK, USAGE, main
from pytest_trtgray.timing.gate import Baseline, Run, Session
from tests import models, recordings

IDENTITY = {"device": "NVIDIA H200", "sm": "sm_90", "runtime": "tensorrt_rtx", "version": "1.7.1"}
LOGS = recordings.DATA / "logs"
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command keeps engines in the current folder."""
    monkeypatch.chdir(tmp_path)


def run(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


class TestLayers:
    def test_of_a_model(self, mlp: Path, capsys: Captured) -> None:
        code, out, err = run(capsys, "layers", mlp, "--runtime=onnxruntime")

        assert (code, err) == (OK, "")
        assert out.splitlines() == [
            "FusedGemm  float32   /fc0/Add + /fc0/MatMul + /fc0/Relu",
            "Gemm       float32   /fc1/Add + /fc1/MatMul",
            "2 layers",
        ]

    def test_of_an_inspectors_json(self, tmp_path: Path, capsys: Captured) -> None:
        path = recordings.unpacked("trt85_resnet50_int8.layers.json", tmp_path)
        code, out, _ = run(capsys, "layers", path)

        assert code == OK
        assert "/conv1/Conv + /maxpool/MaxPool + /relu/Relu" in out
        assert out.endswith("154 layers\n")

    def test_of_a_build_log(self, tmp_path: Path, capsys: Captured) -> None:
        code, out, _ = run(capsys, "layers", recordings.unpacked("rtx14_mlp.log", tmp_path))

        assert code == OK
        assert "block0/fc/MatMul" in out

    def test_built_by_tensorrt_for_rtx(self, mlp: Path, tmp_path: Path, capsys: Captured) -> None:
        pytest.importorskip("tensorrt_rtx")
        arguments = ("layers", mlp, "--runtime=tensorrt_rtx", "--cache-dir", tmp_path / "cache")
        code, out, err = run(capsys, *arguments)

        assert (code, err) == (OK, "")
        assert "/fc0/Add + /fc0/MatMul + /fc0/Relu" in out
        assert list((tmp_path / "cache").glob("*.engine"))

    def test_an_engine_file_has_to_be_listed(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """An engine is code; without a GPU nothing runs it, but the question is the same everywhere."""
        pytest.importorskip("tensorrt_rtx")
        model = models.mlp(tmp_path / "mlp.onnx")
        assert main(["layers", str(model), "--runtime=tensorrt_rtx", f"--cache-dir={tmp_path / 'cache'}"]) == OK
        (engine,) = (tmp_path / "cache").glob("*.engine")
        capsys.readouterr()

        assert main(["layers", str(engine), f"--dir={tmp_path / 'baselines'}"]) == USAGE
        refused = capsys.readouterr().err
        assert "is not listed in" in refused
        assert "--allow-unlisted" in refused
        EngineList(tmp_path / "baselines").add(engine)
        for option in (f"--dir={tmp_path / 'baselines'}", "--allow-unlisted"):
            main(["layers", str(engine), option])
            assert "is not listed" not in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["none.onnx", "none.engine", "none.json"])
    def test_of_a_file_that_is_not_there(self, capsys: Captured, name: str) -> None:
        code, out, err = run(capsys, "layers", name)

        assert (code, out) == (USAGE, "")
        assert err.startswith(f"trtgray: {name}: ")
        assert "Traceback" not in err

    def test_of_json_of_another_form(self, tmp_path: Path, capsys: Captured) -> None:
        (tmp_path / "x.json").write_text('{"Layers": [5]}')
        code, _, err = run(capsys, "layers", "x.json")

        assert code == USAGE
        assert err.startswith("trtgray: x.json: ")

    def test_with_names_that_are_no_utf8(self, tmp_path: Path) -> None:
        (tmp_path / "x.json").write_bytes(b'{"Layers": ["caf\xe9"]}')
        done = subprocess.run(
            [sys.executable, "-m", "pytest_trtgray.cli", "layers", "x.json"],
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        )

        assert (done.returncode, done.stderr) == (OK, b"")

    def test_into_a_pipe_that_is_closed(self, tmp_path: Path) -> None:
        """``trtgray layers … | head -1``"""
        path = recordings.unpacked("trt85_resnet50_int8.layers.json", tmp_path)
        with subprocess.Popen(
            [sys.executable, "-u", "-m", "pytest_trtgray.cli", "layers", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            errors = process.stderr.read()

        assert (process.returncode, errors) == (OK, b"")


class TestDiff:
    def test_of_a_model_and_itself(self, mlp: Path, capsys: Captured) -> None:
        code, out, _ = run(capsys, "diff", mlp, mlp, "--runtime=onnxruntime")

        assert code == OK
        assert out == "2 layers alike, 0 fused differently, 0 ONNX nodes added, 0 removed\n"

    def test_of_an_inserted_node(self, mlp: Path, tmp_path: Path, capsys: Captured) -> None:
        longer = models.insert_matmul(mlp, tmp_path / "longer.onnx", before="/fc1/MatMul")
        code, out, _ = run(capsys, "diff", mlp, longer, "--runtime=onnxruntime")

        assert code == DIFFERENT
        assert "1 ONNX nodes added" in out
        assert "ONNX node '/inserted/MatMul' is new" in out
        assert "Traceback" not in out

    def test_of_two_recordings(self, tmp_path: Path, capsys: Captured) -> None:
        half, full = (
            recordings.unpacked(f"rtx15_bert_base_{precision}.layers.json", tmp_path) for precision in ("fp16", "fp32")
        )
        code, out, _ = run(capsys, "diff", half, full)

        assert code == DIFFERENT
        assert "computes in float32, was float16" in out


class TestBaseline:
    @pytest.fixture
    def store(self, tmp_path: Path) -> BaselineStore:
        session = Session.from_samples(np.full((10, 1), 250.0), layers=["a"])
        made = Run([session, session], {"time_utc": "2026-11-21T12:00:00Z", "commit": "0123abcd"})
        timing = Baseline([made, made]).to_dict()
        store = BaselineStore(tmp_path / "baselines")
        for key, entry in (("structure", {"layers": [{}, {}]}), ("timing x:8x3 engine=wall-clock", timing)):
            store.update(
                IDENTITY,
                "t.py::test",
                "net",
                lambda file, key=key, entry=entry: file.with_entry(key, entry),  # type: ignore[misc]
            )
        return store

    def test_list(self, store: BaselineStore, capsys: Captured) -> None:
        code, out, _ = run(capsys, "baseline", "list")

        assert code == OK
        assert out == "nvidia-h200_sm90_tensorrt-rtx-1.7.1  t.py::test  structure, timing (2 runs)\n"

    def test_list_of_another_folder(self, tmp_path: Path, capsys: Captured) -> None:
        assert run(capsys, "baseline", "list", "--dir", tmp_path / "none") == (OK, "", "")

    def test_list_with_a_damaged_file(self, store: BaselineStore, capsys: Captured) -> None:
        (path,) = store.files()
        (path.parent / "broken.json").write_text("{")
        code, out, _ = run(capsys, "baseline", "list")

        assert code == DIFFERENT
        assert "broken.json: the baseline is not valid JSON" in out
        assert "t.py::test" in out

    def test_show(self, store: BaselineStore, capsys: Captured) -> None:
        (path,) = store.files()
        code, out, _ = run(capsys, "baseline", "show", path)

        assert code == OK
        assert "device    NVIDIA H200" in out
        assert "structure\n  2 layers" in out
        assert out.count("2026-11-21T12:00:00Z 0123abcd       250.0 us, 2 sessions") == 2

    @pytest.mark.parametrize("entry", [{"runs": [{}]}, {"runs": []}, {"something": 1}, {"layers": None}])
    def test_show_of_an_entry_that_is_not_understood(
        self, store: BaselineStore, capsys: Captured, entry: dict[str, Any]
    ) -> None:
        """The checksum fits, as in a file of a version that keeps more."""
        path = store.update(IDENTITY, "t.py::test", "net", lambda file: file.with_entry("other", entry))
        code, _, err = run(capsys, "baseline", "show", path)

        assert code in (OK, USAGE)
        assert "Traceback" not in err

    def test_show_of_a_file_that_is_not_there(self, capsys: Captured) -> None:
        code, _, err = run(capsys, "baseline", "show", "none.json")

        assert code == USAGE
        assert "cannot be read: No such file" in err

    def test_show_of_another_file(self, tmp_path: Path, capsys: Captured) -> None:
        (tmp_path / "x.json").write_text(json.dumps({"format": "other"}))
        code, _, err = run(capsys, "baseline", "show", "x.json")

        assert code == USAGE
        assert "is not a baseline of pytest-trtgray" in err


class TestDoctor:
    def test_says_what_is_here(self, capsys: Captured) -> None:
        from importlib.metadata import version

        code, out, _ = run(capsys, "doctor")

        assert code == OK
        assert f"pytest-trtgray    {version('pytest-trtgray')}" in out
        assert "gpu           " in out
        assert "cores" in out


class TestUsage:
    @pytest.mark.parametrize("arguments", [[], ["unknown"], ["layers"], ["diff", "one"], ["baseline"]])
    def test_what_cannot_be_parsed(self, capsys: Captured, arguments: list[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(arguments)

        assert caught.value.code == USAGE
        assert "usage: trtgray" in capsys.readouterr().err

    def test_help(self, capsys: Captured) -> None:
        with pytest.raises(SystemExit) as caught:
            main(["--help"])

        assert caught.value.code == 0
        out = capsys.readouterr().out
        assert all(command in out for command in ("doctor", "layers", "diff", "baseline"))


class TestLog:
    def test_for_people(self, capsys: Captured) -> None:
        code, out, err = run(capsys, "log", LOGS / "rtx17_p_type_mismatch.log")

        assert (code, err) == (DIFFERENT, "")
        title, model, _, diagnosis, where, evidence, *_ = out.splitlines()
        assert title.endswith("printed by tensorrt, up to phase 'parse': 29 messages, 6 errors, 1 warning")
        assert model.split() == ["model", "models/type_mismatch.onnx,", "opset", "17,", "IR", "0.0.9"]
        assert diagnosis.startswith("TYPE_MISMATCH: ")
        assert (where, evidence.startswith("  line 24: ITensor::getDimensions: Error Code 4")) == (
            "  at /blk/Add",
            True,
        )

    def test_a_log_of_a_build(self, capsys: Captured) -> None:
        code, out, _ = run(capsys, "log", LOGS / "trtexec104_build_verbose.log")

        assert code == OK
        assert "  autotuning   3 tactics timed (0 dead), 2 choices made\n" in out
        assert "  layers       32 (Original) to 9 (After vertical fusions)\n" in out
        assert "TensorRT 10.4.0" in out

    def test_for_programs(self, capsys: Captured) -> None:
        code, out, _ = run(capsys, "log", "--json", LOGS / "trtexec1013_missing_file.log")

        data = json.loads(out)
        assert code == DIFFERENT
        assert {name: data[name] for name in ("producer", "product", "version", "phase", "messages")} == {
            "producer": "trtexec",
            "product": "TensorRT",
            "version": "10.13.0",
            "phase": "parse",
            "messages": 10,
        }
        (parser_error,) = [event for event in data["events"] if event["kind"] == "parser_error"]
        assert (parser_error["line"], parser_error["fields"]["code_name"]) == (4, "INVALID_VALUE")
        assert data["diagnosis"]["code"] == "PARSE_FILE_NOT_FOUND"
        assert data["diagnosis"]["evidence"][0]["line"] == 4
        assert [finding["severity"] for finding in data["findings"]].count("error") >= 1

    def test_several_are_a_list(self, capsys: Captured, tmp_path: Path) -> None:
        code, out, err = run(
            capsys, "log", "--json", LOGS / "trtexec84_unstable.log", tmp_path / "no.log", LOGS / "trt7_tactics.log"
        )

        assert code == USAGE
        assert err.startswith(f"trtgray: {tmp_path / 'no.log'}: No such file or directory\n")
        assert [Path(data["file"]).name for data in json.loads(out)] == ["trtexec84_unstable.log", "trt7_tactics.log"]

    def test_messages_one_a_line(self, capsys: Captured) -> None:
        code, out, _ = run(capsys, "log", "--jsonl", LOGS / "rtx17_p_latin1_names.log")

        lines = [json.loads(line) for line in out.splitlines()]
        assert code == OK
        assert len(lines) == 24
        assert {line["schema"] for line in lines} == {"trtgray.log/1"}
        assert [line["line"] for line in lines if line.get("event") == "parser_error"] == [25]

    @pytest.mark.parametrize("name", ["folder", "model.onnx"])
    def test_no_log(self, name: str, capsys: Captured, tmp_path: Path) -> None:
        path = tmp_path / name
        path.mkdir() if name == "folder" else path.write_bytes(bytes(range(32)) * 9)
        code, out, err = run(capsys, "log", path)

        assert (code, out) == (USAGE, "")
        assert err.startswith(f"trtgray: {path}: ")
