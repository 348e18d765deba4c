"""The modules of a PyTorch model beside those of the engine that was built from it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_trtgray.findings import Finding, some
from pytest_trtgray.timing.grouping import block, segments
from pytest_trtgray.timing.samples import us_text
from pytest_trtgray.timing.torch_modules import ROOT, TorchTimes, torch_times

if TYPE_CHECKING:
    import torch

    from pytest_trtgray.timing.profile import Profile

HOOKS_MATTER = 0.1
"""Part of the model's time beyond which what the hooks cost is worth a warning."""
LAYERS_MATTER = 0.25
"""Part of the engine's time by which the sum of its layers may differ from it."""
MATCHED_LEAST = 0.5
"""Part of the engine's time in modules below which the two are hardly one model."""


@dataclass(frozen=True)
class ModuleBeside:
    """One module: how long PyTorch takes for it, and how long the engine.

    Attributes:
        module: its name in PyTorch, with ``*`` for the numbers of blocks if these were put together; ``""`` is the
            whole model.
        kind: name of its class.
        calls: in one inference.
        torch_us: microseconds an inference, with inner modules.
        torch_own_us: of functions and operators in its own ``forward``, outside any inner module.
        engine_us: of the layers that compute the module's ONNX nodes; ``None`` if no layer does: it was folded away,
            or is none of the exported model.
        engine_own_us: of the nodes that belong to no inner module.
        has_inner: whether it called other modules.
        coverage: which part of ``engine_us`` is of layers that compute nothing but this module (0 to 1). Layers that
            span modules count for each in proportion to its nodes, which is an estimate.
    """

    module: str
    kind: str
    calls: int
    torch_us: float
    torch_own_us: float
    engine_us: float | None
    engine_own_us: float | None
    has_inner: bool
    coverage: float

    @property
    def gain(self) -> float | None:
        """How many times as fast as PyTorch the engine is; ``None`` if no layer computes the module."""
        return self.torch_us / self.engine_us if self.engine_us else None

    @property
    def own_gain(self) -> float | None:
        """The same of what runs outside any inner module."""
        return self.torch_own_us / self.engine_own_us if self.engine_own_us else None


@dataclass(frozen=True)
class Beside:
    """Both times of every module that ran in PyTorch.

    Attributes:
        modules: in order of their first call; the first is the whole model.
        torch: as measured.
        engine_us: time of one inference of the engine, measured without a profiler, microseconds.
        layers_us: sum of all layers of the engine, which the modules' times add up to.
        matched: which part of ``layers_us`` belongs to modules of the PyTorch model (0 to 1).
        unnamed_us: of layers without ONNX nodes: copies and reformats.
        unknown: modules that only the ONNX names know.
        findings: why the two columns may not be comparable.
    """

    modules: tuple[ModuleBeside, ...]
    torch: TorchTimes = field(repr=False)
    engine_us: float
    layers_us: float
    matched: float
    unnamed_us: float
    unknown: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def gain(self) -> float:
        """How many times as fast as PyTorch the whole engine is; neither measured with hooks or profiler."""
        return self.torch.total_us / self.engine_us

    @property
    def summary(self) -> str:
        """In one line."""
        return (
            f"{us_text(self.torch.total_us)} in PyTorch ({self.torch.device}), {us_text(self.engine_us)} as engine, "
            f"gain {self.gain:.2f}; {self.matched:.0%} of the layers' time is in modules"
        )

    def __getitem__(self, module: str) -> ModuleBeside:
        """A module by its name.

        Raises:
            KeyError: no module of this name ran.
        """
        for row in self.modules:
            if row.module == module:
                return row
        ran = some([row.module for row in self.modules if row.module], 8)
        raise KeyError(f"no module {module!r} ran; those that did: {ran}")

    def repeated(self) -> tuple[ModuleBeside, ...]:
        """Rows with the blocks of the network together, ``encoder.layer.*`` for ``layer.0`` to ``layer.11``."""
        together: dict[str, list[ModuleBeside]] = {}
        for row in self.modules:
            together.setdefault(block(row.module), []).append(row)
        return tuple(_sum_of(name, rows) for name, rows in together.items())


def beside(
    profile: Profile, module: torch.nn.Module, inputs: Any, *, scope: str = "", iterations: int | None = None
) -> Beside:
    """Measure a PyTorch model and put its modules beside those of the engine built from it.

    Modules are matched by the scopes in the names of ONNX nodes, which both exporters of PyTorch leave.

    Args:
        profile: of the engine, from ``trt_profiler``.
        module: that the ONNX model was exported from; it is measured where it is, in eager mode.
        inputs: of its ``forward``, of the same shapes as the profile's: a mapping for keywords, a tuple or list for
            positions, or the only one.
        scope: path of ``module`` in the exported model, where a wrapper around it was exported: ``model.encoder``.
        iterations: of PyTorch; as many as are worth it by default.

    Raises:
        EngineError: PyTorch is not installed, or cannot be measured there.
        ValueError: no layer is within ``scope``.
    """
    times = torch_times(module, inputs, iterations=iterations)
    return put_beside(profile, times, scope=scope)


def put_beside(profile: Profile, times: TorchTimes, *, scope: str = "") -> Beside:
    """Match what was measured; see :func:`beside`."""
    engine = _EngineModules(profile, times.names, tuple(segments(scope)))
    rows = tuple(
        ModuleBeside(
            module=each.name,
            kind=each.kind,
            calls=each.calls,
            torch_us=each.us,
            torch_own_us=each.own_us,
            engine_us=engine.us(each.name),
            engine_own_us=engine.own_us(each.name),
            has_inner=each.has_inner,
            coverage=engine.coverage(each.name),
        )
        for each in times.modules
    )
    layers_us = sum(timed.us for timed in profile.layers)
    known = sum(engine.own_us(name) or 0.0 for name in times.names - {ROOT})
    matched = known / layers_us if layers_us else 0.0
    return Beside(
        rows,
        times,
        profile.total_us,
        layers_us,
        matched,
        sum(timed.us for timed in profile.layers if not timed.layer.onnx_nodes),
        tuple(engine.unknown),
        tuple(_findings(profile, times, matched, engine.unknown)),
    )


class _EngineModules:
    """The engine's time by module of the PyTorch model.

    Args:
        profile: of the engine.
        names: of the modules.
        scope: parts of the path of the root.
    """

    def __init__(self, profile: Profile, names: frozenset[str], scope: tuple[str, ...]) -> None:
        self._times = [timed.us for timed in profile.layers]
        self._names = {tuple(name.split(".")) if name else (): name for name in names}
        self._prefixes = {parts[:length] for parts in self._names for length in range(len(parts) + 1)}
        self.unknown: dict[str, None] = {}
        self.own: dict[str, dict[int, float]] = {name: defaultdict(float) for name in names}
        """By module, by position of a layer, which part of it belongs to the module and to none of its inner ones."""
        for index, timed in enumerate(profile.layers):
            named = profile.group_of(timed.layer) if profile.group_of else None
            paths = [node.rpartition("/")[0] for node in timed.layer.onnx_nodes] if named is None else [named]
            for path in paths:
                parts = tuple(segments(path))
                if parts[: len(scope)] == scope:
                    self.own[self._innermost(parts[len(scope) :])][index] += 1 / len(paths)
        if scope and not any(self.own.values()):
            raise ValueError(f"no layer of {profile.engine.name} is within {'.'.join(scope)!r}")

    def us(self, name: str) -> float | None:
        """Of a module with its inner ones; ``None`` if no layer computes any of it."""
        return self._sum(self._parts(name))

    def own_us(self, name: str) -> float | None:
        """Without its inner ones."""
        return self._sum(self.own[name])

    def coverage(self, name: str) -> float:
        """Which part of the time is of layers that compute nothing else."""
        parts = self._parts(name)
        whole = {index: part for index, part in parts.items() if part > 1 - 1e-9}
        return (self._sum(whole) or 0.0) / (self._sum(parts) or 1.0)

    def _parts(self, name: str) -> Mapping[int, float]:
        found: dict[int, float] = defaultdict(float)
        for other, parts in self.own.items():
            if not name or other == name or other.startswith(f"{name}."):
                for index, part in parts.items():
                    found[index] += part
        return found

    def _sum(self, parts: Mapping[int, float]) -> float | None:
        return sum(self._times[index] * part for index, part in parts.items()) if parts else None

    def _innermost(self, parts: tuple[str, ...]) -> str:
        """The innermost module on a path; what follows it are functions of its own."""
        found: tuple[str, ...] = ()
        name = ROOT
        for part in parts:
            # the older exporter numbers further calls of a module: fc, fc_1, fc_2
            first_call = part.rpartition("_")[0] if part.rpartition("_")[2].isdigit() else part
            step = next((each for each in (part, first_call) if (*found, each) in self._prefixes), None)
            if step is None:
                self.unknown[".".join((*found, part))] = None
                break
            found = (*found, step)
            name = self._names.get(found, name)
        return name


def _sum_of(name: str, rows: Sequence[ModuleBeside]) -> ModuleBeside:
    engine = [row for row in rows if row.engine_us is not None]
    engine_us = _known(row.engine_us for row in rows)
    covered = sum(row.coverage * (row.engine_us or 0.0) for row in engine)
    return ModuleBeside(
        module=name,
        kind=" + ".join(dict.fromkeys(row.kind for row in rows)),
        calls=sum(row.calls for row in rows),
        torch_us=sum(row.torch_us for row in rows),
        torch_own_us=sum(row.torch_own_us for row in rows),
        engine_us=engine_us,
        engine_own_us=_known(row.engine_own_us for row in rows),
        has_inner=any(row.has_inner for row in rows),
        coverage=covered / engine_us if engine_us else 0.0,
    )


def _known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _findings(profile: Profile, times: TorchTimes, matched: float, unknown: Iterable[str]) -> Iterable[Finding]:
    device = profile.engine.device
    there = "cuda" if device is not None and device.kind == "gpu" else "cpu"
    if times.device != there:
        yield Finding(
            "warning",
            "engine",
            f"PyTorch ran on {times.device}, the engine on {there}: their times do not compare",
            "torch.other-device",
            {"torch": times.device, "engine": there},
            f"Move the module and its inputs: .to({there!r}).",
        )
    if sorted(times.shapes) != sorted(profile.shapes.values()):
        yield Finding(
            "warning",
            "engine",
            f"PyTorch ran with shapes {sorted(times.shapes)}, the engine with {sorted(profile.shapes.values())}",
            "torch.other-shapes",
            {},
            "Give both the same: trt_profiler(engine, shapes=...).",
        )
    if times.hooks > HOOKS_MATTER:
        yield Finding(
            "advice",
            "engine",
            f"the hooks that time modules cost {times.hooks:.0%} of the model's time: small modules look too slow",
            "torch.hooks",
            {"cost_percent": round(times.hooks * 100, 1)},
            "Take a larger batch, or compare outer modules only. The whole model's gain is measured without hooks.",
        )
    layers_us = sum(timed.us for timed in profile.layers)
    if abs(layers_us - profile.total_us) > LAYERS_MATTER * profile.total_us:
        yield Finding(
            "advice",
            "engine",
            f"the layers take {us_text(layers_us)}, the engine {us_text(profile.total_us)}: the modules' gains do not "
            "make up the whole's",
            "torch.between-layers",
            {"layers_us": layers_us, "engine_us": profile.total_us},
            "Layers are measured one by one; the rest is launches, threads that wait, or a busy machine.",
        )
    if matched < MATCHED_LEAST:
        only = f"; only the ONNX names know {some(list(unknown))}" if unknown else "; its nodes' names tell no modules"
        yield Finding(
            "warning",
            "engine",
            f"{matched:.0%} of the engine's time belongs to modules of the PyTorch model{only}",
            "torch.not-matched",
            {"matched_percent": round(matched * 100, 1)},
            "Is it the model that was exported? Engine files need --trt-onnx for the names. Where a wrapper was "
            "exported, say where the module is in it: scope='model'.",
        )
