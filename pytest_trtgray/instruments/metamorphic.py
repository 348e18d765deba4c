"""The fixture ``trt_metamorphic``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_trtgray.instruments.building import ShadowFactory
from pytest_trtgray.instruments.inputs import default_feed

if TYPE_CHECKING:
    from pytest_trtgray.accuracy.metamorphic import Relations
    from pytest_trtgray.accuracy.shadow import Shadow
    from pytest_trtgray.accuracy.tolerance import Tolerance
    from pytest_trtgray.engines.base import Engine, Feed
    from pytest_trtgray.engines.profiles import Shapes
    from pytest_trtgray.session import TrtSession


class Metamorphic:
    """What the fixture ``trt_metamorphic`` gives."""

    def __init__(self, session: TrtSession, item: pytest.Item) -> None:
        self._session = session
        self._item = item

    def __call__(
        self,
        engine: Engine,
        *,
        reference: Engine | Shadow | ShadowFactory | None = None,
        feed: Feed | None = None,
        shapes: Shapes | None = None,
        tolerance: Tolerance | None = None,
        rows: int = 4,
        budget_s: float | None = None,
    ) -> Relations:
        """Check an engine against itself: determinism, batch consistency, row permutation, padding.

        Args:
            engine: runnable on this machine; the test is skipped where it is not.
            reference: where this fails a check as well, the check makes no sense for the model and is left out;
                ``trt_shadow`` is a good one. It is only run where the engine fails.
            feed: the input; made from ``shapes`` with a fixed seed by default.
            shapes: the marker ``trt_shapes`` or the profile's optimal shapes by default.
            tolerance: by default that of the engine's precision (:mod:`pytest_trtgray.accuracy.metamorphic`).
            rows: of a batch that are run alone.
            budget_s: seconds after which no further check is begun.

        Returns:
            what became of each check; nothing fails before ``.check()``.
        """
        from pytest_trtgray.accuracy.metamorphic import check_relations

        used = feed if feed is not None else default_feed(self._item, engine, shapes)
        relations = check_relations(
            engine,
            used,
            rows=rows,
            tolerance=tolerance,
            reference=reference.current if isinstance(reference, ShadowFactory) else reference,
            budget_s=budget_s,
        )
        self._session.report(
            self._item,
            "relations",
            engine,
            "pass" if relations.ok else "fail",
            relations.summary(),
            relations.findings,
        )
        return relations
