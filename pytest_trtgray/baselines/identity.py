"""Which baseline belongs to an engine here and now.

Identity decides the look-up; context (driver, clocks, host, commit) is recorded, shown, and never decides.
Structure does not depend on where the engine runs but on what it was built for, so a structure baseline
recorded on a laptop holds on the GPU runner when the target is the same.
"""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Mapping, Sequence
from typing import Literal

from pytest_trtgray import provenance
from pytest_trtgray.engines.base import Engine
from pytest_trtgray.engines.model import format_shapes

Kind = Literal["timing", "structure"]
FIELDS = ("device", "sm", "runtime", "version", "precision")
"""In the order in which they make the folder's name."""

Identity = Mapping[str, str]


def identity_of(engine: Engine, kind: Kind) -> dict[str, str]:
    """The identity of an engine's timing or structure baseline.

    Args:
        engine: under test; its layers are read for the precision.
        kind: ``timing`` belongs to the device, ``structure`` to the target of the build.
    """
    info = engine.info
    device = info.device
    where = device.name if kind == "timing" and device else info.targets or "unknown"
    return {
        "device": where,
        "sm": device.sm if kind == "timing" and device else "",
        "runtime": info.runtime,
        "version": info.version,
        "precision": engine.precision,
    }


def select(identity: Identity, fields: tuple[str, ...]) -> dict[str, str]:
    """Only the fields that the ini option ``trt_identity`` names; all of them if it names none."""
    if not fields:
        return dict(identity)
    return {name: value for name, value in identity.items() if name in fields}


def slug(identity: Identity) -> str:
    """A folder name.

    >>> slug({"device": "NVIDIA H200", "sm": "sm_90", "runtime": "tensorrt_rtx", "version": "1.5.0"})
    'nvidia-h200_sm90_tensorrt-rtx-1.5.0'
    """
    named = dict(identity)
    runtime = "-".join(part for part in (named.pop("runtime", ""), named.pop("version", "")) if part)
    ordered = [
        named.pop("device", ""),
        named.pop("sm", "").replace("_", ""),
        runtime,
        named.pop("precision", ""),
    ]
    ordered += [named[key] for key in sorted(named)]
    parts = [re.sub(r"[^a-z0-9.]+", "-", part.lower()).strip("-.") for part in ordered]
    return "_".join(part for part in parts if part) or "any"


def timing_key(shapes: Mapping[str, tuple[int, ...]], method: Mapping[str, str]) -> str:
    """The entry inside a baseline file: the shapes, and how times were taken."""
    return f"timing {format_shapes(dict(sorted(shapes.items())))} {_how(method)}"


def first_calls_key(names: Sequence[str], method: Mapping[str, str]) -> str:
    """The same for first calls: the shapes in the order in which they change.

    Args:
        names: of the calls, such as ``x:1x8``.
        method: how times were taken.
    """
    return f"first-calls {' -> '.join(names)} {_how(method)}"


def run_context(engine: Engine) -> dict[str, str]:
    """Recorded with every run, shown, never used for look-up."""
    device = engine.info.device
    context = {
        "time_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "commit": provenance.commit(),
        "job": provenance.job(),
        **(dict(device.details) if device else {}),
    }
    return {name: value for name, value in context.items() if value}


def _how(method: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted(method.items()))
