"""Which product a log is of, and which version, as far as the text says."""

from __future__ import annotations

import re

from pytest_trtgray.logs.events import Event
from pytest_trtgray.logs.versions import dotted

_OF_PRODUCER = {
    "onnxruntime": "ONNX Runtime",
    "triton": "Triton",
    "deepstream": "DeepStream",
    "torch_tensorrt": "Torch-TensorRT",
    "tensorrt_llm": "TensorRT-LLM",
    "tensorflow": "TensorFlow",
    "stderr": "",
    "other": "",
    "": "",
}
_OF_MODULE = {"tensorrt_rtx": "TensorRT-RTX", "tensorrt_lean": "TensorRT lean runtime"}
_CALIBRATOR = re.compile(r"TRT-(\d{4,6})-")
_BANNER, _MODULE, _CACHE, _MISMATCH = 4, 3, 2, 1  # how much a source of the version is trusted


TELLING = frozenset(
    ("version", "product", "version_mismatch", "calibration_cache", "trtexec_start", "trtexec_result", "trtexec_task")
)
"""Kinds of events that :meth:`Identity.event` learns from."""


class Identity:
    """Gathers what tells product and version."""

    def __init__(self) -> None:
        self.version = ""
        self._trust = 0
        self._product = ""

    def event(self, event: Event) -> None:
        """Take what an event tells."""
        fields = event.fields
        if event.kind == "version":
            product = fields.get("product") or _OF_MODULE.get(fields.get("module", ""), "TensorRT")
            self._take(product, fields["version"], _MODULE)
        elif event.kind in ("trtexec_start", "trtexec_result", "trtexec_task") and "version" in fields:
            self._take(fields["product"], fields["version"], _BANNER)
        elif event.kind == "calibration_cache" and (match := _CALIBRATOR.match(fields["calibrator"])):
            self._take("TensorRT", dotted(match[1]), _CACHE)
        elif event.kind == "product":
            self._product = fields["product"]
        elif event.kind == "version_mismatch":
            self._take("", fields["expected"], _MISMATCH)

    def _take(self, product: str, version: str, trust: int) -> None:
        if trust > self._trust or (trust == self._trust and len(version) > len(self.version)):
            self.version, self._trust = version, trust
            self._product = self._product if self._product == "TensorRT-RTX" else product or self._product

    def product(self, producer: str) -> str:
        """The product; who printed the log decides where the text says none."""
        return self._product or _OF_PRODUCER.get(producer, "TensorRT")
