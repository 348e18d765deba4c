"""Scales of INT8 models against the values they are applied to, and what FP16 could not hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_trtgray import QuantisationInspector, fp16_ranges, inspect_quantisation

from .models import FOLDER, image_batches, token_batches

CALIBRATION = {"resnet20": image_batches(4), "encoder": token_batches(4)}
"""What the models were calibrated with; real ones would be files."""
UNSEEN = {"resnet20": image_batches(8)[4:], "encoder": token_batches(8)[4:]}


@pytest.mark.parametrize("name", ["resnet20", "encoder"])
def test_scales_fit_the_data(name: str, trt_quantisation: QuantisationInspector) -> None:
    """No tensor is clipped, none wastes its range, and the data are like those of the calibration."""
    found = trt_quantisation(
        f".models/{name}_int8.onnx", UNSEEN[name], calibration=CALIBRATION[name], reference=f".models/{name}.onnx"
    )
    found.check(max_clipped=0.001, min_snr_db=25)


def test_other_data_than_those_of_the_calibration_are_noticed(tmp_path: Path) -> None:
    """As if the images had been scaled to 0..255; without the fixture, so that the report does not show it."""
    images = [{"image": 255 * feed["image"]} for feed in UNSEEN["resnet20"]]
    model = FOLDER / "resnet20_int8.onnx"
    found = inspect_quantisation(model, images, calibration=CALIBRATION["resnet20"], cache_dir=tmp_path)
    with pytest.raises(AssertionError, match="not like the calibration data, from input 'image' on"):
        found.check()


@pytest.mark.parametrize("name", ["resnet20", "encoder"])
def test_values_fit_into_fp16(name: str, tmp_path: Path) -> None:
    """Before anybody builds it so: TensorRT does not say that a tensor overflows."""
    fp16_ranges(FOLDER / f"{name}.onnx", UNSEEN[name], cache_dir=tmp_path).check()
