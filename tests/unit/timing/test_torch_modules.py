"""Times of PyTorch's modules: which, how often, what is inside what; and the model as it was found."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from pytest_trtgray.errors import EngineError
from pytest_trtgray.timing import torch_modules
from pytest_trtgray.timing.session import WARMUP_MIN_RUNS
from pytest_trtgray.timing.torch_modules import feed_of, torch_times
from tests.torch_models import Net, nn, torch

X = torch.zeros(2, 3, 64)


class Ticks:
    """A clock that advances a microsecond whenever it is looked at: times become numbers of marks."""

    def __init__(self) -> None:
        self._count = itertools.count()

    def mark(self) -> int:
        return next(self._count)

    def us_between(self, start: int, end: int) -> float:
        return float(end - start)

    def wait(self) -> None:
        pass


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_modules, "_HostClock", Ticks)


def test_every_module_that_ran_with_its_calls() -> None:
    times = torch_times(Net(), X, iterations=2)
    found = {row.name: (row.kind, row.calls) for row in times.modules}
    assert next(iter(found)) == ""
    assert found[""] == ("Net", 1)
    assert found["mix"] == ("Linear", 2)
    assert found["blocks.1.attn"] == ("Attention", 1)
    assert "blocks" not in found  # a list has no forward
    assert "blocks" in times.names
    assert (times.device, times.shapes, times.iterations) == ("cpu", ((2, 3, 64),), 2)


@pytest.mark.parametrize("iterations", [1, 2, 5, 8])
def test_inner_times_add_up_to_outer_ones(iterations: int) -> None:
    times = torch_times(Net(), X, iterations=iterations)
    assert sum(row.own_us for row in times.modules) == pytest.approx(times.modules[0].us)
    assert all(row.us >= row.own_us >= 0 for row in times.modules)


@pytest.mark.usefixtures("ticks")
def test_time_outside_of_inner_modules_is_a_module_s_own() -> None:
    """With a clock of marks: a leaf takes one, and each call of an inner module two, of which one is its own."""
    times = {row.name: row for row in torch_times(Net(), X, iterations=3).modules}
    assert (times["head"].us, times["head"].own_us, times["head"].has_inner) == (1, 1, False)
    assert (times["mix"].us, times["mix"].own_us) == (2, 2)
    attention = times["blocks.0.attn"]
    assert (attention.us, attention.own_us, attention.has_inner) == (9, 5, True)  # 4 inner modules with 1 each
    block = times["blocks.0"]
    assert (block.us, block.own_us) == (9 + 4 * 1 + 6, 6)
    assert times[""].us == 2 * block.us + 3 + 6  # of two blocks, two calls of mix, a head; six gaps


@pytest.mark.usefixtures("ticks")
def test_the_whole_model_is_also_timed_without_hooks() -> None:
    times = torch_times(Net(), X, iterations=3)
    assert times.total_us == 1
    assert times.hooks == times.modules[0].us - 1


def hooks_of(module: Any) -> list[int]:
    return [len(each._forward_hooks) + len(each._forward_pre_hooks) for each in module.modules()]


def flags(module: Any) -> list[bool]:
    return [each.training for each in module.modules()]


def test_the_model_is_left_as_it_was_found() -> None:
    net = Net().train()
    net.blocks[1].eval()
    seen: list[tuple[bool, bool]] = []
    net.head.register_forward_hook(lambda *_: seen.append((net.training, torch.is_grad_enabled())))
    before = (hooks_of(net), flags(net), [each.clone() for each in net.state_dict().values()])
    torch_times(net, X, iterations=2)
    assert (hooks_of(net), flags(net)) == before[:2]
    assert all(map(torch.equal, net.state_dict().values(), before[2]))
    assert set(seen) == {(False, False)}  # for inference, without gradients
    assert torch.is_grad_enabled()


def test_running_statistics_stay() -> None:
    net = nn.Sequential(nn.BatchNorm1d(3)).train()
    torch_times(net, torch.randn(8, 3), iterations=2)
    assert int(net[0].num_batches_tracked) == 0


class Fails(nn.Module):  # type: ignore[misc]
    """Fails in an inner module: at once, or in the third inference with hooks."""

    def __init__(self, *, hooked: bool) -> None:
        super().__init__()
        self.inner, self.left = nn.Linear(4, 4), 3 if hooked else 0

    def forward(self, x: Any) -> Any:
        self.left -= bool(self._forward_hooks)
        return self.inner(x if self.left > 0 else x[:, :1])


@pytest.mark.parametrize("hooked", [True, False])
def test_hooks_and_modes_are_gone_after_an_error_too(hooked: bool) -> None:
    net = Fails(hooked=hooked).train()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        torch_times(net, torch.zeros(2, 4), iterations=20)
    assert net.left == 0
    assert hooks_of(net) == [0, 0]
    assert flags(net) == [True, True]
    assert torch.is_grad_enabled()


def test_what_is_measured_is_warm_also_for_a_given_number_of_iterations() -> None:
    calls: list[bool] = []
    net = nn.Linear(4, 4)
    net.register_forward_hook(lambda module, *_: calls.append(len(module._forward_hooks) > 1))
    torch_times(net, torch.zeros(2, 4), iterations=2)
    assert calls.count(False) >= 2 + WARMUP_MIN_RUNS
    assert calls.count(True) >= 2 + WARMUP_MIN_RUNS


class Keywords(nn.Module):  # type: ignore[misc]
    def forward(self, ids: Any, *, mask: Any = None) -> Any:
        return ids * mask


def test_inputs_by_keyword_or_position_from_torch_or_numpy() -> None:
    ids, mask = torch.ones(2, 3), np.ones((2, 3), np.float32)
    assert torch_times(Keywords(), {"ids": ids, "mask": mask}, iterations=1).shapes == ((2, 3), (2, 3))
    assert torch_times(nn.Bilinear(3, 3, 1), (ids, mask), iterations=1).modules[0].kind == "Bilinear"


def test_the_same_values_for_an_engine() -> None:
    ids, mask = torch.arange(3), torch.ones(3)
    by_name = feed_of({"mask": mask, "ids": ids, "causal": True}, ["ids", "mask"])
    assert {name: value.tolist() for name, value in by_name.items()} == {"ids": [0, 1, 2], "mask": [1, 1, 1]}
    by_place = feed_of((ids, mask), ["input", "attention"])
    assert list(by_place["input"]) == [0, 1, 2]
    assert list(feed_of(ids.float().requires_grad_(), ["x"])["x"]) == [0, 1, 2]
    with pytest.raises(ValueError, match="2 tensors, the engine takes x: give them by feed="):
        feed_of((ids, mask), ["x"])


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(EngineError, match="is TorchScript"):
        torch_times(torch.jit.trace(nn.Linear(4, 4), torch.zeros(1, 4)), torch.zeros(1, 4))
    with pytest.raises(EngineError, match="only CPU and CUDA"):
        torch_times(nn.Linear(4, 4, device="meta"), torch.zeros(1, 4, device="meta"))


@pytest.mark.filterwarnings("ignore")
def test_of_a_compiled_model_the_original_is_measured() -> None:
    times = torch_times(torch.compile(Net()), X, iterations=1)
    assert times.modules[0].kind == "Net"
    assert not any("_orig_mod" in name for name in times.names)


def test_without_pytorch_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(EngineError, match=r"pytest-trtgray\[torch\]"):
        torch_times(Net(), X)
