"""Is it still the same engine? Layers matched by their ONNX provenance, and what changed between two engines."""

from pytest_trtgray.structure.diff import StructureDiff, diff
from pytest_trtgray.structure.matching import Matching, match_layers
from pytest_trtgray.structure.reading import read_layers, read_snapshot
from pytest_trtgray.structure.snapshot import Snapshot, compare_snapshots, snapshot_of

__all__ = [
    "Matching",
    "Snapshot",
    "StructureDiff",
    "compare_snapshots",
    "diff",
    "match_layers",
    "read_layers",
    "read_snapshot",
    "snapshot_of",
]
