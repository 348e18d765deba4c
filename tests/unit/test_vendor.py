from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

from pytest_trtgray.errors import EngineError
from pytest_trtgray.vendor import is_installed, quiet_import


@pytest.fixture
def noisy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "noisy_vendor_package.py").write_text(
        "import warnings\nwarnings.warn('old', DeprecationWarning, stacklevel=2)\nVALUE = 5\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return "noisy_vendor_package"


def test_warnings_of_others_do_not_fail_a_strict_run(noisy: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module = quiet_import(noisy)
    sys.modules.pop(noisy)

    assert module.VALUE == 5


def test_filters_are_as_before(noisy: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet_import(noisy)
        warnings.warn("mine", UserWarning, stacklevel=1)
    sys.modules.pop(noisy)

    assert [str(warning.message) for warning in caught] == ["mine"]


def test_a_package_that_is_not_there() -> None:
    with pytest.raises(EngineError, match="cannot be imported: No module named 'no_such_package'") as caught:
        quiet_import("no_such_package.part")
    assert caught.value.thing == "no_such_package"


def test_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(EngineError, match=r"pip install 'pytest-trtgray\[gpu\]'"):
        quiet_import("pycuda")


def test_a_library_that_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_vendor_package.py").write_text("raise ImportError('libcublas.so.13: cannot open')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EngineError, match=r"libcublas\.so\.13"):
        quiet_import("broken_vendor_package")


@pytest.mark.parametrize(("name", "there"), [("json", True), ("no_such_package", False), ("no_such_package.x", False)])
def test_is_installed(name: str, there: bool) -> None:
    assert is_installed(name) is there


def test_looking_does_not_import(noisy: str) -> None:
    assert is_installed(noisy)
    assert noisy not in sys.modules
