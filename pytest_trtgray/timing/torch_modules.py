"""How long each module of a PyTorch model takes, by hooks around its ``forward``.

``torch.profiler`` has ``with_modules``, but its documentation limits that to TorchScript. Hooks see what eager mode
runs; on a GPU they record CUDA events, so that nothing waits within an inference.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trtgray.errors import EngineError
from pytest_trtgray.findings import counted
from pytest_trtgray.timing.session import affordable, warm_up
from pytest_trtgray.vendor import quiet_import

if TYPE_CHECKING:
    import torch

ROOT = ""
"""Name of the whole model, as ``named_modules`` has it."""


@dataclass(frozen=True)
class TorchModule:
    """One module's time.

    Attributes:
        name: as ``named_modules`` has it; ``""`` is the whole model.
        kind: name of its class.
        calls: in one inference.
        us: microseconds an inference, all calls together, with the modules that it calls.
        own_us: without these: functions and operators in its ``forward``.
        has_inner: whether it called other modules.
    """

    name: str
    kind: str
    calls: int
    us: float
    own_us: float
    has_inner: bool


@dataclass(frozen=True)
class TorchTimes:
    """A model's time, and that of each module that ran.

    Attributes:
        total_us: of an inference without any hook, microseconds.
        modules: in order of their first call; the first is the whole model.
        names: of all modules, also of those that did not run.
        device: ``cpu`` or ``cuda``.
        shapes: of the tensors that were given, in order.
        iterations: that were measured; means are over the middle half of them by the whole model's time. Unlike medians
            they add up, and what disturbed one iteration is not in them.
    """

    total_us: float
    modules: tuple[TorchModule, ...]
    names: frozenset[str]
    device: str
    shapes: tuple[tuple[int, ...], ...]
    iterations: int

    @property
    def hooks(self) -> float:
        """What the hooks cost, as a part of the time without them; the modules' times have it in them."""
        return self.modules[0].us / self.total_us - 1 if self.total_us > 0 else 0.0


def torch_times(module: torch.nn.Module, inputs: Any, *, iterations: int | None = None) -> TorchTimes:
    """Measure a model and its modules in eager mode, without gradients and as for inference.

    Every module's training flag is as before afterwards, and no hook stays, also where ``forward`` fails.

    Args:
        module: on the CPU or on a CUDA device. Of a compiled one, the original is measured.
        inputs: of ``forward``: a mapping for keywords, a tuple or list for positions, or the only one. NumPy arrays
            become tensors on the model's device.
        iterations: as many as are worth it by default.

    Raises:
        EngineError: PyTorch is not installed; the model is TorchScript, which calls no hooks of inner modules, or is
            on a device whose times are not known to be right.
    """
    torch = quiet_import("torch")
    module = getattr(module, "_orig_mod", module)
    if isinstance(module, torch.jit.ScriptModule):
        raise EngineError(type(module).__name__, "is TorchScript, which runs no hooks", "Give the eager module.")
    device = _device_of(torch, module, inputs)
    if device.type not in ("cpu", "cuda"):
        raise EngineError(f"device {device}", "only CPU and CUDA times can be taken", "Move the module: .to('cuda').")
    arguments, keywords = _arguments(torch, inputs, device)
    clock = _CudaClock(torch, device) if device.type == "cuda" else _HostClock()

    def forward() -> None:
        module(*arguments, **keywords)

    with _for_inference(module), torch.no_grad():
        plain = _Whole(forward, clock)
        steady_us = warm_up(plain)
        count = iterations or affordable(steady_us)
        total_us = float(np.mean(sorted(plain.run() for _ in range(count))[_middle(count)]))
        with _Hooks(module, clock) as hooks:
            hooked = _Whole(forward, clock)
            warm_up(hooked)
            samples = []
            for _ in range(count):
                hooks.calls.clear()
                samples.append((hooked.run(), hooks.calls.copy()))
    samples.sort(key=lambda sample: sample[0])
    return TorchTimes(
        total_us,
        _summary(module, [calls for _, calls in samples[_middle(count)]], clock),
        frozenset(name for name, _ in module.named_modules()),
        device.type,
        tuple(tuple(each.shape) for each in (*arguments, *keywords.values()) if isinstance(each, torch.Tensor)),
        count,
    )


def _middle(count: int) -> slice:
    """The middle half of so many sorted values."""
    return slice(count // 4, count - count // 4)


class _HostClock:
    """Marks are nanoseconds of this process; a CPU's operators have ended when they return."""

    def mark(self) -> Any:
        return time.perf_counter_ns()

    def us_between(self, start: Any, end: Any) -> float:
        return float(end - start) / 1e3

    def wait(self) -> None:
        """Nothing is under way."""


class _CudaClock:
    """Marks are events on the current stream."""

    def __init__(self, torch: Any, device: Any) -> None:
        self._torch, self._device = torch, device

    def mark(self) -> Any:
        event = self._torch.cuda.Event(enable_timing=True)
        event.record(self._torch.cuda.current_stream(self._device))
        return event

    def us_between(self, start: Any, end: Any) -> float:
        return float(start.elapsed_time(end)) * 1e3

    def wait(self) -> None:
        self._torch.cuda.synchronize(self._device)


@dataclass(frozen=True)
class _Whole:
    """An inference from outside."""

    forward: Callable[[], None]
    clock: _HostClock | _CudaClock

    def run(self) -> float:
        start = self.clock.mark()
        self.forward()
        end = self.clock.mark()
        self.clock.wait()
        return self.clock.us_between(start, end)


@dataclass
class _Call:
    """One call of a module: marks, and the place of the call that made it in the list of all."""

    name: str
    outer: int | None
    start: Any
    end: Any = None


class _Hooks:
    """Around each module's ``forward`` while the context is open.

    Args:
        module: the whole model.
        clock: that marks the begin and the end of each call.
    """

    def __init__(self, module: torch.nn.Module, clock: _HostClock | _CudaClock) -> None:
        self._module, self._clock = module, clock
        self._handles: list[Any] = []
        self._open: list[int] = []
        self.calls: list[_Call] = []

    def __enter__(self) -> _Hooks:
        try:
            for name, inner in self._module.named_modules():
                # the first of those before and the last of those after: a user's own hooks belong to the module
                self._handles.append(inner.register_forward_pre_hook(self._entering(name), prepend=True))
                self._handles.append(inner.register_forward_hook(self._leaving, always_call=True))
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _entering(self, name: str) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            self.calls.append(_Call(name, self._open[-1] if self._open else None, None))
            self._open.append(len(self.calls) - 1)
            self.calls[-1].start = self._clock.mark()

        return enter

    def _leaving(self, *_: Any) -> None:
        end = self._clock.mark()
        self.calls[self._open.pop()].end = end


@contextmanager
def _for_inference(module: torch.nn.Module) -> Iterator[None]:
    """Dropout off and running statistics left alone; each module's own flag comes back, whatever it was."""
    flags = [(inner, inner.training) for inner in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for inner, flag in flags:
            inner.training = flag


def _summary(
    module: torch.nn.Module, samples: Sequence[Sequence[_Call]], clock: _HostClock | _CudaClock
) -> tuple[TorchModule, ...]:
    """Means over iterations, of all calls of a module in one of them."""
    spent: dict[str, float] = defaultdict(float)
    own: dict[str, float] = defaultdict(float)
    number: dict[str, int] = defaultdict(int)
    outer: set[str] = set()
    for calls in samples:
        for call in calls:
            us = clock.us_between(call.start, call.end)
            spent[call.name] += us
            own[call.name] += us
            number[call.name] += 1
            if call.outer is not None:
                own[calls[call.outer].name] -= us
                outer.add(calls[call.outer].name)
    kinds = {name: type(inner).__name__ for name, inner in module.named_modules()}
    return tuple(
        TorchModule(
            name,
            kinds[name],
            round(number[name] / len(samples)),
            us / len(samples),
            max(own[name] / len(samples), 0.0),  # a clock that steps back by a rounding
            name in outer,
        )
        for name, us in spent.items()
    )


def _device_of(torch: Any, module: torch.nn.Module, inputs: Any) -> Any:
    """Of the first parameter, buffer or input."""
    positions, keywords = _arguments(torch, inputs, None)
    for tensor in (*module.parameters(), *module.buffers(), *positions, *keywords.values()):
        if isinstance(tensor, torch.Tensor):
            return tensor.device
    return torch.device("cpu")


def _arguments(torch: Any, inputs: Any, device: Any) -> tuple[list[Any], dict[str, Any]]:
    def ready(value: Any) -> Any:
        return torch.as_tensor(value, device=device) if isinstance(value, np.ndarray) else value

    if isinstance(inputs, Mapping):
        return [], {str(name): ready(value) for name, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return [ready(value) for value in inputs], {}
    return [ready(inputs)], {}


def feed_of(inputs: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The same values for an engine.

    Args:
        inputs: of ``forward``, as for :func:`torch_times`.
        names: of the engine's inputs, in order.

    Raises:
        ValueError: the tensors have neither these names nor this number.
    """
    torch = quiet_import("torch")
    positions, keywords = _arguments(torch, inputs, None)
    tensors = {name: value for name, value in keywords.items() if isinstance(value, torch.Tensor)}
    if set(tensors) != set(names):
        values = [value for value in (*positions, *keywords.values()) if isinstance(value, torch.Tensor)]
        if len(values) != len(names):
            raise ValueError(
                f"inputs has {counted(len(values), 'tensor')}, the engine takes {', '.join(names)}: give them by feed="
            )
        tensors = dict(zip(names, values, strict=True))
    return {name: value.detach().cpu().numpy() for name, value in tensors.items()}
