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
from pytest_trtgray.timing.first_calls import FirstCallRun, FirstCallsBaseline
from pytest_trtgray.timing.gate import Baseline, Run, Session
from tests import models, quantised, recordings

IDENTITY = {"device": "NVIDIA H200", "sm": "sm_90", "runtime": "tensorrt_rtx", "version": "1.7.1"}
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
            "#  layer      precision  format  tactic         ONNX nodes",
            "0  FusedGemm  float32    -       com.microsoft  /fc0/Add + /fc0/MatMul + /fc0/Relu",
            "1  Gemm       float32    -       -              /fc1/Add + /fc1/MatMul",
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

    def test_of_a_short_listing_in_a_log(self, tmp_path: Path, capsys: Captured) -> None:
        """TensorRT 8.5 prints one line a layer; it tells types that the inspector does not know before it runs."""
        code, out, _ = run(capsys, "layers", recordings.unpacked("trt85_resnet50_int8.log", tmp_path))
        line = next(line for line in out.splitlines() if line.endswith("/conv1/Conv + /maxpool/MaxPool + /relu/Relu"))

        assert code == OK
        assert line.split() == [
            *("95", "CaskConvActPool", "int8", "vectors", "of", "32", "0xc5730a6ceacd8913"),
            *("/conv1/Conv", "+", "/maxpool/MaxPool", "+", "/relu/Relu"),
        ]

    def test_as_data(self, tmp_path: Path, capsys: Captured) -> None:
        """What it writes, it reads: a listing of one machine is compared on another."""
        path = recordings.unpacked("rtx17_bert_base.log", tmp_path)
        code, out, _ = run(capsys, "layers", path, "--json")
        (tmp_path / "kept.json").write_text(out)
        data = json.loads(out)

        assert code == OK
        assert (data["format"], data["schema"], len(data["layers"])) == ("trtgray-layers", 1, 195)
        assert data["layers"][3]["precision"] == "float32"
        assert data["memory"]["weights_bytes"] == 435108224
        assert run(capsys, "diff", path, "kept.json")[0] == OK

    def test_modules_from_the_model(self, tmp_path: Path, capsys: Captured) -> None:
        (tmp_path / "x.json").write_text('{"Layers": ["node_MatMul_1 + node_linear"]}')
        model = recordings.model("torch215_scopes", tmp_path)
        _, out, _ = run(capsys, "layers", "x.json", "--onnx", model)

        assert "/blocks.0/attn/q/Add + /blocks.0/attn/q/MatMul" in out

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
        assert out == "2 layers matched, 0 fused differently, 0 ONNX nodes added, 0 removed\n"

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
        assert "computes in float32, was float16; 11 more like it" in out

    def test_of_logs_with_their_model(self, tmp_path: Path, capsys: Captured) -> None:
        """The builder's log is enough, without a GPU; with the model, no node is taken for one that is gone."""
        full, half = (recordings.unpacked(f"rtx17_bert_base{name}.log", tmp_path) for name in ("", "_fp16"))
        model = recordings.model("bert_base", tmp_path)
        code, out, _ = run(capsys, "diff", full, half)
        _, with_model, _ = run(capsys, "diff", full, half, "--onnx", model)

        assert code == DIFFERENT
        assert "Transpose_3' has no layer any more" in out
        assert "Transpose_3'" not in with_model
        assert with_model.startswith(
            "110 layers matched, 13 fused differently, 0 ONNX nodes added, 0 removed, 12 copies"
        )

    def test_memory_that_grew(self, tmp_path: Path, capsys: Captured) -> None:
        full, half = (recordings.unpacked(f"rtx17_bert_base{name}.log", tmp_path) for name in ("", "_fp16"))
        _, out, _ = run(capsys, "diff", half, full)

        assert "weights grew by 100%: 217,558,272 -> 435,108,224 bytes" in out

    def test_only_advice_is_the_same_engine(self, tmp_path: Path, capsys: Captured) -> None:
        for name, tactic in (("old", "sm80_a"), ("new", "sm80_b")):
            entry = {"Name": "conv", "LayerType": "CaskConvolution", "TacticName": tactic}
            (tmp_path / f"{name}.json").write_text(json.dumps({"Layers": [entry]}))
        code, out, _ = run(capsys, "diff", "old.json", "new.json")

        assert code == OK
        assert "1 of 1 layer have another tactic" in out

    def test_as_data(self, mlp: Path, tmp_path: Path, capsys: Captured) -> None:
        longer = models.insert_matmul(mlp, tmp_path / "longer.onnx", before="/fc1/MatMul")
        code, out, _ = run(capsys, "diff", mlp, longer, "--runtime=onnxruntime", "--json")
        data = json.loads(out)

        assert code == DIFFERENT
        assert data["same"] is False
        assert data["summary"].startswith("2 layers matched")
        assert [(found["severity"], found["rule"], found["where"]) for found in data["findings"]] == [
            ("error", "structure.node-added", "/inserted/MatMul"),
            ("advice", "structure.memory-grew", "weights"),
        ]

    @pytest.mark.parametrize("side", [0, 1])
    def test_of_something_unreadable(self, mlp: Path, tmp_path: Path, capsys: Captured, side: int) -> None:
        (tmp_path / "x.json").write_text("{")
        files = [mlp, "x.json"] if side else ["x.json", mlp]
        code, out, err = run(capsys, "diff", *files, "--runtime=onnxruntime")

        assert (code, out) == (USAGE, "")
        assert err.startswith("trtgray: x.json: not valid JSON")

    def test_the_exit_codes_are_documented(self, capsys: Captured) -> None:
        with pytest.raises(SystemExit):
            main(["diff", "--help"])

        text = " ".join(capsys.readouterr().out.split())
        assert "exit codes: 0 the same engine (there may be advice), 1 another engine, 2 something cannot be" in text


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

    @pytest.mark.parametrize(
        "entry", [{"runs": [{}]}, {"runs": []}, {"calls": [], "runs": []}, {"something": 1}, {"layers": None}]
    )
    def test_show_of_an_entry_that_is_not_understood(
        self, store: BaselineStore, capsys: Captured, entry: dict[str, Any]
    ) -> None:
        """The checksum fits, as in a file of a version that keeps more."""
        path = store.update(IDENTITY, "t.py::test", "net", lambda file: file.with_entry("other", entry))
        code, _, err = run(capsys, "baseline", "show", path)

        assert code in (OK, USAGE)
        assert "Traceback" not in err

    def test_show_of_first_calls(self, store: BaselineStore, capsys: Captured) -> None:
        made = FirstCallRun(812.5, (7100.0, 43_000.0), (210.0, 230.0), {"time_utc": "2026-11-21T12:00:00Z"})
        entry = FirstCallsBaseline(["x:1x8", "x:32x8"], [made]).to_dict()
        path = store.update(IDENTITY, "t.py::test", "net", lambda file: file.with_entry("first-calls x", entry))
        code, out, _ = run(capsys, "baseline", "show", path)

        assert code == OK
        assert "first-calls x\n  2026-11-21T12:00:00Z   first calls 7100.0, 43000.0 us, context 812.5 us\n" in out
        assert "first-calls (1 runs), structure, timing (2 runs)" in run(capsys, "baseline", "list")[1]

    def test_show_of_a_file_that_is_not_there(self, capsys: Captured) -> None:
        code, _, err = run(capsys, "baseline", "show", "none.json")

        assert code == USAGE
        assert "cannot be read: No such file" in err

    def test_show_of_another_file(self, tmp_path: Path, capsys: Captured) -> None:
        (tmp_path / "x.json").write_text(json.dumps({"format": "other"}))
        code, _, err = run(capsys, "baseline", "show", "x.json")

        assert code == USAGE
        assert "is not a baseline of pytest-trtgray" in err


class TestNumbers:
    """Commands that look at values: quantisation, fp16, calibrations."""

    @pytest.fixture
    def feeds(self, conv_net: Path, tmp_path: Path) -> list[Path]:
        paths = [tmp_path / f"{index}.npz" for index in range(2)]
        for path, feed in zip(paths, quantised.feeds_for(conv_net, 2), strict=True):
            arrays: dict[str, Any] = dict(feed)
            np.savez(path, **arrays)
        return paths

    def test_a_healthy_quantisation(self, conv_net: Path, feeds: list[Path], tmp_path: Path, capsys: Captured) -> None:
        path = quantised.quantised(conv_net, tmp_path / "q.onnx")
        code, out, err = run(
            capsys, "quantisation", path, "--feeds", *feeds, "--calibration", *feeds, "--reference", conv_net
        )
        header, *rows = out.splitlines()

        assert (code, err) == (OK, "")
        assert header.split() == ["SNR", "dB", "clipped", "range", "bits", "type", "scales", "tensor", "read", "by"]
        assert len(rows) == len(quantised.quantisers(path))
        ratios = [float(row.split()[0]) for row in rows]
        assert ratios == sorted(ratios)
        assert any("axis 0" in row and "layer0.conv1.weight" in row for row in rows)

    def test_a_scale_that_is_wrong(self, conv_net: Path, feeds: list[Path], tmp_path: Path, capsys: Captured) -> None:
        node = "/stem/Relu_output_QuantizeLinear"
        path = quantised.quantised(conv_net, tmp_path / "q.onnx")
        bad = quantised.rescale(path, tmp_path / "bad.onnx", node, 1 / 8)
        code, out, _ = run(capsys, "quantisation", bad, "--feeds", feeds[0], "--limit", 1)

        assert code == DIFFERENT
        assert "/stem/Relu_output  /layer0/conv1/Conv, /layer0/Add" in out.splitlines()[1]
        assert "... and 11 more (--limit)" in out
        assert "of the values are clipped" in out
        assert "-> Calibrate again" in out

    def test_fp16(self, mlp: Path, tmp_path: Path, capsys: Captured) -> None:
        code, out, _ = run(capsys, "fp16", mlp)
        assert code == OK
        assert out.splitlines()[0].split()[:2] == ["overflow", "subnormal"]
        bad = models.scale_weight(mlp, tmp_path / "bad.onnx", "fc0.weight", 1e-7)
        code, out, _ = run(capsys, "fp16", bad)
        assert code == DIFFERENT
        assert out.splitlines()[1].endswith("fc0.weight  /fc0/MatMul")

    def test_calibrations(self, conv_net: Path, feeds: list[Path], capsys: Captured) -> None:
        code, out, _ = run(capsys, "calibrations", conv_net, "--feeds", feeds[0], "--test", feeds[1], "--limit", 2)

        assert code == OK
        assert out.splitlines()[0].split() == ["scale,", "clipped,", "SNR", "minmax", "entropy", "percentile"]
        assert out.splitlines()[1].startswith("(relative L2 error of the outputs)")
        assert "\ntake minmax: " in out or "\ntake percentile: " in out
        assert "ranges from 4 samples" in out

    @pytest.mark.parametrize("command", ["quantisation", "fp16", "calibrations"])
    def test_bad_input(self, command: str, mlp: Path, tmp_path: Path, capsys: Captured) -> None:
        (tmp_path / "bad.npz").write_text("no")
        for arguments in (["none.onnx", "--feeds", "bad.npz"], [str(mlp), "--feeds", "bad.npz"]):
            code, _, err = run(capsys, command, *arguments)
            assert code == USAGE
            assert err.startswith("trtgray: ")
            assert "Traceback" not in err


class TestDoctor:
    def test_says_what_is_here(self, capsys: Captured) -> None:
        from importlib.metadata import version

        code, out, _ = run(capsys, "doctor")

        assert code == OK
        assert f"pytest-trtgray    {version('pytest-trtgray')}" in out
        assert f"onnxruntime       {version('onnxruntime')}; " in out
        assert "gpu               " in out
        assert "cores" in out

    def test_as_json(self, capsys: Captured) -> None:
        code, out, _ = run(capsys, "doctor", "--json")
        found = json.loads(out)

        assert (code, found["format"], found["schema"]) == (OK, "trtgray-doctor", 1)
        assert found["facts"]["machine"]["cores"]
        assert "CPUExecutionProvider" in found["facts"]["probes"]["onnxruntime"]["providers"]
        assert [finding for finding in found["findings"] if finding["severity"] == "error"] == []

    @pytest.mark.parametrize("options", [(), ("--json",)])
    def test_something_broken(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, options: tuple[str, ...]
    ) -> None:
        home = tmp_path / "home" / "alice"
        (home / "tensorrt").mkdir(parents=True)
        (home / "tensorrt" / "__init__.py").write_text("raise OSError(f'{__file__} is broken')")
        monkeypatch.syspath_prepend(str(home))
        monkeypatch.setenv("PYTHONPATH", str(home))
        code, out, _ = run(capsys, "doctor", *options)

        assert code == DIFFERENT
        assert "tensorrt cannot be loaded: OSError: " in out
        assert "home/user/tensorrt/__init__.py is broken" in out
        assert "alice" not in out
        assert "alice" in run(capsys, "doctor", "--no-redaction", *options)[1]


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
        assert all(command in out for command in ("doctor", "layers", "diff", "quantisation", "fp16", "baseline"))
