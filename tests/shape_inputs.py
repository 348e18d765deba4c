"""Models with inputs whose values are sizes or positions, and models where they only look like it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from tests.models import Graph

INT64, INT32, FLOAT, BOOL = TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT, TensorProto.BOOL


def expanding(path: Path) -> Path:
    """``y = expand(x, s) * sum(s)`` of static ``x`` (1, 4): any ``s`` = (n, 4) will do."""
    g = Graph()
    s = g.input("s", [2], INT64)
    wide = g.add("Expand", [g.input("x", [1, 4]), s], "/Expand")
    total = g.add("ReduceSum", [g.add("Cast", [s], "/Cast", to=FLOAT)], "/ReduceSum", keepdims=0)
    g.add("Mul", [wide, total], "/Mul", "y")
    g.output("y", ["rows", 4])
    return g.save(path)


def counting(path: Path, dtype: int = INT64) -> Path:
    """``y = x + [0, 1, ... n)`` over (batch, n) for a scalar ``n`` and ``x`` (batch, 1)."""
    g = Graph()
    zero, one = (g.constant(name, np.asarray(value, helper.tensor_dtype_to_np_dtype(dtype))) for name, value in
                 (("zero", 0), ("one", 1)))  # fmt: skip
    steps = g.add("Range", [zero, g.input("n", [], dtype), one], "/Range")
    g.add("Add", [g.input("x", ["batch", 1]), g.add("Cast", [steps], "/Cast", to=FLOAT)], "/Add", "y")
    g.output("y", ["batch", "n"])
    return g.save(path)


def ints(graph: Graph, name: str, values: Any) -> str:
    return graph.constant(name, np.asarray(values, np.int64))


def reshape(g: Graph) -> None:
    g.add("Reshape", [g.input("x", ["b", 12]), g.input("s", [2], INT64)], "/Reshape", "y")


def expand(g: Graph) -> None:
    g.add("Expand", [g.input("x", [1, 4]), g.input("s", [2], INT64)], "/Expand", "y")


def tile(g: Graph) -> None:
    g.add("Tile", [g.input("x", ["b", 4]), g.input("s", [2], INT64)], "/Tile", "y")


def constant_of_shape(g: Graph) -> None:
    value = helper.make_tensor("v", FLOAT, [1], [1.0])
    made = g.add("ConstantOfShape", [g.input("s", [2], INT64)], "/ConstantOfShape", value=value)
    g.add("Add", [g.input("x", ["b", 4]), made], "/Add", "y")


def _slice(g: Graph, place: int) -> None:
    operands = [g.input("x", ["b", 8]), ints(g, "start", [0]), ints(g, "end", [8]), ints(g, "axes", [1])]
    operands.append(ints(g, "steps", [1]))
    operands[place] = g.input("s", [1], INT64)
    g.add("Slice", operands, "/Slice", "y")


def slice_start(g: Graph) -> None:
    _slice(g, 1)


def slice_end(g: Graph) -> None:
    _slice(g, 2)


def slice_step(g: Graph) -> None:
    _slice(g, 4)


def range_limit(g: Graph) -> None:
    r = g.add("Range", [ints(g, "zero", 0), g.input("s", [], INT64), ints(g, "one", 1)], "/Range")
    g.add("Cast", [r], "/Cast", "y", to=FLOAT)


def range_limit_int32(g: Graph) -> None:
    zero, one = g.constant("zero", np.int32(0)), g.constant("one", np.int32(1))
    r = g.add("Range", [zero, g.input("s", [], INT32), one], "/Range")
    g.add("Cast", [r], "/Cast", "y", to=FLOAT)


def range_of_floats(g: Graph) -> None:
    limit = g.add("Cast", [g.input("s", [], INT64)], "/Cast", to=FLOAT)
    g.add("Range", [g.constant("zero", np.float32(0)), limit, g.constant("one", np.float32(1))], "/Range", "y")


def resize(g: Graph) -> None:
    g.add("Resize", [g.input("x", ["b", 1, 4, 4]), "", "", g.input("s", [4], INT64)], "/Resize", "y", mode="nearest")


def pad(g: Graph) -> None:
    g.add("Pad", [g.input("x", ["b", 4]), g.input("s", [4], INT64)], "/Pad", "y")


def one_hot(g: Graph) -> None:
    values = g.constant("values", np.array([0, 1], np.float32))
    g.add("OneHot", [g.input("x", ["b"], INT64), g.input("s", [], INT64), values], "/OneHot", "y")


def top_k(g: Graph) -> None:
    g.input("x", ["b", 8])
    g.input("s", [1], INT64)
    g.nodes.append(helper.make_node("TopK", ["x", "s"], ["y", "i"], name="/TopK"))


def where_expand(g: Graph) -> None:
    """What torch exports for ``expand(sizes)``."""
    s = g.input("s", [2], INT64)
    kept = g.add("Equal", [s, ints(g, "minus", [-1, -1])], "/Equal")
    sizes = g.add("Where", [kept, ints(g, "ones", [1, 1]), s], "/Where")
    g.add("Expand", [g.input("x", [1, 4]), sizes], "/Expand", "y")


def concat_reshape(g: Graph) -> None:
    sizes = g.add("Concat", [g.input("s", [1], INT64), ints(g, "rest", [4])], "/Concat", axis=0)
    g.add("Reshape", [g.input("x", ["b", 12]), sizes], "/Reshape", "y")


def arithmetic(op: str, *constants: int, **attributes: Any) -> Callable[[Graph], None]:
    def make(g: Graph) -> None:
        operands = [ints(g, f"c{index}", [value] * 2) for index, value in enumerate(constants)]
        sizes = g.add(op, [g.input("s", [2], INT64), *operands], f"/{op}", **attributes)
        g.add("Expand", [g.input("x", [1, 4]), sizes], "/Expand", "y")

    make.__name__ = op.lower()
    return make


def product(g: Graph) -> None:
    one = g.add("ReduceProd", [g.input("s", [2], INT64)], "/ReduceProd", keepdims=1)
    sizes = g.add("Concat", [one, ints(g, "rest", [4])], "/Concat", axis=0)
    g.add("Expand", [g.input("x", [1, 4]), sizes], "/Expand", "y")


def scaled_in_floats(g: Graph) -> None:
    f = g.add("Cast", [g.input("s", [2], INT64)], "/Cast", to=FLOAT)
    f = g.add("Floor", [g.add("Mul", [f, g.constant("two", np.float32(2))], "/Mul")], "/Floor")
    g.add("Expand", [g.input("x", [1, 4]), g.add("Cast", [f], "/Cast_1", to=INT64)], "/Expand", "y")


def scatter(g: Graph) -> None:
    sizes = g.add("ScatterND", [ints(g, "base", [1, 12]), ints(g, "at", [[0]]), g.input("s", [1], INT64)], "/Scatter")
    g.add("Expand", [g.input("x", ["b", 12]), sizes], "/Expand", "y")


def loop_trips(g: Graph) -> None:
    state: list[int | str] = ["b", 4]
    info = helper.make_tensor_value_info
    ins = [info("i", INT64, []), info("go", BOOL, []), info("carried", FLOAT, state)]
    outs = [info("go_on", BOOL, []), info("next", FLOAT, state)]
    nodes = [
        helper.make_node("Identity", ["go"], ["go_on"], name="/body/Identity"),
        helper.make_node("Tanh", ["carried"], ["next"], name="/body/Tanh"),
    ]
    operands = [g.input("s", [], INT64), g.constant("start", np.array(True)), g.input("x", state)]
    g.add("Loop", operands, "/Loop", "y", body=helper.make_graph(nodes, "body", ins, outs))


def inside_of_if(g: Graph) -> None:
    g.input("x", [1, 4])
    g.input("s", [2], INT64)

    def branch(name: str, op: str) -> Any:
        out = helper.make_tensor_value_info(f"{name}_y", FLOAT, ["p", "q"])
        return helper.make_graph([helper.make_node(op, ["x", "s"], [f"{name}_y"], name=f"/{name}")], name, [], [out])

    g.add(
        "If", [g.input("c", [], BOOL)], "/If", "y", then_branch=branch("a", "Expand"), else_branch=branch("b", "Tile")
    )


def gathered_shape(g: Graph) -> None:
    size = g.add("Gather", [g.add("Shape", [g.input("x", ["b", 12])], "/Shape"), g.input("s", [], INT64)], "/Gather")
    sizes = g.add("Unsqueeze", [size, ints(g, "zero", [0])], "/Unsqueeze")
    g.add("ConstantOfShape", [sizes], "/Cos", "y", value=helper.make_tensor("v", FLOAT, [1], [1.0]))


def size_and_data(g: Graph) -> None:
    s = g.input("s", [2], INT64)
    wide = g.add("Expand", [g.input("x", [1, 4]), s], "/Expand")
    total = g.add("ReduceSum", [g.add("Cast", [s], "/Cast", to=FLOAT)], "/ReduceSum", keepdims=0)
    g.add("Mul", [wide, total], "/Mul", "y")


def only_its_shape(g: Graph) -> None:
    sizes = g.add("Concat", [g.add("Shape", [g.input("s", [2], INT64)], "/Shape"), ints(g, "four", [4])], "/C", axis=0)
    g.add("Expand", [g.input("x", [1, 4]), sizes], "/Expand", "y")


def tokens(g: Graph) -> None:
    g.add("Gather", [g.weight("table", 50, 8, scale=1.0), g.input("s", [6], INT64)], "/Gather", "y")


def one_token(g: Graph) -> None:
    e = g.add("Gather", [g.weight("table", 50, 8, scale=1.0), g.input("s", [], INT64)], "/Gather")
    g.add("Reshape", [e, ints(g, "shape", [1, 8])], "/Reshape", "y")


def token_times_two(g: Graph) -> None:
    twice = g.add("Mul", [g.input("s", [6], INT64), ints(g, "two", [2])], "/Mul")
    g.add("Gather", [g.weight("table", 50, 8, scale=1.0), twice], "/Gather", "y")


def embedding_that_is_sliced(g: Graph) -> None:
    e = g.add("Gather", [g.weight("table", 50, 8, scale=1.0), g.input("s", [6], INT64)], "/Gather")
    g.add("Slice", [e, ints(g, "start", [1]), ints(g, "end", [3])], "/Slice", "y")


def step_as_data(g: Graph) -> None:
    f = g.add("Cast", [g.input("s", [], INT64)], "/Cast", to=FLOAT)
    g.add("Mul", [g.input("x", ["b", 4]), f], "/Mul", "y")


def mask(g: Graph) -> None:
    f = g.add("Cast", [g.input("s", [4], INT64)], "/Cast", to=FLOAT)
    g.add("Mul", [g.input("x", ["b", 4]), f], "/Mul", "y")


SIZES = (
    reshape, expand, tile, constant_of_shape, slice_start, slice_end, slice_step, range_limit, range_limit_int32,
    range_of_floats, resize, pad, one_hot, top_k, where_expand, concat_reshape, arithmetic("Mod", 7),
    arithmetic("Neg"), arithmetic("Abs"), arithmetic("Max", 1), arithmetic("Add", 1), arithmetic("Div", 2),
    arithmetic("Identity"), product, scaled_in_floats, inside_of_if, gathered_shape, size_and_data,
)  # fmt: skip
"""The values of ``s`` decide on a shape."""
DATA = (
    scatter, loop_trips, only_its_shape, tokens, one_token, token_times_two, step_as_data, mask,
)  # fmt: skip
"""The values of ``s`` do not, or TensorRT does not call them a shape."""
NOT_PARSED = (embedding_that_is_sliced,)
"""What the parser of TensorRT refuses; the values of ``s`` are data."""


def save(make: Callable[[Graph], None], path: Path) -> Path:
    """The model that ``make`` describes."""
    graph = Graph()
    make(graph)
    graph.output("y", ["p"] if "range" in make.__name__ or make is gathered_shape else ["p", "q"])
    return graph.save(path)
