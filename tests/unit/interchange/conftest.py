"""Exports of a real engine, in trtexec's own spelling."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import recordings, trtexec_files

Write = Callable[..., list[Path]]


@pytest.fixture(scope="session")
def h200() -> recordings.H200:
    return recordings.H200()


@pytest.fixture
def exports(tmp_path: Path, h200: recordings.H200) -> Write:
    """Writes what trtexec would have written of processes of BERT-base on an H200: profiles, times, layers."""

    def write(
        *processes: int,
        folder: str = "",
        machine: str = "a",
        slower: str = "",
        factor: float = 1.0,
        listed: bool = True,
    ) -> list[Path]:
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        paths = []
        for number in processes:
            layer_us, latency = h200.layer_us[machine][number].copy(), h200.latency_us[machine][number].astype(float)
            for column, name in enumerate(h200.layer_names):
                if slower and slower in name:
                    latency = latency + layer_us[:, column].mean() * (factor - 1)
                    layer_us[:, column] *= factor
            for what, text in (
                ("profile", trtexec_files.profile(h200.layer_names, layer_us)),
                ("times", trtexec_files.times(latency)),
            ):
                paths.append(place / f"bert.{what}{number}.json")
                paths[-1].write_text(text)
        if listed:
            paths.append(place / "bert.layers.json")
            paths[-1].write_text(json.dumps(recordings.listing("rtx15_bert_base_fp16")))
        return paths

    return write
