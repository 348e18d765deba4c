"""Timing sessions in fresh processes: asked for by an option, a marker; alone and beside other workers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.integration.conftest import Project, text

OPTION = "--trt-timing-processes"
METHOD = """
import pytest
{marker}
def test_{name}(trt_build, trt_profiler):
    profile = trt_profiler(trt_build("mlp.onnx"))
    assert profile.method.get("processes") == {wanted!r}
    assert profile.overheads.cold_start_us > 0
    assert profile.overheads.upload_us is None
    assert profile.run.context["cold_start_us"] == f"{{profile.overheads.cold_start_us:.1f}}"
    assert {{node for timed in profile.layers for node in timed.layer.onnx_nodes}} == {{
        "/fc0/MatMul", "/fc0/Add", "/fc0/Relu", "/fc1/MatMul", "/fc1/Add"
    }}
"""
DEAD = """
import os

class Dead:
    def load(self):
        os.abort()

def test_it(trt_build, trt_profiler):
    engine = trt_build("mlp.onnx")
    engine.source = Dead()
    trt_profiler(engine)
"""


def method(wanted: str | None, marker: str = "", name: str = "it") -> str:
    """A test that looks how it was measured."""
    decorator = f"@pytest.mark.trt_timing({marker})" if marker else ""
    return METHOD.format(wanted=wanted, marker=decorator, name=name)


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        ((), {"": None, "processes=True": "fresh"}),
        ((OPTION,), {"": "fresh", "processes=False": None}),
        (("-n2", OPTION), {"": "fresh"}),
        (("-n2",), {"processes=True, sessions=2": "fresh"}),
    ],
    ids=["marker", "option", "option and workers", "marker and workers"],
)
def test_asked_for(project: Project, args: tuple[str, ...], wanted: dict[str, str | None]) -> None:
    project.mlp()
    tests = [method(how, marker, f"it_{number}") for number, (marker, how) in enumerate(wanted.items())]
    project.pytester.makepyfile("\n".join(tests))
    run = project.run_apart if "-n2" in args else project.run
    result = run(*args)

    result.assert_outcomes(passed=len(wanted))


def test_a_baseline_of_its_own(project: Project) -> None:
    project.mlp()
    args = ("--trt-engine=mlp.onnx", "-k", "layers")
    project.record(*args)
    missing = project.run(*args, OPTION)
    missing.assert_outcomes(failed=1, deselected=4)
    assert "missing baseline" in text(missing)
    project.run(*args, OPTION, "--update-baselines").assert_outcomes(passed=1, deselected=4)
    project.run(*args, OPTION).assert_outcomes(passed=1, deselected=4)
    entries = json.loads(project.baseline("layers").read_text())["entries"]

    assert sorted("processes=fresh" in key for key in entries) == [False, True]


def test_what_the_marker_takes(project: Project) -> None:
    project.pytester.makepyfile("import pytest\n@pytest.mark.trt_timing(process=True)\ndef test_it():\n    pass")
    result = project.run()

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "It has: tolerance, sessions, iterations, processes, cuda_graph" in text(result)


@pytest.mark.parametrize("args", [(), ("-n2",)])
def test_a_process_that_dies_is_one_clear_error(project: Project, args: tuple[str, ...]) -> None:
    project.mlp()
    project.pytester.makepyfile(dead=DEAD)
    # by its own name: what is pickled is imported again in the other process
    result = project.run_apart(OPTION, *args, "dead.py", "--rootdir=.", "-p", "no:cacheprovider")

    result.assert_outcomes(failed=1)
    assert "mlp: the measuring process died (SIGABRT): it was killed, or native code crashed" in text(result)
    assert text(result).count("died (SIGABRT)") < 6


def test_a_script_that_runs_pytest_is_not_run_again(project: Project) -> None:
    """``sys.exit(pytest.main())`` without a guard: a spawned child would run all tests once more."""
    project.mlp()
    project.pytester.makepyfile("open('runs', 'a').write('run\\n')\n" + method("fresh"))
    (project.path / "runtests.py").write_text(f"import sys, pytest\nsys.exit(pytest.main(['-q', {OPTION!r}]))\n")
    done = subprocess.run(
        [sys.executable, "runtests.py"], cwd=project.path, capture_output=True, text=True, check=False, timeout=300
    )

    assert done.returncode == 0, done.stdout
    assert (project.path / "runs").read_text() == "run\n"


def test_a_tests_own_output_is_all_that_is_shown(project: Project) -> None:
    project.mlp()
    project.pytester.makepyfile("def test_it(trt_build, trt_profiler):\n    trt_profiler(trt_build('mlp.onnx'))\n")
    plain, apart = project.run_apart("-q", "-s"), project.run_apart("-q", "-s", OPTION)

    assert [line for line in apart.outlines if "passed" not in line] == [
        line for line in plain.outlines if "passed" not in line
    ]
    assert apart.errlines == plain.errlines
