"""The fixtures ``trt_build`` and ``trt_shadow``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trtgray.errors import TrtGrayError
from pytest_trtgray.instruments.logs import log_level
from pytest_trtgray.settings import active

if TYPE_CHECKING:
    from pytest_trtgray.accuracy.shadow import Shadow
    from pytest_trtgray.engines.base import Engine, Feed
    from pytest_trtgray.session import TrtSession


RANDOM_CALIBRATION = 4
"""Seeded inputs for a calibration to which the test gives none."""


class EngineFactory:
    """What the fixture ``trt_build`` gives."""

    def __init__(self, session: TrtSession) -> None:
        self._session = session

    def __call__(
        self,
        path: str | Path,
        *,
        name: str = "",
        runtime: str = "",
        precision: str = "",
        calibration: Sequence[Feed] = (),
        calibration_method: str = "",
        min_shapes: str = "",
        opt_shapes: str = "",
        max_shapes: str = "",
        log: str = "",
    ) -> Engine:
        """Build or load an engine; the same arguments give the same engine within a run.

        Args:
            path: ``.onnx``, ``.engine`` or ``.plan``; looked for beside the test, in the root folder, and in
                the current folder.
            name: for reports; the file's stem by default.
            runtime: ``onnxruntime``, ``tensorrt`` or ``tensorrt_rtx``; as ``--trt-runtime`` by default.
            precision: ``fp32``, ``fp16``, ``bf16``, ``int8`` or ``fp8``, made from an FP32 model: by a flag of the
                builder where TensorRT has one (8.5 to 10), else by converting the model. What was really built is
                read back from the layers; a precision that no layer, or not every heavy one, computes in is a
                finding of every test of the engine.
            calibration: inputs from which ``int8`` and ``fp8`` take their ranges, at the optimal shapes; a few
                hundred real ones for a real accuracy. Without, four seeded random ones.
            calibration_method: ``minmax``, ``entropy`` (INT8 only) or ``percentile``; the model is then converted on
                every runtime. :func:`~pytest_trtgray.compare_calibrations` tells which suits. By default ``minmax``,
                and a TensorRT that calibrates itself (up to 10) does so, by entropy.
            min_shapes: smallest shapes in trtexec's notation, ``x:1x3x224x224``.
            opt_shapes: optimal shapes.
            max_shapes: largest shapes. Without the three, those of the command line if they are for this
                model's inputs.
            log: what is kept of the log for ``trt_log``: ``warning``, ``info`` or ``verbose``; as
                ``--trt-log-level`` by default.

        Raises:
            TrtGrayError: it cannot be built or loaded; says why and what to do.
        """
        from pytest_trtgray.engines.base import to_numpy
        from pytest_trtgray.engines.calibration import check_method
        from pytest_trtgray.engines.precision import CALIBRATED, check_precision
        from pytest_trtgray.engines.profiles import request_shapes

        given = (min_shapes, opt_shapes, max_shapes)
        file = active().find_file(path)
        shapes = (request_shapes(*given),) if any(given) else self._fitting_shapes(file)
        if precision:
            check_precision(precision)
            _check_not_built(file, precision)
        check_method(calibration_method, precision)
        if (calibration or calibration_method) and precision not in CALIBRATED:
            raise TrtGrayError(
                "calibration" if calibration else "calibration_method",
                f"is only used by precision={' or '.join(map(repr, CALIBRATED))}, not by {precision!r}",
                "Drop it, or name the precision.",
            )
        feeds: tuple[Feed, ...] = tuple(
            {input_name: to_numpy(input_name, value) for input_name, value in feed.items()} for feed in calibration
        )
        feeds = feeds or (_random_feeds(file, shapes) if precision in CALIBRATED else ())
        return self._session.load(
            file,
            name=name,
            runtime=runtime,
            shapes=shapes,
            precision=precision,
            calibration=feeds,
            log_level=log_level(log) if log else None,
            calibration_method=calibration_method,
        )

    def _fitting_shapes(self, file: Path) -> tuple[Any, ...]:
        from pytest_trtgray.engines.loading import is_engine_file
        from pytest_trtgray.engines.onnx_model import open_model
        from pytest_trtgray.engines.profiles import fitting_requests

        requests = self._session.settings.shapes
        if not requests or is_engine_file(file):
            return ()
        return fitting_requests(open_model(file).inputs, requests)


class ShadowFactory:
    """What the fixture ``trt_shadow`` gives: the reference of ``trt_engine``'s model, or of any other."""

    def __init__(self, session: TrtSession) -> None:
        self._session = session

    def __call__(self, path: str | Path, *, on: str = "") -> Shadow:
        """The FP32 reference of an ONNX model.

        Args:
            path: looked for as by ``trt_build``.
            on: ``cpu`` or ``cuda`` (ONNX Runtime), ``tensorrt`` (without TF32); as ``--trt-shadow`` by default.

        Raises:
            ModelError: the model cannot be used.
            EngineError: it cannot be computed there.
        """
        return self._session.shadow_of(active().find_file(path), on=on)

    @property
    def current(self) -> Shadow:
        """The reference of ``trt_engine``'s model (of ``--trt-onnx``, if that is given)."""
        engine = self._session.current
        if engine is None:
            raise RuntimeError(
                "trt_shadow.run needs trt_engine in the same test; without it, call trt_shadow('model.onnx')"
            )
        return self._session.shadow_of(self._session.model_behind(engine))

    def run(self, feed: Feed) -> dict[str, Any]:
        """Infer once in FP32: one array an output, by name."""
        return self.current.run(feed)


def _check_not_built(file: Path, precision: str) -> None:
    from pytest_trtgray.engines.loading import is_engine_file

    if is_engine_file(file):
        raise TrtGrayError(
            str(file), f"is built already, and not in precision={precision!r} again", "Give the .onnx instead."
        )


def _random_feeds(file: Path, shapes: Sequence[Any]) -> tuple[Feed, ...]:
    """Inputs to calibrate with where the test gives none; none for a model that is quantised already."""
    from pytest_trtgray.engines.onnx_model import open_model
    from pytest_trtgray.engines.profiles import opt_shapes, resolve_profiles
    from pytest_trtgray.feeds import make_feed

    model = open_model(file)
    if model.is_quantised:
        return ()
    profiles, _ = resolve_profiles(model.inputs, tuple(shapes))
    return tuple(make_feed(model.inputs, opt_shapes(profiles[-1]), seed) for seed in range(RANDOM_CALIBRATION))
