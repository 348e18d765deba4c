"""PyTorch models for tests, and their export; PyTorch is no dependency of the gate."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch (pip install torch onnxscript), found none installed")
nn = torch.nn


class Attention(nn.Module):  # type: ignore[misc,name-defined]
    """Four linear modules, and products that belong to none of them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(size, size) for _ in range(4))

    def forward(self, x: Any) -> Any:
        scores = torch.softmax(self.q(x) @ self.k(x).transpose(-1, -2), -1)
        return self.o(scores @ self.v(x))


class Block(nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self, size: int) -> None:
        super().__init__()
        self.attn, self.norm = Attention(size), nn.LayerNorm(size)
        self.up, self.down, self.drop = nn.Linear(size, 4 * size), nn.Linear(4 * size, size), nn.Dropout(0.5)

    def forward(self, x: Any) -> Any:
        x = self.norm(x + self.attn(x))
        return x + self.drop(self.down(nn.functional.gelu(self.up(x))))


class Net(nn.Module):  # type: ignore[misc,name-defined]
    """Two blocks, a module that is called twice, and a head."""

    def __init__(self, size: int = 64) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(size) for _ in range(2)])
        self.mix, self.head = nn.Linear(size, size), nn.Linear(size, 10)

    def forward(self, x: Any) -> Any:
        for block in self.blocks:
            x = self.mix(block(x))
        return self.head(x.mean(1))


def export(module: Any, x: Any, path: Path, *, dynamo: bool) -> Path:
    """As ONNX, by the new exporter (``dynamo``) or the older one."""
    if dynamo:
        pytest.importorskip("onnxscript", reason="needs onnxscript, found none installed")
    options: dict[str, Any] = {"external_data": False} if dynamo else {}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of the exporters' own dependencies
        torch.onnx.export(module.eval(), (x,), str(path), input_names=["x"], dynamo=dynamo, **options)
    return path
