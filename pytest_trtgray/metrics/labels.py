"""Values of labels: of bounded length, and the same from run to run."""

from __future__ import annotations

import hashlib
import re

MAX_LENGTH = 80
"""Characters of a label's value; what is longer ends in a digest of the whole."""
_DIGEST = 8


def bounded(text: str) -> str:
    """A value of at most :data:`MAX_LENGTH` characters, different for different texts.

    >>> bounded("/encoder/layer.0/MatMul")
    '/encoder/layer.0/MatMul'
    >>> bounded("x" * 100)
    'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx~09ecb6eb'
    """
    whole = text.encode("utf-8", "backslashreplace")  # names of layers need not be UTF-8
    text = whole.decode("utf-8")
    if len(text) <= MAX_LENGTH:
        return text
    return f"{text[: MAX_LENGTH - _DIGEST - 1]}~{hashlib.sha256(whole).hexdigest()[:_DIGEST]}"


def label_of_test(nodeid: str) -> str:
    """A test's id without its parameters, of which there may be any number.

    >>> label_of_test("tests/test_net.py::test_layers[resnet50-8x3x224x224]")
    'tests/test_net.py::test_layers'
    """
    return bounded(re.sub(r"\[.*\]$", "", nodeid, flags=re.DOTALL))
