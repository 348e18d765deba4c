"""What the plugin costs a project that does not use it: ``pytest --collect-only`` with it and without.

Both are run in turn in one go; the median of the pairs' differences is what counts. Target: 15 ms at most.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PAIRS = 21
COMMAND = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:hypothesispytest", "-p", "no:randomly"]


def seconds(folder: Path, *options: str) -> float:
    started = time.perf_counter()
    subprocess.run([*COMMAND, *options], cwd=folder, capture_output=True, check=True)
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index in range(5):
            (folder / f"test_{index}.py").write_text("def test_it():\n    pass\n")
        seconds(folder), seconds(folder, "-p", "no:trtgray")  # compile, fill the file cache
        pairs = [(seconds(folder), seconds(folder, "-p", "no:trtgray")) for _ in range(PAIRS)]
    with_plugin, without = (statistics.median(times) * 1e3 for times in zip(*pairs, strict=True))
    difference = statistics.median((a - b) * 1e3 for a, b in pairs)
    print(f"{'':24}{'median ms':>10}")
    print(f"{'with pytest-trtgray':24}{with_plugin:>10.1f}")
    print(f"{'-p no:trtgray':24}{without:>10.1f}")
    print(f"{'difference of pairs':24}{difference:>10.1f}   (target: at most 15)")


if __name__ == "__main__":
    main()
