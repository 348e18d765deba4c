"""The ``trt_*`` fixtures: thin; what they do lives in the rooms behind them.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_trtgray.state import trt_session

if TYPE_CHECKING:
    from pytest_trtgray.engines.base import Engine
    from pytest_trtgray.engines.model import DeviceInfo
    from pytest_trtgray.instruments import (
        Comparer,
        EngineFactory,
        LogReader,
        Metamorphic,
        Profiler,
        QuantisationInspector,
        ShadowFactory,
        StructureOf,
    )


@pytest.fixture(scope="session")
def trt_device(pytestconfig: pytest.Config) -> DeviceInfo:
    """The device under test: the GPU of ``--trt-device``, or this machine's processor where there is none."""
    from pytest_trtgray.engines.device import find_cpu, find_gpu

    return find_gpu(trt_session(pytestconfig).settings.device) or find_cpu()


@pytest.fixture(scope="session")
def trt_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """The engine of ``--trt-engine``; a test that uses it runs once for each."""
    session = trt_session(request.config)
    if not hasattr(request, "param"):
        from pytest_trtgray.outcomes import skip_test

        skip_test("trt_engine: no engine given; run pytest --trt-engine=model.onnx")
    session.current = session.engine_of(request.param)
    yield session.current
    session.current = None


@pytest.fixture(scope="session")
def trt_against(pytestconfig: pytest.Config) -> Engine:
    """The engine of ``--trt-against``, to measure ``trt_engine`` against: ``trt_profiler.against(...)``."""
    session = trt_session(pytestconfig)
    if session.settings.against is None:
        from pytest_trtgray.outcomes import skip_test

        skip_test("trt_against: no other engine given; run pytest --trt-engine=new.onnx --trt-against=old.onnx")
    return session.engine_of(session.settings.against)


@pytest.fixture(scope="session")
def trt_build(pytestconfig: pytest.Config) -> EngineFactory:
    """Build an engine from an ONNX file, or load an engine file, once a run: ``trt_build("model.onnx")``."""
    from pytest_trtgray.instruments import EngineFactory

    return EngineFactory(trt_session(pytestconfig))


@pytest.fixture(scope="session")
def trt_shadow(pytestconfig: pytest.Config) -> ShadowFactory:
    """The FP32 reference: ``trt_shadow.run(feed)`` of ``trt_engine``'s model, ``trt_shadow("model.onnx")``."""
    from pytest_trtgray.instruments import ShadowFactory

    return ShadowFactory(trt_session(pytestconfig))


@pytest.fixture(scope="session")
def trt_log(pytestconfig: pytest.Config) -> LogReader:
    """What the runtime said while it built and loaded an engine: ``trt_log(engine).check()``."""
    from pytest_trtgray.instruments import LogReader

    return LogReader(trt_session(pytestconfig))


@pytest.fixture
def trt_profiler(request: pytest.FixtureRequest) -> Profiler:
    """Measure an engine by layer: ``trt_profiler(engine, shapes={"x": (8, 3, 224, 224)})``."""
    from pytest_trtgray.instruments import Profiler

    session = trt_session(request.config)
    if session.settings.timing == "off":
        from pytest_trtgray.outcomes import skip_test

        skip_test("trt_profiler: switched off by --trt-timing=off")
    return Profiler(session, request.node)


@pytest.fixture
def trt_compare(request: pytest.FixtureRequest) -> Comparer:
    """Compare an engine's outputs with a reference: ``trt_compare(engine, shadow).check()``."""
    from pytest_trtgray.instruments import Comparer

    return Comparer(trt_session(request.config), request.node)


@pytest.fixture
def trt_quantisation(request: pytest.FixtureRequest) -> QuantisationInspector:
    """What the scales of a Q/DQ model do to real values: ``trt_quantisation(engine, feeds=[...]).check()``."""
    from pytest_trtgray.instruments import QuantisationInspector

    return QuantisationInspector(trt_session(request.config), request.node)


@pytest.fixture
def trt_metamorphic(request: pytest.FixtureRequest) -> Metamorphic:
    """Check an engine against itself, without a reference: ``trt_metamorphic(engine).check()``."""
    from pytest_trtgray.instruments import Metamorphic

    return Metamorphic(trt_session(request.config), request.node)


@pytest.fixture
def trt_structure(request: pytest.FixtureRequest) -> Callable[[Engine], StructureOf]:
    """What an engine shows of itself: ``trt_structure(engine).check()`` against its baseline."""
    from pytest_trtgray.instruments import StructureOf

    session = trt_session(request.config)
    return lambda engine: StructureOf(session, request.node, engine)
