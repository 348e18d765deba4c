"""Short ways to say what unit tests need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytest_trtgray.engines.model import Layer, LayerTensor
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.onnxruntime import OnnxRuntimeEngine
from pytest_trtgray.engines.profiles import ShapeRequest, parse_shapes, resolve_profiles


def ort_engine(path: Path, shapes: str = "", **options: Any) -> OnnxRuntimeEngine:
    """A model in ONNX Runtime; ``shapes`` are its only ones."""
    model = OnnxModel(path)
    requests = [ShapeRequest(*(parse_shapes(shapes),) * 3)] if shapes else []
    profiles, notes = resolve_profiles(model.inputs, requests)
    return OnnxRuntimeEngine(model, name=path.stem, profiles=profiles, notes=notes, **options)


def profiled_engine(
    path: Path, *profiles: tuple[str, str, str], kind: type[OnnxRuntimeEngine] = OnnxRuntimeEngine
) -> OnnxRuntimeEngine:
    """A model in ONNX Runtime with optimization profiles of smallest, best and largest shapes."""
    model = OnnxModel(path)
    requests = [ShapeRequest(*map(parse_shapes, profile)) for profile in profiles]
    return kind(model, name=path.stem, profiles=resolve_profiles(model.inputs, requests)[0])


def layer(name: str, *nodes: str, kind: str = "kgen", dtype: str = "float32", profile: int = 0, **more: Any) -> Layer:
    """A layer that computes ``nodes`` on tensors of one type."""
    tensors = {"inputs": (LayerTensor(f"{name}_in", dtype),), "outputs": (LayerTensor(f"{name}_out", dtype),)}
    return Layer(name, kind, frozenset(nodes), profile=profile, **{**tensors, **more})
