"""A process that is killed while it writes leaves whole files, or none."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_trtgray.files import dump_json
from pytest_trtgray.reporting.document import FORMAT
from tests.documents import document

KILLS = 12
WRITER = """
import json, sys
from pathlib import Path
from pytest_trtgray.cli import main
from pytest_trtgray.files import dump_json, write_atomically
data = json.loads(Path("run.json").read_text())
print("ready", flush=True)
while True:
    write_atomically(Path("copy.json"), dump_json(data))
    main(["report", "run.json", "-o", "report.html"])
"""


@pytest.mark.parametrize("seed", range(2))
def test_kill_9_at_any_moment(tmp_path: Path, seed: int) -> None:
    (tmp_path / "run.json").write_bytes(dump_json(document(2000, slower=3)))
    chance = random.Random(seed)
    seen = 0
    for _ in range(KILLS // 2):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER], cwd=tmp_path, stdout=subprocess.PIPE, text=True, stderr=subprocess.STDOUT
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.0, 0.8))
        writer.send_signal(signal.SIGKILL)
        rest = writer.communicate()[0]
        assert writer.returncode == -signal.SIGKILL, rest
        report, copy = tmp_path / "report.html", tmp_path / "copy.json"
        if report.exists():
            seen += 1
            assert report.read_text("utf-8").endswith("</html>")
        if copy.exists():
            seen += 1
            assert json.loads(copy.read_text("utf-8"))["format"] == FORMAT
    assert seen > 0  # it was not always killed before the first one
