"""From a forward to an ONNX file, by the exporter that traces TorchScript.

torch's newer exporter gave files that one browser engine computed wrongly without an error.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from resource_pool.devices import modules, onnx_precision
from resource_pool.devices.flat import Inputs, Outputs, flat_forward
from resource_pool.devices.onnx_operators import OPSET, known_operators
from resource_pool.devices.tracing import tracing
from resource_pool.errors import UnsupportedOperationError, first_line

# What one ONNX file can hold: the format's own limit of a message.
_MOST_BYTES = (1 << 31) - 1


class Graph(NamedTuple):
    """What a file has: inputs by name, how many nodes of each operator, and its weights' sizes.

    ``changing`` are the outputs, by number, whose second axis has no fixed length.
    """

    inputs: frozenset[str]
    operators: dict[str, int]
    weights_bytes: int
    largest_tensor_bytes: int
    changing: frozenset[int] = frozenset()


class Exported:
    """A forward as an ONNX file.

    Args:
        names: of the file's inputs and outputs; None: numbers, since arguments may be nested.

    Attributes:
        path: the file.
        inputs: its inputs' names, in the order of the forward's tensors; None for a tensor that
            the result does not depend on, which the file does not have.
        axes: the names of the dimensions that may change, by (index of the input, axis).
        outputs: how to put the output together.
        graph: what the file has.
        float32_bytes: the size of the file in float32, whatever it was converted to.
    """

    def __init__(
        self,
        model: Any,
        inputs: Inputs,
        path: Path,
        dtype: str = "float32",
        names: tuple[Sequence[str], Sequence[str]] | None = None,
    ) -> None:
        _require_onnx()
        if modules.describe(model)["memory_usage"] > _MOST_BYTES:
            raise UnsupportedOperationError("The model is too large for one ONNX file (2 GiB).")
        self.path = path
        numbered = [f"input_{index}" for index in range(len(inputs.tensors))]
        given, answers = names or (numbered, ())
        self.axes = {
            (index, axis): f"{given[index]}_{axis}" for index, axis in inputs.changing_axes()
        }
        self.outputs = _export(model, inputs, (given, answers), self.axes, path)
        self.float32_bytes = path.stat().st_size
        onnx_precision.convert(path, dtype)
        self.graph = _read(path)
        self.inputs = [name if name in self.graph.inputs else None for name in given]


def _export(
    model: Any,
    inputs: Inputs,
    names: tuple[Sequence[str], Sequence[str]],
    axes: dict[tuple[int, int], str],
    path: Path,
) -> Outputs:
    import torch

    flat = flat_forward(model, inputs)
    dynamic: dict[str, dict[int, str]] = {}
    for (index, axis), name in axes.items():
        dynamic.setdefault(names[0][index], {})[axis] = name
    try:
        with tracing(), known_operators(), _failures_untold(), torch.no_grad():
            torch.onnx.export(
                flat,
                tuple(inputs.tensors),
                str(path),
                input_names=list(names[0]),
                output_names=list(names[1]) or None,
                dynamic_axes=dynamic,
                opset_version=OPSET,
                dynamo=False,
            )
    except Exception as error:
        raise UnsupportedOperationError(
            f"The model cannot be exported to ONNX: {first_line(error)}."
        ) from error
    outputs: Outputs = flat.outputs
    return outputs


@contextlib.contextmanager
def _failures_untold() -> Iterator[None]:
    """Keep back the graph, all of which the exporter prints on stdout where it fails."""
    import torch

    said = getattr(torch._C, "_jit_onnx_log", None)
    torch._C._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        torch._C._jit_onnx_log = said


def _require_onnx() -> None:
    if importlib.util.find_spec("onnx") is None:
        raise UnsupportedOperationError(
            "The export for browsers needs onnx; run `pip install 'rp-toolchain[web]'`."
        )


def _read(path: Path) -> Graph:
    import onnx

    graph = onnx.load(str(path)).graph
    sizes = [
        math.prod(one.dims) * onnx.helper.tensor_dtype_to_np_dtype(one.data_type).itemsize
        for one in graph.initializer
    ]
    operators = Counter(node.op_type for node in graph.node)
    names = frozenset(one.name for one in graph.input)
    changing = frozenset(
        index for index, one in enumerate(graph.output) if _is_changing(one.type.tensor_type.shape)
    )
    return Graph(names, dict(operators), sum(sizes), max(sizes, default=0), changing)


def _is_changing(shape: Any) -> bool:
    """Whether the second axis has a name and not a length: the exporter knows of none."""
    return len(shape.dim) > 1 and not shape.dim[1].HasField("dim_value")
