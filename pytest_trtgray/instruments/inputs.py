"""What a test feeds its engine where it says nothing, and what its markers say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_trtgray.errors import TrtGrayError

if TYPE_CHECKING:
    from pytest_trtgray.engines.base import Engine, Feed
    from pytest_trtgray.engines.profiles import Shapes


def default_feed(item: pytest.Item, engine: Engine, shapes: Shapes | None) -> Feed:
    """Seeded inputs: of the given shapes, the marker's, or the optimum of the first profile."""
    from pytest_trtgray.engines.profiles import opt_shapes
    from pytest_trtgray.feeds import make_feed

    wanted = shapes or marked(item, "trt_shapes")
    base = opt_shapes(engine.info.profiles[0]) if engine.info.profiles else {}
    unknown = set(wanted) - set(base)
    if unknown:
        raise TrtGrayError(
            engine.info.name, f"has no input {sorted(unknown)[0]!r}", f"Its inputs are: {', '.join(base)}."
        )
    merged = {**base, **{name: tuple(shape) for name, shape in wanted.items()}}
    return make_feed(engine.info.inputs, merged)


def marked(item: pytest.Item, name: str) -> dict[str, Any]:
    """Keyword arguments of all markers of a name; the closest one wins."""
    merged: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers(name))):
        merged.update(marker.kwargs)
    return merged
