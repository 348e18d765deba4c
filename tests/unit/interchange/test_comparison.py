"""Two runs, check by check: decided by the house's own rules, and open where nobody can tell."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_trtgray.engines.model import EngineInfo, Layer
from pytest_trtgray.errors import InterchangeError
from pytest_trtgray.findings import Finding
from pytest_trtgray.interchange.comparison import CheckComparison, RunComparison, Tolerances, compare_documents
from pytest_trtgray.interchange.importing import Labels, import_files
from pytest_trtgray.interchange.rendering import comparison_data, comparison_lines, comparison_markdown
from pytest_trtgray.reporting.details import timing_details
from pytest_trtgray.reporting.document import make_document
from pytest_trtgray.reporting.results import CheckResult
from pytest_trtgray.timing.gate import Baseline, Run, Session, judge
from pytest_trtgray.timing.profile import Profile, layer_times
from tests import documents, recordings
from tests.unit.interchange.conftest import Write

Document = dict[str, Any]
SLOW = "encoder_layer.3"


def timed(run: Run, layers: tuple[Layer, ...], baseline: Baseline | None = None, engine: str = "bert") -> Document:
    """A document as a test run writes it, of a run judged against a baseline."""
    info = EngineInfo(engine, "", "tensorrt_rtx", "1.5", (), (), ())
    profile = Profile(info, {"ids": (8, 128)}, run, layer_times(run, layers), {"layers": "tensorrt-profiler"})
    verdict = judge(baseline, run) if baseline else None
    check = {
        "kind": "timing",
        "engine": engine,
        "runtime": "tensorrt_rtx 1.5",
        "device": "NVIDIA H200",
        "outcome": verdict.outcome if verdict else "recorded",
        "summary": "",
        "findings": [finding.to_dict() for finding in verdict.findings] if verdict else [],
        "notes": [],
        "total_us": profile.total_us,
    }
    return make_document([CheckResult("t::layers", check, timing_details(profile, verdict, baseline))])


class Bench:
    """Runs of BERT-base on an H200, three processes each."""

    def __init__(self, h200: recordings.H200) -> None:
        self._h200 = h200
        self.layers = tuple(
            Layer(name=name, kind="gemm", onnx_nodes=frozenset({f"/{name}"})) for name in h200.layer_names
        )

    def run(self, number: int, *, column: int = -1, factor: float = 1.0, job: str = "", **more: Any) -> Run:
        sessions = []
        for process in range(3 * number, 3 * number + 3):
            samples = self._h200.layer_us["a"][process].copy()
            latency = self._h200.latency_us["a"][process].astype(float)
            if column >= 0:
                latency = latency + samples[:, column].mean() * (factor - 1)
                samples[:, column] *= factor
            sessions.append(Session.from_samples(samples, latency, layers=self.layers, clock_mhz=1980.0, **more))
        return Run(sessions, {"job": job or f"job {number}"})


@pytest.fixture(scope="session")
def bench(h200: recordings.H200) -> Bench:
    return Bench(h200)


def only(found: RunComparison) -> CheckComparison:
    (check,) = found.checks
    return check


class TestTimes:
    def test_a_run_that_passed_brings_its_baseline(self, bench: Bench) -> None:
        """Three jobs say how much runs differ, so a layer that takes 30 % longer is slower."""
        baseline = Baseline([bench.run(0), bench.run(1)])
        old = timed(bench.run(2), bench.layers, baseline)
        assert old["checks"][0]["outcome"] == "pass"

        longest = int(np.argmax(bench.run(3).location()))
        found = only(compare_documents(old, timed(bench.run(3, column=longest, factor=1.3), bench.layers)))
        assert found.outcome == "worse"
        slower = [layer for layer in found.layers if layer.outcome == "slower"]
        assert [layer.key for layer in slower] == [f"/{bench.layers[longest].name}"]
        assert slower[0].low <= 0.3 <= slower[0].high
        assert "timing.layer-slower" in {finding.rule for finding in found.findings}

        same = only(compare_documents(old, timed(bench.run(3), bench.layers)))
        assert same.outcome == "same"

    def test_one_job_does_not_tell(self, bench: Bench) -> None:
        column = int(np.argmax(bench.run(1).location()))
        old, new = (timed(run, bench.layers) for run in (bench.run(0), bench.run(1, column=column, factor=1.3)))
        found = only(compare_documents(old, new))
        assert found.outcome == "inconclusive"
        assert "a verdict needs 3" in found.summary

    def test_twice_the_time_needs_no_history(self, bench: Bench) -> None:
        column = int(np.argmax(bench.run(1).location()))
        old, new = (timed(run, bench.layers) for run in (bench.run(0), bench.run(1, column=column, factor=3.0)))
        assert only(compare_documents(old, new)).outcome == "worse"
        assert only(compare_documents(new, old)).outcome == "better"

    def test_a_baseline_that_the_old_run_did_not_pass_says_nothing_of_it(self, bench: Bench) -> None:
        column = int(np.argmax(bench.run(3).location()))
        baseline = Baseline([bench.run(0), bench.run(1), bench.run(2)])
        slow = timed(bench.run(3, column=column, factor=1.5), bench.layers, baseline)
        assert slow["checks"][0]["outcome"] == "slower"
        again = timed(bench.run(3, column=column, factor=1.52), bench.layers, baseline)
        found = only(compare_documents(slow, again))
        assert found.outcome == "same"  # as slow as before
        assert found.summary.startswith("slower; ")

    def test_a_verdict_that_turned_is_worse(self, bench: Bench) -> None:
        baseline = Baseline([bench.run(0), bench.run(1), bench.run(2)])
        column = int(np.argmax(bench.run(3).location()))
        old = timed(bench.run(2), bench.layers, baseline)
        new = timed(bench.run(3, column=column, factor=1.5), bench.layers, baseline)
        found = only(compare_documents(old, new))
        assert found.outcome == "worse"
        assert found.summary.startswith("pass -> slower; ")
        assert only(compare_documents(new, old)).outcome == "better"

    def test_the_same_document(self, bench: Bench) -> None:
        document = timed(bench.run(0), bench.layers)
        found = compare_documents(document, copy.deepcopy(document))
        assert only(found).outcome == "same"
        assert not found.is_open

    @pytest.mark.parametrize("which", [0, 1])
    def test_a_disturbed_run_proves_nothing(self, bench: Bench, which: int) -> None:
        both = [bench.run(0), bench.run(1, column=3, factor=9.0)]
        both[which] = bench.run(which, column=3, factor=9.0, disturbed="other work on the GPU")
        old, new = (timed(run, bench.layers) for run in both)
        found = only(compare_documents(old, new))
        assert found.outcome == "inconclusive"
        assert "other work on the GPU" in found.summary

    def test_documents_that_hold_no_sessions(self) -> None:
        found = compare_documents(documents.document(4), documents.document(4, slower=2))
        timing = next(check for check in found.checks if check.kind == "timing")
        assert timing.outcome == "worse"  # the new run said so itself
        assert "the old and new document holds no sessions" in timing.summary
        layer = max(timing.layers, key=lambda layer: layer.change)
        assert (layer.outcome, layer.change > 1) == ("inconclusive", True)

    def test_another_device_shape_or_method(self, bench: Bench) -> None:
        old = timed(bench.run(0), bench.layers)
        for change, outcome, words in (
            ({"device": "NVIDIA L4"}, "incomparable", "another device: NVIDIA H200 -> NVIDIA L4"),
            ({"shapes": {"ids": [1, 128]}}, "incomparable", "other shapes"),
            ({"method": {"layers": "x"}}, "inconclusive", "layers tensorrt-profiler / x"),
        ):
            new = timed(bench.run(1), bench.layers)
            (check,) = new["checks"]
            for member, value in change.items():
                (check if member in check else check["details"])[member] = value
            found = compare_documents(old, new)
            assert only(found).outcome == outcome
            assert words in only(found).summary
            assert found.is_comparable == (outcome == "inconclusive")

    def test_tolerances(self, bench: Bench) -> None:
        column = int(np.argmax(bench.run(3).location()))
        old = timed(bench.run(2), bench.layers, Baseline([bench.run(0), bench.run(1)]))
        new = timed(bench.run(3, column=column, factor=1.3), bench.layers)
        assert only(compare_documents(old, new)).outcome == "worse"
        found = only(compare_documents(old, new, Tolerances(layer=0.9, engine=0.9)))
        assert found.outcome == "inconclusive"  # within the tolerance, and a slowdown worth a word is not excluded


class TestImported:
    """What trtexec exports holds no spread of its layers."""

    def documents(self, exports: Write, factor: float, clock: float | None = None) -> tuple[Document, Document]:
        labels = Labels(clock_mhz=clock)
        old = import_files(exports(0, folder="old"), labels)
        slow = "MatMul"
        return old, import_files(exports(1, folder="new", slower=slow, factor=factor), labels)

    def test_layers_are_not_judged(self, exports: Write) -> None:
        found = compare_documents(*self.documents(exports, 1.5))
        timing = next(check for check in found.checks if check.kind == "timing")
        assert timing.outcome == "inconclusive"
        assert "no spread of the layers" in timing.summary
        assert not found.is_worse
        assert found.is_open
        assert {layer.outcome for layer in timing.layers} == {"inconclusive"}
        assert all(np.isnan(layer.low) for layer in timing.layers)
        assert next(check for check in found.checks if check.kind == "structure").outcome == "same"

    def test_a_locked_clock_lets_the_engine_be_judged(self, exports: Write) -> None:
        timing = compare_documents(*self.documents(exports, 6.0, clock=1980.0)).checks[0]
        assert (timing.kind, timing.outcome) == ("timing", "worse")
        assert timing.findings[0].rule == "timing.engine-slower"
        open_ = compare_documents(*self.documents(exports, 6.0)).checks[0]
        assert open_.outcome == "inconclusive"

    def test_several_starts_let_the_layers_be_judged(self, exports: Write) -> None:
        labels = Labels(clock_mhz=1980.0)
        old = import_files(exports(0, 1, 2, folder="old"), labels)
        new = import_files(exports(3, 4, 5, folder="new", slower="MatMul", factor=6.0), labels)
        timing = compare_documents(old, new).checks[0]
        assert timing.outcome == "worse"
        assert {layer.outcome for layer in timing.layers} >= {"slower", "pass"}

    def test_engines_of_other_names(self, exports: Write) -> None:
        old = import_files(exports(0, folder="old"), Labels(engine="old"))
        new = import_files(exports(1, folder="new"), Labels(engine="new"))
        found = compare_documents(old, new)
        assert {check.engine for check in found.checks} == {"old -> new"}
        assert {check.kind for check in found.checks} == {"timing", "structure"}


class TestOtherChecks:
    def test_structure(self) -> None:
        old, new = documents.document(6), documents.document(6)
        rows = new["checks"][2]["details"]["layers"]
        rows[2]["inputs"][0][1] = "float32"
        rows[2]["outputs"][0][1] = "float32"
        found = compare_documents(old, new)
        structure = next(check for check in found.checks if check.kind == "structure")
        assert structure.outcome == "worse"
        assert structure.findings[0].severity == "error"

    @pytest.mark.parametrize(("wrong", "error", "outcome"), [(0, 5e-4, "same"), (7, 0.1, "worse"), (0, 0.01, "same")])
    def test_outputs(self, wrong: int, error: float, outcome: str) -> None:
        old, new = documents.document(2), documents.document(2)
        new["checks"][1]["details"]["outputs"][0].update(wrong=wrong, relative_l2=error)
        outputs = next(check for check in compare_documents(old, new).checks if check.kind == "outputs")
        assert outputs.outcome == outcome
        assert f"{error:.2g}" in outputs.summary

    def test_an_output_that_is_gone(self) -> None:
        old, new = documents.document(2), documents.document(2)
        new["checks"][1]["details"]["outputs"][0]["name"] = "other"
        outputs = compare_documents(old, new).checks[0]
        assert (outputs.kind, outputs.outcome) == ("outputs", "worse")
        assert outputs.findings[0].rule == "diff.output-gone"

    def test_outputs_that_nothing_was_held_against(self) -> None:
        def values(digest: str, non_finite: int = 0, dtype: str = "float32") -> Document:
            row = {"name": "y", "dtype": dtype, "shape": [2], "non_finite": non_finite, "sha256": digest}
            check = {**documents.document(1)["checks"][1], "kind": "values", "details": {"values": [row]}}
            return {**documents.document(1), "checks": [check]}

        for new, outcome in (
            (values("a"), "same"),
            (values("b"), "inconclusive"),
            (values("b", non_finite=1), "worse"),
            (values("a", dtype="float16"), "worse"),
        ):
            assert only(compare_documents(values("a"), new)).outcome == outcome

    def test_findings_of_a_log(self) -> None:
        def log(*findings: Finding, outcome: str = "pass") -> Document:
            check = {**documents.document(1)["checks"][1], "kind": "log", "outcome": outcome, "details": {}}
            check["findings"] = [finding.to_dict() for finding in findings]
            return {**documents.document(1), "checks": [check]}

        known, fresh = Finding("warning", "a", "known", "log.a"), Finding("warning", "b", "fresh", "log.b")
        warned = only(compare_documents(log(known), log(known, fresh)))
        assert (warned.outcome, [finding.what for finding in warned.findings]) == ("same", ["fresh"])
        bad = Finding("error", "c", "out of memory", "log.c")
        failed = only(compare_documents(log(known), log(known, bad, outcome="fail")))
        assert (failed.outcome, [finding.what for finding in failed.findings]) == ("worse", ["out of memory"])
        again = only(compare_documents(log(bad, outcome="fail"), log(bad, outcome="fail")))
        assert (again.outcome, again.findings) == ("same", ())
        assert only(compare_documents(log(bad, outcome="fail"), log())).outcome == "better"

    def test_checks_that_one_run_lacks(self) -> None:
        old, new = documents.document(2), documents.document(2)
        del new["checks"][1], old["checks"][2]
        found = compare_documents(old, new)
        assert {(check.kind, check.outcome) for check in found.checks} >= {("outputs", "gone"), ("structure", "new")}
        assert not found.is_worse
        assert found.is_open

    def test_engines_are_not_mixed_up(self) -> None:
        old = documents.document(2, engine="a")
        old["checks"] += documents.document(2, engine="b")["checks"]
        new = documents.document(2, engine="b", slower=1)
        new["checks"] += documents.document(2, engine="a")["checks"]
        found = compare_documents(old, new)
        assert {check.engine for check in found.checks if check.outcome == "worse"} == {"b"}
        assert len(found.checks) == len(old["checks"])

    @pytest.mark.parametrize(
        ("number", "details"),
        [
            (2, {"layers": [3]}),
            (1, {"outputs": [{"name": "hidden"}]}),
            (0, {"layers": [{"us": 3}]}),
            (0, {"layers": 3}),
        ],
    )
    def test_damaged_details(self, number: int, details: dict[str, Any]) -> None:
        damaged = documents.document(2)
        damaged["checks"][number]["details"] = details
        with pytest.raises(InterchangeError, match="its details cannot be read"):
            compare_documents(damaged, documents.document(2))


class TestRendering:
    def test_text(self, bench: Bench) -> None:
        column = int(np.argmax(bench.run(1).location()))
        old, new = (timed(run, bench.layers) for run in (bench.run(0), bench.run(1, column=column, factor=3.0)))
        lines = "\n".join(comparison_lines(compare_documents(old, new), limit=3))
        assert lines.startswith("bert  timing  worse")
        assert lines.count(f"/{bench.layers[column].name}: ") == 1  # the finding says it all
        others = [line for line in lines.splitlines() if line.startswith("    ")]
        assert others
        assert all(line.endswith(" inconclusive") for line in others)

    def test_markdown_shows_names_as_they_are(self, bench: Bench) -> None:
        document = timed(bench.run(0), bench.layers, engine="a|b_c")
        text = comparison_markdown(compare_documents(document, document), "old.json", "new.json", 5)
        assert r"a\|b\_c" in text
        assert text.startswith("## old.json → new.json")

    def test_data_is_json(self, exports: Write, tmp_path: Path) -> None:
        from pytest_trtgray.files import dump_json

        old = import_files(exports(0, folder="old"), Labels())
        new = import_files(exports(1, folder="new"), Labels())
        data = comparison_data(compare_documents(old, new), "a", "b")
        assert dump_json(data)  # refuses NaN
        assert (data["format"], data["worse"], data["open"]) == ("trtgray-run-diff", False, True)
        layer = data["checks"][0]["layers"][0]
        assert (layer["outcome"], layer["low"]) == ("inconclusive", None)
