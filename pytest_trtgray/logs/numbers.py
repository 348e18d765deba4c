"""Numbers as logs print them."""

from __future__ import annotations

MIB = 1 << 20
_MAX_DIGITS = 30  # more is no number that TensorRT prints


def number(text: str) -> float | None:
    """A number as C++ prints it; None for infinity, NaN and what is none.

    >>> number("0.0513"), number("inf"), number("1.2.3")
    (0.0513, None, None)
    """
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value - value == 0 else None


def whole(text: str | None, default: int = 0) -> int:
    """A whole number; ``default`` where there is none.

    >>> whole("42"), whole("-1"), whole(None), whole("9" * 5000)
    (42, -1, 0, 0)
    """
    if text is None or len(text) > _MAX_DIGITS:
        return default
    try:
        return int(text)
    except ValueError:
        return default


def mebibytes(text: str) -> int | None:
    """Bytes of a number of MiB.

    >>> mebibytes("1.5")
    1572864
    """
    value = number(text)
    return None if value is None else round(value * MIB)
