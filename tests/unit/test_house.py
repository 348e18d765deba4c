"""Who may know whom: the layout of CONTRIBUTING.md, held against the code's own imports."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

import pytest_trtgray

PACKAGE = Path(pytest_trtgray.__file__).parent
ROOMS = (
    "engines",
    "instruments",
    "timing",
    "accuracy",
    "structure",
    "logs",
    "baselines",
    "reporting",
    "suite",
    "doctor",
    "history",
    "interchange",
    "metrics",
    "serving",
)

# What the modules of a room may import from this package, besides the leaves.
LEAVES = {"errors", "files", "findings", "progress", "provenance", "vendor"}
ALLOWED = {
    "engines": {"engines", "logs", *LEAVES},
    "logs": {"logs", *LEAVES},
    "structure": {"structure", "engines", "logs", *LEAVES},
    "accuracy": {"accuracy", "engines", *LEAVES},
    "timing": {"timing", "engines", "structure", *LEAVES},
    "baselines": {"baselines", "engines", *LEAVES},
    "doctor": {"doctor", "engines", *LEAVES},
    "history": {"history", "logs", "reporting", *LEAVES},
    "metrics": {"metrics", "reporting", *LEAVES},
    "interchange": {"interchange", "engines", "timing", "accuracy", "structure", "reporting", *LEAVES},
    "serving": {"serving", "timing", "baselines", "engines", *LEAVES},
}
# Vendor libraries, and the only places that may load them.
VENDORS = {
    "tensorrt": {"engines/building.py", "engines/flavour.py", "engines/tensorrt.py"},
    "tensorrt_rtx": {"engines/building.py", "engines/flavour.py", "engines/tensorrt.py"},
    "polygraphy": {"engines/building.py"},
    "sklearn": {"timing/forest.py"},
    "prometheus_client": {
        "metrics/exposition.py",
        "metrics/gateway.py",
        "preflight.py",
        "serving/metrics.py",
        "serving/requests.py",
    },
    "sqlalchemy": {
        "history/database.py",
        "history/migrating.py",
        "history/migrations/versions/v0001_runs.py",
        "history/schema.py",
        "history/store.py",
    },
    "alembic": {
        "history/migrating.py",
        "history/migrations/env.py",
        "history/migrations/versions/v0001_runs.py",
        "history/migrations/versions/v0002_appended_times.py",
    },
    "torch": {"timing/torch_modules.py"},
    # the doctor's probes are programs of their own, one a library
    "pycuda": {"engines/cuda.py", "doctor/probes.py"},
    "pynvml": {"timing/telemetry.py", "doctor/probes.py"},
    "onnxruntime": {
        "engines/calibration.py",
        "engines/onnxruntime.py",
        "engines/precision.py",
        "doctor/probes.py",
    },
    "pytest": {
        "fixtures.py",
        "fuzzing.py",
        "checks.py",
        "gating.py",
        "hookspec.py",
        "instruments/comparer.py",
        "instruments/inputs.py",
        "instruments/metamorphic.py",
        "instruments/profiler.py",
        "instruments/quantisation.py",
        "instruments/structure.py",
        "options.py",
        "outcomes.py",
        "parallel.py",
        "plugin.py",
        "running.py",
        "session.py",
        "settings.py",
        "state.py",
    },
}
AT_START_UP = tuple(f"{name}.py" for name in ("__init__", "fixtures", "hookspec", "options", "plugin", "state"))
HEAVY = {
    "numpy",
    "scipy",
    "onnx",
    "onnxruntime",
    "hypothesis",
    "polygraphy",
    "tensorrt",
    "ml_dtypes",
    "filelock",
    "sqlalchemy",
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@cache
def imports(path: Path, *, top_level: bool = False) -> frozenset[str]:
    """Dotted names that a module imports, outside of ``if TYPE_CHECKING``."""
    tree = ast.parse(path.read_text("utf-8"))
    nodes = tree.body if top_level else list(ast.walk(tree))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in nodes:
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("quiet_import", "import_module"):
            found |= {str(argument.value) for argument in node.args if isinstance(argument, ast.Constant)}
    return frozenset(found)


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_knows_only_its_neighbours(room: str) -> None:
    wrong = {
        (path.name, name)
        for path in (PACKAGE / room).glob("*.py")
        for name in imports(path)
        if name.startswith("pytest_trtgray.") and name.split(".")[1] not in ALLOWED[room]
    }
    assert wrong == set()


@pytest.mark.parametrize("vendor", sorted(VENDORS))
def test_a_vendor_library_is_loaded_in_its_own_room(vendor: str) -> None:
    places = {
        str(path.relative_to(PACKAGE))
        for path in modules()
        if any(name.split(".")[0] == vendor for name in imports(path)) and path.parts[-2] not in ("suite", "reporting")
    }
    assert places <= VENDORS[vendor]


@pytest.mark.parametrize("name", AT_START_UP)
def test_start_up_imports_nothing_heavy(name: str) -> None:
    loaded = {module.split(".")[0] for module in imports(PACKAGE / name, top_level=True)}
    assert not loaded & HEAVY


def test_every_room_says_what_it_is_for() -> None:
    for room in ROOMS:
        docstring = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text("utf-8")))
        assert docstring, f"{room}/__init__.py has no docstring"
