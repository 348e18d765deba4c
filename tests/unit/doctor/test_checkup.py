"""Probes of real and of broken libraries, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from pytest_trtgray.doctor import checkup
from pytest_trtgray.doctor.checkup import Facts, examine, probe
from pytest_trtgray.vendor import is_installed

ROOT = Path(__file__).parents[3]
needs_rtx = pytest.mark.skipif(not is_installed("tensorrt_rtx"), reason="needs tensorrt_rtx")
GOOD = "__version__ = '10.3.0'\n"


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path of this process and of the probes."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def module(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(text)


class TestProbes:
    @needs_rtx
    def test_tensorrt_for_rtx(self) -> None:
        answer = probe("tensorrt_rtx")

        assert answer["version"] == version("tensorrt-rtx-cu13")
        assert answer["version"].startswith(answer["library_version"])
        assert Path(answer["library"]).name.startswith("libtensorrt_rtx.so")
        assert answer["library"] in answer["libraries"]

    def test_onnxruntime(self) -> None:
        answer = probe("onnxruntime")

        assert answer["version"] == version("onnxruntime")
        assert "CPUExecutionProvider" in answer["providers"]

    def test_gpu(self) -> None:
        answer = probe("gpu")

        assert answer["devices"] or answer["reason"]

    def test_what_a_library_prints_does_not_matter(self, library: Path) -> None:
        module(library, "tensorrt", "import os\nprint('hello')\nos.write(1, b'{}')\n" + GOOD)

        assert probe("tensorrt")["version"] == "10.3.0"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("raise ImportError('libnvinfer.so.10: cannot open shared object file')", "libnvinfer.so.10: cannot open"),
            ("import ctypes\nctypes.string_at(0)", "killed by SIGSEGV while it was loaded"),
            ("import os\nos.abort()", "killed by SIGABRT while it was loaded"),
            ("import os\nos._exit(3)", "exit code 3"),
            ("import sys\nsys.exit('no')", "exit code 1 (no)"),
            ("pass", "has no attribute '__version__'"),
        ],
    )
    def test_a_broken_library(self, library: Path, text: str, said: str) -> None:
        module(library, "tensorrt", text)

        assert said in probe("tensorrt")["error"]

    def test_a_library_that_hangs(self, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checkup, "PROBE_TIMEOUT_S", 2)
        module(library, "tensorrt", "import time\ntime.sleep(600)")

        assert probe("tensorrt") == {"error": "no answer within 2 s"}

    def test_numbers_of_old_libraries(self) -> None:
        from pytest_trtgray.doctor.probes import _dotted

        assert _dotted(8503, 1_000, 100) == "8.5.3"
        assert _dotted(101303, 10_000, 100) == "10.13.3"
        assert _dotted(12040, 1_000, 10) == "12.4"


class TestExamine:
    def test_this_machine(self) -> None:
        facts = examine()

        assert facts.machine["python"] == ".".join(map(str, sys.version_info[:3]))
        assert facts.packages["onnxruntime"] == version("onnxruntime")
        assert str(facts.version("onnxruntime")) == version("onnxruntime")
        assert facts.package("numpy") is not None
        assert facts.package("no-such-package") is None
        assert set(facts.to_dict()) == {"machine", "packages", "probes"}

    def test_only_what_is_installed_is_probed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checkup, "is_installed", lambda name: False)
        monkeypatch.setattr(checkup, "probe", lambda name: {"asked": name})

        assert set(examine().probes) == {"gpu", "cuda"}

    @needs_rtx
    def test_no_two_flavours_in_one_process(self, library: Path) -> None:
        """Each process says who else is there; this one loads none."""
        others = "__version__ = ' '.join(sorted(n for n in sys.modules if n.startswith(('tensorrt', 'onnxruntime'))))\n"
        module(library, "tensorrt", "import sys\n" + others)
        program = (
            "import sys\n"
            "from pytest_trtgray.doctor.checkup import examine\n"
            "facts = examine()\n"
            "print(facts.probes['tensorrt']['version'], facts.probes['tensorrt_rtx']['version'], sep='|')\n"
            "heavy = {'tensorrt', 'tensorrt_rtx', 'onnxruntime', 'numpy', 'onnx'}\n"
            "print(sorted(heavy & set(sys.modules)))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": f"{library}:{ROOT}", "PATH": ""},
        )

        assert done.stdout.splitlines() == [f"tensorrt|{version('tensorrt-rtx-cu13')}", "[]"]


def test_versions_that_are_none() -> None:
    facts = Facts(probes={"tensorrt": {"version": "unknown"}, "pycuda": {"error": "x"}}, packages={"numpy": "x.y"})

    assert facts.version("tensorrt") is None
    assert facts.version("pycuda") is None
    assert facts.package("numpy") is None
