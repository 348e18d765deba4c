"""``pytest --trt-engine=model.onnx`` on a GPU."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests import models, planted
from tests.integration.conftest import ENCODER_SHAPES, Project, text


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    return Project(pytester)


def test_the_suite_runs_all_five(project: Project, runtime: str, tactic_options: list[str]) -> None:
    if tactic_options:  # products of activations need cuBLAS
        models.conv_net(project.path / "net.onnx")
        args = ["--trt-engine=net.onnx", f"--trt-runtime={runtime}", "--trt-require-gpu"]
    else:
        models.encoder(project.path / "encoder.onnx")
        args = ["--trt-engine=encoder.onnx", f"--trt-runtime={runtime}", "--trt-require-gpu", *ENCODER_SHAPES]
    project.run_apart(*args, *tactic_options, "--update-baselines").assert_outcomes(passed=5)
    again = project.run_apart(*args, *tactic_options)
    again.assert_outcomes(passed=5)
    print(text(again))


def test_an_engine_file_has_to_be_listed(project: Project, runtime: str, tactic_options: list[str]) -> None:
    """Then all five run on it, with the model for a reference."""
    models.conv_net(project.path / "net.onnx")
    common = [f"--trt-runtime={runtime}", *tactic_options]
    project.run_apart("--trt-engine=net.onnx", *common, "-k", "log").assert_outcomes(passed=1, deselected=4)
    (built,) = (project.path / ".trtgray_cache").glob("*.engine")
    built.rename(project.path / "net.engine")
    args = ["--trt-engine=net.engine", "--trt-onnx=net.onnx", *tactic_options]
    refused = project.run_apart(*args)
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["ERROR: *net.engine: is not listed in *engines.sha256*"])
    project.run_apart(*args, "--update-baselines").assert_outcomes(passed=5)
    project.run_apart(*args).assert_outcomes(passed=5)
    content = bytearray((project.path / "net.engine").read_bytes())
    content[-1] ^= 1
    (project.path / "net.engine").write_bytes(content)
    changed = project.run_apart(*args)
    assert changed.ret == pytest.ExitCode.USAGE_ERROR
    changed.stderr.fnmatch_lines(["ERROR: *net.engine: has changed since it was listed*"])


@pytest.mark.parametrize("options", [["--trt-cuda-graph"], ["--trt-timing-processes"]])
def test_other_methods_have_times_of_their_own(
    project: Project, runtime: str, tactic_options: list[str], options: list[str]
) -> None:
    models.conv_net(project.path / "net.onnx")
    args = ["--trt-engine=net.onnx", f"--trt-runtime={runtime}", "-k", "layers", *tactic_options]
    project.run_apart(*args, "--update-baselines").assert_outcomes(passed=1, deselected=4)
    project.run_apart(*args).assert_outcomes(passed=1, deselected=4)
    missing = project.run_apart(*args, *options)
    missing.assert_outcomes(failed=1, deselected=4)
    missing.stdout.fnmatch_lines(["missing baseline: *"])
    project.run_apart(*args, *options, "--update-baselines").assert_outcomes(passed=1, deselected=4)
    project.run_apart(*args, *options).assert_outcomes(passed=1, deselected=4)


def test_a_planted_fault_is_found(project: Project, runtime: str, tactic_options: list[str]) -> None:
    planted.scaled_at_batch(project.path / "net.onnx", batch=13, factor=1.1)
    planted.scaled_at_batch(project.path / "good.onnx", batch=13, factor=1.0)
    result = project.run_apart(
        "--trt-engine=net.onnx", "--trt-onnx=good.onnx", f"--trt-runtime={runtime}", "-k", "shapes", *tactic_options
    )
    result.assert_outcomes(failed=1, deselected=4)
    result.stdout.fnmatch_lines(["*at x:13x4: outputs differ: *"])


def test_the_architecture_decides(project: Project) -> None:
    project.pytester.makepyfile(
        "import pytest\n"
        "@pytest.mark.trt_arch(min='sm_75')\ndef test_new():\n    pass\n"
        "@pytest.mark.trt_arch(max='sm_70')\ndef test_old():\n    raise AssertionError\n"
        "@pytest.mark.trt_requires(memory_gb=1, precision='fp16')\ndef test_memory():\n    pass\n"
    )
    project.run_apart("--trt-require-gpu").assert_outcomes(passed=2, skipped=1)


def test_an_ab_finds_a_slow_layer_also_beside_another_process(
    project: Project, runtime: str, tactic_options: list[str]
) -> None:
    """Two engines in turn, no baseline; the same model twice is quiet."""
    slowed = "/layer1/conv1/Conv"
    old = models.conv_net(project.path / "old.onnx", channels=64, blocks=3)
    planted.with_zero_ring(old, project.path / "new.onnx", slowed)
    common = [f"--trt-runtime={runtime}", "--trt-against=old.onnx", "-k", "against", *tactic_options]
    same = project.run_apart("--trt-engine=again=old.onnx", *common)
    same.assert_outcomes(passed=1, deselected=3)
    with busy_gpu():
        for engine in ("new.onnx", "again=old.onnx"):
            found = project.run_apart(f"--trt-engine={engine}", *common)
            print(text(found))
            if engine == "new.onnx":
                found.assert_outcomes(failed=1, deselected=3)
                found.stdout.fnmatch_lines(["* layers slower on *", f"  *{slowed}*"])
            else:
                found.assert_outcomes(passed=1, deselected=3)


@contextlib.contextmanager
def busy_gpu() -> Iterator[None]:
    """Another process that copies on the GPU, now and then."""
    program = """
import time, numpy as np, pycuda.driver as cuda
cuda.init()
context = cuda.Device(0).retain_primary_context()
context.push()
host = np.ones(1 << 24, np.float32)
device = cuda.mem_alloc(host.nbytes)
print("up", flush=True)
end = time.monotonic() + 120
while time.monotonic() < end:
    cuda.memcpy_htod(device, host)
    time.sleep(0.005)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            yield
        finally:
            process.kill()
