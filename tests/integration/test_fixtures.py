"""What a user writes: the fixtures, and the three examples of the design as they stand."""

from __future__ import annotations

from tests import models, planted
from tests.integration.conftest import Project, text

LAYERS = """
import pytest

{marker}
def test_layers_do_not_slow_down(trt_engine, trt_profiler):
    profile = trt_profiler(trt_engine, shapes={{"x": (8, 3, 224, 224)}})
    profile.check()                                   # against this hardware's baseline
    assert profile.group("encoder.layer.*/attention").share < 0.5
"""
INT8 = """
def test_int8_tracks_fp32(trt_build, trt_shadow, trt_compare):
    engine = trt_build("model_int8.onnx")
    trt_compare(engine, trt_shadow("model.onnx"), rtol=2e-2, atol=1e-3).check()
    assert engine.layer("conv1").precision == "int8"  # what was really built
"""
SHAPES = """
from hypothesis import given
from pytest_trtgray import assert_outputs_close, profile_feeds

@given(feed=profile_feeds("model.onnx"))
def test_every_shape_of_the_profile(trt_engine, trt_shadow, feed):
    assert_outputs_close(trt_engine.run(feed), trt_shadow.run(feed), rtol=1e-2, atol=1e-3)
"""


def test_example_of_layers(project: Project) -> None:
    planted.vision_transformer(project.path / "model.onnx")
    project.pytester.makepyfile(LAYERS.format(marker=""))
    args = ["--trt-engine=model.onnx"]
    missing = project.run(*args)
    missing.assert_outcomes(failed=1)
    assert "missing baseline" in text(missing)
    project.record(*args)
    project.run(*args).assert_outcomes(passed=1)


def test_example_of_layers_is_gated_on_the_architecture(project: Project, no_gpu: None) -> None:
    planted.vision_transformer(project.path / "model.onnx")
    project.pytester.makepyfile(LAYERS.format(marker='@pytest.mark.trt_arch(min="sm_80")'))
    result = project.run("--trt-engine=model.onnx", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*trt_arch: needs sm_80 or newer, found no GPU (no NVIDIA driver*"])


def test_example_of_int8(project: Project) -> None:
    planted.int8_pair(project.path)
    project.pytester.makepyfile(INT8)
    project.run().assert_outcomes(passed=1)


def test_example_of_shapes(project: Project) -> None:
    models.conv_net(project.path / "model.onnx")
    project.pytester.makepyfile(SHAPES)
    project.run("--trt-engine=model.onnx").assert_outcomes(passed=1)


def test_shapes_print_what_reproduces_them(project: Project) -> None:
    planted.scaled_at_batch(project.path / "model.onnx", batch=17, factor=2.0)
    planted.scaled_at_batch(project.path / "old.onnx", batch=17, factor=1.0)
    project.pytester.makepyfile(SHAPES)
    result = project.run("--trt-engine=model.onnx", "--trt-onnx=old.onnx", "--hypothesis-seed=1")
    result.assert_outcomes(failed=1)
    assert "make_feed('model.onnx', {'x': (17, 4)}, seed=" in text(result)


def test_a_test_without_an_engine_is_skipped_with_the_way_out(project: Project) -> None:
    project.pytester.makepyfile("def test_it(trt_engine):\n    raise AssertionError")
    result = project.run("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*no engine given; run pytest --trt-engine=model.onnx"])


def test_build_looks_beside_the_test_and_names_the_folders(project: Project) -> None:
    (project.path / "inner").mkdir()
    project.mlp("inner/mlp.onnx")
    (project.path / "inner" / "test_inner.py").write_text(
        "def test_found(trt_build):\n"
        "    assert trt_build('mlp.onnx').info.name == 'mlp'\n"
        "    assert trt_build('mlp.onnx') is trt_build('mlp.onnx')\n"
        "    assert trt_build('mlp.onnx', name='twin').info.name == 'twin'\n"
        "def test_lost(trt_build):\n"
        "    trt_build('lost.onnx')\n"
    )
    result = project.run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*lost.onnx: no such file (looked in *inner*"])


def test_build_takes_shapes(project: Project) -> None:
    models.encoder(project.path / "encoder.onnx")
    project.pytester.makepyfile(
        """
        import pytest
        from pytest_trtgray.errors import ShapeError

        def test_shapes(trt_build, trt_log):
            engine = trt_build(
                "encoder.onnx",
                min_shapes="ids:1x2,mask:1x1x1x2",
                opt_shapes="ids:2x8,mask:2x1x1x8",
                max_shapes="ids:4x16,mask:4x1x1x16",
            )
            assert engine.info.profiles[0]["ids"].max == (4, 16)
            assert trt_log(engine).errors == ()

        def test_no_shapes(trt_build):
            with pytest.raises(ShapeError, match="--trt-min-shapes=ids:1x1"):
                trt_build("encoder.onnx")
        """
    )
    project.run().assert_outcomes(passed=2)


def test_an_out_of_profile_shape_is_refused(project: Project) -> None:
    project.mlp()
    project.pytester.makepyfile(
        """
        import numpy as np
        import pytest
        from pytest_trtgray.errors import ShapeError

        def test_batch_33(trt_engine):
            with pytest.raises(ShapeError, match=r"input 'x' has shape 33x8, profile 0 allows 1x8 .. 8x8 .. 32x8"):
                trt_engine.run({"x": np.zeros((33, 8), np.float32)})
        """
    )
    project.run("--trt-engine=mlp.onnx").assert_outcomes(passed=1)


def test_two_checks_of_one_test_share_a_baseline_file(project: Project) -> None:
    project.mlp()
    project.pytester.makepyfile(
        """
        def test_both(trt_engine, trt_profiler, trt_structure):
            trt_structure(trt_engine).check()
            trt_profiler(trt_engine, shapes={"x": (1, 8)}).check()
            trt_profiler(trt_engine, shapes={"x": (32, 8)}).check()
        """
    )
    project.record("--trt-engine=mlp.onnx")
    project.run("--trt-engine=mlp.onnx").assert_outcomes(passed=1)
    entries = "".join((project.path / "baselines" / name).read_text() for name in project.baselines())
    assert "timing x:1x8 " in entries
    assert "timing x:32x8 " in entries
    assert '"structure": {' in entries


def test_a_group_that_matches_nothing_is_no_budget(project: Project) -> None:
    planted.vision_transformer(project.path / "model.onnx")
    project.pytester.makepyfile(
        "def test_it(trt_build, trt_profiler):\n"
        "    trt_profiler(trt_build('model.onnx'), shapes={'x': (1, 3, 224, 224)}).group('decoder')\n"
    )
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*'decoder' matches no layer of model; modules: *encoder/layer.0/attention*"])


def test_shadow_without_engine_says_what_to_write(project: Project) -> None:
    project.pytester.makepyfile("def test_it(trt_shadow):\n    trt_shadow.run({})")
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*trt_shadow.run needs trt_engine in the same test*"])


def test_device_is_the_processor_without_a_gpu(project: Project, no_gpu: None) -> None:
    project.pytester.makepyfile("def test_it(trt_device):\n    assert trt_device.kind == 'cpu' and trt_device.name")
    project.run().assert_outcomes(passed=1)


def test_a_nan_fails_and_says_so(project: Project) -> None:
    models.nan_producer(project.path / "nan.onnx")
    models.unary(project.path / "relu.onnx", "Relu")
    project.pytester.makepyfile(
        "def test_it(trt_build, trt_shadow, trt_compare):\n"
        "    trt_compare(trt_build('nan.onnx'), trt_shadow('nan.onnx')).check()\n"
        "def test_asked_for(trt_build, trt_shadow, trt_compare):\n"
        "    trt_compare(trt_build('nan.onnx'), trt_shadow('nan.onnx'), equal_nan=True).check()\n"
        "def test_one_side(trt_build, trt_shadow, trt_compare):\n"
        "    trt_compare(trt_build('nan.onnx'), trt_shadow('relu.onnx'), equal_nan=True).check()\n"
    )
    result = project.run()
    result.assert_outcomes(passed=1, failed=2)
    assert "32 of them are NaN or infinite" in text(result)


def test_renamed_output_fails(project: Project) -> None:
    project.mlp("a.onnx")
    models.rename_output(project.path / "a.onnx", project.path / "b.onnx", "z")
    project.pytester.makepyfile(
        "def test_it(trt_build, trt_shadow, trt_compare):\n"
        "    trt_compare(trt_build('b.onnx'), trt_shadow('a.onnx')).check()\n"
    )
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*outputs differ: output 'y' is missing; there are ?'z'?*"])
