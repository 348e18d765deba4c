"""What the builder of TensorRT for RTX calls while it works: real callbacks, on any machine."""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import sys
import threading
from pathlib import Path

import onnx
import pytest

from pytest_trtgray.engines.callbacks import deferred_interrupt, monitor_of
from pytest_trtgray.engines.layer_listing import layers_from_rows
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.profiles import resolve_profiles
from pytest_trtgray.errors import EngineError
from pytest_trtgray.logs.records import Record
from pytest_trtgray.logs.sink import SINK
from pytest_trtgray.vendor import quiet_import
from tests import models

pytest.importorskip("tensorrt_rtx")

from pytest_trtgray.engines.building import BuildRequest, build

ROOT = Path(__file__).parents[3]
in_main_thread = pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread only"
)


def heard(path: Path) -> list[Record]:
    """Everything that is said while a model is built, or refused."""
    model = OnnxModel(path)
    profiles, _ = resolve_profiles(model.inputs, ())
    with SINK.collect("test") as records, contextlib.suppress(EngineError):
        build(model, BuildRequest("tensorrt_rtx", profiles))
    return list(records)


def with_name(path: Path, name: bytes) -> Path:
    """The model with another name for every node that is called ``NAME``, byte by byte."""
    proto = onnx.load(str(path))
    for node in proto.graph.node:
        node.name = "N" * len(name) + node.name
    content = proto.SerializeToString().replace(b"N" * len(name), name)
    path.write_bytes(content)
    return path


class TestParserErrors:
    def test_all_that_the_parser_knows(self, tmp_path: Path) -> None:
        records = heard(models.unary(tmp_path / "custom.onnx", "Mystery", domain="acme"))
        (listed,) = [record for record in records if "desc" in record.details]

        assert (listed.severity, listed.producer, listed.phase) == ("error", "tensorrt_rtx", "parse")
        assert {key: listed.details[key] for key in ("code", "node", "node_name", "node_operator")} == {
            "code": "INVALID_NODE",
            "node": 0,
            "node_name": "/Mystery",
            "node_operator": "Mystery",
        }
        assert "Plugin not found" in listed.details["desc"]
        assert listed.details["func"].startswith("check")
        assert listed.details["line"] > 0
        assert "In node 0 with name: /Mystery and operator: Mystery" in listed.message

    def test_the_functions_around_a_node(self, tmp_path: Path) -> None:
        """The log names the call of a function only."""
        inner = onnx.helper.make_node("Det", ["a"], ["b"], name="inner_det")
        function = onnx.helper.make_function(
            "local", "Block", ["a"], ["b"], [inner], [onnx.helper.make_opsetid("", 17)]
        )
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("Block", ["x"], ["y"], name="block", domain="local")],
            "g",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 3, 3])],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])],
        )
        opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("local", 1)]
        proto = onnx.helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=9)
        path = tmp_path / "function.onnx"
        path.write_bytes(proto.SerializeToString())
        (listed,) = [record for record in heard(path) if "desc" in record.details]

        assert listed.details["node_operator"] == "Det"
        assert any("Block" in name or "block" in name for name in listed.details["local_function_stack"])

    def test_names_that_are_no_utf8(self, tmp_path: Path) -> None:
        path = with_name(models.unary(tmp_path / "custom.onnx", "Mystery", domain="acme"), b"d\xe9\xff")
        records = heard(path)
        (listed,) = [record for record in records if "desc" in record.details]

        assert listed.details["node_name"] == "d\\xe9\\xff/Mystery"
        assert "Exception caught in log()" not in "".join(record.message for record in records)


class TestNamesThatAreNoUtf8:
    def test_no_message_and_no_layer_is_lost(self, tmp_path: Path) -> None:
        path = with_name(models.mlp(tmp_path / "mlp.onnx"), b"caf\xe9")
        model = OnnxModel(path)
        profiles, _ = resolve_profiles(model.inputs, ())
        with SINK.collect("test") as records:
            _, facts = build(model, BuildRequest("tensorrt_rtx", profiles))

        nodes = {node for layer in layers_from_rows(facts["layers"]) for node in layer.onnx_nodes}
        assert nodes == {node.name for node in model.nodes}
        assert "caf\\xe9/fc0/MatMul" in nodes
        assert not [record for record in records if record.producer == "stderr"]

    def test_tensors_and_texts_too(self, tmp_path: Path) -> None:
        path = models.mlp(tmp_path / "mlp.onnx")
        proto = onnx.load(str(path))
        proto.doc_string = "DOCS"
        proto.graph.node[0].output[0] = proto.graph.node[1].input[0] = "TENS"
        path.write_bytes(proto.SerializeToString().replace(b"DOCS", b"d\xe9cs").replace(b"TENS", b"t\xe9ns"))
        records = heard(path)

        assert any("t\\xe9ns" in record.message for record in records)
        assert any("d\\xe9cs" in record.message for record in records)
        assert not [record for record in records if record.severity == "error" or record.producer == "stderr"]


class TestProgress:
    def test_phases_are_records(self, mlp: Path) -> None:
        progress = [record for record in heard(mlp) if "progress" in record.details]
        first, last = progress[0], progress[-1]

        assert {record.severity for record in progress} == {"verbose"}
        assert first.message.startswith("Progress: Building engine: ")
        assert first.details["steps"] > 0
        assert last.details["progress"] == "Building engine"
        assert "steps in" in last.message
        inner = next(record for record in progress if record.details["parent"])
        assert inner.details["parent"] in {record.details["progress"] for record in progress}

    def test_steps_of_a_long_phase(self, monkeypatch: pytest.MonkeyPatch, mlp: Path) -> None:
        monkeypatch.setattr("pytest_trtgray.engines.callbacks._STEP_INTERVAL_S", 0.0)
        steps = [
            record.details["step"] for record in heard(mlp) if record.details.get("progress") == "Cloning network graph"
        ]

        assert steps[0] == 0
        assert steps[1:-1] == list(range(1, steps[-1] + 1))

    def test_a_flavour_without_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pytest_trtgray.engines.callbacks.quiet_import", lambda name: object())

        assert monitor_of("tensorrt", lambda: False) is None

    def test_a_phase_that_nobody_has_started_does_no_harm(self) -> None:
        monitor = monitor_of("tensorrt_rtx", lambda: False)
        monitor.phase_finish("unknown")

        assert monitor.step_complete("unknown", 0) is True


INTERRUPTED = """
import os, signal, sys, threading
from pathlib import Path
from pytest_trtgray.engines.building import BuildRequest, build
from pytest_trtgray.engines.onnx_model import OnnxModel
from pytest_trtgray.engines.profiles import ShapeRequest, parse_shapes, resolve_profiles
from pytest_trtgray.logs.sink import SINK
from tests import models

model = OnnxModel(models.encoder(Path("encoder.onnx"), layers=12))
texts = ("ids:1x2,mask:1x1x1x2", "ids:2x8,mask:2x1x1x8", "ids:4x16,mask:4x1x1x16")
profiles, _ = resolve_profiles(model.inputs, [ShapeRequest(*map(parse_shapes, texts))])

def interrupt(records):
    while not any("progress" in record.details for record in records):
        pass
    os.kill(os.getpid(), signal.SIGINT)

with SINK.collect("test") as records:
    threading.Thread(target=interrupt, args=(records,)).start()
    try:
        build(model, BuildRequest("tensorrt_rtx", profiles))
        print("built")
    except KeyboardInterrupt:
        print("interrupted")
print("cancelled" if any("BuildCanceled" in record.message for record in records) else "not cancelled")
print("handler back" if signal.getsignal(signal.SIGINT) is signal.default_int_handler else "handler lost")
"""


class TestInterrupt:
    def test_ctrl_c_stops_a_build(self, tmp_path: Path) -> None:
        """In a callback the bindings print and forget it."""
        done = subprocess.run(
            [sys.executable, "-c", INTERRUPTED],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.stdout.split("\n") == ["interrupted", "cancelled", "handler back", ""], done.stderr
        assert "Exception caught" not in done.stderr

    @in_main_thread
    def test_it_is_raised_at_the_end_of_the_block(self) -> None:
        seen = []

        def press() -> None:
            with deferred_interrupt() as interrupt:
                signal.raise_signal(signal.SIGINT)
                # a second one would end the process
                seen.extend([interrupt.is_pending, signal.getsignal(signal.SIGINT) is signal.SIG_DFL])

        with pytest.raises(KeyboardInterrupt):
            press()

        assert seen == [True, True]
        assert signal.getsignal(signal.SIGINT) is not signal.SIG_DFL

    @in_main_thread
    def test_nothing_happens_without_it(self) -> None:
        before = signal.getsignal(signal.SIGINT)
        with deferred_interrupt() as interrupt:
            assert not interrupt.is_pending

        assert signal.getsignal(signal.SIGINT) is before

    def test_in_another_thread(self) -> None:
        found = []

        def work() -> None:
            with deferred_interrupt() as interrupt:
                found.append(interrupt.is_pending)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

        assert found == [False]


class TestPolygraphy:
    def test_it_is_heard(self, mlp: Path) -> None:
        said = [record for record in heard(mlp) if record.producer == "polygraphy"]

        assert any("Building engine with configuration" in record.message for record in said)
        assert any(record.message.startswith("Finished engine building") for record in said)
        assert {"info"} <= {record.severity for record in said}

    def test_its_logger_is_the_users_again(self, mlp: Path, capsys: pytest.CaptureFixture[str]) -> None:
        logger = quiet_import("polygraphy.logger").G_LOGGER
        heard(mlp)
        capsys.readouterr()
        logger.colors = False
        logger.info("from the user")

        assert capsys.readouterr().out == "[I] from the user\n"
        assert not logger.use_python_logging_system
        assert logging.getLogger("Polygraphy").handlers == []
