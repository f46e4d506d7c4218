"""Operators that torch 2.13's exporter to ONNX lacks or gets wrong, and transformers' models use.

transformers finds packed sequences by ``(position_ids.diff() != 1).cumsum()``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

OPSET = 18


@contextlib.contextmanager
def known_operators() -> Iterator[None]:
    """Let the exporter know them for a while; for the process's other exports nothing changes."""
    import torch

    symbolics = {"aten::diff": _diff, "aten::cumsum": _cumsum}
    for name, symbolic in symbolics.items():
        torch.onnx.register_custom_op_symbolic(name, symbolic, OPSET)
    try:
        yield
    finally:
        for name in symbolics:
            torch.onnx.unregister_custom_op_symbolic(name, OPSET)


def _diff(graph: Any, values: Any, n: Any, axis: Any, prepend: Any, append: Any) -> Any:
    from torch.onnx import symbolic_helper as helper

    if helper._get_const(n, "i", "n") != 1:
        return helper._unimplemented("aten::diff", "n other than 1")
    axis = helper._get_const(axis, "i", "dim")
    parts = [one for one in (prepend, values, append) if not helper._is_none(one)]
    joined = graph.op("Concat", *parts, axis_i=axis) if len(parts) > 1 else values
    # Slices end before their end: the greatest int64 stands for the last element.
    later = helper._slice_helper(graph, joined, axes=[axis], starts=[1], ends=[2**63 - 1])
    earlier = helper._slice_helper(graph, joined, axes=[axis], starts=[0], ends=[-1])
    return graph.op("Sub", later, earlier)


def _cumsum(graph: Any, values: Any, axis: Any, dtype: Any) -> Any:
    """As the exporter's own, but sums of truth values are whole numbers, as in torch."""
    from torch.onnx import JitScalarType
    from torch.onnx import symbolic_helper as helper

    if not helper._is_none(dtype):
        kind = JitScalarType(helper._get_const(dtype, "i", "dtype"))
        values = graph.op("Cast", values, to_i=kind.onnx_type())
    elif helper._is_bool(values):
        values = graph.op("Cast", values, to_i=JitScalarType.INT64.onnx_type())
    return graph.op("CumSum", values, axis)
