"""Markers that say what a test needs, turned into skips that say what was needed and what was found."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trtgray.settings import OptionError, Settings

if TYPE_CHECKING:
    from pytest_trtgray.engines.model import DeviceInfo

_KEYWORDS: Mapping[str, tuple[str, ...]] = {
    "trt_arch": ("min", "max"),
    "trt_requires": ("tensorrt", "tensorrt_rtx", "memory_gb", "precision", "runtime"),
    "trt_timing": ("tolerance", "sessions", "iterations", "processes", "cuda_graph"),
}
_SM_OF_PRECISION = {"fp16": 53, "int8": 61, "tf32": 80, "bf16": 80, "fp8": 89, "fp4": 100}


def gate(items: list[pytest.Item], settings: Settings) -> None:
    """Check all markers, and mark as skipped what this machine cannot run.

    Raises:
        OptionError: a marker has arguments that do not exist; names the test.
    """
    for item in items:
        for marker in item.iter_markers():
            if marker.name in _KEYWORDS or marker.name == "trt_shapes":
                _check_arguments(item, marker)
        for name, reason in (("trt_arch", _arch_reason), ("trt_requires", _requires_reason)):
            for marker in item.iter_markers(name):
                why = _evaluate(item, marker, reason, settings)
                if why:
                    item.add_marker(pytest.mark.skip(reason=f"{name}: {why}"))


def _evaluate(
    item: pytest.Item,
    marker: pytest.Mark,
    reason: Callable[[pytest.Mark, Settings], str],
    settings: Settings,
) -> str:
    try:
        return reason(marker, settings)
    except ValueError as error:
        raise OptionError(item.nodeid, f"marker {marker.name}: {error}") from error


def _check_arguments(item: pytest.Item, marker: pytest.Mark) -> None:
    known = _KEYWORDS.get(marker.name)
    unknown = sorted(set(marker.kwargs) - set(known)) if known is not None else []
    if unknown:
        raise OptionError(
            item.nodeid,
            f"marker {marker.name} has no argument {unknown[0]!r}",
            f"It has: {', '.join(known or ())}.",
        )
    if marker.args and marker.name != "trt_arch":
        raise OptionError(item.nodeid, f"marker {marker.name} takes keyword arguments only")


def _arch_reason(marker: pytest.Mark, settings: Settings) -> str:
    names = [_sm(name) for name in marker.args]
    low, high = (_sm(marker.kwargs[key]) if marker.kwargs.get(key) else None for key in ("min", "max"))
    needs = [f"sm_{sm}" for sm in names]
    if low is not None:
        needs.append(f"sm_{low} or newer")
    if high is not None:
        needs.append(f"sm_{high} or older")
    gpu, found = _gpu(settings)
    if gpu is None:
        return f"needs {' or '.join(needs) or 'a GPU'}, found {found}"
    here = _sm(gpu.sm)
    fits = (not names or here in names) and (low is None or here >= low) and (high is None or here <= high)
    return "" if fits else f"needs {' or '.join(needs)}, found {found}"


def _requires_reason(marker: pytest.Mark, settings: Settings) -> str:
    wanted: dict[str, Any] = {key: value for key, value in marker.kwargs.items() if value is not None}
    for flavour in ("tensorrt", "tensorrt_rtx"):
        if flavour in wanted and (why := _version_reason(flavour, str(wanted[flavour]))):
            return why
    if "runtime" in wanted:
        from pytest_trtgray.engines.loading import LoadOptions, choose_runtime

        found = choose_runtime(LoadOptions(runtime=settings.runtime, device=settings.device))  # type: ignore[arg-type]
        if found != wanted["runtime"]:
            return f"needs the runtime {wanted['runtime']}, found {found} (see --trt-runtime)"
    if "precision" not in wanted and "memory_gb" not in wanted:
        return ""
    gpu, found_gpu = _gpu(settings)
    if "precision" in wanted:
        name = str(wanted["precision"])
        if name not in _SM_OF_PRECISION:
            raise ValueError(f"unknown precision {name!r}; known: {', '.join(_SM_OF_PRECISION)}")
        least = _SM_OF_PRECISION[name]
        if gpu is None or _sm(gpu.sm) < least:
            return f"needs a GPU with {name} (sm_{least} or newer), found {found_gpu}"
    if "memory_gb" in wanted:
        least_gb = float(wanted["memory_gb"])
        if gpu is None or gpu.memory_bytes < least_gb * 1e9:
            size = f" with {gpu.memory_bytes / 1e9:.0f} GB" if gpu else ""
            return f"needs {least_gb:g} GB of GPU memory, found {found_gpu}{size}"
    return ""


def _version_reason(flavour: str, specifier: str) -> str:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    from pytest_trtgray.vendor import is_installed

    try:
        wanted = SpecifierSet(specifier)
    except InvalidSpecifier:
        raise ValueError(f"{flavour}={specifier!r} is no version specifier; write '>=10.3'") from None
    if not is_installed(flavour):
        return f"needs {flavour} {specifier}, found none installed"
    from pytest_trtgray.engines.flavour import version_of

    found = version_of("tensorrt_rtx" if flavour == "tensorrt_rtx" else "tensorrt")
    return "" if wanted.contains(found, prereleases=True) else f"needs {flavour} {specifier}, found {found}"


def _sm(name: Any) -> int:
    match = re.fullmatch(r"sm_?(\d{2,3})[af]?", str(name))
    if not match:
        raise ValueError(f"{name!r} is no architecture; write 'sm_89'")
    return int(match[1])


def _gpu(settings: Settings) -> tuple[DeviceInfo | None, str]:
    from pytest_trtgray.engines.device import find_gpu, no_gpu_reason

    gpu = find_gpu(settings.device)
    return gpu, f"{gpu.sm} ({gpu.name})" if gpu else f"no GPU ({no_gpu_reason(settings.device)})"
