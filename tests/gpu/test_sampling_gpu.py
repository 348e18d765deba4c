"""``SamplingProfiler`` on TensorRT: contexts that one thread opens, others use, and a third reads and closes."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest

from pytest_trtgray import SamplingProfiler
from pytest_trtgray.engines.base import Engine
from pytest_trtgray.engines.flavour import shares_profiles
from pytest_trtgray.errors import EngineError, ShapeError
from pytest_trtgray.serving.buckets import Block
from pytest_trtgray.serving.policy import CANARY, OFF, Policy
from tests.request_threads import MAX_ROWS, ask_while_policies_change

ANY_COST = Policy("half", 0.5, None)


@pytest.fixture
def contexts(runtime: str) -> None:
    if not shares_profiles(runtime):  # type: ignore[arg-type]
        pytest.skip("needs several execution contexts at a time: TensorRT 10 or newer")


def feed(rows: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((rows, 3, 16, 16)).astype(np.float32)}


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """TensorRT for RTX may take other kernels for a shape that it has seen before."""
    np.testing.assert_allclose(found["logits"], wanted["logits"], rtol=1e-2, atol=1e-2)


@pytest.mark.usefixtures("contexts")
@pytest.mark.parametrize("policy", [OFF, ANY_COST, CANARY], ids=lambda policy: policy.name)
def test_answers_are_those_of_the_engine(net: Engine, policy: Policy) -> None:
    with SamplingProfiler(net, feed(), policy=policy, iterations=5) as profiler:
        for seed in range(24):
            rows = 1 + seed % 4
            assert_same(profiler.run(feed(rows, seed)), net.run(feed(rows, seed)))
            profiler.settle()
        status = profiler.status
        assert status.served == 24
        assert (status.profiled > 0) == (policy.rate > 0)
        with pytest.raises(ShapeError, match="profile 0 allows"):
            profiler.run(feed(4000))


@pytest.mark.usefixtures("contexts")
def test_sessions_have_layers_and_engine(net: Engine) -> None:
    blocks: list[tuple[str, Block]] = []
    with SamplingProfiler(
        net, feed(), policy=ANY_COST, iterations=20, on_block=lambda name, block: blocks.append((name, block))
    ) as profiler:
        for _ in range(200):
            profiler.run(feed())
            profiler.settle()
        profiler.flush()
        print(profiler.status)
    name, block = blocks[0]
    assert name == "x:8x3x16x16"
    assert block.session is not None
    assert block.session.iterations == 20
    assert all(math.isfinite(value) for value in block.session.log_us)
    assert any("/stem/Conv" in key for key in block.session.layers), block.session.layers


@pytest.mark.usefixtures("contexts")
def test_from_many_threads_while_policies_change(net: Engine) -> None:
    """PyCUDA keeps a stack of contexts for each thread; none may be left on it, and none be missing."""
    wanted = {rows: net.run(feed(rows)) for rows in range(1, MAX_ROWS + 1)}

    def ask(rows: int) -> None:
        assert_same(profiler.run(feed(rows)), wanted[rows])

    with SamplingProfiler(net, feed(), policy=OFF, contexts=2, iterations=7, max_buckets=2) as profiler:
        assert ask_while_policies_change(profiler, ask) == []
        assert profiler.status.served == 240


@pytest.mark.usefixtures("contexts")
def test_in_an_event_loop(net: Engine) -> None:
    async def both(profiler: SamplingProfiler) -> list[dict[str, np.ndarray]]:
        return await asyncio.gather(*(profiler.run_async(feed(seed=seed)) for seed in range(20)))

    with SamplingProfiler(net, feed(), policy=ANY_COST, contexts=2) as profiler:
        for seed, answer in enumerate(asyncio.run(both(profiler))):
            assert_same(answer, net.run(feed(seed=seed)))


def test_where_contexts_share_no_profiles(net: Engine, runtime: str, caplog: pytest.LogCaptureFixture) -> None:
    """Requests are answered all the same, and it is said why none is profiled."""
    if shares_profiles(runtime):  # type: ignore[arg-type]
        pytest.skip("needs a TensorRT before 10")
    wanted = net.run(feed())
    with SamplingProfiler(net, feed(), policy=CANARY, iterations=5) as profiler:
        for _ in range(5):
            assert_same(profiler.run(feed()), wanted)
            profiler.settle()
        assert (profiler.status.served, profiler.status.profiled) == (5, 0)
    assert "has one execution context at a time" in caplog.text
    with pytest.raises(EngineError, match="has one execution context at a time"):
        SamplingProfiler(net, feed(), contexts=2)
    assert_same(net.run(feed()), wanted)
