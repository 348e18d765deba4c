"""How well are wrong scales found? Faults planted into every quantiser of small networks, and healthy networks.

    python benchmarks/quantisation.py                     perceptron, convolutions, transformer
    python benchmarks/quantisation.py MODEL.onnx          healthy only: an FP32 model of your own, with random inputs

Networks are quantised by ONNX Runtime with four seeded batches and inspected with others. A fault is *found* if it is
the one warning, at its own node. Prints Markdown; one machine gives the same numbers each time, but for the seconds.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from pytest_trtgray.accuracy.quantisation import Quantisation, inspect_quantisation
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.precision import convert
from pytest_trtgray.engines.profiles import opt_shapes, resolve_profiles
from pytest_trtgray.feeds import Feed, make_feed
from tests import models, quantised

FACTORS = (1 / 4, 1 / 16, 64, 1000)


def main(paths: Sequence[str]) -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory(prefix="trtgray-") as name:
        folder = Path(name)
        print("| network | quantisers | warnings | lowest SNR, dB | seconds |\n|---|---|---|---|---|")
        for title, path, feeds in healthy(folder, paths):
            started = time.perf_counter()
            found = inspect_quantisation(path, feeds, cache_dir=folder)
            seconds = time.perf_counter() - started
            lowest = found.sorted()[0].snr_db
            print(f"| {title} | {len(found.tensors)} | {len(warnings(found))} | {lowest:.1f} | {seconds:.1f} |")
        if not paths:
            print("\n| INT8 network, scale times | " + " | ".join(f"{factor:g}" for factor in FACTORS) + " |")
            print("|---|" + "---|" * len(FACTORS))
            for title, source in networks(folder):
                path = quantised.quantised(source, folder / f"{title}_int8.onnx")
                print(f"| {title} | " + " | ".join(planted(path, folder, factor) for factor in FACTORS) + " |")


def networks(folder: Path) -> Iterator[tuple[str, Path]]:
    """The networks of the tests, in FP32."""
    yield "perceptron", models.mlp(folder / "mlp.onnx")
    yield "convolutions", models.conv_net(folder / "conv_net.onnx", blocks=2)
    yield "transformer", models.encoder(folder / "encoder.onnx")


def healthy(folder: Path, paths: Sequence[str]) -> Iterator[tuple[str, Path, list[Feed]]]:
    """Quantised networks with nothing wrong, and inputs that the calibration has not seen."""
    for given in paths:
        source = Path(given)
        inputs = OnnxModel(source).inputs
        profiles, _ = resolve_profiles(inputs, ())
        shapes = {name: (min(shape[0], 2), *shape[1:]) for name, shape in opt_shapes(profiles[0]).items()}
        feeds = [make_feed(inputs, shapes, seed) for seed in range(6)]
        target = folder / f"{source.stem}_int8.onnx"
        target.write_bytes(convert(source, "int8", feeds[:4]))
        yield f"{source.stem} INT8", target, feeds[4:]
    for title, source in networks(folder) if not paths else ():
        for precision, method in (("int8", ""), ("int8", "percentile"), ("fp8", "")):
            target = quantised.quantised(source, folder / f"{title}_{precision}_{method}.onnx", precision, method)
            yield f"{title} {precision.upper()} {method}".strip(), target, quantised.feeds_for(source, 4, first=100)


def planted(path: Path, folder: Path, factor: float) -> str:
    """How many of the quantisers are found when their scale is multiplied, of how many."""
    nodes = quantised.quantisers(path)
    feeds = quantised.feeds_for(path, 3, first=100)
    hits = 0
    for node in nodes:
        bad = quantised.rescale(path, folder / "bad.onnx", node, factor)
        hits += warnings(inspect_quantisation(bad, feeds, cache_dir=folder)) == [node]
    return f"{hits} of {len(nodes)}"


def warnings(found: Quantisation) -> list[str]:
    """Where something is wrong."""
    return [finding.where for finding in found.findings if finding.severity != "advice"]


if __name__ == "__main__":
    main(sys.argv[1:])
