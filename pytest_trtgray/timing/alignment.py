"""Which layers of a baseline are which layers of a run, when only their keys are known.

A key is made of ONNX nodes (:func:`pytest_trtgray.structure.matching.layer_keys`). Equal keys are the same layer.
Where a fusion changed, the keys differ but share nodes: those layers form a group, judged by its summed time.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.structure.matching import KEY_SEPARATOR, components
from pytest_trtgray.timing.summary import Floats

GROUP_SEPARATOR = " | "
_SUFFIX = re.compile(r"( \[profile \d+\])?( \([^()]*\))?( #\d+)?$")
_MODULE_MIN_LAYERS = 2


@dataclass(frozen=True)
class Alignment:
    """Units that both sides have, and what only one side has.

    Attributes:
        keys: of each unit: a layer's key, or those of a group's new layers.
        old: columns of the baseline that make each unit.
        new: columns of the run.
        new_keys: the run's keys that make each unit.
        added: keys and columns of the run without a partner.
        removed: keys and columns of the baseline without a partner.
    """

    keys: tuple[str, ...]
    old: tuple[tuple[int, ...], ...]
    new: tuple[tuple[int, ...], ...]
    new_keys: tuple[tuple[str, ...], ...]
    added: tuple[tuple[str, int], ...]
    removed: tuple[tuple[str, int], ...]

    @property
    def fused(self) -> list[tuple[int, int]]:
        """Of each unit, from how many layers to how many."""
        return [(len(old), len(new)) for old, new in zip(self.old, self.new, strict=True)]


def align(old: Sequence[str], new: Sequence[str]) -> Alignment:
    """Match the layers of a baseline and a run."""
    old_at = {key: column for column, key in enumerate(old)}
    new_at = {key: column for column, key in enumerate(new)}
    units: list[tuple[str, tuple[int, ...], tuple[int, ...], tuple[str, ...]]]
    units = [(key, (old_at[key],), (new_at[key],), (key,)) for key in new if key in old_at]
    left_old = [key for key in old if key not in new_at]
    left_new = [key for key in new if key not in old_at]
    groups = _groups(left_old, left_new)
    for olds, news in groups:
        columns = (tuple(old_at[key] for key in olds), tuple(new_at[key] for key in news))
        units.append((GROUP_SEPARATOR.join(news), *columns, tuple(news)))
    in_groups = {key for olds, news in groups for key in (*olds, *news)}
    return Alignment(
        keys=tuple(unit[0] for unit in units),
        old=tuple(unit[1] for unit in units),
        new=tuple(unit[2] for unit in units),
        new_keys=tuple(unit[3] for unit in units),
        added=tuple((key, new_at[key]) for key in left_new if key not in in_groups),
        removed=tuple((key, old_at[key]) for key in left_old if key not in in_groups),
    )


def summed(log_us: Floats, log_se: Floats, columns: Sequence[tuple[int, ...]]) -> tuple[Floats, Floats]:
    """Log times of units from those of layers, and their standard errors."""
    if all(len(unit) == 1 for unit in columns):
        single = [unit[0] for unit in columns]
        return log_us[single], log_se[single]
    values, errors = np.empty(len(columns)), np.empty(len(columns))
    for i, unit in enumerate(columns):
        times = np.exp(log_us[list(unit)])
        values[i] = np.log(times.sum())
        errors[i] = np.sqrt(((times * log_se[list(unit)]) ** 2).sum()) / times.sum()
    return values, errors


def nodes_of(key: str) -> tuple[str, ...]:
    """The ONNX nodes in a key.

    >>> nodes_of("/conv1/Conv + /relu/Relu (kgen) #2")
    ('/conv1/Conv', '/relu/Relu')
    """
    return tuple(_SUFFIX.sub("", key).split(KEY_SEPARATOR))


def modules_of(keys: Sequence[str]) -> Mapping[str, NDArray[np.intp]]:
    """Columns of each module: all paths that hold several layers, the same set of layers only once."""
    members: dict[str, list[int]] = defaultdict(list)
    for column, key in enumerate(keys):
        paths = [tuple(part for part in node.split("/")[:-1] if part) for node in nodes_of(key) if "/" in node]
        if not paths:
            continue
        shared = 0
        while all(len(path) > shared and path[shared] == paths[0][shared] for path in paths):
            shared += 1
        for depth in range(1, shared + 1):
            members["/".join(paths[0][:depth])].append(column)
    distinct: dict[tuple[int, ...], str] = {}
    for name, columns in members.items():
        if len(columns) >= _MODULE_MIN_LAYERS:
            distinct[tuple(columns)] = name  # the longest path of those that hold the same layers
    return {name: np.array(columns, dtype=np.intp) for columns, name in distinct.items()}


def _groups(old: Sequence[str], new: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """Connected sets of layers that share ONNX nodes, with layers on both sides."""
    found = components([nodes_of(key) for key in old], [nodes_of(key) for key in new])
    return [([old[i] for i in olds], [new[i] for i in news]) for olds, news in found if olds and news]
