"""Baselines: recorded, compared, appended to, missing, unusable, obsolete, pruned, never lost."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from pytest_trtgray.baselines.store import encode, read_file
from tests.integration.conftest import RECORDS, Project, printed_command, text

ENGINE = "--trt-engine=mlp.onnx"


@pytest.fixture
def recorded(project: Project) -> Project:
    project.mlp()
    project.record(ENGINE, *RECORDS)
    return project


def test_recording_again_appends_a_run_and_replaces_the_structure(recorded: Project) -> None:
    for runs in (2, 3):
        recorded.record(ENGINE, *RECORDS)
        (timing,) = read_file(recorded.baseline("layers")).entries.values()
        assert len(timing["runs"]) == runs
        assert list(read_file(recorded.baseline("structure")).entries) == ["structure"]


def runs_of(project: Project) -> list[int]:
    """How many runs each timing baseline holds."""
    return [len(entry["runs"]) for entry in read_file(project.baseline("layers")).entries.values()]


def test_after_an_intended_change_a_timing_baseline_starts_anew(recorded: Project) -> None:
    recorded.record(ENGINE, *RECORDS)
    assert runs_of(recorded) == [2]
    structure = recorded.baseline("structure").read_bytes()
    result = recorded.run(ENGINE, *RECORDS, "--trt-rebaseline")
    assert result.ret == 0
    assert runs_of(recorded) == [1]
    assert recorded.baseline("structure").read_bytes() == structure
    recorded.record(ENGINE, *RECORDS)
    assert runs_of(recorded) == [2]


def test_starting_anew_with_other_layers(recorded: Project) -> None:
    recorded.mlp(layers=3)
    recorded.run(ENGINE, "-k", "structure").assert_outcomes(failed=1, deselected=4)
    assert recorded.run(ENGINE, *RECORDS, "--trt-rebaseline").ret == 0
    assert runs_of(recorded) == [1]
    assert len(read_file(recorded.baseline("structure")).entries["structure"]["layers"]) == 3
    recorded.run(ENGINE, "-k", "structure").assert_outcomes(passed=1, deselected=4)


def test_starting_anew_where_there_is_nothing_yet(project: Project) -> None:
    project.mlp()
    assert project.run(ENGINE, *RECORDS, "--trt-rebaseline", "--update-baselines").ret == 0
    assert runs_of(project) == [1]


TWO_CHECKS = """
def test_layers(trt_build, trt_profiler):
    engine = trt_build("mlp.onnx")
    trt_profiler(engine).check()
    trt_profiler(engine).check()
    trt_profiler(engine, shapes={"x": (1, 8)}).check()
"""


def test_checks_of_one_run_do_not_drop_each_other(project: Project) -> None:
    """Two checks of one shape are two runs; another shape is another entry."""
    project.mlp()
    project.pytester.makepyfile(TWO_CHECKS)
    project.record()
    assert sorted(runs_of(project)) == [1, 2]
    project.record()
    assert sorted(runs_of(project)) == [2, 4]
    project.run("--trt-rebaseline").assert_outcomes(passed=1)
    assert sorted(runs_of(project)) == [1, 2]


def test_starting_anew_drops_an_entry_that_makes_no_sense(recorded: Project) -> None:
    """Asked for, and the file itself is whole; a file that is not, is left alone."""
    path = recorded.baseline("layers")
    file = read_file(path)
    ((key, _),) = file.entries.items()
    path.write_bytes(encode(file.with_entry(key, {"layers": []})))
    recorded.run(ENGINE, "-k", "layers", "--update-baselines").assert_outcomes(failed=1, deselected=4)
    recorded.run(ENGINE, "-k", "layers", "--trt-rebaseline").assert_outcomes(passed=1, deselected=4)
    assert runs_of(recorded) == [1]
    path.write_text("{")
    recorded.run(ENGINE, "-k", "layers", "--trt-rebaseline").assert_outcomes(failed=1, deselected=4)
    assert path.read_text() == "{"


def test_a_failing_test_starts_nothing_anew(project: Project) -> None:
    project.mlp()
    test = "def test_layers(trt_build, trt_profiler):\n    trt_profiler(trt_build('mlp.onnx')).check()\n"
    project.pytester.makepyfile(test)
    for _ in range(2):
        project.record()
    project.pytester.makepyfile(test + "    assert False\n")
    project.run("--trt-rebaseline").assert_outcomes(failed=1)
    assert runs_of(project) == [2]


def test_a_baseline_holds_units_context_and_no_samples(recorded: Project) -> None:
    file = read_file(recorded.baseline("layers"))
    (timing,) = file.entries.values()
    (run,) = timing["runs"]
    assert set(run) == {
        "log_us",
        "log_sd",
        "log_se",
        "noise",
        "engine_log_us",
        "engine_log_se",
        "sessions",
        "iterations",
        "clock_mhz",
        "context",
    }
    assert len(run["log_us"]) == len(timing["layers"])
    assert {"time_utc", "cores", "python"} <= set(run["context"])
    assert "time_utc" not in file.identity
    assert recorded.baseline("layers").stat().st_size < 4096


def test_other_layers_start_a_new_timing_baseline(recorded: Project) -> None:
    recorded.mlp(layers=3)
    recorded.record(ENGINE, *RECORDS)
    (timing,) = read_file(recorded.baseline("layers")).entries.values()
    assert len(timing["runs"]) == 1


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[: len(content) // 2], "the baseline is not valid JSON"),
        (lambda content: content.replace('"schema": 1', '"schema": 99'), "the baseline has schema 99"),
        (lambda content: content.replace('"float32"', '"float16"'), "the baseline was changed by hand"),
        (lambda content: f"<<<<<<< HEAD\n{content}", "the baseline has unresolved merge conflicts"),
        (lambda content: "[]", "is not a baseline of pytest-trtgray"),
        (lambda content: "\x00\x01", "the baseline is not valid JSON"),
    ],
)
@pytest.mark.parametrize("update", [False, True])
def test_an_unusable_baseline_is_said_and_left_alone(recorded: Project, damage, reason: str, update: bool) -> None:  # type: ignore[no-untyped-def]
    file = recorded.baseline("structure")
    file.write_text(damage(file.read_text()))
    before = file.read_bytes()
    result = recorded.run(ENGINE, "-k", "structure", *(["--update-baselines"] if update else []))
    result.assert_outcomes(failed=1, deselected=4)
    assert reason in text(result)
    assert file.name in text(result)
    assert file.read_bytes() == before


def test_an_entry_that_makes_no_sense_is_damaged(recorded: Project) -> None:
    path = recorded.baseline("layers")
    file = read_file(path)
    ((key, timing),) = file.entries.items()
    timing["runs"][0]["log_us"].pop()
    path.write_bytes(encode(file.with_entry(key, timing)))
    result = recorded.run(ENGINE, "-k", "layers")
    result.assert_outcomes(failed=1, deselected=4)
    assert "the baseline is damaged" in text(result)


@pytest.mark.parametrize("place", ["file/baselines", "/proc/baselines"])
def test_a_folder_that_cannot_be_written(project: Project, place: str) -> None:
    project.mlp()
    (project.path / "file").touch()
    result = project.run(ENGINE, "-k", "structure", "--update-baselines", f"--trt-baseline-dir={place}")
    result.assert_outcomes(failed=1, deselected=4)
    assert "the baseline cannot be written" in text(result)
    assert "--trt-baseline-dir" in text(result)


def test_missing_can_skip_or_record(project: Project) -> None:
    project.mlp()
    skipped = project.run(ENGINE, "-k", "structure", "-o", "trt_on_missing=skip", "-rs")
    skipped.assert_outcomes(skipped=1, deselected=4)
    assert "missing baseline" in text(skipped)
    assert project.baselines() == []
    project.run(ENGINE, "-k", "structure", "-o", "trt_on_missing=record").assert_outcomes(passed=1, deselected=4)
    assert len(project.baselines()) == 1


def test_missing_names_the_other_hardware_that_has_one(recorded: Project) -> None:
    folder = recorded.baseline("structure").parent
    folder.rename(folder.with_name("another-target"))
    result = recorded.run(ENGINE, "-k", "structure")
    result.assert_outcomes(failed=1, deselected=4)
    assert "There is one for other hardware or versions: another-target" in text(result)


def test_the_printed_command_works_from_another_folder(project: Project) -> None:
    """The ini file, and so pytest's node ids, may lie below the folder that pytest was started in."""
    suite = project.path / "suite"
    suite.mkdir()
    (suite / "pytest.ini").write_text((project.path / "pytest.ini").read_text())
    (project.path / "pytest.ini").unlink()
    project.mlp("suite/mlp.onnx")
    (suite / "test_it.py").write_text(
        "def test_it(trt_build, trt_structure):\n    trt_structure(trt_build('mlp.onnx')).check()\n"
    )
    missing = project.run("suite")
    missing.assert_outcomes(failed=1)
    project.run(*printed_command(missing)).assert_outcomes(passed=1)
    project.run("suite").assert_outcomes(passed=1)


def test_a_failing_test_records_nothing(project: Project) -> None:
    project.mlp()
    project.pytester.makepyfile(
        "def test_it(trt_engine, trt_structure):\n"
        "    trt_structure(trt_engine).check()\n"
        "    raise AssertionError('later')\n"
    )
    project.run(ENGINE, "--update-baselines").assert_outcomes(failed=1)
    assert project.baselines() == []


USER_TESTS = """
import pytest

@pytest.mark.parametrize("size", [1, 2])
def test_one(trt_engine, trt_structure, size):
    trt_structure(trt_engine).check()

def test_two(trt_engine, trt_structure):
    trt_structure(trt_engine).check()
"""


def test_obsolete_baselines_are_reported_and_only_pruned_on_request(project: Project) -> None:
    project.mlp()
    file = project.pytester.makepyfile(test_user=USER_TESTS)
    project.record(ENGINE)
    assert len(project.baselines()) == 3
    file.write_text(USER_TESTS.partition("def test_two")[0].replace("[1, 2]", "[1]"))

    result = project.run(ENGINE)
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK
    assert text(result).count("obsolete: ") == 2
    assert len(project.baselines()) == 3

    pruned = project.run(ENGINE, "--trt-prune-baselines")
    assert text(pruned).count("deleted: ") == 2
    (left,) = project.baselines()
    assert "test_one" in left


@pytest.mark.parametrize(
    "args", [["-k", "test_one"], ["test_user.py::test_one"], ["--deselect=test_user.py::test_two"], ["-x"]]
)
def test_nothing_is_obsolete_when_tests_were_left_out(project: Project, args: list[str]) -> None:
    project.mlp()
    file = project.pytester.makepyfile(test_user=USER_TESTS)
    project.record(ENGINE)
    file.write_text(USER_TESTS.partition("def test_two")[0])
    result = project.run(ENGINE, *args, "--trt-prune-baselines")
    assert "obsolete: " not in text(result)
    assert "deleted: " not in text(result)
    assert len(project.baselines()) == 3


def test_another_engines_baselines_are_not_obsolete(project: Project) -> None:
    project.mlp("a.onnx")
    project.mlp("b.onnx", seed=1)
    project.record("--trt-engine=a.onnx", "--trt-engine=b.onnx", *RECORDS)
    count = len(project.baselines())
    result = project.run("--trt-engine=a.onnx", "--trt-prune-baselines")
    assert "deleted" not in text(result)
    assert len(project.baselines()) == count


def test_a_skipped_tests_baseline_is_not_obsolete(project: Project, no_gpu: None) -> None:
    project.mlp()
    file = project.pytester.makepyfile(test_user=USER_TESTS)
    project.record(ENGINE)
    file.write_text(USER_TESTS.replace("def test_two", '@pytest.mark.trt_arch("sm_90")\ndef test_two'))
    result = project.run(ENGINE, "--trt-prune-baselines")
    result.assert_outcomes(passed=2, skipped=1)
    assert len(project.baselines()) == 3


def test_identity_fields_are_a_choice(project: Project) -> None:
    project.mlp()
    project.record(ENGINE, "-o", "trt_identity=runtime precision", "-k", "structure")
    assert project.baselines() == ["onnxruntime_float32/trtgray.structure-mlp.json"]


def test_folder_of_the_ini_file_and_of_the_command_line(project: Project) -> None:
    project.mlp()
    project.ini("trt_baseline_dir = stored")
    project.record(ENGINE, "-k", "structure")
    assert len(list((project.path / "stored").rglob("*.json"))) == 1
    project.record(ENGINE, "-k", "structure", "--trt-baseline-dir=given")
    assert len(list((project.path / "given").rglob("*.json"))) == 1


def test_slower_fails_in_the_test_with_the_layer_on_line_one(project: Project) -> None:
    """Five runs of a faster past: the verdict is exercised, not the machine."""
    project.mlp(features=64, hidden=256)
    for _ in range(5):
        project.record(ENGINE, "-k", "layers")
    _make_faster(project.baseline("layers"), factor=0.005)
    result = project.run(ENGINE, "-k", "layers", "--junitxml=junit.xml")
    result.assert_outcomes(failed=1, deselected=4)
    # on a busy machine one layer may stand out from the rest; that something is slower is beyond doubt
    result.stdout.re_match_lines([r"(engine slower by \d+|\d of \d layers slower).* on .*", r".* -> .* us, \+.*"])
    assert 'failures="1"' in (project.path / "junit.xml").read_text()
    assert f"If it is intended:  pytest {ENGINE} -k layers --junitxml=junit.xml --trt-rebaseline" in text(result)

    reported = project.run(ENGINE, "-k", "layers", "--trt-timing=report")
    reported.assert_outcomes(passed=1, deselected=4)
    assert "slower" in text(reported)
    project.run(ENGINE, "-k", "layers", "--trt-timing=off").assert_outcomes(skipped=1, deselected=4)


def test_inconclusive_is_warned_skipped_or_failed(project: Project) -> None:
    project.mlp()
    project.record(ENGINE, "-k", "layers")
    _make_faster(project.baseline("layers"), factor=0.005)  # one job: suspicious, but no proof
    warned = project.run(ENGINE, "-k", "layers")
    warned.assert_outcomes(passed=1, deselected=4)
    assert "timing inconclusive: the baseline has 1 job, a verdict needs 3" in text(warned)
    project.run(ENGINE, "-k", "layers", "-o", "trt_inconclusive=skip").assert_outcomes(skipped=1, deselected=4)
    project.run(ENGINE, "-k", "layers", "-o", "trt_inconclusive=fail").assert_outcomes(failed=1, deselected=4)


def _make_faster(path: Path, factor: float) -> None:
    """Rewrite all runs of a timing baseline as alike, and faster than the first was by ``factor``."""
    file = read_file(path)
    ((key, timing),) = file.entries.items()
    first = timing["runs"][0]
    runs = [
        {
            **run,
            "log_us": [value + math.log(factor) + 0.001 * (index % 2) for value in first["log_us"]],
            "engine_log_us": first["engine_log_us"] + math.log(factor) + 0.001 * (index % 2),
            "context": {**run["context"], "job": f"job {index}"},
            "noise": None,  # a busy machine is another test's matter
        }
        for index, run in enumerate(timing["runs"])
    ]
    path.write_bytes(encode(file.with_entry(key, {**timing, "runs": runs})))
