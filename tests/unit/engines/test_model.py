from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trtgray.engines.dtypes import dtype_name, numpy_dtype
from pytest_trtgray.engines.model import (
    DTYPE_BITS,
    PRECISION_ORDER,
    Layer,
    LayerTensor,
    TensorSpec,
    canonical_name,
    coarsest,
)


class TestPrecision:
    @pytest.mark.parametrize(
        ("dtypes", "expected"),
        [
            (["float32", "int64", "bool"], "float32"),
            (["float16", "float32"], "float16"),
            (["float16", "bfloat16"], "float16"),
            (["int8", "float16"], "int8"),
            (["uint8"], "int8"),
            (["fp8", "int8"], "int8"),
            (["int4", "fp8"], "int4"),
            (["int32"], ""),
            ([], ""),
        ],
    )
    def test_coarsest(self, dtypes: list[str], expected: str) -> None:
        assert coarsest(dtypes) == expected

    @given(st.lists(st.sampled_from(PRECISION_ORDER), min_size=1))
    def test_the_order_of_types_does_not_matter(self, dtypes: list[str]) -> None:
        assert coarsest(dtypes) == coarsest(sorted(dtypes)) == coarsest(reversed(dtypes))

    def test_bits_never_grow_along_the_order(self) -> None:
        bits = [DTYPE_BITS[name] for name in PRECISION_ORDER]

        assert bits == sorted(bits, reverse=True)

    @pytest.mark.parametrize(
        ("kind", "read", "written", "expected"),
        [
            ("gemm", ["int8"], ["float32"], "int8"),
            ("QuantizeLinear", ["float32"], ["int8"], "float32"),
            ("DequantizeLinear", ["int8"], ["float16"], "float16"),
            ("kgen", ["int64"], ["float16"], "float16"),
            ("shape_call", [], [], ""),
        ],
    )
    def test_of_a_layer(self, kind: str, read: list[str], written: list[str], expected: str) -> None:
        inputs, outputs = (tuple(LayerTensor("t", dtype) for dtype in dtypes) for dtypes in (read, written))

        assert Layer("l", kind, inputs=inputs, outputs=outputs).precision == expected

    def test_weights_count(self) -> None:
        layer = Layer("l", "gemm", inputs=(LayerTensor("x", "float16"),), constants=(LayerTensor("w", "int4"),))

        assert layer.precision == "int4"


class TestNames:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("__myl_FcAdd_myl0_7", "__myl_FcAdd"),
            ("block0/fc/MatMul [profile 1]_myl1_1", "block0/fc/MatMul"),
            ("__mye942_0_myl0_0", "__mye_0"),
            ("/conv1/Conv + /relu/Relu [profile 2]", "/conv1/Conv + /relu/Relu"),
            ("/conv1/Conv", "/conv1/Conv"),
        ],
    )
    def test_canonical(self, name: str, expected: str) -> None:
        assert canonical_name(name) == expected

    @given(st.text())
    def test_canonical_twice_is_canonical_once(self, name: str) -> None:
        once = canonical_name(f"{name}_myl0_3")

        assert once == canonical_name(f"{name}_myl1_44")

    def test_title(self) -> None:
        assert Layer("__myl_Move_myl0_1", "kgen").title == "__myl_Move"
        assert Layer("x", "kgen", frozenset("ba")).title == "a + b"
        assert Layer("x", "kgen", frozenset("abcde")).title == "a + b + c (+2 nodes)"

    def test_a_tensor_in_words(self) -> None:
        assert str(TensorSpec("x", "float32", ("batch", 3))) == "x:batchx3 float32"


class TestDtypes:
    @pytest.mark.parametrize("name", [*DTYPE_BITS, "int32", "int64", "bool"])
    def test_round_trip(self, name: str) -> None:
        assert dtype_name(numpy_dtype(name)) == name

    def test_small_floats_are_ml_dtypes(self) -> None:
        assert numpy_dtype("bfloat16") == np.dtype(ml_dtypes.bfloat16)
        assert np.zeros(2, numpy_dtype("fp8")).dtype == np.dtype(ml_dtypes.float8_e4m3fn)

    def test_an_unknown_name(self) -> None:
        with pytest.raises(TypeError):
            numpy_dtype("quaternion")
