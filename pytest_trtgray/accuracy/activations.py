"""What the FP32 reference computes inside: intermediate tensors, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.engines.base import Feed
from pytest_trtgray.engines.intermediates import BUDGET_BYTES, stream


def activations(
    shadow: Shadow, feed: Feed, names: Sequence[str], budget_bytes: int = BUDGET_BYTES
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Intermediate tensors of the FP32 reference, of which no more than a budget is held at once.

    Args:
        shadow: the reference; its nodes run as written, without optimisations.
        feed: one array an input of the model as given.
        names: tensors that nodes of the main graph of ``shadow.source`` write, and inputs;
            :func:`~pytest_trtgray.accuracy.shadow.fp32_names` has the names of what was dequantised.
        budget_bytes: of tensors that are held at once. One that is larger is held alone.

    Yields:
        name and values, each name once, in the order in which the model computes them.

    Raises:
        ModelError: a name that is no activation of the model.
        ShapeError, EngineError: as of :meth:`Shadow.run`.
    """
    for _, name, values in streamed(shadow, [feed], names, budget_bytes):
        yield name, values


def streamed(
    shadow: Shadow, feeds: Sequence[Feed], names: Sequence[str], budget_bytes: int = BUDGET_BYTES
) -> Iterator[tuple[int, str, NDArray[Any]]]:
    """The same for several feeds, with one session a chunk of tensors for all of them.

    Yields:
        index of the feed, name and values: all feeds of a chunk before the next chunk.
    """
    converted = [shadow.converted(feed) for feed in feeds]
    return stream(shadow.source, shadow.open_part, converted, names, budget_bytes)
