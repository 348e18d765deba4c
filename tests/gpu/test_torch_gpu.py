"""PyTorch on the GPU beside an engine of TensorRT: CUDA events of one, layer times of the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pytest_trtgray.engines.base import Engine
from pytest_trtgray.engines.loading import LoadOptions, load_engine
from pytest_trtgray.timing.torch_modules import torch_times
from tests.integration.conftest import Project, text

SIZE = 1024


@pytest.fixture(scope="module")
def exported(folder: Path, runtime: str, rtx: None) -> tuple[object, object, Engine]:
    from tests.torch_models import Net, export, torch

    if not torch.cuda.is_available():
        pytest.skip("needs torch with CUDA, found none that sees this GPU")
    torch.manual_seed(0)
    module, x = Net(SIZE), torch.randn(8, 128, SIZE)
    path = export(module, x, folder / "torch_net.onnx", dynamo=False)
    return module.eval().cuda(), x.cuda(), load_engine(path, LoadOptions(runtime, cache_dir=folder))  # type: ignore[arg-type]


def test_inner_times_add_up(exported: tuple[object, object, Engine]) -> None:
    module, x, _ = exported
    times = torch_times(module, x)
    print(times)
    rows = {row.name: row for row in times.modules}
    assert times.device == "cuda"
    assert rows["mix"].calls == 2
    assert sum(row.own_us for row in times.modules) == pytest.approx(rows[""].us, rel=1e-3)
    # a linear of four times the size has no shorter kernel
    assert rows["blocks.0.up"].us > rows["head"].us


def test_events_agree_with_a_bare_loop(exported: tuple[object, object, Engine]) -> None:
    """The whole model's time is that of inferences one after the other, each waited for."""
    from tests.torch_models import torch

    module, x, _ = exported
    times = torch_times(module, x)
    samples = []
    with torch.no_grad():
        for _ in range(200):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            module(x)  # type: ignore[operator]
            end.record()
            torch.cuda.synchronize()
            samples.append(start.elapsed_time(end) * 1e3)
    usual = float(np.median(samples))
    print(f"events {times.total_us:.1f} us, bare loop {usual:.1f} us")
    assert usual / 2 < times.total_us < usual * 2


def test_the_engine_computes_the_same_in_one_context(exported: tuple[object, object, Engine]) -> None:
    """PyTorch and this package share the device's primary context: both go on working after each other."""
    module, x, engine = exported
    wanted = module(x).detach().cpu().numpy()  # type: ignore[operator]
    found = engine.run({"x": x.cpu().numpy()})  # type: ignore[attr-defined]
    (output,) = found.values()
    np.testing.assert_allclose(output, wanted, rtol=2e-2, atol=2e-3)
    on_device = engine.run({"x": x})
    np.testing.assert_array_equal(next(iter(on_device.values())), output)
    again = module(x).detach().cpu().numpy()  # type: ignore[operator]
    np.testing.assert_array_equal(again, wanted)


TEST = """
import torch
from tests.torch_models import Net

def test_modules(trt_build, trt_profiler):
    torch.manual_seed(0)
    found = trt_profiler.beside(trt_build("net.onnx"), Net({size}).cuda(), torch.randn(8, 128, {size}).cuda())
    assert found.torch.device == "cuda"
    assert found.matched > 0.5
    assert found["blocks.1.up"].engine_us
    rules = {{finding.rule for finding in found.findings}}
    assert "torch.other-device" not in rules
"""


def test_modules_beside_layers(pytester: pytest.Pytester, runtime: str, rtx: None) -> None:
    from tests.torch_models import Net, export, torch

    project = Project(pytester)
    torch.manual_seed(0)
    export(Net(SIZE), torch.randn(8, 128, SIZE), project.path / "net.onnx", dynamo=False)
    pytester.makepyfile(TEST.format(size=SIZE))
    result = project.run_apart(f"--trt-runtime={runtime}", "--trt-require-gpu")
    print(text(result))
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["  torch     measured     * in PyTorch (cuda), * as engine, gain *"])
