"""Inputs that are on the GPU already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_trtgray.accuracy.shadow import Shadow
from pytest_trtgray.engines.base import Engine
from pytest_trtgray.engines.execution import Execution
from pytest_trtgray.errors import EngineError
from pytest_trtgray.feeds import make_feed

torch = pytest.importorskip("torch")


@pytest.fixture
def image(net: Engine) -> np.ndarray:
    return make_feed(net.info.inputs, {"x": (8, 3, 16, 16)})["x"]


def test_torch_is_read_in_place(net: Engine, image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = []
    put = Execution._address

    def noted(self: Execution, name: str, address: int) -> None:
        addresses.append((name, address))
        put(self, name, address)

    wanted = net.run({"x": image})["logits"]
    tensor = torch.from_numpy(image).cuda()
    monkeypatch.setattr(Execution, "_address", noted)
    np.testing.assert_array_equal(net.run({"x": tensor})["logits"], wanted)
    assert ("x", tensor.data_ptr()) in addresses


def test_an_address_that_tensorrt_cannot_read(net: Engine, image: np.ndarray) -> None:
    """A slice begins anywhere; TensorRT wants multiples of 256 bytes."""
    buffer = torch.zeros(image.size + 1, device="cuda")
    view = buffer[1:].view(image.shape)
    view.copy_(torch.from_numpy(image))
    np.testing.assert_array_equal(net.run({"x": view})["logits"], net.run({"x": image})["logits"])


def test_what_is_computed_meanwhile_is_waited_for(net: Engine, image: np.ndarray) -> None:
    """The input is still being written, on a stream of torch's own, when the engine is asked."""
    wanted = net.run({"x": image})["logits"]
    for _ in range(20):
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            big = torch.ones(4096, 4096, device="cuda")
            for _ in range(5):
                big = big @ big * 0
            tensor = torch.from_numpy(image).cuda() + big.sum()
            found = net.run({"x": tensor})["logits"]
        np.testing.assert_array_equal(found, wanted)


def test_cupy(net: Engine, image: np.ndarray) -> None:
    cupy = pytest.importorskip("cupy")
    np.testing.assert_array_equal(net.run({"x": cupy.asarray(image)})["logits"], net.run({"x": image})["logits"])


def test_the_reference_takes_them_too(net: Engine, image: np.ndarray, folder: Path) -> None:
    shadow = Shadow(folder / "net.onnx", folder / "cache")
    tensor = torch.from_numpy(image).cuda()
    np.testing.assert_array_equal(shadow.run({"x": tensor})["logits"], shadow.run({"x": image})["logits"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.permute(0, 1, 3, 2), r"input 'x': is not contiguous on the GPU\n.*contiguous\(\)"),
        (lambda t: t.half(), "input 'x' wants float32, got float16"),
        (lambda t: t.clone().requires_grad_(), r"input 'x': .*\n.*detach"),
    ],
)
def test_what_cannot_be_read(net: Engine, image: np.ndarray, change: Any, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        net.run({"x": change(torch.from_numpy(image).cuda())})


def test_two_runs_do_not_mix(net: Engine, image: np.ndarray) -> None:
    other = image[::-1].copy()
    wanted = [net.run({"x": image})["logits"], net.run({"x": other})["logits"]]
    tensors = [torch.from_numpy(each).cuda() for each in (image, other)]
    for _ in range(10):
        for tensor, logits in zip(tensors, wanted, strict=True):
            np.testing.assert_array_equal(net.run({"x": tensor})["logits"], logits)
