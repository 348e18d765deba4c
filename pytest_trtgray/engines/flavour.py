"""What both flavours of TensorRT need before there is an engine: names, versions, what went wrong first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pytest_trtgray.engines.header import EngineHeader, Flavour
from pytest_trtgray.errors import EngineError
from pytest_trtgray.logs.records import Record, errors_of
from pytest_trtgray.vendor import quiet_import

PRODUCT: Mapping[Flavour, str] = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}


def version_of(flavour: Flavour) -> str:
    """The installed version.

    Raises:
        EngineError: not installed.
    """
    return str(quiet_import(flavour).__version__)


def check_version(path: Path, header: EngineHeader) -> None:
    """Refuse an engine that another version made, before native code sees it.

    Raises:
        EngineError: says which version made it and which is installed.
    """
    flavour = header.runtime
    product = PRODUCT[flavour]
    made_with = f"{product} {header.version}".strip()
    try:
        installed = version_of(flavour)
    except EngineError as error:
        raise EngineError(path, f"was built by {made_with}; {error.reason}", f"Install {made_with}.") from error
    made_by, here = header.version.split(".")[:3], installed.split(".")[:3]
    if header.version and made_by != here:
        raise EngineError(
            path,
            f"was built by {product} {header.version}, {installed} is installed",
            f"Build it again with {installed} (give the .onnx to --trt-engine), or install {header.version}.",
        )


def shares_profiles(flavour: Flavour) -> bool:
    """Whether two execution contexts may use one optimization profile at the same time.

    Before 8.6 they may not: the second context has no profile, refuses every shape, and crashes when it is asked
    which shapes are missing.
    """
    return not hasattr(quiet_import(flavour).ICudaEngine, "get_binding_name")  # the API of bindings ended with 9


def first_cause(records: Iterable[Record], fallback: str) -> str:
    """The first error of a cascade; the last one is mostly a consequence.

    Of a model that does not parse, the first in the parser's own list: it names the node and says why in one message.
    """
    said = errors_of(records)
    listed = [record for record in said if "desc" in record.details]
    text = (listed or said)[0].message if said else fallback
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return " ".join(lines[:3]) if lines else fallback
