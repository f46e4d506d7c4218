"""From a torch module to a model that OpenVINO runs: traced, converted, compiled."""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Sequence
from typing import Any

from resource_pool.devices.flat import Inputs, as_array, flat_forward
from resource_pool.devices.float32 import as_float32, in_float32
from resource_pool.devices.tracing import tracing
from resource_pool.errors import UnsupportedOperationError, first_line

# OpenVINO's own default on a CPU may be bf16, which differs in the third digit.
_HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_DTYPES = {hint: dtype for dtype, hint in _HINTS.items()}
_PRECISION = "INFERENCE_PRECISION_HINT"
_TELEMETRY = "openvino_telemetry"
_OPERATIONS = re.compile(
    r"(?:No conversion rule found for operations|Conversion is failed for): ([^\n]+)"
)


class Compiled:
    """A forward compiled for one set of arguments.

    Attributes:
        dtype: torch's name of the precision that it computes in: a device that lacks the one that
            was asked for takes another.

    Raises:
        UnsupportedOperationError: the model cannot be converted or compiled.
    """

    def __init__(self, model: Any, inputs: Inputs, device: str, dtype: str) -> None:
        # In bfloat16 OpenVINO 2026.4 computes something else, for as little as one linear layer.
        flat = flat_forward(in_float32(model), inputs)
        converted = _converted(flat, tuple(map(as_float32, inputs.tensors)))
        self._outputs = flat.outputs
        self._model = _compiled(converted, device, dtype)
        self.dtype = _computes_in(self._model, dtype)
        constants = (op for op in converted.get_ops() if op.get_type_name() == "Constant")
        self.constant_bytes = sum(constant.get_byte_size() for constant in constants)

    def __call__(self, tensors: Sequence[Any]) -> Any:
        """Return the output, put together as the model's own forward does."""
        # A request of its own: the compiled model's shared one serves one thread.
        arrays = [as_array(as_float32(tensor)) for tensor in tensors]
        try:
            answer = self._model.create_infer_request().infer(arrays)
        except RuntimeError as error:  # what it converts, it does not always compute
            why = str(error).strip().rpartition("\n")[2].rstrip(".")
            raise UnsupportedOperationError(f"OpenVINO cannot compute the model: {why}.") from error
        return self._outputs.rebuilt([array.copy() for array in answer.values()])


def _converted(flat: Any, example: tuple[Any, ...]) -> Any:
    """Return OpenVINO's form of a module, traced with example inputs."""
    import torch

    openvino = import_openvino()
    try:
        with tracing(), torch.no_grad():
            model = openvino.convert_model(
                _traced(flat, example), example_input=example, extension=[_diff_extension()]
            )
    except Exception as error:
        found = _OPERATIONS.findall(str(error))
        what = f"no conversion for {', '.join(found)}" if found else first_line(error)
        raise UnsupportedOperationError(f"OpenVINO cannot convert the model: {what}.") from error
    _let_blind_positions_be_zero(model)
    return model


def _traced(flat: Any, example: tuple[Any, ...]) -> Any:
    """Return a module traced once, and not a second time for comparison: we compare ourselves.

    OpenVINO before 2025 traces the module itself.
    """
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    if "trace_kwargs" not in inspect.signature(TorchScriptPythonDecoder.__init__).parameters:
        return flat
    return TorchScriptPythonDecoder(
        flat, example_input=example, trace_kwargs={"check_trace": False}
    )


def _let_blind_positions_be_zero(model: Any) -> None:
    """Give positions that attention lets see nothing the zeros that torch gives, and not NaN.

    Padding on the left has such positions. A NaN that comes from elsewhere stays one.
    """
    import numpy as np
    from openvino import opset13

    for attention in model.get_ops():
        if attention.get_type_name() != "ScaledDotProductAttention":
            continue
        mask = attention.input_value(3) if attention.get_input_size() > 3 else None
        if mask is None or mask.get_element_type().get_type_name() != "boolean":
            continue
        result = attention.output(0)
        users = result.get_target_inputs()
        sees = opset13.reduce_logical_or(mask, np.array([-1]), keep_dims=True)
        # Asking for NaN also keeps the CPU plugin from fusing the choice with what follows, which
        # in 2026.4 chooses wrongly (for a mask with one head, and several in the values).
        blind = opset13.logical_and(opset13.is_nan(result), opset13.logical_not(sees))
        zero = opset13.constant(0, result.get_element_type())
        mended = opset13.select(blind, zero, result)
        for user in users:
            user.replace_source_output(mended.output(0))


def _compiled(converted: Any, device: str, dtype: str) -> Any:
    core = _core()
    _, _, index = device.partition(":")
    name = core.available_devices[int(index or 0)]
    try:
        return core.compile_model(converted, name, {_PRECISION: _HINTS[dtype]})
    except RuntimeError as error:
        raise UnsupportedOperationError(
            f"OpenVINO cannot compile the model: {first_line(error)}."
        ) from error


def _computes_in(compiled: Any, dtype: str) -> str:
    """Return torch's name of what a model computes in; what was asked for where it is not said."""
    try:
        said = compiled.get_property(_PRECISION).get_type_name()
    except (RuntimeError, AttributeError):  # a device without the property
        return dtype
    return _DTYPES.get(said, dtype)


@functools.cache
def _core() -> Any:
    return import_openvino().Core()


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which nobody here was asked about.

    It sends over the network what is converted, and at the end of a process waits a second for an
    answer. OpenVINO does without it where it is not installed, and what is None is not. Whoever has
    imported OpenVINO before has it as they wish.
    """
    absent = object()
    before = sys.modules.get(_TELEMETRY, absent)
    if before is absent:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        if before is absent:
            sys.modules.pop(_TELEMETRY, None)
    return openvino


@functools.cache
def _diff_extension() -> Any:
    """Return the conversion of ``torch.diff``, which OpenVINO 2026.4 lacks.

    transformers finds packed sequences by it wherever position ids are given, as generate() does.
    """
    import numpy as np
    from openvino import opset13
    from openvino.frontend.pytorch import ConversionExtension

    def convert(node: Any) -> Any:
        values, dimension = node.get_input(0), int(node.get_values_from_const_input(2))
        prepended = node.get_input(3)
        if "Framework" not in prepended.get_node().get_type_name():  # which stands for None
            values = opset13.concat([prepended, values], dimension)
        step, axes = np.array([1]), np.array([dimension])
        later = opset13.slice(values, step, np.array([2**31 - 1]), step, axes)
        earlier = opset13.slice(values, np.array([0]), np.array([-1]), step, axes)
        return [opset13.subtract(later, earlier).output(0)]

    return ConversionExtension("aten::diff", convert)
