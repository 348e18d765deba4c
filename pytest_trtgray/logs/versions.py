"""Versions of TensorRT as logs spell them."""

from __future__ import annotations

import re

from pytest_trtgray.logs.numbers import whole

_BANNER = re.compile(
    r"\[(?P<product>TensorRT[\w-]*) v(?P<version>[\d.]+)\](?: \[b(?P<build>\d+)\])?(?: \[(?P<task>[^\]]*)\])?"
)


def dotted(number: str) -> str:
    """A version written as one number, with dots.

    Up to 9 it is ``major * 1000 + minor * 100 + patch``, from 10 on ``major * 10000 + minor * 100 + patch``
    (``NV_TENSORRT_VERSION``).

    >>> dotted("8502"), dotted("7103"), dotted("101303"), dotted("110100"), dotted("11.1.0.106")
    ('8.5.2', '7.1.3', '10.13.3', '11.1.0', '11.1.0.106')
    """
    if not number.isdigit() or not 4 <= len(number) <= 6:
        return number.strip(".")
    value = int(number)
    major, rest = divmod(value, 1000 if value < 10_000 else 10_000)
    return f"{major}.{rest // 100}.{rest % 100}"


def of_banner(text: str) -> dict[str, str | int]:
    """Version and build number of trtexec's banner: ``[TensorRT v101300] [b35]``, ``[TensorRT v11.1.0.106]``."""
    match = _BANNER.search(text)
    if not match:
        return {}
    found: dict[str, str | int] = {"product": match["product"], "version": dotted(match["version"])}
    if match["build"]:
        found["build"] = whole(match["build"])
    return found
