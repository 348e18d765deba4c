"""How long pytest takes over an engine the first time, and with everything cached.

    python benchmarks/second_run.py MODEL.onnx [PYTEST OPTION ...]

Both runs are whole processes. Baselines are recorded before the clock starts (in another cache), so that both runs
compare.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path


def pytest_run(folder: Path, model: Path, *options: str) -> float:
    command = [sys.executable, "-m", "pytest", f"--trt-engine={model}", "-p", "no:cacheprovider", "-q", *options]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    took = time.perf_counter() - started
    print(f"  {took:7.1f} s  {done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-300:]}")
    return took


def main() -> None:
    model, options = Path(sys.argv[1]).resolve(), sys.argv[2:]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pytest.ini").write_text("[pytest]\n")
        for part, selected in (("all five tests", []), ("without `shapes`", ["-k", "not shapes"])):
            cache = ["-o", f"trt_cache_dir={part[:3]}"]
            print(f"{part}: recording, first, second, third run")
            pytest_run(folder, model, *options, *selected, "-o", "trt_cache_dir=recording", "--update-baselines")
            first = pytest_run(folder, model, *options, *selected, *cache, "--durations=8", "-vv")
            later = [pytest_run(folder, model, *options, *selected, *cache) for _ in range(2)]
            print(f"  second / first: {later[0] / first:.2f}, third / first: {later[1] / first:.2f}")


if __name__ == "__main__":
    main()
