"""The plugin among others: switched off, in parallel, strict, with warnings as errors, beside other plugins."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests import models
from tests.integration.conftest import Project, needs_rtx, printed_command, text

ENGINE = "--trt-engine=mlp.onnx"


def test_costs_nothing_where_it_is_not_used(project: Project) -> None:
    """No numpy, onnx, hypothesis or runtime is imported for a project that does not use the plugin."""
    project.pytester.makepyfile("def test_it():\n    pass")
    code = (
        "import sys, pytest\n"
        "pytest.main(['--collect-only', '-q', '-p', 'no:hypothesispytest', '-p', 'no:randomly', '-p', 'no:xdist'])\n"
        "heavy = {'numpy', 'scipy', 'onnx', 'onnxruntime', 'tensorrt', 'tensorrt_rtx', 'polygraphy', 'hypothesis'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))\n"
        "print('loaded:', 'pytest_trtgray.plugin' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=project.path, check=True)
    assert "heavy: []" in done.stdout
    assert "loaded: True" in done.stdout


def test_can_be_switched_off(project: Project) -> None:
    project.pytester.makefile(".ini", pytest="[pytest]\n")
    project.pytester.makepyfile("def test_it():\n    pass")
    project.run("-p", "no:trtgray").assert_outcomes(passed=1)


def test_says_nothing_where_it_is_not_used(project: Project) -> None:
    project.pytester.makepyfile("def test_it():\n    pass")
    assert "trtgray:" not in text(project.run())


@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("tensorrt_rtx", marks=needs_rtx)])
def test_survives_warnings_as_errors(project: Project, runtime: str) -> None:
    project.mlp()
    result = project.run_apart(
        ENGINE, f"--trt-runtime={runtime}", "-W", "error", "-p", "no:cacheprovider", "--update-baselines"
    )
    assert result.ret == pytest.ExitCode.OK, text(result)
    assert result.parseoutcomes().get("warnings", 0) == 0


def test_a_users_own_update_option_is_left_alone(project: Project) -> None:
    project.mlp()
    project.pytester.makeconftest(
        "def pytest_addoption(parser):\n"
        "    parser.addoption('--update-baselines', action='store_true', help='mine')\n"
        "def pytest_report_header(config):\n"
        "    return f'mine: {config.getoption(\"--update-baselines\")}'\n"
    )
    missing = project.run(ENGINE, "-k", "structure", "--update-baselines")
    assert "mine: True" in text(missing)
    missing.assert_outcomes(failed=1, deselected=4)
    command = printed_command(missing)
    assert "--trt-update-baselines" in command
    project.run(*command).assert_outcomes(passed=1, deselected=4)


@pytest.mark.parametrize("workers", ["2"])
def test_in_parallel_one_result_a_test_and_no_lost_baseline(project: Project, workers: str) -> None:
    project.mlp("a.onnx")
    project.mlp("b.onnx", seed=1)
    engines = ["--trt-engine=a.onnx", "--trt-engine=b.onnx", "-k", "not shapes"]
    missing = project.run(*engines, "-n", workers)
    missing.assert_outcomes(passed=4, failed=4)
    assert "-n" not in printed_command(missing)
    project.run(*printed_command(missing)).assert_outcomes(passed=8, deselected=2)
    again = project.run(*engines, "-n", workers)
    again.assert_outcomes(passed=8)
    assert "other pytest-xdist workers ran at the same time" in text(again)


def test_in_parallel_missing_baselines_may_be_recorded(project: Project) -> None:
    project.mlp("a.onnx")
    project.mlp("b.onnx", seed=1)
    engines = ["--trt-engine=a.onnx", "--trt-engine=b.onnx"]
    result = project.run(*engines, "-n2", "-o", "trt_on_missing=record", "-k", "structure")
    result.assert_outcomes(passed=2)
    assert len(project.baselines()) == 2
    assert "2 baselines written" in text(result)


def test_in_parallel_times_are_not_recorded(project: Project) -> None:
    project.mlp()
    result = project.run(ENGINE, "-n2", "-o", "trt_on_missing=record", "-k", "layers")
    result.assert_outcomes(passed=1)
    assert "not recorded" in text(result)
    assert project.baselines() == []


@pytest.mark.parametrize("flag", ["--update-baselines", "--trt-rebaseline", "--trt-prune-baselines"])
def test_in_parallel_updating_is_a_usage_error(project: Project, flag: str) -> None:
    project.mlp()
    result = project.run(ENGINE, "-n2", flag)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "do not go with -n" in text(result)
    assert project.baselines() == []


@needs_rtx
def test_in_parallel_an_engine_is_built_once(project: Project) -> None:
    models.conv_net(project.path / "net.onnx", batch=1)
    result = project.run(
        "--trt-engine=net.onnx", "--trt-runtime=tensorrt_rtx", "-n2", "-k", "structure or log", "-o",
        "trt_on_missing=record",
    )  # fmt: skip
    result.assert_outcomes(passed=2)
    assert len(list((project.path / ".trtgray_cache").glob("*.engine"))) == 1


def test_in_parallel_obsolete_baselines_are_found(project: Project) -> None:
    project.mlp()
    one = "def test_one(trt_engine, trt_structure):\n    trt_structure(trt_engine).check()\n"
    file = project.pytester.makepyfile(test_user=one + one.replace("one", "two"))
    project.record(ENGINE)
    file.write_text(one)
    result = project.run(ENGINE, "-n2")
    result.assert_outcomes(passed=1)
    assert "test_user.test_two-mlp.json has no test any more" in text(result)


def test_last_failed_runs_the_suites_failures_only(project: Project) -> None:
    project.mlp()
    quick = (ENGINE, "-k", "not shapes")
    project.run(*quick).assert_outcomes(passed=2, failed=2, deselected=1)
    project.run(*quick, "--lf").assert_outcomes(failed=2, deselected=3)


def test_junit_counts_the_failure_and_keeps_the_property(project: Project) -> None:
    project.mlp()
    junit = (ENGINE, "-k", "not shapes", "--junitxml=junit.xml")
    project.run(*junit).assert_outcomes(passed=2, failed=2, deselected=1)
    root = ElementTree.parse(project.path / "junit.xml").getroot()
    (suite,) = root.iter("testsuite")
    assert suite.get("failures") == "2"
    for case in root.iter("testcase"):
        (found,) = (p for p in case.iter("property") if p.get("name") == "trtgray")
        checks = json.loads(found.get("value", ""))
        assert {check["engine"] for check in checks} == {"mlp"}
        assert ("missing" in {check["outcome"] for check in checks}) == (case.find("failure") is not None)


def test_short_summary_carries_the_verdict(project: Project) -> None:
    project.mlp()
    result = project.run(ENGINE, "-k", "structure")
    result.stdout.fnmatch_lines(["FAILED trtgray::structure?mlp? - Failed: missing baseline*"])


def test_a_retried_test_is_judged_again(project: Project) -> None:
    project.mlp()
    project.run(ENGINE, "-k", "structure", "-p", "no:cacheprovider").assert_outcomes(failed=1, deselected=4)


def test_json_holds_every_check(project: Project) -> None:
    project.mlp()
    project.pytester.makeconftest(
        "def pytest_trt_update_json(data):\n    data['build_number'] = 7\n"
        "def pytest_trt_finding(item, finding):\n    print('FOUND', item.name, finding.rule)\n"
    )
    result = project.run(ENGINE, "--trt-json=run.json", "-s")
    data = json.loads((project.path / "run.json").read_text())
    assert data["build_number"] == 7
    assert data["format"] == "trtgray-run"
    kinds = {check["kind"]: check["outcome"] for check in data["checks"]}
    assert kinds == {
        "timing": "missing",
        "outputs": "pass",
        "relations": "pass",
        "structure": "missing",
        "log": "pass",
        "shapes": "pass",
    }
    assert "FOUND structure[mlp] baseline.missing" in text(result)


def test_json_that_cannot_be_written_is_said(project: Project) -> None:
    project.mlp()
    (project.path / "file").touch()
    result = project.run(ENGINE, "--trt-json=file/run.json", "-k", "outputs")
    result.assert_outcomes(passed=1, deselected=4)
    assert "the JSON report cannot be written" in text(result)


def test_identity_hook_replaces_the_folder(project: Project) -> None:
    project.mlp()
    project.pytester.makeconftest(
        "def pytest_trt_identity(identity, kind):\n"
        "    return {**identity, 'device': 'pool'} if kind == 'timing' else None\n"
    )
    project.record(ENGINE, "-k", "layers or structure")
    folders = {Path(name).parent.name for name in project.baselines()}
    assert len(folders) == 2
    assert any(re.match(r"pool_onnxruntime-", folder) for folder in folders)


def test_layer_group_hook_names_modules(project: Project) -> None:
    project.mlp()
    project.pytester.makeconftest("def pytest_trt_layer_group(layer):\n    return 'all/of/it'\n")
    project.pytester.makepyfile(
        "import pytest\n"
        "def test_it(trt_build, trt_profiler):\n"
        "    assert trt_profiler(trt_build('mlp.onnx')).group('all/*/it').share == pytest.approx(1)\n"
    )
    project.run().assert_outcomes(passed=1)


def test_a_cached_engine_that_was_damaged_is_built_again(project: Project) -> None:
    pytest.importorskip("tensorrt_rtx")
    project.mlp()
    args = [ENGINE, "--trt-runtime=tensorrt_rtx", "-k", "structure"]
    project.record(*args)
    (engine,) = (project.path / ".trtgray_cache").glob("*.engine")
    good = engine.read_bytes()
    engine.write_bytes(good[:-100])
    project.run(*args).assert_outcomes(passed=1, deselected=4)
    assert engine.read_bytes() == good
