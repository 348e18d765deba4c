"""How much rounding alone changes a model's outputs, measured.

Which tolerance is right depends on the model: on how deep it is, on what cancels in it, on how its outputs are scaled.
A *noise floor* measures that. The same model is run twice in ways that differ in nothing but rounding, such as the
FP32 shadow and the model in FP16 in another runtime, or the CPU and CUDA. The difference is what an engine of that
precision may show without being wrong.

For each output, the noise is the smallest ``r`` with which all elements of all inputs pass the rule of the default
tolerance::

    |other - reference| <= r * |reference| + r * rms(reference)

The tolerance is ``factor`` times that. The largest of ``n`` errors that are about normally distributed grows like
``sqrt(2 ln n)``: from a thousand elements to ten million it grows by 1.6, which a factor of two covers. It is never
below ``2**-20``, sixteen roundings of an FP32 output.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.accuracy.chunks import Pair
from pytest_trtgray.accuracy.scan import root_mean_square
from pytest_trtgray.accuracy.tolerance import Tolerance
from pytest_trtgray.engines.base import Feed
from pytest_trtgray.engines.dtypes import is_integer

FACTOR = 2.0
SMALLEST = 2.0**-20


class Runnable(Protocol):
    """An engine, a shadow, or anything that computes outputs by name."""

    def run(self, feed: Feed) -> dict[str, NDArray[Any]]:
        """Infer once."""


def noise_floor(
    reference: Runnable, other: Runnable, feeds: Iterable[Feed], *, factor: float = FACTOR
) -> dict[str, Tolerance]:
    """Measure how far rounding takes a model's outputs, and make it a tolerance.

    In a test::

        half = trt_build("model.onnx", precision="fp16", runtime="onnxruntime")
        floor = noise_floor(shadow, half, feeds)
        trt_compare(engine, shadow, per_output=floor).check()

    Args:
        reference: the model in FP32.
        other: the same model, in the precision or on the provider whose rounding is to be measured; not the engine
            under test, whose faults would become noise.
        feeds: inputs that are like those of the test; a few, because the floor is a maximum.
        factor: by how much the tolerance exceeds the largest noise.

    Returns:
        one tolerance an output, for ``per_output``. Of integers it is absolute, and 0 where both agree.

    Raises:
        ValueError: there are no feeds, the outputs do not have the same names and shapes, one of them is not finite
            or its reference 0 everywhere, or both compute the same numbers bit for bit, so that there is no noise.
    """
    if not factor >= 1:
        raise ValueError(f"factor must be at least 1, not {factor!r}")
    noise: dict[str, float] = {}
    integers: set[str] = set()
    for feed in feeds:
        got, wanted = other.run(feed), reference.run(feed)
        if set(got) != set(wanted):
            raise ValueError(f"the two are not one model: outputs {sorted(got)} and {sorted(wanted)}")
        for name, array in wanted.items():
            integers.update([name] if is_integer(array.dtype) else [])
            noise[name] = max(noise.get(name, 0.0), _noise(name, np.asarray(got[name]), np.asarray(array)))
    if not noise:
        raise ValueError("nothing was measured: there are no feeds, or no outputs")
    if not any(size for name, size in noise.items() if name not in integers) and len(integers) < len(noise):
        raise ValueError(
            "both compute the same numbers bit for bit, so no noise was measured: give the model in another precision "
            "or on another provider"
        )
    return {
        name: Tolerance(0.0, factor * size)
        if name in integers
        else Tolerance(max(factor * size, SMALLEST), max(factor * size, SMALLEST), scaled=True)
        for name, size in noise.items()
    }


def _noise(name: str, got: NDArray[Any], wanted: NDArray[Any]) -> float:
    """The largest error as part of the element and of the tensor's scale; of integers as it is."""
    if got.shape != wanted.shape:
        raise ValueError(f"output {name!r}: the two are not one model, shapes {got.shape} and {wanted.shape}")
    if not got.size:
        return 0.0
    pair = Pair(got, wanted)
    scale = 0.0 if is_integer(wanted.dtype) else root_mean_square(pair)
    largest = 0.0
    for start, stop in pair.spans():
        left, right = (side.astype(np.float64) for side in pair.read(start, stop))
        if not (np.isfinite(left).all() and np.isfinite(right).all()):
            raise ValueError(f"output {name!r} has NaN or infinities, of which there is no noise floor")
        error, size = np.abs(left - right), np.abs(right) + scale
        if is_integer(wanted.dtype):
            size = np.ones_like(error)
        with np.errstate(divide="ignore"):
            largest = max(largest, float(np.divide(error, size, out=np.zeros_like(error), where=error > 0).max()))
    if largest == np.inf:
        raise ValueError(f"the reference of output {name!r} is 0 everywhere, so its noise has no scale")
    return largest
