"""Times by shape, in bounded memory."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pytest_trtgray.serving.buckets import MIN_PLAIN, OTHER, Bucket, Sample, ShapeBuckets, Shapes, block_of
from tests.unit.helpers import layer


def shapes(rows: int) -> Shapes:
    return (("x", (rows, 8)),)


class TestShapeBuckets:
    def test_the_first_shapes_have_their_own_and_the_rest_share_one(self) -> None:
        buckets = ShapeBuckets(3, 10)
        names = [buckets.of(shapes(rows)).name for rows in range(1, 1000)]

        assert names[:3] == ["x:1x8", "x:2x8", "x:3x8"]
        assert set(names[3:]) == {OTHER}
        assert len(buckets) == 3
        assert [bucket.name for bucket in buckets] == ["x:1x8", "x:2x8", "x:3x8", OTHER]

    def test_many_new_shapes_throw_out_nothing(self) -> None:
        buckets = ShapeBuckets(2, 10)
        first = buckets.of(shapes(1))
        for rows in range(2, 500):
            buckets.of(shapes(rows))
        assert buckets.of(shapes(1)) is first

    def test_shapes_of_the_baseline_have_a_place(self) -> None:
        buckets = ShapeBuckets(2, 10, reserved=[shapes(7)])
        for rows in range(1, 500):
            buckets.of(shapes(rows))
        assert buckets.of(shapes(7)).name == "x:7x8"

    def test_no_own_bucket_at_all(self) -> None:
        assert ShapeBuckets(0, 10).of(shapes(1)).name == OTHER

    def test_nonsense_is_refused(self) -> None:
        with pytest.raises(ValueError, match="limit"):
            ShapeBuckets(-1, 10)


class TestBucket:
    def test_a_block_is_given_once_it_is_full(self) -> None:
        bucket = Bucket("x:1x8", 3)
        samples = [Sample({"a": float(number)}, float(number)) for number in range(7)]
        blocks = [bucket.add(sample) for sample in samples]
        assert blocks == [None, None, samples[:3], None, None, samples[3:6], None]

    def test_other_shapes_make_no_block(self) -> None:
        bucket = Bucket(OTHER, 2)
        assert [bucket.add(Sample({"a": 1.0}, 1.0)) for _ in range(10)] == [None] * 10

    def test_times_are_kept_for_one_block_only(self) -> None:
        bucket = Bucket("x:1x8", 5)
        for number in range(1000):
            bucket.time(float(number))
        assert list(bucket.plain_us) == [995, 996, 997, 998, 999]
        assert bucket.usual_us == pytest.approx(980, abs=1)


class TestBlock:
    LAYERS = (layer("a", "/a"), layer("b", "/b"))

    def test_layers_are_profiled_and_the_engine_is_not(self) -> None:
        samples = [Sample({"a": 10.0, "b": 30.0}, 70.0)] * 20
        block = block_of(samples, [50.0] * MIN_PLAIN, self.LAYERS, clock_mhz=1500.0, disturbed="")

        assert block.session is not None
        assert block.session.layers == ("/a", "/b")
        np.testing.assert_allclose(np.exp(block.session.log_us), [10, 30])
        assert math.exp(block.session.engine_log_us) == pytest.approx(50)
        assert math.exp(block.profiled.engine_log_us) == pytest.approx(70)
        assert block.session.clock_mhz == 1500

    def test_without_unprofiled_times_the_engine_is_not_known(self) -> None:
        block = block_of([Sample({"a": 10.0}, 70.0)] * 20, [50.0] * (MIN_PLAIN - 1), self.LAYERS)
        assert block.session is None
        assert math.exp(block.profiled.engine_log_us) == pytest.approx(70)
