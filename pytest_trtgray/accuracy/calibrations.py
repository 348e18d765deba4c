"""Which calibration method suits: minmax, entropy and percentile on the user's own data, side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.accuracy.quantisation import CACHE, inspect_quantisation, samples
from pytest_trtgray.accuracy.quantised_tensor import QuantisedTensor
from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.engines.base import Engine, Feed
from pytest_trtgray.engines.calibration import METHODS, check_method
from pytest_trtgray.engines.model import ShapeProfile, format_shape
from pytest_trtgray.engines.onnx_model import OnnxModel, open_model
from pytest_trtgray.engines.onnxruntime import open_reference
from pytest_trtgray.engines.precision import CALIBRATED, convert
from pytest_trtgray.engines.profiles import requested
from pytest_trtgray.errors import EngineError, ModelError
from pytest_trtgray.findings import Finding, some

ENOUGH_SAMPLES = 500
"""NVIDIA's advice for ImageNet; ranges of fewer inputs depend on which ones were taken."""
MIN_BETTER = 0.1
"""Another method than minmax is recommended if the outputs' error is this much smaller."""
MIN_FEEDS_BETTER = 0.75
"""And on so many of the inputs."""


@dataclass(frozen=True)
class CalibratedTensor:
    """One activation with the scale of one method.

    Attributes:
        scale: of the quantiser.
        clipped: share of the values cut off.
        snr_db: signal to quantisation noise.
    """

    scale: float
    clipped: float
    snr_db: float


@dataclass(frozen=True)
class CalibrationMethod:
    """What a method does to a whole model.

    Attributes:
        name: ``minmax``, ``entropy`` or ``percentile``.
        output_errors: per feed, the relative L2 error of the worst output against FP32.
        tensors: by the name of the activation.
    """

    name: str
    output_errors: tuple[float, ...]
    tensors: Mapping[str, CalibratedTensor]

    @property
    def output_error(self) -> float:
        """Mean over the feeds."""
        return float(np.mean(self.output_errors))


@dataclass(frozen=True)
class Calibrations:
    """Several calibration methods on the same data.

    Attributes:
        model: file name.
        precision: that the model was converted to.
        methods: in the order in which they were asked for.
        recommended: name of the method to take.
        reason: why, in one line.
        samples: how many inputs the ranges were taken from.
        findings: what is worth knowing of the data.
    """

    model: str
    precision: str
    methods: tuple[CalibrationMethod, ...]
    recommended: str
    reason: str
    samples: int
    findings: tuple[Finding, ...]

    def method(self, name: str) -> CalibrationMethod:
        """One of them.

        Raises:
            KeyError: it was not compared.
        """
        return {method.name: method for method in self.methods}[name]


def compare_calibrations(
    model: str | Path | Engine,
    feeds: Sequence[Feed],
    *,
    test_feeds: Sequence[Feed] = (),
    methods: Sequence[str] = (),
    precision: str = "int8",
    cache_dir: Path = CACHE,
) -> Calibrations:
    """Quantise an FP32 model with each method and hold it against FP32.

    What decides is the error of the model's outputs: methods that cut outliers off lose signal to noise where they do
    and may win where it matters, and no number of a single tensor tells.

    Args:
        model: the FP32 model, or an engine that was built from it; its profiles are then checked too.
        feeds: real inputs to take the ranges from.
        test_feeds: other real inputs to measure with; by default the same.
        methods: some of ``minmax``, ``entropy`` and ``percentile``; by default all that fit the precision.
        precision: ``int8`` or ``fp8``.
        cache_dir: where derived models are kept.

    Raises:
        ModelError: the model is no FP32 model, or cannot be converted.
        EngineError: an unknown method or precision, or unusable feeds.
        ShapeError: a feed does not fit the model.
    """
    if precision not in CALIBRATED:
        raise EngineError(f"precision={precision!r}", "is not calibrated", f"Choose one of {', '.join(CALIBRATED)}.")
    chosen = tuple(methods) or tuple(name for name in METHODS if (name, precision) != ("entropy", "fp8"))
    for name in chosen:
        check_method(name, precision)
    source, profiles = _source(model)
    if source.is_quantised:
        raise ModelError(source.called, "is quantised already", "Give the FP32 model that it was made from.")
    feeds = [dict(feed) for feed in feeds]
    measured = [dict(feed) for feed in test_feeds] or feeds
    if not feeds:
        raise EngineError(source.called, "needs inputs to calibrate with, and none were given", "Give real inputs.")
    shadow = Shadow(source.path, cache_dir)
    try:
        wanted = [shadow.run(feed) for feed in measured]
        found = tuple(
            _measure(name, convert(source.path, precision, feeds, name), shadow, measured, wanted, cache_dir)
            for name in chosen
        )
    finally:
        shadow.close()
    recommended, reason = recommend(found)
    findings = (*_sample_findings(feeds), *_shape_findings(source, feeds, profiles))
    return Calibrations(source.original.name, precision, found, recommended, reason, samples(feeds), findings)


def recommend(methods: Sequence[CalibrationMethod]) -> tuple[str, str]:
    """The method to take, and why.

    The first method stays unless another is clearly better, on average and on most of the inputs: a difference
    within the scatter of the inputs is none.

    Args:
        methods: the simplest first.
    """
    base = methods[0]
    best, share = base, 0.0
    for method in methods[1:]:
        better = np.asarray(method.output_errors) < np.asarray(base.output_errors)
        if (
            method.output_error < (1 - MIN_BETTER) * base.output_error
            and better.mean() >= MIN_FEEDS_BETTER
            and method.output_error < best.output_error
        ):
            best, share = method, float(better.mean())
    if best is not base:
        return best.name, (
            f"{best.name}: the outputs' relative L2 error is {best.output_error:.3g} against {base.output_error:.3g} "
            f"of {base.name}, and smaller on {share:.0%} of the inputs"
        )
    others = ", ".join(f"{method.name} {method.output_error:.3g}" for method in methods[1:])
    beside = f"; no other is clearly better ({others})" if others else ""
    return base.name, f"{base.name}: the outputs' relative L2 error is {base.output_error:.3g}{beside}"


def _source(model: str | Path | Engine) -> tuple[OnnxModel, Sequence[ShapeProfile]]:
    if not isinstance(model, Engine):
        return open_model(Path(model)), ()
    source = model.origin or model.model
    if source is None:
        raise ModelError(model.info.path, "its ONNX model is not known", "Give the FP32 ONNX model.")
    return source, model.info.profiles


def _measure(
    name: str,
    content: bytes,
    shadow: Shadow,
    feeds: Sequence[Feed],
    wanted: Sequence[Mapping[str, NDArray[np.generic]]],
    cache_dir: Path,
) -> CalibrationMethod:
    with tempfile.TemporaryDirectory(prefix="trtgray-") as folder:
        path = Path(folder) / f"{name}.onnx"
        path.write_bytes(content)
        engine = open_reference(OnnxModel(path))
        errors = tuple(
            relative_error(engine.run(shadow.converted(feed)), outputs)
            for feed, outputs in zip(feeds, wanted, strict=True)
        )
        engine.close()
        inspected = inspect_quantisation(path, feeds, reference=shadow, cache_dir=cache_dir)
    tensors = {tensor.tensor: _calibrated(tensor) for tensor in inspected.tensors if tensor.role == "activation"}
    return CalibrationMethod(name, errors, tensors)


def _calibrated(tensor: QuantisedTensor) -> CalibratedTensor:
    return CalibratedTensor(tensor.scale[1], tensor.clipped, tensor.snr_db)


def relative_error(outputs: Mapping[str, NDArray[np.generic]], wanted: Mapping[str, NDArray[np.generic]]) -> float:
    """``|got - wanted| / |wanted|`` in the L2 norm, of the worst floating-point output; NaN counts as infinite."""
    worst = 0.0
    for name, reference in wanted.items():
        if reference.dtype.kind != "f":
            continue
        exact = reference.astype(np.float64)
        norm = float(np.linalg.norm(exact)) or 1.0
        error = float(np.linalg.norm(outputs[name].astype(np.float64) - exact)) / norm
        worst = max(worst, error if np.isfinite(error) else float("inf"))
    return worst


def _sample_findings(feeds: Sequence[Feed]) -> list[Finding]:
    count = samples(feeds)
    if count >= ENOUGH_SAMPLES:
        return []
    return [
        Finding(
            "advice",
            "calibration",
            f"ranges from {count} samples; they are steady from about {ENOUGH_SAMPLES} on",
            "calibration.few-samples",
            {"samples": count},
            "Give more real inputs, as different from each other as those in production.",
        )
    ]


def _shape_findings(model: OnnxModel, feeds: Sequence[Feed], profiles: Sequence[ShapeProfile]) -> list[Finding]:
    outside: dict[str, None] = {}
    for index, feed in enumerate(feeds):
        shapes = requested(model.inputs, {name: np.asarray(array) for name, array in feed.items()})
        if profiles and not any(
            all(bounds.contains(shapes[name]) for name, bounds in profile.items() if name in shapes)
            for profile in profiles
        ):
            outside[
                f"feed {index} ({', '.join(f'{name} {format_shape(shape)}' for name, shape in shapes.items())})"
            ] = None
    if not outside:
        return []
    return [
        Finding(
            "warning",
            "calibration",
            f"{some(list(outside))} outside of every optimization profile: the engine never sees such inputs",
            "calibration.shapes",
            {"feeds": len(outside)},
            "Calibrate with the shapes of production; a TensorRT that calibrates itself wants the optimal ones.",
        )
    ]
