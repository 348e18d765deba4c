"""How much an output may differ from its FP32 reference, and where the defaults come from.

A result of a network is a long chain of sums. Rounding each operand to ``p`` bits gives a relative error of
``u = 2**-p`` per product, which adds up like a random walk: over ``n`` effective terms the error of an
element is about ``u * sqrt(n)`` of the *scale of the tensor* (its root mean square), not of the element
itself, which may be near zero by cancellation. So the default tolerance has two equal parts, one relative
to the element and one relative to the tensor's scale::

    allowed = rtol * |wanted| + atol        with  atol = rtol * rms(wanted)

``rtol`` is ``16 u``, but not below what a few hundred layers of FP32 accumulate: measured on an NVIDIA
H200, ResNet-50 in FP32 with TF32 is 5.9e-4 (relative L2) off the CPU, in FP16 1.4e-3; the worst of a
thousand elements lies five times further out. INT8 and FP8 depend on the scales that were chosen, so their
default is wide; a test of a quantised model should state its own, or measure it
(:mod:`pytest_trtgray.accuracy.noise`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_trtgray.engines.base import Engine

from pytest_trtgray.engines.base import Engine

DEFAULT_RTOL: Mapping[str, float] = {
    "float64": 1e-4,
    "float32": 1e-4,
    "tf32": 1.6e-2,
    "float16": 1.6e-2,
    "bfloat16": 6e-2,
    "fp8": 2e-1,
    "int8": 1e-1,
    "int4": 3e-1,
    "fp4": 3e-1,
}
_ALIASES = {"fp64": "float64", "fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Tolerance:
    """An element may differ by ``atol + rtol * |wanted|``, as in :func:`numpy.isclose`.

    Attributes:
        rtol: part of the wanted element.
        atol: absolute part; with ``scaled`` it is a part of the root mean square of the wanted tensor.
        scaled: see ``atol``.
    """

    rtol: float
    atol: float
    scaled: bool = False

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be a finite number >= 0, not {value!r}")

    def absolute(self, rms: float) -> float:
        """The absolute part for a tensor with the given root mean square."""
        return self.atol * rms if self.scaled else self.atol

    def __str__(self) -> str:
        if self.scaled:
            return f"{self.rtol:g} * |wanted| + {self.atol:g} * rms(wanted)"
        return f"{self.rtol:g} * |wanted| + {self.atol:g}"


def default_tolerance(precision: str) -> Tolerance:
    """The default for an engine whose coarsest layer computes in ``precision``; see the module's text.

    Args:
        precision: as the layers have it or as ``trt_build`` takes it (``fp16``); empty where it is not known, which
            counts as half precision.

    Raises:
        ValueError: there is no such precision.
    """
    name = _ALIASES.get(precision, precision) or "float16"
    if name not in DEFAULT_RTOL:
        raise ValueError(f"precision={precision!r} is unknown; known are {', '.join(DEFAULT_RTOL)}")
    return Tolerance(DEFAULT_RTOL[name], DEFAULT_RTOL[name], scaled=True)


def working_precision(engine: Engine) -> str:
    """The precision that decides the default tolerance: FP32 in TensorRT means TF32, which is on by default."""
    precision = engine.precision or "float16"
    is_tensorrt = engine.info.runtime in ("tensorrt", "tensorrt_rtx")
    return "tf32" if is_tensorrt and precision == "float32" else precision


def make_tolerance(rtol: float | None, atol: float | None, precision: str) -> Tolerance:
    """A user's numbers, or the default of the precision where both are missing."""
    if rtol is None and atol is None:
        return default_tolerance(precision)
    return Tolerance(rtol or 0.0, atol or 0.0)
