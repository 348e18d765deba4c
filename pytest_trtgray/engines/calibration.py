"""The ranges of activations for INT8 and FP8: calibration inputs, checked, and the methods that read ranges from them.

``minmax`` keeps the largest absolute value. ``entropy`` cuts outliers off so that the distribution over the levels of
INT8 differs least from the original, in the sense of Kullback and Leibler; ``percentile`` keeps a fixed share of all
values. The algorithms are ONNX Runtime's. Its ``quantize_static`` holds all activations of all inputs at once for the
last two, and gives ``entropy`` a histogram of 128 bins, which leaves it nothing to choose from; here activations are
streamed into finer histograms.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trtgray.engines.base import Feed
from pytest_trtgray.engines.dtypes import dtype_name
from pytest_trtgray.engines.intermediates import BUDGET_BYTES, stream
from pytest_trtgray.engines.model import Dim, TensorSpec, format_shape
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.onnxruntime import open_reference
from pytest_trtgray.errors import EngineError, ShapeError
from pytest_trtgray.vendor import quiet_import

METHODS = ("minmax", "entropy", "percentile")
PERCENTILE = 99.99
"""Share of the absolute values that ``percentile`` keeps."""
_BINS = 1024  # twice as many take entropy three times the time
_LEVELS = 128


def check_method(method: str, precision: str) -> None:
    """Refuse a calibration method that does not exist, or not for this precision.

    Raises:
        EngineError: names those that do.
    """
    if method and method not in METHODS:
        raise EngineError(f"calibration_method={method!r}", "is not known", f"Choose one of {', '.join(METHODS)}.")
    if method == "entropy" and precision == "fp8":
        raise EngineError(
            "calibration_method='entropy'",
            "compares distributions over the levels of INT8; FP8 has others",
            "Use minmax: FP8 has room for outliers.",
        )


def largest_values(
    model: OnnxModel, feeds: Sequence[Feed], peaks: Mapping[str, float], method: str
) -> dict[str, float]:
    """The largest absolute value that each activation should be able to take.

    Args:
        model: in FP32.
        feeds: calibration inputs.
        peaks: by tensor, the largest absolute value over all feeds.
        method: one of :data:`METHODS`.

    Raises:
        EngineError: the model cannot be computed on them.
    """
    if method == "minmax":
        return dict(peaks)
    arrays = list(checked_feeds(model, method, feeds))
    histograms = _Histograms(method, peaks)
    for _, name, values in stream(model, open_reference, arrays, list(peaks), BUDGET_BYTES):
        histograms.add(name, np.asarray(values, np.float32))
    found = histograms.largest()
    # an activation that is always zero has no range of its own
    return {name: min(found[name], peak) if found[name] > 0 else peak for name, peak in peaks.items()}


class _Histograms:
    """ONNX Runtime's collector of histograms, without what it prints.

    The first values decide on the width of the bins there, and a later range a million times as wide on their number;
    here the ranges are known before.
    """

    def __init__(self, method: str, peaks: Mapping[str, float]) -> None:
        self._collector = quiet_import("onnxruntime.quantization.calibrate").HistogramCollector(
            method=method,
            symmetric=True,
            num_bins=_BINS,
            num_quantized_bins=_LEVELS,
            percentile=PERCENTILE,
            scenario="same",
        )
        for name, peak in peaks.items():
            self.add(name, np.array([0, peak], np.float32))
            self._collector.get_histogram_dict()[name][0][:] = 0

    def add(self, name: str, values: NDArray[np.float32]) -> None:
        if values.size:
            with contextlib.redirect_stdout(io.StringIO()):
                self._collector.collect({name: [values]})

    def largest(self) -> dict[str, float]:
        with contextlib.redirect_stdout(io.StringIO()):
            ranges = self._collector.compute_collection_result()
        return {name: max(abs(float(low)), abs(float(high))) for name, (low, high, *_) in ranges.items()}


def checked_feeds(model: OnnxModel, precision: str, calibration: Iterable[Feed]) -> Iterator[dict[str, NDArray[Any]]]:
    """The feeds as ONNX Runtime wants them, each checked; the first one is looked at now."""
    feeds = iter(calibration)
    first = next(feeds, None)
    if first is None:
        raise EngineError(
            model.path,
            f"{precision} needs calibration inputs, and none were given",
            "Give some tens of representative feeds: real inputs, one array for each input of the model.",
        )
    specs = {spec.name: spec for spec in model.inputs}

    def checked() -> Iterator[dict[str, NDArray[Any]]]:
        yield _checked_feed(model, specs, first)
        for feed in feeds:
            yield _checked_feed(model, specs, feed)

    return checked()


def _checked_feed(model: OnnxModel, specs: Mapping[str, TensorSpec], feed: Feed) -> dict[str, NDArray[Any]]:
    if set(feed) != set(specs):
        raise ShapeError(
            model.path,
            f"a calibration feed has inputs {sorted(feed)}, the model wants {sorted(specs)}",
            "Give one array for each input.",
        )
    arrays = {name: np.asarray(value) for name, value in feed.items()}
    for name, spec in specs.items():
        array = arrays[name]
        if not _fits(array.shape, spec.shape):
            raise ShapeError(
                model.path,
                f"calibration input {name!r} has shape {format_shape(array.shape)}, "
                f"the model wants {format_shape(spec.shape)}",
            )
        if dtype_name(array.dtype) != spec.dtype:
            raise EngineError(
                model.path,
                f"calibration input {name!r} is {dtype_name(array.dtype)}, the model wants {spec.dtype}",
                f"Convert it: feed[{name!r}].astype(...).",
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise EngineError(model.path, f"calibration input {name!r} has values that are not finite")
    return arrays


def _fits(shape: tuple[int, ...], wanted: tuple[Dim, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        isinstance(dim, str) or dim == size for size, dim in zip(shape, wanted, strict=True)
    )
