"""What did the runtime say while it built and loaded the engine?

A build that succeeds may still have warned of what fails in production. ``check()`` fails on errors; which
warnings are acceptable is for the project to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from pytest_trtgray import Engine, EngineFactory, Log

from .models import ENCODER_SHAPES

LogOf = Callable[[Engine], Log]
# Each with its reason: token ids of this model are INT64 on purpose; onnxruntime-gpu says the other of every session
# on a machine whose GPU it does use.
ACCEPTED = re.compile(r"Make sure input \w+ has Int64 binding|No registered plugin EP device found")


def test_given_engine_has_no_errors(trt_engine: Engine, trt_log: LogOf) -> None:
    """Of an engine file, what loading it says; that takes a GPU."""
    log = trt_log(trt_engine)
    if not log.records:
        trt_engine.require_runnable()
    log.check()


@pytest.mark.trt_requires(tensorrt_rtx=">=1.4")
@pytest.mark.parametrize("name", ["encoder", "encoder_fp16"])
def test_encoder_builds_without_new_warnings(name: str, trt_build: EngineFactory, trt_log: LogOf) -> None:
    """The log of a build is kept with the engine: it is the same when the engine comes from the cache."""
    engine = trt_build(f".models/{name}.onnx", runtime="tensorrt_rtx", **ENCODER_SHAPES)
    log = trt_log(engine)
    log.check()
    assert [record.message for record in log.warnings if not ACCEPTED.search(record.message)] == []


@pytest.mark.parametrize("name", ["resnet50", "squeezenet", "resnet20_int8"])
def test_onnxruntime_loads_without_warnings(name: str, trt_build: EngineFactory, trt_log: LogOf) -> None:
    """Other runtimes have logs too; unused weights, for example, are a warning of ONNX Runtime."""
    log = trt_log(trt_build(f".models/{name}.onnx", runtime="onnxruntime"))
    log.check()
    assert [record.message for record in log.warnings if not ACCEPTED.search(record.message)] == []
