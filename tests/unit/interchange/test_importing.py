"""Files of other tools become run documents that the house takes as its own."""

from __future__ import annotations

import gzip
import json
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from pytest_trtgray.errors import InterchangeError, ModelError
from pytest_trtgray.files import dump_json
from pytest_trtgray.interchange.importing import Labels, import_files
from pytest_trtgray.reporting.document import read_document
from pytest_trtgray.reporting.html import render
from pytest_trtgray.reporting.markdown import render_markdown
from pytest_trtgray.structure.snapshot import Snapshot
from pytest_trtgray.timing.gate import Run
from tests import recordings, trtexec_files
from tests.unit.interchange.conftest import Write
from tests.unit.interchange.test_onnxruntime_profile import profiled
from tests.unit.interchange.test_polygraphy_results import saved

SCHEMA = json.loads(files("pytest_trtgray.reporting").joinpath("run.schema.json").read_text("utf-8"))


def imported(paths: list[Path], **labels: Any) -> dict[str, Any]:
    """The document, after it went through a file, the schema and the reports."""
    place = paths[0].parent / "imported-run.json"
    place.write_bytes(dump_json(import_files(paths, Labels(**labels))))
    document = read_document(place)
    jsonschema.validate(document, SCHEMA)
    assert "</html>" in render([document])
    assert render_markdown(document)
    return document


def the(document: dict[str, Any], kind: str) -> dict[str, Any]:
    (check,) = (check for check in document["checks"] if check["kind"] == kind)
    return dict(check)


class TestTrtexec:
    def test_three_files_are_one_run(self, exports: Write, h200: recordings.H200) -> None:
        document = imported(exports(0), device="NVIDIA H200", runtime="tensorrt_rtx 1.5.0.114")
        timing = the(document, "timing")
        assert (timing["engine"], timing["device"], timing["outcome"]) == ("bert", "NVIDIA H200", "recorded")
        assert timing["total_us"] == pytest.approx(h200.latency_us["a"][0].mean(), rel=0.01)
        assert timing["details"]["engine"]["us"] == timing["total_us"]
        assert timing["findings"] == []

        rows = {row["names"][0]: row for row in timing["details"]["layers"]}
        assert list(rows) == h200.layer_names
        for column, name in enumerate(h200.layer_names):
            samples = h200.layer_us["a"][0][:, column]
            assert rows[name]["us"] == pytest.approx(samples.mean(), rel=1e-4)
            assert rows[name]["median_us"] == pytest.approx(np.median(samples), rel=1e-4)
        product = next(row for row in rows.values() if "/m/encoder/layer.0/attention/self/query/MatMul" in row["nodes"])
        assert product["precision"] == "float16"
        assert product["module"].startswith("m/encoder/layer.0/attention")
        assert sum(row["share"] for row in rows.values()) == pytest.approx(1.0)
        assert timing["details"]["module_times"]

        structure = Snapshot.from_dict(the(document, "structure")["details"])
        assert len(structure.layers) == 125
        assert [each["kind"] for each in document["imported"]] == ["profile", "times", "layers"]

    def test_the_error_of_what_was_measured_once_is_not_known(self, exports: Write) -> None:
        measured = the(imported(exports(0)), "timing")["measured"]
        run = Run.from_dict(measured["run"])
        assert not run.has_errors
        assert set(measured["run"]["sessions"][0]["log_se"]) == {None}
        assert 0 < run.engine_error() < 0.01  # of the times, which have a row an inference

    def test_several_starts_are_sessions(self, exports: Write, h200: recordings.H200) -> None:
        run = Run.from_dict(the(imported(exports(0, 1, 2)), "timing")["measured"]["run"])
        assert len(run.sessions) == 3
        assert run.has_errors
        logs = np.log(h200.layer_us["a"][:3].mean(axis=1))
        np.testing.assert_allclose(run.location(), logs.mean(axis=0), atol=1e-3)
        np.testing.assert_allclose(run.error(), logs.std(axis=0, ddof=1) / math.sqrt(3), atol=1e-3)

    def test_a_profile_alone(self, exports: Write, h200: recordings.H200) -> None:
        profile, *_ = exports(0, listed=False)
        timing = the(imported([profile]), "timing")
        assert timing["details"]["method"]["engine"] == "sum of layers"
        assert timing["total_us"] == pytest.approx(h200.layer_us["a"][0].mean(axis=0).sum(), rel=1e-3)

    def test_times_alone(self, exports: Write) -> None:
        _, times, *_ = exports(0, listed=False)
        timing = the(imported([times]), "timing")
        assert timing["details"]["layers"] == []
        assert float(timing["details"]["overheads"]["upload_us"]) == 0.0

    def test_layers_alone_and_their_model(self, exports: Write, tmp_path: Path) -> None:
        *_, listing = exports(0)
        assert [check["kind"] for check in imported([listing])["checks"]] == ["structure"]
        with pytest.raises(ModelError):
            import_files([listing], Labels(onnx=tmp_path / "gone.onnx"))

    def test_names_that_break_json_in_both_files(self, tmp_path: Path) -> None:
        names = ['say "hi"', "C:\\new", "back\\slash", "\x1e\x1f"]
        profile, listing = tmp_path / "net.profile.json", tmp_path / "net.layers.json"
        profile.write_text(trtexec_files.profile(names, np.ones((3, 4))))
        listing.write_text(
            '{"Layers": [' + ", ".join(f'{{"Name": "{name}", "LayerType": "x"}}' for name in names) + "]}"
        )
        timing = the(imported([profile, listing]), "timing")
        assert [row["kind"] for row in timing["details"]["layers"]] == ["x"] * 4
        assert timing["findings"] == []

    def test_layers_of_one_name_keep_their_order(self, tmp_path: Path) -> None:
        profile, listing = tmp_path / "net.profile.json", tmp_path / "net.layers.json"
        profile.write_text(trtexec_files.profile(["a", "a", "b"], np.array([[1.0, 2.0, 3.0]])))
        kinds = json.dumps({"Layers": [{"Name": name, "LayerType": kind} for name, kind in ("ap", "aq", "br")]})
        listing.write_text(kinds)
        rows = the(imported([profile, listing]), "timing")["details"]["layers"]
        assert [row["kind"] for row in rows] == ["p", "q", "r"]
        assert [row["us"] for row in rows] == pytest.approx([1.0, 2.0, 3.0])
        assert len({row["key"] for row in rows}) == 3

    def test_layers_that_are_names_only(self, exports: Write, h200: recordings.H200, tmp_path: Path) -> None:
        profile, *_ = exports(0, listed=False)
        listing = tmp_path / "names.json"
        listing.write_text(json.dumps({"Layers": h200.layer_names}))
        assert the(imported([profile, listing]), "timing")["findings"] == []

    def test_an_unknown_time_stays_unknown(self, tmp_path: Path) -> None:
        path = tmp_path / "net.profile.json"
        path.write_text('[{"name": "a", "averageMs": NaN}, {"name": "b", "averageMs": 1.0}]')
        timing = the(imported([path]), "timing")
        assert [row["us"] for row in timing["details"]["layers"]] == [None, pytest.approx(1000.0)]
        assert timing["total_us"] is None
        assert [finding["rule"] for finding in timing["findings"]] == ["interchange.no-number"]

    def test_compressed(self, exports: Write) -> None:
        paths = exports(0)
        for path in paths:
            path.write_bytes(gzip.compress(path.read_bytes()))
        assert the(imported(paths), "timing")["engine"] == "bert"

    def test_numbers_for_names(self, tmp_path: Path) -> None:
        path = tmp_path / "net.profile.json"
        path.write_text(trtexec_files.profile(["0", "1"], np.ones((3, 2))))
        assert [row["rule"] for row in the(imported([path]), "timing")["findings"]] == ["interchange.no-names"]

    def test_what_does_not_go_together(self, exports: Write, tmp_path: Path) -> None:
        paths = exports(0, 1, 2)
        other = tmp_path / "other.json"
        other.write_text(trtexec_files.profile(["x"], np.ones((3, 1))))
        listing = tmp_path / "listing.json"
        listing.write_text('{"Layers": ["x", "y"]}')
        document = tmp_path / "run.json"
        document.write_bytes(dump_json(import_files(paths[:2], Labels())))
        for given, reason in (
            ([paths[0], paths[0]], "is given twice"),
            ([paths[0], other], "the profiles list different layers"),
            ([paths[0], listing], "no layer of the profile is in the list of layers"),
            ([paths[-1], listing], "is a second list of layers"),
            ([paths[0], paths[2], paths[1], paths[3], paths[5]], "2 profiles and 3 exports of times do not make pairs"),
            ([document], "is a run document already"),
        ):
            with pytest.raises(InterchangeError, match=reason):
                import_files(given, Labels())


class TestOnnxRuntime:
    def test_a_session(self, conv_net: Path, tmp_path: Path) -> None:
        timing = the(imported([profiled(conv_net, tmp_path)], engine="net"), "timing")
        assert timing["details"]["iterations"] == 11
        assert Run.from_dict(timing["measured"]["run"]).has_errors
        assert timing["details"]["method"]["provider"] == "CPUExecutionProvider"

    def test_the_model_tells_the_nodes(self, conv_net: Path, tmp_path: Path) -> None:
        paths = [profiled(conv_net, tmp_path), profiled(conv_net, tmp_path)]
        paths[1] = paths[1].rename(tmp_path / "second.json")
        timing = the(imported(paths, engine="net", onnx=conv_net), "timing")
        assert timing["details"]["sessions"] == 2
        assert timing["findings"] == []
        nodes = {node for row in timing["details"]["layers"] for node in row["nodes"]}
        assert "/stem/Conv" in nodes  # fused into a kernel of another name

    def test_another_model(self, conv_net: Path, mlp: Path, tmp_path: Path) -> None:
        timing = the(imported([profiled(conv_net, tmp_path)], onnx=mlp), "timing")
        assert [row["rule"] for row in timing["findings"]] == ["interchange.unlisted"]
        first = profiled(conv_net, tmp_path).rename(tmp_path / "first.json")
        with pytest.raises(InterchangeError, match="the profiles list different nodes"):
            import_files([first, profiled(mlp, tmp_path)], Labels())


class TestPolygraphy:
    right = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)

    def test_a_runner_is_held_against_onnx_runtime(self, tmp_path: Path) -> None:
        path = saved(tmp_path, trt_runner=[{"y": self.right * 2}], onnxrt_runner=[{"y": self.right}])
        document = imported([path], engine="net")
        outputs = the(document, "outputs")
        assert (outputs["engine"], outputs["outcome"]) == ("net", "differs")
        assert outputs["relative_l2"] == pytest.approx(1.0)
        assert outputs["details"]["outputs"][0]["wrong"] == 12
        times = {check["engine"]: check["total_us"] for check in document["checks"] if check["kind"] == "timing"}
        assert times == pytest.approx({"net": 1500.0, "onnxrt-runner": 1500.0})

    def test_from_two_files_and_within_tolerance(self, tmp_path: Path) -> None:
        paths = [
            saved(tmp_path, trt_runner=[{"y": self.right * 1.001}] * 2),
            saved(tmp_path, onnxrt_runner=[{"y": self.right}] * 2),
        ]
        outputs = the(imported(paths), "outputs")
        assert outputs["outcome"] == "pass"
        names = [row["name"] for row in outputs["details"]["outputs"]]
        assert names == ["y (iteration 0)", "y (iteration 1)"]
        assert the(imported(paths, rtol=1e-5), "outputs")["outcome"] == "differs"

    def test_fewer_iterations_never_pass(self, tmp_path: Path) -> None:
        path = saved(tmp_path, trt=[{"y": self.right}], onnxrt=[{"y": self.right}] * 2)
        outputs = the(imported([path]), "outputs")
        assert outputs["outcome"] == "differs"
        assert "accuracy.run-count" in {row["rule"] for row in outputs["findings"]}

    def test_one_runner_alone(self, tmp_path: Path) -> None:
        values = np.array([1.0, np.nan, np.inf], np.float16)
        check = the(imported([saved(tmp_path, trt=[{"y": values}])]), "values")
        (row,) = check["details"]["values"]
        assert check["outcome"] == "fail"
        assert (row["dtype"], row["shape"], row["non_finite"], row["max"]) == ("float16", [3], 2, 1.0)
        assert check["findings"][0]["what"] == "output 'y': 2 of 3 elements are NaN or infinite"

    def test_which_runner_is_right(self, tmp_path: Path) -> None:
        path = saved(tmp_path, first=[{"y": self.right}], second=[{"y": self.right}])
        assert {check["kind"] for check in imported([path])["checks"]} == {"timing", "values"}
        assert the(imported([path], reference="sec"), "outputs")["outcome"] == "pass"
        for name in ("third", "s"):
            with pytest.raises(InterchangeError, match="there are: first, second"):
                import_files([path], Labels(reference=name))

    def test_outputs_of_trtexec(self, tmp_path: Path) -> None:
        """It tells no types, and six digits of each value."""
        mine = tmp_path / "net.output.json"
        mine.write_text(trtexec_files.outputs({"y": self.right.astype(float)}))
        reference = saved(tmp_path, onnxrt=[{"y": self.right.astype(np.float16)}])
        assert the(imported([mine, reference]), "outputs")["outcome"] == "pass"


def test_labels(exports: Write) -> None:
    document = imported(
        exports(0), engine="mine", clock_mhz=1980.0, method={"cuda_graph": "yes"}, context={"commit": "beef00"}
    )
    timing = the(document, "timing")
    assert timing["engine"] == "mine"
    assert timing["details"]["clock_mhz"] == 1980.0
    assert timing["details"]["method"]["cuda_graph"] == "yes"
    assert timing["details"]["context"]["commit"] == "beef00"
