"""PyTorch's modules beside an engine's: real exports of both exporters, run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_trtgray.reporting.details import beside_details
from pytest_trtgray.reporting.tables import beside_rows, beside_table
from pytest_trtgray.timing.beside import Beside, beside, put_beside
from pytest_trtgray.timing.profile import Profile, layer_times
from pytest_trtgray.timing.session import Plan, measure_run
from pytest_trtgray.timing.torch_modules import torch_times
from tests.torch_models import Net, export, nn, torch
from tests.unit.helpers import ort_engine


@pytest.fixture(scope="module", params=["new exporter", "older exporter"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    net = Net()
    path = tmp_path_factory.mktemp("torch") / "net.onnx"
    return net, export(net, torch.zeros(2, 8, 64), path, dynamo=request.param == "new exporter")


def profile_of(path: Path, x: Any, group_of: Any = None) -> Profile:
    engine = ort_engine(path)
    feed = {"x": x.numpy()}
    run = measure_run(engine, feed, Plan(1, 3), context={})
    shapes = {"x": tuple(x.shape)}
    layers = layer_times(run.run, run.layers)
    return Profile(engine.info, shapes, run.run, layers, {}, model=engine.model, group_of=group_of)


@pytest.fixture(scope="module")
def found(exported: tuple[Any, Path]) -> Beside:
    net, path = exported
    x = torch.zeros(2, 8, 64)
    return beside(profile_of(path, x), net, x, iterations=3)


def test_every_module_that_computes_has_its_engine_time(found: Beside) -> None:
    """Dropout computes nothing; all else does."""
    without = {row.module for row in found.modules if row.engine_us is None}
    assert without == {"blocks.0.drop", "blocks.1.drop"}
    assert found.unknown == ()
    assert found["mix"].calls == 2
    for name in ("", "blocks.0", "blocks.1.attn.q", "mix", "head"):
        row = found[name]
        assert row.gain == pytest.approx(row.torch_us / (row.engine_us or 0))


def test_engine_times_add_up(found: Beside) -> None:
    whole = found[""]
    own = sum(row.engine_own_us or 0.0 for row in found.modules)
    assert whole.engine_us == pytest.approx(own)
    assert found.layers_us == pytest.approx(own + found.unnamed_us)
    assert found["blocks.0.attn"].engine_us == pytest.approx(
        (found["blocks.0.attn"].engine_own_us or 0)
        + sum(found[f"blocks.0.attn.{name}"].engine_us or 0 for name in "qkvo")
    )
    assert 0 < found.matched <= 1


def test_functions_are_told_from_modules(found: Beside) -> None:
    attention = found["blocks.0.attn"]
    assert attention.has_inner
    assert (attention.engine_own_us or 0) > 0  # products and softmax
    assert found["blocks.0.up"].engine_own_us == found["blocks.0.up"].engine_us


def test_a_kernel_over_two_modules_is_no_full_coverage(found: Beside) -> None:
    """ONNX Runtime computes the sum of the block with the normalisation that is a module of its own."""
    assert found["blocks.0.norm"].coverage == 0
    assert found["blocks.0.up"].coverage == 1


def test_blocks_together(found: Beside) -> None:
    together = {row.module: row for row in found.repeated()}
    row = together["blocks.*.attn.q"]
    assert row.calls == 2
    assert row.engine_us == pytest.approx(sum(found[f"blocks.{i}.attn.q"].engine_us or 0 for i in (0, 1)))
    assert together["blocks.*.drop"].engine_us is None


def test_tables_and_rows_name_each_module_once(found: Beside) -> None:
    table = beside_table(found, limit=100).splitlines()
    names = [line.split("  ")[-1].strip() for line in table[1:]]
    assert len(names) == len(set(names))
    assert "blocks.*.attn (functions)" in names
    assert beside_table(found, limit=2).splitlines()[-1] == f"... and {len(names) - 2} more"
    rows = beside_rows(found)
    assert len(rows) == 5
    assert not any(row.startswith(("(model):", "blocks.*:", "blocks.*.attn:")) for row in rows)
    details = beside_details(found)
    assert len(details["modules"]) == len(found.modules)
    assert found.summary.endswith("of the layers' time is in modules")


def test_an_unknown_name_lists_what_ran(found: Beside) -> None:
    with pytest.raises(KeyError, match=r"no module 'encoder' ran; those that did: blocks\.0, "):
        found["encoder"]


class Wrapper(nn.Module):  # type: ignore[misc]
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Any) -> Any:
        return self.model(x).softmax(-1)


def test_a_module_inside_of_what_was_exported(tmp_path: Path) -> None:
    net, x = Net(), torch.zeros(2, 8, 64)
    profile = profile_of(export(Wrapper(net), x, tmp_path / "net.onnx", dynamo=False), x)
    times = torch_times(net, x, iterations=1)
    within = put_beside(profile, times, scope="model")
    assert within["blocks.0.up"].engine_us
    assert within.unknown == ()
    without = put_beside(profile, times)
    assert without.unknown == ("model",)
    assert without["head"].engine_us is None
    (finding,) = [each for each in without.findings if each.rule == "torch.not-matched"]
    assert "only the ONNX names know model" in finding.what
    assert "scope=" in finding.remedy
    with pytest.raises(ValueError, match=r"no layer of .* is within 'other'"):
        put_beside(profile, times, scope="other")


def test_other_shapes_are_a_warning(exported: tuple[Any, Path]) -> None:
    net, path = exported
    profile = profile_of(path, torch.zeros(2, 8, 64))
    result = put_beside(profile, torch_times(net, torch.zeros(1, 8, 64), iterations=1))
    assert [each.rule for each in result.findings if "shapes" in each.rule] == ["torch.other-shapes"]


def test_a_users_grouping_comes_first(exported: tuple[Any, Path]) -> None:
    net, path = exported
    x = torch.zeros(2, 8, 64)
    result = put_beside(profile_of(path, x, group_of=lambda layer: "head"), torch_times(net, x, iterations=1))
    assert result["head"].engine_us == pytest.approx(result.layers_us)
    assert result["mix"].engine_us is None
