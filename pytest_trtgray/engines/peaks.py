"""What a GPU can do at most, by its data sheet: arithmetic rates and memory bandwidth.

Rates are dense (data sheets print twice as much for 2:4 sparsity) at boost clock, with the faster accumulator where
there are two; so they are upper bounds, and no kernel reaches them. A GPU that is not in the list, such as a slice
(MIG) or a laptop's chip of the same name, has no peak here: nothing is guessed from a name that looks alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_T, _G = 1e12, 1e9


@dataclass(frozen=True)
class DevicePeak:
    """The roofs of one GPU.

    Attributes:
        bandwidth: of its memory, bytes a second.
        vector: FP32 operations a second outside of tensor cores.
        tensor: operations a second in tensor cores by the type of the operands: ``tf32``, ``float16`` (BF16 is as
            fast), ``fp8``, ``int8``, ``fp4``; a type that is missing has no tensor cores or no published rate.
        source: where the numbers are from.
    """

    bandwidth: float
    vector: float
    tensor: Mapping[str, float]
    source: str

    def rate(self, precision: str, *, is_matrix: bool, tf32: bool) -> float | None:
        """Operations a second of a kernel; ``None`` where the data sheet does not tell.

        Args:
            precision: of its operands, as in :attr:`~pytest_trtgray.engines.model.Layer.precision`.
            is_matrix: whether it is a matrix product or convolution, so that tensor cores can work.
            tf32: whether FP32 operands may be rounded to TF32.
        """
        if not is_matrix:
            return self.vector
        if precision == "float32":
            return self.tensor.get("tf32", self.vector) if tf32 else self.vector
        return self.tensor.get({"bfloat16": "float16", "uint8": "int8"}.get(precision, precision))


def _peak(source: str, gb_s: float, fp32: float, **tensor: float) -> DevicePeak:
    """Numbers as data sheets print them: GB/s and TFLOPS (TOPS)."""
    names = {"fp16": "float16"}
    return DevicePeak(gb_s * _G, fp32 * _T, {names.get(name, name): rate * _T for name, rate in tensor.items()}, source)


_HOPPER = "NVIDIA H100 Tensor Core GPU data sheet"
_H200 = "NVIDIA H200 Tensor Core GPU data sheet"
_AMPERE = "NVIDIA A100 Tensor Core GPU data sheet"
_ADA = "NVIDIA Ada GPU Architecture white paper 2.01"
_GA102 = "NVIDIA Ampere GA102 GPU Architecture white paper"

PEAKS: Mapping[str, DevicePeak] = {
    "Tesla V100-SXM2-16GB": _peak("NVIDIA V100 data sheet", 900, 15.7, fp16=125),
    "Tesla V100-SXM2-32GB": _peak("NVIDIA V100 data sheet", 900, 15.7, fp16=125),
    "Tesla V100-PCIE-16GB": _peak("NVIDIA V100 data sheet", 900, 14, fp16=112),
    "Tesla V100-PCIE-32GB": _peak("NVIDIA V100 data sheet", 900, 14, fp16=112),
    "Tesla T4": _peak("NVIDIA T4 data sheet", 320, 8.1, fp16=65, int8=130),
    "NVIDIA A100-SXM4-40GB": _peak(_AMPERE, 1555, 19.5, tf32=156, fp16=312, int8=624),
    "NVIDIA A100-PCIE-40GB": _peak(_AMPERE, 1555, 19.5, tf32=156, fp16=312, int8=624),
    "NVIDIA A100-SXM4-80GB": _peak(_AMPERE, 2039, 19.5, tf32=156, fp16=312, int8=624),
    "NVIDIA A100 80GB PCIe": _peak(_AMPERE, 1935, 19.5, tf32=156, fp16=312, int8=624),
    "NVIDIA A30": _peak("NVIDIA A30 data sheet", 933, 10.3, tf32=82, fp16=165, int8=330),
    "NVIDIA A10": _peak("NVIDIA A10 data sheet", 600, 31.2, tf32=62.5, fp16=125, int8=250),
    "NVIDIA A40": _peak("NVIDIA A40 data sheet", 696, 37.4, tf32=74.8, fp16=149.7, int8=299.3),
    "NVIDIA RTX A6000": _peak(_GA102, 768, 38.7, tf32=77.4, fp16=154.8, int8=309.7),
    "NVIDIA GeForce RTX 3090": _peak(_GA102, 936, 35.6, tf32=35.6, fp16=142, int8=284),
    "NVIDIA L4": _peak(_ADA, 300, 30.3, tf32=60, fp16=121, int8=242.5, fp8=242.5),
    "NVIDIA L40": _peak(_ADA, 864, 90.5, tf32=90.5, fp16=181, int8=362, fp8=362),
    "NVIDIA L40S": _peak("NVIDIA L40S data sheet", 864, 91.6, tf32=183, fp16=362, int8=733, fp8=733),
    "NVIDIA RTX 6000 Ada Generation": _peak(_ADA, 960, 91.1, tf32=182.1, fp16=364.2, int8=728.5, fp8=728.5),
    "NVIDIA GeForce RTX 4090": _peak(_ADA, 1008, 82.6, tf32=82.6, fp16=330.3, int8=660.6, fp8=660.6),
    "NVIDIA H100 80GB HBM3": _peak(_HOPPER, 3350, 67, tf32=494.7, fp16=989.4, int8=1979, fp8=1979),
    "NVIDIA H100 PCIe": _peak(_HOPPER, 2000, 51, tf32=378, fp16=756, int8=1513, fp8=1513),
    "NVIDIA H100 NVL": _peak(_HOPPER, 3900, 60, tf32=417.5, fp16=835.5, int8=1670.5, fp8=1670.5),
    "NVIDIA H200": _peak(_H200, 4800, 67, tf32=494.7, fp16=989.4, int8=1979, fp8=1979),
    "NVIDIA H200 NVL": _peak(_H200, 4800, 60, tf32=417.5, fp16=835.5, int8=1670.5, fp8=1670.5),
    "NVIDIA B200": _peak("NVIDIA HGX B200 data sheet", 8000, 75, tf32=1100, fp16=2250, int8=4500, fp8=4500, fp4=9000),
    "NVIDIA GeForce RTX 5090": _peak(
        "NVIDIA RTX Blackwell GPU Architecture white paper", 1792, 104.8,
        tf32=104.8, fp16=419, int8=838, fp8=838, fp4=1676,
    ),
}  # fmt: skip
"""By the name that the driver gives the device."""


def peak_of(device_name: str) -> DevicePeak | None:
    """The roofs of a device; ``None`` for one that is not in the list."""
    return PEAKS.get(device_name)
