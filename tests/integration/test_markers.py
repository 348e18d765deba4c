"""Markers: what is needed, what was found, and no silent typing error."""

from __future__ import annotations

import pytest

from tests.integration.conftest import Project, needs_rtx


@pytest.mark.parametrize(
    ("marker", "reason"),
    [
        (
            'trt_arch("sm_89", "sm_90")',
            "trt_arch: needs sm_89 or sm_90, found no GPU (no NVIDIA driver on this machine)",
        ),
        ('trt_arch(min="sm_80", max="sm_90")', "trt_arch: needs sm_80 or newer or sm_90 or older, found no GPU"),
        ("trt_requires(memory_gb=16)", "trt_requires: needs 16 GB of GPU memory, found no GPU"),
        ('trt_requires(precision="fp8")', "trt_requires: needs a GPU with fp8 (sm_89 or newer), found no GPU"),
        ('trt_requires(runtime="tensorrt")', "trt_requires: needs the runtime tensorrt, found onnxruntime"),
    ],
)
def test_gated_test_is_skipped_with_need_and_find(project: Project, no_gpu: None, marker: str, reason: str) -> None:
    project.pytester.makepyfile(f"import pytest\n@pytest.mark.{marker}\ndef test_it():\n    raise AssertionError")
    result = project.run("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines([f"SKIPPED*test_gated_test*.py:2: {reason}*"])


def test_requires_a_version_that_is_not_there(project: Project) -> None:
    project.pytester.makepyfile(
        "import pytest\n@pytest.mark.trt_requires(tensorrt='>=99')\ndef test_it():\n    raise AssertionError"
    )
    result = project.run("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*trt_requires: needs tensorrt >=99, found *"])


@needs_rtx
def test_requires_a_version_that_is_there(project: Project) -> None:
    project.pytester.makepyfile(
        "import pytest\n"
        "@pytest.mark.trt_requires(tensorrt_rtx='>=1.0')\ndef test_there():\n    pass\n"
        "@pytest.mark.trt_requires(tensorrt_rtx='<1.0')\ndef test_not():\n    raise AssertionError\n"
    )
    project.run().assert_outcomes(passed=1, skipped=1)


def test_runtime_that_is_used(project: Project) -> None:
    project.pytester.makepyfile(
        "import pytest\n@pytest.mark.trt_requires(runtime='onnxruntime')\ndef test_it():\n    pass"
    )
    project.run("--trt-runtime=onnxruntime").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ('trt_arch(minimum="sm_80")', "*test_it: marker trt_arch has no argument 'minimum'*"),
        ('trt_arch("ada")', "*test_it: marker trt_arch: 'ada' is no architecture; write 'sm_89'*"),
        ('trt_requires("fp8")', "*test_it: marker trt_requires takes keyword arguments only*"),
        ('trt_requires(precision="fp17")', "*test_it: marker trt_requires: unknown precision 'fp17'*"),
        ('trt_requires(tensorrt="ten")', "*test_it: marker trt_requires: tensorrt='ten' is no version specifier*"),
        ("trt_timing(tol=1)", "*test_it: marker trt_timing has no argument 'tol'*It has: tolerance*"),
    ],
)
def test_wrong_arguments_stop_the_run(project: Project, marker: str, message: str) -> None:
    project.pytester.makepyfile(f"import pytest\n@pytest.mark.{marker}\ndef test_it():\n    pass")
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert any(__import__("fnmatch").fnmatch(line, message) for line in [" ".join(result.errlines)])


def test_shapes_marker_decides_the_shapes(project: Project) -> None:
    project.mlp()
    project.pytester.makepyfile(
        """
        import pytest

        @pytest.mark.trt_shapes(x=(3, 8))
        @pytest.mark.trt_timing(sessions=2, iterations=4)
        def test_it(trt_build, trt_profiler):
            profile = trt_profiler(trt_build("mlp.onnx"))
            assert profile.shapes == {"x": (3, 8)}
            assert [session.iterations for session in profile.run.sessions] == [4, 4]
        """
    )
    project.run().assert_outcomes(passed=1)


def test_require_gpu_turns_a_missing_gpu_into_an_error(project: Project, no_gpu: None) -> None:
    project.pytester.makepyfile("def test_it():\n    pass")
    result = project.run("--trt-require-gpu")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--trt-require-gpu: no NVIDIA driver on this machine*"])


def test_all_markers_and_options_explain_themselves(project: Project) -> None:
    markers = project.run("--markers").stdout.str()
    for name in ("trt_arch", "trt_requires", "trt_timing", "trt_shapes"):
        assert f"@pytest.mark.{name}(" in markers
    fixtures = project.run("--fixtures").stdout.str()
    for name in ("device", "engine", "build", "shadow", "log", "profiler", "compare", "structure"):
        assert f"trt_{name}" in fixtures
    help_text = project.run("--help").stdout.str()
    for option in ("engine", "onnx", "against", "min-shapes", "runtime", "device", "timing", "json", "history"):
        assert f"--trt-{option}" in help_text
    for ini in ("baseline_dir", "on_missing", "inconclusive", "rtol", "atol", "cache_dir", "identity", "sessions"):
        assert f"trt_{ini}" in help_text
