from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.engines.device import available_cores, find_gpu
from pytest_trtgray.engines.onnxruntime import choose_provider, read_profile
from pytest_trtgray.errors import EngineError, ShapeError
from pytest_trtgray.feeds import make_feed
from pytest_trtgray.structure.matching import layer_keys
from tests import models
from tests.unit.helpers import ort_engine


def feed_for(engine: Any, seed: int = 0) -> Any:
    return make_feed(engine.info.inputs, {name: bounds.opt for name, bounds in engine.info.profiles[0].items()}, seed)


class TestRun:
    def test_the_result_is_the_networks(self, mlp: Path) -> None:
        engine = ort_engine(mlp)
        feed = feed_for(engine)
        w0, b0, w1, b1 = (onnx.numpy_helper.to_array(tensor) for tensor in engine.model.proto.graph.initializer)
        expected = np.maximum(feed["x"] @ w0 + b0, 0) @ w1 + b1

        np.testing.assert_allclose(engine.run(feed)["y"], expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("name", ["mlp", "conv_net", "encoder"])
    def test_optimising_changes_rounding_only(self, name: str, request: pytest.FixtureRequest) -> None:
        path: Path = request.getfixturevalue(name)
        shapes = "ids:2x4,mask:2x1x1x4" if name == "encoder" else ""
        fast, plain = ort_engine(path, shapes), ort_engine(path, shapes, optimisation="none")
        feed = feed_for(fast)
        (got,), (wanted,) = fast.run(feed).values(), plain.run(feed).values()

        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
        assert float(np.std(wanted)) > 0.01

    @given(batch=st.integers(1, 32), seed=st.integers(0, 9))
    def test_every_batch_of_the_profile(self, mlp: Path, batch: int, seed: int) -> None:
        engine = ort_engine(mlp)

        assert engine.run(make_feed(engine.info.inputs, {"x": (batch, 8)}, seed))["y"].shape == (batch, 8)

    def test_arrays_that_are_not_contiguous(self, mlp: Path) -> None:
        engine = ort_engine(mlp)
        wide = np.arange(128, dtype=np.float32).reshape(8, 16) / 100
        strided = wide[:, ::2]

        np.testing.assert_array_equal(engine.run({"x": strided})["y"], engine.run({"x": strided.copy()})["y"])

    def test_a_scalar_stays_a_scalar(self, tmp_path: Path) -> None:
        graph = models.Graph()
        graph.input("x", [])
        graph.add("Neg", ["x"], "/Neg", "y")
        graph.output("y", [])
        engine = ort_engine(graph.save(tmp_path / "scalar.onnx"))
        result = engine.run({"x": np.float32(2)})["y"]

        assert (result.shape, float(result)) == ((), -2.0)

    def test_several_outputs_by_name(self, tmp_path: Path) -> None:
        engine = ort_engine(models.two_inputs(tmp_path / "two.onnx"))
        feed = {
            "a": np.ones((3, 4), np.float32),
            "b": np.full((3, 4), 2, np.float32),
            "k": np.array([5, 6, 7], np.int32),
        }
        result = engine.run(feed)

        assert list(result) == ["y", "n"]
        np.testing.assert_array_equal(result["y"], np.full((3, 4), 3, np.float32))
        assert result["n"] == 18

    def test_external_weights_of_nodes_without_names(self, mlp: Path, tmp_path: Path) -> None:
        path = models.external(models.unnamed(mlp, tmp_path / "u.onnx"), tmp_path / "external.onnx")
        engine, original = ort_engine(path), ort_engine(mlp)
        feed = feed_for(engine)

        np.testing.assert_array_equal(engine.run(feed)["y"], original.run(feed)["y"])


class TestRefusals:
    def test_a_missing_input(self, mlp: Path) -> None:
        with pytest.raises(ShapeError, match="input 'x' is missing"):
            ort_engine(mlp).run({})

    def test_an_unknown_input(self, mlp: Path) -> None:
        feed: dict[str, Any] = {"x": np.ones((1, 8), np.float32), "z": np.ones(1)}
        with pytest.raises(ShapeError, match="has no input 'z'"):
            ort_engine(mlp).run(feed)

    @pytest.mark.parametrize("shape", [(33, 8), (1, 9), (0, 8), (8,)])
    def test_a_shape_outside_the_profile(self, mlp: Path, shape: tuple[int, ...]) -> None:
        with pytest.raises(ShapeError, match=r"profile 0 allows 1x8 \.\. 8x8 \.\. 32x8"):
            ort_engine(mlp).run({"x": np.ones(shape, np.float32)})

    @pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32])
    def test_another_dtype(self, mlp: Path, dtype: Any) -> None:
        with pytest.raises(EngineError, match=f"wants float32, got {np.dtype(dtype).name}"):
            ort_engine(mlp).run({"x": np.ones((1, 8), dtype)})

    def test_an_operator_that_nobody_has(self, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match=r"cannot load it.*Mystery") as caught:
            ort_engine(models.unary(tmp_path / "custom.onnx", "Mystery", domain="acme"))
        assert "custom.onnx" in caught.value.thing

    def test_an_opset_of_the_future(self, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match="cannot load it") as caught:
            ort_engine(models.unary(tmp_path / "future.onnx", "Relu", opset=999))
        assert "opset" in caught.value.message

    def test_a_failure_while_running_names_the_shapes(self, encoder: Path) -> None:
        engine = ort_engine(encoder, "ids:2x4,mask:2x1x1x4")
        feed: dict[str, Any] = {**feed_for(engine), "ids": np.full((2, 4), 999, np.int64)}

        with pytest.raises(EngineError, match=r"ONNX Runtime failed on ids \(2, 4\)"):
            engine.run(feed)

    @pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")
    def test_a_provider_that_is_not_there(self, mlp: Path) -> None:
        assert choose_provider() == "CPUExecutionProvider"
        with pytest.raises(EngineError, match="CUDAExecutionProvider"):
            ort_engine(mlp, provider="CUDAExecutionProvider")


class TestInfo:
    def test_what_is_known(self, mlp: Path) -> None:
        engine = ort_engine(mlp)
        info = engine.info

        assert (info.name, info.runtime, info.path) == ("mlp", "onnxruntime", str(mlp))
        assert info.version.count(".") == 2
        assert info.device is not None
        assert info.device.kind == "cpu"
        assert info.memory.weights_bytes == engine.model.weights_bytes
        assert engine.timing_method["threads"] == str(available_cores())
        assert engine.notes
        assert "1 (min), 8 (opt), 32 (max)" in engine.notes[0]
        assert repr(engine) == f"<OnnxRuntimeEngine mlp (onnxruntime {info.version})>"

    @pytest.mark.parametrize(
        ("make", "precision"),
        [
            (lambda folder, mlp: mlp, "float32"),
            (lambda folder, mlp: models.to_fp16(mlp, folder / "half.onnx"), "float16"),
            (lambda folder, mlp: models.qdq(folder / "qdq.onnx"), "int8"),
        ],
        ids=["fp32", "fp16", "int8"],
    )
    def test_precision(self, make: Any, precision: str, mlp: Path, tmp_path: Path) -> None:
        assert ort_engine(make(tmp_path, mlp)).precision == precision

    def test_tensors_of_a_layer(self, conv_net: Path) -> None:
        stem = ort_engine(conv_net).layer("/stem/Conv")

        assert [tensor.name for tensor in stem.inputs] == ["x"]
        assert len(stem.constants) == 2
        assert {tensor.dtype for tensor in (*stem.inputs, *stem.constants, *stem.outputs)} == {"float32"}
        assert stem.precision == "float32"

    def test_a_layer_by_its_node(self, mlp: Path) -> None:
        engine = ort_engine(mlp)

        assert engine.layer("/fc0/Relu") is engine.layers[0]
        assert engine.layer(engine.layers[1].name) is engine.layers[1]

    def test_a_node_that_is_not_there(self, mlp: Path) -> None:
        with pytest.raises(KeyError, match="near: /fc0/Add, /fc1/Add"):
            ort_engine(mlp).layer("add")

    def test_looking_at_layers_is_silent(self, mlp: Path, capfd: pytest.CaptureFixture[str]) -> None:
        engine = ort_engine(mlp)

        assert len(engine.layers) == 2
        assert engine.records == ()
        assert capfd.readouterr() == ("", "")

    def test_warnings_while_loading_are_kept(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        """A weight that no node reads makes ONNX Runtime warn."""
        graph = models.Graph()
        graph.add("Relu", [graph.input("x", ["batch", 4])], "/Relu", "y")
        graph.weight("unused", 4)
        graph.output("y", ["batch", 4])
        engine = ort_engine(graph.save(tmp_path / "unused.onnx"))

        (record,) = engine.records
        assert (record.severity, record.producer, record.phase) == ("warning", "onnxruntime", "load")
        assert "unused" in record.message
        assert capfd.readouterr() == ("", "")

    def test_layers_have_the_same_keys_in_every_session(self, conv_net: Path) -> None:
        """Layout changes are numbered in another order each time a model is loaded."""
        keys = {tuple(layer_keys(ort_engine(conv_net).layers)) for _ in range(12)}

        assert len(keys) == 1


class TestTiming:
    def test_every_layer_is_timed_in_every_iteration(self, conv_net: Path) -> None:
        engine = ort_engine(conv_net)
        with engine.timing_context(feed_for(engine), profiled=True) as context:
            for _ in range(4):
                assert context.run() > 0
            times = context.layer_times()

        assert len(times) == 4
        assert all(set(iteration) == set(times[0]) for iteration in times)
        assert {layer.name for layer in engine.layers if layer.onnx_nodes} <= set(times[0])
        assert all(value >= 0 for iteration in times for value in iteration.values())

    def test_without_a_profiler_there_are_no_layers(self, mlp: Path) -> None:
        engine = ort_engine(mlp)
        with engine.timing_context(feed_for(engine), profiled=False) as context:
            assert context.run() > 0
            assert context.layer_times() == []

    def test_no_profile_is_left_behind(self, mlp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        engine = ort_engine(mlp)
        with engine.timing_context(feed_for(engine), profiled=True) as context:
            context.run()

        assert list(tmp_path.iterdir()) == []

    def test_the_feed_is_checked(self, mlp: Path) -> None:
        with (
            pytest.raises(ShapeError, match="profile 0 allows"),
            ort_engine(mlp).timing_context({"x": np.ones((99, 8), np.float32)}, profiled=True),
        ):
            pytest.fail("entered")

    @pytest.mark.parametrize("make", [models.with_if, models.with_loop], ids=["if", "loop"])
    def test_what_a_branch_or_loop_runs_is_part_of_it(self, make: Any, tmp_path: Path) -> None:
        """Kernels of a subgraph run inside the time of their node; on their own they would count twice."""
        engine = ort_engine(make(tmp_path / "subgraph.onnx"))
        with engine.timing_context(feed_for(engine), profiled=True) as context:
            context.run()
            times = context.layer_times()

        assert set(times[0]) == {layer.name for layer in engine.layers}


class TestReadProfile:
    @staticmethod
    def run(start: int, length: int = 100) -> dict[str, Any]:
        return {"name": "model_run", "cat": "Session", "ts": start, "dur": length}

    @staticmethod
    def kernel(name: str, start: int, length: float, op: str = "Add") -> dict[str, Any]:
        return {"name": f"{name}_kernel_time", "cat": "Node", "ts": start, "dur": length, "args": {"op_name": op}}

    def test_kernels_belong_to_the_run_they_started_in(self) -> None:
        events = [
            self.run(0),
            self.run(200),
            self.kernel("a", 10, 5),
            self.kernel("b", 20, 7),
            self.kernel("a", 210, 6),
            self.kernel("b", 230, 8),
        ]

        assert read_profile(events) == [{"a": 5.0, "b": 7.0}, {"a": 6.0, "b": 8.0}]

    def test_events_may_come_in_any_order(self) -> None:
        events = [self.kernel("a", 210, 6), self.run(200), self.kernel("a", 10, 5), self.run(0)]

        assert read_profile(events) == [{"a": 5.0}, {"a": 6.0}]

    def test_a_node_that_ran_twice_is_summed(self) -> None:
        assert read_profile([self.run(0), self.kernel("a", 1, 5), self.kernel("a", 9, 6)]) == [{"a": 11.0}]

    def test_a_node_may_be_called_like_an_event(self) -> None:
        events = [self.run(0), self.kernel("model_run", 5, 3), self.kernel("x_kernel_time", 9, 4)]

        assert read_profile(events) == [{"model_run": 3.0, "x_kernel_time": 4.0}]

    def test_a_kernel_inside_of_another_is_part_of_it(self) -> None:
        events = [
            self.run(0),
            self.kernel("loop", 10, 50, "Loop"),
            self.kernel("body", 20, 30),
            self.kernel("next", 60, 5),
        ]

        assert read_profile(events) == [{"loop": 50.0, "next": 5.0}]

    def test_a_kernel_of_no_time_is_there(self) -> None:
        """The clock ticks in microseconds: a short kernel and the next may have the same start."""
        events = [self.run(0), self.kernel("short", 10, 0), self.kernel("next", 10, 5), self.kernel("last", 15, 0)]

        assert read_profile(events) == [{"short": 0.0, "next": 5.0, "last": 0.0}]

    def test_names_are_the_same_in_every_session(self) -> None:
        """ONNX Runtime counts its own nodes on from one session to the next."""
        sessions = [
            [self.run(0), self.kernel(f"Reorder_token_{first}", 1, 2), self.kernel(f"Reorder_token_{second}", 9, 3)]
            for first, second in ((14, 16), (17, 15))
        ]

        assert [read_profile(events) for events in sessions] == [[{"Reorder": 2.0, "Reorder #2": 3.0}]] * 2

    def test_other_events_are_left_out(self) -> None:
        events = [
            self.run(0),
            {"name": "a_fence_before", "cat": "Node", "ts": 1, "dur": 50},
            {"name": "session_initialization", "cat": "Session", "ts": 0, "dur": 50},
            {"name": "a_kernel_time", "cat": "Other", "ts": 1, "dur": 50},
            self.kernel("a", 2, 1),
        ]

        assert read_profile(events) == [{"a": 1.0}]

    def test_a_run_without_kernels_keeps_its_place(self) -> None:
        assert read_profile([self.run(0), self.run(200), self.kernel("a", 250, 1)]) == [{}, {"a": 1.0}]

    def test_nothing_ran(self) -> None:
        assert read_profile([]) == []
        assert read_profile([self.kernel("a", 1, 1)]) == []
