"""Transformers models on OpenVINO: the module stays what it is, and its forward runs there.

A model that is placed here keeps its class, its config and its methods (``generate``,
``save_pretrained``); only ``forward`` is another: it is traced, converted and compiled once for
each set of arguments, and answers with the output types of the original. At placement it runs on
the model's own example inputs and is compared with torch, so that a wrong answer is an error.
"""

from __future__ import annotations

import functools
import inspect
import logging
import threading
import weakref
from typing import Any

from resource_pool.devices import modules
from resource_pool.devices.openvino_convert import Compiled, Inputs
from resource_pool.errors import UnsupportedOperationError

logger = logging.getLogger("resource_pool")

# The greatest difference from torch in float32, as a share of the greatest value.
_TOLERANCES = {"float32": 1e-3, "bfloat16": 6e-2, "float16": 1e-2}
_BACKEND = "openvino"
_ATTRIBUTE = "_rp_openvino"


def is_openvino(device: str) -> bool:
    """Whether a name means one of OpenVINO's devices: "openvino", "openvino:0"."""
    return device.partition(":")[0] == _BACKEND


def placement(model: Any) -> CompiledForward | None:
    """Return how a model was placed here; None for one that was not."""
    found = getattr(model, "__dict__", {}).get(_ATTRIBUTE)
    return found if isinstance(found, CompiledForward) else None


def place(model: Any, device: str, dtype: str | None) -> None:
    """Let a model's forward run on an OpenVINO device, and compare it with torch.

    Args:
        model: a transformers model on the CPU; it is set to evaluation.
        device: "openvino" or "openvino:INDEX", the index in OpenVINO's own list.
        dtype: torch's name of the precision to compute in; None: float32.

    Raises:
        UnsupportedOperationError: it cannot be converted, or computes something else there.
    """
    if getattr(model, "config", None) is None:
        raise UnsupportedOperationError(
            "OpenVINO takes models of transformers: of others, no inputs are known to compare on."
        )
    remove(model)
    model.eval()
    forward = CompiledForward(model, device, dtype or "float32")
    _compare(model, forward)
    _attach(model, forward)
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        # generate() calls the encoder by itself.
        encoder = model.get_encoder()
        _attach(encoder, CompiledForward(encoder, forward.device, forward.dtype))


def _attach(model: Any, forward: CompiledForward) -> None:
    model.forward = forward
    setattr(model, _ATTRIBUTE, forward)
    model.backend = _BACKEND
    config = getattr(model, "generation_config", None)
    if config is not None:
        forward.used_cache, config.use_cache = config.use_cache, False


def remove(model: Any) -> None:
    """Give a model, and its parts, their own forward back."""
    if placement(model) is None:
        return
    for _, module in modules.walk(model):
        forward = placement(module)
        if forward is not None:
            for name in ("forward", "backend", _ATTRIBUTE):
                delattr(module, name)
            if forward.used_cache is not None:
                module.generation_config.use_cache = forward.used_cache


def describe(model: Any, forward: CompiledForward) -> dict[str, Any]:
    """Return the facts of a placed model; the compiled copies are counted beside the module."""
    facts = modules.describe(model)
    size = facts["memory_usage"] + forward.constant_bytes
    return facts | {
        "device": forward.device,
        "dtype": forward.dtype,
        "memory_usage": size,
        "memory_estimation_method": "parameters_buffers_and_compiled_constants",
        "sizes": {"cpu": size},
    }


class CompiledForward:
    """Stands in for a model's ``forward``. ``_lock`` guards ``_compiled``, and compiles one by one.

    It refers to the model weakly: the model refers to it.
    """

    def __init__(self, model: Any, device: str, dtype: str) -> None:
        self.device = device if ":" in device else f"{device}:0"
        self.dtype = dtype
        self.constant_bytes = 0
        self.used_cache: bool | None = None  # what generate() did before
        self._model = weakref.ref(model)
        self._lock = threading.Lock()
        self._compiled: dict[Any, Compiled] = {}
        # What generate() and the caller's tools read, as if it were the method itself.
        self.__signature__ = inspect.signature(functools.partial(type(model).forward, model))
        self.__name__ = "forward"

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Compute on OpenVINO; returns what the model's own forward would, on the CPU.

        Raises:
            UnsupportedOperationError: an argument that cannot be passed there, a conversion that
                fails, or a model in training mode.
        """
        import torch

        model: Any = self._model()
        if torch.jit.is_tracing():  # a larger model that is being compiled calls this part of it
            return type(model).forward(model, *args, **options)
        inputs = Inputs(self._given(args, options))
        with self._lock:
            compiled = self._compiled.get(inputs.signature)
            if compiled is None:
                compiled = self._compile(model, inputs)
                self._compiled[inputs.signature] = compiled
        return compiled(inputs.tensors)

    def _given(self, args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
        """Return what was given by name, None left out."""
        given = dict(self.__signature__.bind(*args, **options).arguments)
        for name, parameter in self.__signature__.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                given |= given.pop(name, {})
        if given.get("use_cache") or given.get("past_key_values") is not None:
            raise UnsupportedOperationError(
                "OpenVINO computes without a key-value cache here: pass use_cache=False, or load "
                "the model on device='cpu'."
            )
        if "use_cache" in self.__signature__.parameters:
            given["use_cache"] = False
        return {name: value for name, value in given.items() if value is not None}

    def _compile(self, model: Any, inputs: Inputs) -> Compiled:
        if model.training:
            raise UnsupportedOperationError(
                "OpenVINO computes inference only; call model.eval() first."
            )
        compiled = Compiled(model, inputs, self.device, self.dtype)
        self.constant_bytes += compiled.constant_bytes
        return compiled


def _compare(model: Any, forward: CompiledForward) -> None:
    """Compare with torch: on the inputs that it is traced with, and on others of another size."""
    import torch

    from resource_pool.weights import example_inputs

    for batch in (2, 1):
        try:
            inputs = example_inputs(model, batch=batch)
        except ValueError as error:
            raise UnsupportedOperationError(
                f"OpenVINO cannot be compared with torch on this model: {error}"
            ) from error
        if "use_cache" in forward.__signature__.parameters:
            inputs["use_cache"] = False
        with torch.no_grad():
            expected = type(model).forward(model, **inputs)
        difference = _difference(expected, forward(**inputs))
        if not difference <= _TOLERANCES[forward.dtype]:
            raise UnsupportedOperationError(
                f"OpenVINO computes something else than torch in {forward.dtype} (by "
                f"{difference:.2g} of the greatest value, at batch {batch})."
            )


def _difference(expected: Any, got: Any) -> float:
    """Return the greatest difference of floating outputs as a share of their greatest value."""
    import torch
    from torch.utils import _pytree

    worst = 0.0
    for ours, theirs in zip(_pytree.tree_leaves(got), _pytree.tree_leaves(expected), strict=True):
        if isinstance(theirs, torch.Tensor) and theirs.is_floating_point() and theirs.numel():
            if ours.shape != theirs.shape:
                return float("inf")
            scale = max(1.0, float(theirs.abs().max()))
            worst = max(worst, float((ours.double() - theirs.double()).abs().max()) / scale)
    return worst
