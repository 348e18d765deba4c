"""The fixture ``trt_compare``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from pytest_trtgray.errors import TrtGrayError
from pytest_trtgray.instruments.building import ShadowFactory
from pytest_trtgray.instruments.inputs import default_feed
from pytest_trtgray.settings import active

if TYPE_CHECKING:
    from pytest_trtgray.accuracy.compare import Comparison, PerOutput
    from pytest_trtgray.accuracy.localise import Localisation
    from pytest_trtgray.accuracy.shadow import Shadow
    from pytest_trtgray.accuracy.tolerance import Tolerance
    from pytest_trtgray.engines.base import Engine, Feed
    from pytest_trtgray.engines.profiles import Shapes
    from pytest_trtgray.session import TrtSession


class Reference(Protocol):
    """Whatever knows the right answers: an FP32 shadow, another engine."""

    def run(self, feed: Any) -> Mapping[str, Any]:
        """One array an output, by name."""


class Comparer:
    """What the fixture ``trt_compare`` gives."""

    def __init__(self, session: TrtSession, item: pytest.Item) -> None:
        self._session = session
        self._item = item

    def __call__(
        self,
        engine: Engine,
        reference: Engine | Shadow | ShadowFactory,
        *,
        feed: Feed | None = None,
        shapes: Shapes | None = None,
        rtol: float | None = None,
        atol: float | None = None,
        tolerance: Tolerance | None = None,
        per_output: PerOutput | None = None,
        equal_nan: bool = False,
        precision: str = "",
        classifiers: Collection[str] | None = None,
    ) -> Comparison:
        """Run both on the same input and compare their outputs.

        Args:
            engine: under test.
            reference: an FP32 shadow (``trt_shadow``, ``trt_shadow("model.onnx")``), or another engine.
            feed: the input; made from ``shapes`` with a fixed seed by default.
            shapes: the marker ``trt_shapes`` or the profile's optimal shapes by default.
            rtol: relative tolerance; the ini options, then the default of the engine's precision.
            atol: absolute tolerance.
            tolerance: instead of the two.
            per_output: tolerances of single outputs; ``noise_floor`` measures them.
            equal_nan: accept NaN and infinities where both have the same.
            precision: whose default tolerance applies; the engine's own by default.
            classifiers: outputs whose last axis is one score a class, for ``metrics.top_k``; those of two axes by
                default.

        Returns:
            the comparison; nothing fails before ``.check()``.
        """
        from pytest_trtgray.accuracy.metrics import finite
        from pytest_trtgray.findings import counted
        from pytest_trtgray.reporting.details import outputs_details

        settings = self._session.settings
        if rtol is None and atol is None and tolerance is None and not precision:
            rtol, atol = settings.rtol, settings.atol
        used = feed if feed is not None else default_feed(self._item, engine, shapes)
        comparison = compare_on(
            used,
            engine,
            reference,
            rtol=rtol,
            atol=atol,
            tolerance=tolerance,
            per_output=per_output,
            equal_nan=equal_nan,
            **({"precision": precision} if precision else {}),
            classifiers=classifiers,
            map_errors=settings.wants_details,
        )
        worst = max((output.relative_l2 for output in comparison.outputs), default=0.0)
        self._session.report(
            self._item,
            "outputs",
            engine,
            "pass" if comparison.ok else "differs",
            f"{counted(len(comparison.outputs), 'output')} against {_called(reference)}, "
            f"relative L2 error at most {worst:.2g}",
            comparison.findings,
            details=lambda: outputs_details(comparison),
            relative_l2=finite(worst),
        )
        return comparison

    def localise(
        self,
        engine: Engine,
        reference: Shadow | ShadowFactory | str | Path,
        *,
        feed: Feed | None = None,
        shapes: Shapes | None = None,
        rtol: float | None = None,
        atol: float | None = None,
        budget_bytes: int | None = None,
        time_limit_s: float | None = None,
    ) -> Localisation:
        """Find the ONNX node that makes an engine's outputs wrong, from the values of the tensors inside.

        Args:
            engine: under test.
            reference: an FP32 shadow, or the path of the model to make one of, looked for as by ``trt_build``.
            feed: the input; made from ``shapes`` with a fixed seed by default.
            shapes: the marker ``trt_shapes`` or the profile's optimal shapes by default.
            rtol: relative tolerance of every tensor; the ini options, then the default of the engine's precision.
            atol: absolute tolerance.
            budget_bytes: of values that are held at a time; more of them take more inferences.
            time_limit_s: stop looking after so many seconds, and say so.

        Returns:
            errors by tensor, ``.first``, ``.culprit``; nothing fails before ``.check()``.

        Raises:
            EngineError: the engine shows no values, or its model is not known.
            ModelError: the reference is the model of something else.
        """
        from pytest_trtgray.accuracy.localise import localise
        from pytest_trtgray.accuracy.tolerance import make_tolerance, working_precision
        from pytest_trtgray.engines.base import Engine
        from pytest_trtgray.engines.intermediates import BUDGET_BYTES
        from pytest_trtgray.reporting.details import localisation_details

        if isinstance(reference, Engine):
            raise TrtGrayError(
                reference.info.name,
                "is an engine, and errors are localised against the FP32 reference",
                "Give trt_shadow, or the path of the FP32 model.",
            )
        if isinstance(reference, ShadowFactory):
            reference = reference.current
        elif isinstance(reference, str | Path):
            reference = self._session.shadow_of(active().find_file(reference))
        settings = self._session.settings
        if rtol is None and atol is None:
            rtol, atol = settings.rtol, settings.atol
        found = localise(
            engine,
            reference,
            feed if feed is not None else default_feed(self._item, engine, shapes),
            tolerance=make_tolerance(rtol, atol, working_precision(engine)),
            budget_bytes=budget_bytes or BUDGET_BYTES,
            time_limit_s=time_limit_s,
        )
        outcome = "pass" if found.ok else "localised" if found.culprit else "spread"
        self._session.report(
            self._item,
            "origin",
            engine,
            outcome,
            found.summary,
            found.findings,
            details=lambda: localisation_details(found),
        )
        return found


def compare_on(feed: Feed, engine: Engine, reference: Reference, **options: Any) -> Comparison:
    """Run an engine and its reference on one input and compare.

    The engine must give the dtypes that it declares; the FP32 reference of an FP16 output is FP32.

    Args:
        feed: the input.
        engine: under test.
        reference: what it is compared with.
        options: of :func:`~pytest_trtgray.accuracy.compare.compare`; the precision is the engine's by default.
    """
    from pytest_trtgray.accuracy.compare import compare
    from pytest_trtgray.accuracy.tolerance import working_precision

    reference = reference.current if isinstance(reference, ShadowFactory) else reference
    return compare(
        engine.run(feed),
        reference.run(feed),
        dtypes={spec.name: spec.dtype for spec in engine.info.outputs},
        reference_name=repr(reference).strip("<>"),
        **{"precision": working_precision(engine), **options},
    )


def _called(reference: Engine | Shadow | ShadowFactory) -> str:
    from pytest_trtgray.engines.base import Engine

    return reference.info.name if isinstance(reference, Engine) else "the reference"
