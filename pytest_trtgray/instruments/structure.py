"""The fixture ``trt_structure``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_trtgray.engines.base import Engine
    from pytest_trtgray.engines.model import Layer
    from pytest_trtgray.findings import Finding
    from pytest_trtgray.session import TrtSession
    from pytest_trtgray.structure.snapshot import Snapshot


class StructureOf:
    """What the fixture ``trt_structure`` gives for an engine."""

    def __init__(self, session: TrtSession, item: pytest.Item, engine: Engine) -> None:
        self._session = session
        self._item = item
        self.engine = engine

    @property
    def layers(self) -> Sequence[Layer]:
        """The engine's fused layers."""
        return self.engine.layers

    @property
    def snapshot(self) -> Snapshot:
        """Layers, inputs, outputs and memory."""
        from pytest_trtgray.structure.snapshot import snapshot_of

        return snapshot_of(self.engine)

    @property
    def advice(self) -> tuple[Finding, ...]:
        """What the layers say about speed that may be lost; see ``docs/structure.md``."""
        from pytest_trtgray.structure.optimisation import advice_on_layers

        return advice_on_layers(self.layers, self.engine.info)

    def check(self) -> tuple[Finding, ...]:
        """Compare with the baseline of this target.

        Returns:
            what is worth knowing although the engine is still the same.

        Raises:
            AssertionError: a node, fusion, precision, input or output changed, memory grew, or there is no
                baseline; the first line is the verdict.
        """
        __tracebackhide__ = True
        from pytest_trtgray.checks import BaselineCheck

        return BaselineCheck(self._session, self._item, self.engine).structure(self.snapshot)
