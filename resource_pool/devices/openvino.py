"""Transformers models on OpenVINO: see ``forwards`` for how.

At placement the model runs on its own example inputs and is compared with torch, so that a wrong
answer is an error. Weights that are stored in half precision are converted, and compared, in
float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resource_pool.devices import forwards
from resource_pool.devices.flat import Inputs, difference
from resource_pool.devices.float32 import as_float32, in_float32
from resource_pool.devices.forwards import placement as placement
from resource_pool.devices.openvino_convert import Compiled
from resource_pool.errors import UnsupportedOperationError, WrongResultError

# The greatest difference from torch in float32, as a share of the greatest value.
_TOLERANCES = {"float32": 1e-3, "bfloat16": 6e-2, "float16": 1e-2}


def is_openvino(device: str) -> bool:
    """Whether a name means one of OpenVINO's devices: "openvino", "openvino:0"."""
    return device.partition(":")[0] == OpenVINOForward.backend


def place(model: Any, device: str, dtype: str | None) -> None:
    """Let a model's forward run on an OpenVINO device, and compare it with torch.

    Args:
        model: a transformers model on the CPU; it is set to evaluation.
        device: "openvino" or "openvino:INDEX", the index in OpenVINO's own list.
        dtype: torch's name of the precision to compute in; None: float32.

    Raises:
        UnsupportedOperationError: it cannot be converted, or computes something else there.
    """
    inputs = forwards.examples(model, OpenVINOForward.title)
    forwards.remove(model)
    model.eval()
    forward = OpenVINOForward(model, device if ":" in device else f"{device}:0", dtype or "float32")
    for one, expected in zip(inputs, _expected(model, inputs), strict=True):
        _compare(expected, forward, one)
    forwards.attach(model, forward)


class OpenVINOForward(forwards.Forward):
    """A forward that OpenVINO computes. ``constant_bytes`` is what its weights take there."""

    title = "OpenVINO"
    backend = "openvino"

    def __init__(self, model: Any, device: str, dtype: str) -> None:
        super().__init__(model, device, dtype)
        self.constant_bytes = 0

    def convert(self, model: Any, inputs: Inputs) -> Callable[..., Any]:
        """Compile it."""
        compiled = Compiled(model, inputs, self.device, self.dtype)
        self.constant_bytes += compiled.constant_bytes
        self.dtype = compiled.dtype
        return compiled

    def for_part(self, part: Any) -> OpenVINOForward:
        """Compile a part by itself."""
        return OpenVINOForward(part, self.device, self.dtype)

    def describe(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Count the compiled copies beside the module."""
        size = facts["memory_usage"] + self.constant_bytes
        return facts | {
            "device": self.device,
            "dtype": self.dtype,
            "memory_usage": size,
            "memory_estimation_method": "parameters_buffers_and_compiled_constants",
            "sizes": {"cpu": size},
        }


def _expected(model: Any, examples: list[dict[str, Any]]) -> list[Any]:
    """Return what torch computes in float32, of a copy that is not kept."""
    import torch

    wide = in_float32(model)
    taken = [Inputs(one, OpenVINOForward.title) for one in examples]
    with torch.no_grad():
        return [
            type(wide).forward(wide, **one.rebuilt([*map(as_float32, one.tensors)]))
            for one in taken
        ]


def _compare(expected: Any, forward: OpenVINOForward, inputs: dict[str, Any]) -> None:
    try:
        computed = forward(**inputs)
    except RuntimeError as error:  # what it converts, it does not always compute
        why = str(error).strip().rpartition("\n")[2]
        raise UnsupportedOperationError(f"OpenVINO cannot compute the model: {why}.") from error
    found = difference(expected, computed)
    if not found <= _TOLERANCES[forward.dtype]:
        raise WrongResultError(
            f"OpenVINO computes something else than torch in {forward.dtype} (by "
            f"{found:.2g} of the greatest value)."
        )
