"""Smaller ONNX files for browsers: weights in int8, or everything in float16."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from resource_pool.errors import UnsupportedOperationError, first_line

# Smaller tensors are not worth a scale.
_LEAST_VALUES = 1024
_GREATEST_INT8 = 127


def convert(path: Path, dtype: str) -> None:
    """Write a file in float32 anew in another precision; its inputs and outputs stay as they are.

    Args:
        dtype: "float16", "int8", or "float32", which changes nothing.

    Raises:
        UnsupportedOperationError: it cannot be converted.
    """
    import onnx

    if dtype == "float32":
        return
    beside = path.with_suffix(".part")
    try:
        onnx.save(_CONVERSIONS[dtype](onnx.load(str(path))), str(beside))
    except Exception as error:  # onnx's and onnxruntime's own, and what is not installed
        raise UnsupportedOperationError(
            f"The file cannot be converted to {dtype}: {first_line(error)}."
        ) from error
    beside.replace(path)


def _to_float16(model: Any) -> Any:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(model, keep_io_types=True)


def _to_int8_weights(model: Any) -> Any:
    """Return the model with its large weights in int8, a scale for each channel.

    Only what is stored shrinks: a DequantizeLinear gives the operators the floats that they had.
    onnxruntime's own dynamic quantisation computes in whole numbers, for which neither WebGPU nor
    WebNN has kernels in onnxruntime-web 1.30: every product of matrices went to the CPU.
    """
    import onnx
    from onnx import helper, numpy_helper

    graph = model.graph
    uses = _uses(graph)
    kept, nodes = [], []
    for weight in graph.initializer:
        if not _is_worth_it(weight, uses):
            kept.append(weight)
            continue
        axis = _channel_axis(uses[weight.name])
        values, scales = _quantised(numpy_helper.to_array(weight), axis)
        names = [f"{weight.name}_int8", f"{weight.name}_scale"]
        kept += map(numpy_helper.from_array, (values, scales), names)
        nodes.append(helper.make_node("DequantizeLinear", names, [weight.name], axis=axis))
    nodes += graph.node
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


_CONVERSIONS = {"float16": _to_float16, "int8": _to_int8_weights}


class _Use(NamedTuple):
    operator: str
    position: int
    transposed: bool


def _uses(graph: Any) -> dict[str, list[_Use]]:
    found: dict[str, list[_Use]] = {}
    for node in graph.node:
        transposed = any(one.name == "transB" and one.i for one in node.attribute)
        for position, name in enumerate(node.input):
            found.setdefault(name, []).append(_Use(node.op_type, position, transposed))
    return found


def _is_worth_it(weight: Any, uses: dict[str, list[_Use]]) -> bool:
    from onnx import TensorProto

    size = 1
    for length in weight.dims:
        size *= length
    large = len(weight.dims) > 1 and size >= _LEAST_VALUES
    return large and weight.data_type == TensorProto.FLOAT and weight.name in uses


def _channel_axis(uses: list[_Use]) -> int:
    """Return the axis of the outputs: columns of right factors; rows of tables and filters."""
    columns = (
        use.operator in ("MatMul", "Gemm") and use.position == 1 and not use.transposed
        for use in uses
    )
    return -1 if all(columns) else 0


def _quantised(values: Any, axis: int) -> tuple[Any, Any]:
    """Return whole numbers and the scales along an axis that give the values back."""
    import numpy as np

    others = tuple(index for index in range(values.ndim) if index != axis % values.ndim)
    greatest = np.abs(values).max(others, keepdims=True)
    scales = (greatest / _GREATEST_INT8).astype(np.float32)
    # Of zeros, and of what is so small that a step of it is zero.
    scales[scales == 0] = 1
    return np.round(values / scales).astype(np.int8), scales.reshape(-1)
