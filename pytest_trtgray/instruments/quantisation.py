"""The fixture ``trt_quantisation``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_trtgray.settings import active

if TYPE_CHECKING:
    from pytest_trtgray.accuracy.quantisation import Quantisation
    from pytest_trtgray.accuracy.shadow import Shadow
    from pytest_trtgray.engines.base import Engine, Feed
    from pytest_trtgray.session import TrtSession


class QuantisationInspector:
    """What the fixture ``trt_quantisation`` gives."""

    def __init__(self, session: TrtSession, item: pytest.Item) -> None:
        self._session = session
        self._item = item

    def __call__(
        self,
        model: Engine | str | Path,
        feeds: Sequence[Feed] = (),
        *,
        calibration: Sequence[Feed] = (),
        reference: str | Path | Shadow | None = None,
        representative: bool = True,
        time_limit_s: float | None = None,
    ) -> Quantisation:
        """Hold the scales of a Q/DQ model against the values that FP32 computes.

        Args:
            model: an engine, or a model that is looked for as by ``trt_build``. The engine need not run here.
            feeds: real inputs; without, only weights and scales are inspected.
            calibration: inputs that the scales were taken from, to see whether they are like ``feeds``.
            reference: the FP32 model that was quantised; by default ``--trt-onnx`` for an engine, what
                ``trt_build(precision=...)`` converted, or the model without its Q/DQ nodes.
            representative: false for inputs that are not like those of production.
            time_limit_s: tensors that are not reached by then are left out, and said so.

        Returns:
            numbers by tensor; nothing fails before ``.check()``.

        Raises:
            ModelError: the model has no Q/DQ nodes, or is not known.
        """
        from pytest_trtgray.accuracy.quantisation import inspect_quantisation
        from pytest_trtgray.accuracy.shadow import Shadow
        from pytest_trtgray.engines.base import Engine

        target: Engine | Path = model if isinstance(model, Engine) else active().find_file(model)
        if isinstance(reference, str | Path):
            reference = active().find_file(reference)
        elif reference is None:
            reference = self._session.model_behind(target) if isinstance(target, Engine) else target
        shadow = reference if isinstance(reference, Shadow) else self._session.shadow_of(reference)
        found = inspect_quantisation(
            target,
            feeds,
            calibration=calibration,
            reference=shadow,
            representative=representative,
            time_limit_s=time_limit_s,
        )
        self._report(target if isinstance(target, Engine) else None, found)
        return found

    def _report(self, engine: Engine | None, found: Quantisation) -> None:
        from pytest_trtgray.findings import counted
        from pytest_trtgray.reporting.details import scales_details

        known = [tensor for tensor in found.sorted() if tensor.snr_db == tensor.snr_db]
        worst = f", SNR at least {known[0].snr_db:.0f} dB ({known[0].tensor})" if known else ""
        types = "/".join(sorted({tensor.dtype for tensor in found.tensors}))
        outcome = "pass" if found.ok else "suspect"
        where = "" if engine else f"{found.model}: "
        summary = f"{where}{counted(len(found.tensors), 'tensor')} in {types or 'unknown types'}{worst}"
        self._session.report(
            self._item,
            "scales",
            engine,
            outcome,
            summary,
            found.findings,
            details=lambda: scales_details(found),
        )
