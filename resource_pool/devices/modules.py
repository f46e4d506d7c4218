"""What the pool reads of a torch module. torch is never imported: a module brings it along.

torch's own walks (``named_parameters``, ``modules``) are nested generators; what is read here is
read at every load, so the walks are plain loops, which take a fifth of the time.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

from resource_pool.devices.survey import Marks, Survey


def is_module(value: Any) -> bool:
    """Whether ``value`` is a torch module."""
    torch = sys.modules.get("torch")
    # A thread may be in the middle of importing torch: then there is no module yet.
    module = getattr(getattr(torch, "nn", None), "Module", None)
    return module is not None and isinstance(value, module)


def walk(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, module), the model itself first as "", each module once."""
    seen: set[int] = set()
    waiting = [("", model)]
    while waiting:
        name, module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield name, module
        start = f"{name}." if name else ""
        # Reversed, so that the first child comes first off the end of the list.
        for child, part in reversed(module._modules.items()):
            if part is not None:
                waiting.append((start + child, part))


def parameters(model: Any) -> list[Any]:
    """Return the parameters, tied ones once; none for what is no module."""
    return Survey(model).parameters if is_module(model) else []


def named_parameters(model: Any) -> dict[str, Any]:
    """Return the parameters by dotted name; a tied one has the name at which it comes first."""
    return _named(model, "_parameters")


def named_tensors(model: Any) -> dict[str, Any]:
    """Return parameters and buffers by dotted name, each once."""
    return named_parameters(model) | _named(model, "_buffers")


def _named(model: Any, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for name, module in walk(model):
        for own, tensor in getattr(module, kind).items():
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                found[f"{name}.{own}" if name else own] = tensor
    return found


def dtype_name(tensor: Any) -> str:
    """Return torch's name of a tensor's dtype, e.g. "float16"."""
    return str(tensor.dtype).removeprefix("torch.")


def describe(model: Any, seen: Survey | None = None) -> dict[str, Any]:
    """Return device, dtype and bytes of ``model`` as they are, not as they were asked for.

    ``memory_usage`` is in bytes and counts the storages of parameters and buffers once each.
    ``marks`` tells later whether the parameters are still the same.
    """
    if not is_module(model):
        return {
            "device": "unknown",
            "dtype": "unknown",
            "memory_usage": 0,
            "memory_estimation_method": "unknown",
            "sizes": {},
        }
    seen = seen or Survey(model)
    sizes = seen.bytes_per_device()
    names = sorted(str(one).removeprefix("torch.") for one in seen.dtypes)
    return {
        "device": "+".join(sorted(sizes)) or "cpu",
        "dtype": "+".join(names) or "unknown",
        "memory_usage": sum(sizes.values()),
        "memory_estimation_method": "parameters_and_buffers",
        "sizes": sizes,
        "quantization": _quantization(model),
        "marks": seen.marks(),
    }


def _quantization(model: Any) -> str:
    """Return the method by which a model is quantized, "" for one that is not."""
    config = getattr(getattr(model, "config", None), "quantization_config", None)
    method = config.get("quant_method") if isinstance(config, dict) else None
    method = method or getattr(config, "quant_method", "")
    return str(getattr(method, "value", method))


def marks(model: Any) -> Marks | None:
    """Return what tells later whether the parameters have changed; None where nothing does."""
    return Survey(model).marks()


def fingerprint(model: Any) -> Mapping[str, Hashable]:
    """Return training flags, hooks, and each tensor's version, dtype, device and identity.

    A tensor's version counts its changes in place; nothing of its data is read, so this takes
    microseconds per layer.
    """
    if not is_module(model):
        return {}
    found: dict[str, Hashable] = {}
    for name, module in walk(model):
        hooks = len(module._forward_hooks) + len(module._forward_pre_hooks)
        found[f"{name or 'model'}: training"] = module.training
        found[f"{name or 'model'}: hooks"] = hooks
        for tensors in (module._parameters, module._buffers):
            for own, tensor in tensors.items():
                if tensor is not None:
                    # A tensor of inference mode counts no versions.
                    version = None if tensor.is_inference() else tensor._version
                    facts = (version, tensor.dtype, tensor.device, id(tensor))
                    found[f"{name}.{own}" if name else own] = facts
    return found


def elsewhere(model: Any, device: str) -> bool:
    """Whether any parameter or buffer is not on ``device``, by torch's name of it."""
    return not Survey(model).is_all_on(device)


def would_cast(model: Any, dtype: str) -> bool:
    """Whether a cast to ``dtype`` would change any parameter."""
    return any(
        p.is_floating_point() and dtype_name(p) != dtype and not _stays_float32(model, name, dtype)
        for name, p in named_parameters(model).items()
    )


def would_shrink(model: Any, dtype: str) -> bool:
    """Whether a cast to ``dtype`` makes the model smaller."""
    size = getattr(sys.modules["torch"], dtype).itemsize
    return any(p.is_floating_point() and p.element_size() > size for p in parameters(model))


def cast(model: Any, dtype: str) -> None:
    """Cast what ``from_pretrained(dtype=...)`` casts, and leave what it leaves.

    Buffers that are no part of the checkpoint (the frequencies of rotary embeddings) stay as
    they are: in half precision, the angles of later positions are wrong by a whole turn. So do
    the parameters that the model's class wants in float32.
    """
    wanted = getattr(sys.modules["torch"], dtype)
    stored = {*model.state_dict(keep_vars=True)}
    for name, tensor in named_tensors(model).items():
        if name in stored and tensor.is_floating_point() and not _stays_float32(model, name, dtype):
            tensor.data = tensor.data.to(wanted)


def _stays_float32(model: Any, name: str, dtype: str) -> bool:
    """Whether the class of ``model`` wants this parameter in float32, as transformers reads it."""
    kept = list(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    if dtype == "float16":
        kept += getattr(model, "_keep_in_fp32_modules", None) or ()
    parts = name.split(".")
    return any(part in parts for part in kept)
