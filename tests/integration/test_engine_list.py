"""Engine files are executable code: only those that ``engines.sha256`` lists are loaded."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_trtgray.engines.building import BuildRequest, build
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.profiles import resolve_profiles
from tests import models
from tests.integration.conftest import RECORDS, Project, needs_rtx, text

pytestmark = needs_rtx
WAYS_OUT = "If you trust where it comes from, record it with --update-baselines, or run once with --trt-allow-unlisted."
USES = "def test_it(trt_build):\n    assert trt_build('net.engine').info.runtime == 'tensorrt_rtx'\n"


@pytest.fixture(scope="session")
def engine_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    model = OnnxModel(models.mlp(tmp_path_factory.mktemp("engine") / "mlp.onnx"))
    profiles, _ = resolve_profiles(model.inputs, ())
    return build(model, BuildRequest("tensorrt_rtx", profiles))[0]


@pytest.fixture
def engine(project: Project, engine_bytes: bytes) -> Path:
    path = project.path / "net.engine"
    path.write_bytes(engine_bytes)
    return path


def listed(project: Project) -> dict[str, str]:
    """Hashes by path, as the file has them."""
    file = project.path / "baselines" / "engines.sha256"
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")] if file.exists() else []
    return {line[66:]: line[:64] for line in lines}


def tamper(engine: Path) -> None:
    """Change a byte far behind the header, as somebody who means harm would."""
    content = bytearray(engine.read_bytes())
    content[len(content) // 2] ^= 1
    engine.write_bytes(content)


class TestCommandLine:
    def test_an_unlisted_engine_is_one_message_with_both_ways_out(self, project: Project, engine: Path) -> None:
        result = project.run("--trt-engine=net.engine")

        assert result.ret == pytest.ExitCode.USAGE_ERROR
        file = project.path / "baselines" / "engines.sha256"
        assert f"{engine}: is not listed in {file}, and an engine is executable code" in text(result)
        assert text(result).count(WAYS_OUT) == 1
        assert not file.exists()

    def test_recorded_it_passes_from_then_on(self, project: Project, engine: Path, no_gpu: None) -> None:
        recorded = project.run("--trt-engine=net.engine", "--update-baselines", "-rs")
        recorded.assert_outcomes(skipped=5)
        assert "needs a GPU: no NVIDIA driver" in text(recorded)
        assert listed(project) == {"../net.engine": hashlib.sha256(engine.read_bytes()).hexdigest()}

        project.run("--trt-engine=net.engine").assert_outcomes(skipped=5)
        project.run("--trt-engine=net.engine", "-n2").assert_outcomes(skipped=5)

    @pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
    def test_sha256sum_agrees(self, project: Project, engine: Path) -> None:
        project.run("--trt-engine=net.engine", "--update-baselines")
        command = ["sha256sum", "--strict", "-c", "engines.sha256"]
        folder = project.path / "baselines"
        assert subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout == (
            "../net.engine: OK\n"
        )
        tamper(engine)
        assert subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 1

    def test_a_changed_engine_is_refused_until_it_is_recorded_again(
        self, project: Project, engine: Path, no_gpu: None
    ) -> None:
        project.run("--trt-engine=net.engine", "--update-baselines")
        then = hashlib.sha256(engine.read_bytes()).hexdigest()
        tamper(engine)
        now = hashlib.sha256(engine.read_bytes()).hexdigest()
        refused = project.run("--trt-engine=net.engine")

        assert refused.ret == pytest.ExitCode.USAGE_ERROR
        assert "net.engine: has changed since it was listed in" in text(refused)
        assert f"(sha256 {now[:12]}… now, {then[:12]}… then)" in text(refused)
        assert WAYS_OUT in text(refused)
        assert listed(project) == {"../net.engine": then}
        project.run("--trt-engine=net.engine", "--update-baselines")
        assert listed(project) == {"../net.engine": now}

    def test_allowed_once(self, project: Project, engine: Path, no_gpu: None) -> None:
        project.run("--trt-engine=net.engine", "--trt-allow-unlisted").assert_outcomes(skipped=5)

        assert listed(project) == {}
        assert project.run("--trt-engine=net.engine").ret == pytest.ExitCode.USAGE_ERROR

    def test_the_list_of_another_folder(self, project: Project, engine: Path, no_gpu: None) -> None:
        project.run("--trt-engine=net.engine", "--update-baselines", "--trt-baseline-dir=elsewhere")

        assert (project.path / "elsewhere" / "engines.sha256").exists()
        assert project.run("--trt-engine=net.engine").ret == pytest.ExitCode.USAGE_ERROR
        project.run("--trt-engine=net.engine", "--trt-baseline-dir=elsewhere").assert_outcomes(skipped=5)

    def test_one_of_two_is_refused(self, project: Project, engine: Path) -> None:
        project.run("--trt-engine=net.engine", "--update-baselines")
        (project.path / "other.engine").write_bytes(engine.read_bytes() + b"appended")
        result = project.run("--trt-engine=net.engine", "--trt-engine=other.engine")

        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert "other.engine: is not listed" in text(result)

    def test_a_run_that_is_refused_lists_nothing(self, project: Project, engine: Path) -> None:
        result = project.run("--trt-engine=net.engine", "--trt-onnx=none.onnx", "--update-baselines")

        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert "none.onnx: no such file" in text(result)
        assert listed(project) == {}

    def test_a_damaged_list(self, project: Project, engine: Path) -> None:
        (project.path / "baselines").mkdir()
        (project.path / "baselines" / "engines.sha256").write_text("<<<<<<< HEAD\n")
        result = project.run("--trt-engine=net.engine")

        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert "unresolved merge conflicts (line 1)" in text(result)

    def test_the_list_is_no_obsolete_baseline(self, project: Project, engine: Path) -> None:
        project.mlp()
        project.run("--trt-engine=net.engine", "--update-baselines")
        project.record("--trt-engine=mlp.onnx", *RECORDS)
        pruned = project.run("--trt-engine=mlp.onnx", "--trt-prune-baselines")

        assert "deleted" not in text(pruned)
        assert listed(project)

    def test_what_was_built_from_a_model_needs_no_list(self, project: Project, no_gpu: None) -> None:
        project.mlp()
        args = ("--trt-engine=mlp.onnx", "--trt-runtime=tensorrt_rtx", "-k", "structure")
        project.record(*args)
        project.run(*args).assert_outcomes(passed=1, deselected=4)

        assert listed(project) == {}


class TestInATest:
    @pytest.mark.parametrize("args", [(), ("-n2",)])
    def test_an_unlisted_engine_fails_with_both_ways_out(
        self, project: Project, engine: Path, args: tuple[str, ...]
    ) -> None:
        project.pytester.makepyfile(USES)
        result = project.run(*args)

        result.assert_outcomes(failed=1)
        assert "net.engine: is not listed in" in text(result)
        assert WAYS_OUT in text(result)

    def test_recorded_it_is_loaded(self, project: Project, engine: Path) -> None:
        project.pytester.makepyfile(USES)
        project.run("--update-baselines").assert_outcomes(passed=1)
        assert list(listed(project)) == ["../net.engine"]
        project.run().assert_outcomes(passed=1)
        project.run("-n2").assert_outcomes(passed=1)
        tamper(engine)
        project.run().assert_outcomes(failed=1)
        project.run("--trt-allow-unlisted").assert_outcomes(passed=1)

    def test_a_precision_is_for_models(self, project: Project, engine: Path) -> None:
        project.pytester.makepyfile("def test_it(trt_build):\n    trt_build('net.engine', precision='fp16')\n")
        result = project.run("--trt-allow-unlisted")

        result.assert_outcomes(failed=1)
        assert "net.engine: is built already, and not in precision='fp16' again" in text(result)
        assert "Give the .onnx instead" in text(result)
