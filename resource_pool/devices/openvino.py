"""Transformers models on OpenVINO: see ``forwards`` for how.

At placement the model runs on its own example inputs and is compared with torch, so that a wrong
answer is an error. Weights that are stored in half precision are converted, and compared, in
float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resource_pool.devices import forwards
from resource_pool.devices.comparing import LIMITS, compare
from resource_pool.devices.flat import Inputs
from resource_pool.devices.float32 import as_float32, in_float32
from resource_pool.devices.forwards import placement as placement
from resource_pool.devices.openvino_convert import Compiled

# Half precision is closer to float32 here than in browsers.
_LIMITS = {**LIMITS, "float16": LIMITS["float16"]._replace(difference=1e-2)}


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
    for one in inputs:
        forward(**one)  # which compares
    forwards.attach(model, forward, inputs[0])


class OpenVINOForward(forwards.Forward):
    """A forward that OpenVINO computes."""

    title = "OpenVINO"
    backend = "openvino"

    @property
    def constant_bytes(self) -> int:
        """What its weights take there, once for each form that is compiled."""
        forms = list(self._converted.values())
        return sum(form.constant_bytes for form in forms if isinstance(form, Compiled))

    def convert(self, model: Any, inputs: Inputs) -> Callable[..., Any]:
        """Compile it."""
        compiled = Compiled(model, inputs, self.device, self.dtype)
        self.dtype = compiled.dtype
        return compiled

    def on_torch(self, model: Any, inputs: Inputs) -> Any:
        """Return what torch computes in float32, of a copy that is not kept."""
        wide = in_float32(model)
        given = inputs.rebuilt([*map(as_float32, inputs.tensors)])
        return type(wide).forward(wide, **given)

    def compare(self, expected: Any, output: Any, inputs: Inputs) -> None:
        """Hold an answer against torch's in float32."""
        about = f"for inputs of {inputs.sizes}, in {self.dtype}"
        compare(expected, output, _LIMITS[self.dtype], self.title, about)

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
