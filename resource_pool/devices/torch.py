"""Placing torch modules and measuring them. torch is imported only once there is a module."""

from __future__ import annotations

import sys
from typing import Any

MB = 1024 * 1024


def is_module(value: Any) -> bool:
    """Whether ``value`` is a torch module. No import: a module cannot exist without torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def place(model: Any, device: str, dtype: str | None) -> str:
    """Move ``model`` to ``device`` and cast it to ``dtype``, in place.

    Args:
        model: any object; only torch modules are touched.
        device: torch's name, e.g. "cuda:0".
        dtype: torch's name, e.g. "float16", or None to keep the model's.

    Returns:
        Why the model was left as it is, or "" where it was placed.
    """
    if not is_module(model):
        return "it is not a torch module"
    if getattr(model, "hf_device_map", None):
        return "it has a device map of its own"
    if getattr(model, "is_quantized", False):
        return "it is quantized"
    import torch

    model.to(device=device, dtype=None if dtype is None else getattr(torch, dtype))
    return ""


def describe(model: Any) -> dict[str, Any]:
    """Return device, dtype and bytes of ``model`` as they are, not as they were asked for.

    ``memory_usage`` is in bytes and counts the storages of parameters and buffers once each;
    ``memory_estimation_method`` says so, or "unknown" for what is not a torch module.
    """
    if not is_module(model):
        return {
            "device": "unknown",
            "dtype": "unknown",
            "memory_usage": 0,
            "memory_estimation_method": "unknown",
        }
    tensors = [*model.parameters(), *model.buffers()]
    return {
        "device": _one_or_all({str(t.device) for t in tensors}) or "cpu",
        "dtype": _one_or_all({str(p.dtype).removeprefix("torch.") for p in model.parameters()})
        or "unknown",
        "memory_usage": _storage_bytes(tensors),
        "memory_estimation_method": "parameters_and_buffers",
    }


def _one_or_all(names: set[str]) -> str:
    return "+".join(sorted(names))


def _storage_bytes(tensors: list[Any]) -> int:
    """Sum the storages, each once: tied weights share one."""
    storages = {s.data_ptr() or id(s): s.nbytes() for s in (t.untyped_storage() for t in tensors)}
    return sum(storages.values())


def release_cached_memory() -> None:
    """Give the allocators' unused blocks back to the drivers."""
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def cuda_memory() -> dict[str, Any]:
    """Return the ``cuda_memory`` group of the statistics.

    A process that has not used CUDA is not made to: that would cost it hundreds of MB and
    forbid it to fork. It gets an empty list.
    """
    torch = sys.modules.get("torch")
    devices = []
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        devices = [_cuda_device(torch, index) for index in range(torch.cuda.device_count())]
    return {
        "device_count": len(devices),
        "devices": devices,
        "cuda_version": getattr(getattr(torch, "version", None), "cuda", None),
        "rocm_version": getattr(getattr(torch, "version", None), "hip", None),
    }


def _cuda_device(torch: Any, index: int) -> dict[str, Any]:
    free, total = torch.cuda.mem_get_info(index)
    percent = 100.0 * (total - free) / total
    return {
        "id": index,
        "name": torch.cuda.get_device_name(index),
        "total_mb": total / MB,
        "allocated_mb": torch.cuda.memory_allocated(index) / MB,
        "reserved_mb": torch.cuda.memory_reserved(index) / MB,
        "free_mb": free / MB,
        "percent_used": percent,
        "under_pressure": percent > 90.0,
        "utilization": None,  # needs NVML; unknown is said as unknown
        "tensor_cores": torch.cuda.get_device_capability(index) >= (7, 0)
        if torch.version.hip is None
        else None,
    }
