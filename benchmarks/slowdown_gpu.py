"""Is a real slowdown found, and nothing else? One convolution of ResNet-50 becomes 3x3 with a ring of zeros.

    python benchmarks/slowdown_gpu.py FOLDER [PYTEST OPTION ...]

FOLDER is what ``benchmarks/networks.py`` made. Four runs of the original are recorded, one more is compared (a false
alarm would show there), then the slow one, as it is and with its nodes in another order (other layer names).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.networks import SLOWED

SHAPES = [f"--trt-{which}-shapes=x:{batch}x3x224x224" for which, batch in (("min", 1), ("opt", 8), ("max", 16))]

# Model and the nodes that have to be named.
CASES = [
    ("resnet50_slow.onnx", [SLOWED]),
    ("resnet50_slow_reordered.onnx", [SLOWED]),
    ("resnet50_reordered.onnx", []),
]


def run(folder: Path, model: Path, *options: str) -> tuple[str, dict[str, object]]:
    command = [sys.executable, "-m", "pytest", f"--trt-engine=net={model}", "-k", "layers", *SHAPES]
    command += ["-q", "-p", "no:cacheprovider", "--trt-json=report.json", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout, json.loads((folder / "report.json").read_text())


def layer_names(folder: Path, model: Path) -> set[str]:
    """From the manifest of the engine that was built from the model."""
    import hashlib

    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    for path in (folder / ".trtgray_cache").glob("*.json"):
        manifest = json.loads(path.read_text())
        if manifest["request"].get("model_sha256") == digest:
            return {row["name"] for row in manifest["layers"]}
    return set()


def errors(report: dict[str, object]) -> list[str]:
    """Where the errors of a report are."""
    return [
        finding["where"]
        for check in report["checks"]  # type: ignore[attr-defined]
        for finding in check["findings"]
        if finding["severity"] == "error"
    ]


def main() -> None:
    networks, options = Path(sys.argv[1]).resolve(), sys.argv[2:]
    good = networks / "resnet50.onnx"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pytest.ini").write_text("[pytest]\n")
        for _ in range(4):
            run(folder, good, *options, "--update-baselines")
        control, _ = run(folder, good, *options)
        print("the original again:\n" + control[-700:])
        before = layer_names(folder, good)
        for model, expected in CASES:
            found, report = run(folder, networks / model, *options)
            print(f"{model}:\n" + found[-3500:])
            after = layer_names(folder, networks / model)
            print(f"layer names: {len(before)} before, {len(after)} after, {len(before & after)} the same")
            named = errors(report)
            right = len(named) == len(expected) and all(
                node in where for node, where in zip(expected, named, strict=True)
            )
            print(f"named: {named}; expected: {expected}; {'OK' if right else 'NOT OK'}")


if __name__ == "__main__":
    main()
